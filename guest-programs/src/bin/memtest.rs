//! `memtest SIZE`: accesses memory at random; every page says what it is and is checked.
//!
//! It says beforehand which pages it will access next, 32 at a time, so that they come from swap
//! together (`--ahead=1`: it does not).
//!
//! First it writes every page once. Then it checks pages at random and writes three of four anew,
//! until as many pages as it was asked for came from swap and as many went there. At the end it
//! checks them all.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_programs::calls::WANTED_MAX as WANTED;
use guest_programs::page::{WORDS, check, fill, mix};
use guest_programs::{Status, Words, program, say, size, sys};

program!(memtest);

const USAGE: &str = "usage: memtest SIZE [--swaps=N] [--accesses=N] [--ahead=N] [--seed=N]";

struct Memory {
    pages: &'static mut [[u64; WORDS]],
    /// How often each page was written, 512 to a page.
    rounds: &'static mut [[u64; WORDS]],
    wrong: u64,
}

impl Memory {
    fn round(&mut self, at: usize) -> &mut u64 {
        &mut self.rounds[at / WORDS][at % WORDS]
    }

    /// The page that a random number means.
    fn at(&self, random: u64) -> usize {
        // A remainder of what fits in memory fits.
        usize::try_from((random >> 2) % self.pages.len() as u64).unwrap_or(0)
    }

    /// Says that the pages that these numbers mean will be accessed.
    fn want(&self, next: &[u64]) {
        let mut addresses = [0; WANTED];
        for (address, &random) in addresses.iter_mut().zip(next) {
            *address = self.pages[self.at(random)].as_ptr().addr() as u64;
        }
        sys::want(&addresses[..next.len()]);
    }

    fn check(&mut self, at: usize) {
        let round = *self.round(at);
        if let Err(wrong) = check(&self.pages[at], at as u64, round) {
            self.wrong += 1;
            say!("memtest: page {at}, written {round} times: {wrong:?}");
        }
    }

    fn write(&mut self, at: usize) {
        *self.round(at) += 1;
        let round = *self.round(at);
        fill(&mut self.pages[at], at as u64, round);
    }
}

fn memtest(words: Words) -> Status {
    let count = words.iter().nth(1).and_then(size);
    let count = count.and_then(|bytes| usize::try_from(bytes / 4096).ok());
    let Some(count) = count.filter(|&count| count > 0) else {
        say!("{USAGE}");
        return 2;
    };
    let number = |name| words.value(name).and_then(size);
    let begin = sys::time_ns();
    let (Ok(rounds), Ok(pages)) = (sys::pages(count.div_ceil(WORDS)), sys::pages(count)) else {
        say!("memtest: there is no room for {count} pages");
        return 3;
    };
    let mut memory = Memory { pages, rounds, wrong: 0 };
    (0..count).for_each(|at| {
        memory.check(at);
        memory.write(at);
    });
    report("written", begin);
    let swaps = number("swaps");
    let otherwise = if swaps.is_some() { u64::MAX } else { count as u64 };
    let ahead = words.value("ahead").map_or(Some(WANTED), |text| text.parse().ok());
    let plan = Plan {
        swaps,
        accesses: number("accesses").unwrap_or(otherwise),
        seed: number("seed").unwrap_or(1),
        ahead: ahead.map_or(WANTED, |ahead: usize| ahead.clamp(1, WANTED)),
    };
    let accesses = accesses(&mut memory, &plan);
    report("accessed", begin);
    for first in (0..count).step_by(plan.ahead) {
        let mut next = [0; WANTED];
        let last = count.min(first + plan.ahead);
        next.iter_mut().zip(first..last).for_each(|(random, at)| *random = (at as u64) << 2);
        memory.want(&next[..last - first]);
        (first..last).for_each(|at| memory.check(at));
    }
    report("checked", begin);
    say!("memtest: {count} pages, {accesses} accesses, {} wrong", memory.wrong);
    u8::from(memory.wrong > 0)
}

/// When to end, and how.
struct Plan {
    swaps: Option<u64>,
    accesses: u64,
    seed: u64,
    /// Pages that are asked for together before they are accessed; 1 asks for none.
    ahead: usize,
}

/// Goes on until so many pages came and went, or so many were accessed.
fn accesses(memory: &mut Memory, plan: &Plan) -> u64 {
    let mut state = plan.seed;
    let mut done = 0;
    while done < plan.accesses {
        let [ins, outs, ..] = sys::figures();
        if plan.swaps.is_some_and(|swaps| ins >= swaps && outs >= swaps) {
            break;
        }
        let mut next = [0; WANTED];
        let next = &mut next[..plan.ahead];
        next.iter_mut().for_each(|random| {
            state = state.wrapping_add(1);
            *random = mix(state);
        });
        if plan.ahead > 1 {
            memory.want(next);
        }
        for &mut random in next {
            let at = memory.at(random);
            memory.check(at);
            if random & 3 != 0 {
                memory.write(at);
            }
            done += 1;
        }
    }
    done
}

fn report(what: &str, begin: u64) {
    let [ins, outs, clean, resident] = sys::figures();
    let ms = (sys::time_ns() - begin) / 1_000_000;
    say!(
        "memtest: {what}: {}.{:03} s, page-ins {ins}, page-outs {outs}, dropped clean {clean}, in \
         memory {resident}",
        ms / 1000,
        ms % 1000
    );
}
