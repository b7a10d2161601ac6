//! What one I/O costs the whole machine, counted on real Xen: each front on each back.
//!
//! The machine counts its instructions as time and has one processor (`counted.rs`), so that an I/O's
//! share of the time is its share of the instructions: those of both kernels, of Xen and of the
//! programs. The disk is Dom0's memory. Must never let anything wait: it would be counted as work.

use std::fmt;
use std::time::{Duration, Instant};

use crate::bench::{Row, Table};
use crate::counted::{self, GUEST_TIMEOUT, fio_each_ns, instructions, life, missing};
use crate::error::{LabError, Result};
use crate::guest::{Backend, Guest};
use crate::host::Host;
use crate::lab::{Lab, LabConfig};
use crate::progress::Progress;
use crate::timeline;

/// The disk, in Dom0's memory.
const DISK: &str = "/dev/ram0";
/// Its size.
const DISK_MIB: u32 = 32;
/// A kind of I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// fio's word for it.
    rw: &'static str,
    /// KiB of an I/O.
    kib: u32,
    /// How many are in flight.
    depth: u32,
    /// How many are done.
    ios: u32,
}

const fn work(rw: &'static str, kib: u32, depth: u32, ios: u32) -> Work {
    Work { rw, kib, depth, ios }
}

/// What is measured.
pub const WORKS: [Work; 10] = [
    work("randread", 4, 1, 2000),
    work("randread", 4, 8, 3000),
    work("randread", 4, 32, 4000),
    work("randwrite", 4, 1, 2000),
    work("randwrite", 4, 8, 3000),
    work("randwrite", 4, 32, 4000),
    work("randread", 32, 8, 1500),
    work("randwrite", 32, 8, 1500),
    work("read", 128, 8, 600),
    work("write", 128, 8, 600),
];

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} KiB, depth {}", self.rw, self.kib, self.depth)
    }
}

/// Who does the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Our guest.
    Ours(Backend),
    /// A Linux guest.
    Linux(Backend),
    /// Our guest on our back, and it sorts: its elevator is `deadline`.
    OursSorting,
    /// Linux on Linux, and the guest sorts: its elevator is `mq-deadline`.
    LinuxSorting,
    /// Dom0 itself, on the disk.
    Dom0,
    /// Nobody: what fio costs where nothing is read or written.
    Nothing,
}

/// Linux on Linux: what the others are held against.
pub const PEER: Place = Place::Linux(Backend::Blkback);

/// Those that are compared, in the order in which they are shown.
pub const PAIRS: [Place; 6] = [
    Place::Ours(Backend::Pvblk),
    Place::Ours(Backend::Blkback),
    Place::Ours(Backend::Qdisk),
    Place::Linux(Backend::Pvblk),
    Place::Linux(Backend::Qdisk),
    PEER,
];

/// Guests that sort, and the same without.
pub const SORTING: [(Place, Place); 2] =
    [(Place::OursSorting, Place::Ours(Backend::Pvblk)), (Place::LinuxSorting, PEER)];

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, back) = match self {
            Self::Ours(back) => ("pvblk", back),
            Self::Linux(back) => ("Linux", back),
            Self::OursSorting => return f.write_str("pvblk × pvblk, deadline"),
            Self::LinuxSorting => return f.write_str("Linux × kernel, mq-deadline"),
            Self::Dom0 => return f.write_str("fio in Dom0"),
            Self::Nothing => return f.write_str("fio on nothing"),
        };
        let back = match back {
            Backend::Pvblk => "pvblk",
            Backend::Blkback => "kernel",
            Backend::Qdisk => "qdisk",
        };
        write!(f, "{front} × {back}")
    }
}

/// Instructions of the machine for one I/O, by kind of I/O.
pub type Costs = [f64; WORKS.len()];

/// What is said of one place: a row of costs for each seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Who did it.
    pub place: Place,
    /// Costs by seed.
    pub costs: Vec<Costs>,
}

