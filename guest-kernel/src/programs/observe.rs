//! Looking on while a program works: the sampler behind `vmstat`, `top` and the steal warning.
//!
//! There is one thread, so nobody can look on from beside. Instead every wait of a program goes
//! through [`Disks`](super::Disks), which asks the observer before and after; a program that
//! computes without waiting asks it now and then. Between two looks nothing is sampled: times are
//! Xen's own, and depths are summed over time at each wait, so that the mean wait of a request is
//! exact for a program that waits (Little's law: requests in flight over time, by requests done).

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use blkfront::Counters;

use super::observe_report as report;
use crate::cpu::{CpuTimes, StealWatch};
use crate::time::Instant;

/// Time between two looks at the steal time.
const STEAL_INTERVAL: Duration = Duration::from_secs(1);

/// How a look is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line for each look, as vmstat.
    Lines,
    /// A page for each look, in place of the one before.
    Screen,
    /// A page for each look, one after the other.
    Batch,
}

/// What to show and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How.
    pub style: Style,
    /// Time between two looks.
    pub interval: Duration,
    /// How many looks; without end if `None`.
    pub count: Option<u64>,
    /// The first look is at all the time since the start, and comes at once.
    pub since_start: bool,
}

/// Everything that is counted, at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) at_ns: u64,
    pub(crate) cpu: CpuTimes,
    pub(crate) free_pages: u64,
    pub(crate) disks: Vec<DiskLook>,
}

/// What is counted of one disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskLook {
    pub(crate) name: String,
    pub(crate) counters: Counters,
    pub(crate) in_flight: u64,
    /// Requests in flight, summed over the nanoseconds since the observation began.
    pub(crate) queued_ns: u64,
}

/// The depth of one disk's queue, summed over time.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    depth: u64,
    queued_ns: u64,
}

/// What is being shown.
#[derive(Debug)]
struct Report {
    plan: Plan,
    /// The program that is looked at, if it is not the one that looks.
    task: String,
    next: Instant,
    done: u64,
    before: Look,
}

/// Who looks on.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    steal: StealWatch,
    steal_next: Option<Instant>,
    report: Option<Report>,
    queues: Vec<Queue>,
    summed_until: Option<Instant>,
}

impl Observer {
    pub(crate) const fn new() -> Self {
        Self {
            steal: StealWatch::new(),
            steal_next: None,
            report: None,
            queues: Vec::new(),
            summed_until: None,
        }
    }

    /// Begins to show. `first` is what is counted now.
    pub(crate) fn begin(&mut self, plan: Plan, task: &str, first: Look) {
        let now = Instant::from_nanos(first.at_ns);
        let (before, next) = if plan.since_start {
            (Look { at_ns: first.at_ns.saturating_sub(first.cpu.total()), ..Look::default() }, now)
        } else {
            (first, now.after(plan.interval))
        };
        self.queues.clear();
        self.summed_until = None;
        self.report = Some(Report { plan, task: task.into(), next, done: 0, before });
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.report = None;
    }

    /// Whether something is being shown.
    pub(crate) fn is_looking(&self) -> bool {
        self.report.is_some()
    }

    /// Whether all that was to be shown was shown.
    pub(crate) fn is_done(&self) -> bool {
        self.report.as_ref().is_none_or(|report| report.plan.count == Some(report.done))
    }

    /// Whether a program is looked at on a screen, which it has for itself.
    pub(crate) fn has_screen(&self) -> bool {
        let on_screen = |report: &Report| report.plan.style == Style::Screen;
        self.report.as_ref().is_some_and(|it| on_screen(it) && !it.task.is_empty())
    }

    /// Whether a program was looked at that ended before everything was shown, so that the rest is
    /// still to be shown. A screen has what the program said last on it now: nothing is drawn over
    /// that.
    pub(crate) fn wants_rest(&mut self) -> bool {
        let done = self.is_done();
        let Some(report) = self.report.as_mut().filter(|it| !it.task.is_empty()) else {
            return false;
        };
        if report.plan.style == Style::Screen && report.done == 0 {
            report.plan.style = Style::Batch;
        }
        !done && report.plan.style != Style::Screen
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.report.as_ref().filter(|_| !self.is_done()).map(|report| report.next)
    }

    /// Sums up the depths of the queues until `now`, of disks whose place never changes. Between two calls a depth counts as the mean
    /// of both.
    pub(crate) fn sum(&mut self, now: Instant, depths: impl Iterator<Item = u64>) {
        let passed = self.summed_until.map_or(Duration::ZERO, |before| now.since(before));
        let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.summed_until = Some(now);
        for (at, depth) in depths.enumerate() {
            if at == self.queues.len() {
                self.queues.push(Queue { depth, queued_ns: 0 });
            }
            let queue = &mut self.queues[at];
            queue.queued_ns += passed * (queue.depth + depth) / 2;
            queue.depth = depth;
        }
    }

    /// The sum of disk `at`.
    pub(crate) fn queued_ns(&self, at: usize) -> u64 {
        self.queues.get(at).map_or(0, |queue| queue.queued_ns)
    }

    /// What is to be shown of `look`, the time having come.
    pub(crate) fn show(&mut self, look: Look, steal_warn: u64) -> Option<String> {
        let report = self.report.as_mut()?;
        let text = match report.plan.style {
            Style::Lines => {
                report::line(&report.before, &look, report.done, !report.task.is_empty())
            }
            style => report::page(&report.before, &look, &report.task, steal_warn, style),
        };
        report.done += 1;
        report.next = Instant::from_nanos(look.at_ns).after(report.plan.interval);
        report.before = look;
        Some(text)
    }

    /// Whether it is time to look at the steal time.
    pub(crate) fn wants_steal(&mut self, now: Instant) -> bool {
        let due = self.steal_next.is_none_or(|next| now >= next);
        if due {
            self.steal_next = Some(now.after(STEAL_INTERVAL));
        }
        due
    }

    /// Looks at it; tells the percentage when it is to be warned of.
    pub(crate) fn look_at_steal(&mut self, cpu: CpuTimes, threshold: u64) -> Option<u64> {
        self.steal.look(cpu, threshold)
    }
}
