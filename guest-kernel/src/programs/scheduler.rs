//! Which elevator each disk has: from the kernel command line, and as tunables.
//!
//! `elevator=NAME` is for all disks, `elevator.xvdb=NAME` for one. While the kernel runs,
//! `block.xvdb.scheduler` shows the choices with the active one in brackets and takes another one,
//! and each parameter of the active elevator is a tunable beside it.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use blkfront::elevator::{Elevators, Noop, Parameter};

use super::disks::{NO_ELEVATOR, OneDevice};
use super::{Disks, Failure, Machine};
use crate::sysctl::{self, Entry, Tunable};

/// The tunable that is the choice itself.
const SCHEDULER: &str = "scheduler";

/// What is wanted for disks that are not there yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    all: Option<String>,
    /// Name of the disk, name of the elevator.
    one: Vec<(String, String)>,
}

impl Wanted {
    fn of(&self, disk: &str) -> &str {
        let one = self.one.iter().rev().find(|it| it.0 == disk).map(|it| it.1.as_str());
        one.or(self.all.as_deref()).unwrap_or(Noop::NAME)
    }
}

impl<M: Machine> Disks<M> {
    /// Heeds the kernel command line, before disks are connected: an elevator for all, and one for
    /// each disk that has its own. A name that is none is told, and means noop.
    pub fn want_elevators<'a>(
        &mut self,
        machine: &M,
        all: Option<&str>,
        one: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let heed = |key: String, name: &str| {
            if self.elevators.find(name).is_some() {
                return name.to_string();
            }
            let there = names(&self.elevators);
            machine.print(format_args!(
                "pvblk: {key}={name}: no such elevator: there is {there}; noop is used"
            ));
            Noop::NAME.to_string()
        };
        let all = all.map(|name| heed("elevator".to_string(), name));
        let one =
            one.map(|(disk, name)| (disk.to_string(), heed(format!("elevator.{disk}"), name)));
        self.wanted = Wanted { all, one: one.collect() };
    }

    /// Gives a new device the elevator that was wanted for it.
    pub(super) fn choose_elevator(&self, device: &mut OneDevice<M>) {
        if let Some(choice) = self.elevators.find(self.wanted.of(&device.name().to_string())) {
            device.set_elevator(choice);
        }
    }

    /// Tells of each disk that an elevator was wanted for and that is not there.
    pub(super) fn miss_disks(&self, machine: &M) {
        for (disk, name) in &self.wanted.one {
            if !self.devices.iter().any(|device| device.name().to_string() == *disk) {
                machine.print(format_args!("pvblk: elevator.{disk}={name}: no disk {disk} yet"));
            }
        }
    }

    /// The elevators that there are: others can be added to those built in, and taken away while
    /// no disk [uses them](Self::uses_elevator).
    pub const fn elevators(&mut self) -> &mut Elevators {
        &mut self.elevators
    }

    /// Whether a disk has the elevator of this name.
    pub fn uses_elevator(&self, name: &str) -> bool {
        self.devices.iter().any(|device| device.elevator() == name)
    }
}

/// The tunables of all disks: `block.DISK.scheduler` and the elevator's parameters.
pub const fn tunables<M: Machine>() -> Tunable<M> {
    Tunable::family(list, write)
}

fn list<M: Machine>(_: &M, disks: &mut Disks<M>) -> Vec<Entry> {
    let mut all = Vec::new();
    for device in &mut disks.devices {
        let folder = format!("block.{}.", device.name());
        all.push(Entry {
            key: format!("{folder}{SCHEDULER}").into(),
            value: choices(&disks.elevators, device.elevator()),
            about: Cow::Borrowed("in which order requests go down to the disk"),
        });
        let parameters = device.disk().into_iter().flat_map(|disk| disk.parameters());
        all.extend(parameters.map(|(Parameter { name, about, .. }, value)| Entry {
            key: format!("{folder}{name}").into(),
            value: value.to_string(),
            about: about.clone(),
        }));
    }
    all.extend(disks.locals.iter().map(|(_, local)| Entry {
        key: format!("block.{}.{SCHEDULER}", local.name()).into(),
        value: format!("[{NO_ELEVATOR}]"),
        about: Cow::Borrowed("requests go to a module's disk as they come"),
    }));
    all
}

/// Sets what [`list`] has listed.
fn write<M: Machine>(_: &M, disks: &mut Disks<M>, key: &str, value: &str) -> Result<(), Failure> {
    let Disks { devices, locals, elevators, .. } = disks;
    let gone = || Failure::missing(format!("{key}: not there any more"));
    let (folder, name) = key.rsplit_once('.').ok_or_else(gone)?;
    if locals.iter().any(|(_, local)| format!("block.{}", local.name()) == folder) {
        return has_none(key, value);
    }
    let device = devices.iter_mut().find(|it| format!("block.{}", it.name()) == folder);
    let device = device.ok_or_else(gone)?;
    if name != SCHEDULER {
        let (index, bounds) = bounds::<M>(device, name).ok_or_else(gone)?;
        device.tune(index, sysctl::number(key, value, bounds)?);
        return Ok(());
    }
    let choice = elevators.find(value).ok_or_else(|| {
        Failure::usage(format!("{key}={value}: no such elevator: there is {}", names(elevators)))
    })?;
    if device.elevator() != value {
        device.set_elevator(choice);
    }
    Ok(())
}

/// What becomes of a choice for a disk that has no elevator.
fn has_none(key: &str, value: &str) -> Result<(), Failure> {
    match value {
        NO_ELEVATOR => Ok(()),
        _ => Err(Failure::usage(format!(
            "{key}={value}: a module's disk has no elevator: there is {NO_ELEVATOR}"
        ))),
    }
}

/// The index of a parameter, and what it may be.
fn bounds<M: Machine>(
    device: &mut OneDevice<M>,
    name: &str,
) -> Option<(usize, core::ops::RangeInclusive<u64>)> {
    let mut all = device.disk()?.parameters().enumerate();
    all.find(|(_, it)| it.0.name == name).map(|(index, it)| (index, it.0.least..=it.0.most))
}

fn names(elevators: &Elevators) -> String {
    elevators.names().collect::<Vec<_>>().join(", ")
}

/// All names, the active one in brackets.
fn choices(elevators: &Elevators, active: &str) -> String {
    let all = elevators.names().map(|name| match name == active {
        true => format!("[{name}]"),
        false => name.to_string(),
    });
    all.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
