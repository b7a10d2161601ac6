//! The way down: from the ring to the disk.
//!
//! Requests are taken, checked, given their memory, and become jobs in the order of their arrival.
//! A flush waits on the way for the writes before it.

use blkif::{Operation, Raw, Request, Segment, Status};
use ring::Broken;
use xen::{Events, Maps};

use super::counters::Fault;
use super::pages::Buffer;
use super::pending::Pending;
use super::{MERGED_EXTENTS_MAX, Queue, Session, Taking};
use crate::disk::{Disk, Extent, Job, Verb};

impl<M: Maps, D: Disk<Buffer<M::Page>>, E: Events, Q: Queue> Session<M, D, E, Q> {
    /// Takes and checks every visible request.
    pub(super) fn take(&mut self) -> Result<(), Broken> {
        if self.taking == Taking::Never {
            return Ok(());
        }
        let slots = self.agreed.abi.layout(self.agreed.order).slots();
        let before = self.counters.requests;
        let mut raw = Raw::new();
        for _ in 0..slots {
            if self.is_full() {
                break;
            }
            let Some(()) = self.ring.take(&mut raw)? else { break };
            self.counters.requests += 1;
            if !self.described(&mut raw) {
                self.refuse(raw.answer(&self.agreed, Status::Error), Fault::Grant);
                continue;
            }
            match raw.check(&self.geometry, &self.agreed) {
                Ok(request) if self.is_refused(&request) => {
                    self.refuse(raw.answer(&self.agreed, Status::Error), Fault::FailedFlush);
                }
                Ok(request) => {
                    self.pages_in_flight += request.segments.len();
                    self.batch.push(request.kept());
                }
                Err(reject) => self.refuse(reject.response, Fault::Rejected(reject.reason)),
            }
        }
        self.counters.batches += u64::from(self.counters.requests > before);
        if self.taking == Taking::OnceMore && !self.is_full() {
            self.taking = Taking::Never;
        }
        Ok(())
    }

    /// Fetches the segments of an indirect request, if they are wanted. Tells whether that could be
    /// done.
    fn described(&mut self, raw: &mut Raw) -> bool {
        let Some(indirect) = raw.to_fetch(&self.agreed) else { return true };
        let Some(segments) = self.pages.describe(indirect, &mut self.counters) else {
            return false;
        };
        self.ring.described(&segments);
        raw.segments = segments;
        true
    }

    /// After a failed flush nothing may claim to have reached the disk.
    fn is_refused(&self, request: &Request<&[Segment]>) -> bool {
        self.past.failed_flush && request.operation != Operation::Read
    }

    /// Finds the memory of the batch and makes jobs of it.
    pub(super) fn fetch(&mut self) {
        let mut fetched = std::mem::take(&mut self.fetched);
        self.pages.fetch(&self.batch, &mut fetched, &mut self.counters);
        let mut batch = std::mem::take(&mut self.batch);
        let first_job = self.jobs.len();
        for (request, memory) in batch.drain(..).zip(fetched.drain(..)) {
            let pending = Pending::new(request);
            match memory {
                Some(extents) => self.begin(pending, extents, first_job),
                None => {
                    self.pages_in_flight -= pending.request.segments.len();
                    self.refuse(pending.answer(Status::Error), Fault::Grant);
                }
            }
        }
        self.batch = batch;
        self.fetched = fetched;
    }

    fn begin(
        &mut self,
        mut pending: Pending<Buffer<M::Page>>,
        extents: Vec<Extent<Buffer<M::Page>>>,
        first_job: usize,
    ) {
        let operation = pending.request.operation;
        if operation == Operation::Flush {
            pending.held = extents;
            let writes = pending.writes();
            let number = self.table.insert(pending);
            self.flushes.flush_taken(number);
            // Its own data comes after it, and before the next flush.
            if writes {
                self.number_write(number);
            }
            return;
        }
        let (offset_bytes, sectors) = (pending.offset_bytes(), pending.request.sectors);
        let writes = pending.writes();
        let number = self.table.insert(pending);
        if writes {
            self.number_write(number);
        }
        let verb = match operation {
            Operation::Read => Verb::Read,
            Operation::Write | Operation::Flush => Verb::Write,
            Operation::Discard => Verb::Discard { length_bytes: sectors * 512 },
        };
        let job = Job { tag: number, verb, offset_bytes, extents };
        if let Some(job) = self.merge(job, first_job) {
            self.jobs.push(job);
        }
    }

    fn number_write(&mut self, number: u32) {
        let sequence = self.flushes.write_taken();
        if let Some(pending) = self.table.get_mut(number) {
            pending.sequence = sequence;
        }
    }

    /// Appends a job to the one before it in the same batch if it goes on where that one ends.
    fn merge(
        &mut self,
        mut job: Job<Buffer<M::Page>>,
        first_job: usize,
    ) -> Option<Job<Buffer<M::Page>>> {
        let Some(last) = self.jobs[first_job..].last_mut() else { return Some(job) };
        let fits = last.extents.len() + job.extents.len() <= MERGED_EXTENTS_MAX;
        let same = last.verb == job.verb && matches!(job.verb, Verb::Read | Verb::Write);
        if !(same && fits && last.offset_bytes + last.length_bytes() == job.offset_bytes) {
            return Some(job);
        }
        let mut number = last.tag;
        while let Some(next) = self.table.get(number).and_then(|pending| pending.next) {
            number = next;
        }
        if let Some(pending) = self.table.get_mut(number) {
            pending.next = Some(job.tag);
        }
        last.extents.append(&mut job.extents);
        self.pages.give_back(job.extents);
        self.counters.merged += 1;
        None
    }

    /// Gives the disk all jobs, and again those that follow from jobs done at once.
    pub(super) fn submit(&mut self) {
        loop {
            self.begin_flushes();
            if self.jobs.is_empty() {
                return;
            }
            self.counters.jobs += self.jobs.len() as u64;
            self.disk.submit(&mut self.jobs);
            self.reap();
        }
    }

    /// All flushes whose time has come share one, unless one is under way: that may have begun
    /// too early for them.
    fn begin_flushes(&mut self) {
        let mut last: Option<u32> = None;
        while !(self.flushing && last.is_none()) {
            let Some(number) = self.flushes.ready() else { return };
            if self.past.failed_flush {
                self.end(number, Some(Fault::FailedFlush));
                continue;
            }
            self.flushing = true;
            match last.and_then(|last| self.table.get_mut(last)) {
                Some(before) => before.next = Some(number),
                None => {
                    let extents = self.pages.list();
                    self.jobs.push(Job {
                        tag: number,
                        verb: Verb::Flush,
                        offset_bytes: 0,
                        extents,
                    });
                }
            }
            last = Some(number);
        }
    }
}
