//! Offers as nodes: there and back, missing, silly, and under both names of one page.

extern crate std;
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;

type Nodes = BTreeMap<String, String>;

fn nodes(pairs: &[(&str, &str)]) -> Nodes {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn read(nodes: &Nodes, max_order: u32) -> Result<FrontOffer, Refusal> {
    FrontOffer::read(|key| nodes.get(key), max_order, Abi::WHEN_MISSING)
}

fn written(offer: &FrontOffer) -> Nodes {
    let mut nodes = Nodes::new();
    let Ok(()) = offer.write(|key, value| {
        nodes.insert(key.to_string(), value.to_string());
        Ok::<(), core::convert::Infallible>(())
    });
    nodes
}

fn offer(pages: u32) -> FrontOffer {
    FrontOffer {
        abi: Abi::X86_64,
        ring: (8..8 + pages).map(GrantRef).collect(),
        port: Port(5),
        features: Features::PERSISTENT,
    }
}

/// What Linux's front writes for one page.
const LINUX: [(&str, &str); 4] = [
    ("protocol", "x86_64-abi"),
    ("ring-ref", "8"),
    ("event-channel", "5"),
    ("feature-persistent", "1"),
];

#[test]
fn a_front_of_one_page_writes_what_linux_writes_and_no_order() {
    assert_eq!(written(&offer(1)), nodes(&LINUX));
    assert_eq!(read(&nodes(&LINUX), 0), Ok(offer(1)));
}

#[test]
fn a_ring_of_any_order_is_read_as_it_was_written() {
    for order in 0..=ORDER_MAX {
        let offer = offer(1 << order);
        assert_eq!(offer.order(), order);
        assert_eq!(read(&written(&offer), ORDER_MAX), Ok(offer.clone()));
        if order > 0 {
            let refusal = read(&written(&offer), order - 1).unwrap_err();
            assert_eq!(refusal.key, "ring-page-order");
            assert!(!written(&offer).contains_key("ring-ref"));
        }
    }
}

#[test]
fn one_page_is_found_under_either_name_with_or_without_an_order() {
    for (name, order) in
        [("ring-ref", None), ("ring-ref0", None), ("ring-ref", Some("0")), ("ring-ref0", Some("0"))]
    {
        let mut nodes = nodes(&LINUX);
        nodes.remove("ring-ref");
        nodes.insert(name.to_string(), "8".to_string());
        order.map(|order| nodes.insert("ring-page-order".to_string(), order.to_string()));
        assert_eq!(read(&nodes, 4), Ok(offer(1)), "{name} {order:?}");
    }
}

#[test]
fn stale_nodes_are_those_of_other_layouts_and_never_our_own() {
    for order in 0..=ORDER_MAX {
        let offer = offer(1 << order);
        let stale: Vec<&str> = offer.stale().collect();
        let written = written(&offer);
        assert!(stale.iter().all(|&key| !written.contains_key(key)), "order {order}");
        for key in front_keys() {
            assert!(written.contains_key(key) || stale.contains(&key), "{key} at order {order}");
        }
    }
}

fn front_keys() -> impl Iterator<Item = &'static str> {
    crate::FRONT_KEYS.into_iter().chain(RING_REFS)
}

#[test]
fn a_front_without_a_protocol_is_taken_as_told() {
    let mut nodes = nodes(&LINUX);
    nodes.remove("protocol");
    for abi in [Abi::X86_64, Abi::X86_32] {
        let offer = FrontOffer::read(|key| nodes.get(key), 0, abi).unwrap();
        assert_eq!(offer.abi, abi);
    }
}

#[test]
fn a_front_with_a_missing_or_silly_node_is_refused_by_the_name_of_the_node() {
    let cases = [
        ("protocol", Some("x86_16-abi")),
        ("ring-ref", None),
        ("ring-ref", Some("")),
        ("ring-ref", Some("-8")),
        ("ring-ref", Some("4294967296")),
        ("event-channel", None),
        ("event-channel", Some("0")),
        ("event-channel", Some("five")),
        ("feature-persistent", Some("true")),
        ("ring-page-order", Some("5")),
        ("ring-page-order", Some("99999999999999999999999999")),
        ("multi-queue-num-queues", Some("0")),
        ("multi-queue-num-queues", Some("2")),
        ("multi-queue-num-queues", Some("one")),
    ];
    for (key, value) in cases {
        let mut nodes = nodes(&LINUX);
        match value {
            Some(value) => nodes.insert(key.to_string(), value.to_string()),
            None => nodes.remove(key),
        };
        assert_eq!(read(&nodes, 4).unwrap_err().key, key, "{value:?}");
    }
}

