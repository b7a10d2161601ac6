//! What the module registers: the disk.

use core::fmt::Write;

use module_abi::{Console, Plugin, Refused, Registry};

use crate::{RamDisk, size};

/// What the disk is called.
const NAME: &str = "ram0";

struct Module;

module_abi::module!(Module, "ramdisk");

impl Plugin for Module {
    fn init(registry: &mut Registry, words: &[&str]) -> Result<(), Refused> {
        let bytes = size(words).map_err(|word| {
            // The console cannot refuse.
            let _ = writeln!(Console, "ramdisk: {word}: not size=BYTES in whole pages, as 16M");
            Refused::Unwilling
        })?;
        registry.block(NAME, RamDisk::new(bytes).ok_or(Refused::NoMemory)?)
    }
}
