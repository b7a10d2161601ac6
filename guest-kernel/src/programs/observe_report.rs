//! How a look is written: a line as of vmstat, or a page as of top.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::time::Duration;

use super::observe::{DiskLook, Look, Style};
use super::{Hundredths, MEBIBYTE, per_second};
use crate::cpu::CpuTimes;

/// Lines between two headings.
const HEADING_EVERY: u64 = 20;

/// Disks that are waited for and named.
const NAMED_MAX: usize = 2;

const HEADING: &str = " r  b     free     bi     bo     in us sy id wa st";

/// What one disk did between two looks.
struct Rates {
    name: String,
    in_flight: u64,
    /// Hundredths of each, per second.
    ios: u64,
    read_kib: u64,
    written_kib: u64,
    events: u64,
    bytes: u64,
    /// Hundredths of requests in flight, the mean over time.
    depth: u64,
    /// Hundredths of milliseconds that a request took, the mean.
    wait: u64,
    /// Hundredths of requests for each notification that was sent.
    batch: u64,
}

impl Rates {
    fn new(before: Option<&DiskLook>, now: &DiskLook, time: Duration) -> Self {
        let count = |read: fn(&DiskLook) -> u64| read(now).saturating_sub(before.map_or(0, read));
        let rate = |read| per_second(count(read), time);
        let [requests, responses] =
            [count(|it| it.counters.submitted()), count(|it| it.counters.completed())];
        let queued_ns = count(|it| it.queued_ns);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let ratio = |over: u64, under: u64| over.saturating_mul(100).checked_div(under);
        let read = rate(|it| it.counters.read_sectors * 512);
        let written = rate(|it| it.counters.written_sectors * 512);
        Self {
            name: now.name.clone(),
            in_flight: now.in_flight,
            ios: per_second(responses, time),
            read_kib: read / 1024,
            written_kib: written / 1024,
            bytes: read.saturating_add(written),
            events: rate(|it| it.counters.notifications_received),
            depth: ratio(queued_ns, nanoseconds).unwrap_or(0),
            wait: ratio(queued_ns / 10_000, responses).unwrap_or(0) / 100,
            batch: ratio(requests, count(|it| it.counters.notifications_sent)).unwrap_or(0),
        }
    }
}

fn rates(before: &Look, now: &Look) -> Vec<Rates> {
    let time = Duration::from_nanos(now.at_ns.saturating_sub(before.at_ns));
    let old = |name: &str| before.disks.iter().find(|disk| disk.name == name);
    now.disks.iter().map(|disk| Rates::new(old(&disk.name), disk, time)).collect()
}

/// Tenths, as a number with one digit behind the point.
fn tenths(value: u64) -> String {
    format!("{}.{}", value / 10, value % 10)
}

/// The five shares, in tenths of a percent: us, sy, id, wa, st.
fn shares(before: &Look, now: &Look) -> [u64; 5] {
    let spent: CpuTimes = now.cpu.since(&before.cpu);
    [spent.user, spent.system, spent.idle, spent.wait, spent.steal].map(|it| spent.tenths(it))
}

/// A line of vmstat, after a heading where there is to be one. `runs`: there is a program besides
/// the one that looks.
pub(super) fn line(before: &Look, now: &Look, done: u64, runs: bool) -> String {
    let rates = rates(before, now);
    let waits = rates.iter().any(|disk| disk.in_flight > 0);
    let sum = |read: fn(&Rates) -> u64| rates.iter().map(read).sum::<u64>() / 100;
    let mut text = String::new();
    if done.is_multiple_of(HEADING_EVERY) {
        text.push_str(HEADING);
        text.push('\n');
    }
    let counts = [u8::from(runs && !waits), u8::from(waits)];
    let [bi, bo, events] = [sum(|it| it.read_kib), sum(|it| it.written_kib), sum(|it| it.events)];
    let [us, sy, id, wa, st] = shares(before, now).map(|share| (share + 5) / 10);
    let free = now.free_pages * 4;
    let written = write!(
        text,
        "{:>2} {:>2} {free:>8} {bi:>6} {bo:>6} {events:>6} {us:>2} {sy:>2} {id:>2} {wa:>2} {st:>2}",
        counts[0], counts[1],
    );
    written.expect("memory takes text");
    text
}

