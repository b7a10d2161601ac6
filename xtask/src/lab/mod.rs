//! A booted lab: Xen and a Linux Dom0 in QEMU, with a hand in Dom0 and an ear at every console.
//!
//! One lock guards all that the reading threads learn; every wait is a question to that state with a
//! time limit, and ends at once when Xen or Dom0 crashes, QEMU ends, or Ctrl-C is pressed. Dropping a
//! [`Lab`] kills QEMU, so no path leaves one behind.

mod boot;
mod commands;
mod state;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::Console;
use crate::error::{Context, LabError, Result};
use crate::host::Host;
use crate::progress::Progress;
use crate::qemu::{self, HostDisk, Qemu};
use crate::{build, interrupt};

pub use boot::{dry_run, new_logs, own_name, prepare};
pub use commands::{COMMAND_TIMEOUT, Job, Output};
pub use state::GuestEnd;
use state::{Shared, State, console_log, end_of, xl_log};

/// Where files for the guests are in Dom0.
pub const DOM0_FOLDER: &str = "/lab";

/// What a lab shall be. [`LabConfig::default`] suits a guest or two.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Memory for guests, in MiB. Dom0 gets what its root needs, on top of it.
    pub guests_memory_mib: u32,
    /// CPUs of the machine. Dom0 has the first one for itself.
    pub cpus: u32,
    /// Files of the host that Dom0 sees as `/dev/vda`, `/dev/vdb`, …
    pub disks: Vec<HostDisk>,
    /// Files of the host that are in Dom0 from the start: host path, path in Dom0. All may be run.
    pub files: Vec<(PathBuf, String)>,
    /// Bring `/lab/vmlinux` and `/lab/linux.cpio`, to start Linux guests.
    pub linux_guest: bool,
    /// Bring fio: for Linux guests if there are any (`/lab/fio.cpio`), else in Dom0.
    pub fio: bool,
    /// Bring QEMU's block backend to Dom0.
    pub qdisk: bool,
    /// Bring pygrub to Dom0.
    pub pygrub: bool,
    /// Count time by instructions: 2^N ns each (see [`crate::qemu::Machine::icount`]).
    pub icount: Option<u8>,
    /// Added to Dom0's kernel command line.
    pub dom0_arguments: String,
    /// How long the boot may take.
    pub boot_timeout: Duration,
    /// The log folder's name, below `target/lab`.
    pub name: String,
    /// Show all consoles and commands.
    pub verbose: bool,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            guests_memory_mib: 1024,
            cpus: 2,
            disks: Vec::new(),
            files: Vec::new(),
            linux_guest: false,
            fio: false,
            qdisk: false,
            pygrub: false,
            icount: None,
            dom0_arguments: String::new(),
            boot_timeout: Duration::from_secs(240),
            name: "lab".into(),
            verbose: false,
        }
    }
}

/// A booted lab.
#[derive(Debug)]
pub struct Lab {
    qemu: Mutex<Qemu>,
    shared: Arc<Shared>,
    orders: Mutex<UnixStream>,
    next_job: AtomicU32,
    scratch: PathBuf,
    logs: PathBuf,
}

impl Lab {
    /// Boots a lab and returns when Dom0 takes commands: 8 to 13 s on a quiet machine.
    ///
    /// Whatever is missing is fetched and made first. Errors: each kind of [`LabError`].
    pub fn boot(config: &LabConfig) -> Result<Lab> {
        Self::boot_with(config, &Progress::silent())
    }

    /// [`Lab::boot`], showing phases.
    pub fn boot_with(config: &LabConfig, progress: &Progress) -> Result<Lab> {
        let host = Host { verbose: config.verbose };
        let images = prepare(host)?;
        let agent = build::agent(host)?;
        let scratch = boot::new_scratch()?;
        let root = boot::root(config, &images, &agent)?;
        let machine = boot::machine(config, &images, &scratch, boot::mebibytes(root.len()));
        let root_path = scratch.join("root.cpio");
        fs::write(&root_path, root).context(|| format!("writing {}", root_path.display()))?;
        let logs = new_logs(&config.name)?;
        let console = Console::new(&logs, config.verbose)?;
        let complaints = logs.join("qemu.log");
        let (qemu, serial) = Qemu::start(&machine, &complaints)?;
        progress.phase("QEMU started");
        let shared = Arc::new(Shared::new(State::new(console, progress.clone())));
        state::read_serial(shared.clone(), serial);
        let port = boot::connect(&scratch.join("port"), &complaints)?;
        state::read_reports(
            shared.clone(),
            port.try_clone().context(|| "the agent's port".into())?,
        );
        let lab = Lab {
            qemu: Mutex::new(qemu),
            shared,
            orders: Mutex::new(port),
            next_job: AtomicU32::new(1),
            scratch,
            logs,
        };
        lab.wait("Dom0 to take commands", config.boot_timeout, |state| state.ready.then_some(()))?;
        progress.phase("Dom0 ready");
        Ok(lab)
    }

