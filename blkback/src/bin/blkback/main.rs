//! The `blkback` program: the daemon, and the commands that attach, detach, resize and list its disks.
//!
//! Words and one-line errors only; everything that can be tested without Xen is in the library.

mod commands;
mod logger;
mod serve;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// What went wrong, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const ENVIRONMENT: u8 = 3;
    pub(crate) const INTERRUPTED: u8 = 130;

    pub(crate) fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Self::FAILED, error)
    }
}

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 usage · 3 not on Xen, or no permission \
                          · 130 interrupted";

/// Serves disk images to Xen guests, from Dom0.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The file whose lock says that a daemon lives
    #[arg(long, global = true, value_name = "FILE", default_value = blkback::DEFAULT_PATH)]
    pid_file: PathBuf,
    /// Say more (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Serve all disks that are attached, until SIGTERM
    #[command(after_help = EXIT_CODES)]
    Serve {
        /// End when a disk was attached and none is left
        #[arg(long)]
        once: bool,
        /// How long the disks of a guest that is gone wait for it to come back, as it does after
        /// xl reboot; 0: not at all
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        keep: u64,
        /// Where images may lie, at any depth; may be given more than once. Block devices below
        /// /dev may be served always [default: those there of /images, /srv,
        /// /var/lib/xen/images, /var/lib/libvirt/images]
        #[arg(long, value_name = "FOLDER")]
        images: Vec<PathBuf>,
        /// The user and group, as a number, of the processes that serve; one of their own is best
        #[arg(long, value_name = "ID", default_value_t = serve::NOBODY)]
        user: u32,
        /// Write down every request and answer, without their data, up to 64 MiB
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
    /// Attach a disk to a guest: xl create -p, attach, xl unpause
    #[command(after_help = EXIT_CODES)]
    Attach {
        /// Its name or its number
        domain: String,
        /// As in xl's disk=[…]: format=raw,vdev=xvda,access=rw,target=/images/a.img
        #[arg(value_name = "DISKSPEC")]
        spec: String,
        /// Only print what would be written to xenstore
        #[arg(short = 'N', long)]
        dry_run: bool,
        /// How long the daemon may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u64,
    },
    /// Take a disk away from a guest
    #[command(after_help = EXIT_CODES)]
    Detach {
        /// Its name or its number
        domain: String,
        /// xvda, xvdb, …
        vdev: String,
        /// Do not wait for the guest: what it has not flushed is lost
        #[arg(long)]
        force: bool,
        /// Only print what would be written to xenstore
        #[arg(short = 'N', long)]
        dry_run: bool,
        /// How long the guest may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u64,
    },
    /// Have a disk as large as its image, which was made larger (truncate, lvextend) while it is used
    #[command(after_help = EXIT_CODES)]
    Resize {
        /// Its name or its number
        domain: String,
        /// xvda, xvdb, …
        vdev: String,
        /// Only print what would be written to xenstore
        #[arg(short = 'N', long)]
        dry_run: bool,
        /// How long the daemon may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u64,
    },
    /// List the disks: xl block-list's columns, then the image and its format
    #[command(after_help = EXIT_CODES)]
    List {
        /// Only those of this guest, by name or number
        domain: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    // Ahead of the parser, which leaves 60 KiB behind: there is such a process for each disk.
    let done = match serve::device(std::env::args_os().skip(1)) {
        Some((verbosity, name)) => {
            logger::install(verbosity.saturating_add(1), Some(name.clone()));
            serve_device(&name)
        }
        None => {
            let arguments = Arguments::parse();
            let serving = matches!(arguments.command, Command::Serve { .. });
            logger::install(arguments.verbose + u8::from(serving), None);
            run(arguments)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("blkback: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Serves one connection, on orders from the daemon that started us.
fn serve_device(name: &str) -> Result<(), Failure> {
    let orders = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(blkback::serve_device(name, orders)?)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let pid_file = arguments.pid_file;
    match arguments.command {
        Command::Serve { once, keep, images, user, trace } => {
            let program = serve::program(user, arguments.verbose);
            let keep = Duration::from_secs(keep);
            serve::run(&pid_file, once, keep, (&images, trace.as_deref()), program)
        }
        Command::Attach { domain, spec, dry_run, timeout } => {
            commands::attach(&pid_file, &domain, &spec, dry_run, timeout)
        }
        Command::Detach { domain, vdev, force, dry_run, timeout } => {
            let patience = if force { None } else { Some(timeout) };
            commands::detach(&pid_file, &domain, &vdev, dry_run, patience)
        }
        Command::Resize { domain, vdev, dry_run, timeout } => {
            commands::resize(&pid_file, &domain, &vdev, dry_run, timeout)
        }
        Command::List { domain, json } => commands::list(domain.as_deref(), json),
    }
}
