//! A disk without a back for tests: memory that fails where it is told to.

extern crate std;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::RefCell;

use blkfront::Medium;
use blkif::{Geometry, Info, Status};

use super::play::Play;
use super::{Disks, Which};

/// What a plate holds, and what it does wrong on purpose.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    /// A sector that can be neither read nor written.
    pub(crate) bad: Option<u64>,
    pub(crate) flush_fails: bool,
    pub(crate) flushes: u64,
}

/// The disk's side of it, and the test's.
#[derive(Clone, Debug)]
pub(crate) struct Plate(Rc<RefCell<Held>>);

impl Plate {
    /// Adds a disk with these bytes to a machine.
    pub(crate) fn add(
        play: &Play,
        disks: &mut Disks<Play>,
        (name, info): (&str, Info),
        bytes: Vec<u8>,
    ) -> (Self, Which) {
        let sectors = (bytes.len() / 512) as u64;
        let geometry = Geometry { info, ..Geometry::new(sectors).expect("a small disk") };
        let plate = Self(Rc::new(RefCell::new(Held { bytes, ..Held::default() })));
        let named = (name.to_string(), geometry);
        let local = Disks::make_local(play, named, Box::new(plate.clone()));
        let which = disks.add_local(local.expect("memory"));
        (plate, which)
    }

    /// Looks at it, or changes it.
    pub(crate) fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// Whether the disk is gone.
    pub(crate) fn is_free(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }

    /// Does something with the bytes of some sectors, if none of them is bad.
    fn with(&self, sector: u64, length: usize, work: impl FnOnce(&mut [u8])) -> Status {
        let held = &mut *self.0.borrow_mut();
        let end = sector + (length / 512) as u64;
        if held.bad.is_some_and(|bad| (sector..end).contains(&bad)) {
            return Status::Error;
        }
        let at = usize::try_from(sector * 512).expect("it is on the disk");
        work(&mut held.bytes[at..at + length]);
        Status::Okay
    }
}

impl Medium for Plate {
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Status {
        self.with(sector, out.len(), |bytes| out.copy_from_slice(bytes))
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Status {
        self.with(sector, data.len(), |bytes| bytes.copy_from_slice(data))
    }

    fn flush(&mut self) -> Status {
        let held = &mut *self.0.borrow_mut();
        held.flushes += 1;
        if held.flush_fails { Status::Error } else { Status::Okay }
    }
}
