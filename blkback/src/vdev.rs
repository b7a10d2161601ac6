//! Names and numbers of virtual disks (`docs/man/xen-vbd-interface.7` of Xen).
//!
//! `xvda` is major 202: 16 minors for each of the first 16 disks (the disk and 15 partitions);
//! later disks and partitions have extended numbers, `1 << 28 | disk << 8 | partition`. A plain
//! number, decimal or hexadecimal, is taken as it is.

use blkif::DiskName;

/// Above this the guest interface has no disks.
const DISKS_MAX: u32 = 1 << 20;
const PARTITIONS_MAX: u32 = 255;
/// The number is not one of the old scheme.
const EXTENDED: u32 = 1 << 28;
const XVD: u32 = 202 << 8;

/// The number of a disk by its name: `xvda`, `xvdb3`, `xvdq`, `sda`, `hda`, `d2p1`, `51712`,
/// `0xca00`. `None` if it is no name of a disk.
pub fn number(name: &str) -> Option<u32> {
    if let Some(hexadecimal) = name.strip_prefix("0x") {
        return u32::from_str_radix(hexadecimal, 16).ok();
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        return name.parse().ok();
    }
    let (prefix, disk, partition) = split(name)?;
    if disk >= DISKS_MAX || partition > PARTITIONS_MAX {
        return None;
    }
    match prefix {
        "xvd" | "d" if disk < 16 && partition < 16 => Some(XVD | disk << 4 | partition),
        "xvd" | "d" => Some(EXTENDED | disk << 8 | partition),
        "sd" if disk < 16 && partition < 16 => Some(8 << 8 | disk << 4 | partition),
        "hd" if disk < 2 && partition < 64 => Some(3 << 8 | disk << 6 | partition),
        "hd" if disk < 4 && partition < 64 => Some(22 << 8 | (disk - 2) << 6 | partition),
        _ => None,
    }
}

/// The name under which a Linux guest shows a disk number, if it is one of the `xvd` family.
pub fn name(number: u32) -> Option<String> {
    let name = DiskName::new(number);
    name.is_xvd().then(|| name.to_string())
}

/// Prefix, disk and partition of a name.
fn split(name: &str) -> Option<(&str, u32, u32)> {
    if let Some(rest) = name.strip_prefix('d')
        && rest.starts_with(|first: char| first.is_ascii_digit())
    {
        let (disk, partition) = rest.split_once('p').unwrap_or((rest, "0"));
        return Some(("d", disk.parse().ok()?, partition.parse().ok()?));
    }
    let prefix = ["xvd", "sd", "hd"].into_iter().find(|&prefix| name.starts_with(prefix))?;
    let rest = &name[prefix.len()..];
    let end = rest.find(|letter: char| !letter.is_ascii_lowercase()).unwrap_or(rest.len());
    let (letters, digits) = rest.split_at(end);
    // Five letters name the last disk that there can be, and many beyond it.
    if letters.is_empty() || letters.len() > 5 {
        return None;
    }
    let disk = letters.bytes().fold(0, |disk, letter| disk * 26 + u32::from(letter - b'a') + 1) - 1;
    let partition = if digits.is_empty() { 0 } else { digits.parse().ok().filter(|&it| it > 0)? };
    Some((prefix, disk, partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_of_the_guest_interface() {
        for (name, want) in [
            ("xvda", 51712),
            ("xvda1", 51713),
            ("xvdb", 51728),
            ("xvdp15", 51967),
            ("xvdq", 1 << 28 | 16 << 8),
            ("xvda16", 1 << 28 | 16),
            ("xvdz", 1 << 28 | 25 << 8),
            ("xvdaa", 1 << 28 | 26 << 8),
            ("d0", 51712),
            ("d1p3", 51731),
            ("d26p20", 1 << 28 | 26 << 8 | 20),
            ("sda", 2048),
            ("hda", 768),
            ("hdc", 5632),
            ("51712", 51712),
            ("0xca10", 51728),
        ] {
            assert_eq!(number(name), Some(want), "{name}");
        }
    }

    #[test]
    fn what_is_no_disk_has_no_number() {
        for name in [
            "",
            "xvd",
            "xvdA",
            "xvda0",
            "xvda-1",
            "xvda256",
            "vda",
            "xvdbgqcw",
            "xvdaaaaaa",
            "hde",
            "0x",
        ] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn numbers_of_the_family_have_the_name_that_gives_them() {
        for name in ["xvda", "xvdb3", "xvdp15", "xvdq", "xvdz9", "xvdaa", "xvdzz255", "xvdbgqcv"] {
            let number = number(name).unwrap();
            assert_eq!(super::name(number).as_deref(), Some(name));
        }
        assert_eq!(name(2048), None);
        assert_eq!(name(3 << 28 | 1 << 8), None, "the number of another disk with one bit more");
        for early in [1 << 28, 1 << 28 | 15 << 8 | 15] {
            assert_eq!(name(early), None, "{early:#x}: an early disk in the later scheme");
        }
    }
}
