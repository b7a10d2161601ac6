//! The workers: for each device a thread that keeps its image open, and a process that serves it.
//!
//! The thread does what takes rights and what may take long: it opens the image and the nodes,
//! starts the process ([`device`](crate::device)), passes orders on and reports back. The process
//! serves one connection and ends with it. A panic in one thread, or the death of one process,
//! ends that device and no other.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::crew::{Connect, Crew, Report, WorkerId};
use crate::orders::{Begin, Last, Told};
use crate::process::{Process, Program};
use crate::session::Past;
use crate::trace::{Part, Trace};
use crate::{Bell, Folders, Image, OpenError};

/// How long an image that is in use is tried again: its last user may be about to close it.
const IN_USE_TRIES: u32 = 20;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// A thread that passes messages needs little; all stacks count as memory of the daemon.
const STACK_BYTES: usize = 256 << 10;

enum Order {
    Connect(Box<Connect>),
    Measure,
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
    program: Arc<Program>,
    folders: Folders,
    trace: Option<Trace>,
}

impl Workers {
    /// No workers; `bell` rings when there is a report. Images in `folders` are served by
    /// processes of `program`.
    pub fn new(bell: Bell, program: Program, folders: Folders) -> Self {
        let (outbox, inbox) = channel();
        let program = Arc::new(program);
        Self {
            hands: HashMap::new(),
            leaving: HashMap::new(),
            outbox,
            inbox,
            bell,
            program,
            folders,
            trace: None,
        }
    }

    /// The same, whose connections are written down, if there is a trace.
    #[must_use]
    pub fn traced(mut self, trace: Option<Trace>) -> Self {
        self.trace = trace;
        self
    }

    /// Starts a thread for a device. Whatever becomes of it, its last report is that it is gone.
    fn hire(
        &mut self,
        worker: WorkerId,
        name: &str,
        task: impl FnOnce(&Inbox, &Post) + Send + 'static,
    ) -> io::Result<()> {
        let (orders, mine) = channel();
        let bell = Bell::new()?;
        let post = Post { worker, reports: self.outbox.clone(), bell: self.bell.clone() };
        let inbox = Inbox { orders: mine, bell: bell.clone() };
        let builder = thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            // What a panic leaves behind is dropped, and nothing of it is used again.
            let ended = catch_unwind(AssertUnwindSafe(|| task(&inbox, &post)));
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
        let (program, folders) = (self.program.clone(), self.folders.clone());
        let trace = self.trace.clone();
        let task = Task { name: name.into(), image, read_only, program, folders, trace };
        if let Err(error) = self.hire(worker, name, move |inbox, post| task.run(inbox, post)) {
            let report = Report::Unopened(format!("no thread for this device: {error}"));
            let _ = self.outbox.send((worker, report));
            self.bell.ring();
        }
    }

    fn connect(&mut self, worker: WorkerId, connect: Connect) {
        self.order(worker, Order::Connect(Box::new(connect)));
    }

    fn measure(&mut self, worker: WorkerId) {
        self.order(worker, Order::Measure);
    }

    fn stop(&mut self, worker: WorkerId) {
        self.order(worker, Order::Stop);
    }

