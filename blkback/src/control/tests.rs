//! The control plane on a simulated xenstore, with workers that do nothing and say so.

mod house;
mod resize;
mod returns;

use house::{GUEST, House, Idlers, KEEP, Order, PROFILE, RING, state};
use sim::{Call, Spell, Strike};
use xen::{GrantRef, Port};

use super::*;
use crate::attach;
use crate::spec::DiskSpec;

#[test]
fn a_disk_goes_up_and_down_and_up_again() {
    let mut house = House::new();
    let id = house.attach("xvda");
    assert_eq!(house.crew.orders(), [Order::Open("/images/xvda.img".into(), false)]);
    assert_eq!(state(&house, id).as_deref(), Some("1"));
    house.say(0, Report::Opened(PROFILE));
    assert_eq!(state(&house, id).as_deref(), Some("2"));
    assert_eq!(house.back(id, "max-ring-page-order").as_deref(), Some("4"));

    house.front(id, RING);
    let orders = house.crew.orders();
    let [Order::Connect(connect)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((connect.peer, connect.port), (GUEST, Port(9)));
    assert_eq!(connect.ring, [GrantRef(8)]);
    assert!(connect.agreed.persistent() && connect.agreed.flush() && connect.agreed.discard());
    house.say(0, Report::Connected);
    let want = [
        ("state", "4"),
        ("sectors", "4096"),
        ("sector-size", "512"),
        ("physical-sector-size", "4096"),
        ("info", "0"),
        ("feature-flush-cache", "1"),
        ("feature-persistent", "1"),
        ("feature-discard", "1"),
        ("discard-granularity", "4096"),
    ];
    for (key, value) in want {
        assert_eq!(house.back(id, key).as_deref(), Some(value), "{key}");
    }
    // What changes nothing does nothing.
    house.front(id, &[("state", "4"), ("state", "4"), ("feature-persistent", "0")]);
    assert_eq!((house.crew.orders(), state(&house, id).as_deref()), (vec![], Some("4")));

    house.front(id, &[("state", "5")]);
    assert_eq!((house.crew.orders(), state(&house, id).as_deref()), (vec![Order::Stop], Some("4")));
    house.say(0, Report::Stopped);
    assert_eq!(state(&house, id).as_deref(), Some("6"));
    house.front(id, &[("state", "6")]);
    house.front(id, &[("state", "1")]);
    assert_eq!(state(&house, id).as_deref(), Some("2"));
    house.front(id, RING);
    assert!(matches!(house.crew.orders()[..], [Order::Connect(_)]));
}

#[test]
fn a_detach_closes_and_leaves_nothing_behind() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    attach::ask_to_close(&house.dom0, DomainId::ZERO, id).unwrap();
    house.work();
    assert_eq!(house.crew.orders(), []);
    house.front(id, &[("state", "6")]);
    assert_eq!(house.crew.orders(), [Order::Stop]);
    assert!(!attach::is_closed(&house.dom0, DomainId::ZERO, id).unwrap());
    house.say(0, Report::Stopped);
    assert_eq!(house.crew.orders(), [Order::Dismiss]);
    assert!(attach::is_closed(&house.dom0, DomainId::ZERO, id).unwrap());
    attach::remove(&house.dom0, DomainId::ZERO, id).unwrap();
    house.work();
    assert_eq!(devices(&house.dom0, DomainId::ZERO).unwrap(), []);
    assert_eq!(house.dom0.list(Transaction::NONE, "/local/domain/3/device/vbd").unwrap().len(), 0);
}

#[test]
fn silly_nodes_refuse_that_device_with_a_reason_and_no_other() {
    for (key, value) in [
        ("protocol", "arm-abi"),
        ("ring-page-order", "5"),
        ("ring-page-order", "-1"),
        ("ring-ref", "one"),
        ("ring-ref", "99999999999999999999999999"),
        ("event-channel", "0"),
        ("multi-queue-num-queues", "2"),
        ("multi-queue-num-queues", "0"),
        ("feature-persistent", "yes"),
    ] {
        let mut house = House::new();
        let good = house.attach("xvda");
        let bad = house.attach("xvdb");
        house.bring_up(good, 0);
        house.say(1, Report::Opened(PROFILE));
        let mut nodes: Vec<_> = RING.iter().copied().filter(|node| node.0 != key).collect();
        nodes.insert(0, (key, value));
        house.front(bad, &nodes);
        assert_eq!(house.crew.orders(), [], "{key}={value}");
        assert_eq!(state(&house, bad).as_deref(), Some("6"));
        assert!(house.back(bad, "error").unwrap().contains(key), "{key}={value}");
        assert_eq!(state(&house, good).as_deref(), Some("4"));
        // It may come back and do better.
        house.front(bad, &[("state", "1")]);
        assert_eq!((state(&house, bad).as_deref(), house.back(bad, "error")), (Some("2"), None));
    }
}

