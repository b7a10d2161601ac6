//! The size and the nature of a disk, as the back publishes it and the front reads it.

use core::fmt;

use crate::keys::{self, Refusal, Silly};

/// A disk has at most this many sectors of 512 bytes: 2^63 bytes, so that every byte of it has an
/// offset that fits a signed 64-bit number.
pub const SECTORS_MAX: u64 = 1 << 54;

/// The physical sector size is only advice; beyond 1 MiB it is nonsense.
const PHYSICAL_MAX: u32 = 1 << 20;
/// A sector has to fit the page that it is transferred in.
const SECTOR_MAX: u32 = 4096;
const SECTOR_MIN: u32 = 512;

bitflags::bitflags! {
    /// The `info` node.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Info: u32 {
        /// A CD-ROM.
        const CDROM = 1;
        /// The medium can be taken out.
        const REMOVABLE = 2;
        /// Whatever writes is refused.
        const READ_ONLY = 4;
    }
}

/// The size and the nature of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// How many sectors of 512 bytes, whatever `sector_size` is; at most [`SECTORS_MAX`].
    pub sectors: u64,
    /// The unit that requests are aligned to, in bytes: a power of two from 512 to 4096.
    pub sector_size: u32,
    /// The unit that the disk works in, in bytes: advice to the front.
    pub physical_sector_size: u32,
    /// What kind of disk.
    pub info: Info,
}

impl Geometry {
    /// A plain writable disk of 512-byte sectors.
    ///
    /// # Errors
    /// [`Silly::TooLarge`] above [`SECTORS_MAX`].
    pub fn new(sectors: u64) -> Result<Self, Refusal> {
        if sectors > SECTORS_MAX {
            let silly = Silly::TooLarge { value: sectors, most: SECTORS_MAX };
            return Err(Refusal::new(keys::SECTORS, silly));
        }
        Ok(Self { sectors, sector_size: 512, physical_sector_size: 512, info: Info::empty() })
    }

    /// Whether writes, discards and flushes with data are refused.
    pub const fn read_only(&self) -> bool {
        self.info.contains(Info::READ_ONLY)
    }

    /// Sectors of 512 bytes in one of the disk's: 1 to 8.
    #[inline]
    pub(crate) fn unit(&self) -> u8 {
        u8::try_from(self.sector_size / SECTOR_MIN).unwrap_or(crate::SECTORS_PER_PAGE)
    }

    /// Reads the nodes of a back.
    ///
    /// # Errors
    /// [`Refusal`] for a missing `sectors` and for any number that no disk has.
    pub fn read<S: AsRef<str>>(mut node: impl FnMut(&str) -> Option<S>) -> Result<Self, Refusal> {
        let sectors = keys::number(keys::SECTORS, node(keys::SECTORS))?
            .ok_or(Refusal::new(keys::SECTORS, Silly::Missing))?;
        let sector_size =
            size(keys::SECTOR_SIZE, node(keys::SECTOR_SIZE), (SECTOR_MIN, SECTOR_MIN, SECTOR_MAX))?;
        let physical_sector_size = size(
            keys::PHYSICAL_SECTOR_SIZE,
            node(keys::PHYSICAL_SECTOR_SIZE),
            (sector_size, SECTOR_MIN, PHYSICAL_MAX),
        )?;
        let info = keys::number_up_to(keys::INFO, node(keys::INFO), (0, u32::MAX))?;
        let plain = Self::new(sectors)?;
        Ok(Self {
            sector_size,
            physical_sector_size,
            info: Info::from_bits_truncate(info),
            ..plain
        })
    }

    /// Writes the nodes of a back. To resize, the back writes them again and its state 4 with
    /// them, in one transaction.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn write<E>(
        &self,
        mut write: impl FnMut(&str, fmt::Arguments<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        write(keys::SECTORS, format_args!("{}", self.sectors))?;
        write(keys::SECTOR_SIZE, format_args!("{}", self.sector_size))?;
        write(keys::PHYSICAL_SECTOR_SIZE, format_args!("{}", self.physical_sector_size))?;
        write(keys::INFO, format_args!("{}", self.info.bits()))
    }
}

/// A size in bytes: a power of two within bounds.
fn size<S: AsRef<str>>(
    key: &'static str,
    text: Option<S>,
    (default, least, most): (u32, u32, u32),
) -> Result<u32, Refusal> {
    let value = keys::number_up_to(key, text, (default, most))?;
    let wide = u64::from(value);
    if value < least {
        return Err(Refusal::new(key, Silly::TooSmall { value: wide, least: u64::from(least) }));
    }
    if !value.is_power_of_two() {
        return Err(Refusal::new(key, Silly::NotAPowerOfTwo(wide)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    fn read(nodes: &[(&str, &str)]) -> Result<Geometry, Refusal> {
        Geometry::read(|key| nodes.iter().find(|node| node.0 == key).map(|node| node.1))
    }

    #[test]
    fn only_the_number_of_sectors_must_be_there() {
        assert_eq!(read(&[("sectors", "2048")]), Geometry::new(2048));
        assert_eq!(read(&[]), Err(Refusal::new("sectors", Silly::Missing)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let disk = Geometry {
            sectors: SECTORS_MAX,
            sector_size: 4096,
            physical_sector_size: 4096,
            info: Info::READ_ONLY | Info::CDROM,
        };
        let mut nodes: Vec<(String, String)> = Vec::new();
        let write = |key: &str, value: fmt::Arguments<'_>| {
            nodes.push((key.to_string(), value.to_string()));
            Ok::<(), ()>(())
        };
        assert_eq!(disk.write(write), Ok(()));
        let found = |key: &str| nodes.iter().find(|node| node.0 == key).map(|node| &node.1);
        assert_eq!(Geometry::read(found), Ok(disk));
        assert!(disk.read_only());
    }

    #[test]
    fn a_physical_sector_is_a_power_of_two_up_to_a_mebibyte() {
        let at = |size| read(&[("sectors", "8"), ("physical-sector-size", size)]);
        assert!(at("512").is_ok() && at("4096").is_ok() && at("1048576").is_ok());
        assert!(at("256").is_err() && at("2097152").is_err() && at("1000").is_err());
    }

    #[test]
    fn an_absurd_size_is_refused_by_name() {
        for (key, value) in [
            ("sectors", "18014398509481985"),
            ("sectors", "-1"),
            ("sectors", ""),
            ("sector-size", "0"),
            ("sector-size", "256"),
            ("sector-size", "513"),
            ("sector-size", "520"),
            ("sector-size", "8192"),
            ("sector-size", "4294967808"),
            ("info", "r"),
        ] {
            let mut nodes = Vec::from([(key, value)]);
            nodes.push(("sectors", "8"));
            assert_eq!(read(&nodes).unwrap_err().key, key, "{value:?}");
        }
    }

    #[test]
    fn info_bits_that_mean_nothing_here_are_passed_over() {
        let disk = read(&[("sectors", "8"), ("info", "4294967295")]).unwrap();
        assert_eq!(disk.info, Info::all());
    }
}
