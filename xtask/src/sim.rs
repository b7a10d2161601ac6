//! `cargo xtask sim`: the deterministic simulator, built for speed and run.
//!
//! The program is `simulate` of the crate `tests`. It shows its own progress; here is what it is told.

use std::process::Command;

use crate::error::Result;
use crate::host::{self, Host};

/// What to run. Unset, the program has its own measure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sim {
    /// How many seeds.
    pub seeds: Option<u64>,
    /// The first seed.
    pub seed: Option<u64>,
    /// For how long.
    pub minutes: Option<u64>,
}

impl Sim {
    /// The command that does it.
    pub fn command(&self) -> Command {
        let options = [("--seeds", self.seeds), ("--seed", self.seed), ("--minutes", self.minutes)];
        let options = options.map(|(name, value)| (name, value.map(|it| it.to_string())));
        host::program("tests", "simulate", &options)
    }
}

/// Runs it to its end, or until it is interrupted, which ends it with its report.
///
/// Errors: [`LabError::Failed`](crate::error::LabError::Failed) if a tale failed.
pub fn run(host: Host, sim: &Sim) -> Result<()> {
    host.show(&mut sim.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_said() {
        let words = |sim: Sim| host::command_line(&sim.command());
        assert!(words(Sim::default()).ends_with(" --bin simulate --"));
        let all = Sim { seeds: Some(5), seed: Some(7), minutes: Some(3) };
        assert!(words(all).ends_with(" -- --seeds 5 --seed 7 --minutes 3"), "{}", words(all));
    }
}
