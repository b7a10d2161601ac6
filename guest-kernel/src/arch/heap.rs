//! The heap: talc over runs of frames, taken when they are needed.
//!
//! What is freed goes back to talc and not to the frames: the kernel's heap is small beside its
//! disks' pages, which are frames of their own.

use core::alloc::Layout;
use core::sync::atomic::{AtomicU64, Ordering};

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;
use talc::{DefaultBinning, TalcLock};

use super::memory::take_frames;
use crate::layout::{PAGE_BYTES, address_of};

/// Frames that the heap grows by: 64 KiB, or as much as one allocation needs.
const STEP: u64 = 16;

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Grow> = TalcLock::new(Grow);

static FRAMES: AtomicU64 = AtomicU64::new(0);

/// How many frames the heap has taken.
pub(super) fn frames() -> u64 {
    FRAMES.load(Ordering::Relaxed)
}

/// Where talc gets memory from.
#[derive(Debug)]
struct Grow;

// SAFETY: `acquire` takes frames only, and allocates nothing from the heap.
unsafe impl Source for Grow {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for talc's own table in the first run, and for alignment.
        let overhead = talc::min_first_heap_size::<DefaultBinning>();
        let bytes = layout.size().checked_add(layout.align()).ok_or(())?;
        let bytes = bytes.checked_add(overhead).ok_or(())?;
        let frames = (bytes as u64).div_ceil(PAGE_BYTES).max(STEP);
        let first = take_frames(frames).ok_or(())?;
        FRAMES.fetch_add(frames, Ordering::Relaxed);
        let size = usize::try_from(frames * PAGE_BYTES).map_err(|_| ())?;
        let base = address_of(first).as_mut_ptr::<u8>();
        // SAFETY: the frames are mapped writable, next to each other, and talc's from now on.
        unsafe { talc.claim(base, size) }.map(drop).ok_or(())
    }
}
