//! The handshake as a table: every pair of states, and silly nodes at each point.

use blkif::{Abi, Features, Silly};
use xen::{GrantRef, Port};

use super::*;

const STATES: [XenbusState; 9] = [
    XenbusState::Unknown,
    XenbusState::Initialising,
    XenbusState::InitWait,
    XenbusState::Initialised,
    XenbusState::Connected,
    XenbusState::Closing,
    XenbusState::Closed,
    XenbusState::Reconfiguring,
    XenbusState::Reconfigured,
];

/// What Linux's back publishes.
const LINUX: [(&str, &str); 8] = [
    ("max-ring-page-order", "4"),
    ("feature-max-indirect-segments", "256"),
    ("multi-queue-max-queues", "4"),
    ("feature-persistent", "1"),
    ("feature-flush-cache", "1"),
    ("sectors", "32768"),
    ("sector-size", "512"),
    ("info", "0"),
];

fn offer() -> FrontOffer {
    FrontOffer {
        abi: Abi::X86_64,
        ring: [GrantRef(8)].into_iter().collect(),
        port: Port(3),
        features: Features::PERSISTENT,
    }
}

fn published(offer: &FrontOffer) -> Phase<'_> {
    Phase::Initialised { offer, published: true }
}

fn geometry(sectors: u64) -> Geometry {
    Geometry::new(sectors).unwrap()
}

fn row(phase: Phase<'_>, nodes: &[(&str, &str)]) -> [Step; 9] {
    let node = |key: &str| nodes.iter().find(|node| node.0 == key).map(|node| node.1);
    STATES.map(|back| step(phase, back, node))
}

fn agreed() -> Agreed {
    let back = BackOffer::read(|key| LINUX.iter().find(|node| node.0 == key).map(|node| node.1));
    negotiate(&offer(), &back.unwrap()).unwrap()
}

#[test]
fn every_pair_of_states_has_its_step() {
    use Step::{Close, Offer, Release, Restart, Stop, Wait};
    let publish = || Offer { max_order: 4 };
    let connect = || Step::Connect { agreed: agreed(), geometry: geometry(32768) };
    let offer = offer();
    let known = geometry(32768);
    // The back's state:       0     1     2     3     4     5     6     7     8
    let initialising = [Wait, Wait, publish(), publish(), publish(), Close, Wait, Wait, Wait];
    let initialised = [Stop, Wait, Wait, Wait, connect(), Stop, Stop, Wait, Wait];
    let replaced = [Stop, Restart, Restart, Wait, connect(), Stop, Stop, Wait, Wait];
    let connected = [Stop, Restart, Restart, Wait, Wait, Stop, Stop, Wait, Wait];
    let draining = [Close, Close, Close, Wait, Wait, Wait, Close, Wait, Wait];
    let drained = [Close, Close, Close, Wait, Wait, Close, Close, Wait, Wait];
    let lent = [Release, Release, Restart, Wait, Wait, Wait, Release, Wait, Wait];
    let lent_for_good = [Release, Release, Release, Wait, Wait, Wait, Release, Wait, Wait];
    let closed = [Wait, Wait, Restart, Wait, Wait, Wait, Wait, Wait, Wait];
    let closed_for_good = [Wait, Wait, Wait, Wait, Wait, Wait, Wait, Wait, Wait];
    assert_eq!(row(Phase::Initialising, &LINUX), initialising);
    assert_eq!(row(published(&offer), &LINUX), initialised);
    assert_eq!(row(Phase::Initialised { offer: &offer, published: false }, &LINUX), replaced);
    assert_eq!(row(Phase::Connected(&known), &LINUX), connected);
    let mapped = [Close, Wait, Wait, Wait, Wait, Close, Close, Wait, Wait];
    let closing = |idle, unread| row(Phase::Closing { idle, unread, offered: false }, &LINUX);
    let offered = Phase::Closing { idle: true, unread: false, offered: true };
    assert_eq!(row(offered, &LINUX), mapped);
    assert_eq!(closing(false, false), draining);
    assert_eq!(closing(false, true), [(); 9].map(|()| Wait));
    assert_eq!(closing(true, false), drained);
    let gone = |lent, again| row(Phase::Closed { lent, again }, &LINUX);
    assert_eq!(gone(true, true), lent);
    assert_eq!(gone(true, false), lent_for_good);
    assert_eq!(gone(false, true), closed);
    assert_eq!(gone(false, false), closed_for_good);
}

fn at(phase: Phase<'_>, back: XenbusState, nodes: &[(&str, &str)]) -> Step {
    step(phase, back, |key| nodes.iter().find(|node| node.0 == key).map(|node| node.1))
}

#[test]
fn a_back_that_publishes_nothing_gets_a_ring_of_one_page() {
    let step = at(Phase::Initialising, XenbusState::InitWait, &[]);
    assert_eq!(step, Step::Offer { max_order: 0 });
}

#[test]
fn a_back_that_is_connected_without_a_size_is_refused() {
    let refusal = Refusal { key: "sectors", silly: Silly::Missing };
    let step = at(published(&offer()), XenbusState::Connected, &[]);
    assert_eq!(step, Step::Refuse(refusal));
}

#[test]
fn a_silly_node_is_refused_when_it_is_read_and_not_before() {
    for (key, value) in [
        ("max-ring-page-order", "many"),
        ("feature-persistent", "-1"),
        ("feature-flush-cache", "on"),
        ("feature-discard", ""),
        ("sectors", "0x8000"),
        ("sector-size", "500"),
        ("physical-sector-size", "0"),
        ("info", "w"),
    ] {
        let nodes = [&[(key, value)], &LINUX[..]].concat();
        let step = at(published(&offer()), XenbusState::Connected, &nodes);
        assert!(matches!(step, Step::Refuse(refusal) if refusal.key == key), "{key}: {step:?}");
        let early = at(published(&offer()), XenbusState::InitWait, &nodes);
        assert_eq!(early, Step::Wait);
    }
}

#[test]
fn a_back_that_took_its_limit_back_is_refused() {
    let ring = (0..4).map(GrantRef).collect();
    let offer = FrontOffer { ring, ..offer() };
    let nodes = [&[("max-ring-page-order", "1")], &LINUX[..]].concat();
    let step = at(published(&offer), XenbusState::Connected, &nodes);
    let silly = Silly::TooLarge { value: 2, most: 1 };
    assert_eq!(step, Step::Refuse(Refusal { key: "ring-page-order", silly }));
}

#[test]
fn a_repeated_4_resizes_the_disk_and_changes_nothing_else() {
    let known = geometry(32768);
    let grown = [&[("sectors", "65536"), ("sector-size", "4096"), ("info", "4")], &LINUX[..]];
    let step = at(Phase::Connected(&known), XenbusState::Connected, &grown.concat());
    assert_eq!(step, Step::Resize(geometry(65536)));
    let silly = [&[("sectors", "")], &LINUX[..]].concat();
    let step = at(Phase::Connected(&known), XenbusState::Connected, &silly);
    assert!(matches!(step, Step::Refuse(refusal) if refusal.key == "sectors"));
}
