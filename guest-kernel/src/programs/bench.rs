//! `bench`: a throughput job in fio's words.
//!
//! Keeps `iodepth` I/Os of `bs` bytes in flight. An I/O that is longer than a request of the disk (44
//! to 128 KiB) goes as several requests and counts once, when the last of them is done. The loop is
//! submit, kick once, take what is complete, and sleep when nothing is: batches are as
//! large as the back lets them be.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use blkfront::{Completion, Counters, Tag};
use blkif::Operation;

use super::arguments::Arguments;
use super::bench_report::Report;
use super::disks::{AnyDisk, Which};
use super::histogram::Histogram;
use super::random::Random;
use super::stream::Span;
use super::{Disks, Failure, Machine};
use crate::time::Instant;

const USAGE: &str = "bench DISK --rw=read|write|randread|randwrite|randrw [--bs=4k] [--iodepth=1] \
                     [--runtime=SECONDS] [--number_ios=N] [--size=BYTES] [--randseed=N]";
const OPTIONS: [&str; 8] =
    ["rw", "bs", "iodepth", "runtime", "number_ios", "size", "randseed", "filename"];
/// How long a job runs that does not say.
const RUNTIME_SECONDS: u64 = 5;
/// The most I/Os in flight.
const DEPTH_MAX: usize = 512;
/// The longest I/O.
const BLOCK_BYTES_MAX: u64 = 16 << 20;

/// What to do, as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) rw: Mix,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
    runtime: Duration,
    ios_max: u64,
    /// How many blocks the job uses, from the start of the disk on.
    blocks: u64,
    seed: u64,
}

/// fio's `rw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    Read,
    Write,
    RandRead,
    RandWrite,
    RandRw,
}

impl Mix {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "read" => Self::Read,
            "write" => Self::Write,
            "randread" => Self::RandRead,
            "randwrite" => Self::RandWrite,
            "randrw" => Self::RandRw,
            _ => return None,
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::RandRw => "randrw",
        }
    }
}

impl Job {
    fn parse(arguments: &Arguments<'_>, sectors: u64) -> Result<Self, Failure> {
        let number = |name, default| Ok(arguments.number(name)?.unwrap_or(default));
        let rw = arguments.text("rw").and_then(Mix::parse);
        let rw = rw.ok_or_else(|| Failure::usage(format!("usage: {USAGE}")))?;
        let block = arguments.sectors("bs")?.unwrap_or(8);
        let block_bytes = usize::try_from(block * 512).unwrap_or(0);
        if !(1..=BLOCK_BYTES_MAX / 512).contains(&block) {
            return Err(Failure::usage("bs: not from 512 to 16M"));
        }
        let depth = usize::try_from(number("iodepth", 1)?).unwrap_or(0);
        if !(1..=DEPTH_MAX).contains(&depth) {
            return Err(Failure::usage(format!("iodepth: not from 1 to {DEPTH_MAX}")));
        }
        let runtime = arguments.number("runtime")?;
        let ios = arguments.number("number_ios")?;
        let seconds = if ios.is_some() { u64::MAX } else { RUNTIME_SECONDS };
        let blocks = arguments.sectors("size")?.unwrap_or(sectors) / block;
        if blocks == 0 {
            return Err(Failure::usage("size: less than one block"));
        }
        Ok(Self {
            rw,
            block_bytes,
            depth,
            runtime: Duration::from_secs(runtime.unwrap_or(seconds)),
            ios_max: ios.unwrap_or(u64::MAX),
            blocks,
            seed: number("randseed", 1)?,
        })
    }
}

/// Runs a job and prints its report: lines for people, and one that begins with `bench: ` and is
/// JSON.
///
/// # Errors
/// [`Failure`]; a request that fails ends the job.
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(words, &OPTIONS)?;
    let name = match arguments.text("filename") {
        Some(name) => name,
        None => arguments.plain::<1>(USAGE)?[0],
    };
    let which = disks.find(name)?;
    let limit = arguments.sectors("size")?;
    let span = Span::on_disk(disks, which, 0, limit)?;
    let job = Job::parse(&arguments, span.sectors)?;
    let before = *disks.disk(which)?.counters();
    let hypercalls = machine.hypercalls();
    let begin = machine.now();
    let mut run = Run::new(job, begin, which, slots(disks, which)?);
    run.drive(machine, disks)?;
    let after = *disks.disk(which)?.counters();
    let report = Report {
        disk: disks.name(which),
        rw: run.job.rw,
        block_bytes: run.job.block_bytes,
        depth: run.job.depth,
        elevator: disks.disk(which)?.elevator().to_string(),
        time: run.last.since(begin),
        latency: run.latency,
        deepest: run.deepest,
        waits: run.waits,
        hypercalls: machine.hypercalls() - hypercalls,
        counters: difference(&after, &before),
    };
    machine.print(format_args!("{}", report.human()));
    machine.print(format_args!("bench: {}", report.json()));
    Ok(())
}

fn slots<M: Machine>(disks: &mut Disks<M>, which: Which) -> Result<usize, Failure> {
    Ok(disks.disk(which)?.capacity())
}

fn difference(after: &Counters, before: &Counters) -> Counters {
    Counters {
        requests: after.requests - before.requests,
        merged: after.merged - before.merged,
        merged_responses: after.merged_responses - before.merged_responses,
        responses: after.responses - before.responses,
        batches: after.batches - before.batches,
        response_batches: after.response_batches - before.response_batches,
        notifications_sent: after.notifications_sent - before.notifications_sent,
        notifications_received: after.notifications_received - before.notifications_received,
        errors: after.errors - before.errors,
        read_sectors: after.read_sectors - before.read_sectors,
        written_sectors: after.written_sectors - before.written_sectors,
    }
}

