//! The xenstore daemon: watches and transactions over the tree.
//!
//! What a transaction changes lies over the tree, with what it is to set off. It commits by becoming
//! part of the tree, unless a node that it read or wrote, or whose children it listed, changed since
//! it began: then it conflicts. Until it learns of that it may see such a change, as with the C
//! xenstored. Fired watches wait, the same path and token once, and are delivered in an order drawn
//! from the seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use xen::{DomainId, StoreError, Transaction, WatchEvent};

use crate::faults::Limits;
use crate::paths::{PathId, Paths, home};
use crate::state::State;
use crate::tree::{Over, Rights, Tree, View};

/// Fires when a domain dies. Only domain 0 may watch it.
pub(crate) const RELEASE: &str = "@releaseDomain";
/// Fires when a domain appears. Only domain 0 may watch it.
pub(crate) const INTRODUCE: &str = "@introduceDomain";

/// One registered watch.
struct Watch {
    owner: DomainId,
    /// As it was asked for; events speak in the same terms.
    asked: String,
    path: PathId,
    /// So many bytes of a path are the owner's directory, which it has not said.
    unsaid: usize,
    token: Arc<str>,
}

/// A watch that fired and was not taken.
struct Fired {
    owner: DomainId,
    path: PathId,
    unsaid: usize,
    token: Arc<str>,
    /// When it arrives; drawn when it is first asked for.
    due: Option<u64>,
}

/// What is to be changed.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    Write(PathId, &'a str),
    Remove(PathId),
    Permit(PathId, DomainId, DomainId),
}

/// What changes set off.
#[derive(Default)]
struct Effects {
    /// Nodes to fire watches for. With the first of a change also what is above it.
    fired: Vec<Spot>,
    /// By how much the number of nodes has changed that a domain owns.
    owned: Vec<(DomainId, isize)>,
}

#[derive(Clone, Copy)]
struct Spot {
    path: PathId,
    rights: Rights,
    /// Only watches at the node itself hear of it.
    exact: bool,
}

struct Open {
    number: u32,
    owner: DomainId,
    /// The time at which it began.
    begun: u64,
    over: Over,
    /// What it read or wrote, or listed the children of, and when that had changed last.
    touched: Vec<(PathId, Option<u64>)>,
    effects: Effects,
}

pub(crate) struct Xenstore {
    tree: Tree,
    /// Counts changes.
    now: u64,
    /// How many nodes each domain owns.
    owned: BTreeMap<DomainId, usize>,
    watches: Vec<Watch>,
    waiting: Vec<Fired>,
    open: Vec<Open>,
    transactions_begun: u32,
    /// Memory for what a change sets off, and for transactions to come.
    effects: Effects,
    spare: Vec<Open>,
}

impl Xenstore {
    pub(crate) fn new() -> Self {
        Self {
            tree: Tree::new(),
            now: 0,
            owned: BTreeMap::new(),
            watches: Vec::new(),
            waiting: Vec::new(),
            open: Vec::new(),
            transactions_begun: 0,
            effects: Effects::default(),
            spare: Vec::new(),
        }
    }

    /// What the toolstack does for a new domain: a directory that it may read, in it `nodes` and
    /// `data` and `error`, which are its own; and then it tells of the domain.
    pub(crate) fn introduce(&mut self, id: DomainId, nodes: &[(&str, &str)]) {
        let home = home(id);
        let mut make = |path: &str, value: &str, owner| {
            let path = self.tree.paths.find(id, path).expect("a path");
            for change in [Change::Write(path, value), Change::Permit(path, owner, id)] {
                self.apply(DomainId::ZERO, change, usize::MAX).expect("domain 0 may do anything");
            }
        };
        make(&home, "", DomainId::ZERO);
        nodes.iter().for_each(|(key, value)| make(key, value, DomainId::ZERO));
        ["data", "error"].into_iter().for_each(|key| make(key, "", id));
        self.announce(INTRODUCE);
    }

    pub(crate) fn farewell(&mut self) {
        self.announce(RELEASE);
    }

    /// Forgets the connection of `id`.
    pub(crate) fn disconnect(&mut self, id: DomainId) {
        self.watches.retain(|watch| watch.owner != id);
        self.waiting.retain(|fired| fired.owner != id);
        self.open.retain(|open| open.owner != id);
    }

