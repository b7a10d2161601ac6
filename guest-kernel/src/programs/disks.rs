//! The disks of the machine: connected at the start, looked after whenever a program waits.
//!
//! The only place where programs wait. Each wake-up looks after all disks, not only the one that
//! the program works on: xenstore may say that another one closes, or has a new size.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use blkfront::elevator::{Elevators, Time};
use blkfront::{Completion, Device, Disk, DiskName, Fault, Wishes};
use blkif::{Operation, Status};
use ring::Rest;
use xen::{Store, Transaction};

use super::observe::{DiskLook, Look, Observer, Plan};
use super::scheduler::Wanted;
use super::{Failure, Machine};
use crate::cpu::STEAL_WARN;
use crate::files::Mounts;
use crate::time::Instant;

/// A guest uses at most this many disks.
pub const DISKS_MAX: usize = 16;
/// How long the start waits for the backs.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the end waits for them.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a program that ended waits for its last requests.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
/// Pages for the data of one disk: no more than a deep queue of large requests can use.
const POOL_PAGES: core::ops::RangeInclusive<u64> = 16..=1056;
/// With a pool of this many pages, a ring of 4 pages is worth its memory.
const LARGE_POOL_PAGES: u64 = 512;
/// Where the tool stack puts disks, and the token of the watch on it.
const FOLDER: &str = "device/vbd";

pub(super) type OneDevice<M> = Device<<M as Machine>::Grants, <M as Machine>::Events>;
type OneDisk<M> = Disk<<M as Machine>::Grants, <M as Machine>::Events>;

/// A disk by its place in the machine's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which(usize);

/// All disks of a machine.
pub struct Disks<M: Machine> {
    pub(super) devices: Vec<OneDevice<M>>,
    pub(super) elevators: Elevators,
    pub(super) wanted: Wanted,
    /// Disks in xenstore that are not used, which has been told.
    unused: Vec<u32>,
    wishes: Wishes,
    read_before: bool,
    observer: Observer,
    /// While something is half changed on a disk, Ctrl-C has to wait.
    pub(crate) steadfast: bool,
    /// What is mounted where.
    pub(crate) mounts: Mounts,
}

impl<M: Machine> Disks<M> {
    /// No disks yet.
    pub fn new() -> Self {
        Self {
            devices: Vec::new(),
            elevators: Elevators::new(),
            wanted: Wanted::default(),
            unused: Vec::new(),
            wishes: SMALL,
            read_before: false,
            observer: Observer::new(),
            steadfast: false,
            mounts: Mounts::new(),
        }
    }

    /// Opens every disk that the tool stack has given us and waits until each is connected, was
    /// refused, or `patience` is over. Prints what went wrong.
    pub fn connect(&mut self, machine: &M, patience: Duration) {
        let Some(store) = machine.store() else { return };
        if let Err(error) = store.watch(FOLDER, FOLDER) {
            machine.print(format_args!("pvblk: cannot watch {FOLDER}: {error}"));
        }
        self.look_for_new(machine);
        self.look_after(machine);
        let until = machine.now().after(patience);
        while !self.devices.iter().all(|it| it.is_connected() || it.is_closed()) {
            if machine.now() >= until {
                break;
            }
            machine.wait(Some(until), &mut |_| {});
            self.look_after(machine);
        }
        for device in self.devices.iter().filter(|it| !it.is_connected()) {
            let reason = state(store, &device.watched());
            machine.print(format_args!("{}: not connected: its back is {reason}", device.name()));
        }
        self.miss_disks(machine);
    }

    /// The disk of this name, in service.
    ///
    /// # Errors
    /// [`Failure::missing`], naming those there are.
    pub fn find(&mut self, name: &str) -> Result<Which, Failure> {
        let at = self.devices.iter().position(|it| it.name().to_string() == name);
        let Some(at) = at else {
            let names: Vec<String> = self.devices.iter().map(|it| it.name().to_string()).collect();
            let there = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            return Err(Failure::missing(format!("{name}: no such disk: there is {there}")));
        };
        self.disk(Which(at))?;
        Ok(Which(at))
    }

    /// Every disk, in service or not, with its name.
    pub fn all(&mut self) -> impl Iterator<Item = (DiskName, Option<&mut OneDisk<M>>)> {
        self.devices.iter_mut().map(|device| (device.name(), device.disk()))
    }

