//! What must hold for any bytes, one function for each target of the fuzzer.
//!
//! An input is bytes that steer a generator: three times in four it makes what is valid, so that
//! what is behind the first check is reached too, and then something is wrong with it. A property
//! that does not hold panics. The same functions run in `cargo test` over the corpus and over every
//! input that ever failed ([`corpus`]), so an input that is saved with a name is a named test.

mod back;
mod choices;
mod command_line;
pub mod corpus;
mod elf;
mod files;
mod front;
pub mod image;
mod negotiation;
mod request;
mod ring;
pub mod seeds;
mod store;
mod volumes;

use std::ops::AddAssign;

/// A target: its name, and what it checks.
pub type Target = (&'static str, fn(&[u8]) -> Share);

/// How much of what an input was made into is valid: requests, messages, files, whole inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What is, by the word of somebody else than its maker where there is one.
    pub valid: u64,
    /// What was made.
    pub all: u64,
}

impl Share {
    fn one(valid: bool) -> Self {
        Self { valid: valid.into(), all: 1 }
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.valid += other.valid;
        self.all += other.all;
    }
}

/// All targets, in the order in which they are run.
pub const TARGETS: [Target; 10] = [
    ("ring", ring::check),
    ("request", request::check),
    ("back", back::check),
    ("front", front::check),
    ("store", store::check),
    ("negotiation", negotiation::check),
    ("command_line", command_line::check),
    ("volumes", volumes::check),
    ("files", files::check),
    ("elf", elf::check),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.0 == name)
}

/// Checks one input of a target.
///
/// # Panics
/// If a property does not hold, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, check) = target(name).expect("a target");
    let _ = check(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_program_and_the_reverse() {
        let folder = corpus::folder().join("fuzz_targets");
        let stem = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("an entry").path().file_stem().map(|stem| stem.display().to_string())
        };
        let mut programs: Vec<String> =
            std::fs::read_dir(folder).expect("a folder").filter_map(stem).collect();
        programs.sort();
        let mut names = TARGETS.map(|target| target.0);
        names.sort_unstable();
        assert_eq!(programs, names);
    }

    #[test]
    fn what_real_guests_asked_for_is_lawful_to_the_targets_too() {
        for (name, least) in [("request", 10), ("back", 400)] {
            let (_, check) = target(name).expect("a target");
            let mut share = Share::default();
            seeds::seeds(name).iter().for_each(|(_, bytes)| share += check(bytes));
            assert!(share.all >= least, "{name}: {share:?}");
            // On a smaller disk some of it is too long.
            assert!(share.valid * 10 >= share.all * 9, "{name}: {share:?}");
        }
    }
}
