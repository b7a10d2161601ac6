//! What backs did to fronts.

use blkfront::{DeviceError, Fault, SetupError, SubmitError, Wishes};
use blkif::{Operation, Response, Status};
use ring::Rest;
use sim::{Limits, Random};
use tests::torture::{Tally, answers};
use tests::{Duel, Ledger, Liar, RawBack};
use xen::{Access, DomainId, Maps};

use crate::SECTORS;

const XVDA: u32 = Duel::XVDA;
const XVDB: u32 = Duel::XVDB;
const POOL: usize = 40;
const WISHES: Wishes = Wishes { order: 0, pool_pages: POOL };

/// What these tests ask of a duel.
trait Ask {
    fn grants(&self) -> usize;
    fn end(self);
    fn close(&mut self, back: RawBack);
}

impl Ask for Duel {
    /// How many grants the guest has.
    fn grants(&self) -> usize {
        self.world.sim.audit().grants.iter().filter(|grant| grant.0 == DomainId(5)).count()
    }

    /// Everything is given back.
    fn end(mut self) {
        self.guest.forget(XVDA);
        self.world.unplug(&mut self.guest, &Duel::HONEST);
        self.world.end();
    }

    /// The back closes as it should.
    fn close(&mut self, back: RawBack) {
        self.say(&[("state", "5")]);
        back.disconnect();
        self.say(&[("state", "6")]);
    }
}

fn answer(id: u64, operation: u8) -> Response {
    Response { id, operation, status: Status::Okay }
}

#[test]
fn xsa_376_a_front_believes_nothing_that_its_back_says() {
    let house = answers::House::new();
    let (mut random, mut tally) = (Random::new(376), Tally::default());
    while tally.faults < 30 {
        answers::play(&house, &mut random, &mut tally);
    }
}

#[test]
fn xsa_391_a_storm_of_events_does_not_keep_the_guest_from_its_other_disk() {
    let mut stage = Duel::new(1, WISHES);
    let back = stage.connect();
    let (mut ledger, mut random) = (Ledger::new(SECTORS), Random::new(391));
    for _ in 0..200 {
        (0..50).for_each(|_| back.notify());
        ledger.submit_without_flush(stage.guest.disk(XVDB), &mut random);
        stage.guest.disk(XVDB).kick();
        stage.world.turn_back();
        stage.guest.turn();
        assert_eq!(stage.disk().poll().map(|it| it.is_some()), Ok(false));
        assert_eq!(stage.disk().rest(), Ok(Rest::Idle));
        stage.guest.listen(XVDB, &mut ledger);
    }
    // However many events there were, they were one for each time that somebody looked.
    assert!(stage.disk().counters().notifications_received <= 200);
    assert!(ledger.done > 150, "{} of the other disk's requests", ledger.done);
    stage.world.drain(&mut stage.guest, XVDB, &mut ledger);
    stage.close(back);
    stage.end();
}

#[test]
fn xsa_396_a_page_that_the_back_has_mapped_still_is_never_used_again() {
    let mut stage = Duel::new(1, WISHES);
    let back = stage.connect();
    let granted = stage.grants();
    // It says that it has let go of everything, and has the ring mapped.
    stage.say(&[("state", "5")]);
    stage.say(&[("state", "6")]);
    assert_eq!(stage.guest.device(XVDA).pages_kept(), 1);
    assert_eq!(stage.grants(), granted - POOL, "the pool came back, the ring did not");
    // A new connection gets another page for its ring, and the old one stays away.
    stage.say(&[("state", "2")]);
    let second = RawBack::connect(&stage.liar.domain, DomainId(5), Liar::FRONT);
    stage.say(&[("state", "4")]);
    back.poke(2, 77);
    assert_eq!(stage.disk().poll().map(|it| it.is_some()), Ok(false), "a ring of its own");
    stage.close(second);
    stage.guest.forget(XVDA);
    stage.world.unplug(&mut stage.guest, &Duel::HONEST);
    back.disconnect();
    let audit = stage.world.sim.audit();
    assert_eq!((audit.grants.len(), audit.pages), (1, vec![(DomainId(5), 1)]));
}

