//! From a configuration to a machine: Dom0's root for this boot, memory, folders, the agent's port.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpio::Tree;
use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::images::{self, Images};
use crate::qemu::{self, DOM0_ARGUMENTS, Machine, XEN_ARGUMENTS};
use crate::{interrupt, packages};

use super::LabConfig;

/// The size of Dom0's root that a dry run takes for granted; making it is not worth the time.
const TYPICAL_ROOT_MIB: u32 = 32;

/// The QEMU line that [`crate::lab::Lab::boot`] would use.
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
pub(super) fn machine(
    config: &LabConfig,
    images: &Images,
    scratch: &Path,
    root_mib: u32,
) -> Machine {
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

/// Fetches and makes everything that a lab boots from.
pub fn prepare(host: Host) -> Result<Images> {
    let _turn = host::lock(&host::cache()?)?;
    let pool = packages::ensure(host)?;
    images::ensure(host, &pool)
}

pub(super) fn mebibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

/// Dom0's root for this boot: the archive of the cache, and one with what the configuration adds.
pub(super) fn root(config: &LabConfig, images: &Images, agent: &Path) -> Result<Vec<u8>> {
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
    if config.pygrub {
        root.extend_from_slice(&read(&images.pygrub())?);
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

pub(super) fn new_scratch() -> Result<PathBuf> {
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

pub(super) fn connect(path: &Path, complaints: &Path) -> Result<UnixStream> {
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
