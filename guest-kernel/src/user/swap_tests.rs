//! Swap areas on a machine to play on: taking them into use, pages going out and coming back.

extern crate std;

use std::boxed::Box;
use std::string::{String, ToString};
use std::vec::Vec;

use ring::{PAGE_SIZE, Page};

use super::Slot;
use super::model::Random;
use super::pager::Backing;
use super::swap::{Area, off, on};
use crate::programs::plate::Plate;
use crate::programs::play::{Mischief, Play};
use crate::programs::{Disks, Failure};

/// 1 MiB.
const SECTORS: usize = 2048;
const PAGES: u32 = 256;

struct Leaf(Box<Page>);

impl AsRef<Page> for Leaf {
    fn as_ref(&self) -> &Page {
        &self.0
    }
}

fn leaf(value: u64) -> Leaf {
    let page = Box::new(Page::new());
    let mut random = Random(value);
    for offset in (0..PAGE_SIZE).step_by(8) {
        page.write(offset, &random.next().to_le_bytes());
    }
    Leaf(page)
}

fn bytes(leaf: &Leaf) -> Vec<u8> {
    let mut bytes = std::vec![0; PAGE_SIZE];
    leaf.0.read(0, &mut bytes);
    bytes
}

/// What `mkswap -L spare` writes.
fn prepare(medium: &mut [u8]) {
    medium[1024..1032].copy_from_slice(&[1, 0, 0, 0, 255, 0, 0, 0]);
    medium[1032..1536].fill(0);
    medium[1036..1052].copy_from_slice(&[0xab; 16]);
    medium[1052..1057].copy_from_slice(b"spare");
    medium[4086..4096].copy_from_slice(b"SWAPSPACE2");
}

fn scene() -> (Play, Disks<Play>) {
    let play = Play::with(2, SECTORS, 100_000, |_| {});
    play.back(1, |disk| prepare(&mut disk.medium));
    let disks = play.disks();
    (play, disks)
}

fn swapon(
    play: &Play,
    disks: &mut Disks<Play>,
    area: &mut Option<Area>,
    word: &str,
) -> Result<String, Failure> {
    on(play, disks, area, &[word.to_string()])?;
    Ok(play.printed())
}

#[test]
fn an_area_is_found_by_name_by_label_and_by_uuid() {
    let uuid = "UUID=ABABABAB-abab-abab-abab-abababababab";
    for word in ["xvdb", "/dev/xvdb", "LABEL=spare", uuid] {
        let (play, mut disks) = scene();
        let mut area = None;
        let printed = swapon(&play, &mut disks, &mut area, word).expect("a good area");
        assert!(printed.contains("swap on xvdb") && printed.contains("1020 KiB"), "{printed}");
        let listed = swapon(&play, &mut disks, &mut area, "-s").expect("a list");
        assert!(listed.contains("xvdb") && listed.contains("spare"), "{listed}");
        let twice = swapon(&play, &mut disks, &mut area, word).expect_err("one at a time");
        assert!(twice.text.contains("xvdb is in use"), "{twice}");
        off(&play, &mut area).expect("it was on");
        assert_eq!(off(&play, &mut area).expect_err("it is off").status, 3);
        play.assert_clean(disks);
    }
}

#[test]
fn what_is_no_good_area_is_refused_with_a_sentence() {
    let (play, mut disks) = scene();
    let mut area = None;
    for (word, text) in [
        ("xvda", "xvda: no swap signature"),
        ("xvdz", "xvdz: not found"),
        ("LABEL=other", "LABEL=other: not found"),
    ] {
        let failure = swapon(&play, &mut disks, &mut area, word).expect_err("no area");
        assert!(failure.text.contains(text), "{failure}");
        assert!(area.is_none());
    }
    assert_eq!(on(&play, &mut disks, &mut area, &[]).expect_err("no word").status, 2);
    play.assert_clean(disks);

    let play = Play::with(1, SECTORS, 100_000, Play::read_only);
    play.back(0, |disk| prepare(&mut disk.medium));
    let mut disks = play.disks();
    let failure = swapon(&play, &mut disks, &mut area, "xvda").expect_err("read-only");
    assert!(failure.text.contains("read-only"), "{failure}");
    play.assert_clean(disks);
}

