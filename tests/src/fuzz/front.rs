//! Target `front`: the production device and disk of a guest whose back answers anything.
//!
//! A back is blamed for the first false answer and for nothing before it; what completes was
//! submitted, once, and with an answer that was given; a lie ends the disk for good, and no page in
//! flight is used again; the front's state 3 comes after its ring; when the back has let go, nothing
//! is lent.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use blkfront::elevator::{Elevators, Time};
use blkfront::{Completion, Device, Disk, Fault, Tag, Wishes};
use blkif::{Abi, FrontOffer, ORDER_MAX, Operation, Raw, Response, Status};
use sim::{Domain, Sim};
use xen::{DomainId, Store, StoreError, Transaction, XenbusState};

use super::Share;
use super::choices::Choices;
use crate::{Hook, Hooked, RawBack};

const GUEST: DomainId = DomainId(5);
const LIAR: DomainId = DomainId(7);
const FRONT: &str = "/local/domain/5/device/vbd/51712";
const BACK: &str = "/local/domain/7/backend/vbd/5/51712";
const SECTORS: u64 = 1024;
/// Pages for data.
const POOL: usize = 24;
/// Steps of an input, at most.
const STEPS_MAX: usize = 256;

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let mut stage = Stage::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        stage.step(&mut choices);
        stage.check_pages();
    }
    let honest = !stage.lied() && !stage.moved;
    stage.end();
    Share::one(honest)
}

struct Stage {
    sim: Sim,
    /// The guest's xenstore.
    store: Hooked<Witness>,
    liar: Domain,
    device: Device<Domain, Domain>,
    back: Option<RawBack>,
    /// What was submitted and has not completed, with the pages of its buffer.
    flights: BTreeMap<usize, (Tag, Operation, usize)>,
    /// What the back has taken and not answered.
    taken: Vec<Raw>,
    /// The ids of all that it has taken.
    ids: BTreeSet<u64>,
    /// The answers given so far, and which was the first that answered nothing.
    given: Vec<Response>,
    first_false: Option<usize>,
    /// The back may break the rules, and has written into the ring.
    may_lie: bool,
    poked: bool,
    /// It has said a state or a node that ends the connection.
    moved: bool,
    now: u64,
    fault: Option<Fault>,
}

/// A back that looks at the front's nodes before each of the front's operations.
struct Witness {
    liar: Domain,
    /// The last state that it saw.
    seen: Cell<XenbusState>,
}

impl Hook for Witness {
    fn pass(&self) -> Result<(), StoreError> {
        let node = |key: &str| {
            let path = format!("{FRONT}/{key}");
            self.liar.read(Transaction::NONE, &path).expect("the back may read")
        };
        let state = XenbusState::parse(node("state").as_deref());
        if self.seen.replace(state) != state && state == XenbusState::Initialised {
            FrontOffer::read(node, ORDER_MAX, Abi::X86_64).expect("a ring comes before state 3");
        }
        Ok(())
    }
}

/// The tool stack makes a directory.
fn make(
    dom0: &Domain,
    (folder, owner, reader): (&str, DomainId, DomainId),
    nodes: &[(&str, &str)],
) {
    dom0.write(Transaction::NONE, folder, "").expect("domain 0 may");
    dom0.permit(Transaction::NONE, folder, owner, reader).expect("domain 0 may");
    for (key, value) in nodes {
        let path = format!("{folder}/{key}");
        dom0.write(Transaction::NONE, &path, value).expect("domain 0 may");
    }
}

impl Stage {
    fn new(choices: &mut Choices<'_>) -> Self {
        let sim = Sim::new(0);
        let (dom0, guest, liar) = (sim.domain(DomainId::ZERO), sim.domain(GUEST), sim.domain(LIAR));
        let front = [("backend", BACK), ("backend-id", "7"), ("state", "1")];
        make(&dom0, (FRONT, GUEST, LIAR), &front);
        make(&dom0, (BACK, LIAR, GUEST), &[("state", "1")]);
        let wishes = Wishes { order: choices.of(&[0, 0, 1]), pool_pages: POOL };
        let seam = (guest.clone(), guest.clone());
        let device = Device::open(&guest, "device/vbd/51712", seam, wishes).expect("a device");
        let witness = Witness { liar: liar.clone(), seen: Cell::new(XenbusState::Unknown) };
        let mut stage = Self {
            sim,
            store: Hooked { domain: guest, hook: witness },
            liar,
            device,
            back: None,
            flights: BTreeMap::new(),
            taken: Vec::new(),
            ids: BTreeSet::new(),
            given: Vec::new(),
            first_false: None,
            may_lie: !choices.valid(),
            poked: false,
            moved: false,
            now: 0,
            fault: None,
        };
        stage.connect(choices);
        stage
    }