    /// Every disk, in service or not.
    pub fn places(&self) -> impl Iterator<Item = Which> + use<M> {
        (0..self.devices.len()).map(Which)
    }

    /// What the disk is called.
    pub fn name(&self, which: Which) -> DiskName {
        self.devices[which.0].name()
    }

    /// The disk, while it is in service.
    ///
    /// # Errors
    /// [`Failure::missing`] if it is not.
    pub fn disk(&mut self, which: Which) -> Result<&mut OneDisk<M>, Failure> {
        let device = &mut self.devices[which.0];
        let name = device.name();
        device.disk().ok_or_else(|| Failure::missing(format!("{name}: not connected")))
    }

    /// The next completion of a disk, if there is one now. One that says anything but "done" is
    /// a failure.
    ///
    /// # Errors
    /// [`Failure`] if the request or the connection failed.
    pub fn poll(
        &mut self,
        machine: &M,
        which: Which,
    ) -> Result<Option<Completion<M::Grants>>, Failure> {
        let name = self.name(which);
        self.tell_time(machine, which)?;
        let done = match self.disk(which)?.poll() {
            Ok(Some(done)) => done,
            Ok(None) => return Ok(None),
            Err(fault) => return Err(self.broken(machine, which, fault)),
        };
        if done.status != Status::Okay {
            let (what, how) = (verb(done.operation), word(done.status));
            return Err(Failure::failed(format!("{name}: a {what} was answered with {how}")));
        }
        if done.operation == Operation::Read && !core::mem::replace(&mut self.read_before, true) {
            machine.mark("first read");
        }
        Ok(Some(done))
    }

    /// Tells a disk the time, if its elevator wants to know.
    fn tell_time(&mut self, machine: &M, which: Which) -> Result<(), Failure> {
        let disk = self.disk(which)?;
        if disk.wants_time() {
            disk.at(Time(machine.now().as_nanos()));
        }
        Ok(())
    }

    /// Waits until a disk may have completions, for the caller who has requests in flight there.
    ///
    /// # Errors
    /// [`Failure`] if the connection of `which` is lost, or on Ctrl-C.
    pub fn wait(&mut self, machine: &M, which: Which) -> Result<(), Failure> {
        self.wait_until(machine, which, None)
    }

    fn wait_until(
        &mut self,
        machine: &M,
        which: Which,
        until: Option<Instant>,
    ) -> Result<(), Failure> {
        let name = self.name(which);
        self.tell_time(machine, which)?;
        let disk = self.disk(which)?;
        if disk.in_flight() == 0 {
            return Err(Failure::failed(format!("{name}: the connection was lost")));
        }
        // What did not find room in the ring, or had better wait, goes on by itself.
        if disk.unsent() > 0 {
            disk.kick();
        }
        let due = disk.due().map(|Time(nanoseconds)| Instant::from_nanos(nanoseconds));
        let until = [until, due].into_iter().flatten().min();
        for at in 0..self.devices.len() {
            match self.devices[at].disk().map(Disk::rest) {
                None | Some(Ok(Rest::Idle)) => {}
                Some(Ok(Rest::Work)) if at == which.0 => return Ok(()),
                // Somebody else's completions; whoever asked for them polls.
                Some(Ok(Rest::Work)) => {}
                Some(Err(fault)) if at == which.0 => return Err(self.broken(machine, which, fault)),
                Some(Err(_)) => {}
            }
        }
        self.sleep(machine, until);
        if !self.steadfast && machine.interrupted() {
            return Err(Failure::interrupted());
        }
        Ok(())
    }

    /// Ends what a program left behind: waits for its last requests and forgets them.
    pub fn settle(&mut self, machine: &M) {
        let until = machine.now().after(DRAIN_PATIENCE);
        for at in 0..self.devices.len() {
            let which = Which(at);
            while machine.now() < until
                && self.devices[at].disk().is_some_and(|it| it.in_flight() > 0)
            {
                let Ok(disk) = self.disk(which) else { break };
                disk.kick();
                match disk.poll() {
                    Ok(Some(done)) if done.status != Status::Okay => {
                        let (what, how) = (verb(done.operation), word(done.status));
                        let name = self.name(which);
                        machine.print(format_args!("{name}: a {what} was answered with {how}"));
                    }
                    Ok(Some(_)) => {}
                    // An interrupt ends programs, not this.
                    Ok(None) => drop(self.wait_until(machine, which, Some(until))),
                    Err(_) => break,
                }
            }
        }
    }

