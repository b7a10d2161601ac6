//! `sha256`: the hash of a disk, of a part of it, or of a file, in the form of `sha256sum`.

use alloc::string::String;
use core::fmt;

use ring::PAGE_SIZE;
use sha2::{Digest, Sha256};

use super::arguments::Arguments;
use super::stream::{Chunk, Reader, Span};
use super::{Disks, Failure, Machine, Speed, filing};

const USAGE: &str = "sha256 FILE|DISK [--offset=BYTES] [--size=BYTES]";

/// Bytes, as hashes are written.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Prints the hash and the name, and how long it took.
///
/// # Errors
/// [`Failure`].
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(words, &["offset", "size"])?;
    let [name] = arguments.plain(USAGE)?;
    if name.starts_with('/') && !name.starts_with("/dev/") {
        return filing::digest(machine, disks, name);
    }
    let which = disks.find(name)?;
    let first = arguments.sectors("offset")?.unwrap_or(0);
    let span = Span::on_disk(disks, which, first, arguments.sectors("size")?)?;
    let begin = machine.now();
    let mut reader = Reader::new(disks, which, span)?;
    let mut hash = Sha256::new();
    let mut page = [0; PAGE_SIZE];
    while let Some(Chunk { data: buffer, .. }) = reader.next(machine, disks)? {
        for offset in (0..buffer.length_bytes()).step_by(PAGE_SIZE) {
            let part = &mut page[..PAGE_SIZE.min(buffer.length_bytes() - offset)];
            buffer.read(offset, part);
            hash.update(part);
        }
    }
    let speed = Speed { bytes: span.sectors * 512, time: machine.now().since(begin) };
    machine.print(format_args!("{}  {name}", Hex(&hash.finalize())));
    machine.print(format_args!("sha256: {name}: {speed}"));
    Ok(())
}
