//! Power fails at any moment: what was flushed is there, what was not is old or new, and nothing is
//! foreign.
//!
//! Every workload of up to three operations on a disk of four blocks, sent one by one and all at
//! once, with its jobs ending in every order; after each thing that happens, everything that the
//! disk might hold if power failed then. Longer workloads are drawn from seeds, with a real end and
//! a machine that boots again.

use blkfront::Wishes;
use blkif::Operation;
use sim::Random;
use tests::{Choices, Guest, Ledger, Platter, Wanted, World};

const BLOCKS: usize = 4;
const XVDA: u32 = 51712;
const WISHES: Wishes = Wishes { order: 0, pool_pages: 16 };
const DISK: Wanted<'static> = Wanted::new(5, XVDA, "/a.img");
/// Turns in which a workload of three operations has ended.
const TURNS_MAX: usize = 100;

/// An operation and its blocks.
type Job = (Operation, usize, usize);

/// A guest with its disk.
struct Scene {
    world: World,
    guest: Guest,
    platter: Platter,
    ledger: Ledger,
    /// Disks that were looked at.
    states: usize,
}

impl Scene {
    fn new(seed: u64, persistent: bool) -> Self {
        let mut world = World::new(seed);
        let platter = world.image("/a.img", BLOCKS);
        let mut guest = world.guest(5);
        guest.persistent = persistent;
        world.plug(&mut guest, &DISK, WISHES);
        Self { world, guest, platter, ledger: Ledger::new(BLOCKS), states: 0 }
    }

    /// One job of the disk may end, everybody has a turn, and at each moment power could fail.
    fn step(&mut self) {
        self.platter.allow(1);
        self.world.turn_back();
        self.look();
        self.guest.turn();
        self.guest.listen(XVDA, &mut self.ledger);
        self.look();
    }

    fn look(&mut self) {
        self.states += self.ledger.check_if_power_failed(&self.platter);
    }

    fn drain(&mut self) {
        self.guest.disk(XVDA).kick();
        for _ in 0..TURNS_MAX {
            if self.ledger.in_flight() == 0 {
                return;
            }
            self.step();
        }
        panic!("{} operations never end", self.ledger.in_flight());
    }

    /// Submits an operation, as soon as it overlaps with none in flight.
    fn submit(&mut self, (operation, block, blocks): Job) {
        while !self.ledger.request(self.guest.disk(XVDA), operation, block, blocks) {
            self.drain();
        }
    }

    /// Runs a workload in one way.
    fn run(&mut self, jobs: &[Job], at_once: bool) {
        self.platter.write(0, &[0; BLOCKS * 512]);
        self.ledger = Ledger::new(BLOCKS);
        for &job in jobs {
            self.submit(job);
            if !at_once {
                self.drain();
            }
        }
        self.drain();
        assert_eq!((self.ledger.done, self.ledger.failed), (jobs.len(), 0));
        self.ledger.check(0, &self.platter.read(0, BLOCKS));
    }
}

/// Every operation: each on each block, and flushes with and without data.
fn operations() -> Vec<Job> {
    let kinds = [Operation::Read, Operation::Write, Operation::Discard, Operation::Flush];
    let each = |operation| (0..BLOCKS).map(move |block| (operation, block, 1));
    kinds.into_iter().flat_map(each).chain([(Operation::Flush, 0, 0)]).collect()
}

/// Every workload of `length` operations.
fn workloads(length: usize) -> Vec<Vec<Job>> {
    let more =
        |before: Vec<Job>| operations().into_iter().map(move |job| [&before[..], &[job]].concat());
    (0..length).fold(vec![Vec::new()], |all, _| all.into_iter().flat_map(more).collect())
}

fn explore(persistent: bool) {
    let mut scene = Scene::new(1, persistent);
    let choices = Choices::default();
    scene.platter.set_choices(choices.clone());
    let (mut workloads_run, mut ways) = (0, 0);
    for jobs in (1..=3).flat_map(workloads) {
        for at_once in [false, true] {
            workloads_run += 1;
            loop {
                scene.run(&jobs, at_once);
                ways += 1;
                if !choices.next_run() {
                    break;
                }
            }
        }
    }
    println!("{workloads_run} workloads, {ways} ways, {} disks after a power cut", scene.states);
    assert!(workloads_run > 10_000 && ways > workloads_run && scene.states > 100_000);
    scene.platter.allow(usize::MAX);
    scene.world.unplug(&mut scene.guest, &DISK);
    scene.world.end();
}

#[test]
fn every_workload_of_three_operations_survives_a_power_cut_at_any_moment() {
    explore(true);
}

#[test]
fn and_so_it_does_when_grants_are_copied() {
    explore(false);
}

#[test]
fn longer_workloads_survive_a_power_cut_and_the_machine_boots_again() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut scene = Scene::new(seed, seed.is_multiple_of(2));
        let operations = operations();
        for _ in 0..3 {
            for _ in 0..4 + random.below(12) {
                let job = operations[random.below(operations.len())];
                scene.submit(job);
                if random.below(2) == 0 {
                    scene.guest.disk(XVDA).kick();
                    scene.step();
                }
            }
            scene.world.cut_power();
            scene.platter.allow(usize::MAX);
            scene.ledger.check_after_power_cut(&scene.platter);
            scene.world.start_back();
            scene.guest = scene.world.guest(5);
            scene.world.plug(&mut scene.guest, &DISK, WISHES);
            for block in 0..BLOCKS {
                scene.submit((Operation::Read, block, 1));
            }
            scene.drain();
        }
        scene.platter.allow(usize::MAX);
        scene.world.unplug(&mut scene.guest, &DISK);
        scene.world.end();
    }
}
