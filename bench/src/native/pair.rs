//! The pair in one process: the production front on this thread, the production back with its
//! `io_uring` on another, a real file below.
//!
//! The back waits as it does on Xen, in its `io_uring`, for a bell that the front rings when it is
//! asked to. It must never do for either end what that end does by itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use blkback::sys::{Patience, UringDisk};
use blkback::{Bell, Counters, Image, Session, Turn};
use blkfront::{Buffer, Completion, Device, Disk};
use blkif::{Operation, Status};
use ring::Rest;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::time::{ClockId, clock_gettime};
use sim::Random;

use super::cores::pin;
use super::handshake::{BackLink, connected};
use super::load::{Block, Load};
use super::seam::{Line, Pages};

/// Bytes of an I/O, and the sectors that they are.
const BYTES: usize = 4096;
const SECTORS: u64 = 8;

/// What a pair has counted in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// I/Os that were done; two that adjoin may have been one request.
    pub ios: f64,
    /// `io_uring_enter` calls of the back.
    pub enters: f64,
    /// All system calls of the back: those, events that it sent, and events that it took.
    pub back_calls: f64,
    /// Events that were sent, both ways.
    pub notifications: f64,
}

/// A front and a back.
pub struct Pair {
    load: Load,
    device: Device<Pages, Line>,
    bell: Bell,
    stop: Arc<AtomicBool>,
    control: Bell,
    back: JoinHandle<io::Result<Served>>,
    random: Random,
    places: usize,
}

/// What a back counts by itself, and the events that it took.
struct Served {
    counters: Counters,
    enters: u64,
    events: u64,
}

impl Pair {
    /// Connects both ends, each on a processor of its own. Whether the image is read and written past
    /// the page cache is the load's to say, for all who have it open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(image: &Arc<Image>, load: Load) -> io::Result<Self> {
        let others = fcntl_getfl(image)? - OFlags::DIRECT;
        // The daemon goes past the page cache wherever a file lets it; here it has to be told.
        fcntl_setfl(image, if load.direct { others | OFlags::DIRECT } else { others })?;
        let sectors = image.profile().sectors;
        let (bell, event, control) = (Bell::new()?, Bell::new()?, Bell::new()?);
        let pages = Pages::default();
        let (device, link) = connected(&pages, &event, sectors, load.depth);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            image: image.clone(),
            pages,
            front: Line(bell.clone()),
            event,
            control: control.clone(),
            stop: stop.clone(),
        };
        let back = thread::spawn(move || worker.serve(link));
        pin(0);
        let places = usize::try_from(sectors / SECTORS).unwrap_or(usize::MAX);
        let random = Random::new(u64::from(load.depth));
        Ok(Self { load, device, bell, stop, control, back, random, places })
    }

    /// Keeps as many in flight as the load says, for so long, and lets them end.
    ///
    /// # Errors
    /// An I/O that failed.
    pub fn block(&mut self, length: Duration) -> io::Result<Block> {
        self.run(length, |_, _| ())
    }

    /// How long each I/O of a block took, from its submission to its completion, in nanoseconds.
    ///
    /// # Errors
    /// An I/O that failed.
    pub fn latencies(&mut self, length: Duration) -> io::Result<Vec<f64>> {
        let disk = self.device.disk().expect("it is connected");
        let (mut begun, mut took) = (vec![None; disk.capacity()], Vec::new());
        self.run(length, |place, event| match event {
            Event::Submitted => begun[place] = Some(Instant::now()),
            Event::Completed => {
                let took_ns = begun[place].take().map(|begun: Instant| begun.elapsed());
                took.extend(took_ns.map(|it| it.as_secs_f64() * 1e9));
            }
        })?;
        Ok(took)
    }

    /// A block; `each` is told of I/Os by their places.
    fn run(&mut self, length: Duration, mut each: impl FnMut(usize, Event)) -> io::Result<Block> {
        let Load { writes, depth, batch, sleeps, .. } = self.load;
        let (start, cpu_ns) = (Instant::now(), self.cpu_ns());
        let disk = self.device.disk().expect("it is connected");
        let operation = if writes { Operation::Write } else { Operation::Read };
        let mut free: Vec<Buffer<Pages>> = (0..depth).filter_map(|_| disk.buffer(BYTES)).collect();
        let (mut done, mut in_flight, mut unsent, mut over) = (0_u32, 0, 0, false);
        loop {
            while let Some(buffer) = free.pop() {
                let sector = self.random.below(self.places) as u64 * SECTORS;
                let tag = disk.submit(operation, sector, buffer).map_err(failed)?;
                each(tag.place(), Event::Submitted);
                (in_flight, unsent) = (in_flight + 1, unsent + 1);
                if unsent == batch {
                    disk.kick();
                    (unsent, over) = (0, start.elapsed() >= length);
                }
            }
            match disk.poll().map_err(failed)? {
                Some(Completion { tag, status: Status::Okay, buffer, .. }) => {
                    each(tag.place(), Event::Completed);
                    (done, in_flight) = (done + 1, in_flight - 1);
                    free.extend(buffer.filter(|_| !over));
                    if over && in_flight == 0 {
                        break;
                    }
                }
                Some(other) => return Err(failed(other)),
                None if sleeps => sleep(disk, &self.bell)?,
                None => std::hint::spin_loop(),
            }
        }
        let wall_ns = start.elapsed().as_secs_f64() * 1e9;
        Ok(Block { ios: f64::from(done), wall_ns, cpu_ns: self.cpu_ns() - cpu_ns })
    }

    /// Processor time so far: of this process, and without this thread's if it never sleeps.
    fn cpu_ns(&self) -> f64 {
        let all = time_ns(ClockId::ProcessCPUTime);
        if self.load.sleeps { all } else { all - time_ns(ClockId::ThreadCPUTime) }
    }

    /// Ends both, and gives what they counted.
    ///
    /// # Errors
    /// What ended the back before.
    pub fn end(mut self) -> io::Result<Counted> {
        self.stop.store(true, Ordering::Relaxed);
        self.control.ring();
        let Served { counters, enters, events } = self.back.join().expect("no panic")?;
        let front = self.device.disk().expect("it is connected").counters();
        let calls = enters + counters.notifications + events;
        let events = front.notifications_sent + counters.notifications;
        let [ios, enters, back_calls, notifications] =
            [front.submitted(), enters, calls, events].map(count);
        Ok(Counted { ios, enters, back_calls, notifications })
    }
}

