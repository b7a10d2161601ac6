//! The command line: one struct per task, and how it calls the library.
//!
//! Words follow what users of xl, fio and virtme-ng have in their fingers. Nothing is decided here.

mod checks;
mod figures;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use xtask::beside::Beside;
use xtask::demo::{self, Demo};
use xtask::disk::{self, DiskSpec};
use xtask::error::{LabError, Result};
use xtask::guest::Backend;
use xtask::host::Host;
use xtask::lab::{self, Lab, LabConfig};
use xtask::progress::Progress;
use xtask::qemu::HostDisk;
use xtask::run::{Kernel, Run};
use xtask::{build, run, setup, smoke};

use checks::{FuzzTask, MeasureTask, OrdersTask, SimTask, TestTask, TortureTask};
use figures::BenchTask;

const EXIT_CODES: &str = "\
Exit codes: 0 ok · 1 failed · 2 usage · 3 environment missing (the message names the package) ·
4 guest or Xen crashed (with the last console lines) · 124 timed out · 130 interrupted";

/// Tasks of the pvblk project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
}

/// The tasks, in the order in which a newcomer meets them.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Install and fetch what is missing, and make the lab's images
    Setup(SetupTask),
    /// Do the main job and check it: real disk, real Xen, figures
    Demo(DemoTask),
    /// Build the guest kernel, its modules, and blkback for Dom0
    Build(BuildTask),
    /// Boot the lab with one guest and return the guest's exit status
    Run(RunTask),
    /// Talk to a guest on its console (Ctrl-] leaves)
    Shell(ShellTask),
    /// Boot our kernel alone on Xen, without Linux and disks (seconds)
    Smoke(SmokeTask),
    /// What an I/O costs on real Xen, each front on each back, and what a second queue costs on models
    Bench(BenchTask),
    /// Front, back, control planes and disks on a simulated Xen, seed after seed
    Sim(SimTask),
    /// Run every gate: format, lints, docs, tests, loom, Miri, torture, simulator, fuzzer, smoke, real Xen
    Test(TestTask),
    /// Set hostile peers on both drivers, and count what was tried
    Torture(TortureTask),
    /// Take the rings' orderings away one at a time: a model must notice each
    Orders(OrdersTask),
    /// Tell how many lines of the rings and of the protocol their own tests run
    Coverage(MeasureTask),
    /// Tell how many small changes to the rings and to the protocol their own tests notice
    Mutants(MeasureTask),
    /// Look for inputs that break a promise: guided by coverage, with AddressSanitizer
    Fuzz(FuzzTask),
    /// Boot the lab and run a shell command in Dom0
    Dom0(Dom0Task),
}

#[derive(Args)]
struct Common {
    /// Show commands and all console lines
    #[arg(short, long)]
    verbose: bool,
}

impl Common {
    fn host(&self) -> Host {
        Host { verbose: self.verbose }
    }
}

/// `cargo xtask setup`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct SetupTask {
    #[command(flatten)]
    common: Common,
}

impl SetupTask {
    /// Runs the task; gives the exit status.
    pub(crate) fn run(&self) -> Result<u8> {
        let host = self.common.host();
        setup::ensure(host)?;
        lab::prepare(host)?;
        build::agent(host)?;
        Ok(0)
    }
}

/// `cargo xtask build`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct BuildTask {
    #[command(flatten)]
    common: Common,
}

impl BuildTask {
    /// Runs the task; gives the exit status.
    pub(crate) fn run(&self) -> Result<u8> {
        let host = self.common.host();
        setup::ensure(host)?;
        println!("{}", build::guest_kernel(host)?.display());
        println!("{}", build::blktest(host)?.display());
        for name in build::MODULES {
            println!("{}", build::module(host, name)?.display());
        }
        let programs = build::guest_programs(host)?;
        for name in build::GUEST_PROGRAMS {
            println!("{}", programs.join(name).display());
        }
        println!("{}", build::blkback(host)?.display());
        Ok(0)
    }
}

/// `cargo xtask demo`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DemoTask {
    #[command(flatten)]
    common: Common,
    /// Print the QEMU line, start nothing
    #[arg(short = 'N', long)]
    dry_run: bool,
    /// Seed of the pattern; unset takes the clock
    #[arg(long, env = "SEED", value_name = "NUMBER")]
    seed: Option<u64>,
}

