//! The block protocol as values: bytes in, meanings out, and back.
//!
//! Follows `xen/include/public/io/blkif.h`. A request is read once out of its slot
//! ([`Raw::read`]), held against the disk and the agreed features ([`Raw::check`]), and only then
//! a [`Request`]; a response goes the other way. Features are negotiated in one place
//! ([`negotiate`]): from what each side published to what both sides do ([`Agreed`]).
//!
//! Served now: direct and indirect requests on one queue, rings of up to 16 pages, 64-bit and 32-bit
//! x86 guests, persistent grants, flush, discard. Neither write barriers nor several queues are
//! offered, so a request that needs them is answered "not supported".
//!
//! Nothing here does input or output, allocates, or panics on what a peer wrote.
#![no_std]
#![forbid(unsafe_code)]

mod abi;
mod check;
mod geometry;
mod keys;
mod name;
mod negotiate;
mod offer;
mod operation;
#[cfg(test)]
mod oracle;
mod request;
mod response;
mod segment;
mod words;

pub use abi::{Abi, ORDER_MAX, RING_PAGES_MAX, SLOT_WORDS_MAX};
pub use check::{Reason, Reject};
pub use geometry::{Geometry, Info, SECTORS_MAX};
pub use keys::{BACK_KEYS, FRONT_KEYS, RING_REFS, Refusal, Silly};
pub use name::DiskName;
pub use negotiate::{Agreed, negotiate};
pub use offer::{BackOffer, Discard, Features, FrontOffer, INDIRECT_MAX};
pub use operation::{INDIRECT, Operation};
pub use request::{Indirect, Raw, Request, RequestWords, segments_in};
pub use response::{Response, ResponseWords, Status};
pub use segment::{
    DIRECT_SEGMENTS_MAX, SECTOR_SIZE, SECTORS_PER_PAGE, SEGMENTS_MAX, Segment, Segments,
};
pub use words::Words;
