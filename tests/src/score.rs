//! What tales have seen: how much was done, what was done badly, which states were reached.

use std::collections::BTreeMap;
use std::fmt;

use xen::XenbusState;

/// States that an end can say, 0 for none.
const STATES: usize = 9;

/// Faults of one kind, for a line that is looked at while they happen. All others are calls that
/// failed.
const KINDS: [(&str, &[&str]); 7] = [
    ("watches", &["late watch", "repeated watch", "watch for nothing"]),
    ("events", &["late event", "repeated event", "unsent event", "merged event"]),
    ("conflicts", &["conflict"]),
    ("deaths", &["death at a call"]),
    ("jobs", &["late job", "failed job", "short job", "job cut off"]),
    ("flushes", &["failed flush"]),
    ("sectors", &["sector lost in a power cut", "sector torn in a power cut"]),
];

/// How a connection, or all of them, came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The tool stack asked for the disk, and got it.
    Detached,
    /// The tool stack took the disk away by force and attached it with another image.
    Changed,
    /// The guest closed it.
    ClosedByGuest,
    /// The back refused it, for a fault that it met.
    Refused,
    /// The back was told to end, and ended.
    BackLeft,
    /// The back died.
    BackDied,
    /// The guest died.
    GuestDied,
    /// Power was cut.
    PowerCut,
}

/// What one tale has seen, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Tales.
    pub seeds: u64,
    /// Acts.
    pub acts: u64,
    /// Operations answered.
    pub operations: u64,
    /// Operations answered with an error.
    pub errors: u64,
    /// Connections made.
    pub connections: u64,
    /// Disks that followed a guest into its next life.
    pub followed: u64,
    /// Disks that grew.
    pub growths: u64,
    /// Times at which everything had come to its end.
    pub calms: u64,
    /// Ends by kind.
    pub ends: BTreeMap<End, u64>,
    /// What was done badly, by its name.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often the two ends of a device were seen in a pair of states: the front's, the back's.
    pub pairs: [[u64; STATES]; STATES],
}

impl Score {
    /// Both ends of a device were seen in these states.
    pub fn pair(&mut self, front: XenbusState, back: XenbusState) {
        self.pairs[usize::from(front.number())][usize::from(back.number())] += 1;
    }

    /// Something has ended.
    pub fn end(&mut self, end: End) {
        *self.ends.entry(end).or_default() += 1;
    }

    /// What was done badly.
    pub fn count(&mut self, kinds: impl IntoIterator<Item = (&'static str, u64)>) {
        for (name, count) in kinds {
            *self.faults.entry(name).or_default() += count;
        }
    }

    /// Adds what others have seen.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.acts += other.acts;
        self.operations += other.operations;
        self.errors += other.errors;
        self.connections += other.connections;
        self.followed += other.followed;
        self.growths += other.growths;
        self.calms += other.calms;
        for (&end, count) in &other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        self.count(other.faults.iter().map(|(&name, &count)| (name, count)));
        let pairs = self.pairs.iter_mut().flatten();
        pairs.zip(other.pairs.iter().flatten()).for_each(|(sum, count)| *sum += count);
    }

    /// How many faults there were of each kind, in few words.
    pub fn faults_by_kind(&self) -> [(&'static str, u64); 8] {
        let mut counts = [("calls", 0); 8];
        for (place, (kind, _)) in counts.iter_mut().zip(KINDS) {
            place.0 = kind;
        }
        for (name, count) in &self.faults {
            let kind = KINDS.iter().position(|(_, names)| names.contains(name));
            counts[kind.unwrap_or(KINDS.len())].1 += count;
        }
        counts
    }

    /// How many pairs of states were reached.
    pub fn pairs_reached(&self) -> usize {
        self.pairs.iter().flatten().filter(|&&count| count > 0).count()
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, acts, operations, errors, .. } = self;
        let Self { connections, followed, growths, calms, .. } = self;
        writeln!(f, "seeds {seeds}, acts {acts}, I/Os {operations}, of them errors {errors}")?;
        let disks = format!("disks that followed {followed}, that grew {growths}");
        writeln!(f, "connections {connections}, {disks}, calms {calms}")?;
        let list = |f: &mut fmt::Formatter<'_>, title: &str, items: Vec<String>| {
            writeln!(f, "{title}: {}", items.join(", "))
        };
        let ends = self.ends.iter().map(|(end, count)| format!("{end:?} {count}"));
        list(f, "ends", ends.collect())?;
        let faults = self.faults.iter().map(|(name, count)| format!("{name} {count}"));
        list(f, "faults", faults.collect())?;
        let rows = self.pairs.iter().enumerate().flat_map(|(front, row)| {
            let reached = row.iter().enumerate().filter(|(_, count)| **count > 0);
            reached.map(move |(back, _)| format!("{front}/{back}"))
        });
        let title = format!("pairs of states front/back, {} reached", self.pairs_reached());
        list(f, &title, rows.collect())
    }
}

#[cfg(test)]
mod tests {
    use sim::{Call, Tally};

    use super::*;
    use crate::Harm;

    #[test]
    fn every_fault_is_of_a_kind_and_what_is_of_no_other_is_a_call() {
        let mut score = Score::default();
        score.count(Tally::default().kinds().chain(Harm::default().kinds()).map(|it| (it.0, 1)));
        let expected = KINDS.iter().map(|(kind, names)| (*kind, names.len() as u64));
        let expected: Vec<_> = expected.chain([("calls", Call::FALLIBLE.len() as u64)]).collect();
        assert_eq!(score.faults_by_kind().to_vec(), expected);
    }
}
