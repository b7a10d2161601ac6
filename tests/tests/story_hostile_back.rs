//! A back that says anything: the front's device goes out of service with a reason, no page that
//! the back may still reach is used again, and the guest's other disk goes on.

use blkfront::{Fault, SubmitError, Wishes};
use blkif::{Operation, Response, Status};
use sim::Random;
use tests::{Duel, Liar, RawBack};
use xen::{DomainId, Store, Transaction};

const XVDA: u32 = Duel::XVDA;
const XVDB: u32 = Duel::XVDB;
const WISHES: Wishes = Wishes { order: 0, pool_pages: 100 };

/// How a duel of these stories goes out.
trait Verdict {
    fn assert_broken(&mut self, fault: Fault, in_flight: usize);
    fn end(self, back: RawBack);
}

impl Verdict for Duel {
    /// The disk is out of service, said why, and takes nothing any more; its pages in flight
    /// stay away, and the honest disk works.
    fn assert_broken(&mut self, fault: Fault, in_flight: usize) {
        let free = self.disk().free_pages();
        assert_eq!(free, 100 - in_flight, "a page in flight was used again");
        assert_eq!(self.disk().fault(), Some(fault));
        let buffer = self.disk().buffer(512).expect("a page");
        let refused = self.disk().submit(Operation::Read, 0, buffer).expect_err("broken");
        assert_eq!(refused.error, SubmitError::Fault(fault));
        drop(refused);
        self.guest.look(XVDA);
        assert_eq!(self.guest.state(XVDA).as_deref(), Some("5"));
        let path = "error/device/vbd/51712/error";
        let reason = self.guest.domain.read(Transaction::NONE, path).expect("its own");
        assert_eq!(reason, Some(fault.to_string()));
        for _ in 0..10 {
            self.ledger.submit(self.guest.disk(XVDB), &mut self.world.random);
        }
        self.world.drain(&mut self.guest, XVDB, &mut self.ledger);
        assert_eq!(self.ledger.failed, 0);
    }

    /// The back lets go, and so does the front.
    fn end(mut self, back: RawBack) {
        back.disconnect();
        self.say(&[("state", "6")]);
        self.guest.look(XVDA);
        assert!(self.guest.device(XVDA).is_closed());
        assert_eq!(self.guest.device(XVDA).pages_kept(), 0);
        self.guest.forget(XVDA);
        self.world.unplug(&mut self.guest, &Duel::HONEST);
        self.world.end();
    }
}

fn answer(id: u64, operation: u8) -> Response {
    Response { id, operation, status: Status::Okay }
}

#[test]
fn an_answer_to_an_unknown_request_ends_the_disk() {
    for wrong in [1 << 16, 1 << 63, u64::MAX, 31, 400] {
        let mut stage = Duel::new(1, WISHES);
        let mut back = stage.connect();
        stage.read(3);
        let asked = back.take().expect("honest").expect("a request");
        let id = asked.id ^ wrong;
        assert!(back.answer(answer(id, 0)));
        assert_eq!(stage.disk().poll().err(), Some(Fault::UnknownId(id)));
        stage.assert_broken(Fault::UnknownId(id), 3);
        stage.end(back);
    }
}

#[test]
fn an_answer_given_twice_ends_the_disk() {
    let mut stage = Duel::new(2, WISHES);
    let mut back = stage.connect();
    stage.read(3);
    let asked = back.take().expect("honest").expect("a request");
    let _ = back.take();
    assert!(back.answer(answer(asked.id, 0)));
    assert!(back.answer(answer(asked.id, 0)));
    assert!(stage.disk().poll().expect("the first is fine").is_some());
    assert_eq!(stage.disk().poll().err(), Some(Fault::UnknownId(asked.id)));
    stage.assert_broken(Fault::UnknownId(asked.id), 2);
    stage.end(back);
}

#[test]
fn an_answer_given_twice_ends_the_disk_even_when_its_place_is_in_use_again() {
    let mut stage = Duel::new(2, WISHES);
    let mut back = stage.connect();
    stage.read(1);
    let first = back.take().expect("honest").expect("a request");
    assert!(back.answer(answer(first.id, 0)));
    assert!(stage.disk().poll().expect("the first is fine").is_some());
    stage.read(1);
    let second = back.take().expect("honest").expect("a request");
    assert_ne!(first.id, second.id);
    assert!(back.answer(answer(first.id, 0)));
    assert_eq!(stage.disk().poll().err(), Some(Fault::UnknownId(first.id)));
    stage.assert_broken(Fault::UnknownId(first.id), 1);
    stage.end(back);
}

