//! Wild nodes in xenstore, wild states, and storms.

use blkif::Abi;
use sim::Random;
use tests::RawFront;
use xen::{DomainId, Store, Transaction, XenbusState};

use crate::{HONEST, HOSTILE, Stage};

#[test]
fn silly_nodes_refuse_the_connection_with_a_reason() {
    let silly = [
        ("ring-ref", ""),
        ("ring-ref", "-1"),
        ("ring-ref", "x"),
        ("ring-ref", "4294967296"),
        ("ring-ref", "4294967295"),
        ("ring-ref", "0"),
        ("event-channel", "0"),
        ("event-channel", "-1"),
        ("event-channel", "4095"),
        ("event-channel", "99999999999999999999999"),
        ("ring-page-order", "5"),
        ("ring-page-order", "1"),
        ("ring-page-order", "18446744073709551616"),
        ("protocol", "native"),
        ("protocol", ""),
        ("multi-queue-num-queues", "0"),
        ("multi-queue-num-queues", "2"),
        ("feature-persistent", "maybe"),
    ];
    for (seed, (key, value)) in (0..).zip(silly) {
        let mut stage = Stage::new(seed);
        let domain = stage.world.sim.domain(DomainId(5));
        let back = DomainId::ZERO;
        let front = RawFront::connect(&domain, &HOSTILE.front(), back, Abi::X86_64, 0);
        front.write(key, value).expect("its own node");
        stage.settle();
        stage.assert_refused(&format!("{key}={value:?}"));
        stage.end(front);
    }
}

#[test]
fn states_in_any_order_at_any_time_do_no_harm() {
    for seed in 0..300 {
        let mut stage = Stage::new(seed);
        let mut random = Random::new(seed);
        let domain = stage.world.sim.domain(DomainId(5));
        let mut fronts: Vec<RawFront> = Vec::new();
        for _ in 0..8 {
            let path = format!("{}/state", HOSTILE.front());
            match random.below(6) {
                0 => {
                    let path = HOSTILE.front();
                    let back = DomainId::ZERO;
                    fronts.push(RawFront::connect(&domain, &path, back, Abi::X86_64, 1));
                }
                1 => drop(domain.write(Transaction::NONE, &path, "rubbish")),
                _ => {
                    let state = random.below(9).to_string();
                    let _ = domain.write(Transaction::NONE, &path, &state);
                }
            }
            for _ in 0..random.below(4) {
                stage.world.turn_back();
            }
        }
        stage.settle();
        stage.neighbour_is_well();
        stage.world.sim.kill(DomainId(5));
        HOSTILE.remove(&stage.world.dom0).expect("removed");
        stage.settle();
        drop(fronts);
        stage.world.unplug(&mut stage.honest, &HONEST);
        stage.world.end();
    }
}

#[test]
fn a_front_that_removes_its_own_directory_loses_its_disk_and_nothing_else_happens() {
    let mut stage = Stage::new(10);
    let front = stage.connect(Abi::X86_64, 0);
    let domain = stage.world.sim.domain(DomainId(5));
    domain.remove(Transaction::NONE, &HOSTILE.front()).expect("its own");
    stage.settle();
    stage.neighbour_is_well();
    assert!(stage.world.sim.audit().mappings.iter().all(|mapping| mapping.1 != DomainId(5)));
    front.disconnect();
    HOSTILE.remove(&stage.world.dom0).expect("removed");
    stage.world.unplug(&mut stage.honest, &HONEST);
    stage.world.end();
}

#[test]
fn storms_of_events_and_of_writes_to_xenstore_cost_a_bounded_amount() {
    let mut stage = Stage::new(11);
    let front = stage.connect(Abi::X86_64, 0);
    for _ in 0..10_000 {
        front.poke(16, 0);
        front.set_state(XenbusState::Connected);
    }
    // What waits is one event per path and one bit per port, however many there were.
    stage.settle();
    let requests = stage.world.crew().count(|counters| counters.requests);
    assert_eq!(requests, 0);
    stage.neighbour_is_well();
    stage.end(front);
}
