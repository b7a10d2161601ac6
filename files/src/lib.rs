//! Files of ext2, ext3 and ext4 on a volume, in as little code as can be had.
//!
//! A door to `rsext4` that is not generic: all of that crate's code is made here, once, and for size
//! (see the workspace's release profile), and nothing else sees its types.
//!
//! What is on a volume is somebody's claim. `rsext4` checks it; this crate bounds what it is asked
//! for: numbers of entries, links that lead in circles.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use rsext4::{
    Clock, DirectoryCursor, DirectoryEntryType, Ext4, Ext4Error, Ext4ErrorKind, Ext4Result,
    Ext4Timestamp, FileName, FilePermissions, InodeInfo, InodeNumber, MountOptions, MountServices,
    MountedServices, MutationContext, NoopObserver,
};

mod door;
mod error;
mod raw;

use door::Door;
pub use door::{Lost, Sizes, Volume};
pub use error::Error;

/// How many links a path may lead over.
pub const LINKS_MAX: usize = 16;
/// The longest target of a link, in bytes.
pub const TARGET_BYTES_MAX: usize = 4096;
/// The most entries of a folder that are listed.
pub const ENTRIES_MAX: usize = 65_536;

/// What is going to be done with a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reading.
    ReadOnly,
    /// All.
    ReadWrite,
}

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe: not for us.
    Other,
}

impl From<DirectoryEntryType> for Kind {
    fn from(kind: DirectoryEntryType) -> Self {
        match kind {
            DirectoryEntryType::RegularFile => Self::File,
            DirectoryEntryType::Directory => Self::Folder,
            DirectoryEntryType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

/// A file, folder or link, found in an open file system.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    number: InodeNumber,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its permission bits.
    pub mode: u16,
}

impl From<InodeInfo> for Node {
    fn from(info: InodeInfo) -> Self {
        let kind = info.file_type().into();
        Self { number: info.number, kind, size_bytes: info.size, mode: info.mode & 0o7777 }
    }
}

/// How full a file system is, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_kib: u64,
    /// What is free.
    pub free_kib: u64,
}

/// The time at which a file system was opened; everything that is changed until it is closed is of
/// that time.
struct OpenedAt(Ext4Timestamp);

impl Clock for OpenedAt {
    fn now(&self) -> Ext4Result<Ext4Timestamp> {
        Ok(self.0)
    }
}

/// An open file system. Whoever changed something closes it: what is dropped without that looks
/// like after a crash, and is mended from its journal, if it has one, when it is opened again.
pub struct FileSystem<'a> {
    core: Ext4<Door<'a>, MountedServices<(), NoopObserver>>,
    volume: Rc<RefCell<Box<dyn Volume + 'a>>>,
}

impl<'a> FileSystem<'a> {
    /// Opens what is on a volume; `now` is the time since the begin of 1970.
    ///
    /// A journal that was left behind is written to its place even for reading, as Linux does.
    /// Where the volume is read-only, files are seen without what is only in the journal.
    ///
    /// # Errors
    /// [`Error`] if there is no file system, or one with features that are not known.
    pub fn open(
        volume: Box<dyn Volume + 'a>,
        access: Access,
        now: Duration,
    ) -> Result<Self, Error> {
        let change = access == Access::ReadWrite;
        let read_only = volume.sizes().read_only;
        if change && read_only {
            return Err(Error::ReadOnly);
        }
        let options =
            MountOptions { readonly: !change, replay_journal: !read_only, block_validity: true };
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let clock = OpenedAt(Ext4Timestamp::new(seconds, now.subsec_nanos()));
        let services = MountServices::new(clock, (), NoopObserver);
        let volume = Rc::new(RefCell::new(volume));
        Ok(Self { core: Ext4::mount(Door(volume.clone()), services, options)?, volume })
    }

    /// Brings everything to the disk and marks the file system as unmounted cleanly.
    ///
    /// # Errors
    /// [`Error`] if the disk does not take it.
    pub fn close(mut self) -> Result<(), Error> {
        Ok(self.core.unmount()?)
    }

    /// What a path names; links are followed.
    ///
    /// # Errors
    /// [`Error`] if there is nothing.
    pub fn find(&mut self, path: &str) -> Result<Node, Error> {
        Ok(self.walk(path)?)
    }

    /// The entries of a folder by name, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error`], also past [`ENTRIES_MAX`].
    pub fn list(&mut self, path: &str) -> Result<Vec<(String, Node)>, Error> {
        let folder = self.walk(path)?;
        Ok(self.entries(folder.number)?)
    }

    /// Reads from `offset` on; tells how many bytes there were.
    ///
    /// # Errors
    /// [`Error`] if the node is no file, or cannot be read.
    pub fn read(&mut self, node: Node, offset: u64, out: &mut [u8]) -> Result<usize, Error> {
        let read = match node.kind {
            Kind::File => self.core.read_inode(node.number, offset, out),
            Kind::Folder => Err(Ext4Error::is_dir()),
            Kind::Link | Kind::Other => Err(Ext4Error::unsupported()),
        };
        Ok(read?)
    }

    /// An empty file of this name: a new one, or the one that is there, emptied.
    ///
    /// # Errors
    /// [`Error`].
    pub fn create(&mut self, path: &str) -> Result<Node, Error> {
        Ok(self.try_create(path)?)
    }

