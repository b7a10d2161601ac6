//! Ends: detaching, closing, leaving, dying, in the midst of work. Nothing is lost that was
//! promised, nothing stays behind, and nobody else notices.

use blkback::connect::Leave;
use blkfront::{DeviceError, SetupError, SubmitError, Wishes};
use blkif::{Operation, Status};
use sim::{Call, Limits, Spell, Strike};
use tests::{Guest, Ledger, Manners, Platter, Wanted, World};
use xen::GrantError;

const SECTORS: usize = 2048;
const XVDA: u32 = 51712;
const SMALL: Wishes = Wishes { order: 0, pool_pages: 300 };
const DISK: Wanted<'static> = Wanted::new(5, XVDA, "/a.img");

fn connected(seed: u64) -> (World, Guest, Platter) {
    let mut world = World::new(seed);
    let platter = world.image("/a.img", SECTORS);
    let mut guest = world.guest(5);
    world.plug(&mut guest, &DISK, SMALL);
    assert!(guest.is_connected(XVDA));
    (world, guest, platter)
}

/// Puts some operations into flight and lets the back take them, none of which ends.
fn stall(world: &mut World, guest: &mut Guest, platter: &Platter, ledger: &mut Ledger) {
    platter.hold();
    while ledger.in_flight() < 20 {
        ledger.submit(guest.disk(XVDA), &mut world.random);
    }
    guest.disk(XVDA).kick();
    world.settle(&mut [guest]);
    assert_eq!(ledger.in_flight(), 20);
    assert!(platter.waiting() > 0);
}

#[test]
fn a_detach_waits_for_what_is_in_flight_and_loses_nothing() {
    for persistent in [true, false] {
        let mut world = World::new(1);
        let platter = world.image("/a.img", SECTORS);
        let mut guest = world.guest(5);
        guest.persistent = persistent;
        world.plug(&mut guest, &DISK, SMALL);
        let mut ledger = Ledger::new(SECTORS);
        stall(&mut world, &mut guest, &platter, &mut ledger);
        DISK.detach(&world.dom0).expect("detached");
        world.settle(&mut [&mut guest]);
        assert!(!guest.device(XVDA).is_closed(), "closed over requests in flight");
        let disk = guest.disk(XVDA);
        let buffer = disk.buffer(512).expect("a page");
        let refused = disk.submit(Operation::Read, 0, buffer).expect_err("it is closing");
        assert_eq!(refused.error, SubmitError::Closing);
        drop(refused);
        platter.release();
        world.drain(&mut guest, XVDA, &mut ledger);
        world.settle(&mut [&mut guest]);
        assert!(guest.device(XVDA).is_closed());
        assert_eq!((ledger.done, ledger.failed), (20, 0));
        ledger.check(0, &platter.read(0, SECTORS));
        guest.forget(XVDA);
        DISK.remove(&world.dom0).expect("removed");
        world.settle(&mut [&mut guest]);
        world.end();
    }
}

#[test]
fn requests_that_were_sent_before_a_close_are_answered() {
    for persistent in [true, false] {
        let mut world = World::new(13);
        world.image("/a.img", SECTORS);
        let mut guest = world.guest(5);
        guest.persistent = persistent;
        world.plug(&mut guest, &DISK, SMALL);
        let mut ledger = Ledger::new(SECTORS);
        for sector in [0, 100, 200] {
            ledger.request(guest.disk(XVDA), Operation::Write, sector, 4);
        }
        guest.disk(XVDA).kick();
        let store = guest.domain.clone();
        guest.device(XVDA).close(&store).expect("closing");
        // The back hears of the close before it has looked at the ring.
        world.turn_control().expect("xenstore");
        world.settle(&mut [&mut guest]);
        guest.listen(XVDA, &mut ledger);
        world.settle(&mut [&mut guest]);
        assert_eq!((ledger.done, ledger.failed, ledger.in_flight()), (3, 0, 0));
        assert!(guest.device(XVDA).is_closed());
        guest.forget(XVDA);
        DISK.remove(&world.dom0).expect("removed");
        world.settle(&mut [&mut guest]);
        world.end();
    }
}

