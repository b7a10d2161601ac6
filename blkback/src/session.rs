//! One connected disk: takes requests off the ring, has them done, answers.
//!
//! One [`Session::turn`] goes down once and comes up once: every visible request is taken and
//! checked, the batch's pages are found, the disk gets it in one submission, what has completed is
//! answered, made visible once and notified at most once. Order of arrival, no waiting for company:
//! neighbours merge only if they arrived together. It must never believe a front twice, answer
//! twice, or answer while it still uses the memory.

mod cache;
mod counters;
mod flushes;
mod pages;
mod pending;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use blkif::{Agreed, Geometry, Operation, Raw, Request, Response, Status};
use ring::{Back, Broken, Memory, Notify, PAGE_WORDS, Page, Rest};
use xen::{DomainId, Events, Maps, Port};

use crate::disk::{Disk, DiskError, Done, Extent, Job, Verb};
use flushes::Flushes;
use pages::{Fetched, Pages};
use pending::{Pending, Table};

pub use counters::{Counters, Fault};
pub use pages::Buffer;

/// A job has at most this many extents: 1 MiB of whole pages.
pub const MERGED_EXTENTS_MAX: usize = 256;

/// What a turn left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// More requests have come: take another turn.
    Again,
    /// Nothing to take: sleep until the event channel or the disk wakes us.
    Idle,
}

/// The pages of a ring, one after the other.
#[derive(Debug)]
pub struct RingPages<P>(Vec<P>);

impl<P: Deref<Target = Page>> Memory for RingPages<P> {
    fn words(&self) -> usize {
        self.0.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &ring::sync::AtomicU32 {
        self.0[index / PAGE_WORDS].word(index % PAGE_WORDS)
    }
}

/// What both sides settled before a session begins.
#[derive(Debug)]
pub struct Link<P> {
    /// The guest.
    pub peer: DomainId,
    /// The pages of the ring, mapped, in order.
    pub ring: Vec<P>,
    /// Our end of the event channel.
    pub port: Port,
    /// What was agreed on.
    pub agreed: Agreed,
    /// The disk, as published.
    pub geometry: Geometry,
    /// Whether a flush failed in a former session on this disk.
    pub failed_flush: bool,
}

/// One connected disk.
pub struct Session<M: Maps, D, E: Events> {
    // First: a disk may work on the pages below until it is dropped.
    disk: D,
    events: E,
    port: Port,
    agreed: Agreed,
    geometry: Geometry,
    pages: Pages<M>,
    table: Table<Buffer<M::Page>>,
    flushes: Flushes,
    /// One flush at a time: the kernel tells a failure to one of two.
    flushing: bool,
    failed_flush: bool,
    taking: bool,
    batch: Vec<Request>,
    fetched: Vec<Fetched<M::Page>>,
    jobs: Vec<Job<Buffer<M::Page>>>,
    finished: Vec<Done<Buffer<M::Page>>>,
    responses: Vec<Response>,
    counters: Counters,
    ring: Back<RingPages<M::Page>>,
}

impl<M: Maps, D: Disk<Buffer<M::Page>>, E: Events> Session<M, D, E> {
    /// Joins the front's ring.
    ///
    /// # Panics
    /// If `link.ring` has fewer pages than `link.agreed` says.
    pub fn new(maps: M, events: E, disk: D, link: Link<M::Page>) -> Self {
        let layout = link.agreed.abi.layout(link.agreed.order);
        Self {
            disk,
            events,
            port: link.port,
            agreed: link.agreed,
            geometry: link.geometry,
            pages: Pages::new(maps, link.peer, link.agreed.persistent(), layout.slots()),
            table: Table::new(),
            flushes: Flushes::default(),
            flushing: false,
            failed_flush: link.failed_flush,
            taking: true,
            batch: Vec::new(),
            fetched: Vec::new(),
            jobs: Vec::new(),
            finished: Vec::new(),
            responses: Vec::new(),
            counters: Counters::default(),
            ring: Back::attach(RingPages(link.ring), layout),
        }
    }

