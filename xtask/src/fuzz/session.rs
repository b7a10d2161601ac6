//! One target under libFuzzer: a process, its folders, and what becomes of an input that fails.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::figures::{Figures, name_of};
use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::interrupt;

/// An input that takes so many seconds has failed.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory of the process, and of one allocation, in MiB.
const MEMORY_MIB_MAX: u32 = 2048;
const ALLOCATION_MIB_MAX: u32 = 256;
/// Bytes of an input.
const INPUT_BYTES_MAX: u32 = 2048;
/// Where each allocation was made is not kept, which would take a fifth of the time: a fault is played
/// again without the fuzzer, and nearly all that it finds are panics.
const ASAN_OPTIONS: &str = "malloc_context_size=1";
/// How long libFuzzer may take beyond its time: to read the corpus, and to end.
const GRACE: Duration = Duration::from_secs(120);

/// One target.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) target: String,
    pub(super) program: PathBuf,
    /// What was found so far, here and not checked in.
    pub(super) found: PathBuf,
    pub(super) corpus: PathBuf,
    pub(super) regressions: PathBuf,
    pub(super) seeds: PathBuf,
    pub(super) artifacts: PathBuf,
    pub(super) log: PathBuf,
}

/// What became of a target.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub target: String,
    /// How far it came.
    pub figures: Figures,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
}

/// An input that failed, or a fuzzer that did.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The input, saved.
    pub input: Option<PathBuf>,
    /// Commands that replay it: without the fuzzer, and with it.
    pub replay: Vec<String>,
    /// What the fuzzer said.
    pub log: PathBuf,
}

impl Session {
    pub(super) fn make_folders(&self) -> Result<()> {
        let logs = self.log.parent().unwrap_or(&self.log);
        for folder in [&self.found, &self.corpus, &self.seeds, &self.artifacts, logs] {
            fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
        }
        Ok(())
    }

    /// Runs it for so long, or until an input fails.
    pub(super) fn run(
        &self,
        time: Duration,
        shown_every: Duration,
        mut shown: impl FnMut(&Figures),
    ) -> Result<Outcome> {
        let mut command = self.command();
        command.arg(&self.found).args(self.known());
        command.arg(format!("-max_total_time={}", time.as_secs()));
        command.arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        let mut running = Running::start(&mut command)?;
        let mut log =
            File::create(&self.log).context(|| format!("making {}", self.log.display()))?;
        let mut figures = Figures::default();
        let (limit, mut last) = (Instant::now() + time + GRACE, Instant::now());
        while let Some(line) = running.line(limit)? {
            writeln!(log, "{line}").context(|| format!("writing {}", self.log.display()))?;
            figures.take_in(&line);
            if last.elapsed() >= shown_every {
                last = Instant::now();
                shown(&figures);
            }
        }
        let status = running.end()?;
        shown(&figures);
        let failure = if status.success() { None } else { Some(self.failure()?) };
        Ok(Outcome { target: self.target.clone(), figures, failure })
    }

