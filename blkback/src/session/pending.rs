//! Requests that were taken and not yet answered.
//!
//! Each ends as exactly one response: [`Pending::answer`] is the only way out of here while the
//! connection stands, and one that is dropped otherwise is our bug and asserted.

use blkif::{Operation, Request, Response, Status};

use crate::disk::Extent;

/// A request that was taken and not yet answered.
#[derive(Debug)]
pub(super) struct Pending<B> {
    pub(super) request: Request,
    /// The request that follows in the same job.
    pub(super) next: Option<u32>,
    /// When it was taken, among all that write.
    pub(super) sequence: u64,
    /// Memory that waits for the flush before it.
    pub(super) held: Vec<Extent<B>>,
    answered: bool,
}

impl<B> Pending<B> {
    pub(super) fn new(request: Request) -> Self {
        Self { request, next: None, sequence: 0, held: Vec::new(), answered: false }
    }

    /// Whether it changes the disk.
    pub(super) fn writes(&self) -> bool {
        match self.request.operation {
            Operation::Read => false,
            Operation::Write | Operation::Discard => true,
            Operation::Flush => !self.request.segments.is_empty(),
        }
    }

    /// How many bytes it transfers.
    pub(super) fn length_bytes(&self) -> u64 {
        self.request.segments.iter().map(|segment| segment.length_bytes() as u64).sum()
    }

    /// Where it begins on the disk.
    pub(super) fn offset_bytes(&self) -> u64 {
        self.request.sector * blkif::SECTOR_SIZE as u64
    }

    /// Ends it.
    pub(super) fn answer(mut self, status: Status) -> Response {
        self.answered = true;
        let operation = self.request.operation.wire();
        Response { id: self.request.id, operation, status }
    }

    /// Ends it without an answer: the connection is gone.
    pub(super) fn abandon(mut self) {
        self.answered = true;
    }
}

impl<B> Drop for Pending<B> {
    fn drop(&mut self) {
        debug_assert!(
            self.answered || std::thread::panicking(),
            "request {:#x} was dropped without an answer",
            self.request.id
        );
    }
}

/// All pending requests, by a number that is ours: a front's id is no index.
#[derive(Debug)]
pub(super) struct Table<B> {
    slots: Vec<Option<Pending<B>>>,
    free: Vec<u32>,
}

impl<B> Table<B> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// How many requests are pending.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps a request and numbers it. The ring bounds how many there are.
    pub(super) fn insert(&mut self, pending: Pending<B>) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[number as usize] = Some(pending);
        number
    }

    pub(super) fn get(&self, number: u32) -> Option<&Pending<B>> {
        self.slots.get(number as usize).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Pending<B>> {
        self.slots.get_mut(number as usize).and_then(Option::as_mut)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Pending<B>> {
        let pending = self.slots.get_mut(number as usize).and_then(Option::take)?;
        self.free.push(number);
        Some(pending)
    }

    /// The connection is gone: nobody waits for answers.
    pub(super) fn abandon(&mut self) {
        self.slots.drain(..).flatten().for_each(Pending::abandon);
        self.free.clear();
    }
}
