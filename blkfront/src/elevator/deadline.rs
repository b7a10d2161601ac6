//! The elevator that sweeps over the disk and leaves nobody waiting for too long.
//!
//! Reads and writes stand in two lines, each sorted by sector. One line is served in batches of
//! `fifo_batch` requests of the ring, upwards from where its last batch ended. Between batches:
//!
//! * reads go first, because somebody waits for them; but when writes were passed over
//!   `writes_starved` times, they are next;
//! * the line goes on with its sweep, unless its oldest request has waited for longer than
//!   `read_expire` or `write_expire`, or nothing is left above: then the sweep begins anew at the
//!   oldest request.
//!
//! So a request may wait for its time to expire, and then for the batches that are due before
//! it. The parameters are those of Linux's `mq-deadline`, by name and meaning
//! (`Documentation/block/deadline-iosched.rst`).

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use super::sorted::{Key, Sorted};
use super::{Batch, Direction, Elevator, Parameter, Time, Waiting};

const READS: usize = 0;
const WRITES: usize = 1;
/// Where values are: first the time for each line, then these.
const FIFO_BATCH: usize = 2;
const WRITES_STARVED: usize = 3;
const FRONT_MERGES: usize = 4;
/// Name, meaning, bounds, and the value at first.
const PARAMETERS: [(&str, &str, (u64, u64), u64); 5] = [
    ("read_expire", "milliseconds that a read waits in the sweep", (0, 3_600_000), 500),
    ("write_expire", "milliseconds that a write waits in the sweep", (0, 3_600_000), 5000),
    ("fifo_batch", "requests of a batch in one direction", (1, 1024), 16),
    ("writes_starved", "batches of reads before one of writes", (0, 1024), 2),
    ("front_merges", "1: also join a request to an older one behind it on the disk", (0, 1), 1),
];

/// A request that waits, and those before and behind it in the order of arrival.
#[derive(Clone, Copy, Debug)]
struct Node {
    key: Key,
    arrived: Time,
    older: Option<u16>,
    newer: Option<u16>,
}

/// The requests of one direction.
#[derive(Debug)]
struct Line {
    sorted: Sorted,
    oldest: Option<u16>,
    newest: Option<u16>,
    /// Where the sweep is.
    position: u64,
}

impl Line {
    fn new(capacity: usize) -> Self {
        Self { sorted: Sorted::new(capacity), oldest: None, newest: None, position: 0 }
    }

    fn insert(&mut self, nodes: &mut [Node], key: Key, arrived: Time) {
        self.sorted.insert(key);
        nodes[usize::from(key.place)] = Node { key, arrived, older: self.newest, newer: None };
        match self.newest {
            Some(newest) => nodes[usize::from(newest)].newer = Some(key.place),
            None => self.oldest = Some(key.place),
        }
        self.newest = Some(key.place);
    }

    fn remove(&mut self, nodes: &mut [Node], key: Key) {
        self.sorted.remove(key);
        let Node { older, newer, .. } = nodes[usize::from(key.place)];
        match older {
            Some(older) => nodes[usize::from(older)].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => nodes[usize::from(newer)].older = older,
            None => self.newest = older,
        }
    }

    /// The next request of the sweep.
    fn ahead(&self) -> Option<Key> {
        self.sorted.from(self.position)
    }
}

/// What is to go down next, and what its going changes.
#[derive(Clone, Copy, Debug)]
struct Next {
    line: usize,
    key: Key,
    /// How often writes were passed over, and the batch so far, without this one.
    starved: u64,
    batched: u64,
}

/// Sorted by sector, with an end to waiting.
#[derive(Debug)]
pub struct Deadline {
    parameters: Vec<Parameter>,
    values: [u64; PARAMETERS.len()],
    nodes: Vec<Node>,
    /// Reads and writes.
    lines: [Line; 2],
    /// The line of the batch, how many of it went down, and how often writes were passed over.
    line: usize,
    batched: u64,
    starved: u64,
    arrivals: u64,
}

impl Deadline {
    /// Its name.
    pub const NAME: &str = "deadline";

    /// For at most `capacity` requests that wait. Nothing is allocated later.
    pub fn new(capacity: usize) -> Self {
        let parameter = |(name, about, (least, most), _): &(&'static str, &'static str, _, _)| {
            let (name, about) = (Cow::Borrowed(*name), Cow::Borrowed(*about));
            Parameter { name, about, least: *least, most: *most }
        };
        let key = Key { sector: 0, arrival: 0, place: 0 };
        let values = PARAMETERS.map(|(.., value)| value);
        Self {
            parameters: PARAMETERS.iter().map(parameter).collect(),
            values,
            nodes: vec![Node { key, arrived: Time(0), older: None, newer: None }; capacity],
            lines: [Line::new(capacity), Line::new(capacity)],
            line: READS,
            batched: u64::MAX,
            starved: 0,
            arrivals: 0,
        }
    }

    /// What is to go down next; `None` if nothing waits.
    fn next(&self, now: Time) -> Option<Next> {
        if self.batched < self.values[FIFO_BATCH]
            && let Some(key) = self.lines[self.line].ahead()
        {
            let Self { line, starved, batched, .. } = *self;
            return Some(Next { line, key, starved, batched });
        }
        let [reads, writes] = [READS, WRITES].map(|line| self.lines[line].oldest.is_some());
        let (line, starved) = match (reads, writes) {
            (true, true) if self.starved < self.values[WRITES_STARVED] => (READS, self.starved + 1),
            (true, false) => (READS, self.starved),
            _ => (WRITES, 0),
        };
        let oldest = self.nodes[usize::from(self.lines[line].oldest?)];
        let in_time = now < oldest.arrived.after_ms(self.values[line]);
        let key = self.lines[line].ahead().filter(|_| in_time).unwrap_or(oldest.key);
        Some(Next { line, key, starved, batched: 0 })
    }

    /// Notes that a request of the batch's line went down.
    fn leave(&mut self, key: Key) {
        let line = &mut self.lines[self.line];
        line.remove(&mut self.nodes, key);
        line.position = key.sector;
    }
}

impl Elevator for Deadline {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn insert(&mut self, request: Waiting) {
        let Waiting { place, direction, sector, arrived, .. } = request;
        let key = Key { sector, arrival: self.arrivals, place };
        self.arrivals += 1;
        let line = match direction {
            Direction::Read => READS,
            Direction::Write => WRITES,
        };
        self.lines[line].insert(&mut self.nodes, key, arrived);
    }

    fn take_batch(&mut self, batch: &mut dyn Batch, now: Time) {
        while let Some(Next { line, key, starved, batched }) = self.next(now) {
            if !batch.begin(key.place) {
                return;
            }
            (self.line, self.starved, self.batched) = (line, starved, batched + 1);
            self.leave(key);
            let mut last = key;
            while let Some(key) = self.lines[line].ahead()
                && (key.arrival > last.arrival || self.values[FRONT_MERGES] > 0)
                && batch.join(key.place)
            {
                self.leave(key);
                last = key;
            }
        }
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn value(&self, index: usize) -> u64 {
        self.values.get(index).copied().unwrap_or(0)
    }

    fn set(&mut self, index: usize, value: u64) {
        if let Some(it) = self.values.get_mut(index) {
            *it = value;
        }
    }
}

#[cfg(test)]
mod tests;
