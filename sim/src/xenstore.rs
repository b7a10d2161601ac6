//! The xenstore daemon: watches and transactions over the tree.
//!
//! A transaction works on a copy of the tree and keeps a list of what it changed. It commits by
//! doing the list again on the tree, unless a node that it read or wrote, or whose children it
//! listed, changed since it began: then it conflicts. Fired watches wait, the same path and token
//! once, and are delivered in an order drawn from the seed.

use std::collections::{BTreeMap, BTreeSet};

use xen::{DomainId, StoreError, Transaction, WatchEvent};

use crate::faults::{Faults, Limits};
use crate::random::Random;
use crate::tree::{Node, Tree, holder, home, within};

/// Fires when a domain dies. Only domain 0 may watch it.
pub(crate) const RELEASE: &str = "@releaseDomain";
/// Fires when a domain appears. Only domain 0 may watch it.
pub(crate) const INTRODUCE: &str = "@introduceDomain";

/// One registered watch.
struct Watch {
    owner: DomainId,
    /// As it was asked for; events speak in the same terms.
    asked: String,
    path: String,
    token: String,
}

pub(crate) enum Change {
    Write(String, String),
    Remove(String),
    Permit(String, DomainId, DomainId),
}

struct Open {
    owner: DomainId,
    tree: Tree,
    /// The time at which the copy was made.
    begun: u64,
    touched: BTreeSet<String>,
    changes: Vec<Change>,
}

pub(crate) struct Xenstore {
    tree: Tree,
    /// Counts changes.
    time: u64,
    /// When each node last changed, removed ones included.
    changed: BTreeMap<String, u64>,
    watches: Vec<Watch>,
    waiting: Vec<(DomainId, WatchEvent)>,
    open: BTreeMap<u32, Open>,
    transactions_begun: u32,
}

impl Xenstore {
    pub(crate) fn new() -> Self {
        Self {
            tree: Tree::new(),
            time: 0,
            changed: BTreeMap::new(),
            watches: Vec::new(),
            waiting: Vec::new(),
            open: BTreeMap::new(),
            transactions_begun: 0,
        }
    }

    /// What the toolstack does for a new domain: a directory that it may read, in it `nodes` and
    /// `data` and `error`, which are its own; and then it tells of the domain.
    pub(crate) fn introduce(&mut self, id: DomainId, nodes: &[(&str, &str)]) {
        let home = home(id);
        let node = |key: &str| format!("{home}/{key}");
        let mut changes = vec![(home.clone(), String::new(), DomainId::ZERO)];
        changes.extend(nodes.iter().map(|&(key, value)| (node(key), value.into(), DomainId::ZERO)));
        changes.extend(["data", "error"].map(|key| (node(key), String::new(), id)));
        for (path, value, owner) in changes {
            for change in [Change::Write(path.clone(), value), Change::Permit(path, owner, id)] {
                let done = self.apply(DomainId::ZERO, &change, usize::MAX);
                done.expect("domain 0 may do anything");
            }
        }
        self.announce(INTRODUCE);
    }

    pub(crate) fn farewell(&mut self) {
        self.announce(RELEASE);
    }

    /// Forgets the connection of `id`.
    pub(crate) fn disconnect(&mut self, id: DomainId) {
        self.watches.retain(|watch| watch.owner != id);
        self.waiting.retain(|(owner, _)| *owner != id);
        self.open.retain(|_, open| open.owner != id);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn watches(&self) -> impl Iterator<Item = (DomainId, String, String)> + '_ {
        self.watches.iter().map(|w| (w.owner, w.asked.clone(), w.token.clone()))
    }

