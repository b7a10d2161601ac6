//! Time as Xen tells it to a virtual processor (`xen.h`, `struct vcpu_time_info`; `vcpu.h`,
//! `struct vcpu_runstate_info`).
//!
//! Xen rewrites both while we look; a version number tells whether what was read belongs together.
//! Nothing here reads the time-stamp counter: the caller does, after taking the sample.

use core::mem::size_of;
use core::sync::atomic::{AtomicI8, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use core::time::Duration;

use super::SharedInfo;

/// How often [`TimeInfo::sample`] looks before it gives up. Xen writes on our own processor, where
/// one look is enough, or from another one, for some nanoseconds.
pub const TIME_INFO_TRIES_MAX: u32 = 1000;

/// The relation of the time-stamp counter to system time, as it stands in shared memory.
#[derive(Debug)]
#[repr(C)]
pub struct TimeInfo {
    /// Counts changes; odd while one is being made.
    pub version: AtomicU32,
    /// Not used.
    pub pad0: AtomicU32,
    /// Time-stamp counter at the last change.
    pub tsc_timestamp: AtomicU64,
    /// System time (nanoseconds since Xen started) at the last change.
    pub system_time: AtomicU64,
    /// Nanoseconds for one count, after the shift, times 2^32.
    pub tsc_to_system_mul: AtomicU32,
    /// How far the count is shifted left first; right if negative.
    pub tsc_shift: AtomicI8,
    /// Flags (`XEN_PVCLOCK_*`).
    pub flags: AtomicU8,
    /// Not used.
    pub pad1: [AtomicU8; 2],
}

const _: () = assert!(size_of::<TimeInfo>() == 32);

/// A copy of [`TimeInfo`] whose fields belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSample {
    /// Time-stamp counter at the last change.
    pub tsc_timestamp: u64,
    /// System time at the last change, in nanoseconds.
    pub system_time_ns: u64,
    /// Nanoseconds for one count, after the shift, times 2^32.
    pub tsc_to_system_mul: u32,
    /// How far the count is shifted left first; right if negative.
    pub tsc_shift: i8,
}

impl TimeInfo {
    /// Copies the fields, again while Xen changes them; `None` after [`TIME_INFO_TRIES_MAX`].
    pub fn sample(&self) -> Option<TimeSample> {
        (0..TIME_INFO_TRIES_MAX).find_map(|_| self.try_sample())
    }

    fn try_sample(&self) -> Option<TimeSample> {
        // Acquire: the fields are read after the version.
        let before = self.version.load(Ordering::Acquire);
        let sample = TimeSample {
            tsc_timestamp: self.tsc_timestamp.load(Ordering::Relaxed),
            system_time_ns: self.system_time.load(Ordering::Relaxed),
            tsc_to_system_mul: self.tsc_to_system_mul.load(Ordering::Relaxed),
            tsc_shift: self.tsc_shift.load(Ordering::Relaxed),
        };
        // The fields are read before the version is read again. Xen's partner of both is the
        // pair of write barriers around its update.
        fence(Ordering::Acquire);
        let after = self.version.load(Ordering::Relaxed);
        (before == after && before.is_multiple_of(2)).then_some(sample)
    }
}

impl SharedInfo {
    /// When system time was 0, counted from the begin of 1970; `None` after
    /// [`TIME_INFO_TRIES_MAX`].
    pub fn wall_clock(&self) -> Option<Duration> {
        (0..TIME_INFO_TRIES_MAX).find_map(|_| self.try_wall_clock())
    }

    fn try_wall_clock(&self) -> Option<Duration> {
        // Ordered as in `TimeInfo::try_sample`.
        let before = self.wc_version.load(Ordering::Acquire);
        let low = u64::from(self.wc_sec.load(Ordering::Relaxed));
        let high = u64::from(self.wc_sec_hi.load(Ordering::Relaxed));
        let nanoseconds = self.wc_nsec.load(Ordering::Relaxed).min(999_999_999);
        fence(Ordering::Acquire);
        let after = self.wc_version.load(Ordering::Relaxed);
        let begin = Duration::new(high << 32 | low, nanoseconds);
        (before == after && before.is_multiple_of(2)).then_some(begin)
    }
}

