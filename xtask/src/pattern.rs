//! The host's own look at a disk that the guest has filled with the pattern.
//!
//! The guest's word is not enough: what it verified it may have read from a cache on the way. After
//! power-off the image file is final, and every sector of it is checked with the same code.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use guest_kernel::pattern::{Pattern, SECTOR_BYTES};

use crate::error::{Context, LabError, Result};

/// How many wrong sectors are named.
const NAMED_MAX: usize = 8;

/// Checks every sector of an image; gives their number.
///
/// Errors: [`LabError::Failed`] with the first wrong sectors and how many there are.
pub fn verify(path: &Path, pattern: Pattern) -> Result<u64> {
    let mut file = File::open(path).context(|| format!("reading {}", path.display()))?;
    let mut bytes = vec![0; 1 << 20];
    let (mut sector, mut wrong, mut named) = (0_u64, 0_u64, Vec::new());
    loop {
        let count = read_full(&mut file, &mut bytes).context(|| format!("{}", path.display()))?;
        let (sectors, rest) = bytes[..count].as_chunks::<SECTOR_BYTES>();
        for found in sectors {
            if let Err(mismatch) = pattern.check(sector, found) {
                wrong += 1;
                if named.len() < NAMED_MAX {
                    named.push(mismatch.to_string());
                }
            }
            sector += 1;
        }
        if count < bytes.len() {
            if !rest.is_empty() {
                return Err(LabError::Failed(format!("{} ends within a sector", path.display())));
            }
            break;
        }
    }
    if wrong == 0 && sector > 0 {
        return Ok(sector);
    }
    let named = named.join("\n    ");
    Err(LabError::Failed(format!("{wrong} of {sector} sectors are wrong:\n    {named}")))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read(&mut bytes[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run::ScratchFile;

    const PATTERN: Pattern = Pattern { disk: 51728, generation: 1, seed: 7 };

    fn image(sectors: u64) -> Vec<u8> {
        let mut image = Vec::new();
        for sector in 0..sectors {
            let mut bytes = [0; SECTOR_BYTES];
            PATTERN.fill(sector, &mut bytes);
            image.extend_from_slice(&bytes);
        }
        image
    }

    #[test]
    fn a_good_image_is_counted_and_one_wrong_sector_is_named() {
        let file = ScratchFile::new(0).unwrap();
        // More than one buffer, and not a whole number of them.
        let mut bytes = image(3000);
        fs::write(&file.path, &bytes).unwrap();
        assert_eq!(verify(&file.path, PATTERN).unwrap(), 3000);
        bytes[2999 * SECTOR_BYTES + 100] ^= 1;
        fs::write(&file.path, &bytes).unwrap();
        let error = verify(&file.path, PATTERN).unwrap_err().to_string();
        assert!(error.contains("1 of 3000") && error.contains("sector 2999"), "{error}");
    }

    #[test]
    fn an_empty_or_ragged_image_is_not_good() {
        let file = ScratchFile::new(0).unwrap();
        assert!(verify(&file.path, PATTERN).is_err());
        fs::write(&file.path, &image(2)[..1000]).unwrap();
        assert!(verify(&file.path, PATTERN).is_err());
    }
}
