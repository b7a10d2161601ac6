//! `dd if=DISK of=DISK`: copies from one disk to another, in dd's words.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_programs::calls::{Refusal, TRANSFER_MAX};
use guest_programs::sys::Disk;
use guest_programs::{Status, Words, program, say, size, sys};

program!(dd);

const USAGE: &str = "usage: dd if=DISK of=DISK [bs=BYTES] [count=N] [skip=N] [seek=N]";

fn dd(words: Words) -> Status {
    let (Some(from), Some(to)) = (words.value("if"), words.value("of")) else {
        say!("{USAGE}");
        return 2;
    };
    let block = words.value("bs").map_or(Some(4096), size).filter(|it| it % 512 == 0 && *it > 0);
    let number = |name| words.value(name).map_or(Some(0), size);
    let (Some(block), Some(skip), Some(seek)) = (block, number("skip"), number("seek")) else {
        say!("{USAGE}");
        return 2;
    };
    let per_block = block / 512;
    let begin = sys::time_ns();
    let places = (skip.saturating_mul(per_block), seek.saturating_mul(per_block));
    let wanted = words.value("count").and_then(size).map(|count| count.saturating_mul(per_block));
    match copy(from, to, places, wanted) {
        Ok((sectors, durable)) => {
            let ms = (sys::time_ns() - begin) / 1_000_000;
            let tail = if durable { "" } else { " (perhaps not durable)" };
            say!("dd: {sectors} sectors of 512 bytes in {}.{:03} s{tail}", ms / 1000, ms % 1000);
            0
        }
        Err(Refusal::NoDisk) => {
            say!("dd: {from}, {to}: no such disk");
            3
        }
        Err(refusal) => {
            say!("dd: {refusal:?}");
            1
        }
    }
}

/// Copies so many sectors, or as many as both have; tells how many, and whether they are durable.
fn copy(
    from: &str,
    to: &str,
    (skip, seek): (u64, u64),
    wanted: Option<u64>,
) -> Result<(u64, bool), Refusal> {
    let (from, to) = (Disk::open(from)?, Disk::open(to)?);
    let room = from.sectors()?.saturating_sub(skip).min(to.sectors()?.saturating_sub(seek));
    let count = wanted.unwrap_or(room);
    if count > room {
        return Err(Refusal::Argument);
    }
    let mut buffer = [0; TRANSFER_MAX];
    let mut done = 0;
    while done < count {
        let rest = usize::try_from((count - done).saturating_mul(512)).unwrap_or(usize::MAX);
        let bytes = rest.min(TRANSFER_MAX);
        let part = &mut buffer[..bytes];
        from.read(skip + done, part)?;
        to.write(seek + done, part)?;
        done += part.len() as u64 / 512;
    }
    Ok((count, to.flush()?))
}
