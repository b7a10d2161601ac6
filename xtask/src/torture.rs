//! `cargo xtask torture`: hostile peers by the million, in a program of their own.
//!
//! The program is `torture` of the crate `tests`. It shows its own progress; here is what it is told.

use std::process::Command;

use crate::error::Result;
use crate::host::{self, Host};

/// What is tried. Unset, the program has its own measure: what every change has to pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Torture {
    /// For how long, instead of how much.
    pub hours: Option<f64>,
    /// Requests to hold against the oracle one by one.
    pub requests: Option<u64>,
    /// Ring pages to give to a back.
    pub pages: Option<u64>,
    /// The first round's seed.
    pub seed: Option<u64>,
    /// Leave out what is exhaustive and the same each time.
    pub random_only: bool,
}

impl Torture {
    /// The command that does it.
    pub fn command(&self) -> Command {
        let options = [
            ("--hours", self.hours.map(|it| it.to_string())),
            ("--requests", self.requests.map(|it| it.to_string())),
            ("--pages", self.pages.map(|it| it.to_string())),
            ("--seed", self.seed.map(|it| it.to_string())),
        ];
        let mut cargo = host::program("tests", "torture", &options);
        if self.random_only {
            cargo.arg("--random-only");
        }
        cargo
    }
}

/// Runs it to its end, or until it is interrupted, which ends it with its report.
///
/// Errors: [`LabError::Failed`](crate::error::LabError::Failed) if anything did not hold.
pub fn run(host: Host, torture: &Torture) -> Result<()> {
    host.show(&mut torture.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_said() {
        let words = |torture: Torture| host::command_line(&torture.command());
        assert!(words(Torture::default()).ends_with(" --bin torture --"));
        let again = Torture {
            requests: Some(100_000),
            pages: Some(1000),
            seed: Some(7),
            random_only: true,
            ..Torture::default()
        };
        let end = " -- --requests 100000 --pages 1000 --seed 7 --random-only";
        assert!(words(again).ends_with(end), "{}", words(again));
        let night = Torture { hours: Some(8.0), ..Torture::default() };
        assert!(words(night).ends_with(" -- --hours 8"));
    }
}
