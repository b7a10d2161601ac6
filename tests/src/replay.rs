//! A trace of `blkback serve --trace`, played again to the production session in the simulator.
//!
//! The same requests come in the same batches at the same indexes; each must get the answer that it
//! got on real Xen, and a flush never before the writes that it is for. A trace has no data and does
//! not say why a request failed, so the disk and the grants of the replay are good ones.

use std::collections::BTreeMap;

use blkback::Turn;
use blkback::trace::{Begin, Damage, Record, records};
use blkif::{Abi, Indirect, Raw, Response, Status};
use ring::{Broken, Index, Memory};
use sim::Sim;
use xen::{DomainId, GrantRef};

use crate::torture::wild::halves;
use crate::{Platter, RawFront, Service, serve};

/// Turns that everything in flight takes, at most.
const TURNS_MAX: usize = 10_000;

/// What happened on one ring.
pub struct Connection {
    /// How it began.
    pub begin: Begin,
    /// What came then.
    pub events: Vec<Record>,
}

/// What a replay was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Requests that were taken.
    pub requests: usize,
    /// Answers that were the same on both sides.
    pub answers: usize,
    /// How many of those were errors.
    pub refused: usize,
    /// Flushes that were answered well.
    pub flushes: usize,
}

/// The connections in a trace, in the order in which they began.
///
/// # Errors
/// [`Damage`]. What follows the end of a trace that is full is not there.
pub fn connections(bytes: &[u8]) -> Result<Vec<Connection>, Damage> {
    let mut found: BTreeMap<u32, Connection> = BTreeMap::new();
    for (number, record) in records(bytes)? {
        match record {
            Record::Begin(begin) => {
                found.insert(number, Connection { begin, events: Vec::new() });
            }
            Record::Describe(segments) => {
                let events = found.get_mut(&number).map(|connection| &mut connection.events);
                if let Some(Record::Take(_, raw)) = events.and_then(|events| events.last_mut()) {
                    raw.segments = segments;
                }
            }
            record => {
                let connection = found.get_mut(&number);
                connection.into_iter().for_each(|it| it.events.push(record.clone()));
            }
        }
    }
    Ok(found.into_values().collect())
}

/// An answer, as far as both sides must agree on it.
type Answer = (u64, u8, Status);

const fn answer(response: &Response) -> Answer {
    (response.id, response.operation, response.status)
}

/// Plays a connection again; the order in which the disk ends its jobs comes from `seed`.
///
/// # Errors
/// A sentence: where the two differ, or what cannot be in a trace.
pub fn replay(connection: &Connection, seed: u64) -> Result<Replayed, String> {
    let mut stage = Stage::new(connection, seed)?;
    let played = connection.events.iter().try_for_each(|event| stage.play(event));
    let ended = played.and_then(|()| stage.settle());
    if ended.is_err() {
        // Nobody takes anything back in good order.
        stage.sim.kill(stage.guest);
    }
    ended.and_then(|()| stage.end())
}

struct Stage {
    sim: Sim,
    guest: DomainId,
    front: RawFront,
    service: Option<Service>,
    platter: Platter,
    /// The front's own page for each grant of the trace.
    pages: BTreeMap<GrantRef, GrantRef>,
    /// The indexes of the next request and of the next answer in the trace.
    next: Index,
    next_answer: Index,
    recorded: Ledger,
    replayed: Ledger,
    /// Whether the trace goes to the end of the connection.
    whole: bool,
}

impl Stage {
    fn new(connection: &Connection, seed: u64) -> Result<Self, String> {
        let Begin { agreed, index, geometry, .. } = connection.begin;
        // Whoever it was; domain 0 serves.
        let guest = DomainId(connection.begin.peer.0.max(1));
        let sectors = usize::try_from(geometry.sectors).map_err(|error| error.to_string())?;
        let platter = Platter::new(sectors);
        if geometry.read_only() {
            platter.protect();
        }
        let sim = Sim::new(seed);
        let (abi, ring) = (agreed.abi, (agreed.order, index));
        let front = RawFront::lend(&sim.domain(guest), "", DomainId::ZERO, abi, ring);
        let service = serve(&sim, (guest, &front), (&platter, seed), (agreed, geometry));
        Ok(Self {
            sim,
            guest,
            front,
            service: Some(service),
            platter,
            pages: BTreeMap::new(),
            next: index,
            next_answer: index,
            recorded: Ledger::default(),
            replayed: Ledger::default(),
            whole: false,
        })
    }

