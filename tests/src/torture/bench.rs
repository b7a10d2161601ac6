//! A disk for hostile rings: it takes no job that leaves the disk or its pages, ends jobs in any
//! order, late or with an error, and moves no data, because there nobody looks at it.

use blkback::Buffer;
use blkback::disk::{Disk, DiskError, Done, Job, Profile, Verb};
use sim::Random;

use crate::oracle::Terms;
use crate::torture::yard::Lease;

/// What the disk answers when it fails (`EIO`).
const EIO: i32 = 5;

/// A job of a session over a yard.
type Work = Job<Buffer<Lease>>;

/// A disk that only checks.
pub(super) struct BenchDisk {
    terms: Terms,
    random: Random,
    waiting: Vec<Work>,
    /// Jobs wait and none ends.
    pub(super) holding: bool,
    /// Of 1000 jobs, so many fail.
    pub(super) failures: u16,
    /// Jobs taken, and sectors that they moved, each way.
    pub(super) jobs: u64,
    /// Sectors read.
    pub(super) read: u64,
    /// Sectors written.
    pub(super) written: u64,
    /// Sectors discarded.
    pub(super) discarded: u64,
}

impl BenchDisk {
    /// A disk as its back has published it.
    pub(super) fn new(terms: &Terms, seed: u64) -> Self {
        Self {
            terms: *terms,
            random: Random::new(seed),
            waiting: Vec::new(),
            holding: false,
            failures: 0,
            jobs: 0,
            read: 0,
            written: 0,
            discarded: 0,
        }
    }

    /// How many jobs have not ended.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// # Panics
    /// If the job is none that a back may give, whatever its front wrote.
    fn check(&self, job: &Work) {
        let length = match job.verb {
            Verb::Discard { length_bytes } => length_bytes,
            Verb::Read | Verb::Write | Verb::Flush => job.length_bytes(),
        };
        let end = job.offset_bytes.checked_add(length).expect("a job that wraps");
        assert!(end <= self.terms.sectors * 512, "a job leaves the disk");
        let unit = self.terms.unit * 512;
        assert!((job.offset_bytes | length).is_multiple_of(unit), "a job that is not aligned");
        assert!(job.verb == Verb::Read || job.verb == Verb::Flush || !self.terms.read_only);
        let empty = matches!(job.verb, Verb::Flush | Verb::Discard { .. });
        assert_eq!(job.extents.is_empty(), empty, "{:?} with the wrong memory", job.verb);
        assert!(job.extents.len() <= blkback::MERGED_EXTENTS_MAX, "a job that is too long");
        for extent in &job.extents {
            let (from, length) = (extent.offset_bytes, extent.length_bytes);
            assert!(length > 0 && (from | length).is_multiple_of(512), "an extent of half sectors");
            assert!(
                usize::from(from) + usize::from(length) <= ring::PAGE_SIZE,
                "it leaves its page"
            );
        }
    }

    fn count(&mut self, job: &Work) {
        self.jobs += 1;
        match job.verb {
            Verb::Read => self.read += job.length_bytes() / 512,
            Verb::Write => self.written += job.length_bytes() / 512,
            Verb::Discard { length_bytes } => self.discarded += length_bytes / 512,
            Verb::Flush => {}
        }
    }
}

impl Disk<Buffer<Lease>> for BenchDisk {
    fn profile(&self) -> Profile {
        Profile {
            sectors: self.terms.sectors,
            physical_sector_size: 512,
            read_only: self.terms.read_only,
            discard_granularity: self.terms.discard.then_some(512),
        }
    }

    fn submit(&mut self, batch: &mut Vec<Work>) {
        for job in batch.drain(..) {
            self.check(&job);
            self.count(&job);
            self.waiting.push(job);
        }
    }

    fn reap(&mut self) -> Option<Done<Buffer<Lease>>> {
        if self.holding || self.waiting.is_empty() {
            return None;
        }
        let job = self.waiting.swap_remove(self.random.below(self.waiting.len()));
        let fails = self.failures > 0 && self.random.chance(self.failures);
        let length = job.length_bytes();
        let done_bytes = if fails { length / 1024 * 512 } else { length };
        let result = if fails { Err(DiskError::Errno(EIO)) } else { Ok(()) };
        Some(Done { tag: job.tag, extents: job.extents, done_bytes, result })
    }
}
