//! Where images may lie: folders that the administrator names, and block devices below `/dev`.
//!
//! Held against the place where a file really is, so that neither a link nor `..` leads out. It
//! must never let a device node in a folder pass for one below `/dev`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The folders that are used when none is named, as far as they are there.
pub const DEFAULT_FOLDERS: [&str; 4] =
    ["/images", "/srv", "/var/lib/xen/images", "/var/lib/libvirt/images"];

/// Where block devices are.
pub(crate) const DEVICES: &str = "/dev";

/// Folders that images may lie in, at any depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// The named folders; without names, the [`DEFAULT_FOLDERS`] that are there.
    ///
    /// # Errors
    /// A named one is not there, or is no folder: its name, and why.
    pub fn new(named: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        if named.is_empty() {
            let there =
                DEFAULT_FOLDERS.iter().filter_map(|folder| real_folder(folder.as_ref()).ok());
            return Ok(Self(there.collect()));
        }
        let real = |folder: &PathBuf| real_folder(folder).map_err(|error| (folder.clone(), error));
        named.iter().map(real).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a file that really is at `path` may be served.
    pub(crate) fn hold(&self, path: &Path, is_block_device: bool) -> bool {
        if is_block_device {
            return path.starts_with(DEVICES);
        }
        self.0.iter().any(|folder| path.starts_with(folder)) && !path.starts_with(DEVICES)
    }

    /// The folders.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0
    }
}

impl fmt::Display for Folders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for folder in &self.0 {
            write!(f, "{}, ", folder.display())?;
        }
        f.write_str("block devices below /dev")
    }
}

fn real_folder(path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    if real.is_dir() { Ok(real) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_folder_holds_what_is_below_it_and_dev_holds_block_devices_only() {
        let scratch = Scratch::new("folders");
        let folders = Folders::new(&[scratch.path().into()]).unwrap();
        let below = |name: &str| scratch.path().canonicalize().unwrap().join(name);
        assert!(folders.hold(&below("a.img"), false));
        assert!(folders.hold(&below("deep/a.img"), false));
        assert!(!folders.hold(&below("vda"), true));
        let beside =
            format!("{}-beside/a.img", below("").display().to_string().trim_end_matches('/'));
        assert!(!folders.hold(beside.as_ref(), false));
        assert!(!folders.hold("/etc/shadow".as_ref(), false));
        assert!(folders.hold("/dev/mapper/vg-a".as_ref(), true));
        assert!(!folders.hold("/devices/vda".as_ref(), true));
        assert!(!folders.hold("/dev/shm/a.img".as_ref(), false));
    }

    #[test]
    fn a_named_folder_has_to_be_there() {
        let scratch = Scratch::new("folders-named");
        let file = scratch.file("a.img", 512);
        for (bad, kind) in [
            (scratch.path().join("none"), io::ErrorKind::NotFound),
            (file, io::ErrorKind::NotADirectory),
        ] {
            let (named, error) = Folders::new(&[scratch.path().into(), bad.clone()]).unwrap_err();
            assert_eq!((named, error.kind()), (bad, kind));
        }
        for folder in Folders::new(&[]).unwrap().paths() {
            assert!(
                DEFAULT_FOLDERS
                    .iter()
                    .any(|it| Path::new(it).canonicalize().is_ok_and(|it| it == *folder))
            );
        }
    }
}
