//! Inputs that are made, not found: what real guests asked for, out of the traces in `tests/traces`.
//!
//! An input is written choice by choice, as `Choices` takes them; the generators of the targets
//! `request` and `back` are read beside this.

use std::collections::BTreeSet;
use std::path::Path;

use blkback::trace::Record;
use blkif::{Abi, Raw};
use xen::GrantRef;

use super::corpus::Input;
use crate::replay::{Connection, connections, words};
use crate::torture::wild::SLOT_WORDS;

/// Requests of a trace that become inputs of `request`, at most: no two of the same shape.
const SHAPES_MAX: usize = 48;
/// Events of a trace in an input of `back`, and inputs of a trace, at most.
const EVENTS_MAX: usize = 60;
const PARTS_MAX: usize = 16;

/// Stands for the page of descriptors, of which the target has one.
const DESCRIPTORS: GrantRef = GrantRef(u32::MAX);

/// The traces that are kept, by name.
///
/// # Panics
/// If one cannot be read.
pub fn traces() -> Vec<Input> {
    super::corpus::inputs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("traces"))
}

/// The inputs for a target that are made from the traces.
///
/// # Panics
/// If a trace is damaged.
pub fn seeds(target: &str) -> Vec<Input> {
    let make: fn(&Connection) -> Vec<Vec<u8>> = match target {
        "request" => requests,
        "back" => services,
        _ => return Vec::new(),
    };
    let mut seeds = Vec::new();
    for (name, bytes) in traces() {
        let made = connections(&bytes).expect("a whole trace").iter().flat_map(make).collect();
        let made: Vec<Vec<u8>> = made;
        seeds.extend((0..).zip(made).map(|(at, bytes): (u32, _)| (format!("{name}-{at}"), bytes)));
    }
    seeds
}

/// The bytes of a slot that holds this request.
fn slot(raw: &Raw, abi: Abi, reference: impl Fn(GrantRef) -> GrantRef) -> Vec<u8> {
    let mut words = words(raw, abi, reference);
    words.resize(SLOT_WORDS, 0);
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// One request each, on a disk of 1024 sectors that does everything.
fn requests(connection: &Connection) -> Vec<Vec<u8>> {
    let abi = connection.begin.agreed.abi;
    let mut shapes = BTreeSet::new();
    let mut found = Vec::new();
    for event in &connection.events {
        let Record::Take(_, raw) = event else { continue };
        let ends: Vec<_> =
            raw.segments.iter().map(|it| (it.first_sector, it.last_sector)).collect();
        if found.len() < SHAPES_MAX && shapes.insert((raw.operation, raw.count, ends)) {
            let raw = Raw { sector: raw.sector % 512, ..raw.clone() };
            // The disk: 1024 sectors, units of one, the layout, writable, flushes and discards, and
            // indirect requests of 32 segments if it is one.
            let indirect = if raw.indirect.is_some() { 1 << 28 | 3 << 32 } else { 0 };
            let layout = u64::from(abi == Abi::X86_64) << 2;
            let disk = 0b11 | layout | 1 << 16 | 1 << 20 | 1 << 24 | indirect;
            let mut input = disk.to_le_bytes().to_vec();
            // An edge that does not matter; where segments come from that are not in the slot; a slot
            // that is not lawful by its making, not just mutated, but rubbish: its words as they are.
            input.push(0);
            input.extend(raw.indirect.map(|_| 1));
            input.extend([3, 1, 15]);
            input.extend(slot(&raw, abi, |it| it));
            found.push(input);
        }
    }
    found
}

/// Batches as they came, on the disk and with the pages of the target.
fn services(connection: &Connection) -> Vec<Vec<u8>> {
    let abi = connection.begin.agreed.abi;
    // The first is the ring's page, the second that of descriptors, and then there are six for data.
    let reference = |it: GrantRef| match it {
        DESCRIPTORS => GrantRef(9),
        GrantRef(number) => GrantRef(10 + number % 6),
    };
    let (narrow, copied) =
        (u8::from(abi == Abi::X86_32), u8::from(!connection.begin.agreed.persistent()));
    let parts = connection.events.chunks(EVENTS_MAX).take(PARTS_MAX);
    parts
        .map(|events| {
            // Layout, order, where the index begins, size of sectors, writable, flushes, discards,
            // indirect requests, whether grants are kept, no lies, where their segments come from,
            // seed.
            let mut input = vec![narrow, 0, 0, 0, 0, 0, 0, 1, copied, 0, 1, 1];
            for event in events {
                match event {
                    Record::Take(_, raw) => {
                        let mut raw = Raw { sector: raw.sector % 40, ..raw.clone() };
                        if let Some(indirect) = &mut raw.indirect {
                            indirect.descriptors = DESCRIPTORS;
                        }
                        input.push(14);
                        input.extend(slot(&raw, abi, reference));
                    }
                    Record::Publish(..) => input.push(24),
                    Record::Rest(..) => input.extend([16, 19]),
                    _ => {}
                }
            }
            input
        })
        .collect()
}
