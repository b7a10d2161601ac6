//! Giving memory back to Xen, and getting it again, when the user says so.
//!
//! Only frames that are free are given back, the last ones first, cleared and mapped nowhere; so
//! nothing that is in use ever moves. Three tables tell of a frame, and they change together: our
//! list of machine frames, Xen's list the other way (held against ours at each step), and the page
//! table.

use core::fmt;
use core::ops::Range;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use ring::Page;
use xen::abi::MemoryOp;
use xen::{Mfn, Pfn};

use super::hypercall::{Errno, reserve};
use super::memory::{FRAME_LIST, Memory, NO_MEMORY, machine_frame, own_frame, with_memory};
use super::paging;
use crate::frames::words_for;
use crate::layout::{FRAMES_MAX, FRAMES_PER_TABLE, PAGE_BYTES, Use, address_of};

/// Frames that stay free, for the kernel to go on.
pub(crate) const KEPT_FREE: u64 = 64;
/// Frames in one hypercall.
const BATCH: usize = 128;

/// Why memory was not given back, or not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BalloonError {
    /// So many frames are to be given back; so many can be.
    InUse(u64, u64),
    /// More than page tables can map.
    TooMuch,
    /// So many frames are missing: Xen has no more for us.
    Short(u64),
    /// The two lists of frames disagree about this one.
    Disagree(Pfn),
    /// Xen refused.
    Refused(Errno),
}

impl fmt::Display for BalloonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |frames: u64| frames * (PAGE_BYTES / 1024);
        match self {
            Self::InUse(wanted, free) => {
                let (wanted, free) = (kib(*wanted), kib(*free));
                write!(f, "{wanted} KiB would have to go, but only {free} KiB are not in use")
            }
            Self::TooMuch => f.write_str("more than the guest can map"),
            Self::Short(frames) => write!(f, "Xen has not given the last {} KiB", kib(*frames)),
            Self::Disagree(frame) => write!(f, "Xen's list and ours disagree about frame {frame}"),
            Self::Refused(error) => write!(f, "refused: {error}"),
        }
    }
}

/// Brings the memory of the domain to `target` frames.
///
/// # Errors
/// [`BalloonError`]; what was done before it stays done, and is consistent.
pub(crate) fn balloon(target: u64) -> Result<(), BalloonError> {
    with_memory(|memory| {
        let has = memory.total - memory.holes;
        if target < has { shrink(memory, has - target) } else { enlarge(memory, target - has) }
    })
    .unwrap_or(Err(BalloonError::TooMuch))
}

fn shrink(memory: &mut Memory, count: u64) -> Result<(), BalloonError> {
    let spare = memory.frames.free().saturating_sub(KEPT_FREE);
    if count > spare {
        return Err(BalloonError::InUse(count, spare));
    }
    let list = memory.map.frame_list.clone();
    protect(list.clone(), Use::Data)?;
    let mut left = count;
    let mut result = Ok(());
    while left > 0 && result.is_ok() {
        result = give_back(memory, left.min(BATCH as u64)).map(|done| left -= done);
    }
    protect(list, Use::Constant).and(result)
}

/// Gives up to `count` frames back, at most [`BATCH`]; tells how many.
fn give_back(memory: &mut Memory, count: u64) -> Result<u64, BalloonError> {
    let (mut frames, mut machines) = ([0_u64; BATCH], [0_u64; BATCH]);
    let mut taken = 0;
    while taken < frames.len() && (taken as u64) < count {
        let Some(frame) = memory.frames.take_last() else { break };
        // One of those that are not mapped yet, and have no memory either.
        let Some(machine) = machine_frame(frame) else { continue };
        if let Err(error) = withdraw(memory, frame, machine) {
            memory.frames.give(frame.0..frame.0 + 1);
            restore(memory, &frames[..taken]);
            return Err(error);
        }
        (frames[taken], machines[taken]) = (frame.0, machine.0);
        taken += 1;
    }
    // SAFETY: the frames were free, are marked as used, and `withdraw` left no mapping of them.
    let done = unsafe { reserve(MemoryOp::DecreaseReservation, &mut machines[..taken]) };
    let done = done.unwrap_or(0);
    for &frame in &frames[..done] {
        note(Pfn(frame), NO_MEMORY);
    }
    memory.holes += done as u64;
    restore(memory, &frames[done..taken]);
    if done == taken && taken > 0 {
        Ok(done as u64)
    } else {
        Err(BalloonError::Short(count - done as u64))
    }
}

/// Clears a free frame and takes its mapping away: what was in it is nobody else's business, and
/// Xen does not clear it.
fn withdraw(memory: &Memory, frame: Pfn, machine: Mfn) -> Result<(), BalloonError> {
    // SAFETY: a machine frame from our own list.
    if unsafe { own_frame(machine) } != frame {
        return Err(BalloonError::Disagree(frame));
    }
    if frame.0 >= memory.mapped {
        return Ok(());
    }
    // SAFETY: the frame is mapped writable and free: the caller has just taken it.
    unsafe { &*address_of(frame).as_ptr::<Page>() }.clear();
    // SAFETY: the frame was free, so nothing refers to it.
    unsafe { paging::set_page(frame, Use::Nothing) }.map_err(BalloonError::Refused)
}

/// Maps frames again that Xen did not take.
fn restore(memory: &mut Memory, frames: &[u64]) {
    for &frame in frames {
        if let Some(machine) = machine_frame(Pfn(frame)) {
            // One that cannot be mapped stays out of use.
            let _ = accept(memory, Pfn(frame), machine);
        }
    }
}

