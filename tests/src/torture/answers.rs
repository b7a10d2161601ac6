//! Hostile backs against a whole front: a disk completes only what is in flight, once and as what
//! it was; anything else ends it for good, and then every page comes back or is kept aside.

use std::collections::BTreeMap;

use blkfront::{Device, Disk, Fault, SubmitError, Tag, Wishes};
use blkif::{Operation, Status};
use ring::sync::Ordering;
use ring::{Memory, Page};
use sim::{Domain, Random, Sim};
use typed_arena::Arena;
use xen::{DomainId, GrantRef};

use crate::Liar;
use crate::torture::Tally;
use crate::torture::counter::{HEADER, REQ_PROD, RSP_PROD};
use crate::torture::lender::{Lender, Peer};
use crate::torture::wild::halves;

const POOL: usize = 40;
const SLOTS: u32 = 32;
const SLOT_WORDS: usize = 28;
/// A connection that is not found out ends after so many steps.
const STEPS_MAX: u64 = 400;

/// Xenstore with both directories in it, for one connection after the other.
pub struct House {
    guest: Domain,
    liar: Liar,
}

impl Default for House {
    fn default() -> Self {
        Self::new()
    }
}

impl House {
    /// A guest with one disk, whose back is in a domain of its own.
    pub fn new() -> Self {
        let sim = Sim::new(1);
        let liar = Liar::new(&sim, &sim.domain(DomainId::ZERO));
        liar.say(&[("feature-persistent", "1"), ("feature-flush-cache", "1")]);
        liar.say(&[("feature-discard", "1"), ("sectors", "1024")]);
        Self { guest: sim.domain(DomainId(5)), liar }
    }

    fn say(&self, state: &str) {
        self.liar.say(&[("state", state)]);
    }
}

/// What must come of the last thing that a back did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It was lawful.
    Nothing,
    /// Its index cannot be.
    BadIndex,
    /// It answered what was not asked.
    BadAnswer,
    /// Nobody knows: it wrote anywhere.
    Anything,
}

/// A disk with a hostile back, and what the model knows of both.
struct Scene<'a> {
    house: &'a House,
    lender: Lender<'a>,
    device: Device<Lender<'a>, Lender<'a>>,
    ring: &'a Page,
    flying: Vec<(Tag, Operation, usize)>,
    /// Pages of requests that have not completed.
    pages: usize,
    taken: u32,
    answered: u32,
    /// What was asked and not answered, as it stood in the ring, and how far that was read.
    asked: BTreeMap<u64, u8>,
    read: u32,
    due: Due,
}

/// Plays one connection from its start to its end.
///
/// # Panics
/// If the front does anything that no front may do.
pub fn play(house: &House, random: &mut Random, tally: &mut Tally) {
    let pages = Arena::new();
    let peer = Peer::new(random.next(), &pages);
    let mut scene = Scene::connect(house, Lender(&peer), random);
    tally.disks += 1;
    for _ in 0..STEPS_MAX {
        tally.steps += 1;
        scene.submit(random);
        scene.lie(random);
        let before = scene.flying.len();
        match scene.poll() {
            Ok(taken) => {
                assert!(taken <= before, "more completions than requests");
                assert!([Due::Nothing, Due::Anything].contains(&scene.due), "{:?}", scene.due);
            }
            Err(fault) => {
                tally.faults += 1;
                let found = match fault {
                    Fault::Ring(_) => Due::BadIndex,
                    Fault::UnknownId(_) | Fault::WrongOperation { .. } => Due::BadAnswer,
                };
                assert!([found, Due::Anything].contains(&scene.due), "{fault}: {:?}", scene.due);
                scene.assert_out_of_service(fault);
                break;
            }
        }
    }
    scene.end(random);
}

