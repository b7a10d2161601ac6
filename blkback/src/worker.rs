//! The workers: one thread per device, each with its own event channels, mappings and `io_uring`.
//!
//! A thread sleeps in one place, its `io_uring`. One wake-up by the front costs a read of the
//! event channel, at most one notification, one unmask and one `io_uring_enter`. A panic in one
//! thread ends that device and no other.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use xen::{Access, Events, Maps, Port};

use crate::crew::{Connect, Crew, Report, WorkerId};
use crate::session::{Buffer, Link, Past, RingPages, Session, Turn};
use crate::sys::{Channels, GrantDevice, MappedPage, Patience, UringDisk, Woken};
use crate::{Bell, Image, OpenError};

/// How long an image that is in use is tried again: its last user may be about to close it.
const IN_USE_TRIES: u32 = 20;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// So many events in a row may come without a request before the next ones are made to wait. An
/// honest front sends now and then one whose request was seen already.
const EMPTY_EVENTS_MAX: u32 = 64;
/// How long each of them waits.
const STORM_PAUSE: Duration = Duration::from_millis(1);

/// A session on the device nodes of Dom0.
type Served = Session<GrantDevice, UringDisk<Buffer<MappedPage>>, Channels>;

enum Order {
    Connect(Box<Connect>),
    Stop,
}

struct Hand {
    orders: Sender<Order>,
    bell: Bell,
    thread: JoinHandle<()>,
}

/// All workers of this process.
pub struct Workers {
    hands: HashMap<WorkerId, Hand>,
    /// Told to go, and not yet gone.
    leaving: HashMap<WorkerId, JoinHandle<()>>,
    outbox: Sender<(WorkerId, Report)>,
    inbox: Receiver<(WorkerId, Report)>,
    bell: Bell,
}

impl Workers {
    /// No workers; `bell` rings when there is a report.
    pub fn new(bell: Bell) -> Self {
        let (outbox, inbox) = channel();
        Self { hands: HashMap::new(), leaving: HashMap::new(), outbox, inbox, bell }
    }

    /// Starts a thread for a device. Whatever becomes of it, its last report is that it is gone.
    fn hire(
        &mut self,
        worker: WorkerId,
        name: &str,
        task: impl FnOnce(&Receiver<Order>, &Bell, &Post) + Send + 'static,
    ) -> std::io::Result<()> {
        let (orders, inbox) = channel();
        let bell = Bell::new()?;
        let post = Post { worker, reports: self.outbox.clone(), bell: self.bell.clone() };
        let mine = bell.clone();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            // What a panic leaves behind is dropped, and nothing of it is used again.
            let ended = catch_unwind(AssertUnwindSafe(|| task(&inbox, &mine, &post)));
            if ended.is_err() {
                log::error!("the thread of this device panicked");
            }
            post.send(Report::Gone);
        })?;
        self.hands.insert(worker, Hand { orders, bell, thread });
        Ok(())
    }

    fn order(&self, worker: WorkerId, order: Order) {
        if let Some(hand) = self.hands.get(&worker) {
            // A thread that is gone has reported so.
            let _ = hand.orders.send(order);
            hand.bell.ring();
        }
    }
}

impl Crew for Workers {
    fn open(&mut self, worker: WorkerId, name: &str, image: PathBuf, read_only: bool) {
        let task = Task { image, read_only };
        let life = move |inbox: &Receiver<Order>, bell: &Bell, post: &Post| {
            task.run(inbox, bell, post);
        };
        if let Err(error) = self.hire(worker, name, life) {
            let report = Report::Unopened(format!("no thread for this device: {error}"));
            let _ = self.outbox.send((worker, report));
            let _ = self.outbox.send((worker, Report::Gone));
            self.bell.ring();
        }
    }

    fn connect(&mut self, worker: WorkerId, connect: Connect) {
        self.order(worker, Order::Connect(Box::new(connect)));
    }

    fn stop(&mut self, worker: WorkerId) {
        self.order(worker, Order::Stop);
    }

    fn dismiss(&mut self, worker: WorkerId) {
        if let Some(hand) = self.hands.remove(&worker) {
            // No more orders: the thread takes that as its leave.
            drop(hand.orders);
            hand.bell.ring();
            self.leaving.insert(worker, hand.thread);
        }
    }

    fn report(&mut self) -> Option<(WorkerId, Report)> {
        let (worker, report) = self.inbox.try_recv().ok()?;
        if report == Report::Gone {
            let hand = self.hands.remove(&worker).map(|hand| hand.thread);
            if let Some(thread) = hand.or_else(|| self.leaving.remove(&worker)) {
                // It has nothing left to do; its panic, if any, was logged.
                let _ = thread.join();
            }
        }
        Some((worker, report))
    }
}

impl Drop for Workers {
    /// Waits until all of them have closed their images.
    fn drop(&mut self) {
        let all: Vec<_> = self.hands.keys().copied().collect();
        all.into_iter().for_each(|worker| self.dismiss(worker));
        for (_, thread) in self.leaving.drain() {
            let _ = thread.join();
        }
    }
}

/// How a worker reports.
struct Post {
    worker: WorkerId,
    reports: Sender<(WorkerId, Report)>,
    bell: Bell,
}