/// What our guest counts by itself, for one kind of I/O.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Notifications in both directions for each I/O.
    pub notifications: f64,
    /// Hypercalls of the guest for each I/O.
    pub hypercalls: f64,
}

/// How long a beginning took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Begun {
    /// Instructions of the whole machine, those of its idle time too.
    pub machine: f64,
    /// Instructions while the guest's processor ran.
    pub guest: f64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// By place.
    pub told: Vec<Told>,
    /// Our guest on our back, by seed and kind of I/O.
    pub counted: Vec<Vec<Counted>>,
    /// Instructions from our guest's entry to its first block read, by seed.
    pub first_read: Vec<Begun>,
    /// Instructions of the machine from Linux's entry to its first program.
    pub linux_up: f64,
}

impl Matrix {
    /// The costs at a place, if it was measured.
    pub fn of(&self, place: Place) -> Option<&[Costs]> {
        self.told.iter().find(|told| told.place == place).map(|told| &told.costs[..])
    }
}

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Seeds of each figure.
    pub seeds: u32,
    /// Leave out QEMU's back.
    pub quick: bool,
    /// Show all consoles and commands.
    pub verbose: bool,
}

impl Ask {
    fn places(self) -> Vec<Place> {
        let wanted = |place: &Place| !(self.quick && is_on_qdisk(*place));
        let sorting = SORTING.into_iter().map(|(place, _)| place).filter(|_| !self.quick);
        let all = PAIRS.into_iter().chain(sorting).chain([Place::Dom0, Place::Nothing]);
        all.filter(wanted).collect()
    }

    /// About how long it takes on two processors of 2.6 GHz, from what it took there.
    pub fn estimate(self) -> Duration {
        self.cost_of_all(&self.places()) + BOOT
    }

    fn cost_of_all(self, places: &[Place]) -> Duration {
        places.iter().map(|place| self.cost_of(*place)).sum()
    }

    fn cost_of(self, place: Place) -> Duration {
        let (once, each) = match place {
            Place::Ours(Backend::Qdisk) => (0, 35),
            Place::Ours(_) | Place::OursSorting => (2, 12),
            Place::Linux(Backend::Qdisk) => (35, 50),
            Place::Linux(_) | Place::LinuxSorting => (35, 22),
            Place::Dom0 | Place::Nothing => (2, 8),
        };
        Duration::from_secs(once + each * u64::from(self.seeds))
    }
}

const BOOT: Duration = Duration::from_secs(30);

const fn is_on_qdisk(place: Place) -> bool {
    matches!(place, Place::Ours(Backend::Qdisk) | Place::Linux(Backend::Qdisk))
}

/// Boots and measures.
///
/// Errors: what keeps the lab from running; a guest that fails, or tells no figures.
pub fn run(ask: Ask, progress: &Progress) -> Result<Matrix> {
    let lab = boot(ask, progress)?;
    let start = Instant::now();
    let mut matrix = Matrix {
        told: Vec::new(),
        counted: Vec::new(),
        first_read: Vec::new(),
        linux_up: f64::NAN,
    };
    let places = ask.places();
    for (at, place) in places.iter().enumerate() {
        let costs = match *place {
            Place::Ours(_) | Place::OursSorting => ours(&lab, ask, *place, &mut matrix)?,
            Place::Linux(_) | Place::LinuxSorting => linux(&lab, ask, *place, &mut matrix)?,
            Place::Dom0 | Place::Nothing => direct(&lab, ask, *place)?,
        };
        matrix.told.push(Told { place: *place, costs });
        let (done, left) = places.split_at(at + 1);
        let [done, left] = [done, left].map(|some| ask.cost_of_all(some));
        let seconds = start.elapsed().mul_f64(left.div_duration_f64(done)).as_secs_f64();
        progress.phase(&format!("{place}; about {seconds:.0} s to go"));
    }
    progress.finish();
    lab.power_off()?;
    Ok(matrix)
}

