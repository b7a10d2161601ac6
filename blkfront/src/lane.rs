//! The ring of a connected disk and what is in flight on it.
//!
//! `put` does not notify and `poll` does not put; `kick` is the only sender. Whatever the back
//! answers that we did not ask for is a [`Fault`]: the lane does nothing from then on. It knows
//! requests by their segments and by a place that whoever puts them chose; buffers and the order
//! of requests are [`Disk`](crate::Disk)'s.

use core::fmt;

use blkif::{Agreed, Geometry, Operation, Reason, Request, Response, Segment, Status};
use ring::{Broken, Front, Notify, Rest};
use xen::{Events, Grants, Port};

use crate::counters::Counters;
use crate::descriptors::Descriptors;
use crate::inflight::{Inflight, Nonsense, Tag};
use crate::lender::Lent;
use crate::offered::Channel;

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
    /// As many requests wait and are in flight as can be: kick, wait and poll.
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
            Self::Busy => f.write_str("every slot of the queue is in use"),
            Self::Closing => f.write_str("the device is closing"),
            Self::Fault(fault) => write!(f, "the back broke the connection: {fault}"),
            Self::Unlawful(Reason::NotAgreed) => f.write_str("not offered by this back"),
            Self::Unlawful(reason) => reason.fmt(f),
            Self::Foreign => f.write_str("a buffer of another connection"),
        }
    }
}

impl core::error::Error for SubmitError {}

/// A request for the ring, without its id.
pub(crate) struct Load<'a> {
    pub(crate) operation: Operation,
    pub(crate) sector: u64,
    /// How many sectors, if it is a discard.
    pub(crate) sectors: u64,
    pub(crate) segments: &'a [Segment],
}

impl<'a> Load<'a> {
    /// The request, as it was or will be checked.
    pub(crate) fn request(self, id: u64) -> Request<&'a [Segment]> {
        let Self { operation, sector, sectors, segments } = self;
        match operation {
            Operation::Discard => Request { id, operation, sector, sectors, segments },
            _ => Request::transfer(id, operation, sector, segments),
        }
    }
}

/// What belongs to a request in flight.
#[derive(Clone, Copy)]
struct Sent {
    /// Whose it is.
    place: u16,
    /// The page that has its segments, if they did not fit its slot.
    descriptors: Option<u16>,
}

/// The ring of a connected disk.
pub(crate) struct Lane<G: Grants, E: Events> {
    // In the order of their drop: no event, then no ring.
    channel: Channel<E>,
    ring: Front<Lent<G>>,
    descriptors: Descriptors<G>,
    inflight: Inflight<Sent>,
    pub(crate) agreed: Agreed,
    pub(crate) geometry: Geometry,
    pub(crate) counters: Counters,
    handle: u16,
    closing: bool,
    fault: Option<Fault>,
    /// Requests put since the last kick, responses taken since the last empty poll.
    unannounced: bool,
    polling: bool,
}

impl<G: Grants, E: Events> Lane<G, E> {
    pub(crate) fn new(
        (channel, ring, descriptors): (Channel<E>, Front<Lent<G>>, Descriptors<G>),
        (agreed, geometry): (Agreed, Geometry),
        handle: u16,
    ) -> Self {
        let slots = u16::try_from(ring.free()).unwrap_or(u16::MAX);
        Self {
            channel,
            ring,
            descriptors,
            inflight: Inflight::new(slots),
            agreed,
            geometry,
            counters: Counters::default(),
            handle,
            closing: false,
            fault: None,
            unannounced: false,
            polling: false,
        }
    }

    /// Puts a request that was checked when it was submitted. `place` comes back with the answer.
    ///
    /// # Errors
    /// [`SubmitError`], but never one about what the request asks for.
    #[inline]
    pub(crate) fn put(&mut self, load: Load<'_>, place: u16) -> Result<(), SubmitError> {
        self.open()?;
        let tag = self.inflight.next().ok_or(SubmitError::Busy)?;
        let request = load.request(tag.id());
        if request.is_direct() {
            let words = request.words(self.agreed.abi, self.handle);
            self.ring.put(&words).map_err(|_| SubmitError::Busy)?;
            self.inflight.begin(tag, request.operation, Sent { place, descriptors: None });
        } else {
            self.put_indirect(tag, &request, place)?;
        }
        self.counters.requests += 1;
        self.unannounced = true;
        Ok(())
    }

    fn put_indirect(
        &mut self,
        tag: Tag,
        request: &Request<&[Segment]>,
        place: u16,
    ) -> Result<(), SubmitError> {
        let (number, page, reference) = self.descriptors.next().ok_or(SubmitError::Busy)?;
        request.describe(page);
        let words = request.indirect_words(self.agreed.abi, self.handle, reference);
        self.ring.put(&words).map_err(|_| SubmitError::Busy)?;
        self.descriptors.begin();
        let sent = Sent { place, descriptors: Some(number) };
        self.inflight.begin(tag, request.operation, sent);
        Ok(())
    }

    /// Makes all requests put so far visible to the back, and wakes it if it asked for that.
    pub(crate) fn kick(&mut self) {
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

    /// The place and the status of the next request that was answered, if there is one.
    ///
    /// # Errors
    /// [`Fault`], now and for ever after.
    pub(crate) fn poll(&mut self) -> Result<Option<(u16, Status)>, Fault> {
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
    pub(crate) fn rest(&mut self) -> Result<Rest, Fault> {
        self.healthy()?;
        self.ring.rest().map_err(|broken| self.fail(Fault::Ring(broken)))
    }

    /// Whether the back claims answers that were not polled.
    pub(crate) fn unread(&self) -> bool {
        self.ring.unread()
    }

    pub(crate) const fn port(&self) -> Port {
        self.channel.port()
    }

    pub(crate) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// How many segments a request has at most.
    pub(crate) fn segments_max(&self) -> usize {
        self.descriptors.segments_max(&self.agreed)
    }

    /// How many requests can be put before an answer must be polled.
    pub(crate) fn free(&self) -> u32 {
        self.ring.free()
    }

    /// Takes no new requests from now on.
    pub(crate) const fn close(&mut self) {
        self.closing = true;
    }

    /// Passes while requests are taken.
    pub(crate) fn open(&self) -> Result<(), SubmitError> {
        self.healthy().map_err(SubmitError::Fault)?;
        if self.closing { Err(SubmitError::Closing) } else { Ok(()) }
    }

    pub(crate) fn healthy(&self) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }

    fn complete(&mut self, response: Response) -> Result<(u16, Status), Fault> {
        let ended = self.inflight.end(response.id, response.operation);
        let (_, _, Sent { place, descriptors }) = ended.map_err(|nonsense| {
            self.fail(match nonsense {
                Nonsense::UnknownId => Fault::UnknownId(response.id),
                Nonsense::WrongOperation => Fault::WrongOperation { answered: response.operation },
            })
        })?;
        if let Some(number) = descriptors {
            self.descriptors.end(number);
        }
        let counters = &mut self.counters;
        counters.responses += 1;
        counters.response_batches += u64::from(!core::mem::replace(&mut self.polling, true));
        counters.errors += u64::from(response.status != Status::Okay);
        Ok((place, response.status))
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault);
        fault
    }
}
