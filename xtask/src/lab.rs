//! A booted lab: Xen and a Linux Dom0 in QEMU, with a hand in Dom0 and an ear at every console.
//!
//! One lock guards all that the reading threads learn; every wait is a question to that state with a
//! time limit, and ends at once when Xen or Dom0 crashes, QEMU ends, or Ctrl-C is pressed. Dropping a
//! [`Lab`] kills QEMU, so no path leaves one behind.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{self, Console, Source};
use crate::cpio::Tree;
use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::images::Images;
use crate::progress::Progress;
use crate::qemu::{self, DOM0_ARGUMENTS, HostDisk, Machine, Qemu, XEN_ARGUMENTS};
use crate::wire::{self, CONTENTS_MAX, Kind};
use crate::{build, images, interrupt, packages};

/// Where files for the guests are in Dom0.
pub const DOM0_FOLDER: &str = "/lab";

/// How long [`Lab::dom0`] waits for a command.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(180);

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
    /// Count time by instructions: 2^N ns each (see [`Machine::icount`]).
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
            icount: None,
            dom0_arguments: String::new(),
            boot_timeout: Duration::from_secs(240),
            name: "lab".into(),
            verbose: false,
        }
    }
}

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

/// A command that runs in Dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Job(u32);

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

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    console: Console,
    progress: Progress,
    jobs: HashMap<u32, JobState>,
    /// Text of the log files in Dom0, by file name.
    logs: BTreeMap<String, String>,
    ready: bool,
    crash: Option<String>,
    serial_ended: bool,
}

#[derive(Debug, Default)]
struct JobState {
    output: Vec<u8>,
    /// Its output is also a part of Dom0's log.
    logged: bool,
    status: Option<i32>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A reader that panicked has stopped; what it had stored is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// The size of Dom0's root that a dry run takes for granted; making it is not worth the time.
const TYPICAL_ROOT_MIB: u32 = 32;

/// The QEMU line that [`Lab::boot`] would use.
pub fn dry_run(config: &LabConfig, images: &Images) -> String {
    let scratch = std::env::temp_dir().join("pvblk");
    machine(config, images, &scratch, TYPICAL_ROOT_MIB).command_line()
}

/// What Xen keeps for itself.
const XEN_MEMORY_MIB: u32 = 192;

/// Memory of Dom0 for a root of this size: it is held twice while it is unpacked, a file system in
/// memory may take half of all, and guests' ramdisks are put together beside it.
fn dom0_memory_mib(root_mib: u32) -> u32 {
    448 + 3 * root_mib
}

/// The QEMU that a configuration asks for; `scratch` holds what is made for this boot only.
fn machine(config: &LabConfig, images: &Images, scratch: &Path, root_mib: u32) -> Machine {
    let dom0 = dom0_memory_mib(root_mib);
    Machine {
        memory_mib: dom0 + config.guests_memory_mib + XEN_MEMORY_MIB,
        cpus: config.cpus,
        xen: images.xen(),
        xen_arguments: format!(
            "{XEN_ARGUMENTS} dom0_mem={dom0}M,max:{dom0}M dom0_max_vcpus=1 dom0_vcpus_pin"
        ),
        kernel: images.dom0_kernel(),
        kernel_arguments: format!("{DOM0_ARGUMENTS} {}", config.dom0_arguments).trim().to_owned(),
        root: Some(scratch.join("root.cpio")),
        disks: config.disks.clone(),
        port: Some(scratch.join("port")),
        icount: config.icount,
    }
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
        let scratch = new_scratch()?;
        let root = root(config, &images, &agent)?;
        let machine = machine(config, &images, &scratch, mebibytes(root.len()));
        let root_path = scratch.join("root.cpio");
        fs::write(&root_path, root).context(|| format!("writing {}", root_path.display()))?;
        let logs = new_logs(&config.name)?;
        progress.phase("start QEMU");
        let console = Console::new(&logs, config.verbose)?;
        let complaints = logs.join("qemu.log");
        let (qemu, serial) = Qemu::start(&machine, &complaints)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(console, progress.clone())),
            changed: Condvar::new(),
        });
        read_serial(shared.clone(), serial);
        let port = connect(&scratch.join("port"), &complaints)?;
        read_reports(shared.clone(), port.try_clone().context(|| "the agent's port".into())?);
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
        let path = host::quoted(dom0_path);
        let command = format!("mkdir -p $(dirname {path}) && cat >{path} && chmod 755 {path}");
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
            let result = self.shared.changed.wait_timeout(state, step);
            state = result.unwrap_or_else(PoisonError::into_inner).0;
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

