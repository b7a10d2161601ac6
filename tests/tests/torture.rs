//! A little of what `cargo xtask torture` does by the million.

use sim::Random;
use tests::torture::orders::{ORDERS, Order, Speaker, Stage};
use tests::torture::plan::{Job, exhaustive};
use tests::torture::{Flicker, Tally, answers, pages, requests};

#[test]
fn hostile_requests_are_read_as_the_oracle_reads_them() {
    let memory = Flicker::new(2048, 0);
    let mut tally = Tally::default();
    requests::play(&memory, &mut Random::new(1), 30_000, &mut tally);
    assert_eq!(tally.requests, 30_000);
    assert!(tally.statuses().iter().all(|&count| count > 3000), "{tally}");
}

#[test]
fn hostile_pages_get_lawful_answers_at_a_bounded_cost() {
    let memory = Flicker::new(pages::WORDS, 16);
    let mut tally = Tally::default();
    let mut random = Random::new(1);
    while tally.pages < 1000 {
        pages::play(&memory, &mut random, 64, &mut tally);
    }
    assert!(tally.broken > 5 && tally.left_in_flight > 5, "{tally}");
    assert!(tally.statuses().iter().all(|&count| count > 1000), "{tally}");
}

#[test]
fn a_front_is_never_talked_into_anything_by_its_back() {
    let house = answers::House::new();
    let mut tally = Tally::default();
    let mut random = Random::new(1);
    while tally.steps < 5000 {
        answers::play(&house, &mut random, &mut tally);
    }
    assert!(tally.faults > 10, "{tally}");
}

#[test]
fn states_in_any_order_with_any_value_of_any_node_do_no_harm() {
    let mut random = Random::new(1);
    for speaker in [Speaker::Front, Speaker::Back] {
        let mut stage = Stage::new();
        for _ in 0..150 {
            let number = random.next() % ORDERS;
            stage.play(speaker, &Order::new(speaker, number, random.next()));
        }
    }
}

#[test]
fn the_exhaustive_part_covers_all_orders_and_all_indexes_once() {
    let jobs = exhaustive(2);
    let orders = |job: &&Job| matches!(job, Job::Orders(Speaker::Front, _));
    let indexes = |job: &&Job| matches!(job, Job::Indexes(..));
    assert_eq!(jobs.iter().filter(orders).count() as u64, ORDERS.div_ceil(1000));
    assert_eq!(jobs.iter().filter(indexes).count(), 2 * 2 * 64);
    // Every value of every node, at every place, and none at all: one in so many each.
    let silly: std::collections::BTreeSet<_> =
        (0..10 * 34 * 6).map(|turn| Order::new(Speaker::Front, 0, turn).silly).collect();
    assert_eq!(silly.len(), 9 * 34 * 6 + 1);
}

#[test]
fn a_round_done_again_from_its_seed_is_the_same_round() {
    let round = Job::Round { seed: 7, requests: 500, pages: 50 };
    let mut tallies = [Tally::default(), Tally::default()];
    tallies.iter_mut().for_each(|tally| round.run(tally));
    assert_eq!(tallies[0], tallies[1]);
    assert_eq!(round.again(), "--random-only --seed 7 --requests 500 --pages 50");
}