fn boot(ask: Ask, progress: &Progress) -> Result<Lab> {
    let config = LabConfig {
        linux_guest: true,
        fio: true,
        qdisk: !ask.quick,
        name: "matrix".into(),
        ..LabConfig::default()
    };
    let lab = counted::boot(Host { verbose: ask.verbose }, config, progress)?;
    lab.dom0("cd / && cpio -idu </lab/fio.cpio")?.ok()?;
    lab.dom0(&format!("modprobe brd rd_nr=1 rd_size={}", DISK_MIB * 1024))?.ok()?;
    lab.dom0(&format!("dd if=/dev/zero of={DISK} bs=1M count={DISK_MIB}"))?.ok()?;
    lab.start_blkback()?;
    Ok(lab)
}

/// Our guest's seeds: a life for each, since its command line has no room for more.
fn ours(lab: &Lab, ask: Ask, place: Place, matrix: &mut Matrix) -> Result<Vec<Costs>> {
    let (back, elevator) = match place {
        Place::Ours(back) => (back, "noop"),
        _ => (Backend::Pvblk, "deadline"),
    };
    let mut costs = Vec::new();
    for seed in 1..=ask.seeds {
        let guest = Guest::pvblk("pair", &command_line(seed, elevator));
        let console = life(lab, guest.disk(back, DISK, "xvda", false))?;
        let rows = Table::read(&console).map_err(LabError::Failed)?.rows;
        // The first one maps what is mapped once.
        let rows: &[Row; WORKS.len()] = rows
            .get(1..)
            .and_then(|rows| rows.try_into().ok())
            .ok_or_else(|| missing("our guest", &console))?;
        costs.push(rows.each_ref().map(|row| instructions(1e9 / row.iops)));
        if place == PAIRS[0] {
            matrix.counted.push(rows.iter().map(counted).collect());
            let mark = timeline::mark(&console, "first read");
            let mark = mark.ok_or_else(|| missing("the timeline", &console))?;
            let [machine, guest] = [mark.time_ns, mark.ran_ns].map(|ns| instructions(ns as f64));
            matrix.first_read.push(Begun { machine, guest });
        }
    }
    Ok(costs)
}

fn counted(row: &Row) -> Counted {
    let each = |count: f64| count / row.ios;
    Counted { notifications: each(row.notifications), hypercalls: each(row.hypercalls) }
}

fn command_line(seed: u32, elevator: &str) -> String {
    let jobs = WORKS.map(|Work { rw, kib, depth, ios }| {
        format!(
            "bench xvda --rw={rw} --bs={kib}k --iodepth={depth} --number_ios={ios} --randseed={seed}"
        )
    });
    let warm = "bench xvda --rw=read --bs=32k --iodepth=32 --number_ios=1000";
    // Each seed begins at another moment of whatever else is periodic.
    let (delay, jobs) = (seed * 7, jobs.join("; "));
    format!(
        "elevator={elevator} run=\"sha256 xvda --size=4k; timeline; {warm}; sleep {delay}; {jobs}\""
    )
}

/// A Linux guest tells all its seeds in one life.
fn linux(lab: &Lab, ask: Ask, place: Place, matrix: &mut Matrix) -> Result<Vec<Costs>> {
    // As our own guest has it: no elevator between the program and the ring, unless it is asked for.
    let (back, elevator) = match place {
        Place::Linux(back) => (back, "none"),
        _ => (Backend::Blkback, "mq-deadline"),
    };
    let mut job = format!(
        "set -e\necho up $(cut -d' ' -f1 /proc/uptime)\n\
         echo {elevator} >/sys/block/xvda/queue/scheduler\n"
    );
    (1..=ask.seeds).for_each(|seed| job.push_str(&fio(seed, "/dev/xvda", "libaio")));
    lab.linux_job("pair", &job, true)?;
    let console = life(lab, Guest::linux("pair").disk(back, DISK, "xvda", false))?;
    let up = console.lines().find_map(|line| line.trim_end().strip_prefix("up ")?.parse().ok());
    let seconds: f64 = up.ok_or_else(|| missing("the uptime", &console))?;
    if place == PEER {
        matrix.linux_up = instructions(seconds * 1e9);
    }
    fio_costs(&console, ask.seeds)
}

