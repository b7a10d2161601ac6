//! Paths of xenstore as small numbers.
//!
//! A path is checked, hashed and spelled out the first time that somebody says it; from then on it
//! is a number, by which its nodes are found. It never forgets one: the paths of one machine are few.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use xen::{DomainId, StoreError};

/// Longest path from the root.
const ABSOLUTE_MAX: usize = 3072;
/// Longest path from a domain's own directory.
const RELATIVE_MAX: usize = 2048;

/// The directory of a domain.
pub(crate) fn home(id: DomainId) -> String {
    format!("/local/domain/{id}")
}

/// A path that somebody has said, or one above it. Its number is above those of the paths above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathId(u32);

impl PathId {
    pub(crate) const ROOT: Self = Self(0);

    /// The number, for tables.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

struct Path {
    text: Arc<str>,
    /// The root's is the root.
    above: PathId,
}

/// All paths that were said.
pub(crate) struct Paths {
    all: Vec<Path>,
    /// By a quick hash: nobody chooses these paths in order to make it slow.
    known: FxHashMap<Arc<str>, PathId>,
    /// Where a relative path is put together: it begins with the directory of who spoke last.
    whole: String,
    home: (DomainId, usize),
}

impl Paths {
    /// The root alone.
    pub(crate) fn new() -> Self {
        let (whole, home) = (home(DomainId::ZERO), (DomainId::ZERO, home(DomainId::ZERO).len()));
        let mut paths = Self { all: Vec::new(), known: FxHashMap::default(), whole, home };
        paths.add("/", PathId::ROOT);
        paths
    }

    /// How many there are; their numbers are below that.
    pub(crate) const fn count(&self) -> usize {
        self.all.len()
    }

    /// The path's absolute form.
    pub(crate) fn text(&self, path: PathId) -> &Arc<str> {
        &self.all[path.index()].text
    }

    /// The path one level up: of the root, the root.
    pub(crate) fn above(&self, path: PathId) -> PathId {
        self.all[path.index()].above
    }

    /// Whether `path` is `top` or lies under it.
    pub(crate) fn within(&self, mut path: PathId, top: PathId) -> bool {
        while path > top {
            path = self.above(path);
        }
        path == top
    }

    /// What is watched like a path and is none.
    pub(crate) fn special(&mut self, word: &str) -> PathId {
        self.known(word).unwrap_or_else(|| self.add(word, PathId::ROOT))
    }

    /// `path` as `who` means it.
    pub(crate) fn find(&mut self, who: DomainId, path: &str) -> Result<PathId, StoreError> {
        let relative = !path.starts_with('/');
        if path.len() > if relative { RELATIVE_MAX } else { ABSOLUTE_MAX } {
            return Err(StoreError::Invalid);
        }
        if !relative {
            return self.known(path).map_or_else(|| self.check(path), Ok);
        }
        let mut whole = std::mem::take(&mut self.whole);
        if self.home.0 != who {
            whole = home(who);
            self.home = (who, whole.len());
        }
        whole.truncate(self.home.1);
        whole.push('/');
        whole.push_str(path);
        let found = self.known(&whole).map_or_else(|| self.check(&whole), Ok);
        self.whole = whole;
        found
    }

    /// A path that was said before.
    pub(crate) fn known(&self, path: &str) -> Option<PathId> {
        self.known.get(path).copied()
    }

    /// A path that was never said.
    fn check(&mut self, path: &str) -> Result<PathId, StoreError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@');
        let mut slash = false;
        let fine = path.bytes().all(|byte| {
            let before = std::mem::replace(&mut slash, byte == b'/');
            legal(byte) || (slash && !before)
        });
        if fine && !slash { Ok(self.enter(path)) } else { Err(StoreError::Invalid) }
    }

    fn enter(&mut self, path: &str) -> PathId {
        if let Some(known) = self.known(path) {
            return known;
        }
        let slash = path.rfind('/').expect("it is absolute");
        let above = if slash == 0 { PathId::ROOT } else { self.enter(&path[..slash]) };
        self.add(path, above)
    }

    fn add(&mut self, path: &str, above: PathId) -> PathId {
        let id = PathId(u32::try_from(self.all.len()).expect("paths are few"));
        let text: Arc<str> = path.into();
        self.all.push(Path { text: text.clone(), above });
        self.known.insert(text, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_number_however_it_is_said() {
        let mut paths = Paths::new();
        let whole = paths.find(DomainId::ZERO, "/local/domain/7/device").unwrap();
        assert_eq!(paths.find(DomainId(7), "device").unwrap(), whole);
        assert_ne!(paths.find(DomainId(8), "device").unwrap(), whole);
        assert_eq!(&**paths.text(paths.above(whole)), "/local/domain/7");
        assert_eq!(paths.find(DomainId(7), "/").unwrap(), PathId::ROOT);
        assert_eq!(paths.above(PathId::ROOT), PathId::ROOT);
        let beside = paths.find(DomainId(7), "device-model").unwrap();
        let below = paths.find(DomainId(7), "device/vbd").unwrap();
        for (path, top, is_within) in [
            (below, whole, true),
            (whole, whole, true),
            (whole, PathId::ROOT, true),
            (whole, below, false),
            (beside, whole, false),
        ] {
            assert_eq!(paths.within(path, top), is_within);
        }
    }

    #[test]
    fn what_no_path_can_be_is_refused_and_not_entered() {
        let mut paths = Paths::new();
        let long = |length: usize| "a".repeat(length);
        for path in ["", "a/", "/a/", "//", "/a//b", "a b", "ä", &long(RELATIVE_MAX + 1)] {
            assert_eq!(paths.find(DomainId(1), path), Err(StoreError::Invalid), "{path}");
        }
        assert_eq!(paths.count(), 1);
        assert!(paths.find(DomainId(1), &long(RELATIVE_MAX)).is_ok());
        let rooted = format!("/{}", long(ABSOLUTE_MAX - 1));
        assert!(paths.find(DomainId(1), &rooted).is_ok());
        assert!(paths.find(DomainId(1), &format!("{rooted}a")).is_err());
    }
}
