//! A lab that counts its instructions as time: what the benchmarks on real Xen share.
//!
//! It has one processor and no disks of the host, so that every run is the same, whatever else the
//! machine does. Must never turn a figure into a time: caches and TLBs cost nothing here.

use std::time::Duration;

use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::{DOM0_FOLDER, Lab, LabConfig};
use crate::progress::Progress;
use crate::{build, setup};

/// How long one guest may take for all its jobs, under any load.
pub(crate) const GUEST_TIMEOUT: Duration = Duration::from_secs(1800);
/// 2^N ns for an instruction: what is timed in whole milliseconds is then counted well enough.
const SHIFT: u8 = 2;

/// Instructions in this time.
pub(crate) fn instructions(nanoseconds: f64) -> f64 {
    nanoseconds / f64::from(1_u32 << SHIFT)
}

/// How long each I/O of so many KiB took on the whole, in nanoseconds, by the fields of a terse line of
/// fio, version 3: how much was read and written, in KiB, and for how many milliseconds.
pub(crate) fn fio_each_ns(fields: &[&str], each_kib: f64) -> Option<f64> {
    let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let (kib, ms) = (field(5)? + field(46)?, field(8)? + field(49)?);
    Some(ms * 1e6 / (kib / each_kib))
}

/// Boots such a lab, of `config` and our own kernel and back.
///
/// Errors: what keeps it from running.
pub(crate) fn boot(host: Host, config: LabConfig, progress: &Progress) -> Result<Lab> {
    setup::ensure(host)?;
    let file = |path, name| (path, format!("{DOM0_FOLDER}/{name}"));
    let files =
        vec![file(build::guest_kernel(host)?, "pvblk"), file(build::blkback(host)?, "blkback")];
    let verbose = host.verbose;
    let config = LabConfig { files, icount: Some(SHIFT), cpus: 1, verbose, ..config };
    Lab::boot_with(&config, progress)
}

/// Runs one guest to its end, on the only processor; gives its console.
///
/// Errors: it ends with another status than 0, or too late.
pub(crate) fn life(lab: &Lab, guest: Guest) -> Result<String> {
    let name = guest.name.clone();
    lab.create(&Guest { beside_dom0: false, ..guest })?;
    let status = lab.wait_status(&name, GUEST_TIMEOUT, |_| {})?;
    let console = lab.guest_log(&name);
    lab.destroy(&name)?;
    match status {
        0 => Ok(console),
        status => Err(LabError::Failed(format!("the guest's exit status is {status}:\n{console}"))),
    }
}

/// The error for figures that are not in what was said.
pub(crate) fn missing(what: &str, said: &str) -> LabError {
    LabError::Failed(format!("{what}: figures are missing in\n{said}"))
}
