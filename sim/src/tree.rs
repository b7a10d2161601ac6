//! The nodes of xenstore: values, owners, readers.
//!
//! Rules are those of `docs/misc/xenstore.txt` and of the C xenstored: a node inherits the
//! permissions of its parent, except that a domain other than 0 owns what it creates; whoever may
//! not read the nearest node above a missing one is not told that it is missing. Nothing here
//! knows of watches or transactions.

use std::collections::BTreeMap;

use xen::{DomainId, StoreError};

/// Longest value: the default of xenstored's limit on a node's size (`--entry-size`).
pub(crate) const VALUE_MAX: usize = 2048;
/// Longest path from the root.
const ABSOLUTE_MAX: usize = 3072;
/// Longest path from a domain's own directory.
const RELATIVE_MAX: usize = 2048;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    value: String,
    owner: DomainId,
    reader: Option<DomainId>,
}

impl Node {
    pub(crate) fn readable(&self, who: DomainId) -> bool {
        self.writable(who) || self.reader == Some(who)
    }

    fn writable(&self, who: DomainId) -> bool {
        who == DomainId::ZERO || self.owner == who
    }
}

/// All nodes by absolute path.
#[derive(Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// The directory of a domain.
pub(crate) fn home(id: DomainId) -> String {
    format!("/local/domain/{id}")
}

/// The absolute form of `path` as `who` means it.
pub(crate) fn absolute(who: DomainId, path: &str) -> Result<String, StoreError> {
    let relative = !path.starts_with('/');
    let longest = if relative { RELATIVE_MAX } else { ABSOLUTE_MAX };
    let whole = if relative { format!("{}/{path}", home(who)) } else { path.to_owned() };
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_@".contains(c);
    let names = whole.split('/').skip(1);
    let fine = whole == "/" || names.into_iter().all(|n| !n.is_empty() && n.chars().all(legal));
    if fine && path.len() <= longest { Ok(whole) } else { Err(StoreError::Invalid) }
}

/// The path one level up; `None` for the root.
fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (above, _) => Some(above),
    }
}

/// Whether `path` is `top` or lies under it.
pub(crate) fn within(path: &str, top: &str) -> bool {
    top == "/"
        || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node { value: String::new(), owner: DomainId::ZERO, reader: None };
        Self { nodes: BTreeMap::from([("/".to_owned(), root)]) }
    }

    pub(crate) fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at `path` or the nearest above it.
    pub(crate) fn nearest<'a>(&'a self, mut path: &'a str) -> (&'a str, &'a Node) {
        loop {
            if let Some(node) = self.nodes.get(path) {
                return (path, node);
            }
            path = parent(path).expect("the root is never removed");
        }
    }

    pub(crate) fn read(&self, who: DomainId, path: &str) -> Result<Option<String>, StoreError> {
        let (_, node) = self.nearest(path);
        if !node.readable(who) {
            return Err(StoreError::Denied);
        }
        Ok(self.nodes.get(path).map(|node| node.value.clone()))
    }

    pub(crate) fn list(&self, who: DomainId, path: &str) -> Result<Vec<String>, StoreError> {
        let (_, node) = self.nearest(path);
        if !node.readable(who) {
            return Err(StoreError::Denied);
        }
        let children = self.under(path).filter(|below| parent(below) == Some(path));
        Ok(children.filter_map(|child| child.rsplit('/').next()).map(str::to_owned).collect())
    }

    /// Writes a node and tells which nodes changed: the deepest one above it that existed, those
    /// created in between, and itself.
    pub(crate) fn write(
        &mut self,
        who: DomainId,
        path: &str,
        value: &str,
        owned_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::Quota);
        }
        let (existing, node) = self.nearest(path);
        if !node.writable(who) {
            return Err(StoreError::Denied);
        }
        let mut changed = vec![existing.to_owned()];
        let mut heir = node.clone();
        let mut missing = Vec::new();
        let mut at = path;
        while at != existing {
            missing.push(at.to_owned());
            at = parent(at).unwrap_or("/");
        }
        if who != DomainId::ZERO {
            heir.owner = who;
            let owned = self.nodes.values().filter(|node| node.owner == who).count();
            if !missing.is_empty() && owned + missing.len() > owned_max {
                return Err(StoreError::Quota);
            }
        }
        heir.value.clear();
        for new in missing.into_iter().rev() {
            self.nodes.insert(new.clone(), heir.clone());
            changed.push(new);
        }
        self.nodes.get_mut(path).expect("it was just made").value = value.to_owned();
        Ok(changed)
    }

    /// Removes a node and all below it, and gives them, the topmost first.
    pub(crate) fn remove(
        &mut self,
        who: DomainId,
        path: &str,
    ) -> Result<Vec<(String, Node)>, StoreError> {
        let (_, node) = self.nearest(path);
        if !node.writable(who) {
            return Err(StoreError::Denied);
        }
        if path == "/" {
            return Err(StoreError::Invalid);
        }
        let mut doomed: Vec<String> = self.under(path).map(str::to_owned).collect();
        if self.nodes.contains_key(path) {
            doomed.insert(0, path.to_owned());
        }
        let gone = doomed.into_iter().filter_map(|path| self.nodes.remove_entry(&path));
        Ok(gone.collect())
    }

    pub(crate) fn permit(
        &mut self,
        who: DomainId,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        self.read(who, path)?;
        let node = self.nodes.get_mut(path).ok_or(StoreError::NotFound)?;
        if !node.writable(who) || (who != DomainId::ZERO && owner != who) {
            return Err(StoreError::Denied);
        }
        (node.owner, node.reader) = (owner, Some(reader));
        Ok(())
    }

    /// All paths under `path`, itself not.
    fn under<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let from = std::ops::Bound::Excluded(path.to_owned());
        let after = self.nodes.range((from, std::ops::Bound::Unbounded));
        // Names such as `a-b` sort between `a` and `a/b`, so the range is cut by prefix only.
        let near = after.take_while(move |(other, _)| other.starts_with(path));
        near.map(|(other, _)| other.as_str()).filter(move |other| within(other, path))
    }
}

/// The node whose list of children changes when `path` goes.
pub(crate) fn holder(path: &str) -> &str {
    parent(path).unwrap_or("/")
}
