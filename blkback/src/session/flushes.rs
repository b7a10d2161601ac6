//! Which flush may begin: one that no earlier write is in flight for.
//!
//! A flush makes durable what has *completed*, so it is held back until every write that was taken
//! before it has. Later requests pass it by. The kernel's own ordering (`IOSQE_IO_DRAIN`) is not
//! used.

/// A flush that waits for earlier writes.
#[derive(Debug)]
struct Waiting {
    number: u32,
    sequence: u64,
    writes_before: usize,
}

/// The flushes that wait and the count of writes that they wait for.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    next_sequence: u64,
    writes: usize,
    waiting: Vec<Waiting>,
}

impl Flushes {
    /// A write was taken. Gives it its place in time.
    pub(super) fn write_taken(&mut self) -> u64 {
        self.writes += 1;
        self.tick()
    }

    /// The write that was taken at `sequence` has ended, one way or the other.
    pub(super) fn write_ended(&mut self, sequence: u64) {
        self.writes -= 1;
        for flush in self.waiting.iter_mut().filter(|flush| flush.sequence > sequence) {
            flush.writes_before -= 1;
        }
    }

    /// A flush was taken; `number` is given back by [`ready`](Self::ready) when its time has come.
    pub(super) fn flush_taken(&mut self, number: u32) {
        let sequence = self.tick();
        self.waiting.push(Waiting { number, sequence, writes_before: self.writes });
    }

    /// The next flush that has nothing to wait for any more.
    pub(super) fn ready(&mut self) -> Option<u32> {
        let at = self.waiting.iter().position(|flush| flush.writes_before == 0)?;
        Some(self.waiting.remove(at).number)
    }

    fn tick(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_the_writes_before_it_and_for_no_other() {
        let mut flushes = Flushes::default();
        let (first, second) = (flushes.write_taken(), flushes.write_taken());
        flushes.flush_taken(7);
        let later = flushes.write_taken();
        assert_eq!(flushes.ready(), None);
        flushes.write_ended(second);
        flushes.write_ended(later);
        assert_eq!(flushes.ready(), None);
        flushes.write_ended(first);
        assert_eq!(flushes.ready(), Some(7));
        assert_eq!(flushes.ready(), None);
    }

    #[test]
    fn flushes_without_writes_are_ready_at_once_and_in_order() {
        let mut flushes = Flushes::default();
        flushes.flush_taken(1);
        flushes.flush_taken(2);
        assert_eq!((flushes.ready(), flushes.ready(), flushes.ready()), (Some(1), Some(2), None));
    }
}
