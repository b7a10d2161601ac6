//! The names of the xenstore nodes, and the numbers in them.
//!
//! A peer may write anything into its nodes. An optional node that is absent has its default; a
//! node that is there and makes no sense refuses the connection, by the node's name. Nothing else
//! is guessed.

use core::fmt;

/// Digits of the longest 64-bit number; anything longer is not looked at.
const DIGITS_MAX: usize = 20;

pub(crate) const PROTOCOL: &str = "protocol";
pub(crate) const RING_REF: &str = "ring-ref";
pub(crate) const RING_PAGE_ORDER: &str = "ring-page-order";
pub(crate) const EVENT_CHANNEL: &str = "event-channel";
pub(crate) const NUM_QUEUES: &str = "multi-queue-num-queues";
pub(crate) const PERSISTENT: &str = "feature-persistent";
pub(crate) const MAX_RING_PAGE_ORDER: &str = "max-ring-page-order";
pub(crate) const MAX_INDIRECT_SEGMENTS: &str = "feature-max-indirect-segments";
pub(crate) const FLUSH: &str = "feature-flush-cache";
pub(crate) const DISCARD: &str = "feature-discard";
pub(crate) const DISCARD_GRANULARITY: &str = "discard-granularity";
pub(crate) const DISCARD_ALIGNMENT: &str = "discard-alignment";
pub(crate) const SECTORS: &str = "sectors";
pub(crate) const INFO: &str = "info";
pub(crate) const SECTOR_SIZE: &str = "sector-size";
pub(crate) const PHYSICAL_SECTOR_SIZE: &str = "physical-sector-size";

/// The names of the ring's pages when there is more than one.
pub const RING_REFS: [&str; crate::RING_PAGES_MAX] = [
    "ring-ref0",
    "ring-ref1",
    "ring-ref2",
    "ring-ref3",
    "ring-ref4",
    "ring-ref5",
    "ring-ref6",
    "ring-ref7",
    "ring-ref8",
    "ring-ref9",
    "ring-ref10",
    "ring-ref11",
    "ring-ref12",
    "ring-ref13",
    "ring-ref14",
    "ring-ref15",
];

/// Every node that [`FrontOffer`](crate::FrontOffer) reads, besides [`RING_REFS`].
pub const FRONT_KEYS: [&str; 6] =
    [PROTOCOL, RING_REF, RING_PAGE_ORDER, EVENT_CHANNEL, NUM_QUEUES, PERSISTENT];

/// Every node that [`BackOffer`](crate::BackOffer) and [`Geometry`](crate::Geometry) read.
pub const BACK_KEYS: [&str; 11] = [
    MAX_RING_PAGE_ORDER,
    MAX_INDIRECT_SEGMENTS,
    PERSISTENT,
    FLUSH,
    DISCARD,
    DISCARD_GRANULARITY,
    DISCARD_ALIGNMENT,
    SECTORS,
    INFO,
    SECTOR_SIZE,
    PHYSICAL_SECTOR_SIZE,
];

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silly {
    /// It must be there and is not.
    Missing,
    /// It is not a plain decimal number.
    NotANumber,
    /// Its number is below the smallest that makes sense.
    TooSmall {
        /// The number.
        value: u64,
        /// The smallest one taken.
        least: u64,
    },
    /// Its number is above what makes sense, or was offered.
    TooLarge {
        /// The number.
        value: u64,
        /// The largest one taken.
        most: u64,
    },
    /// It must be a power of two.
    NotAPowerOfTwo(u64),
    /// It names a page that another node names too.
    Repeated(u64),
    /// It says something that is not known here.
    Unknown,
}

/// Why the devices cannot be connected: a node and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the node, within the directory of the side that wrote it.
    pub key: &'static str,
    /// What is wrong with it.
    pub silly: Silly,
}

impl Refusal {
    pub(crate) const fn new(key: &'static str, silly: Silly) -> Self {
        Self { key, silly }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key;
        match self.silly {
            Silly::Missing => write!(f, "{key} is missing"),
            Silly::NotANumber => write!(f, "{key} is not a decimal number"),
            Silly::TooSmall { value, least } => {
                write!(f, "{key} is {value}, at least {least} is needed")
            }
            Silly::TooLarge { value, most } => {
                write!(f, "{key} is {value}, at most {most} is taken")
            }
            Silly::NotAPowerOfTwo(value) => write!(f, "{key} is {value}, not a power of two"),
            Silly::Repeated(value) => {
                write!(f, "{key} is {value}, which is in use for another page")
            }
            Silly::Unknown => write!(f, "{key} names something unknown here"),
        }
    }
}