/// fio in Dom0: on the disk, or on nothing.
fn direct(lab: &Lab, ask: Ask, place: Place) -> Result<Vec<Costs>> {
    let engine = if place == Place::Nothing { "null" } else { "libaio" };
    let job: String = (1..=ask.seeds).map(|seed| fio(seed, DISK, engine)).collect();
    let text = lab.dom0_within(&format!("set -e; cd /; {job}"), GUEST_TIMEOUT)?.ok()?;
    fio_costs(&text, ask.seeds)
}

fn fio(seed: u32, disk: &str, engine: &str) -> String {
    let jobs = WORKS.map(|Work { rw, kib, depth, ios }| {
        // Too quick to be timed otherwise.
        let ios = if engine == "null" { 20 * ios } else { ios };
        format!(
            " --name={rw}-{kib}-{depth} --stonewall --rw={rw} --bs={kib}k --iodepth={depth} \
             --io_size={}k",
            u64::from(ios) * u64::from(kib)
        )
    });
    format!(
        "usleep {}; fio --filename={disk} --size={DISK_MIB}m --direct=1 --ioengine={engine} \
         --norandommap --randseed={seed} --gtod_reduce=1 --invalidate=0 --thread --minimal \
         --terse-version=3{}\n",
        seed * 7000,
        jobs.concat()
    )
}

/// Costs from fio's terse lines, a line for each kind of I/O.
fn fio_costs(text: &str, seeds: u32) -> Result<Vec<Costs>> {
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("3;")).collect();
    let cost = |line: &&str, work: &Work| {
        let fields: Vec<&str> = line.trim_end().split(';').collect();
        fio_each_ns(&fields, work.kib.into()).map(instructions)
    };
    let seed = |lines: &[&str]| {
        let costs: Option<Vec<f64>> =
            lines.iter().zip(&WORKS).map(|(line, work)| cost(line, work)).collect();
        costs?.try_into().ok()
    };
    let costs: Option<Vec<Costs>> = lines.chunks(WORKS.len()).map(seed).collect();
    costs.filter(|costs| costs.len() == seeds as usize).ok_or_else(|| missing("fio", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kib: u32, ms: u32) -> String {
        let mut fields = vec!["0".to_owned(); 130];
        fields[0] = "3".into();
        fields[5] = kib.to_string();
        fields[49] = ms.to_string();
        fields.join(";")
    }

    #[test]
    fn costs_are_read_from_fios_lines_by_field() {
        // 100 I/Os in 4 ms of 4 ns for each instruction.
        let lines: Vec<String> = WORKS.iter().map(|work| line(work.kib * 100, 4)).collect();
        let text = format!("hello\r\n{}\r\n", lines.join("\r\n"));
        assert_eq!(fio_costs(&text, 1).unwrap(), [[10_000.0; WORKS.len()]]);
        assert_eq!(fio_costs(&text.repeat(2), 2).unwrap().len(), 2);
        for broken in [text.repeat(2), lines[1..].join("\n"), text.replace(";4;", ";x;")] {
            assert!(fio_costs(&broken, 1).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_jobs_of_our_guest_fit_its_command_line() {
        let line = command_line(999, "deadline");
        assert!(Guest::pvblk("g", &line).check().is_ok(), "{} bytes", line.len());
    }

    #[test]
    fn a_quick_run_leaves_out_qemu() {
        let ask = Ask { seeds: 1, quick: true, verbose: false };
        assert!(!ask.places().into_iter().any(is_on_qdisk));
        assert_eq!(ask.places().len(), 6);
        assert!(ask.estimate() < Duration::from_secs(240), "{:?}", ask.estimate());
        assert_eq!(Ask { quick: false, ..ask }.places().len(), 10);
    }
}
