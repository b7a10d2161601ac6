//! The disks that the tool stack gives us: how they come, at the start and later, and how they end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use blkfront::{Device, DiskName, Wishes};
use xen::{Store, Transaction};

use super::{DISKS_MAX, Disks, FOLDER, OneDevice, Which};
use crate::programs::{Failure, Machine};

/// How long the start waits for the backs.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the end waits for them.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Pages for the data of one disk: no more than a deep queue of large requests can use.
const POOL_PAGES: core::ops::RangeInclusive<u64> = 16..=1056;
/// With a pool of this many pages, a ring of 4 pages is worth its memory.
const LARGE_POOL_PAGES: u64 = 512;

impl<M: Machine> Disks<M> {
    /// Opens every disk that the tool stack has given us and waits until each is connected, was
    /// refused, or `patience` is over. Prints what went wrong.
    pub fn connect(&mut self, machine: &M, patience: Duration) {
        let Some(store) = machine.store() else { return };
        if let Err(error) = store.watch(FOLDER, FOLDER) {
            machine.print(format_args!("pvblk: cannot watch {FOLDER}: {error}"));
        }
        self.look_for_new(machine);
        self.await_backs(machine, patience);
        for device in self.devices.iter().filter(|it| !it.is_connected()) {
            let reason = state(store, &device.watched());
            machine.print(format_args!("{}: not connected: its back is {reason}", device.name()));
        }
        self.miss_disks(machine);
    }

    /// Waits until every disk is connected, or was refused, or `patience` is over.
    fn await_backs(&mut self, machine: &M, patience: Duration) {
        self.look_after(machine);
        let until = machine.now().after(patience);
        while !self.devices.iter().all(|it| it.is_connected() || it.is_closed()) {
            if machine.now() >= until {
                break;
            }
            machine.wait(Some(until), &mut |_| {});
            self.look_after(machine);
        }
    }

    /// Makes durable what was written, where that is offered.
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
        self.flush_locals(machine);
        self.settle(machine);
    }

    /// Closes every disk in good order, as far as the backs take part.
    pub fn close(&mut self, machine: &M) {
        self.flush(machine);
        let Some(store) = machine.store() else { return };
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

    /// Closes one disk in good order, for a program that does something else with its device, and
    /// gives its directory in xenstore. It stays closed until it is [opened](Self::reopen) again.
    ///
    /// # Errors
    /// [`Failure`] if it has no back, or its back does not take part.
    pub(in crate::programs) fn shut(
        &mut self,
        machine: &M,
        which: Which,
    ) -> Result<String, Failure> {
        let (store, at) = self.back_of(machine, which)?;
        let device = &mut self.devices[at];
        device.close(store).and_then(|()| device.turn(store)).map_err(Failure::failed)?;
        let until = machine.now().after(CLOSE_PATIENCE);
        while !self.devices[at].is_closed() {
            if machine.now() >= until {
                return Err(Failure::failed(format!("{} does not close", self.name(which))));
            }
            self.sleep(machine, Some(until));
        }
        Ok(self.devices[at].path().to_string())
    }

    /// Takes a disk that was [shut](Self::shut) into use again.
    ///
    /// # Errors
    /// [`Failure`] if it has no back, or its back does not take part.
    pub(in crate::programs) fn reopen(&mut self, machine: &M, which: Which) -> Result<(), Failure> {
        let (store, at) = self.back_of(machine, which)?;
        let path = self.devices[at].path().to_string();
        let device = Device::open(store, &path, machine.ends(), self.wishes);
        let mut device = device.map_err(Failure::failed)?;
        self.choose_elevator(&mut device);
        turn(machine, store, &mut device);
        self.devices[at] = device;
        self.await_backs(machine, CONNECT_PATIENCE);
        self.front(at).map(drop)
    }

    /// Xenstore, and the place of a disk that has a back.
    fn back_of<'a>(&self, machine: &'a M, which: Which) -> Result<(&'a M::Store, usize), Failure> {
        let store = machine.store().ok_or_else(|| Failure::missing("no xenstore"))?;
        match which {
            Which::Front(at) => Ok((store, at)),
            Which::Local(_) => Err(Failure::usage(format!("{}: it has no back", self.name(which)))),
        }
    }

    /// Opens the disks that are in xenstore and not here.
    pub(super) fn look_for_new(&mut self, machine: &M) {
        let Some(store) = machine.store() else { return };
        let names = store.list(Transaction::NONE, FOLDER).unwrap_or_default();
        let mut numbers: Vec<u32> = names.iter().filter_map(|it| it.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.retain(|number| !self.knows(*number));
        if !numbers.is_empty() {
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
        if self.room() == 0 {
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
}

/// Goes as far with a device as its back allows; prints what went wrong.
pub(super) fn turn<M: Machine>(machine: &M, store: &M::Store, device: &mut OneDevice<M>) {
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

pub(super) const SMALL: Wishes = Wishes { order: 0, pool_pages: 16 };

/// Half of the free memory for the data of all disks together that come at once.
fn wishes(free_pages: u64, disks: usize) -> Wishes {
    let share = free_pages / 2 / (disks.max(1) as u64);
    let pages = share.clamp(*POOL_PAGES.start(), *POOL_PAGES.end());
    let order = if pages >= LARGE_POOL_PAGES { 2 } else { 0 };
    Wishes { order, pool_pages: usize::try_from(pages).unwrap_or(SMALL.pool_pages) }
}
