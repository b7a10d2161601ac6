//! The ring alone: a request goes down, is checked, and its response comes up, all on one thread.
//!
//! [`ours`] is the production ring with the production checks. Its peers are queues that a program
//! would use between two threads that trust each other: one for requests and one for responses, nothing
//! checked, nobody woken. Xen's own macros are a peer in C (`peers/macros.c`), with our checks.
//! To be run under an instruction counter: nothing here looks at a clock.

use std::hint::black_box;

use blkif::{
    Abi, Agreed, Discard, Features, Geometry, Operation, Raw, Request, Response, Segment, Segments,
    Status,
};
use crossbeam_queue::ArrayQueue;
use ring::{Back, Front, Page};
use xen::GrantRef;

/// The layout of all requests here.
pub(super) const ABI: Abi = Abi::X86_64;
/// Slots of a ring of one page.
const SLOTS: usize = 32;
/// A request with all its segments, as words.
pub(super) type Slot = [u32; 28];

/// What goes through a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pages of a request.
    pub segments: u32,
    /// Requests that become visible at once; at most 32.
    pub batch: u32,
}

/// A disk that all requests here fit.
pub(super) fn terms() -> (Geometry, Agreed) {
    let features = Features::PERSISTENT;
    let discard_limits = Discard::default();
    let agreed = Agreed { abi: ABI, order: 0, indirect_max: 0, features, discard_limits };
    (Geometry::new(1 << 40).expect("a disk of that size"), agreed)
}

/// Pages of a front.
pub(super) fn pages(count: u32) -> Segments {
    (0..count).map(|it| Segment::whole(GrantRef(8 + it))).collect()
}

/// The `number`th request, for these pages.
pub(super) fn request(number: u64, pages: &Segments) -> Request {
    Request::transfer(number, Operation::Read, number * 8, pages.clone())
}

/// The back's answer to what it took.
pub(super) fn answer(raw: &Raw, disk: &Geometry, agreed: &Agreed) -> Response {
    match raw.check(disk, agreed) {
        Ok(request) => {
            black_box(&request);
            Response { id: request.id, operation: request.operation.wire(), status: Status::Okay }
        }
        Err(reject) => reject.response,
    }
}

/// Whole batches, `messages` or a few more. The sum is of the ids that came back.
pub fn ours(Shape { segments, batch }: Shape, messages: u64) -> u64 {
    let page = Box::new(Page::new());
    let mut front = Front::new(&*page, ABI.layout(0));
    let mut back = Back::attach(&*page, ABI.layout(0));
    let (disk, agreed) = terms();
    let mut request = request(0, &pages(segments));
    let (mut number, mut sum, mut raw) = (0, 0, Raw::new());
    while number < messages {
        for _ in 0..batch {
            (request.id, request.sector) = (number, number * 8);
            front.put(&request.words(ABI, 0)).expect("the ring has room");
            number += 1;
        }
        let _ = black_box(front.publish());
        while let Some(()) = back.take(|slot| raw.read(slot, ABI)).expect("an honest front") {
            let words = answer(&raw, &disk, &agreed).words(ABI);
            back.put(&words).expect("it was taken");
        }
        let _ = black_box(back.publish());
        while let Some(response) = front.take(Response::parse).expect("an honest back") {
            assert_eq!(response.status, Status::Okay);
            sum += response.id;
        }
    }
    sum
}

/// The same request as plain words, written where it stands as a C program would.
pub(super) fn slot(number: u64, segments: u32) -> Slot {
    let mut slot = Slot::default();
    slot[0] = segments << 8;
    let [low, high] = [number, number >> 32].map(|it| u32::try_from(it & 0xffff_ffff).unwrap_or(0));
    (slot[2], slot[3], slot[4], slot[5]) = (low, high, low << 3, high << 3 | low >> 29);
    for (at, ends) in (0..segments).zip(slot[6..].as_chunks_mut::<2>().0) {
        *ends = [8 + at, 0x0700];
    }
    slot
}

fn pass(
    Shape { segments, batch }: Shape,
    messages: u64,
    mut down: impl FnMut(Slot),
    mut turn: impl FnMut() -> bool,
    mut up: impl FnMut() -> Option<[u32; 4]>,
) -> u64 {
    let (mut number, mut sum) = (0, 0);
    while number < messages {
        for _ in 0..batch {
            down(slot(number, segments));
            number += 1;
        }
        while turn() {}
        while let Some([low, high, ..]) = up() {
            sum += u64::from(low) | u64::from(high) << 32;
        }
    }
    sum
}

/// The answer to a request that nobody checks.
fn trusted(slot: Slot) -> [u32; 4] {
    let slot = black_box(slot);
    [slot[2], slot[3], slot[0] & 0xff, 0]
}

/// The same through two queues of `rtrb`.
pub fn through_rtrb(shape: Shape, messages: u64) -> u64 {
    let (mut requests, mut taken) = rtrb::RingBuffer::new(SLOTS);
    let (mut responses, mut answers) = rtrb::RingBuffer::new(SLOTS);
    let down = |slot| requests.push(slot).expect("it has room");
    let turn = || {
        let slot = taken.pop();
        slot.is_ok_and(|slot| responses.push(trusted(slot)).is_ok())
    };
    pass(shape, messages, down, turn, || answers.pop().ok())
}

/// The same through two queues of `crossbeam-queue`.
pub fn through_crossbeam(shape: Shape, messages: u64) -> u64 {
    let (requests, responses) = (ArrayQueue::new(SLOTS), ArrayQueue::new(SLOTS));
    let down = |slot| requests.push(slot).expect("it has room");
    let turn = || requests.pop().is_some_and(|slot| responses.push(trusted(slot)).is_ok());
    pass(shape, messages, down, turn, || responses.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_once_through_each() {
        for shape in [(1, 1), (1, 32), (11, 8)] {
            let shape = Shape { segments: shape.0, batch: shape.1 };
            for through in [ours, through_rtrb, through_crossbeam] {
                assert_eq!(through(shape, 64), 63 * 64 / 2, "{shape:?}");
            }
        }
    }

    #[test]
    fn peers_pass_the_same_requests() {
        for (number, segments) in [(7, 11), (u64::from(u32::MAX) * 3, 1)] {
            let words = request(number, &pages(segments)).words(ABI, 0);
            let slot = slot(number, segments);
            let (used, unused) = slot.split_at(words.len());
            assert_eq!(used, &words[..]);
            assert_eq!(unused.len(), 22 - 2 * segments as usize);
        }
    }
}
