//! All 2^32 values that a peer can write as its index.

use std::ops::RangeInclusive;

use ring::{Back, Broken, Front, Index, Layout};

use crate::torture::Flicker;
use crate::torture::counter::{HEADER, REQ_PROD, RSP_PROD};

const SLOTS: u32 = 32;
const LAYOUT: Layout = Layout::of_slots(SLOTS, 1);

/// Which half is lied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The front lies about `req_prod`.
    Back,
    /// The back lies about `rsp_prod`.
    Front,
}

/// A ring in which `busy` requests are with the back, and its indexes are at `consumed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Who is lied to.
    pub side: Side,
    /// How many messages that side has taken, modulo 2^32.
    pub consumed: u32,
    /// Requests that were taken and not answered (for a back), or are outstanding (for a front).
    pub busy: u32,
}

/// Positions at every kind of place: at the start, around the wrap, around the middle, at random.
pub fn positions(count: usize) -> impl Iterator<Item = Position> {
    let at: [u32; 8] =
        [u32::MAX - 3, 0, i32::MAX.cast_unsigned(), 1 << 31, u32::MAX, SLOTS - 1, 0x1234_5678, 31];
    let spread = (0..u32::MAX).map(|it| it.wrapping_mul(0x9e37_79b9));
    let busy = [0, 31, 32, 1, 17];
    let all = at.into_iter().chain(spread).zip(busy.into_iter().cycle()).take(count);
    all.flat_map(|(consumed, busy)| {
        [Side::Back, Side::Front].map(|side| Position { side, consumed, busy })
    })
}

impl Position {
    /// Tries every index in `alleged`; gives how many were believed.
    ///
    /// # Panics
    /// If one is believed that cannot be, or the reverse, or the refusal says anything untrue.
    pub fn try_all(self, alleged: RangeInclusive<u32>) -> u64 {
        let memory = Flicker::new(HEADER + SLOTS as usize, HEADER);
        match self.side {
            Side::Back => self.try_back(&memory, alleged),
            Side::Front => self.try_front(&memory, alleged),
        }
    }

    /// A back that has taken `busy` requests since it last answered.
    fn back(self, memory: &Flicker) -> Back<&Flicker> {
        memory.begin();
        memory.poke(RSP_PROD, self.consumed.wrapping_sub(self.busy));
        memory.poke(REQ_PROD, self.consumed);
        let mut back = Back::attach(memory, LAYOUT);
        for _ in 0..self.busy {
            assert_eq!(back.take(|_| ()), Ok(Some(())));
        }
        back
    }

    fn try_back(self, memory: &Flicker, alleged: RangeInclusive<u32>) -> u64 {
        let limit = SLOTS - self.busy;
        let mut back = self.back(memory);
        let mut believed = 0;
        for index in alleged {
            memory.poke(REQ_PROD, index);
            let found = back.take(|_| ());
            let distance = index.wrapping_sub(self.consumed);
            if distance == 0 {
                assert_eq!(found, Ok(None));
            } else if distance <= limit {
                assert_eq!(found, Ok(Some(())), "{self:?} {index}");
                believed += 1;
                back = self.back(memory);
            } else {
                assert_eq!(found, Err(self.broken(index, limit)), "{self:?}");
            }
        }
        believed
    }

    /// A front with `busy` requests outstanding.
    fn front(self, memory: &Flicker) -> Front<&Flicker> {
        memory.begin();
        let mut front = Front::starting_at(memory, LAYOUT, Index::new(self.consumed));
        for _ in 0..self.busy {
            assert_eq!(front.put(&[0]), Ok(()));
        }
        let _ = front.publish();
        front
    }

    fn try_front(self, memory: &Flicker, alleged: RangeInclusive<u32>) -> u64 {
        let mut front = self.front(memory);
        let mut believed = 0;
        for index in alleged {
            memory.poke(RSP_PROD, index);
            let found = front.take(|_| ());
            let distance = index.wrapping_sub(self.consumed);
            if distance == 0 {
                assert_eq!(found, Ok(None));
            } else if distance <= self.busy {
                assert_eq!(found, Ok(Some(())), "{self:?} {index}");
                believed += 1;
                front = self.front(memory);
            } else {
                assert_eq!(found, Err(self.broken(index, self.busy)), "{self:?}");
            }
        }
        believed
    }

    fn broken(self, alleged: u32, limit: u32) -> Broken {
        Broken { alleged: Index::new(alleged), consumed: Index::new(self.consumed), limit }
    }

    /// How many indexes are to be believed, of all there are.
    pub fn believable(self) -> u64 {
        u64::from(match self.side {
            Side::Back => SLOTS - self.busy,
            Side::Front => self.busy,
        })
    }
}
