//! The pages of `memtest`: each says which it is, how often it was written, and what it must sum
//! up to.

/// Words of 8 bytes in a page.
pub const WORDS: usize = 512;

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is another page: the one that it says.
    Page(u64),
    /// It is from another time: the writing that it says.
    Round(u64),
    /// Its checksum does not hold.
    Sum,
    /// It was never written, and is not zeros.
    NotZero,
}

/// Spreads a number over all bits.
pub const fn mix(seed: u64) -> u64 {
    let seed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ seed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ seed >> 31
}

/// The sum of a page: the order of its words counts.
fn sum(words: &[u64]) -> u64 {
    words
        .iter()
        .fold(0x9e37_79b9_7f4a_7c15, |sum, word| (sum ^ word).rotate_left(5).wrapping_mul(5))
}

/// Fills a page: its number, which writing this is (from 1), noise, and the sum of all that.
pub fn fill(words: &mut [u64; WORDS], page: u64, round: u64) {
    let [number, writing, noise @ .., last] = words;
    (*number, *writing) = (page, round);
    let mut value = mix(page ^ round << 32);
    for word in noise {
        value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        *word = value;
    }
    *last = 0;
    words[WORDS - 1] = sum(&words[..WORDS - 1]);
}

/// Checks a page that was written `round` times.
///
/// # Errors
/// [`Wrong`].
pub fn check(words: &[u64; WORDS], page: u64, round: u64) -> Result<(), Wrong> {
    if round == 0 {
        let zeros = words.iter().all(|&word| word == 0);
        return if zeros { Ok(()) } else { Err(Wrong::NotZero) };
    }
    let [number, writing, .., last] = words;
    if *last != sum(&words[..WORDS - 1]) {
        Err(Wrong::Sum)
    } else if *number != page {
        Err(Wrong::Page(*number))
    } else if *writing != round {
        Err(Wrong::Round(*writing))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_number_and_round_and_every_bit_counts() {
        let mut words = [0; WORDS];
        assert_eq!(check(&words, 7, 0), Ok(()));
        fill(&mut words, 7, 3);
        assert_eq!(check(&words, 7, 3), Ok(()));
        assert_eq!(check(&words, 8, 3), Err(Wrong::Page(7)));
        assert_eq!(check(&words, 7, 4), Err(Wrong::Round(3)));
        assert_eq!(check(&words, 7, 0), Err(Wrong::NotZero));
        for at in 0..WORDS {
            for bit in [0, 17, 63] {
                words[at] ^= 1 << bit;
                assert!(check(&words, 7, 3).is_err(), "word {at}, bit {bit}");
                words[at] ^= 1 << bit;
            }
        }
    }
}