/// What an I/O's place is told of.
#[derive(Clone, Copy)]
enum Event {
    Submitted,
    Completed,
}

/// Waits as a guest does: asks to be woken, unless there is something now.
fn sleep(disk: &mut Disk<Pages, Line>, bell: &Bell) -> io::Result<()> {
    if disk.rest().map_err(failed)? == Rest::Idle {
        poll(&mut [PollFd::new(bell, PollFlags::IN)], None)?;
        bell.silence();
        disk.woken();
    }
    Ok(())
}

fn failed(what: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("the pair: {what:?}"))
}

#[expect(clippy::cast_precision_loss, reason = "counts of some minutes")]
const fn count(count: u64) -> f64 {
    count as f64
}

fn time_ns(clock: ClockId) -> f64 {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default().as_secs_f64() * 1e9
}

/// What the back's thread has.
struct Worker {
    image: Arc<Image>,
    pages: Pages,
    front: Line,
    event: Bell,
    control: Bell,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Serves as a process of the daemon does: turns, and one place to wait.
    fn serve(self, link: BackLink) -> io::Result<Served> {
        pin(1);
        let slots = link.agreed.abi.layout(link.agreed.order).slots();
        let mut disk = UringDisk::new(self.image, slots)?;
        disk.listen(&self.event, &self.control);
        let mut session = Session::new(self.pages, self.front, disk, link);
        let mut events = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let patience = match session.turn().map_err(failed)? {
                Turn::Again => Patience::None,
                Turn::Idle => Patience::UntilWoken,
            };
            if session.disk_mut().wait(patience)?.event {
                self.event.silence();
                events += 1;
            }
        }
        Ok(Served { counters: session.counters().clone(), enters: session.disk().enters(), events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_does_what_a_load_says_and_counts_it() {
        let file = std::env::temp_dir().join(format!("pvblk-pair-{}", std::process::id()));
        std::fs::write(&file, [0x5a; 1 << 20]).unwrap();
        let image = Arc::new(Image::open(&file, false).unwrap());
        for sleeps in [true, false] {
            let load = Load { sleeps, ..Load::reads(64) };
            let mut pair = Pair::start(&image, load).unwrap();
            let block = pair.block(Duration::from_millis(1)).unwrap();
            assert!(block.ios >= 64.0 && block.wall_ns > 0.0 && block.cpu_ns > 0.0, "{block:?}");
            let latencies = pair.latencies(Duration::ZERO).unwrap();
            assert!(!latencies.is_empty() && latencies.iter().all(|&it| it > 0.0));
            let counted = pair.end().unwrap();
            let done = count(u64::try_from(latencies.len()).unwrap()) + block.ios;
            assert_eq!(counted.ios, done);
            assert!(counted.back_calls > counted.enters, "{counted:?}");
        }
        std::fs::remove_file(file).unwrap();
    }
}
