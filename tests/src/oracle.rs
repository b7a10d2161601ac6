//! The block protocol once more, written from `xen/include/public/io/blkif.h` alone: what a back
//! must make of the bytes in one request slot, and in the page that an indirect request names.
//!
//! It judges `blkif` and everything above, so it shares no code and no type with them: bytes and
//! plain numbers in, plain numbers out. It is written to be read beside the header, not to be
//! fast. It must never be mended to agree with the code: when the two differ, the header decides.

/// `BLKIF_OP_*`; the barrier (2), which no back here offers, is an unknown number.
const READ: u8 = 0;
const WRITE: u8 = 1;
const FLUSH_DISKCACHE: u8 = 3;
const DISCARD: u8 = 5;
const INDIRECT: u8 = 6;
/// `BLKIF_MAX_SEGMENTS_PER_REQUEST`.
const MAX_SEGMENTS: usize = 11;
/// No back here publishes a larger `feature-max-indirect-segments`.
pub const MAX_INDIRECT: usize = 32;
/// Sectors of 512 bytes in a frame; `first_sect` and `last_sect` are inclusive.
const SECTORS_PER_FRAME: u64 = 8;

/// `BLKIF_RSP_ERROR`.
pub const ERROR: i16 = -1;
/// `BLKIF_RSP_EOPNOTSUPP`.
pub const EOPNOTSUPP: i16 = -2;

/// What a back has published, and the layout that its front has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `protocol` is `x86_64-abi`, and not `x86_32-abi`.
    pub wide: bool,
    /// `sectors`, in units of 512 bytes whatever the sector size is.
    pub sectors: u64,
    /// `sector-size` in units of 512 bytes.
    pub unit: u64,
    /// `VDISK_READONLY` in `info`.
    pub read_only: bool,
    /// `feature-flush-cache`.
    pub flush: bool,
    /// `feature-discard`.
    pub discard: bool,
    /// `feature-max-indirect-segments`; 0 if there is none.
    pub indirect: u16,
}

/// A lawful request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// First sector; 0 for an empty flush, where it means nothing.
    pub sector: u64,
    /// How many sectors.
    pub sectors: u64,
    /// How many of `segments` there are.
    pub count: usize,
    /// `gref`, `first_sect`, `last_sect`.
    pub segments: [(u32, u8, u8); MAX_INDIRECT],
}

/// What a back must answer, and what it must do if all grants can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// To be copied into the response.
    pub id: u64,
    /// To be copied into the response: of an indirect request, as Linux's front and back have it, what
    /// it is for.
    pub operation: u8,
    /// The work of a lawful request, or the status of any other.
    pub work: Result<Work, i16>,
}

/// Judges the bytes of a slot. `page` has the segments that are in a granted page, or nothing if the
/// grant cannot be used.
///
/// # Panics
/// If they are fewer than a slot of this layout has, or the page's fewer than an indirect request may
/// have.
pub fn judge<'a>(slot: &[u8], terms: &Terms, page: impl Fn(u32) -> Option<&'a [u8]>) -> Verdict {
    // struct blkif_request: operation, nr_segments, handle, id, sector_number, seg[]. 64-bit
    // fields are aligned to 8 bytes on x86_64 and to 4 on x86_32.
    let (id_at, sector_at, rest_at) = if terms.wide { (8, 16, 24) } else { (4, 12, 20) };
    let (id, mut operation, mut nr) = (u64_at(slot, id_at), slot[0], usize::from(slot[1]));
    let mut work = Work {
        sector: u64_at(slot, sector_at),
        sectors: 0,
        count: 0,
        segments: [(0, 0, 0); MAX_INDIRECT],
    };
    let indirect = operation == INDIRECT && terms.indirect > 0;
    if indirect {
        // struct blkif_request_indirect: operation, indirect_op, nr_segments with 16 bits, then as
        // above, then handle, padded, and indirect_grefs[].
        (operation, nr) = (slot[1], usize::from(u16::from_le_bytes([slot[2], slot[3]])));
    }
    let known = match operation {
        READ | WRITE => true,
        FLUSH_DISKCACHE => terms.flush,
        DISCARD => terms.discard,
        _ => false,
    };
    let status = if indirect && ![READ, WRITE].contains(&operation) {
        Err(ERROR)
    } else if !known {
        Err(EOPNOTSUPP)
    } else if operation == DISCARD {
        // struct blkif_request_discard: nr_sectors where the segments would be.
        work.sectors = u64_at(slot, rest_at);
        fits(&work, terms, !terms.read_only)
    } else {
        let most = if indirect { usize::from(terms.indirect) } else { MAX_SEGMENTS };
        let place = match nr {
            // Nobody looks for segments that may not be there.
            nr if nr > most || (indirect && nr == 0) => None,
            _ if indirect => page(u32_at(slot, rest_at + 4)),
            _ => Some(&slot[rest_at..]),
        };
        place
            .ok_or(ERROR)
            .and_then(|place| segments(place, nr, terms, &mut work))
            .and_then(|()| finish(operation, terms, &mut work))
    };
    Verdict { id, operation, work: status.map(|()| work) }
}

/// Reads `seg[]`, or the same in a page.
fn segments(place: &[u8], nr: usize, terms: &Terms, work: &mut Work) -> Result<(), i16> {
    for at in 0..nr {
        // struct blkif_request_segment: gref, first_sect, last_sect, padding to 8 bytes.
        let segment = &place[at * 8..];
        let gref = u32_at(segment, 0);
        let (first, last) = (u64::from(segment[4]), u64::from(segment[5]));
        if first > last || last >= SECTORS_PER_FRAME {
            return Err(ERROR);
        }
        if first % terms.unit != 0 || (last + 1) % terms.unit != 0 {
            return Err(ERROR);
        }
        work.segments[at] = (gref, segment[4], segment[5]);
        work.sectors += last - first + 1;
    }
    work.count = nr;
    Ok(())
}

/// The rules for a read, a write and a flush, which may have data or none.
fn finish(operation: u8, terms: &Terms, work: &mut Work) -> Result<(), i16> {
    if work.count == 0 && operation == FLUSH_DISKCACHE {
        work.sector = 0;
        return Ok(());
    }
    fits(work, terms, operation == READ || !terms.read_only)
}

/// A range of at least one sector, aligned, on the disk, and allowed.
fn fits(work: &Work, terms: &Terms, allowed: bool) -> Result<(), i16> {
    let aligned = work.sector.is_multiple_of(terms.unit) && work.sectors.is_multiple_of(terms.unit);
    let inside = u128::from(work.sector) + u128::from(work.sectors) <= u128::from(terms.sectors);
    if allowed && aligned && inside && work.sectors > 0 { Ok(()) } else { Err(ERROR) }
}

fn u64_at(slot: &[u8], at: usize) -> u64 {
    u64::from(u32_at(slot, at)) | u64::from(u32_at(slot, at + 4)) << 32
}

fn u32_at(slot: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]])
}
