//! `cargo xtask pairs`: both fronts on both backs, one after the other on one RAM disk in one boot.
//!
//! Time under emulation is weather, so what counts is the ratio to Linux on Linux in the same run;
//! each pair runs in two rounds, the second in reverse order, and both are shown. Like is measured
//! with like: our guest's `bench` and fio do the same kinds of I/O for the same time.

use std::fmt;
use std::time::Duration;

use crate::bench::Table;
use crate::error::{LabError, Result};
use crate::guest::{Backend, Guest};
use crate::host::Host;
use crate::lab::{DOM0_FOLDER, Lab, LabConfig};
use crate::progress::Progress;
use crate::timeline::{self, Mark};
use crate::{build, setup};

/// The disk, in Dom0's memory.
const DISK: &str = "/dev/ram0";
/// Its size.
const DISK_MIB: u32 = 32;
/// How long one guest may take for all its jobs, under any load.
const GUEST_TIMEOUT: Duration = Duration::from_secs(900);

/// A kind of I/O: fio's word, KiB of an I/O, how many are kept in flight.
type Work = (&'static str, u32, u32);

const WORKS: [Work; 4] =
    [("randread", 4, 1), ("randread", 4, 32), ("randwrite", 4, 32), ("read", 128, 8)];

/// Which guest on which back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    ours: bool,
    back: Backend,
}

/// Linux on Linux is last: the one that the others are held against.
const PAIRS: [Pair; 4] = [
    Pair { ours: true, back: Backend::Pvblk },
    Pair { ours: true, back: Backend::Blkback },
    Pair { ours: false, back: Backend::Pvblk },
    Pair { ours: false, back: Backend::Blkback },
];

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let front = if self.ours { "pvblk" } else { "Linux" };
        let back = if self.back == Backend::Pvblk { "pvblk" } else { "kernel" };
        write!(f, "{front} × {back}")
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Seconds for each kind of I/O.
    pub seconds: u32,
    /// Count time by instructions: 2^N ns each.
    pub icount: Option<u8>,
    /// Show all consoles and commands.
    pub verbose: bool,
}

/// One guest's I/Os per second by kind of I/O, and when our kernel was at its first command and had
/// read its first block.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Life {
    iops: [f64; WORKS.len()],
    shell: Option<Mark>,
    first_read: Option<Mark>,
}

/// What was measured, by pair and round.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    lives: [[Life; 2]; PAIRS.len()],
    icount: Option<u8>,
}

/// Boots and measures.
pub fn run(pairs: &Pairs, progress: &Progress) -> Result<Figures> {
    let host = Host { verbose: pairs.verbose };
    setup::ensure(host)?;
    let file = |path, name| (path, format!("{DOM0_FOLDER}/{name}"));
    let files =
        vec![file(build::guest_kernel(host)?, "pvblk"), file(build::blkback(host)?, "blkback")];
    let config = LabConfig {
        files,
        linux_guest: true,
        fio: true,
        icount: pairs.icount,
        name: "pairs".into(),
        verbose: pairs.verbose,
        ..LabConfig::default()
    };
    let lab = Lab::boot_with(&config, progress)?;
    lab.dom0(&format!("modprobe brd rd_nr=1 rd_size={}", DISK_MIB * 1024))?.ok()?;
    lab.dom0(&format!("dd if=/dev/zero of={DISK} bs=1M count={DISK_MIB}"))?.ok()?;
    lab.start_blkback()?;
    let lives = [[Life::default(); 2]; PAIRS.len()];
    let mut figures = Figures { lives, icount: pairs.icount };
    for round in 0..2 {
        for step in 0..PAIRS.len() {
            let at = if round == 0 { step } else { PAIRS.len() - 1 - step };
            figures.lives[at][round] = measure(&lab, PAIRS[at], pairs.seconds)?;
            progress.phase(&format!("round {}: {}", round + 1, PAIRS[at]));
        }
    }
    progress.finish();
    lab.power_off()?;
    Ok(figures)
}

/// Runs one guest through all kinds of I/O.
fn measure(lab: &Lab, pair: Pair, seconds: u32) -> Result<Life> {
    let name = "pair";
    let guest = if pair.ours {
        Guest::pvblk(name, &format!("run=\"{}\"", bench(seconds)))
    } else {
        lab.linux_job(name, &fio(seconds), true)?;
        Guest::linux(name)
    };
    lab.create(&guest.disk(pair.back, DISK, "xvda", false))?;
    let status = lab.wait_status(name, GUEST_TIMEOUT, |_| {})?;
    let console = lab.guest_log(name);
    lab.destroy(name)?;
    if status != 0 {
        return Err(LabError::Failed(format!("{pair}: the guest's exit status is {status}")));
    }
    let found = if pair.ours { ours(&console) } else { fio_iops(&console) };
    let missing = || LabError::Failed(format!("{pair}: figures are missing on its console"));
    let [shell, first_read] = ["shell", "first read"].map(|name| timeline::mark(&console, name));
    Ok(Life { iops: found.ok_or_else(missing)?, shell, first_read })
}