#[test]
fn a_front_may_say_that_it_has_one_queue() {
    let mut nodes = nodes(&LINUX);
    nodes.insert("multi-queue-num-queues".to_string(), "1".to_string());
    assert_eq!(read(&nodes, 4), Ok(offer(1)));
}

#[test]
fn a_page_that_is_named_twice_or_not_at_all_is_refused() {
    let mut nodes = written(&offer(4));
    nodes.insert("ring-ref3".to_string(), "9".to_string());
    assert_eq!(read(&nodes, 4), Err(Refusal::new("ring-ref3", Silly::Repeated(9))));
    nodes.remove("ring-ref2");
    assert_eq!(read(&nodes, 4), Err(Refusal::new("ring-ref2", Silly::Missing)));
}

fn back_written(offer: &BackOffer) -> Nodes {
    let mut nodes = Nodes::new();
    let mut write = |key: &str, value: fmt::Arguments<'_>| {
        nodes.insert(key.to_string(), value.to_string());
        Ok::<(), core::convert::Infallible>(())
    };
    let Ok(()) = offer.write_limits(&mut write);
    let Ok(()) = offer.write_features(&mut write);
    nodes
}

#[test]
fn a_back_is_read_as_it_was_written_with_any_features() {
    for bits in 0..=Features::all().bits() {
        let features = Features::from_bits_truncate(bits);
        let discard = Discard::default();
        let mut offer = BackOffer { max_order: 4, indirect_max: 32, features, discard };
        if features.contains(Features::DISCARD) {
            offer.discard = Discard { granularity_bytes: 4096, alignment_bytes: 512 };
        }
        let nodes = back_written(&offer);
        assert_eq!(BackOffer::read(|key| nodes.get(key)), Ok(offer));
    }
}

#[test]
fn a_back_that_says_nothing_offers_one_page_and_nothing_else() {
    let (features, discard) = (Features::empty(), Discard::default());
    let silent = BackOffer { max_order: 0, indirect_max: 0, features, discard };
    assert_eq!(BackOffer::read(|_| None::<&str>), Ok(silent));
}

#[test]
fn a_back_with_larger_rings_than_ours_is_taken_at_our_limit() {
    let nodes = nodes(&[("max-ring-page-order", "9")]);
    assert_eq!(BackOffer::read(|key| nodes.get(key)).unwrap().max_order, ORDER_MAX);
}

#[test]
fn a_back_with_longer_requests_than_ours_is_taken_at_our_limit() {
    for (said, taken) in [("1", 1), ("12", 12), ("32", 32), ("33", 32), ("256", 32), ("4096", 32)] {
        let nodes = nodes(&[("feature-max-indirect-segments", said)]);
        assert_eq!(BackOffer::read(|key| nodes.get(key)).unwrap().indirect_max, taken);
    }
}

#[test]
fn a_back_with_a_silly_node_is_refused_by_its_name() {
    for key in [
        "max-ring-page-order",
        "feature-max-indirect-segments",
        "feature-persistent",
        "feature-flush-cache",
        "feature-discard",
        "discard-granularity",
        "discard-alignment",
    ] {
        let nodes = nodes(&[(key, "0x1")]);
        assert_eq!(BackOffer::read(|key| nodes.get(key)).unwrap_err().key, key);
    }
}

#[test]
fn the_lists_of_keys_name_every_node_that_is_read() {
    let mut asked = Vec::new();
    let pages = nodes(&[("ring-page-order", "4")]);
    for nodes in [nodes(&LINUX), pages] {
        let _ = FrontOffer::read(
            |key| {
                asked.push(key.to_string());
                nodes.get(key)
            },
            4,
            Abi::X86_64,
        );
    }
    assert!(asked.iter().all(|key| front_keys().any(|known| known == key)));
    asked.clear();
    let sectors = nodes(&[("sectors", "8")]);
    let _ = BackOffer::read(|key| {
        asked.push(key.to_string());
        sectors.get(key)
    });
    let _ = crate::Geometry::read(|key| {
        asked.push(key.to_string());
        sectors.get(key)
    });
    assert_eq!(asked.len(), crate::BACK_KEYS.len());
    assert!(asked.iter().all(|key| crate::BACK_KEYS.contains(&key.as_str())));
}
