//! `cargo xtask`: the project's tasks. Alone it lists them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use xtask::error::{LabError, Result};
use xtask::host::Host;
use xtask::lab::{self, Lab, LabConfig};
use xtask::progress::Progress;
use xtask::qemu::HostDisk;
use xtask::{build, interrupt, setup};

const EXIT_CODES: &str = "\
Exit codes: 0 ok · 1 failed · 2 usage · 3 environment missing (the message names the package) ·
4 guest or Xen crashed (with the last console lines) · 124 timed out · 130 interrupted";

/// Tasks of the pvblk project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install and fetch what is missing, and make the lab's images.
    Setup(Common),
    /// Build the guest kernel, and blkback for Dom0.
    Build(Common),
    /// Boot the lab and run a shell command in Dom0.
    Dom0(Dom0),
}

#[derive(Args)]
struct Common {
    /// Show commands and all console lines.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
struct Dom0 {
    #[command(flatten)]
    common: Common,
    /// A file to have in Dom0: HOST_PATH or HOST_PATH:DOM0_PATH (else /lab/NAME).
    #[arg(long, value_name = "FILE")]
    put: Vec<String>,
    /// An image that Dom0 sees as /dev/vda, the next as /dev/vdb …
    #[arg(long, value_name = "IMAGE")]
    disk: Vec<PathBuf>,
    /// Bring Linux guests: /lab/vmlinux and /lab/linux.cpio.
    #[arg(long)]
    linux: bool,
    /// Bring fio.
    #[arg(long)]
    fio: bool,
    /// Bring QEMU's block backend.
    #[arg(long)]
    qdisk: bool,
    /// Seconds that the command may take.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// The command, joined with spaces and given to a shell.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::install();
    let result = match cli.task {
        Task::Setup(common) => {
            let host = Host { verbose: common.verbose };
            setup::ensure(host).and_then(|()| lab::prepare(host)).map(|_| ExitCode::SUCCESS)
        }
        Task::Build(common) => programs(Host { verbose: common.verbose }),
        Task::Dom0(task) => dom0(task),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.exit_code()
    })
}

fn programs(host: Host) -> Result<ExitCode> {
    setup::ensure(host)?;
    println!("{}", build::guest_kernel(host)?.display());
    println!("{}", build::blkback(host)?.display());
    Ok(ExitCode::SUCCESS)
}

fn dom0(task: Dom0) -> Result<ExitCode> {
    let verbose = task.common.verbose;
    setup::ensure(Host { verbose })?;
    let config = LabConfig {
        disks: task.disk.into_iter().map(HostDisk::new).collect(),
        files: task.put.iter().map(|put| placed(put)).collect(),
        linux_guest: task.linux,
        fio: task.fio,
        qdisk: task.qdisk,
        name: "dom0".into(),
        verbose,
        ..LabConfig::default()
    };
    let progress = Progress::new(verbose);
    let lab = Lab::boot_with(&config, &progress)?;
    progress.finish();
    let output = lab.dom0_within(&task.command.join(" "), Duration::from_secs(task.timeout))?;
    print!("{}", output.text);
    eprintln!("logs: {}", lab.logs().display());
    lab.power_off()?;
    match u8::try_from(output.status) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        _ => Err(LabError::Failed(format!("exit status {} in Dom0", output.status))),
    }
}

/// `HOST_PATH:DOM0_PATH`, or `HOST_PATH` for `/lab/NAME`.
fn placed(put: &str) -> (PathBuf, String) {
    match put.split_once(':') {
        Some((from, to)) => (from.into(), to.to_owned()),
        None => {
            let from = PathBuf::from(put);
            let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (from, format!("{}/{name}", lab::DOM0_FOLDER))
        }
    }
}