    /// Writes at `offset`, which is at most the size so far.
    ///
    /// # Errors
    /// [`Error`].
    pub fn write(&mut self, node: Node, offset: u64, data: &[u8]) -> Result<(), Error> {
        Ok(self.core.write_inode(node.number, offset, data)?)
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`Error`].
    pub fn make_folder(&mut self, path: &str) -> Result<(), Error> {
        Ok(self.try_make_folder(path)?)
    }

    /// Removes a file, a link or an empty folder.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&mut self, path: &str) -> Result<(), Error> {
        Ok(self.try_remove(path)?)
    }

    /// How full it is.
    pub fn space(&self) -> Space {
        let figures = self.core.statfs();
        let kib = |blocks: u64| blocks.saturating_mul(figures.block_size / 1024);
        Space { total_kib: kib(figures.total_blocks), free_kib: kib(figures.free_blocks) }
    }

    /// The parts of a path, from the last to the first.
    fn walk(&mut self, path: &str) -> Ext4Result<Node> {
        let mut node: Node = self.core.inode(self.core.root_inode())?.into();
        let mut above = Vec::new();
        let mut left = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                node = above.pop().unwrap_or(node);
                continue;
            }
            let next = self.child(node, &part)?.ok_or_else(Ext4Error::not_found)?;
            if next.kind != Kind::Link {
                above.push(core::mem::replace(&mut node, next));
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Ext4Error::invalid_input().with_operation("too many links"));
            }
            let target = self.target(next)?;
            if target.starts_with('/') {
                above.clear();
                node = self.core.inode(self.core.root_inode())?.into();
            }
            left.append(&mut parts(&target));
        }
        Ok(node)
    }

    fn child(&mut self, folder: Node, name: &str) -> Ext4Result<Option<Node>> {
        if folder.kind != Kind::Folder {
            return Err(Ext4Error::not_dir());
        }
        let found = self.core.lookup_child(folder.number, FileName::new(name.as_bytes())?)?;
        Ok(found.map(Node::from))
    }

    fn target(&mut self, link: Node) -> Ext4Result<String> {
        let high = raw::size_high(&mut **self.volume.borrow_mut(), link.number.raw());
        let high = high.map_err(|Lost| Ext4Error::io())?;
        if link.size_bytes > TARGET_BYTES_MAX as u64 || high != Some(0) {
            return Err(Ext4Error::corrupted().with_operation("link"));
        }
        let mut bytes = [0; TARGET_BYTES_MAX];
        let length = self.core.read_inode(link.number, 0, &mut bytes)?;
        let text = core::str::from_utf8(&bytes[..length]);
        text.map(String::from).map_err(|_| Ext4Error::invalid_input().with_operation("link"))
    }

    fn entries(&mut self, folder: InodeNumber) -> Ext4Result<Vec<(String, Node)>> {
        let mut found = Vec::new();
        let mut cursor = DirectoryCursor::Start;
        let mut reader = self.core.open_directory_reader(folder)?;
        while cursor != DirectoryCursor::End {
            let batch = self.core.read_directory_with_reader(&mut reader, cursor, 64)?;
            let Some(last) = batch.last() else { break };
            cursor = last.next_cursor;
            for entry in batch.iter().filter(|it| it.name != b"." && it.name != b"..") {
                let node = self.core.inode(entry.inode)?.into();
                found.push((String::from_utf8_lossy(&entry.name).into_owned(), node));
            }
            if found.len() > ENTRIES_MAX {
                return Err(Ext4Error::overflow());
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// The folder of a path, and the name in it.
    fn parent<'p>(&mut self, path: &'p str) -> Ext4Result<(Node, &'p str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Err(Ext4Error::is_dir());
        }
        Ok((self.walk(folder)?, name))
    }

    fn try_create(&mut self, path: &str) -> Ext4Result<Node> {
        match self.walk(path) {
            Ok(node) if node.kind == Kind::File => {
                self.core.truncate_inode(node.number, 0)?;
                return Ok(Node { size_bytes: 0, ..node });
            }
            Ok(node) if node.kind == Kind::Folder => return Err(Ext4Error::is_dir()),
            Ok(_) => return Err(Ext4Error::unsupported()),
            Err(error) if error.kind() == Ext4ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (folder, name) = self.parent(path)?;
        let (name, mode) = (FileName::new(name.as_bytes())?, FilePermissions::new(0o644)?);
        Ok(self.core.create_regular_file(ROOT, folder.number, name, mode)?.into())
    }

    fn try_make_folder(&mut self, path: &str) -> Ext4Result<()> {
        let (folder, name) = self.parent(path)?;
        let (name, mode) = (FileName::new(name.as_bytes())?, FilePermissions::new(0o755)?);
        self.core.create_directory(ROOT, folder.number, name, mode).map(drop)
    }

    fn try_remove(&mut self, path: &str) -> Ext4Result<()> {
        let (folder, name) = self.parent(path)?;
        let node = self.child(folder, name)?.ok_or_else(Ext4Error::not_found)?;
        let name = FileName::new(name.as_bytes())?;
        let outcome = match node.kind {
            Kind::Folder => self.core.remove_empty_directory(folder.number, name)?,
            _ => self.core.unlink(folder.number, name)?,
        };
        if outcome.requires_reap() { self.core.reap_unlinked_inode(outcome.inode) } else { Ok(()) }
    }
}

/// Everything here belongs to root.
const ROOT: MutationContext = MutationContext::new(0, 0, 0, 0o022);

/// The parts of a path, the first one last.
fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.rev().map(ToString::to_string).collect()
}
