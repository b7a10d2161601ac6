//! Elevators of a machine's disks: asked for at the start, shown, changed, and at work.

extern crate std;

use alloc::boxed::Box;
use std::vec;

use blkfront::elevator::{Choice, Deadline};

use super::*;
use crate::programs::play::Play;
use crate::programs::{AnyDisk, bench, copy, digest, stamp};

fn scene<'a>(all: Option<&'a str>, one: &'a [(&'a str, &'a str)]) -> (Play, Disks<Play>, String) {
    let play = Play::new(2, 2048);
    let mut disks = Disks::new();
    disks.want_elevators(&play, all, one.iter().copied());
    disks.connect(&play, core::time::Duration::from_secs(60));
    let printed = play.printed();
    (play, disks, printed)
}

fn sysctl(play: &Play, disks: &mut Disks<Play>, line: &str) -> Result<String, Failure> {
    let words: Vec<String> = line.split_whitespace().map(ToString::to_string).collect();
    sysctl::run(play, disks, (&[tunables()], &words)).map(|()| play.printed())
}

fn schedulers(play: &Play, disks: &mut Disks<Play>) -> String {
    sysctl(play, disks, "block.xvda.scheduler block.xvdb.scheduler").unwrap()
}

#[test]
fn a_disk_has_the_elevator_that_was_asked_for() {
    let noop = "block.xvda.scheduler = [noop] deadline\nblock.xvdb.scheduler = [noop] deadline";
    let each = [("xvda", "deadline"), ("xvda", "noop"), ("xvdb", "deadline")];
    for (all, one, expected) in [
        (None, &each[..0], noop.to_string()),
        (Some("noop"), &[], noop.to_string()),
        (Some("deadline"), &[], noop.replace("[noop] deadline", "noop [deadline]")),
        (
            Some("deadline"),
            &each[1..2],
            noop.replacen("[noop] deadline", "noop [deadline]", 2).replacen(
                "noop [deadline]",
                "[noop] deadline",
                1,
            ),
        ),
        (None, &each[..2], noop.to_string()),
        (
            None,
            &each[2..],
            noop.replace("b.scheduler = [noop] deadline", "b.scheduler = noop [deadline]"),
        ),
    ] {
        let (play, mut disks, printed) = scene(all, one);
        assert_eq!(printed, "");
        assert_eq!(schedulers(&play, &mut disks), expected, "{all:?} {one:?}");
        play.assert_clean(disks);
    }
}

#[test]
fn a_name_that_is_none_is_told_once_and_means_noop() {
    let (play, mut disks, printed) = scene(Some("cfq"), &[("xvdb", "bfq"), ("xvdz", "deadline")]);
    let expected = [
        "pvblk: elevator=cfq: no such elevator: there is noop, deadline; noop is used",
        "pvblk: elevator.xvdb=bfq: no such elevator: there is noop, deadline; noop is used",
        "pvblk: elevator.xvdz=deadline: no disk xvdz yet",
    ];
    assert_eq!(printed, expected.join("\n"));
    assert!(!disks.uses_elevator(Deadline::NAME));
    assert!(!schedulers(&play, &mut disks).contains("[deadline]"));
}

#[test]
fn the_elevator_and_its_parameters_are_tunables() {
    let (play, mut disks, _) = scene(None, &[]);
    assert_eq!(
        sysctl(&play, &mut disks, "block.xvda.scheduler=deadline block.xvda.read_expire=100"),
        Ok("block.xvda.scheduler = noop [deadline]\nblock.xvda.read_expire = 100".to_string())
    );
    let all = sysctl(&play, &mut disks, "-a").unwrap();
    let keys: Vec<&str> = all.lines().filter_map(|line| line.split(' ').next()).collect();
    let expected = [
        "block.xvda.fifo_batch",
        "block.xvda.front_merges",
        "block.xvda.read_expire",
        "block.xvda.scheduler",
        "block.xvda.write_expire",
        "block.xvda.writes_starved",
        "block.xvdb.scheduler",
    ];
    assert_eq!(keys, expected);
    // The same name again changes nothing; another one begins anew.
    let line = "block.xvda.scheduler=deadline block.xvda.read_expire";
    assert!(sysctl(&play, &mut disks, line).unwrap().ends_with("read_expire = 100"));
    let line = "block.xvda.scheduler=noop block.xvda.scheduler=deadline block.xvda.read_expire";
    assert!(sysctl(&play, &mut disks, line).unwrap().ends_with("read_expire = 500"));
}

