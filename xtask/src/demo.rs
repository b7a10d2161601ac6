//! `cargo xtask demo`: the project's main job, end to end, checked by the host.
//!
//! A disk with a real ext4 file system is read whole by our guest and its SHA-256 compared with the
//! host's; a second one is written with a pattern in which every sector names itself, verified by the
//! guest, and verified again by the host after power-off; then a few short throughput jobs. It must
//! never believe the guest's own word alone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_kernel::pattern::Pattern;

use crate::bench::Table;
use crate::error::{Context, LabError, Result};
use crate::guest::{Backend, Guest};
use crate::host::{self, Host};
use crate::lab::{self, DOM0_FOLDER, Lab, LabConfig};
use crate::progress::Progress;
use crate::qemu::HostDisk;
use crate::run::ScratchFile;
use crate::{build, packages, pattern, setup};

/// The disk with the file system: 256 MiB.
const TREE_BYTES: u64 = 256 << 20;
/// The disk for the pattern, and one for the writing throughput jobs.
const SCRATCH_BYTES: u64 = 64 << 20;
/// Which writing of the pattern this is.
const GENERATION: u32 = 1;
/// Seconds of each throughput job.
const RUNTIME: u32 = 2;
/// How long the guest may take.
const GUEST_TIMEOUT: Duration = Duration::from_secs(900);
/// Xen's number of `xvdb`: major 202, the second group of 16 minors.
const XVDB: u32 = 202 << 8 | 1 << 4;
const GUEST: &str = "demo";

/// What the demo may be asked.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The pattern's seed.
    pub seed: u64,
    /// Show all consoles and commands.
    pub verbose: bool,
}

/// What the demo has shown.
#[derive(Debug, Clone)]
pub struct Report {
    /// SHA-256 of the first disk, the same on both sides.
    pub sha256: String,
    /// Sectors of the second disk that the host found right.
    pub sectors: u64,
    /// Throughput.
    pub table: Table,
    /// Where the logs are.
    pub logs: PathBuf,
}

/// The demo's disks, in the order of `/dev/vda`, `/dev/vdb`, `/dev/vdc`.
struct Disks {
    tree: PathBuf,
    pattern: ScratchFile,
    bench: ScratchFile,
}

/// Runs the whole job. Any check that does not hold is an error.
pub fn run(demo: &Demo, progress: &Progress) -> Result<Report> {
    let host = Host { verbose: demo.verbose };
    setup::ensure(host)?;
    lab::prepare(host)?;
    progress.phase("set up");
    let files = vec![
        (build::guest_kernel(host)?, format!("{DOM0_FOLDER}/pvblk")),
        (build::blkback(host)?, format!("{DOM0_FOLDER}/blkback")),
    ];
    build::agent(host)?;
    progress.phase("built");
    let disks = disks(host)?;
    progress.phase("disks made");
    let lab = Lab::boot_with(&config(demo, &disks, files), progress)?;
    let logs = lab.logs().to_owned();
    let checked = checked(demo, &disks, lab, progress);
    progress.finish();
    let (sha256, sectors, table) =
        checked.inspect_err(|_| eprintln!("logs: {}", logs.display()))?;
    Ok(Report { sha256, sectors, table, logs })
}

/// The QEMU line that [`run`] would use.
pub fn dry_run(demo: &Demo) -> Result<String> {
    let host = Host { verbose: demo.verbose };
    let images = lab::prepare(host)?;
    let config = config(demo, &disks(host)?, Vec::new());
    Ok(lab::dry_run(&config, &images))
}

fn config(demo: &Demo, disks: &Disks, files: Vec<(PathBuf, String)>) -> LabConfig {
    let tree = HostDisk { path: disks.tree.clone(), read_only: true };
    let scratch = [&disks.pattern, &disks.bench].map(|file| HostDisk::new(&file.path));
    LabConfig {
        disks: [tree].into_iter().chain(scratch).collect(),
        files,
        name: "demo".into(),
        verbose: demo.verbose,
        ..LabConfig::default()
    }
}

fn checked(
    demo: &Demo,
    disks: &Disks,
    lab: Lab,
    progress: &Progress,
) -> Result<(String, u64, Table)> {
    let console = in_guest(demo, &lab, progress)?;
    progress.phase("guest done");
    lab.power_off()?;
    let expected = sha256(Host { verbose: demo.verbose }, &disks.tree)?;
    let found = guest_sha256(&console).unwrap_or("nothing");
    if found != expected {
        return Err(LabError::Failed(format!(
            "SHA-256 of xvda: the guest read {found}, the host {expected}"
        )));
    }
    let sectors = pattern::verify(&disks.pattern.path, written(demo.seed))?;
    progress.phase("verified by the host");
    let table = Table::read(&console).map_err(LabError::Failed)?;
    if table.rows.len() != jobs().len() {
        let (rows, jobs) = (table.rows.len(), jobs().len());
        return Err(LabError::Failed(format!("{rows} of {jobs} throughput jobs gave figures")));
    }
    Ok((expected, sectors, table))
}