impl State {
    fn new(console: Console, progress: Progress) -> Self {
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

fn console_log(guest: &str) -> String {
    format!("guest-{guest}.log")
}

fn xl_log(guest: &str) -> String {
    format!("xl-{guest}.log")
}

/// Reads a guest's end out of xl's log; the last one counts.
fn end_of(log: &str) -> Option<GuestEnd> {
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

/// Fetches and makes everything that a lab boots from.
pub fn prepare(host: Host) -> Result<Images> {
    let _turn = host::lock(&host::cache()?)?;
    let pool = packages::ensure(host)?;
    images::ensure(host, &pool)
}

fn mebibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

/// Dom0's root for this boot: the archive of the cache, and one with what the configuration adds.
fn root(config: &LabConfig, images: &Images, agent: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).context(|| format!("reading {}", path.display()));
    let mut more = Tree::new();
    more.program("usr/sbin/dom0-agent", read(agent)?);
    if config.linux_guest {
        more.file("lab/vmlinux", read(&images.linux_kernel())?);
        more.file("lab/linux.cpio", read(&images.linux_root())?);
    }
    for (from, to) in &config.files {
        more.program(to, read(from)?);
    }
    let mut root = read(&images.dom0_root())?;
    if config.fio && config.linux_guest {
        more.file("lab/fio.cpio", read(&images.fio())?);
    } else if config.fio {
        root.extend_from_slice(&read(&images.fio())?);
    }
    if config.qdisk {
        root.extend_from_slice(&read(&images.qemu())?);
    }
    root.extend_from_slice(&more.archive());
    Ok(root)
}

static LABS: AtomicU32 = AtomicU32::new(0);

/// A name for this process and this call alone.
pub fn own_name(name: &str) -> String {
    let number = LABS.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{number}", std::process::id())
}

fn new_scratch() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(own_name("pvblk"));
    host::remove_folder(&folder)?;
    fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// How many log folders are kept; they are small, but many.
const LOG_FOLDERS_MAX: usize = 40;

/// Makes room for a log folder of this name below `target/lab`; gives its path.
pub fn new_logs(name: &str) -> Result<PathBuf> {
    let all = host::target().join("lab");
    fs::create_dir_all(&all).context(|| format!("making {}", all.display()))?;
    let entries = fs::read_dir(&all).context(|| format!("reading {}", all.display()))?;
    let aged = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut old: Vec<_> = entries.filter_map(|entry| aged(entry.ok()?)).collect();
    old.sort();
    for (_, folder) in old.iter().rev().skip(LOG_FOLDERS_MAX) {
        host::remove_folder(folder)?;
    }
    Ok(all.join(own_name(name)))
}

fn connect(path: &Path, complaints: &Path) -> Result<UnixStream> {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(port) => return Ok(port),
            Err(error) if Instant::now() > limit => {
                let complaints = qemu::complaints(complaints);
                return Err(LabError::Failed(format!("QEMU did not start: {error}\n{complaints}")));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
        interrupt::check()?;
    }
}

fn read_serial(shared: Arc<Shared>, mut serial: ChildStdout) {
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

fn read_reports(shared: Arc<Shared>, mut port: UnixStream) {
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

    #[test]
    fn a_status_other_than_zero_is_a_failure_with_its_text() {
        let bad = Output { status: 2, text: "no such file".into() };
        assert!(bad.ok().unwrap_err().to_string().contains("no such file"));
        assert_eq!(Output { status: 0, text: "fine".into() }.ok().unwrap(), "fine");
    }
}