/// A page of top.
pub(super) fn page(before: &Look, now: &Look, task: &str, steal_warn: u64, style: Style) -> String {
    let rates = rates(before, now);
    let mut lines = Vec::new();
    let time = now.at_ns.saturating_sub(before.at_ns) / 1_000_000;
    lines.push(format!("top - the last {}.{:03} s", time / 1000, time % 1000));
    let shares = shares(before, now);
    let [us, sy, id, wa, st] = shares.map(tenths);
    let high = if shares[4] > steal_warn * 10 { ", taken by others" } else { "" };
    lines
        .push(format!("%Cpu(s): {us:>5} us, {sy:>5} sy, {id:>5} id, {wa:>5} wa, {st:>5} st{high}"));
    lines.push(format!("KiB Mem : {} free", now.free_pages * 4));
    lines.push(format!(
        "{:<8} {:>10} {:>10} {:>9} {:>8} {:>9} {:>10}",
        "disk", "IOPS", "MiB/s", "in flight", "depth", "await ms", "reqs/notif"
    ));
    lines.extend(rates.iter().map(disk_line));
    lines.push(waiting(&rates, task));
    match style {
        Style::Screen => format!("\x1b[H{}\x1b[K\n\x1b[J", lines.join("\x1b[K\n")),
        _ => lines.join("\n") + "\n",
    }
}

fn disk_line(disk: &Rates) -> String {
    format!(
        "{:<8} {:>10} {:>10} {:>9} {:>8} {:>9} {:>10}",
        disk.name,
        format!("{}", Hundredths(disk.ios)),
        format!("{}", Hundredths(disk.bytes / MEBIBYTE)),
        disk.in_flight,
        format!("{}", Hundredths(disk.depth)),
        format!("{}", Hundredths(disk.wait)),
        format!("{}", Hundredths(disk.batch)),
    )
}

/// What waits, and for which disks. A page is drawn in place, so no line may be too long for the
/// screen.
fn waiting(rates: &[Rates], task: &str) -> String {
    let mut busy: Vec<String> = rates
        .iter()
        .filter(|disk| disk.in_flight > 0)
        .map(|disk| format!("{} ({} in flight)", disk.name, disk.in_flight))
        .collect();
    let more = busy.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        busy.truncate(NAMED_MAX);
        busy.push(format!("{more} more"));
    }
    match (busy.is_empty(), task) {
        (true, "") => String::from("waits: nothing"),
        (true, task) => format!("waits: nothing, {task} runs"),
        (false, "") => format!("waits: requests of {}", busy.join(", ")),
        (false, task) => format!("waits: {task} for {}", busy.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose 16 disks do as much as can be.
    fn busy(at_ns: u64) -> Look {
        let disk = |at: u32| {
            let mut disk = DiskLook {
                name: format!("{}", blkfront::DiskName::new(51712 + at * 16)),
                counters: blkfront::Counters::default(),
                in_flight: 1024,
                queued_ns: at_ns * 1024,
            };
            disk.counters.requests = at_ns / 1000;
            disk.counters.responses = at_ns / 1000;
            disk.counters.read_sectors = at_ns / 10;
            disk.counters.notifications_sent = at_ns / 1_000_000;
            disk
        };
        let cpu = CpuTimes { user: 0, system: 0, idle: 0, wait: 0, steal: at_ns };
        Look { at_ns, cpu, free_pages: 1 << 19, disks: (0..16).map(disk).collect() }
    }

    #[test]
    fn a_page_fits_into_80_columns_and_24_rows_whatever_happens() {
        let (before, now) = (busy(1_000_000_000), busy(100_000_000_000));
        let page = page(&before, &now, "memtest", 5, Style::Screen);
        let rows: Vec<&str> = page.split('\n').collect();
        assert!(rows.len() < 24, "{} rows", rows.len());
        for row in rows {
            let text = row.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "");
            assert!(text.len() < 80, "{} columns: {text}", text.len());
        }
        assert!(page.contains("st, taken by others"), "{page}");
        assert!(
            page.contains(
                "waits: memtest for xvda (1024 in flight), xvdb (1024 in flight), 14 more"
            )
        );
    }
}