fn bench(seconds: u32) -> String {
    let jobs = WORKS.map(|(rw, kib, depth)| {
        format!("bench xvda --rw={rw} --bs={kib}k --iodepth={depth} --runtime={seconds}")
    });
    // With counted time and two CPUs a new guest's clock was seen to skip a second in the first one
    // of its life; Linux is past that when fio starts.
    format!("sha256 xvda --size=4k; timeline; sleep 3000; {}", jobs.join("; "))
}

fn fio(seconds: u32) -> String {
    let jobs = WORKS.map(|(rw, kib, depth)| {
        format!(
            "fio --name=x --filename=/dev/xvda --direct=1 --rw={rw} --bs={kib}k --iodepth={depth} \
             --ioengine=libaio --time_based --runtime={seconds} --norandommap --randseed=7 \
             --gtod_reduce=1 --invalidate=0 --thread --minimal --terse-version=3 || exit 1\n"
        )
    });
    // As our own guest has it: no elevator between the program and the ring.
    format!("echo none >/sys/block/xvda/queue/scheduler\n{}", jobs.concat())
}

fn ours(console: &str) -> Option<[f64; WORKS.len()]> {
    let rows = Table::read(console).ok()?.rows;
    let iops: Vec<f64> = rows.iter().map(|row| row.iops).collect();
    iops.try_into().ok()
}

/// Reads and writes per second from fio's terse lines, version 3: fields 8 and 49.
fn fio_iops(console: &str) -> Option<[f64; WORKS.len()]> {
    let lines = console.lines().filter(|line| line.starts_with("3;"));
    let figures: Option<Vec<f64>> = lines
        .map(|line| {
            let fields: Vec<&str> = line.split(';').collect();
            let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
            Some(field(7)? + field(48)?)
        })
        .collect();
    figures?.try_into().ok()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15}", "front × back")?;
        for (rw, kib, depth) in WORKS {
            write!(f, " {:>26}", format!("{rw} {kib}k depth {depth}"))?;
        }
        writeln!(f)?;
        let peer = &self.lives[PAIRS.len() - 1];
        for (pair, rounds) in PAIRS.iter().zip(&self.lives) {
            write!(f, "{:<15}", pair.to_string())?;
            for at in 0..WORKS.len() {
                let ratio = |round: usize| rounds[round].iops[at] / peer[round].iops[at];
                let mean = f64::midpoint(rounds[0].iops[at], rounds[1].iops[at]);
                let cell = format!("{mean:.0} ({:.2}, {:.2})", ratio(0), ratio(1));
                write!(f, " {cell:>26}")?;
            }
            writeln!(f)?;
        }
        for (pair, rounds) in PAIRS.iter().zip(&self.lives) {
            for life in rounds {
                let marks = [("first command", life.shell), ("first block read", life.first_read)];
                for (what, mark) in marks {
                    mark.map_or(Ok(()), |mark| self.show(f, &format!("{pair}: {what}"), mark))?;
                }
            }
        }
        Ok(())
    }
}

impl Figures {
    /// One line for a mark: by the clock, and how much of that the guest ran.
    fn show(&self, f: &mut fmt::Formatter<'_>, what: &str, mark: Mark) -> fmt::Result {
        let Mark { time_ns, ran_ns } = mark;
        let ms = |ns: u64| format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000);
        write!(f, "{what} {} after entry, of which it ran {}", ms(time_ns), ms(ran_ns))?;
        match self.icount {
            Some(shift) => writeln!(f, ": {} instructions", ran_ns >> shift),
            None => writeln!(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_lines_are_read_by_field() {
        let mut fields = vec!["0".to_owned(); 130];
        fields[0] = "3".into();
        fields[7] = "120".into();
        fields[48] = "3".into();
        let line = fields.join(";");
        let console = format!("hello\r\n{line}\n{line}\n{line}\n{line}\n");
        assert_eq!(fio_iops(&console), Some([123.0; 4]));
        assert_eq!(fio_iops(&line), None);
        assert_eq!(fio_iops(&console.replace("120", "x")), None);
    }

    #[test]
    fn ratios_are_to_linux_on_linux_of_the_same_round() {
        let life = |iops| Life { iops: [iops; 4], ..Life::default() };
        let mut figures = Figures { lives: [[life(10.0); 2]; 4], icount: Some(2) };
        figures.lives[0] = [life(20.0), life(5.0)];
        figures.lives[1][1].first_read = Some(Mark { time_ns: 4_002_004, ran_ns: 2_001_000 });
        let shown = figures.to_string();
        let first = shown.lines().nth(1).unwrap();
        assert!(first.starts_with("pvblk × pvblk") && first.contains("12 (2.00, 0.50)"), "{shown}");
        let entry = "pvblk × kernel: first block read 4.002 ms after entry, of which it ran 2.001 ms: \
                     500250 instructions\n";
        assert!(shown.ends_with(entry), "{shown}");
        let last = shown.lines().nth(4).unwrap();
        assert!(last.starts_with("Linux × kernel") && last.contains("10 (1.00, 1.00)"), "{shown}");
    }

    #[test]
    fn the_jobs_of_our_guest_fit_its_command_line() {
        let line = format!("run=\"{}\"", bench(u32::MAX));
        assert!(Guest::pvblk("g", &line).check().is_ok());
    }
}
