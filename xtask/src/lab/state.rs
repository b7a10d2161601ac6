//! What the reading threads learn about a lab: jobs, logs, and whether everybody lives.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::console::{self, Console, Source};
use crate::progress::Progress;
use crate::wire::{self, Kind};

/// How a guest ended, as xl saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// The guest asked for power-off.
    PowerOff,
    /// The guest asked for a reboot.
    Reboot,
    /// The guest crashed, or said so itself.
    Crash,
    /// Somebody destroyed it.
    Destroyed,
    /// Another reason code of `SCHEDOP_shutdown`.
    Other(u32),
}

/// The state, and the news of its changes.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// All that is known of a lab.
#[derive(Debug)]
pub(super) struct State {
    pub(super) console: Console,
    pub(super) progress: Progress,
    pub(super) jobs: HashMap<u32, JobState>,
    /// Text of the log files in Dom0, by file name.
    pub(super) logs: BTreeMap<String, String>,
    pub(super) ready: bool,
    pub(super) crash: Option<String>,
    pub(super) serial_ended: bool,
}

/// What is known of a job.
#[derive(Debug, Default)]
pub(super) struct JobState {
    pub(super) output: Vec<u8>,
    /// Its output is also a part of Dom0's log.
    pub(super) logged: bool,
    pub(super) status: Option<i32>,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for news, at most so long.
    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        let result = self.changed.wait_timeout(state, time);
        result.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A reader that panicked has stopped; what it had stored is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl State {
    pub(super) fn new(console: Console, progress: Progress) -> Self {
        Self {
            console,
            progress,
            jobs: HashMap::new(),
            logs: BTreeMap::new(),
            ready: false,
            crash: None,
            serial_ended: false,
        }
    }

    fn serial_line(&mut self, line: &str) {
        let source = console::serial_source(line);
        let first = source == Source::Dom0 && line.starts_with("lab: Dom0 userspace");
        if first {
            self.progress.phase("Dom0 userspace");
        } else if line.contains("Xen version") {
            self.progress.phase("Xen up");
        }
        if self.crash.is_none() && console::is_crash(line) {
            self.crash = Some(line.to_owned());
        }
        self.console.line(&source, line);
    }

    fn report(&mut self, frame: &wire::Frame) {
        match frame.kind {
            Kind::Ready => self.ready = true,
            Kind::Output => {
                let job = self.jobs.get_mut(&frame.job).filter(|job| job.status.is_none());
                // Without a job it is from a daemon that a job left behind.
                if job.as_ref().is_none_or(|job| job.logged) {
                    self.console.bytes(&Source::Dom0, &frame.contents);
                }
                if let Some(job) = job {
                    job.output.extend_from_slice(&frame.contents);
                }
            }
            Kind::Exit => {
                let status =
                    frame.contents.first_chunk().map_or(-1, |&bytes| i32::from_le_bytes(bytes));
                self.jobs.entry(frame.job).or_default().status = Some(status);
            }
            Kind::Log => self.log(&frame.contents),
            Kind::Run | Kind::RunWithInput | Kind::Input | Kind::Kill => {}
        }
    }

    fn log(&mut self, contents: &[u8]) {
        let mut parts = contents.splitn(2, |&byte| byte == 0);
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let bytes = parts.next().unwrap_or_default();
        let guest = name.strip_prefix("guest-").and_then(|rest| rest.strip_suffix(".log"));
        let source = guest.map_or(Source::Dom0, |guest| Source::Guest(guest.to_owned()));
        self.console.bytes(&source, bytes);
        self.logs.entry(name).or_default().push_str(&String::from_utf8_lossy(bytes));
    }
}

pub(super) fn console_log(guest: &str) -> String {
    format!("guest-{guest}.log")
}

pub(super) fn xl_log(guest: &str) -> String {
    format!("xl-{guest}.log")
}

/// Reads a guest's end out of xl's log; the last one counts.
pub(super) fn end_of(log: &str) -> Option<GuestEnd> {
    let end = |line: &str| {
        if line.contains("has been destroyed") {
            return Some(GuestEnd::Destroyed);
        }
        let code = line.split("has shut down, reason code ").nth(1)?.split(' ').next()?;
        // SHUTDOWN_* of xen/include/public/sched.h.
        Some(match code.parse().ok()? {
            0 => GuestEnd::PowerOff,
            1 => GuestEnd::Reboot,
            3 => GuestEnd::Crash,
            other => GuestEnd::Other(other),
        })
    };
    log.lines().filter_map(end).next()
}

pub(super) fn read_serial(shared: Arc<Shared>, mut serial: ChildStdout) {
    thread::spawn(move || {
        let mut partial = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = serial.read(&mut bytes) {
            partial.extend_from_slice(&bytes[..count]);
            let lines = console::take_lines(&mut partial);
            shared.change(|state| lines.iter().for_each(|line| state.serial_line(line)));
        }
        shared.change(|state| state.serial_ended = true);
    });
}

pub(super) fn read_reports(shared: Arc<Shared>, mut port: UnixStream) {
    thread::spawn(move || {
        while let Ok(frame) = wire::receive(&mut port) {
            shared.change(|state| state.report(&frame));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_guest_is_read_from_what_xl_logs() {
        let log = |code: u32| {
            format!(
                "Waiting for domain a (domid 1) to die [pid 9]\n\
                     Domain 1 has shut down, reason code {code} 0x{code:x}\n\
                     Action for shutdown reason code {code} is preserve\n"
            )
        };
        assert_eq!(end_of(&log(0)), Some(GuestEnd::PowerOff));
        assert_eq!(end_of(&log(1)), Some(GuestEnd::Reboot));
        assert_eq!(end_of(&log(3)), Some(GuestEnd::Crash));
        assert_eq!(end_of(&log(4)), Some(GuestEnd::Other(4)));
        assert_eq!(end_of("Domain 1 has been destroyed.\n"), Some(GuestEnd::Destroyed));
        assert_eq!(end_of("Waiting for domain a (domid 1) to die [pid 9]\n"), None);
    }
}