impl Post {
    fn send(&self, report: Report) {
        // Nobody to hear it: the process is about to end.
        let _ = self.reports.send((self.worker, report));
        self.bell.ring();
    }
}

/// What one worker does all its life.
struct Task {
    image: PathBuf,
    read_only: bool,
}

impl Task {
    fn run(self, inbox: &Receiver<Order>, bell: &Bell, post: &Post) {
        let image = match open(&self.image, self.read_only) {
            Ok(image) => Arc::new(image),
            Err(error) => return self.wait_for_leave(inbox, post, &error),
        };
        post.send(Report::Opened(image.profile()));
        // Stays until the image is closed: a new connection does not bring lost writes back.
        let mut past = Past::default();
        while let Ok(order) = inbox.recv() {
            match order {
                Order::Connect(connect) => match join(&image, *connect, bell, past) {
                    Ok(session) => {
                        post.send(Report::Connected);
                        past = serve(session, inbox, bell, post);
                    }
                    Err(reason) => post.send(Report::Unconnected(reason)),
                },
                Order::Stop => post.send(Report::Stopped),
            }
        }
    }

    /// Stays without an image, so that its going is never mistaken for a bug.
    fn wait_for_leave(self, inbox: &Receiver<Order>, post: &Post, error: &OpenError) {
        post.send(Report::Unopened(error.to_string()));
        while inbox.recv().is_ok() {}
    }
}

fn open(path: &Path, read_only: bool) -> Result<Image, OpenError> {
    for _ in 1..IN_USE_TRIES {
        match Image::open(path, read_only) {
            Err(OpenError::InUse(_)) => thread::sleep(IN_USE_PAUSE),
            other => return other,
        }
    }
    Image::open(path, read_only)
}

/// Maps the front's ring and binds its event channel.
fn join(image: &Arc<Image>, connect: Connect, bell: &Bell, past: Past) -> Result<Served, String> {
    let Connect { peer, ring, port, agreed, geometry } = connect;
    let channels = Channels::open().map_err(|error| format!("/dev/xen/evtchn: {error}"))?;
    if let Err(error) = channels.restrict(peer) {
        log::debug!("event channels cannot be restricted to one guest: {error}");
    }
    let grants = GrantDevice::open().map_err(|error| format!("/dev/xen/gntdev: {error}"))?;
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
    let mut disk =
        UringDisk::new(image.clone(), slots).map_err(|error| format!("io_uring: {error}"))?;
    disk.listen(&channels, bell);
    let ring = RingPages(pages);
    let link = Link { peer, ring, port, agreed, geometry, past };
    Ok(Session::new(grants, channels, disk, link))
}

/// Serves until ordered to stop or the ring breaks; gives what is left to the next session.
fn serve(mut session: Served, inbox: &Receiver<Order>, bell: &Bell, post: &Post) -> Past {
    let ended = work(&mut session, inbox, bell);
    let past = session.past();
    log::info!("{} enters={}", session.counters(), session.disk().enters());
    drop(session);
    match ended {
        Ended::Stopped => post.send(Report::Stopped),
        Ended::Broken(reason) => post.send(Report::Broken(reason)),
        Ended::Dismissed => {}
    }
    past
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

enum Ended {
    Stopped,
    Dismissed,
    Broken(String),
}

fn work(session: &mut Served, inbox: &Receiver<Order>, bell: &Bell) -> Ended {
    let mut masked: Vec<Port> = Vec::new();
    let mut storm = Storm::default();
    let mut ending: Option<Ended> = None;
    loop {
        let turn = match session.turn() {
            Ok(turn) => turn,
            Err(broken) => return Ended::Broken(broken.to_string()),
        };
        if ending.is_some() && session.pending() == 0 {
            return ending.unwrap_or(Ended::Stopped);
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
                if let Err(error) = session.events().unmask(port) {
                    return Ended::Broken(format!("event channel {port}: {error}"));
                }
            }
        }
        let woken = match session.disk_mut().wait(patience) {
            Ok(woken) => woken,
            Err(error) => return Ended::Broken(format!("io_uring: {error}")),
        };
        if let Err(error) = hear(session, woken, &mut masked) {
            return Ended::Broken(format!("/dev/xen/evtchn: {error}"));
        }
        if woken.control {
            bell.silence();
            if let Some(end) = orders(inbox) {
                session.stop_taking();
                ending = Some(end);
            }
        }
    }
}

/// Takes the events that arrived; their ports are masked until the next rest.
fn hear(session: &Served, woken: Woken, masked: &mut Vec<Port>) -> std::io::Result<()> {
    if woken.event { session.events().pending(masked) } else { Ok(()) }
}

/// The last order of those that came, if it ends the session.
fn orders(inbox: &Receiver<Order>) -> Option<Ended> {
    use std::sync::mpsc::TryRecvError;
    let mut end = None;
    loop {
        match inbox.try_recv() {
            Ok(Order::Stop) => end = Some(Ended::Stopped),
            // We are connected; the control plane gives no such order now.
            Ok(Order::Connect(_)) => {}
            Err(TryRecvError::Empty) => return end,
            Err(TryRecvError::Disconnected) => return Some(Ended::Dismissed),
        }
    }
}

#[cfg(test)]
mod tests;
