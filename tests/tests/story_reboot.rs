//! Reboots: the tool stack destroys a domain and makes a new one of the same UUID, of which the
//! back hears no more than of any other. The disks follow their guest with all that was
//! acknowledged; those that were detached, and those of a guest that does not come back, do not.

use std::time::Duration;

use blkfront::Wishes;
use sim::Faults;
use tests::{Guest, KEEP, Ledger, Platter, Wanted, World};
use xen::{Store, Transaction};

const SECTORS: usize = 1024;
const XVDA: u32 = 51712;
const XVDB: u32 = 51728;
const SMALL: Wishes = Wishes { order: 0, pool_pages: 64 };
/// More rounds than any step takes, with every fault there is.
const PATIENCE: usize = 5000;
const SEEDS: u64 = 60;
/// As long as `xl reboot` takes between the two domains, and longer.
const GAP: Duration = Duration::from_secs(3);

/// The disk of a life.
fn disk(life: u16, vdev: u32) -> Wanted<'static> {
    let (image, read_only) = if vdev == XVDA { ("/a.img", false) } else { ("/b.img", true) };
    Wanted { read_only, ..Wanted::new(life, vdev, image) }
}

/// The first life of a guest that has one disk and works on it.
fn begin(seed: u64) -> (World, Guest, Platter, Ledger) {
    let mut world = World::new(seed);
    let platter = world.image("/a.img", SECTORS);
    let mut guest = world.life_of("web", 5);
    world.plug(&mut guest, &disk(5, XVDA), SMALL);
    let mut ledger = Ledger::new(SECTORS);
    work(&mut world, &mut guest, &mut ledger);
    (world, guest, platter, ledger)
}

fn work(world: &mut World, guest: &mut Guest, ledger: &mut Ledger) {
    for _ in 0..10 {
        for _ in 0..10 {
            ledger.submit(guest.disk(XVDA), &mut world.random);
        }
        world.drain(guest, XVDA, ledger);
    }
}

/// Gives everybody turns until `done`.
fn until(
    world: &mut World,
    guest: &mut Guest,
    what: &str,
    mut done: impl FnMut(&World, &mut Guest) -> bool,
) {
    for _ in 0..PATIENCE {
        if done(world, guest) {
            return;
        }
        world.turn_back();
        guest.turn();
    }
    panic!("never {what}");
}

/// Waits until a life finds a disk of its own, and connects it.
fn find(world: &mut World, guest: &mut Guest, vdev: u32) {
    let there = |_: &World, guest: &mut Guest| guest.state(vdev).is_some();
    until(world, guest, "there", there);
    guest.open(vdev, SMALL);
    until(world, guest, "connected", |_, guest| guest.is_connected(vdev));
}

/// Whether the back has a directory of ours for a disk of a life.
fn is_kept(world: &World, life: u16, vdev: u32) -> bool {
    disk(life, vdev).back_node(&world.dom0, "params").is_some()
}

#[test]
fn a_guest_that_reboots_again_and_again_finds_its_disks_with_all_that_was_acknowledged() {
    for seed in 0..SEEDS {
        let (mut world, mut guest, platter, mut ledger) = begin(seed);
        world.image("/b.img", 64);
        world.plug(&mut guest, &disk(5, XVDB), SMALL);
        if seed % 3 > 0 {
            world.sim.set_faults(Faults::MANY);
        }
        for life in 6..10 {
            // It dies in the midst of work, and the back sees some of it.
            for _ in 0..10 {
                ledger.submit(guest.disk(XVDA), &mut world.random);
            }
            guest.disk(XVDA).kick();
            for _ in 0..world.random.below(3) {
                world.turn_back();
            }
            world.destroy(guest);
            ledger.lose();
            for _ in 0..world.random.below(20) {
                world.turn_back();
            }
            world.wait(GAP);
            guest = world.life_of("web", life);
            find(&mut world, &mut guest, XVDA);
            find(&mut world, &mut guest, XVDB);
            assert!(!guest.disk(XVDA).geometry().read_only());
            assert!(guest.disk(XVDB).geometry().read_only());
            for (vdev, mode) in [(XVDA, "w"), (XVDB, "r")] {
                let node = |key| disk(life, vdev).back_node(&world.dom0, key);
                assert_eq!(node("mode").as_deref(), Some(mode), "seed {seed}");
                assert_eq!(node("dev"), Some(format!("d{vdev}")), "seed {seed}");
            }
            ledger.check(0, &platter.read(0, SECTORS));
            assert!(!is_kept(&world, life - 1, XVDA) && !is_kept(&world, life - 1, XVDB));
        }
        world.sim.set_faults(Faults::default());
        work(&mut world, &mut guest, &mut ledger);
        assert_eq!(world.devices(), 2);
        world.unplug(&mut guest, &disk(9, XVDA));
        world.unplug(&mut guest, &disk(9, XVDB));
        world.end();
    }
}

