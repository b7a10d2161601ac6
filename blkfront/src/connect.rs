//! The handshake with the back: from where we are and what xenstore says of the back to what is
//! to be done next. A pure function without memory; [`Device`](crate::Device) carries its answer
//! out and asks again until the answer is to wait.
//!
//! It goes by the back's state as it is now, never by what has changed: states may be skipped, and
//! watches fire for nothing. The order of a close follows Linux's back, which lets go of the
//! pages only once we have said 6: we say 5, wait until the back knows and nothing is in flight,
//! say 6, and take the pages back when the back has said 6 too.

use blkif::{Agreed, BackOffer, FrontOffer, Geometry, Refusal, negotiate};
use xen::XenbusState;

/// Where we are, with what is needed to go on from there.
#[derive(Clone, Copy, Debug)]
pub enum Phase<'a> {
    /// Nothing done (we say 1).
    Initialising,
    /// Our ring is published (we say 3).
    Initialised {
        /// What we published.
        offer: &'a FrontOffer,
        /// Whether our directory says 3 still. If not, the tool stack has taken it away and made a
        /// new one, which knows nothing of our ring.
        published: bool,
    },
    /// In service with this geometry (we say 4).
    Connected(&'a Geometry),
    /// No new requests (we say 5).
    Closing {
        /// Whether every request has been answered, or none will be any more.
        idle: bool,
        /// Whether there are answers that nobody has taken yet.
        unread: bool,
        /// Whether the back has read our offer or can still do so, and never said that it is
        /// connected: it may have the ring without our knowing.
        offered: bool,
    },
    /// Done (we say 6).
    Closed {
        /// Whether ring and pages are still lent.
        lent: bool,
        /// Whether the close was the back's doing, so that a new back finds us ready.
        again: bool,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the back's nodes change.
    Wait,
    /// Make a ring of up to `2^max_order` pages, publish it and say 3.
    Offer {
        /// The largest order that the back takes, at most 4.
        max_order: u32,
    },
    /// Make a disk of it and say 4.
    Connect {
        /// What both sides do.
        agreed: Agreed,
        /// The disk.
        geometry: Geometry,
    },
    /// The disk has another size now.
    Resize(Geometry),
    /// Take no new requests and say 5.
    Stop,
    /// Say 6.
    Close,
    /// Take ring and pages back.
    Release,
    /// The back is a new one, or the directory is: give up everything of the former connection and say 1.
    Restart,
    /// What the back says makes no sense: report it, take no requests and say 5.
    Refuse(Refusal),
}

/// The next step, from our phase, the back's state and its nodes.
pub fn step<S: AsRef<str>>(
    phase: Phase<'_>,
    back: XenbusState,
    mut node: impl FnMut(&str) -> Option<S>,
) -> Step {
    use XenbusState as Back;
    let step = match (phase, back) {
        // A back that skipped 2 published its limits all the same.
        (Phase::Initialising, Back::InitWait | Back::Initialised | Back::Connected) => {
            BackOffer::read_max_order(node).map(|max_order| Step::Offer { max_order })
        }
        (Phase::Initialising, Back::Closing) => Ok(Step::Close),
        (Phase::Initialised { published: false, .. }, Back::InitWait | Back::Initialising) => {
            Ok(Step::Restart)
        }
        (Phase::Initialised { offer, .. }, Back::Connected) => connected(offer, &mut node),
        (Phase::Connected(known), Back::Connected) => resized(known, node),
        (Phase::Connected(_), Back::InitWait | Back::Initialising) => Ok(Step::Restart),
        (
            Phase::Initialised { .. } | Phase::Connected(_),
            Back::Closing | Back::Closed | Back::Unknown,
        ) => Ok(Step::Stop),
        (Phase::Closing { idle: true, .. }, Back::Closing) => Ok(Step::Close),
        // It will say 5 when it sees ours, and then it has let go of the ring.
        (Phase::Closing { offered: true, .. }, Back::InitWait | Back::Initialising) => {
            Ok(Step::Wait)
        }
        // Nobody is there to answer what is in flight, beyond what was answered.
        (
            Phase::Closing { unread: false, .. },
            Back::Closed | Back::Unknown | Back::InitWait | Back::Initialising,
        ) => Ok(Step::Close),
        (Phase::Closed { again: true, .. }, Back::InitWait) => Ok(Step::Restart),
        (
            Phase::Closed { lent: true, .. },
            Back::Closed | Back::Unknown | Back::InitWait | Back::Initialising,
        ) => Ok(Step::Release),
        _ => Ok(Step::Wait),
    };
    step.unwrap_or_else(Step::Refuse)
}

fn connected<S: AsRef<str>>(
    offer: &FrontOffer,
    mut node: impl FnMut(&str) -> Option<S>,
) -> Result<Step, Refusal> {
    let agreed = negotiate(offer, &BackOffer::read(&mut node)?)?;
    Ok(Step::Connect { agreed, geometry: Geometry::read(node)? })
}

/// A back that repeats its 4 may have resized the disk; nothing else may change with it.
fn resized<S: AsRef<str>>(
    known: &Geometry,
    node: impl FnMut(&str) -> Option<S>,
) -> Result<Step, Refusal> {
    let now = Geometry { sectors: Geometry::read(node)?.sectors, ..*known };
    Ok(if now == *known { Step::Wait } else { Step::Resize(now) })
}

#[cfg(test)]
mod tests;