    /// The back does what makes the front connect.
    fn connect(&mut self, choices: &mut Choices<'_>) {
        self.say(&[("max-ring-page-order", "4"), ("state", "2")]);
        self.back = Some(RawBack::connect(&self.liar, GUEST, FRONT));
        let features = ["feature-persistent", "feature-flush-cache", "feature-discard"];
        let [persistent, flush, discard] =
            features.map(|feature| (feature, if choices.valid() { "1" } else { "0" }));
        let size = ("sector-size", choices.of(&["512", "512", "4096"]));
        self.say(&[persistent, flush, discard, ("sectors", "1024"), size, ("state", "4")]);
        assert!(self.device.is_connected());
    }

    /// The back writes its nodes, and the front looks.
    fn say(&mut self, nodes: &[(&str, &str)]) {
        for (key, value) in nodes {
            let path = format!("{BACK}/{key}");
            self.liar.write(Transaction::NONE, &path, value).expect("its own");
        }
        self.turn();
    }

    /// Whether the back has broken a rule of the ring.
    fn lied(&self) -> bool {
        self.poked || self.first_false.is_some()
    }

    fn turn(&mut self) {
        // What cannot be done now is tried again at the next turn.
        let _ = self.device.turn(&self.store);
        if self.device.disk().is_none() {
            self.flights.clear();
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(32) {
            0..8 => self.submit(choices),
            8..11 => self.with_disk(|disk| disk.kick()),
            11..15 => drop(self.take()),
            15..21 => self.answer(choices),
            21..25 => self.poll(),
            25 => self.rest(),
            26 | 27 => self.elevate(choices),
            28 | 29 if self.may_lie => self.lie(choices),
            30 | 31 => self.move_on(choices),
            _ => {}
        }
    }

    fn with_disk(&mut self, act: impl FnOnce(&mut Disk<Domain, Domain>)) {
        if let Some(disk) = self.device.disk() {
            act(disk);
        }
    }

    fn submit(&mut self, choices: &mut Choices<'_>) {
        let Some(disk) = self.device.disk() else { return };
        let lawful = choices.valid();
        let unit = usize::try_from(disk.geometry().sector_size / 512).expect("small");
        let whole = |it: usize| if lawful { it / unit * unit } else { it };
        let sectors = whole(1 + choices.below(88)).max(if lawful { unit } else { 1 });
        let sector = match lawful {
            true => whole(choices.below(usize::try_from(SECTORS).expect("small") - 88)) as u64,
            false => choices.number(SECTORS, &[0, SECTORS, u64::MAX]),
        };
        let kind = choices.below(16);
        let submitted = match kind {
            0 => disk.flush().map(|tag| (tag, Operation::Flush, 0)),
            1 => disk.discard(sector, sectors as u64).map(|tag| (tag, Operation::Discard, 0)),
            _ => {
                let operation = match kind {
                    2 => Operation::Flush,
                    3..9 => Operation::Write,
                    _ => Operation::Read,
                };
                let Some(buffer) = disk.buffer(sectors * 512) else { return };
                let pages = buffer.pages().len();
                let submitted = disk.submit(operation, sector, buffer);
                submitted.map(|tag| (tag, operation, pages)).map_err(|refused| refused.error)
            }
        };
        if let Ok((tag, operation, pages)) = submitted {
            assert!(self.fault.is_none(), "a broken disk takes requests");
            let before = self.flights.insert(tag.place(), (tag, operation, pages));
            assert!(before.is_none(), "a place is given twice");
        }
    }

    /// Takes the next request; tells whether there was one.
    fn take(&mut self) -> bool {
        let taken = self.back.as_mut().map_or(Ok(None), RawBack::take);
        // The front's index makes no sense to a back that has written into the ring.
        assert!(taken.is_ok() || self.poked || self.moved, "the front lies: {taken:?}");
        let Ok(Some(raw)) = taken else { return false };
        assert!(self.ids.insert(raw.id) || self.poked, "an answer given twice would answer this");
        self.taken.push(raw);
        true
    }

    /// An honest answer to one of those that wait.
    fn answer(&mut self, choices: &mut Choices<'_>) {
        if self.taken.is_empty() && !self.take() {
            return;
        }
        let at = choices.below(self.taken.len());
        let Raw { id, operation, .. } = self.taken[at];
        let status = choices.of(&[Status::Okay, Status::Okay, Status::Error, Status::Unsupported]);
        self.give(Response { id, operation, status });
    }

    /// Answers, if there is a slot for it, and notes whether it is an answer to something.
    fn give(&mut self, response: Response) {
        // What the back could have taken can be answered as well.
        while self.take() {}
        if self.back.as_mut().is_some_and(|back| back.answer(response)) {
            let right = |it: &Raw| (it.id, it.operation) == (response.id, response.operation);
            match self.taken.iter().position(right) {
                Some(at) => drop(self.taken.swap_remove(at)),
                None => drop(self.first_false.get_or_insert(self.given.len())),
            }
            self.given.push(response);
        }
    }

    /// How many answers the front has taken for true.
    fn believed(&mut self) -> usize {
        let responses = self.device.disk().map_or(0, |disk| disk.counters().responses);
        usize::try_from(responses).expect("a few")
    }

    fn poll(&mut self) {
        for _ in 0..=self.flights.len() {
            let Some(disk) = self.device.disk() else { return };
            match disk.poll() {
                Ok(None) => return,
                Ok(Some(completion)) => self.complete(completion),
                Err(fault) => return self.blame(fault),
            }
        }
        panic!("completions without end");
    }

    fn complete(&mut self, completion: Completion<Domain>) {
        let Completion { tag, operation, status, buffer } = completion;
        let flight = self.flights.remove(&tag.place()).expect("it was submitted");
        let pages = buffer.as_ref().map_or(0, |buffer| buffer.pages().len());
        assert_eq!(flight, (tag, operation, pages), "another's completion");
        // What never went down fails when the device closes.
        let same = |response: &Response| response.status == status;
        let given = self.given.iter().any(same) || (self.moved && status == Status::Error);
        assert!(self.lied() || given, "an answer that was not given: {status:?}");
        let (believed, first_false) = (self.believed(), self.first_false.unwrap_or(usize::MAX));
        assert!(self.poked || believed <= first_false, "a false answer is believed");
    }

    fn blame(&mut self, fault: Fault) {
        let believed = self.believed();
        let at_fault = self.first_false == Some(believed);
        assert!(self.poked || at_fault, "an honest answer is blamed: {fault}");
        assert!(self.fault.is_none_or(|before| before == fault), "another fault than before");
        self.fault = Some(fault);
    }

    fn rest(&mut self) {
        if let Some(Err(fault)) = self.device.disk().map(Disk::rest) {
            self.blame(fault);
        }
    }

    fn elevate(&mut self, choices: &mut Choices<'_>) {
        if choices.rarely(3) {
            let elevators = Elevators::new();
            let chosen = elevators.find(choices.of(&["noop", "deadline"])).expect("a name of one");
            self.device.set_elevator(chosen);
        }
        self.device.tune(choices.below(8), choices.word().into());
        self.now += u64::from(choices.byte());
        let now = Time::default().after_ms(self.now);
        self.with_disk(|disk| disk.at(now));
    }

    /// An answer to nothing, to something else, a second one, or a word anywhere in the ring.
    fn lie(&mut self, choices: &mut Choices<'_>) {
        let Some(back) = &self.back else { return };
        let status = Status::Okay;
        match choices.below(8) {
            0 => {
                back.poke(choices.below(4), choices.byte().into());
                self.poked = true;
            }
            1 => {
                back.poke(choices.below(64), choices.word());
                self.poked = true;
            }
            2 => {
                let id = if choices.valid() { choices.byte().into() } else { choices.double() };
                self.give(Response { id, operation: choices.of(&[0, 1, 3, 5, 6]), status });
            }
            3..6 => {
                // One of the last few once more, whose place may be another's by now.
                let least = self.given.len().saturating_sub(8);
                if let Some(last) = self.given.len().checked_sub(least + 1) {
                    self.give(self.given[least + choices.below(last + 1)]);
                }
            }
            kind => {
                if let Some(&Raw { id, operation, .. }) = self.taken.first() {
                    let response = match kind {
                        6 => Response { id, operation: choices.byte(), status },
                        _ => Response { id: id ^ 1 << choices.below(64), operation, status },
                    };
                    self.give(response);
                }
            }
        }
    }

    /// The back says something in xenstore.
    fn move_on(&mut self, choices: &mut Choices<'_>) {
        match choices.below(4) {
            0 => {
                let sizes = &["2048", "1024", "8", "0", "", "x"];
                let sectors = choices.of(&sizes[..if self.may_lie { 6 } else { 2 }]);
                self.moved |= sectors.parse::<u64>().is_err();
                self.say(&[("sectors", sectors), ("state", "4")]);
            }
            1 => self.turn(),
            2 if self.may_lie && choices.rarely(4) => {
                let state = choices.of(&["5", "3", "7", "1", "2", "6", "0", "", "x"]);
                self.moved = true;
                // A back that is done, or is another one, has let go of everything.
                if let Some(back) = self.back.take_if(|_| !["3", "5", "7"].contains(&state)) {
                    back.disconnect();
                    self.taken.clear();
                }
                self.say(&[("state", state)]);
            }
            _ => {}
        }
    }

    /// No page is in two hands.
    fn check_pages(&mut self) {
        let busy: usize = self.flights.values().map(|flight| flight.2).sum();
        let count = self.flights.len();
        self.with_disk(|disk| {
            assert_eq!(disk.in_flight(), count);
            assert_eq!(disk.free_pages() + busy, POOL, "a page was lost or is used twice");
        });
    }

    /// The back lets go, and says so.
    fn end(mut self) {
        if let Some(back) = self.back.take() {
            back.disconnect();
        }
        self.moved = true;
        for state in ["5", "6"] {
            self.say(&[("state", state)]);
            self.poll();
        }
        self.turn();
        assert_eq!(self.device.pages_kept(), 0, "pages were given up");
        drop(self.device);
        let audit = self.sim.audit();
        assert!(audit.is_clean(), "left behind:\n{audit}");
    }
}
