//! The programs on a machine to play on: what they print, what they leave on the disks, and how
//! they end when the back, the disk or the user makes trouble.

extern crate std;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use sha2::{Digest, Sha256};

use super::play::{Mischief, Play};
use super::stream::whole;
use super::{Disks, Machine, bench, copy, digest, list, stamp, touch, watch};
use crate::pattern::Pattern;

/// 1 MiB: more than a window of requests.
const SECTORS: usize = 2048;

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn scene(count: u32) -> (Play, Disks<Play>) {
    let play = Play::new(count, SECTORS);
    let disks = play.disks();
    assert_eq!(play.printed(), "");
    (play, disks)
}

#[test]
fn sha256_is_that_of_the_medium() {
    let (play, mut disks) = scene(1);
    let expected = play.back(0, |disk| hex(&disk.medium));
    let printed = play.run(&mut disks, digest::run, "xvda").unwrap();
    assert_eq!(printed.lines().next().unwrap(), format!("{expected}  xvda"));
    assert!(printed.contains("sha256: xvda: 1.00 MiB in "), "{printed}");
    assert_eq!(play.marks(), ["first read"]);
    play.assert_clean(disks);
}

#[test]
fn a_disk_is_read_whole_or_up_to_a_limit() {
    let (play, mut disks) = scene(1);
    let medium = play.back(0, |disk| disk.medium.clone());
    for limit in [usize::MAX, SECTORS * 512, 66_000, 512, 0] {
        let bytes = whole(&play, &mut disks, "xvda", limit).unwrap();
        assert_eq!(bytes, medium[..medium.len().min(limit / 512 * 512)]);
    }
    play.assert_clean(disks);
}

#[test]
fn sha256_of_a_part_is_that_of_the_part() {
    let (play, mut disks) = scene(1);
    let line = "xvda --offset=512 --size=66048";
    let printed = play.run(&mut disks, digest::run, line).unwrap();
    let expected = play.back(0, |disk| hex(&disk.medium[512..512 + 66048]));
    assert!(printed.starts_with(&expected));
}

#[test]
fn dd_copies_what_it_was_told_and_nothing_else() {
    let (play, mut disks) = scene(2);
    let before = play.back(1, |disk| disk.medium.clone());
    let line = "if=xvda of=xvdb bs=1k count=100 skip=3 seek=5";
    let printed = play.run(&mut disks, copy::run, line).unwrap();
    assert!(printed.starts_with("dd: copied 0.09 MiB in "), "{printed}");
    let source = play.back(0, |disk| disk.medium.clone());
    let after = play.back(1, |disk| disk.medium.clone());
    assert_eq!(after[5 * 1024..105 * 1024], source[3 * 1024..103 * 1024]);
    assert_eq!(after[..5 * 1024], before[..5 * 1024]);
    assert_eq!(after[105 * 1024..], before[105 * 1024..]);
    assert_eq!(play.back(1, |disk| disk.flushes), 1);
    play.assert_clean(disks);
}

#[test]
fn dd_copies_whole_disks() {
    let (play, mut disks) = scene(2);
    play.run(&mut disks, copy::run, "if=xvdb of=xvda").unwrap();
    let source = play.back(1, |disk| disk.medium.clone());
    assert!(play.back(0, |disk| disk.medium == source));
}

#[test]
fn dd_names_what_it_cannot_do() {
    let (play, mut disks) = scene(2);
    for (line, status, text) in [
        ("if=xvda", 2, "usage: dd"),
        ("if=xvda of=xvda", 2, "same disk"),
        ("if=xvda of=xvdq", 3, "xvdq: no such disk: there is xvda, xvdb"),
        ("if=xvda of=xvdb bs=1000", 2, "bs=1000: not a multiple of 512"),
        ("if=xvda of=xvdb bs=1M count=2", 2, "xvda: it ends after 2048 sectors"),
        ("if=xvda of=xvdb seek=1", 2, "xvdb: it ends after 2048 sectors"),
        ("if=xvda of=xvdb count=999999999999999999", 2, "too large"),
        ("if=xvda of=xvdb conv=fsync", 2, "no option conv"),
    ] {
        let failure = play.run(&mut disks, copy::run, line).unwrap_err();
        assert_eq!(failure.status, status, "{line}");
        assert!(failure.text.contains(text), "{line}: {failure}");
    }
    assert_eq!(play.back(1, |disk| disk.served), 0);
}

