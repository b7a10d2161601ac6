//! What a disk counts about itself.

/// Events of one disk since it was connected. All counts wrap after 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests put on the ring.
    pub requests: u64,
    /// Requests that went down as a part of another one.
    pub merged: u64,
    /// Those of them that were answered.
    pub merged_responses: u64,
    /// Responses taken.
    pub responses: u64,
    /// Times that one or more new requests were made visible together.
    pub batches: u64,
    /// Times that one or more responses were taken together.
    pub response_batches: u64,
    /// Events sent to the back.
    pub notifications_sent: u64,
    /// Events that came from the back.
    pub notifications_received: u64,
    /// Responses that said anything but "done".
    pub errors: u64,
    /// Sectors of 512 bytes that were asked for.
    pub read_sectors: u64,
    /// Sectors of 512 bytes that were to be written.
    pub written_sectors: u64,
}

impl Counters {
    /// Requests that went down, each part of a merged one by itself.
    pub const fn submitted(&self) -> u64 {
        self.requests.wrapping_add(self.merged)
    }

    /// Requests that were answered, each part of a merged one by itself.
    pub const fn completed(&self) -> u64 {
        self.responses.wrapping_add(self.merged_responses)
    }
}
