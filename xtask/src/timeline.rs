//! The guest's `timeline`, read from its console.
//!
//! It says when our kernel reached what, and for how long its processor had run by then. Where
//! time is counted by instructions, the second figure is the instructions that were done for this
//! guest, Xen's work for it included: waiting for others is not in it.

/// When a guest reached a mark, in nanoseconds since its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// By the clock.
    pub time_ns: u64,
    /// By how long its processor had run.
    pub ran_ns: u64,
}

/// When the guest with this console reached `name`, if it says so.
pub fn mark(console: &str, name: &str) -> Option<Mark> {
    let mut lines = console.lines().filter_map(|line| line.trim_end().strip_prefix(name));
    lines.find_map(|rest| {
        let (time, ran) = rest.strip_suffix(" ns running")?.split_once(" ns,")?;
        Some(Mark { time_ns: time.trim().parse().ok()?, ran_ns: ran.trim().parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_from_among_other_lines() {
        let console = "disks are nice\r\ndisks            132762621 ns,      1234567 ns running\r\n\
                       first read       133314386 ns,      1300000 ns running\r\n";
        let disks = Mark { time_ns: 132_762_621, ran_ns: 1_234_567 };
        assert_eq!(mark(console, "disks"), Some(disks));
        assert_eq!(mark(console, "first read").map(|mark| mark.ran_ns), Some(1_300_000));
        assert_eq!(mark(console, "first"), None);
        assert_eq!(mark(console, "shell"), None);
    }
}