impl core::error::Error for Refusal {}

/// The number in a node: decimal digits and nothing else. `None` if there is no such node.
pub(crate) fn number<S: AsRef<str>>(
    key: &'static str,
    text: Option<S>,
) -> Result<Option<u64>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let text = text.as_ref();
    let plain = text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if plain { text.parse().ok() } else { None };
    value.map(Some).ok_or(Refusal::new(key, Silly::NotANumber))
}

/// The same for a number of at most `most`, and `default` if there is no such node.
pub(crate) fn number_up_to<S: AsRef<str>>(
    key: &'static str,
    text: Option<S>,
    (default, most): (u32, u32),
) -> Result<u32, Refusal> {
    let Some(value) = number(key, text)? else { return Ok(default) };
    u32::try_from(value)
        .ok()
        .filter(|&value| value <= most)
        .ok_or(Refusal::new(key, Silly::TooLarge { value, most: u64::from(most) }))
}

/// The switch in a node: off if absent or 0, on for any other number, as Linux reads it.
pub(crate) fn switch<S: AsRef<str>>(key: &'static str, text: Option<S>) -> Result<bool, Refusal> {
    Ok(number(key, text)?.is_some_and(|value| value != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_node_and_what_was_wrong_with_it() {
        extern crate std;
        use std::string::ToString;
        let text = |silly| Refusal::new("ring-ref", silly).to_string();
        assert_eq!(text(Silly::Missing), "ring-ref is missing");
        assert_eq!(text(Silly::NotANumber), "ring-ref is not a decimal number");
        let small = Silly::TooSmall { value: 0, least: 8 };
        assert_eq!(text(small), "ring-ref is 0, at least 8 is needed");
        let large = Silly::TooLarge { value: 9, most: 8 };
        assert_eq!(text(large), "ring-ref is 9, at most 8 is taken");
        assert_eq!(text(Silly::NotAPowerOfTwo(3)), "ring-ref is 3, not a power of two");
        assert_eq!(text(Silly::Repeated(7)), "ring-ref is 7, which is in use for another page");
        assert_eq!(text(Silly::Unknown), "ring-ref names something unknown here");
    }

    #[test]
    fn a_number_is_decimal_digits_and_nothing_else() {
        let read = |text| number("n", Some(text));
        assert_eq!(number::<&str>("n", None), Ok(None));
        assert_eq!(read("0"), Ok(Some(0)));
        assert_eq!(read("18446744073709551615"), Ok(Some(u64::MAX)));
        for text in [
            "",
            " ",
            "-1",
            "+1",
            "1 ",
            " 1",
            "1\n",
            "0x10",
            "1e3",
            "1.0",
            "٣",
            "\u{fffd}",
            "18446744073709551616",
            "99999999999999999999",
            "000000000000000000001",
        ] {
            assert_eq!(read(text), Err(Refusal::new("n", Silly::NotANumber)), "{text:?}");
        }
    }

    #[test]
    fn a_bounded_number_is_taken_at_its_limit_and_refused_one_past_it() {
        let read = |text| number_up_to("n", Some(text), (0, 4));
        assert_eq!(read("4"), Ok(4));
        assert_eq!(read("5"), Err(Refusal::new("n", Silly::TooLarge { value: 5, most: 4 })));
        // 2^32 + 1 must not be taken for 1.
        assert!(read("4294967297").is_err());
        assert_eq!(number_up_to::<&str>("n", None, (3, 4)), Ok(3));
    }

    #[test]
    fn a_switch_is_off_when_absent_and_refused_when_not_a_number() {
        assert_eq!(switch::<&str>("s", None), Ok(false));
        assert_eq!(switch("s", Some("0")), Ok(false));
        assert_eq!(switch("s", Some("1")), Ok(true));
        assert_eq!(switch("s", Some("yes")), Err(Refusal::new("s", Silly::NotANumber)));
    }
}
