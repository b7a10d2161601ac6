//! One connected disk: takes requests off the ring, has them done, answers.
//!
//! One [`Session::turn`] goes down once and comes up once: every visible request is taken and
//! checked, the batch's pages are found, the disk gets it in one submission, what has completed is
//! answered, made visible once and notified at most once. Order of arrival, no waiting for company:
//! neighbours merge only if they arrived together. It must never believe a front twice, answer
//! twice, or answer while it still uses the memory.

mod cache;
mod counters;
mod down;
mod flushes;
mod pages;
mod pending;
mod queue;
#[cfg(test)]
mod tests;
mod up;

use blkif::{Agreed, Geometry, Request, Response};
use ring::{Broken, Memory, Rest};
use xen::{DomainId, Events, Maps, Port};

use crate::disk::{Disk, Done, Job};
use flushes::Flushes;
use pages::{Fetched, Pages};
use pending::Table;

pub use counters::{Counters, Fault, Past};
pub use pages::Buffer;
pub use queue::{Lent, Queue, RingPages};

/// A job has at most this many extents: 1 MiB of whole pages.
pub const MERGED_EXTENTS_MAX: usize = 256;

/// No more requests are taken while those in flight have so many pages: 22 MiB, what the largest ring
/// holds of direct requests.
pub const PAGES_IN_FLIGHT_MAX: usize = 512 * blkif::DIRECT_SEGMENTS_MAX;

/// What a turn left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// More requests have come: take another turn.
    Again,
    /// Nothing to take: sleep until the event channel or the disk wakes us.
    Idle,
}

/// For how long requests are taken off the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    Always,
    OnceMore,
    Never,
}

/// What both sides settled before a session begins.
#[derive(Debug)]
pub struct Link<R> {
    /// The guest.
    pub peer: DomainId,
    /// The ring's memory: its pages, mapped.
    pub ring: R,
    /// Our end of the event channel.
    pub port: Port,
    /// What was agreed on.
    pub agreed: Agreed,
    /// The disk, as published.
    pub geometry: Geometry,
    /// What former sessions on this disk have left.
    pub past: Past,
}

/// One connected disk.
pub struct Session<M: Maps, D, E: Events, Q = Lent<RingPages<<M as Maps>::Page>>> {
    // First: a disk may work on the pages below until it is dropped.
    disk: D,
    events: E,
    port: Port,
    agreed: Agreed,
    geometry: Geometry,
    pages: Pages<M>,
    table: Table<Buffer<M::Page>>,
    /// Of the requests in flight, together.
    pages_in_flight: usize,
    flushes: Flushes,
    /// One flush at a time: the kernel tells a failure to one of two.
    flushing: bool,
    past: Past,
    taking: Taking,
    batch: Vec<Request>,
    fetched: Vec<Fetched<M::Page>>,
    jobs: Vec<Job<Buffer<M::Page>>>,
    finished: Vec<Done<Buffer<M::Page>>>,
    responses: Vec<Response>,
    counters: Counters,
    ring: Q,
}

impl<M: Maps, D: Disk<Buffer<M::Page>>, E: Events, R: Memory> Session<M, D, E, Lent<R>> {
    /// Joins the front's ring.
    ///
    /// # Panics
    /// If `link.ring` is smaller than `link.agreed` says.
    pub fn new(maps: M, events: E, disk: D, link: Link<R>) -> Self {
        Self::wrapped(maps, events, disk, link, |ring| ring)
    }
}

impl<M: Maps, D: Disk<Buffer<M::Page>>, E: Events, Q: Queue> Session<M, D, E, Q> {
    /// Joins the front's ring, and works on what `wrap` makes of it.
    ///
    /// # Panics
    /// As [`new`](Session::new).
    pub fn wrapped<R: Memory>(
        maps: M,
        events: E,
        disk: D,
        link: Link<R>,
        wrap: impl FnOnce(Lent<R>) -> Q,
    ) -> Self {
        Self {
            disk,
            events,
            port: link.port,
            agreed: link.agreed,
            geometry: link.geometry,
            pages: Pages::new(maps, link.peer, &link.agreed),
            table: Table::new(),
            pages_in_flight: 0,
            flushes: Flushes::default(),
            flushing: false,
            past: link.past,
            taking: Taking::Always,
            batch: Vec::new(),
            fetched: Vec::new(),
            jobs: Vec::new(),
            finished: Vec::new(),
            responses: Vec::new(),
            counters: Counters::default(),
            ring: wrap(Lent::join(link.ring, &link.agreed)),
        }
    }

    /// Does all that can be done without waiting; at most a ring full of requests, or as many as have
    /// [`PAGES_IN_FLIGHT_MAX`] pages.
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
        // What may be on the ring waits for those in flight, and the disk wakes us.
        if self.taking == Taking::Never || self.is_full() {
            return Ok(Turn::Idle);
        }
        Ok(match self.ring.rest()? {
            Rest::Work => Turn::Again,
            Rest::Idle => Turn::Idle,
        })
    }

    /// Whether nothing is taken before a request has ended.
    fn is_full(&self) -> bool {
        self.pages_in_flight >= PAGES_IN_FLIGHT_MAX
    }

    /// Takes with the next turn what is visible then, and nothing after that. A front that closes
    /// has sent its last requests, and waits for their answers.
    pub fn stop_taking(&mut self) {
        if self.taking == Taking::Always {
            self.taking = Taking::OnceMore;
        }
    }

    /// The disk has so many sectors from now on, for requests that are taken from now on. It does not
    /// become smaller: its front counts on what it was told.
    pub fn grow(&mut self, sectors: u64) {
        self.geometry.sectors = self.geometry.sectors.max(sectors);
        self.ring.grown(self.geometry.sectors);
    }

    /// How many requests were taken and not yet answered.
    pub fn pending(&self) -> usize {
        self.table.len()
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is left to the next session on this disk.
    pub const fn past(&self) -> Past {
        self.past
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
}

impl<M: Maps, D, E: Events, Q> Drop for Session<M, D, E, Q> {
    /// Leaves the ring: nobody waits for answers any more. The disk waits for its jobs, then pages
    /// are unmapped.
    fn drop(&mut self) {
        self.table.abandon();
        self.events.close(self.port);
    }
}
