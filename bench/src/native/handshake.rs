//! How both ends come to know each other: what either says on Xen, in a xenstore of the simulator's.
//!
//! It is over before anything is measured. Must never agree on anything by itself: the front's device
//! and the protocol's own functions do.

use std::fmt;
use std::sync::Arc;

use blkback::{Bell, Link, Past, RingPages};
use blkfront::{Device, Wishes};
use blkif::{Abi, BackOffer, Discard, Features, FrontOffer, Geometry, INDIRECT_MAX, ORDER_MAX};
use ring::Page;
use sim::{Domain, Sim};
use xen::{Access, DomainId, Maps, Port, Store, Transaction};

use super::seam::{Line, Pages};

const BACK: DomainId = DomainId(0);
const FRONT: DomainId = DomainId(5);
const FRONT_FOLDER: &str = "/local/domain/5/device/vbd/51712";
const BACK_FOLDER: &str = "/local/domain/0/backend/pvblk/5/51712";

/// What the back needs of it.
pub(super) type BackLink = Link<RingPages<Arc<Page>>>;

/// A connected front, whose events ring `event`, and the back's end. The ring and the pool are just
/// large enough for `depth` requests of a page.
pub(super) fn connected(
    pages: &Pages,
    event: &Bell,
    sectors: u64,
    depth: u32,
) -> (Device<Pages, Line>, BackLink) {
    let sim = Sim::new(1);
    let (dom0, guest) = (sim.domain(BACK), sim.domain(FRONT));
    attach(&dom0);
    let say = |key: &str, value: fmt::Arguments<'_>| {
        write(&dom0, &format!("{BACK_FOLDER}/{key}"), &value.to_string());
        Ok::<(), ()>(())
    };
    let features = Features::PERSISTENT;
    let (max_order, indirect_max) = (ORDER_MAX, INDIRECT_MAX);
    let discard = Discard::default();
    let offer = BackOffer { max_order, indirect_max, features, discard };
    let order = depth.div_ceil(32).next_power_of_two().ilog2();
    let wishes = Wishes { order, pool_pages: depth as usize };
    let ends = (pages.clone(), Line(event.clone()));
    let mut device = Device::open(&guest, FRONT_FOLDER, ends, wishes).expect("it was attached");
    let written = offer.write_limits(say).and_then(|()| say("state", format_args!("2")));
    written.expect("no limits in the way");
    device.turn(&guest).expect("it offers a ring");
    let told = |key: &str| {
        dom0.read(Transaction::NONE, &format!("{FRONT_FOLDER}/{key}")).expect("domain 0 may")
    };
    let front = FrontOffer::read(told, ORDER_MAX, Abi::X86_64).expect("an honest front");
    let agreed = blkif::negotiate(&front, &offer).expect("a ring as was offered");
    let geometry = Geometry::new(sectors).expect("a file is no larger than a disk");
    let written = offer.write_features(say).and_then(|()| geometry.write(say));
    written.and_then(|()| say("state", format_args!("4"))).expect("no limits in the way");
    device.turn(&guest).expect("it connects");
    let ring = RingPages(pages.map(FRONT, &front.ring, Access::Write).expect("it was granted"));
    let link = Link { peer: FRONT, ring, port: Port(1), agreed, geometry, past: Past::default() };
    (device, link)
}

/// What a tool stack writes.
fn attach(dom0: &Domain) {
    for (folder, owner, reader) in [(FRONT_FOLDER, FRONT, BACK), (BACK_FOLDER, BACK, FRONT)] {
        write(dom0, folder, "");
        dom0.permit(Transaction::NONE, folder, owner, reader).expect("domain 0 may");
    }
    for (key, value) in [("backend", BACK_FOLDER), ("backend-id", "0"), ("state", "1")] {
        write(dom0, &format!("{FRONT_FOLDER}/{key}"), value);
    }
}

fn write(domain: &Domain, path: &str, value: &str) {
    domain.write(Transaction::NONE, path, value).expect("domain 0 may");
}
