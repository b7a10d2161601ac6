//! The elevator that changes nothing: requests go down in the order of their arrival.
//!
//! For a disk whose backend sorts, or has nothing to gain from order. Requests that follow one
//! another on the disk as they do in time still become one, because that costs nobody any time.

use alloc::collections::VecDeque;

use super::{Batch, Elevator, Taken, Time, Waiting};

/// First come, first served.
#[derive(Debug)]
pub struct Noop {
    waiting: VecDeque<u16>,
}

impl Noop {
    /// Its name.
    pub const NAME: &str = "noop";

    /// For at most `capacity` requests that wait. Nothing is allocated later.
    pub fn new(capacity: usize) -> Self {
        Self { waiting: VecDeque::with_capacity(capacity) }
    }
}

impl Elevator for Noop {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn insert(&mut self, request: Waiting) {
        self.waiting.push_back(request.place);
    }

    fn take_batch(&mut self, batch: &mut dyn Batch, _: Time) {
        while let Some(&place) = self.waiting.front() {
            if batch.push(place) == Taken::Full {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn is_plain(&self) -> bool {
        true
    }
}
