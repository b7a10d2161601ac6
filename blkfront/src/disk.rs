//! A connected disk: requests go down with `submit` and `kick`, completions come up with `poll`
//! and `rest`.
//!
//! `submit` does not notify and `poll` does not submit; `kick` is the only sender. Whatever the
//! back answers that we did not ask for is a [`Fault`]: the disk does nothing from then on, and
//! the pages of requests in flight stay out of use until their grants have been taken back.

use core::fmt;

use blkif::{Agreed, Geometry, Operation, Raw, Reason, Request, Response, Status};
use ring::{Broken, Front, Notify, Rest};
use xen::{Events, Grants, Port};

use crate::counters::Counters;
use crate::inflight::{Inflight, Nonsense, Tag};
use crate::lender::Lent;
use crate::offered::Channel;
use crate::pool::{Buffer, Pool};

/// What the back did that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its ring index makes no sense.
    Ring(Broken),
    /// It answered a request that is not in flight.
    UnknownId(u64),
    /// It answered a request with another operation's answer.
    WrongOperation {
        /// The operation in the answer.
        answered: u8,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(broken) => broken.fmt(f),
            Self::UnknownId(id) => write!(f, "a response to request {id}, which is not in flight"),
            Self::WrongOperation { answered } => {
                write!(f, "a response for operation {answered}, which was not the one asked")
            }
        }
    }
}

impl core::error::Error for Fault {}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Every slot of the ring is in use: kick, wait and poll.
    Busy,
    /// The device is closing.
    Closing,
    /// The back broke the connection.
    Fault(Fault),
    /// The disk cannot do this: the rule that it breaks. [`Reason::NotAgreed`] for a flush or a
    /// discard that the back does not offer.
    Unlawful(Reason),
    /// The buffer is from another connection.
    Foreign,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("every slot of the ring is in use"),
            Self::Closing => f.write_str("the device is closing"),
            Self::Fault(fault) => write!(f, "the back broke the connection: {fault}"),
            Self::Unlawful(Reason::NotAgreed) => f.write_str("not offered by this back"),
            Self::Unlawful(reason) => reason.fmt(f),
            Self::Foreign => f.write_str("a buffer of another connection"),
        }
    }
}

impl core::error::Error for SubmitError {}

/// A request that was not taken, with its buffer.
pub struct Refused<G: Grants> {
    /// Why.
    pub error: SubmitError,
    /// The buffer that came with it.
    pub buffer: Option<Buffer<G>>,
}

// By hand: a derive would ask that `G` be `Debug` too.
impl<G: Grants> fmt::Debug for Refused<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

/// A request that was answered.
pub struct Completion<G: Grants> {
    /// The tag that `submit` gave.
    pub tag: Tag,
    /// What was asked.
    pub operation: Operation,
    /// How it ended. After a flush that failed nothing written since the last good one is durable.
    pub status: Status,
    /// The buffer that came with the request.
    pub buffer: Option<Buffer<G>>,
}

impl<G: Grants> fmt::Debug for Completion<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, operation, status, buffer } = self;
        f.debug_tuple("Completion").field(tag).field(operation).field(status).field(buffer).finish()
    }
}

/// A connected disk.
pub struct Disk<G: Grants, E: Events> {
    // In the order of their drop: no event, no ring, then the pages.
    channel: Channel<E>,
    ring: Front<Lent<G>>,
    inflight: Inflight<Option<Buffer<G>>>,
    pool: Pool<G>,
    agreed: Agreed,
    geometry: Geometry,
    handle: u16,
    closing: bool,
    fault: Option<Fault>,
    /// Requests put since the last kick, responses taken since the last empty poll.
    unannounced: bool,
    polling: bool,
    counters: Counters,
}

impl<G: Grants, E: Events> Disk<G, E> {
    pub(crate) fn new(
        (channel, ring): (Channel<E>, Front<Lent<G>>),
        pool: Pool<G>,
        (agreed, geometry): (Agreed, Geometry),
        handle: u16,
    ) -> Self {
        let slots = u16::try_from(ring.free()).unwrap_or(u16::MAX);
        Self {
            channel,
            ring,
            inflight: Inflight::new(slots),
            pool,
            agreed,
            geometry,
            handle,
            closing: false,
            fault: None,
            unannounced: false,
            polling: false,
            counters: Counters::default(),
        }
    }

    /// A buffer of `length_bytes`, a multiple of 512 up to 44 KiB; `None` for any other length,
    /// and while too few pages are free. What it holds is arbitrary.
    pub fn buffer(&self, length_bytes: usize) -> Option<Buffer<G>> {
        self.pool.buffer(length_bytes)
    }

