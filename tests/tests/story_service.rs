//! An honest front and an honest back: what was written is read back, and nothing stays behind.

use blkfront::Wishes;
use blkif::{Operation, Status};
use tests::{Guest, Ledger, Platter, Wanted, World};

const SECTORS: usize = 4096;
const XVDA: u32 = 51712;
const SMALL: Wishes = Wishes { order: 0, pool_pages: 300 };
const DISK: Wanted<'static> = Wanted::new(5, XVDA, "/a.img");

/// A world with one guest and its disk `xvda`, connected.
fn connected(seed: u64, wishes: Wishes, persistent: bool) -> (World, Guest, Platter) {
    let mut world = World::new(seed);
    let platter = world.image("/a.img", SECTORS);
    let mut guest = world.guest(5);
    guest.persistent = persistent;
    world.plug(&mut guest, &DISK, wishes);
    assert!(guest.is_connected(XVDA));
    (world, guest, platter)
}

/// Some hundred random operations, and a last look at the whole medium.
fn work(world: &mut World, guest: &mut Guest, vdev: u32, ledger: &mut Ledger, batches: usize) {
    for _ in 0..batches {
        for _ in 0..1 + world.random.below(20) {
            ledger.submit(guest.disk(vdev), &mut world.random);
        }
        world.drain(guest, vdev, ledger);
    }
}

#[test]
fn every_ring_order_carries_random_operations_with_grants_kept_or_not() {
    for order in 0..=4 {
        for persistent in [true, false] {
            let wishes = Wishes { order, pool_pages: 300 };
            let (mut world, mut guest, platter) = connected(u64::from(order), wishes, persistent);
            let agreed = *guest.disk(XVDA).agreed();
            assert_eq!(agreed.order, order);
            let mut ledger = Ledger::new(SECTORS);
            work(&mut world, &mut guest, XVDA, &mut ledger, 40);
            assert!(ledger.done > 150 && ledger.failed == 0, "{} {}", ledger.done, ledger.failed);
            let copies = world.crew().count(|counters| counters.copies);
            let mapped = world.crew().count(|counters| counters.pages_mapped);
            assert_eq!((copies == 0, mapped == 0), (persistent, !persistent));
            ledger.check(0, &platter.read(0, SECTORS));
            world.unplug(&mut guest, &DISK);
            world.end();
        }
    }
}

