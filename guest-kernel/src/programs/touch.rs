//! `memory touch`: uses every free page of the guest, and checks that each keeps what was written
//! into it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use ring::sync::Ordering;
use ring::{Memory, PAGE_WORDS};
use xen::Grants;

use super::{Disks, Failure, Machine};

const USAGE: &str = "usage: memory touch [SECONDS]";
/// Pages that are free again before anything is printed: printing may need memory.
const SPARE_PAGES: usize = 32;

/// Writes every free page, checks it, and again until the time is over.
///
/// # Errors
/// [`Failure`] if a page has not kept what was written, and for a wrong usage.
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let time = match words {
        [] => Ok(0),
        [seconds] => seconds.parse().map_err(|_| Failure::usage(USAGE)),
        _ => Err(Failure::usage(USAGE)),
    };
    let until = machine.now().after(Duration::from_secs(time?));
    let (mut rounds, mut least) = (0_u32, u64::MAX);
    loop {
        rounds += 1;
        least = least.min(round(machine, rounds)?);
        disks.observe(machine);
        if machine.interrupted() {
            return Err(Failure::interrupted());
        }
        if machine.now() >= until {
            break;
        }
    }
    machine.print(format_args!(
        "memory: {} KiB, every page that was free, written and verified {rounds} times",
        least * 4
    ));
    Ok(())
}

/// Takes all pages, writes them, reads them; tells how many. Nothing is allocated while none is
/// left.
fn round<M: Machine>(machine: &M, round: u32) -> Result<u64, Failure> {
    let (grants, _) = machine.ends();
    let most = usize::try_from(machine.free_pages()).unwrap_or(usize::MAX);
    let mut pages = Vec::new();
    pages.try_reserve_exact(most).map_err(|_| Failure::missing("no memory for a list of pages"))?;
    while pages.len() < most
        && let Some(page) = grants.page()
    {
        pages.push(page);
    }
    for (number, page) in pages.iter().enumerate() {
        for at in 0..PAGE_WORDS {
            page.word(at).store(mark(number, at, round), Ordering::Relaxed);
        }
    }
    let wrong = pages.iter().enumerate().find_map(|(number, page)| {
        let kept = |at: &usize| page.word(*at).load(Ordering::Relaxed) == mark(number, *at, round);
        (0..PAGE_WORDS).find(|at| !kept(at)).map(|at| (number, at))
    });
    let count = pages.len();
    pages.truncate(count.saturating_sub(SPARE_PAGES));
    match wrong {
        None => Ok(count as u64),
        Some((page, word)) => {
            let text = format!("page {page} of {count} has not kept its word {word}");
            Err(Failure::failed(text))
        }
    }
}

/// What is written to a word: something else in each word of each page in each round.
fn mark(page: usize, word: usize, round: u32) -> u32 {
    let place = u32::try_from(page * PAGE_WORDS + word).unwrap_or(u32::MAX);
    (place ^ round.rotate_left(16)).wrapping_mul(0x9e37_79b1)
}