    fn play(&mut self, event: &Record) -> Result<(), String> {
        match event {
            Record::Take(index, raw) => {
                if *index != self.next {
                    return Err(format!("request {index:?}, {:?} is next", self.next));
                }
                self.next = index.after(1);
                self.recorded.taken(raw.clone());
                self.put(raw)
            }
            Record::Put(index, response) => {
                if *index != self.next_answer {
                    return Err(format!("answer {index:?}, {:?} is next", self.next_answer));
                }
                self.next_answer = index.after(1);
                self.recorded.answered(response)
            }
            Record::Publish(..) | Record::Rest(..) => self.turn().map(drop),
            Record::Broken(broken) => self.break_ring(*broken),
            Record::Grow(sectors) => self.grow(*sectors),
            Record::End(unanswered) => {
                self.whole = true;
                let open = self.recorded.flight.len();
                let same = usize::try_from(*unanswered) == Ok(open);
                if same { Ok(()) } else { Err(format!("{unanswered} open at the end, not {open}")) }
            }
            Record::Begin(_) | Record::Full | Record::Describe(_) => {
                Err("a record in a place where it cannot be".into())
            }
        }
    }

    /// Asks for the same with pages of our own.
    fn put(&mut self, raw: &Raw) -> Result<(), String> {
        let abi = self.front.abi();
        let (front, pages) = (&mut self.front, &mut self.pages);
        let mut own = |reference| *pages.entry(reference).or_insert_with(|| front.buffer());
        let words = words(raw, abi, &mut own);
        if let Some(Indirect { descriptors, .. }) = raw.indirect {
            let mut described = Vec::new();
            segment_words(raw, &mut own, &mut described);
            let page = own(descriptors);
            self.front.page(page).store_all(0, &described);
        }
        for _ in 0..TURNS_MAX {
            if self.front.put(&words) {
                self.replayed.taken(raw.clone());
                return Ok(());
            }
            self.turn()?;
        }
        Err("the ring stays full".into())
    }

    /// Lets the back work once, and takes its answers; tells whether there is more to do.
    fn turn(&mut self) -> Result<bool, String> {
        self.front.publish();
        let Some(service) = &mut self.service else { return Ok(false) };
        let turn = service.turn().map_err(|broken| broken.to_string())?;
        let busy = turn == Turn::Again || service.pending() > 0;
        while let Some(response) = self.front.take().map_err(|broken| broken.to_string())? {
            self.replayed.answered(&response)?;
        }
        Ok(busy)
    }

    /// The disk has so many sectors now.
    fn grow(&mut self, sectors: u64) -> Result<(), String> {
        let all = usize::try_from(sectors).map_err(|error| error.to_string())?;
        self.platter.grow(all.saturating_sub(self.platter.sectors()));
        self.service.iter_mut().for_each(|service| service.grow(sectors));
        Ok(())
    }

    /// The front's index makes no sense, here as there.
    fn break_ring(&mut self, recorded: Broken) -> Result<(), String> {
        self.turn()?;
        self.front.poke(0, recorded.alleged.raw());
        let broken = self.service.as_mut().map(Service::turn);
        self.service = None;
        match broken {
            Some(Err(broken)) if broken.alleged == recorded.alleged => Ok(()),
            other => Err(format!("{other:?} where {recorded} was found")),
        }
    }

    /// Lets the back finish.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            if !self.turn()? {
                return Ok(());
            }
        }
        Err("no rest".into())
    }

    fn end(mut self) -> Result<Replayed, String> {
        drop(self.service.take());
        self.front.disconnect();
        let audit = self.sim.audit();
        if !audit.is_clean() {
            return Err(format!("left behind:\n{audit}"));
        }
        self.replayed.agrees_with(&self.recorded, self.whole)
    }
}

