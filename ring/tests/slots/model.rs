//! Every interleaving of the eight verbs on tiny rings, against queues.
//!
//! The model counts with 64 bits and does not wrap, keeps messages in queues, and notifies when
//! the message that was asked for is among those that became visible. States that behave alike
//! from here on are visited once, so the walk covers interleavings of every length until so many
//! messages have passed that the indexes have wrapped and every slot was used again.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicU32;

use ring::{Back, Front, Full, Layout, Notify, Reader, Rest};

use crate::{halves, memory};

type Words<'a> = &'a [AtomicU32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    FrontPut,
    FrontPublish,
    FrontTake,
    FrontRest,
    BackPut,
    BackPublish,
    BackTake,
    BackRest,
}

const VERBS: [Verb; 8] = [
    Verb::FrontPut,
    Verb::FrontPublish,
    Verb::FrontTake,
    Verb::FrontRest,
    Verb::BackPut,
    Verb::BackPublish,
    Verb::BackTake,
    Verb::BackRest,
];

/// What a verb gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Put(Result<(), Full>),
    Published(Notify),
    Took(Option<u64>),
    Rested(Rest),
}

/// Messages that go one way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    written: VecDeque<u64>,
    visible: VecDeque<u64>,
    put: u64,
    pub(crate) published: u64,
    pub(crate) taken: u64,
    /// How far the consumer has looked.
    pub(crate) seen: u64,
    /// The message at which the consumer wants an event.
    event: u64,
}

impl Way {
    fn new() -> Self {
        Self { event: 1, ..Self::default() }
    }

    fn put(&mut self) -> Outcome {
        self.put += 1;
        self.written.push_back(self.put);
        Outcome::Put(Ok(()))
    }

    fn publish(&mut self) -> Outcome {
        let old = self.published;
        self.published = self.put;
        self.visible.append(&mut self.written);
        let asked = old < self.event && self.event <= self.published;
        Outcome::Published(if asked { Notify::Needed } else { Notify::Spared })
    }

    fn take(&mut self) -> Outcome {
        if self.taken == self.seen {
            self.seen = self.published;
        }
        let message = self.visible.pop_front();
        self.taken += u64::from(message.is_some());
        Outcome::Took(message)
    }

    fn rest(&mut self) -> Outcome {
        self.event = self.taken + 1;
        self.seen = self.published;
        Outcome::Rested(if self.visible.is_empty() { Rest::Idle } else { Rest::Work })
    }

    /// What of this way decides what happens from here on; an event that has passed never comes.
    fn key(&self) -> [u64; 4] {
        [
            self.put - self.published,
            self.published - self.taken,
            self.seen - self.taken,
            u64::from(self.event > self.published),
        ]
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    slots: u64,
    pub(crate) requests: Way,
    pub(crate) responses: Way,
}

impl Model {
    fn new(slots: u32) -> Self {
        Self { slots: slots.into(), requests: Way::new(), responses: Way::new() }
    }

    fn step(&mut self, verb: Verb) -> Outcome {
        match verb {
            Verb::FrontPut if self.free() == 0 => Outcome::Put(Err(Full)),
            Verb::BackPut if self.unanswered() == 0 => Outcome::Put(Err(Full)),
            Verb::FrontPut => self.requests.put(),
            Verb::FrontPublish => self.requests.publish(),
            Verb::FrontTake => self.responses.take(),
            Verb::FrontRest => self.responses.rest(),
            Verb::BackPut => self.responses.put(),
            Verb::BackPublish => self.responses.publish(),
            Verb::BackTake => self.requests.take(),
            Verb::BackRest => self.requests.rest(),
        }
    }

    fn free(&self) -> u64 {
        self.slots - (self.requests.put - self.responses.taken)
    }

    fn unanswered(&self) -> u64 {
        self.requests.taken - self.responses.put
    }

    fn key(&self) -> ([u64; 4], [u64; 4], u64, u64) {
        (self.requests.key(), self.responses.key(), self.unanswered(), self.responses.taken)
    }
}

/// A ring that has gone through some verbs.
pub(crate) struct Ring<'a> {
    pub(crate) front: Front<Words<'a>>,
    pub(crate) back: Back<Words<'a>>,
    requests: u64,
    responses: u64,
}

impl<'a> Ring<'a> {
    pub(crate) fn after(verbs: &[Verb], words: Words<'a>, layout: Layout, start: u32) -> Self {
        let (front, back) = halves(words, layout, start);
        let mut ring = Self { front, back, requests: 0, responses: 0 };
        for &verb in verbs {
            ring.step(verb);
        }
        ring
    }

