//! The daemon: waits for xenstore, the workers and signals, and lets the control plane work.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blkback::connect::Leave;
use blkback::trace::Trace;
use blkback::{
    Bell, Claim, Control, Folders, Program, Workers, Xenbus, base, confine_daemon, own_domain,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use xen::store::Connection;

use crate::Failure;
use crate::commands::environment;

/// How long the guests may take to let go of their disks when the daemon ends.
const GOODBYE: Duration = Duration::from_secs(5);

/// Who the processes that serve are, unless told otherwise: a user that owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// What the process of a device is told, behind as many of these as the daemon was, and before the
/// device's name.
const DEVICE: &str = "device";
const VERBOSE: &str = "-v";

/// Ourselves, as the process of a device.
pub(crate) fn program(user: u32, verbosity: u8) -> Program {
    let verbose = std::iter::repeat_n(VERBOSE.into(), verbosity.into());
    Program {
        path: "/proc/self/exe".into(),
        arguments: verbose.chain([DEVICE.into()]).collect(),
        // Only root can be somebody else; whoever is not has few rights already.
        user: rustix::process::geteuid().is_root().then_some(user),
    }
}

/// The other way round: how much to say, and the name, if these are words for the process of a device.
pub(crate) fn device(words: impl Iterator<Item = OsString>) -> Option<(u8, String)> {
    let mut words = words.peekable();
    let mut verbosity: u8 = 0;
    while words.next_if(|word| word == VERBOSE).is_some() {
        verbosity = verbosity.saturating_add(1);
    }
    words.next_if(|word| word == DEVICE)?;
    let name = words.next()?.into_string().ok()?;
    words.next().is_none().then_some((verbosity, name))
}

/// Serves until told to end.
pub(crate) fn run(
    pid_file: &Path,
    once: bool,
    keep: Duration,
    (images, trace): (&[PathBuf], Option<&Path>),
    program: Program,
) -> Result<(), Failure> {
    let folders = Folders::new(images).map_err(|(folder, error)| {
        Failure::new(Failure::USAGE, format!("--images {}: {error}", folder.display()))
    })?;
    let bus = Xenbus::open().map_err(|error| environment("/dev/xen/xenbus", &error))?;
    for node in ["/dev/xen/evtchn", "/dev/xen/gntdev"] {
        if let Err(error) = std::fs::metadata(node) {
            return Err(environment(node, &error));
        }
    }
    let claim = Claim::take(pid_file)
        .map_err(|error| Failure::new(Failure::FAILED, format!("{}: {error}", pid_file.display())))?
        .map_err(|taken| {
            let message =
                format!("a daemon is running already (pid {}); stop it first", taken.process);
            Failure::new(Failure::FAILED, message)
        })?;
    let signals = Signals::new()?;
    let bell = Bell::new()?;
    let trace = trace.map(open_trace).transpose()?;
    let store = Connection::new(bus);
    let server = own_domain(&store)?;
    confine_daemon(&folders).map_err(|error| {
        Failure::new(Failure::ENVIRONMENT, format!("rights cannot be given up: {error}"))
    })?;
    log::info!("images: {folders}");
    let workers = Workers::new(bell.clone(), program, folders).traced(trace);
    let mut control = Control::new(store, workers, server, keep)?;
    log::info!("serving {} (pid {})", base(server), std::process::id());
    let interrupted = attend(&mut control, &bell, &signals, once)?;
    drop(control);
    drop(claim);
    if interrupted { Err(Failure::new(Failure::INTERRUPTED, "interrupted")) } else { Ok(()) }
}

fn open_trace(path: &Path) -> Result<Trace, Failure> {
    Trace::create(path)
        .map_err(|error| Failure::new(Failure::FAILED, format!("{}: {error}", path.display())))
}

/// Works until it is time to end; tells whether that was an interrupt.
fn attend(
    control: &mut Control<Connection<Xenbus>, Workers>,
    bell: &Bell,
    signals: &Signals,
    once: bool,
) -> Result<bool, Failure> {
    let mut leaving: Option<Instant> = None;
    let mut interrupted = false;
    let mut served = false;
    let start = Instant::now();
    loop {
        control.at(start.elapsed());
        let more = control.work()?;
        served |= control.device_count() > 0;
        let empty = once && served && control.device_count() == 0;
        if (leaving.is_some() && control.is_quiet()) || empty {
            return Ok(interrupted);
        }
        if !more {
            let goodbye = leaving.map(|since| GOODBYE.saturating_sub(since.elapsed()));
            // Past the time for goodbyes only workers are waited for; they ring.
            let goodbye = goodbye.filter(|wait| !wait.is_zero());
            let due = control.due().map(|due| due.saturating_sub(start.elapsed()));
            let wait = goodbye.into_iter().chain(due).min();
            sleep(control, bell, signals, wait)?;
        }
        bell.silence();
        match signals.take() {
            None => {}
            Some(signal) => {
                interrupted |= signal == SIGINT;
                // Asked twice: no more waiting for the guests.
                control.leave(if leaving.is_some() { Leave::Go } else { Leave::Ask });
                log::info!("closing all disks");
                leaving = leaving.or(Some(Instant::now()));
            }
        }
        if leaving.is_some_and(|since| since.elapsed() >= GOODBYE) {
            control.leave(Leave::Go);
        }
    }
}

/// Sleeps until something happens, or at most `wait`.
fn sleep(
    control: &Control<Connection<Xenbus>, Workers>,
    bell: &Bell,
    signals: &Signals,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
    let bus = control.store().transport();
    let mut awaited = [
        PollFd::new(bus, PollFlags::IN),
        PollFd::new(bell, PollFlags::IN),
        PollFd::new(&signals.receiver, PollFlags::IN),
    ];
    match poll(&mut awaited, wait.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// SIGTERM and SIGINT, as something to poll.
struct Signals {
    receiver: UnixStream,
    interrupt: UnixStream,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        let (interrupt, interrupt_sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        interrupt.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGINT, interrupt_sender)?;
        signal_hook::low_level::pipe::register(SIGINT, sender.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGTERM, sender)?;
        Ok(Self { receiver, interrupt })
    }

    /// The signal that came, if any did.
    fn take(&self) -> Option<i32> {
        let mut byte = [0];
        let came = (&self.receiver).read(&mut byte).is_ok_and(|count| count > 0);
        let interrupt = (&self.interrupt).read(&mut byte).is_ok_and(|count| count > 0);
        came.then_some(if interrupt { SIGINT } else { SIGTERM })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device_of(words: &[String]) -> Option<(u8, String)> {
        device(words.iter().map(OsString::from))
    }

    #[test]
    fn the_process_of_a_device_understands_what_the_daemon_tells_it() {
        for verbosity in [0, 2] {
            let told = [program(NOBODY, verbosity).arguments, vec!["1/51712".into()]].concat();
            assert_eq!(device_of(&told), Some((verbosity, "1/51712".into())));
        }
    }

    #[test]
    fn all_other_words_are_for_the_parser() {
        for words in ["", "-v", "device", "device 1/51712 more", "-v list device", "serve"] {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            assert_eq!(device_of(&words), None, "{words:?}");
        }
    }
}
