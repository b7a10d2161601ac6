//! `disks`: which disks there are.

use alloc::format;
use alloc::string::String;

use super::{Disks, Failure, Hundredths, Machine};

/// Prints a line for each disk.
///
/// # Errors
/// [`Failure::usage`] for any word.
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: disks"));
    }
    let mut any = false;
    for (name, disk) in disks.all() {
        any = true;
        let Some(disk) = disk else {
            machine.print(format_args!("{name:<8} not connected"));
            continue;
        };
        let (geometry, agreed) = (disk.geometry(), disk.agreed());
        let size = Hundredths(geometry.sectors * 100 / 2048);
        let access = if geometry.read_only() { "read-only" } else { "writable" };
        let sizes = format!("{}/{}", geometry.sector_size, geometry.physical_sector_size);
        let on = |agreed, word| if agreed { word } else { "" };
        machine.print(format_args!(
            "{name:<8} {size:>10} MiB, sectors of {sizes}, {access}, ring of {} requests, {} pages{}{}{}",
            32 << agreed.order,
            disk.free_pages(),
            on(agreed.persistent(), ", persistent grants"),
            on(agreed.flush(), ", flush"),
            on(agreed.discard(), ", discard"),
        ));
    }
    if !any {
        machine.print(format_args!("no disks"));
    }
    Ok(())
}
