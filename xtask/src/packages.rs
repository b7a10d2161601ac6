//! The Debian packages of the guests: Xen, two kernels, Dom0's tools. Fetched once, only unpacked.
//!
//! Nothing here is installed on the host. The folder's name holds a stamp of the wanted packages, and
//! it gets that name only when everything in it is whole: a broken download is started again, never
//! used. The kernel's and Xen's exact versions come from Debian's own dependencies.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::setup;

/// What the guests are made of, before dependencies; and Xen's headers, to hold ours against.
const WANT: [&str; 13] = [
    "xen-system-amd64",
    "xenstore-utils",
    "linux-image-amd64",
    "linux-image-cloud-amd64",
    "busybox-static",
    "bash",
    "e2fsprogs",
    "util-linux",
    "kmod",
    "qemu-system-xen",
    "fio",
    "strace",
    "libxen-dev",
];

/// Parts of the dependencies that the guests never run.
const SKIP: [&str; 33] = [
    "adduser",
    "base-files",
    "coreutils",
    "cpio",
    "debconf",
    "debianutils",
    "dpkg",
    "gcc-12-base",
    "grub",
    "init-system-helpers",
    "initramfs-tools",
    "install-info",
    "ipxe-qemu",
    "iso-codes",
    "klibc-utils",
    "libfile-find-rule-perl",
    "libklibc",
    "libpam",
    "libperl5",
    "libpython3",
    "linux-base",
    "mawk",
    "media-types",
    "passwd",
    "perl",
    "python3",
    "readline-common",
    "sensible-utils",
    "sysvinit-utils",
    "tar",
    "ucf",
    "udev",
    "usrmerge",
];

/// The unpacked packages.
#[derive(Debug, Clone)]
pub struct Pool {
    /// All packages unpacked over each other, as on an installed system.
    pub root: PathBuf,
    /// Says which packages and versions these are; changes whenever they do.
    pub stamp: String,
}

impl Pool {
    /// A kernel of this flavour (`amd64`, `cloud-amd64`), as packed by Debian.
    pub fn kernel(&self, flavour: &str) -> Result<PathBuf> {
        let is_it = |name: &str| flavour_of(name, "vmlinuz-") == Some(flavour);
        self.only("boot", is_it, &format!("a kernel of flavour {flavour}"))
    }

    /// The folder of that kernel's modules, `lib/modules/VERSION`.
    pub fn modules(&self, flavour: &str) -> Result<PathBuf> {
        let is_it = |name: &str| flavour_of(name, "") == Some(flavour);
        self.only("lib/modules", is_it, &format!("modules of flavour {flavour}"))
    }

    /// The hypervisor, as packed by Debian.
    pub fn hypervisor(&self) -> Result<PathBuf> {
        let is_it = |name: &str| name.starts_with("xen-") && name.ends_with(".gz");
        self.only("boot", is_it, "a hypervisor")
    }

    /// The folder that Xen's public headers are in, as `xen/xen.h`.
    pub fn headers(&self) -> PathBuf {
        self.root.join("usr/include")
    }

    /// Xen's own folder of programs and libraries, `usr/lib/xen-VERSION`.
    pub fn xen(&self) -> Result<PathBuf> {
        self.only("usr/lib", |name| name.starts_with("xen-4"), "Xen's folder")
    }

    fn only(&self, folder: &str, is_it: impl Fn(&str) -> bool, what: &str) -> Result<PathBuf> {
        let folder = self.root.join(folder);
        let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(&is_it);
        let mut found: Vec<PathBuf> = paths.filter(|path| name(path) == Some(true)).collect();
        found.sort();
        // The newest, should the archive ever hold two.
        found.pop().ok_or_else(|| {
            LabError::Failed(format!("the packages hold no {what} in {}", folder.display()))
        })
    }
}

/// `6.1.0-56-cloud-amd64` is `cloud-amd64`: what follows the ABI number.
fn flavour_of<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.splitn(3, '-').nth(2)
}

