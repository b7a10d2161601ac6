//! Small disk images, kept without their zeros: `fuzz/images/NAME`.
//!
//! The length in bytes as a 32-bit number, then for each 64 bytes that are not all zeros their
//! number in the image and the bytes.

use std::fs;

use super::corpus::folder;

/// Bytes that are kept or left out together.
const CHUNK_BYTES: usize = 64;

/// An image whose length is a multiple of 64, without its zeros.
pub fn packed(image: &[u8]) -> Vec<u8> {
    let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX).to_le_bytes();
    let mut packed = number(image.len()).to_vec();
    for (at, chunk) in image.chunks(CHUNK_BYTES).enumerate() {
        if chunk.iter().any(|&byte| byte != 0) {
            packed.extend(number(at));
            packed.extend(chunk);
        }
    }
    packed
}

/// The image of this name.
///
/// # Panics
/// If there is none.
pub(super) fn load(name: &str) -> Vec<u8> {
    let packed = fs::read(folder().join("images").join(name)).expect("an image");
    let number = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().expect("a number"));
    let mut image = vec![0; number(&packed) as usize];
    for record in packed[4..].chunks_exact(4 + CHUNK_BYTES) {
        let at = number(record) as usize * CHUNK_BYTES;
        image[at..at + CHUNK_BYTES].copy_from_slice(&record[4..]);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_unpacked_as_it_was_packed() {
        let image = load("ext2");
        assert_eq!(image.len(), 1 << 20);
        assert_eq!(packed(&image), fs::read(folder().join("images/ext2")).expect("an image"));
    }
}