    /// `path` as `who` means it.
    pub(crate) fn path(&mut self, who: DomainId, path: &str) -> Result<PathId, StoreError> {
        self.tree.paths.find(who, path)
    }

    /// The value of a node, for somebody who asks nobody.
    pub(crate) fn peek(&self, path: &str) -> Option<&str> {
        Some(self.tree.node(self.tree.paths.known(path)?)?.value())
    }

    /// How many more nodes a domain may own.
    fn room(&self, who: DomainId, limit: usize, owned: isize) -> usize {
        if who == DomainId::ZERO {
            return usize::MAX;
        }
        let owned = self.owned.get(&who).copied().unwrap_or(0).saturating_add_signed(owned);
        limit.saturating_sub(owned)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the first of the fired watches arrives; at once, if that was not drawn yet.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.waiting.iter().map(|fired| fired.due.unwrap_or(0)).min()
    }

    pub(crate) fn watches(&self) -> impl Iterator<Item = (DomainId, String, String)> + '_ {
        self.watches.iter().map(|w| (w.owner, w.asked.clone(), w.token.to_string()))
    }

    pub(crate) fn transactions(&self) -> impl Iterator<Item = (DomainId, u32)> + '_ {
        self.open.iter().map(|open| (open.owner, open.number))
    }

    pub(crate) fn watch(
        &mut self,
        owner: DomainId,
        asked: &str,
        token: &str,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let special = [RELEASE, INTRODUCE].contains(&asked);
        let path = if special { self.tree.paths.special(asked) } else { self.path(owner, asked)? };
        let unsaid = self.tree.paths.text(path).len() - asked.len();
        let mut own = self.watches.iter().filter(|watch| watch.owner == owner);
        if own.clone().any(|watch| watch.path == path && *watch.token == *token) {
            return Err(StoreError::Exists);
        }
        if owner != DomainId::ZERO && own.by_ref().count() >= limits.watches {
            return Err(StoreError::Quota);
        }
        let watch = Watch { owner, asked: asked.to_owned(), path, unsaid, token: token.into() };
        enqueue(&mut self.waiting, &watch, path);
        self.watches.push(watch);
        Ok(())
    }

    pub(crate) fn unwatch(
        &mut self,
        owner: DomainId,
        asked: &str,
        token: &str,
    ) -> Result<(), StoreError> {
        let wanted = |w: &Watch| w.owner == owner && w.asked == asked && *w.token == *token;
        let at = self.watches.iter().position(wanted).ok_or(StoreError::NotFound)?;
        self.watches.remove(at);
        Ok(())
    }

    fn announce(&mut self, special: &str) {
        let path = self.tree.paths.special(special);
        for watch in self.watches.iter().filter(|watch| watch.path == path) {
            enqueue(&mut self.waiting, watch, path);
        }
    }

    /// Fires watches for a node that has changed: those at or above it, or only those at it.
    fn fire(&mut self, Spot { path, rights, exact }: Spot) {
        let paths = &self.tree.paths;
        for watch in &self.watches {
            let about = if exact { watch.path == path } else { paths.within(path, watch.path) };
            if about && rights.readable(watch.owner) {
                enqueue(&mut self.waiting, watch, path);
            }
        }
    }

    /// Changes the tree itself.
    fn apply(&mut self, who: DomainId, change: Change<'_>, limit: usize) -> Result<(), StoreError> {
        let room = self.room(who, limit, 0);
        self.now += 1;
        let mut effects = std::mem::take(&mut self.effects);
        let mut view = View { tree: &mut self.tree, over: None, now: self.now };
        let altered = view.alter(who, change, room, &mut effects);
        self.set_off(&mut effects);
        self.effects = effects;
        altered
    }

    /// Counts the nodes that domains own now, and fires watches.
    fn set_off(&mut self, effects: &mut Effects) {
        for (owner, count) in effects.owned.drain(..) {
            let owned = self.owned.entry(owner).or_default();
            *owned = owned.saturating_add_signed(count);
        }
        effects.fired.drain(..).for_each(|spot| self.fire(spot));
    }

    /// Runs `look` on the tree that `transaction` sees, of whose `path` it then depends.
    pub(crate) fn looking<T>(
        &mut self,
        who: DomainId,
        transaction: Transaction,
        path: PathId,
        look: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (tree, now) = (&mut self.tree, self.now);
        if transaction == Transaction::NONE {
            return look(&View { tree, over: None, now });
        }
        let open = opened(&mut self.open, who, transaction);
        open.touch(tree, path);
        look(&View { tree, over: Some(&mut open.over), now })
    }

    pub(crate) fn changing(
        &mut self,
        who: DomainId,
        transaction: Transaction,
        change: Change<'_>,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        if transaction == Transaction::NONE {
            return self.apply(who, change, limits.nodes);
        }
        let owned = opened(&mut self.open, who, transaction).effects.owned(who);
        let room = self.room(who, limits.nodes, owned);
        let open = opened(&mut self.open, who, transaction);
        let (tree, now, path) = (&mut self.tree, self.now, change.path());
        let mut view = View { tree, over: Some(&mut open.over), now };
        let above = view.nearest(path).0;
        let before = open.effects.fired.len();
        let altered = view.alter(who, change, room, &mut open.effects);
        for path in [above, path] {
            open.touch(&self.tree, path);
        }
        altered?;
        if matches!(change, Change::Remove(_)) {
            open.touch(&self.tree, self.tree.paths.above(path));
            for at in before..open.effects.fired.len() {
                open.touch(&self.tree, open.effects.fired[at].path);
            }
        }
        Ok(())
    }

    pub(crate) fn begin(
        &mut self,
        who: DomainId,
        limits: &Limits,
    ) -> Result<Transaction, StoreError> {
        let open = self.open.iter().filter(|open| open.owner == who).count();
        if who != DomainId::ZERO && open >= limits.transactions {
            return Err(StoreError::Quota);
        }
        self.transactions_begun += 1;
        let mut open = self.spare.pop().unwrap_or_else(Open::new);
        (open.number, open.owner, open.begun) = (self.transactions_begun, who, self.now);
        self.open.push(open);
        Ok(Transaction(self.transactions_begun))
    }

    pub(crate) fn end(
        &mut self,
        who: DomainId,
        transaction: Transaction,
        commit: bool,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        opened(&mut self.open, who, transaction);
        let at = self.open.iter().position(|open| open.number == transaction.0);
        let mut open = self.open.remove(at.expect("it is open"));
        let ended = if commit { self.commit(&mut open, limits) } else { Ok(()) };
        open.clear();
        self.spare.push(open);
        ended
    }

    fn commit(&mut self, open: &mut Open, limits: &Limits) -> Result<(), StoreError> {
        // Most often nobody has changed anything at all.
        if self.now != open.begun && open.is_late(&self.tree) {
            return Err(StoreError::Conflict);
        }
        let more = open.effects.owned(open.owner);
        if more > 0 && self.room(open.owner, limits.nodes, 0) < more.unsigned_abs() {
            return Err(StoreError::Quota);
        }
        self.now += 1;
        self.tree.adopt(&mut open.over, self.now);
        self.set_off(&mut open.effects);
        Ok(())
    }
}

