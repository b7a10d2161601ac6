//! Both ends in two threads over one set of pages, with every byte checked.
//!
//! Natively a stress test of the wake-ups; under Miri (`cargo xtask test miri`) a proof
//! for the schedules it takes that there is no data race: every shared word is atomic. A lost
//! wake-up ends in a message after [`PATIENCE`], not in a test that hangs.
#![cfg(not(any(loom, narrow)))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use ring::bytes::{Area, Receiver, Sender};
use ring::{Back, Front, Index, Layout, Notify, Page, Reader, Rest};

const PATIENCE: Duration = Duration::from_secs(60);
const MESSAGES: u32 = if cfg!(miri) { 100 } else { 100_000 };
const BYTES: usize = if cfg!(miri) { 3000 } else { 3_000_000 };

/// One end of an event channel.
#[derive(Default)]
struct Event {
    pending: Mutex<bool>,
    raised: Condvar,
}

impl Event {
    fn notify(&self) {
        *self.pending.lock().unwrap() = true;
        self.raised.notify_one();
    }

    fn wait(&self) {
        let pending = self.pending.lock().unwrap();
        let (mut pending, timeout) =
            self.raised.wait_timeout_while(pending, PATIENCE, |pending| !*pending).unwrap();
        assert!(!timeout.timed_out(), "a wake-up was lost");
        *pending = false;
    }
}

/// A message that fills its slot and tells its number in every word.
fn message(number: u32, slot_words: usize) -> Vec<u32> {
    (0..).map(|at| number.wrapping_mul(0x9e37_79b9) ^ at).take(slot_words).collect()
}

fn all_words(reader: &mut Reader<'_, &[Page]>) -> Vec<u32> {
    std::iter::from_fn(|| reader.word()).collect()
}

fn serve(pages: &[Page], layout: Layout, front: &Event, back: &Event) {
    let mut ring = Back::attach(pages, layout);
    let mut served = 0;
    while served < MESSAGES {
        while let Some(words) = ring.take(all_words).unwrap() {
            assert_eq!(words, message(served, layout.slot_words()));
            let answer: Vec<u32> = words.iter().map(|word| !word).collect();
            ring.put(&answer).unwrap();
            served += 1;
            // Batches of every size from one to a ring full.
            if served % 7 == 0 && ring.publish() == Notify::Needed {
                front.notify();
            }
        }
        if ring.publish() == Notify::Needed {
            front.notify();
        }
        if served < MESSAGES && ring.rest().unwrap() == Rest::Idle {
            back.wait();
        }
    }
}

fn ask(mut ring: Front<&[Page]>, slot_words: usize, front: &Event, back: &Event) {
    let (mut asked, mut answered) = (0, 0);
    while answered < MESSAGES {
        while asked < MESSAGES && ring.free() > 0 {
            ring.put(&message(asked, slot_words)).unwrap();
            asked += 1;
            if asked % 5 == 0 && ring.publish() == Notify::Needed {
                back.notify();
            }
        }
        if ring.publish() == Notify::Needed {
            back.notify();
        }
        while let Some(words) = ring.take(all_words).unwrap() {
            let request: Vec<u32> = words.iter().map(|word| !word).collect();
            assert_eq!(request, message(answered, slot_words));
            answered += 1;
        }
        let full = asked == MESSAGES || ring.free() == 0;
        if full && answered < MESSAGES && ring.rest().unwrap() == Rest::Idle {
            front.wait();
        }
    }
}

fn requests_and_responses(order: u32, slot_words: usize) {
    let pages: Vec<Page> = (0..1 << order).map(|_| Page::new()).collect();
    let layout = Layout::of_pages(order, slot_words);
    let ring = Front::starting_at(&pages[..], layout, Index::new(u32::MAX - 20));
    let (front, back) = (Event::default(), Event::default());
    thread::scope(|scope| {
        scope.spawn(|| serve(&pages, layout, &front, &back));
        ask(ring, slot_words, &front, &back);
    });
}

#[test]
fn requests_and_responses_pass_in_one_page() {
    requests_and_responses(0, 28);
}

#[test]
fn requests_and_responses_pass_in_slots_that_straddle_pages() {
    requests_and_responses(1, 27);
}

fn byte(number: usize) -> u8 {
    number.wrapping_mul(31).to_le_bytes()[0] ^ number.to_le_bytes()[1]
}

fn send(page: &Page, sent: &Event, received: &Event) {
    let mut sender = Sender::attach(page, Area::CONSOLE_OUT);
    let bytes: Vec<u8> = (0..BYTES).map(byte).collect();
    let mut at = 0;
    while at < BYTES {
        let end = BYTES.min(at + 1 + at % 1500);
        match sender.send(&bytes[at..end]).unwrap() {
            0 => received.wait(),
            count => {
                at += count;
                sent.notify();
            }
        }
    }
}

fn receive(page: &Page, sent: &Event, received: &Event) {
    let mut receiver = Receiver::attach(page, Area::CONSOLE_OUT);
    let mut at = 0;
    while at < BYTES {
        let mut out = [0; 700];
        let most = 1 + at % out.len();
        match receiver.receive(&mut out[..most]).unwrap() {
            0 => sent.wait(),
            count => {
                for &byte_now in &out[..count] {
                    assert_eq!(byte_now, byte(at));
                    at += 1;
                }
                received.notify();
            }
        }
    }
}

#[test]
fn bytes_pass_in_order() {
    let page = Page::new();
    let (sent, received) = (Event::default(), Event::default());
    thread::scope(|scope| {
        scope.spawn(|| receive(&page, &sent, &received));
        send(&page, &sent, &received);
    });
}