#[test]
fn xsa_403_only_whole_pages_of_zeros_are_shown_to_a_back() {
    let mut stage = Duel::new(1, WISHES);
    let before: Vec<_> = stage.world.sim.audit().grants;
    let back = stage.connect();
    let now = stage.world.sim.audit().grants;
    let new: Vec<_> = now.iter().filter(|it| !before.iter().any(|old| old.1 == it.1)).collect();
    assert_eq!(new.len(), POOL + 1, "the pool and the ring");
    let mut rings = 0;
    for &&(_, reference, _) in &new {
        let page = stage.liar.domain.map(DomainId(5), &[reference], Access::Read);
        let page = page.expect("granted to this back").remove(0);
        let mut bytes = [0; 4096];
        page.read(0, &mut bytes);
        // A ring has its two event indexes.
        let ring = (bytes[4], bytes[12]) == (1, 1);
        rings += usize::from(ring);
        let first = if ring { 16 } else { 0 };
        assert!(bytes[first..].iter().all(|&byte| byte == 0), "{reference} holds something");
    }
    assert_eq!(rings, 1);
    stage.close(back);
    stage.end();
}

#[test]
fn xsa_405_a_set_up_that_fails_at_any_step_leaves_nothing_and_the_next_one_works() {
    for pages in 0..POOL + 2 {
        let mut stage = Duel::new(1, WISHES);
        let held = stage.world.sim.audit().pages.iter().map(|it| it.1).sum::<usize>();
        stage.world.sim.set_limits(Limits { pages: held + pages, ..Limits::default() });
        stage.say(&[("sectors", "1024"), ("state", "2")]);
        stage.say(&[("state", "4")]);
        let up = stage.guest.is_connected(XVDA);
        assert_eq!(up, pages > POOL, "with {pages} pages");
        if !up {
            let trouble = stage.guest.trouble(XVDA);
            assert_eq!(trouble, Some(&DeviceError::Setup(SetupError::OutOfMemory)));
            // Without a page for the ring there was nothing to close.
            let state = if pages == 0 { "1" } else { "5" };
            assert_eq!(stage.liar.hears("state").as_deref(), Some(state), "with {pages} pages");
        }
        stage.world.sim.set_limits(Limits::default());
        stage.say(&[("state", "5")]);
        stage.say(&[("state", "6")]);
        stage.guest.look(XVDA);
        let now = stage.world.sim.audit().pages.iter().map(|it| it.1).sum::<usize>();
        assert_eq!(now, held, "with {pages} pages");
        stage.guest.forget(XVDA);
        stage.say(&[("state", "1")]);
        stage.guest.open(XVDA, WISHES);
        let back = stage.connect();
        stage.close(back);
        stage.end();
    }
}

#[test]
fn xsa_465_a_back_that_starts_again_after_a_broken_set_up_is_joined() {
    let ends: [&[&str]; 8] = [
        &["1"],
        &["1", "2"],
        &["2", "1"],
        &["5"],
        &["6"],
        &["4", "6"],
        &["4", "1"],
        &["6", "1", "2"],
    ];
    // It stops in the middle of the set-up: nothing of it makes sense, or nothing is there.
    for (states, begun) in ends.into_iter().flat_map(|states| [(states, true), (states, false)]) {
        let mut stage = Duel::new(1, WISHES);
        if begun {
            stage.say(&[("state", "2")]);
        }
        for state in states {
            stage.say(&[("state", state)]);
        }
        stage.guest.look(XVDA);
        // A front that had no reason to complain is still there; another one begins anew.
        if states.contains(&"4") {
            stage.guest.forget(XVDA);
            stage.say(&[("state", "1")]);
            stage.guest.open(XVDA, WISHES);
            assert_eq!(stage.liar.hears("state").as_deref(), Some("1"), "{states:?}");
        } else {
            stage.say(&[("state", "6")]);
            assert_ne!(stage.liar.hears("state").as_deref(), Some("3"), "{states:?}");
            stage.say(&[("state", "1")]);
        }
        let mut back = stage.connect();
        stage.read(1);
        let asked = back.take().expect("honest").expect("a request");
        assert!(back.answer(answer(asked.id, 0)));
        assert!(stage.disk().poll().expect("honest").is_some(), "{states:?}");
        stage.close(back);
        stage.end();
    }
}

