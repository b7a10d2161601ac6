//! A connected disk: requests go down with `submit` and `kick`, completions come up with `poll`
//! and `rest`.
//!
//! What is submitted waits in an [elevator](crate::elevator) until `kick` sends as much of it down
//! as the ring has room for; what had to stay goes down with a later `kick`. `submit` does not
//! notify and `poll` does not send; `kick` is the only sender. Requests that go down next to each
//! other on the disk become one; each of them completes by itself. Whatever the back answers that
//! we did not ask for is a [`Fault`]: the disk does nothing from then on, and the pages of
//! requests in flight stay out of use until their grants have been taken back.
//!
//! Down to the ring, requests that overlap keep their order if one of them is a write, and nothing
//! passes a flush or a discard in either direction. What is on the ring at once has no order.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::ops::Deref;

use blkif::{
    Agreed, Geometry, Operation, Request, SECTORS_PER_PAGE, SEGMENTS_MAX, Segment, Status,
};
use ring::{PAGE_SIZE, Rest};
use xen::{Events, Grants, Port};

use crate::completion::{Completion, Refused};
use crate::counters::Counters;
use crate::elevator::{Elevator, Noop, Parameter, Sorted, Time};
use crate::inflight::Tag;
use crate::lane::{Fault, Lane, Load, SubmitError};
use crate::loading::Loading;
use crate::pool::{Buffer, Pool};
use crate::slots::{Slots, Stage, Work};

/// As many requests may wait as can be in flight.
const CAPACITY_PER_SLOT: u16 = 2;
/// No request that an elevator has is longer.
const SECTORS_MAX: u64 = SEGMENTS_MAX as u64 * SECTORS_PER_PAGE as u64;

/// A connected disk.
pub struct Disk<G: Grants, E: Events> {
    // In the order of their drop: no event, no ring, then the pages.
    lane: Lane<G, E>,
    slots: Slots<G>,
    pool: Pool<G>,
    elevator: Box<dyn Elevator>,
    /// Whether nothing has to be held back from the elevator.
    plain: bool,
    /// How many requests are in the elevator, and where they are on the disk, if it matters.
    sorting: usize,
    spans: Sorted,
    /// What must not overtake what is in the elevator, and all that came later.
    held: VecDeque<u16>,
    /// The rest of the parts of a request that was answered, and the answer.
    answered: Option<(u16, Status)>,
    /// What will never go down.
    failed: VecDeque<u16>,
    now: Time,
    arrivals: u64,
}

impl<G: Grants, E: Events> Disk<G, E> {
    pub(crate) fn new(lane: Lane<G, E>, pool: Pool<G>) -> Self {
        let slots = u16::try_from(lane.free()).unwrap_or(u16::MAX);
        let slots = Slots::new(slots.saturating_mul(CAPACITY_PER_SLOT));
        let capacity = slots.capacity();
        Self {
            lane,
            pool,
            elevator: Box::new(Noop::new(capacity)),
            plain: true,
            sorting: 0,
            spans: Sorted::new(0),
            held: VecDeque::with_capacity(capacity),
            answered: None,
            failed: VecDeque::new(),
            now: Time::default(),
            arrivals: 0,
            slots,
        }
    }

    /// A buffer of `length_bytes`, a multiple of 512 up to
    /// [`buffer_bytes_max`](Self::buffer_bytes_max); `None` for any other length, and while too few
    /// pages are free. What it holds is arbitrary.
    pub fn buffer(&self, length_bytes: usize) -> Option<Buffer<G>> {
        if length_bytes > self.buffer_bytes_max() {
            return None;
        }
        self.pool.buffer(length_bytes)
    }

    /// How much one request carries at most, in bytes: 44 KiB, or up to 128 KiB with a back that takes
    /// indirect requests.
    pub fn buffer_bytes_max(&self) -> usize {
        self.lane.segments_max() * PAGE_SIZE
    }

    /// Takes a read, or a write, or a flush followed by a write, of the whole buffer at `sector`,
    /// in units of 512 bytes. The back does not see it before [`kick`](Self::kick).
    ///
    /// # Errors
    /// [`Refused`], with the buffer.
    pub fn submit(
        &mut self,
        operation: Operation,
        sector: u64,
        buffer: Buffer<G>,
    ) -> Result<Tag, Refused<G>> {
        if !self.pool.owns(&buffer) {
            return Err(Refused { error: SubmitError::Foreign, buffer: Some(buffer) });
        }
        let segments = buffer.segments();
        self.take(
            &Load { operation, sector, sectors: 0, segments: &segments }.request(0),
            Some(buffer),
        )
    }

    /// Takes a flush: its completion says whether every write that completed before it was
    /// submitted is durable.
    ///
    /// # Errors
    /// [`SubmitError::Unlawful`] with [`blkif::Reason::NotAgreed`] if the back does not offer it:
    /// then this disk promises nothing about durability.
    pub fn flush(&mut self) -> Result<Tag, SubmitError> {
        self.take(&Request::flush(0), None).map_err(|refused| refused.error)
    }

