//! A disk whose medium outlives its connections and whose manners the teller decides.
//!
//! The fault model, in words. Jobs wait until they are reaped and end in an order drawn from a
//! seed, so that memory which is unmapped or used again too early is seen as wrong data. A job may
//! come late, fail with nothing done, or fail with a part done; a flush may fail, and what it should
//! have made durable may then be lost at once, as with Linux's page cache. A disk that is taken away
//! with jobs on it has done any part of each. When power is cut, every sector that was written since
//! the last flush holds any of its versions since then, or the beginning of one and the end of
//! another ([`Platter::cut_power`]). The medium may grow while it is used, by zeros that are durable.
//!
//! What it does not do: a sector that a flush covered never changes, no bit flips, and nothing is
//! written or read anywhere else than it was asked: nobody above keeps checksums that could tell.
//! A job that leaves the medium or its page is our own back's mistake and panics.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkback::disk::{Disk, DiskError, Done, Extent, Job, Profile, Verb};
use ring::{PAGE_SIZE, Page};
use sim::{Clock, Random, Spell};

use crate::Choices;
use crate::medium::Medium;

const SECTOR: usize = 512;
/// What the medium answers when it fails: `EIO`, `ENOSPC`, `EAGAIN`.
const ERRORS: [i32; 3] = [5, 28, 11];
/// How late a late job comes at most, in ticks.
const LATE_MAX: usize = 400;

/// How often, in 1000, each fault happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    /// A job takes its time.
    pub late: u16,
    /// A job fails; nothing of it is done.
    pub failures: u16,
    /// A job fails in its midst.
    pub short: u16,
    /// A flush fails.
    pub flush_failures: u16,
}

impl Manners {
    /// A disk that does what it is asked.
    pub const GOOD: Self = Self { late: 0, failures: 0, short: 0, flush_failures: 0 };
}

/// What was done badly so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Jobs that came late.
    pub late: u64,
    /// Jobs that failed with nothing done.
    pub failures: u64,
    /// Jobs that failed in their midst.
    pub short: u64,
    /// Flushes that failed.
    pub flush_failures: u64,
    /// Jobs that a disk was taken away with.
    pub interrupted: u64,
    /// Sectors that lost a write when power was cut.
    pub lost: u64,
    /// Sectors that were torn when power was cut.
    pub torn: u64,
}

