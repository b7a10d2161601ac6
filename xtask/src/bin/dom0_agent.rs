//! The lab's hand in Dom0: runs commands that the host sends over a virtio serial port, and streams
//! what Xen's daemons write into their logs.
//!
//! One small static program instead of shell loops, because under emulation every fork costs a guest
//! its CPU time: an idle agent sleeps in three system calls and polls nothing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use xtask::wire::{self, CONTENTS_MAX, Frame, Kind};

/// Where xenconsoled and xl write: the guests' consoles, and what became of the guests.
const LOG_FOLDERS: [(&str, &str); 2] =
    [("/var/log/xen/console", "guest-"), ("/var/log/xen", "xl-")];

type Port = Arc<Mutex<File>>;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dom0-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let path = find_port()?;
    let mut orders = File::options().read(true).write(true).open(&path)?;
    let port = Arc::new(Mutex::new(orders.try_clone()?));
    for (folder, prefix) in LOG_FOLDERS {
        let port = port.clone();
        thread::spawn(move || {
            if let Err(error) = follow(&port, Path::new(folder), prefix) {
                eprintln!("dom0-agent: following {folder}: {error}");
            }
        });
    }
    report(&port, Kind::Ready, 0, &[])?;
    let mut jobs = HashMap::new();
    loop {
        // The port reads as ended until the host has opened its side.
        match wire::receive(&mut orders) {
            Ok(frame) => obey(&port, &mut jobs, frame)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the port's device node: the driver makes it when it likes.
fn find_port() -> io::Result<PathBuf> {
    for _ in 0..1200 {
        for entry in fs::read_dir("/dev")? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"vport") {
                return Ok(entry.path());
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other("no virtio serial port"))
}

struct Job {
    group: Pid,
    input: Option<Sender<Vec<u8>>>,
}

fn obey(port: &Port, jobs: &mut HashMap<u32, Job>, frame: Frame) -> io::Result<()> {
    match frame.kind {
        Kind::Run | Kind::RunWithInput => {
            let with_input = frame.kind == Kind::RunWithInput;
            match start(port, frame.job, &frame.contents, with_input) {
                Ok(job) => drop(jobs.insert(frame.job, job)),
                Err(error) => {
                    let text = format!("dom0-agent: {error}\n");
                    report(port, Kind::Output, frame.job, text.as_bytes())?;
                    report(port, Kind::Exit, frame.job, &127_i32.to_le_bytes())?;
                }
            }
        }
        Kind::Input => {
            if let Some(job) = jobs.get_mut(&frame.job) {
                if frame.contents.is_empty() {
                    job.input = None;
                } else if let Some(input) = &job.input {
                    // An error says that the job reads no more; it will end by itself.
                    let _ = input.send(frame.contents);
                }
            }
        }
        Kind::Kill => {
            if let Some(job) = jobs.get(&frame.job) {
                let _ = kill_process_group(job.group, Signal::KILL);
            }
        }
        Kind::Ready | Kind::Output | Kind::Exit | Kind::Log => {}
    }
    Ok(())
}

fn start(port: &Port, id: u32, line: &[u8], with_input: bool) -> io::Result<Job> {
    let (output, writer) = io::pipe()?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(String::from_utf8_lossy(line).into_owned()).process_group(0);
    command.stdout(writer.try_clone()?).stderr(writer);
    command.stdin(if with_input { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn()?;
    let group = Pid::from_child(&child);
    let input = child.stdin.take().map(|mut stdin| {
        let (sender, receiver) = mpsc::channel::<Vec<u8>>();
        thread::spawn(move || {
            for bytes in receiver {
                if stdin.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        sender
    });
    let port = port.clone();
    thread::spawn(move || {
        // `command` still holds the pipe's writing ends.
        drop(command);
        if let Err(error) = watch(&port, id, child, output) {
            eprintln!("dom0-agent: job {id}: {error}");
        }
    });
    Ok(Job { group, input })
}

/// Sends a job's output until it ends, then its status, then what its offspring still writes.
fn watch(port: &Port, id: u32, mut child: Child, mut output: PipeReader) -> io::Result<()> {
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let mut bytes = vec![0; CONTENTS_MAX];
    let mut open = true;
    loop {
        let wanted = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut sources = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&output, wanted)];
        poll(&mut sources, None)?;
        let exited = !sources[0].revents().is_empty();
        let readable = open && !sources[1].revents().is_empty();
        if readable {
            let count = output.read(&mut bytes)?;
            open = count > 0;
            report(port, Kind::Output, id, &bytes[..count])?;
        } else if exited || !open {
            break;
        }
    }
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    report(port, Kind::Exit, id, &code.to_le_bytes())?;
    // A daemon started by the job may still hold the pipe: read on, or its next line would kill it.
    while open {
        let count = output.read(&mut bytes)?;
        open = count > 0;
        if open {
            report(port, Kind::Output, id, &bytes[..count])?;
        }
    }
    Ok(())
}

/// Sends what is added to the files of a folder, as it is added.
fn follow(port: &Port, folder: &Path, prefix: &str) -> io::Result<()> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, folder, inotify::WatchFlags::MODIFY)?;
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut space);
    // By inode, not by name: xl gives each life of a guest a new file of the same name.
    let mut sent: HashMap<u64, u64> = HashMap::new();
    loop {
        let event = events.next()?;
        let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
        if !name.starts_with(prefix) {
            continue;
        }
        // Gone again already: then its lines were of no use to anybody.
        let Ok(mut file) = File::open(folder.join(name)) else { continue };
        let position = sent.entry(file.metadata()?.ino()).or_default();
        *position += send_rest(port, &mut file, name, *position)?;
    }
}

fn send_rest(port: &Port, file: &mut File, name: &str, from: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let mut total = 0;
    loop {
        let mut contents = [name.as_bytes(), b"\0"].concat();
        let room = u64::try_from(CONTENTS_MAX - contents.len()).unwrap_or(0);
        let count = file.take(room).read_to_end(&mut contents)?;
        if count == 0 {
            return Ok(total);
        }
        report(port, Kind::Log, 0, &contents)?;
        total += count as u64;
    }
}

fn report(port: &Port, kind: Kind, job: u32, contents: &[u8]) -> io::Result<()> {
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    wire::send(&mut *port, kind, job, contents)
}