/// Gives the unpacked packages, fetching them at the first call.
///
/// Errors: [`LabError::Missing`] when they are neither here nor to be had.
pub fn ensure(host: Host) -> Result<Pool> {
    let cache = host::cache()?;
    let stamp = host::stamp(&[WANT.join(" "), SKIP.join(" ")]);
    let folder = cache.join(format!("packages-{stamp}"));
    let pool = Pool { root: folder.join("root"), stamp };
    if folder.is_dir() {
        return Ok(pool);
    }
    let draft = cache.join("packages.draft");
    host::remove_folder(&draft)?;
    fs::create_dir_all(draft.join("debs")).context(|| format!("making {}", draft.display()))?;
    let names = match closure(host) {
        Ok(names) => names,
        Err(_) => {
            setup::apt_update(host)?;
            closure(host)?
        }
    };
    download(host, &draft.join("debs"), &names)?;
    unpack(host, &draft)?;
    whole(&Pool { root: draft.join("root"), ..pool.clone() })?;
    fs::rename(&draft, &folder).context(|| format!("naming {}", folder.display()))?;
    Ok(pool)
}

/// The wanted packages and all that they depend on, as seen from an empty system.
fn closure(host: Host) -> Result<Vec<String>> {
    let mut apt = host::tool("apt-get");
    apt.args(["-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1"]);
    apt.args(["--no-install-recommends", "--simulate", "-y", "install"]).args(WANT);
    let plan = host.output(&mut apt)?;
    Ok(wanted(&String::from_utf8_lossy(&plan)))
}

/// Reads package names out of a simulated installation: lines of `Inst NAME (VERSION …)`. (The list of
/// addresses to fetch will not do: it leaves out what lies in apt's own cache.)
fn wanted(plan: &str) -> Vec<String> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    let names = lines.filter_map(|line| line.split(' ').next());
    let kept = names.filter(|name| !SKIP.iter().any(|skip| is_part_of(name, skip)));
    let mut names: Vec<String> = kept.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// `perl` stands also for `perl-base`, `libpam` for `libpam0g`.
fn is_part_of(name: &str, skip: &str) -> bool {
    match name.strip_prefix(skip) {
        Some(rest) => rest.is_empty() || rest.starts_with(|c: char| c == '-' || c.is_ascii_digit()),
        None => false,
    }
}

/// Refuses a pool that lacks what everything else stands on, before it gets its name.
fn whole(pool: &Pool) -> Result<()> {
    pool.hypervisor()?;
    pool.xen()?;
    for flavour in ["amd64", "cloud-amd64"] {
        pool.kernel(flavour)?;
        pool.modules(flavour)?;
    }
    for path in ["lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "bin/busybox", "bin/bash"] {
        if !pool.root.join(path).exists() {
            return Err(LabError::Failed(format!("the fetched packages hold no {path}")));
        }
    }
    Ok(())
}

fn download(host: Host, folder: &Path, names: &[String]) -> Result<()> {
    eprintln!(
        "fetching {} Debian packages for the guests (only unpacked, not installed)",
        names.len()
    );
    let fetch = || {
        let mut apt = host::tool("apt-get");
        apt.current_dir(folder).args(["-o", "APT::Sandbox::User=root", "download"]).args(names);
        host.run(&mut apt)
    };
    // Lists older than the archive name versions that are gone.
    let result = fetch().or_else(|_| setup::apt_update(host).and_then(|()| fetch()));
    result
        .map_err(|error| LabError::Missing(format!("the guests' packages cannot be had: {error}")))
}

fn unpack(host: Host, draft: &Path) -> Result<()> {
    let debs = draft.join("debs");
    let root = draft.join("root");
    for entry in fs::read_dir(&debs).context(|| format!("reading {}", debs.display()))? {
        let deb = entry.context(|| format!("reading {}", debs.display()))?.path();
        host.run(host::tool("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
    }
    host::remove_folder(&debs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_gives_names_once_without_what_is_skipped() {
        let plan = "Reading package lists...\n\
            Inst bash (5.2-2 Debian:12/stable [amd64])\n\
            Inst libc6 (2.36 Debian:12/stable [amd64]) []\n\
            Inst perl-base (5 Debian:12/stable [amd64])\n\
            Inst libpam0g (1 Debian:12/stable [amd64])\n\
            Conf bash (5.2-2 Debian:12/stable [amd64])\n\
            Inst bash (5.2-2 Debian:12/stable [amd64])\n";
        assert_eq!(wanted(plan), ["bash", "libc6"]);
    }

    #[test]
    fn a_skipped_name_does_not_take_longer_words_along() {
        assert!(is_part_of("tar", "tar"));
        assert!(!is_part_of("target-tools", "tar"));
        assert!(!is_part_of("libtar", "tar"));
    }
}
