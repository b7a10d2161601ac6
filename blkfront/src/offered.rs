//! A ring and an event channel that the back may connect to: what becomes a disk.

use alloc::sync::Arc;

use blkif::{Abi, Agreed, Features, FrontOffer, Geometry, ORDER_MAX};
use ring::Front;
use xen::{Events, Grants, Port};

use crate::Disk;
use crate::descriptors::Descriptors;
use crate::lane::Lane;
use crate::lender::{Lender, Lent, SetupError};
use crate::pool::Pool;

/// Our end of an event channel, given up when it is dropped.
pub(crate) struct Channel<E: Events> {
    events: E,
    port: Port,
}

impl<E: Events> Channel<E> {
    pub(crate) fn notify(&self) {
        self.events.notify(self.port);
    }

    pub(crate) const fn port(&self) -> Port {
        self.port
    }
}

impl<E: Events> Drop for Channel<E> {
    fn drop(&mut self) {
        self.events.close(self.port);
    }
}

/// A ring that is lent to the back, empty, and the port that goes with it.
pub(crate) struct Offered<G: Grants, E: Events> {
    // Dropped first: an event must not find the ring gone.
    channel: Channel<E>,
    ring: Front<Lent<G>>,
    offer: FrontOffer,
}

impl<G: Grants, E: Events> Offered<G, E> {
    /// Lends a ring of `2^order` pages and offers a port. Orders above 4 are taken as 4.
    ///
    /// # Errors
    /// [`SetupError`]; then nothing stays lent.
    pub(crate) fn new(lender: &Arc<Lender<G>>, events: E, order: u32) -> Result<Self, SetupError> {
        let (abi, order) = (Abi::X86_64, order.min(ORDER_MAX));
        let pages = Lent::new(lender, 1 << order)?;
        let ring = (0..pages.len()).map(|index| pages.reference(index)).collect();
        let port = events.offer(lender.to()).map_err(SetupError::NoPort)?;
        Ok(Self {
            channel: Channel { events, port },
            ring: Front::new(pages, abi.layout(order)),
            offer: FrontOffer { abi, ring, port, features: Features::PERSISTENT },
        })
    }

    /// What to publish.
    pub(crate) const fn offer(&self) -> &FrontOffer {
        &self.offer
    }

    /// Makes a disk of it, with `pool` for its data and `descriptors` for its longer requests. `handle` is the device number that stands in
    /// requests.
    pub(crate) fn connect(
        self,
        (pool, descriptors): (Pool<G>, Descriptors<G>),
        (agreed, geometry): (Agreed, Geometry),
        handle: u16,
    ) -> Disk<G, E> {
        let ends = (self.channel, self.ring, descriptors);
        Disk::new(Lane::new(ends, (agreed, geometry), handle), pool)
    }
}
