//! The roots of Dom0 and of a Linux DomU: busybox, Xen's tools, a few real programs, a few modules.
//!
//! Libraries are found by the packages' own dynamic loader and modules by depmod, never by lists kept
//! here. Whatever is rarely used (fio, QEMU) is an archive of its own that is laid over a root.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::Tree;
use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::packages::Pool;

use super::Images;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

const XEN_PROGRAMS: [&str; 8] = [
    "xl",
    "xenstored",
    "xenconsoled",
    "xenconsole",
    "xen-init-dom0",
    "libxl-save-helper",
    "lsevtchn",
    "xentop",
];
const STORE_PROGRAMS: [&str; 8] = ["chmod", "exists", "list", "ls", "read", "rm", "write", "watch"];
const DOM0_MODULES: [&str; 22] = [
    "xen-evtchn",
    "xen-privcmd",
    "xenfs",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-blkback",
    "xen-blkfront",
    "loop",
    "null_blk",
    "brd",
    "dm-mod",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "ext4",
    "crc32c_generic",
    "scsi_debug",
    "sd_mod",
    "kyber-iosched",
    "bfq",
];
const LINUX_MODULES: [&str; 8] = [
    "xen-blkfront",
    "ext4",
    "crc32c_generic",
    "crc32c-intel",
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
];

/// Writes all five archives.
pub(super) fn all(host: Host, pool: &Pool, images: &Images) -> Result<()> {
    let maker = Maker { host, pool, xen: pool.xen()? };
    let dom0 = maker.dom0()?;
    let linux = maker.linux()?;
    // The fio overlay goes over either root, so it leaves out only what both have.
    let fio = maker.fio()?.without(&linux);
    write(&images.qemu(), &maker.qemu()?.without(&dom0))?;
    write(&images.pygrub(), &maker.pygrub()?.without(&dom0))?;
    write(&images.fio(), &fio)?;
    write(&images.dom0_root(), &dom0)?;
    write(&images.linux_root(), &linux)
}

fn write(path: &Path, tree: &Tree) -> Result<()> {
    fs::write(path, tree.archive()).context(|| format!("writing {}", path.display()))
}

pub(super) struct Maker<'a> {
    pub(super) host: Host,
    pub(super) pool: &'a Pool,
    xen: PathBuf,
}

