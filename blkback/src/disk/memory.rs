//! A disk in memory: for tests and the simulator. Done as soon as it is submitted.

use std::collections::VecDeque;
use std::ops::Deref;

use ring::Page;

use super::{Disk, Done, Job, NoMemory, Profile, Verb};

/// A disk in memory.
#[derive(Debug)]
pub struct MemoryDisk<P> {
    bytes: Vec<u8>,
    read_only: bool,
    done: VecDeque<Done<P>>,
}

impl<P> MemoryDisk<P> {
    /// A writable disk of zeros, `sectors` of 512 bytes.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(sectors: usize) -> Result<Self, NoMemory> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(sectors.saturating_mul(512))?;
        bytes.resize(sectors * 512, 0);
        Ok(Self { bytes, read_only: false, done: VecDeque::new() })
    }

    /// The same disk, not to be written.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// What is on it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is on it, to be changed behind the guest's back.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl<P: Deref<Target = Page>> MemoryDisk<P> {
    fn carry_out(&mut self, job: &Job<P>) {
        let mut at = usize::try_from(job.offset_bytes).unwrap_or(usize::MAX);
        match job.verb {
            Verb::Flush => {}
            Verb::Discard { length_bytes } => {
                let end = at + usize::try_from(length_bytes).unwrap_or(usize::MAX);
                self.bytes[at..end].fill(0);
            }
            Verb::Read | Verb::Write => {
                for extent in &job.extents {
                    let from = usize::from(extent.offset_bytes);
                    let count = usize::from(extent.length_bytes);
                    let place = &mut self.bytes[at..at + count];
                    if job.verb == Verb::Read {
                        extent.page.write(from, place);
                    } else {
                        extent.page.read(from, place);
                    }
                    at += count;
                }
            }
        }
    }
}

impl<P: Deref<Target = Page>> Disk<P> for MemoryDisk<P> {
    fn profile(&self) -> Profile {
        Profile {
            sectors: self.bytes.len() as u64 / 512,
            physical_sector_size: 512,
            read_only: self.read_only,
            discard_granularity: Some(512),
        }
    }

    fn submit(&mut self, batch: &mut Vec<Job<P>>) {
        for job in batch.drain(..) {
            self.carry_out(&job);
            let done_bytes = job.length_bytes();
            self.done.push_back(Done {
                tag: job.tag,
                extents: job.extents,
                done_bytes,
                result: Ok(()),
            });
        }
    }

    fn reap(&mut self) -> Option<Done<P>> {
        self.done.pop_front()
    }
}
