//! What comes back of a request, of either kind of disk: refused at once, or answered. Either way its
//! buffer comes along.

use core::fmt;

use blkif::{Operation, Status};
use xen::Grants;

use crate::inflight::Tag;
use crate::lane::SubmitError;
use crate::pool::Buffer;

/// A request that was not taken, with its buffer.
pub struct Refused<G: Grants> {
    /// Why.
    pub error: SubmitError,
    /// The buffer that came with it.
    pub buffer: Option<Buffer<G>>,
}

// By hand: a derive would ask that `G` be `Debug` too.
impl<G: Grants> fmt::Debug for Refused<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

/// A request that was answered.
pub struct Completion<G: Grants> {
    /// The tag that `submit` gave.
    pub tag: Tag,
    /// What was asked.
    pub operation: Operation,
    /// How it ended. After a flush that failed nothing written since the last good one is durable.
    /// [`Status::Error`] also for what never went down because the device closed.
    pub status: Status,
    /// The buffer that came with the request.
    pub buffer: Option<Buffer<G>>,
}

impl<G: Grants> fmt::Debug for Completion<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, operation, status, buffer } = self;
        f.debug_tuple("Completion").field(tag).field(operation).field(status).field(buffer).finish()
    }
}