impl Harm {
    /// Every kind by its name, and how often it happened.
    pub fn kinds(&self) -> [(&'static str, u64); 7] {
        [
            ("late job", self.late),
            ("failed job", self.failures),
            ("short job", self.short),
            ("failed flush", self.flush_failures),
            ("job cut off", self.interrupted),
            ("sector lost in a power cut", self.lost),
            ("sector torn in a power cut", self.torn),
        ]
    }
}

/// The medium of a disk, and how the disk behaves. Clones are the same medium.
#[derive(Clone)]
pub struct Platter(Arc<Mutex<State>>);

struct State {
    medium: Medium,
    holding: bool,
    read_only: bool,
    manners: Manners,
    /// So many jobs pass, then one fails, or all.
    strike: Option<(u64, Spell)>,
    flush_failed: bool,
    flushes: usize,
    waiting: usize,
    harm: Harm,
    /// Which job ends next, if not the seed says so.
    told: Option<Choices>,
    /// So many jobs may end.
    allowed: usize,
}

impl Platter {
    /// A medium of zeros.
    pub fn new(sectors: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            medium: Medium::new(sectors),
            holding: false,
            read_only: false,
            manners: Manners::GOOD,
            strike: None,
            flush_failed: false,
            flushes: 0,
            waiting: 0,
            harm: Harm::default(),
            told: None,
            allowed: usize::MAX,
        })))
    }

    /// Whether it is the same medium.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many sectors it has.
    pub fn sectors(&self) -> usize {
        self.lock().medium.bytes().len() / SECTOR
    }

    /// The medium gets so many more sectors, of zeros.
    pub fn grow(&self, sectors: usize) {
        self.lock().medium.grow(sectors);
    }

    /// A copy of some sectors.
    pub fn read(&self, sector: usize, sectors: usize) -> Vec<u8> {
        self.look(sector, sectors, <[u8]>::to_vec)
    }

    /// Shows some sectors.
    pub fn look<T>(&self, sector: usize, sectors: usize, at: impl FnOnce(&[u8]) -> T) -> T {
        at(&self.lock().medium.bytes()[sector * SECTOR..][..sectors * SECTOR])
    }

    /// Overwrites from `sector` on; that is durable.
    pub fn write(&self, sector: usize, bytes: &[u8]) {
        let mut state = self.lock();
        state.medium.write(sector * SECTOR, bytes);
        let all = state.medium.unsynced();
        state.medium.sync(all);
    }

    /// No job ends any more.
    pub fn hold(&self) {
        self.lock().holding = true;
    }

    /// Jobs end again.
    pub fn release(&self) {
        self.lock().holding = false;
    }

    /// From the next connection on, writes are refused.
    pub fn protect(&self) {
        self.lock().read_only = true;
    }

    /// How the disk behaves from now on.
    pub fn set_manners(&self, manners: Manners) {
        self.lock().manners = manners;
    }

    /// Lets so many jobs pass and the next one fail, or all from there on.
    pub fn strike(&self, strike: Option<(u64, Spell)>) {
        self.lock().strike = strike;
    }

    /// From now on these say which job ends next.
    pub fn set_choices(&self, choices: Choices) {
        self.lock().told = Some(choices);
    }

    /// Lets so many jobs end, and no more.
    pub fn allow(&self, jobs: usize) {
        self.lock().allowed = jobs;
    }

    /// How many flushes ended well.
    pub fn flushes(&self) -> usize {
        self.lock().flushes
    }

    /// Whether a flush has failed since the image was opened.
    pub fn has_failed_flush(&self) -> bool {
        self.lock().flush_failed
    }

    /// How many jobs have not ended.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// What was done badly so far.
    pub fn harm(&self) -> Harm {
        self.lock().harm
    }

    /// Whoever opens the image knows nothing of former failures.
    pub(crate) fn opened(&self) {
        self.lock().flush_failed = false;
    }

    /// Power is cut: what no flush has covered is drawn anew, sector by sector; then it is durable.
    pub fn cut_power(&self, random: &mut Random) {
        let mut state = self.lock();
        let (lost, torn) = state.medium.cut(random);
        state.harm.lost += lost;
        state.harm.torn += torn;
        (state.flush_failed, state.holding) = (false, false);
    }

    /// Shows every version of every sector that could be there after a power cut now, torn ones
    /// aside, with its sector.
    pub fn versions(&self, each: impl FnMut(usize, &[u8])) {
        self.lock().medium.versions(each);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether jobs end.
    fn is_moving(&self) -> bool {
        !self.holding && self.allowed > 0
    }

    /// Does the first `limit_bytes` of a job.
    fn carry_out<P: Deref<Target = Page>>(&mut self, job: &Job<P>, limit_bytes: u64) {
        let mut at = usize::try_from(job.offset_bytes).expect("the medium is small");
        let mut left = usize::try_from(limit_bytes).expect("the medium is small");
        assert!(!self.read_only || job.verb == Verb::Read, "{:?} on a read-only disk", job.verb);
        if let Verb::Discard { length_bytes } = job.verb {
            let length = usize::try_from(length_bytes).expect("the medium is small");
            self.medium.clear(at, length.min(left));
        }
        for Extent { page, offset_bytes, length_bytes } in &job.extents {
            let count = usize::from(*length_bytes).min(left);
            match job.verb {
                Verb::Read => {
                    page.write(usize::from(*offset_bytes), &self.medium.bytes()[at..at + count]);
                }
                _ => {
                    let bytes = self.medium.overwritten(at, count);
                    page.read(usize::from(*offset_bytes), bytes);
                }
            }
            (at, left) = (at + count, left - count);
        }
    }

    /// # Panics
    /// If the job is none that the back may give.
    fn check<P>(&self, job: &Job<P>) {
        let length = length(job);
        let end = job.offset_bytes.checked_add(length).expect("no wrap");
        assert!(end <= self.medium.bytes().len() as u64, "a job leaves the disk");
        assert!((job.offset_bytes | length).is_multiple_of(512), "a job of half sectors");
        let empty = matches!(job.verb, Verb::Flush | Verb::Discard { .. });
        assert_eq!(job.extents.is_empty(), empty, "{:?} with the wrong memory", job.verb);
        assert!(!(self.flush_failed && job.verb == Verb::Flush), "a flush after one that failed");
        for extent in &job.extents {
            let (from, length) = (extent.offset_bytes, extent.length_bytes);
            assert!(length > 0 && (from | length).is_multiple_of(512), "an extent of half sectors");
            assert!(usize::from(from) + usize::from(length) <= PAGE_SIZE, "it leaves its page");
        }
    }

    /// Draws whether a job fails, and how many bytes of it are done then.
    fn fails<P>(&mut self, job: &Job<P>, random: &mut Random) -> Option<u64> {
        let mut draws = |rate: u16| rate > 0 && random.chance(rate);
        if job.verb == Verb::Flush && draws(self.manners.flush_failures) {
            self.harm.flush_failures += 1;
            return Some(0);
        }
        if draws(self.manners.failures) || self.is_struck() {
            self.harm.failures += 1;
            return Some(0);
        }
        if job.verb != Verb::Flush && draws(self.manners.short) {
            self.harm.short += 1;
            return Some(part(job, random));
        }
        None
    }

    fn is_struck(&mut self) -> bool {
        match &mut self.strike {
            None => false,
            Some((0, spell)) => {
                if *spell == Spell::Once {
                    self.strike = None;
                }
                true
            }
            Some((after, _)) => {
                *after -= 1;
                false
            }
        }
    }
}

