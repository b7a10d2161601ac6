//! Disks without a back: every program on them as on the others, how they fail, come and go.

extern crate std;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use blkif::Info;
use sha2::{Digest, Sha256};

use super::{DISKS_MAX, Disks, Which};
use crate::pattern::Pattern;
use crate::programs::plate::Plate;
use crate::programs::play::Play;
use crate::programs::{
    Failure, bench, copy, digest, filing, list, scheduler, stamp, stream, watch,
};
use crate::sysctl;

/// 1 MiB, as the machine's other disks.
const SECTORS: usize = 2048;

/// A machine with `xvda` and a plate, `ram0`.
fn scene() -> (Play, Disks<Play>, Plate) {
    let play = Play::new(1, SECTORS);
    let mut disks = play.disks();
    let bytes = (0..SECTORS * 512).map(|at| (at * 3 + at / 512).to_le_bytes()[0]).collect();
    let (plate, _) = Plate::add(&play, &mut disks, ("ram0", Info::empty()), bytes);
    (play, disks, plate)
}

fn failure(play: &Play, disks: &mut Disks<Play>, line: &str) -> Failure {
    let program = if line.contains("--rw") { bench::run } else { stamp::run };
    play.run(disks, program, line).expect_err(line)
}

#[test]
fn it_is_listed_found_and_hashed_beside_the_others() {
    let (play, mut disks, plate) = scene();
    let printed = play.run(&mut disks, list::run, "").unwrap();
    let line = printed.lines().nth(1).unwrap();
    assert_eq!(
        line,
        "ram0     1.00 MiB, sectors of 512/512, writable, a module's, 64 pages, flush"
    );
    let hash = plate.held(|held| Sha256::digest(&held.bytes));
    let expected: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(play.run(&mut disks, digest::run, "ram0").unwrap().starts_with(&expected));
    let whole = stream::whole(&play, &mut disks, "ram0", usize::MAX).unwrap();
    assert!(plate.held(|held| held.bytes == whole));
    let none = play.run(&mut disks, digest::run, "ram1").unwrap_err();
    assert_eq!(none.text, "ram1: no such disk: there is xvda, ram0");
    play.assert_clean(disks);
}

#[test]
fn a_pattern_is_written_flushed_and_verified() {
    let (play, mut disks, plate) = scene();
    let printed = play.run(&mut disks, stamp::run, "write ram0 --seed=7").unwrap();
    assert!(printed.contains("2048 sectors of generation 0, seed 7 written and flushed"));
    assert_eq!(plate.held(|held| held.flushes), 1);
    play.run(&mut disks, stamp::run, "verify ram0 --seed=7").unwrap();
    let number = disks.number(*disks.places().last().unwrap());
    let pattern = Pattern { disk: number, generation: 0, seed: 7 };
    plate.held(|held| {
        for (sector, bytes) in (0..).zip(held.bytes.as_chunks().0) {
            assert_eq!(pattern.check(sector, bytes), Ok(()));
        }
        held.bytes[1000 * 512 + 300] ^= 4;
    });
    let torn = failure(&play, &mut disks, "verify ram0 --seed=7");
    assert_eq!(torn.text, "ram0: sector 1000 is torn: its sum is wrong");
    play.assert_clean(disks);
}

#[test]
fn two_disks_have_different_numbers_and_none_of_xens() {
    let (play, mut disks, _) = scene();
    Plate::add(&play, &mut disks, ("ram1", Info::empty()), vec![0; 512]);
    let numbers: Vec<u32> = disks.places().into_iter().map(|which| disks.number(which)).collect();
    assert_eq!(numbers[0], 51712);
    assert!(numbers[1] != numbers[2] && numbers[1..].iter().all(|number| number >> 31 == 1));
}

#[test]
fn dd_copies_both_ways() {
    let (play, mut disks, plate) = scene();
    let before = play.back(0, |disk| disk.medium.clone());
    play.run(&mut disks, copy::run, "if=xvda of=ram0").unwrap();
    assert!(plate.held(|held| held.bytes == before && held.flushes == 1));
    plate.held(|held| held.bytes.reverse());
    play.run(&mut disks, copy::run, "if=ram0 of=xvda bs=1k skip=3 seek=5 count=100").unwrap();
    let after = play.back(0, |disk| disk.medium.clone());
    plate.held(|held| assert_eq!(after[5120..107_520], held.bytes[3072..105_472]));
    assert_eq!(after[107_520..], before[107_520..]);
    play.assert_clean(disks);
}

