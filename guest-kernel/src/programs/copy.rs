//! `dd`: copies a part of one disk to another, in dd's words.

use alloc::format;
use alloc::string::String;

use blkif::SECTOR_SIZE;
use ring::PAGE_SIZE;

use super::arguments::Arguments;
use super::disks::Which;
use super::stream::{Chunk, Reader, Span, Writer, chunk_bytes};
use super::{Disks, Failure, Machine, Speed};

const USAGE: &str = "dd if=DISK of=DISK [bs=BYTES] [count=N] [skip=N] [seek=N]";
/// Without `bs`, counts are in blocks of this size.
const BLOCK_BYTES: u64 = 65536;

/// Copies, makes the copy durable if the disk can, and prints how long it took.
///
/// # Errors
/// [`Failure`].
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(words, &["if", "of", "bs", "count", "skip", "seek"])?;
    let [] = arguments.plain(USAGE)?;
    let mut end = |name| match arguments.text(name) {
        Some(disk) => disks.find(disk),
        None => Err(Failure::usage(format!("usage: {USAGE}"))),
    };
    let (from, to) = (end("if")?, end("of")?);
    if from == to {
        return Err(Failure::usage("dd: if and of are the same disk"));
    }
    let (source, target) = spans(disks, &arguments, (from, to))?;
    let begin = machine.now();
    let durable = copy(machine, disks, (from, source), (to, target))?;
    let speed = Speed { bytes: source.sectors * 512, time: machine.now().since(begin) };
    let tail = if durable { "" } else { " (this disk offers no flush: perhaps not durable)" };
    machine.print(format_args!("dd: copied {speed}{tail}"));
    Ok(())
}

/// What is to be read, and where it is to be written.
fn spans<M: Machine>(
    disks: &mut Disks<M>,
    arguments: &Arguments<'_>,
    (from, to): (Which, Which),
) -> Result<(Span, Span), Failure> {
    let block = arguments.sectors("bs")?.unwrap_or(BLOCK_BYTES / 512);
    let blocks = |name| {
        let Some(count) = arguments.number(name)? else { return Ok(None) };
        let sectors = count.checked_mul(block);
        sectors.map(Some).ok_or_else(|| Failure::usage(format!("{name}={count}: too large")))
    };
    let (skip, seek) = (blocks("skip")?.unwrap_or(0), blocks("seek")?.unwrap_or(0));
    let source = Span::on_disk(disks, from, skip, blocks("count")?)?;
    let target = Span::on_disk(disks, to, seek, Some(source.sectors))?;
    Ok((source, target))
}

fn copy<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    (from, source): (Which, Span),
    (to, target): (Which, Span),
) -> Result<bool, Failure> {
    let mut reader = Reader::new(disks, from, source)?;
    let mut writer = Writer::new(to);
    // What one disk reads at once may be more than the other takes.
    let most = chunk_bytes(&disks.disk(to)?);
    let mut page = [0; PAGE_SIZE];
    while let Some(Chunk { sector, data }) = reader.next(machine, disks)? {
        let place = target.first + (sector - source.first);
        for start in (0..data.length_bytes()).step_by(most) {
            let length = most.min(data.length_bytes() - start);
            let copy = writer.buffer(machine, disks, length)?;
            for offset in (0..length).step_by(PAGE_SIZE) {
                let part = &mut page[..PAGE_SIZE.min(length - offset)];
                data.read(start + offset, part);
                copy.write(offset, part);
            }
            writer.put(machine, disks, place + (start / SECTOR_SIZE) as u64, copy)?;
        }
    }
    writer.finish(machine, disks)
}