    /// Puts a read, or a write, or a flush followed by a write, of the whole buffer at `sector`,
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
        self.put(|id| Request::transfer(id, operation, sector, segments), Some(buffer))
    }

    /// Puts a flush: its completion says whether every write that completed before is durable.
    ///
    /// # Errors
    /// [`SubmitError::Unlawful`] with [`Reason::NotAgreed`] if the back does not offer it: then
    /// this disk promises nothing about durability.
    pub fn flush(&mut self) -> Result<Tag, SubmitError> {
        self.put(Request::flush, None).map_err(|refused| refused.error)
    }

    /// Puts a discard of `sectors` sectors of 512 bytes from `sector` on.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn discard(&mut self, sector: u64, sectors: u64) -> Result<Tag, SubmitError> {
        self.put(|id| Request::discard(id, sector, sectors), None).map_err(|it| it.error)
    }

    /// Makes all requests put so far visible to the back, and wakes it if it asked for that.
    pub fn kick(&mut self) {
        if !core::mem::take(&mut self.unannounced) || self.fault.is_some() {
            return;
        }
        self.counters.batches += 1;
        self.inflight.announce();
        if self.ring.publish() == Notify::Needed {
            self.counters.notifications_sent += 1;
            self.channel.notify();
        }
    }

    /// Takes the next completion, if there is one.
    ///
    /// # Errors
    /// [`Fault`], now and for ever after.
    pub fn poll(&mut self) -> Result<Option<Completion<G>>, Fault> {
        self.healthy()?;
        match self.ring.take(Response::parse) {
            Err(broken) => Err(self.fail(Fault::Ring(broken))),
            Ok(None) => {
                self.polling = false;
                Ok(None)
            }
            Ok(Some(response)) => self.complete(response).map(Some),
        }
    }

    /// Asks for an event at the next completion, unless one is there: then poll again.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn rest(&mut self) -> Result<Rest, Fault> {
        self.healthy()?;
        self.ring.rest().map_err(|broken| self.fail(Fault::Ring(broken)))
    }

    /// Notes that the event of [`port`](Self::port) was raised.
    pub fn woken(&mut self) {
        self.counters.notifications_received += 1;
    }

    /// The port whose event says that there may be completions.
    pub const fn port(&self) -> Port {
        self.channel.port()
    }

    /// Size and nature of the disk.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What was agreed with the back.
    pub const fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// What was counted so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the back did to end the connection, if it did.
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// How many requests have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// How many requests can be put before completions must be polled.
    pub fn free_slots(&self) -> u32 {
        self.ring.free()
    }

    /// How many pages there are for buffers now.
    pub fn free_pages(&self) -> usize {
        self.pool.free_pages()
    }

    /// Takes the size that the back publishes now.
    pub(crate) const fn resize(&mut self, geometry: Geometry) {
        self.geometry = geometry;
    }

    /// Takes no new requests from now on.
    pub(crate) const fn close(&mut self) {
        self.closing = true;
    }

    /// Whether no answer is to come any more.
    pub(crate) fn idle(&self) -> bool {
        self.in_flight() == 0 || self.fault.is_some()
    }

    fn put(
        &mut self,
        request: impl FnOnce(u64) -> Request,
        buffer: Option<Buffer<G>>,
    ) -> Result<Tag, Refused<G>> {
        match self.prepare(request) {
            Ok((tag, operation)) => {
                self.inflight.begin(tag, operation, buffer);
                self.counters.requests += 1;
                self.unannounced = true;
                Ok(tag)
            }
            Err(error) => Err(Refused { error, buffer }),
        }
    }

    /// Writes the words of a request that the back cannot but take: it is held against the same
    /// rules on both sides.
    fn prepare(
        &mut self,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<(Tag, Operation), SubmitError> {
        self.healthy().map_err(SubmitError::Fault)?;
        if self.closing {
            return Err(SubmitError::Closing);
        }
        let tag = self.inflight.next().ok_or(SubmitError::Busy)?;
        let request = Raw::from(request(tag.id()))
            .check(&self.geometry, &self.agreed)
            .map_err(|reject| SubmitError::Unlawful(reject.reason))?;
        let words = request.words(self.agreed.abi, self.handle);
        self.ring.put(&words).map_err(|_| SubmitError::Busy)?;
        match request.operation {
            Operation::Read => self.counters.read_sectors += request.sectors,
            Operation::Write => self.counters.written_sectors += request.sectors,
            Operation::Flush | Operation::Discard => {}
        }
        Ok((tag, request.operation))
    }

    fn complete(&mut self, response: Response) -> Result<Completion<G>, Fault> {
        let ended = self.inflight.end(response.id, response.operation);
        let (tag, operation, buffer) = ended.map_err(|nonsense| {
            self.fail(match nonsense {
                Nonsense::UnknownId => Fault::UnknownId(response.id),
                Nonsense::WrongOperation => Fault::WrongOperation { answered: response.operation },
            })
        })?;
        let counters = &mut self.counters;
        counters.responses += 1;
        counters.response_batches += u64::from(!core::mem::replace(&mut self.polling, true));
        counters.errors += u64::from(response.status != Status::Okay);
        Ok(Completion { tag, operation, status: response.status, buffer })
    }

    fn healthy(&self) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault);
        fault
    }
}

#[cfg(test)]
mod tests;
