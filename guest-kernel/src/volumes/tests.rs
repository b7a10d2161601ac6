//! Partition tables as tools write them, as liars do, and by chance; and what volumes are found.

extern crate std;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

use super::partitions::{self, Blocks, ENTRIES_MAX, LOGICAL_MAX, Partition, Table};
use super::signature::{self, Kind, Signature};
use super::{all, find, find_files};
use crate::programs::Disks;
use crate::programs::plate::Plate;
use crate::programs::play::Play;

const BLOCKS: u64 = 4096;

/// A disk in memory, which counts what is read.
struct Medium {
    bytes: Vec<u8>,
    size_bytes: usize,
    reads: u64,
}

impl Medium {
    fn new(size_bytes: usize) -> Self {
        let bytes = vec![0; usize::try_from(BLOCKS).unwrap() * size_bytes];
        Self { bytes, size_bytes, reads: 0 }
    }

    fn block(&mut self, number: u64) -> &mut [u8] {
        let at = usize::try_from(number).unwrap() * self.size_bytes;
        &mut self.bytes[at..at + self.size_bytes]
    }

    /// An entry of a boot record.
    fn entry(&mut self, block: u64, number: usize, kind: u8, first: u32, blocks: u32) {
        let sector = self.block(block);
        let at = 446 + number * 16;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&blocks.to_le_bytes());
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    }

    /// A GPT with these partitions, first and last block of each.
    fn guid_table(&mut self, place: u64, entries_at: u64, partitions: &[(u64, u64)]) {
        let mut entries = vec![0; 128 * 128];
        for (entry, (first, last)) in entries.chunks_mut(128).zip(partitions) {
            entry[..16].fill(7);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        let at = usize::try_from(entries_at).unwrap() * self.size_bytes;
        self.bytes[at..at + entries.len()].copy_from_slice(&entries);
        let sum = sum(&entries);
        let header = self.block(place);
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&place.to_le_bytes());
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&sum.to_le_bytes());
        self.seal(place);
    }

    /// Makes a header's sum right.
    fn seal(&mut self, place: u64) {
        let header = self.block(place);
        header[16..20].fill(0);
        let length = u32::from_le_bytes(header[12..16].try_into().unwrap());
        let sum = sum(&header[..usize::try_from(length).unwrap().min(header.len())]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    fn read_table(&mut self) -> Table {
        let Ok(table) = partitions::read(self);
        table
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

impl Blocks for Medium {
    type Error = Infallible;

    fn count(&self) -> u64 {
        (self.bytes.len() / self.size_bytes) as u64
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn read(&mut self, first: u64, out: &mut [u8]) -> Result<(), Infallible> {
        assert!(out.len().is_multiple_of(self.size_bytes));
        self.reads += 1;
        let at = usize::try_from(first).unwrap() * self.size_bytes;
        out.copy_from_slice(&self.bytes[at..at + out.len()]);
        Ok(())
    }
}

fn partition(number: u32, first: u64, blocks: u64) -> Partition {
    Partition { number, first, blocks }
}

#[test]
fn primary_and_logical_partitions_are_numbered_as_linux_does() {
    let mut disk = Medium::new(512);
    disk.entry(0, 0, 0x83, 64, 100);
    disk.entry(0, 2, 0x05, 1000, 2000);
    disk.entry(0, 3, 0x82, 3500, 500);
    disk.entry(1000, 0, 0x83, 8, 100);
    disk.entry(1000, 1, 0x05, 500, 600);
    disk.entry(1500, 0, 0x83, 8, 592);
    let table = disk.read_table();
    let expected = [
        partition(1, 64, 100),
        partition(4, 3500, 500),
        partition(5, 1008, 100),
        partition(6, 1508, 592),
    ];
    assert_eq!(table, Table { partitions: expected.to_vec(), complaints: Vec::new() });
}

#[test]
fn a_disk_without_a_table_or_with_a_boot_sector_has_no_partitions() {
    let mut disk = Medium::new(512);
    assert_eq!(disk.read_table(), Table::default());
    disk.block(0).fill(b'x');
    disk.block(0)[510..].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(disk.read_table(), Table::default());
}

#[test]
fn a_partition_ends_with_the_disk_or_is_left_out() {
    for (first, blocks, good) in [
        (1, 4095, true),
        (1, 4096, false),
        (4095, 1, true),
        (4096, 1, false),
        (0, 1, false),
        (u32::MAX, u32::MAX, false),
    ] {
        let mut disk = Medium::new(512);
        disk.entry(0, 1, 0x83, first, blocks);
        let table = disk.read_table();
        assert_eq!(table.partitions.len(), usize::from(good), "{first} {blocks}");
        assert_eq!(table.complaints.is_empty(), good, "{first} {blocks}");
    }
}

#[test]
fn a_chain_that_leads_back_out_or_on_for_ever_ends() {
    for (next, text) in [
        (0, "leads back"),
        (3000, "out of the chain"),
        (u32::MAX, "out of the chain"),
        (7, "no link"),
    ] {
        let mut disk = Medium::new(512);
        disk.entry(0, 0, 0x0f, 1000, 2000);
        disk.entry(1000, 0, 0x83, 1, 1);
        disk.entry(1000, 1, 0x05, next, 5);
        let table = disk.read_table();
        assert_eq!(table.partitions, [partition(5, 1001, 1)]);
        assert!(table.complaints[0].contains(text), "{:?}", table.complaints);
    }
    let mut disk = Medium::new(512);
    disk.entry(0, 0, 0x85, 1000, 3000);
    for link in 0..u64::from(LOGICAL_MAX) + 10 {
        disk.entry(1000 + link * 2, 0, 0x83, 1, 1);
        disk.entry(1000 + link * 2, 1, 0x05, u32::try_from(link).unwrap() * 2 + 2, 2);
    }
    let table = disk.read_table();
    assert_eq!(table.partitions.len(), usize::try_from(LOGICAL_MAX).unwrap());
    assert!(table.complaints[0].contains("only 60"), "{:?}", table.complaints);
}

#[test]
fn a_guid_table_is_read_or_else_its_copy() {
    for size_bytes in [512, 4096] {
        let mut disk = Medium::new(size_bytes);
        disk.entry(0, 0, 0xee, 1, u32::MAX);
        disk.guid_table(1, 2, &[(40, 99), (100, 100)]);
        let both = [partition(1, 40, 60), partition(2, 100, 1)];
        assert_eq!(disk.read_table(), Table { partitions: both.to_vec(), complaints: Vec::new() });
        disk.guid_table(BLOCKS - 1, BLOCKS - 33, &[(40, 99)]);
        disk.block(1)[24] ^= 1;
        let table = disk.read_table();
        assert_eq!(table.partitions, both[..1]);
        assert!(table.complaints[0].contains("header's sum"), "{:?}", table.complaints);
    }
}

#[test]
fn a_guid_table_that_lies_with_right_sums_is_left_out() {
    type Lie = (usize, u64, usize, &'static str);
    let lies: [Lie; 7] = [
        (12, 91, 4, "length"),
        (24, 2, 8, "another place"),
        (72, 0, 8, "not on the disk"),
        (72, u64::MAX, 8, "not on the disk"),
        (80, ENTRIES_MAX as u64 + 1, 4, "number or size"),
        (84, 129, 4, "number or size"),
        (88, 5, 4, "entries' sum"),
    ];
    for (at, value, length, text) in lies {
        let mut disk = Medium::new(512);
        disk.entry(0, 0, 0xee, 1, 1);
        disk.guid_table(1, 2, &[(40, 99)]);
        disk.block(1)[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        disk.seal(1);
        let table = disk.read_table();
        assert!(table.partitions.is_empty());
        assert!(table.complaints[0].contains(text), "{:?}", table.complaints);
    }
    let mut disk = Medium::new(512);
    disk.entry(0, 0, 0xee, 1, 1);
    disk.guid_table(1, 2, &[(99, 40), (0, u64::MAX), (4000, BLOCKS), (4000, BLOCKS - 1)]);
    let table = disk.read_table();
    assert_eq!(table.partitions, [partition(4, 4000, 96)]);
    assert_eq!(table.complaints.len(), 3);
}

#[test]
fn a_thousand_damaged_tables_end_with_partitions_that_are_on_the_disk() {
    let (mut told, mut used) = (0, 0);
    for seed in 0..1000_u64 {
        let mut state = seed;
        let mut random = move |end: usize| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            usize::try_from((state >> 33) % end as u64).unwrap()
        };
        let mut disk = Medium::new(512);
        if seed % 2 == 0 {
            disk.entry(0, 0, 0xee, 1, 1);
            disk.guid_table(1, 2, &[(40, 99), (100, 200)]);
        } else {
            disk.entry(0, 1, 0x05, 1000, 2000);
            for link in 0..4_u32 {
                disk.entry(1000 + u64::from(link) * 10, 0, 0x83, 1, 5);
                disk.entry(1000 + u64::from(link) * 10, 1, 0x05, link * 10 + 10, 10);
            }
        }
        for _ in 0..4 {
            let block = [0, 0, 1, 2, 1000, 1010][random(6)];
            // Half of them where the fields are.
            let at = match (random(2), block) {
                (0, 1) => random(92),
                (0, 0 | 1000 | 1010) => 446 + random(66),
                _ => random(512),
            };
            disk.block(block)[at] ^= 1 << random(8);
        }
        if seed % 4 == 0 {
            disk.seal(1);
        }
        let table = disk.read_table();
        told += usize::from(!table.complaints.is_empty());
        used += usize::from(!table.partitions.is_empty());
        for it in table.partitions {
            assert!(it.first > 0 && it.blocks > 0 && it.first + it.blocks <= BLOCKS, "seed {seed}");
        }
        assert!(disk.reads <= u64::from(LOGICAL_MAX) + 5, "seed {seed}");
    }
    assert!(told > 200 && used > 200, "the damage does not reach: {told} {used}");
}

/// The first blocks of an ext file system with these feature words.
fn ext(features: [u32; 3], label: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; signature::BYTES];
    bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
    for (at, word) in (0..).zip(features) {
        bytes[1116 + at * 4..1120 + at * 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes[1128..1144].copy_from_slice(&[0xab; 16]);
    bytes[1144..1144 + label.len()].copy_from_slice(label);
    bytes
}

fn swap(label: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; signature::BYTES];
    bytes[1024] = 1;
    bytes[1036..1052].copy_from_slice(&[0xcd; 16]);
    bytes[1052..1052 + label.len()].copy_from_slice(label);
    bytes[4086..].copy_from_slice(b"SWAPSPACE2");
    bytes
}

#[test]
fn file_systems_and_swap_are_told_apart() {
    for (features, kind) in [
        ([0x38, 0x2, 0x3], Kind::Ext2),
        ([0x3c, 0x6, 0x3], Kind::Ext3),
        ([0x3c, 0x2c2, 0x46b], Kind::Ext4),
        ([0x38, 0x40, 0x3], Kind::Ext4),
    ] {
        let found = Signature::read(&ext(features, b"root")).unwrap();
        assert_eq!((found.kind, found.label.as_str()), (kind, "root"));
        assert_eq!(found.uuid.to_string(), "abababab-abab-abab-abab-abababababab");
    }
    let found = Signature::read(&swap(b"")).unwrap();
    assert_eq!((found.kind, found.label.as_str()), (Kind::Swap, ""));
    assert_eq!(Signature::read(&[0; 4096]), None);
    assert_eq!(Signature::read(&swap(b"")[..4095]), None);
    let odd = Signature::read(&ext([0; 3], b"a\x1b[2J\xff89abcdefg")).unwrap();
    assert_eq!(odd.label, "a?[2J\u{fffd}89abcdefg");
}

/// A disk with two partitions that hold something, and one that is a swap area as a whole.
fn scene() -> (Play, Disks<Play>) {
    let play = Play::with(2, 2048, 100_000, |disk| {
        disk.medium.fill(0);
        if disk.geometry.sectors == 2048 {
            disk.medium[..4096].copy_from_slice(&swap(b"second"));
        }
    });
    play.back(0, |disk| {
        let mut table = Medium::new(512);
        table.entry(0, 0, 0x82, 64, 64);
        table.entry(0, 1, 0x83, 128, 512);
        disk.medium.fill(0);
        disk.medium[..512].copy_from_slice(table.block(0));
        disk.medium[64 * 512..64 * 512 + 4096].copy_from_slice(&swap(b"/"));
        disk.medium[128 * 512..128 * 512 + 4096].copy_from_slice(&ext([0x3c, 0x40, 0], b"/"));
    });
    let disks = play.disks();
    (play, disks)
}

#[test]
fn a_volume_is_found_by_its_label_its_uuid_or_its_name() {
    let (play, mut disks) = scene();
    let names: Vec<_> = all(&play, &mut disks).into_iter().map(|it| it.volume.name).collect();
    assert_eq!(names, ["xvda1", "xvda2", "xvdb"]);
    for (spec, name) in [
        ("LABEL=/", "xvda1"),
        ("LABEL=second", "xvdb"),
        ("UUID=ABABABAB-abab-abab-abab-abababababab", "xvda2"),
        ("/dev/xvda2", "xvda2"),
        ("xvdb", "xvdb"),
        ("/dev/xvda", "xvda"),
    ] {
        assert_eq!(find(&play, &mut disks, spec).unwrap().name, name, "{spec}");
    }
    let root = find_files(&play, &mut disks, "LABEL=/").unwrap().volume;
    assert_eq!((root.name.as_str(), root.first, root.sectors), ("xvda2", 128, 512));
    play.assert_clean(disks);
}

#[test]
fn partitions_of_a_disk_without_a_back_are_found_behind_the_others() {
    let (play, mut disks) = scene();
    let mut bytes = play.back(0, |disk| disk.medium.clone());
    bytes[64 * 512..64 * 512 + 4096].copy_from_slice(&swap(b"third"));
    let info = blkif::Info::empty();
    let (_, which) = Plate::add(&play, &mut disks, ("ram0", info), bytes);
    let names: Vec<_> = all(&play, &mut disks).into_iter().map(|it| it.volume.name).collect();
    assert_eq!(names, ["xvda1", "xvda2", "xvdb", "ram0p1", "ram0p2"]);
    let found = find(&play, &mut disks, "LABEL=third").unwrap();
    assert_eq!((found.which, found.name.as_str(), found.first), (which, "ram0p1", 64));
    play.assert_clean(disks);
}

#[test]
fn what_is_missing_is_told_with_what_there_is() {
    let (play, mut disks) = scene();
    for spec in ["LABEL=none", "UUID=1", "PARTUUID=1", "/dev/xvdq", ""] {
        let failure = find(&play, &mut disks, spec).unwrap_err();
        assert_eq!(failure.status, 3);
        assert!(
            failure.text.starts_with(&std::format!("{spec}: not found, there is:")),
            "{failure}"
        );
        let ext4 = "\n  xvda2: ext4, LABEL=\"/\", UUID=abababab-abab-abab-abab-abababababab";
        assert!(failure.text.contains(ext4), "{failure}");
        assert!(failure.text.contains("xvdb: swap, LABEL=\"second\""), "{failure}");
    }
}