#[test]
fn a_pattern_that_was_written_is_on_the_medium_and_is_verified() {
    let (play, mut disks) = scene(2);
    let options = "xvdb --seed=7 --generation=3";
    let printed = play.run(&mut disks, stamp::run, &format!("write {options}")).unwrap();
    assert!(printed.contains("2048 sectors of generation 3, seed 7 written and flushed"));
    let pattern = Pattern { disk: 51728, generation: 3, seed: 7 };
    let medium = play.back(1, |disk| disk.medium.clone());
    for (sector, bytes) in (0..).zip(medium.as_chunks().0) {
        assert_eq!(pattern.check(sector, bytes), Ok(()));
    }
    let printed = play.run(&mut disks, stamp::run, &format!("verify {options}")).unwrap();
    assert!(printed.contains("verified"));
    play.assert_clean(disks);
}

#[test]
fn one_wrong_bit_anywhere_is_found_and_named() {
    let (play, mut disks) = scene(1);
    play.run(&mut disks, stamp::run, "write xvda --seed=7").unwrap();
    for sector in [0, 1, 87, 88, 1000, SECTORS - 1] {
        play.back(0, |disk| disk.medium[sector * 512 + 300] ^= 4);
        let failure = play.run(&mut disks, stamp::run, "verify xvda --seed=7").unwrap_err();
        assert_eq!(failure.status, 1);
        assert_eq!(failure.text, format!("xvda: sector {sector} is torn: its sum is wrong"));
        play.back(0, |disk| disk.medium[sector * 512 + 300] ^= 4);
    }
    let failure = play.run(&mut disks, stamp::run, "verify xvda --seed=8").unwrap_err();
    assert!(failure.text.contains("with seed 7, not disk 51712"), "{failure}");
}

#[test]
fn a_disk_without_flush_is_written_and_the_doubt_is_told() {
    let play = Play::with(1, SECTORS, 10_000, |disk| disk.features = blkif::Features::empty());
    let mut disks = play.disks();
    let printed = play.run(&mut disks, stamp::run, "write xvda").unwrap();
    assert!(printed.contains("this disk offers no flush"), "{printed}");
    assert_eq!(play.back(0, |disk| disk.flushes), 0);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let play = Play::with(1, SECTORS, 10_000, Play::read_only);
    let mut disks = play.disks();
    for line in ["write xvda", "write xvda --size=512"] {
        let failure = play.run(&mut disks, stamp::run, line).unwrap_err();
        assert_eq!(failure.text, "xvda: write: the disk is read only");
    }
    assert_eq!(play.back(0, |disk| disk.served), 0);
    let printed = play.run(&mut disks, list::run, "").unwrap();
    assert!(printed.contains("read-only"), "{printed}");
}

#[test]
fn bench_does_what_it_was_asked_and_counts_it() {
    for (rw, bs, depth, requests) in [
        ("randread", "4k", 32, 1),
        ("randwrite", "4k", 32, 1),
        ("randrw", "512", 7, 1),
        ("read", "128k", 4, 3),
        ("write", "44k", 2, 1),
        ("read", "45k", 1, 2),
    ] {
        let (play, mut disks) = scene(1);
        let line = format!("xvda --rw={rw} --bs={bs} --iodepth={depth} --number_ios=100");
        let printed = play.run(&mut disks, bench::run, &line).unwrap();
        let json = printed.lines().find_map(|line| line.strip_prefix("bench: ")).unwrap();
        for expected in [
            format!("\"rw\":\"{rw}\""),
            format!("\"iodepth\":{depth},"),
            "\"total_ios\":100,".to_string(),
            format!("\"deepest\":{depth},"),
            format!("\"requests\":{},", 100 * requests),
        ] {
            assert!(json.contains(&expected), "{expected} in {json}");
        }
        assert_eq!(play.back(0, |disk| disk.served), 100 * requests);
        assert!(printed.lines().next().unwrap().contains("IOPS="), "{printed}");
        play.assert_clean(disks);
    }
}

#[test]
fn a_batch_costs_one_event_each_way() {
    let (play, mut disks) = scene(1);
    let line = "xvda --rw=randread --iodepth=32 --number_ios=320";
    let printed = play.run(&mut disks, bench::run, line).unwrap();
    for expected in [
        "\"batch\":32.00,",
        "\"requests_per_notification\":32.00,",
        "\"responses_per_notification\":32.00,",
        "\"waits\":10,\"hypercalls\":10,\"hypercalls_per_request\":0.03,",
    ] {
        assert!(printed.contains(expected), "{expected} in {printed}");
    }
}

