//! `disks`: which disks there are.

use alloc::format;
use alloc::string::String;

use blkif::Agreed;

use super::{AnyDisk, Disks, Failure, Hundredths, Machine};

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
        let geometry = disk.geometry();
        let size = Hundredths(geometry.sectors * 100 / 2048);
        let access = if geometry.read_only() { "read-only" } else { "writable" };
        let sizes = format!("{}/{}", geometry.sector_size, geometry.physical_sector_size);
        let way = match &disk {
            AnyDisk::Front(disk) => format!("ring of {} requests", 32 << disk.agreed().order),
            AnyDisk::Local(_) => String::from("a module's"),
        };
        let on = |agreed, word| if agreed { word } else { "" };
        let front = |offers: fn(&Agreed) -> bool| match &disk {
            AnyDisk::Front(disk) => offers(disk.agreed()),
            AnyDisk::Local(_) => false,
        };
        machine.print(format_args!(
            "{name:<8} {size:>10} MiB, sectors of {sizes}, {access}, {way}, {} pages{}{}{}",
            disk.free_pages(),
            on(front(Agreed::persistent), ", persistent grants"),
            on(disk.has_flush(), ", flush"),
            on(front(Agreed::discard), ", discard"),
        ));
    }
    if !any {
        machine.print(format_args!("no disks"));
    }
    Ok(())
}
