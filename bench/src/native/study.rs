//! What is measured natively, and beside what.
//!
//! Loads through the whole pair, beside the raw loop on the same file; the ring alone, beside queues
//! and Xen's macros, by instructions and between two processors.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blkback::Image;
use rustix::fs::fsync;

use super::figure::Figure;
use super::load::{Block, Load};
use super::pair::{Counted, Pair};
use super::raw::Raw;
use super::rings::Shape;
use super::statistics::{Side, turns};
use super::{callgrind, cores};
use crate::quantiles::median;

/// The file: all of it fits the page cache, and no cache of a processor.
const FILE_MIB: usize = 256;
const MIB: usize = 1 << 20;
/// How long either side runs before it counts.
const WARM_UP: Duration = Duration::from_millis(20);
/// The depth at which batches are tried, and those.
const SWEPT: u32 = 32;
const BATCHES: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// Depths of which latencies are told.
const TIMED: [u32; 2] = [1, 32];
/// Messages of a block between two processors, and round trips of the word beside it.
const MESSAGES: u32 = 200_000;
const PINGS: u32 = 5000;
/// How long a pair of those blocks may take on average.
const PAIR_MAX: Duration = Duration::from_millis(200);

/// A machine with less to do than this, on average, is left to us.
const LOAD_MAX: f64 = 0.5;

const RAW: &str = "raw io_uring";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Pairs of blocks of each load.
    pub pairs: usize,
    /// Pairs of blocks of each point of a curve.
    pub few: usize,
    /// How long a block is.
    pub block: Duration,
    /// Depths.
    pub depths: &'static [u32],
    /// Batches of messages through the ring alone.
    pub batches: &'static [u32],
    /// Pages of each of those messages.
    pub segments: &'static [u32],
}

impl Measure {
    /// What figures are made of: some five minutes.
    pub const FULL: Self = Self {
        pairs: 100,
        few: 20,
        block: Duration::from_millis(50),
        depths: &[1, 8, 32, 128],
        batches: &[1, 8, 32],
        segments: &[1, 11],
    };
    /// A look at it: less than half a minute.
    pub const QUICK: Self = Self {
        pairs: 6,
        few: 2,
        block: Duration::from_millis(50),
        depths: &[1, 32],
        batches: &[32],
        segments: &[1],
    };
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file to be read and written; made, and gone afterwards.
    pub file: PathBuf,
    /// The raw loop.
    pub raw: PathBuf,
    /// The ring in Xen's macros, if it could be built.
    pub macros: Option<PathBuf>,
    /// This program, for runs under an instruction counter.
    pub own: PathBuf,
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The figures.
    pub figures: Vec<Figure>,
    /// I/Os for each second by batch: ours and the raw loop's.
    pub sweep: Vec<(u32, [f64; 2])>,
    /// By depth, how long an I/O takes: in nanoseconds, sorted.
    pub latencies: Vec<(u32, Vec<f64>)>,
    /// What could not be measured, and why; what else the machine did.
    pub notes: Vec<String>,
}

/// A pair, and the raw loop on the same file.
struct Beside {
    pair: Pair,
    raw: Raw,
    entered: [f64; 2],
}

impl Beside {
    fn start(place: &Place, image: &Arc<Image>, load: Load) -> io::Result<Self> {
        // What former loads have written is not written back under this one.
        fsync(image)?;
        cores::pin(1);
        let raw = Raw::start(&place.raw, &place.file, load)?;
        Ok(Self { pair: Pair::start(image, load)?, raw, entered: [0.0; 2] })
    }

    fn block(&mut self, side: Side, length: Duration) -> io::Result<Block> {
        match side {
            Side::Ours => self.pair.block(length),
            Side::Peer => {
                let (block, entered) = self.raw.block(length)?;
                self.entered = [self.entered[0] + entered, self.entered[1] + block.ios];
                Ok(block)
            }
        }
    }

    /// Pairs of blocks, ours first in each, whoever ran first.
    fn blocks(&mut self, pairs: usize, length: Duration) -> io::Result<Vec<[Block; 2]>> {
        self.block(Side::Peer, WARM_UP)?;
        self.block(Side::Ours, WARM_UP)?;
        let both = |turns: [Side; 2]| {
            let [first, second] = [self.block(turns[0], length)?, self.block(turns[1], length)?];
            Ok(if turns[0] == Side::Ours { [first, second] } else { [second, first] })
        };
        turns(pairs).map(both).collect()
    }

    /// What the pair has counted, and the raw loop's calls for each I/O.
    fn end(self) -> io::Result<(Counted, f64)> {
        let [entered, ios] = self.entered;
        Ok((self.pair.end()?, entered / ios))
    }
}