#[test]
fn an_answer_to_another_operation_ends_the_disk() {
    for operation in [1, 2, 3, 5, 6, 255] {
        let mut stage = Duel::new(3, WISHES);
        let mut back = stage.connect();
        stage.read(2);
        let asked = back.take().expect("honest").expect("a request");
        assert!(back.answer(answer(asked.id, operation)));
        let fault = Fault::WrongOperation { answered: operation };
        assert_eq!(stage.disk().poll().err(), Some(fault));
        stage.assert_broken(fault, 2);
        stage.end(back);
    }
}

#[test]
fn more_answers_than_requests_end_the_disk() {
    for index in [3, 4, 33, 1 << 31, u32::MAX] {
        let mut stage = Duel::new(4, WISHES);
        let back = stage.connect();
        stage.read(2);
        back.poke(2, index);
        let Some(Fault::Ring(broken)) = stage.disk().poll().err() else {
            panic!("{index} was believed");
        };
        assert_eq!((broken.alleged.raw(), broken.limit), (index, 2));
        stage.assert_broken(Fault::Ring(broken), 2);
        stage.end(back);
    }
}

#[test]
fn an_answer_before_the_request_is_shown_ends_the_disk() {
    let mut stage = Duel::new(5, WISHES);
    let back = stage.connect();
    let buffer = stage.disk().buffer(4096).expect("a page");
    stage.disk().submit(Operation::Read, 0, buffer).map_err(|it| it.error).expect("taken");
    // It is in the ring, and the back has not been told.
    back.poke(2, 1);
    let Some(Fault::Ring(broken)) = stage.disk().poll().err() else { panic!("it was believed") };
    stage.assert_broken(Fault::Ring(broken), 1);
    stage.end(back);
}

#[test]
fn answers_in_any_order_and_any_status_are_each_taken_once() {
    let mut stage = Duel::new(6, WISHES);
    let mut back = stage.connect();
    stage.read(30);
    let mut asked = Vec::new();
    while let Some(request) = back.take().expect("honest") {
        asked.push(request.id);
    }
    asked.reverse();
    let statuses = [Status::Okay, Status::Error, Status::Unsupported];
    for (&id, status) in asked.iter().zip(statuses.into_iter().cycle()) {
        assert!(back.answer(Response { id, operation: 0, status }));
    }
    for status in statuses.into_iter().cycle().take(30) {
        let completion = stage.disk().poll().expect("honest").expect("an answer");
        assert_eq!((completion.operation, completion.status), (Operation::Read, status));
    }
    assert!(stage.disk().poll().expect("honest").is_none());
    assert_eq!(stage.disk().free_pages(), 100);
    back.disconnect();
    stage.say(&[("state", "6")]);
    stage.guest.forget(XVDA);
    stage.world.unplug(&mut stage.guest, &Duel::HONEST);
    stage.world.end();
}

#[test]
fn events_for_nothing_are_passed_over() {
    let mut stage = Duel::new(7, WISHES);
    let back = stage.connect();
    for _ in 0..1000 {
        back.notify();
        stage.guest.turn();
        assert!(stage.disk().poll().expect("honest").is_none());
        assert_eq!(stage.disk().rest(), Ok(ring::Rest::Idle));
    }
    let fault = stage.disk().fault();
    assert_eq!(fault, None);
    stage.say(&[("state", "5")]);
    stage.end(back);
}

#[test]
fn pages_that_the_back_does_not_let_go_of_are_kept_aside_for_ever() {
    let mut stage = Duel::new(8, WISHES);
    let back = stage.connect();
    stage.read(1);
    // It says 6 with the ring still mapped.
    stage.say(&[("state", "5")]);
    stage.say(&[("state", "6")]);
    assert!(stage.guest.device(XVDA).is_closed());
    assert_eq!(stage.guest.device(XVDA).pages_kept(), 1);
    stage.guest.forget(XVDA);
    let audit = stage.world.sim.audit();
    let to_liar = audit.mappings.iter().filter(|mapping| mapping.0 == DomainId(7)).count();
    assert_eq!(to_liar, 1, "{audit}");
    // The honest disk goes on; the page is never given to anybody.
    stage.world.unplug(&mut stage.guest, &Duel::HONEST);
    back.disconnect();
    let audit = stage.world.sim.audit();
    assert_eq!((audit.grants.len(), audit.pages), (1, vec![(DomainId(5), 1)]));
}

