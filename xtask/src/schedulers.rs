//! What a queue in the guest costs above one in the host, on real Xen: guests that sort and guests that
//! do not, on a disk of Dom0 with each of its schedulers.
//!
//! The disk is Dom0's memory behind a SCSI host that does four commands at a time, whatever they
//! are, so a backlog builds in Dom0; I/Os beyond the ring wait in the guest. Everything is done twice:
//! on a disk that is faster than the processor, where an I/O's share of the time is its share of the
//! instructions, and on one that everybody waits for. Must never tell instructions of the second, nor
//! waits of the first.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::bench::{Row, Table};
use crate::counted::{self, fio_each_ns, instructions, life, missing};
use crate::error::{LabError, Result};
use crate::figures::Figure;
use crate::guest::{Backend, Guest};
use crate::host::Host;
use crate::lab::{Lab, LabConfig};
use crate::progress::Progress;

/// Dom0's schedulers; each has a disk of its own, which the guest calls by the letter.
const HOSTS: [(&str, char); 4] =
    [("none", 'a'), ("mq-deadline", 'b'), ("kyber", 'c'), ("bfq", 'd')];
/// Commands that a disk does at a time.
const LANES: u32 = 4;
/// How long a command takes on a disk that is faster than the processor, and on one that is not.
const FAST_NS: u32 = 50_000;
const SLOW_NS: u32 = 2_000_000;
/// Random writes of 4 KiB in flight: as many as the ring holds, and half of them waiting for it.
const DEPTHS: [u32; 2] = [32, 64];
const IOS: u32 = 1000;
/// Memory of our guest, in MiB: so little that its disks have rings of 32, as Linux's have.
const MEMORY_MIB: u32 = 16;
/// What the guest does on each disk.
const JOBS: usize = DEPTHS.len() * HOSTS.len();

/// A guest on our back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    Pvblk,
    Linux,
}

impl Front {
    /// Its elevators: the one that does not sort, and the one that does.
    const fn elevators(self) -> [&'static str; 2] {
        match self {
            Self::Pvblk => ["noop", "deadline"],
            Self::Linux => ["none", "mq-deadline"],
        }
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pvblk => "pvblk",
            Self::Linux => "Linux",
        })
    }
}

const FRONTS: [Front; 2] = [Front::Pvblk, Front::Linux];

/// What a guest tells of one job.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    /// Nanoseconds of the whole for each I/O.
    each_ns: f64,
    /// The 99th percentile of the wait.
    p99_us: f64,
}

/// All jobs of one seed, disk by disk and there depth by depth.
type Seed = [Told; JOBS];

/// A guest with one elevator: by seed, on the fast disks and on the slow ones.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    fast: Vec<Seed>,
    slow: Vec<Seed>,
}

/// What is told of each job.
#[derive(Debug, Clone, Copy)]
enum Measure {
    Instructions,
    Mean,
    P99,
}

const MEASURES: [Measure; 3] = [Measure::Instructions, Measure::Mean, Measure::P99];

impl Measure {
    const fn words(self) -> [&'static str; 2] {
        match self {
            Self::Instructions => ["in all", "instructions/I/O"],
            Self::Mean => ["mean wait", "µs"],
            Self::P99 => ["99th percentile of the wait", "µs"],
        }
    }

    /// Of one job, seed by seed.
    fn of(self, seen: &Seen, job: usize) -> Vec<f64> {
        let told = |seeds: &[Seed], value: &dyn Fn(&Told) -> f64| {
            seeds.iter().map(|seed| value(&seed[job])).collect()
        };
        // As many are in flight all the time (Little's law).
        let depth = f64::from(DEPTHS[job % DEPTHS.len()]);
        match self {
            Self::Instructions => told(&seen.fast, &|told| instructions(told.each_ns)),
            Self::Mean => told(&seen.slow, &|told| depth * told.each_ns / 1e3),
            Self::P99 => told(&seen.slow, &|told| told.p99_us),
        }
    }
}

/// All of it: of each front, without sorting and with.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedulers {
    fronts: [[Seen; 2]; FRONTS.len()],
}

