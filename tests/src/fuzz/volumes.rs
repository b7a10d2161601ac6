//! Target `volumes`: partition tables, the marks of file systems, and headers of swap areas.
//!
//! A table that is written by the rules is read as it was written; whatever it holds, a partition
//! lies on its disk, and no disk makes the reader read or complain without end.

mod first_page;

use std::collections::BTreeMap;
use std::convert::Infallible;

use guest_kernel::volumes::partitions::{self, Blocks, ENTRIES_MAX, LOGICAL_MAX, Partition, Table};

use super::Share;
use super::choices::{Choices, damage};

/// Blocks that are read for one table, at most: the record, the chain, and two GPTs.
const READS_MAX: u64 = 1 + LOGICAL_MAX as u64 + 4;
/// Lines about one table, at most.
const COMPLAINTS_MAX: usize = ENTRIES_MAX as usize + LOGICAL_MAX as usize + 8;

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let valid = match choices.below(4) {
        0 | 1 => master_record(&mut choices),
        2 => guid_table(&mut choices),
        _ => first_page::check(&mut choices),
    };
    Share::one(valid)
}

/// A disk of zeros, but for some blocks.
struct Medium {
    blocks: BTreeMap<u64, Vec<u8>>,
    count: u64,
    size_bytes: usize,
    reads: u64,
}

impl Blocks for Medium {
    type Error = Infallible;

    fn count(&self) -> u64 {
        self.count
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn read(&mut self, first: u64, out: &mut [u8]) -> Result<(), Infallible> {
        self.reads += 1;
        assert!(out.len().is_multiple_of(self.size_bytes), "a part of a block");
        assert!(out.len() <= 1 << 20, "{} bytes at once", out.len());
        for (number, out) in (first..).zip(out.chunks_mut(self.size_bytes)) {
            assert!(number < self.count, "block {number} is not on the disk");
            match self.blocks.get(&number) {
                Some(block) => out.copy_from_slice(block),
                None => out.fill(0),
            }
        }
        Ok(())
    }
}

impl Medium {
    fn new(choices: &mut Choices<'_>, lawful: bool) -> Self {
        let count = match choices.below(4) {
            // A GPT of eight entries of 4096 bytes has room in front of the last block.
            0 if lawful => 101 + choices.double_below(64),
            0 => choices.double_below(64),
            1 => u64::from(choices.word()) + 101,
            _ => 4096,
        };
        let size_bytes = choices.of(&[512, 512, 512, 1024, 4096]);
        Self { blocks: BTreeMap::new(), count, size_bytes, reads: 0 }
    }

    fn block(&mut self, number: u64) -> &mut [u8] {
        let size_bytes = self.size_bytes;
        self.blocks.entry(number).or_insert_with(|| vec![0; size_bytes])
    }

    /// An entry of a boot record.
    fn entry(&mut self, block: u64, number: usize, kind: u8, [first, blocks]: [u32; 2]) {
        let sector = self.block(block);
        let at = 446 + number * 16;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&blocks.to_le_bytes());
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    }

    /// Damages one of the blocks.
    fn damage(&mut self, choices: &mut Choices<'_>) {
        let numbers: Vec<u64> = self.blocks.keys().copied().collect();
        if !numbers.is_empty() {
            let number = choices.of(&numbers);
            damage(choices, self.block(number));
        }
    }

