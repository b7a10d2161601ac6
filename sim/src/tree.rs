//! The nodes of xenstore: values, owners, readers.
//!
//! Rules are those of `docs/misc/xenstore.txt` and of the C xenstored: a node inherits the
//! permissions of its parent, except that a domain other than 0 owns what it creates; whoever may
//! not read the nearest node above a missing one is not told that it is missing. Nothing here
//! knows of watches. A [`View`] is the tree, or the tree as a transaction sees it, whose changes lie
//! over it.

use std::collections::HashMap;
use std::sync::Arc;

use xen::{DomainId, StoreError};

/// Longest value: the default of xenstored's limit on a node's size (`--entry-size`).
pub(crate) const VALUE_MAX: usize = 2048;
/// Longest path from the root.
const ABSOLUTE_MAX: usize = 3072;
/// Longest path from a domain's own directory.
const RELATIVE_MAX: usize = 2048;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    value: Arc<str>,
    owner: DomainId,
    reader: Option<DomainId>,
    /// When value, permissions, or which children there are last changed.
    pub(crate) changed: u64,
    /// Names, in order.
    children: Vec<Arc<str>>,
}

impl Node {
    /// What xenstore begins with.
    pub(crate) fn root() -> Self {
        let (value, owner, reader) = ("".into(), DomainId::ZERO, None);
        Self { value, owner, reader, changed: 0, children: Vec::new() }
    }

    pub(crate) fn readable(&self, who: DomainId) -> bool {
        self.writable(who) || self.reader == Some(who)
    }

    pub(crate) const fn owner(&self) -> DomainId {
        self.owner
    }

    fn writable(&self, who: DomainId) -> bool {
        who == DomainId::ZERO || self.owner == who
    }
}

/// Nodes by absolute path; never iterated over, as that order is not the seed's. In what lies over
/// a tree, a node that is gone is there as `None`.
pub(crate) type Nodes = HashMap<Arc<str>, Option<Node>>;

/// The directory of a domain.
pub(crate) fn home(id: DomainId) -> String {
    format!("/local/domain/{id}")
}

/// The absolute form of `path` as `who` means it.
pub(crate) fn absolute(who: DomainId, path: &str) -> Result<String, StoreError> {
    let relative = !path.starts_with('/');
    let longest = if relative { RELATIVE_MAX } else { ABSOLUTE_MAX };
    let whole = if relative { format!("{}/{path}", home(who)) } else { path.to_owned() };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@');
    let mut before = b'a';
    let fine = whole.bytes().all(|byte| {
        let doubled = byte == b'/' && before == b'/';
        before = byte;
        !doubled && (byte == b'/' || legal(byte))
    });
    let ends = whole == "/" || before != b'/';
    if fine && ends && path.len() <= longest { Ok(whole) } else { Err(StoreError::Invalid) }
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

/// The tree, as somebody sees it.
pub(crate) struct View<'a> {
    /// All nodes.
    pub(crate) base: &'a mut Nodes,
    /// What a transaction has changed.
    pub(crate) over: Option<&'a mut Nodes>,
    /// The time of the next change.
    pub(crate) now: u64,
}

