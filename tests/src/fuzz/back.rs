//! Target `back`: the production session on the ring of a front that says and does anything.
//!
//! Every request gets its one answer, which is the protocol's; no sector of the disk and no part of
//! a page is touched that an accepted request does not name; a turn is bounded; in the end nothing
//! is mapped.

use std::cell::Cell;

use blkback::Turn;
use blkif::Response;
use ring::{Index, Memory};
use sim::{OwnPage, Sim};
use xen::{DomainId, GrantRef};

use super::Share;
use super::choices::Choices;
use super::request::{described, fill};
use crate::oracle::{ERROR, Terms, Verdict, Work, judge};
use crate::torture::counter::agreed;
use crate::torture::wild::{Descriptors, SLOT_WORDS, Slot, Wild};
use crate::{Manners, Platter, RawFront, Service, serve};

/// Sectors of the disk.
const SECTORS: usize = 128;
/// Pages that the front lends.
const BUFFERS: usize = 6;
/// Steps of an input, at most.
const STEPS_MAX: usize = 256;
/// Turns that any ring full of requests takes, at most: each turn ends what it began, but for what
/// waits for a flush and for what has to be tried again alone.
const TURNS_MAX: usize = 1000;
/// `BLKIF_OP_READ`, which alone changes pages and not the disk.
const READ: u8 = 0;
const GUEST: DomainId = DomainId(5);

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let mut stage = Stage::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() || stage.service.is_none() {
            break;
        }
        stage.step(&mut choices);
    }
    let share = stage.share;
    stage.end();
    share
}

/// A request without an answer, and the one that it gets: id, operation, and status.
type Asked = (u64, u8, i16);

struct Stage {
    sim: Sim,
    front: RawFront,
    service: Option<Service>,
    platter: Platter,
    terms: Terms,
    /// The first of the front's buffers.
    first: GrantRef,
    /// The grants that can be used, with the number of the page.
    good: Vec<(usize, GrantRef)>,
    /// The page of descriptors, and what is in it.
    descriptors: GrantRef,
    described: Descriptors,
    /// Pages whose grants were taken back, by their number.
    kept: Vec<(usize, OwnPage)>,
    asked: Vec<Asked>,
    answered: u64,
    share: Share,
    /// Sectors of the disk that were named by a request that changes them.
    disk_touched: [bool; SECTORS],
    /// The same of the front's pages.
    pages_touched: Vec<[bool; 8]>,
    /// Something may fail that is lawful: the disk, or a grant that was taken back.
    unsure: bool,
    /// The front may write where only its ring does, and it did.
    liar: bool,
    lied: bool,
    stopped: bool,
}

/// What stands at the begin and at the end of a sector, and of a part of a page, before anything
/// happens: whoever writes there writes all of it.
fn mark(place: usize) -> [u8; 8] {
    (!place as u64).to_le_bytes()
}

/// Where the marks are.
const MARKS: [usize; 2] = [0, 512 - 8];

/// Marks the pages, and makes a disk with marks.
fn marked(front: &RawFront, good: &[(usize, GrantRef)]) -> Platter {
    for &(number, reference) in good {
        let page = front.page(reference);
        for (part, at) in (0..8).flat_map(|part| MARKS.map(|at| (part, at))) {
            page.write(part * 512 + at, &mark(number * 8 + part));
        }
    }
    let platter = Platter::new(SECTORS);
    let mut sector = [0; 512];
    for number in 0..SECTORS {
        MARKS.iter().for_each(|&at| sector[at..at + 8].copy_from_slice(&mark(number)));
        platter.write(number, &sector);
    }
    platter
}