fn enlarge(memory: &mut Memory, count: u64) -> Result<(), BalloonError> {
    if count > memory.holes {
        extend(memory, memory.total + (count - memory.holes))?;
    }
    let list = memory.map.frame_list.clone();
    protect(list.clone(), Use::Data)?;
    let mut from = 0;
    let mut left = count;
    let mut result = Ok(());
    while left > 0 && result.is_ok() {
        result = reclaim(memory, &mut from, left.min(BATCH as u64))
            .map(|done| left -= done)
            .map_err(|error| {
                if error == BalloonError::Short(0) { BalloonError::Short(left) } else { error }
            });
    }
    protect(list, Use::Constant).and(result)
}

/// Gets memory for up to `count` frames without any, at most [`BATCH`], those from `from` on, and
/// tells how many.
fn reclaim(memory: &mut Memory, from: &mut u64, count: u64) -> Result<u64, BalloonError> {
    let (mut frames, mut machines) = ([0_u64; BATCH], [0_u64; BATCH]);
    let mut found = 0;
    while found < frames.len() && (found as u64) < count && *from < memory.total {
        if machine_frame(Pfn(*from)).is_none() {
            frames[found] = *from;
            found += 1;
        }
        *from += 1;
    }
    machines[..found].copy_from_slice(&frames[..found]);
    // SAFETY: Xen fills frames that had no memory; nothing is taken away.
    let done = unsafe { reserve(MemoryOp::PopulatePhysmap, &mut machines[..found]) };
    let done = done.map_err(BalloonError::Refused)?;
    for (&frame, &machine) in frames.iter().zip(&machines[..done]) {
        note(Pfn(frame), machine);
        memory.holes -= 1;
        accept(memory, Pfn(frame), Mfn(machine))?;
    }
    if done == 0 { Err(BalloonError::Short(0)) } else { Ok(done as u64) }
}

/// Takes a frame with memory behind it into use.
fn accept(memory: &mut Memory, frame: Pfn, machine: Mfn) -> Result<(), BalloonError> {
    // SAFETY: Xen has just said that this machine frame is ours.
    if unsafe { own_frame(machine) } != frame {
        return Err(BalloonError::Disagree(frame));
    }
    if frame.0 < memory.mapped {
        // SAFETY: nothing refers to the frame.
        unsafe { paging::set_page(frame, Use::Data) }.map_err(BalloonError::Refused)?;
    }
    memory.frames.give(frame.0..frame.0 + 1);
    Ok(())
}

/// Writes the list, whose pages are writable now.
fn note(frame: Pfn, machine: u64) {
    let list = *FRAME_LIST.lock();
    if let Some(slot) = usize::try_from(frame.0).ok().and_then(|frame| list.get(frame)) {
        slot.store(machine, Ordering::Relaxed);
    }
}

/// Sets what the pages of the list are for.
fn protect(list: Range<u64>, purpose: Use) -> Result<(), BalloonError> {
    for frame in list {
        // SAFETY: the list is made of atomic words and written in this module only, between two
        // calls of this.
        unsafe { paging::set_page(Pfn(frame), purpose) }.map_err(BalloonError::Refused)?;
    }
    Ok(())
}

/// Makes room in the tables for `total` frames, the new ones without memory.
fn extend(memory: &mut Memory, total: u64) -> Result<(), BalloonError> {
    if total > FRAMES_MAX {
        return Err(BalloonError::TooMuch);
    }
    let list_frames = (total * 8).div_ceil(PAGE_BYTES);
    let bitmap_frames = (words_for(total) * 8).div_ceil(PAGE_BYTES);
    let needed = list_frames + bitmap_frames + KEPT_FREE;
    let short = BalloonError::InUse(needed, memory.frames.free());
    if memory.frames.free() < needed {
        return Err(short);
    }
    let first = memory.take(list_frames).ok_or(short)?;
    let Some(bits) = memory.take(bitmap_frames) else {
        memory.frames.give(first.0..first.0 + list_frames);
        return Err(short);
    };
    let [length, words] = [total, words_for(total)].map(usize::try_from);
    let (Ok(length), Ok(words)) = (length, words) else { return Err(BalloonError::TooMuch) };
    // SAFETY: these frames were just taken, are mapped writable, and are never given back but by
    // the next call of this.
    let bitmap = unsafe { slice::from_raw_parts_mut(words_at(bits), words) };
    let list = words_at(first).cast::<AtomicU64>();
    // SAFETY: the same; the words are accessed atomically from here on.
    let list: &'static [AtomicU64] = unsafe { slice::from_raw_parts(list, length) };
    let old = core::mem::replace(&mut *FRAME_LIST.lock(), list);
    for (at, slot) in list.iter().enumerate() {
        let machine = old.get(at).map_or(NO_MEMORY, |old| old.load(Ordering::Relaxed));
        slot.store(machine, Ordering::Relaxed);
    }
    replace_tables(memory, first.0..first.0 + list_frames, bits.0..bits.0 + bitmap_frames);
    memory.frames.extend(bitmap, total);
    memory.holes += total - memory.total;
    memory.total = total;
    // The last table may map less than 2 MiB: its other entries are there, and empty.
    memory.mapped = memory.mapped.next_multiple_of(FRAMES_PER_TABLE).min(total);
    Ok(())
}

fn words_at(frame: Pfn) -> *mut u64 {
    address_of(frame).as_mut_ptr()
}

/// Notes where list and bitmap lie now, and frees where the list was. The old bitmap is in use
/// until the new one has taken over, and stays out of use.
fn replace_tables(memory: &mut Memory, list: Range<u64>, bitmap: Range<u64>) {
    let old = core::mem::replace(&mut memory.map.frame_list, list);
    memory.bitmap = bitmap;
    if protect(old.clone(), Use::Data).is_ok() {
        memory.frames.give(old);
    }
}
