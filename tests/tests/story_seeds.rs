//! Tales of random work and trouble, each from one seed, with several guests and one back; the
//! reference models know what may stand on the disks at any time. `cargo xtask sim` tells many more.
//!
//! A failure prints its seed; `SEED=n cargo test -p tests --test story_seeds` tells that one again.

use std::time::Duration;

use tests::{End, Failure, Script, shrink, tried};

/// As many as take seconds without optimization.
const SEEDS: u64 = 200;
/// One seed in so many is told twice.
const TWICE_ONE_IN: u64 = 10;
/// How long a failing script is made shorter.
const SHRINK_MAX: Duration = Duration::from_secs(60);

/// Ends the test with the seed and the shortest script that fails.
fn fail(seed: u64, failure: &Failure) -> ! {
    let small = shrink(&Script::of(seed), SHRINK_MAX, |script| {
        tried(script).is_err_and(|other| other.place == failure.place)
    });
    panic!("SEED={seed}: {failure}\nthe shortest script found that fails there:\n{small}");
}

#[test]
fn tales_of_random_work_and_trouble_agree_with_what_is_known_of_the_disks() {
    let chosen = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seeds = chosen.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut operations, mut connections, mut followed, mut changed) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let script = Script::of(seed);
        let outcome = tried(&script).unwrap_or_else(|failure| fail(seed, &failure));
        if seed.is_multiple_of(TWICE_ONE_IN) {
            let again = tried(&script).expect("it ended well before");
            assert!(again == outcome, "SEED={seed}: told again the tale is another one");
        }
        operations += outcome.score.operations;
        connections += outcome.score.connections;
        followed += outcome.score.followed;
        changed += outcome.score.ends.get(&End::Changed).copied().unwrap_or(0);
    }
    let seeds = seeds.end - seeds.start;
    assert!(operations > 200 * seeds && connections >= seeds, "{operations} {connections}");
    assert!(seeds == 1 || (followed > seeds / 4 && changed > seeds / 4), "{followed} {changed}");
}

#[test]
fn another_seed_is_another_tale() {
    let trace = |seed| tried(&Script::of(seed)).map(|outcome| outcome.trace);
    assert_ne!(trace(42), trace(43));
}
