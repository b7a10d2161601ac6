//! The back tester, played against our back on the simulator, and against backs with a fault each.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use guest_kernel::blktest::{self, Verdict};
use guest_kernel::cpu::CpuTimes;
use guest_kernel::programs::Machine;
use guest_kernel::time::Instant;
use sim::Domain;
use tests::{Wanted, World};
use xen::{DomainId, Port};

const XVDA: u32 = 51712;
const SECTORS: usize = 512;

/// A guest of the simulator with a clock that goes when it waits.
struct Played {
    world: RefCell<World>,
    guest: Domain,
    now: Cell<u64>,
    lines: RefCell<Vec<String>>,
}

impl Played {
    fn new(read_only: bool) -> Self {
        let mut world = World::new(1);
        world.image("/a.img", SECTORS);
        let wanted = Wanted { read_only, ..Wanted::new(1, XVDA, "/a.img") };
        let guest = world.sim.domain(DomainId(1));
        wanted.attach(&world.dom0).expect("attached");
        Self { world: RefCell::new(world), guest, now: Cell::new(1), lines: RefCell::default() }
    }

    fn run(&self, words: &[&str]) -> (Verdict, String) {
        let verdict = blktest::run(self, None, words);
        (verdict, self.lines.take().join("\n"))
    }
}

impl Machine for Played {
    type Grants = Domain;
    type Events = Domain;
    type Store = Domain;

    fn ends(&self) -> (Domain, Domain) {
        (self.guest.clone(), self.guest.clone())
    }

    fn store(&self) -> Option<&Domain> {
        Some(&self.guest)
    }

    fn now(&self) -> Instant {
        // Looking at the clock takes time, so that no loop around it is without an end.
        self.now.set(self.now.get() + 1000);
        Instant::from_nanos(self.now.get())
    }

    fn wall_clock(&self) -> Duration {
        Duration::ZERO
    }

    fn wait(&self, _: Option<Instant>, note: &mut dyn FnMut(Port)) {
        self.now.set(self.now.get() + 1_000_000);
        self.world.borrow_mut().turn_back();
        while let Some(port) = self.guest.take_event() {
            note(port);
        }
    }

    fn hypercalls(&self) -> u64 {
        0
    }

    fn wait_for_disks(&self, until: Option<Instant>, note: &mut dyn FnMut(Port)) {
        self.wait(until, note);
    }

    fn cpu_times(&self) -> CpuTimes {
        CpuTimes::default()
    }

    fn key(&self) -> Option<u8> {
        None
    }

    fn interrupted(&self) -> bool {
        false
    }

    fn free_pages(&self) -> u64 {
        1000
    }

    fn mark(&self, _: &'static str) {}

    fn print(&self, line: fmt::Arguments<'_>) {
        self.lines.borrow_mut().push(line.to_string());
    }
}

#[test]
fn our_back_passes_every_test_on_a_disk_that_may_be_written() {
    let (verdict, lines) = Played::new(false).run(&[]);
    assert_eq!(verdict, Verdict::Success, "{lines}");
    assert!(lines.starts_with("--- Xen Test Framework ---\n"), "{lines}");
    assert!(lines.ends_with("\nTest result: SUCCESS"), "{lines}");
    // Of no use on such a disk.
    assert_eq!(lines.lines().filter(|line| line.starts_with("SKIP")).count(), 1, "{lines}");
}

#[test]
fn our_back_passes_every_test_on_a_read_only_disk() {
    let played = Played::new(true);
    let (verdict, lines) = played.run(&[]);
    assert_eq!(verdict, Verdict::Success, "{lines}");
    assert!(lines.contains("SUCCESS a_read_only_disk_is_not_written"), "{lines}");
}

#[test]
fn a_guest_without_a_disk_skips() {
    let played = Played::new(false);
    assert_eq!(blktest::run(&played, Some("xvdb"), &[]), Verdict::Error);
    let world = World::new(1);
    let guest = world.sim.domain(DomainId(1));
    let played = Played { world: RefCell::new(world), guest, ..Played::new(false) };
    let (verdict, lines) = played.run(&[]);
    assert_eq!(verdict, Verdict::Skip, "{lines}");
    assert!(lines.ends_with("Test result: SKIP"), "{lines}");
}
