//! Pages of a guest whose peer acts between every two accesses to them.
//!
//! Every access to a shared page goes through the handle's `Deref`, and that is where the peer
//! strikes: between any two words that the front fetches it may have written any of them. Pages
//! that the peer does not let go of are kept in mind, to be missed if they are used again; a front
//! never frees them, so their memory belongs to an arena that goes with the connection.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::ptr;

use ring::sync::Ordering;
use ring::{Memory, Page};
use sim::Random;
use typed_arena::Arena;
use xen::{Access, DomainId, Events, GrantError, GrantRef, Grants, NoPort, Port, StillMapped};

use crate::torture::counter::RSP_PROD;

/// What the guest has granted, and what its peer does.
pub(super) struct Peer<'a> {
    pages: &'a Arena<Page>,
    granted: RefCell<BTreeMap<u32, &'a Page>>,
    next: Cell<u32>,
    /// Pages that are not free.
    pub(super) out: Cell<usize>,
    /// Ports that are open.
    pub(super) ports: Cell<usize>,
    /// References that the peer does not let go of.
    pub(super) stuck: Cell<bool>,
    /// How many that were.
    pub(super) kept: Cell<usize>,
    /// The page that is written between two accesses, from this word on so many.
    pub(super) target: RefCell<Option<(&'a Page, usize, usize)>>,
    random: RefCell<Random>,
    /// Accesses so far.
    pub(super) accesses: Cell<u64>,
}

/// A handle of the guest.
#[derive(Clone, Copy)]
pub(super) struct Lender<'a>(pub(super) &'a Peer<'a>);

/// A page of the guest.
pub(super) struct LentPage<'a> {
    page: &'a Page,
    peer: &'a Peer<'a>,
}

impl<'a> Peer<'a> {
    pub(super) fn new(seed: u64, pages: &'a Arena<Page>) -> Self {
        Self {
            pages,
            granted: RefCell::default(),
            next: Cell::new(8),
            out: Cell::new(0),
            ports: Cell::new(0),
            stuck: Cell::new(false),
            kept: Cell::new(0),
            target: RefCell::default(),
            random: RefCell::new(Random::new(seed)),
            accesses: Cell::new(0),
        }
    }
}

impl<'a> Lender<'a> {
    /// The page behind a grant, as the peer has it.
    pub(super) fn granted(&self, reference: GrantRef) -> Option<&'a Page> {
        self.0.granted.borrow().get(&reference.0).copied()
    }

    /// How many grants stand.
    pub(super) fn grants(&self) -> usize {
        self.0.granted.borrow().len()
    }
}

impl Deref for LentPage<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        let peer = &self.peer;
        peer.accesses.set(peer.accesses.get() + 1);
        if let Some((page, first, words)) = &*peer.target.borrow() {
            let mut random = peer.random.borrow_mut();
            let (word, value) = (first + random.below(*words), random.word());
            page.word(word).store(value, Ordering::Relaxed);
            if random.below(2000) == 0 {
                page.word(RSP_PROD).store(random.word(), Ordering::Relaxed);
            }
        }
        self.page
    }
}

impl Drop for LentPage<'_> {
    fn drop(&mut self) {
        self.peer.out.set(self.peer.out.get() - 1);
        let granted = self.peer.granted.borrow();
        let granted = granted.values().any(|&page| ptr::eq(page, self.page));
        assert!(!granted || std::thread::panicking(), "a page was freed while it was granted");
    }
}

impl<'a> Grants for Lender<'a> {
    type Page = LentPage<'a>;

    fn page(&self) -> Option<LentPage<'a>> {
        self.0.out.set(self.0.out.get() + 1);
        Some(LentPage { page: self.0.pages.alloc(Page::new()), peer: self.0 })
    }

    fn grant(&self, page: &LentPage<'a>, _: DomainId, _: Access) -> Result<GrantRef, GrantError> {
        let reference = self.0.next.get();
        self.0.next.set(reference + 1);
        self.0.granted.borrow_mut().insert(reference, page.page);
        Ok(GrantRef(reference))
    }

    /// # Panics
    /// If there is no such grant.
    fn revoke(&self, reference: GrantRef) -> Result<(), StillMapped> {
        if self.0.stuck.get() && self.0.random.borrow_mut().below(2) == 0 {
            self.0.kept.set(self.0.kept.get() + 1);
            return Err(StillMapped);
        }
        let gone = self.0.granted.borrow_mut().remove(&reference.0);
        assert!(gone.is_some(), "{reference} was revoked twice");
        Ok(())
    }
}

impl Events for Lender<'_> {
    fn offer(&self, _: DomainId) -> Result<Port, NoPort> {
        self.0.ports.set(self.0.ports.get() + 1);
        Ok(Port(7))
    }

    fn bind(&self, _: DomainId, _: Port) -> Result<Port, NoPort> {
        Err(NoPort)
    }

    fn notify(&self, _: Port) {}

    fn close(&self, _: Port) {
        self.0.ports.set(self.0.ports.get() - 1);
    }
}
