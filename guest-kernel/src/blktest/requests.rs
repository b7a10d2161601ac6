//! Requests by themselves: each is answered once, done if it makes sense and refused if not.
//!
//! What must be refused is said by the public header `blkif.h` and nothing else; which of the two
//! errors is the answer is not held against a back.

use alloc::format;
use alloc::vec::Vec;

use xen::Access;

use super::ask::{Ask, BARRIER, FLUSH, INDIRECT, Part, READ, WRITE, part_words};
use super::wire::{SLOTS, Wire};
use super::{Outcome, Place, Trouble};
use crate::programs::Machine;

/// Segments that fit a slot.
const SEGMENTS_MAX: u8 = 11;
/// What a page is filled with before something must not touch it.
const CANARY: u8 = 0xa5;
/// Bytes of a sector.
const SECTOR: usize = 512;

/// The disk behind a wire, as the back publishes it.
struct Size {
    sectors: u64,
    read_only: bool,
}

impl Size {
    fn of<M: Machine>(machine: &M, place: &Place) -> Result<Self, Trouble> {
        let number = |key| place.number(machine, key);
        let sectors = number("sectors").ok_or(Trouble::failure("no number of sectors"))?;
        let info = number("info").unwrap_or(0);
        if number("sector-size").is_some_and(|size| size != 512) {
            return Err(Trouble::skip("the disk's sectors are not of 512 bytes"));
        }
        if sectors < 256 {
            return Err(Trouble::skip(format!("a disk of {sectors} sectors is too small")));
        }
        Ok(Self { sectors, read_only: info & 4 != 0 })
    }

    fn writable<M: Machine>(machine: &M, place: &Place) -> Result<Self, Trouble> {
        let size = Self::of(machine, place)?;
        if size.read_only { Err(Trouble::skip("the disk is read only")) } else { Ok(size) }
    }
}

fn fill<M: Machine>(wire: &Wire<'_, M>, reference: u32, byte: impl Fn(usize) -> u8) {
    let mut bytes = [0; 4096];
    bytes.iter_mut().enumerate().for_each(|(at, it)| *it = byte(at));
    wire.memory(reference).write(0, &bytes);
}

fn contents<M: Machine>(wire: &Wire<'_, M>, reference: u32) -> [u8; 4096] {
    let mut bytes = [0; 4096];
    wire.memory(reference).read(0, &mut bytes);
    bytes
}

/// The page must hold nothing but the canary.
fn untouched<M: Machine>(wire: &Wire<'_, M>, reference: u32) -> Outcome {
    match contents(wire, reference).iter().position(|&byte| byte != CANARY) {
        None => Ok(()),
        Some(at) => Err(Trouble::failure(format!("byte {at} of a page was written"))),
    }
}

pub(super) fn full_ring<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    Size::of(machine, place)?;
    let page = wire.page()?;
    // Twice, so that the slots of answers are used for requests again.
    let asks: Vec<Ask> =
        (0..u64::from(2 * SLOTS)).map(|id| Ask::read(id, id).part((page, 0, 0))).collect();
    let answers = wire.ask(&asks)?;
    match answers.iter().find(|answer| answer.status != 0 || answer.operation != READ) {
        Some(answer) => Err(Trouble::failure(format!("a read was answered with {answer:?}"))),
        None => wire.close(),
    }
}

pub(super) fn written_is_read<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    Size::writable(machine, place)?;
    let (old, new, seen) = (wire.page()?, wire.page()?, wire.page()?);
    fill(&wire, old, |at| (at / SECTOR).to_le_bytes()[0]);
    for (first, last) in [(0, 7), (0, 0), (7, 7), (2, 5)] {
        wire.expect_done(&Ask::write(1, 16).whole(old))?;
        fill(&wire, new, |at| 0x80 | (at / SECTOR).to_le_bytes()[0]);
        wire.expect_done(&Ask::write(2, 16 + u64::from(first)).part((new, first, last)))?;
        fill(&wire, seen, |_| CANARY);
        wire.expect_done(&Ask::read(3, 16).whole(seen))?;
        for (sector, bytes) in (0..8_u8).zip(contents(&wire, seen).chunks(SECTOR)) {
            let written = (first..=last).contains(&sector);
            let wanted = if written { 0x80 | sector } else { sector };
            if bytes.iter().any(|&byte| byte != wanted) {
                let what = format!("sector {sector} after a write of {first} to {last}");
                return Err(Trouble::failure(format!("{what}: {:#x}, not {wanted:#x}", bytes[0])));
            }
        }
        // What is read into a part of a page leaves the rest of it alone.
        fill(&wire, seen, |_| CANARY);
        wire.expect_done(&Ask::read(4, 16).part((seen, first, last)))?;
        let page = contents(&wire, seen);
        let (from, to) = (usize::from(first) * SECTOR, (usize::from(last) + 1) * SECTOR);
        if page[..from].iter().chain(&page[to..]).any(|&byte| byte != CANARY) {
            return Err(Trouble::failure(format!("a read into {first} to {last} wrote beside it")));
        }
    }
    wire.close()
}