impl Maker<'_> {
    fn dom0(&self) -> Result<Tree> {
        let mut tree = self.skeleton()?;
        tree.program("init", include_str!("../../guest/init.dom0"));
        tree.program("etc/xen/scripts/block-raw", include_str!("../../guest/block-raw"));
        tree.file("etc/xen/xl.conf", "autoballoon=\"off\"\n");
        tree.link("usr/lib/xen", self.xen_name());
        for program in XEN_PROGRAMS {
            let path = format!("usr/lib/{}/bin/{program}", self.xen_name());
            self.program(&mut tree, &path)?;
            tree.link(&format!("usr/sbin/{program}"), &format!("/{path}"));
        }
        for verb in STORE_PROGRAMS {
            self.program(&mut tree, &format!("usr/bin/xenstore-{verb}"))?;
        }
        for path in ["bin/bash", "usr/bin/flock", "usr/bin/strace"] {
            self.program(&mut tree, path)?;
        }
        self.filesystem_programs(&mut tree)?;
        self.hotplug_scripts(&mut tree)?;
        self.modules(&mut tree, "amd64", &DOM0_MODULES)?;
        Ok(tree)
    }

    fn linux(&self) -> Result<Tree> {
        let mut tree = self.skeleton()?;
        tree.program("init", include_str!("../../guest/init.linux"));
        for verb in ["ls", "read", "write"] {
            self.program(&mut tree, &format!("usr/bin/xenstore-{verb}"))?;
        }
        self.filesystem_programs(&mut tree)?;
        self.modules(&mut tree, "cloud-amd64", &LINUX_MODULES)?;
        Ok(tree)
    }

    fn fio(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        self.program(&mut tree, "usr/bin/fio")?;
        Ok(tree)
    }

    fn qemu(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        self.program(&mut tree, "usr/libexec/xen-qemu-system-i386")?;
        // Read even with `-vnc none`.
        self.data(&mut tree, "usr/share/qemu/keymaps/en-us")?;
        Ok(tree)
    }

    /// What every root has: folders, busybox under all its names, one user.
    fn skeleton(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        for folder in ["proc", "sys", "dev", "run", "tmp", "root", "mnt", "lab", "sbin"] {
            tree.folder(folder);
        }
        for folder in ["var/log/xen/console", "var/lib/xen", "var/lib/xenstored", "usr/bin"] {
            tree.folder(folder);
        }
        tree.link("lib", "usr/lib");
        tree.link("var/run", "../run");
        tree.link("var/lock", "../run/lock");
        tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        tree.file("etc/group", "root:x:0:\n");
        tree.link("etc/mtab", "/proc/mounts");
        tree.program("bin/busybox", self.read("bin/busybox")?);
        let list =
            self.host.output(host::tool_at(&self.pool.root.join("bin/busybox")).arg("--list"))?;
        for name in String::from_utf8_lossy(&list).lines().filter(|&name| name != "busybox") {
            tree.link(&format!("bin/{name}"), "busybox");
        }
        // Where the kernel looks for it.
        tree.link("sbin/modprobe", "../bin/busybox");
        Ok(tree)
    }

    fn filesystem_programs(&self, tree: &mut Tree) -> Result<()> {
        for path in ["sbin/mke2fs", "sbin/e2fsck", "sbin/debugfs"] {
            self.program(tree, path)?;
        }
        self.data(tree, "etc/mke2fs.conf")?;
        for (name, target) in [("mkfs.ext4", "mke2fs"), ("fsck.ext4", "e2fsck")] {
            tree.link(&format!("sbin/{name}"), target);
        }
        Ok(())
    }

    /// Xen's own hotplug scripts. They want bash, whatever their first line says.
    fn hotplug_scripts(&self, tree: &mut Tree) -> Result<()> {
        let folder = self.pool.root.join("etc/xen/scripts");
        let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry.context(|| format!("reading {}", folder.display()))?;
            let Ok(script) = fs::read_to_string(entry.path()) else { continue };
            let script = script.replacen("#!/bin/sh", "#!/bin/bash", 1);
            let name = entry.file_name();
            tree.program(&format!("etc/xen/scripts/{}", name.to_string_lossy()), script);
        }
        Ok(())
    }

    pub(super) fn xen_name(&self) -> &str {
        self.xen.file_name().and_then(|name| name.to_str()).unwrap_or("xen")
    }

    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.pool.root.join(path);
        fs::read(&path).context(|| format!("reading {}", path.display()))
    }

    fn data(&self, tree: &mut Tree, path: &str) -> Result<()> {
        tree.file(path, self.read(path)?);
        Ok(())
    }

    /// Adds a program, the libraries that it loads and their loader.
    pub(super) fn program(&self, tree: &mut Tree, path: &str) -> Result<()> {
        tree.program(path, self.read(path)?);
        let mut loader = self.loader();
        loader.arg("--list").arg(self.pool.root.join(path));
        let list = self.host.output(&mut loader)?;
        for library in needed(&String::from_utf8_lossy(&list)) {
            self.library(tree, path, Path::new(&library))?;
        }
        // Opened by name when a thread is cancelled, so no program lists it.
        self.library(tree, path, &folders_first(&self.pool.root, "libgcc_s.so.1"))?;
        if !tree.has(LOADER) {
            tree.program(LOADER, self.read("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")?);
        }
        Ok(())
    }

    /// The packages' own dynamic loader, told where their libraries are.
    fn loader(&self) -> Command {
        let folders = [
            self.pool.root.join("lib/x86_64-linux-gnu"),
            self.pool.root.join(LIBRARIES),
            // A private folder that fio's libraries name by its installed path.
            self.pool.root.join(LIBRARIES).join("ceph"),
            self.xen.join("lib/x86_64-linux-gnu"),
        ];
        let search = folders.map(|folder| folder.display().to_string()).join(":");
        let mut loader =
            host::tool_at(&self.pool.root.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        loader.args(["--library-path", &search]);
        loader
    }

    /// A program of the packages, to be run on this machine with their libraries.
    pub(super) fn runner(&self, path: &str) -> Command {
        let mut loader = self.loader();
        loader.arg(self.pool.root.join(path));
        loader
    }

    fn library(&self, tree: &mut Tree, program: &str, library: &Path) -> Result<()> {
        if !library.starts_with(&self.pool.root) {
            let library = library.display();
            return Err(LabError::Failed(format!(
                "{program} needs {library}, not in the packages"
            )));
        }
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("{LIBRARIES}/{name}");
        if !tree.has(&path) {
            let bytes = fs::read(library).context(|| format!("reading {}", library.display()))?;
            tree.program(&path, bytes);
        }
        Ok(())
    }

    /// Adds modules and what they depend on, without their signatures (hashing is slow here).
    fn modules(&self, tree: &mut Tree, flavour: &str, names: &[&str]) -> Result<()> {
        let folder = self.pool.modules(flavour)?;
        let version = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !folder.join("modules.dep").is_file() {
            let mut depmod = host::tool("depmod");
            self.host.run(depmod.arg("-b").arg(&self.pool.root).arg(&version))?;
        }
        let scratch = host::cache()?.join("modules.draft");
        host::remove_folder(&scratch)?;
        let kept = scratch.join("lib/modules").join(&version);
        fs::create_dir_all(&kept).context(|| format!("making {}", kept.display()))?;
        for path in self.module_paths(&version, names)? {
            let module = fs::read(&path).context(|| format!("reading {}", path.display()))?;
            let to = kept.join(path.file_name().unwrap_or_default());
            fs::write(&to, unsigned(&module)).context(|| format!("writing {}", to.display()))?;
        }
        for list in ["modules.builtin", "modules.order"] {
            fs::write(kept.join(list), "").context(|| format!("writing {list}"))?;
        }
        self.host.run(host::tool("depmod").arg("-b").arg(&scratch).arg(&version))?;
        let wanted = |path: &Path| {
            let list = ["modules.dep", "modules.alias"].iter().any(|name| path.ends_with(name));
            list || host::has_extension(path, "ko")
        };
        let entries = fs::read_dir(&kept).context(|| format!("reading {}", kept.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| wanted(path))
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = fs::read(&path).context(|| format!("reading {}", path.display()))?;
            tree.file(&format!("usr/lib/modules/{version}/{name}"), bytes);
        }
        host::remove_folder(&scratch)
    }

    fn module_paths(&self, version: &str, names: &[&str]) -> Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        for name in names {
            let mut modprobe = host::tool("modprobe");
            modprobe.arg("-d").arg(&self.pool.root).args([
                "-S",
                version,
                "-D",
                "--ignore-install",
                name,
            ]);
            let plan = self.host.output(&mut modprobe)?;
            let plan = String::from_utf8_lossy(&plan).into_owned();
            let inserted = plan.lines().filter_map(|line| line.strip_prefix("insmod "));
            paths.extend(inserted.filter_map(|line| line.split(' ').next()).map(PathBuf::from));
        }
        Ok(paths)
    }
}

