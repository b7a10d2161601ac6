//! The nodes of xenstore: values, owners, readers.
//!
//! Rules are those of `docs/misc/xenstore.txt` and of the C xenstored: a node inherits the
//! permissions of its parent, except that a domain other than 0 owns what it creates; whoever may
//! not read the nearest node above a missing one is not told that it is missing. Nothing here
//! knows of watches. A [`View`] is the tree, or the tree as a transaction sees it, whose changes lie
//! over it.

use xen::{DomainId, StoreError};

use crate::paths::{PathId, Paths};

/// Longest value: the default of xenstored's limit on a node's size (`--entry-size`).
pub(crate) const VALUE_MAX: usize = 2048;

/// Who may do what with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) owner: DomainId,
    pub(crate) reader: Option<DomainId>,
}

impl Rights {
    pub(crate) fn readable(self, who: DomainId) -> bool {
        self.writable(who) || self.reader == Some(who)
    }

    fn writable(self, who: DomainId) -> bool {
        who == DomainId::ZERO || self.owner == who
    }
}

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    value: String,
    pub(crate) rights: Rights,
    /// When value, permissions, or which children there are last changed.
    pub(crate) changed: u64,
    /// In the order of their names.
    children: Vec<PathId>,
}

impl Node {
    const fn new(rights: Rights, changed: u64) -> Self {
        Self { value: String::new(), rights, changed, children: Vec::new() }
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }
}

/// All nodes, by the number of their path.
pub(crate) struct Tree {
    pub(crate) paths: Paths,
    nodes: Vec<Option<Node>>,
}

impl Tree {
    /// What xenstore begins with.
    pub(crate) fn new() -> Self {
        let root = Node::new(Rights { owner: DomainId::ZERO, reader: None }, 0);
        Self { paths: Paths::new(), nodes: vec![Some(root)] }
    }

    pub(crate) fn node(&self, path: PathId) -> Option<&Node> {
        self.nodes.get(path.index())?.as_ref()
    }

    fn place(&mut self, path: PathId) -> &mut Option<Node> {
        if path.index() >= self.nodes.len() {
            self.nodes.resize(self.paths.count(), None);
        }
        &mut self.nodes[path.index()]
    }

    /// Takes in what a transaction has changed, all of it `now`.
    pub(crate) fn adopt(&mut self, over: &mut Over, now: u64) {
        for (&path, node) in over.paths.iter().zip(over.nodes.drain(..)) {
            *self.place(path) = node.map(|node| Node { changed: now, ..node });
        }
    }
}

/// What a transaction has changed. A node that is gone is there as `None`.
#[derive(Default)]
pub(crate) struct Over {
    paths: Vec<PathId>,
    nodes: Vec<Option<Node>>,
    /// By the number of a path: its place in the others, if it has one.
    places: Vec<Option<usize>>,
}

impl Over {
    fn position(&self, path: PathId) -> Option<usize> {
        self.places.get(path.index()).copied().flatten()
    }

    /// Forgets everything, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.paths.drain(..).for_each(|path| self.places[path.index()] = None);
        self.nodes.clear();
    }

    fn put(&mut self, path: PathId, node: Option<Node>) -> usize {
        if let Some(at) = self.position(path) {
            self.nodes[at] = node;
            return at;
        }
        let at = self.paths.len();
        self.paths.push(path);
        self.nodes.push(node);
        if path.index() >= self.places.len() {
            self.places.resize(path.index() + 1, None);
        }
        self.places[path.index()] = Some(at);
        at
    }
}

/// The tree, as somebody sees it.
pub(crate) struct View<'a> {
    /// All nodes.
    pub(crate) tree: &'a mut Tree,
    /// What a transaction has changed.
    pub(crate) over: Option<&'a mut Over>,
    /// The time of the next change.
    pub(crate) now: u64,
}