pub(super) fn ids<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    let asks: Vec<Ask> = [0, 1, u64::MAX, 1 << 63, 0xa5a5_a5a5_5a5a_5a5a, u64::from(u32::MAX)]
        .map(|id| Ask::read(id, 0).whole(page))
        .into();
    wire.ask(&asks)?;
    // An id is the front's own word: two requests may have the same.
    (0..4).for_each(|_| wire.put(&Ask::read(7, 0).whole(page).words()));
    wire.publish();
    let answers = wire.answers()?;
    if answers.len() != 4 || answers.iter().any(|answer| answer.id != 7 || answer.status != 0) {
        return Err(Trouble::failure(format!("four reads with one id: {answers:?}")));
    }
    wire.close()
}

pub(super) fn padding<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    let id = u64::from_le_bytes([CANARY; 8]);
    // What stood in the slot before, if it is not 0, is what the request had put there.
    let ask = Ask { handle: 0xa5a5, sector: 0, ..Ask::read(id, 0) }.whole(page);
    for ask in [ask.clone(), Ask { operation: 0xa5, ..ask }] {
        let answer = wire.ask(&[ask])?[0];
        if answer.padding.iter().any(|byte| ![0, CANARY].contains(byte)) {
            return Err(Trouble::failure(format!("the padding of an answer: {answer:?}")));
        }
    }
    wire.close()
}

pub(super) fn operations<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    for operation in 0..=u8::MAX {
        let ask = Ask::new(operation, u64::from(operation), 8).whole(page);
        let unanswered =
            |it: Trouble| Trouble::failure(format!("operation {operation}: {}", it.seen));
        let answer = wire.ask(&[ask]).map_err(unanswered)?[0];
        // The answer to an indirect request may name the inner operation, here 1.
        let named = answer.operation == operation || (operation, answer.operation) == (INDIRECT, 1);
        if !named {
            return Err(Trouble::failure(format!("operation {operation}: {answer:?}")));
        }
        if answer.status == 0 && ![0, 1, 2, 3, 5].contains(&operation) {
            return Err(Trouble::failure(format!("operation {operation} was done")));
        }
    }
    wire.close()
}

pub(super) fn counts<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.page()?;
    fill(&wire, page, |_| CANARY);
    let full = (0..SEGMENTS_MAX).fold(Ask::read(0, 0), |ask, _| ask.whole(page));
    let wrong = core::iter::once(0).chain(SEGMENTS_MAX + 1..=u8::MAX);
    let asks: Vec<Ask> = wrong
        .flat_map(|count| [(READ, count), (WRITE, count)])
        .map(|(operation, count)| Ask {
            id: u64::from(operation) << 8 | u64::from(count),
            operation,
            count,
            ..full.clone()
        })
        .collect();
    wire.expect_refused(&asks)?;
    untouched(&wire, page)?;
    wire.close()
}

pub(super) fn segments<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let (page, good) = (wire.page()?, wire.page()?);
    fill(&wire, page, |_| CANARY);
    let ends =
        [(1, 0), (7, 6), (7, 0), (0, 8), (7, 8), (8, 8), (8, 7), (0, 255), (255, 255), (255, 0)];
    let mut asks = Vec::new();
    for (first, last) in ends {
        let bad: Part = (page, first, last);
        for operation in [READ, WRITE] {
            let id = u64::from(operation) << 32 | u64::from(first) << 16 | u64::from(last) << 8;
            asks.push(Ask::new(operation, id, 0).part(bad));
            // At the end of a request that is good up to there.
            let ten = (0..SEGMENTS_MAX - 1)
                .fold(Ask::new(operation, id | 1, 0), |ask, _| ask.whole(good));
            asks.push(ten.part(bad));
        }
    }
    wire.expect_refused(&asks)?;
    untouched(&wire, page)?;
    wire.close()
}

pub(super) fn past_the_end<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let Size { sectors, read_only } = Size::of(machine, place)?;
    let (page, last) = (wire.page()?, wire.page()?);
    fill(&wire, page, |_| CANARY);
    let starts = [
        sectors,
        sectors - 7,
        sectors - 1,
        sectors + 1,
        1 << 32 | sectors,
        1 << 54,
        1 << 55,
        1 << 63,
        u64::MAX - 8,
        u64::MAX - 7,
        u64::MAX,
    ];
    let mut asks = Vec::new();
    for (at, sector) in (0..).zip(starts) {
        asks.push(Ask::read(at, sector).whole(page));
        if !read_only {
            asks.push(Ask::write(at | 256, sector).whole(page));
        }
    }
    wire.expect_refused(&asks)?;
    untouched(&wire, page)?;
    // The last sectors are there.
    wire.expect_done(&Ask::read(1, sectors - 8).whole(last))?;
    wire.expect_done(&Ask::read(2, sectors - 1).part((last, 0, 0)))?;
    wire.close()
}

