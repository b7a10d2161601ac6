//! How evenly I/Os fall to devices: Jain's index, and the share of the one that gets least.
//!
//! Jain's index of n counts is (Σ x)² / (n Σ x²): 1 if all are equal, 1/n if one has everything. Must never
//! be asked about no devices at all.

/// The index in the worst of all windows of so many I/Os in a row. `whose` names the device of each I/O,
/// in the order in which they ended, and is at least as long as a window.
#[expect(clippy::cast_precision_loss, reason = "squares of some thousands")]
pub(super) fn least_jain(devices: usize, whose: &[usize], window: usize) -> f64 {
    assert!(whose.len() >= window, "a window of {window} needs as many I/Os");
    let (mut counts, mut squares, mut worst) = (vec![0_u64; devices], 0, 0);
    for (at, &device) in whose.iter().enumerate() {
        squares += 2 * counts[device] + 1;
        counts[device] += 1;
        if at >= window {
            let left = whose[at - window];
            counts[left] -= 1;
            squares -= 2 * counts[left] + 1;
        }
        worst = worst.max(squares);
    }
    // A window that is not full yet has less to square.
    (window * window) as f64 / (devices as u64 * worst) as f64
}

/// What the device with the fewest I/Os has, in parts of what would be fair.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
pub(super) fn least_share(devices: usize, whose: &[usize]) -> f64 {
    let mut counts = vec![0_usize; devices];
    whose.iter().for_each(|&device| counts[device] += 1);
    let least = counts.into_iter().min().unwrap_or(0);
    (least * devices) as f64 / whose.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-12
    }

    #[test]
    fn the_index_is_1_if_all_get_the_same_and_one_part_if_one_gets_everything() {
        let turns: Vec<usize> = (0..40).map(|at| at % 4).collect();
        assert!(is(least_jain(4, &turns, 8), 1.0));
        assert!(is(least_jain(4, &[2; 40], 8), 0.25));
        // Counts of 3 and 1.
        assert!(is(least_jain(2, &[0, 0, 1, 0], 4), 16.0 / (2.0 * 10.0)));
    }

    #[test]
    fn the_worst_window_counts_wherever_it_is() {
        let mut random = sim::Random::new(1);
        let whose: Vec<usize> = (0..500).map(|_| random.below(3)).collect();
        let index = |window: &[usize]| {
            let count = |device| window.iter().filter(|&&it| it == device).count();
            let squares: usize = (0..3).map(|device| count(device).pow(2)).sum();
            #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
            let index = window.len().pow(2) as f64 / (3 * squares) as f64;
            index
        };
        let least = whose.windows(20).map(index).fold(1.0, f64::min);
        assert!(is(least_jain(3, &whose, 20), least));
        assert!(least < index(&whose));
    }

    #[test]
    fn the_least_share_is_that_of_the_device_that_got_least() {
        assert!(is(least_share(2, &[0, 1, 1, 0]), 1.0));
        assert!(is(least_share(2, &[0, 1, 1, 1]), 0.5));
        assert!(is(least_share(3, &[0, 1, 1, 0]), 0.0), "one got nothing");
    }
}
