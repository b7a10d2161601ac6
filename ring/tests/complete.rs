//! Every state of a half, every index that a peer can write, and every answer: complete, on rings of
//! 2 and 4 slots whose indexes have 8 bits.
//!
//! Run with `RUSTFLAGS="--cfg narrow" cargo test -p ring --release --test complete`. The arithmetic is
//! the same as with 32 bits, all of it modulo the number of values, and the width is one constant. What
//! is expected is said here in plain numbers that do not wrap. A panic or an overflow anywhere fails
//! the test.
#![cfg(narrow)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicU32, Ordering};

use ring::bytes::{Area, Receiver, Sender};
use ring::{Back, Broken, Front, Full, HEADER_WORDS, Index, Layout, Notify, Reader, Rest};

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 1;
const RSP_PROD: usize = 2;
const RSP_EVENT: usize = 3;

/// All values of an index.
const VALUES: u32 = 256;
const SIZES: [u32; 2] = [2, 4];

type Words = Vec<AtomicU32>;
type Half<'a> = &'a [AtomicU32];

fn words(slots: u32) -> Words {
    (0..HEADER_WORDS + slots as usize).map(|_| AtomicU32::new(0)).collect()
}

fn poke(words: &Words, word: usize, value: u32) {
    words[word].store(value, Ordering::Relaxed);
}

fn peek(words: &Words, word: usize) -> u32 {
    words[word].load(Ordering::Relaxed)
}

fn index(start: u32, count: u32) -> u32 {
    (start + count) % VALUES
}

/// How far `alleged` is ahead of `start + count`.
fn ahead(alleged: u32, start: u32, count: u32) -> u32 {
    (alleged + 2 * VALUES - start - count) % VALUES
}

fn first<'a>(reader: &mut Reader<'_, Half<'a>>) -> u32 {
    reader.word().unwrap()
}

/// What a half knows, counted from where its indexes began: `taken <= seen <= limit`, and what it
/// put and published itself.
#[derive(Clone, Copy, Debug)]
struct State {
    slots: u32,
    start: u32,
    put: u32,
    published: u32,
    seen: u32,
    taken: u32,
}

/// Every lawful state, from every index that a half can begin at.
fn states(is_lawful: fn(&State) -> bool) -> impl Iterator<Item = State> {
    let shapes = SIZES.into_iter().flat_map(|slots| {
        // No count is above twice the slots.
        let counts = 2 * slots + 1;
        (0..counts.pow(4)).map(move |number| {
            let [put, published, seen, taken] =
                [0, 1, 2, 3].map(|place| number / counts.pow(place) % counts);
            State { slots, start: 0, put, published, seen, taken }
        })
    });
    let shapes: Vec<State> = shapes.filter(is_lawful).collect();
    let from = move |start| {
        let all = shapes.clone().into_iter();
        all.map(move |shape| State { start, ..shape })
    };
    (0..VALUES).flat_map(from)
}

/// Every state that a front can be in, until a ring's worth of requests was published; a front that
/// went on is one that began later.
fn fronts() -> impl Iterator<Item = State> {
    states(|&State { slots, put, published, seen, taken, .. }| {
        taken <= seen && seen <= published && published <= slots.min(put) && put <= slots + taken
    })
}

/// A front that was brought into this state by its own verbs and by an honest back.
fn front(words: &Words, state: State) -> Front<Half<'_>> {
    let State { slots, start, put, published, seen, taken } = state;
    let mut front = Front::starting_at(&words[..], Layout::of_slots(slots, 1), Index::new(start));
    (0..published).for_each(|number| front.put(&[number]).unwrap());
    let _ = front.publish();
    poke(words, RSP_PROD, index(start, seen));
    let _ = front.rest().unwrap();
    (0..taken).for_each(|_| assert!(front.take(first).unwrap().is_some()));
    (published..put).for_each(|number| front.put(&[number]).unwrap());
    front
}

/// Every state that a back can be in, until it answered a ring's worth of requests.
fn backs() -> impl Iterator<Item = State> {
    states(|&State { slots, put, published, seen, taken, .. }| {
        published <= put && put <= taken && taken <= slots.min(seen) && seen <= slots + published
    })
}

/// A back that was brought into this state by its own verbs and by an honest front.
fn back(words: &Words, state: State) -> Back<Half<'_>> {
    let State { slots, start, put, published, seen, taken } = state;
    poke(words, RSP_PROD, start);
    let mut back = Back::attach(&words[..], Layout::of_slots(slots, 1));
    poke(words, REQ_PROD, index(start, seen.min(slots)));
    (0..taken).for_each(|_| assert!(back.take(first).unwrap().is_some()));
    (0..published).for_each(|number| back.put(&[number]).unwrap());
    let _ = back.publish();
    poke(words, REQ_PROD, index(start, seen));
    let _ = back.rest().unwrap();
    (published..put).for_each(|number| back.put(&[number]).unwrap());
    back
}