    fn table(&mut self) -> Table {
        let Ok(table) = partitions::read(self);
        assert!(self.reads <= READS_MAX, "{} reads", self.reads);
        assert!(table.complaints.len() <= COMPLAINTS_MAX);
        let mut numbers: Vec<u32> = table.partitions.iter().map(|it| it.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), table.partitions.len(), "a number twice");
        for Partition { number, first, blocks } in &table.partitions {
            let inside = first.checked_add(*blocks).is_some_and(|end| end <= self.count);
            assert!(inside && *first > 0 && *blocks > 0 && *number > 0, "{:?}", table.partitions);
        }
        table
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A table in the first sector, and a chain; tells whether it is by the rules.
fn master_record(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let mut disk = Medium::new(choices, lawful);
    let count = disk.count.min(u64::from(u32::MAX));
    let mut expected = Vec::new();
    let mut extended = None;
    for number in 0..4 {
        let kind = choices.of(&[0x83, 0x82, 0x07, 0, 0x05, 0x0f, 0x85]);
        let first = 1 + choices.double_below(count.max(3) - 2);
        let blocks = 1 + choices.double_below(count.saturating_sub(first).max(1));
        let place =
            if lawful { [first, blocks].map(small) } else { [choices.word(), small(blocks)] };
        disk.entry(0, number, kind, place);
        match kind {
            0 => {}
            5 | 0x0f | 0x85 => extended = extended.or(Some(place)),
            _ => expected.push(Partition { number: small(number as u64) + 1, first, blocks }),
        }
    }
    if let Some([begin, length]) = extended.filter(|_| count > 2) {
        chain(choices, &mut disk, (begin.into(), length.into()), &mut expected);
    }
    if !lawful && choices.valid() {
        disk.damage(choices);
    }
    let table = disk.table();
    if lawful {
        assert_eq!((table.partitions, table.complaints), (expected, Vec::new()));
    }
    lawful
}

/// A chain of logical partitions in an extended one.
fn chain(
    choices: &mut Choices<'_>,
    disk: &mut Medium,
    (begin, length): (u64, u64),
    expected: &mut Vec<Partition>,
) {
    let end = (begin + length).min(disk.count);
    let mut link = begin;
    for number in 5..5 + LOGICAL_MAX {
        if link >= end {
            return;
        }
        // The link, and behind it the partition, if there is room for one.
        let room = end - link - 1;
        let blocks = room.min(u64::from(choices.byte()) % 8);
        disk.entry(link, 0, if blocks > 0 { 0x83 } else { 0 }, [1, small(blocks)]);
        if blocks > 0 {
            expected.push(Partition { number, first: link + 1, blocks });
        }
        let next = link + 1 + blocks + choices.double_below(4);
        if next >= end || number + 1 == 5 + LOGICAL_MAX || !choices.valid() {
            return;
        }
        disk.entry(link, 1, 0x05, [next - begin, end - next].map(small));
        link = next;
    }
}

/// CRC-32, bit by bit: another way than the one that is tested.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

/// A GPT, of which the first copy or only the last one is there; tells whether it is by the rules.
fn guid_table(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let mut disk = Medium::new(choices, lawful);
    disk.entry(0, 0, 0xee, [1, u32::MAX]);
    let last = disk.count.saturating_sub(1);
    let (size, mut expected) = (choices.of(&[128, 128, 256, 4096]), Vec::new());
    let entries = guid_entries(choices, disk.count, (size, lawful), &mut expected);
    let place = if choices.valid() { 1 } else { last };
    let at = if place == 1 { 2 } else { 3 };
    let block_bytes = disk.size_bytes;
    for (block, part) in (at..).zip(entries.chunks(block_bytes)) {
        disk.block(block)[..part.len()].copy_from_slice(part);
    }
    let header = guid_header(choices, (place, at), size, &entries);
    disk.block(place)[..header.len()].copy_from_slice(&header);
    if !lawful && choices.valid() {
        disk.damage(choices);
        if choices.valid() {
            seal(disk.block(place));
        }
    }
    let table = disk.table();
    if lawful {
        let complaints = usize::from(place != 1);
        assert_eq!((table.partitions, table.complaints.len()), (expected, complaints));
    }
    lawful
}

/// One to eight entries, and the partitions that they are.
fn guid_entries(
    choices: &mut Choices<'_>,
    count: u64,
    (size, lawful): (usize, bool),
    expected: &mut Vec<Partition>,
) -> Vec<u8> {
    let mut bytes = vec![0; (1 + choices.below(8)) * size];
    for (number, entry) in (1..).zip(bytes.chunks_mut(size)) {
        let first = 1 + choices.double_below(count.max(3) - 2);
        let last = first + choices.double_below(count.saturating_sub(first).max(1));
        let first = if lawful { first } else { choices.number(count, &[0, count, u64::MAX]) };
        if choices.valid() {
            entry[0] = 7;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            let blocks = last.wrapping_sub(first).wrapping_add(1);
            expected.push(Partition { number, first, blocks });
        }
    }
    bytes
}

/// The header in block `place` of entries that begin in block `at`.
fn guid_header(
    choices: &mut Choices<'_>,
    (place, at): (u64, u64),
    size: usize,
    entries: &[u8],
) -> Vec<u8> {
    let mut header = vec![0; choices.of(&[92, 92, 512])];
    let length = small(header.len() as u64);
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&length.to_le_bytes());
    header[24..32].copy_from_slice(&place.to_le_bytes());
    header[72..80].copy_from_slice(&at.to_le_bytes());
    header[80..84].copy_from_slice(&small((entries.len() / size) as u64).to_le_bytes());
    header[84..88].copy_from_slice(&small(size as u64).to_le_bytes());
    header[88..92].copy_from_slice(&sum(entries).to_le_bytes());
    seal(&mut header);
    header
}

/// Makes a header's sum right.
fn seal(header: &mut [u8]) {
    header[16..20].fill(0);
    let length = u32::from_le_bytes(*header[12..].first_chunk().expect("a header"));
    let sum = sum(&header[..(length as usize).min(header.len())]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}
