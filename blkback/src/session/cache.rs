//! Granted pages that stay mapped because both sides agreed that they may.
//!
//! Keyed by grant reference, bounded by what an honest front can have in flight, least recently
//! used goes first. Pages that were mapped by one call are unmapped together (the kernel knows
//! them as one range), so whole groups come and go. It must never give out a page under another
//! reference than the one that it was mapped by.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use xen::GrantRef;

/// Pages that were mapped by one call.
#[derive(Debug)]
struct Group {
    members: Vec<GrantRef>,
    last_used: u64,
}

/// Mapped pages by grant reference.
#[derive(Debug)]
pub(super) struct Cache<P> {
    pages: HashMap<GrantRef, (P, usize)>,
    /// Groups by number; those that are gone have no members.
    groups: Vec<Group>,
    free: Vec<usize>,
    /// Each group once, by when it was used last or before that: a use moves nothing here. Whoever
    /// makes room puts right what has been used since.
    by_age: BinaryHeap<Reverse<(u64, usize)>>,
    pages_max: usize,
    now: u64,
}

impl<P: Clone> Cache<P> {
    pub(super) fn new(pages_max: usize) -> Self {
        Self {
            pages: HashMap::new(),
            groups: Vec::new(),
            free: Vec::new(),
            by_age: BinaryHeap::new(),
            pages_max,
            now: 0,
        }
    }

    /// A new turn begins: what is used from now on is younger than all before.
    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// The page of a reference, which is used now.
    pub(super) fn find(&mut self, reference: GrantRef) -> Option<P> {
        let (page, number) = self.pages.get(&reference)?;
        self.groups[*number].last_used = self.now;
        Some(page.clone())
    }

    /// Keeps pages that were mapped together. None of the references is here already.
    pub(super) fn insert(&mut self, members: &[GrantRef], pages: Vec<P>) {
        let group = Group { members: members.to_vec(), last_used: self.now };
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number] = group;
                number
            }
            None => {
                self.groups.push(group);
                self.groups.len() - 1
            }
        };
        for (&reference, page) in members.iter().zip(pages) {
            self.pages.insert(reference, (page, number));
        }
        self.by_age.push(Reverse((self.now, number)));
    }

    /// Lets go of the least recently used groups until there is room for `count` more pages, but
    /// of none that was used in this turn. A page still used by a job stays mapped until that ends.
    pub(super) fn make_room(&mut self, count: usize) {
        while self.pages.len() + count > self.pages_max {
            let Some(Reverse((noted, number))) = self.by_age.pop() else { return };
            let last_used = self.groups[number].last_used;
            if noted < last_used {
                self.by_age.push(Reverse((last_used, number)));
                continue;
            }
            if last_used == self.now {
                self.by_age.push(Reverse((last_used, number)));
                return;
            }
            for reference in std::mem::take(&mut self.groups[number].members) {
                self.pages.remove(&reference);
            }
            self.free.push(number);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refs(numbers: &[u32]) -> Vec<GrantRef> {
        numbers.iter().copied().map(GrantRef).collect()
    }

    #[test]
    fn the_least_recently_used_group_makes_room_and_one_in_use_never_does() {
        let mut cache = Cache::new(4);
        cache.tick();
        cache.insert(&refs(&[1, 2]), vec!["a", "b"]);
        cache.tick();
        cache.insert(&refs(&[3, 4]), vec!["c", "d"]);
        cache.tick();
        assert_eq!(cache.find(GrantRef(1)), Some("a"));
        cache.make_room(2);
        assert_eq!(cache.find(GrantRef(1)), Some("a"));
        assert_eq!(cache.find(GrantRef(3)), None);
        cache.insert(&refs(&[5, 6]), vec!["e", "f"]);
        cache.make_room(2);
        assert_eq!(cache.len(), 4);
        cache.tick();
        cache.make_room(2);
        assert_eq!(cache.len(), 2);
    }

    fn processor_time() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap()
    }

    /// What it costs to make room by letting go of `count` groups of one page: the least of some
    /// tries.
    fn cost_of_room(count: u32) -> Duration {
        let once = || {
            let mut cache = Cache::new(count as usize);
            for reference in 0..count {
                cache.tick();
                cache.insert(&refs(&[reference]), vec!['a']);
            }
            cache.tick();
            let start = processor_time();
            cache.make_room(count as usize);
            assert_eq!(cache.len(), 0);
            processor_time() - start
        };
        (0..5).map(|_| once()).min().unwrap()
    }

    #[test]
    fn making_room_costs_in_proportion_to_the_room_and_not_to_its_square() {
        let (some, eight_times) = (cost_of_room(500), cost_of_room(4000));
        assert!(eight_times < some * 28, "{eight_times:?} for 4000 and {some:?} for 500");
    }
}
