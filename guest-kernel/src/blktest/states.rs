//! Nodes that make no sense, states in any order, and connections without end.

use alloc::format;
use core::time::Duration;

use xen::XenbusState;

use super::wire::Wire;
use super::{Outcome, Place, Trouble};
use crate::programs::Machine;

/// How long a back gets to connect to nonsense, or to say that it does not.
const WHILE: Duration = Duration::from_secs(2);
/// Connections one after the other.
const STORM: u32 = 24;
/// Sequences of states.
const SEQUENCES: u64 = 16;

/// A node, and what no front writes into it.
const SILLY: [(&str, Option<&str>); 14] = [
    ("ring-ref", None),
    ("ring-ref", Some("")),
    ("ring-ref", Some("x")),
    ("ring-ref", Some("-1")),
    ("ring-ref", Some("511")),
    ("ring-ref", Some("4294967295")),
    ("event-channel", None),
    ("event-channel", Some("0")),
    ("event-channel", Some("x")),
    ("event-channel", Some("4095")),
    ("event-channel", Some("4294967295")),
    ("protocol", Some("m68k-abi")),
    ("ring-page-order", Some("99")),
    ("multi-queue-num-queues", Some("4294967295")),
];

pub(super) fn silly<M: Machine>(machine: &M, place: &Place) -> Outcome {
    for (key, value) in SILLY {
        let wire = Wire::new(machine, place)?;
        wire.await_back()?;
        wire.publish_nodes()?;
        place.write(machine, key, value)?;
        place.say(machine, XenbusState::Initialised)?;
        let decided = [XenbusState::Connected, XenbusState::Closing, XenbusState::Closed];
        place.comes_to(machine, &decided, WHILE);
        let served = place.state(machine) == XenbusState::Connected;
        wire.close()?;
        if served {
            let value = value.unwrap_or("missing");
            return Err(Trouble::failure(format!("connected, with {key} {value:?}")));
        }
    }
    Ok(())
}

pub(super) fn any_order<M: Machine>(machine: &M, place: &Place) -> Outcome {
    for sequence in 0..SEQUENCES {
        let wire = Wire::new(machine, place)?;
        let mut rest = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..6 {
            place.write(machine, "state", Some(&format!("{}", rest % 9)))?;
            rest /= 9;
        }
        wire.close()?;
    }
    Ok(())
}

pub(super) fn reconnects<M: Machine>(machine: &M, place: &Place) -> Outcome {
    for _ in 0..STORM {
        Wire::open(machine, place)?.close()?;
    }
    Ok(())
}
