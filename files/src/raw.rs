//! An inode as it lies on the volume, for the one thing that `rsext4` does not say.
//!
//! It makes room for as many bytes as a link claims to hold, in all 64 bits, and shows 32 of them.
//! So the upper half is looked at here before a link is read.

use alloc::vec;
use alloc::vec::Vec;

use crate::door::{Lost, Volume};

/// Offset of the superblock.
const SUPERBLOCK: u64 = 1024;
/// `s_feature_incompat`: descriptors that do not lie together; no file system as small as ours
/// needs them.
const META_BG: u32 = 0x10;
/// `s_feature_incompat`: descriptors with upper halves.
const WIDE: u32 = 0x80;

/// Reads bytes at any place.
fn bytes(volume: &mut dyn Volume, at: u64, length: usize) -> Result<Vec<u8>, Lost> {
    let sizes = volume.sizes();
    let sector_bytes = u64::from(sizes.sector_bytes);
    let (first, skip) = (at / sector_bytes, at % sector_bytes);
    let skip = usize::try_from(skip).map_err(|_| Lost)?;
    let count = ((skip + length) as u64).div_ceil(sector_bytes);
    if !sizes.hold(first, count) {
        return Err(Lost);
    }
    let mut whole = vec![0; usize::try_from(count * sector_bytes).map_err(|_| Lost)?];
    volume.read(first, &mut whole)?;
    Ok(whole[skip..skip + length].to_vec())
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u64::from(word.map_or(0, u32::from_le_bytes))
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    le32(bytes, at) & 0xffff
}

/// The upper half of an inode's size; `None` where it cannot be found
/// (`Documentation/filesystems/ext4` of Linux: super, group_descr, inodes).
pub(crate) fn size_high(volume: &mut dyn Volume, number: u32) -> Result<Option<u64>, Lost> {
    let superblock = bytes(volume, SUPERBLOCK, 1024)?;
    let (shift, features) = (le32(&superblock, 24), le32(&superblock, 96));
    let per_group = le32(&superblock, 40);
    if shift > 6 || per_group == 0 || number == 0 || features & u64::from(META_BG) != 0 {
        return Ok(None);
    }
    let block_bytes = 1024_u64 << shift;
    let wide = features & u64::from(WIDE) != 0;
    let descriptor_bytes = if wide { le16(&superblock, 254).max(64) } else { 32 };
    let (group, place) = ((u64::from(number) - 1) / per_group, (u64::from(number) - 1) % per_group);
    let descriptors = (le32(&superblock, 20) + 1) * block_bytes;
    let descriptor = bytes(volume, descriptors + group * descriptor_bytes, 64)?;
    let table = le32(&descriptor, 8) | if wide { le32(&descriptor, 40) << 32 } else { 0 };
    // In the first version inodes have 128 bytes, whatever the field says.
    let inode_bytes = if le32(&superblock, 76) == 0 { 128 } else { le16(&superblock, 88) };
    let inode = table.checked_mul(block_bytes).and_then(|at| at.checked_add(place * inode_bytes));
    let Some(inode) = inode else { return Ok(None) };
    Ok(Some(le32(&bytes(volume, inode, 128)?, 108)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Sizes;

    /// Sixteen sectors, each full of its number.
    struct Numbered;

    impl Volume for Numbered {
        fn sizes(&self) -> Sizes {
            Sizes { sector_bytes: 512, sectors: 16, read_only: true }
        }

        fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Lost> {
            for (number, out) in (sector..).zip(out.chunks_mut(512)) {
                assert!(number < 16, "sector {number} is not on the volume");
                out.fill(number.to_le_bytes()[0]);
            }
            Ok(())
        }

        fn write(&mut self, _sector: u64, _data: &[u8]) -> Result<(), Lost> {
            Err(Lost)
        }

        fn flush(&mut self) -> Result<(), Lost> {
            Ok(())
        }
    }

    /// `rsext4` reads an inode before its link is followed, so that no image shows this bound.
    #[test]
    fn bytes_are_read_at_any_place_up_to_the_end_and_none_behind_it() {
        assert_eq!(bytes(&mut Numbered, 510, 4), Ok(vec![0, 0, 1, 1]));
        assert_eq!(bytes(&mut Numbered, 512, 512), Ok(vec![1; 512]));
        assert_eq!(bytes(&mut Numbered, 16 * 512 - 3, 3), Ok(vec![15; 3]));
        for (at, length) in [(16 * 512 - 3, 4), (16 * 512, 1), (u64::MAX, 1)] {
            assert_eq!(bytes(&mut Numbered, at, length), Err(Lost), "{at} {length}");
        }
    }
}
