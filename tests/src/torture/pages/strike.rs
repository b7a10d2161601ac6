//! What a front does to its ring while a session works on it.

use sim::Random;

use super::{Front, below};
use crate::torture::counter::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use crate::torture::{Attack, Tally};

/// Events for nothing, in a row.
const STORM: usize = 50;

impl Front<'_> {
    /// Lets the session work, disturbed in one way; tells whether it lives on.
    pub(super) fn strike(&mut self, random: &mut Random, how: Attack, tally: &mut Tally) -> bool {
        match how {
            Attack::None => {}
            Attack::Header => {
                for word in [REQ_EVENT, RSP_PROD, RSP_EVENT, 4, 7, 15] {
                    self.memory.poke(word, random.word());
                }
            }
            Attack::IndexAhead => return self.lie(random, tally),
            Attack::IndexBack => {
                let back = 1 + below(random, 1 << 20);
                self.memory.poke(REQ_PROD, self.first().wrapping_sub(back));
                return self.assert_broken(tally);
            }
            Attack::Storm => self.storm(tally),
            Attack::SlotsInFlight | Attack::JumpInFlight | Attack::MoreInFlight | Attack::Leave => {
                self.session.disk_mut().holding = true;
                self.turn(tally);
                self.session.disk_mut().holding = false;
                return self.disturb(random, how, tally);
            }
        }
        self.settle(tally);
        true
    }

    /// Wakes the session again and again, and nothing comes of it.
    fn storm(&mut self, tally: &mut Tally) {
        self.settle(tally);
        let answers = self.memory.peek(RSP_PROD);
        for _ in 0..STORM {
            self.turn(tally);
        }
        assert_eq!(self.memory.peek(RSP_PROD), answers, "answers to nothing");
    }

    /// While requests are with the disk.
    fn disturb(&mut self, random: &mut Random, how: Attack, tally: &mut Tally) -> bool {
        match how {
            Attack::SlotsInFlight => self.scribble(random),
            Attack::MoreInFlight => {
                let free = self.slots - self.asked();
                let more = below(random, free + 1);
                self.ask(random, more, tally);
            }
            Attack::JumpInFlight => return self.lie(random, tally),
            _ => {
                tally.left_in_flight += self.session.disk().waiting() as u64;
                return false;
            }
        }
        self.settle(tally);
        true
    }

    /// Overwrites slots of requests that have no answer, and free ones.
    fn scribble(&self, random: &mut Random) {
        let answered = self.memory.peek(RSP_PROD);
        let open = self.slots - answered.wrapping_sub(self.first());
        for nth in (0..open).take(40) {
            let place = self.place(answered.wrapping_add(nth));
            (place..place + self.slot_words).for_each(|word| self.memory.poke(word, random.word()));
        }
    }

    /// An index that is too far ahead, by one or by a lot.
    fn lie(&mut self, random: &mut Random, tally: &mut Tally) -> bool {
        let answered = self.memory.peek(RSP_PROD);
        let least = self.slots + 1;
        let ahead = match random.below(8) {
            // With requests at the disk this is one that their slots, taken for free, would allow.
            0..6 => least,
            6 => least + below(random, 1000),
            _ => random.word() | 1 << 31,
        };
        self.memory.poke(REQ_PROD, answered.wrapping_add(ahead));
        self.assert_broken(tally)
    }
}
