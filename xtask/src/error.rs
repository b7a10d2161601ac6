//! What can go wrong in a task, and the exit code that says which kind it was.
//!
//! The kinds are few on purpose: a script that calls `cargo xtask` must be able to tell "the code is
//! broken" from "this machine cannot run it" without reading text. Must never swallow a cause: each
//! variant carries the sentence that a person needs.

use std::process::ExitCode;

/// How a task failed; [`LabError::exit_code`] is the table that `--help` shows.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LabError {
    /// The thing under test is wrong: bad data, a non-zero status, a failed gate.
    #[error("{0}")]
    Failed(String),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// This machine lacks something; the sentence names the package or the command that brings it.
    #[error("{0}")]
    Missing(String),
    /// Xen, Dom0 or the guest crashed; the last console lines follow.
    #[error("{what}{}", tail_text(.tail))]
    Crashed {
        /// What crashed, and how it was seen.
        what: String,
        /// The last console lines, oldest first.
        tail: Vec<String>,
    },
    /// Something did not happen in time; the last console lines follow.
    #[error("timed out: {what}{}", tail_text(.tail))]
    TimedOut {
        /// What was waited for, and how long.
        what: String,
        /// The last console lines, oldest first.
        tail: Vec<String>,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// The usual result of this crate.
pub type Result<T> = std::result::Result<T, LabError>;

impl LabError {
    /// The process exit code: 1 failed, 2 usage, 3 missing, 4 crashed, 124 timed out, 130 interrupted.
    pub fn code(&self) -> u8 {
        match self {
            LabError::Failed(_) => 1,
            LabError::Usage(_) => 2,
            LabError::Missing(_) => 3,
            LabError::Crashed { .. } => 4,
            LabError::TimedOut { .. } => 124,
            LabError::Interrupted => 130,
        }
    }

    /// Says what was being done, for errors that name only the wait.
    #[must_use]
    pub fn about(self, doing: &str) -> Self {
        match self {
            LabError::TimedOut { what, tail } => {
                LabError::TimedOut { what: format!("{what}: {doing}"), tail }
            }
            LabError::Crashed { what, tail } => {
                LabError::Crashed { what: format!("{what} ({doing})"), tail }
            }
            other => other,
        }
    }

    /// [`LabError::code`] for `main`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Turns any error into [`LabError::Failed`] with the sentence that says what was being done.
pub trait Context<T> {
    /// Prefixes the error with `what`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| LabError::Failed(format!("{}: {error}", what())))
    }
}

fn tail_text(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_own_exit_code() {
        let what = String::new;
        let all = [
            LabError::Failed(what()),
            LabError::Usage(what()),
            LabError::Missing(what()),
            LabError::Crashed { what: what(), tail: Vec::new() },
            LabError::TimedOut { what: what(), tail: Vec::new() },
            LabError::Interrupted,
        ];
        assert_eq!(all.map(|error| error.code()), [1, 2, 3, 4, 124, 130]);
    }

    #[test]
    fn a_crash_shows_its_last_lines() {
        let error =
            LabError::Crashed { what: "Xen crashed".into(), tail: vec!["a".into(), "b".into()] };
        assert_eq!(error.to_string(), "Xen crashed\n    a\n    b");
    }
}
