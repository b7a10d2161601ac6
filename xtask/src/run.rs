//! `cargo xtask run`: the lab with one guest, and the guest's own exit status.
//!
//! The way that tests, scripts and people drive a guest without knowing about QEMU or xl.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::beside::{self, Beside};
use crate::disk::{self, Contents, DiskSpec};
use crate::error::{Context, LabError, Result};
use crate::guest::{self, Backend, Guest};
use crate::host::{self, Host};
use crate::lab::{self, DOM0_FOLDER, Job, Lab, LabConfig};
use crate::progress::Progress;
use crate::qemu::HostDisk;
use crate::shell::{self, Left};
use crate::{bootdisk, build, setup};

/// Where the trace is in Dom0.
const DOM0_TRACE: &str = "/lab/trace";

/// Which kernel a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// Ours.
    Pvblk,
    /// Linux, with a small root of its own.
    Linux,
    /// Ours as a test of the backend; it overwrites its first disk.
    Blktest,
}

/// One guest, as asked for on the command line.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its disks, in order.
    pub disks: Vec<DiskSpec>,
    /// Its memory in MiB; unset takes what the kernel usually needs.
    pub memory_mib: Option<u32>,
    /// Who serves its disks.
    pub backend: Backend,
    /// Its kernel.
    pub kernel: Kernel,
    /// Put the kernel and its command line into a disk of the guest's own, and boot from there.
    pub pygrub: bool,
    /// The guests beside it.
    pub beside: Beside,
    /// Its name.
    pub name: String,
    /// Bring fio to a Linux guest.
    pub fio: bool,
    /// Count time by instructions, 2^N ns each.
    pub icount: Option<u8>,
    /// How long the guest may run.
    pub timeout: Duration,
    /// Where to keep what passes through the rings of our backend.
    pub trace: Option<PathBuf>,
    /// Words for the kernel's command line; for Linux `run=SCRIPT`.
    pub words: Vec<String>,
    /// Show all consoles and commands.
    pub verbose: bool,
}

/// The lab's own copy of what a run asked for: names given, scratch disks made.
struct Plan {
    config: LabConfig,
    names: Vec<String>,
    /// All disks, with the one that the guest boots from.
    disks: Vec<DiskSpec>,
    neighbours: Vec<Guest>,
    boot_disk: Option<PathBuf>,
    _scratch: Vec<ScratchFile>,
}

/// Boots, runs the guest, powers off; gives the guest's exit status. Its console goes to `show`.
pub fn run(run: &Run, progress: &Progress, show: impl FnMut(&str)) -> Result<u8> {
    with_guest(run, progress, |lab, name| {
        lab.unpause(name)?;
        lab.wait_status(name, run.timeout, show)
    })
}

/// Boots, joins this terminal with the guest's console, powers off; gives the guest's exit status,
/// or 0 when the user left it running.
pub fn shell(run: &Run, progress: &Progress) -> Result<u8> {
    with_guest(run, progress, |lab, name| {
        // `xl console` takes keys only from a terminal; the program behind it can be told to.
        let open = format!("exec xenconsole --interactive --type pv $(xl domid {name})");
        let console = lab.start_with_input(&open)?;
        lab.unpause(name)?;
        match shell::session(lab, name, console)? {
            Left::ByKey => {
                // The guest's prompt stands there.
                eprintln!();
                Ok(0)
            }
            Left::ByGuest => lab.wait_status(name, run.timeout, |_| {}),
        }
    })
}

/// Boots a lab with the guest created and paused, does something with it, and powers off.
fn with_guest(
    run: &Run,
    progress: &Progress,
    job: impl FnOnce(&Lab, &str) -> Result<u8>,
) -> Result<u8> {
    let host = Host { verbose: run.verbose };
    // First of all what the user may have got wrong.
    let mut plan = plan(run)?;
    setup::ensure(host)?;
    plan.config.files = programs(run, host)?;
    if let Some(disk) = &plan.boot_disk {
        bootdisk::fill(host, disk, &build::guest_kernel(host)?, &guest::command_line(&run.words))?;
    }
    build::agent(host)?;
    progress.phase("built");
    let lab = Lab::boot_with(&plan.config, progress)?;
    let result = prepare_guest(run, &plan, &lab).and_then(|daemon| {
        progress.phase("guest created");
        progress.finish();
        Ok((job(&lab, &run.name)?, daemon))
    });
    if result.is_ok() && !plan.neighbours.is_empty() {
        eprint!("{}", beside::report(&lab, &run.name, &plan.neighbours)?);
    }
    eprintln!("logs: {}", lab.logs().display());
    let (status, daemon) = result?;
    lab.destroy(&run.name)?;
    if let (Some(path), Some(daemon)) = (&run.trace, daemon) {
        lab.stop_blkback(daemon)?;
        host::write_whole(path, &lab.get(DOM0_TRACE)?)?;
    }
    lab.power_off()?;
    Ok(status)
}

