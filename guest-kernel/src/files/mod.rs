//! Files on the volumes of the disks: what is mounted where, and the file systems opened there.
//!
//! A file system is opened for one command and closed after it. So between two commands nothing is
//! cached and nothing is half written: what a command changed is on the disk, flushed, and the file
//! system says that it was unmounted cleanly; a guest that is destroyed at its prompt leaves a
//! clean disk, and a shutdown has nothing to sync. It costs a mount per command, some ten reads.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub use ::files::{Access, Error, FileSystem, Kind, Node, Space};

use crate::programs::{Disks, Failure, Machine};

mod device;
mod mounts;
#[cfg(test)]
mod tests;

use device::{Device, Shared};
pub use mounts::{MOUNTS_MAX, Mount, Mounts, clean};

/// How much of a file is handled at once.
pub const CHUNK_BYTES: usize = 128 << 10;

/// A machine and its disks, for file systems to be opened on.
pub struct Files<'a, M: Machine>(Shared<'a, M>);

impl<'a, M: Machine> Files<'a, M> {
    /// None is open yet.
    pub fn new(machine: &'a M, disks: &'a mut Disks<M>) -> Self {
        Self(Shared::new(machine, disks))
    }

    /// Opens what `path` is on, and gives the path in it. `access` is what is going to be done.
    ///
    /// # Errors
    /// [`Failure`] if nothing is mounted there, or it is mounted read-only and is to be changed.
    pub fn open<'s>(
        &'s self,
        path: &str,
        access: Access,
    ) -> Result<(FileSystem<'s>, String), Failure> {
        let (mut mount, path) = self.0.disks.borrow().mounts.of(path)?;
        if access == Access::ReadWrite && mount.access == Access::ReadOnly {
            let (name, folder) = (&mount.volume.name, &mount.folder);
            return Err(Failure::failed(format!("{name} is mounted on {folder} read-only")));
        }
        mount.access = access;
        Ok((self.open_mount(&mount)?, path))
    }

    /// A path within what it is on.
    ///
    /// # Errors
    /// [`Failure`] if nothing is mounted there.
    pub fn place(&self, path: &str) -> Result<String, Failure> {
        self.0.disks.borrow().mounts.of(path).map(|(_, inner)| inner)
    }

    /// Opens a volume as a mount would have it.
    ///
    /// # Errors
    /// [`Failure`] if it holds no file system that can be read (or written).
    pub fn open_mount<'s>(&'s self, mount: &Mount) -> Result<FileSystem<'s>, Failure> {
        let device = Device::new(&self.0, mount.volume.clone())?;
        self.0.disks.borrow_mut().steadfast |= mount.access == Access::ReadWrite;
        let opened = FileSystem::open(Box::new(device), mount.access, self.0.machine.wall_clock());
        opened.map_err(|error| self.told(&mount.volume.name, error))
    }

    /// An error of a file system in one line: what happened to the disk, if that is behind it.
    pub fn told(&self, path: &str, error: Error) -> Failure {
        self.0.explain(|| match error {
            Error::NotFound => Failure::missing(format!("{path}: {error}")),
            _ => Failure::failed(format!("{path}: {error}")),
        })
    }
}

impl<M: Machine> Drop for Files<'_, M> {
    fn drop(&mut self) {
        self.0.disks.borrow_mut().steadfast = false;
    }
}

/// Reads a whole file of what is mounted, at most `limit_bytes` of it.
///
/// # Errors
/// [`Failure`] if it is larger, not there, no file, or cannot be read.
pub fn read<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    path: &str,
    limit_bytes: usize,
) -> Result<Vec<u8>, Failure> {
    let files = Files::new(machine, disks);
    let (mut system, inner) = files.open(path, Access::ReadOnly)?;
    let node = system.find(&inner).map_err(|error| files.told(path, error))?;
    let size = usize::try_from(node.size_bytes).unwrap_or(usize::MAX);
    if node.kind == Kind::File && size > limit_bytes {
        return Err(Failure::failed(format!(
            "{path}: {size} bytes, at most {limit_bytes} are read"
        )));
    }
    let mut bytes = vec![0; if node.kind == Kind::File { size } else { 0 }];
    let length = system.read(node, 0, &mut bytes).map_err(|error| files.told(path, error))?;
    bytes.truncate(length);
    system.close().map_err(|error| files.told(path, error))?;
    Ok(bytes)
}
