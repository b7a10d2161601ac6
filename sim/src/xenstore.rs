//! The xenstore daemon: watches and transactions over the tree.
//!
//! What a transaction changes lies over the tree, and is listed. It commits by doing the list again
//! on the tree, unless a node that it read or wrote, or whose children it listed, changed since it
//! began: then it conflicts. Until it learns of that it may see such a change, as with the C
//! xenstored. Fired watches wait, the same path and token
//! once, and are delivered in an order drawn from the seed.

use std::collections::BTreeMap;

use xen::{DomainId, StoreError, Transaction, WatchEvent};

use crate::faults::Limits;
use crate::state::State;
use crate::tree::{Node, Nodes, View, holder, home, within};

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

/// A watch that fired and was not taken.
struct Fired {
    owner: DomainId,
    event: WatchEvent,
    /// When it arrives; drawn when it is first asked for.
    due: Option<u64>,
}

pub(crate) enum Change {
    Write(String, String),
    Remove(String),
    Permit(String, DomainId, DomainId),
}

struct Open {
    owner: DomainId,
    /// The time at which it began.
    begun: u64,
    over: Nodes,
    /// How many more nodes its domain owns by it.
    owned: isize,
    /// What it read or wrote, or listed the children of, and when that had changed last.
    touched: Vec<(String, Option<u64>)>,
    changes: Vec<Change>,
}

pub(crate) struct Xenstore {
    nodes: Nodes,
    /// Counts changes.
    now: u64,
    /// How many nodes each domain owns.
    owned: BTreeMap<DomainId, usize>,
    watches: Vec<Watch>,
    waiting: Vec<Fired>,
    open: BTreeMap<u32, Open>,
    transactions_begun: u32,
}

