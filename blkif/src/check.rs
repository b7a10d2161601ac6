//! What turns an allegation into a request: every rule that a front can break.
//!
//! One bad request costs one answer; service goes on. The rules are those of `io/blkif.h`; sizes
//! and places are in sectors of 512 bytes, whatever the disk's sector size is, and aligned to it.
//! Whether a grant can be used is not known here: that is found out when it is mapped.

use core::fmt;
use core::ops::Deref;

use crate::{
    Agreed, DIRECT_SEGMENTS_MAX, Geometry, Indirect, Operation, Raw, Request, Response, Segment,
    Status,
};

/// Which rule a request breaks: one kind of log message each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No operation of ours: an unknown number, a barrier.
    UnknownOperation,
    /// Flush, discard or an indirect request, and it was not agreed.
    NotAgreed,
    /// A read or write without segments, or a discard of nothing.
    Empty,
    /// More segments than a request of its form may have.
    TooManySegments,
    /// A segment that ends before it begins, or outside its page.
    BadSegment,
    /// A place or a length that is not a multiple of the disk's sector size.
    Unaligned,
    /// It would end behind the last sector, or behind the last number.
    PastTheEnd,
    /// It would change a disk that is read only.
    ReadOnly,
    /// An indirect request for something else than a read or a write.
    NotIndirect,
}

impl Reason {
    /// How many reasons there are: each is below this as a number, for tables of counters.
    pub const COUNT: usize = 9;

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
            Self::NotIndirect => "an indirect request for no read or write",
        })
    }
}

/// A request that is answered without being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The answer to put.
    pub response: Response,
    /// Which rule it breaks.
    pub reason: Reason,
}

impl Raw {
    /// Holds the request against the disk as it is now and the features agreed on. A `Request`
    /// that comes out is within the disk, aligned, allowed, and no longer than 11 pages, or what was
    /// agreed on for an indirect one, unless it is a discard. The segments of an indirect request
    /// must have been fetched, if [`to_fetch`](Self::to_fetch) says so.
    ///
    /// # Errors
    /// [`Reject`], which says what to answer.
    #[inline]
    pub fn check(&self, disk: &Geometry, agreed: &Agreed) -> Result<Request<&[Segment]>, Reject> {
        match self.claim().lawful(disk, agreed) {
            Ok(Lawful { operation, sector, sectors }) => {
                Ok(Request { id: self.id, operation, sector, sectors, segments: &self.segments })
            }
            Err(reason) => Err(Reject { response: self.answer(agreed, reason.status()), reason }),
        }
    }

    /// The answer to this request if it is not done.
    ///
    /// To an indirect request that is for what it asks for, as Linux's front wants it, although the
    /// header says that the operation is copied; if none were agreed on, there is nothing in it.
    pub fn answer(&self, agreed: &Agreed, status: Status) -> Response {
        let inner = self.indirect.is_some() && agreed.indirect_max > 0;
        let operation = if inner { self.count } else { self.operation };
        Response { id: self.id, operation, status }
    }

    /// Where the segments are that have to be fetched before the [check](Self::check): of an indirect
    /// request that keeps the rules so far.
    #[inline]
    pub fn to_fetch(&self, agreed: &Agreed) -> Option<Indirect> {
        self.indirect
            .filter(|indirect| indirect_operation(self.count, indirect.count, agreed).is_ok())
    }

    #[inline]
    fn claim(&self) -> Claim<'_> {
        Claim {
            operation: self.operation,
            count: self.count,
            sector: self.sector,
            discard_sectors: self.discard_sectors,
            segments: &self.segments,
            indirect: self.indirect.map(|indirect| indirect.count),
        }
    }
}

impl<S: Deref<Target = [Segment]>> Request<S> {
    /// Holds a request of our own against the rules that the back will hold it against.
    ///
    /// # Errors
    /// The rule that it breaks.
    #[inline]
    pub fn check(&self, disk: &Geometry, agreed: &Agreed) -> Result<(), Reason> {
        let (operation, count, indirect) = self.head();
        let claim = Claim {
            operation,
            count,
            sector: self.sector,
            discard_sectors: self.discard_sectors(),
            segments: &self.segments,
            indirect,
        };
        claim.lawful(disk, agreed).map(drop)
    }
}

/// What a request says of itself.
struct Claim<'a> {
    operation: u8,
    count: u8,
    sector: u64,
    discard_sectors: u64,
    segments: &'a [Segment],
    /// How many segments an indirect request says that it has.
    indirect: Option<u16>,
}

impl Claim<'_> {
    #[inline]
    fn lawful(&self, disk: &Geometry, agreed: &Agreed) -> Result<Lawful, Reason> {
        let (operation, sectors) = match self.indirect {
            None => self.direct(disk, agreed)?,
            Some(count) => {
                let operation = indirect_operation(self.count, count, agreed)?;
                (operation, length(self.segments, disk.unit())?)
            }
        };
        within(Lawful { operation, sector: self.sector, sectors }, disk)
    }

    #[inline]
    fn direct(&self, disk: &Geometry, agreed: &Agreed) -> Result<(Operation, u64), Reason> {
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
            _ if usize::from(self.count) > DIRECT_SEGMENTS_MAX => {
                return Err(Reason::TooManySegments);
            }
            _ => length(self.segments, disk.unit())?,
        };
        Ok((operation, sectors))
    }
}

/// What an indirect request asks for that says `operation` and has `count` segments.
#[inline]
fn indirect_operation(operation: u8, count: u16, agreed: &Agreed) -> Result<Operation, Reason> {
    if agreed.indirect_max == 0 {
        return Err(Reason::NotAgreed);
    }
    let operation = match Operation::from_wire(operation) {
        Some(operation @ (Operation::Read | Operation::Write)) => operation,
        _ => return Err(Reason::NotIndirect),
    };
    match count {
        0 => Err(Reason::Empty),
        count if count > u16::from(agreed.indirect_max) => Err(Reason::TooManySegments),
        _ => Ok(operation),
    }
}

/// The length of well-formed segments, in sectors: at most 256.
#[inline]
fn length(segments: &[Segment], unit: u8) -> Result<u64, Reason> {
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