    pub(crate) fn transactions(&self) -> impl Iterator<Item = (DomainId, u32)> + '_ {
        self.open.iter().map(|(&number, open)| (open.owner, number))
    }

    pub(crate) fn watch(
        &mut self,
        owner: DomainId,
        (asked, path): (&str, String),
        token: &str,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let mut own = self.watches.iter().filter(|watch| watch.owner == owner);
        if own.clone().any(|watch| watch.path == path && watch.token == token) {
            return Err(StoreError::Exists);
        }
        if owner != DomainId::ZERO && own.by_ref().count() >= limits.watches {
            return Err(StoreError::Quota);
        }
        let watch = Watch { owner, asked: asked.to_owned(), path, token: token.to_owned() };
        let first = event(&watch, &watch.path);
        self.enqueue(vec![first]);
        self.watches.push(watch);
        Ok(())
    }

    pub(crate) fn unwatch(
        &mut self,
        owner: DomainId,
        asked: &str,
        token: &str,
    ) -> Result<(), StoreError> {
        let wanted = |w: &Watch| w.owner == owner && w.asked == asked && w.token == token;
        let at = self.watches.iter().position(wanted).ok_or(StoreError::NotFound)?;
        self.watches.remove(at);
        Ok(())
    }

    /// Delivers one of the events that wait for `owner`.
    pub(crate) fn deliver(
        &mut self,
        owner: DomainId,
        random: &mut Random,
        faults: &Faults,
    ) -> Option<WatchEvent> {
        let own = (0..self.waiting.len()).filter(|&at| self.waiting[at].0 == owner);
        let own: Vec<usize> = own.collect();
        if own.is_empty() || random.chance(faults.late_watches) {
            return None;
        }
        let at = own[random.below(own.len())];
        if random.chance(faults.repeated_watches) {
            return Some(self.waiting[at].1.clone());
        }
        Some(self.waiting.remove(at).1)
    }

    fn announce(&mut self, special: &str) {
        let hit = self.watches.iter().filter(|watch| watch.path == special);
        let fired: Vec<_> = hit.map(|watch| event(watch, special)).collect();
        self.enqueue(fired);
    }

    fn enqueue(&mut self, fired: Vec<(DomainId, WatchEvent)>) {
        for one in fired {
            if !self.waiting.contains(&one) {
                self.waiting.push(one);
            }
        }
    }

    /// Fires watches for a change of the node at `path` with the permissions of `node`: those at
    /// or above it, or if `exact` only those at it.
    fn fire(&mut self, path: &str, node: &Node, exact: bool) {
        let hit = self.watches.iter().filter(|watch| {
            let about = if exact { watch.path == path } else { within(path, &watch.path) };
            about && node.readable(watch.owner)
        });
        let fired: Vec<_> = hit.map(|watch| event(watch, path)).collect();
        self.enqueue(fired);
    }

    fn stamp(&mut self, path: &str) {
        self.changed.insert(path.to_owned(), self.time);
    }

    /// Changes the tree itself.
    fn apply(&mut self, who: DomainId, change: &Change, limit: usize) -> Result<(), StoreError> {
        let touched = alter(&mut self.tree, who, change, limit)?;
        self.time += 1;
        for path in &touched.changed {
            self.stamp(path);
        }
        for (at, (path, node)) in touched.fired.iter().enumerate() {
            self.fire(path, node, at > 0);
        }
        Ok(())
    }

    /// Runs `look` on the tree that `transaction` sees, of whose `path` it then depends.
    pub(crate) fn looking<T>(
        &mut self,
        who: DomainId,
        transaction: Transaction,
        path: &str,
        look: impl FnOnce(&Tree) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if transaction == Transaction::NONE {
            return look(&self.tree);
        }
        let open = self.opened(who, transaction);
        open.touched.insert(path.to_owned());
        look(&open.tree)
    }

    pub(crate) fn changing(
        &mut self,
        who: DomainId,
        transaction: Transaction,
        change: Change,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let limit = limits.nodes;
        if transaction == Transaction::NONE {
            return self.apply(who, &change, limit);
        }
        let open = self.opened(who, transaction);
        let touched = alter(&mut open.tree, who, &change, limit)?;
        open.touched.extend(touched.changed);
        open.changes.push(change);
        Ok(())
    }

    /// # Panics
    /// If the transaction is not open, which is the caller's mistake alone.
    fn opened(&mut self, who: DomainId, transaction: Transaction) -> &mut Open {
        let open = self.open.get_mut(&transaction.0).filter(|open| open.owner == who);
        open.unwrap_or_else(|| panic!("domain {who} is in no transaction {}", transaction.0))
    }

    pub(crate) fn begin(
        &mut self,
        who: DomainId,
        limits: &Limits,
    ) -> Result<Transaction, StoreError> {
        let open = self.open.values().filter(|open| open.owner == who).count();
        if who != DomainId::ZERO && open >= limits.transactions {
            return Err(StoreError::Quota);
        }
        self.transactions_begun += 1;
        let number = self.transactions_begun;
        let (tree, begun) = (self.tree.clone(), self.time);
        let (touched, changes) = (BTreeSet::new(), Vec::new());
        self.open.insert(number, Open { owner: who, tree, begun, touched, changes });
        Ok(Transaction(number))
    }

    pub(crate) fn end(
        &mut self,
        who: DomainId,
        transaction: Transaction,
        commit: bool,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        self.opened(who, transaction);
        let Some(open) = self.open.remove(&transaction.0).filter(|_| commit) else { return Ok(()) };
        let moved = |path: &String| self.changed.get(path).is_some_and(|&at| at > open.begun);
        if open.touched.iter().any(moved) {
            return Err(StoreError::Conflict);
        }
        for change in &open.changes {
            self.apply(who, change, limits.nodes)?;
        }
        Ok(())
    }
}

fn event(watch: &Watch, path: &str) -> (DomainId, WatchEvent) {
    let relative = watch.asked != watch.path;
    let prefix = if relative { format!("{}/", home(watch.owner)) } else { String::new() };
    let path = path.strip_prefix(&prefix).unwrap_or(path).to_owned();
    (watch.owner, WatchEvent { path, token: watch.token.clone() })
}

/// What a change touched: nodes that are different now, and nodes to fire watches for, the first
/// with everything above it.
struct Touched {
    changed: Vec<String>,
    fired: Vec<(String, Node)>,
}

fn alter(
    tree: &mut Tree,
    who: DomainId,
    change: &Change,
    limit: usize,
) -> Result<Touched, StoreError> {
    let here =
        |tree: &Tree, path: &String| tree.node(path).map(|node| (path.clone(), node.clone()));
    Ok(match change {
        Change::Write(path, value) => {
            let changed = tree.write(who, path, value, limit)?;
            Touched { changed, fired: here(tree, path).into_iter().collect() }
        }
        Change::Remove(path) => {
            let fired = tree.remove(who, path)?;
            let mut changed: Vec<String> = fired.iter().map(|(path, _)| path.clone()).collect();
            changed.push(path.clone());
            changed.push(holder(path).to_owned());
            Touched { changed, fired }
        }
        Change::Permit(path, owner, reader) => {
            tree.permit(who, path, *owner, *reader)?;
            let changed = vec![path.clone()];
            Touched { changed, fired: here(tree, path).into_iter().collect() }
        }
    })
}