#[test]
fn silly_nodes_of_a_back_refuse_the_connection_with_a_reason() {
    let silly = [
        ("sectors", ""),
        ("sectors", "-1"),
        ("sectors", "18446744073709551615"),
        ("sectors", "1e3"),
        ("sector-size", "0"),
        ("sector-size", "513"),
        ("sector-size", "8192"),
        ("physical-sector-size", "x"),
        ("info", "99999999999999999999"),
        ("feature-persistent", "yes"),
        ("feature-flush-cache", "-1"),
        ("discard-granularity", "none"),
    ];
    for (key, value) in silly {
        let mut stage = Duel::new(9, WISHES);
        stage.say(&[("max-ring-page-order", "4"), ("state", "2")]);
        let back = RawBack::connect(&stage.liar.domain, DomainId(5), Liar::FRONT);
        stage.say(&[("sectors", "1024"), (key, value), ("state", "4")]);
        assert!(!stage.guest.is_connected(XVDA), "{key}={value:?}");
        let path = "error/device/vbd/51712/error";
        let reason = stage.guest.domain.read(Transaction::NONE, path).expect("its own");
        assert!(reason.expect("a reason").contains(key), "{key}={value:?}");
        assert_eq!(stage.guest.state(XVDA).as_deref(), Some("5"));
        stage.say(&[("state", "5")]);
        stage.end(back);
    }
}

#[test]
fn rubbish_from_a_back_never_becomes_data_or_a_panic() {
    for seed in 0..300 {
        let mut stage = Duel::new(seed, WISHES);
        let mut back = stage.connect();
        let mut random = Random::new(seed);
        for _ in 0..30 {
            if stage.disk().fault().is_none() && stage.disk().free_slots() > 0 {
                stage.read(1);
            }
            let id = back.take().ok().flatten().map_or(0, |request| request.id);
            match random.below(6) {
                0 => back.poke(random.below(4), u32::try_from(random.below(70)).expect("small")),
                1 => back.poke(random.below(1024), random.word()),
                2 => drop(back.answer(answer(id, 0))),
                3 => drop(back.answer(answer(random.next(), 0))),
                4 => drop(back.answer(answer(id, random.next().to_le_bytes()[0]))),
                _ => back.notify(),
            }
            stage.guest.turn();
            let before = stage.disk().in_flight();
            let mut taken = 0;
            while let Ok(Some(completion)) = stage.disk().poll() {
                assert_eq!(completion.operation, Operation::Read);
                taken += 1;
            }
            assert!(taken <= before);
            if stage.disk().fault().is_some() {
                break;
            }
            let _ = stage.disk().rest();
        }
        stage.guest.look(XVDA);
        stage.say(&[("state", "5")]);
        back.disconnect();
        stage.say(&[("state", "6")]);
        stage.guest.look(XVDA);
        stage.guest.forget(XVDA);
        stage.world.unplug(&mut stage.guest, &Duel::HONEST);
        stage.world.end();
    }
}

#[test]
fn states_of_a_back_in_any_order_do_no_harm() {
    for seed in 0..300 {
        let mut stage = Duel::new(seed, WISHES);
        let mut random = Random::new(seed);
        stage.say(&[("max-ring-page-order", "4"), ("sectors", "1024")]);
        for _ in 0..10 {
            let state = match random.below(10) {
                9 => "rubbish".to_owned(),
                state => state.to_string(),
            };
            stage.say(&[("state", &state)]);
            if stage.guest.is_connected(XVDA) && stage.disk().free_slots() > 0 {
                stage.read(1);
            }
        }
        stage.say(&[("state", "6")]);
        stage.guest.forget(XVDA);
        stage.world.unplug(&mut stage.guest, &Duel::HONEST);
        stage.world.end();
    }
}