#[test]
fn a_state_that_xenstore_did_not_take_is_said_with_the_next_turn() {
    let (mut world, mut guest, _) = connected(14);
    let store = guest.domain.clone();
    let strike = Strike { who: store.id(), call: Call::Begin, after: 0, spell: Spell::FromThenOn };
    world.sim.strike(Some(strike));
    assert!(guest.device(XVDA).close(&store).is_err());
    assert_eq!(guest.state(XVDA).as_deref(), Some("4"));
    world.sim.strike(None);
    guest.look(XVDA);
    assert_eq!(guest.state(XVDA).as_deref(), Some("5"));
    world.settle(&mut [&mut guest]);
    assert!(guest.device(XVDA).is_closed());
    guest.forget(XVDA);
    DISK.remove(&world.dom0).expect("removed");
    world.settle(&mut [&mut guest]);
    world.end();
}

#[test]
fn a_back_that_leaves_drains_its_disks_and_lets_the_fronts_go() {
    let (mut world, mut guest, platter) = connected(2);
    let mut ledger = Ledger::new(SECTORS);
    stall(&mut world, &mut guest, &platter, &mut ledger);
    world.leave_back(Leave::Ask);
    world.settle(&mut [&mut guest]);
    assert!(!world.is_back_idle());
    platter.release();
    world.drain(&mut guest, XVDA, &mut ledger);
    world.settle(&mut [&mut guest]);
    assert_eq!((ledger.done, ledger.failed), (20, 0));
    assert!(guest.device(XVDA).is_closed());
    assert_eq!(DISK.back_node(&world.dom0, "state").as_deref(), Some("6"));
    let audit = world.sim.audit();
    assert!(audit.mappings.is_empty() && audit.grants.is_empty(), "{audit}");
    guest.forget(XVDA);
    DISK.remove(&world.dom0).expect("removed");
    world.settle(&mut [&mut guest]);
    world.end();
}

#[test]
fn a_back_that_goes_does_not_wait_for_a_front_that_will_not() {
    let (mut world, mut guest, platter) = connected(3);
    let mut ledger = Ledger::new(SECTORS);
    stall(&mut world, &mut guest, &platter, &mut ledger);
    platter.release();
    // The guest is not given a single turn.
    world.leave_back(Leave::Go);
    world.settle_back();
    assert_eq!(DISK.back_node(&world.dom0, "state").as_deref(), Some("6"));
    assert!(world.sim.audit().mappings.is_empty());
    ledger.lose();
    ledger.check(0, &platter.read(0, SECTORS));
    world.settle(&mut [&mut guest]);
    guest.forget(XVDA);
    DISK.remove(&world.dom0).expect("removed");
    world.settle(&mut [&mut guest]);
    world.end();
}

#[test]
fn a_back_that_is_killed_keeps_nothing_and_the_next_one_serves_again() {
    for seed in 0..20 {
        let (mut world, mut guest, platter) = connected(seed);
        let mut ledger = Ledger::new(SECTORS);
        stall(&mut world, &mut guest, &platter, &mut ledger);
        world.crash_back();
        platter.release();
        assert!(world.sim.audit().mappings.is_empty());
        world.start_back();
        world.settle(&mut [&mut guest]);
        // Whatever was in flight may be done or not; what was answered stands.
        ledger.lose();
        ledger.check(0, &platter.read(0, SECTORS));
        // The next back closes what the killed one left; the tool stack attaches it anew.
        assert!(guest.device(XVDA).is_closed());
        assert_eq!(DISK.back_node(&world.dom0, "state").as_deref(), Some("6"));
        let audit = world.sim.audit();
        assert!(audit.grants.is_empty() && audit.ports.is_empty(), "{audit}");
        guest.forget(XVDA);
        DISK.remove(&world.dom0).expect("removed");
        world.settle(&mut [&mut guest]);
        world.plug(&mut guest, &DISK, SMALL);
        assert!(guest.is_connected(XVDA));
        for _ in 0..5 {
            for _ in 0..10 {
                ledger.submit(guest.disk(XVDA), &mut world.random);
            }
            world.drain(&mut guest, XVDA, &mut ledger);
        }
        ledger.check(0, &platter.read(0, SECTORS));
        world.unplug(&mut guest, &DISK);
        world.end();
    }
}

