//! A front that says anything: it owns a ring and pages, and checks nothing.

use blkif::{Abi, Features, FrontOffer, Response};
use ring::sync::Ordering;
use ring::{Broken, Front, Index, Memory};
use sim::{Domain, OwnPage};
use std::sync::Arc;
use xen::{Access, DomainId, Events, GrantRef, Grants, Port, Store, Transaction, XenbusState};

use crate::Pages;

/// A front without manners.
pub struct RawFront {
    domain: Domain,
    folder: String,
    back: DomainId,
    abi: Abi,
    memory: Arc<Pages<OwnPage>>,
    ring: Front<Shared>,
    port: Port,
    references: Vec<GrantRef>,
    buffers: Vec<(OwnPage, GrantRef)>,
}

/// The ring's memory, which this front also writes to behind its ring's back.
struct Shared(Arc<Pages<OwnPage>>);

impl Memory for Shared {
    fn words(&self) -> usize {
        self.0.words()
    }

    fn word(&self, index: usize) -> &ring::sync::AtomicU32 {
        self.0.word(index)
    }
}

impl RawFront {
    /// Makes a ring and publishes it in `folder`, with state 3, whatever the back says.
    ///
    /// # Panics
    /// If the simulated domain runs out of something.
    pub fn connect(domain: &Domain, folder: &str, back: DomainId, abi: Abi, order: u32) -> Self {
        let front = Self::prepare(domain, folder, back, abi, order);
        front.set_state(XenbusState::Initialised);
        front
    }

    /// Makes a ring and publishes it in `folder`, but says no state.
    ///
    /// # Panics
    /// If the simulated domain runs out of something, or the folder is not its own.
    pub fn prepare(domain: &Domain, folder: &str, back: DomainId, abi: Abi, order: u32) -> Self {
        let front = Self::lend(domain, folder, back, abi, (order, Index::new(0)));
        front.write_offer();
        front
    }

    /// Makes a ring whose indexes begin anywhere, and tells nobody.
    ///
    /// # Panics
    /// If the simulated domain runs out of something.
    pub fn lend(
        domain: &Domain,
        folder: &str,
        back: DomainId,
        abi: Abi,
        (order, start): (u32, Index),
    ) -> Self {
        let pages: Vec<OwnPage> = (0..1 << order).map(|_| domain.page().expect("page")).collect();
        let grant = |page| domain.grant(page, back, Access::Write).expect("a grant");
        let references: Vec<GrantRef> = pages.iter().map(grant).collect();
        let memory = Arc::new(Pages(pages));
        let ring = Front::starting_at(Shared(Arc::clone(&memory)), abi.layout(order), start);
        let port = domain.offer(back).expect("a port");
        let (domain, folder, buffers) = (domain.clone(), folder.to_owned(), Vec::new());
        Self { domain, folder, back, abi, memory, ring, port, references, buffers }
    }

    /// What a back is told of the ring.
    pub fn offer(&self) -> FrontOffer {
        FrontOffer {
            abi: self.abi,
            ring: self.references.iter().copied().collect(),
            port: self.port,
            features: Features::PERSISTENT,
        }
    }

    /// What it published, in its folder.
    fn write_offer(&self) {
        self.offer()
            .write(|key, value| self.write(key, &value.to_string()))
            .expect("its own nodes");
    }

    /// Publishes the same pages and port again, with a new ring in them and state 3, as a front
    /// does that comes back.
    ///
    /// # Panics
    /// If the folder is not its own.
    pub fn reconnect(&mut self) {
        let layout = self.abi.layout(self.references.len().max(1).ilog2());
        self.ring = Front::new(Shared(Arc::clone(&self.memory)), layout);
        self.write_offer();
        self.set_state(XenbusState::Initialised);
    }

    /// Writes a node of the front's folder.
    ///
    /// # Errors
    /// What xenstore says.
    pub fn write(&self, key: &str, value: &str) -> Result<(), xen::StoreError> {
        self.domain.write(Transaction::NONE, &format!("{}/{key}", self.folder), value)
    }

    /// Says a state.
    ///
    /// # Panics
    /// If the folder is not its own.
    pub fn set_state(&self, state: XenbusState) {
        self.write("state", &state.to_string()).expect("its own node");
    }

    /// One more page that the back may read and write.
    ///
    /// # Panics
    /// If the simulated domain runs out of something.
    pub fn buffer(&mut self) -> GrantRef {
        let page = self.domain.page().expect("a page");
        let reference = self.domain.grant(&page, self.back, Access::Write).expect("a grant");
        self.buffers.push((page, reference));
        reference
    }

    /// Takes a buffer's grant back, unless the back has it mapped. Its page goes to the caller.
    pub fn take_back(&mut self, reference: GrantRef) -> Option<OwnPage> {
        let at = self.buffers.iter().position(|buffer| buffer.1 == reference)?;
        self.domain.revoke(reference).ok()?;
        Some(self.buffers.swap_remove(at).0)
    }

    /// The page of a buffer.
    ///
    /// # Panics
    /// If it is none of its buffers.
    pub fn page(&self, reference: GrantRef) -> &OwnPage {
        &self.buffers.iter().find(|buffer| buffer.1 == reference).expect("its own buffer").0
    }

    /// Puts words into the ring, if there is room by its own count.
    pub fn put(&mut self, words: &[u32]) -> bool {
        self.ring.put(words).is_ok()
    }

    /// Makes what was put visible and raises an event, wanted or not.
    pub fn publish(&mut self) {
        let _ = self.ring.publish();
        self.domain.notify(self.port);
    }

    /// Overwrites a word anywhere in the ring and raises an event.
    pub fn poke(&self, word: usize, value: u32) {
        self.memory.word(word).store(value, Ordering::Release);
        self.domain.notify(self.port);
    }

    /// A word anywhere in the ring.
    pub fn peek(&self, word: usize) -> u32 {
        self.memory.word(word).load(Ordering::Acquire)
    }

    /// Raises an event for nothing.
    pub fn notify(&self) {
        self.domain.notify(self.port);
    }

    /// Words of the ring's memory.
    pub fn words(&self) -> usize {
        self.memory.words()
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`Broken`] if the back answers more than was asked.
    pub fn take(&mut self) -> Result<Option<Response>, Broken> {
        self.ring.take(Response::parse)
    }

    /// The grants of the ring's pages.
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }

    /// How many requests the ring holds.
    pub fn slots(&self) -> u32 {
        self.abi.layout(self.references.len().ilog2()).slots()
    }

    /// The layout it speaks.
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// Takes everything back, as a front does that closed: the back must have let go of all.
    ///
    /// # Panics
    /// If the back has something mapped still.
    pub fn disconnect(self) {
        self.domain.close(self.port);
        let own = self.buffers.iter().map(|buffer| buffer.1);
        for reference in self.references.into_iter().chain(own) {
            let revoked = self.domain.revoke(reference);
            assert_eq!(revoked, Ok(()), "the back has {reference} mapped still");
        }
    }
}
