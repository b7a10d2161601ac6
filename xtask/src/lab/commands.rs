//! Commands in Dom0, and files in and out of it.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Context, LabError, Result};
use crate::host;
use crate::wire::{self, CONTENTS_MAX, Kind};

use super::Lab;
use super::state::{JobState, State};

/// How long [`Lab::dom0`] waits for a command.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(180);

/// What a command in Dom0 gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 + N for signal N.
    pub status: i32,
    /// Both output streams in the order of writing.
    pub text: String,
}

impl Output {
    /// The text, or [`LabError::Failed`] unless the status is 0.
    pub fn ok(self) -> Result<String> {
        match self.status {
            0 => Ok(self.text),
            status => Err(LabError::Failed(format!("exit status {status} in Dom0: {}", self.text))),
        }
    }
}

/// A command that runs in Dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Job(pub(super) u32);

impl Lab {
    /// Runs a shell command in Dom0 and waits for its end, at most [`COMMAND_TIMEOUT`].
    pub fn dom0(&self, command: &str) -> Result<Output> {
        self.dom0_within(command, COMMAND_TIMEOUT)
    }

    /// Runs a shell command in Dom0 and waits for its end. When the time is over it is killed.
    pub fn dom0_within(&self, command: &str, timeout: Duration) -> Result<Output> {
        let job = self.start(command)?;
        let result = self.finish(job, timeout);
        if let Err(LabError::TimedOut { .. }) = result {
            self.kill(job)?;
        }
        let (status, bytes) = result.map_err(|error| error.about(command))?;
        Ok(Output { status, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Starts a shell command in Dom0, with nothing on its standard input.
    pub fn start(&self, command: &str) -> Result<Job> {
        self.order_job(Kind::Run, command)
    }

    /// Starts a daemon in Dom0 and waits until it has said `ready`. What it says is also in Dom0's log.
    pub fn start_daemon(&self, command: &str, ready: &str) -> Result<Job> {
        let job = self.start(command)?;
        let ended = |output: &[u8]| String::from_utf8_lossy(output).into_owned();
        let up = |state: &mut State| {
            let job = state.jobs.get_mut(&job.0)?;
            job.logged = true;
            let said = ended(&job.output).contains(ready);
            let died = job.status.map(|_| Err(LabError::Failed(ended(&job.output))));
            if said { Some(Ok(())) } else { died }
        };
        self.wait("a daemon in Dom0", COMMAND_TIMEOUT, up)
            .map_err(|error| error.about(command))??;
        Ok(job)
    }

    /// Starts a shell command in Dom0 that takes its standard input from [`Lab::input`].
    pub fn start_with_input(&self, command: &str) -> Result<Job> {
        self.order_job(Kind::RunWithInput, command)
    }

    /// Gives a job standard input; no bytes at all end it.
    pub fn input(&self, job: Job, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(CONTENTS_MAX) {
            self.order(Kind::Input, job.0, chunk)?;
        }
        if bytes.is_empty() { self.order(Kind::Input, job.0, &[]) } else { Ok(()) }
    }

    /// Kills a job and what it started.
    pub fn kill(&self, job: Job) -> Result<()> {
        self.order(Kind::Kill, job.0, &[])
    }

    /// Waits for a job's end; gives its status and its output.
    pub fn finish(&self, job: Job, timeout: Duration) -> Result<(i32, Vec<u8>)> {
        self.wait("a command in Dom0", timeout, |state| {
            let status = state.jobs.get(&job.0)?.status?;
            state.jobs.remove(&job.0).map(|done| (status, done.output))
        })
    }

    /// Takes the output that a job has given since the last call, waiting for some at most `time`;
    /// and its status, once it has ended.
    pub fn read(&self, job: Job, time: Duration) -> Result<(Vec<u8>, Option<i32>)> {
        let some = |state: &mut State| {
            let job = state.jobs.get_mut(&job.0)?;
            let news = !job.output.is_empty() || job.status.is_some();
            news.then(|| (std::mem::take(&mut job.output), job.status))
        };
        match self.wait("output", time, some) {
            Err(LabError::TimedOut { .. }) => Ok((Vec::new(), None)),
            result => result,
        }
    }

    /// Copies a file of the host into Dom0; it may be run there.
    pub fn put(&self, host_path: &Path, dom0_path: &str) -> Result<()> {
        let bytes = fs::read(host_path).context(|| format!("reading {}", host_path.display()))?;
        self.put_bytes(&bytes, dom0_path)
    }

    /// Makes a file in Dom0; it may be run there.
    pub fn put_bytes(&self, bytes: &[u8], dom0_path: &str) -> Result<()> {
        let folder = Path::new(dom0_path).parent().unwrap_or(Path::new("/"));
        let (path, folder) = (host::quoted(dom0_path), host::quoted(&folder.display().to_string()));
        let command = format!("mkdir -p {folder} && cat >{path} && chmod 755 {path}");
        let job = self.start_with_input(&command)?;
        if !bytes.is_empty() {
            self.input(job, bytes)?;
        }
        self.input(job, &[])?;
        let (status, output) = self.finish(job, COMMAND_TIMEOUT)?;
        Output { status, text: String::from_utf8_lossy(&output).into_owned() }.ok().map(drop)
    }

    /// The bytes of a file in Dom0.
    pub fn get(&self, dom0_path: &str) -> Result<Vec<u8>> {
        let job = self.start(&format!("cat {}", host::quoted(dom0_path)))?;
        let (status, bytes) = self.finish(job, COMMAND_TIMEOUT)?;
        if status == 0 {
            return Ok(bytes);
        }
        Err(LabError::Failed(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn order_job(&self, kind: Kind, command: &str) -> Result<Job> {
        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
        self.shared.lock().jobs.insert(job, JobState::default());
        if command.len() > CONTENTS_MAX {
            return Err(LabError::Usage(format!("a command of {} bytes", command.len())));
        }
        self.order(kind, job, command.as_bytes())?;
        Ok(Job(job))
    }

    fn order(&self, kind: Kind, job: u32, contents: &[u8]) -> Result<()> {
        let mut port = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        wire::send(&mut *port, kind, job, contents).context(|| "talking to Dom0".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_other_than_zero_is_a_failure_with_its_text() {
        let bad = Output { status: 2, text: "no such file".into() };
        assert!(bad.ok().unwrap_err().to_string().contains("no such file"));
        assert_eq!(Output { status: 0, text: "fine".into() }.ok().unwrap(), "fine");
    }
}
