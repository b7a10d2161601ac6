//! `memtest SIZE`: accesses memory at random; every page says what it is and is checked.
//!
//! First it writes every page once. Then it goes on until as many pages as it was asked for came
//! from swap and went there. At the end it checks them all.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_programs::page::{WORDS, check, fill, mix};
use guest_programs::{Status, Words, program, say, size, sys};

program!(memtest);

const USAGE: &str = "usage: memtest SIZE [--swaps=N] [--accesses=N] [--seed=N]";

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
    let count = words.iter().nth(1).and_then(size).map(|bytes| (bytes / 4096) as usize);
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
    let accesses = accesses(&mut memory, count, number("swaps"), number("accesses"), number("seed"));
    report("accessed", begin);
    (0..count).for_each(|at| memory.check(at));
    report("checked", begin);
    say!("memtest: {count} pages, {accesses} accesses, {} wrong", memory.wrong);
    u8::from(memory.wrong > 0)
}

/// Goes on until so many pages came and went, or so many were accessed.
fn accesses(
    memory: &mut Memory,
    count: usize,
    swaps: Option<u64>,
    limit: Option<u64>,
    seed: Option<u64>,
) -> u64 {
    let mut state = seed.unwrap_or(1);
    let limit = limit.unwrap_or(if swaps.is_some() { u64::MAX } else { count as u64 });
    let mut done = 0;
    while done < limit {
        let [ins, outs, ..] = sys::figures();
        if swaps.is_some_and(|swaps| ins >= swaps && outs >= swaps) {
            break;
        }
        for _ in 0..256.min(limit - done) {
            state = state.wrapping_add(1);
            let random = mix(state);
            let at = (random >> 1) as usize % count;
            memory.check(at);
            if random & 1 == 0 {
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
