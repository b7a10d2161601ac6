//! What turns an allegation into a request: every rule that a front can break.
//!
//! One bad request costs one answer; service goes on. The rules are those of `io/blkif.h`; sizes
//! and places are in sectors of 512 bytes, whatever the disk's sector size is, and aligned to it.
//! Whether a grant can be used is not known here: that is found out when it is mapped.

use core::fmt;

use crate::{Agreed, Geometry, Operation, Raw, Request, Response, SEGMENTS_MAX, Segments, Status};

/// Which rule a request breaks: one kind of log message each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No operation of ours: an unknown number, a barrier, an indirect request.
    UnknownOperation,
    /// Flush or discard, and it was not agreed.
    NotAgreed,
    /// A read or write without segments, or a discard of nothing.
    Empty,
    /// More segments than a direct request has.
    TooManySegments,
    /// A segment that ends before it begins, or outside its page.
    BadSegment,
    /// A place or a length that is not a multiple of the disk's sector size.
    Unaligned,
    /// It would end behind the last sector, or behind the last number.
    PastTheEnd,
    /// It would change a disk that is read only.
    ReadOnly,
}

impl Reason {
    /// How many reasons there are: each is below this as a number, for tables of counters.
    pub const COUNT: usize = 8;

    /// The answer to a request that breaks this rule.
    pub const fn status(self) -> Status {
        match self {
            Self::UnknownOperation | Self::NotAgreed => Status::Unsupported,
            _ => Status::Error,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownOperation => "unknown operation",
            Self::NotAgreed => "an operation that was not agreed on",
            Self::Empty => "a request for nothing",
            Self::TooManySegments => "too many segments",
            Self::BadSegment => "a segment outside its page",
            Self::Unaligned => "not aligned to the sector size",
            Self::PastTheEnd => "past the end of the disk",
            Self::ReadOnly => "the disk is read only",
        })
    }
}

/// A request that is answered without being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The front's word for the request.
    pub id: u64,
    /// The operation as the front wrote it, to be copied into the answer.
    pub operation: u8,
    /// Which answer.
    pub status: Status,
    /// Which rule it breaks.
    pub reason: Reason,
}

impl Reject {
    /// The answer to put.
    pub const fn response(self) -> Response {
        Response { id: self.id, operation: self.operation, status: self.status }
    }
}

impl Raw {
    /// Holds the request against the disk as it is now and the features agreed on. A `Request`
    /// that comes out is within the disk, aligned, allowed, and no longer than 11 pages, unless it
    /// is a discard.
    ///
    /// # Errors
    /// [`Reject`], which says what to answer.
    #[inline]
    pub fn check(self, disk: &Geometry, agreed: &Agreed) -> Result<Request, Reject> {
        match self.lawful(disk, agreed) {
            Ok(Lawful { operation, sector, sectors }) => {
                Ok(Request { id: self.id, operation, sector, sectors, segments: self.segments })
            }
            Err(reason) => Err(Reject {
                id: self.id,
                operation: self.operation,
                status: reason.status(),
                reason,
            }),
        }
    }

    #[inline]
    fn lawful(&self, disk: &Geometry, agreed: &Agreed) -> Result<Lawful, Reason> {
        let operation = Operation::from_wire(self.operation).ok_or(Reason::UnknownOperation)?;
        let offered = match operation {
            Operation::Read | Operation::Write => true,
            Operation::Flush => agreed.flush(),
            Operation::Discard => agreed.discard(),
        };
        if !offered {
            return Err(Reason::NotAgreed);
        }
        let sectors = match operation {
            // Cannot come off the wire, where a discard has no room for segments.
            Operation::Discard if !self.segments.is_empty() => {
                return Err(Reason::TooManySegments);
            }
            Operation::Discard => self.discard_sectors,
            _ => self.transfer_sectors(disk.unit())?,
        };
        within(Lawful { operation, sector: self.sector, sectors }, disk)
    }

    /// The length of the segments together, if all of them are good and none is missing.
    #[inline]
    fn transfer_sectors(&self, unit: u8) -> Result<u64, Reason> {
        if usize::from(self.count) > SEGMENTS_MAX {
            return Err(Reason::TooManySegments);
        }
        length(&self.segments, unit)
    }
}

/// The length of well-formed segments, in sectors: at most 88.
#[inline]
fn length(segments: &Segments, unit: u8) -> Result<u64, Reason> {
    let mut total = 0;
    for segment in segments {
        total += u64::from(segment.sectors().ok_or(Reason::BadSegment)?);
        if !segment.is_aligned(unit) {
            return Err(Reason::Unaligned);
        }
    }
    Ok(total)
}

/// What a request asks for, once that is known to make sense.
struct Lawful {
    operation: Operation,
    sector: u64,
    sectors: u64,
}

/// Passes a request whose range lies on the disk and that the disk may do.
#[inline]
fn within(request: Lawful, disk: &Geometry) -> Result<Lawful, Reason> {
    if request.sectors == 0 {
        // Only a flush may carry nothing, and then its sector says nothing either.
        let flush = request.operation == Operation::Flush;
        return if flush { Ok(Lawful { sector: 0, ..request }) } else { Err(Reason::Empty) };
    }
    disk.allow(request.operation, request.sector, request.sectors).map(|()| request)
}

impl Geometry {
    /// Passes an operation on a range of at least one sector that lies on the disk, is aligned,
    /// and may be done there.
    ///
    /// # Errors
    /// The rule that it breaks.
    #[inline]
    pub fn allow(&self, operation: Operation, sector: u64, sectors: u64) -> Result<(), Reason> {
        if operation != Operation::Read && self.read_only() {
            return Err(Reason::ReadOnly);
        }
        if (sector | sectors) & (u64::from(self.unit()) - 1) != 0 {
            return Err(Reason::Unaligned);
        }
        match sector.checked_add(sectors) {
            Some(end) if end <= self.sectors => Ok(()),
            _ => Err(Reason::PastTheEnd),
        }
    }
}

#[cfg(test)]
mod tests;
