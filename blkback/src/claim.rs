//! One daemon at a time: a lock on a file that also holds the daemon's process id.
//!
//! The kernel ends the lock with the process, however that ends, so a lock that is held means a
//! daemon that lives.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Where the lock is, unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/blkback.pid";

/// The right to serve, for as long as the value lives.
#[derive(Debug)]
pub struct Claim {
    _file: File,
}

/// Somebody else serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The process id in the file, as text; empty if there is none.
    pub process: String,
}

impl Claim {
    /// Takes the right to serve, if nobody has it.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn take(path: &Path) -> io::Result<Result<Self, Taken>> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Err(Taken::read(&mut file)?)),
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Ok(Self { _file: file }))
    }

    /// Whether a daemon lives.
    ///
    /// # Errors
    /// The file is there and cannot be opened.
    pub fn holder(path: &Path) -> io::Result<Option<Taken>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(Taken::read(&mut file)?)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Taken {
    fn read(file: &mut File) -> io::Result<Self> {
        let mut process = String::new();
        file.rewind()?;
        file.take(32).read_to_string(&mut process)?;
        Ok(Self { process: process.trim().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_second_daemon_is_told_who_the_first_is_and_can_follow_it() {
        let folder = Scratch::new("claim");
        let path = folder.path().join("pid");
        assert_eq!(Claim::holder(&path).unwrap(), None);
        let first = Claim::take(&path).unwrap().unwrap();
        let taken = Taken { process: std::process::id().to_string() };
        assert_eq!(Claim::take(&path).unwrap().unwrap_err(), taken);
        assert_eq!(Claim::holder(&path).unwrap(), Some(taken));
        drop(first);
        assert_eq!(Claim::holder(&path).unwrap(), None);
        assert!(Claim::take(&path).unwrap().is_ok());
    }
}
