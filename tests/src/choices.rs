//! All ways in which something can go, one after another: where several things may happen next, a
//! run takes one of them, and the next run another, until all were taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The choices of one run, and which were taken before. Clones are the same choices.
#[derive(Clone, Default)]
pub struct Choices(Arc<Mutex<Way>>);

#[derive(Default)]
struct Way {
    /// What was chosen, of how many.
    taken: Vec<(usize, usize)>,
    /// How many choices this run has made.
    made: usize,
}

impl Choices {
    /// The first of `count` things that no run before took after the same choices.
    ///
    /// # Panics
    /// If the run is not the same as before, up to here; or if there is nothing to choose from.
    pub fn choose(&self, count: usize) -> usize {
        assert!(count > 0, "there is nothing to choose from");
        let mut way = self.lock();
        if way.made == way.taken.len() {
            way.taken.push((0, count));
        }
        let (chosen, of) = way.taken[way.made];
        assert_eq!(of, count, "the same choices lead to the same place");
        way.made += 1;
        chosen
    }

    /// Begins the next run; tells whether there is one.
    pub fn next_run(&self) -> bool {
        let mut way = self.lock();
        way.made = 0;
        while let Some((chosen, of)) = way.taken.pop() {
            if chosen + 1 < of {
                way.taken.push((chosen + 1, of));
                return true;
            }
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_taken_once() {
        let choices = Choices::default();
        let mut ways = Vec::new();
        loop {
            let first = choices.choose(3);
            let second = if first == 1 { choices.choose(2) } else { 0 };
            ways.push((first, second));
            if !choices.next_run() {
                break;
            }
        }
        assert_eq!(ways, [(0, 0), (1, 0), (1, 1), (2, 0)]);
    }
}