#[test]
fn bench_counts_what_it_did_and_keeps_no_more_in_flight_than_there_is_room_for() {
    for (rw, bs, depth, deepest) in
        [("randread", "4k", 32, 32), ("randrw", "512", 512, 64), ("write", "128k", 4, 2)]
    {
        let (play, mut disks, _) = scene();
        let line = format!("ram0 --rw={rw} --bs={bs} --iodepth={depth} --number_ios=1000");
        let printed = play.run(&mut disks, bench::run, &line).unwrap();
        for expected in [
            "\"disk\":\"ram0\",\"scheduler\":\"none\"".to_string(),
            "\"total_ios\":1000,".to_string(),
            format!("\"deepest\":{deepest},"),
            "\"waits\":0,".to_string(),
        ] {
            assert!(printed.contains(&expected), "{expected} in {printed}");
        }
        play.assert_clean(disks);
    }
    let (play, mut disks, _) = scene();
    let failure = failure(&play, &mut disks, "ram0 --rw=read --bs=512k --number_ios=1");
    assert_eq!(failure.text, "ram0: not enough memory for bs=524288");
}

#[test]
fn an_error_is_told_as_of_any_disk_and_the_next_program_goes_on() {
    let (play, mut disks, plate) = scene();
    plate.held(|held| held.bad = Some(1000));
    let read = play.run(&mut disks, digest::run, "ram0").unwrap_err();
    assert_eq!((read.text.as_str(), read.status), ("ram0: a read was answered with an error", 1));
    let write = failure(&play, &mut disks, "write ram0");
    assert_eq!(write.text, "ram0: a write was answered with an error");
    let bench = failure(&play, &mut disks, "ram0 --rw=read --iodepth=8 --number_ios=1000");
    assert_eq!(bench.text, "ram0: a read was answered with an error");
    plate.held(|held| (held.bad, held.flush_fails) = (None, true));
    let flush = failure(&play, &mut disks, "write ram0");
    assert_eq!(flush.text, "ram0: a flush was answered with an error");
    plate.held(|held| held.flush_fails = false);
    play.run(&mut disks, stamp::run, "write ram0").unwrap();
    play.run(&mut disks, digest::run, "xvda").unwrap();
    play.assert_clean(disks);
}

#[test]
fn one_that_is_read_only_is_not_written() {
    let (play, mut disks, _) = scene();
    let plain = ("rom0", Info::READ_ONLY);
    let (plate, _) = Plate::add(&play, &mut disks, plain, vec![7; 4096]);
    assert_eq!(failure(&play, &mut disks, "write rom0").text, "rom0: write: the disk is read only");
    assert!(plate.held(|held| held.bytes == [7; 4096]));
    assert!(play.run(&mut disks, list::run, "").unwrap().contains("read-only, a module's"));
    play.assert_clean(disks);
}

#[test]
fn its_scheduler_is_none_and_no_other_can_be_chosen() {
    let (play, mut disks, _) = scene();
    let mut sysctl = |line: &str| {
        let words = [line.to_string()];
        let table = &[scheduler::tunables()];
        sysctl::run(&play, &mut disks, (table, &words)).map(|()| play.printed())
    };
    let none = "block.ram0.scheduler = [none]".to_string();
    assert_eq!(sysctl("block.ram0.scheduler"), Ok(none.clone()));
    assert_eq!(sysctl("block.ram0.scheduler=none"), Ok(none.clone()));
    let refused = sysctl("block.ram0.scheduler=deadline").unwrap_err();
    assert_eq!(
        refused.text,
        "block.ram0.scheduler=deadline: a module's disk has no elevator: there is none"
    );
    assert!(sysctl("-a").unwrap().contains(&none));
    assert!(sysctl("block.xvda.scheduler=none").is_err());
}

