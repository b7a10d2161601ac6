//! What we asked and have no answer to yet: a bounded table.
//!
//! A response is believed only if its id is one that we gave out, made visible, and have no answer
//! to yet, and its operation is the one that was asked. Ids carry a generation, so that an answer given twice is
//! found out even when its place has been used again.

use alloc::boxed::Box;
use alloc::vec::Vec;

use blkif::Operation;

/// A request of ours, by a number that no other one has: on the ring as its id, and above it
/// for whoever submitted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u64);

/// Low bits of a tag: its place in the table.
const PLACE_BITS: u32 = 16;

impl Tag {
    pub(crate) fn new(place: u16, generation: u64) -> Self {
        Self(generation << PLACE_BITS | u64::from(place))
    }

    /// What follows a generation, within the bits that a tag has for it.
    pub(crate) const fn next_generation(generation: u64) -> u64 {
        generation.wrapping_add(1) & (u64::MAX >> PLACE_BITS)
    }

    pub(crate) const fn id(self) -> u64 {
        self.0
    }

    /// A number below the disk's capacity that no other request has now: for tables of what belongs
    /// to a request.
    pub fn place(self) -> usize {
        let [low, high, ..] = self.0.to_le_bytes();
        usize::from(u16::from_le_bytes([low, high]))
    }
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonsense {
    /// Its id is none that is in flight.
    UnknownId,
    /// The request of that id was for another operation.
    WrongOperation,
}

struct Entry<T> {
    generation: u64,
    /// The round of the table when the request was put.
    round: u64,
    waiting: Option<(Operation, T)>,
}

/// A table of at most 512 requests in flight, each with what belongs to it.
pub(crate) struct Inflight<T> {
    entries: Box<[Entry<T>]>,
    free: Vec<u16>,
    /// How often requests were made visible: those of this round were not yet.
    round: u64,
}

impl<T> Inflight<T> {
    /// An empty table for a ring of `slots` slots.
    pub(crate) fn new(slots: u16) -> Self {
        let entry = |_| Entry { generation: 0, round: 0, waiting: None };
        let free = (0..slots).rev().collect();
        Self { entries: (0..slots).map(entry).collect(), free, round: 0 }
    }

    /// How many requests are in flight.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The tag for the next request, if there is room for one.
    pub(crate) fn next(&self) -> Option<Tag> {
        let place = *self.free.last()?;
        Some(Tag::new(place, self.entries[usize::from(place)].generation))
    }

    /// Notes what was asked under the tag that [`next`](Self::next) gave.
    pub(crate) fn begin(&mut self, tag: Tag, operation: Operation, value: T) {
        assert_eq!(self.next(), Some(tag), "the tag is the next one");
        self.free.pop();
        let entry = &mut self.entries[tag.place()];
        entry.round = self.round;
        entry.waiting = Some((operation, value));
    }

    /// Notes that every request begun so far is visible to the back.
    pub(crate) const fn announce(&mut self) {
        self.round += 1;
    }

    /// Ends the request that a response alleges to answer. On nonsense nothing changes.
    pub(crate) fn end(&mut self, id: u64, operation: u8) -> Result<(Tag, Operation, T), Nonsense> {
        let tag = Tag(id);
        let entry = self.entries.get_mut(tag.place()).ok_or(Nonsense::UnknownId)?;
        let place = u16::try_from(tag.place()).map_err(|_| Nonsense::UnknownId)?;
        if Tag::new(place, entry.generation) != tag || entry.round == self.round {
            return Err(Nonsense::UnknownId);
        }
        let (asked, value) = entry.waiting.take().ok_or(Nonsense::UnknownId)?;
        if asked.wire() != operation {
            entry.waiting = Some((asked, value));
            return Err(Nonsense::WrongOperation);
        }
        entry.generation = Tag::next_generation(entry.generation);
        self.free.push(place);
        Ok((tag, asked, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(table: &mut Inflight<u32>, value: u32) -> Tag {
        let tag = table.next().unwrap();
        table.begin(tag, Operation::Read, value);
        table.announce();
        tag
    }

    #[test]
    fn a_table_holds_as_many_requests_as_the_ring_and_no_more() {
        let mut table = Inflight::new(32);
        let tags: Vec<Tag> = (0..32).map(|value| begun(&mut table, value)).collect();
        assert_eq!((table.len(), table.next()), (32, None));
        for (value, tag) in (0..32).zip(tags) {
            assert_eq!(table.end(tag.id(), 0), Ok((tag, Operation::Read, value)));
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn an_id_that_was_never_given_out_is_nonsense() {
        let mut table = Inflight::new(32);
        let tag = begun(&mut table, 1);
        for bit in 0..64 {
            let id = tag.id() ^ 1 << bit;
            assert_eq!(table.end(id, 0), Err(Nonsense::UnknownId), "bit {bit}");
        }
        assert_eq!(table.end(u64::MAX, 0), Err(Nonsense::UnknownId));
        assert_eq!(table.end(tag.id(), 0), Ok((tag, Operation::Read, 1)));
    }

    #[test]
    fn an_answer_to_a_request_that_was_not_made_visible_is_nonsense() {
        let mut table = Inflight::new(4);
        begun(&mut table, 1);
        let tag = table.next().unwrap();
        table.begin(tag, Operation::Read, 2);
        assert_eq!(table.end(tag.id(), 0), Err(Nonsense::UnknownId));
        table.announce();
        assert_eq!(table.end(tag.id(), 0), Ok((tag, Operation::Read, 2)));
    }

    #[test]
    fn an_answer_given_twice_is_nonsense_even_when_its_place_is_in_use_again() {
        let mut table = Inflight::new(1);
        let first = begun(&mut table, 1);
        table.end(first.id(), 0).unwrap();
        assert_eq!(table.end(first.id(), 0), Err(Nonsense::UnknownId));
        let second = begun(&mut table, 2);
        assert_eq!(first.place(), second.place());
        assert_eq!(table.end(first.id(), 0), Err(Nonsense::UnknownId));
        assert_eq!(table.end(second.id(), 0), Ok((second, Operation::Read, 2)));
    }

    #[test]
    fn an_answer_to_another_operation_is_nonsense_for_each_of_255() {
        let mut table = Inflight::new(4);
        let tag = begun(&mut table, 1);
        for operation in 1..=u8::MAX {
            assert_eq!(table.end(tag.id(), operation), Err(Nonsense::WrongOperation));
        }
        assert_eq!(table.len(), 1);
        assert!(table.end(tag.id(), 0).is_ok());
    }

    #[test]
    fn generations_wrap_without_touching_the_place() {
        let mut table = Inflight::new(4);
        table.entries[0].generation = u64::MAX >> PLACE_BITS;
        let tag = begun(&mut table, 1);
        table.end(tag.id(), 0).unwrap();
        assert_eq!(begun(&mut table, 2), Tag(0));
    }
}