/// Measures all of it; says what it is at.
///
/// # Errors
/// The file cannot be made, the raw loop does not run, an I/O failed.
pub fn all(place: &Place, measure: Measure) -> io::Result<Measured> {
    let start = Instant::now();
    let say = |what: &str| eprintln!("{:6.1} s  {what}", start.elapsed().as_secs_f64());
    let mut measured = Measured::default();
    measured.notes.extend(std::fs::read_to_string("/proc/loadavg").ok().and_then(|it| busy(&it)));
    make_file(place)?;
    let image = Arc::new(Image::open(&place.file, false).map_err(io::Error::other)?);
    // Writes last: what they leave behind takes a while to get to the disk.
    for writes in [false, true] {
        for direct in [false, true] {
            for load in loads(measure.depths, writes, direct) {
                say(&load.to_string());
                measured.figures.extend(compared(place, &image, load, measure)?);
            }
        }
        if !writes {
            say("batches and latencies");
            measured.sweep = sweep(place, &image, measure)?;
            measured.latencies = latencies(&image, measure)?;
        }
    }
    std::fs::remove_file(&place.file)?;
    say("the ring between two processors");
    measured.figures.extend(between_processors(measure, &mut measured.notes));
    say("the ring's instructions");
    measured.figures.extend(instructions(place, measure, &mut measured.notes));
    say("done");
    Ok(measured)
}

/// Whether others have work for a processor, from the load average of the last minute.
fn busy(loadavg: &str) -> Option<String> {
    let load: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    (load > LOAD_MAX).then(|| format!("others used the machine: a load of {load} at the start"))
}

fn make_file(place: &Place) -> io::Result<()> {
    let mut file = File::create(&place.file)?;
    for _ in 0..FILE_MIB {
        file.write_all(&[0x5a; MIB])?;
    }
    file.sync_all()
}

/// Each depth with a front that never sleeps; a front that sleeps for reads at the two depths that
/// differ the most in what waking costs.
fn loads(depths: &[u32], writes: bool, direct: bool) -> Vec<Load> {
    let load = |depth: &u32| Load { writes, direct, ..Load::reads(*depth) };
    let sleeping =
        TIMED.iter().filter(|_| !writes).map(|depth| Load { sleeps: true, ..load(depth) });
    depths.iter().map(load).chain(sleeping).collect()
}

/// One load through the pair and through the raw loop.
fn compared(
    place: &Place,
    image: &Arc<Image>,
    load: Load,
    measure: Measure,
) -> io::Result<Vec<Figure>> {
    let mut beside = Beside::start(place, image, load)?;
    let blocks = beside.blocks(measure.pairs, measure.block)?;
    let (counted, entered) = beside.end()?;
    let of =
        |what: fn(&Block) -> f64| blocks.iter().map(|both| both.each_ref().map(what)).collect();
    let (iops, cpu): (Vec<_>, Vec<_>) = (of(Block::iops), of(Block::cpu_ns_each));
    let whose = if load.sleeps { "both ends" } else { "the back" };
    let each = |count: f64| count / counted.ios;
    Ok(vec![
        Figure::paired(format!("{load}: IOPS"), "IOPS", RAW, &iops),
        Figure::paired(format!("{load}: processor time of {whose}"), "ns/I/O", RAW, &cpu),
        Figure::counted(
            format!("{load}: io_uring_enter"),
            "1/I/O",
            each(counted.enters),
            Some((RAW, entered)),
        ),
        Figure::counted(
            format!("{load}: system calls of the back"),
            "1/I/O",
            each(counted.back_calls),
            Some((RAW, entered)),
        ),
        Figure::counted(
            format!("{load}: notifications, both ways"),
            "1/I/O",
            each(counted.notifications),
            None,
        ),
    ])
}

fn sweep(place: &Place, image: &Arc<Image>, measure: Measure) -> io::Result<Vec<(u32, [f64; 2])>> {
    let point = |batch| {
        let mut beside = Beside::start(place, image, Load { batch, ..Load::reads(SWEPT) })?;
        let blocks = beside.blocks(measure.few, measure.block)?;
        beside.end()?;
        let side =
            |at: usize| median(&blocks.iter().map(|both| both[at].iops()).collect::<Vec<_>>());
        Ok((batch, [side(0), side(1)]))
    };
    BATCHES.into_iter().map(point).collect()
}

fn latencies(image: &Arc<Image>, measure: Measure) -> io::Result<Vec<(u32, Vec<f64>)>> {
    let at = |depth| {
        let mut pair = Pair::start(image, Load::reads(depth))?;
        pair.block(WARM_UP)?;
        let mut took = pair.latencies(measure.block * 4)?;
        pair.end()?;
        took.sort_by(f64::total_cmp);
        Ok((depth, took))
    };
    TIMED.into_iter().map(at).collect()
}