/// # Panics
/// If the transaction is not open, which is the caller's mistake alone.
fn opened(open: &mut [Open], who: DomainId, transaction: Transaction) -> &mut Open {
    let mut own = open.iter_mut().filter(|open| open.owner == who);
    let found = own.find(|open| open.number == transaction.0);
    found.unwrap_or_else(|| panic!("domain {who} is in no transaction {}", transaction.0))
}

/// A watch fires, unless the same event waits already.
fn enqueue(waiting: &mut Vec<Fired>, watch: &Watch, path: PathId) {
    let Watch { owner, unsaid, ref token, .. } = *watch;
    let same = |other: &Fired| {
        (other.owner, other.path, other.unsaid) == (owner, path, unsaid) && other.token == *token
    };
    if !waiting.iter().any(same) {
        waiting.push(Fired { owner, path, unsaid, token: token.clone(), due: None });
    }
}

impl Fired {
    /// In the owner's terms.
    fn event(&self, paths: &Paths) -> WatchEvent {
        let path = paths.text(self.path)[self.unsaid..].to_owned();
        WatchEvent { path, token: self.token.to_string() }
    }
}

impl Open {
    fn new() -> Self {
        let (over, touched, effects) = (Over::default(), Vec::new(), Effects::default());
        Self { number: 0, owner: DomainId::ZERO, begun: 0, over, touched, effects }
    }