impl View<'_> {
    pub(crate) fn node(&self, path: PathId) -> Option<&Node> {
        if let Some(over) = &self.over
            && let Some(at) = over.position(path)
        {
            return over.nodes[at].as_ref();
        }
        self.tree.node(path)
    }

    /// A node that is there, to be changed.
    fn edit(&mut self, path: PathId) -> &mut Node {
        let Self { tree, over, now } = self;
        let node = match over {
            None => tree.place(path).as_mut(),
            Some(over) => {
                let at =
                    over.position(path).unwrap_or_else(|| over.put(path, tree.node(path).cloned()));
                over.nodes[at].as_mut()
            }
        };
        let node = node.expect("a node that was found");
        node.changed = *now;
        node
    }

    fn put(&mut self, path: PathId, node: Option<Node>) {
        match &mut self.over {
            None => *self.tree.place(path) = node,
            Some(over) => drop(over.put(path, node)),
        }
    }

    /// The node at `path` or the nearest above it.
    pub(crate) fn nearest(&self, mut path: PathId) -> (PathId, &Node) {
        loop {
            if let Some(node) = self.node(path) {
                return (path, node);
            }
            assert_ne!(path, PathId::ROOT, "the root is never removed");
            path = self.tree.paths.above(path);
        }
    }

    /// The node at `path`; `None` if `who` may know that there is none.
    fn visible(&self, who: DomainId, path: PathId) -> Result<Option<&Node>, StoreError> {
        let (found, node) = self.nearest(path);
        if !node.rights.readable(who) {
            return Err(StoreError::Denied);
        }
        Ok((found == path).then_some(node))
    }

    pub(crate) fn read(&self, who: DomainId, path: PathId) -> Result<Option<&str>, StoreError> {
        Ok(self.visible(who, path)?.map(|node| node.value.as_str()))
    }

    pub(crate) fn list(&self, who: DomainId, path: PathId) -> Result<Vec<String>, StoreError> {
        let children = self.visible(who, path)?.map_or(&[][..], |node| &node.children);
        let name = |child: &PathId| {
            let text = self.tree.paths.text(*child);
            text.rsplit('/').next().unwrap_or_default().to_owned()
        };
        Ok(children.iter().map(name).collect())
    }

    /// Writes a node, and makes it and those above it that are missing; tells which domain owns
    /// nodes that were made, and how many.
    pub(crate) fn write(
        &mut self,
        who: DomainId,
        path: PathId,
        value: &str,
        room: usize,
    ) -> Result<(DomainId, usize), StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::Quota);
        }
        let (found, node) = self.nearest(path);
        let rights = node.rights;
        if !rights.writable(who) {
            return Err(StoreError::Denied);
        }
        let (mut made, mut at) = (0, path);
        while at != found {
            (made, at) = (made + 1, self.tree.paths.above(at));
        }
        if made > room {
            return Err(StoreError::Quota);
        }
        let owner = if who == DomainId::ZERO { rights.owner } else { who };
        self.make(path, found, Rights { owner, ..rights });
        let node = self.edit(path);
        node.value.clear();
        node.value.push_str(value);
        Ok((owner, made))
    }

    /// Makes what is missing below `found`, down to `path`.
    fn make(&mut self, path: PathId, found: PathId, rights: Rights) {
        if path == found {
            return;
        }
        let above = self.tree.paths.above(path);
        self.make(above, found, rights);
        let text = |path: PathId| self.tree.paths.text(path);
        let siblings = &self.node(above).expect("it was found or made").children;
        // All begin with the same path: the order is that of the names.
        let place = siblings.binary_search_by(|&sibling| text(sibling).cmp(text(path)));
        let place = place.unwrap_or_else(|place| place);
        self.edit(above).children.insert(place, path);
        self.put(path, Some(Node::new(rights, self.now)));
    }

    /// Removes a node and all below it, and shows them to `gone`, the topmost first.
    pub(crate) fn remove(
        &mut self,
        who: DomainId,
        path: PathId,
        mut gone: impl FnMut(PathId, Rights),
    ) -> Result<(), StoreError> {
        let (found, node) = self.nearest(path);
        if !node.rights.writable(who) {
            return Err(StoreError::Denied);
        }
        if path == PathId::ROOT {
            return Err(StoreError::Invalid);
        }
        if found == path {
            self.uproot(path, &mut gone);
            let above = self.tree.paths.above(path);
            self.edit(above).children.retain(|&child| child != path);
        }
        Ok(())
    }

    fn uproot(&mut self, path: PathId, gone: &mut impl FnMut(PathId, Rights)) {
        let Some(node) = self.node(path) else { return };
        let (rights, children) = (node.rights, node.children.clone());
        self.put(path, None);
        gone(path, rights);
        children.into_iter().for_each(|child| self.uproot(child, gone));
    }

    /// Sets permissions; gives the owner before.
    pub(crate) fn permit(
        &mut self,
        who: DomainId,
        path: PathId,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<DomainId, StoreError> {
        let before = self.visible(who, path)?.ok_or(StoreError::NotFound)?.rights;
        if !before.writable(who) || (who != DomainId::ZERO && owner != who) {
            return Err(StoreError::Denied);
        }
        self.edit(path).rights = Rights { owner, reader: Some(reader) };
        Ok(before.owner)
    }
}