fn folders_first(root: &Path, name: &str) -> PathBuf {
    root.join("lib/x86_64-linux-gnu").join(name)
}

/// The paths in a loader's list: lines of `NAME => PATH (ADDRESS)`.
fn needed(list: &str) -> Vec<String> {
    let paths = list.lines().filter_map(|line| line.split(" => ").nth(1)?.split(" (").next());
    paths.map(str::to_owned).collect()
}

/// A module without the signature that the kernel's build appended (linux/module_signature.h): the
/// data, its length in a 12-byte trailer, and a marker.
fn unsigned(module: &[u8]) -> &[u8] {
    const MARKER: &[u8] = b"~Module signature appended~\n";
    const TRAILER: usize = 12;
    let cut = || {
        let rest = module.strip_suffix(MARKER)?;
        let (rest, trailer) = rest.split_at_checked(rest.len().checked_sub(TRAILER)?)?;
        let length = u32::from_be_bytes(trailer[TRAILER - 4..].try_into().ok()?);
        rest.get(..rest.len().checked_sub(usize::try_from(length).ok()?)?)
    };
    cut().unwrap_or(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_list_gives_paths_of_files_only() {
        let list = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /p/lib/libc.so.6 (0x7f1)\n\
                    \t/p/ld-linux-x86-64.so.2 (0x7f2)\n";
        assert_eq!(needed(list), ["/p/lib/libc.so.6"]);
    }

    #[test]
    fn a_signature_is_cut_and_a_module_without_one_is_left_alone() {
        let mut module = b"code".to_vec();
        module.extend_from_slice(b"SIGN");
        module.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
        module.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(unsigned(&module), b"code");
        assert_eq!(unsigned(b"code"), b"code");
    }
}
