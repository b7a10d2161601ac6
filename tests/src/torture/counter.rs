//! One request at a time through `ring` and `blkif`, over memory that changes, held against the
//! oracle's reading of the same bytes.
//!
//! What the code makes of changing memory must equal what the oracle makes of a frozen copy, so a
//! second look at any word shows even where [`Flicker`] would let it pass.

use blkif::{
    Abi, Agreed, Discard, Features, Geometry, INDIRECT, Info, Raw, Request, Response, Segment,
    Status, segments_in,
};
use ring::sync::{AtomicU32, Ordering};
use ring::{Back, Memory, PAGE_WORDS};

use crate::oracle::{Terms, Verdict, Work, judge};
use crate::torture::wild::Descriptors;
use crate::torture::{Flicker, Slot};

/// Header words of a ring, from `io/ring.h`.
pub const REQ_PROD: usize = 0;
/// The request at which the back wants an event.
pub const REQ_EVENT: usize = 1;
/// The index of the last response.
pub const RSP_PROD: usize = 2;
/// The response at which the front wants an event.
pub const RSP_EVENT: usize = 3;
/// Where slots begin.
pub const HEADER: usize = 16;

/// The protocol's own numbers for what the terms say.
pub fn agreed(terms: &Terms, order: u32, persistent: bool) -> (Geometry, Agreed) {
    let mut features = Features::empty();
    features.set(Features::FLUSH, terms.flush);
    features.set(Features::DISCARD, terms.discard);
    features.set(Features::PERSISTENT, persistent);
    let mut info = Info::empty();
    info.set(Info::READ_ONLY, terms.read_only);
    let sector_size = u32::try_from(terms.unit * 512).unwrap_or(4096);
    let physical_sector_size = sector_size;
    let geometry = Geometry { sectors: terms.sectors, sector_size, physical_sector_size, info };
    let abi = if terms.wide { Abi::X86_64 } else { Abi::X86_32 };
    let indirect_max = u8::try_from(terms.indirect).unwrap_or(blkif::INDIRECT_MAX);
    let discard_limits = Discard::default();
    (geometry, Agreed { abi, order, indirect_max, features, discard_limits })
}

/// The page behind the ring's, which has the segments of indirect requests.
struct Behind<'a>(&'a Flicker);

impl Memory for Behind<'_> {
    fn words(&self) -> usize {
        PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.0.word(PAGE_WORDS + index)
    }

    fn load(&self, index: usize, order: Ordering) -> u32 {
        self.0.load(PAGE_WORDS + index, order)
    }
}

/// A back's side of a ring at which requests arrive one by one.
pub struct Counter<'a> {
    memory: &'a Flicker,
    terms: Terms,
    geometry: Geometry,
    agreed: Agreed,
    slots: u32,
    slot_words: usize,
    back: Back<&'a Flicker>,
    index: u32,
    described: Descriptors,
}

impl<'a> Counter<'a> {
    /// A ring of one page whose indexes begin at `start`, in a memory of two.
    pub fn new(memory: &'a Flicker, terms: Terms, start: u32) -> Self {
        let (geometry, agreed) = agreed(&terms, 0, true);
        let layout = agreed.abi.layout(0);
        memory.poke(RSP_PROD, start);
        memory.begin();
        let back = Back::attach(memory, layout);
        let (slots, slot_words) = (layout.slots(), layout.slot_words());
        Self {
            memory,
            terms,
            geometry,
            agreed,
            slots,
            slot_words,
            back,
            index: start,
            described: [0; _],
        }
    }

    /// Every indirect request from now on has its segments out of these, whatever grant it names.
    pub fn describe(&mut self, words: &Descriptors) {
        self.described = *words;
    }

    /// Puts a slot's words on the ring, has them taken, checked and answered, and tells what the
    /// oracle says of them.
    ///
    /// # Panics
    /// If the code and the oracle differ, or anything was fetched twice.
    #[inline]
    pub fn hold(&mut self, slot: &Slot) -> Verdict {
        let place = HEADER + (self.index % self.slots) as usize * self.slot_words;
        let mut bytes = [0; 112];
        for (at, word) in slot.iter().enumerate().take(self.slot_words) {
            self.memory.poke(place + at, *word);
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        let mut page = [0; 256];
        if bytes[0] == INDIRECT {
            for (at, word) in self.described.iter().enumerate() {
                self.memory.poke(PAGE_WORDS + at, *word);
                page[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        let verdict = judge(&bytes[..self.slot_words * 4], &self.terms, |_| Some(&page));
        self.index = self.index.wrapping_add(1);
        self.memory.poke(REQ_PROD, self.index);
        self.memory.begin();
        let abi = self.agreed.abi;
        let taken = self.back.take(|reader| Raw::parse(reader, abi));
        let mut raw = taken.expect("one more is not too far").expect("there is one");
        if let Some(indirect) = raw.to_fetch(&self.agreed) {
            raw.segments = segments_in(&Behind(self.memory), indirect.count);
        }
        let response = match (raw.check(&self.geometry, &self.agreed), verdict.work) {
            (Ok(request), Ok(work)) => {
                assert_same(&request, &verdict, &work);
                let operation = request.operation.wire();
                Response { id: request.id, operation, status: Status::Okay }
            }
            (Err(reject), Err(_)) => reject.response,
            (ours, theirs) => panic!("{ours:?} is not {theirs:?} for {slot:x?}"),
        };
        self.answer(&verdict, &response.words(abi), place);
        verdict
    }

    /// Puts the response and compares what the front finds.
    fn answer(&mut self, verdict: &Verdict, words: &[u32], place: usize) {
        self.back.put(words).expect("one answer for one request");
        self.memory.begin();
        let _ = self.back.publish();
        assert_eq!(self.memory.peek(RSP_PROD), self.index, "the answer is visible");
        let [low, high] = super::wild::halves(verdict.id);
        let status = verdict.work.err().unwrap_or(0);
        let [status_low, status_high] = status.to_le_bytes();
        let last = u32::from_le_bytes([verdict.operation, 0, status_low, status_high]);
        let found = [0, 1, 2].map(|at| self.memory.peek(place + at));
        assert_eq!(found, [low, high, last], "the answer as it stands in the slot");
    }
}

/// A request that was let through is the one that the oracle read.
fn assert_same(request: &Request<&[Segment]>, verdict: &Verdict, work: &Work) {
    let same = request.id == verdict.id
        && request.operation.wire() == verdict.operation
        && (request.sector, request.sectors) == (work.sector, work.sectors)
        && request.segments.len() == work.count
        && request.segments.iter().zip(&work.segments).all(|(ours, theirs)| {
            (ours.reference.0, ours.first_sector, ours.last_sector) == *theirs
        });
    assert!(same, "{request:?} is not {work:?}");
}
