//! The form of a trace file: what each record says, as bytes and back.
//!
//! ```text
//! file      "pvblktr2", then records
//! record    kind: u8, length of the rest in bytes: u8, connection: u32, the rest
//! 1 begin   peer: u16, request layout: u8 (64 or 32), ring order: u8, segments of an indirect
//!           request: u8, features: u32, index: u32, sectors: u64, sector size: u32,
//!           physical sector size: u32, info: u32, failed flush: u8, name of the device: text
//! 2 take    index: u32, operation: u8, count: u8, id: u64, sector: u64, discarded sectors: u64,
//!           of an indirect request segments: u16, descriptors: u32, of any other one for each
//!           segment grant: u32, first sector: u8, last sector: u8
//! 3 put     index: u32, id: u64, operation: u8, status: i16
//! 4 publish index: u32, event sent: u8
//! 5 rest    index: u32, more to take: u8
//! 6 broken  alleged index: u32, own index: u32, limit: u32
//! 7 end     requests without an answer: u32
//! 8 full    nothing; the trace has reached its limit and says no more
//! 9 grow    sectors: u64, of the disk as it is from then on
//! 10 describe  the segments of the request taken last, as above
//! ```
//!
//! Numbers are little-endian. Connections are numbered in the order in which they begin. What a
//! record has behind its known fields, and kinds that are not known, are passed over.

use std::fmt;

use blkif::{
    Abi, Agreed, Discard, Features, Geometry, INDIRECT, INDIRECT_MAX, Indirect, Info, Raw,
    Response, Segment, Segments, Status,
};
use ring::{Broken, Index, Notify, Rest};
use xen::{DomainId, GrantRef};

/// What a trace file begins with.
pub const MAGIC: [u8; 8] = *b"pvblktr2";
/// Bytes of a record in front of what its kind says.
const HEAD_BYTES: usize = 6;
/// The longest name of a device that is kept, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// One thing that happened on a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A connection began.
    Begin(Begin),
    /// A request was taken: its index, and all that was copied of it.
    Take(Index, Raw),
    /// The segments of the indirect request that was taken last.
    Describe(Segments),
    /// An answer was put.
    Put(Index, Response),
    /// Answers up to this index were made visible.
    Publish(Index, Notify),
    /// Everything up to this index was taken, and an event asked for.
    Rest(Index, Rest),
    /// The front's index made no sense.
    Broken(Broken),
    /// The connection is over; so many requests had no answer.
    End(u32),
    /// The trace goes on, but not in the file.
    Full,
    /// The disk has grown to so many sectors.
    Grow(u64),
}

/// How a connection was when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The guest.
    pub peer: DomainId,
    /// What was agreed on; limits of discards are not in the trace.
    pub agreed: Agreed,
    /// The index of the first request.
    pub index: Index,
    /// The disk.
    pub geometry: Geometry,
    /// Whether a flush had failed before.
    pub failed_flush: bool,
    /// `GUEST/VDEV`.
    pub name: String,
}

/// Why bytes are no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It does not begin as a trace does.
    NoTrace,
    /// A record ends before it is complete, at this offset.
    CutOff(usize),
    /// A record with fields that make no sense, at this offset.
    Nonsense(usize),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrace => f.write_str("not a trace of this version"),
            Self::CutOff(at) => write!(f, "the record at byte {at} is cut off"),
            Self::Nonsense(at) => write!(f, "the record at byte {at} makes no sense"),
        }
    }
}

impl std::error::Error for Damage {}