impl Schedulers {
    /// As figures: of each front with its elevator that sorts, and with the other one beside it.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (front, job, measure) in all() {
            figures.extend(self.pair(front, job, measure));
        }
        figures
    }

    fn pair(&self, front: Front, job: usize, measure: Measure) -> [Figure; 2] {
        let [noop, sorting] = front.elevators();
        let [depth, host] = [job % DEPTHS.len(), job / DEPTHS.len()];
        let [what, unit] = measure.words();
        let name = |elevator: &str| {
            let (depth, host) = (DEPTHS[depth], HOSTS[host].0);
            format!("randwrite 4 KiB, depth {depth}: {front} {elevator} on Dom0's {host}, {what}")
        };
        let [without, with] = &self.fronts[front as usize];
        let with = Figure::new(name(sorting), unit, &measure.of(with, job), None);
        let peer = Some((format!("{front} {sorting}"), with.value));
        [Figure::new(name(noop), unit, &measure.of(without, job), peer), with]
    }

    /// A line for each front, depth and scheduler: what is seen without sorting in the guest, and by
    /// how many percent that is more than with.
    pub fn table(&self) -> String {
        let mut text = format!("{:<40}", "randwrite 4 KiB");
        for head in ["instructions/I/O", "mean wait, ms", "p99, ms"] {
            let _ = write!(text, " {head:>18}");
        }
        for (front, job, measure) in all() {
            let [it, with] = self.pair(front, job, measure);
            let change = (it.value / with.value - 1.0) * 100.0;
            let cell = match measure {
                Measure::Instructions => format!("{:.0} ({change:+.1} %)", it.value),
                _ => format!("{:.2} ({change:+.1} %)", it.value / 1e3),
            };
            if matches!(measure, Measure::Instructions) {
                let (depth, host) = (DEPTHS[job % DEPTHS.len()], HOSTS[job / DEPTHS.len()].0);
                let [noop, _] = front.elevators();
                let line = format!("{front} {noop}, depth {depth}, Dom0's {host}");
                let _ = write!(text, "\n{line:<40}");
            }
            let _ = write!(text, " {cell:>18}");
        }
        text.push('\n');
        text
    }
}

/// Everything that is told, in the order in which it is shown.
fn all() -> impl Iterator<Item = (Front, usize, Measure)> {
    let jobs = |front| (0..JOBS).map(move |job| (front, job));
    let measures = |(front, job)| MEASURES.map(|measure| (front, job, measure));
    FRONTS.into_iter().flat_map(jobs).flat_map(measures)
}

/// About how long it takes on two processors of 2.6 GHz.
pub fn estimate(seeds: u32) -> Duration {
    Duration::from_secs(180 + 90 * u64::from(seeds))
}

/// Boots and measures.
///
/// Errors: what keeps the lab from running; a guest that fails, or tells no figures.
pub fn run(host: Host, seeds: u32, progress: &Progress) -> Result<Schedulers> {
    let config = LabConfig {
        linux_guest: true,
        fio: true,
        name: "schedulers".into(),
        ..LabConfig::default()
    };
    let lab = counted::boot(host, config, progress)?;
    lab.dom0(&disks())?.ok()?;
    lab.start_blkback()?;
    let seen = |front: Front, elevator: &str| {
        let at = |delay_ns: u32| {
            let delay = format!("echo {delay_ns} >/sys/bus/pseudo/drivers/scsi_debug/ndelay");
            lab.dom0(&delay)?.ok()?;
            let told = match front {
                Front::Pvblk => pvblk(&lab, elevator, seeds)?,
                Front::Linux => linux(&lab, elevator, seeds)?,
            };
            progress.phase(&format!("{front} {elevator}, {} µs a command", delay_ns / 1000));
            Ok(told)
        };
        Ok(Seen { fast: at(FAST_NS)?, slow: at(SLOW_NS)? })
    };
    let pair = |front: Front| {
        let [noop, sorting] = front.elevators();
        Ok([seen(front, noop)?, seen(front, sorting)?])
    };
    let fronts = [pair(Front::Pvblk)?, pair(Front::Linux)?];
    progress.finish();
    lab.power_off()?;
    Ok(Schedulers { fronts })
}

/// What makes Dom0's disks, one for each scheduler.
fn disks() -> String {
    let count = HOSTS.len();
    let mut script = format!(
        "set -e; modprobe -a sd_mod kyber-iosched bfq\n\
         modprobe scsi_debug num_tgts={count} dev_size_mb=32 ndelay={FAST_NS}\n\
         until [ -b /dev/sd{} ]; do sleep 1; done\n",
        HOSTS[count - 1].1
    );
    for (scheduler, letter) in HOSTS {
        let disk = format!("/sys/block/sd{letter}");
        let _ = writeln!(script, "echo {scheduler} >{disk}/queue/scheduler");
        let _ = writeln!(script, "echo {LANES} >{disk}/device/queue_depth");
    }
    script
}

fn with_disks(guest: Guest) -> Guest {
    HOSTS.into_iter().fold(guest, |guest, (_, letter)| {
        let [device, vdev] = [format!("/dev/sd{letter}"), format!("xvd{letter}")];
        guest.disk(Backend::Pvblk, &device, &vdev, false)
    })
}

/// Our guest: a life for each seed.
fn pvblk(lab: &Lab, elevator: &str, seeds: u32) -> Result<Vec<Seed>> {
    let seed = |seed| {
        let guest = Guest::pvblk("queues", &command_line(seed, elevator));
        let console = life(lab, with_disks(Guest { memory_mib: MEMORY_MIB, ..guest }))?;
        let rows = Table::read(&console).map_err(LabError::Failed)?.rows;
        let told = |row: &Row| Told { each_ns: 1e9 / row.iops, p99_us: row.p99_us };
        // A disk's first one maps what is mapped once.
        let disks = rows.chunks(1 + DEPTHS.len());
        let told: Vec<Told> = disks.flat_map(|disk| disk.iter().skip(1).map(told)).collect();
        told.try_into().map_err(|_| missing("our guest", &console))
    };
    (1..=seeds).map(seed).collect()
}