impl View<'_> {
    pub(crate) fn node(&self, path: &str) -> Option<&Node> {
        let over = self.over.as_ref().and_then(|over| over.get(path));
        over.or_else(|| self.base.get(path))?.as_ref()
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        match &mut self.over {
            Some(over) => drop(over.insert(path.into(), node)),
            None => match (self.base.get_mut(path), node) {
                (Some(place), Some(node)) => *place = Some(node),
                (Some(_), None) => drop(self.base.remove(path)),
                (None, node) => drop(self.base.insert(path.into(), node)),
            },
        }
    }

    /// The node at `path` or the nearest above it.
    pub(crate) fn nearest<'p>(&self, mut path: &'p str) -> (&'p str, &Node) {
        loop {
            if let Some(node) = self.node(path) {
                return (path, node);
            }
            path = parent(path).expect("the root is never removed");
        }
    }

    pub(crate) fn read(&self, who: DomainId, path: &str) -> Result<Option<String>, StoreError> {
        let (found, node) = self.nearest(path);
        if !node.readable(who) {
            return Err(StoreError::Denied);
        }
        Ok((found.len() == path.len()).then(|| node.value.to_string()))
    }

    pub(crate) fn list(&self, who: DomainId, path: &str) -> Result<Vec<String>, StoreError> {
        let (found, node) = self.nearest(path);
        if !node.readable(who) {
            return Err(StoreError::Denied);
        }
        let children = node.children.iter().filter(|_| found.len() == path.len());
        Ok(children.map(|name| name.to_string()).collect())
    }

    /// Writes a node, and makes it and those above it that are missing; tells which domain owns
    /// nodes that were made, and how many.
    pub(crate) fn write(
        &mut self,
        who: DomainId,
        path: &str,
        value: &str,
        room: usize,
    ) -> Result<(DomainId, usize), StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::Quota);
        }
        let (found, node) = self.nearest(path);
        if !node.writable(who) {
            return Err(StoreError::Denied);
        }
        let missing = path[found.len()..].trim_start_matches('/');
        let made = missing.split('/').filter(|name| !name.is_empty()).count();
        if made > room {
            return Err(StoreError::Quota);
        }
        let mut node = node.clone();
        let now = self.now;
        node.changed = now;
        if made == 0 {
            node.value = value.into();
            self.put(path, Some(node));
            return Ok((who, 0));
        }
        let owner = if who == DomainId::ZERO { node.owner } else { who };
        let heir = Node { owner, reader: node.reader, changed: now, ..Node::root() };
        let mut at = found;
        while at.len() < path.len() {
            let rest = path[at.len()..].trim_start_matches('/');
            let name = &rest[..rest.find('/').unwrap_or(rest.len())];
            let place = node.children.binary_search_by(|child| (**child).cmp(name));
            node.children.insert(place.unwrap_or_else(|at| at), name.into());
            self.put(at, Some(node));
            at = &path[..path.len() - rest.len() + name.len()];
            node = heir.clone();
        }
        node.value = value.into();
        self.put(path, Some(node));
        Ok((owner, made))
    }

    /// Removes a node and all below it, and gives them, the topmost first.
    pub(crate) fn remove(
        &mut self,
        who: DomainId,
        path: &str,
    ) -> Result<Vec<(String, Node)>, StoreError> {
        let (found, node) = self.nearest(path);
        if !node.writable(who) {
            return Err(StoreError::Denied);
        }
        if path == "/" {
            return Err(StoreError::Invalid);
        }
        let mut gone = Vec::new();
        if found.len() < path.len() {
            return Ok(gone);
        }
        self.collect(path.to_owned(), &mut gone);
        gone.iter().for_each(|(path, _)| self.put(path, None));
        let mut above = self.node(holder(path)).expect("it had a node below it").clone();
        let name = path.rsplit('/').next().unwrap_or_default();
        above.children.retain(|child| **child != *name);
        above.changed = self.now;
        self.put(holder(path), Some(above));
        Ok(gone)
    }

    /// A node and all below it, topmost first.
    fn collect(&self, path: String, into: &mut Vec<(String, Node)>) {
        let Some(node) = self.node(&path).cloned() else { return };
        let below: Vec<String> =
            node.children.iter().map(|name| format!("{path}/{name}")).collect();
        into.push((path, node));
        below.into_iter().for_each(|path| self.collect(path, into));
    }

    /// Sets permissions; gives the owner before.
    pub(crate) fn permit(
        &mut self,
        who: DomainId,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<DomainId, StoreError> {
        self.read(who, path)?;
        let mut node = self.node(path).ok_or(StoreError::NotFound)?.clone();
        if !node.writable(who) || (who != DomainId::ZERO && owner != who) {
            return Err(StoreError::Denied);
        }
        let before = node.owner;
        (node.owner, node.reader, node.changed) = (owner, Some(reader), self.now);
        self.put(path, Some(node));
        Ok(before)
    }
}

/// The node whose list of children changes when `path` goes.
pub(crate) fn holder(path: &str) -> &str {
    parent(path).unwrap_or("/")
}
