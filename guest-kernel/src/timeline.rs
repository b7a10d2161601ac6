//! When the kernel reached what, counted from its first instruction: by the clock, and by how long
//! its processor ran, which under emulation that counts is how many instructions that took.

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
    /// Nanoseconds that the processor had run then, by Xen's count. Xen's own work for us, such as
    /// hypercalls, is in it; waiting for others is not.
    pub ran_ns: u64,
}

/// Marks in the order in which they were reached. The first one is the kernel's entry.
#[derive(Debug)]
pub struct Timeline {
    marks: Mutex<[Option<Mark>; MARKS_MAX]>,
}

impl Timeline {
    /// Begins with the entry, before which the processor did not run.
    pub fn new(entry_tsc: u64) -> Self {
        let mut marks = [None; MARKS_MAX];
        marks[0] = Some(Mark { name: "entry", tsc: entry_tsc, ran_ns: 0 });
        Self { marks: Mutex::new(marks) }
    }

    /// Notes that `name` was reached when the time-stamp counter stood at `tsc` and the processor
    /// had run for `ran_ns`; only the first time counts.
    pub fn mark(&self, name: &'static str, tsc: u64, ran_ns: u64) {
        let mut marks = self.marks.lock();
        if marks.iter().flatten().all(|mark| mark.name != name)
            && let Some(free) = marks.iter_mut().find(|mark| mark.is_none())
        {
            *free = Some(Mark { name, tsc, ran_ns });
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
    /// The time from the entry to the mark, and how long of it the processor ran.
    pub fn since_entry(&self, name: &str) -> Option<[Duration; 2]> {
        let entry = self.marks[0]?.tsc;
        let mark = self.marks.iter().flatten().find(|mark| mark.name == name)?;
        let from_entry = TimeSample { tsc_timestamp: entry, system_time_ns: 0, ..self.sample };
        Some([from_entry.system_time_ns(mark.tsc), mark.ran_ns].map(Duration::from_nanos))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Mark { name, .. } in self.marks.iter().flatten() {
            let [time, ran] = self.since_entry(name).unwrap_or_default().map(|it| it.as_nanos());
            writeln!(f, "{name:<12} {time:>12} ns, {ran:>12} ns running")?;
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
        timeline.mark("memory", 3000, 700);
        timeline.mark("memory", 5000, 900);
        let report = timeline.report(SAMPLE);
        assert_eq!(report.since_entry("entry"), Some([Duration::ZERO; 2]));
        assert_eq!(report.since_entry("memory"), Some([1000, 700].map(Duration::from_nanos)));
        assert_eq!(report.since_entry("nowhere"), None);
        let text = report.to_string();
        assert_eq!(
            text.lines().nth(1),
            Some("memory               1000 ns,          700 ns running")
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn the_mark_past_the_limit_is_dropped() {
        let names: [&'static str; MARKS_MAX] =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
        let timeline = Timeline::new(0);
        for name in names {
            timeline.mark(name, 1, 1);
        }
        let report = timeline.report(SAMPLE);
        assert!(report.since_entry("o").is_some());
        assert!(report.since_entry("p").is_none());
    }
}