/// Any number of whole sectors of a job, but not all.
fn part<P>(job: &Job<P>, random: &mut Random) -> u64 {
    let sectors = usize::try_from(length(job) / 512).expect("the medium is small");
    if sectors == 0 { 0 } else { 512 * random.below(sectors) as u64 }
}

fn length<P>(job: &Job<P>) -> u64 {
    match job.verb {
        Verb::Discard { length_bytes } => length_bytes,
        _ => job.length_bytes(),
    }
}

struct Waiting<P> {
    job: Job<P>,
    /// When it ends.
    due: u64,
    /// A flush covers so many of the writes that no flush has covered: those that had ended before.
    covers: usize,
}

/// A connection's view of a [`Platter`].
pub struct SeededDisk<P: Deref<Target = Page>> {
    platter: Platter,
    clock: Clock,
    random: Random,
    waiting: Vec<Waiting<P>>,
}

impl<P: Deref<Target = Page>> SeededDisk<P> {
    /// A disk on `platter` whose order of completions comes from `seed`.
    pub fn new(platter: &Platter, clock: Clock, seed: u64) -> Self {
        Self { platter: platter.clone(), clock, random: Random::new(seed), waiting: Vec::new() }
    }

    /// Whether a job could end now.
    pub fn is_due(&self) -> bool {
        self.next_due().is_some_and(|due| due <= self.clock.now())
    }

    /// When the next job ends; `None` if none does by itself.
    pub fn next_due(&self) -> Option<u64> {
        let first = self.waiting.iter().map(|waiting| waiting.due).min()?;
        self.platter.lock().is_moving().then_some(first)
    }

    /// Draws everything from now on from another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    fn ready(&mut self) -> Option<usize> {
        let now = self.clock.now();
        let due = |waiting: &Waiting<P>| waiting.due <= now;
        let count = self.waiting.iter().filter(|waiting| due(waiting)).count();
        let told = self.platter.lock().told.clone();
        let chosen = (count > 0).then(|| match told {
            Some(choices) => choices.choose(count),
            None => self.random.below(count),
        })?;
        (0..self.waiting.len()).filter(|&at| due(&self.waiting[at])).nth(chosen)
    }
}

impl<P: Deref<Target = Page>> Disk<P> for SeededDisk<P> {
    fn profile(&self) -> Profile {
        let state = self.platter.lock();
        Profile {
            sectors: (state.medium.bytes().len() / SECTOR) as u64,
            physical_sector_size: 512,
            read_only: state.read_only,
            discard_granularity: (!state.read_only).then_some(512),
        }
    }

    fn submit(&mut self, batch: &mut Vec<Job<P>>) {
        let mut state = self.platter.lock();
        state.waiting += batch.len();
        for job in batch.drain(..) {
            state.check(&job);
            let late = state.manners.late > 0 && self.random.chance(state.manners.late);
            let delay = if late { 1 + self.random.below(LATE_MAX) } else { 0 };
            state.harm.late += u64::from(late);
            let due = self.clock.now() + delay as u64;
            self.waiting.push(Waiting { job, due, covers: state.medium.unsynced() });
        }
    }

    fn reap(&mut self) -> Option<Done<P>> {
        if self.waiting.is_empty() || !self.platter.lock().is_moving() {
            return None;
        }
        let at = self.ready()?;
        let Waiting { job, covers, .. } = self.waiting.swap_remove(at);
        let mut state = self.platter.lock();
        state.waiting -= 1;
        state.allowed = state.allowed.saturating_sub(1);
        let failed = state.fails(&job, &mut self.random);
        let done_bytes = failed.unwrap_or_else(|| length(&job));
        match (job.verb, failed) {
            (Verb::Flush, None) => {
                state.flushes += 1;
                state.medium.sync(covers);
                for other in &mut self.waiting {
                    other.covers = other.covers.saturating_sub(covers);
                }
            }
            (Verb::Flush, Some(_)) => {
                state.flush_failed = true;
                state.medium.fail_to_sync(covers, &mut self.random);
            }
            _ => state.carry_out(&job, done_bytes),
        }
        let errno = failed.map(|_| ERRORS[self.random.below(ERRORS.len())]);
        let result = errno.map_or(Ok(()), |errno| Err(DiskError::Errno(errno)));
        let done_bytes = if job.extents.is_empty() { 0 } else { done_bytes };
        Some(Done { tag: job.tag, extents: job.extents, done_bytes, result })
    }
}

impl<P: Deref<Target = Page>> Drop for SeededDisk<P> {
    /// The kernel ends what it has begun: any part of each job.
    fn drop(&mut self) {
        let mut state = self.platter.lock();
        for Waiting { job, .. } in std::mem::take(&mut self.waiting) {
            state.waiting -= 1;
            state.harm.interrupted += 1;
            if !matches!(job.verb, Verb::Flush | Verb::Read) {
                let whole = self.random.below(2) == 0;
                let done = if whole { length(&job) } else { part(&job, &mut self.random) };
                state.carry_out(&job, done);
            }
        }
    }
}
