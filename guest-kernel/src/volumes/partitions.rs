//! Partition tables: MBR with its chain of logical partitions, and GPT with its copy at the end.
//!
//! Whoever wrote the disk is not trusted: every number is held against the size of the disk, every
//! loop has a bound, and an entry that makes no sense is left out with a word about it. A table is
//! only read, never mended.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// The most logical partitions of an MBR that are followed.
pub const LOGICAL_MAX: u32 = 60;
/// The most entries of a GPT: what the specification asks every disk to have room for.
pub const ENTRIES_MAX: u32 = 128;

/// CRC-32 as GPT uses it (UEFI specification, 5.3.2).
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// A partition, in the disk's own blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As Linux counts: 1 to 4 are an MBR's primary ones, logical ones start at 5.
    pub number: u32,
    /// Its first block.
    pub first: u64,
    /// How many blocks, at least one; the last one is on the disk.
    pub blocks: u64,
}

/// What a disk's table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In the table's order.
    pub partitions: Vec<Partition>,
    /// What made no sense.
    pub complaints: Vec<String>,
}

/// A disk that is read block by block.
pub trait Blocks {
    /// Why a block cannot be read.
    type Error;

    /// How many blocks there are.
    fn count(&self) -> u64;

    /// Their size: 512 to 4096 bytes.
    fn size_bytes(&self) -> usize;

    /// Reads blocks from `first` on; `out` is a multiple of their size.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn read(&mut self, first: u64, out: &mut [u8]) -> Result<(), Self::Error>;
}

/// Reads the table of a disk; one without a table has no partitions.
///
/// # Errors
/// Those of the disk.
pub fn read<B: Blocks>(disk: &mut B) -> Result<Table, B::Error> {
    let mut table = Table::default();
    if disk.count() == 0 {
        return Ok(table);
    }
    let sector = block(disk, 0)?;
    let Some(entries) = boot_record(&sector) else { return Ok(table) };
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        guid_table(disk, &mut table)?;
        return Ok(table);
    }
    let mut extended = None;
    for (number, entry) in (1..).zip(entries) {
        if entry.is_extended() {
            extended = extended.or(Some(entry));
        } else {
            table.add(disk.count(), number, entry.first.into(), entry.blocks.into());
        }
    }
    if let Some(entry) = extended {
        logical(disk, &mut table, entry)?;
    }
    Ok(table)
}

impl Table {
    /// Takes a partition in, if it is on the disk.
    fn add(&mut self, disk_blocks: u64, number: u32, first: u64, blocks: u64) {
        if blocks == 0 {
            return;
        }
        if first == 0 || first.checked_add(blocks).is_none_or(|end| end > disk_blocks) {
            self.complain(format!("partition {number} is not on the disk"));
        } else {
            self.partitions.push(Partition { number, first, blocks });
        }
    }

    fn complain(&mut self, text: String) {
        self.complaints.push(text);
    }
}

