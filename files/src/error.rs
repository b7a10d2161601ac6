//! Why something cannot be done with a file, in the words of a user where there are some.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use rsext4::{Ext4Error, Ext4ErrorKind};

/// Why something cannot be done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such file.
    NotFound,
    /// It is a folder.
    Folder,
    /// Something on the way to it is no folder.
    NotFolder,
    /// It is there already.
    Exists,
    /// The folder has something in it.
    NotEmpty,
    /// There is no room.
    Full,
    /// Nothing may be changed here.
    ReadOnly,
    /// The volume failed.
    Lost,
    /// What is on the volume makes no sense, or needs what is not known here.
    Other(String),
}

impl From<Ext4Error> for Error {
    fn from(error: Ext4Error) -> Self {
        match error.kind() {
            Ext4ErrorKind::NotFound => Self::NotFound,
            Ext4ErrorKind::IsDirectory => Self::Folder,
            Ext4ErrorKind::NotDirectory => Self::NotFolder,
            Ext4ErrorKind::AlreadyExists => Self::Exists,
            Ext4ErrorKind::NotEmpty => Self::NotEmpty,
            Ext4ErrorKind::NoSpace => Self::Full,
            Ext4ErrorKind::ReadOnly => Self::ReadOnly,
            Ext4ErrorKind::Io => Self::Lost,
            kind => Self::Other(match error.context() {
                Some(context) => format!("{kind} ({context:?})"),
                None => kind.to_string(),
            }),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such file",
            Self::Folder => "it is a folder",
            Self::NotFolder => "it is not in a folder",
            Self::Exists => "it is there already",
            Self::NotEmpty => "it is not empty",
            Self::Full => "the file system is full",
            Self::ReadOnly => "it is read-only",
            Self::Lost => "it cannot be read or written",
            Self::Other(text) => text,
        })
    }
}

impl core::error::Error for Error {}