#[test]
fn linux_b94e4b14_more_responses_than_requests_end_the_disk() {
    for index in [2, 33, 1 << 31, u32::MAX] {
        let mut stage = Duel::new(1, WISHES);
        let back = stage.connect();
        stage.read(1);
        back.poke(2, index);
        let fault = stage.disk().poll().err();
        assert!(matches!(fault, Some(Fault::Ring(broken)) if broken.limit == 1), "{fault:?}");
        stage.close(back);
        stage.end();
    }
}

#[test]
fn linux_b94e4b14_a_response_to_nothing_ends_the_disk_and_frees_no_page() {
    for wrong in [2, 1 << 15, 1 << 16, 1 << 63] {
        let mut stage = Duel::new(1, WISHES);
        let mut back = stage.connect();
        stage.read(2);
        let asked = back.take().expect("honest").expect("a request");
        assert!(back.answer(answer(asked.id ^ wrong, 0)));
        let fault = Fault::UnknownId(asked.id ^ wrong);
        assert_eq!(stage.disk().poll().err(), Some(fault));
        assert_eq!(stage.disk().free_pages(), POOL - 2);
        assert_eq!(stage.disk().flush().err(), Some(SubmitError::Fault(fault)));
        stage.close(back);
        stage.end();
    }
}

#[test]
fn linux_a9b54bb9_a_repeated_state_connects_nothing_anew() {
    let mut stage = Duel::new(1, WISHES);
    let mut back = stage.connect();
    let (ring, grants) = (stage.liar.hears("ring-ref"), stage.grants());
    stage.read(3);
    for state in ["4", "4", "4"] {
        stage.say(&[("state", state)]);
        assert_eq!((stage.liar.hears("ring-ref"), stage.grants()), (ring.clone(), grants));
        assert_eq!(stage.disk().in_flight(), 3, "what is in flight stays there");
    }
    while let Some(asked) = back.take().expect("honest") {
        assert!(back.answer(answer(asked.id, 0)));
    }
    for _ in 0..3 {
        assert!(stage.disk().poll().expect("honest").is_some());
    }
    stage.close(back);
    stage.end();
}

#[test]
fn linux_4a8c31a1_nodes_of_a_former_front_are_taken_away() {
    let mut stage = Duel::new(1, WISHES);
    for key in ["ring-page-order", "ring-ref0", "ring-ref1", "multi-queue-num-queues"] {
        let path = format!("{}/{key}", Liar::FRONT);
        xen::Store::write(&stage.guest.domain, xen::Transaction::NONE, &path, "3").expect("own");
    }
    let back = stage.connect();
    for key in ["ring-page-order", "ring-ref0", "ring-ref1", "multi-queue-num-queues"] {
        assert_eq!(stage.liar.hears(key), None, "{key}");
    }
    assert!(stage.liar.hears("ring-ref").is_some());
    stage.close(back);
    stage.end();
}

#[test]
fn linux_f929d42c_everything_comes_back_with_each_of_many_reconnects() {
    let mut stage = Duel::new(1, WISHES);
    let before = (stage.grants(), stage.world.sim.audit().pages, stage.world.sim.audit().ports);
    for round in 0..100 {
        let mut back = stage.connect();
        stage.read(1);
        let asked = back.take().expect("honest").expect("a request");
        assert!(back.answer(answer(asked.id, 0)));
        assert!(stage.disk().poll().expect("honest").is_some());
        stage.close(back);
        assert!(stage.guest.device(XVDA).is_closed());
        let audit = stage.world.sim.audit();
        assert_eq!((stage.grants(), audit.pages, audit.ports), before, "round {round}");
    }
    stage.end();
}

#[test]
fn linux_2018_requests_of_every_size_use_the_grants_that_there_are() {
    let mut stage = Duel::new(1, WISHES);
    let mut back = stage.connect();
    let grants = stage.grants();
    for sectors in (1..=88).chain((1..=88).rev()) {
        let buffer = stage.disk().buffer(sectors * 512).expect("pages");
        let taken = stage.disk().submit(Operation::Write, 0, buffer);
        taken.map_err(|refused| refused.error).expect("taken");
        stage.disk().kick();
        let asked = back.take().expect("honest").expect("a request");
        assert!(back.answer(answer(asked.id, 1)));
        assert!(stage.disk().poll().expect("honest").is_some());
        assert_eq!(stage.grants(), grants, "{sectors} sectors");
    }
    stage.close(back);
    stage.end();
}
