//! What was tried, in numbers.

use std::fmt;

use crate::torture::Attack;
use crate::torture::wild::Mutation;

/// Counts of everything that was tried. Those of several threads are added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests held one by one against the oracle.
    pub requests: u64,
    /// Ring pages given to a back.
    pub pages: u64,
    /// Requests in those pages.
    pub page_requests: u64,
    /// Connections of those pages.
    pub sessions: u64,
    /// Rings that were given up because of their index.
    pub broken: u64,
    /// Requests that were with the disk when their front left.
    pub left_in_flight: u64,
    /// Steps of a hostile back against a front.
    pub steps: u64,
    /// Connections of those steps.
    pub disks: u64,
    /// Faults that fronts found in them.
    pub faults: u64,
    /// Orders of xenbus states.
    pub orders: u64,
    /// Fields of requests tried exhaustively.
    pub fields: u64,
    /// Ring indexes tried exhaustively.
    pub indexes: u64,
    /// How many of those were believed.
    pub believed: u64,
    statuses: [u64; 3],
    mutations: [u64; Mutation::ALL.len()],
    attacks: [u64; Attack::ALL.len()],
    turns: u64,
    slowest: u64,
}

impl Tally {
    /// Counts what was done to a request.
    pub fn mutation(&mut self, mutation: Mutation) {
        self.mutations[mutation as usize] += 1;
    }

    /// Counts what a front did beside.
    pub fn attack(&mut self, attack: Attack) {
        self.attacks[attack as usize] += 1;
    }

    /// Counts a status.
    ///
    /// # Panics
    /// If it is none of the protocol.
    pub fn status(&mut self, status: i16) {
        let at = usize::try_from(-i32::from(status)).ok().filter(|&at| at < 3);
        self.statuses[at.expect("a status of the protocol")] += 1;
    }

    /// How many answers were okay, an error, and not supported.
    pub fn statuses(&self) -> [u64; 3] {
        self.statuses
    }

    /// Counts a turn that cost `work`.
    pub fn turn(&mut self, work: u64) {
        self.turns += 1;
        self.slowest = self.slowest.max(work);
    }

    /// Adds what another thread has counted.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.pages, other.pages),
            (&mut self.page_requests, other.page_requests),
            (&mut self.sessions, other.sessions),
            (&mut self.broken, other.broken),
            (&mut self.left_in_flight, other.left_in_flight),
            (&mut self.steps, other.steps),
            (&mut self.disks, other.disks),
            (&mut self.faults, other.faults),
            (&mut self.orders, other.orders),
            (&mut self.fields, other.fields),
            (&mut self.indexes, other.indexes),
            (&mut self.believed, other.believed),
            (&mut self.turns, other.turns),
        ];
        pairs.into_iter().for_each(|(mine, theirs)| *mine += theirs);
        add(&mut self.statuses, &other.statuses);
        add(&mut self.mutations, &other.mutations);
        add(&mut self.attacks, &other.attacks);
        self.slowest = self.slowest.max(other.slowest);
    }
}

fn add(mine: &mut [u64], theirs: &[u64]) {
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "requests  {:>16}  held against the oracle one by one", self.requests)?;
        writeln!(f, "fields    {:>16}  requests, every value of every small field", self.fields)?;
        writeln!(
            f,
            "indexes   {:>16}  every one of 2^32 for each position of a ring; {} were believed",
            self.indexes, self.believed
        )?;
        writeln!(
            f,
            "pages     {:>16}  with {} requests in {} connections; {} rings given up, {} requests \
             left in flight",
            self.pages, self.page_requests, self.sessions, self.broken, self.left_in_flight
        )?;
        writeln!(
            f,
            "steps     {:>16}  of hostile backs in {} connections; {} found out",
            self.steps, self.disks, self.faults
        )?;
        writeln!(f, "orders    {:>16}  of six xenbus states with a silly value", self.orders)?;
        let [okay, error, unsupported] = self.statuses;
        writeln!(f, "statuses  okay {okay}, error {error}, not supported {unsupported}")?;
        let named = |names: &[&str], counts: &[u64]| {
            let all = names.iter().zip(counts).map(|(name, count)| format!("{name} {count}"));
            all.collect::<Vec<_>>().join(", ")
        };
        let names = Mutation::ALL.map(|it| it.1);
        writeln!(f, "mutations {}", named(&names, &self.mutations))?;
        writeln!(f, "attacks   {}", named(&Attack::ALL.map(|it| it.1), &self.attacks))?;
        write!(
            f,
            "turns     {:>16}  the slowest cost {} words, references, calls, events and jobs",
            self.turns, self.slowest
        )
    }
}
