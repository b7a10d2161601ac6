//! The protocols under every order of memory accesses that loom can think of: no message is slept
//! through, none is read before it is whole or after its slot was given back.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p ring --release --test loom`. A side that finds
//! nothing arms its event with `rest`, then clears its pending bit, as a domain does before it
//! blocks; if the bit was not set, it sleeps. When both sides sleep or have finished, only the
//! event channel can go on: whoever has a pending bit is woken. If nobody has one and messages are
//! left, a wake-up was lost. The bits are read and written at once, as Xen does it, and carry no more
//! ordering than they must, so that the fences and orderings of the rings are what the tests rest on.
//! `cargo xtask orders` takes them away one at a time and demands that each time a test here fails.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use loom::model::Builder;
use loom::thread;
use ring::bytes::{Area, Receiver, Sender};
use ring::sync::{AtomicU32, Ordering, hand_over, take_over};
use ring::{Back, Front, HEADER_WORDS, Index, Layout, Memory, Notify, Rest};

const SLOTS: u32 = 2;
/// Just below the wrap of the indexes.
const START: u32 = u32::MAX;

/// The ring's words, shared by both sides.
#[derive(Clone)]
struct Words(Arc<[AtomicU32]>);

impl Memory for Words {
    fn words(&self) -> usize {
        self.0.len()
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        &self.0[index]
    }
}

/// An event channel: one pending bit for each end.
#[derive(Clone)]
struct Channel(Arc<[AtomicU32; 2]>);

const FRONT: usize = 0;
const BACK: usize = 1;

impl Channel {
    fn new() -> Self {
        Self(Arc::new([AtomicU32::new(0), AtomicU32::new(0)]))
    }

    fn notify(&self, side: usize, asked: Notify) {
        if asked == Notify::Needed {
            self.send(side);
        }
    }

    fn send(&self, side: usize) {
        self.0[side].swap(1, Ordering::Relaxed);
    }

    fn clear(&self, side: usize) -> bool {
        self.0[side].swap(0, Ordering::Acquire) == 1
    }
}

fn ring() -> (Front<Words>, Back<Words>, Channel) {
    let layout = Layout::of_slots(SLOTS, 1);
    let header = (0..HEADER_WORDS).map(|_| AtomicU32::new(0));
    let words = Words(header.chain((0..SLOTS).map(|_| AtomicU32::exclusive(0))).collect());
    let front = Front::starting_at(words.clone(), layout, Index::new(START));
    (front, Back::attach(words, layout), Channel::new())
}

/// Runs `act` as the other side; its result comes with what it knows.
fn as_the_other<T: 'static>(act: impl FnOnce() -> T + 'static) -> impl FnOnce() -> T {
    let clock = hand_over();
    let other = thread::spawn(move || {
        take_over(1, clock);
        let done = act();
        (done, hand_over())
    });
    move || {
        let (done, clock) = other.join().unwrap();
        take_over(0, clock);
        done
    }
}

/// Takes the only word of a message.
macro_rules! take {
    ($half:expr) => {
        $half.take(|reader| reader.word().unwrap()).unwrap()
    };
}

/// The side that asks: puts `total` requests, as soon as there is room, and takes the responses.
struct Asker {
    front: Front<Words>,
    channel: Channel,
    total: u32,
    put: u32,
    taken: u32,
}

impl Asker {
    /// Works until it has to sleep or has all responses.
    fn run(&mut self) {
        loop {
            while self.put < self.total && self.front.free() > 0 {
                self.front.put(&[self.put]).unwrap();
                self.put += 1;
                self.channel.notify(BACK, self.front.publish());
            }
            while let Some(response) = take!(self.front) {
                assert_eq!(response, !self.taken, "responses come in order and whole");
                self.taken += 1;
            }
            if self.taken == self.total {
                return;
            }
            let room = self.put < self.total && self.front.free() > 0;
            if !room && self.front.rest().unwrap() == Rest::Idle && !self.channel.clear(FRONT) {
                return;
            }
        }
    }
}

/// The side that answers.
struct Answerer {
    back: Back<Words>,
    channel: Channel,
    taken: u32,
}

impl Answerer {
    /// Works until it has to sleep.
    fn run(&mut self) {
        loop {
            while let Some(request) = take!(self.back) {
                assert_eq!(request, self.taken, "requests come in order and whole");
                self.taken += 1;
                self.back.put(&[!request]).unwrap();
                self.channel.notify(FRONT, self.back.publish());
            }
            if self.back.rest().unwrap() == Rest::Idle && !self.channel.clear(BACK) {
                return;
            }
        }
    }
}

/// `total` requests there and back, both sides at once.
fn there_and_back(total: u32, preemptions: Option<usize>) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let (front, back, channel) = ring();
        let mut asker = Asker { front, channel: channel.clone(), total, put: 0, taken: 0 };
        let mut answerer = Answerer { back, channel: channel.clone(), taken: 0 };
        let other = as_the_other(move || {
            answerer.run();
            answerer
        });
        asker.run();
        let mut answerer = other();
        while asker.taken < total {
            let (front_woken, back_woken) = (channel.clear(FRONT), channel.clear(BACK));
            assert!(front_woken || back_woken, "a wake-up was lost");
            if back_woken {
                answerer.run();
            }
            if front_woken {
                asker.run();
            }
        }
    });
}

