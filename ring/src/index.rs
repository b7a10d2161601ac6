//! Free-running ring indexes, and the answer when a peer's index makes no sense.
//!
//! Indexes count messages modulo 2^32 and are masked only when a slot is addressed
//! (`xen/include/public/io/ring.h`). They have a distance but no order: `<` on them would be wrong
//! once in four billion messages, so there is none to misuse.

use core::fmt;

/// The values that an index takes: all of 32 bits. A build with `--cfg narrow` has 8, so that
/// `tests/complete.rs` can try every value there is.
const VALUES: u32 = if cfg!(narrow) { 0xff } else { u32::MAX };

/// A free-running count of messages, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index(u32);

impl Index {
    /// Wraps the raw counter.
    pub const fn new(raw: u32) -> Self {
        Self(raw & VALUES)
    }

    /// The raw counter, as it stands in shared memory.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The index `count` messages later.
    #[must_use]
    pub const fn after(self, count: u32) -> Self {
        Self::new(self.0.wrapping_add(count))
    }

    /// How many messages lie between `earlier` and this index.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0) & VALUES
    }
}

/// The peer's index lies outside what can be outstanding: this ring cannot be used any more.
///
/// The owner stops this one ring and takes its device to an error state; nothing was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The index that the peer wrote.
    pub alleged: Index,
    /// Our own index that it was held against.
    pub consumed: Index,
    /// How far ahead of `consumed` the peer could honestly be.
    pub limit: u32,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peer's ring index {} is {} past {}, at most {} can be outstanding",
            self.alleged.raw(),
            self.alleged.since(self.consumed),
            self.consumed.raw(),
            self.limit
        )
    }
}

impl core::error::Error for Broken {}

/// Accepts the peer's index if it is at most `limit` past `consumed`, and gives the distance.
pub(crate) fn bounded(alleged: Index, consumed: Index, limit: u32) -> Result<u32, Broken> {
    let distance = alleged.since(consumed);
    if distance <= limit { Ok(distance) } else { Err(Broken { alleged, consumed, limit }) }
}