#[test]
fn a_program_that_never_waits_is_ended_by_ctrl_c_and_looked_at_while_it_runs() {
    let (play, mut disks, _) = scene();
    play.interrupt_after(3);
    let line = "ram0 --rw=randread --iodepth=8 --number_ios=100000";
    assert_eq!(failure(&play, &mut disks, line).status, 130);
    play.run(&mut disks, digest::run, "ram0").unwrap();

    let words: Vec<String> = "-b -d 0.1 x".split(' ').map(ToString::to_string).collect();
    let (plan, command) = watch::top_plan(&words).unwrap();
    disks.begin_report(&play, plan, &command[0]);
    // Time passes at each look only, as if each batch took 10 ms.
    play.step(core::time::Duration::from_millis(10));
    let line = "ram0 --rw=randread --iodepth=8 --runtime=1";
    let printed = play.run(&mut disks, bench::run, line).unwrap();
    disks.end_report(&play);
    let pages: Vec<&str> = printed.split("top - ").skip(1).collect();
    assert!(pages.len() >= 4, "{printed}");
    let disk = pages[1].lines().find(|line| line.starts_with("ram0")).unwrap();
    let words: Vec<&str> = disk.split_whitespace().collect();
    assert!(words[1] != "0.00" && words[3..6] == ["0", "0.00", "0.00"], "{disk}");
    play.assert_clean(disks);
}

#[test]
fn the_other_disks_are_looked_after_meanwhile() {
    let (play, mut disks, _) = scene();
    play.close_back(0);
    play.run(&mut disks, digest::run, "ram0").unwrap();
    let printed = play.run(&mut disks, list::run, "").unwrap();
    assert!(printed.starts_with("xvda     not connected\nram0 "), "{printed}");
}

#[test]
fn what_a_program_left_behind_is_settled_and_what_went_wrong_is_told() {
    let (play, mut disks, plate) = scene();
    let which = disks.find("ram0").unwrap();
    plate.held(|held| held.bad = Some(1));
    for sector in [0, 1, 2] {
        let mut disk = disks.disk(which).unwrap();
        let buffer = disk.buffer(512).unwrap();
        disk.submit(blkif::Operation::Read, sector, buffer).unwrap();
    }
    assert_eq!(disks.wait(&play, which), Ok(()));
    disks.settle(&play);
    assert_eq!(play.printed(), "ram0: a read was answered with an error");
    let idle = disks.wait(&play, which).unwrap_err();
    assert_eq!(idle.text, "ram0: nothing is in flight");
}

#[test]
fn what_was_written_is_flushed_at_the_end_and_by_sync() {
    let (play, mut disks, plate) = scene();
    let (other, _) = Plate::add(&play, &mut disks, ("ram1", Info::empty()), vec![0; 4096]);
    play.interrupt_after(0);
    assert_eq!(failure(&play, &mut disks, "write ram0").status, 130);
    play.run(&mut disks, filing::sync, "").unwrap();
    assert_eq!([&plate, &other].map(|it| it.held(|held| held.flushes)), [1, 1]);
    disks.close(&play);
    assert_eq!([&plate, &other].map(|it| it.held(|held| held.flushes)), [2, 1]);
    play.assert_clean(disks);
}

#[test]
fn one_that_was_taken_away_is_gone_and_its_place_is_no_other_ones() {
    let (play, mut disks, plate) = scene();
    let which = disks.find("ram0").unwrap();
    disks.remove_local(which);
    assert!(plate.is_free());
    let gone = play.run(&mut disks, digest::run, "ram0").unwrap_err();
    assert_eq!(gone.text, "ram0: no such disk: there is xvda");
    let (_, again) = Plate::add(&play, &mut disks, ("ram0", Info::empty()), vec![0; 4096]);
    assert_ne!(again, which);
    assert_eq!(disks.disk(which).unwrap_err().status, 3);
    disks.remove_local(which);
    disks.remove_local(Which::Front(0));
    assert_eq!(disks.places().len(), 2);
    play.assert_clean(disks);
}

#[test]
fn there_is_room_for_sixteen_disks_of_both_kinds() {
    let (play, mut disks, _) = scene();
    for number in 1..DISKS_MAX - 1 {
        assert_eq!(disks.room(), DISKS_MAX - 1 - number);
        let name = format!("ram{number}");
        Plate::add(&play, &mut disks, (&name, Info::empty()), vec![0; 512]);
    }
    assert_eq!(disks.room(), 0);
    play.plug(1);
    disks.look_after(&play);
    assert_eq!(play.printed(), "xvdb: not used: 16 disks are the limit");
}
