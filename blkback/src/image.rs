//! Opening a disk image or a block device, and finding out what can be done with it.
//!
//! Every way that a user can get this wrong is refused here with a sentence, before anything is
//! promised to a guest. It must never create, extend or change a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use thiserror::Error;

use crate::Folders;
use crate::disk::Profile;

/// The smallest unit that a guest can transfer.
const SECTOR: u64 = 512;

/// Why an image cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("{0}: no such file; create it first (truncate -s SIZE {0})")]
    Missing(PathBuf),
    /// Not a file or block device.
    #[error("{0}: a directory, not a disk image")]
    Directory(PathBuf),
    /// Neither a regular file nor a block device.
    #[error("{0}: neither a regular file nor a block device")]
    NotADisk(PathBuf),
    /// No sector fits.
    #[error("{path}: {bytes} bytes long, too short for a disk; a sector has 512")]
    TooShort {
        /// The image.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The length is not whole sectors.
    #[error(
        "{path}: {bytes} bytes long, not a multiple of 512; fix it with truncate -s %512 {path}"
    )]
    Ragged {
        /// The image.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Shorter than what its guest was told.
    #[error(
        "{path}: {bytes} bytes long now, and the disk has {told}; a disk that is attached does not \
         become smaller"
    )]
    Shrunk {
        /// The image.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length that it had.
        told: u64,
    },
    /// Not writable, but to be attached for writing.
    #[error("{0}: not writable; attach it with access=ro, or change its permissions")]
    ReadOnly(PathBuf),
    /// Somebody else serves it.
    #[error("{0}: in use by another disk; images are shared only if all users have access=ro")]
    InUse(PathBuf),
    /// It lies where the daemon serves nothing from.
    #[error(
        "{path}: not in a folder of images ({folders}); start the daemon with --images {above}",
        above = path.parent().unwrap_or(path).display()
    )]
    Outside {
        /// Where it really is.
        path: PathBuf,
        /// From where images are served.
        folders: Folders,
    },
    /// Anything else that the kernel said.
    #[error("{path}: {error}")]
    Io {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    pub(crate) file: File,
    profile: Profile,
}

impl Image {
    /// Opens `path`, for writing unless `read_only`, past the page cache where the file lets us.
    ///
    /// A lock on the file (`flock`) keeps two disks from writing to one image; it ends with the
    /// value.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        Self::open_found(path, &find(path)?, read_only)
    }

    /// The same, if the image really lies in one of `folders`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_in(folders: &Folders, path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let found = find(path)?;
        let real = std::fs::read_link(&found.name).map_err(|error| classify(path, error))?;
        if !folders.hold(&real, found.is_block_device()) {
            return Err(OpenError::Outside { path: real, folders: folders.clone() });
        }
        Self::open_found(path, &found, read_only)
    }

    /// An image that another process opened, with what it found out.
    pub(crate) fn inherit(descriptor: OwnedFd, profile: Profile) -> Self {
        Self { file: descriptor.into(), profile }
    }

    fn open_found(path: &Path, found: &Found, read_only: bool) -> Result<Self, OpenError> {
        let io = |error: io::Error| classify(path, error);
        let buffered = found.open(read_only, OFlags::empty()).map_err(io)?;
        let bytes = (&buffered).seek(SeekFrom::End(0)).map_err(io)?;
        check_length(path, bytes)?;
        let direct = found.open(read_only, OFlags::DIRECT).ok().filter(|file| probe(file, bytes));
        if direct.is_none() {
            log::info!("{}: no direct I/O here, going through the page cache", path.display());
        }
        let file = direct.unwrap_or(buffered);
        lock(path, &file, read_only)?;
        let discards = !found.is_block_device() && !read_only && takes_discards(&file, bytes);
        let profile = Profile {
            sectors: bytes / SECTOR,
            physical_sector_size: if bytes.is_multiple_of(4096) { 4096 } else { 512 },
            read_only,
            discard_granularity: discards.then_some(4096),
        };
        Ok(Self { file, profile })
    }

    /// The size and the abilities.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Looks how large the image of this name is now, and gives its sectors.
    ///
    /// # Errors
    /// [`OpenError::Shrunk`], or why nobody could be given an image of that size; then all is as it
    /// was.
    pub(crate) fn measure(&mut self, path: &Path) -> Result<u64, OpenError> {
        let bytes = (&self.file).seek(SeekFrom::End(0)).map_err(|error| classify(path, error))?;
        check_length(path, bytes)?;
        if bytes / SECTOR < self.profile.sectors {
            let told = self.profile.sectors * SECTOR;
            return Err(OpenError::Shrunk { path: path.into(), bytes, told });
        }
        self.profile.sectors = bytes / SECTOR;
        Ok(self.profile.sectors)
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check_length(path: &Path, bytes: u64) -> Result<(), OpenError> {
    if bytes < SECTOR {
        return Err(OpenError::TooShort { path: path.into(), bytes });
    }
    if !bytes.is_multiple_of(SECTOR) {
        return Err(OpenError::Ragged { path: path.into(), bytes });
    }
    Ok(())
}

fn classify(path: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.into()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::ReadOnly(path.into())
        }
        _ => OpenError::Io { path: path.into(), error },
    }
}