#[test]
fn bench_by_time_ends_and_a_write_stays_inside_its_size() {
    let (play, mut disks) = scene(1);
    let before = play.back(0, |disk| disk.medium.clone());
    let line = "--filename=xvda --rw=randwrite --bs=1k --iodepth=4 --runtime=1 --size=64k";
    let printed = play.run(&mut disks, bench::run, line).unwrap();
    assert!(printed.contains("\"runtime_ns\":1"), "{printed}");
    let after = play.back(0, |disk| disk.medium.clone());
    assert_eq!(before[65536..], after[65536..]);
    assert_ne!(before[..65536], after[..65536]);
}

#[test]
fn bench_names_what_it_cannot_do() {
    let (play, mut disks) = scene(1);
    for (line, text) in [
        ("xvda", "usage: bench"),
        ("xvda --rw=trim", "usage: bench"),
        ("--rw=read", "usage: bench"),
        ("xvda --rw=read --bs=100", "not a multiple of 512"),
        ("xvda --rw=read --bs=0", "bs: not from"),
        ("xvda --rw=read --bs=32M", "bs: not from"),
        ("xvda --rw=read --iodepth=0", "iodepth: not from 1 to 512"),
        ("xvda --rw=read --iodepth=513", "iodepth: not from 1 to 512"),
        ("xvda --rw=read --size=2M", "it ends after"),
        ("xvda --rw=read --bs=2M", "less than one block"),
        ("xvda --rw=read --ioengine=libaio", "no option ioengine"),
        ("xvdz --rw=read", "no such disk"),
    ] {
        let failure = play.run(&mut disks, bench::run, line).unwrap_err();
        assert!(failure.text.contains(text), "{line}: {failure}");
        assert!([2, 3].contains(&failure.status));
    }
}

#[test]
fn a_machine_with_little_memory_does_the_same_with_less_in_flight() {
    let play = Play::with(2, SECTORS, 40, |_| {});
    let mut disks = play.disks();
    let expected = play.back(0, |disk| hex(&disk.medium));
    assert!(play.run(&mut disks, digest::run, "xvda").unwrap().starts_with(&expected));
    play.run(&mut disks, copy::run, "if=xvda of=xvdb").unwrap();
    assert!(play.run(&mut disks, digest::run, "xvdb").unwrap().starts_with(&expected));
    let line = "xvda --rw=read --bs=32k --iodepth=32 --number_ios=50";
    let printed = play.run(&mut disks, bench::run, line).unwrap();
    assert!(printed.contains("\"deepest\":2,"), "16 pages are two blocks: {printed}");
    let line = "xvda --rw=read --bs=128k --number_ios=1";
    let failure = play.run(&mut disks, bench::run, line).unwrap_err();
    assert_eq!(failure.text, "xvda: not enough memory for bs=131072");
}

#[test]
fn sixteen_disks_are_used_and_the_seventeenth_is_told() {
    let play = Play::new(17, 64);
    let mut disks = play.disks();
    assert_eq!(play.printed(), "xvdq: not used: 16 disks are the limit");
    let printed = play.run(&mut disks, list::run, "").unwrap();
    assert_eq!(printed.lines().count(), 16);
    for letter in 'a'..='p' {
        play.run(&mut disks, digest::run, &format!("xvd{letter}")).unwrap();
    }
    play.assert_clean(disks);
}

#[test]
fn a_machine_without_disks_says_so() {
    let play = Play::new(0, 8);
    let mut disks = play.disks();
    assert_eq!(play.run(&mut disks, list::run, "").unwrap(), "no disks");
    let failure = play.run(&mut disks, digest::run, "xvda").unwrap_err();
    assert_eq!(failure.text, "xvda: no such disk: there is none");
}

/// Runs sha256 on a disk whose back misbehaves at some request, then on the one beside it.
fn with_mischief(mischief: Mischief) -> (Play, Disks<Play>, super::Failure) {
    let (play, mut disks) = scene(2);
    play.back(0, |disk| disk.mischief = mischief);
    let failure = play.run(&mut disks, digest::run, "xvda").unwrap_err();
    play.run(&mut disks, digest::run, "xvdb").unwrap();
    (play, disks, failure)
}

#[test]
fn a_disk_error_ends_the_program_and_the_disk_goes_on() {
    let (play, mut disks, failure) =
        with_mischief(Mischief { error_at: Some(5), ..Mischief::default() });
    assert_eq!(failure.text, "xvda: a read was answered with an error");
    play.run(&mut disks, digest::run, "xvda").unwrap();
    play.assert_clean(disks);
}