/// Our ring and a queue in turns, each pair beside a word's round trip; a pair in which that takes too
/// long is left out. On a machine that others use, most are: it gives up in time.
fn between_processors(measure: Measure, notes: &mut Vec<String>) -> Vec<Figure> {
    cores::pin(0);
    let (mut blocks, mut pings, start) = (Vec::new(), Vec::new(), Instant::now());
    let most = PAIR_MAX * u32::try_from(measure.pairs).unwrap_or(u32::MAX);
    let is_close = |ping: f64| ping <= cores::PING_PONG_MAX_NS;
    for sides in turns(measure.pairs).take_while(|_| start.elapsed() < most) {
        let ping = cores::ping_pong(PINGS);
        if !is_close(ping) {
            continue;
        }
        let times = sides.map(|side| match side {
            Side::Ours => cores::ours(MESSAGES),
            Side::Peer => cores::through_rtrb(MESSAGES),
        });
        if is_close(cores::ping_pong(PINGS)) {
            blocks.push(if sides[0] == Side::Ours { times } else { [times[1], times[0]] });
            pings.push(ping);
        }
    }
    if blocks.len() < measure.pairs {
        notes.push(format!(
            "the ring between two processors: only {} of {} pairs of blocks, as a word took more than \
             {} ns there and back beside the others",
            blocks.len(),
            measure.pairs,
            cores::PING_PONG_MAX_NS
        ));
    }
    if blocks.is_empty() {
        return Vec::new();
    }
    let name = "ring between two processors, 32 in flight: request and response";
    vec![
        Figure::paired(name, "ns", "rtrb, one way", &blocks),
        Figure::counted("a word to the other processor and back", "ns", median(&pings), None),
    ]
}

/// Our ring's instructions for each message, beside its peers'.
fn instructions(place: &Place, measure: Measure, notes: &mut Vec<String>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for &segments in measure.segments {
        for &batch in measure.batches {
            let shape = Shape { segments, batch };
            let ours = match callgrind::each(|messages| through(place, "ours", shape, messages)) {
                Ok(ours) => ours,
                Err(error) => {
                    notes.push(format!(
                        "instructions of the ring were not counted: valgrind: {error}"
                    ));
                    return figures;
                }
            };
            let name = format!(
                "ring, {segments} {} in batches of {batch}",
                if segments == 1 { "page" } else { "pages" }
            );
            for (who, peer) in
                [("macros", "Xen's macros"), ("rtrb", "rtrb"), ("crossbeam", "crossbeam-queue")]
            {
                if who == "macros" && place.macros.is_none() {
                    continue;
                }
                match callgrind::each(|messages| through(place, who, shape, messages)) {
                    Ok(theirs) => figures.push(Figure::counted(
                        format!("{name}, beside {peer}"),
                        "instructions",
                        ours,
                        Some((peer, theirs)),
                    )),
                    Err(error) => {
                        notes.push(format!("instructions of {peer} were not counted: {error}"))
                    }
                }
            }
        }
    }
    figures
}

/// The command that passes so many messages through the ring of `who`.
fn through(place: &Place, who: &str, shape: Shape, messages: u64) -> Command {
    let mut command = match &place.macros {
        Some(macros) if who == "macros" => Command::new(macros),
        _ => {
            let mut own = Command::new(&place.own);
            own.args(["ring", who]);
            own
        }
    };
    command.args([shape.segments, shape.batch].map(|it| it.to_string())).arg(messages.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_a_part_of_its_depth() {
        let batches = BATCHES.map(|batch| Load { batch, ..Load::reads(SWEPT) });
        let all = [false, true].map(|direct| loads(Measure::FULL.depths, false, direct)).concat();
        for load in all.into_iter().chain(batches) {
            assert!(load.depth.is_multiple_of(load.batch), "{load}");
        }
    }

    #[test]
    fn a_run_beside_others_says_so() {
        assert_eq!(busy("0.31 0.80 2.00 1/200 5\n"), None);
        assert!(busy("1.50 0.80 2.00 1/200 5\n").is_some_and(|it| it.contains("a load of 1.5 ")));
        assert_eq!(busy(""), None);
    }

    #[test]
    fn a_full_measure_has_as_many_blocks_as_its_intervals_need() {
        let Measure { pairs, block, .. } = Measure::FULL;
        assert!(pairs >= 100 && (50..=200).contains(&block.as_millis()));
        assert!(Measure::QUICK.pairs < pairs);
    }
}