#[test]
fn what_an_elevator_cannot_be_is_refused_with_what_it_can() {
    let (play, mut disks, _) = scene(Some("deadline"), &[]);
    for (line, text) in [
        (
            "block.xvda.scheduler=cfq",
            "block.xvda.scheduler=cfq: no such elevator: there is noop, deadline",
        ),
        (
            "block.xvda.scheduler=",
            "block.xvda.scheduler=: no such elevator: there is noop, deadline",
        ),
        ("block.xvda.fifo_batch=0", "block.xvda.fifo_batch=0: not a number from 1 to 1024"),
        ("block.xvda.front_merges=2", "block.xvda.front_merges=2: not a number from 0 to 1"),
    ] {
        assert_eq!(sysctl(&play, &mut disks, line).unwrap_err().text, text);
    }
    let line = "block.xvda.scheduler=noop block.xvda.fifo_batch=1";
    let failure = sysctl(&play, &mut disks, line).unwrap_err();
    assert_eq!(
        failure.text,
        "block.xvda.fifo_batch: no such tunable: there is block.xvda.scheduler"
    );
}

#[test]
fn an_elevator_can_be_added_used_and_taken_away() {
    let (play, mut disks, _) = scene(None, &[]);
    let choice = |name: &str| Choice {
        name: name.to_string(),
        make: Box::new(|capacity| Box::new(Deadline::new(capacity))),
    };
    disks.elevators().add(choice("late")).unwrap();
    assert!(disks.elevators().add(choice("late")).is_err());
    assert!(disks.elevators().add(choice("noop")).is_err());
    let printed = sysctl(&play, &mut disks, "block.xvda.scheduler=late").unwrap();
    assert_eq!(printed, "block.xvda.scheduler = noop deadline [late]");
    assert!(disks.uses_elevator("late"));
    sysctl(&play, &mut disks, "block.xvda.scheduler=noop").unwrap();
    assert!(!disks.uses_elevator("late"));
    for name in ["late", "noop", "deadline"] {
        disks.elevators().remove(name);
    }
    assert_eq!(disks.elevators().names().collect::<Vec<_>>(), ["noop", "deadline"]);
}

#[test]
fn programs_do_the_same_under_every_elevator() {
    let mut results = vec![];
    for elevator in ["noop", "deadline"] {
        // Little memory, so that the ring is short and requests wait.
        let play = Play::with(2, 2048, 400, |_| {});
        let mut disks = Disks::new();
        disks.want_elevators(&play, Some(elevator), core::iter::empty());
        disks.connect(&play, core::time::Duration::from_secs(60));
        play.run(&mut disks, stamp::run, "write xvda --seed=5").unwrap();
        play.run(&mut disks, stamp::run, "verify xvda --seed=5").unwrap();
        for line in [
            "xvdb --rw=randrw --bs=4k --iodepth=64 --number_ios=500",
            "xvdb --rw=randwrite --bs=512 --iodepth=64 --number_ios=500",
            "xvdb --rw=write --bs=512 --iodepth=64 --number_ios=2048",
        ] {
            play.run(&mut disks, bench::run, line).unwrap();
        }
        play.run(&mut disks, copy::run, "if=xvda of=xvdb bs=4k").unwrap();
        play.run(&mut disks, stamp::run, "verify xvda --seed=5").unwrap();
        let hash = play.run(&mut disks, digest::run, "xvdb").unwrap();
        results.push(hash.lines().next().unwrap().to_string());
        assert_eq!(
            play.back(0, |disk| disk.medium.clone()),
            play.back(1, |disk| disk.medium.clone())
        );
        play.assert_clean(disks);
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn what_waits_for_room_in_the_ring_goes_down_without_the_program() {
    for elevator in ["noop", "deadline"] {
        let play = Play::with(1, 2048, 200, |_| {});
        let mut disks = Disks::new();
        disks.want_elevators(&play, Some(elevator), core::iter::empty());
        disks.connect(&play, core::time::Duration::from_secs(60));
        let which = disks.find("xvda").unwrap();
        let AnyDisk::Front(disk) = disks.disk(which).unwrap() else { panic!("it has a back") };
        for at in (0..64).rev() {
            let buffer = disk.buffer(512).unwrap();
            disk.submit(blkif::Operation::Read, at * 2, buffer).unwrap();
        }
        disk.kick();
        assert_eq!(disk.unsent(), 32);
        let mut done = 0;
        while done < 64 {
            disks.wait(&play, which).unwrap();
            while disks.poll(&play, which).unwrap().is_some() {
                done += 1;
            }
        }
        play.assert_clean(disks);
    }
}
