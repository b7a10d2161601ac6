//! Target `negotiation`: what the two sides write into xenstore, and the back's whole control plane
//! in front of a guest and a tool stack that write anything at any time.
//!
//! What is agreed on is within what both offered and what a ring can be, and is what the nodes say;
//! a refusal names a node; what is written is read back.

mod handshake;

use std::cell::RefCell;
use std::fmt;

use blkif::{
    Abi, BACK_KEYS, BackOffer, FRONT_KEYS, Features, FrontOffer, Geometry, ORDER_MAX, RING_REFS,
    Refusal, negotiate,
};

use super::Share;
use super::choices::Choices;

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    if choices.valid() {
        return Share::one(offers(&mut choices));
    }
    handshake::check(&mut choices);
    Share::default()
}

/// Nodes as a side may have written them.
type Nodes = Vec<(String, String)>;

fn find<'a>(nodes: &'a Nodes, key: &str) -> Option<&'a str> {
    nodes.iter().rev().find(|node| node.0 == key).map(|node| node.1.as_str())
}

/// The number in a node, as anybody would read it; `None` if there is no such node.
fn number(nodes: &Nodes, key: &str) -> Option<u64> {
    find(nodes, key).map(|text| {
        assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{key} is {text:?}, and was taken");
        text.parse().expect("a number, since it was taken")
    })
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
            let (ours, theirs) = (front.features, back.features);
            assert_eq!(agreed.persistent(), (ours & theirs).contains(Features::PERSISTENT));
            assert_eq!(agreed.flush(), theirs.contains(Features::FLUSH));
            assert_eq!(agreed.discard(), theirs.contains(Features::DISCARD));
            assert_eq!(agreed.discard_limits, back.discard);
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
            let (order, port) = (u64::from(offer.order()), u64::from(offer.port.0));
            assert_eq!(number(nodes, "ring-page-order").unwrap_or(0), order);
            assert_eq!(number(nodes, "event-channel"), Some(port));
            assert_eq!(number(nodes, "multi-queue-num-queues").unwrap_or(1), 1);
            let persistent = number(nodes, "feature-persistent").is_some_and(|it| it != 0);
            assert_eq!(offer.features.contains(Features::PERSISTENT), persistent);
            for (page, key) in offer.ring.iter().zip(RING_REFS) {
                // One page has a name of its own, which goes first.
                let own = if order == 0 { number(nodes, "ring-ref") } else { None };
                assert_eq!(own.or_else(|| number(nodes, key)), Some(page.0.into()), "{key}");
            }
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
            let order = number(nodes, "max-ring-page-order").unwrap_or(0);
            assert_eq!(u64::from(offer.max_order), order.min(ORDER_MAX.into()));
            for (key, feature) in [
                ("feature-persistent", Features::PERSISTENT),
                ("feature-flush-cache", Features::FLUSH),
                ("feature-discard", Features::DISCARD),
            ] {
                let on = number(nodes, key).is_some_and(|it| it != 0);
                assert_eq!(offer.features.contains(feature), on, "{key}");
            }
            let granularity = number(nodes, "discard-granularity").unwrap_or(512).max(512);
            let alignment = number(nodes, "discard-alignment").unwrap_or(0);
            assert_eq!(u64::from(offer.discard.granularity_bytes), granularity);
            assert_eq!(u64::from(offer.discard.alignment_bytes), alignment);
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
            assert_eq!(Some(disk.sectors), number(nodes, "sectors"));
            let size = number(nodes, "sector-size").unwrap_or(512);
            assert_eq!(u64::from(disk.sector_size), size);
            let physical = number(nodes, "physical-sector-size").unwrap_or(size);
            assert_eq!(u64::from(disk.physical_sector_size), physical);
            let read_only = number(nodes, "info").unwrap_or(0) & 4 != 0;
            assert_eq!(disk.read_only(), read_only);
            let written = RefCell::default();
            let Ok(()) = disk.write(writer(&written));
            let again = |key: &str| find(&written.borrow(), key).map(str::to_owned);
            assert_eq!(Geometry::read(again).as_ref(), Ok(disk));
        }
    }
}
