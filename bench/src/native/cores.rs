//! The ring between two processors: both ends look without end, nobody sleeps, requests and responses
//! are on their way at the same time.
//!
//! How long a word takes from one processor to the other changes by itself, as the machine is moved
//! about, so it is measured beside each block: blocks in which it takes too long are not counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use blkif::{Raw, Response};
use ring::{Back, Front, Page};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::rings::{ABI, Slot, answer, pages, request, slot, terms};

/// What a round trip of one word may take, in nanoseconds, for a block to be counted.
pub const PING_PONG_MAX_NS: f64 = 200.0;
/// Requests of one page that are in flight, and how many are made visible at once.
const DEPTH: u32 = 32;
const BATCH: u32 = 16;
/// Looks for nothing before a thread lets others have its processor: it may be the only one.
const LOOKS_MAX: u32 = 1000;

/// Keeps this thread, and those that it begins, on the `nth` of the processors that it may use. Where
/// that is not possible it stays where it is.
pub fn pin(nth: usize) {
    // As it was before the first thread was pinned.
    static ALL: OnceLock<Option<CpuSet>> = OnceLock::new();
    let Some(all) = ALL.get_or_init(|| sched_getaffinity(None).ok()) else { return };
    let mut usable = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu));
    if let Some(cpu) = usable.nth(nth) {
        let mut one = CpuSet::new();
        one.set(cpu);
        // A thread that is not pinned is measured all the same.
        let _ = sched_setaffinity(None, &one);
    }
}

/// A thread's patience while it looks for something.
#[derive(Default)]
struct Looks(u32);

impl Looks {
    fn again(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(LOOKS_MAX) {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// A word with a cache line of its own, and the next one, which processors fetch along.
#[repr(align(128))]
struct Line(AtomicU32);

/// Runs `here` on this thread and `there` on another processor, both at once; gives the nanoseconds
/// of `here` for each of `count`.
fn timed(count: u32, there: impl FnOnce() + Send, here: impl FnOnce()) -> f64 {
    let begun = Line(AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            begun.0.store(1, Ordering::Release);
            there();
        });
        let mut looks = Looks::default();
        while begun.0.load(Ordering::Acquire) == 0 {
            looks.again();
        }
        let start = Instant::now();
        here();
        start.elapsed().as_secs_f64() * 1e9 / f64::from(count)
    })
}

/// How long a word takes to the other processor and back, in nanoseconds.
pub fn ping_pong(count: u32) -> f64 {
    let (ping, pong) = (Line(AtomicU32::new(0)), Line(AtomicU32::new(0)));
    let wait = |line: &Line, value| {
        let mut looks = Looks::default();
        while line.0.load(Ordering::Acquire) != value {
            looks.again();
        }
    };
    let there = || {
        for at in 1..=count {
            wait(&ping, at);
            pong.0.store(at, Ordering::Release);
        }
    };
    timed(count, there, || {
        for at in 1..=count {
            ping.0.store(at, Ordering::Release);
            wait(&pong, at);
        }
    })
}

/// How long a request and its response take in our ring, 32 in flight, in nanoseconds.
pub fn ours(count: u32) -> f64 {
    let memory = Box::new(Page::new());
    let mut front = Front::new(&*memory, ABI.layout(0));
    let mut back = Back::attach(&*memory, ABI.layout(0));
    let (disk, agreed) = terms();
    let there = || {
        let (mut done, mut unseen, mut looks) = (0, 0, Looks::default());
        let mut raw = Raw::new();
        while done < count {
            match back.take(|slot| raw.read(slot, ABI)).expect("an honest front") {
                Some(()) => {
                    let words = answer(&raw, &disk, &agreed).words(ABI);
                    back.put(&words).expect("it was taken");
                    (done, unseen) = (done + 1, unseen + 1);
                }
                None => looks.again(),
            }
            if unseen == BATCH || done == count {
                let _ = back.publish();
                unseen = 0;
            }
        }
    };
    timed(count, there, || {
        let page = pages(1);
        let (mut put, mut taken, mut looks) = (0, 0, Looks::default());
        while taken < count {
            while put < count && put - taken < DEPTH {
                let words = request(u64::from(put), &page).words(ABI, 0);
                front.put(&words).expect("the ring has room");
                put += 1;
                if put.is_multiple_of(BATCH) || put == count {
                    let _ = front.publish();
                }
            }
            match front.take(Response::parse).expect("an honest back") {
                Some(response) => {
                    assert_eq!(response.id, u64::from(taken), "in order, from this back");
                    taken += 1;
                }
                None => looks.again(),
            }
        }
    })
}

/// How long an item of 112 bytes takes through `rtrb`, one way, in nanoseconds.
pub fn through_rtrb(count: u32) -> f64 {
    let (mut items, mut taken) = rtrb::RingBuffer::<Slot>::new(DEPTH as usize);
    let there = || {
        let mut looks = Looks::default();
        for at in 0..count {
            let mut item = slot(u64::from(at), 1);
            while let Err(rtrb::PushError::Full(back)) = items.push(item) {
                item = back;
                looks.again();
            }
        }
    };
    timed(count, there, || {
        let mut looks = Looks::default();
        for at in 0..count {
            let item = loop {
                match taken.pop() {
                    Ok(item) => break item,
                    Err(_) => looks.again(),
                }
            };
            assert_eq!(item[2], at, "in order");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_between_two_threads_in_order() {
        for time in [ping_pong(100), ours(1000), through_rtrb(1000)] {
            assert!(time > 0.0);
        }
    }
}
