//! The kernel checks itself: what must hold before any program can be trusted with it.
//!
//! Run at every start as the initial domain (the smoke test), and by `selfcheck` in a guest.

use alloc::vec::Vec;
use core::hint::black_box;
use core::time::Duration;

use xen::abi::GRANT_ENTRIES_PER_FRAME;
use xen::{Access, DomainId, Events, Grants, Store, StoreError, Transaction};

use crate::arch;
use crate::events::Woken;
use crate::kernel::{Kernel, Status};

/// One check; the error is what does not hold.
type Check = fn(&Kernel) -> Result<(), &'static str>;

const CHECKS: &[(&str, Check)] = &[
    ("page rights", |_| arch::check_rights()),
    ("heap", heap),
    ("time", time),
    ("timer", timer),
    ("events", events),
    ("grants", grants),
    ("xenstore", xenstore),
];

/// Runs all checks and prints a line for each.
pub(crate) fn run(kernel: &Kernel) -> Status {
    let mut status = Status::OKAY;
    for (name, check) in CHECKS {
        match check(kernel) {
            Ok(()) => println!("check {name}: ok"),
            Err(what) => {
                println!("check {name}: FAILED: {what}");
                status = Status::FAILED;
            }
        }
    }
    status
}

fn ensure(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

/// Blocks of many sizes keep what was written to them, and their memory is used again.
fn heap(kernel: &Kernel) -> Result<(), &'static str> {
    let fill = || {
        let size = |index: u8| usize::from(index) * 97 % 2000;
        let blocks: Vec<Vec<u8>> = (0..100).map(|index| alloc::vec![index; size(index)]).collect();
        let kept = blocks.iter().zip(0..).all(|(block, index)| block.iter().all(|&b| b == index));
        ensure(kept, "a block changed")
    };
    fill()?;
    let before = kernel.memory().free_kib;
    (0..50).try_for_each(|_| fill())?;
    ensure(kernel.memory().free_kib == before, "freed memory is not used again")
}

/// Time does not go back. It may stand still for some milliseconds, when Xen moves us to a
/// processor whose clock is behind.
fn time(kernel: &Kernel) -> Result<(), &'static str> {
    let start = kernel.now();
    let mut last = start;
    for round in 0..10_000_000 {
        let now = kernel.now();
        ensure(now >= last, "time went back")?;
        last = now;
        if round >= 1000 && last > start {
            return Ok(());
        }
    }
    Err("time stands still")
}

/// Many short waits all end, none of them early.
fn timer(kernel: &Kernel) -> Result<(), &'static str> {
    for round in 0..100 {
        let delay = Duration::from_micros(100 + 37 * round);
        let until = kernel.now().after(delay);
        while kernel.wait(Some(until)) == Woken::Event {}
        ensure(kernel.now() >= until, "a wait ended early")?;
    }
    Ok(())
}

/// An event channel to ourselves carries events, before and while we wait.
fn events(kernel: &Kernel) -> Result<(), &'static str> {
    let channels = kernel.events();
    let offered = channels.offer(DomainId::SELF).map_err(|_| "no port")?;
    let bound = channels.bind(DomainId::SELF, offered).map_err(|_| "no bound port")?;
    let late = |kernel: &Kernel| Some(kernel.now().after(Duration::from_secs(1)));
    // Binding raises one event.
    channels.arrived(bound);
    for (from, to) in [(offered, bound), (bound, offered), (offered, bound)] {
        channels.notify(from);
        ensure(channels.wait_for(to, late(kernel)) == Woken::Event, "an event was lost")?;
        ensure(!channels.arrived(to), "an event came twice")?;
    }
    channels.notify(bound);
    ensure(channels.wait_for(bound, late(kernel)) == Woken::Deadline, "a wrong port")?;
    let mut noted = Vec::new();
    let woken = channels.wait_noting(late(kernel), |port| noted.push(port));
    ensure(woken == Woken::Event, "an event was slept through")?;
    ensure(noted.contains(&offered) && !noted.contains(&bound), "a wrong port was noted")?;
    channels.close(bound);
    channels.close(offered);
    Ok(())
}

/// Grants are given and taken back, beyond the first frame of the table.
fn grants(kernel: &Kernel) -> Result<(), &'static str> {
    let table = kernel.grants();
    let page = table.page().ok_or("no page")?;
    let before = table.figures().free;
    let count = before.max(GRANT_ENTRIES_PER_FRAME as usize) + 1;
    let mut references = Vec::new();
    for _ in 0..count {
        let reference = table.grant(&page, DomainId::ZERO, Access::Read);
        references.push(reference.map_err(|_| "the table does not grow")?);
    }
    references.sort();
    ensure(references.windows(2).all(|pair| pair[0] != pair[1]), "a reference was given twice")?;
    for reference in references {
        table.revoke(reference).map_err(|_| "a page that nobody mapped is in use")?;
    }
    ensure(table.figures().free >= count, "a reference was lost")
}

/// What is written in a transaction is read back; what is dropped is not there.
fn xenstore(kernel: &Kernel) -> Result<(), &'static str> {
    let Some(store) = kernel.store() else { return Ok(()) };
    let text = |error: StoreError| {
        println!("xenstore: {error}");
        "a request failed"
    };
    let (none, path) = (Transaction::NONE, "data/selfcheck");
    let domain = store.read(none, "domid").map_err(text)?;
    ensure(domain.is_some(), "our own number is not there")?;
    store.transact(|within| store.write(within, path, "here")).map_err(text)?;
    let value = store.read(none, path).map_err(text)?;
    ensure(value.as_deref() == Some("here"), "a node that was written is not there")?;
    let dropped = store.begin().map_err(text)?;
    store.remove(dropped, path).map_err(text)?;
    store.end(dropped, false).map_err(text)?;
    ensure(store.read(none, path).map_err(text)?.is_some(), "a dropped change was made")?;
    store.remove(none, path).map_err(text)?;
    ensure(store.read(none, path).map_err(text)?.is_none(), "a removed node is there")
}

/// Uses up the stack: Xen finds no room to report the fault and crashes the domain.
#[expect(unconditional_recursion, reason = "that is what it is for")]
pub(crate) fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    overflow(depth + 1) + frame[0]
}