fn command_line(seed: u32, elevator: &str) -> String {
    let mut line = format!("elevator={elevator} run=\"sleep {}", seed * 7);
    for (_, letter) in HOSTS {
        let _ = write!(line, "; bench xvd{letter} --rw=write --iodepth=32 --number_ios=512");
        for depth in DEPTHS {
            let _ = write!(
                line,
                "; bench xvd{letter} --rw=randwrite --bs=4k --iodepth={depth} --number_ios={IOS} \
                 --randseed={seed}"
            );
        }
    }
    line + "\""
}

/// A Linux guest tells all its seeds in one life.
fn linux(lab: &Lab, elevator: &str, seeds: u32) -> Result<Vec<Seed>> {
    let mut job = "set -e\n".to_owned();
    for (_, letter) in HOSTS {
        let _ = writeln!(job, "echo {elevator} >/sys/block/xvd{letter}/queue/scheduler");
    }
    (1..=seeds).for_each(|seed| job.push_str(&fio(seed)));
    lab.linux_job("queues", &job, true)?;
    let console = life(lab, with_disks(Guest::linux("queues")))?;
    let told: Option<Vec<Told>> =
        console.lines().filter(|line| line.starts_with("3;")).map(fio_told).collect();
    let seeds_of = |told: &[Told]| told.try_into().ok();
    let all: Option<Vec<Seed>> = told.and_then(|told| told.chunks(JOBS).map(seeds_of).collect());
    all.filter(|all| all.len() == seeds as usize).ok_or_else(|| missing("fio", &console))
}

fn fio(seed: u32) -> String {
    let mut line = format!(
        "usleep {}; fio --rw=randwrite --bs=4k --io_size={}k --direct=1 --ioengine=libaio \
         --norandommap --randseed={seed} --invalidate=0 --thread --clat_percentiles=0 \
         --lat_percentiles=1 --minimal --terse-version=3",
        seed * 7000,
        IOS * 4
    );
    for (_, letter) in HOSTS {
        for depth in DEPTHS {
            let _ = write!(
                line,
                " --name={letter}{depth} --stonewall --filename=/dev/xvd{letter} --iodepth={depth}"
            );
        }
    }
    line + "\n"
}

/// What a terse line of fio says of writes; the percentiles are `99.000000%=1234`, in µs.
fn fio_told(line: &str) -> Option<Told> {
    let fields: Vec<&str> = line.trim_end().split(';').collect();
    let each_ns = fio_each_ns(&fields, 4.0)?;
    let p99 = fields.get(58..78)?.iter().find_map(|it| it.strip_prefix("99.000000%="))?;
    Some(Told { each_ns, p99_us: p99.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(each_ns: f64, p99_us: f64) -> Seen {
        let seeds = vec![[Told { each_ns, p99_us }; JOBS]];
        Seen { fast: seeds.clone(), slow: seeds }
    }

    #[test]
    fn a_guest_that_does_not_sort_is_beside_the_same_that_does() {
        let front = [seen(40_000.0, 900.0), seen(50_000.0, 1000.0)];
        let schedulers = Schedulers { fronts: [front.clone(), front] };
        let figures = schedulers.figures();
        assert_eq!(figures.len(), 2 * FRONTS.len() * JOBS * MEASURES.len());
        let find = |name: &str| figures.iter().find(|it| it.name == name).expect("a figure");
        let cost = find("randwrite 4 KiB, depth 32: Linux none on Dom0's bfq, in all");
        assert_eq!(cost.value, 10_000.0);
        assert_eq!(cost.peer, Some(("Linux mq-deadline".into(), 12_500.0)));
        // 64 that take turns.
        let wait = find("randwrite 4 KiB, depth 64: pvblk noop on Dom0's none, mean wait");
        assert_eq!(wait.value, 2560.0);
        let table = schedulers.table();
        assert_eq!(table.lines().count(), 1 + FRONTS.len() * JOBS, "{table}");
        assert!(table.contains("10000 (-20.0 %)") && table.contains("0.90 (-10.0 %)"), "{table}");
    }

    #[test]
    fn the_jobs_of_our_guest_fit_its_command_line() {
        let line = command_line(999, "deadline");
        assert!(Guest::pvblk("g", &line).check().is_ok(), "{} bytes", line.len());
    }

    #[test]
    fn waits_are_read_from_fios_lines_by_field_and_by_name() {
        let mut fields = vec!["0".to_owned(); 130];
        fields[0] = "3".into();
        fields[46] = (IOS * 4).to_string();
        fields[49] = "50".into();
        fields[64] = "50.000000%=800".into();
        fields[70] = "99.000000%=1500".into();
        let line = fields.join(";");
        let told = Told { each_ns: 50_000.0, p99_us: 1500.0 };
        assert_eq!(fio_told(&format!("{line}\r")), Some(told));
        assert_eq!(fio_told(&line.replace("99.000000%=1500", "0%=0")), None);
        assert_eq!(fio_told("3;fio"), None);
    }
}