    /// Makes durable what was written, where the backs offer that.
    fn flush(&mut self, machine: &M) {
        for device in &mut self.devices {
            let name = device.name();
            let Some(disk) = device.disk() else { continue };
            let written = disk.counters().written_sectors > 0 && !disk.geometry().read_only();
            if written
                && disk.agreed().flush()
                && let Err(error) = disk.flush()
            {
                machine.print(format_args!("{name}: flush: {error}"));
            }
        }
        self.settle(machine);
    }

    /// Closes every disk in good order, as far as the backs take part.
    pub fn close(&mut self, machine: &M) {
        let Some(store) = machine.store() else { return };
        self.flush(machine);
        for device in &mut self.devices {
            if let Err(error) = device.close(store).and_then(|()| device.turn(store)) {
                machine.print(format_args!("{}: {error}", device.name()));
            }
        }
        let until = machine.now().after(CLOSE_PATIENCE);
        while !self.devices.iter().all(Device::is_closed) && machine.now() < until {
            self.sleep(machine, Some(until));
        }
    }

    /// Waits once, until an event or until `until`, for a program that waits for something else
    /// than a disk.
    ///
    /// # Errors
    /// [`Failure`] on Ctrl-C.
    pub fn pause(&mut self, machine: &M, until: Option<Instant>) -> Result<(), Failure> {
        self.sleep(machine, until);
        if machine.interrupted() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Sleeps until an event, notes whose it was, and looks after everything.
    fn sleep(&mut self, machine: &M, until: Option<Instant>) {
        if self.observer.is_looking() {
            self.observe(machine);
        }
        let until = [until, self.observer.next()].into_iter().flatten().min();
        let devices = &mut self.devices;
        let busy = devices.iter_mut().filter_map(Device::disk).any(|disk| disk.in_flight() > 0);
        let wait = if busy { M::wait_for_disks } else { M::wait };
        wait(machine, until, &mut |port| {
            let mut disks = devices.iter_mut().filter_map(Device::disk);
            if let Some(disk) = disks.find(|disk| disk.port() == port) {
                disk.woken();
            }
        });
        self.look_after(machine);
    }

    /// Follows what xenstore says of the backs, and of disks that are new. Whoever waits for
    /// something else than a disk calls this after every wake-up.
    pub fn look_after(&mut self, machine: &M) {
        self.observe(machine);
        let Some(store) = machine.store() else { return };
        loop {
            let mut folder = false;
            while let Ok(Some(event)) = store.event() {
                folder |= event.token == FOLDER;
                for device in self.devices.iter_mut().filter(|it| it.path() == event.token) {
                    turn(machine, store, device);
                }
            }
            if !folder {
                return;
            }
            // Its questions may have brought more watches in with the answers, and nothing else
            // will tell of those.
            self.look_for_new(machine);
        }
    }

    /// Lets those look who look on, if it is time to. A program that computes for long without
    /// waiting calls this now and then.
    pub fn observe(&mut self, machine: &M) {
        let now = machine.now();
        if self.observer.wants_steal(now) {
            let threshold = STEAL_WARN.get();
            if let Some(percent) = self.observer.look_at_steal(machine.cpu_times(), threshold) {
                machine.print(format_args!(
                    "pvblk: warning: steal time is {percent} %, more than {threshold} %: others \
                     take the processor"
                ));
            }
        }
        if self.observer.is_looking() {
            let depths = self.devices.iter_mut().map(|it| it.disk().map_or(0, in_flight));
            self.observer.sum(now, depths);
            if self.observer.next().is_some_and(|next| now >= next) {
                self.show(machine, now);
            }
        }
    }

    /// Shows from now on what happens, until [`end_report`](Self::end_report). `task` is the name
    /// of the program that is looked at, if it is not the one that looks.
    pub fn begin_report(&mut self, machine: &M, plan: Plan, task: &str) {
        let first = self.look(machine, machine.now());
        self.observer.begin(plan, task, first);
        self.observe(machine);
    }

    /// Whether all that was to be shown was shown.
    pub fn report_is_done(&self) -> bool {
        self.observer.is_done()
    }

    /// Shows no more, but what happened since the last look, if a program was looked at.
    pub fn end_report(&mut self, machine: &M) {
        if self.observer.is_cut_short() {
            self.show(machine, machine.now());
        }
        self.observer.end();
    }

    fn show(&mut self, machine: &M, now: Instant) {
        let look = self.look(machine, now);
        if let Some(text) = self.observer.show(look, STEAL_WARN.get()) {
            machine.print(format_args!("{text}"));
        }
    }

    fn look(&mut self, machine: &M, now: Instant) -> Look {
        let observer = &self.observer;
        let disks = self.devices.iter_mut().enumerate().filter_map(|(at, device)| {
            let name = device.name();
            let disk = device.disk()?;
            let (counters, in_flight) = (*disk.counters(), in_flight(disk));
            Some(DiskLook { name, counters, in_flight, queued_ns: observer.queued_ns(at) })
        });
        let (cpu, free_pages) = (machine.cpu_times(), machine.free_pages());
        Look { at_ns: now.as_nanos(), cpu, free_pages, disks: disks.collect() }
    }

    /// Opens the disks that are in xenstore and not here.
    fn look_for_new(&mut self, machine: &M) {
        let Some(store) = machine.store() else { return };
        let names = store.list(Transaction::NONE, FOLDER).unwrap_or_default();
        let mut numbers: Vec<u32> = names.iter().filter_map(|it| it.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.retain(|number| !self.knows(*number));
        if self.devices.is_empty() {
            self.wishes = wishes(machine.free_pages(), numbers.len().min(DISKS_MAX));
        }
        for number in numbers {
            if let Err(reason) = self.open(machine, store, number) {
                machine.print(format_args!("{}: not used: {reason}", DiskName::new(number)));
                self.unused.push(number);
            }
        }
    }

    fn knows(&self, number: u32) -> bool {
        let used = self.devices.iter().any(|it| it.name().number() == number);
        used || self.unused.contains(&number)
    }

    fn open(&mut self, machine: &M, store: &M::Store, number: u32) -> Result<(), String> {
        if self.devices.len() == DISKS_MAX {
            return Err(format!("{DISKS_MAX} disks are the limit"));
        }
        let path = format!("{FOLDER}/{number}");
        let device = Device::open(store, &path, machine.ends(), self.wishes);
        let mut device = device.map_err(|error| error.to_string())?;
        self.choose_elevator(&mut device);
        store.watch(&device.watched(), &path).map_err(|error| error.to_string())?;
        turn(machine, store, &mut device);
        self.devices.push(device);
        Ok(())
    }

    /// Reports a broken connection and begins its end.
    fn broken(&mut self, machine: &M, which: Which, fault: Fault) -> Failure {
        let device = &mut self.devices[which.0];
        if let Some(store) = machine.store() {
            turn(machine, store, device);
        }
        Failure::failed(format!("{}: the back broke the connection: {fault}", device.name()))
    }
}

// By hand: a derive would ask that `M` be `Debug` too.
impl<M: Machine> core::fmt::Debug for Disks<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disks").field("wishes", &self.wishes).finish_non_exhaustive()
    }
}