pub(super) fn grants<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let (good, stale) = (wire.page()?, wire.stale()?);
    let mut asks = Vec::new();
    for (at, reference) in (0..).zip([stale, 511, 1 << 20, i32::MAX.unsigned_abs(), u32::MAX]) {
        for operation in [READ, WRITE] {
            let id = u64::from(operation) << 8 | at;
            asks.push(Ask::new(operation, id, 0).whole(reference));
            asks.push(Ask::new(operation, id | 1 << 16, 0).whole(good).whole(reference));
            asks.push(Ask::new(operation, id | 1 << 17, 0).whole(reference).whole(good));
        }
    }
    wire.expect_refused(&asks)?;
    wire.expect_done(&Ask::read(1, 0).whole(good))?;
    wire.close()
}

pub(super) fn read_only_page<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let page = wire.lend(Access::Read)?;
    fill(&wire, page, |_| CANARY);
    // Refused, or its data lost on the way: a back with the page mapped for reading cannot tell.
    wire.ask(&[Ask::read(1, 0).whole(page)])?;
    untouched(&wire, page)?;
    wire.close()
}

pub(super) fn read_only_disk<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    if !Size::of(machine, place)?.read_only {
        return wire.close().and(Err(Trouble::skip("the disk may be written")));
    }
    let (before, after, page) = (wire.page()?, wire.page()?, wire.page()?);
    wire.expect_done(&Ask::read(1, 8).whole(before))?;
    let old = contents(&wire, before);
    fill(&wire, page, |at| !old[at]);
    wire.expect_refused(&[
        Ask::write(1, 8).whole(page),
        Ask::new(BARRIER, 2, 8).whole(page),
        Ask::new(FLUSH, 3, 8).whole(page),
        Ask::discard(4, 8, 8, 0),
        Ask::discard(5, 8, 8, 1),
    ])?;
    wire.expect_done(&Ask::read(1, 8).whole(after))?;
    if contents(&wire, after) != old {
        return Err(Trouble::failure("a read-only disk was written"));
    }
    wire.close()
}

pub(super) fn flush<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let offered = place.number(machine, "feature-flush-cache") == Some(1);
    let answer = wire.ask(&[Ask::new(FLUSH, 1, 0)])?[0];
    if offered && answer.status != 0 {
        return Err(Trouble::failure(format!("a flush is offered and was answered {answer:?}")));
    }
    wire.close()?;
    if offered { Ok(()) } else { Err(Trouble::skip("no flush is offered")) }
}

pub(super) fn discards<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let Size { sectors, .. } = Size::of(machine, place)?;
    let ranges = [
        (sectors, 1),
        (0, sectors + 1),
        (sectors - 8, 16),
        (8, u64::MAX),
        (8, u64::MAX - 7),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (1 << 63, 1 << 63),
    ];
    let asks: Vec<Ask> = (0..)
        .zip(ranges)
        .flat_map(|(id, (sector, count))| {
            [Ask::discard(id, sector, count, 0), Ask::discard(id | 64, sector, count, 0xff)]
        })
        .collect();
    wire.expect_refused(&asks)?;
    wire.close()
}

/// One indirect request over a page of descriptors.
struct Described {
    page: u32,
    parts: Vec<Part>,
}

impl Described {
    fn write<M: Machine>(&self, wire: &Wire<'_, M>) {
        let words = self.parts.iter().flat_map(|&part| part_words(part));
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take(4096).collect();
        wire.memory(self.page).write(0, &bytes);
    }
}

pub(super) fn indirect<M: Machine>(machine: &M, place: &Place) -> Outcome {
    let mut wire = Wire::open(machine, place)?;
    let most = place.number(machine, "feature-max-indirect-segments").unwrap_or(0);
    let most = u16::try_from(most.min(512)).unwrap_or(0);
    let (page, data) = (wire.page()?, wire.page()?);
    let good = Described { page, parts: alloc::vec![(data, 0, 7); 512] };
    good.write(&wire);
    let stale = wire.stale()?;
    let ask = |id, inner, segments| Ask::indirect(id, 0, (inner, segments), &[page]);
    let mut wrong = alloc::vec![
        ask(1, READ, 0),
        ask(2, READ, u16::MAX),
        ask(3, READ, most + 1),
        ask(4, INDIRECT, 1),
        ask(5, 5, 1),
        ask(6, 0xff, 1),
        Ask::indirect(7, 0, (READ, 1), &[stale]),
        Ask::indirect(8, 0, (READ, 1), &[u32::MAX]),
        Ask::indirect(9, u64::MAX, (READ, 1), &[page]),
    ];
    if most == 0 {
        wrong.push(ask(10, READ, 1));
    }
    wire.expect_refused(&wrong)?;
    if most == 0 {
        return wire.close().and(Err(Trouble::skip("none are offered; all were refused")));
    }
    wire.expect_done(&ask(11, READ, most.min(16)))?;
    for bad in [(data, 1, 0), (data, 0, 8), (data, 255, 255), (stale, 0, 7), (u32::MAX, 0, 7)] {
        let mut parts = good.parts.clone();
        parts[3] = bad;
        Described { page, parts }.write(&wire);
        wire.expect_refused(&[ask(12, READ, 4), ask(13, WRITE, 4)])?;
    }
    wire.close()
}