#[test]
fn a_guest_that_dies_takes_nothing_with_it() {
    for holding in [true, false] {
        let (mut world, mut guest, platter) = connected(5);
        let mut ledger = Ledger::new(SECTORS);
        stall(&mut world, &mut guest, &platter, &mut ledger);
        world.sim.kill(guest.domain.id());
        drop(guest);
        if !holding {
            platter.release();
        }
        world.settle(&mut []);
        // The tool stack hears of the death too, and takes the directories away.
        DISK.remove(&world.dom0).expect("removed");
        platter.release();
        world.settle(&mut []);
        assert_eq!(world.devices(), 0);
        ledger.lose();
        ledger.check(0, &platter.read(0, SECTORS));
        world.end();
    }
}

#[test]
fn a_guest_that_dies_does_not_disturb_another() {
    let (mut world, mut guest, platter) = connected(6);
    let other_platter = world.image("/b.img", SECTORS);
    let other_disk = Wanted::new(6, XVDA, "/b.img");
    let mut other = world.guest(6);
    world.plug(&mut other, &other_disk, SMALL);
    let (mut ledger, mut other_ledger) = (Ledger::new(SECTORS), Ledger::new(SECTORS));
    stall(&mut world, &mut guest, &platter, &mut ledger);
    world.sim.kill(guest.domain.id());
    drop(guest);
    for _ in 0..20 {
        for _ in 0..10 {
            other_ledger.submit(other.disk(XVDA), &mut world.random);
        }
        world.drain(&mut other, XVDA, &mut other_ledger);
    }
    assert!(other_ledger.done > 100 && other_ledger.failed == 0);
    other_ledger.check(0, &other_platter.read(0, SECTORS));
    DISK.remove(&world.dom0).expect("removed");
    platter.release();
    world.unplug(&mut other, &other_disk);
    world.end();
}

#[test]
fn directories_that_vanish_under_a_connection_end_it_on_both_sides() {
    let (mut world, mut guest, platter) = connected(7);
    let mut ledger = Ledger::new(SECTORS);
    stall(&mut world, &mut guest, &platter, &mut ledger);
    platter.release();
    DISK.remove(&world.dom0).expect("removed");
    world.settle(&mut [&mut guest]);
    for _ in 0..10 {
        guest.listen(XVDA, &mut ledger);
        world.settle(&mut [&mut guest]);
    }
    guest.forget(XVDA);
    assert_eq!(world.devices(), 0);
    let front = world.sim.audit();
    assert!(front.mappings.is_empty() && front.grants.is_empty(), "{front}");
    // Nobody wrote a node that would have brought a directory back.
    assert_eq!(DISK.back_node(&world.dom0, "state"), None);
    world.end();
}