impl Record {
    /// Appends the record's bytes.
    pub fn write(&self, connection: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([self.kind(), 0]);
        out.extend(connection.to_le_bytes());
        match self {
            Self::Begin(begin) => begin.write(out),
            Self::Take(index, raw) => {
                out.extend(index.raw().to_le_bytes());
                write_request(raw, out);
            }
            Self::Put(index, Response { id, operation, status }) => {
                out.extend(index.raw().to_le_bytes());
                out.extend(id.to_le_bytes());
                out.push(*operation);
                out.extend(status.wire().to_le_bytes());
            }
            Self::Publish(index, notify) => {
                out.extend(index.raw().to_le_bytes());
                out.push(u8::from(*notify == Notify::Needed));
            }
            Self::Rest(index, rest) => {
                out.extend(index.raw().to_le_bytes());
                out.push(u8::from(*rest == Rest::Work));
            }
            Self::Broken(Broken { alleged, consumed, limit }) => {
                for word in [alleged.raw(), consumed.raw(), *limit] {
                    out.extend(word.to_le_bytes());
                }
            }
            Self::End(unanswered) => out.extend(unanswered.to_le_bytes()),
            Self::Full => {}
            Self::Grow(sectors) => out.extend(sectors.to_le_bytes()),
            Self::Describe(segments) => write_segments(segments, out),
        }
        // The longest has 32 segments: 192 bytes.
        out[start + 1] = u8::try_from(out.len() - start - HEAD_BYTES).unwrap_or(u8::MAX);
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Begin(_) => 1,
            Self::Take(..) => 2,
            Self::Put(..) => 3,
            Self::Publish(..) => 4,
            Self::Rest(..) => 5,
            Self::Broken(_) => 6,
            Self::End(_) => 7,
            Self::Full => 8,
            Self::Grow(_) => 9,
            Self::Describe(_) => 10,
        }
    }

    /// What the fields of a record say; `None` for a kind that is not known.
    fn read(kind: u8, fields: &mut Fields<'_>) -> Option<Option<Self>> {
        Some(Some(match kind {
            1 => Self::Begin(Begin::read(fields)?),
            2 => Self::Take(fields.index()?, read_request(fields)?),
            3 => Self::Put(fields.index()?, read_response(fields)?),
            4 => {
                let index = fields.index()?;
                let sent = fields.byte()? != 0;
                Self::Publish(index, if sent { Notify::Needed } else { Notify::Spared })
            }
            5 => {
                let index = fields.index()?;
                Self::Rest(index, if fields.byte()? != 0 { Rest::Work } else { Rest::Idle })
            }
            6 => {
                let (alleged, consumed) = (fields.index()?, fields.index()?);
                Self::Broken(Broken { alleged, consumed, limit: fields.word()? })
            }
            7 => Self::End(fields.word()?),
            8 => Self::Full,
            9 => Self::Grow(fields.double()?),
            10 => Self::Describe(read_segments(fields)?),
            _ => return Some(None),
        }))
    }
}

/// All records of a trace, each with the number of its connection.
///
/// # Errors
/// [`Damage`].
pub fn records(bytes: &[u8]) -> Result<Vec<(u32, Record)>, Damage> {
    let mut rest = bytes.strip_prefix(&MAGIC).ok_or(Damage::NoTrace)?;
    let mut found = Vec::new();
    while let Some((&[kind, length, a, b, c, d], after)) = rest.split_first_chunk() {
        let at = bytes.len() - rest.len();
        let fields = after.split_at_checked(length.into());
        let (fields, next) = fields.ok_or(Damage::CutOff(at))?;
        let record = Record::read(kind, &mut Fields(fields)).ok_or(Damage::Nonsense(at))?;
        found.extend(record.map(|record| (u32::from_le_bytes([a, b, c, d]), record)));
        rest = next;
    }
    if rest.is_empty() { Ok(found) } else { Err(Damage::CutOff(bytes.len() - rest.len())) }
}

impl Begin {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { peer, agreed, index, geometry, failed_flush, name } = self;
        out.extend(peer.0.to_le_bytes());
        out.push(match agreed.abi {
            Abi::X86_64 => 64,
            Abi::X86_32 => 32,
        });
        out.extend([u8::try_from(agreed.order).unwrap_or(u8::MAX), agreed.indirect_max]);
        out.extend(agreed.features.bits().to_le_bytes());
        out.extend(index.raw().to_le_bytes());
        out.extend(geometry.sectors.to_le_bytes());
        out.extend(geometry.sector_size.to_le_bytes());
        out.extend(geometry.physical_sector_size.to_le_bytes());
        out.extend(geometry.info.bits().to_le_bytes());
        out.push(u8::from(*failed_flush));
        out.extend(&name.as_bytes()[..name.len().min(NAME_BYTES_MAX)]);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let peer = DomainId(u16::from_le_bytes(fields.take()?));
        let abi = match fields.byte()? {
            64 => Abi::X86_64,
            32 => Abi::X86_32,
            _ => return None,
        };
        let order = Some(u32::from(fields.byte()?)).filter(|&order| order <= blkif::ORDER_MAX)?;
        let indirect_max = Some(fields.byte()?).filter(|&most| most <= INDIRECT_MAX)?;
        let features = Features::from_bits_truncate(fields.word()?);
        let index = fields.index()?;
        let mut geometry = Geometry::new(fields.double()?).ok()?;
        let size = |it: u32| Some(it).filter(|it| it.is_power_of_two() && *it >= 512);
        geometry.sector_size = size(fields.word()?).filter(|&it| it <= 4096)?;
        geometry.physical_sector_size = size(fields.word()?)?;
        geometry.info = Info::from_bits_truncate(fields.word()?);
        let failed_flush = fields.byte()? != 0;
        let name = String::from_utf8_lossy(fields.0).into_owned();
        let discard_limits = Discard::default();
        let agreed = Agreed { abi, order, indirect_max, features, discard_limits };
        Some(Self { peer, agreed, index, geometry, failed_flush, name })
    }
}

fn write_request(raw: &Raw, out: &mut Vec<u8>) {
    out.extend([raw.operation, raw.count]);
    for word in [raw.id, raw.sector, raw.discard_sectors] {
        out.extend(word.to_le_bytes());
    }
    match raw.indirect {
        Some(Indirect { count, descriptors }) => {
            out.extend(count.to_le_bytes());
            out.extend(descriptors.0.to_le_bytes());
        }
        None => write_segments(&raw.segments, out),
    }
}

