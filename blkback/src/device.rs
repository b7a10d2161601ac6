//! The process of one device: joins the guest's ring, gives up all rights, serves, tells how it
//! ended.
//!
//! It opens nothing: its descriptors come with its first order, and before the first look at the
//! ring it is confined to what serving takes ([`confine`](crate::confine)). It sleeps in one place,
//! its `io_uring`. One wake-up by the front costs a read of the event channel, at most one
//! notification, one unmask and one `io_uring_enter`. It must never outlive the daemon, which
//! knows what it does.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use xen::{Access, Events, Maps, Port};

use crate::crew::Connect;
use crate::orders::{Begin, Last, Line, Order, Received, Told};
use crate::session::{Buffer, Link, Queue, RingPages, Session, Turn};
use crate::sys::{Channels, GrantDevice, MappedPage, Patience, UringDisk, Woken};
use crate::trace::{Pen, Tape};
use crate::{Image, confine};

/// So many events in a row may come without a request before the next ones are made to wait. An
/// honest front sends now and then one whose request was seen already.
const EMPTY_EVENTS_MAX: u32 = 64;
/// How long each of them waits.
const STORM_PAUSE: Duration = Duration::from_millis(1);

/// What is said of orders that ours does not give.
const OTHER_VERSION: &str = "the daemon is of another version";

/// A session on the device nodes of Dom0.
type Served<Q> = Session<GrantDevice, UringDisk<Buffer<MappedPage>>, Channels, Q>;

/// Serves one connection of the device of this name, with orders from `line`.
///
/// # Errors
/// What keeps it from being confined, or from talking to the daemon: it serves nobody then.
pub fn serve_device(name: &str, line: OwnedFd) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Those who end the daemon may send them to all of its processes; it ends its devices in order.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let line = Line::new(line);
    confine::device()?;
    let (begin, with) = loop {
        match line.wait()? {
            Received::Message(message, with) => match Order::read(&message, &with) {
                Some(Order::Stop) => return Ok(()),
                _ => break (Begin::read(&message), with),
            },
            Received::Nothing => {}
            // Never needed.
            Received::Closed => return Ok(()),
        }
    };
    let of_another_version = || std::io::Error::other(OTHER_VERSION);
    let begin = begin.ok_or_else(of_another_version)?;
    let mut with = with.into_iter();
    let (Some(image), Some(channels), Some(grants)) = (with.next(), with.next(), with.next())
    else {
        return Err(of_another_version());
    };
    let tape = match (begin.traced, with.next()) {
        (None, None) => None,
        (Some(connection), Some(file)) => Some((connection, file)),
        _ => return Err(of_another_version()),
    };
    let last = match join(begin, [image, channels, grants], &line) {
        Ok(joined) => {
            confine::to_serving()?;
            line.send(&Told::Connected.message(), &[])?;
            let Joined { grants, channels, disk, link } = joined;
            match tape {
                None => serve(Session::new(grants, channels, disk, link), &line),
                // The same on what writes down all that passes through the ring.
                Some((connection, file)) => {
                    let tape = Tape::new(Pen::new(file, connection), name, &link);
                    let wrap = |ring| tape.around(ring);
                    serve(Session::wrapped(grants, channels, disk, link, wrap), &line)
                }
            }
        }
        Err(reason) => Last::Unconnected(reason),
    };
    line.send(&Told::Last(last).message(), &[])
}

/// What a session is made of.
struct Joined {
    grants: GrantDevice,
    channels: Channels,
    disk: UringDisk<Buffer<MappedPage>>,
    link: Link<RingPages<MappedPage>>,
}

/// Maps the front's ring and binds its event channel.
fn join(begin: Begin, with: [OwnedFd; 3], line: &Line) -> Result<Joined, String> {
    let Begin { connect, profile, past, traced: _ } = begin;
    let Connect { peer, ring, port, agreed, geometry } = connect;
    let [image, channels, grants] = with;
    let (channels, grants) = (Channels::from(channels), GrantDevice::from(grants));
    let pages = grants
        .map(peer, &ring, Access::Write)
        .map_err(|error| format!("the ring cannot be mapped: {error}"))?;
    let offered = port;
    let port = channels.bind(peer, offered).map_err(|error| format!("port {offered}: {error}"))?;
    if let Some(page) = pages.first()
        && let Err(error) = grants.notify_on_unmap(page, port)
    {
        log::debug!("the guest will not be woken if this process is killed: {error}");
    }
    let slots = agreed.abi.layout(agreed.order).slots();
    let image = Arc::new(Image::inherit(image, profile));
    let mut disk = UringDisk::new(image, slots).map_err(|error| format!("io_uring: {error}"))?;
    disk.listen(&channels, line);
    let link = Link { peer, ring: RingPages(pages), port, agreed, geometry, past };
    Ok(Joined { grants, channels, disk, link })
}