#[test]
fn a_disk_that_was_detached_does_not_come_back() {
    let (mut world, mut guest, ..) = begin(1);
    world.unplug(&mut guest, &disk(5, XVDA));
    world.destroy(guest);
    let next = world.life_of("web", 6);
    world.settle_back();
    assert_eq!(next.state(XVDA), None);
    assert_eq!(world.devices(), 0);
}

#[test]
fn a_detach_that_the_guest_did_not_heed_in_this_life_holds_in_the_next() {
    let (mut world, guest, ..) = begin(2);
    // The guest is not given a turn: it holds on to its disk.
    disk(5, XVDA).detach(&world.dom0).expect("asked");
    world.settle_back();
    world.destroy(guest);
    let next = world.life_of("web", 6);
    world.settle_back();
    assert_eq!((next.state(XVDA), world.devices()), (None, 0));
    assert!(!is_kept(&world, 5, XVDA));
}

#[test]
fn a_disk_can_be_detached_between_two_lives() {
    // With a daemon that is asked, and by force.
    for asked in [true, false] {
        let (mut world, guest, ..) = begin(3);
        world.destroy(guest);
        world.settle_back();
        assert!(is_kept(&world, 5, XVDA));
        let holder = blkback::rejoin::find_holder(&world.dom0, xen::DomainId::ZERO, "web");
        assert_eq!(holder.expect("it had a disk"), xen::DomainId(5));
        if asked {
            disk(5, XVDA).detach(&world.dom0).expect("asked");
        } else {
            disk(5, XVDA).remove(&world.dom0).expect("removed");
        }
        world.settle_back();
        assert_eq!(world.devices(), 0);
        let next = world.life_of("web", 6);
        world.settle_back();
        assert_eq!(next.state(XVDA), None);
    }
}

#[test]
fn a_guest_that_does_not_come_back_is_forgotten_in_time_and_holds_no_image_meanwhile() {
    let (mut world, guest, platter, mut ledger) = begin(4);
    world.destroy(guest);
    world.settle_back();
    assert_eq!(world.crew().images(), 0);
    // Somebody else has the image now.
    let mut other = world.life_of("db", 6);
    world.plug(&mut other, &disk(6, XVDA), SMALL);
    work(&mut world, &mut other, &mut ledger);
    ledger.check(0, &platter.read(0, SECTORS));
    world.wait(KEEP - Duration::from_secs(1));
    world.settle_back();
    assert!(is_kept(&world, 5, XVDA));
    world.wait(Duration::from_secs(1));
    world.settle_back();
    assert!(!is_kept(&world, 5, XVDA));
    assert_eq!(world.devices(), 1);
    let next = world.life_of("web", 7);
    world.settle_back();
    assert_eq!(next.state(XVDA), None);
    world.unplug(&mut other, &disk(6, XVDA));
    world.end();
}

#[test]
fn strangers_and_guests_without_a_uuid_get_nothing() {
    let (mut world, guest, ..) = begin(5);
    world.destroy(guest);
    let (stranger, nobody) = (world.life_of("db", 6), world.guest(7));
    // What a guest may write is not who it is.
    for key in ["vm", "name"] {
        let written = stranger.domain.write(Transaction::NONE, key, "/vm/web");
        assert_eq!(written, Err(xen::StoreError::Denied));
    }
    nobody.domain.write(Transaction::NONE, "data/vm", "/vm/web").expect("its own");
    world.settle_back();
    assert_eq!((stranger.state(XVDA), nobody.state(XVDA)), (None, None));
    assert!(is_kept(&world, 5, XVDA));
}