fn block<B: Blocks>(disk: &mut B, number: u64) -> Result<Vec<u8>, B::Error> {
    let mut bytes = vec![0; disk.size_bytes().max(512)];
    disk.read(number, &mut bytes)?;
    Ok(bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The kind of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;

/// One of the four entries of a boot record. Kind 0 has no blocks.
#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: u8,
    first: u32,
    blocks: u32,
}

impl Entry {
    /// An extended partition, by any of its three names.
    fn is_extended(self) -> bool {
        [0x05, 0x0f, 0x85].contains(&self.kind)
    }
}

/// The entries of a boot record, or `None` where there is none: the boot sector of a file system
/// has the same signature, and text where the entries' boot marks would be.
fn boot_record(sector: &[u8]) -> Option<[Entry; 4]> {
    if sector.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let at = |number: usize| &sector[446 + number * 16..446 + (number + 1) * 16];
    if (0..4).any(|number| at(number)[0] & 0x7f != 0) {
        return None;
    }
    let entry = |number| {
        let bytes = at(number);
        let used = bytes[4] != 0;
        let blocks = if used { le32(bytes, 12) } else { 0 };
        Entry { kind: bytes[4], first: le32(bytes, 8), blocks }
    };
    Some([entry(0), entry(1), entry(2), entry(3)])
}

/// Follows the chain in an extended partition: each link has a partition, which begins where the
/// link says, and the place of the next link, which is counted from the chain's begin.
fn logical<B: Blocks>(disk: &mut B, table: &mut Table, extended: Entry) -> Result<(), B::Error> {
    let begin = u64::from(extended.first);
    let end = begin + u64::from(extended.blocks);
    let mut link = begin;
    for number in 5..5 + LOGICAL_MAX {
        if link == 0 || link >= end.min(disk.count()) {
            table.complain(format!("the link to partition {number} leads out of the chain"));
            return Ok(());
        }
        let sector = block(disk, link)?;
        let Some([own, next, ..]) = boot_record(&sector) else {
            table.complain(format!("there is no link to partition {number} in block {link}"));
            return Ok(());
        };
        let first = link + u64::from(own.first);
        table.add(disk.count().min(end), number, first, own.blocks.into());
        if !next.is_extended() || next.blocks == 0 {
            return Ok(());
        }
        let following = begin + u64::from(next.first);
        if following <= link {
            table.complain(format!("the chain leads back behind partition {number}"));
            return Ok(());
        }
        link = following;
    }
    table.complain(format!("only {LOGICAL_MAX} logical partitions are used"));
    Ok(())
}

/// Takes a GPT in: the first one, or its copy in the last block.
fn guid_table<B: Blocks>(disk: &mut B, table: &mut Table) -> Result<(), B::Error> {
    let last = disk.count() - 1;
    for place in [1, last] {
        if place == 0 || place > last {
            break;
        }
        let header = block(disk, place)?;
        match guid_header(&header, place, disk.size_bytes()) {
            Err(why) => table.complain(format!("GPT in block {place}: {why}")),
            Ok(header) => match guid_entries(disk, &header)? {
                Err(why) => table.complain(format!("GPT in block {place}: {why}")),
                Ok(entries) => {
                    add_entries(table, disk.count(), &header, &entries);
                    return Ok(());
                }
            },
        }
    }
    Ok(())
}

/// What the header says of its entries (UEFI specification, table 5.5).
struct GuidHeader {
    entries: u64,
    count: u32,
    size_bytes: usize,
    sum: u32,
}

fn guid_header(bytes: &[u8], place: u64, block_bytes: usize) -> Result<GuidHeader, &'static str> {
    if bytes.get(..8) != Some(b"EFI PART") {
        return Err("no header");
    }
    let length = usize::try_from(le32(bytes, 12)).unwrap_or(usize::MAX);
    if !(92..=block_bytes.min(bytes.len())).contains(&length) {
        return Err("a header of an impossible length");
    }
    let mut summed = bytes[..length].to_vec();
    summed[16..20].fill(0);
    if CRC.checksum(&summed) != le32(bytes, 16) {
        return Err("the header's sum is wrong");
    }
    if le64(bytes, 24) != place {
        return Err("the header belongs to another place");
    }
    let (count, size) = (le32(bytes, 80), le32(bytes, 84));
    // Sizes are 128 times a power of two; more than 4096 would be a disk of nothing but names.
    if count > ENTRIES_MAX || !(128..=4096).contains(&size) || !size.is_power_of_two() {
        return Err("entries of an impossible number or size");
    }
    let size_bytes = usize::try_from(size).unwrap_or(usize::MAX);
    Ok(GuidHeader { entries: le64(bytes, 72), count, size_bytes, sum: le32(bytes, 88) })
}

fn guid_entries<B: Blocks>(
    disk: &mut B,
    header: &GuidHeader,
) -> Result<Result<Vec<u8>, &'static str>, B::Error> {
    let length = header.size_bytes * usize::try_from(header.count).unwrap_or(0);
    let blocks = length.div_ceil(disk.size_bytes());
    let end = header.entries.checked_add(blocks as u64);
    if header.entries == 0 || end.is_none_or(|end| end > disk.count()) {
        return Ok(Err("the entries are not on the disk"));
    }
    let mut bytes = vec![0; blocks * disk.size_bytes()];
    disk.read(header.entries, &mut bytes)?;
    bytes.truncate(length);
    let fits = CRC.checksum(&bytes) == header.sum;
    Ok(if fits { Ok(bytes) } else { Err("the entries' sum is wrong") })
}

fn add_entries(table: &mut Table, disk_blocks: u64, header: &GuidHeader, entries: &[u8]) {
    for (number, entry) in (1..).zip(entries.chunks_exact(header.size_bytes)) {
        // An entry whose kind is all zeros is not used.
        if entry[..16].iter().all(|&byte| byte == 0) {
            continue;
        }
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        let blocks = last.checked_sub(first).and_then(|less| less.checked_add(1));
        match blocks {
            Some(blocks) => table.add(disk_blocks, number, first, blocks),
            None => table.complain(format!("partition {number} ends before it begins")),
        }
    }
}
