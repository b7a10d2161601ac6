//! When the kernel reached what, counted from its first instruction.

use core::fmt;
use core::time::Duration;

use spin::Mutex;
use xen::abi::TimeSample;

/// The most marks that are kept; later ones are dropped.
pub const MARKS_MAX: usize = 16;

/// A point that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its name.
    pub name: &'static str,
    /// The time-stamp counter then.
    pub tsc: u64,
}

/// Marks in the order in which they were reached. The first one is the kernel's entry.
#[derive(Debug)]
pub struct Timeline {
    marks: Mutex<[Option<Mark>; MARKS_MAX]>,
}

impl Timeline {
    /// Begins with the entry.
    pub fn new(entry_tsc: u64) -> Self {
        let mut marks = [None; MARKS_MAX];
        marks[0] = Some(Mark { name: "entry", tsc: entry_tsc });
        Self { marks: Mutex::new(marks) }
    }

    /// Notes that `name` was reached when the time-stamp counter stood at `tsc`; only the first
    /// time counts.
    pub fn mark(&self, name: &'static str, tsc: u64) {
        let mut marks = self.marks.lock();
        if marks.iter().flatten().all(|mark| mark.name != name)
            && let Some(free) = marks.iter_mut().find(|mark| mark.is_none())
        {
            *free = Some(Mark { name, tsc });
        }
    }

    /// The marks, with the time since the entry that `sample` makes of their counts.
    pub fn report(&self, sample: TimeSample) -> Report {
        Report { marks: *self.marks.lock(), sample }
    }
}

/// A timeline to be printed: one line for each mark.
#[derive(Clone, Debug)]
pub struct Report {
    marks: [Option<Mark>; MARKS_MAX],
    sample: TimeSample,
}

impl Report {
    /// Counts and time from the entry to the mark.
    pub fn since_entry(&self, name: &str) -> Option<(u64, Duration)> {
        let entry = self.marks[0]?.tsc;
        let mark = self.marks.iter().flatten().find(|mark| mark.name == name)?;
        let from_entry = TimeSample { tsc_timestamp: entry, system_time_ns: 0, ..self.sample };
        let time = Duration::from_nanos(from_entry.system_time_ns(mark.tsc));
        Some((mark.tsc.saturating_sub(entry), time))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in self.marks.iter().flatten() {
            let (counts, time) = self.since_entry(mark.name).unwrap_or_default();
            let (name, ns) = (mark.name, time.as_nanos());
            writeln!(f, "{name:<24} {ns:>12} ns {counts:>14} counts")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    /// One count is half a nanosecond.
    const SAMPLE: TimeSample = TimeSample {
        tsc_timestamp: 999,
        system_time_ns: 77,
        tsc_to_system_mul: 1 << 31,
        tsc_shift: 0,
    };

    #[test]
    fn marks_are_counted_from_the_entry() {
        let timeline = Timeline::new(1000);
        timeline.mark("memory", 3000);
        timeline.mark("memory", 5000);
        let report = timeline.report(SAMPLE);
        assert_eq!(report.since_entry("entry"), Some((0, Duration::ZERO)));
        assert_eq!(report.since_entry("memory"), Some((2000, Duration::from_nanos(1000))));
        assert_eq!(report.since_entry("nowhere"), None);
        assert_eq!(report.to_string().lines().count(), 2);
    }

    #[test]
    fn the_mark_past_the_limit_is_dropped() {
        let names: [&'static str; MARKS_MAX] =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
        let timeline = Timeline::new(0);
        for name in names {
            timeline.mark(name, 1);
        }
        let report = timeline.report(SAMPLE);
        assert!(report.since_entry("o").is_some());
        assert!(report.since_entry("p").is_none());
    }
}
