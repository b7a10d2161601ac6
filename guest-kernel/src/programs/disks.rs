//! The disks of the machine: those that backs serve, and those that modules bring.
//!
//! A program finds a disk by its name, keeps its [`Which`], and asks for the disk itself each time:
//! an [`AnyDisk`], whichever kind it is. `connecting` has how disks come and go, `locals` those
//! without a back, `waiting` the one place where programs wait, `looking` what is shown meanwhile.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use blkfront::elevator::Elevators;
use blkfront::{Completion, Device, Disk, DiskName, Local, Wishes};
use blkif::{Operation, Status};

use super::observe::Observer;
use super::scheduler::Wanted;
use super::{Failure, Machine};
use crate::files::Mounts;

mod any;
mod connecting;
mod locals;
mod looking;
mod waiting;

pub use any::AnyDisk;
pub(super) use any::NO_ELEVATOR;
pub use connecting::CONNECT_PATIENCE;

/// A guest uses at most this many disks.
pub const DISKS_MAX: usize = 16;
/// Where the tool stack puts disks, and the token of the watch on it.
const FOLDER: &str = "device/vbd";

pub(super) type OneDevice<M> = Device<<M as Machine>::Grants, <M as Machine>::Events>;
type OneDisk<M> = Disk<<M as Machine>::Grants, <M as Machine>::Events>;

/// A disk by its place in the machine's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// One that a back serves. It has its place for good.
    Front(usize),
    /// One without a back, by a number that no other one ever gets.
    Local(u32),
}

/// All disks of a machine.
pub struct Disks<M: Machine> {
    pub(super) devices: Vec<OneDevice<M>>,
    pub(super) locals: Vec<(u32, Local<M::Grants>)>,
    /// How many there have been.
    locals_made: u32,
    pub(super) elevators: Elevators,
    pub(super) wanted: Wanted,
    /// Disks in xenstore that are not used, which has been told.
    unused: Vec<u32>,
    wishes: Wishes,
    read_before: bool,
    observer: Observer,
    /// Devices that did not answer what a program left behind.
    silent: Vec<usize>,
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
            locals: Vec::new(),
            locals_made: 0,
            elevators: Elevators::new(),
            wanted: Wanted::default(),
            unused: Vec::new(),
            wishes: connecting::SMALL,
            read_before: false,
            observer: Observer::new(),
            silent: Vec::new(),
            steadfast: false,
            mounts: Mounts::new(),
        }
    }

    /// The disk of this name, in service.
    ///
    /// # Errors
    /// [`Failure::missing`], naming those there are.
    pub fn find(&mut self, name: &str) -> Result<Which, Failure> {
        let places = self.places();
        let Some(&which) = places.iter().find(|&&which| self.name(which) == name) else {
            let names: Vec<String> = places.into_iter().map(|which| self.name(which)).collect();
            let there = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            return Err(Failure::missing(format!("{name}: no such disk: there is {there}")));
        };
        self.disk(which)?;
        Ok(which)
    }

    /// Every disk with its name, if it is in service.
    pub fn all(&mut self) -> impl Iterator<Item = (String, Option<AnyDisk<'_, M>>)> {
        let fronts = self.devices.iter_mut();
        let fronts = fronts.map(|it| (it.name().to_string(), it.disk().map(AnyDisk::Front)));
        let locals = self.locals.iter_mut();
        fronts.chain(locals.map(|(_, it)| (it.name().to_string(), Some(AnyDisk::Local(it)))))
    }

    /// Every disk, in service or not.
    pub fn places(&self) -> Vec<Which> {
        let locals = self.locals.iter().map(|&(id, _)| Which::Local(id));
        (0..self.devices.len()).map(Which::Front).chain(locals).collect()
    }

    /// How many are in service.
    pub fn connected(&mut self) -> usize {
        self.devices.iter_mut().filter_map(Device::disk).count()
    }

    /// What the disk is called.
    pub fn name(&self, which: Which) -> String {
        match which {
            Which::Front(at) => self.devices[at].name().to_string(),
            Which::Local(id) => {
                let local = self.locals.iter().find(|it| it.0 == id);
                local.map_or("a disk", |it| it.1.name()).to_string()
            }
        }
    }

    /// The disk, while it is in service.
    ///
    /// # Errors
    /// [`Failure::missing`] if it is not.
    #[inline]
    pub fn disk(&mut self, which: Which) -> Result<AnyDisk<'_, M>, Failure> {
        match which {
            Which::Front(at) => self.front(at).map(AnyDisk::Front),
            Which::Local(id) => self.local(id).map(AnyDisk::Local),
        }
    }

    fn front(&mut self, at: usize) -> Result<&mut OneDisk<M>, Failure> {
        let device = &mut self.devices[at];
        let name = device.name();
        device.disk().ok_or_else(|| not_connected(name))
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
        let done = match which {
            Which::Front(at) => self.poll_front(machine, at)?,
            Which::Local(id) => self.poll_local(machine, id)?,
        };
        let Some(done) = done else { return Ok(None) };
        if done.status != Status::Okay {
            return Err(Failure::failed(self.trouble(which, &done)));
        }
        if done.operation == Operation::Read && !core::mem::replace(&mut self.read_before, true) {
            machine.mark("first read");
        }
        Ok(Some(done))
    }

    fn poll_front(
        &mut self,
        machine: &M,
        at: usize,
    ) -> Result<Option<Completion<M::Grants>>, Failure> {
        let disk = self.front(at)?;
        waiting::tell_time(machine, disk);
        let polled = disk.poll();
        polled.map_err(|fault| self.broken(machine, at, fault))
    }

    /// A request that did not go well, in words.
    #[cold]
    fn trouble(&self, which: Which, done: &Completion<M::Grants>) -> String {
        let what = match done.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Flush => "flush",
            Operation::Discard => "discard",
        };
        let how = match done.status {
            Status::Okay => "okay",
            Status::Error => "an error",
            Status::Unsupported => "\"not supported\"",
        };
        format!("{}: a {what} was answered with {how}", self.name(which))
    }
}

#[cold]
fn not_connected(name: DiskName) -> Failure {
    Failure::missing(format!("{name}: not connected"))
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

#[cfg(test)]
mod tests;