impl DemoTask {
    /// Runs the task; gives 0 when all checks held.
    pub(crate) fn run(&self) -> Result<u8> {
        let verbose = self.common.verbose;
        let demo = Demo { seed: self.seed.unwrap_or_else(clock), verbose };
        if self.dry_run {
            println!("{}", demo::dry_run(&demo)?);
            return Ok(0);
        }
        let again = |error| {
            eprintln!("again with: cargo xtask demo --seed={}", demo.seed);
            error
        };
        let report = demo::run(&demo, &Progress::new(verbose)).map_err(again)?;
        println!("xvda: SHA-256 {} on both sides", report.sha256);
        println!("xvdb: {} sectors verified by the guest and by the host", report.sectors);
        println!("\n{}", report.table);
        println!("(software emulation: compare figures only within one run)");
        println!("logs: {}", report.logs.display());
        Ok(0)
    }
}

fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs())
}

/// What `run` and `shell` say of their guest.
#[derive(Args)]
struct GuestOptions {
    #[command(flatten)]
    common: Common,
    /// Print the QEMU line, start nothing
    #[arg(short = 'N', long)]
    dry_run: bool,
    /// A disk: PATH[,vdev=xvdX][,access=rw|ro], xl's format=raw,vdev=…,access=…,target=PATH, or
    /// size=64M for a scratch disk; may be repeated
    #[arg(long, value_name = "SPEC")]
    disk: Vec<DiskSpec>,
    /// The guest's memory, such as 32M
    #[arg(long, value_name = "SIZE", value_parser = disk::mebibytes)]
    memory: Option<u32>,
    /// Who serves the disks
    #[arg(long, value_enum, default_value_t = Backend::Pvblk)]
    backend: Backend,
    /// The guest's kernel
    #[arg(long, value_enum, default_value_t = Kernel::Pvblk)]
    guest: Kernel,
    /// Boot by pygrub from a disk of the guest's own (xvda, label /), whose menu.lst names our kernel
    /// and has the kernel command line
    #[arg(long)]
    pygrub: bool,
    /// Commands that another guest runs beside it, on a scratch disk of its own (xvda); may be
    /// repeated. It starts first, and its end, or its crash, does not end the run
    #[arg(long, value_name = "COMMANDS")]
    beside: Vec<String>,
    /// The memory of each guest beside it
    #[arg(long, value_name = "SIZE", value_parser = disk::mebibytes, default_value = "16M")]
    beside_memory: u32,
    /// Percent of the processor that each guest beside it gets while all want it; by default they
    /// share evenly
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    #[arg(requires = "beside")]
    beside_share: Option<u8>,
    /// The guest's name
    #[arg(long, default_value = "guest")]
    name: String,
    /// Bring fio to a Linux guest
    #[arg(long)]
    fio: bool,
    /// Count time by instructions, 2^N ns each: figures then depend little on the host's load
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=10))]
    icount: Option<u8>,
    /// Keep what passes through the rings of backend pvblk, without the data, in this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Seconds that the guest may run
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// The kernel's command line; for Linux run='SHELL COMMANDS'
    #[arg(last = true, value_name = "KERNEL COMMAND LINE")]
    words: Vec<String>,
}

impl GuestOptions {
    fn plan(self) -> Run {
        Run {
            disks: self.disk,
            memory_mib: self.memory,
            backend: self.backend,
            kernel: self.guest,
            pygrub: self.pygrub,
            beside: Beside {
                commands: self.beside,
                memory_mib: self.beside_memory,
                share: self.beside_share,
            },
            name: self.name,
            fio: self.fio,
            icount: self.icount,
            trace: self.trace,
            timeout: Duration::from_secs(self.timeout),
            words: self.words,
            verbose: self.common.verbose,
        }
    }

    fn run(self, task: impl FnOnce(&Run, &Progress) -> Result<u8>) -> Result<u8> {
        let dry_run = self.dry_run;
        let plan = self.plan();
        if dry_run {
            println!("{}", run::dry_run(&plan)?);
            return Ok(0);
        }
        task(&plan, &Progress::new(plan.verbose))
    }
}

/// `cargo xtask run`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct RunTask {
    #[command(flatten)]
    guest: GuestOptions,
}