impl TimeSample {
    /// System time, in nanoseconds, when the time-stamp counter stood at `tsc`. A counter before
    /// the last change counts as no time since then, and a shift of more than 31 as one of 31.
    pub fn system_time_ns(&self, tsc: u64) -> u64 {
        let counts = u128::from(tsc.saturating_sub(self.tsc_timestamp));
        let shift = u32::from(self.tsc_shift.unsigned_abs().min(31));
        let shifted = if self.tsc_shift < 0 { counts >> shift } else { counts << shift };
        let elapsed = (shifted * u128::from(self.tsc_to_system_mul)) >> 32;
        #[expect(clippy::cast_possible_truncation, reason = "system time is modulo 2^64")]
        let elapsed = elapsed as u64;
        self.system_time_ns.wrapping_add(elapsed)
    }
}

/// What a virtual processor is doing (`RUNSTATE_*`): the index into [`RunstateInfo::time`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum RunstateState {
    /// Runs.
    Running = 0,
    /// Could run and does not: the time that others took.
    Runnable = 1,
    /// Waits for an event.
    Blocked = 2,
    /// Is paused.
    Offline = 3,
}

/// Set in [`RunstateInfo::state_entry_time`] while Xen changes the area (`XEN_RUNSTATE_UPDATE`), if
/// [`RunstateUpdateFlag`](super::VmAssistKind::RunstateUpdateFlag) is switched on.
pub const RUNSTATE_UPDATE: u64 = 1 << 63;

/// How long a virtual processor has been in each state; Xen writes it while we look.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RunstateInfo {
    /// A [`RunstateState`].
    pub state: AtomicU32,
    /// System time at which that state was entered, in nanoseconds.
    pub state_entry_time: AtomicU64,
    /// Nanoseconds spent in each state.
    pub time: [AtomicU64; 4],
}

const _: () = assert!(size_of::<RunstateInfo>() == 48);

/// A copy of [`RunstateInfo`] whose fields belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunstateSample {
    /// A [`RunstateState`].
    pub state: u32,
    /// System time at which that state was entered, in nanoseconds.
    pub entered_ns: u64,
    /// Nanoseconds spent in each state, the present stay not counted.
    pub time_ns: [u64; 4],
}

impl RunstateInfo {
    /// An area that Xen has not written yet.
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            state_entry_time: AtomicU64::new(0),
            time: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// Copies the fields, again while Xen changes them; `None` after [`TIME_INFO_TRIES_MAX`].
    pub fn sample(&self) -> Option<RunstateSample> {
        (0..TIME_INFO_TRIES_MAX).find_map(|_| self.try_sample())
    }

    fn try_sample(&self) -> Option<RunstateSample> {
        // Acquire: the fields are read after the first look at the entry time, which is the
        // version of this area: no two states are entered at one time.
        let before = self.state_entry_time.load(Ordering::Acquire);
        let sample = RunstateSample {
            state: self.state.load(Ordering::Relaxed),
            entered_ns: before,
            time_ns: self.time.each_ref().map(|time| time.load(Ordering::Relaxed)),
        };
        // The fields are read before the second look. Xen's partner of both is the pair of write
        // barriers around its update, with the flag set in between.
        fence(Ordering::Acquire);
        let after = self.state_entry_time.load(Ordering::Relaxed);
        (before == after && before & RUNSTATE_UPDATE == 0).then_some(sample)
    }
}

impl RunstateSample {
    /// Nanoseconds spent in each state until `system_time_ns`, the present stay counted. A time
    /// before that stay began counts as its beginning.
    pub fn times_ns(&self, system_time_ns: u64) -> [u64; 4] {
        let mut times = self.time_ns;
        if let Some(time) = times.get_mut(self.state as usize) {
            *time = time.saturating_add(system_time_ns.saturating_sub(self.entered_ns));
        }
        times
    }
}
