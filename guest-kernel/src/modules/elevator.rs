//! A module's elevator as one of the kernel's.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::ffi::c_void;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use blkfront::elevator::{
    Batch, Choice, Direction, Elevator as KernelElevator, Noop, Taken, Time, Waiting,
};
use module_abi::{Entry, NEVER, READ, WRITE};

use super::Elevator;
use super::desk::ElevatorCalls;

impl Elevator {
    /// What makes elevators of this kind. It and each elevator hold on to `code`, without which
    /// their functions are not in memory.
    pub fn choice<C: Send + Sync + 'static>(&self, code: &Arc<C>) -> Choice {
        let (calls, name, code) = (self.calls, self.name.clone(), Arc::clone(code));
        let make = move |capacity| -> Box<dyn KernelElevator> {
            let state = (calls.create)();
            if state.is_null() {
                // Any order is a right one.
                return Box::new(Noop::new(capacity));
            }
            let (name, state) = (name.clone(), AtomicPtr::new(state));
            Box::new(Loaded { name, calls, state, held: None, _code: Arc::clone(&code) })
        };
        Choice { name: self.name.clone(), make: Box::new(make) }
    }
}

/// An elevator of a module, for one disk.
struct Loaded<C> {
    name: String,
    calls: ElevatorCalls,
    /// What `create` gave. Only for one at a time, but by whom does not matter.
    state: AtomicPtr<c_void>,
    /// What `next` gave when there was no room for it.
    held: Option<u16>,
    /// Dropped last.
    _code: Arc<C>,
}

impl<C: Send + Sync> KernelElevator for Loaded<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn insert(&mut self, request: Waiting) {
        let operation = match request.direction {
            Direction::Read => READ,
            Direction::Write => WRITE,
        };
        let entry = Entry {
            key: request.place.into(),
            sector: request.sector,
            sectors: request.sectors.into(),
            operation,
            reserved: 0,
            arrived_ns: request.arrived.0,
        };
        (self.calls.add)(self.state(), &entry);
    }

    fn take_batch(&mut self, batch: &mut dyn Batch, now: Time) {
        while let Some(place) = self.held.take().or_else(|| self.next(now)) {
            if batch.push(place) == Taken::Full {
                self.held = Some(place);
                return;
            }
        }
    }

    fn due(&self) -> Option<Time> {
        let due = (self.calls.due)(self.state());
        (due != NEVER).then_some(Time(due))
    }
}

impl<C> Loaded<C> {
    fn state(&self) -> *mut c_void {
        self.state.load(Ordering::Relaxed)
    }

    /// The module's choice.
    fn next(&self, now: Time) -> Option<u16> {
        let none =
            Entry { key: 0, sector: 0, sectors: 0, operation: 0, reserved: 0, arrived_ns: 0 };
        let mut entry = none;
        let any = (self.calls.next)(self.state(), now.0, &mut entry) != 0;
        any.then(|| u16::try_from(entry.key).expect("a module gives back what it was given"))
    }
}

impl<C> Drop for Loaded<C> {
    fn drop(&mut self) {
        (self.calls.destroy)(self.state());
    }
}

impl<C> fmt::Debug for Loaded<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;
    use std::vec::Vec;

    use module_abi::{ElevatorTable, Refused, Text};
    use spin::Mutex;

    use super::super::Desk;
    use super::*;

    /// The elevators of a module, which takes the last one first; a state is a number here.
    static STATES: Mutex<BTreeMap<usize, Vec<Entry>>> = Mutex::new(BTreeMap::new());

    extern "C" fn create() -> *mut c_void {
        let mut states = STATES.lock();
        let number = states.keys().next_back().map_or(1, |last| last + 1);
        states.insert(number, Vec::new());
        core::ptr::without_provenance_mut(number)
    }

    extern "C" fn no_memory() -> *mut c_void {
        core::ptr::null_mut()
    }

    extern "C" fn destroy(state: *mut c_void) {
        assert!(STATES.lock().remove(&state.addr()).is_some(), "destroyed once");
    }

    extern "C" fn add(state: *mut c_void, entry: &Entry) {
        STATES.lock().get_mut(&state.addr()).expect("it was created").push(*entry);
    }

    extern "C" fn next(state: *mut c_void, _: u64, entry: &mut Entry) -> u32 {
        let last = STATES.lock().get_mut(&state.addr()).expect("it was created").pop();
        last.map_or(0, |last| {
            *entry = last;
            1
        })
    }

    extern "C" fn due(state: *mut c_void) -> u64 {
        let states = STATES.lock();
        states[&state.addr()].iter().map(|entry| entry.arrived_ns).min().unwrap_or(NEVER)
    }

    fn stack(create: extern "C" fn() -> *mut c_void) -> Elevator {
        let table = ElevatorTable { name: Text::new(""), create, destroy, add, next, due };
        let mut desk = Desk::default();
        assert_eq!(desk.elevator("stack", &table), Ok(()));
        assert_eq!(desk.elevator("stack", &table), Err(Refused::NameTaken));
        for bad in ["", "two words", "\u{7}", &"x".repeat(25)] {
            assert_eq!(desk.elevator(bad, &table), Err(Refused::BadName), "{bad:?}");
        }
        desk.elevators.remove(0)
    }

    fn waiting(place: u16) -> Waiting {
        let arrived = Time(u64::from(place) + 100);
        Waiting { place, direction: Direction::Write, sector: 8, sectors: 88, arrived }
    }

    /// As many as there is room for.
    struct Room {
        taken: Vec<u16>,
        left: usize,
    }

    impl Batch for Room {
        fn join(&mut self, _: u16) -> bool {
            false
        }

        fn begin(&mut self, place: u16) -> bool {
            if self.left == 0 {
                return false;
            }
            self.left -= 1;
            self.taken.push(place);
            true
        }
    }

    fn batch(elevator: &mut dyn KernelElevator, left: usize) -> Vec<u16> {
        let mut room = Room { taken: Vec::new(), left };
        elevator.take_batch(&mut room, Time(5));
        room.taken
    }

    #[test]
    fn what_finds_no_room_goes_first_in_the_next_batch() {
        let mut elevator = (stack(create).choice(&Arc::new(())).make)(8);
        assert_eq!((elevator.name(), elevator.due()), ("stack", None));
        (0..4).for_each(|place| elevator.insert(waiting(place)));
        assert_eq!(elevator.due(), Some(Time(100)));
        assert_eq!(batch(&mut *elevator, 2), [3, 2]);
        elevator.insert(waiting(7));
        assert_eq!(batch(&mut *elevator, 0), []);
        assert_eq!(batch(&mut *elevator, 9), [1, 7, 0]);
        assert_eq!(batch(&mut *elevator, 9), []);
    }

    #[test]
    fn each_holds_on_to_the_code_and_gives_its_state_back() {
        let code = Arc::new(());
        let choice = stack(create).choice(&code);
        let [first, second] = [(choice.make)(8), (choice.make)(8)];
        assert_eq!(Arc::strong_count(&code), 4);
        drop((first, choice));
        assert_eq!(Arc::strong_count(&code), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&code), 1);
    }

    #[test]
    fn a_module_without_memory_leaves_the_order_of_arrival() {
        let code = Arc::new(());
        let mut elevator = (stack(no_memory).choice(&code).make)(8);
        (0..3).for_each(|place| elevator.insert(waiting(place)));
        assert_eq!(batch(&mut *elevator, 9), [0, 1, 2]);
        assert_eq!(elevator.name(), "noop");
    }
}
