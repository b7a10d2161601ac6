//! Page tables and a swap of plain values, for the tests of the pager.

extern crate std;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::pager::{Backing, Space, Usage, WANTED_MAX};
use super::slots::Slots;
use super::{Page, Slot};
use crate::layout::Use;

/// A frame is one number, and how many frames are left.
pub(crate) struct Frame {
    value: Rc<Cell<u64>>,
    free: Rc<Cell<usize>>,
}

impl Frame {
    /// What the kernel writes: the processor does not note it.
    pub(crate) fn set(&self, value: u64) {
        self.value.set(value);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        assert_eq!(Rc::strong_count(&self.value), 1, "a frame was freed while it was mapped");
        self.free.set(self.free.get() + 1);
    }
}

struct Mapping {
    value: Rc<Cell<u64>>,
    usage: Usage,
}

/// Page tables.
pub(crate) struct Model {
    free: Rc<Cell<usize>>,
    mapped: RefCell<BTreeMap<u32, Mapping>>,
}

impl Model {
    pub(crate) fn new(frames: usize) -> Self {
        Self { free: Rc::new(Cell::new(frames)), mapped: RefCell::default() }
    }

    /// What the program does; `None` is a page fault.
    pub(crate) fn touch(&self, page: Page, write: Option<u64>) -> Option<u64> {
        let mut mapped = self.mapped.borrow_mut();
        let mapping = mapped.get_mut(&page.0)?;
        mapping.usage.accessed = true;
        mapping.usage.dirty |= write.is_some();
        Some(mapping.value.replace(write.unwrap_or(mapping.value.get())))
    }
}

impl Space for Model {
    type Frame = Frame;

    fn frame(&mut self) -> Option<Frame> {
        self.free.set(self.free.get().checked_sub(1)?);
        Some(Frame { value: Rc::new(Cell::new(0xdead)), free: self.free.clone() })
    }

    fn clear(&mut self, frame: &Frame) {
        frame.value.set(0);
    }

    fn map(&mut self, pages: &[(Page, &Frame, Use)]) -> Option<()> {
        assert!(pages.len() <= WANTED_MAX);
        for (page, frame, _) in pages {
            let usage = Usage { accessed: true, dirty: false };
            let mapping = Mapping { value: frame.value.clone(), usage };
            assert!(self.mapped.borrow_mut().insert(page.0, mapping).is_none(), "mapped twice");
        }
        Some(())
    }

    fn unmap(&mut self, pages: &[Page]) {
        for page in pages {
            assert!(self.mapped.borrow_mut().remove(&page.0).is_some(), "not mapped");
        }
    }

    fn usage(&self, page: Page) -> Usage {
        self.mapped.borrow()[&page.0].usage
    }

    fn forget(&mut self, pages: &[Page]) {
        for page in pages {
            self.mapped.borrow_mut().get_mut(&page.0).expect("mapped").usage.accessed = false;
        }
    }
}

/// A swap area of numbers.
pub(crate) struct ModelSwap {
    slots: Slots,
    written: BTreeMap<Slot, u64>,
    pub(crate) fail_writes: bool,
    /// Batches that were read.
    pub(crate) reads: usize,
    /// Rows of neighbours that were written.
    pub(crate) rows: u64,
}

impl ModelSwap {
    pub(crate) fn new(slots: u32) -> Self {
        let slots = Slots::new(slots, &[]).expect("memory");
        Self { slots, written: BTreeMap::new(), fail_writes: false, reads: 0, rows: 0 }
    }

    pub(crate) fn free(&self) -> u32 {
        self.slots.free()
    }
}

impl Backing<Frame> for ModelSwap {
    type Error = ();

    fn take(&mut self) -> Option<Slot> {
        self.slots.take()
    }

    fn give(&mut self, slot: Slot) {
        self.written.remove(&slot);
        self.slots.give(slot);
    }

    fn scarce(&self) -> bool {
        self.slots.free() < self.slots.usable() / 8
    }

    fn write(&mut self, pages: &[(Slot, &Frame)]) -> Result<(), ()> {
        if self.fail_writes {
            return Err(());
        }
        let next_to = |pair: &&[(Slot, &Frame)]| pair[0].0.0 + 1 == pair[1].0.0;
        self.rows += (pages.len() - pages.windows(2).filter(next_to).count()) as u64;
        self.written.extend(pages.iter().map(|(slot, frame)| (*slot, frame.value.get())));
        Ok(())
    }

    fn read(&mut self, pages: &[(Slot, &Frame)]) -> Result<(), ()> {
        self.reads += 1;
        pages.iter().for_each(|(slot, frame)| frame.value.set(self.written[slot]));
        Ok(())
    }
}

/// Numbers that look random.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        self.0 >> 33
    }
}
