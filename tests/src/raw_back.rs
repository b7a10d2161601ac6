//! A back that says anything: it maps the ring of a front and answers what it likes.

use std::sync::Arc;

use blkif::{Abi, FrontOffer, ORDER_MAX, Raw, Response};
use ring::sync::{AtomicU32, Ordering};
use ring::{Back, Broken, Memory};
use sim::{Domain, MappedPage};
use xen::{Access, DomainId, Events, Maps, Port, Store, Transaction};

use crate::Pages;

/// A back without manners.
pub struct RawBack {
    domain: Domain,
    abi: Abi,
    memory: Arc<Pages<MappedPage>>,
    ring: Back<Shared>,
    port: Port,
}

struct Shared(Arc<Pages<MappedPage>>);

impl Memory for Shared {
    fn words(&self) -> usize {
        self.0.words()
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.0.word(index)
    }
}

impl RawBack {
    /// Maps the ring that the front published in `folder`.
    ///
    /// # Panics
    /// If the front published nonsense: it is the well-behaved one here.
    pub fn connect(domain: &Domain, front: DomainId, folder: &str) -> Self {
        let node = |key: &str| {
            domain.read(Transaction::NONE, &format!("{folder}/{key}")).expect("readable")
        };
        let offer = FrontOffer::read(node, ORDER_MAX, Abi::X86_64).expect("an honest front");
        let pages = domain.map(front, &offer.ring, Access::Write).expect("granted");
        let memory = Arc::new(Pages(pages));
        let layout = offer.abi.layout(offer.order());
        let ring = Back::attach(Shared(Arc::clone(&memory)), layout);
        let port = domain.bind(front, offer.port).expect("offered");
        Self { domain: domain.clone(), abi: offer.abi, memory, ring, port }
    }

    /// The next request as the front wrote it.
    ///
    /// # Errors
    /// [`Broken`] if the front asks more than there is room for.
    pub fn take(&mut self) -> Result<Option<Raw>, Broken> {
        let abi = self.abi;
        self.ring.take(|reader| Raw::parse(reader, abi))
    }

    /// Puts an answer into the ring, if a request was taken for it, and shows it.
    pub fn answer(&mut self, response: Response) -> bool {
        let put = self.ring.put(&response.words(self.abi)).is_ok();
        let _ = self.ring.publish();
        self.domain.notify(self.port);
        put
    }

    /// Overwrites a word anywhere in the ring and raises an event.
    pub fn poke(&self, word: usize, value: u32) {
        self.memory.word(word).store(value, Ordering::Release);
        self.domain.notify(self.port);
    }

    /// Raises an event for nothing.
    pub fn notify(&self) {
        self.domain.notify(self.port);
    }

    /// Lets go of everything.
    pub fn disconnect(self) {
        self.domain.close(self.port);
    }
}