/// A file that was found and not yet opened: what is checked of it stays true of what is opened.
struct Found {
    /// Held so that `name` stays its name.
    _file: OwnedFd,
    name: PathBuf,
    kind: FileType,
    mode: Mode,
}

/// Finds a file that could be a disk. Opening one that could not might have effects of its own.
fn find(path: &Path) -> Result<Found, OpenError> {
    let io = |error: rustix::io::Errno| classify(path, error.into());
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    let mode = rustix::fs::fstat(&file).map_err(io)?.st_mode;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    match FileType::from_raw_mode(mode) {
        FileType::Directory => Err(OpenError::Directory(path.into())),
        kind @ (FileType::RegularFile | FileType::BlockDevice) => {
            Ok(Found { _file: file, name, kind, mode: Mode::from_raw_mode(mode) })
        }
        _ => Err(OpenError::NotADisk(path.into())),
    }
}

impl Found {
    fn is_block_device(&self) -> bool {
        self.kind == FileType::BlockDevice
    }

    fn open(&self, read_only: bool, flags: OFlags) -> io::Result<File> {
        // The mode bits do not stop root, but whoever took the write bits away meant it.
        if !read_only && !self.mode.intersects(Mode::WUSR | Mode::WGRP | Mode::WOTH) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        OpenOptions::new().read(true).write(!read_only).custom_flags(flags).open(&self.name)
    }
}

/// Whether the file takes direct reads in the guest's unit: 512 bytes, at any multiple of 512 in
/// a page and on the disk. Devices with larger sectors do not.
fn probe(file: &File, bytes: u64) -> bool {
    let mut page = vec![0; 3 * 4096];
    let aligned = page.as_ptr().align_offset(4096) + 512;
    let at = if bytes >= 2 * SECTOR { SECTOR } else { 0 };
    file.read_exact_at(&mut page[aligned..aligned + 512], at).is_ok()
}

fn lock(path: &Path, file: &File, read_only: bool) -> Result<(), OpenError> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    rustix::fs::flock(file, operation).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => OpenError::InUse(path.into()),
        other => OpenError::Io { path: path.into(), error: other.into() },
    })
}

/// Whether holes can be punched: tried past the end, where there is nothing to lose.
fn takes_discards(file: &File, bytes: u64) -> bool {
    let beyond = bytes.next_multiple_of(4096);
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file.as_fd(), mode, beyond, 4096).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scratch::Scratch;

    fn message(path: &Path, read_only: bool) -> String {
        Image::open(path, read_only).map(drop).expect_err("it must be refused").to_string()
    }

    #[test]
    fn every_unusable_image_is_refused_with_a_sentence() {
        let folder = Scratch::new("image-refused");
        let image = folder.file("d.img", 0);
        assert!(message(&folder.path().join("none"), true).contains("no such file"));
        assert!(message(folder.path(), true).contains("a directory"));
        assert!(message(Path::new("/dev/null"), true).contains("neither a regular file"));
        assert!(message(&image, true).contains("too short"));
        std::fs::write(&image, [0; 511]).unwrap();
        assert!(message(&image, true).contains("511 bytes long, too short"));
        std::fs::write(&image, [0; 513]).unwrap();
        assert!(message(&image, true).contains("not a multiple of 512"));
        std::fs::write(&image, [0; 512]).unwrap();
        std::fs::set_permissions(&image, PermissionsExt::from_mode(0o444)).unwrap();
        assert!(message(&image, false).contains("access=ro"));
        assert!(Image::open(&image, true).is_ok());
    }

    #[test]
    fn one_writer_or_many_readers() {
        let folder = Scratch::new("image-shared");
        let image = folder.file("d.img", 8192);
        let reader = Image::open(&image, true).unwrap();
        let second = Image::open(&image, true).unwrap();
        assert!(message(&image, false).contains("in use"));
        drop((reader, second));
        let writer = Image::open(&image, false).unwrap();
        assert!(message(&image, true).contains("in use"));
        assert_eq!(writer.profile().sectors, 16);
        assert_eq!(writer.profile().physical_sector_size, 4096);
    }

    #[test]
    fn an_open_image_may_grow_by_whole_sectors_and_never_shrinks() {
        let folder = Scratch::new("image-grown");
        let path = folder.file("d.img", 8192);
        let mut image = Image::open(&path, false).unwrap();
        let resize = |bytes| File::options().write(true).open(&path).unwrap().set_len(bytes);
        assert_eq!(image.measure(&path).unwrap(), 16);
        for (bytes, word) in [(7680, "smaller"), (0, "too short"), (8193, "a multiple of 512")] {
            resize(bytes).unwrap();
            let refused = image.measure(&path).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
            assert_eq!(image.profile().sectors, 16);
        }
        resize(8704).unwrap();
        assert_eq!(image.measure(&path).unwrap(), 17);
        assert_eq!(image.profile().sectors, 17);
        resize(8192).unwrap();
        assert!(matches!(image.measure(&path), Err(OpenError::Shrunk { told: 8704, .. })));
    }
}
