//! `cargo xtask bench`: the benchmarks, built for speed and run.
//!
//! The program is that of the crate `bench`. It shows its own progress; here is what it is told.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Result;
use crate::host::{self, Host};

/// What to run. Unset, the program has its own measure.
#[derive(Debug, Clone, Default)]
pub struct Benchmarks {
    /// Seeds of each figure.
    pub seeds: Option<u64>,
    /// Where the files go; below `target` if unset.
    pub out: Option<PathBuf>,
}

impl Benchmarks {
    /// The command that does it.
    pub fn command(&self) -> Command {
        let out = self.out.clone().unwrap_or_else(|| host::target().join("bench"));
        let options = [
            ("--out", Some(out.display().to_string())),
            ("--seeds", self.seeds.map(|it| it.to_string())),
        ];
        host::program("bench", "bench", &options)
    }
}

/// Runs them, or ends when it is interrupted.
///
/// Errors: [`LabError::Failed`](crate::error::LabError::Failed) if the files cannot be written.
pub fn run(host: Host, benchmarks: &Benchmarks) -> Result<()> {
    host.show(&mut benchmarks.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_said() {
        let line = |it: Benchmarks| host::command_line(&it.command());
        assert!(line(Benchmarks::default()).ends_with("/bench"));
        let all = Benchmarks { seeds: Some(3), out: Some("there".into()) };
        assert!(line(all).ends_with(" -- --out there --seeds 3"));
    }
}
