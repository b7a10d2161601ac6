//! What a lying peer can do with its producer index: nothing beyond what could be outstanding.

use std::sync::atomic::AtomicU32;

use ring::{Broken, Index, Layout, Rest};

use crate::model::{Ring, walk};
use crate::{REQ_PROD, RSP_PROD, memory, poke};

/// Values around `base`, in both directions and at the far side.
fn allegations(base: u32, slots: u32) -> impl Iterator<Item = u32> {
    let near = (0..=2 * slots + 2).map(move |ahead| ahead.wrapping_sub(slots + 1));
    let far = [i32::MIN, i32::MIN + 1, i32::MAX].map(i32::cast_unsigned);
    near.chain(far).map(move |distance| base.wrapping_add(distance)).chain([0, u32::MAX])
}

/// What a half must say to `alleged`.
fn judge(alleged: u32, consumed: u32, limit: u32) -> Result<u32, Broken> {
    let distance = alleged.wrapping_sub(consumed);
    if distance <= limit {
        return Ok(distance);
    }
    Err(Broken { alleged: Index::new(alleged), consumed: Index::new(consumed), limit })
}

fn low(count: u64) -> u32 {
    u32::try_from(count).unwrap()
}

#[test]
fn a_back_believes_at_most_the_free_slots() {
    for slots in [2, 4] {
        let (layout, start) = (Layout::of_slots(slots, 2), u32::MAX - slots);
        walk(slots, |verbs, model| {
            let consumed = start.wrapping_add(low(model.requests.taken));
            let busy = low(model.requests.taken - model.responses.published);
            let known = low(model.requests.seen - model.requests.taken);
            for alleged in allegations(consumed, slots) {
                let verdict = judge(alleged, consumed, slots - busy);
                let words = memory(slots, 2);
                let mut ring = Ring::after(verbs, &words, layout, start);
                poke(&words, REQ_PROD, alleged);
                // Requests that were seen before the lie are taken without looking again.
                let mut count = 0;
                let end = loop {
                    match ring.back.take(|_| ()) {
                        Ok(Some(())) => count += 1,
                        other => break other,
                    }
                };
                let consumed_all =
                    judge(alleged, consumed.wrapping_add(known), slots - busy - known);
                if known > 0 {
                    assert_eq!(count, known + consumed_all.unwrap_or(0));
                } else {
                    assert_eq!(count, verdict.unwrap_or(0), "{alleged} after {verbs:?}");
                    assert_eq!(end.err(), verdict.err());
                }
                assert!(ring.back.unanswered() <= slots);
                answers_are_bounded(&mut ring, slots);
            }
        });
    }
}

/// However many requests were believed, no more responses than slots can be put.
fn answers_are_bounded(ring: &mut Ring<'_>, slots: u32) {
    let mut answers = 0;
    while ring.back.put(&[0]).is_ok() {
        answers += 1;
        assert!(answers <= slots);
    }
}

#[test]
fn a_front_believes_at_most_its_outstanding_requests() {
    for slots in [2, 4] {
        let (layout, start) = (Layout::of_slots(slots, 2), u32::MAX - slots);
        walk(slots, |verbs, model| {
            let consumed = start.wrapping_add(low(model.responses.taken));
            let outstanding = low(model.requests.published - model.responses.taken);
            let known = low(model.responses.seen - model.responses.taken);
            for alleged in allegations(consumed, slots) {
                let words = memory(slots, 2);
                let mut ring = Ring::after(verbs, &words, layout, start);
                poke(&words, RSP_PROD, alleged);
                for _ in 0..known {
                    assert_eq!(ring.front.take(|_| ()), Ok(Some(())));
                }
                let base = consumed.wrapping_add(known);
                let verdict = judge(alleged, base, outstanding - known);
                let count = verdict.unwrap_or(0);
                for _ in 0..count {
                    assert_eq!(ring.front.take(|_| ()), Ok(Some(())), "{alleged} after {verbs:?}");
                }
                let end = ring.front.take(|_| ());
                assert_eq!(end, verdict.map(|_| None), "{alleged} after {verbs:?}");
                assert!(ring.front.free() <= slots);
            }
        });
    }
}

#[test]
fn rest_judges_the_index_as_take_does_and_consumes_nothing() {
    let slots = 2;
    let (layout, start) = (Layout::of_slots(slots, 2), u32::MAX - slots);
    walk(slots, |verbs, model| {
        let words = memory(slots, 2);
        let rest = |judged: Result<u32, Broken>| {
            judged.map(|count| if count == 0 { Rest::Idle } else { Rest::Work })
        };
        let consumed = start.wrapping_add(low(model.requests.taken));
        let busy = low(model.requests.taken - model.responses.published);
        for alleged in allegations(consumed, slots) {
            let mut ring = Ring::after(verbs, &words, layout, start);
            let unanswered = ring.back.unanswered();
            poke(&words, REQ_PROD, alleged);
            assert_eq!(ring.back.rest(), rest(judge(alleged, consumed, slots - busy)));
            assert_eq!(ring.back.unanswered(), unanswered);
        }
        let consumed = start.wrapping_add(low(model.responses.taken));
        let outstanding = low(model.requests.published - model.responses.taken);
        for alleged in allegations(consumed, slots) {
            let mut ring = Ring::after(verbs, &words, layout, start);
            let free = ring.front.free();
            poke(&words, RSP_PROD, alleged);
            assert_eq!(ring.front.rest(), rest(judge(alleged, consumed, outstanding)));
            assert_eq!(ring.front.free(), free);
        }
    });
}

#[test]
fn our_own_indexes_are_never_read_back() {
    let slots = 4;
    let layout = Layout::of_slots(slots, 2);
    let words = memory(slots, 2);
    let (mut front, mut back) = crate::halves(&words, layout, 7);
    front.put(&[1, 1]).unwrap();
    let _ = front.publish();
    assert_eq!(back.take(|reader| reader.word()), Ok(Some(Some(1))));
    // The peer of each overwrites the index that the other one wrote.
    scribble(&words, RSP_PROD, 1000);
    back.put(&[2]).unwrap();
    let _ = back.publish();
    assert_eq!(crate::peek(&words, RSP_PROD), 8, "counted from the private index");
    scribble(&words, REQ_PROD, 1000);
    assert_eq!(front.take(|reader| reader.word()), Ok(Some(Some(2))));
    front.put(&[3, 3]).unwrap();
    let _ = front.publish();
    assert_eq!(crate::peek(&words, REQ_PROD), 9, "counted from the private index");
    assert_eq!(back.take(|reader| reader.word()), Ok(Some(Some(3))));
}

fn scribble(words: &[AtomicU32], word: usize, value: u32) {
    poke(words, word, value);
}

#[test]
fn a_broken_ring_says_how() {
    let broken = Broken { alleged: Index::new(1), consumed: Index::new(u32::MAX), limit: 1 };
    let expected = "peer's ring index 1 is 2 past 4294967295, at most 1 can be outstanding";
    assert_eq!(broken.to_string(), expected);
}
