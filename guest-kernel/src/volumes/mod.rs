//! Volumes: whole disks and their partitions, and how one is named: `LABEL=…`, `UUID=…`,
//! `/dev/xvda1`.
//!
//! Nothing is remembered between two calls: a disk may be written to, resized or gone.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::programs::stream::{Reader, Span};
use crate::programs::{Disks, Failure, Machine, Which};

pub mod partitions;
pub mod signature;

#[cfg(test)]
mod tests;

use partitions::Blocks;
pub use signature::{Kind, Signature, Uuid};

/// A disk, or a partition of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The disk.
    pub which: Which,
    /// As Linux calls it: `xvda`, `xvda1`.
    pub name: String,
    /// Its first sector of 512 bytes on the disk.
    pub first: u64,
    /// How many; all are on the disk.
    pub sectors: u64,
}

/// A volume and what is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub volume: Volume,
    /// What, if it is anything that is known.
    pub signature: Option<Signature>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.volume.name;
        match &self.signature {
            None => write!(f, "{name}: nothing known"),
            Some(Signature { kind, label, uuid }) => {
                write!(f, "{name}: {kind}, LABEL={label:?}, UUID={uuid}")
            }
        }
    }
}

/// Every volume: the partitions of a disk that has some, or else the disk. Prints what makes no
/// sense in a partition table.
pub fn all<M: Machine>(machine: &M, disks: &mut Disks<M>) -> Vec<Found> {
    let mut found = Vec::new();
    for which in disks.places() {
        match on_disk(machine, disks, which) {
            Ok(mut more) => found.append(&mut more),
            Err(failure) => machine.print(format_args!("{failure}")),
        }
    }
    found
}

/// The volume that `spec` names: `LABEL=`, `UUID=`, or a device with or without `/dev/`. Of
/// several with the same label it is the first.
///
/// # Errors
/// [`Failure::missing`], with what there is instead.
pub fn find<M: Machine>(machine: &M, disks: &mut Disks<M>, spec: &str) -> Result<Volume, Failure> {
    search(machine, disks, spec, |_| true).map(|found| found.volume)
}

/// The same among volumes with files on them.
pub(crate) fn find_files<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    spec: &str,
) -> Result<Found, Failure> {
    search(machine, disks, spec, Kind::has_files)
}

/// The same among swap areas.
///
/// # Errors
/// [`Failure::missing`], with what there is instead.
pub fn find_swap<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    spec: &str,
) -> Result<Volume, Failure> {
    search(machine, disks, spec, |kind| kind == Kind::Swap).map(|found| found.volume)
}

fn search<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    spec: &str,
    wanted: impl Fn(Kind) -> bool,
) -> Result<Found, Failure> {
    let mut found = all(machine, disks);
    let by_mark = |mark: &dyn Fn(&Signature) -> bool| {
        let fits = |it: &Signature| wanted(it.kind) && mark(it);
        found.iter().position(|it| it.signature.as_ref().is_some_and(fits))
    };
    let name = spec.strip_prefix("/dev/").unwrap_or(spec);
    let at = match spec.split_once('=') {
        Some(("LABEL", label)) => by_mark(&|it| it.label == label),
        Some(("UUID", uuid)) => by_mark(&|it| it.uuid.to_string().eq_ignore_ascii_case(uuid)),
        Some(_) => None,
        None => found.iter().position(|it| it.volume.name == name),
    };
    match at {
        Some(at) => Ok(found.swap_remove(at)),
        // A disk with partitions can be meant as a whole all the same.
        None => match disks.find(name) {
            Ok(which) => {
                let volume = whole(disks, which)?;
                signed(machine, disks, volume)
            }
            Err(_) => Err(not_found(spec, &found)),
        },
    }
}

fn not_found(spec: &str, found: &[Found]) -> Failure {
    let mut text = format!("{spec}: not found");
    if found.is_empty() {
        text.push_str(", there are no disks");
    } else {
        text.push_str(", there is:");
    }
    for it in found {
        text.push_str(&format!("\n  {it}"));
    }
    Failure::missing(text)
}

/// Reads sectors of a volume; `out` is a multiple of the disk's sector size.
///
/// # Errors
/// [`Failure`] past the end of the volume, or if the disk fails.
pub fn read<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    volume: &Volume,
    sector: u64,
    out: &mut [u8],
) -> Result<(), Failure> {
    let sectors = (out.len() / 512) as u64;
    if !out.len().is_multiple_of(512)
        || sector.checked_add(sectors).is_none_or(|end| end > volume.sectors)
    {
        let Volume { name, sectors, .. } = volume;
        return Err(Failure::failed(format!("{name}: it ends after {sectors} sectors")));
    }
    let span = Span { first: volume.first + sector, sectors };
    let mut reader = Reader::new(disks, volume.which, span)?;
    while let Some(chunk) = reader.next(machine, disks)? {
        let at = usize::try_from((chunk.sector - span.first) * 512).unwrap_or(usize::MAX);
        let length = chunk.data.length_bytes();
        chunk.data.read(0, &mut out[at..at + length]);
    }
    Ok(())
}

fn whole<M: Machine>(disks: &mut Disks<M>, which: Which) -> Result<Volume, Failure> {
    let name = disks.name(which).to_string();
    let sectors = disks.disk(which)?.geometry().sectors;
    Ok(Volume { which, name, first: 0, sectors })
}

fn on_disk<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    which: Which,
) -> Result<Vec<Found>, Failure> {
    let disk = whole(disks, which)?;
    let sector_bytes = disks.disk(which)?.geometry().sector_size;
    let size_bytes = usize::try_from(sector_bytes).unwrap_or(512).clamp(512, 4096);
    let unit = (size_bytes / 512) as u64;
    let mut view = Raw { machine, disks, volume: &disk, size_bytes };
    let table = partitions::read(&mut view)?;
    for complaint in &table.complaints {
        machine.print(format_args!("{}: {complaint}", disk.name));
    }
    if table.partitions.is_empty() {
        return Ok([signed(machine, disks, disk)?].into());
    }
    // A name that ends with a digit keeps its partition's number apart.
    let p = if disk.name.ends_with(|it: char| it.is_ascii_digit()) { "p" } else { "" };
    let partition = |it: &partitions::Partition| Volume {
        which,
        name: format!("{}{p}{}", disk.name, it.number),
        first: it.first * unit,
        sectors: it.blocks * unit,
    };
    table.partitions.iter().map(|it| signed(machine, disks, partition(it))).collect()
}

fn signed<M: Machine>(machine: &M, disks: &mut Disks<M>, volume: Volume) -> Result<Found, Failure> {
    let mut bytes = [0; signature::BYTES];
    if volume.sectors < (bytes.len() / 512) as u64 {
        return Ok(Found { volume, signature: None });
    }
    read(machine, disks, &volume, 0, &mut bytes)?;
    Ok(Found { volume, signature: Signature::read(&bytes) })
}

/// A disk as its partition table sees it.
struct Raw<'a, M: Machine> {
    machine: &'a M,
    disks: &'a mut Disks<M>,
    volume: &'a Volume,
    size_bytes: usize,
}

impl<M: Machine> Blocks for Raw<'_, M> {
    type Error = Failure;

    fn count(&self) -> u64 {
        self.volume.sectors / (self.size_bytes / 512) as u64
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn read(&mut self, first: u64, out: &mut [u8]) -> Result<(), Failure> {
        let sector = first.saturating_mul((self.size_bytes / 512) as u64);
        read(self.machine, self.disks, self.volume, sector, out)
    }
}