/// The QEMU line that [`run`] would use, and a line for each guest beside the one.
pub fn dry_run(run: &Run) -> Result<String> {
    let images = lab::prepare(Host { verbose: run.verbose })?;
    let plan = plan(run)?;
    let mut text = lab::dry_run(&plan.config, &images);
    for Guest { name, memory_mib, command_line, disks, .. } in &plan.neighbours {
        let disks: Vec<&str> = disks.iter().map(|disk| disk.1.as_str()).collect();
        text += &format!("\n{name}: {memory_mib} MiB, {}, {command_line}", disks.join(" "));
    }
    Ok(text)
}

/// Starts our backend, if it is wanted, and makes the guest.
fn prepare_guest(run: &Run, plan: &Plan, lab: &Lab) -> Result<Option<Job>> {
    let guest = guest(run, &plan.disks, &plan.names)?;
    let options = run.trace.as_ref().map_or(String::new(), |_| format!("--trace {DOM0_TRACE}"));
    let ours = run.backend == Backend::Pvblk;
    let daemon = ours.then(|| lab.start_blkback_with(&options)).transpose()?;
    if run.kernel == Kernel::Linux {
        lab.linux_job(&run.name, &guest::linux_script(&run.words)?, run.fio)?;
    }
    lab.create_paused(&guest)?;
    run.beside.start(lab, &run.name, &plan.neighbours)?;
    Ok(daemon)
}

fn guest(run: &Run, disks: &[DiskSpec], names: &[String]) -> Result<Guest> {
    let mut guest = match run.kernel {
        _ if run.pygrub => Guest::from_its_disk(&run.name),
        Kernel::Pvblk => Guest::pvblk(&run.name, &guest::command_line(&run.words)),
        Kernel::Linux => Guest::linux(&run.name),
        Kernel::Blktest => Guest::blktest(&run.name, &guest::command_line(&run.words)),
    };
    guest.memory_mib = run.memory_mib.unwrap_or(guest.memory_mib);
    for (place, (disk, name)) in disks.iter().zip(names).enumerate() {
        guest = guest.disk(run.backend, &disk::dom0_device(place), name, disk.read_only);
    }
    Ok(guest)
}

/// The programs that Dom0 needs for this run, built.
fn programs(run: &Run, host: Host) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let ours = run.kernel == Kernel::Pvblk && !run.pygrub;
    if ours || !run.beside.commands.is_empty() {
        files.push((build::guest_kernel(host)?, format!("{DOM0_FOLDER}/pvblk")));
    }
    if run.kernel == Kernel::Blktest {
        files.push((build::blktest(host)?, format!("{DOM0_FOLDER}/blktest")));
    }
    if run.backend == Backend::Pvblk {
        files.push((build::blkback(host)?, format!("{DOM0_FOLDER}/blkback")));
    }
    Ok(files)
}

