//! What a session may do with a hostile page, and what it may cost.

use blkback::Turn;

use super::Front;
use crate::torture::Tally;
use crate::torture::counter::RSP_PROD;

impl Front<'_> {
    /// Sectors that the disk has read, written and discarded so far.
    pub(super) fn figures(&self) -> [u64; 3] {
        let disk = self.session.disk();
        [disk.read, disk.written, disk.discarded]
    }

    /// The ring is given up.
    pub(super) fn assert_broken(&mut self, tally: &mut Tally) -> bool {
        let broken = self.session.turn().expect_err("an index that cannot be");
        assert!(broken.limit <= self.slots, "{broken}");
        tally.broken += 1;
        false
    }

    /// One turn, which costs a bounded amount.
    pub(super) fn turn(&mut self, tally: &mut Tally) -> Turn {
        let (loads, stores) = self.memory.accesses();
        let (asked, jobs) = (self.yard.asked.work(), self.session.disk().jobs);
        let turn = self.session.turn().expect("a sound index");
        let (now_loads, now_stores) = self.memory.accesses();
        let (fetched, stored) = (now_loads - loads, now_stores - stores);
        let slots = u64::from(self.slots);
        // Each slot once, and the index after each batch that has come meanwhile.
        assert!(fetched <= slots * self.slot_words as u64 + slots + 8, "{fetched} words fetched");
        assert!(stored <= slots * 4 + 2, "{stored} words stored");
        // Once for all together, once for each when that was refused, and its calls and one event.
        let asked = self.yard.asked.work() - asked;
        // Descriptors are asked for one page at a time.
        let segments = u64::from(self.terms.indirect).max(11);
        let most = slots * (segments * 2 + 1 + 2) + 3;
        assert!(asked <= most, "{asked} things asked of the hypervisor");
        // A flush with data is two jobs, and one job that failed may come again.
        let jobs = self.session.disk().jobs - jobs;
        assert!(jobs <= slots * 3 + 1, "{jobs} jobs");
        tally.turn(fetched + stored + asked + jobs);
        turn
    }

    /// Turns until nothing is left to do, of which there is a bounded number.
    pub(super) fn settle(&mut self, tally: &mut Tally) {
        let most = self.slots * 4 + 4;
        for _ in 0..most {
            let turn = self.turn(tally);
            if turn == Turn::Idle && self.session.pending() == 0 {
                return;
            }
        }
        panic!("{} requests pending after {most} turns", self.session.pending());
    }

    /// Each request was answered once, with the status that is lawful for it.
    pub(super) fn assert_answered(&mut self, tally: &mut Tally) {
        let (first, count) = (self.first(), self.asked());
        assert_eq!(self.memory.peek(RSP_PROD), self.index, "every request is answered");
        self.found.clear();
        for nth in 0..count {
            let place = self.place(first.wrapping_add(nth));
            let [low, high, last] = [0, 1, 2].map(|at| u64::from(self.memory.peek(place + at)));
            let [operation, pad, a, b, ..] = last.to_le_bytes();
            assert_eq!(pad, 0, "padding that is not ours to fill");
            let status = i16::from_le_bytes([a, b]);
            tally.status(status);
            self.found.push((low | high << 32, operation, status));
        }
        self.found.sort_unstable();
        self.expected.sort_unstable();
        for (found, expected) in self.found.iter().zip(&self.expected) {
            let status = expected.2.unwrap_or(found.2);
            assert_eq!(*found, (expected.0, expected.1, status));
            assert!([0, -1].contains(&found.2) || expected.2.is_some());
        }
    }

    /// The disk moved what the lawful requests said, and nothing else.
    pub(super) fn assert_moved(&self, before: [u64; 3]) {
        if self.failing {
            return;
        }
        let now = self.figures();
        let [read, written, discarded] = [0, 1, 2].map(|at| now[at] - before[at]);
        assert_eq!([written, discarded], self.moved[1..], "sectors written and discarded");
        // For a front that keeps no grants, only after a read is it known that nobody gets it.
        assert!(
            read == self.moved[0] || (!self.persistent && read > self.moved[0]),
            "sectors read"
        );
    }
}
