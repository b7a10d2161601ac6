//! Target `negotiation`: what the two sides write into xenstore, and the back's whole control plane
//! in front of a guest and a tool stack that write anything at any time.
//!
//! What is agreed on is within what both offered and what a ring can be; a refusal names a node;
//! what is written is read back; and however a connection goes, in the end nothing is held.

use std::cell::RefCell;
use std::fmt;

use blkback::connect::Leave;
use blkif::{
    Abi, BACK_KEYS, BackOffer, FRONT_KEYS, Features, FrontOffer, Geometry, ORDER_MAX, RING_REFS,
    Refusal, negotiate,
};
use ring::Index;
use sim::{Domain, Faults};
use xen::{DomainId, Store, Transaction};

use super::Share;
use super::choices::Choices;
use crate::{RawFront, Wanted, World};

/// Steps of an input, at most.
const STEPS_MAX: usize = 64;
const GUEST: DomainId = DomainId(5);
const DISK: Wanted<'static> = Wanted::new(5, 51712, "/a.img");

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    if choices.valid() {
        return Share::one(offers(&mut choices));
    }
    handshake(&mut choices);
    Share::default()
}

/// Nodes as a side may have written them.
type Nodes = Vec<(String, String)>;

fn find<'a>(nodes: &'a Nodes, key: &str) -> Option<&'a str> {
    nodes.iter().rev().find(|node| node.0 == key).map(|node| node.1.as_str())
}

/// Notes what a side writes.
fn writer(
    nodes: &RefCell<Nodes>,
) -> impl FnMut(&str, fmt::Arguments<'_>) -> Result<(), std::convert::Infallible> {
    |key, value| {
        nodes.borrow_mut().push((key.to_owned(), value.to_string()));
        Ok(())
    }
}

/// The order of rings that lawful sides can have.
const ORDER: usize = 2;

/// The value of a node.
fn value(choices: &mut Choices<'_>, key: &str) -> String {
    let flag = ["1", "0", "2"];
    match key {
        "protocol" => choices.of(&["x86_64-abi", "x86_32-abi"]).to_owned(),
        "state" => choices.below(8).to_string(),
        "sectors" => choices.double_below(blkif::SECTORS_MAX + 1).to_string(),
        "sector-size" => choices.of(&["512", "4096", "1024"]).to_owned(),
        "physical-sector-size" => choices.of(&["512", "4096", "1048576"]).to_owned(),
        "ring-page-order" => choices.below(ORDER + 1).to_string(),
        "max-ring-page-order" => (ORDER + choices.below(4)).to_string(),
        "multi-queue-num-queues" => "1".to_owned(),
        "discard-granularity" => choices.of(&["512", "4096", "65536"]).to_owned(),
        _ if key.starts_with("feature-") => choices.of(&flag).to_owned(),
        // No two pages are one.
        _ => match key.strip_prefix("ring-ref").and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => (100 + number).to_string(),
            None => (1 + choices.below(1000)).to_string(),
        },
    }
}

/// The same, or what is none.
fn wild_value(choices: &mut Choices<'_>, key: &str) -> String {
    const SILLY: [&str; 14] = [
        "",
        "-1",
        "0",
        "+1",
        " 1",
        "1 ",
        "0x10",
        "1e3",
        "x",
        "256",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "\u{fffd}",
    ];
    match choices.below(8) {
        0 => choices.of(&SILLY).to_owned(),
        1 => choices.double().to_string(),
        2 => String::from_utf8_lossy(choices.bytes(24)).into_owned(),
        3 | 4 => choices.below(ORDER + 1).to_string(),
        5 => choices.byte().to_string(),
        _ => value(choices, key),
    }
}

/// The nodes of a side: all that are wanted; or some are missing and some are senseless.
fn nodes(choices: &mut Choices<'_>, keys: &[&str], lawful: bool) -> Nodes {
    let mut nodes = Nodes::new();
    for key in keys {
        let value = match if lawful { 3 } else { choices.below(16) } {
            0 => continue,
            1 | 2 => wild_value(choices, key),
            _ => value(choices, key),
        };
        nodes.push(((*key).to_owned(), value));
    }
    nodes
}

/// Tells whether both sides' offers make sense and are agreed on.
fn offers(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let front_keys = [&FRONT_KEYS[..], &RING_REFS].concat();
    let fronts = nodes(choices, &front_keys, lawful);
    let backs = nodes(choices, &BACK_KEYS, lawful);
    let max_order = u32::try_from(ORDER + choices.below(4)).expect("small");
    let front = FrontOffer::read(|key| find(&fronts, key), max_order, Abi::WHEN_MISSING);
    let back = BackOffer::read(|key| find(&backs, key));
    let geometry = Geometry::read(|key| find(&backs, key));
    check_front(&fronts, &front, max_order);
    check_back(&backs, &back);
    check_geometry(&backs, &geometry);
    let readable = front.is_ok() && back.is_ok() && geometry.is_ok();
    assert!(readable || !lawful, "{fronts:?} {backs:?}");
    let (Ok(front), Ok(back)) = (front, back) else { return false };
    match negotiate(&front, &back) {
        Err(refusal) => {
            assert!(front.order() > back.max_order, "{refusal}");
            check_refusal(&refusal);
            false
        }
        Ok(agreed) => {
            assert!(agreed.order <= back.max_order.min(ORDER_MAX));
            assert_eq!((agreed.order, agreed.abi), (front.order(), front.abi));
            assert!(back.features.contains(agreed.features));
            assert!(!agreed.persistent() || front.features.contains(Features::PERSISTENT));
            geometry.is_ok()
        }
    }
}

