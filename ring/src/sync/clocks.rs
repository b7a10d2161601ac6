//! Loom's word and fence, and beside them what happens before what in the sense of C11, counted by
//! vector clocks.
//!
//! Loom lets a read find any older value that it may find, but never a value that is written later:
//! it runs each side in the order of its program ("load buffering" is outside its model). So it
//! cannot see that a message is read too late, when its slot may have been written anew. The clocks
//! can: a word made by [`AtomicU32::exclusive`] may be touched by a side only if everything that the
//! other side did with it happened before. Whatever a message may say, slot words are such.
//!
//! It must never make an order of its own: no operation here is one that loom sees, but the one that
//! the caller asked for.

use core::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

pub use loom::sync::atomic::Ordering;

/// Both sides.
const SIDES: usize = 2;

/// How much of each side's doings has happened before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock([u32; SIDES]);

impl Clock {
    fn join(&mut self, other: Self) {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            *mine = its.max(*mine);
        }
    }
}

/// A side, and what it knows.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    number: usize,
    now: Clock,
    /// As of its last releasing fence.
    fenced: Clock,
    /// What it will know after its next acquiring fence.
    found: Clock,
}

impl Side {
    /// The clock that a write carries away.
    fn release(&mut self, order: Ordering) -> Clock {
        if !matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst) {
            return self.fenced;
        }
        let carried = self.now;
        self.now.0[self.number] += 1;
        carried
    }

    /// Takes in the clock of the write that a read found.
    fn acquire(&mut self, order: Ordering, found: Clock) {
        self.found.join(found);
        if matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst) {
            self.now.join(found);
        }
    }
}

loom::thread_local! {
    static SIDE: RefCell<Side> = RefCell::new(Side { now: Clock([1; SIDES]), ..Side::default() });
}

fn with_side<T>(act: impl FnOnce(&mut Side) -> T) -> T {
    SIDE.with(|side| act(&mut side.borrow_mut()))
}

/// All that this side has done and knows, for the side that it starts, or that waits for its end.
pub fn hand_over() -> Clock {
    with_side(|side| side.release(Ordering::Release))
}

/// Begins as side `number`, or goes on as it, knowing what another handed over.
pub fn take_over(number: usize, clock: Clock) {
    with_side(|side| {
        side.number = number;
        side.now.join(clock);
    });
}

/// One write.
#[derive(Clone, Copy, Debug)]
struct Write {
    value: u32,
    clock: Clock,
}

/// Who touched a word last, and when by its own clock.
#[derive(Clone, Copy, Debug)]
struct Touch {
    side: usize,
    at: u32,
}

/// A word: loom's holds the number of the write whose value it has.
#[derive(Debug)]
pub struct AtomicU32 {
    number: loom::sync::atomic::AtomicU32,
    writes: Mutex<Vec<Write>>,
    /// Of a word that only one side at a time may touch.
    touched: Option<Mutex<Option<Touch>>>,
}

impl AtomicU32 {
    /// A word that both sides may touch at any time.
    pub fn new(value: u32) -> Self {
        let first = Write { value, clock: Clock::default() };
        let number = loom::sync::atomic::AtomicU32::new(0);
        Self { number, writes: Mutex::new([first].into()), touched: None }
    }

    /// A word that a side may touch only when the other is done with it.
    pub fn exclusive(value: u32) -> Self {
        Self { touched: Some(Mutex::new(None)), ..Self::new(value) }
    }

    /// As the standard library's.
    pub fn load(&self, order: Ordering) -> u32 {
        let number = self.number.load(order);
        self.touch();
        let found = self.write(number);
        with_side(|side| side.acquire(order, found.clock));
        found.value
    }

    /// As the standard library's.
    pub fn store(&self, value: u32, order: Ordering) {
        let clock = with_side(|side| side.release(order));
        let number = self.add(Write { value, clock });
        self.number.store(number, order);
        self.touch();
    }

    /// As the standard library's.
    pub fn swap(&self, value: u32, order: Ordering) -> u32 {
        let clock = with_side(|side| side.release(order));
        let number = self.add(Write { value, clock });
        let found = self.number.swap(number, order);
        self.touch();
        let found = self.write(found);
        // What was released by the write that is replaced goes on with this one.
        let mut writes = lock(&self.writes);
        if let Some(write) = writes.get_mut(number as usize) {
            write.clock.join(found.clock);
        }
        with_side(|side| side.acquire(order, found.clock));
        found.value
    }

    fn write(&self, number: u32) -> Write {
        lock(&self.writes)[number as usize]
    }

    fn add(&self, write: Write) -> u32 {
        let mut writes = lock(&self.writes);
        writes.push(write);
        u32::try_from(writes.len() - 1).expect("fewer writes than numbers")
    }

    /// After the access: between it and here nothing else runs.
    fn touch(&self) {
        let Some(touched) = &self.touched else { return };
        with_side(|side| {
            let now = Touch { side: side.number, at: side.now.0[side.number] };
            let last = lock(touched).replace(now);
            let open = last.is_some_and(|last| side.now.0[last.side] < last.at);
            assert!(!open, "a slot was touched while the other side may have been at it: {last:?}");
        });
    }
}

/// As the standard library's.
pub fn fence(order: Ordering) {
    loom::sync::atomic::fence(order);
    with_side(|side| {
        let found = side.found;
        side.acquire(order, found);
        if matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst) {
            side.fenced = side.release(order);
        }
    });
}

/// Never contended: loom runs one thread at a time, and switches at its own operations only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