#[test]
fn an_image_that_cannot_be_opened_is_said_and_the_device_closed() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.say(0, Report::Unopened("no such file".into()));
    assert_eq!(state(&house, id).as_deref(), Some("6"));
    let progress = attach::progress(&house.dom0, DomainId::ZERO, id).unwrap();
    assert_eq!(progress, attach::Progress::Refused("no such file".into()));
    attach::remove(&house.dom0, DomainId::ZERO, id).unwrap();
    house.crew.orders();
    house.work();
    assert_eq!(house.crew.orders(), [Order::Dismiss]);
}

#[test]
fn a_front_that_vanishes_is_stopped_then_buried() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    house.dom0.remove(Transaction::NONE, "/local/domain/3").unwrap();
    house.work();
    assert_eq!(house.crew.orders(), [Order::Stop]);
    house.say(0, Report::Stopped);
    assert_eq!(house.crew.orders(), [Order::Dismiss]);
    assert_eq!(house.control.device_count(), 0);
    let left = house.dom0.list(Transaction::NONE, &base(DomainId::ZERO)).unwrap();
    assert_eq!(left.len(), 0);
}

#[test]
fn a_directory_that_was_removed_is_not_made_again() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.say(0, Report::Opened(PROFILE));
    house.dom0.remove(Transaction::NONE, &id.back(DomainId::ZERO)).unwrap();
    // The report comes before the removal was seen.
    house.say(0, Report::Broken("late".into()));
    house.work();
    assert_eq!(devices(&house.dom0, DomainId::ZERO).unwrap(), []);
    assert_eq!(house.control.device_count(), 0);
}

#[test]
fn a_disk_that_was_replaced_before_anybody_looked_is_the_new_one() {
    let open = |image: &str| Order::Open(image.into(), false);
    // As far as the device has come when its directory is removed and made again.
    for stage in 0..4 {
        let mut house = House::new();
        let id = house.attach("xvda");
        match stage {
            0 => {}
            1 => house.say(0, Report::Opened(PROFILE)),
            2 => house.bring_up(id, 0),
            _ => house.say(0, Report::Unopened("no such image".into())),
        }
        house.crew.orders();
        attach::remove(&house.dom0, DomainId::ZERO, id).unwrap();
        let spec = DiskSpec::parse("vdev=xvda,target=/images/other.img").unwrap();
        attach::attach(&house.dom0, DomainId::ZERO, GUEST, &spec).unwrap();
        house.work();
        let want = [Order::Dismiss, open("/images/other.img")];
        assert_eq!((stage, &house.crew.orders()[..]), (stage, &want[..]));
        // What the old worker still says is about a disk that is no more.
        house.say(0, Report::Unopened("the old one".into()));
        house.say(1, Report::Opened(PROFILE));
        assert_eq!(state(&house, id).as_deref(), Some("2"));
        assert_eq!(house.back(id, "error"), None);
    }
    // The same again: what was refused may be there now.
    let mut house = House::new();
    let id = house.attach("xvda");
    house.say(0, Report::Unopened("no such image".into()));
    house.crew.orders();
    attach::remove(&house.dom0, DomainId::ZERO, id).unwrap();
    house.attach("xvda");
    assert_eq!(house.crew.orders(), [Order::Dismiss, open("/images/xvda.img")]);
}

#[test]
fn a_broken_ring_and_a_worker_that_stumbled_close_their_own_device_only() {
    let reports = [Report::Broken("index out of bounds".into()), Report::Gone];
    for report in reports {
        let mut house = House::new();
        let (bad, good) = (house.attach("xvda"), house.attach("xvdb"));
        house.bring_up(bad, 0);
        house.bring_up(good, 1);
        house.say(0, report);
        assert_eq!(state(&house, bad).as_deref(), Some("6"));
        assert!(house.back(bad, "error").is_some());
        assert_eq!(state(&house, good).as_deref(), Some("4"));
        assert_eq!(house.crew.orders(), []);
    }
}

#[test]
fn a_device_whose_worker_stumbled_gets_a_new_one_when_its_front_comes_back() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    house.say(0, Report::Gone);
    house.front(id, &[("state", "6")]);
    house.front(id, &[("state", "1")]);
    assert_eq!(house.crew.orders(), [Order::Open("/images/xvda.img".into(), false)]);
    house.say(1, Report::Opened(PROFILE));
    assert_eq!(state(&house, id).as_deref(), Some("2"));
}

#[test]
fn a_guest_that_writes_its_state_without_end_costs_one_look() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    let path = format!("{}/state", id.front());
    for at in 0..10_000 {
        let value = ["4", "3"][at % 2];
        house.guest.write(Transaction::NONE, &path, value).unwrap();
    }
    house.control.take_in().unwrap();
    assert_eq!(house.control.due.len(), 1);
    house.work();
    assert_eq!((house.crew.orders(), state(&house, id).as_deref()), (vec![], Some("4")));
}

