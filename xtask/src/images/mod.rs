//! What the lab boots: Xen, two Linux kernels, and the initramfs archives, made from the packages.
//!
//! Everything is uncompressed, because unpacking is the slowest thing that software emulation does.
//! The folder's name holds a stamp of the packages and of the sources that make the images, so a
//! changed recipe makes new ones and an unchanged one costs nothing.

mod kernel;
mod python;
mod root;

use std::fs;
use std::path::PathBuf;

use crate::error::{Context, Result};
use crate::host::{self, Host};
use crate::packages::Pool;

/// Where each image is.
#[derive(Debug, Clone)]
pub struct Images {
    folder: PathBuf,
}

/// The sources that decide what is in the images.
const RECIPE: [&str; 7] = [
    include_str!("mod.rs"),
    include_str!("kernel.rs"),
    include_str!("root.rs"),
    include_str!("python.rs"),
    include_str!("../cpio.rs"),
    include_str!("../../guest/init.dom0"),
    include_str!("../../guest/init.linux"),
];

impl Images {
    /// The hypervisor, an ELF that QEMU loads as multiboot.
    pub fn xen(&self) -> PathBuf {
        self.folder.join("xen.elf")
    }

    /// Dom0's kernel, an uncompressed ELF.
    pub fn dom0_kernel(&self) -> PathBuf {
        self.folder.join("vmlinux-dom0")
    }

    /// Dom0's root, an initramfs.
    pub fn dom0_root(&self) -> PathBuf {
        self.folder.join("dom0.cpio")
    }

    /// The kernel of a Linux DomU, an uncompressed ELF.
    pub fn linux_kernel(&self) -> PathBuf {
        self.folder.join("vmlinux-domu")
    }

    /// The root of a Linux DomU, an initramfs.
    pub fn linux_root(&self) -> PathBuf {
        self.folder.join("domu.cpio")
    }

    /// fio and its libraries, to be joined to [`Images::linux_root`] or unpacked in Dom0.
    pub fn fio(&self) -> PathBuf {
        self.folder.join("fio.cpio")
    }

    /// pygrub and the Python that it needs, to be unpacked over Dom0's root.
    pub fn pygrub(&self) -> PathBuf {
        self.folder.join("pygrub.cpio")
    }

    /// QEMU as Dom0's block backend (qdisk), to be unpacked over Dom0's root.
    pub fn qemu(&self) -> PathBuf {
        self.folder.join("qemu.cpio")
    }
}

/// Gives the images, making them at the first call.
pub fn ensure(host: Host, pool: &Pool) -> Result<Images> {
    let cache = host::cache()?;
    let stamp = host::stamp(&[&[pool.stamp.as_str()], &RECIPE[..]].concat());
    let images = Images { folder: cache.join(format!("images-{stamp}")) };
    if images.folder.is_dir() {
        return Ok(images);
    }
    eprintln!("making the lab's images");
    let folder = cache.join("images.draft");
    host::remove_folder(&folder)?;
    fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
    let draft = Images { folder };
    kernel::hypervisor(host, pool, &draft.xen())?;
    kernel::linux(host, &pool.kernel("amd64")?, &draft.dom0_kernel())?;
    kernel::linux(host, &pool.kernel("cloud-amd64")?, &draft.linux_kernel())?;
    root::all(host, pool, &draft)?;
    fs::rename(&draft.folder, &images.folder)
        .context(|| format!("naming {}", images.folder.display()))?;
    Ok(images)
}
