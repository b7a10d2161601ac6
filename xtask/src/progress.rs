//! Phases with elapsed time: one rewriting line on a terminal, plain lines otherwise.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows what a task is doing. Clones show on the same line.
#[derive(Clone)]
pub struct Progress {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    start: Instant,
    line: Option<ProgressBar>,
    phases: Mutex<Vec<(String, Duration)>>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("silent", &self.shared.is_none()).finish()
    }
}

impl Progress {
    /// Shows nothing.
    pub fn silent() -> Self {
        Self { shared: None }
    }

    /// Shows phases on standard error. Beside console lines (`verbose`) each phase is a line.
    pub fn new(verbose: bool) -> Self {
        let line = (stderr().is_terminal() && !verbose).then(spinner);
        let phases = Mutex::new(Vec::new());
        Self { shared: Some(Arc::new(Shared { start: Instant::now(), line, phases })) }
    }

    /// Says that something has been reached.
    pub fn phase(&self, name: &str) {
        let Some(shared) = &self.shared else { return };
        let elapsed = shared.start.elapsed();
        shared.phases.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), elapsed));
        match &shared.line {
            Some(line) => line.set_message(self.summary()),
            None => eprintln!("{:7.1} s  {name}", elapsed.as_secs_f64()),
        }
    }

    /// Ends the rewriting line, leaving all phases on it.
    pub fn finish(&self) {
        let Some(shared) = &self.shared else { return };
        if let Some(line) = &shared.line {
            line.finish_and_clear();
            eprintln!("{}", self.summary());
        }
    }

    /// All phases so far: `Xen up 0.4 s · Dom0 userspace 6.1 s`.
    pub fn summary(&self) -> String {
        let Some(shared) = &self.shared else { return String::new() };
        let phases = shared.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |(name, at): &(String, Duration)| format!("{name} {:.1} s", at.as_secs_f64());
        phases.iter().map(text).collect::<Vec<_>>().join(" · ")
    }
}

fn spinner() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
    line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    line.enable_steady_tick(Duration::from_millis(200));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_the_phases_in_order() {
        let progress = Progress::new(true);
        progress.phase("one");
        progress.phase("two");
        let summary = progress.summary();
        assert!(summary.starts_with("one 0.0 s · two 0.0 s"), "{summary}");
        assert_eq!(Progress::silent().summary(), "");
    }
}