    fn step(&mut self, verb: Verb) -> Outcome {
        match verb {
            Verb::FrontPut => {
                let result = self.front.put(&request(self.requests + 1));
                self.requests += u64::from(result.is_ok());
                Outcome::Put(result)
            }
            Verb::BackPut => {
                let result = self.back.put(&response(self.responses + 1));
                self.responses += u64::from(result.is_ok());
                Outcome::Put(result)
            }
            Verb::FrontPublish => Outcome::Published(self.front.publish()),
            Verb::BackPublish => Outcome::Published(self.back.publish()),
            Verb::FrontTake => Outcome::Took(self.front.take(number_of_response).unwrap()),
            Verb::BackTake => Outcome::Took(self.back.take(number_of_request).unwrap()),
            Verb::FrontRest => Outcome::Rested(self.front.rest().unwrap()),
            Verb::BackRest => Outcome::Rested(self.back.rest().unwrap()),
        }
    }
}

const RESPONSE: u32 = 0x8000_0000;

fn request(number: u64) -> [u32; 2] {
    let number = u32::try_from(number).unwrap();
    [number, !number]
}

/// Shorter than a request: its second word stays in the slot.
fn response(number: u64) -> [u32; 1] {
    [RESPONSE | u32::try_from(number).unwrap()]
}

fn number_of_request(reader: &mut Reader<'_, Words<'_>>) -> u64 {
    let (first, second) = (reader.word().unwrap(), reader.word().unwrap());
    assert_eq!(first, !second, "a request whose slot was written by somebody else");
    assert_eq!(reader.word(), None, "a slot has two words");
    first.into()
}

fn number_of_response(reader: &mut Reader<'_, Words<'_>>) -> u64 {
    let word = reader.word().unwrap();
    assert_eq!(word & RESPONSE, RESPONSE, "a response whose slot was written by somebody else");
    (word & !RESPONSE).into()
}

/// Walks through every state, and calls `visit` with the verbs that lead there and with the model.
pub(crate) fn walk(slots: u32, mut visit: impl FnMut(&[Verb], &Model)) -> usize {
    // Enough for every slot to be used before and after the wrap.
    let last_response = 2 * u64::from(slots) + 1;
    let mut known = HashSet::new();
    let mut ahead = VecDeque::from([(Vec::new(), Model::new(slots))]);
    while let Some((verbs, model)) = ahead.pop_front() {
        visit(&verbs, &model);
        if model.responses.taken == last_response {
            continue;
        }
        for verb in VERBS {
            let mut next = model.clone();
            next.step(verb);
            if known.insert(next.key()) {
                ahead.push_back(([verbs.as_slice(), &[verb]].concat(), next));
            }
        }
    }
    known.len()
}

#[test]
fn every_interleaving_agrees_with_the_queues() {
    for (slots, expected_states) in [(1, 62), (2, 420), (4, 5563)] {
        let (layout, start) = (Layout::of_slots(slots, 2), u32::MAX - slots);
        let states = walk(slots, |verbs, model| {
            for verb in VERBS {
                let words = memory(slots, 2);
                let mut ring = Ring::after(verbs, &words, layout, start);
                assert_eq!(u64::from(ring.front.free()), model.free(), "{verbs:?}");
                assert_eq!(u64::from(ring.back.unanswered()), model.unanswered(), "{verbs:?}");
                let expected = model.clone().step(verb);
                assert_eq!(ring.step(verb), expected, "{verb:?} after {verbs:?}");
            }
        });
        // A walk that stops early must not pass.
        assert_eq!(states, expected_states, "with {slots} slots");
    }
}

#[test]
fn a_back_that_attaches_again_begins_at_the_first_request_without_a_response() {
    let words = memory(4, 2);
    let layout = Layout::of_slots(4, 2);
    let (mut front, mut back) = halves(&words, layout, u32::MAX);
    for number in 1..=3 {
        front.put(&request(number)).unwrap();
    }
    assert_eq!(front.publish(), Notify::Needed);
    assert_eq!(back.take(number_of_request), Ok(Some(1)));
    assert_eq!(back.take(number_of_request), Ok(Some(2)));
    back.put(&response(1)).unwrap();
    assert_eq!(back.publish(), Notify::Needed);
    // The first back is never used again.
    let mut back = Back::attach(&words[..], layout);
    assert_eq!(back.take(number_of_request), Ok(Some(2)), "taken before, never answered");
    assert_eq!(back.take(number_of_request), Ok(Some(3)));
    assert_eq!(back.take(number_of_request), Ok(None));
    assert_eq!(front.take(number_of_response), Ok(Some(1)));
}