impl Xenstore {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Nodes::from([("/".into(), Some(Node::root()))]),
            now: 0,
            owned: BTreeMap::new(),
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
        self.waiting.retain(|fired| fired.owner != id);
        self.open.retain(|_, open| open.owner != id);
    }

    pub(crate) fn peek(&mut self, path: &str) -> Option<String> {
        self.view(None).read(DomainId::ZERO, path).ok().flatten()
    }

    /// The tree, or as the transaction of this number sees it.
    fn view(&mut self, transaction: Option<u32>) -> View<'_> {
        let open = transaction.and_then(|number| self.open.get_mut(&number));
        View { base: &mut self.nodes, over: open.map(|open| &mut open.over), now: self.now }
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

    fn announce(&mut self, special: &str) {
        let hit = self.watches.iter().filter(|watch| watch.path == special);
        let fired: Vec<_> = hit.map(|watch| event(watch, special)).collect();
        self.enqueue(fired);
    }

    fn enqueue(&mut self, fired: Vec<(DomainId, WatchEvent)>) {
        for (owner, event) in fired {
            let waits = |other: &Fired| other.owner == owner && other.event == event;
            if !self.waiting.iter().any(waits) {
                self.waiting.push(Fired { owner, event, due: None });
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

    /// Changes the tree itself.
    fn apply(&mut self, who: DomainId, change: &Change, limit: usize) -> Result<(), StoreError> {
        let room = self.room(who, limit, 0);
        self.now += 1;
        let Altered { fired, owned } = self.view(None).alter(who, change, room)?;
        for (owner, count) in owned {
            let owned = self.owned.entry(owner).or_default();
            *owned = owned.saturating_add_signed(count);
        }
        for (at, (path, node)) in fired.iter().enumerate() {
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
        look: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if transaction == Transaction::NONE {
            return look(&self.view(None));
        }
        self.touch(who, transaction, path);
        look(&self.view(Some(transaction.0)))
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
        let owned = self.opened(who, transaction).owned;
        let room = self.room(who, limit, owned);
        let path = change.path();
        let above = self.view(Some(transaction.0)).nearest(path).0;
        self.touch(who, transaction, above);
        self.touch(who, transaction, path);
        let altered = self.view(Some(transaction.0)).alter(who, &change, room)?;
        if let Change::Remove(path) = &change {
            self.touch(who, transaction, holder(path));
            altered.fired.iter().for_each(|(path, _)| self.touch(who, transaction, path));
        }
        let open = self.opened(who, transaction);
        let own = altered.owned.iter().filter(|(owner, _)| *owner == who);
        open.owned += own.map(|(_, count)| count).sum::<isize>();
        open.changes.push(change);
        Ok(())
    }

    /// # Panics
    /// If the transaction is not open, which is the caller's mistake alone.
    fn opened(&mut self, who: DomainId, transaction: Transaction) -> &mut Open {
        let open = self.open.get_mut(&transaction.0).filter(|open| open.owner == who);
        open.unwrap_or_else(|| panic!("domain {who} is in no transaction {}", transaction.0))
    }

    /// Notes that a transaction depends on a node.
    fn touch(&mut self, who: DomainId, transaction: Transaction, path: &str) {
        let changed = self.changed(path);
        self.opened(who, transaction).touched.push((path.to_owned(), changed));
    }

    /// When a node of the tree itself last changed; `None` if there is none.
    fn changed(&mut self, path: &str) -> Option<u64> {
        self.view(None).node(path).map(|node| node.changed)
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
        let (owner, begun, owned) = (who, self.now, 0);
        let (over, touched, changes) = (Nodes::new(), Vec::new(), Vec::new());
        let open = Open { owner, begun, over, owned, touched, changes };
        self.open.insert(self.transactions_begun, open);
        Ok(Transaction(self.transactions_begun))
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
        for (path, seen) in &open.touched {
            let late = seen.is_some_and(|changed| changed > open.begun);
            if late || self.changed(path) != *seen {
                return Err(StoreError::Conflict);
            }
        }
        for change in &open.changes {
            self.apply(who, change, limits.nodes)?;
        }
        Ok(())
    }
}

impl Change {
    fn path(&self) -> &str {
        match self {
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
        let ready = self.arrived(owner);
        if ready.is_empty() {
            return None;
        }
        let at = ready[self.random.below(ready.len())];
        if self.draws(self.faults.repeated_watches) {
            self.tally.repeated_watches += 1;
            return Some(self.store.waiting[at].event.clone());
        }
        Some(self.store.waiting.remove(at).event)
    }

    fn arrived(&mut self, owner: DomainId) -> Vec<usize> {
        let mut ready = Vec::new();
        for at in 0..self.store.waiting.len() {
            if self.store.waiting[at].owner != owner {
                continue;
            }
            let due = self.store.waiting[at].due.unwrap_or_else(|| {
                let (due, late) = self.heard(self.faults.late_watches);
                self.tally.late_watches += u64::from(late);
                due
            });
            self.store.waiting[at].due = Some(due);
            if due <= self.clock.now() {
                ready.push(at);
            }
        }
        ready
    }

    /// An event of any watch of `owner`, of which nothing is known but that it exists.
    fn for_nothing(&mut self, owner: DomainId) -> Option<WatchEvent> {
        let own = self.store.watches.iter().filter(|watch| watch.owner == owner);
        let count = own.clone().count();
        let at = (count > 0).then(|| self.random.below(count))?;
        own.map(|watch| event(watch, &watch.path).1).nth(at)
    }
}

fn event(watch: &Watch, path: &str) -> (DomainId, WatchEvent) {
    let relative = watch.asked != watch.path;
    let prefix = if relative { format!("{}/", home(watch.owner)) } else { String::new() };
    let path = path.strip_prefix(&prefix).unwrap_or(path).to_owned();
    (watch.owner, WatchEvent { path, token: watch.token.clone() })
}

/// What a change did.
struct Altered {
    /// Nodes to fire watches for, the first with everything above it.
    fired: Vec<(String, Node)>,
    /// By how much the number of nodes has changed that a domain owns.
    owned: Vec<(DomainId, isize)>,
}

impl View<'_> {
    fn alter(
        &mut self,
        who: DomainId,
        change: &Change,
        room: usize,
    ) -> Result<Altered, StoreError> {
        let owned = match change {
            Change::Write(path, value) => {
                let (owner, made) = self.write(who, path, value, room)?;
                vec![(owner, made.cast_signed())]
            }
            Change::Remove(path) => {
                let fired = self.remove(who, path)?;
                let owned = fired.iter().map(|(_, node)| (node.owner(), -1)).collect();
                return Ok(Altered { fired, owned });
            }
            Change::Permit(path, owner, reader) => {
                let before = self.permit(who, path, *owner, *reader)?;
                vec![(before, -1), (*owner, 1)]
            }
        };
        let path = change.path();
        let fired = self.node(path).map(|node| (path.to_owned(), node.clone()));
        Ok(Altered { fired: fired.into_iter().collect(), owned })
    }
}