fn check_refusal(refusal: &Refusal) {
    let keys = [&FRONT_KEYS[..], &BACK_KEYS, &RING_REFS].concat();
    assert!(keys.contains(&refusal.key), "{refusal} is about no node");
    assert!(!refusal.to_string().contains(|it: char| it.is_control()));
}

fn check_front(nodes: &Nodes, front: &Result<FrontOffer, Refusal>, max_order: u32) {
    match front {
        Err(refusal) => check_refusal(refusal),
        Ok(offer) => {
            assert_eq!(offer.ring.len(), 1 << offer.order());
            assert!(offer.order() <= max_order.min(ORDER_MAX));
            let mut pages = offer.ring.to_vec();
            pages.sort_unstable();
            pages.dedup();
            assert_eq!(pages.len(), offer.ring.len(), "one page twice");
            assert_ne!(offer.port.0, 0);
            let abi = find(nodes, "protocol").map_or(Abi::WHEN_MISSING.protocol(), |it| it);
            assert_eq!(offer.abi.protocol(), abi);
            let written = RefCell::default();
            let Ok(()) = offer.write(writer(&written));
            let again = |key: &str| find(&written.borrow(), key).map(str::to_owned);
            assert_eq!(FrontOffer::read(again, max_order, Abi::WHEN_MISSING).as_ref(), Ok(offer));
            let written = written.borrow();
            assert!(offer.stale().all(|stale| find(&written, stale).is_none()));
        }
    }
}

fn check_back(nodes: &Nodes, back: &Result<BackOffer, Refusal>) {
    match back {
        Err(refusal) => check_refusal(refusal),
        Ok(offer) => {
            assert!(offer.max_order <= ORDER_MAX && offer.discard.granularity_bytes >= 512);
            let on =
                |key| find(nodes, key).is_some_and(|it| !it.trim_start_matches('0').is_empty());
            assert_eq!(offer.features.contains(Features::FLUSH), on("feature-flush-cache"));
            let written = RefCell::default();
            let Ok(()) = offer.write_limits(writer(&written));
            let Ok(()) = offer.write_features(writer(&written));
            let again = |key: &str| find(&written.borrow(), key).map(str::to_owned);
            let again = BackOffer::read(again).expect("our own");
            assert_eq!((again.max_order, again.features), (offer.max_order, offer.features));
        }
    }
}

fn check_geometry(nodes: &Nodes, geometry: &Result<Geometry, Refusal>) {
    match geometry {
        Err(refusal) => check_refusal(refusal),
        Ok(disk) => {
            assert!(disk.sectors <= blkif::SECTORS_MAX);
            assert!(disk.sector_size.is_power_of_two());
            assert!((512..=4096).contains(&disk.sector_size));
            let sectors = find(nodes, "sectors").and_then(|it| it.parse().ok());
            assert_eq!(Some(disk.sectors), sectors);
            let written = RefCell::default();
            let Ok(()) = disk.write(writer(&written));
            let again = |key: &str| find(&written.borrow(), key).map(str::to_owned);
            assert_eq!(Geometry::read(again).as_ref(), Ok(disk));
        }
    }
}

/// A guest and a tool stack do anything; the back's control plane and its workers are ours.
fn handshake(choices: &mut Choices<'_>) {
    let mut world = World::new(choices.byte().into());
    world.image(DISK.image, 64);
    if choices.rarely(4) {
        world.sim.set_faults(Faults::MANY);
    }
    let guest = world.guest(GUEST.0).domain;
    DISK.attach(&world.dom0).expect("attached");
    let mut fronts: Vec<RawFront> = Vec::new();
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        step(choices, &mut world, &guest, &mut fronts);
    }
    world.sim.set_faults(Faults::default());
    world.leave_back(Leave::Stay);
    world.sim.kill(GUEST);
    DISK.remove(&world.dom0).expect("removed");
    world.settle_back();
    assert!(world.is_back_idle(), "the back does not come to rest");
    assert_eq!(world.devices(), 0);
    drop(fronts);
    world.end();
}

fn step(choices: &mut Choices<'_>, world: &mut World, guest: &Domain, fronts: &mut Vec<RawFront>) {
    let front = DISK.front();
    let dom0 = world.dom0.clone();
    // What a side may not do is refused.
    match choices.below(16) {
        0..5 => {
            let keys = [&["state"; 4][..], &FRONT_KEYS, &RING_REFS[..2]].concat();
            let key = choices.of(&keys);
            let value = wild_value(choices, key);
            let _ = guest.write(Transaction::NONE, &format!("{front}/{key}"), &value);
        }
        5..8 if fronts.len() < 4 => {
            let (abi, order) = (choices.of(&[Abi::X86_64, Abi::X86_32]), choices.of(&[0, 1]));
            let start = Index::new(0);
            let ring = RawFront::lend(guest, &front, DomainId::ZERO, abi, (order, start));
            // The directory may be gone.
            let _ = ring.offer().write(|key, value| ring.write(key, &value.to_string()));
            let _ = ring.write("state", "3");
            fronts.push(ring);
        }
        8 => drop(guest.remove(Transaction::NONE, &front)),
        9 => {
            let keys = ["state", "online", "frontend", "params", "mode"];
            let key = choices.of(&keys);
            let value = choices.of(&["0", "1", "2", "4", "5", "6", "w", "r", ""]);
            let _ = dom0.write(Transaction::NONE, &format!("{}/{key}", DISK.back()), value);
        }
        10 => drop(DISK.detach(&dom0)),
        11 => drop(DISK.remove(&dom0)),
        12 => drop(DISK.attach(&dom0)),
        13 => world.leave_back(choices.of(&[Leave::Ask, Leave::Stay, Leave::Stay])),
        _ => {}
    }
    for _ in 0..choices.below(6) {
        world.turn_back();
    }
}
