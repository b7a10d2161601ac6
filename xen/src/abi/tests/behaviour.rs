//! What the few definitions that do something do.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::*;
use crate::{Access, DomainId, StillMapped};

#[test]
fn a_grant_that_is_in_use_cannot_be_revoked() {
    let entry = GrantEntry::new();
    entry.grant(DomainId(7), 0x1234, Access::Write);
    assert_eq!(entry.flags(), GrantFlags::PERMIT_ACCESS);
    assert_eq!(entry.target(), (DomainId(7), 0x1234));
    for in_use in [GrantFlags::READING, GrantFlags::READING | GrantFlags::WRITING] {
        let bits = u32::from(in_use.bits());
        entry.header.fetch_or(bits, Ordering::Relaxed);
        assert_eq!(entry.revoke(), Err(StillMapped));
        assert_eq!(entry.target(), (DomainId(7), 0x1234), "the grant stands");
        entry.header.fetch_and(!bits, Ordering::Relaxed);
    }
    assert_eq!(entry.revoke(), Ok(()));
    assert_eq!(entry.flags(), GrantFlags::empty());
}

#[test]
fn xsa_230_of_a_revoke_and_a_map_at_the_same_time_one_fails() {
    // As long as that, and longer until they have really met so often.
    const TIME: Duration = Duration::from_secs(1);
    const MET: u32 = 20;
    let entry = GrantEntry::new();
    let over = AtomicBool::new(false);
    let [permit, in_use] =
        [GrantFlags::PERMIT_ACCESS, GrantFlags::READING].map(|it| u32::from(it.bits()));
    // Xen's part: an entry that permits access is marked as in use, in one step.
    let map = || {
        let header = entry.header.load(Ordering::SeqCst);
        let marked = header | in_use;
        let swap =
            |old, new| entry.header.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        header & permit != 0 && swap(header, marked).is_ok()
    };
    let xen = || {
        let (mut mapped, mut lost) = (0_u32, 0_u32);
        while !over.load(Ordering::SeqCst) {
            if map() {
                mapped += 1;
                if mapped % 8 == 0 {
                    std::thread::yield_now();
                }
                lost += u32::from(entry.header.load(Ordering::SeqCst) & in_use == 0);
                entry.header.fetch_and(!in_use, Ordering::SeqCst);
            }
        }
        (mapped, lost)
    };
    let (mapped, lost) = std::thread::scope(|scope| {
        let xen = scope.spawn(xen);
        let (mut met, start) = (0, Instant::now());
        while met < MET || start.elapsed() < TIME {
            entry.grant(DomainId(7), 9, Access::Write);
            let mut refused = false;
            while entry.revoke().is_err() {
                refused = true;
                std::thread::yield_now();
            }
            met += u32::from(refused);
        }
        over.store(true, Ordering::SeqCst);
        xen.join().expect("no panic")
    });
    assert_eq!(lost, 0, "of {mapped} mappings so many ended by our revoke");
    assert!(mapped >= MET);
    assert!(entry.flags().is_empty());
}

#[test]
fn a_time_sample_is_taken_only_when_no_change_is_under_way() {
    let info = time_info();
    assert_eq!(info.sample().map(|sample| sample.system_time_ns), Some(500));
    info.version.store(3, Ordering::Relaxed);
    assert_eq!(info.sample(), None);
}

#[test]
fn time_follows_the_formula_of_the_header() {
    let sample = time_info().sample().expect("no change is under way");
    // Half a nanosecond for each count.
    assert_eq!(sample.system_time_ns(1000), 500);
    assert_eq!(sample.system_time_ns(3000), 1500);
    assert_eq!(sample.system_time_ns(0), 500, "a counter that stands before the sample");
    let doubled = TimeSample { tsc_shift: 1, ..sample };
    assert_eq!(doubled.system_time_ns(3000), 2500);
    let halved = TimeSample { tsc_shift: -1, ..sample };
    assert_eq!(halved.system_time_ns(3000), 1000);
    let extreme = TimeSample { tsc_shift: i8::MIN, tsc_to_system_mul: u32::MAX, ..sample };
    assert_eq!(extreme.system_time_ns(1000), 500);
    let extreme = TimeSample { tsc_shift: i8::MAX, ..extreme };
    assert_ne!(extreme.system_time_ns(u64::MAX), 500);
}

fn time_info() -> TimeInfo {
    TimeInfo {
        version: AtomicU32::new(2),
        pad0: AtomicU32::new(0),
        tsc_timestamp: 1000.into(),
        system_time: 500.into(),
        tsc_to_system_mul: (1 << 31).into(),
        tsc_shift: 0.into(),
        flags: 0.into(),
        pad1: [const { AtomicU8::new(0) }; 2],
    }
}

#[test]
fn the_command_line_ends_at_its_nul() {
    let mut info = StartInfo {
        magic: [0; 32],
        nr_pages: 0,
        shared_info: 0,
        flags: StartFlags::empty(),
        store_mfn: 0,
        store_evtchn: 0,
        console: StartConsole { mfn: 0, evtchn: 0 },
        pt_base: 0,
        nr_pt_frames: 0,
        mfn_list: 0,
        mod_start: 0,
        mod_len: 0,
        cmd_line: [b'x'; COMMAND_LINE_MAX],
        first_p2m_pfn: 0,
        nr_p2m_frames: 0,
    };
    assert_eq!(info.command_line().len(), COMMAND_LINE_MAX, "a line without a NUL");
    info.cmd_line[4] = 0;
    assert_eq!(info.command_line(), b"xxxx");
    assert_eq!(info.magic(), b"");
}

#[test]
fn a_runstate_is_read_only_when_no_change_is_under_way_and_counts_the_present_stay() {
    let area = RunstateInfo {
        state: AtomicU32::new(RunstateState::Running as u32),
        state_entry_time: AtomicU64::new(1000),
        time: [10, 20, 30, 40].map(AtomicU64::new),
    };
    let sample = area.sample().expect("no change is under way");
    assert_eq!(sample.times_ns(1500), [510, 20, 30, 40]);
    assert_eq!(sample.times_ns(900), [10, 20, 30, 40], "a clock that stands before the stay");
    area.state_entry_time.fetch_or(RUNSTATE_UPDATE, Ordering::Relaxed);
    assert_eq!(area.sample(), None);
    area.state_entry_time.fetch_and(!RUNSTATE_UPDATE, Ordering::Relaxed);
    area.state.store(9, Ordering::Relaxed);
    let strange = area.sample().expect("no change is under way");
    assert_eq!(strange.times_ns(1500), [10, 20, 30, 40], "a state that there is not");
}