/// What a half must make of an index that its peer alleges: how many messages there are to take.
fn judge(alleged: u32, state: State, taken: u32, limit: u32) -> Result<u32, Broken> {
    let distance = ahead(alleged, state.start, taken);
    if distance <= limit {
        return Ok(distance);
    }
    let consumed = Index::new(index(state.start, taken));
    Err(Broken { alleged: Index::new(alleged), consumed, limit })
}

/// Takes until there is nothing more; tells how many there were, and how it ended.
fn drain(mut take: impl FnMut() -> Result<Option<u32>, Broken>) -> (u32, Result<(), Broken>) {
    let mut count = 0;
    loop {
        match take() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, Ok(())),
            Err(broken) => return (count, Err(broken)),
        }
    }
}

/// What was seen is taken without another look; then the peer's index counts.
fn expected(alleged: u32, state: State, limit: u32) -> (u32, Result<(), Broken>) {
    let known = state.seen - state.taken;
    let judged = judge(alleged, state, state.seen, limit - known);
    (known + judged.unwrap_or(0), judged.map(|_| ()))
}

#[test]
fn indexes_have_a_distance_and_a_successor_for_every_pair() {
    for raw in 0..VALUES {
        assert_eq!(Index::new(raw).raw(), raw);
        assert_eq!(Index::new(raw + VALUES), Index::new(raw));
        for count in 0..VALUES {
            let later = Index::new(raw).after(count);
            assert_eq!((later.raw(), later.since(Index::new(raw))), (index(raw, count), count));
        }
    }
}

#[test]
fn a_front_takes_what_can_be_outstanding_whatever_the_back_alleges() {
    for state in fronts() {
        let words = words(state.slots);
        for alleged in 0..VALUES {
            let mut front = front(&words, state);
            poke(&words, RSP_PROD, alleged);
            let found = drain(|| front.take(first));
            let limit = state.published - state.taken;
            assert_eq!(found, expected(alleged, state, limit), "{alleged}: {state:?}");
            assert_eq!(front.free(), state.slots - (state.put - state.taken - found.0));
        }
    }
}

#[test]
fn a_back_takes_what_has_room_whatever_the_front_alleges() {
    for state in backs() {
        let words = words(state.slots);
        for alleged in 0..VALUES {
            let mut back = back(&words, state);
            poke(&words, REQ_PROD, alleged);
            let found = drain(|| back.take(first));
            let limit = state.slots - (state.taken - state.published);
            assert_eq!(found, expected(alleged, state, limit), "{alleged}: {state:?}");
            assert_eq!(back.unanswered(), state.taken + found.0 - state.put);
        }
    }
}

/// What resting must answer.
fn rested(judged: Result<u32, Broken>) -> Result<Rest, Broken> {
    judged.map(|count| if count == 0 { Rest::Idle } else { Rest::Work })
}

#[test]
fn a_front_at_rest_asks_for_the_next_response_and_judges_the_index() {
    for state in fronts() {
        let words = words(state.slots);
        for alleged in 0..VALUES {
            let mut front = front(&words, state);
            poke(&words, RSP_PROD, alleged);
            let limit = state.published - state.taken;
            let judged = judge(alleged, state, state.taken, limit);
            assert_eq!(front.rest(), rested(judged), "{alleged}: {state:?}");
            assert_eq!(peek(&words, RSP_EVENT), index(state.start, state.taken + 1));
        }
    }
}

#[test]
fn a_back_at_rest_asks_for_the_next_request_and_judges_the_index() {
    for state in backs() {
        let words = words(state.slots);
        for alleged in 0..VALUES {
            let mut back = back(&words, state);
            poke(&words, REQ_PROD, alleged);
            let limit = state.slots - (state.taken - state.published);
            let judged = judge(alleged, state, state.taken, limit);
            assert_eq!(back.rest(), rested(judged), "{alleged}: {state:?}");
            assert_eq!(peek(&words, REQ_EVENT), index(state.start, state.taken + 1));
        }
    }
}

/// Whether a peer that asked for `event` is to be told of the messages up to `put`.
fn announced(event: u32, state: State) -> Notify {
    let distance = ahead(event, state.start, state.published);
    if (1..=state.put - state.published).contains(&distance) {
        Notify::Needed
    } else {
        Notify::Spared
    }
}

#[test]
fn a_front_notifies_exactly_if_the_request_that_was_asked_for_becomes_visible() {
    for state in fronts() {
        let words = words(state.slots);
        for event in 0..VALUES {
            let mut front = front(&words, state);
            poke(&words, REQ_EVENT, event);
            assert_eq!(front.publish(), announced(event, state), "{event}: {state:?}");
            assert_eq!(peek(&words, REQ_PROD), index(state.start, state.put));
            assert_eq!(front.publish(), Notify::Spared);
        }
    }
}

#[test]
fn a_back_notifies_exactly_if_the_response_that_was_asked_for_becomes_visible() {
    for state in backs() {
        let words = words(state.slots);
        for event in 0..VALUES {
            let mut back = back(&words, state);
            poke(&words, RSP_EVENT, event);
            assert_eq!(back.publish(), announced(event, state), "{event}: {state:?}");
            assert_eq!(peek(&words, RSP_PROD), index(state.start, state.put));
            assert_eq!(back.publish(), Notify::Spared);
        }
    }
}

