//! Disks that are to be as large as their images, on a simulated xenstore.

use super::*;
use crate::resize::{self, Answer};

impl House {
    /// The tool stack asks, as so many did before.
    fn ask(&mut self, id: DeviceId, who: u32) {
        resize::ask(&self.dom0, DomainId::ZERO, id, who).unwrap();
        self.work();
    }

    /// The text of the answer, and whether it is a good one.
    fn answer(&self, id: DeviceId) -> Option<(bool, String)> {
        match resize::answer(&self.dom0, DomainId::ZERO, id).unwrap()? {
            Answer::Done(text) => Some((true, text)),
            Answer::Refused(text) => Some((false, text)),
        }
    }

    /// What is published: the sectors, and the state.
    fn published(&self, id: DeviceId) -> [Option<String>; 2] {
        ["sectors", "state"].map(|key| self.back(id, key))
    }
}

/// A disk that its guest uses, which somebody wants to be as large as its image.
fn asked() -> (House, DeviceId) {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    house.ask(id, 1);
    (house, id)
}

fn published(sectors: &str) -> [Option<String>; 2] {
    [Some(sectors.into()), Some("4".into())]
}

#[test]
fn a_guest_is_told_of_new_sectors_once_they_can_be_used_and_with_a_4() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.bring_up(id, 0);
    let told = format!("{}/state", id.back(DomainId::ZERO));
    house.guest.watch(&told, "back").unwrap();
    while house.guest.event().unwrap().is_some() {}
    house.ask(id, 1);
    assert_eq!(house.crew.orders(), [Order::Measure]);
    assert_eq!((house.published(id), house.answer(id)), (published("4096"), None));
    assert_eq!(house.guest.event().unwrap(), None);
    house.say(0, Report::Measured(Ok(8192)));
    assert_eq!(house.published(id), published("8192"));
    assert!(house.guest.event().unwrap().is_some_and(|event| event.path == told));
    let (done, text) = house.answer(id).unwrap();
    assert!(done && text.starts_with("8192 sectors") && text.contains("was told"), "{text}");
    assert_eq!(house.crew.orders(), []);
}

#[test]
fn a_disk_that_did_not_grow_is_told_of_to_nobody_but_who_asked() {
    for (found, done, word) in [
        (Ok(4096), true, "4096 sectors of 512 bytes as before"),
        // No worker says so; nothing would come of it.
        (Ok(8), true, "4096 sectors"),
        (Err("/a.img: smaller".to_owned()), false, "/a.img: smaller"),
    ] {
        let mut house = House::new();
        let id = house.attach("xvda");
        house.bring_up(id, 0);
        let told = format!("{}/state", id.back(DomainId::ZERO));
        house.guest.watch(&told, "back").unwrap();
        while house.guest.event().unwrap().is_some() {}
        house.ask(id, 1);
        house.say(0, Report::Measured(found));
        assert_eq!(house.published(id), published("4096"));
        assert_eq!(house.guest.event().unwrap(), None);
        let answer = house.answer(id).unwrap();
        assert!(answer.0 == done && answer.1.contains(word), "{answer:?}");
        // It may be asked again.
        house.crew.orders();
        house.ask(id, 2);
        assert_eq!(house.crew.orders(), [Order::Measure]);
    }
}

#[test]
fn a_guest_that_is_not_connected_gets_the_new_size_when_it_connects_and_not_before_it_is_known() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.say(0, Report::Opened(PROFILE));
    house.crew.orders();
    house.ask(id, 1);
    assert_eq!(house.crew.orders(), [Order::Measure]);
    // It comes in the midst of it.
    house.front(id, RING);
    assert_eq!(house.crew.orders(), []);
    house.say(0, Report::Measured(Ok(8192)));
    let orders = house.crew.orders();
    let [Order::Connect(connect)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(connect.geometry.sectors, 8192);
    assert_eq!(house.back(id, "sectors"), None);
    house.say(0, Report::Connected);
    assert_eq!(house.published(id), published("8192"));
    assert!(house.answer(id).unwrap().0);
}

#[test]
fn an_image_that_is_not_open_is_not_measured_and_who_asked_hears_it() {
    let mut house = House::new();
    let (failed, away) = (house.attach("xvda"), house.attach("xvdb"));
    house.say(0, Report::Unopened("no such file".into()));
    house.bring_up(away, 1);
    house.say(1, Report::Gone);
    house.crew.orders();
    for (id, done, word) in [(failed, false, "no such file"), (away, true, "when it is opened")] {
        house.ask(id, 1);
        let answer = house.answer(id).unwrap();
        assert!(answer.0 == done && answer.1.contains(word), "{answer:?}");
        assert_eq!(house.crew.orders(), []);
    }
}

