//! What the command tells of a back that bears everything, of one that does not, and what it leaves.

extern crate std;

use std::string::{String, ToString};

use super::super::play::{Mischief, Play};
use super::super::stamp;
use super::*;

fn play() -> (Play, Disks<Play>) {
    let play = Play::new(2, 1024);
    let disks = play.disks();
    (play, disks)
}

/// Runs the command, and uses the disk and its neighbour afterwards.
fn told(line: &str) -> String {
    let (play, mut disks) = play();
    let other = play.back(1, |disk| disk.medium.clone());
    let told = play.run(&mut disks, run, line).expect("a back that bears it");
    assert!(play.back(1, |disk| disk.medium == other), "the other disk has changed");
    for verb in ["write xvda", "verify xvda", "write xvdb", "verify xvdb"] {
        play.run(&mut disks, stamp::run, verb).expect("a disk in service again");
    }
    play.assert_clean(disks);
    told
}

#[test]
fn a_wild_index_closes_the_disk_with_the_reason_of_the_back() {
    for seed in ["1", "2", "3"] {
        let told = told(&format!("xvda index --seed={seed}"));
        assert!(told.starts_with("hostile: xvda: the back closed the disk: peer's"), "{told}");
    }
}

#[test]
fn every_wild_request_is_answered_and_some_are_lawful() {
    let told = told("xvda requests --count=2000");
    let numbers: alloc::vec::Vec<u64> =
        told.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers.iter().sum::<u64>(), 2000, "{told}");
    assert!(numbers.iter().all(|&number| number > 20), "{told}");
    assert!(told.ends_with("the back serves on"), "{told}");
}

#[test]
fn rubbish_in_the_ring_ends_with_a_reason_or_is_borne() {
    for seed in 0..20 {
        let told = told(&format!("xvda rubbish --seed={seed} --count=5000"));
        let ends = ["5120 words overwritten, the back serves on", "the back closed the disk: "];
        assert!(ends.iter().any(|end| told.contains(end)), "{told}");
    }
}

#[test]
fn a_storm_of_events_is_borne() {
    let told = told("xvda storm --count=1000");
    assert_eq!(told, "hostile: xvda: 1000 events for nothing, the back serves on");
}

#[test]
fn a_back_that_does_not_answer_is_told_of() {
    let (play, mut disks) = play();
    play.back(0, |disk| disk.mischief = Mischief { silent_from: Some(10), ..disk.mischief });
    let failure = play.run(&mut disks, run, "xvda requests --count=20").expect_err("silence");
    assert_eq!(failure.to_string(), "10 requests were never answered");
    play.assert_clean(disks);
}

#[test]
fn a_kind_of_harm_that_does_not_exist_is_a_usage_error() {
    let (play, mut disks) = play();
    for line in ["xvda", "xvda love", "index xvda", "xvda index --power=9"] {
        let failure = play.run(&mut disks, run, line).expect_err("no such harm");
        assert!([2, 3].contains(&failure.status), "{line}: {failure}");
    }
    play.assert_clean(disks);
}