/// Serves until ordered to stop or the ring breaks.
fn serve<Q: Queue>(mut session: Served<Q>, line: &Line) -> Last {
    let broken = work(&mut session, line).err();
    let past = session.past();
    log::info!("{} enters={}", session.counters(), session.disk().enters());
    Last::Ended { past, broken }
}

/// Notices a front that sends events and no requests (XSA-332, XSA-391).
#[derive(Debug, Default)]
struct Storm {
    requests: u64,
    empty_events: u32,
}

impl Storm {
    /// To be told, after each event, of the requests so far; tells whether to slow down.
    fn is_on(&mut self, requests: u64) -> bool {
        if requests == self.requests {
            self.empty_events = self.empty_events.saturating_add(1);
        } else {
            self.empty_events = 0;
        }
        self.requests = requests;
        self.empty_events > EMPTY_EVENTS_MAX
    }
}

/// Works until told to end; an error says why the ring had to be given up.
fn work<Q: Queue>(session: &mut Served<Q>, line: &Line) -> Result<(), String> {
    let mut masked: Vec<Port> = Vec::new();
    let mut storm = Storm::default();
    let mut ending = false;
    loop {
        let turn = session.turn().map_err(|broken| broken.to_string())?;
        if session.events().is_mute() {
            return Err("the guest cannot be woken".into());
        }
        if ending && turn == Turn::Idle && session.pending() == 0 {
            return Ok(());
        }
        let patience = match turn {
            Turn::Again => Patience::None,
            Turn::Idle => Patience::UntilWoken,
        };
        // Only now: a front that sends events without end gets one turn for each.
        if turn == Turn::Idle && !masked.is_empty() {
            if storm.is_on(session.counters().requests) {
                thread::sleep(STORM_PAUSE);
            }
            for port in masked.drain(..) {
                let unmasked = session.events().unmask(port);
                unmasked.map_err(|error| format!("event channel {port}: {error}"))?;
            }
        }
        let woken = session.disk_mut().wait(patience);
        let woken = woken.map_err(|error| format!("io_uring: {error}"))?;
        hear(session, woken, &mut masked).map_err(|error| format!("/dev/xen/evtchn: {error}"))?;
        if woken.control && obey(session, line)? {
            session.stop_taking();
            ending = true;
        }
    }
}

/// Takes the events that arrived; their ports are masked until the next rest.
fn hear<Q: Queue>(
    session: &Served<Q>,
    woken: Woken,
    masked: &mut Vec<Port>,
) -> std::io::Result<()> {
    if woken.event { session.events().pending(masked) } else { Ok(()) }
}

/// Carries out all orders that came; tells whether to end.
fn obey<Q: Queue>(session: &mut Served<Q>, line: &Line) -> Result<bool, String> {
    let mut end = false;
    loop {
        let (message, with) = match line.receive().map_err(|error| format!("orders: {error}"))? {
            Received::Message(message, with) => (message, with),
            Received::Nothing => return Ok(end),
            Received::Closed => return Ok(true),
        };
        match Order::read(&message, &with).ok_or(OTHER_VERSION)? {
            Order::Stop => end = true,
            Order::Grow(sectors) => {
                session.grow(sectors);
                let told = line.send(&Told::Grown.message(), &[]);
                told.map_err(|error| format!("orders: {error}"))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_empty_events_is_noticed_and_ends_with_the_next_request() {
        let mut storm = Storm::default();
        assert!(!storm.is_on(5));
        for _ in 0..EMPTY_EVENTS_MAX {
            assert!(!storm.is_on(5));
        }
        assert!(storm.is_on(5) && storm.is_on(5));
        assert!(!storm.is_on(6));
    }

    #[test]
    fn xsa_332_events_without_end_cost_a_small_share_of_a_processor() {
        // An event is there whenever somebody looks, and a turn over nothing takes so long.
        const TURN: Duration = Duration::from_micros(5);
        let (mut storm, mut now, mut busy) = (Storm::default(), Duration::ZERO, Duration::ZERO);
        while now < Duration::from_secs(1) {
            busy += TURN;
            now += TURN;
            if storm.is_on(0) {
                now += STORM_PAUSE;
            }
        }
        assert!(busy < Duration::from_millis(10), "{busy:?} of a second");
    }
}