impl Stage {
    fn new(choices: &mut Choices<'_>) -> Self {
        let wide = choices.of(&[true, false]);
        let order = choices.of(&[0, 0, 0, 1]);
        let start = Index::new(0_u32.wrapping_sub(choices.byte().into()));
        let terms = Terms {
            wide,
            sectors: SECTORS as u64,
            unit: choices.of(&[1, 1, 1, 8]),
            read_only: choices.rarely(16),
            flush: !choices.rarely(16),
            discard: !choices.rarely(16),
            indirect: choices.of(&[0, 32]),
        };
        let (geometry, agreed) = agreed(&terms, order, choices.of(&[true, false]));
        let liar = !choices.valid();
        let sim = Sim::new(0);
        let guest = sim.domain(GUEST);
        let mut front = RawFront::lend(&guest, "", DomainId::ZERO, agreed.abi, (order, start));
        let descriptors = front.buffer();
        let good: Vec<_> = (0..BUFFERS).map(|_| front.buffer()).enumerate().collect();
        let grants = (good[0].1.0, u32::try_from(BUFFERS).expect("a few"));
        let wild = Wild { terms: &terms, grants, segments_max: 11, descriptors: None };
        let described = described(choices, &wild).unwrap_or([0; _]);
        front.page(descriptors).store_all(0, &described);
        let platter = marked(&front, &good);
        if geometry.read_only() {
            platter.protect();
        }
        let seed = choices.byte().into();
        let service = serve(&sim, (GUEST, &front), (&platter, seed), (agreed, geometry));
        Self {
            front,
            service: Some(service),
            platter,
            terms,
            first: good[0].1,
            good,
            descriptors,
            described,
            kept: Vec::new(),
            asked: Vec::new(),
            answered: 0,
            share: Share::default(),
            disk_touched: [false; SECTORS],
            pages_touched: vec![[false; 8]; BUFFERS],
            unsure: false,
            liar,
            lied: false,
            stopped: false,
            sim,
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(32) {
            0..14 | 15 => self.ask(choices),
            14 => self.put(&std::array::from_fn(|_| choices.word())),
            16..19 => self.front.publish(),
            19..24 => drop(self.turn()),
            24..26 => self.take_answers(),
            26 => self.platter.hold(),
            27 => self.platter.release(),
            28 => self.fail(choices),
            29 if choices.rarely(4) => self.revoke(choices),
            30 if self.liar => self.lie(choices),
            31 => self.stop(choices),
            _ => {}
        }
    }

    /// Puts a request into the ring that is mostly lawful.
    fn ask(&mut self, choices: &mut Choices<'_>) {
        let count = u32::try_from(BUFFERS).expect("a few");
        let grants = (self.first.0, count);
        let described = self.described;
        let mut wild = Wild { terms: &self.terms, grants, segments_max: 11, descriptors: None };
        if self.terms.indirect > 0 {
            wild.descriptors = Some((self.descriptors.0, &described));
        }
        let mut slot = [0; SLOT_WORDS];
        fill(choices, &wild, &mut slot);
        self.put(&slot);
    }

    /// Puts a request into the ring and notes what it asks for.
    fn put(&mut self, slot: &Slot) {
        let slot = &slot[..self.front.abi().layout(0).slot_words()];
        let bytes: Vec<u8> = slot.iter().copied().flat_map(u32::to_le_bytes).collect();
        let described: Vec<u8> = self.described.into_iter().flat_map(u32::to_le_bytes).collect();
        let elsewhere = Cell::new(false);
        let page = |it| {
            // What is in the others comes from the disk and from whoever lies.
            elsewhere.set(self.is_lent(GrantRef(it)));
            (GrantRef(it) == self.descriptors).then_some(&described[..])
        };
        let Verdict { id, operation, work } = judge(&bytes, &self.terms, page);
        // The ring's own pages may be used as any other, which would ruin the ring; and so may that
        // of descriptors.
        let ruined = |&(it, ..): &(u32, u8, u8)| {
            self.front.references().contains(&GrantRef(it)) || GrantRef(it) == self.descriptors
        };
        let ruins = work.as_ref().is_ok_and(|it| it.segments[..it.count].iter().any(ruined));
        if elsewhere.get() || ruins || !self.front.put(slot) {
            return;
        }
        let status = match &work {
            Err(status) => *status,
            Ok(work) => self.touch(operation, work),
        };
        self.asked.push((id, operation, status));
        self.share += Share::one(status == 0);
    }

    /// Whether a page of data or of the ring has this grant.
    fn is_lent(&self, reference: GrantRef) -> bool {
        self.page(reference.0).is_some() || self.front.references().contains(&reference)
    }

    /// The number of the page behind a grant that can be used.
    fn page(&self, reference: u32) -> Option<usize> {
        self.good.iter().find(|good| good.1.0 == reference).map(|good| good.0)
    }

    /// Notes where a lawful request changes something, and tells what comes of its grants.
    fn touch(&mut self, operation: u8, work: &Work) -> i16 {
        let used = &work.segments[..work.count];
        let good = used.iter().all(|segment| self.page(segment.0).is_some());
        if operation == READ {
            // With grants that can be copied to and others that cannot, it is done in part.
            for &(reference, first, last) in used {
                if let Some(page) = self.page(reference) {
                    self.pages_touched[page][usize::from(first)..=last.into()].fill(true);
                }
            }
        } else if good {
            let index = |it: u64| usize::try_from(it).expect("on the disk");
            self.disk_touched[index(work.sector)..index(work.sector + work.sectors)].fill(true);
        }
        if good { 0 } else { ERROR }
    }

    fn turn(&mut self) -> Option<Turn> {
        let service = self.service.as_mut()?;
        let before = service.counters().requests;
        match service.turn() {
            Ok(turn) => {
                let slots = u64::from(self.front.slots());
                assert!(service.counters().requests - before <= slots, "more than a ring full");
                Some(turn)
            }
            Err(broken) => {
                assert!(self.lied, "nobody lied: {broken}");
                self.service = None;
                None
            }
        }
    }

    fn take_answers(&mut self) {
        loop {
            match self.front.take() {
                Ok(Some(response)) => self.match_answer(response),
                Ok(None) => return,
                Err(broken) => return assert!(self.lied, "the back lies: {broken}"),
            }
        }
    }

    /// One of those who wait for this answer has it now: of those with the same id, one that nothing
    /// excuses goes first, as it can have no other.
    fn match_answer(&mut self, response: Response) {
        self.answered += 1;
        assert!(self.lied || self.answered <= self.share.all, "an answer to nothing");
        let found = response.status.wire();
        let waits = |expected: i16| {
            let asked = (response.id, response.operation, expected);
            self.asked.iter().position(|&it| it == asked)
        };
        let excused = || waits(0).filter(|_| self.unsure && found == ERROR);
        match waits(found).or_else(excused) {
            Some(at) => drop(self.asked.swap_remove(at)),
            None => assert!(self.lied, "{response:?} is an answer to nothing"),
        }
    }

    fn fail(&mut self, choices: &mut Choices<'_>) {
        let failures = choices.of(&[0, 200, 1000]);
        let flush_failures = if choices.rarely(4) { 1000 } else { 0 };
        self.platter.set_manners(Manners { failures, flush_failures, ..Manners::GOOD });
        self.unsure = true;
    }

    /// Takes a grant back that requests may name already, if the back has let go of it.
    fn revoke(&mut self, choices: &mut Choices<'_>) {
        if self.good.is_empty() {
            return;
        }
        let at = choices.below(self.good.len());
        if let Some(page) = self.front.take_back(self.good[at].1) {
            self.unsure = true;
            self.kept.push((self.good.swap_remove(at).0, page));
        }
    }

    fn lie(&mut self, choices: &mut Choices<'_>) {
        let word =
            if choices.valid() { choices.below(4) } else { choices.below(self.front.words()) };
        let value = if choices.valid() { choices.byte().into() } else { choices.word() };
        self.front.poke(word, value);
        self.lied = true;
    }

    fn stop(&mut self, choices: &mut Choices<'_>) {
        if let Some(service) = self.service.as_mut().filter(|_| choices.rarely(4)) {
            service.stop_taking();
            self.stopped = true;
        }
    }

    /// Lets everything come to rest, and looks at what is left.
    fn end(mut self) {
        self.platter.release();
        self.front.publish();
        for turns in 0.. {
            assert!(turns < TURNS_MAX, "no rest after {TURNS_MAX} turns");
            let turn = self.turn();
            self.take_answers();
            let busy = self
                .service
                .as_ref()
                .is_some_and(|service| turn == Some(Turn::Again) || service.pending() > 0);
            if !busy {
                break;
            }
        }
        if !self.lied && !self.stopped {
            assert!(self.asked.is_empty(), "requests without an answer");
        }
        drop(self.service.take());
        let audit = self.sim.audit();
        assert!(audit.mappings.is_empty(), "left behind:\n{audit}");
        if !self.lied {
            self.check_memory();
        }
        self.front.disconnect();
        drop(self.kept);
        self.sim.assert_clean();
    }

    fn check_memory(&self) {
        let disk = self.platter.read(0, SECTORS);
        for number in (0..SECTORS).filter(|&number| !self.disk_touched[number]) {
            for at in MARKS.map(|at| number * 512 + at) {
                assert_eq!(disk[at..at + 8], mark(number), "sector {number}");
            }
        }
        let lent = self.good.iter().map(|&(page, reference)| (page, self.front.page(reference)));
        for (page, own) in lent.chain(self.kept.iter().map(|(page, own)| (*page, own))) {
            for part in (0..8).filter(|&part| !self.pages_touched[page][part]) {
                for at in MARKS.map(|at| part * 512 + at) {
                    let mut found = [0; 8];
                    own.read(at, &mut found);
                    assert_eq!(found, mark(page * 8 + part), "part {part} of page {page}");
                }
            }
        }
    }
}