#[test]
fn pages_go_out_together_and_come_back_as_they_were() {
    // With memory for a deep pool, and with hardly any.
    for free_pages in [100_000, 40] {
        let play = Play::with(1, SECTORS, free_pages, |_| {});
        play.back(0, |disk| prepare(&mut disk.medium));
        let mut disks = play.disks();
        let mut area = None;
        swapon(&play, &mut disks, &mut area, "xvda").expect("a good area");
        let mut session = Area::with(&mut area, &play, &mut disks);
        let mut places = Vec::new();
        let before = play.back(0, |disk| disk.served);
        for value in (0..250).step_by(25) {
            let pages: Vec<Leaf> = (value..value + 25).map(leaf).collect();
            let batch: Vec<(Slot, &Leaf)> = pages
                .iter()
                .map(|page| (Backing::<Leaf>::take(&mut session).expect("room"), page))
                .collect();
            session.write(&batch).expect("written");
            places.extend(batch.iter().map(|write| write.0));
        }
        for (value, batch) in (0..).step_by(25).zip(places.chunks(25)) {
            let pages: Vec<Leaf> = batch.iter().map(|_| leaf(9999)).collect();
            let reads: Vec<(Slot, &Leaf)> = batch.iter().copied().zip(&pages).collect();
            session.read(&reads).expect("read");
            for (page, value) in pages.iter().zip(value..) {
                assert_eq!(bytes(page), bytes(&leaf(value)), "page {value}");
            }
        }
        let requests = play.back(0, |disk| disk.served) - before;
        assert!(requests <= if free_pages > 40 { 60 } else { 500 }, "{requests} requests");
        places.iter().for_each(|&place| Backing::<Leaf>::give(&mut session, place));
        session.settle();
        let figures = area.as_ref().expect("on").figures();
        assert_eq!((figures.total, figures.used), (PAGES - 1, 0));
        play.assert_clean(disks);
    }
}

#[test]
fn pages_go_to_a_disk_without_a_back_and_come_back_as_they_were() {
    let play = Play::new(1, SECTORS);
    let mut disks = play.disks();
    let mut medium = std::vec![0; SECTORS * 512];
    prepare(&mut medium);
    let info = blkif::Info::empty();
    let (plate, which) = Plate::add(&play, &mut disks, ("ram0", info), medium);
    let mut area = None;
    let printed = swapon(&play, &mut disks, &mut area, "LABEL=spare").expect("a good area");
    assert!(printed.contains("swap on ram0"), "{printed}");
    let on_it = |which| area.as_ref().is_some_and(|area| area.is_on(which));
    assert!(on_it(which) && !on_it(disks.find("xvda").expect("a disk")));
    let mut session = Area::with(&mut area, &play, &mut disks);
    let pages: Vec<Leaf> = (0..250).map(leaf).collect();
    let mut batch = Vec::new();
    for page in &pages {
        batch.push((Backing::<Leaf>::take(&mut session).expect("room"), page));
    }
    session.write(&batch).expect("written");
    let fresh: Vec<Leaf> = pages.iter().map(|_| leaf(9999)).collect();
    let reads: Vec<(Slot, &Leaf)> = batch.iter().map(|write| write.0).zip(&fresh).collect();
    session.read(&reads).expect("read");
    assert!(pages.iter().zip(&fresh).all(|(page, back)| bytes(page) == bytes(back)));
    plate.held(|held| held.bad = Some(8));
    let failure = session.read(&reads[..1]).expect_err("an error");
    assert_eq!(failure.text, "swap on ram0: ram0: a read was answered with an error");
    session.settle();
    play.assert_clean(disks);
}

#[test]
fn an_error_of_the_disk_is_the_swaps_error() {
    for (at, write) in [(0, true), (1, false)] {
        let (play, mut disks) = scene();
        let mut area = None;
        swapon(&play, &mut disks, &mut area, "xvdb").expect("a good area");
        let served = play.back(1, |disk| disk.served);
        let mischief = Mischief { error_at: Some(served + at), ..Mischief::default() };
        play.back(1, |disk| disk.mischief = mischief);
        let mut session = Area::with(&mut area, &play, &mut disks);
        let slot = Backing::<Leaf>::take(&mut session).expect("room");
        let page = leaf(1);
        session.write(&[(slot, &page)]).expect("it goes later");
        // Whether the write or the read failed: the page is not there.
        let failure = session.read(&[(slot, &page)]).expect_err("an error");
        let verb = if write { "write" } else { "read" };
        assert!(failure.text.contains("swap on xvdb"), "{failure}");
        assert!(failure.text.contains(verb), "{failure}");
        session.settle();
        play.assert_clean(disks);
    }
}
