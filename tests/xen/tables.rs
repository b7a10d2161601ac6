//! Partition tables as bytes: the classic one of PCs with a chain of logical partitions, and the
//! GPT. What is made here is held against Linux's own reading of it before a guest sees it.

/// Bytes of a sector.
const SECTOR: usize = 512;
/// A partition with files, one that is a swap area, and one that holds others.
const LINUX: u8 = 0x83;
const SWAP: u8 = 0x82;
const EXTENDED: u8 = 0x05;
/// Entries of a GPT, and bytes of each.
const ENTRIES: usize = 128;
const ENTRY: usize = 128;

/// A partition: its number, its first sector and how many.
pub(crate) type Part = (u32, u64, u64);

/// Where the partitions of [`mbr`] are: one with files, one for swap, and a logical one with files.
pub(crate) const MBR: [Part; 3] = [(1, 2048, 16384), (3, 32768, 65536), (5, 102_400, 16384)];
/// Where the partitions of [`gpt`] are: one for swap, one with files.
pub(crate) const GPT: [Part; 2] = [(1, 2048, 40960), (2, 43008, 16384)];

/// Sectors to be written, each with its number.
pub(crate) type Sectors = Vec<(u64, Vec<u8>)>;

fn word(number: u64) -> [u8; 4] {
    u32::try_from(number).expect("a small disk").to_le_bytes()
}

fn boot_record(entries: &[(usize, u8, u64, u64)]) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    for &(place, kind, first, sectors) in entries {
        let at = 446 + place * 16;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&word(first));
        sector[at + 12..at + 16].copy_from_slice(&word(sectors));
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// The table of [`MBR`].
pub(crate) fn mbr() -> Sectors {
    let [(_, files, files_long), (_, swap, swap_long), (_, logical, logical_long)] = MBR;
    let link = logical - 2048;
    let primary = [
        (0, LINUX, files, files_long),
        (1, EXTENDED, link, logical_long + 2048),
        (2, SWAP, swap, swap_long),
    ];
    let logical = [(0, LINUX, 2048, logical_long)];
    vec![(0, boot_record(&primary)), (link, boot_record(&logical))]
}

/// CRC-32 as zlib has it.
fn sum(bytes: &[u8]) -> [u8; 4] {
    let mut sum = u32::MAX;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    (!sum).to_le_bytes()
}

/// The table of [`GPT`] on a disk of so many sectors, with its copy at the end.
pub(crate) fn gpt(sectors: u64) -> Sectors {
    let mut entries = vec![0; ENTRIES * ENTRY];
    for (number, first, long) in GPT {
        let entry = &mut entries[(number as usize - 1) * ENTRY..][..ENTRY];
        // "Linux filesystem data", 0FC63DAF-8483-4772-8E79-3D69D8477DE4, as it lies on the disk.
        entry[..16].copy_from_slice(&[
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47,
            0x7d, 0xe4,
        ]);
        entry[16] = u8::try_from(number).expect("few");
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(first + long - 1).to_le_bytes());
    }
    let table = (entries.len() / SECTOR) as u64;
    let header = |here: u64, other: u64, entries_at: u64| {
        let mut header = vec![0; SECTOR];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        let usable = [2 + table, sectors - table - 2];
        let places = [here, other, usable[0], usable[1]];
        for (at, place) in (24..).step_by(8).zip(places) {
            header[at..at + 8].copy_from_slice(&place.to_le_bytes());
        }
        header[56..72].fill(0x5a);
        header[72..80].copy_from_slice(&entries_at.to_le_bytes());
        header[80..84].copy_from_slice(&word(ENTRIES as u64));
        header[84..88].copy_from_slice(&word(ENTRY as u64));
        header[88..92].copy_from_slice(&sum(&entries));
        let own = sum(&header[..92]);
        header[16..20].copy_from_slice(&own);
        header
    };
    let last = sectors - 1;
    vec![
        (0, boot_record(&[(0, 0xee, 1, last)])),
        (1, header(1, last, 2)),
        (2, entries.clone()),
        (last - table, entries.clone()),
        (last, header(last, 1, last - table)),
    ]
}