#[test]
fn a_back_that_lies_loses_its_disk_and_no_other() {
    let (play, mut disks, failure) =
        with_mischief(Mischief { lie_at: Some(5), ..Mischief::default() });
    assert!(failure.text.contains("xvda: the back broke the connection"), "{failure}");
    let failure = play.run(&mut disks, digest::run, "xvda").unwrap_err();
    assert_eq!(failure.status, 3, "{failure}");
}

#[test]
fn a_back_that_closes_in_the_middle_answers_what_it_has_and_ends_the_program() {
    let (play, mut disks) = scene(2);
    play.back(0, |disk| disk.mischief.close_at = Some(5));
    let line = "xvda --rw=read --iodepth=4 --number_ios=1000";
    let failure = play.run(&mut disks, bench::run, line).unwrap_err();
    assert_eq!(failure.text, "xvda: read: the device is closing");
    play.run(&mut disks, digest::run, "xvdb").unwrap();
    play.assert_clean(disks);
}

#[test]
fn an_interrupt_ends_a_program_and_the_next_one_finds_everything_in_order() {
    let (play, mut disks) = scene(1);
    for waits in 0..3 {
        play.interrupt_after(waits);
        let line = "xvda --rw=randread --iodepth=8 --number_ios=1000";
        let failure = play.run(&mut disks, bench::run, line).unwrap_err();
        assert_eq!(failure.status, 130);
        play.run(&mut disks, digest::run, "xvda").unwrap();
    }
    play.assert_clean(disks);
}

#[test]
fn a_back_that_falls_silent_can_be_left_by_an_interrupt() {
    let (play, mut disks) = scene(1);
    play.back(0, |disk| disk.mischief.silent_from = Some(4));
    play.interrupt_after(100);
    let failure = play.run(&mut disks, digest::run, "xvda").unwrap_err();
    assert_eq!(failure.status, 130);
}

#[test]
fn a_back_that_falls_silent_is_waited_for_once_and_told() {
    let (play, mut disks) = scene(2);
    play.back(0, |disk| disk.mischief.silent_from = Some(4));
    play.interrupt_after(100);
    assert_eq!(play.run(&mut disks, digest::run, "xvda").unwrap_err().status, 130);
    disks.settle(&play);
    let told = play.printed();
    assert!(told.contains("xvda: ") && told.contains(" are not answered; going on"), "{told}");
    // Whoever works on the other disk does not pay for it, however often.
    let before = play.now();
    for _ in 0..3 {
        play.run(&mut disks, digest::run, "xvdb").unwrap();
        disks.settle(&play);
    }
    assert!(play.now() < before.after(Duration::from_secs(10)));
}

#[test]
fn vmstat_divides_the_time_and_ends_after_its_count() {
    let (play, mut disks) = scene(1);
    let printed = play.run(&mut disks, watch::vmstat, "0.1 2").unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert!(lines[0].ends_with("us sy id wa st"), "{printed}");
    for line in &lines[1..] {
        assert!(line.ends_with(" 0  0 100  0  0"), "{printed}");
    }
    let printed = play.run(&mut disks, watch::vmstat, "").unwrap();
    assert_eq!(printed.lines().count(), 2, "all the time since the start: {printed}");
    play.assert_clean(disks);
}

#[test]
fn a_bench_is_looked_at_while_it_runs() {
    let (play, mut disks) = scene(1);
    let words: Vec<String> = "-b -d 0.1 bench".split(' ').map(ToString::to_string).collect();
    let (plan, command) = watch::top_plan(&words).unwrap();
    disks.begin_report(&play, plan, &command[0]);
    let line = "xvda --rw=randread --bs=4k --iodepth=8 --runtime=1";
    let printed = play.run(&mut disks, bench::run, line).unwrap();
    disks.end_report(&play);
    let pages: Vec<&str> = printed.split("top - ").skip(1).collect();
    assert!((9..=11).contains(&pages.len()), "{printed}");
    // The back answers everything at each wait, and a wait takes 5 ms: 8 requests in 5 ms.
    for page in &pages[1..9] {
        assert!(page.contains("100.0 wa,   0.0 st"), "{page}");
        let disk = page.lines().find(|line| line.starts_with("xvda")).unwrap();
        let words: Vec<&str> = disk.split_whitespace().collect();
        assert_eq!(words[1..], ["1600.00", "6.25", "8", "8.00", "5.00", "8.00"], "{page}");
        assert!(page.contains("waits: bench for xvda (8 in flight)"), "{page}");
    }
    play.assert_clean(disks);
}