    fn dismiss(&mut self, worker: WorkerId) {
        let Some(hand) = self.hands.remove(&worker) else {
            // There was no thread to be had for it.
            let _ = self.outbox.send((worker, Report::Gone));
            return self.bell.ring();
        };
        // No more orders: the thread takes that as its leave.
        drop(hand.orders);
        hand.bell.ring();
        self.leaving.insert(worker, hand.thread);
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

/// Where orders arrive.
struct Inbox {
    orders: Receiver<Order>,
    bell: Bell,
}

impl Inbox {
    /// The next order; `None`: there will be none.
    fn wait(&self) -> Option<Order> {
        self.orders.recv().ok()
    }

    /// What the orders that came since ask of a connection.
    fn asked(&self) -> Asked {
        self.bell.silence();
        let mut asked = Asked::default();
        loop {
            match self.orders.try_recv() {
                Ok(Order::Stop) => asked.stop = true,
                Ok(Order::Measure) => asked.measure = true,
                // It is connected; the control plane gives no such order now.
                Ok(Order::Connect(_)) => {}
                Err(TryRecvError::Empty) => return asked,
                Err(TryRecvError::Disconnected) => return Asked { stop: true, ..asked },
            }
        }
    }
}

/// What is asked of a connection.
#[derive(Default)]
struct Asked {
    measure: bool,
    stop: bool,
}

/// What one worker does all its life.
struct Task {
    name: String,
    image: PathBuf,
    read_only: bool,
    program: Arc<Program>,
    folders: Folders,
    trace: Option<Trace>,
}

impl Task {
    fn run(self, inbox: &Inbox, post: &Post) {
        let opened = self.open().map_err(|error| error.to_string());
        // Started before it is needed: a guest that connects does not wait for it.
        let (mut image, process) = match opened.and_then(|image| Ok((image, self.start()?))) {
            Ok(ready) => ready,
            Err(reason) => return wait_for_leave(inbox, post, reason),
        };
        post.send(Report::Opened(image.profile()));
        let mut waiting = Some(process);
        // Stays until the image is closed: a new connection does not bring lost writes back.
        let mut past = Past::default();
        while let Some(order) = inbox.wait() {
            let connect = match order {
                Order::Connect(connect) => connect,
                Order::Measure => {
                    post.send(Report::Measured(self.measure(&mut image)));
                    continue;
                }
                Order::Stop => {
                    post.send(Report::Stopped);
                    continue;
                }
            };
            let part = self.trace.as_ref().map(Trace::part);
            let begin = Begin {
                connect: *connect,
                profile: image.profile(),
                past,
                traced: part.as_ref().map(Part::connection),
            };
            let process = waiting.take().map_or_else(|| self.start(), Ok);
            let begun = process
                .and_then(|process| process.begin(&begin, &image, part.as_ref()).map(|()| process));
            let measure = || self.measure(&mut image);
            let last = match begun.map(|process| attend(process, inbox, post, measure)) {
                Ok(Ok(last)) => last,
                Ok(Err(reason)) => return log::error!("{reason}"),
                Err(reason) => Last::Unconnected(reason),
            };
            post.send(match last {
                Last::Unconnected(reason) => Report::Unconnected(reason),
                Last::Ended { past: left, broken } => {
                    past = past.union(left);
                    broken.map_or(Report::Stopped, Report::Broken)
                }
            });
        }
    }

    fn open(&self) -> Result<Image, OpenError> {
        let open = || Image::open_in(&self.folders, &self.image, self.read_only);
        for _ in 1..IN_USE_TRIES {
            match open() {
                Err(OpenError::InUse(_)) => thread::sleep(IN_USE_PAUSE),
                other => return other,
            }
        }
        open()
    }

    fn measure(&self, image: &mut Image) -> Result<u64, String> {
        image.measure(&self.image).map_err(|error| error.to_string())
    }

    fn start(&self) -> Result<Process, String> {
        Process::start(&self.program, &self.name).map_err(|error| {
            let hint = match error.kind() {
                // The daemon may run itself and nothing else, such as a loader of libraries.
                io::ErrorKind::PermissionDenied => " (is blkback linked statically?)",
                _ => "",
            };
            format!("no process for this device: {error}{hint}")
        })
    }
}

/// Stays without an image, so that its going is never mistaken for a bug.
fn wait_for_leave(inbox: &Inbox, post: &Post, reason: String) {
    post.send(Report::Unopened(reason));
    while inbox.wait().is_some() {}
}

/// Passes orders and reports on for as long as a connection lasts, and gives the last report. A
/// process that dies before it was told to go, or lies, is an error. However it ended, its hold on
/// the image and on the guest's pages has ended too.
fn attend(
    mut process: Process,
    inbox: &Inbox,
    post: &Post,
    mut measure: impl FnMut() -> Result<u64, String>,
) -> Result<Last, String> {
    let mut stopped = false;
    // What was measured is reported when the process knows of it, or has no use for it any more.
    let mut measured = None;
    loop {
        let mut awaited =
            [PollFd::new(&inbox.bell, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        match poll(&mut awaited, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("poll: {error}")),
        }
        let asked = inbox.asked();
        if asked.measure {
            match measure() {
                Ok(sectors) => {
                    process.grow(sectors);
                    measured = Some(sectors);
                }
                refused => post.send(Report::Measured(refused)),
            }
        }
        if asked.stop && !std::mem::replace(&mut stopped, true) {
            process.stop();
        }
        let told = process.hear()?;
        if matches!(told, Some(Told::Grown | Told::Last(_)))
            && let Some(sectors) = measured.take()
        {
            post.send(Report::Measured(Ok(sectors)));
        }
        match told {
            None | Some(Told::Grown) => {}
            Some(Told::Connected) => post.send(Report::Connected),
            Some(Told::Last(last)) => return Ok(last),
        }
    }
}

#[cfg(test)]
mod tests;