/// Requests in flight in the order in which they were taken, and all answers.
#[derive(Default)]
struct Ledger {
    flight: Vec<Raw>,
    answers: Vec<Answer>,
    requests: usize,
    flushes: usize,
}

impl Ledger {
    fn taken(&mut self, raw: Raw) {
        self.requests += 1;
        self.flight.push(raw);
    }

    /// Takes an answer in: it must be one that is waited for, and a flush comes last.
    fn answered(&mut self, response: &Response) -> Result<(), String> {
        let Response { id, operation, status } = *response;
        // An indirect request is answered as what it is for, if those were agreed on.
        let names = |raw: &Raw| [raw.operation, asked(raw)].contains(&operation);
        let waits = |raw: &Raw| raw.id == id && names(raw);
        let at = self.flight.iter().position(waits);
        let at = at.ok_or_else(|| format!("{response:?} is an answer to nothing"))?;
        let flush = self.flight.remove(at).operation == FLUSH;
        if flush && status == Status::Okay {
            self.flushes += 1;
            if let Some(early) = self.flight[..at].iter().find(|raw| writes(raw)) {
                return Err(format!("flush {id:#x} is answered before {early:?}"));
            }
        }
        self.answers.push(answer(response));
        Ok(())
    }

    /// Each request got the same answer; what had none in the trace may have one here.
    fn agrees_with(self, recorded: &Self, whole: bool) -> Result<Replayed, String> {
        let sorted = |answers: &[Answer]| {
            let mut answers = answers.to_vec();
            answers.sort_unstable_by_key(key);
            answers
        };
        let (own, theirs) = (sorted(&self.answers), sorted(&recorded.answers));
        let mut rest = own.iter();
        if let Some(missing) = theirs.iter().find(|theirs| !rest.any(|own| own == *theirs)) {
            return Err(format!("{missing:?} was given, and is not given here"));
        }
        if whole && recorded.flight.is_empty() && own.len() != theirs.len() {
            return Err(format!("{} answers where {} were given", own.len(), theirs.len()));
        }
        let refused = theirs.iter().filter(|answer| answer.2 != Status::Okay).count();
        let (requests, answers, flushes) = (recorded.requests, theirs.len(), recorded.flushes);
        Ok(Replayed { requests, answers, refused, flushes })
    }
}

const fn key(answer: &Answer) -> (u64, u8, i16) {
    (answer.0, answer.1, answer.2.wire())
}

const WRITE: u8 = 1;
const FLUSH: u8 = 3;
const DISCARD: u8 = 5;

/// Whether a flush that was taken later waits for it.
fn writes(raw: &Raw) -> bool {
    matches!(asked(raw), WRITE | DISCARD)
}

/// What a request is for.
const fn asked(raw: &Raw) -> u8 {
    if raw.indirect.is_some() { raw.count } else { raw.operation }
}

/// The words of a request as its front wrote it, with other references.
pub(crate) fn words(raw: &Raw, abi: Abi, mut own: impl FnMut(GrantRef) -> GrantRef) -> Vec<u32> {
    let [low, high] = raw.indirect.map_or([0; 2], |indirect| indirect.count.to_le_bytes());
    let mut words = vec![u32::from_le_bytes([raw.operation, raw.count, low, high])];
    // In the 64-bit layout the id is aligned.
    words.resize(if abi == Abi::X86_64 { 2 } else { 1 }, 0);
    words.extend([halves(raw.id), halves(raw.sector)].as_flattened());
    if raw.operation == DISCARD {
        words.extend(halves(raw.discard_sectors));
    }
    match raw.indirect {
        // Behind the number of the device.
        Some(Indirect { descriptors, .. }) => words.extend([0, own(descriptors).0]),
        None => segment_words(raw, own, &mut words),
    }
    words
}

/// Appends the segments of a request, as a slot or a page of descriptors has them.
fn segment_words(raw: &Raw, mut own: impl FnMut(GrantRef) -> GrantRef, words: &mut Vec<u32>) {
    for it in &raw.segments {
        let ends = u32::from_le_bytes([it.first_sector, it.last_sector, 0, 0]);
        words.extend([own(it.reference).0, ends]);
    }
}
