//! A back's session on a front's ring, without a control plane between them.

use blkback::{Buffer, Link, Past, RingPages, Session};
use blkif::{Agreed, Geometry};
use sim::{Domain, MappedPage, Sim};
use xen::{Access, DomainId, Events, Maps};

use crate::{Platter, RawFront, SeededDisk};

/// The production session on simulated everything.
pub type Service = Session<Domain, SeededDisk<Buffer<MappedPage>>, Domain>;

/// Domain 0, joined to the ring that the guest `peer` lends.
///
/// # Panics
/// If the ring cannot be joined.
pub fn join(
    sim: &Sim,
    (peer, front): (DomainId, &RawFront),
    (agreed, geometry): (Agreed, Geometry),
) -> (Domain, Link<RingPages<MappedPage>>) {
    let server = sim.domain(DomainId::ZERO);
    let offer = front.offer();
    let pages = server.map(peer, &offer.ring, Access::Write).expect("lent");
    let port = server.bind(peer, offer.port).expect("offered");
    let (ring, past) = (RingPages::new(pages), Past::default());
    (server, Link { peer, ring, port, agreed, geometry, past })
}

/// Domain 0 serves the ring that the guest `peer` lends. The order of completions comes from `seed`.
///
/// # Panics
/// As [`join`].
pub fn serve(
    sim: &Sim,
    guest: (DomainId, &RawFront),
    (platter, seed): (&Platter, u64),
    settled: (Agreed, Geometry),
) -> Service {
    let (server, link) = join(sim, guest, settled);
    Session::new(server.clone(), server, SeededDisk::new(platter, sim.clock(), seed), link)
}