    /// The program, with what holds for every run.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(limits()).env("ASAN_OPTIONS", ASAN_OPTIONS);
        command
    }

    /// What is known before it begins.
    fn known(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.corpus, &self.regressions, &self.seeds].into_iter().filter(|folder| folder.is_dir())
    }

    /// Saves the input that the log tells of under a name of its own.
    fn failure(&self) -> Result<Failure> {
        let log = fs::read(&self.log).context(|| format!("reading {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        let written = log.lines().rev().find_map(|line| line.split_once("Test unit written to "));
        let Some((_, artifact)) = written else {
            return Ok(Failure { input: None, replay: Vec::new(), log: self.log.clone() });
        };
        let bytes = fs::read(artifact.trim()).context(|| format!("reading {artifact}"))?;
        let name = name_of(&log);
        fs::create_dir_all(&self.regressions).context(|| "making the regressions".into())?;
        let input = free_name(&self.regressions, &name, &bytes);
        host::write_whole(&input, &bytes)?;
        let name = input.file_name().unwrap_or_default().to_string_lossy();
        let replay = vec![
            format!("cargo test -p tests --test fuzz -- regressions/{}/{name}", self.target),
            format!("{} {}", self.program.display(), input.display()),
        ];
        Ok(Failure { input: Some(input), replay, log: self.log.clone() })
    }

    /// Makes the corpus anew; gives the target's name, and how many inputs and bytes it has now.
    pub(super) fn minimise(&self, host: Host) -> Result<(String, usize, u64)> {
        let fresh = self.artifacts.join("fresh");
        host::remove_folder(&fresh)?;
        fs::create_dir_all(&fresh).context(|| format!("making {}", fresh.display()))?;
        let mut command = self.command();
        // Each edge once: how often it was passed would keep thousands of inputs.
        command.args(["-merge=1", "-use_counters=0", "-use_cmp=0"]).arg(&fresh);
        command.args(self.known()).arg(&self.found);
        host.run(&mut command)?;
        host::remove_folder(&self.corpus)?;
        fs::create_dir_all(&self.corpus).context(|| format!("making {}", self.corpus.display()))?;
        let (mut count, mut total) = (0, 0);
        for entry in fs::read_dir(&fresh).context(|| format!("reading {}", fresh.display()))? {
            let entry = entry.context(|| "an input".into())?;
            let to = self.corpus.join(entry.file_name());
            total += fs::copy(entry.path(), &to).context(|| format!("making {}", to.display()))?;
            count += 1;
        }
        Ok((self.target.clone(), count, total))
    }
}

/// What holds for every run.
fn limits() -> [String; 6] {
    [
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        format!("-malloc_limit_mb={ALLOCATION_MIB_MAX}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        // As long as that from the begin: else a target that is slow tries twenty bytes for minutes,
        // which are a few steps, and what takes a dozen of them is never met.
        "-len_control=0".into(),
        "-print_final_stats=1".into(),
    ]
}

/// The path for an input of this name: the first one that no other input has.
fn free_name(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let free = |path: &PathBuf| fs::read(path).map_or(true, |there| there == bytes);
    let numbered = (2_u32..).map(|number| folder.join(format!("{name}-{number}")));
    std::iter::once(folder.join(name)).chain(numbered).find(free).unwrap_or_default()
}

/// A process whose lines are read by a thread of their own.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let line = host::command_line(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is ours to pass on, so that an input is not taken for one that fails.
        command.process_group(0).env("RUST_BACKTRACE", "1");
        let started = command.spawn();
        let mut child = started.map_err(|error| LabError::Missing(format!("{line}: {error}")))?;
        let (sender, lines) = mpsc::channel();
        let errors = child.stderr.take();
        thread::spawn(move || errors.map(|errors| pass_on(errors, &sender)));
        Ok(Self { child, lines })
    }

    /// The next line; `None` once there are no more.
    fn line(&mut self, limit: Instant) -> Result<Option<String>> {
        loop {
            match self.lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            }
            if Instant::now() > limit {
                let what = "the fuzzer, which does not end".into();
                return Err(LabError::TimedOut { what, tail: Vec::new() });
            }
        }
    }

    fn end(&mut self) -> Result<ExitStatus> {
        self.child.wait().context(|| "waiting for the fuzzer".into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn pass_on(errors: ChildStderr, sender: &mpsc::Sender<String>) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    // The fuzzer shows inputs as they are: not always text.
    while errors.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if sender.send(text).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_fail_alike_have_names_of_their_own_and_the_same_input_has_one() {
        let folder = std::env::temp_dir().join(format!("fuzz-names-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let save = |bytes: &[u8]| {
            let path = free_name(&folder, "it", bytes);
            fs::write(&path, bytes).unwrap();
            path.file_name().unwrap().to_string_lossy().into_owned()
        };
        assert_eq!([save(b"a"), save(b"b"), save(b"a"), save(b"c")], ["it", "it-2", "it", "it-3"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
