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
        let end = sector.raw().checked_add(u64::from(count));
        if bytes == length as u64 && end.is_some_and(|end| end <= sizes.sectors) {
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