impl RunTask {
    /// Runs the task; gives the guest's exit status.
    pub(crate) fn run(self) -> Result<u8> {
        // Under -v the guest's lines are in the merged stream already.
        let quiet = self.guest.common.verbose;
        let show = |text: &str| {
            if !quiet {
                print(text)
            }
        };
        self.guest.run(|plan, progress| run::run(plan, progress, show))
    }
}

/// `cargo xtask shell`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ShellTask {
    #[command(flatten)]
    guest: GuestOptions,
}

impl ShellTask {
    /// Runs the task; gives the guest's exit status.
    pub(crate) fn run(self) -> Result<u8> {
        self.guest.run(run::shell)
    }
}

fn print(text: &str) {
    let mut out = stdout();
    // A closed pipe must not end the run: the status still counts.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// `cargo xtask smoke`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct SmokeTask {
    #[command(flatten)]
    common: Common,
    /// Print the QEMU line, start nothing
    #[arg(short = 'N', long)]
    dry_run: bool,
    /// The kernel's command line
    #[arg(last = true, value_name = "KERNEL COMMAND LINE")]
    words: Vec<String>,
}

impl SmokeTask {
    /// Runs the task; gives the kernel's exit status.
    pub(crate) fn run(&self) -> Result<u8> {
        let host = self.common.host();
        setup::ensure(host)?;
        let machine = smoke::prepare(host, &self.words)?;
        if self.dry_run {
            println!("{}", machine.command_line());
            return Ok(0);
        }
        let status = smoke::run(host, &machine)?;
        eprintln!("smoke: exit status {status}");
        Ok(status)
    }
}

/// `cargo xtask dom0`.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Dom0Task {
    #[command(flatten)]
    common: Common,
    /// A file to have in Dom0: HOST_PATH or HOST_PATH:DOM0_PATH (else /lab/NAME)
    #[arg(long, value_name = "FILE")]
    put: Vec<String>,
    /// An image that Dom0 sees as /dev/vda, the next as /dev/vdb …
    #[arg(long, value_name = "IMAGE")]
    disk: Vec<PathBuf>,
    /// Bring Linux guests: /lab/vmlinux and /lab/linux.cpio
    #[arg(long)]
    linux: bool,
    /// Bring fio
    #[arg(long)]
    fio: bool,
    /// Bring QEMU's block backend
    #[arg(long)]
    qdisk: bool,
    /// Seconds that the command may take
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// The command, joined with spaces and given to a shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Dom0Task {
    /// Runs the task; gives the command's exit status.
    pub(crate) fn run(self) -> Result<u8> {
        let verbose = self.common.verbose;
        setup::ensure(self.common.host())?;
        let config = LabConfig {
            disks: self.disk.into_iter().map(HostDisk::new).collect(),
            files: self.put.iter().map(|put| placed(put)).collect(),
            linux_guest: self.linux,
            fio: self.fio,
            qdisk: self.qdisk,
            name: "dom0".into(),
            verbose,
            ..LabConfig::default()
        };
        let progress = Progress::new(verbose);
        let lab = Lab::boot_with(&config, &progress)?;
        progress.finish();
        eprintln!("logs: {}", lab.logs().display());
        let output = lab.dom0_within(&self.command.join(" "), Duration::from_secs(self.timeout))?;
        print(&output.text);
        lab.power_off()?;
        u8::try_from(output.status)
            .map_err(|_| LabError::Failed(format!("exit status {} in Dom0", output.status)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_disk_is_a_usage_error() {
        let words = ["cargo xtask", "run", "--disk", "format=qcow2,target=/a"];
        let error = Cli::try_parse_from(words).err().unwrap();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_share_is_a_usage_error_without_a_neighbour_and_past_99() {
        let words = |share, more: &[&'static str]| {
            let words = [&["cargo xtask", "run", "--beside-share", share], more].concat();
            Cli::try_parse_from(words).err().map(|error| error.exit_code())
        };
        assert_eq!(words("33", &["--beside", "spin 9"]), None);
        assert_eq!(words("33", &[]), Some(2));
        assert_eq!(words("100", &["--beside", "spin 9"]), Some(2));
    }

    #[test]
    fn a_file_without_a_place_goes_to_the_lab_folder() {
        assert_eq!(placed("/x/blkback"), ("/x/blkback".into(), "/lab/blkback".into()));
        assert_eq!(placed("a:/etc/b"), ("a".into(), "/etc/b".into()));
    }
}