    /// Does all that can be done without waiting; at most a ring full of requests.
    ///
    /// # Errors
    /// [`Broken`]: the ring cannot be used any more. Requests taken before are still done by the
    /// disk; nobody is told.
    pub fn turn(&mut self) -> Result<Turn, Broken> {
        self.reap();
        self.take()?;
        self.fetch();
        self.submit();
        self.answer();
        if !self.taking {
            return Ok(Turn::Idle);
        }
        Ok(match self.ring.rest()? {
            Rest::Work => Turn::Again,
            Rest::Idle => Turn::Idle,
        })
    }

    /// Takes no more requests from now on.
    pub fn stop_taking(&mut self) {
        self.taking = false;
    }

    /// How many requests were taken and not yet answered.
    pub fn pending(&self) -> usize {
        self.table.len()
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether a flush has failed: nothing that writes is done until the disk is attached anew.
    pub fn failed_flush(&self) -> bool {
        self.failed_flush
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, to wait on.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The event channels.
    pub fn events(&self) -> &E {
        &self.events
    }

    /// Takes and checks every visible request.
    fn take(&mut self) -> Result<(), Broken> {
        let slots = self.agreed.abi.layout(self.agreed.order).slots();
        let before = self.counters.requests;
        for _ in 0..slots {
            if !self.taking {
                break;
            }
            let abi = self.agreed.abi;
            let Some(raw) = self.ring.take(|reader| Raw::parse(reader, abi))? else { break };
            self.counters.requests += 1;
            match raw.check(&self.geometry, &self.agreed) {
                Ok(request) if self.is_refused(&request) => {
                    let response = Pending::<()>::new(request).answer(Status::Error);
                    self.refuse(response, Fault::FailedFlush);
                }
                Ok(request) => self.batch.push(request),
                Err(reject) => self.refuse(reject.response(), Fault::Rejected(reject.reason)),
            }
        }
        self.counters.batches += u64::from(self.counters.requests > before);
        Ok(())
    }

    /// After a failed flush nothing may claim to have reached the disk.
    fn is_refused(&self, request: &Request) -> bool {
        self.failed_flush && request.operation != Operation::Read
    }

    fn refuse(&mut self, response: Response, fault: Fault) {
        if self.counters.error(fault) {
            log::warn!(
                "request answered with an error: {fault} (said once; operation {}, id {:#x})",
                response.operation,
                response.id
            );
        }
        self.responses.push(response);
    }

    /// Finds the memory of the batch and makes jobs of it.
    fn fetch(&mut self) {
        let mut fetched = std::mem::take(&mut self.fetched);
        self.pages.fetch(&self.batch, &mut fetched, &mut self.counters);
        let mut batch = std::mem::take(&mut self.batch);
        let first_job = self.jobs.len();
        for (request, memory) in batch.drain(..).zip(fetched.drain(..)) {
            let pending = Pending::new(request);
            match memory {
                Some(extents) => self.begin(pending, extents, first_job),
                None => self.refuse(pending.answer(Status::Error), Fault::Grant),
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
    fn submit(&mut self) {
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
            if self.failed_flush {
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

    /// Takes in what the disk has done.
    fn reap(&mut self) {
        let mut finished = std::mem::take(&mut self.finished);
        while let Some(done) = self.disk.reap() {
            finished.push(done);
        }
        if !finished.is_empty() {
            let undelivered = self.copy_out(&finished);
            for done in finished.drain(..) {
                self.finish(done, &undelivered);
            }
        }
        self.finished = finished;
    }

    /// Copies what was read to a front that does not keep grants; returns who did not get it.
    fn copy_out(&mut self, finished: &[Done<Buffer<M::Page>>]) -> Vec<u32> {
        if self.agreed.persistent() {
            return Vec::new();
        }
        let mut reads = Vec::new();
        let mut numbers = Vec::new();
        for done in finished {
            let mut memory = &done.extents[..];
            let mut next = Some(done.tag);
            while let Some(pending) = next.and_then(|number| self.table.get(number)) {
                let count = pending.request.segments.len().min(memory.len());
                let (mine, others) = memory.split_at(count);
                if pending.request.operation == Operation::Read && !mine.is_empty() {
                    reads.push((&pending.request, mine));
                    numbers.extend(next);
                }
                memory = others;
                next = pending.next;
            }
        }
        let failed = self.pages.copy_out(&reads, &mut self.counters);
        failed.into_iter().map(|at| numbers[at]).collect()
    }

    /// A job ended: ends its requests, or gives those behind a failure another try of their own.
    fn finish(&mut self, done: Done<Buffer<M::Page>>, undelivered: &[u32]) {
        let alone = self.table.get(done.tag).is_none_or(|pending| pending.next.is_none());
        let mut memory = &done.extents[..];
        let mut covered_bytes = 0;
        let mut next = Some(done.tag);
        while let Some(number) = next {
            let Some(pending) = self.table.get_mut(number) else { break };
            next = pending.next.take();
            if pending.request.operation == Operation::Flush && done.extents.is_empty() {
                self.finish_flush(number, done.result);
                continue;
            }
            covered_bytes += pending.length_bytes();
            let (mine, others) = memory.split_at(pending.request.segments.len().min(memory.len()));
            memory = others;
            match done.result {
                Err(error) if alone => self.fail(number, error),
                Err(_) if covered_bytes > done.done_bytes => self.again(number, mine.to_vec()),
                _ if undelivered.contains(&number) => self.end(number, Some(Fault::Grant)),
                _ => self.end(number, None),
            }
        }
        self.pages.give_back(done.extents);
    }

    fn finish_flush(&mut self, number: u32, result: Result<(), DiskError>) {
        self.flushing = false;
        if let Err(error) = result {
            if !self.failed_flush {
                log::error!("flush: {error}; the disk takes no more writes until attached anew");
            }
            self.failed_flush = true;
            return self.fail(number, error);
        }
        let Some(pending) = self.table.get_mut(number) else { return };
        if !pending.writes() {
            return self.end(number, None);
        }
        let extents = std::mem::take(&mut pending.held);
        self.again(number, extents);
    }

    /// A job for one request alone.
    fn again(&mut self, number: u32, extents: Vec<Extent<Buffer<M::Page>>>) {
        let Some(pending) = self.table.get(number) else { return };
        let verb = match pending.request.operation {
            Operation::Read => Verb::Read,
            _ => Verb::Write,
        };
        let offset_bytes = pending.offset_bytes();
        self.jobs.push(Job { tag: number, verb, offset_bytes, extents });
    }

    fn fail(&mut self, number: u32, error: DiskError) {
        if self.counters.errors[Fault::Disk.index()] == 0 {
            log::warn!("disk: {error}");
        }
        self.end(number, Some(Fault::Disk));
    }

    /// The request is over; its memory is not in use any more.
    fn end(&mut self, number: u32, fault: Option<Fault>) {
        let Some(mut pending) = self.table.remove(number) else { return };
        if pending.writes() {
            self.flushes.write_ended(pending.sequence);
        }
        let held = std::mem::take(&mut pending.held);
        self.pages.give_back(held);
        match fault {
            None => self.responses.push(pending.answer(Status::Okay)),
            Some(fault) => self.refuse(pending.answer(Status::Error), fault),
        }
    }

    /// Puts all answers, makes them visible, and tells the front if it asked to be told.
    fn answer(&mut self) {
        for response in self.responses.drain(..) {
            let words = response.words(self.agreed.abi);
            if self.ring.put(&words).is_err() {
                unreachable!("one answer for each request that was taken");
            }
        }
        if self.ring.publish() == Notify::Needed {
            self.counters.notifications += 1;
            self.events.notify(self.port);
        }
    }
}

impl<M: Maps, D, E: Events> Drop for Session<M, D, E> {
    /// Leaves the ring: nobody waits for answers any more. The disk waits for its jobs, then pages
    /// are unmapped.
    fn drop(&mut self) {
        self.table.abandon();
        self.events.close(self.port);
    }
}