#[test]
fn what_xenstore_refuses_is_tried_again_and_ends_nobody() {
    for call in [Call::List, Call::Read, Call::Watch, Call::Begin, Call::Write] {
        for after in 0..8 {
            let mut house = House::new();
            let strike = Strike { who: DomainId::ZERO, call, after, spell: Spell::FromThenOn };
            let spec = DiskSpec::parse("vdev=xvda,target=/images/xvda.img").unwrap();
            let id = attach::attach(&house.dom0, DomainId::ZERO, GUEST, &spec).unwrap();
            house.sim.strike(Some(strike));
            for _ in 0..5 {
                house.control.work().unwrap();
            }
            house.crew.say(0, Report::Opened(PROFILE));
            for _ in 0..5 {
                house.control.work().unwrap();
            }
            let hit = house.sim.tally().failures[call.index()] > 0;
            assert_eq!(house.control.is_stuck(), hit, "{call:?} after {after}");
            house.sim.strike(None);
            house.work();
            assert!(!house.control.is_stuck());
            house.bring_up(id, 0);
            assert_eq!(state(&house, id).as_deref(), Some("4"), "{call:?} after {after}");
        }
    }
}

#[test]
fn a_daemon_that_leaves_closes_all_devices() {
    let mut house = House::new();
    let (first, second) = (house.attach("xvda"), house.attach("xvdb"));
    house.bring_up(first, 0);
    house.bring_up(second, 1);
    house.control.leave(Leave::Ask);
    house.work();
    assert_eq!(state(&house, first).as_deref(), Some("5"));
    assert!(!house.control.is_quiet());
    house.front(first, &[("state", "6")]);
    house.say(0, Report::Stopped);
    assert_eq!(state(&house, first).as_deref(), Some("6"));
    // The other guest does not hear.
    house.control.leave(Leave::Go);
    house.work();
    house.say(1, Report::Stopped);
    assert_eq!(state(&house, second).as_deref(), Some("6"));
    assert!(house.control.is_quiet());
}

#[test]
fn the_next_daemon_closes_what_its_predecessor_left_connected() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    let crew = Idlers::default();
    house.sim.crash(DomainId::ZERO);
    let dom0 = house.sim.domain(DomainId::ZERO);
    let mut next = Control::new(dom0, crew.clone(), DomainId::ZERO, KEEP).unwrap();
    while next.work().unwrap() {}
    assert_eq!(state(&house, id).as_deref(), Some("6"));
    assert!(house.back(id, "error").unwrap().contains("ended without closing"));
    assert_eq!(crew.orders(), []);
}

#[test]
fn both_directories_have_their_owners_and_a_taken_vdev_is_refused() {
    let mut house = House::new();
    let id = house.attach("xvda");
    // The guest may write its own directory and only read the other.
    house.front(id, &[("anything", "1")]);
    let path = format!("{}/state", id.back(DomainId::ZERO));
    assert_eq!(house.guest.write(Transaction::NONE, &path, "4"), Err(StoreError::Denied));
    let spec = DiskSpec::parse("/other.img,raw,xvda").unwrap();
    let again = attach::attach(&house.dom0, DomainId::ZERO, GUEST, &spec);
    assert!(matches!(again, Err(attach::AttachError::Busy { .. })));
    assert_eq!(house.back(id, "params").as_deref(), Some("/images/xvda.img"));
}

#[test]
fn domains_are_found_by_name_or_number() {
    let house = House::new();
    house.dom0.write(Transaction::NONE, "/local/domain/3/name", "web").unwrap();
    assert_eq!(attach::find_domain(&house.dom0, "web").unwrap(), GUEST);
    assert_eq!(attach::find_domain(&house.dom0, "3").unwrap(), GUEST);
    for nobody in ["web2", "4", "99999", ""] {
        let found = attach::find_domain(&house.dom0, nobody);
        assert!(matches!(found, Err(attach::AttachError::NoDomain(_))), "{nobody}");
    }
}

#[test]
fn a_guest_that_goes_wrong_without_end_does_not_fill_the_log() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.say(0, Report::Opened(PROFILE));
    let lines = crate::said::lines(|| {
        for _ in 0..1000 {
            house.front(id, &[("event-channel", "none"), ("state", "3")]);
            assert_eq!(state(&house, id).as_deref(), Some("6"));
            house.front(id, &[("state", "6")]);
            house.front(id, &[("state", "1")]);
            assert_eq!(state(&house, id).as_deref(), Some("2"));
        }
    });
    assert_eq!(lines, 10, "one for each power of two");
}

#[test]
fn what_one_disk_does_costs_as_few_questions_with_many_disks_as_with_one() {
    let mut house = House::new();
    let questions = |house: &mut House, id| {
        let before = house.sim.calls(DomainId::ZERO);
        house.front(id, &[("state", "4")]);
        house.sim.calls(DomainId::ZERO) - before
    };
    let first = house.attach("xvda");
    house.bring_up(first, 0);
    let alone = questions(&mut house, first);
    for (worker, vdev) in (1..).zip(["xvdb", "xvdc", "xvdd", "xvde"]) {
        let id = house.attach(vdev);
        house.bring_up(id, worker);
    }
    assert_eq!(questions(&mut house, first), alone);
    // Both states, whether it is wanted, and what else has happened.
    assert!(alone <= 8, "{alone} calls");
}
