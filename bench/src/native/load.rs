//! A kind of load, and what a block of it has come to.

use std::fmt;

/// I/Os of 4 KiB at random places of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Writes instead of reads.
    pub writes: bool,
    /// Past the page cache.
    pub direct: bool,
    /// I/Os in flight.
    pub depth: u32,
    /// I/Os that are handed down at once; `depth` is a multiple of it.
    pub batch: u32,
    /// Whether the front sleeps while it has nothing to do, as a guest does that shares its
    /// processor; else it looks for answers without end.
    pub sleeps: bool,
}

impl Load {
    /// Reads through the page cache, half of them on their way down while the other half comes up,
    /// of a front that does not sleep.
    pub const fn reads(depth: u32) -> Self {
        let batch = if depth > 1 { depth / 2 } else { 1 };
        Self { writes: false, direct: false, depth, batch, sleeps: false }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, direct, depth, batch, sleeps } = *self;
        let rw = if writes { "randwrite" } else { "randread" };
        write!(f, "{rw} 4 KiB, depth {depth}")?;
        if batch != Self::reads(depth).batch {
            write!(f, " in batches of {batch}")?;
        }
        f.write_str(if direct { ", O_DIRECT" } else { ", cached" })?;
        f.write_str(if sleeps { ", a front that sleeps" } else { "" })
    }
}

/// What a block has come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// I/Os that were done.
    pub ios: f64,
    /// How long it took.
    pub wall_ns: f64,
    /// Processor time: all of a process's, less that of a front that never sleeps.
    pub cpu_ns: f64,
}

impl Block {
    /// I/Os for each second.
    pub fn iops(&self) -> f64 {
        self.ios / self.wall_ns * 1e9
    }

    /// Nanoseconds of a processor for each I/O.
    pub fn cpu_ns_each(&self) -> f64 {
        self.cpu_ns / self.ios
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_says_what_is_not_usual_about_it() {
        let load = Load::reads(32);
        assert_eq!(load.to_string(), "randread 4 KiB, depth 32, cached");
        let other = Load { writes: true, direct: true, batch: 8, sleeps: true, ..load };
        let name = "randwrite 4 KiB, depth 32 in batches of 8, O_DIRECT, a front that sleeps";
        assert_eq!(other.to_string(), name);
        assert_eq!(Load::reads(1).batch, 1);
    }

    #[test]
    fn a_block_is_told_by_the_second_and_by_the_io() {
        let block = Block { ios: 500.0, wall_ns: 1e6, cpu_ns: 1e5 };
        assert_eq!((block.iops(), block.cpu_ns_each()), (500_000.0, 200.0));
    }
}
