//! The page that Xen and a domain share (`xen.h`, `struct shared_info`).
//!
//! Both sides write it at any moment, so every word is atomic. Xen changes bits of the 64-bit
//! words with locked instructions of its own; we access each field in one width only.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::TimeInfo;

/// Virtual processors that have their information in the shared page (`XEN_LEGACY_MAX_VCPUS`).
pub const VCPUS_LEGACY_MAX: usize = 32;

/// The architecture's part of [`VcpuInfo`].
#[derive(Debug)]
#[repr(C)]
pub struct ArchVcpuInfo {
    /// The address of the last page fault.
    pub cr2: AtomicU64,
    /// Not used.
    pub pad: AtomicU64,
}

/// What Xen and one virtual processor tell each other.
#[derive(Debug)]
#[repr(C)]
pub struct VcpuInfo {
    /// Not 0: at least one event is pending. The guest clears it **before** it looks for events.
    pub evtchn_upcall_pending: AtomicU8,
    /// Not 0: no upcall is made. Xen sets it when it makes one and clears it in `SCHEDOP_block`.
    pub evtchn_upcall_mask: AtomicU8,
    /// Which words of [`SharedInfo::evtchn_pending`] have had a bit set.
    pub evtchn_pending_sel: AtomicU64,
    /// The architecture's part.
    pub arch: ArchVcpuInfo,
    /// Time.
    pub time: TimeInfo,
}

/// The architecture's part of [`SharedInfo`]: where the guest says its list of frames is.
#[derive(Debug)]
#[repr(C)]
pub struct ArchSharedInfo {
    /// How many entries the list has.
    pub max_pfn: AtomicU64,
    /// Machine frame of the root of the list as a three-level tree.
    pub pfn_to_mfn_frame_list_list: AtomicU64,
    /// Why a non-maskable interrupt came.
    pub nmi_reason: AtomicU64,
    /// Root of the address space that maps the list linearly; 0 if none does.
    pub p2m_cr3: AtomicU64,
    /// Virtual address of the linear list.
    pub p2m_vaddr: AtomicU64,
    /// Counts changes of the mapping of the list; odd while one is being made.
    pub p2m_generation: AtomicU64,
}

/// The shared info page.
#[derive(Debug)]
#[repr(C)]
pub struct SharedInfo {
    /// One for each of the first virtual processors.
    pub vcpu_info: [VcpuInfo; VCPUS_LEGACY_MAX],
    /// One bit for each port: an event came. The guest clears it **before** it does the work.
    pub evtchn_pending: [AtomicU64; 64],
    /// One bit for each port: events raise no upcall. Only the guest writes it.
    pub evtchn_mask: [AtomicU64; 64],
    /// Counts changes of the wall clock; odd while one is being made.
    pub wc_version: AtomicU32,
    /// Seconds since 1970 at which the system time was 0, lower half.
    pub wc_sec: AtomicU32,
    /// Nanoseconds to add.
    pub wc_nsec: AtomicU32,
    /// Upper half of [`wc_sec`](Self::wc_sec).
    pub wc_sec_hi: AtomicU32,
    /// The architecture's part.
    pub arch: ArchSharedInfo,
}

const _: () = assert!(size_of::<VcpuInfo>() == 64);
const _: () = assert!(offset_of!(SharedInfo, evtchn_pending) == 2048);
const _: () = assert!(size_of::<SharedInfo>() == 3136);