fn write_segments(segments: &Segments, out: &mut Vec<u8>) {
    for segment in segments {
        out.extend(segment.reference.0.to_le_bytes());
        out.extend([segment.first_sector, segment.last_sector]);
    }
}

fn read_request(fields: &mut Fields<'_>) -> Option<Raw> {
    let (operation, count) = (fields.byte()?, fields.byte()?);
    let (id, sector, discard_sectors) = (fields.double()?, fields.double()?, fields.double()?);
    let (mut indirect, mut segments) = (None, Segments::new());
    if operation == INDIRECT {
        let count = u16::from_le_bytes(fields.take()?);
        indirect = Some(Indirect { count, descriptors: GrantRef(fields.word()?) });
    } else {
        segments = read_segments(fields)?;
    }
    Some(Raw { operation, count, id, sector, discard_sectors, segments, indirect })
}

fn read_segments(fields: &mut Fields<'_>) -> Option<Segments> {
    let mut segments = Segments::new();
    while !fields.0.is_empty() {
        let reference = GrantRef(fields.word()?);
        let (first_sector, last_sector) = (fields.byte()?, fields.byte()?);
        segments.try_push(Segment { reference, first_sector, last_sector }).ok()?;
    }
    Some(segments)
}

fn read_response(fields: &mut Fields<'_>) -> Option<Response> {
    let (id, operation) = (fields.double()?, fields.byte()?);
    let status = Status::from_wire(i16::from_le_bytes(fields.take()?));
    Some(Response { id, operation, status })
}

/// Fields that have not been read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn double(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn index(&mut self) -> Option<Index> {
        self.word().map(Index::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(u32, Record)> {
        let agreed = Agreed {
            abi: Abi::X86_32,
            order: 4,
            indirect_max: INDIRECT_MAX,
            features: Features::PERSISTENT | Features::DISCARD,
            discard_limits: Discard::default(),
        };
        let mut geometry = Geometry::new(blkif::SECTORS_MAX).unwrap();
        geometry.info = Info::READ_ONLY;
        let begin = Begin {
            peer: DomainId(7),
            agreed,
            index: Index::new(u32::MAX),
            geometry,
            failed_flush: true,
            name: "7/51712".into(),
        };
        let segment = Segment { reference: GrantRef(u32::MAX), first_sector: 1, last_sector: 255 };
        let raw = Raw {
            operation: 7,
            count: 200,
            id: u64::MAX,
            sector: 1 << 63,
            discard_sectors: 3,
            segments: [segment; 11].into_iter().collect(),
            indirect: None,
        };
        let indirect = Raw {
            operation: INDIRECT,
            segments: Segments::new(),
            indirect: Some(Indirect { count: u16::MAX, descriptors: GrantRef(7) }),
            ..raw.clone()
        };
        let response = Response { id: 9, operation: 6, status: Status::Unsupported };
        let index = Index::new(5);
        let broken = Broken { alleged: index, consumed: Index::new(1), limit: 2 };
        [
            Record::Begin(begin),
            Record::Take(index, raw),
            Record::Take(index, indirect),
            Record::Describe([segment; blkif::SEGMENTS_MAX].into()),
            Record::Put(index, response),
            Record::Publish(index, Notify::Needed),
            Record::Publish(index, Notify::Spared),
            Record::Rest(index, Rest::Work),
            Record::Rest(index, Rest::Idle),
            Record::Broken(broken),
            Record::End(3),
            Record::Full,
            Record::Grow(u64::MAX),
            Record::Describe(Segments::new()),
        ]
        .into_iter()
        .zip(70_000..)
        .map(|(record, connection)| (connection, record))
        .collect()
    }

    fn bytes(all: &[(u32, Record)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        all.iter().for_each(|(connection, record)| record.write(*connection, &mut bytes));
        bytes
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(records(&bytes(&sample())), Ok(sample()));
    }

    #[test]
    fn a_trace_that_is_cut_off_says_where() {
        let whole = bytes(&sample());
        for length in 0..whole.len() {
            match records(&whole[..length]) {
                Ok(some) => assert_eq!(some, sample()[..some.len()]),
                Err(Damage::NoTrace) => assert!(length < MAGIC.len()),
                Err(Damage::CutOff(at)) => assert!(at < length),
                Err(Damage::Nonsense(at)) => panic!("at {at} of {length}"),
            }
        }
    }

    #[test]
    fn kinds_and_fields_of_later_versions_are_passed_over() {
        let mut later = MAGIC.to_vec();
        later.extend([200, 3, 1, 0, 0, 0, 7, 7, 7]);
        later.extend([7, 6, 1, 0, 0, 0, 5, 0, 0, 0, 9, 9]);
        assert_eq!(records(&later), Ok(vec![(1, Record::End(5))]));
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let whole = bytes(&sample());
        for at in MAGIC.len()..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = records(&damaged);
            }
        }
    }
}