    /// Takes a discard of `sectors` sectors of 512 bytes from `sector` on.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn discard(&mut self, sector: u64, sectors: u64) -> Result<Tag, SubmitError> {
        self.take(&Request::discard(0, sector, sectors), None).map_err(|refused| refused.error)
    }

    /// Sends down what the elevator gives and the ring has room for, makes it visible to the
    /// back, and wakes it if it asked for that.
    pub fn kick(&mut self) {
        if self.unsent() > 0 && self.lane.open().is_ok() {
            self.send();
        }
        self.lane.kick();
    }

    /// Takes the next completion, if there is one.
    ///
    /// # Errors
    /// [`Fault`], now and for ever after.
    pub fn poll(&mut self) -> Result<Option<Completion<G>>, Fault> {
        self.lane.healthy()?;
        let next = match self.answered.take() {
            None => match self.failed.pop_front() {
                None => self.lane.poll()?,
                Some(place) => Some((place, Status::Error)),
            },
            part => {
                self.lane.counters.merged_responses += 1;
                part
            }
        };
        Ok(next.map(|(place, status)| {
            let (tag, work) = self.slots.end(place);
            self.answered = work.next.map(|next| (next, status));
            Completion { tag, operation: work.operation, status, buffer: work.buffer }
        }))
    }

    /// Asks for an event at the next completion, unless one is there: then poll again.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn rest(&mut self) -> Result<Rest, Fault> {
        let rest = self.lane.rest()?;
        let more = self.answered.is_some() || !self.failed.is_empty();
        Ok(if more { Rest::Work } else { rest })
    }

    /// Tells the disk the time: what is submitted from now on arrives now. Needed only while
    /// [`wants_time`](Self::wants_time); the time never goes back.
    pub fn at(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Whether the elevator looks at the time.
    pub const fn wants_time(&self) -> bool {
        !self.plain
    }

    /// When to [`kick`](Self::kick) though nothing happens.
    pub fn due(&self) -> Option<Time> {
        self.elevator.due().filter(|_| self.sorting > 0)
    }

    /// Changes the elevator. What waits goes to the new one as if it came anew.
    pub fn set_elevator(&mut self, elevator: Box<dyn Elevator>) {
        let unsent = self.slots.unsent();
        self.plain = elevator.is_plain();
        self.elevator = elevator;
        self.spans = Sorted::new(if self.plain { 0 } else { self.capacity() });
        self.sorting = 0;
        self.held.clear();
        // After a close they are among those that failed.
        if self.lane.open().is_ok() {
            unsent.into_iter().for_each(|place| self.queue(place));
        }
    }

    /// What the elevator is called.
    pub fn elevator(&self) -> &str {
        self.elevator.name()
    }

    /// What the elevator can be tuned with, and the values.
    pub fn parameters(&self) -> impl Iterator<Item = (&Parameter, u64)> {
        let all = self.elevator.parameters().iter().enumerate();
        all.map(|(index, parameter)| (parameter, self.elevator.value(index)))
    }

    /// Tunes the elevator: the index is that of [`parameters`](Self::parameters). A value outside
    /// of its bounds is brought inside.
    pub fn tune(&mut self, index: usize, value: u64) {
        if let Some(parameter) = self.elevator.parameters().get(index) {
            let value = value.max(parameter.least).min(parameter.most);
            self.elevator.set(index, value);
        }
    }

    /// Notes that the event of [`port`](Self::port) was raised.
    pub const fn woken(&mut self) {
        self.lane.counters.notifications_received += 1;
    }

    /// The port whose event says that there may be completions.
    pub const fn port(&self) -> Port {
        self.lane.port()
    }

    /// Size and nature of the disk.
    pub const fn geometry(&self) -> &Geometry {
        &self.lane.geometry
    }

    /// What was agreed with the back.
    pub const fn agreed(&self) -> &Agreed {
        &self.lane.agreed
    }

    /// What was counted so far.
    pub const fn counters(&self) -> &Counters {
        &self.lane.counters
    }

    /// What the back did to end the connection, if it did.
    pub const fn fault(&self) -> Option<Fault> {
        self.lane.fault()
    }

    /// How many requests were submitted and did not complete.
    pub fn in_flight(&self) -> usize {
        self.slots.capacity() - self.slots.free()
    }

    /// How many of those wait and did not go down.
    pub fn unsent(&self) -> usize {
        self.sorting + self.held.len()
    }

    /// How many requests can be submitted before completions must be polled.
    pub fn free_slots(&self) -> u32 {
        u32::try_from(self.slots.free()).unwrap_or(u32::MAX)
    }

    /// How many requests can be submitted and not complete: every [`Tag::place`] is below it.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// How many pages there are for buffers now.
    pub fn free_pages(&self) -> usize {
        self.pool.free_pages()
    }

    /// Takes the size that the back publishes now.
    pub(crate) const fn resize(&mut self, geometry: Geometry) {
        self.lane.geometry = geometry;
    }

    /// Takes no new requests from now on. What did not go down fails.
    pub(crate) fn close(&mut self) {
        if self.lane.open().is_ok() {
            self.failed.extend(self.slots.unsent());
            self.held.clear();
            self.sorting = 0;
        }
        self.lane.close();
    }

    /// Whether no answer is to come any more.
    pub(crate) fn idle(&self) -> bool {
        self.in_flight() == 0 || self.fault().is_some()
    }

    /// Whether a poll would give a completion now.
    pub(crate) fn unread(&self) -> bool {
        let kept = self.answered.is_some() || !self.failed.is_empty();
        !self.idle() && (kept || self.lane.unread())
    }

    /// Holds a request against the rules that the back will hold it against, and lets it wait.
    #[inline]
    fn take<S: Deref<Target = [Segment]>>(
        &mut self,
        request: &Request<S>,
        buffer: Option<Buffer<G>>,
    ) -> Result<Tag, Refused<G>> {
        if let Err(error) = self.may_take(request) {
            return Err(Refused { error, buffer });
        }
        let Request { operation, sector, sectors, .. } = *request;
        let (arrived, arrival) = (self.now, self.arrivals);
        let (stage, next) = (Stage::Held, None);
        let work = Work { operation, sector, sectors, buffer, arrived, arrival, stage, next };
        let (place, tag) = self.slots.begin(work);
        self.arrivals += 1;
        let counters = &mut self.lane.counters;
        match operation {
            Operation::Read => counters.read_sectors += sectors,
            Operation::Write => counters.written_sectors += sectors,
            Operation::Flush | Operation::Discard => {}
        }
        self.queue(place);
        Ok(tag)
    }

    fn may_take<S: Deref<Target = [Segment]>>(
        &self,
        request: &Request<S>,
    ) -> Result<(), SubmitError> {
        self.lane.open()?;
        let lawful = request.check(&self.lane.geometry, &self.lane.agreed);
        lawful.map_err(SubmitError::Unlawful)?;
        if self.slots.free() == 0 { Err(SubmitError::Busy) } else { Ok(()) }
    }

    /// Lets a request wait, in the elevator or behind what it must not overtake.
    fn queue(&mut self, place: u16) {
        if self.held.is_empty() && self.may_sort(place) {
            self.sort(place);
        } else {
            self.slots.work(place).stage = Stage::Held;
            self.held.push_back(place);
        }
    }

    /// Whether the elevator may have this request together with what it has.
    fn may_sort(&mut self, place: u16) -> bool {
        let work = self.slots.work(place);
        let Some(request) = work.waiting(place) else { return false };
        if self.plain {
            return true;
        }
        let writes = work.operation == Operation::Write;
        let first = request.sector.saturating_sub(SECTORS_MAX);
        let mut near = self.spans.between(first, request.end());
        !near.any(|key| {
            let other = self.slots.work(key.place);
            let overlap = other.sector + other.sectors > request.sector;
            overlap && (writes || other.operation == Operation::Write)
        })
    }

    fn sort(&mut self, place: u16) {
        let work = self.slots.work(place);
        work.stage = Stage::Sorting;
        let key = work.key(place);
        let Some(request) = work.waiting(place) else { return };
        if !self.plain {
            self.spans.insert(key);
        }
        self.sorting += 1;
        self.elevator.insert(request);
    }

    /// Sends down what can go, in the order that the elevator wants.
    fn send(&mut self) {
        loop {
            let waiting = (&mut self.spans, &mut self.sorting);
            let mut batch = Loading::new(&mut self.lane, &mut self.slots, waiting);
            self.elevator.take_batch(&mut batch, self.now);
            batch.finish();
            if self.sorting > 0 || !self.release() {
                return;
            }
        }
    }

    /// With nothing in the elevator: lets go what was held back for it, up to the next thing that
    /// has to be. Tells whether the elevator has something now.
    fn release(&mut self) -> bool {
        while let Some(&place) = self.held.front() {
            if self.may_sort(place) {
                self.sort(place);
            } else if self.sorting > 0 || !self.send_alone(place) {
                break;
            }
            self.held.pop_front();
        }
        self.sorting > 0
    }

    /// Sends down what an elevator does not get.
    fn send_alone(&mut self, place: u16) -> bool {
        let work = self.slots.work(place);
        let segments = work.buffer.as_ref().map(Buffer::segments).unwrap_or_default();
        let Work { operation, sector, sectors, .. } = *work;
        let sent =
            self.lane.put(Load { operation, sector, sectors, segments: &segments }, place).is_ok();
        if sent {
            self.slots.work(place).stage = Stage::Sent;
        }
        sent
    }
}

#[cfg(test)]
mod tests;