fn plan(run: &Run) -> Result<Plan> {
    check_name(&run.name)?;
    if run.pygrub && (run.kernel != Kernel::Pvblk || run.backend == Backend::Qdisk) {
        let why = "--pygrub boots our kernel, from a disk of backend pvblk or blkback";
        return Err(LabError::Usage(why.into()));
    }
    if run.trace.is_some() && run.backend != Backend::Pvblk {
        return Err(LabError::Usage("--trace is for backend pvblk".into()));
    }
    let mut scratch = Vec::new();
    let mut all = run.disks.clone();
    if run.pygrub {
        let file = ScratchFile::new(bootdisk::BYTES)?;
        let contents = Contents::File(file.path.clone());
        all.insert(0, DiskSpec { contents, vdev: None, read_only: false });
        scratch.push(file);
    }
    let boot_disk = scratch.first().map(|file| file.path.clone());
    let names = disk::name_disks(&all).map_err(LabError::Usage)?;
    guest(run, &all, &names)?.check()?;
    if run.kernel == Kernel::Linux {
        guest::linux_script(&run.words)?;
    }
    let neighbours = run.beside.guests(&run.name, run.backend, all.len())?;
    let mut disks = Vec::new();
    for spec in &all {
        let path = match &spec.contents {
            Contents::File(path) => checked(path, spec.read_only)?,
            Contents::Scratch(bytes) => {
                let file = ScratchFile::new(*bytes)?;
                let path = file.path.clone();
                scratch.push(file);
                path
            }
        };
        disks.push(HostDisk { path, read_only: spec.read_only });
    }
    for _ in &neighbours {
        let file = ScratchFile::new(beside::DISK_BYTES)?;
        disks.push(HostDisk::new(&file.path));
        scratch.push(file);
    }
    let linux = run.kernel == Kernel::Linux;
    let config = LabConfig {
        disks,
        linux_guest: linux,
        fio: linux && run.fio,
        qdisk: run.backend == Backend::Qdisk,
        pygrub: run.pygrub,
        icount: run.icount,
        name: "run".into(),
        verbose: run.verbose,
        ..LabConfig::default()
    };
    Ok(Plan { config, names, disks: all, neighbours, boot_disk, _scratch: scratch })
}

/// Refuses a name that xl or a path in Dom0 would misread.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= 32 && name.chars().all(fits) {
        return Ok(());
    }
    Err(LabError::Usage(format!("name {name:?} is not 1 to 32 letters, digits, - or _")))
}

/// Refuses, before anything is started, an image that cannot be a disk.
fn checked(path: &Path, read_only: bool) -> Result<PathBuf> {
    let refuse = |why: &str| Err(LabError::Usage(format!("{}: {why}", path.display())));
    let Ok(metadata) = fs::metadata(path) else {
        return refuse("no such image; make one: truncate -s 64M FILE");
    };
    if metadata.is_dir() {
        return refuse("a folder, not a disk image");
    }
    if metadata.len() < 512 || metadata.len() % 512 != 0 {
        return refuse("not a whole number of 512-byte sectors");
    }
    if OpenOptions::new().read(true).write(!read_only).open(path).is_err() {
        return refuse("not writable; add access=ro or change its permissions");
    }
    path.canonicalize().context(|| format!("finding {}", path.display()))
}

/// A new image of zeros in the temporary folder, removed when dropped.
#[derive(Debug)]
pub struct ScratchFile {
    /// Where it is.
    pub path: PathBuf,
}

impl ScratchFile {
    /// Makes one of so many bytes; they take no room until they are written.
    pub fn new(bytes: u64) -> Result<Self> {
        let path = std::env::temp_dir().join(lab::own_name("pvblk-disk"));
        let file = File::create(&path).context(|| format!("making {}", path.display()))?;
        let scratch = Self { path };
        file.set_len(bytes).context(|| format!("making a disk of {bytes} bytes"))?;
        Ok(scratch)
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // A leftover in the temporary folder is not worth an error.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_a_disk_is_refused_before_anything_starts() {
        let ragged = ScratchFile::new(513).unwrap();
        let empty = ScratchFile::new(0).unwrap();
        let folder = std::env::temp_dir();
        let none = folder.join("no-such-image-here");
        for (path, reason) in [
            (none.as_path(), "no such image"),
            (folder.as_path(), "a folder"),
            (ragged.path.as_path(), "whole number"),
            (empty.path.as_path(), "whole number"),
        ] {
            let error = checked(path, false).unwrap_err();
            assert_eq!(error.code(), 2);
            assert!(error.to_string().contains(reason), "{error}");
        }
        let one_sector = ScratchFile::new(512).unwrap();
        assert!(checked(&one_sector.path, false).is_ok());
    }

    #[test]
    fn a_name_is_a_plain_word() {
        assert!(check_name("guest-1_a").is_ok());
        for name in ["", "a b", "a;reboot", &"x".repeat(33)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
