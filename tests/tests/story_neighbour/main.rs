//! Bad neighbours: whatever a guest does with its own disk, another guest's disk keeps its pace,
//! and the work that the attacker makes for domain 0 in one round is bounded.
//!
//! A round gives each thread of the daemon and each guest one turn, so what is measured is by how
//! much one holds up another. How processor time is shared out among threads is for Dom0's
//! scheduler; that a turn cannot be made long is shown by the torture.

mod attacker;
mod said;
mod scripts;

use blkfront::Wishes;
use sim::Random;
use tests::{Guest, Ledger, Wanted, World};
use xen::DomainId;

use attacker::Attacker;
use scripts::{SCRIPTS, Script};

const SECTORS: usize = 1024;
const XVDA: u32 = 51712;
const XVDB: u32 = 51728;
const WISHES: Wishes = Wishes { order: 0, pool_pages: 200 };
const GOOD: Wanted<'static> = Wanted::new(6, XVDA, "/good.img");
const LATER: Wanted<'static> = Wanted::new(6, XVDB, "/later.img");

/// Rounds of an attack.
const ROUNDS: usize = 120;
/// The round in which the neighbour gets a second disk.
const PLUGGED: usize = 60;
/// Calls that domain 0 may make in one round beyond those that it makes for the neighbour alone: one
/// for each request of a ring, or a few steps of the control plane.
const CALLS_MAX: u64 = 48;
/// Warnings and errors that one attack may have the daemon say.
const LINES_MAX: u64 = 20;

/// How a neighbour fared.
#[derive(Debug)]
struct Fare {
    /// Requests that it had answered.
    done: usize,
    /// Rounds until its second disk was in service.
    waited: usize,
    /// The most calls that domain 0 made in one round.
    calls: u64,
    /// And in all rounds.
    all_calls: u64,
    /// Warnings and errors in the daemon's log.
    lines: u64,
    /// What the attacker did, in whatever it counts.
    attacks: u64,
}

/// Lets the neighbour work as fast as it can, beside an attacker or one that does nothing, and beside
/// so many disks that nobody connects.
fn fare(script: Script, idle: u32) -> Fare {
    let mut world = World::new(1);
    world.image(GOOD.image, SECTORS);
    world.image(LATER.image, SECTORS);
    let mut attacker = Attacker::new(&mut world);
    let images: Vec<String> = (1..=idle).map(|nth| format!("/idle{nth}.img")).collect();
    images.iter().for_each(|image| drop(world.image(image, SECTORS)));
    let idle: Vec<Wanted<'_>> =
        (1..).zip(&images).map(|(nth, image)| Wanted::new(6, XVDB + 16 * nth, image)).collect();
    idle.iter().for_each(|wanted| wanted.attach(&world.dom0).expect("attached"));
    world.settle_back();
    let mut guest = world.guest(6);
    world.plug(&mut guest, &GOOD, WISHES);
    let (mut ledger, mut random) = (Ledger::new(SECTORS), Random::new(5));
    let mut fare = Fare { done: 0, waited: 0, calls: 0, all_calls: 0, lines: 0, attacks: 0 };
    let said = said::lines();
    for round in 0..ROUNDS {
        script(&mut attacker, round);
        if round == PLUGGED {
            LATER.attach(&world.dom0).expect("attached");
            guest.open(XVDB, WISHES);
        }
        if round >= PLUGGED && !guest.is_connected(XVDB) {
            fare.waited += 1;
        }
        let before = world.sim.calls(DomainId::ZERO);
        world.turn_back();
        let calls = world.sim.calls(DomainId::ZERO) - before;
        fare.calls = fare.calls.max(calls);
        fare.all_calls += calls;
        work(&mut guest, &mut ledger, &mut random);
    }
    assert!(ledger.failed == 0, "the neighbour's requests failed");
    (fare.done, fare.attacks) = (ledger.done, attacker.attacks);
    fare.lines = said::lines() - said;
    idle.iter().for_each(|wanted| wanted.remove(&world.dom0).expect("removed"));
    end(world, guest, attacker);
    fare
}

/// The neighbour takes what is there and asks for more.
fn work(guest: &mut Guest, ledger: &mut Ledger, random: &mut Random) {
    guest.turn();
    guest.listen(XVDA, ledger);
    while ledger.in_flight() < 24 {
        let before = ledger.in_flight();
        ledger.submit(guest.disk(XVDA), random);
        if ledger.in_flight() == before {
            break;
        }
    }
    guest.disk(XVDA).kick();
}

/// Everybody closes, and nothing of anybody is left.
fn end(mut world: World, mut guest: Guest, attacker: Attacker) {
    for _ in 0..100 {
        world.turn_back();
        guest.turn();
        while guest.disk(XVDA).poll().expect("an honest back").is_some() {}
        guest.disk(XVDA).kick();
    }
    attacker.end(&mut world);
    world.unplug(&mut guest, &LATER);
    world.unplug(&mut guest, &GOOD);
    world.end();
}

#[test]
fn a_neighbour_keeps_its_pace_whatever_a_guest_does_with_its_own_disk() {
    let quiet = fare(|_, _| {}, 0);
    assert!(quiet.done > ROUNDS * 3, "the neighbour is busy: {quiet:?}");
    assert_eq!(quiet.lines, 0, "nothing is wrong");
    let mut slowed = Vec::new();
    for (name, script) in SCRIPTS {
        let attacked = fare(script, 0);
        println!(
            "{name:40} done {} of {}, second disk after {} rounds of {}, {} calls of {}, {} lines",
            attacked.done,
            quiet.done,
            attacked.waited,
            quiet.waited,
            attacked.calls,
            quiet.calls,
            attacked.lines
        );
        assert!(attacked.attacks > 0, "{name} did nothing");
        let slow = attacked.done * 100 < quiet.done * 95;
        let late = attacked.waited > quiet.waited + 2;
        let costly = attacked.calls > quiet.calls + CALLS_MAX;
        let loud = attacked.lines > LINES_MAX;
        if slow || late || costly || loud {
            slowed.push((name, attacked));
        }
    }
    assert!(slowed.is_empty(), "beside {quiet:?}: {slowed:#?}");
}

#[test]
fn what_a_guest_does_with_its_own_disk_makes_nobody_look_at_the_disks_of_others() {
    const IDLE: u32 = 8;
    for wanted in ["the same state a hundred times", "silly nodes and a new try, for ever"] {
        let script = SCRIPTS.iter().find(|script| script.0 == wanted).expect("its name").1;
        let cost = |idle| fare(script, idle).all_calls - fare(|_, _| {}, idle).all_calls;
        let [alone, among_many] = [0, IDLE].map(cost);
        // A few looks at all disks, when something comes or goes, and not one in each round.
        assert!(among_many < alone + 200, "{wanted}: {among_many} calls and not {alone}");
    }
}
