//! What a file system needs of a volume, and that as `rsext4` wants it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;

use rsext4::{BlockIo, DeviceCapabilities, DeviceGeometry, Ext4Error, Ext4Result, SectorId};

/// The volume failed; whoever made it knows how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What is known of a volume; it does not change while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// In bytes: 512 to 4096, a power of two. Places and lengths are multiples of it.
    pub sector_bytes: u32,
    /// How many there are.
    pub sectors: u64,
    /// Whether nothing can be written.
    pub read_only: bool,
}

impl Sizes {
    /// Whether so many sectors from `sector` on are on the volume.
    pub const fn hold(&self, sector: u64, count: u64) -> bool {
        match sector.checked_add(count) {
            Some(end) => end <= self.sectors,
            None => false,
        }
    }
}

/// Where a file system lives. Everything has happened when a call returns, but for writes: they
/// are durable after the next flush, and may reach the medium in any order until then.
pub trait Volume {
    /// Its sizes.
    fn sizes(&self) -> Sizes;

    /// Reads sectors from `sector` on; the range is on the volume.
    ///
    /// # Errors
    /// [`Lost`].
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Lost>;

    /// Writes sectors from `sector` on; the range is on the volume.
    ///
    /// # Errors
    /// [`Lost`], now or later.
    fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Lost>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// [`Lost`] if that, or a write before, did not succeed.
    fn flush(&mut self) -> Result<(), Lost>;
}

/// A volume as `rsext4` wants it.
pub(crate) struct Door<'a>(pub(crate) Rc<RefCell<Box<dyn Volume + 'a>>>);

impl Door<'_> {
    /// Refuses a range that is not as long as its buffer or not on the volume.
    fn check(&self, sector: SectorId, count: u32, length: usize) -> Ext4Result<()> {
        let sizes = self.0.borrow().sizes();
        let bytes = u64::from(count) * u64::from(sizes.sector_bytes);
        if bytes == length as u64 && sizes.hold(sector.raw(), u64::from(count)) {
            Ok(())
        } else {
            Err(Ext4Error::corrupted().with_operation("a place that is not on the volume"))
        }
    }
}

fn lost(_: Lost) -> Ext4Error {
    Ext4Error::io()
}

impl BlockIo for Door<'_> {
    fn write(&mut self, buffer: &[u8], sector: SectorId, count: u32) -> Ext4Result<()> {
        self.check(sector, count, buffer.len())?;
        if self.0.borrow().sizes().read_only {
            return Err(Ext4Error::read_only());
        }
        self.0.borrow_mut().write(sector.raw(), buffer).map_err(lost)
    }

    fn read(&mut self, buffer: &mut [u8], sector: SectorId, count: u32) -> Ext4Result<()> {
        self.check(sector, count, buffer.len())?;
        self.0.borrow_mut().read(sector.raw(), buffer).map_err(lost)
    }

    fn geometry(&self) -> DeviceGeometry {
        let sizes = self.0.borrow().sizes();
        DeviceGeometry::new(sizes.sector_bytes, sizes.sectors)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities {
            read_only: self.0.borrow().sizes().read_only,
            flush: true,
            ..DeviceCapabilities::default()
        }
    }

    fn flush(&mut self) -> Ext4Result<()> {
        self.0.borrow_mut().flush().map_err(lost)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const SECTORS: u64 = 16;

    /// Counts what comes through the door.
    struct Counter {
        read_only: bool,
        calls: Rc<RefCell<u32>>,
    }

    impl Counter {
        fn count(&mut self) -> Result<(), Lost> {
            *self.calls.borrow_mut() += 1;
            Ok(())
        }
    }

    impl Volume for Counter {
        fn sizes(&self) -> Sizes {
            Sizes { sector_bytes: 512, sectors: SECTORS, read_only: self.read_only }
        }

        fn read(&mut self, _sector: u64, _out: &mut [u8]) -> Result<(), Lost> {
            self.count()
        }

        fn write(&mut self, _sector: u64, _data: &[u8]) -> Result<(), Lost> {
            self.count()
        }

        fn flush(&mut self) -> Result<(), Lost> {
            Ok(())
        }
    }

    fn door(read_only: bool) -> (Door<'static>, Rc<RefCell<u32>>) {
        let calls = Rc::new(RefCell::new(0));
        let volume = Counter { read_only, calls: Rc::clone(&calls) };
        (Door(Rc::new(RefCell::new(Box::new(volume)))), calls)
    }

    /// `rsext4` looks at this bound too, so that no image shows whether we do.
    #[test]
    fn what_ends_past_the_volume_does_not_pass() {
        for (sector, count, passes) in [
            (0, 16, true),
            (15, 1, true),
            (16, 0, true),
            (0, 17, false),
            (15, 2, false),
            (16, 1, false),
            (u64::MAX, 1, false),
            (u64::MAX - 1, 2, false),
        ] {
            let (mut door, calls) = door(false);
            let mut bytes = vec![0; count as usize * 512];
            let read = door.read(&mut bytes, SectorId::new(sector), count);
            let written = door.write(&bytes, SectorId::new(sector), count);
            assert_eq!((read.is_ok(), written.is_ok()), (passes, passes), "{sector} {count}");
            assert_eq!(*calls.borrow(), if passes { 2 } else { 0 });
        }
    }

    #[test]
    fn a_buffer_of_another_length_does_not_pass() {
        let (mut door, calls) = door(false);
        for length in [0, 511, 512, 1023, 1025, 1536] {
            let mut bytes = vec![0; length];
            assert!(door.read(&mut bytes, SectorId::new(0), 2).is_err(), "{length}");
            assert!(door.write(&bytes, SectorId::new(0), 2).is_err(), "{length}");
        }
        assert_eq!(*calls.borrow(), 0);
    }

    #[test]
    fn nothing_is_written_to_what_is_read_only() {
        let (mut door, calls) = door(true);
        assert!(door.write(&[0; 512], SectorId::new(0), 1).is_err());
        assert_eq!(*calls.borrow(), 0);
        assert!(door.read(&mut [0; 512], SectorId::new(0), 1).is_ok());
    }
}