#[test]
fn of_two_lives_at_once_only_the_one_that_has_the_disk_has_it() {
    let (mut world, mut guest, platter, mut ledger) = begin(6);
    let mut second = world.life_of("web", 6);
    world.settle(&mut [&mut guest, &mut second]);
    assert_eq!(second.state(XVDA), None);
    work(&mut world, &mut guest, &mut ledger);
    // The disk follows when the first is gone, but not before its last request is done.
    platter.hold();
    for _ in 0..10 {
        ledger.submit(guest.disk(XVDA), &mut world.random);
    }
    guest.disk(XVDA).kick();
    world.settle_back();
    assert!(platter.waiting() > 0);
    world.destroy(guest);
    ledger.lose();
    world.settle_back();
    assert_eq!(second.state(XVDA), None, "two lives on one disk");
    platter.release();
    find(&mut world, &mut second, XVDA);
    work(&mut world, &mut second, &mut ledger);
    ledger.check(0, &platter.read(0, SECTORS));
    world.unplug(&mut second, &disk(6, XVDA));
    world.end();
}

#[test]
fn a_daemon_that_dies_between_two_lives_or_in_the_first_forgets_nothing() {
    for (in_first, before_second) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut world, guest, platter, mut ledger) = begin(7);
        if in_first {
            world.crash_back();
        }
        world.destroy(guest);
        if !in_first {
            world.settle_back();
            world.crash_back();
        }
        if before_second {
            world.start_back();
            world.settle_back();
        }
        let mut next = world.life_of("web", 6);
        if !before_second {
            world.start_back();
        }
        find(&mut world, &mut next, XVDA);
        work(&mut world, &mut next, &mut ledger);
        ledger.check(0, &platter.read(0, SECTORS));
        world.unplug(&mut next, &disk(6, XVDA));
        world.end();
    }
}

#[test]
fn a_daemon_that_leaves_keeps_the_disks_of_a_guest_that_is_gone_for_the_next_daemon() {
    let (mut world, guest, ..) = begin(8);
    world.destroy(guest);
    world.leave_back(blkback::connect::Leave::Ask);
    world.settle_back();
    assert!(world.is_back_idle() && is_kept(&world, 5, XVDA));
    world.crash_back();
    world.start_back();
    let mut next = world.life_of("web", 6);
    find(&mut world, &mut next, XVDA);
    world.unplug(&mut next, &disk(6, XVDA));
    world.end();
}

#[test]
fn who_attaches_the_disk_after_a_reboot_as_it_is_is_content_and_as_another_is_told() {
    let (mut world, guest, ..) = begin(9);
    world.image("/c.img", SECTORS);
    world.destroy(guest);
    let mut next = world.life_of("web", 6);
    find(&mut world, &mut next, XVDA);
    let other = Wanted::new(6, XVDA, "/c.img");
    let refused = other.attach(&world.dom0).expect_err("taken").to_string();
    assert!(refused.contains("detach it first"), "{refused}");
    disk(6, XVDA).attach(&world.dom0).expect("it is attached so");
    disk(6, XVDA).attach(&world.dom0).expect_err("said twice");
    world.unplug(&mut next, &disk(6, XVDA));
    world.end();
}

#[test]
fn a_disk_that_was_put_into_the_place_by_hand_stays_and_the_old_one_is_forgotten() {
    let (mut world, guest, ..) = begin(10);
    world.image("/c.img", 64);
    world.destroy(guest);
    world.settle_back();
    let mut next = world.life_of("web", 6);
    // Faster than the daemon.
    world.plug(&mut next, &Wanted::new(6, XVDA, "/c.img"), SMALL);
    assert_eq!(next.disk(XVDA).geometry().sectors, 64);
    assert!(!is_kept(&world, 5, XVDA));
    assert_eq!(world.devices(), 1);
    world.unplug(&mut next, &disk(6, XVDA));
    world.end();
}

#[test]
fn a_guest_whose_disk_alone_was_taken_from_xenstore_does_not_get_it_again() {
    let (mut world, mut guest, ..) = begin(11);
    world.dom0.remove(Transaction::NONE, &disk(5, XVDA).front()).expect("removed");
    world.settle(&mut [&mut guest]);
    assert_eq!(world.devices(), 0);
    world.destroy(guest);
    let next = world.life_of("web", 6);
    world.settle_back();
    assert_eq!(next.state(XVDA), None);
}