/// An I/O in flight: when it began, and how many of its requests are not done.
#[derive(Clone, Copy)]
struct Pending {
    begin: Instant,
    parts: usize,
}

/// A job while it runs. Nothing is allocated after [`Run::new`].
struct Run {
    job: Job,
    which: Which,
    begin: Instant,
    last: Instant,
    random: Random,
    next_block: u64,
    started: u64,
    active: usize,
    deepest: usize,
    waits: u64,
    pending: Vec<Option<Pending>>,
    /// Which I/O the request in each place of the disk's table belongs to.
    owner: Vec<usize>,
    latency: Histogram,
}

impl Run {
    fn new(job: Job, begin: Instant, which: Which, slots: usize) -> Self {
        Self {
            which,
            begin,
            last: begin,
            random: Random(job.seed),
            next_block: 0,
            started: 0,
            active: 0,
            deepest: 0,
            waits: 0,
            pending: vec![None; job.depth],
            owner: vec![0; slots],
            latency: Histogram::new(),
            job,
        }
    }

    fn drive<M: Machine>(&mut self, machine: &M, disks: &mut Disks<M>) -> Result<(), Failure> {
        loop {
            let begin = machine.now();
            while self.active < self.job.depth && self.wants_more(begin) {
                if !self.start(disks, begin)? {
                    break;
                }
            }
            disks.disk(self.which)?.kick();
            if self.active == 0 {
                return Ok(());
            }
            let mut any = false;
            while let Some(done) = disks.poll(machine, self.which)? {
                any = true;
                self.finish(machine, &done);
            }
            if !any {
                self.waits += 1;
                disks.wait(machine, self.which)?;
            }
        }
    }

    fn wants_more(&self, now: Instant) -> bool {
        self.started < self.job.ios_max && now.since(self.begin) < self.job.runtime
    }

    /// Puts the requests of one I/O; `false` if there is no room for all of them now.
    fn start<M: Machine>(&mut self, disks: &mut Disks<M>, begin: Instant) -> Result<bool, Failure> {
        let part_max = disks.disk(self.which)?.buffer_bytes_max();
        let parts = self.job.block_bytes.div_ceil(part_max);
        let Some(at) = self.pending.iter().position(Option::is_none) else { return Ok(false) };
        if !self.has_room(&disks.disk(self.which)?, parts) {
            return if self.active > 0 { Ok(false) } else { Err(self.no_room(disks)) };
        }
        let (operation, block) = self.choose();
        let mut sector = block * (self.job.block_bytes as u64 / 512);
        for part in 0..parts {
            let length = (self.job.block_bytes - part * part_max).min(part_max);
            let tag = self.put(disks, operation, (sector, length))?;
            self.owner[tag.place()] = at;
            sector += length as u64 / 512;
        }
        self.pending[at] = Some(Pending { begin, parts });
        self.started += 1;
        self.active += 1;
        self.deepest = self.deepest.max(self.active);
        Ok(true)
    }

    fn put<M: Machine>(
        &self,
        disks: &mut Disks<M>,
        operation: Operation,
        (sector, length): (u64, usize),
    ) -> Result<Tag, Failure> {
        let Some(buffer) = disks.disk(self.which)?.buffer(length) else {
            return Err(self.no_room(disks));
        };
        if operation == Operation::Write {
            buffer.write(0, &sector.to_le_bytes());
        }
        let submitted = disks.disk(self.which)?.submit(operation, sector, buffer);
        submitted.map_err(|refused| {
            let (name, rw) = (disks.name(self.which), self.job.rw.name());
            Failure::failed(format!("{name}: {rw}: {}", refused.error))
        })
    }

    fn has_room<M: Machine>(&self, disk: &AnyDisk<'_, M>, parts: usize) -> bool {
        let slots = usize::try_from(disk.free_slots()).unwrap_or(0);
        slots >= parts && disk.free_pages() >= self.job.block_bytes.div_ceil(4096)
    }

    fn no_room<M: Machine>(&self, disks: &Disks<M>) -> Failure {
        let (name, bytes) = (disks.name(self.which), self.job.block_bytes);
        Failure::missing(format!("{name}: not enough memory for bs={bytes}"))
    }

    fn finish<M: Machine>(&mut self, machine: &M, done: &Completion<M::Grants>) {
        let slot = &mut self.pending[self.owner[done.tag.place()]];
        let Some(pending) = slot else { return };
        pending.parts -= 1;
        if pending.parts == 0 {
            self.last = machine.now();
            let time = self.last.since(pending.begin);
            self.latency.count(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            *slot = None;
            self.active -= 1;
        }
    }

    /// What comes next and where.
    fn choose(&mut self) -> (Operation, u64) {
        let random = self.random.next();
        let block = match self.job.rw {
            Mix::Read | Mix::Write => {
                let block = self.next_block;
                self.next_block = (block + 1) % self.job.blocks;
                block
            }
            _ => random % self.job.blocks,
        };
        let operation = match self.job.rw {
            Mix::Read | Mix::RandRead => Operation::Read,
            Mix::Write | Mix::RandWrite => Operation::Write,
            // fio's default: half of them are reads.
            Mix::RandRw if random >> 63 == 0 => Operation::Read,
            Mix::RandRw => Operation::Write,
        };
        (operation, block)
    }
}
