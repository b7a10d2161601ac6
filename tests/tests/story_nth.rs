//! The n-th call fails, once or from then on; the n-th job of the disk fails; the back or the guest
//! dies at its n-th call: for every n, until a scenario passes untouched. Afterwards, when nothing
//! goes wrong any more, everything connects, works, and is given back.

use blkfront::Wishes;
use sim::{Call, Spell, Strike};
use tests::script::{Act, Role, Script, What};
use tests::{Outcome, tried};
use xen::DomainId;

const GUEST: DomainId = DomainId(1);
const BACK: DomainId = DomainId::ZERO;
/// The only disk.
const DISK: (usize, usize) = (0, 0);
/// No scenario makes so many calls of one kind.
const CALLS_MAX: u64 = 2000;

/// More calls than a turn makes: a guest that dies after so many dies at the end of its turn.
const NEVER: usize = 1 << 20;

/// The scenario of a guest that has a UUID.
const RETURN: &str = "restart of a guest with its disk";

/// Everybody has so many turns.
fn turns(count: usize) -> Vec<What> {
    vec![What::Everybody; count]
}

/// What happens, up to the moment when nothing goes wrong any more.
fn scenarios() -> Vec<(&'static str, Vec<What>)> {
    let connect = turns(7);
    let work = [What::Work(DISK, 12), What::Workers, What::Everybody];
    let load = [connect.clone(), work.repeat(3), turns(2)].concat();
    let flush = [
        connect.clone(),
        vec![What::Work(DISK, 6), What::Flush(DISK), What::Everybody, What::Flush(DISK)],
        turns(3),
    ];
    // While requests are in flight, and again before whoever asked has his answer.
    let resize = [
        vec![What::Work(DISK, 12), What::Grow(DISK)],
        turns(3),
        vec![What::Work(DISK, 12), What::Grow(DISK), What::Control, What::Grow(DISK)],
        turns(3),
        vec![What::Work(DISK, 12)],
    ];
    let resize = resize.concat();
    let then = |what: &[What]| [load.clone(), what.to_vec(), turns(9)].concat();
    vec![
        ("connect", connect),
        ("load", load.clone()),
        ("flush", flush.concat()),
        ("detach", then(&[What::Work(DISK, 12), What::Detach(DISK)])),
        ("close", then(&[What::Work(DISK, 12), What::Close(DISK)])),
        ("restart of the back", then(&[What::BackLeaves])),
        ("restart of the guest", then(&[What::GuestDies(0, NEVER)])),
        (RETURN, then(&[What::GuestDies(0, NEVER)])),
        ("resize", [load.clone(), resize, turns(4)].concat()),
        ("another image", then(&[What::Work(DISK, 12), What::Change(DISK)])),
    ]
}

fn script(name: &str, acts: &[What], persistent: bool) -> Script {
    let disks = vec![Wishes { order: 0, pool_pages: 12 }];
    let role = Role { persistent, elevator: "noop", disks, named: name == RETURN };
    let mut script = Script::good(1, vec![role]);
    script.acts = (1..).zip(acts).map(|(dice, &what)| Act { what, dice }).collect();
    script
}

/// Whether anything failed or died that was to.
fn was_hit(outcome: &Outcome) -> bool {
    let hits = outcome.score.faults.iter();
    hits.filter(|(name, _)| !["merged event", "job cut off"].contains(*name)).any(|(_, &n)| n > 0)
}

/// Tells a scenario with trouble at the n-th, for all n until it passes untouched; tells how many
/// runs that were.
fn for_every_n(what: &str, scenario: &Script, set: impl Fn(&mut Script, u64)) -> u64 {
    for n in 0..CALLS_MAX {
        let mut script = scenario.clone();
        set(&mut script, n);
        match tried(&script) {
            Ok(outcome) if !was_hit(&outcome) => return n + 1,
            Ok(_) => {}
            Err(failure) => panic!("{what}, {n} before: {failure}\n{script}"),
        }
    }
    panic!("{what}: hit for ever");
}

/// Every scenario with one kind of trouble; tells how many runs that were.
fn for_every_scenario(trouble: &str, set: impl Fn(&mut Script, u64)) -> u64 {
    let mut runs = 0;
    for (name, acts) in scenarios() {
        for persistent in [true, false] {
            let what = format!("{name}, {trouble}, grants kept: {persistent}");
            runs += for_every_n(&what, &script(name, &acts, persistent), &set);
        }
    }
    runs
}

#[test]
fn a_scenario_without_trouble_does_its_work() {
    for (name, acts) in scenarios() {
        let outcome = tried(&script(name, &acts, true)).expect("it ends well");
        assert!(!was_hit(&outcome) || name.contains("restart"), "{name}");
        let score = outcome.score;
        assert_eq!(score.followed, u64::from(name == RETURN), "{name}");
        assert_eq!(score.growths, 3 * u64::from(name == "resize"), "{name}");
        assert!(score.connections > 0 && (score.operations > 10 || name == "connect"), "{name}");
    }
}

#[test]
fn any_call_of_the_guest_may_fail() {
    for spell in [Spell::Once, Spell::FromThenOn] {
        for call in Call::FALLIBLE {
            for_every_scenario(&format!("{call:?} {spell:?}"), |script, after| {
                script.strike = Some(Strike { who: GUEST, call, after, spell });
            });
        }
    }
}

#[test]
fn any_call_of_domain_0_may_fail() {
    for spell in [Spell::Once, Spell::FromThenOn] {
        for call in Call::FALLIBLE {
            for_every_scenario(&format!("{call:?} {spell:?}"), |script, after| {
                script.strike = Some(Strike { who: BACK, call, after, spell });
            });
        }
    }
}

#[test]
fn any_job_of_the_disk_may_fail() {
    for spell in [Spell::Once, Spell::FromThenOn] {
        let runs = for_every_scenario(&format!("job {spell:?}"), |script, after| {
            script.job_strike = Some((after, spell));
        });
        assert!(runs > 100, "{runs}");
    }
}

#[test]
fn the_back_may_die_at_any_call() {
    let runs = for_every_scenario("the back dies", |script, calls| {
        script.doom = Some((BACK, calls));
    });
    assert!(runs > 1000, "{runs}");
}

#[test]
fn the_guest_may_die_at_any_call() {
    let runs = for_every_scenario("the guest dies", |script, calls| {
        script.doom = Some((GUEST, calls));
    });
    assert!(runs > 1000, "{runs}");
}