impl<M: Machine> Default for Disks<M> {
    fn default() -> Self {
        Self::new()
    }
}

fn turn<M: Machine>(machine: &M, store: &M::Store, device: &mut OneDevice<M>) {
    if let Err(error) = device.turn(store) {
        machine.print(format_args!("{}: {error}", device.name()));
    }
}

fn state(store: &impl Store, path: &str) -> String {
    match store.read(Transaction::NONE, path) {
        Ok(Some(state)) => format!("in state {state}"),
        Ok(None) => "not there".to_string(),
        Err(error) => error.to_string(),
    }
}

fn in_flight<G: xen::Grants, E: xen::Events>(disk: &mut Disk<G, E>) -> u64 {
    disk.in_flight() as u64
}

const SMALL: Wishes = Wishes { order: 0, pool_pages: 16 };

/// Half of the free memory for the data of all disks together.
fn wishes(free_pages: u64, disks: usize) -> Wishes {
    let share = free_pages / 2 / (disks.max(1) as u64);
    let pages = share.clamp(*POOL_PAGES.start(), *POOL_PAGES.end());
    let order = if pages >= LARGE_POOL_PAGES { 2 } else { 0 };
    Wishes { order, pool_pages: usize::try_from(pages).unwrap_or(SMALL.pool_pages) }
}

const fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Flush => "flush",
        Operation::Discard => "discard",
    }
}

const fn word(status: Status) -> &'static str {
    match status {
        Status::Okay => "okay",
        Status::Error => "an error",
        Status::Unsupported => "\"not supported\"",
    }
}
