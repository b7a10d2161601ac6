//! Every silly value for every node that a peer may write.

/// The nodes of a front that a back reads.
pub const FRONT_KEYS: [&str; 9] = [
    "protocol",
    "ring-ref",
    "ring-ref0",
    "ring-ref1",
    "ring-page-order",
    "event-channel",
    "feature-persistent",
    "multi-queue-num-queues",
    "queue-0",
];

/// The nodes of a back that a front reads.
pub const BACK_KEYS: [&str; 11] = [
    "max-ring-page-order",
    "sectors",
    "sector-size",
    "physical-sector-size",
    "info",
    "feature-persistent",
    "feature-flush-cache",
    "feature-discard",
    "discard-granularity",
    "discard-alignment",
    "multi-queue-max-queues",
];

/// What is written into them; `None` takes the node away.
pub const VALUES: [Option<&str>; 34] = [
    None,
    Some(""),
    Some(" "),
    Some("0"),
    Some("1"),
    Some("2"),
    Some("4"),
    Some("5"),
    Some("8"),
    Some("511"),
    Some("513"),
    Some("-1"),
    Some("-0"),
    Some("+1"),
    Some("01"),
    Some("1 "),
    Some(" 1"),
    Some("1\n"),
    Some("0x1"),
    Some("1e3"),
    Some("1.0"),
    Some("yes"),
    Some("native"),
    Some("x86_32-abi"),
    Some("4095"),
    Some("4096"),
    Some("2147483648"),
    Some("4294967295"),
    Some("4294967296"),
    Some("9223372036854775808"),
    Some("18446744073709551615"),
    Some("18446744073709551616"),
    Some("99999999999999999999999999999999999999999999999999"),
    Some("\u{661}\u{fffd}"),
];