/// Starts backend and guest, and waits for the guest's good end; gives its console.
fn in_guest(demo: &Demo, lab: &Lab, progress: &Progress) -> Result<String> {
    lab.start_blkback()?;
    let guest = Guest::pvblk(GUEST, &command_line(demo.seed))
        .disk(Backend::Pvblk, "/dev/vda", "xvda", true)
        .disk(Backend::Pvblk, "/dev/vdb", "xvdb", false)
        .disk(Backend::Pvblk, "/dev/vdc", "xvdc", false);
    lab.create(&guest)?;
    progress.phase("guest started");
    let status = lab.wait_status(GUEST, GUEST_TIMEOUT, |_| {})?;
    let console = lab.guest_log(GUEST);
    lab.destroy(GUEST)?;
    if status != 0 {
        return Err(LabError::Failed(format!("the guest's exit status is {status}:\n{console}")));
    }
    Ok(console)
}

/// What the guest is to write on the second disk, `xvdb`.
fn written(seed: u64) -> Pattern {
    Pattern { disk: XVDB, generation: GENERATION, seed }
}

fn command_line(seed: u64) -> String {
    let pattern = format!("xvdb --seed={seed} --generation={GENERATION}");
    let mut commands = vec![
        "sha256 xvda".to_owned(),
        format!("pattern write {pattern}"),
        format!("pattern verify {pattern}"),
    ];
    commands.extend(jobs());
    commands.push("timeline".into());
    commands.push("poweroff".into());
    format!("run=\"{}\"", commands.join("; "))
}

/// The throughput jobs: three kinds, each with one request in flight and with 32.
fn jobs() -> Vec<String> {
    let kinds = [("xvda", "randread", "4k"), ("xvdc", "randwrite", "4k"), ("xvda", "read", "128k")];
    let job = |(disk, rw, bs), depth| {
        format!("bench --filename={disk} --rw={rw} --bs={bs} --iodepth={depth} --runtime={RUNTIME}")
    };
    kinds.iter().flat_map(|&kind| [1, 32].map(|depth| job(kind, depth))).collect()
}

fn disks(host: Host) -> Result<Disks> {
    let pattern = ScratchFile::new(SCRATCH_BYTES)?;
    let bench = ScratchFile::new(SCRATCH_BYTES)?;
    Ok(Disks { tree: tree_disk(host)?, pattern, bench })
}

/// The disk with a real file system: the libraries and programs of the guests' packages. Made once;
/// the guest gets it read-only.
fn tree_disk(host: Host) -> Result<PathBuf> {
    let _turn = host::lock(&host::cache()?)?;
    let pool = packages::ensure(host)?;
    let image = host::cache()?.join(format!("demo-{}.img", pool.stamp));
    if image.is_file() {
        return Ok(image);
    }
    let draft = image.with_added_extension("draft");
    let file = File::create(&draft).context(|| format!("making {}", draft.display()))?;
    file.set_len(TREE_BYTES).context(|| format!("making {}", draft.display()))?;
    let mut mke2fs = host::tool("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "pvblk-demo", "-d"]);
    host.run(mke2fs.arg(pool.root.join("usr/lib")).arg(&draft))?;
    std::fs::rename(&draft, &image).context(|| format!("naming {}", image.display()))?;
    Ok(image)
}

/// SHA-256 of a file, in hexadecimal digits, by the host's own program.
pub fn sha256(host: Host, path: &Path) -> Result<String> {
    let line = host.output(host::tool("sha256sum").arg(path))?;
    let hash = String::from_utf8_lossy(&line);
    Ok(hash.split(' ').next().unwrap_or_default().to_owned())
}

/// The hash that the guest printed: the first word of 64 hexadecimal digits.
fn guest_sha256(console: &str) -> Option<&str> {
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
    console.split_ascii_whitespace().find(is_hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::COMMAND_LINE_MAX;

    #[test]
    fn the_whole_job_fits_a_kernel_command_line() {
        let line = command_line(u64::MAX);
        assert!(line.len() <= COMMAND_LINE_MAX, "{} bytes", line.len());
    }

    #[test]
    fn the_hash_of_the_guest_is_found_among_other_words() {
        let hash = "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351";
        assert_eq!(guest_sha256(&format!("xvda\r\n{hash}  xvda\r\n")), Some(hash));
        assert_eq!(guest_sha256("no hash here"), None);
    }

    #[test]
    fn a_hash_is_the_known_one() {
        let empty = ScratchFile::new(0).unwrap();
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(Host::default(), &empty.path).unwrap(), hash);
    }
}