#[test]
fn top_ends_by_the_key_q_and_redraws_in_place() {
    let (play, mut disks) = scene(1);
    play.keys.borrow_mut().extend([b'x'; 60]);
    play.keys.borrow_mut().push_back(b'q');
    let printed = play.run(&mut disks, watch::top, "-d 0.1").unwrap();
    assert_eq!(printed.matches("\x1b[H").count(), 3, "{printed:?}");
    assert!(printed.ends_with("\x1b[J"), "{printed:?}");
    play.interrupt_after(3);
    assert!(play.run(&mut disks, watch::top, "-b").is_ok(), "Ctrl-C is no failure");
    play.assert_clean(disks);
}

/// Runs a bench for a second under `top` on a screen.
fn top_bench(play: &Play, disks: &mut Disks<Play>, interval: &str) -> String {
    let words = ["-d", interval, "bench"].map(ToString::to_string);
    let (plan, command) = watch::top_plan(&words).unwrap();
    disks.begin_report(play, plan, &command[0]);
    let printed = play.run(disks, bench::run, "xvda --rw=randread --runtime=1").unwrap();
    disks.end_report(play);
    printed + &play.printed()
}

#[test]
fn top_draws_nothing_over_what_a_command_says_last_and_q_ends_the_drawing() {
    let (play, mut disks) = scene(1);
    let printed = top_bench(&play, &mut disks, "0.3");
    let (pages, last) = printed.rsplit_once("\x1b[H").unwrap();
    assert_eq!(pages.matches("\x1b[H").count(), 2, "{printed:?}");
    assert!(last.contains("bench: {"), "{last:?}");
    // It ended before the first page was due.
    let printed = top_bench(&play, &mut disks, "10");
    let (_, page) = printed.split_once("bench: {").unwrap();
    assert!(page.contains("%Cpu(s)") && !printed.contains('\x1b'), "{printed:?}");
    play.keys.borrow_mut().extend(b"xq");
    let printed = top_bench(&play, &mut disks, "0.3");
    assert!(printed.contains("bench: {") && !printed.contains("%Cpu(s)"), "{printed:?}");
    play.assert_clean(disks);
}

#[test]
fn steal_that_stays_is_warned_of_once() {
    let (play, mut disks) = scene(1);
    let mut printed = String::new();
    for _ in 0..15 {
        play.steal(Duration::from_millis(100));
        printed += &play.run(&mut disks, watch::sleep, "1000").unwrap();
    }
    assert_eq!(printed.matches("warning: steal time is").count(), 1, "{printed}");
    play.assert_clean(disks);
}

#[test]
fn memory_touch_uses_every_free_page_and_gives_all_back() {
    let play = Play::with(1, SECTORS, 300, |_| {});
    let mut disks = play.disks();
    let printed = play.run(&mut disks, touch::run, "").unwrap();
    let expected = "memory: 1200 KiB, every page that was free, written and verified 1 times";
    assert_eq!(printed, expected);
    assert_eq!(play.run(&mut disks, touch::run, "x").unwrap_err().status, 2);
    play.assert_clean(disks);
}

#[test]
fn a_write_that_is_interrupted_tells_how_much_is_there_and_is_flushed_at_the_end() {
    let play = Play::new(1, 4 * SECTORS);
    let mut disks = play.disks();
    play.interrupt_after(1);
    let failure = play.run(&mut disks, stamp::run, "write xvda --seed=3").unwrap_err();
    let rest = failure.text.strip_prefix("interrupted after ").expect("it says so");
    let sectors: u64 = rest.strip_suffix(" sectors from 0").expect("and where").parse().unwrap();
    assert!(sectors > 0 && sectors < 4 * SECTORS as u64 && failure.status == 130, "{failure}");
    let pattern = Pattern { disk: 51712, generation: 0, seed: 3 };
    play.back(0, |disk| {
        for (number, sector) in (0..sectors).zip(disk.medium.as_chunks::<512>().0) {
            assert_eq!(pattern.check(number, sector), Ok(()));
        }
        assert_eq!(disk.flushes, 0);
    });
    disks.close(&play);
    play.back(0, |disk| assert_eq!(disk.flushes, 1));
    play.assert_clean(disks);
}
