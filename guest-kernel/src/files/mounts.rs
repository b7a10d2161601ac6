//! Which volume is mounted on which folder.
//!
//! A path belongs to the mount with the longest folder above it. The folder needs not to exist in
//! the file system that it hides.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Access;
use crate::programs::Failure;
use crate::volumes::{Kind, Volume};

/// The most mounts at a time.
pub const MOUNTS_MAX: usize = 16;

/// A mounted volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The folder, absolute and without `.`, `..` or a slash at the end; the root is `/`.
    pub folder: String,
    /// What is mounted.
    pub volume: Volume,
    /// Its kind of file system.
    pub kind: Kind,
    /// What may be done.
    pub access: Access,
}

/// All mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// In the order in which they were mounted.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`Failure`] if its folder or its volume is taken, or past [`MOUNTS_MAX`].
    pub fn add(&mut self, mount: Mount) -> Result<(), Failure> {
        self.check(&mount)?;
        self.0.push(mount);
        Ok(())
    }

    /// Whether [`add`](Self::add) would take it.
    pub fn check(&self, mount: &Mount) -> Result<(), Failure> {
        if self.0.len() == MOUNTS_MAX {
            return Err(Failure::failed(format!("{MOUNTS_MAX} mounts are the limit")));
        }
        let overlaps = |it: &Volume, other: &Volume| {
            it.which == other.which
                && it.first < other.first + other.sectors
                && other.first < it.first + it.sectors
        };
        for it in &self.0 {
            if it.folder == mount.folder || overlaps(&it.volume, &mount.volume) {
                let (name, folder) = (&it.volume.name, &it.folder);
                return Err(Failure::failed(format!("{name} is mounted on {folder}")));
            }
        }
        Ok(())
    }

    /// Takes away the mount on a folder, or of a device.
    ///
    /// # Errors
    /// [`Failure::missing`].
    pub fn remove(&mut self, what: &str) -> Result<Mount, Failure> {
        let (folder, device) = (clean(what), what.strip_prefix("/dev/").unwrap_or(what));
        let at = self.0.iter().position(|it| it.folder == folder || it.volume.name == device);
        let at = at.ok_or_else(|| Failure::missing(format!("{what}: not mounted")))?;
        Ok(self.0.remove(at))
    }

    /// The mount that a path belongs to, and the path in it.
    ///
    /// # Errors
    /// [`Failure::missing`] if nothing is mounted there.
    pub fn of(&self, path: &str) -> Result<(Mount, String), Failure> {
        let path = clean(path);
        let below = |folder: &str| {
            let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| String::from(rest))
        };
        let fitting = self.0.iter().filter_map(|it| below(&it.folder).map(|rest| (it, rest)));
        match fitting.max_by_key(|(it, _)| it.folder.len()) {
            Some((mount, rest)) => Ok((mount.clone(), rest)),
            None => Err(Failure::missing(format!("{path}: nothing is mounted there"))),
        }
    }
}

/// An absolute path without `.`, `..` and doubled slashes; what is not absolute counts from the
/// root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned() {
        for (path, cleaned) in [
            ("/", "/"),
            ("", "/"),
            ("a", "/a"),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../../b", "/b"),
            ("/..", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path:?}");
        }
    }
}
