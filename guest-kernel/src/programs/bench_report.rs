//! What a bench job found out, for people and for programs.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use blkfront::Counters;

use super::bench::Mix;
use super::histogram::Histogram;
use super::{Hundredths, Speed, per_second};

/// The figures of one job.
pub(crate) struct Report {
    pub(crate) disk: String,
    pub(crate) rw: Mix,
    pub(crate) block_bytes: usize,
    pub(crate) depth: usize,
    /// What the disk's elevator is called.
    pub(crate) elevator: String,
    /// From the first request to the last completion.
    pub(crate) time: Duration,
    pub(crate) latency: Histogram,
    /// The most I/Os that were in flight: less than `depth` if memory or the ring is short.
    pub(crate) deepest: usize,
    /// How often the job had to sleep.
    pub(crate) waits: u64,
    /// How many hypercalls were made meanwhile, for whatever reason.
    pub(crate) hypercalls: u64,
    pub(crate) counters: Counters,
}

impl Report {
    fn ios(&self) -> u64 {
        self.latency.total()
    }

    fn speed(&self) -> Speed {
        Speed { bytes: self.ios() * self.block_bytes as u64, time: self.time }
    }

    /// I/Os per second.
    fn iops(&self) -> u64 {
        per_second(self.ios(), self.time) / 100
    }

    /// One line in the manner of fio's.
    pub(crate) const fn human(&self) -> Human<'_> {
        Human(self)
    }

    /// One line of flat JSON with all figures.
    pub(crate) const fn json(&self) -> Json<'_> {
        Json(self)
    }
}

/// Hundredths of `a` per `b`; 0 if there is no `b`.
fn ratio(a: u64, b: u64) -> Hundredths {
    Hundredths((a * 100).checked_div(b).unwrap_or(0))
}

pub(crate) struct Human<'a>(&'a Report);

impl fmt::Display for Human<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let counters = &report.counters;
        write!(
            f,
            "{}: {} bs={} iodepth={}: IOPS={}, BW={}MiB/s, lat p50={}us p99={}us, \
             {} requests/event sent, {} per event received, batch {}",
            report.disk,
            report.rw.name(),
            report.block_bytes,
            report.depth,
            report.iops(),
            report.speed().mebibytes(),
            report.latency.quantile(500) / 1000,
            report.latency.quantile(990) / 1000,
            ratio(counters.submitted(), counters.notifications_sent),
            ratio(counters.completed(), counters.notifications_received),
            ratio(counters.submitted(), counters.batches),
        )
    }
}

/// Nanoseconds, shown as microseconds.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

pub(crate) struct Json<'a>(&'a Report);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let (latency, counters) = (&report.latency, &report.counters);
        write!(
            f,
            "{{\"disk\":\"{}\",\"scheduler\":\"{}\",\"rw\":\"{}\",\"bs\":{},\"iodepth\":{},\"runtime_ns\":{},\
             \"total_ios\":{},\"io_bytes\":{},\"iops\":{},\"mib_s\":{},",
            report.disk,
            report.elevator,
            report.rw.name(),
            report.block_bytes,
            report.depth,
            report.time.as_nanos(),
            report.ios(),
            report.speed().bytes,
            report.iops(),
            report.speed().mebibytes(),
        )?;
        write!(
            f,
            "\"min_us\":{},\"mean_us\":{},\"p50_us\":{},\"p99_us\":{},\"max_us\":{},",
            Micros(latency.least()),
            Micros(latency.mean()),
            Micros(latency.quantile(500)),
            Micros(latency.quantile(990)),
            Micros(latency.most()),
        )?;
        write!(
            f,
            "\"requests_per_notification\":{},\"responses_per_notification\":{},\"batch\":{},\
             \"deepest\":{},\"waits\":{},\"hypercalls\":{},\"hypercalls_per_request\":{},",
            ratio(counters.submitted(), counters.notifications_sent),
            ratio(counters.completed(), counters.notifications_received),
            ratio(counters.submitted(), counters.batches),
            report.deepest,
            report.waits,
            report.hypercalls,
            ratio(report.hypercalls, counters.submitted()),
        )?;
        write!(
            f,
            "\"requests\":{},\"merged\":{},\"batches\":{},\"response_batches\":{},\
             \"notifications_sent\":{},\"notifications_received\":{}}}",
            counters.submitted(),
            counters.merged,
            counters.batches,
            counters.response_batches,
            counters.notifications_sent,
            counters.notifications_received,
        )
    }
}
