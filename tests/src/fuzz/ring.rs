//! Target `ring`: both halves of a block ring, and of a byte ring, against queues, until one side
//! begins to lie; from then on, that the other believes no more than can be.

mod bytes;

use std::collections::VecDeque;

use ring::sync::Ordering;
use ring::{Back, Broken, Front, Index, Layout, Memory, Notify, Page, Reader, Rest};

use super::Share;
use super::choices::Choices;

/// Steps of an input, at most.
const STEPS_MAX: usize = 512;

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let liar = !choices.valid();
    let lied = match choices.below(4) {
        3 => bytes::check(&mut choices, liar),
        _ => block_ring(&mut choices, liar),
    };
    Share::one(!lied)
}

/// Messages that go one way, counted without a wrap.
#[derive(Default)]
struct Way {
    written: VecDeque<Vec<u32>>,
    visible: VecDeque<Vec<u32>>,
    put: u64,
    published: u64,
    taken: u64,
    /// The message at which the consumer wants an event.
    event: u64,
}

impl Way {
    fn new() -> Self {
        Self { event: 1, ..Self::default() }
    }

    fn put(&mut self, words: &[u32]) {
        self.put += 1;
        self.written.push_back(words.to_vec());
    }

    fn publish(&mut self) -> Notify {
        let asked = self.published < self.event && self.event <= self.put;
        self.published = self.put;
        self.visible.append(&mut self.written);
        if asked { Notify::Needed } else { Notify::Spared }
    }

    fn rest(&mut self) -> Rest {
        self.event = self.taken + 1;
        if self.visible.is_empty() { Rest::Idle } else { Rest::Work }
    }
}

/// A ring with both halves and the model of it.
struct Table<'a> {
    memory: &'a Page,
    layout: Layout,
    front: Front<&'a Page>,
    back: Back<&'a Page>,
    requests: Way,
    responses: Way,
    /// Somebody wrote where only the peer writes, or where nobody may.
    lied: bool,
}

/// Where indexes begin: mostly just below the wrap.
fn start(choices: &mut Choices<'_>) -> u32 {
    if choices.valid() { 0_u32.wrapping_sub(choices.byte().into()) } else { choices.word() }
}

/// Tells whether somebody lied.
fn block_ring(choices: &mut Choices<'_>, liar: bool) -> bool {
    let layout = Layout::of_slots(1 << choices.below(6), choices.of(&[28, 27, 4, 1]));
    let start = start(choices);
    let page = Box::new(Page::new());
    let mut table = Table {
        memory: &page,
        layout,
        front: Front::starting_at(&page, layout, Index::new(start)),
        back: Back::attach(&page, layout),
        requests: Way::new(),
        responses: Way::new(),
        lied: false,
    };
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        table.step(choices, liar);
        table.check_counts();
    }
    table.lied
}

impl Table<'_> {
    fn step(&mut self, choices: &mut Choices<'_>, liar: bool) {
        match choices.below(32) {
            0..6 => self.put_request(choices),
            6..10 => self.take_request(choices),
            10..15 => self.put_response(choices),
            15..19 => self.take_response(choices),
            19..22 => self.publish_requests(),
            22..25 => self.publish_responses(),
            25..27 => self.rest_back(),
            27..29 => self.rest_front(),
            _ if liar => self.lie(choices),
            _ => {}
        }
    }

    fn message(&self, choices: &mut Choices<'_>) -> Vec<u32> {
        let length = 1 + choices.below(self.layout.slot_words());
        let first = choices.word();
        (0..length).map(|at| first.wrapping_add(u32::try_from(at).unwrap_or(0))).collect()
    }

    fn put_request(&mut self, choices: &mut Choices<'_>) {
        let words = self.message(choices);
        let room = self.requests.put - self.responses.taken < u64::from(self.layout.slots());
        assert_eq!(self.front.put(&words).is_ok(), room);
        if room {
            self.requests.put(&words);
        }
    }

    fn put_response(&mut self, choices: &mut Choices<'_>) {
        let words = self.message(choices);
        let room = self.responses.put < self.requests.taken;
        assert_eq!(self.back.put(&words).is_ok(), room);
        if room {
            self.responses.put(&words);
        }
    }

    fn publish_requests(&mut self) {
        let (found, expected) = (self.front.publish(), self.requests.publish());
        assert!(self.lied || found == expected, "a wake-up of the back");
    }

    fn publish_responses(&mut self) {
        let (found, expected) = (self.back.publish(), self.responses.publish());
        assert!(self.lied || found == expected, "a wake-up of the front");
    }

    fn take_request(&mut self, choices: &mut Choices<'_>) {
        let skipped = choices.below(4);
        let taken = self.back.take(|reader| read(reader, skipped));
        taken_from(&mut self.requests, taken, skipped, self.lied);
        let most = self.responses.published + u64::from(self.layout.slots());
        assert!(self.requests.taken <= most, "more requests than slots");
    }

    fn take_response(&mut self, choices: &mut Choices<'_>) {
        let skipped = choices.below(4);
        let taken = self.front.take(|reader| read(reader, skipped));
        taken_from(&mut self.responses, taken, skipped, self.lied);
        assert!(self.responses.taken <= self.requests.published, "an answer to nothing");
    }

    fn rest_back(&mut self) {
        let (found, expected) = (self.back.rest(), self.requests.rest());
        assert!(self.lied || found == Ok(expected), "{found:?}");
    }

    fn rest_front(&mut self) {
        let (found, expected) = (self.front.rest(), self.responses.rest());
        assert!(self.lied || found == Ok(expected), "{found:?}");
    }

    fn lie(&mut self, choices: &mut Choices<'_>) {
        let at =
            if choices.valid() { choices.below(4) } else { choices.below(self.layout.words()) };
        let word = self.memory.word(at);
        let near = word.load(Ordering::Relaxed);
        let value = match choices.below(4) {
            0 => near.wrapping_add(choices.byte().into()),
            1 => near.wrapping_sub(choices.byte().into()),
            2 => near ^ (1 << choices.below(32)),
            _ => choices.word(),
        };
        word.store(value, Ordering::Relaxed);
        self.lied = true;
    }

    /// What is our own is never the peer's to change.
    fn check_counts(&self) {
        let busy = self.requests.put - self.responses.taken;
        assert_eq!(u64::from(self.layout.slots()) - busy, self.front.free().into());
        let unanswered = self.requests.taken - self.responses.put;
        assert_eq!(unanswered, self.back.unanswered().into());
    }
}

/// All words of a slot but the first ones.
fn read(reader: &mut Reader<'_, &Page>, skipped: usize) -> Vec<u32> {
    reader.skip(skipped);
    let words: Vec<u32> = std::iter::from_fn(|| reader.word()).collect();
    assert_eq!(reader.word(), None, "a reader that goes on");
    words
}

fn taken_from(way: &mut Way, taken: Result<Option<Vec<u32>>, Broken>, skipped: usize, lied: bool) {
    match taken {
        Err(broken) => assert!(lied, "nobody lied: {broken}"),
        Ok(None) => assert!(lied || way.visible.is_empty(), "a message was not seen"),
        Ok(Some(words)) => {
            way.taken += 1;
            let sent = way.visible.pop_front();
            if !lied {
                let sent = sent.expect("a message that nobody sent");
                let rest = sent.get(skipped..).unwrap_or_default();
                assert_eq!(words[..rest.len()], *rest);
            }
        }
    }
}