    /// Notes that it depends on a node.
    fn touch(&mut self, tree: &Tree, path: PathId) {
        self.touched.push((path, tree.node(path).map(|node| node.changed)));
    }

    /// Whether anything that it depends on has changed since it began.
    fn is_late(&self, tree: &Tree) -> bool {
        self.touched.iter().any(|&(path, seen)| {
            seen.is_some_and(|changed| changed > self.begun)
                || tree.node(path).map(|node| node.changed) != seen
        })
    }

    fn clear(&mut self) {
        self.over.clear();
        self.touched.clear();
        self.effects.fired.clear();
        self.effects.owned.clear();
    }
}

impl Effects {
    fn own(&mut self, owner: DomainId, more: isize) {
        match self.owned.iter_mut().find(|it| it.0 == owner) {
            Some((_, count)) => *count += more,
            None => self.owned.push((owner, more)),
        }
    }

    /// By how much the number of nodes has changed that a domain owns.
    fn owned(&self, owner: DomainId) -> isize {
        self.owned.iter().find(|it| it.0 == owner).map_or(0, |it| it.1)
    }
}

impl Change<'_> {
    const fn path(&self) -> PathId {
        match *self {
            Self::Write(path, _) | Self::Remove(path) | Self::Permit(path, _, _) => path,
        }
    }
}

impl State {
    /// Delivers one of the fired watches of `owner` that have arrived, or one that has not fired.
    pub(crate) fn deliver(&mut self, owner: DomainId) -> Option<WatchEvent> {
        if self.draws(self.faults.spurious_watches)
            && let Some(event) = self.for_nothing(owner)
        {
            self.tally.spurious_watches += 1;
            return Some(event);
        }
        let count = self.arrive(owner);
        if count == 0 {
            return None;
        }
        let (chosen, now) = (self.random.below(count), self.clock.now());
        let repeated = self.draws(self.faults.repeated_watches);
        self.tally.repeated_watches += u64::from(repeated);
        let Xenstore { tree, waiting, .. } = &mut self.store;
        let ready = |it: &Fired| it.owner == owner && it.due.is_some_and(|due| due <= now);
        let (at, _) = waiting.iter().enumerate().filter(|(_, it)| ready(it)).nth(chosen)?;
        let event = waiting[at].event(&tree.paths);
        if !repeated {
            waiting.remove(at);
        }
        Some(event)
    }

    /// Draws when the fired watches of `owner` arrive; tells how many have.
    fn arrive(&mut self, owner: DomainId) -> usize {
        let (mut ready, now) = (0, self.clock.now());
        let mut waiting = std::mem::take(&mut self.store.waiting);
        for fired in waiting.iter_mut().filter(|fired| fired.owner == owner) {
            let due = *fired.due.get_or_insert_with(|| {
                let (due, late) = self.heard(self.faults.late_watches);
                self.tally.late_watches += u64::from(late);
                due
            });
            ready += usize::from(due <= now);
        }
        self.store.waiting = waiting;
        ready
    }

    /// An event of any watch of `owner`, of which nothing is known but that it exists.
    fn for_nothing(&mut self, owner: DomainId) -> Option<WatchEvent> {
        let own = self.store.watches.iter().filter(|watch| watch.owner == owner);
        let count = own.clone().count();
        let at = (count > 0).then(|| self.random.below(count))?;
        let watch = own.clone().nth(at)?;
        Some(WatchEvent { path: watch.asked.clone(), token: watch.token.to_string() })
    }
}

impl View<'_> {
    fn alter(
        &mut self,
        who: DomainId,
        change: Change<'_>,
        room: usize,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        match change {
            Change::Write(path, value) => {
                let (owner, made) = self.write(who, path, value, room)?;
                effects.own(owner, made.cast_signed());
            }
            Change::Remove(path) => {
                let mut exact = false;
                return self.remove(who, path, |path, rights| {
                    effects.own(rights.owner, -1);
                    effects.fired.push(Spot { path, rights, exact });
                    exact = true;
                });
            }
            Change::Permit(path, owner, reader) => {
                let before = self.permit(who, path, owner, reader)?;
                effects.own(before, -1);
                effects.own(owner, 1);
            }
        }
        let path = change.path();
        let rights = self.node(path).map(|node| node.rights);
        effects.fired.extend(rights.map(|rights| Spot { path, rights, exact: false }));
        Ok(())
    }
}
