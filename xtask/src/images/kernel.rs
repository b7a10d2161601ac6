//! Kernels out of their wrappings: the ELF inside a `vmlinuz`, and the hypervisor's.
//!
//! A `vmlinuz` says itself where its payload is (Linux Documentation/arch/x86/boot.rst, fields
//! `setup_sects`, `payload_offset`, `payload_length`), and the payload ends with its own unpacked
//! size, so nothing has to be searched for and a short result is noticed.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::packages::Pool;

const SETUP_SECTS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Writes the hypervisor's ELF to `to`.
pub(super) fn hypervisor(host: Host, pool: &Pool, to: &Path) -> Result<()> {
    let packed = pool.hypervisor()?;
    let elf = host.output(host::tool("gzip").arg("-dc").arg(&packed))?;
    write_elf(to, &elf)
}

/// Writes the ELF inside the `vmlinuz` at `from` to `to`.
pub(super) fn linux(host: Host, from: &Path, to: &Path) -> Result<()> {
    let image = fs::read(from).context(|| format!("reading {}", from.display()))?;
    let unknown = || LabError::Failed(format!("{} is not a Linux kernel", from.display()));
    let (packed, size) = payload(&image).ok_or_else(unknown)?;
    let tool = unpacker(packed).ok_or_else(unknown)?;
    // Through a file: a pipe in both directions would need two threads.
    let draft = to.with_added_extension("packed");
    fs::write(&draft, packed).context(|| format!("writing {}", draft.display()))?;
    let input = fs::File::open(&draft).context(|| format!("reading {}", draft.display()))?;
    let mut command = host::tool(tool);
    command.arg("-dc").stdin(Stdio::from(input));
    let elf = host.filter(&mut command)?;
    fs::remove_file(&draft).context(|| format!("removing {}", draft.display()))?;
    if elf.len() != size {
        let found = elf.len();
        return Err(LabError::Failed(format!("{tool} gave {found} of {size} bytes of {from:?}")));
    }
    write_elf(to, &elf)
}

/// The compressed payload of a `vmlinuz`, and its size when unpacked.
fn payload(image: &[u8]) -> Option<(&[u8], usize)> {
    let setup_sectors = usize::from(*image.get(SETUP_SECTS)?);
    let start = (setup_sectors + 1) * SECTOR + word(image, PAYLOAD_OFFSET)?;
    let length = word(image, PAYLOAD_LENGTH)?;
    let payload = image.get(start..start.checked_add(length)?)?;
    let (packed, size) = payload.split_at_checked(length.checked_sub(4)?)?;
    Some((packed, word(size, 0)?))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// The program that unpacks what starts so.
fn unpacker(packed: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 4] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ];
    kinds.iter().find(|(magic, _)| packed.starts_with(magic)).map(|&(_, tool)| tool)
}

fn write_elf(to: &Path, elf: &[u8]) -> Result<()> {
    if !elf.starts_with(ELF_MAGIC) {
        return Err(LabError::Failed(format!("{} would not be an ELF", to.display())));
    }
    fs::write(to, elf).context(|| format!("writing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmlinuz(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[SETUP_SECTS] = 1;
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&8_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(&[0; 8]);
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_where_the_header_says_and_ends_with_its_size() {
        let image = vmlinuz(b"\x02\x21\x4c\x18data\x10\x00\x00\x00");
        let (packed, size) = payload(&image).unwrap();
        assert_eq!((packed, size), (&b"\x02\x21\x4c\x18data"[..], 16));
        assert_eq!(unpacker(packed), Some("lz4"));
    }

    #[test]
    fn a_short_file_is_no_kernel() {
        let image = vmlinuz(b"\x02\x21\x4c\x18data\x10\x00\x00\x00");
        for length in [0, SETUP_SECTS, PAYLOAD_LENGTH, image.len() - 1] {
            assert!(payload(&image[..length]).is_none(), "{length} bytes");
        }
    }
}
