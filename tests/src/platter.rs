//! A disk whose medium outlives its connections and whose manners the teller decides.
//!
//! Jobs wait until they are reaped and end in an order drawn from a seed, so that memory which is
//! unmapped or used again too early is seen as wrong data. A job that leaves the medium or its
//! page is our own back's mistake and panics.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blkback::disk::{Disk, DiskError, Done, Extent, Job, Profile, Verb};
use ring::{PAGE_SIZE, Page};
use sim::Random;

const SECTOR: usize = 512;
/// What the medium answers when it fails (`EIO`).
const EIO: i32 = 5;

/// The medium of a disk, and how the disk behaves. Clones are the same medium.
#[derive(Clone)]
pub struct Platter(Arc<Mutex<State>>);

struct State {
    bytes: Vec<u8>,
    holding: bool,
    read_only: bool,
    failures: u16,
    flush_fails: bool,
    flushes: usize,
    waiting: usize,
}

impl Platter {
    /// A medium of zeros.
    pub fn new(sectors: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            bytes: vec![0; sectors * SECTOR],
            holding: false,
            read_only: false,
            failures: 0,
            flush_fails: false,
            flushes: 0,
            waiting: 0,
        })))
    }

    /// A copy of some sectors.
    pub fn read(&self, sector: usize, sectors: usize) -> Vec<u8> {
        self.lock().bytes[sector * SECTOR..(sector + sectors) * SECTOR].to_vec()
    }

    /// Overwrites from `sector` on.
    pub fn write(&self, sector: usize, bytes: &[u8]) {
        self.lock().bytes[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
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

    /// Of 1000 jobs, so many fail.
    pub fn set_failures(&self, per_mille: u16) {
        self.lock().failures = per_mille;
    }

    /// Whether flushes fail.
    pub fn set_flush_fails(&self, fails: bool) {
        self.lock().flush_fails = fails;
    }

    /// How many flushes ended well.
    pub fn flushes(&self) -> usize {
        self.lock().flushes
    }

    /// How many jobs have not ended.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn carry_out<P: Deref<Target = Page>>(&mut self, job: &Job<P>) {
        let mut at = usize::try_from(job.offset_bytes).expect("the medium is small");
        match job.verb {
            Verb::Flush => self.flushes += 1,
            Verb::Discard { length_bytes } => {
                let length = usize::try_from(length_bytes).expect("the medium is small");
                assert!(!self.read_only, "a discard reached a read-only disk");
                self.bytes[at..at + length].fill(0);
            }
            Verb::Read => {
                for Extent { page, offset_bytes, length_bytes } in &job.extents {
                    let bytes = &self.bytes[at..at + usize::from(*length_bytes)];
                    page.write(usize::from(*offset_bytes), bytes);
                    at += bytes.len();
                }
            }
            Verb::Write => {
                assert!(!self.read_only, "a write reached a read-only disk");
                for Extent { page, offset_bytes, length_bytes } in &job.extents {
                    let bytes = &mut self.bytes[at..at + usize::from(*length_bytes)];
                    page.read(usize::from(*offset_bytes), bytes);
                    at += bytes.len();
                }
            }
        }
    }

    /// # Panics
    /// If the job is none that the back may give.
    fn check<P>(&self, job: &Job<P>) {
        let length = match job.verb {
            Verb::Discard { length_bytes } => length_bytes,
            _ => job.length_bytes(),
        };
        let end = job.offset_bytes.checked_add(length).expect("no wrap");
        assert!(end <= self.bytes.len() as u64, "a job leaves the disk");
        assert!((job.offset_bytes | length).is_multiple_of(512), "a job of half sectors");
        let empty = matches!(job.verb, Verb::Flush | Verb::Discard { .. });
        assert_eq!(job.extents.is_empty(), empty, "{:?} with the wrong memory", job.verb);
        for extent in &job.extents {
            let (from, length) = (extent.offset_bytes, extent.length_bytes);
            assert!(length > 0 && (from | length).is_multiple_of(512), "an extent of half sectors");
            assert!(usize::from(from) + usize::from(length) <= PAGE_SIZE, "it leaves its page");
        }
    }
}

/// A connection's view of a [`Platter`].
pub struct SeededDisk<P> {
    platter: Platter,
    random: Random,
    waiting: Vec<Job<P>>,
}

impl<P> SeededDisk<P> {
    /// A disk on `platter` whose order of completions comes from `seed`.
    pub fn new(platter: &Platter, seed: u64) -> Self {
        Self { platter: platter.clone(), random: Random::new(seed), waiting: Vec::new() }
    }

    /// Whether a job could end now.
    pub fn is_due(&self) -> bool {
        !self.waiting.is_empty() && !self.platter.lock().holding
    }
}

impl<P: Deref<Target = Page>> Disk<P> for SeededDisk<P> {
    fn profile(&self) -> Profile {
        let state = self.platter.lock();
        Profile {
            sectors: (state.bytes.len() / SECTOR) as u64,
            physical_sector_size: 512,
            read_only: state.read_only,
            discard_granularity: (!state.read_only).then_some(512),
        }
    }

    fn submit(&mut self, batch: &mut Vec<Job<P>>) {
        let mut state = self.platter.lock();
        for job in batch.iter() {
            state.check(job);
        }
        state.waiting += batch.len();
        self.waiting.append(batch);
    }

    fn reap(&mut self) -> Option<Done<P>> {
        let mut state = self.platter.lock();
        if self.waiting.is_empty() || state.holding {
            return None;
        }
        let job = self.waiting.swap_remove(self.random.below(self.waiting.len()));
        state.waiting -= 1;
        let fails =
            self.random.chance(state.failures) || (state.flush_fails && job.verb == Verb::Flush);
        if !fails {
            state.carry_out(&job);
        }
        let done_bytes = if fails { 0 } else { job.length_bytes() };
        let result = if fails { Err(DiskError::Errno(EIO)) } else { Ok(()) };
        Some(Done { tag: job.tag, extents: job.extents, done_bytes, result })
    }
}

impl<P> Drop for SeededDisk<P> {
    fn drop(&mut self) {
        self.platter.lock().waiting -= self.waiting.len();
    }
}
