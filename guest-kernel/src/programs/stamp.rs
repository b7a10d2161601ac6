//! `pattern`: writes self-describing sectors over a disk, and checks them.

use alloc::format;
use alloc::string::String;

use super::arguments::Arguments;
use super::disks::Which;
use super::stream::{Chunk, Reader, Span, Writer, chunk_bytes, length};
use super::{Disks, Failure, Machine, Speed};
use crate::pattern::{Pattern, SECTOR_BYTES};

const USAGE: &str =
    "pattern write|verify DISK [--seed=S] [--generation=G] [--offset=BYTES] [--size=BYTES]";

/// Writes and makes durable, or verifies; prints what was done.
///
/// # Errors
/// [`Failure`]; the first wrong sector is named.
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(words, &["seed", "generation", "offset", "size"])?;
    let [verb, name] = arguments.plain(USAGE)?;
    let which = disks.find(name)?;
    let generation = arguments.number("generation")?.unwrap_or(0);
    let generation = u32::try_from(generation)
        .map_err(|_| Failure::usage(format!("generation={generation}: more than 32 bits")))?;
    let seed = arguments.number("seed")?.unwrap_or(0);
    let pattern = Pattern { disk: disks.number(which), generation, seed };
    let first = arguments.sectors("offset")?.unwrap_or(0);
    let span = Span::on_disk(disks, which, first, arguments.sectors("size")?)?;
    let begin = machine.now();
    let done = match verb {
        "write" if write(machine, disks, (which, span), &pattern)? => "written and flushed",
        "write" => "written (this disk offers no flush: perhaps not durable)",
        "verify" => {
            verify(machine, disks, (which, span), &pattern)?;
            "verified"
        }
        _ => return Err(Failure::usage(format!("usage: {USAGE}"))),
    };
    let speed = Speed { bytes: span.sectors * 512, time: machine.now().since(begin) };
    machine.print(format_args!(
        "pattern: {name}: {} sectors of generation {generation}, seed {seed} {done}: {speed}",
        span.sectors
    ));
    Ok(())
}

fn write<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    (which, span): (Which, Span),
    pattern: &Pattern,
) -> Result<bool, Failure> {
    let chunk = chunk_bytes(&disks.disk(which)?);
    let mut writer = Writer::new(which);
    let mut left = span;
    let mut bytes = [0; SECTOR_BYTES];
    while left.sectors > 0 {
        let buffer = writer.buffer(machine, disks, length(left, chunk));
        let buffer = buffer.map_err(|failure| so_far(failure, span, left))?;
        let mut sector = left.first;
        for offset in (0..buffer.length_bytes()).step_by(SECTOR_BYTES) {
            pattern.fill(sector, &mut bytes);
            buffer.write(offset, &bytes);
            sector += 1;
        }
        let put = writer.put(machine, disks, left.first, buffer);
        put.map_err(|failure| so_far(failure, span, left))?;
        left.sectors -= sector - left.first;
        left.first = sector;
    }
    writer.finish(machine, disks).map_err(|failure| so_far(failure, span, left))
}

/// An interruption tells how much was put: it is waited for before anything else is done.
fn so_far(failure: Failure, span: Span, left: Span) -> Failure {
    if failure != Failure::interrupted() {
        return failure;
    }
    let sectors = left.first - span.first;
    Failure { text: format!("interrupted after {sectors} sectors from {}", span.first), ..failure }
}

fn verify<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    (which, span): (Which, Span),
    pattern: &Pattern,
) -> Result<(), Failure> {
    let mut reader = Reader::new(disks, which, span)?;
    let mut bytes = [0; SECTOR_BYTES];
    while let Some(Chunk { sector: first, data: buffer }) = reader.next(machine, disks)? {
        for (sector, offset) in (first..).zip((0..buffer.length_bytes()).step_by(SECTOR_BYTES)) {
            buffer.read(offset, &mut bytes);
            if let Err(mismatch) = pattern.check(sector, &bytes) {
                let name = disks.name(which);
                return Err(Failure::failed(format!("{name}: {mismatch}")));
            }
        }
    }
    Ok(())
}