impl<'a> Scene<'a> {
    fn connect(house: &'a House, lender: Lender<'a>, random: &mut Random) -> Self {
        let wishes = Wishes { order: 0, pool_pages: POOL };
        house.say("2");
        let seam = (lender, lender);
        let mut device = Device::open(&house.guest, Liar::FRONT, seam, wishes).expect("a device");
        device.turn(&house.guest).expect("a turn");
        let node = house.liar.hears("ring-ref");
        let reference = node.and_then(|node| node.parse().ok()).expect("a reference");
        let ring = lender.granted(GrantRef(reference)).expect("granted");
        house.say("4");
        device.turn(&house.guest).expect("a turn");
        assert!(device.is_connected());
        let writes_anywhere = random.below(3) == 0;
        if writes_anywhere {
            // From here on it writes into a slot of the ring between any two accesses.
            let first = HEADER + random.below(SLOTS as usize - 2) * SLOT_WORDS;
            *lender.0.target.borrow_mut() = Some((ring, first, 2 * SLOT_WORDS));
        }
        Self {
            house,
            lender,
            device,
            ring,
            flying: Vec::new(),
            pages: 0,
            taken: 0,
            answered: 0,
            asked: BTreeMap::new(),
            read: 0,
            due: if writes_anywhere { Due::Anything } else { Due::Nothing },
        }
    }

    fn disk(&mut self) -> &mut Disk<Lender<'a>, Lender<'a>> {
        self.device.disk().expect("a connected device")
    }