#[test]
fn in_steady_state_no_page_is_mapped_and_none_is_copied() {
    let (mut world, mut guest, _) = connected(1, SMALL, true);
    let mut ledger = Ledger::new(SECTORS);
    work(&mut world, &mut guest, XVDA, &mut ledger, 60);
    let grants =
        |world: &World| world.crew().count(|counters| counters.map_calls + counters.copy_calls);
    let before = grants(&world);
    assert!(before > 0);
    work(&mut world, &mut guest, XVDA, &mut ledger, 60);
    // The pool is handed out first in, first out: after so many every page has been used.
    assert_eq!(grants(&world), before);
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn a_batch_costs_at_most_one_notification_each_way() {
    let (mut world, mut guest, _) = connected(2, Wishes { order: 2, pool_pages: 400 }, true);
    for batch in 1..=20 {
        for at in 0..10 {
            let disk = guest.disk(XVDA);
            let buffer = disk.buffer(4096).expect("a page");
            // Not neighbours, so that no two merge.
            disk.submit(Operation::Write, at * 64, buffer).expect("taken");
        }
        guest.disk(XVDA).kick();
        world.settle(&mut [&mut guest]);
        let disk = guest.disk(XVDA);
        let mut answered = 0;
        while let Some(completion) = disk.poll().expect("honest") {
            assert_eq!(completion.status, Status::Okay);
            answered += 1;
        }
        assert_eq!(answered, 10);
        assert_eq!(disk.rest(), Ok(ring::Rest::Idle));
        assert!(disk.counters().notifications_sent <= batch);
        assert!(world.crew().count(|counters| counters.notifications) <= batch);
    }
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn a_flush_reaches_the_disk_after_the_writes_before_it() {
    let (mut world, mut guest, platter) = connected(3, SMALL, true);
    for round in 0..20_u8 {
        let disk = guest.disk(XVDA);
        let buffer = disk.buffer(4096).expect("a page");
        buffer.write(0, &[round; 4096]);
        disk.submit(Operation::Write, 8, buffer).expect("taken");
        disk.kick();
        world.settle(&mut [&mut guest]);
        assert!(guest.disk(XVDA).poll().expect("honest").is_some());
        let flushes = platter.flushes();
        guest.disk(XVDA).flush().expect("offered");
        guest.disk(XVDA).kick();
        world.settle(&mut [&mut guest]);
        let completion = guest.disk(XVDA).poll().expect("honest").expect("an answer");
        assert_eq!((completion.operation, completion.status), (Operation::Flush, Status::Okay));
        assert_eq!(platter.flushes(), flushes + 1);
        assert_eq!(platter.read(8, 8), vec![round; 4096]);
    }
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn a_disk_is_detached_and_attached_again_many_times_and_leaves_nothing() {
    let mut world = World::new(4);
    world.image("/a.img", SECTORS);
    let mut guest = world.guest(5);
    let mut ledger = Ledger::new(SECTORS);
    for round in 0..100 {
        let wishes = Wishes { order: round % 5, pool_pages: 100 };
        guest.persistent = round % 2 == 0;
        world.plug(&mut guest, &DISK, wishes);
        work(&mut world, &mut guest, XVDA, &mut ledger, 3);
        world.unplug(&mut guest, &DISK);
        let audit = world.sim.audit();
        let held = (audit.grants.len(), audit.mappings.len(), audit.ports.len(), audit.pages.len());
        assert_eq!(held, (0, 0, 0, 0), "round {round}:\n{audit}");
    }
    world.end();
}

#[test]
fn a_guest_that_closes_and_opens_again_finds_its_disk_as_it_left_it() {
    let (mut world, mut guest, _) = connected(5, SMALL, true);
    let mut ledger = Ledger::new(SECTORS);
    for _ in 0..20 {
        work(&mut world, &mut guest, XVDA, &mut ledger, 3);
        let store = guest.domain.clone();
        guest.device(XVDA).close(&store).expect("closing");
        world.settle(&mut [&mut guest]);
        assert!(guest.device(XVDA).is_closed());
        guest.forget(XVDA);
        // As a kernel does that boots anew in the same domain.
        guest.open(XVDA, SMALL);
        world.settle(&mut [&mut guest]);
        assert!(guest.is_connected(XVDA));
    }
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn sixteen_disks_of_one_guest_keep_their_data_apart() {
    const NAMES: [&str; 16] = [
        "/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h", "/i", "/j", "/k", "/l", "/m", "/n", "/o",
        "/p",
    ];
    let mut world = World::new(6);
    let mut guest = world.guest(5);
    let vdev = |at: usize| XVDA + 16 * u32::try_from(at).expect("few");
    let platters = NAMES.map(|name| world.image(name, 256));
    let mut ledgers = NAMES.map(|_| Ledger::new(256));
    for (at, name) in NAMES.into_iter().enumerate() {
        let wishes = Wishes { order: 0, pool_pages: 100 };
        world.plug(&mut guest, &Wanted::new(5, vdev(at), name), wishes);
    }
    for round in 0..10 {
        for (at, ledger) in ledgers.iter_mut().enumerate() {
            for _ in 0..10 {
                ledger.submit(guest.disk(vdev(at)), &mut world.random);
            }
            guest.disk(vdev(at)).kick();
        }
        for (at, ledger) in ledgers.iter_mut().enumerate() {
            world.drain(&mut guest, vdev(at), ledger);
        }
        for (ledger, platter) in ledgers.iter_mut().zip(&platters) {
            ledger.check(0, &platter.read(0, 256));
        }
        assert!(ledgers.iter().all(|ledger| ledger.done > round));
    }
    for (at, name) in NAMES.into_iter().enumerate() {
        world.unplug(&mut guest, &Wanted::new(5, vdev(at), name));
    }
    world.end();
}

#[test]
fn a_read_only_disk_is_read_and_never_written() {
    let mut world = World::new(7);
    let platter = world.image("/a.img", 64);
    platter.write(0, &[7; 64 * 512]);
    let mut guest = world.guest(5);
    let wanted = Wanted { read_only: true, ..DISK };
    world.plug(&mut guest, &wanted, SMALL);
    let disk = guest.disk(XVDA);
    assert!(disk.geometry().read_only());
    let buffer = disk.buffer(512).expect("a page");
    let refused = disk.submit(Operation::Write, 0, buffer).expect_err("read only");
    assert_eq!(refused.error, blkfront::SubmitError::Unlawful(blkif::Reason::ReadOnly));
    let buffer = refused.buffer.expect("it comes back");
    disk.submit(Operation::Read, 9, buffer).expect("taken");
    disk.kick();
    world.settle(&mut [&mut guest]);
    let completion = guest.disk(XVDA).poll().expect("honest").expect("an answer");
    let mut bytes = [0; 512];
    completion.buffer.expect("its buffer").read(0, &mut bytes);
    assert_eq!(bytes, [7; 512]);
    world.unplug(&mut guest, &DISK);
    world.end();
}

#[test]
fn two_guests_at_once_each_have_their_own() {
    let mut world = World::new(8);
    let (first, second) = (world.image("/a", SECTORS), world.image("/b", SECTORS));
    let mut guests = [world.guest(5), world.guest(6)];
    let wanted = [Wanted::new(5, XVDA, "/a"), Wanted::new(6, XVDA, "/b")];
    let mut ledgers = [Ledger::new(SECTORS), Ledger::new(SECTORS)];
    for (guest, wanted) in guests.iter_mut().zip(&wanted) {
        world.plug(guest, wanted, SMALL);
    }
    for _ in 0..30 {
        for (guest, ledger) in guests.iter_mut().zip(&mut ledgers) {
            for _ in 0..10 {
                ledger.submit(guest.disk(XVDA), &mut world.random);
            }
            guest.disk(XVDA).kick();
        }
        for (guest, ledger) in guests.iter_mut().zip(&mut ledgers) {
            world.drain(guest, XVDA, ledger);
        }
    }
    for (ledger, platter) in ledgers.iter_mut().zip([first, second]) {
        ledger.check(0, &platter.read(0, SECTORS));
        assert!(ledger.done > 100 && ledger.failed == 0);
    }
    for (guest, wanted) in guests.iter_mut().zip(&wanted) {
        world.unplug(guest, wanted);
    }
    world.end();
}