#[test]
fn after_a_failed_flush_no_write_succeeds_until_the_disk_is_attached_anew() {
    let (mut world, mut guest, platter) = connected(8);
    let ask = |world: &mut World, guest: &mut Guest, operation| {
        let disk = guest.disk(XVDA);
        match operation {
            Operation::Flush => disk.flush().expect("offered"),
            _ => {
                let buffer = disk.buffer(512).expect("a page");
                disk.submit(operation, 0, buffer).map_err(|it| it.error).expect("lawful")
            }
        };
        disk.kick();
        world.settle(&mut [guest]);
        guest.disk(XVDA).poll().expect("honest").expect("an answer").status
    };
    assert_eq!(ask(&mut world, &mut guest, Operation::Write), Status::Okay);
    platter.set_manners(Manners { flush_failures: 1000, ..Manners::GOOD });
    assert_eq!(ask(&mut world, &mut guest, Operation::Flush), Status::Error);
    platter.set_manners(Manners::GOOD);
    for _ in 0..3 {
        assert_eq!(ask(&mut world, &mut guest, Operation::Write), Status::Error);
        assert_eq!(ask(&mut world, &mut guest, Operation::Flush), Status::Error);
        assert_eq!(ask(&mut world, &mut guest, Operation::Read), Status::Okay);
    }
    // A new connection is no way around it.
    let store = guest.domain.clone();
    guest.device(XVDA).close(&store).expect("closing");
    world.settle(&mut [&mut guest]);
    guest.forget(XVDA);
    guest.open(XVDA, SMALL);
    world.settle(&mut [&mut guest]);
    assert_eq!(ask(&mut world, &mut guest, Operation::Write), Status::Error);
    world.unplug(&mut guest, &DISK);
    world.plug(&mut guest, &DISK, SMALL);
    assert_eq!(ask(&mut world, &mut guest, Operation::Write), Status::Okay);
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn a_failing_disk_is_an_error_for_its_requests_only() {
    let (mut world, mut guest, platter) = connected(9);
    let mut ledger = Ledger::new(SECTORS);
    platter.set_manners(Manners { failures: 100, ..Manners::GOOD });
    for _ in 0..50 {
        for _ in 0..10 {
            ledger.submit_without_flush(guest.disk(XVDA), &mut world.random);
        }
        world.drain(&mut guest, XVDA, &mut ledger);
    }
    assert!(ledger.failed > 10 && ledger.done > 100, "{} {}", ledger.failed, ledger.done);
    platter.set_manners(Manners::GOOD);
    ledger.check(0, &platter.read(0, SECTORS));
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn an_image_that_is_not_there_is_refused_with_its_reason() {
    let mut world = World::new(10);
    let mut guest = world.guest(5);
    world.plug(&mut guest, &DISK, SMALL);
    assert!(!guest.is_connected(XVDA));
    let error = DISK.back_node(&world.dom0, "error").expect("a reason");
    assert!(error.contains("/a.img"), "{error}");
    assert_eq!(DISK.back_node(&world.dom0, "state").as_deref(), Some("6"));
    guest.forget(XVDA);
    DISK.remove(&world.dom0).expect("removed");
    world.settle(&mut [&mut guest]);
    assert_eq!(world.devices(), 0);
    world.end();
}

#[test]
fn a_guest_with_too_few_grants_or_pages_says_so_and_holds_nothing() {
    let full = DeviceError::Setup(SetupError::Grant(GrantError::TableFull));
    let short = DeviceError::Setup(SetupError::OutOfMemory);
    for count in (0..4).chain(8..12).chain(324..328) {
        let grants = Limits { grants: 8 + count, ..Limits::default() };
        let pages = Limits { pages: count as usize, ..Limits::default() };
        // The ring takes one page and one grant, the pool the others, and for each 12 of it one that
        // has the segments of a longer request: where grants are short, half of them, as often as that
        // is more than a request has.
        for (limits, least, error) in [(grants, 10, &full), (pages, 326, &short)] {
            let mut world = World::new(11);
            world.image("/a.img", SECTORS);
            let mut guest = world.guest(5);
            world.sim.set_limits(limits);
            world.plug(&mut guest, &DISK, SMALL);
            assert_eq!(guest.is_connected(XVDA), count >= least);
            if count < least {
                assert_eq!(guest.trouble(XVDA), Some(error));
            }
            world.settle(&mut [&mut guest]);
            world.sim.set_limits(Limits::default());
            DISK.detach(&world.dom0).expect("detached");
            world.settle(&mut [&mut guest]);
            guest.forget(XVDA);
            DISK.remove(&world.dom0).expect("removed");
            world.settle(&mut [&mut guest]);
            world.end();
        }
    }
}

#[test]
fn a_back_without_room_to_map_answers_with_errors_and_recovers() {
    let (mut world, mut guest, platter) = connected(12);
    let mut ledger = Ledger::new(SECTORS);
    // The ring's own page is mapped, and room for four more.
    world.sim.set_limits(Limits { mappings: 5, ..Limits::default() });
    for _ in 0..10 {
        for _ in 0..10 {
            ledger.submit(guest.disk(XVDA), &mut world.random);
        }
        world.drain(&mut guest, XVDA, &mut ledger);
    }
    assert!(ledger.failed > 0);
    world.sim.set_limits(Limits::default());
    let failed = ledger.failed;
    for _ in 0..10 {
        for _ in 0..10 {
            ledger.submit(guest.disk(XVDA), &mut world.random);
        }
        world.drain(&mut guest, XVDA, &mut ledger);
    }
    assert_eq!(ledger.failed, failed);
    ledger.check(0, &platter.read(0, SECTORS));
    world.unplug(&mut guest, &DISK);
    world.end();
}