    /// Some more requests, if there is room.
    fn submit(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            if self.disk().free_slots() == 0 {
                break;
            }
            let operation = Operation::ALL[random.below(4)];
            let sector = random.below(900) as u64;
            let (tag, pages) = match operation {
                Operation::Discard => (self.disk().discard(sector, 8), 0),
                Operation::Flush => (self.disk().flush(), 0),
                Operation::Read | Operation::Write => {
                    let length = 512 * (1 + random.below(24));
                    let Some(buffer) = self.disk().buffer(length) else { continue };
                    let pages = buffer.pages().len();
                    let taken = self.disk().submit(operation, sector, buffer);
                    (taken.map_err(|refused| refused.error), pages)
                }
            };
            self.flying.push((tag.expect("lawful"), operation, pages));
            self.pages += pages;
        }
        self.disk().kick();
    }

    fn word(&self, at: usize) -> u32 {
        self.ring.word(at).load(Ordering::Relaxed)
    }

    fn poke(&self, at: usize, value: u32) {
        self.ring.word(at).store(value, Ordering::Relaxed);
    }

    fn place(index: u32) -> usize {
        HEADER + (index % SLOTS) as usize * SLOT_WORDS
    }

    /// The back does one thing, mostly what it should.
    fn lie(&mut self, random: &mut Random) {
        let shown = self.word(REQ_PROD);
        let asked = shown.wrapping_sub(self.taken);
        // The index may be its own rubbish: it reads no further than a ring holds.
        while self.read != shown && self.read.wrapping_sub(self.taken) < SLOTS {
            let (id, operation) = self.request(self.read);
            self.asked.insert(id, operation);
            self.read = self.read.wrapping_add(1);
        }
        match random.below(512) {
            0 => self.show(random.word()),
            1 => self.show(self.answered.wrapping_add(asked).wrapping_add(1)),
            2 => self.show(self.answered.wrapping_sub(1)),
            3 => {
                self.poke(random.below(1024), random.word());
                self.due = Due::Anything;
            }
            4 => self.answer(random.next(), 0, 0),
            5 if asked > 0 => {
                // What stands in the slot, with one bit of the id flipped.
                let (id, operation) = self.take();
                self.answer(id ^ 1 << random.below(64), operation, 0);
            }
            6 if asked > 0 => {
                let (id, _) = self.take();
                self.answer(id, random.next().to_le_bytes()[0], 0);
            }
            7 if asked > 0 => {
                let (id, operation) = self.take();
                self.answer(id, operation, 0);
                self.answer(id, operation, 0);
            }
            8..30 => self.poke(1 + random.below(2) * 2, random.word()),
            30..80 => {}
            _ => {
                for _ in 0..asked.min(1 + u32::try_from(random.below(8)).unwrap_or(0)) {
                    let (id, operation) = self.take();
                    let status = [0, -1, -2][random.below(3)];
                    self.answer(id, operation, status);
                }
            }
        }
    }

    /// The next request's id and operation.
    fn take(&mut self) -> (u64, u8) {
        let next = self.request(self.taken);
        self.taken = self.taken.wrapping_add(1);
        next
    }

    /// The id and the operation of the request at an index.
    fn request(&self, index: u32) -> (u64, u8) {
        let place = Self::place(index);
        let id = u64::from(self.word(place + 2)) | u64::from(self.word(place + 3)) << 32;
        (id, self.word(place).to_le_bytes()[0])
    }

    /// Shows an index of answers that were never written.
    fn show(&mut self, index: u32) {
        self.poke(RSP_PROD, index);
        let open = self.read.wrapping_sub(self.answered);
        let far = index.wrapping_sub(self.answered) > open;
        self.worse(if far { Due::BadIndex } else { Due::Anything });
    }

    /// A bad index hides bad answers before it, because nothing is taken then.
    fn worse(&mut self, due: Due) {
        if self.due == Due::Nothing || (self.due, due) == (Due::BadAnswer, Due::BadIndex) {
            self.due = due;
        }
    }

    fn answer(&mut self, id: u64, operation: u8, status: i16) {
        let place = Self::place(self.answered);
        let due = if self.answered == self.read {
            Due::BadIndex
        } else if self.asked.get(&id) == Some(&operation) {
            self.asked.remove(&id);
            Due::Nothing
        } else {
            Due::BadAnswer
        };
        self.worse(due);
        self.answered = self.answered.wrapping_add(1);
        let [low, high] = halves(id);
        let [status_low, status_high] = status.to_le_bytes();
        let last = u32::from_le_bytes([operation, 0, status_low, status_high]);
        for (at, word) in [low, high, last, 0].into_iter().enumerate() {
            self.poke(place + at, word);
        }
        self.poke(RSP_PROD, self.answered);
    }

    /// Takes completions and holds each against what is in flight.
    fn poll(&mut self) -> Result<usize, Fault> {
        let mut taken = 0;
        loop {
            let accesses = self.lender.0.accesses.get();
            let completion = self.disk().poll()?;
            let cost = self.lender.0.accesses.get() - accesses;
            assert!(cost <= 4, "a poll looked at {cost} words");
            let Some(completion) = completion else { break };
            taken += 1;
            let at = self.flying.iter().position(|it| it.0 == completion.tag);
            let (_, operation, pages) = self.flying.swap_remove(at.expect("it is in flight"));
            assert_eq!(operation, completion.operation);
            assert_eq!(completion.buffer.as_ref().map_or(0, |it| it.pages().len()), pages);
            let known = [Status::Okay, Status::Error, Status::Unsupported];
            assert!(known.contains(&completion.status));
            self.pages -= pages;
            drop(completion);
            let (free, lent) = (self.disk().free_pages(), self.pages);
            assert_eq!(free + lent, POOL, "a page in flight was used again");
        }
        let _ = self.disk().rest()?;
        Ok(taken)
    }

    /// A fault is for ever, and pages in flight stay away.
    fn assert_out_of_service(&mut self, fault: Fault) {
        assert_eq!(self.disk().fault(), Some(fault));
        assert_eq!(self.disk().poll().err(), Some(fault));
        assert_eq!(self.disk().flush().err(), Some(SubmitError::Fault(fault)));
        self.disk().kick();
        let (free, lent) = (self.disk().free_pages(), self.pages);
        assert_eq!(free + lent, POOL, "a page in flight was used again");
        assert_eq!(self.disk().in_flight(), self.flying.len());
    }

    /// The back goes, and lets go of some of what it has, or of all.
    fn end(mut self, random: &mut Random) {
        *self.lender.0.target.borrow_mut() = None;
        self.lender.0.stuck.set(random.below(8) == 0);
        self.house.say("6");
        self.device.turn(&self.house.guest).expect("a turn");
        let closed = self.device.is_closed();
        assert!(closed || self.device.disk().is_some_and(|disk| disk.in_flight() > 0));
        let kept = self.device.pages_kept();
        let lender = self.lender;
        drop(self.device);
        let peer = lender.0;
        let kept_now = peer.kept.get();
        assert!(kept <= kept_now, "pages that were kept and not counted");
        assert_eq!((peer.out.get(), lender.grants()), (kept_now, kept_now));
        assert_eq!(peer.ports.get(), 0);
    }
}