    /// Where the log files of Xen, Dom0 and the guests are.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// All that a guest has printed on its console since it was created (or [`Lab::forget`]).
    pub fn guest_log(&self, guest: &str) -> String {
        self.shared.lock().logs.get(&console_log(guest)).cloned().unwrap_or_default()
    }

    /// Waits until a guest's console shows `text`; gives the whole console.
    pub fn wait_guest(&self, guest: &str, text: &str, timeout: Duration) -> Result<String> {
        let what = format!("{text:?} on the console of {guest}");
        self.wait(&what, timeout, |state| {
            state.logs.get(&console_log(guest)).filter(|log| log.contains(text)).cloned()
        })
    }

    /// Waits until xl has logged `text` about a guest; gives the whole log.
    pub fn wait_xl(&self, guest: &str, text: &str, timeout: Duration) -> Result<String> {
        self.wait(&format!("{text:?} in xl's log of {guest}"), timeout, |state| {
            state.logs.get(&xl_log(guest)).filter(|log| log.contains(text)).cloned()
        })
    }

    /// Waits until a guest has ended, by what xl logs about it. `show` gets its console as it comes.
    pub fn wait_end(
        &self,
        guest: &str,
        timeout: Duration,
        mut show: impl FnMut(&str),
    ) -> Result<GuestEnd> {
        let what = format!("the end of guest {guest}");
        let mut shown = 0;
        self.wait(&what, timeout, |state| {
            let console = state.logs.get(&console_log(guest)).map_or("", String::as_str);
            show(&console[shown..]);
            shown = console.len();
            state.logs.get(&xl_log(guest)).and_then(|log| end_of(log))
        })
    }

    /// How a guest has ended, if it has.
    pub fn ended(&self, guest: &str) -> Option<GuestEnd> {
        self.shared.lock().logs.get(&xl_log(guest)).and_then(|log| end_of(log))
    }

    /// Forgets what a guest of this name has printed and how it ended: call it before making a guest
    /// of the same name again.
    pub fn forget(&self, guest: &str) {
        self.shared.change(|state| {
            state.logs.remove(&console_log(guest));
            state.logs.remove(&xl_log(guest));
        });
    }

    /// The last console lines of everybody.
    pub fn tail(&self) -> Vec<String> {
        self.shared.lock().console.tail()
    }

    /// Powers the machine off cleanly and waits until QEMU has ended: all disk images are final.
    pub fn power_off(self) -> Result<()> {
        self.start("sync; poweroff -f")?;
        let limit = Instant::now() + Duration::from_secs(60);
        let mut qemu = self.qemu.lock().unwrap_or_else(PoisonError::into_inner);
        while Instant::now() < limit {
            if let Some(status) = qemu.wait(Duration::from_millis(100)) {
                return if status.success() {
                    Ok(())
                } else {
                    Err(LabError::Failed(format!("QEMU ended with {status}")))
                };
            }
            interrupt::check()?;
        }
        Err(LabError::TimedOut { what: "power-off of the lab".into(), tail: self.tail() })
    }

    /// Waits until `answer` finds what it looks for.
    fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut answer: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = answer(&mut state) {
                return Ok(found);
            }
            interrupt::check()?;
            if state.crash.is_some() || state.serial_ended {
                drop(state);
                return Err(self.died(what));
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                let what = format!("{what}, after {:.0} s", start.elapsed().as_secs_f64());
                return Err(LabError::TimedOut { what, tail: state.console.tail() });
            }
            let step = left.min(Duration::from_millis(200));
            state = self.shared.wait(state, step);
        }
    }

    /// The error for a lab that died, with what it said last.
    fn died(&self, waiting_for: &str) -> LabError {
        // The lines that explain a crash follow its first one.
        thread::sleep(Duration::from_millis(500));
        let state = self.shared.lock();
        let complaints = qemu::complaints(&self.logs.join("qemu.log"));
        let what = match &state.crash {
            Some(line) => format!("crashed while waiting for {waiting_for}: {line}"),
            None => format!("QEMU ended while waiting for {waiting_for}: {complaints}"),
        };
        LabError::Crashed { what, tail: state.console.tail() }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A leftover in the temporary folder is not worth an error.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}
