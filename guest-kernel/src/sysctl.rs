//! Tunables: what can be looked at and changed while the guest runs, by name.
//!
//! A tunable is a row of a table (the kernel's is `tunables`): a number with its bounds, a text
//! with two functions, or a whole family of keys that come and go, as those of the disks do. The
//! command `sysctl` and the words `sysctl.KEY=VALUE` of the kernel command line work on the table
//! and know nothing of the rows. Every error is one line that names what would be right.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::programs::{Disks, Failure, Machine};

const USAGE: &str = "usage: sysctl -a | KEY… | KEY=VALUE…";

/// A number that can be tuned: a static of the code that heeds it.
#[derive(Debug)]
pub struct Number {
    value: AtomicU64,
    least: u64,
    most: u64,
}

impl Number {
    /// A number from `least` to `most`, at first `value`.
    pub const fn new(value: u64, (least, most): (u64, u64)) -> Self {
        Self { value: AtomicU64::new(value), least, most }
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    fn set(&self, key: &str, text: &str) -> Result<(), Failure> {
        self.value.store(number(key, text, self.least..=self.most)?, Ordering::Relaxed);
        Ok(())
    }
}

/// Reads a value that has to be a number in `allowed`.
///
/// # Errors
/// [`Failure::usage`], naming the bounds.
pub fn number(key: &str, text: &str, allowed: RangeInclusive<u64>) -> Result<u64, Failure> {
    let value = text.parse().ok().filter(|value| allowed.contains(value));
    value.ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        Failure::usage(format!("{key}={text}: not a number from {least} to {most}"))
    })
}

/// A key as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: words with dots between them.
    pub key: Cow<'static, str>,
    /// Its value.
    pub value: String,
    /// What it is for, in one line.
    pub about: Cow<'static, str>,
}

/// A row of the table of tunables.
#[derive(Debug)]
pub struct Tunable<M: Machine>(Row<M>);

type Read<M> = fn(&M) -> String;
type Write<M> = fn(&M, &str) -> Result<(), Failure>;
type List<M> = fn(&M, &mut Disks<M>) -> Vec<Entry>;
type WriteOne<M> = fn(&M, &mut Disks<M>, &str, &str) -> Result<(), Failure>;

#[derive(Debug)]
enum Row<M: Machine> {
    Number { key: &'static str, about: &'static str, number: &'static Number },
    Text { key: &'static str, about: &'static str, read: Read<M>, write: Option<Write<M>> },
    Family { list: List<M>, write: WriteOne<M> },
}

impl<M: Machine> Tunable<M> {
    /// A number.
    pub const fn number(key: &'static str, about: &'static str, number: &'static Number) -> Self {
        Self(Row::Number { key, about, number })
    }

    /// What `read` answers; `write` takes a new value or says what is wrong with it.
    pub const fn text(
        key: &'static str,
        about: &'static str,
        read: fn(&M) -> String,
        write: fn(&M, &str) -> Result<(), Failure>,
    ) -> Self {
        Self(Row::Text { key, about, read, write: Some(write) })
    }

    /// What `read` answers, and nobody can change.
    pub const fn fact(key: &'static str, about: &'static str, read: fn(&M) -> String) -> Self {
        Self(Row::Text { key, about, read, write: None })
    }

    /// Whatever keys `list` answers now; `write` gets one of them, and a value.
    pub const fn family(
        list: fn(&M, &mut Disks<M>) -> Vec<Entry>,
        write: fn(&M, &mut Disks<M>, &str, &str) -> Result<(), Failure>,
    ) -> Self {
        Self(Row::Family { list, write })
    }

    fn entries(&self, machine: &M, disks: &mut Disks<M>) -> Vec<Entry> {
        let one = |key, about, value| {
            Vec::from([Entry { key: Cow::Borrowed(key), value, about: Cow::Borrowed(about) }])
        };
        match &self.0 {
            Row::Number { key, about, number } => one(key, about, number.get().to_string()),
            Row::Text { key, about, read, .. } => one(key, about, read(machine)),
            Row::Family { list, .. } => list(machine, disks),
        }
    }

    fn write(
        &self,
        (machine, disks): (&M, &mut Disks<M>),
        key: &str,
        value: &str,
    ) -> Result<(), Failure> {
        match &self.0 {
            Row::Number { number, .. } => number.set(key, value),
            Row::Text { write: Some(write), .. } => write(machine, value),
            Row::Text { write: None, .. } => Err(Failure::usage(format!("{key}: read only"))),
            Row::Family { write, .. } => write(machine, disks, key, value),
        }
    }
}

/// The command `sysctl`: prints tunables, and changes them.
///
/// # Errors
/// [`Failure`] of the first word that makes no sense; the words before it were heeded.
pub fn run<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    (table, words): (&[Tunable<M>], &[String]),
) -> Result<(), Failure> {
    if words.is_empty() {
        return Err(Failure::usage(USAGE));
    }
    for word in words {
        match word.split_once('=') {
            _ if word == "-a" => {
                for Entry { key, value, about } in entries(machine, disks, table) {
                    machine.print(format_args!("{key} = {value}  # {about}"));
                }
                continue;
            }
            _ if word.starts_with('-') => return Err(Failure::usage(USAGE)),
            Some((key, value)) => set(machine, disks, table, (key, value))?,
            None => {}
        }
        let key = word.split('=').next().unwrap_or_default();
        let (_, Entry { key, value, .. }) = find(machine, disks, table, key)?;
        machine.print(format_args!("{key} = {value}"));
    }
    Ok(())
}

/// Gives a tunable a value.
///
/// # Errors
/// [`Failure::usage`] for a key or a value that does not exist, naming those that do.
pub fn set<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    table: &[Tunable<M>],
    (key, value): (&str, &str),
) -> Result<(), Failure> {
    let (row, _) = find(machine, disks, table, key)?;
    row.write((machine, disks), key, value)
}

/// Every tunable, by key.
fn entries<M: Machine>(machine: &M, disks: &mut Disks<M>, table: &[Tunable<M>]) -> Vec<Entry> {
    let mut all: Vec<Entry> = table.iter().flat_map(|row| row.entries(machine, disks)).collect();
    all.sort_by(|one, other| one.key.cmp(&other.key));
    all
}

fn find<'a, M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    table: &'a [Tunable<M>],
    key: &str,
) -> Result<(&'a Tunable<M>, Entry), Failure> {
    for row in table {
        if let Some(entry) = row.entries(machine, disks).into_iter().find(|it| it.key == key) {
            return Ok((row, entry));
        }
    }
    let beside = alike(key, &entries(machine, disks, table));
    Err(Failure::usage(format!("{key}: no such tunable: there is {beside}")))
}

/// The keys beside the one that was meant, as far as its first words are known.
fn alike(key: &str, all: &[Entry]) -> String {
    let mut above = key;
    let folder = loop {
        let Some((parent, _)) = above.rsplit_once('.') else { break String::new() };
        let folder = format!("{parent}.");
        if all.iter().any(|it| it.key.starts_with(&folder)) {
            break folder;
        }
        above = parent;
    };
    let beside = all.iter().filter(|it| it.key.starts_with(&folder));
    let names: Vec<&str> = beside.map(|it| it.key.as_ref()).collect();
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
