//! The way up: from the disk to the ring.
//!
//! Every job that ended becomes answers, one for each request in it, once its memory is not used
//! any more. Requests behind a failure in a common job get another try of their own.

use blkif::{Operation, Response, Status};
use ring::Notify;
use xen::{Events, Maps};

use super::counters::Fault;
use super::pages::Buffer;
use super::{Queue, Session};
use crate::disk::{Disk, DiskError, Done, Extent, Job, Verb};

impl<M: Maps, D: Disk<Buffer<M::Page>>, E: Events, Q: Queue> Session<M, D, E, Q> {
    /// Takes in what the disk has done.
    pub(super) fn reap(&mut self) {
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
            if !self.past.failed_flush {
                log::error!("flush: {error}; the disk takes no more writes until attached anew");
            }
            self.past.failed_flush = true;
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
        let fault = Fault::Disk;
        if self.past.is_new(fault) {
            log::warn!("{fault}: {error} (said once)");
        }
        self.end(number, Some(fault));
    }

    /// The request is over; its memory is not in use any more.
    pub(super) fn end(&mut self, number: u32, fault: Option<Fault>) {
        let Some(mut pending) = self.table.remove(number) else { return };
        self.pages_in_flight -= pending.request.segments.len();
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
    pub(super) fn answer(&mut self) {
        for response in self.responses.drain(..) {
            if self.ring.put(response).is_err() {
                unreachable!("one answer for each request that was taken");
            }
        }
        if self.ring.publish() == Notify::Needed {
            self.counters.notifications += 1;
            self.events.notify(self.port);
        }
    }

    /// Answers with an error: counted, and said once for each kind.
    pub(super) fn refuse(&mut self, response: Response, fault: Fault) {
        self.counters.error(fault);
        if self.past.is_new(fault) {
            log::warn!(
                "request answered with an error: {fault} (said once; operation {}, id {:#x})",
                response.operation,
                response.id
            );
        }
        self.responses.push(response);
    }
}