/// Requests only: the back takes and never answers.
fn one_way(total: u32, preemptions: Option<usize>) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let (mut front, mut back, channel) = ring();
        let events = channel.clone();
        let other = as_the_other(move || {
            let mut taken = 0;
            loop {
                while let Some(request) = take!(back) {
                    assert_eq!(request, taken);
                    taken += 1;
                }
                if back.rest().unwrap() == Rest::Idle && !events.clear(BACK) {
                    return (back, taken);
                }
            }
        });
        for number in 0..total {
            front.put(&[number]).unwrap();
            channel.notify(BACK, front.publish());
        }
        let (mut back, taken) = other();
        if taken < total {
            assert!(channel.clear(BACK), "a wake-up was lost");
            assert_eq!(take!(back), Some(taken));
        }
    });
}

/// Responses only: the back answers requests that it took before.
fn one_way_back(total: u32, preemptions: Option<usize>) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let (mut front, mut back, channel) = ring();
        for number in 0..total {
            front.put(&[number]).unwrap();
        }
        let _ = front.publish();
        while take!(back).is_some() {}
        let events = channel.clone();
        let other = as_the_other(move || {
            let mut taken = 0;
            loop {
                while let Some(response) = take!(front) {
                    assert_eq!(response, !taken);
                    taken += 1;
                }
                if front.rest().unwrap() == Rest::Idle && !events.clear(FRONT) {
                    return (front, taken);
                }
            }
        });
        for number in 0..total {
            back.put(&[!number]).unwrap();
            channel.notify(FRONT, back.publish());
        }
        let (mut front, taken) = other();
        if taken < total {
            assert!(channel.clear(FRONT), "a wake-up was lost");
            assert_eq!(take!(front), Some(!taken));
        }
    });
}

/// Two words of bytes, then the two indexes.
const TINY: Area = Area::new(0, 8, 8, 12);

/// A word's worth of bytes that tells its number.
fn chunk(number: u8) -> [u8; 4] {
    [0, 1, 2, 3].map(|at| number * 4 + at + 1)
}

/// Sends chunks until it has to sleep or all are sent; tells how many are.
fn send_chunks(sender: &mut Sender<Words>, channel: &Channel, mut sent: u8, total: u8) -> u8 {
    while sent < total {
        match sender.send(&chunk(sent)).unwrap() {
            0 if !channel.clear(FRONT) => return sent,
            0 => {}
            count => {
                assert_eq!(count, 4);
                sent += 1;
                channel.send(BACK);
            }
        }
    }
    sent
}

/// Receives chunks until it has to sleep or has all; tells how many it has.
fn receive_chunks(from: &mut Receiver<Words>, channel: &Channel, mut got: u8, total: u8) -> u8 {
    while got < total {
        let mut out = [0; 4];
        match from.receive(&mut out).unwrap() {
            0 if !channel.clear(BACK) => return got,
            0 => {}
            count => {
                assert_eq!((count, out), (4, chunk(got)));
                got += 1;
                channel.send(FRONT);
            }
        }
    }
    got
}

/// `total` chunks through a ring of two.
fn bytes(total: u8, preemptions: Option<usize>) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        // Only one side at a time touches a word of these: it is sent and received as a whole.
        let data = (0..2).map(|_| AtomicU32::exclusive(0));
        let words = Words(data.chain((0..2).map(|_| AtomicU32::new(u32::MAX - 3))).collect());
        let channel = Channel::new();
        let mut sender = Sender::attach(words.clone(), TINY);
        let mut receiver = Receiver::attach(words, TINY);
        let events = channel.clone();
        let other = as_the_other(move || {
            let got = receive_chunks(&mut receiver, &events, 0, total);
            (receiver, got)
        });
        let mut sent = send_chunks(&mut sender, &channel, 0, total);
        let (mut receiver, mut got) = other();
        while got < total {
            let (front_woken, back_woken) = (channel.clear(FRONT), channel.clear(BACK));
            assert!(front_woken || back_woken, "a wake-up was lost");
            if back_woken {
                got = receive_chunks(&mut receiver, &channel, got, total);
            }
            if front_woken {
                sent = send_chunks(&mut sender, &channel, sent, total);
            }
        }
    });
}

#[test]
fn no_byte_is_slept_through_or_torn() {
    bytes(2, None);
}

#[test]
fn no_byte_is_overwritten_before_it_was_read() {
    bytes(3, Some(3));
}

#[test]
fn no_request_is_slept_through() {
    one_way(2, None);
}

#[test]
fn no_response_is_slept_through() {
    one_way_back(2, None);
}

#[test]
fn no_message_is_slept_through_either_way() {
    there_and_back(2, Some(5));
}

#[test]
fn no_message_is_slept_through_when_slots_are_used_again() {
    there_and_back(3, Some(5));
}