#[test]
fn who_asks_while_the_image_is_measured_for_another_is_answered_from_a_later_look() {
    let (mut house, id) = asked();
    house.ask(id, 2);
    assert_eq!(house.crew.orders(), [Order::Measure]);
    house.say(0, Report::Measured(Ok(5000)));
    assert_eq!((house.published(id), house.answer(id)), (published("5000"), None));
    assert_eq!(house.crew.orders(), [Order::Measure]);
    house.say(0, Report::Measured(Ok(6000)));
    assert_eq!(house.published(id), published("6000"));
    assert!(house.answer(id).unwrap().1.starts_with("6000 sectors"));
}

#[test]
fn a_detach_that_overtakes_a_resize_is_not_undone_by_it() {
    let (mut house, id) = asked();
    attach::ask_to_close(&house.dom0, DomainId::ZERO, id).unwrap();
    house.say(0, Report::Measured(Ok(8192)));
    assert_eq!(house.published(id), [Some("4096".into()), Some("5".into())]);
    assert!(house.answer(id).unwrap().1.contains("when its guest connects"));
}

#[test]
fn a_worker_that_goes_while_it_measures_leaves_nobody_without_an_answer() {
    let (mut house, id) = asked();
    house.say(0, Report::Gone);
    assert!(house.answer(id).is_some());
    // What it may have said still is about a disk of another worker.
    house.front(id, &[("state", "6")]);
    house.front(id, &[("state", "1")]);
    house.say(0, Report::Measured(Ok(1 << 50)));
    house.say(1, Report::Opened(PROFILE));
    house.front(id, RING);
    house.say(1, Report::Connected);
    assert_eq!(house.published(id), published("4096"));
}

#[test]
fn a_disk_that_somebody_asked_for_before_the_daemon_came_is_heard_of() {
    let mut house = House::new();
    let id = house.attach("xvda");
    house.say(0, Report::Opened(PROFILE));
    house.sim.crash(DomainId::ZERO);
    house.dom0 = house.sim.domain(DomainId::ZERO);
    resize::ask(&house.dom0, DomainId::ZERO, id, 1).unwrap();
    house.control =
        Control::new(house.dom0.clone(), house.crew.clone(), DomainId::ZERO, KEEP).unwrap();
    house.work();
    house.say(0, Report::Opened(PROFILE));
    house.say(0, Report::Measured(Ok(4096)));
    assert!(house.answer(id).unwrap().0);
}

#[test]
fn what_nobody_resizes_is_not_asked_about() {
    let mut house = House::new();
    let (one, other) = (house.attach("xvda"), house.attach("xvdb"));
    house.bring_up(one, 0);
    house.bring_up(other, 1);
    assert!(house.control.wishes.is_empty());
    let back = other.back(DomainId::ZERO);
    house.dom0.write(Transaction::NONE, &format!("{back}/online"), "1").unwrap();
    resize::ask(&house.dom0, DomainId::ZERO, one, 1).unwrap();
    house.control.take_in().unwrap();
    assert!(house.control.wishes.iter().eq([&one]), "{:?}", house.control.wishes);
    house.work();
    house.say(0, Report::Measured(Ok(8192)));
    assert!(house.control.wishes.is_empty());
    house.dom0.remove(Transaction::NONE, &one.back(DomainId::ZERO)).unwrap();
    house.work();
    assert!(house.control.wishes.is_empty(), "of a disk that is gone nothing is kept");
}

#[test]
fn a_disk_that_waits_for_its_guest_waits_no_longer_because_somebody_asked() {
    let mut house = House::new();
    house.dom0.write(Transaction::NONE, "/local/domain/3/vm", "/vm/web").unwrap();
    let spec = DiskSpec::parse("vdev=xvda,target=/images/xvda.img").unwrap();
    let id = attach::attach(&house.dom0, DomainId::ZERO, GUEST, &spec).unwrap();
    house.dom0.remove(Transaction::NONE, "/local/domain/3").unwrap();
    house.work();
    assert_eq!(house.control.due(), Some(KEEP));
    house.control.at(KEEP / 2);
    house.ask(id, 1);
    assert!(house.answer(id).unwrap().0);
    assert_eq!(house.control.due(), Some(KEEP));
}

#[test]
fn a_size_that_xenstore_does_not_take_is_told_later() {
    for call in [Call::Read, Call::Begin, Call::Write] {
        for after in 0..12 {
            let mut house = House::new();
            let id = house.attach("xvda");
            house.bring_up(id, 0);
            resize::ask(&house.dom0, DomainId::ZERO, id, 1).unwrap();
            let strike = Strike { who: DomainId::ZERO, call, after, spell: Spell::FromThenOn };
            house.sim.strike(Some(strike));
            for report in [None, Some(Report::Measured(Ok(8192)))] {
                report.into_iter().for_each(|report| house.crew.say(0, report));
                for _ in 0..3 {
                    house.control.work().unwrap();
                }
            }
            house.sim.strike(None);
            house.work();
            // Where nobody was ordered to measure yet, the report came for nothing.
            if house.answer(id).is_none() {
                house.say(0, Report::Measured(Ok(8192)));
            }
            assert_eq!(house.published(id), published("8192"), "{call:?} after {after}");
            assert!(house.answer(id).is_some(), "{call:?} after {after}");
        }
    }
}