/// Puts a mark; gives the answer and the words that have become it.
fn mark(
    words: &Words,
    put: impl FnOnce(&[u32]) -> Result<(), Full>,
) -> (Result<(), Full>, Vec<usize>) {
    const MARK: u32 = 0xffff;
    let result = put(&[MARK]);
    let marked = (0..words.len()).filter(|&word| peek(words, word) == MARK).collect();
    (result, marked)
}

/// The word of the slot of message `count`.
fn slot(state: State, count: u32) -> usize {
    HEADER_WORDS + (index(state.start, count) % state.slots) as usize
}

#[test]
fn a_front_puts_into_its_next_slot_only_and_only_if_it_is_free() {
    for state in fronts() {
        let words = words(state.slots);
        let mut front = front(&words, state);
        let found = mark(&words, |request| front.put(request));
        let full = state.put - state.taken == state.slots;
        let wanted =
            if full { (Err(Full), vec![]) } else { (Ok(()), vec![slot(state, state.put)]) };
        assert_eq!(found, wanted, "{state:?}");
    }
}

#[test]
fn a_back_puts_into_the_oldest_slot_it_took_and_only_once() {
    for state in backs() {
        let words = words(state.slots);
        let mut back = back(&words, state);
        let found = mark(&words, |response| back.put(response));
        let done = state.put == state.taken;
        let wanted =
            if done { (Err(Full), vec![]) } else { (Ok(()), vec![slot(state, state.put)]) };
        assert_eq!(found, wanted, "{state:?}");
    }
}

#[test]
fn a_half_reads_the_slot_of_its_index_and_no_other() {
    for state in fronts().chain(backs()).filter(|state| state.seen > state.taken) {
        let fill = |words: &Words| {
            (HEADER_WORDS..words.len()).for_each(|at| poke(words, at, at.try_into().unwrap()));
        };
        let words = words(state.slots);
        // The two kinds of states have no member in common but the trivial ones.
        let found = if state.seen <= state.published {
            let mut front = front(&words, state);
            fill(&words);
            front.take(first)
        } else {
            let mut back = back(&words, state);
            fill(&words);
            back.take(first)
        };
        let wanted = u32::try_from(slot(state, state.taken)).unwrap();
        assert_eq!(found, Ok(Some(wanted)), "{state:?}");
    }
}

/// One byte ring of 4 bytes, then its indexes.
const TINY: Area = Area::new(0, 4, 4, 8);
const SIZE: u32 = 4;
const CONSUMER: usize = 1;
const PRODUCER: usize = 2;

fn byte_ring(consumer: u32, producer: u32) -> Words {
    [0, consumer, producer].map(AtomicU32::new).into()
}

#[test]
fn a_sender_writes_what_has_room_whatever_the_receiver_alleges() {
    for start in 0..VALUES {
        for sent in 0..=SIZE {
            for alleged in 0..VALUES {
                for length in 0..=SIZE as usize + 1 {
                    let words = byte_ring(start, start);
                    let mut sender = Sender::attach(&words[..], TINY);
                    assert_eq!(sender.send(&[1; 4][..sent as usize]), Ok(sent as usize));
                    poke(&words, CONSUMER, alleged);
                    // It has read at most all, and at least all but a ring's worth.
                    let farthest = index(start, sent + VALUES - SIZE);
                    let read = ahead(alleged, farthest, 0);
                    let consumed = Index::new(farthest);
                    let broken = Broken { alleged: Index::new(alleged), consumed, limit: SIZE };
                    let unread = if read <= SIZE { Ok(SIZE - read) } else { Err(broken) };
                    assert_eq!(sender.unread(), unread);
                    let wanted = unread.map(|unread| length.min((SIZE - unread) as usize));
                    assert_eq!(sender.send(&[2; 5][..length]), wanted);
                    let more = u32::try_from(wanted.unwrap_or(0)).unwrap();
                    assert_eq!(peek(&words, PRODUCER), index(start, sent + more));
                }
            }
        }
    }
}

#[test]
fn a_receiver_reads_at_most_a_ring_full_whatever_the_sender_alleges() {
    for start in 0..VALUES {
        for alleged in 0..VALUES {
            for length in 0..=SIZE as usize + 1 {
                let words = byte_ring(start, alleged);
                let mut receiver = Receiver::attach(&words[..], TINY);
                let ready = ahead(alleged, start, 0);
                let (said, consumed) = (Index::new(alleged), Index::new(start));
                let broken = Broken { alleged: said, consumed, limit: SIZE };
                let wanted =
                    if ready <= SIZE { Ok(length.min(ready as usize)) } else { Err(broken) };
                assert_eq!(receiver.receive(&mut [0; 5][..length]), wanted);
                let read = u32::try_from(wanted.unwrap_or(0)).unwrap();
                assert_eq!(peek(&words, CONSUMER), index(start, read));
            }
        }
    }
}
