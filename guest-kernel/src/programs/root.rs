//! The root: what `root=` names is mounted before the first command.
//!
//! A disk may come a moment after the guest: after a reboot the back gives it to the new domain,
//! which runs already. So the root is waited for, but not without an end, and not in silence.

use core::time::Duration;

use super::{Disks, Failure, Machine, filing};
use crate::files::Access;
use crate::time::Instant;
use crate::volumes::{self, Found};

/// How long the root's disk is waited for, in seconds, unless `rootwait=` says else.
pub const WAIT_SECONDS: u64 = 10;
/// The longest wait that can be asked for.
pub const WAIT_SECONDS_MAX: u64 = 3600;

/// Mounts what `spec` names on `/`, if it is there within so many seconds.
///
/// # Errors
/// [`Failure::missing`] with all there is, if it is not.
pub fn mount<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    spec: &str,
    access: Access,
    seconds: u64,
) -> Result<(), Failure> {
    let found = find(machine, disks, spec, seconds)?;
    filing::add_found(machine, disks, (spec, found), "/", access)
}

fn find<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    spec: &str,
    seconds: u64,
) -> Result<Found, Failure> {
    let until = machine.now().after(Duration::from_secs(seconds));
    let mut found = volumes::find_files(machine, disks, spec);
    if found.is_err() && seconds > 0 {
        machine.print(format_args!(
            "root: {spec} is not there yet: waiting for its disk, {seconds} s at most (rootwait=)"
        ));
    }
    while found.is_err() && wait_for_a_disk(machine, disks, until)? {
        found = volumes::find_files(machine, disks, spec);
    }
    found
}

/// Waits until a disk comes or goes; tells whether one did before the time was over.
fn wait_for_a_disk<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    until: Instant,
) -> Result<bool, Failure> {
    let before = disks.connected();
    while disks.connected() == before {
        if machine.now() >= until {
            return Ok(false);
        }
        disks.pause(machine, Some(until))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
