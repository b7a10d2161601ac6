//! A small Xen for the tests of this crate: grants that count, a store in a map, and a back that
//! does what it is told. The stories of front and back together are told on the simulator.

extern crate std;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use std::sync::{Mutex, MutexGuard};

use blkif::{Abi, FrontOffer, Indirect, Raw, Response, Status, segments_in};
use ring::sync::AtomicU32;
use ring::{Back, Memory, PAGE_WORDS, Page};
use xen::{
    Access, DomainId, Events, GrantError, GrantRef, Grants, NoPort, Port, StillMapped, Store,
    StoreError, Transaction, WatchEvent, XenbusState,
};

/// A page that counts as out until it is dropped.
pub(crate) struct FakePage {
    page: Arc<Page>,
    grants: FakeGrants,
}

impl Deref for FakePage {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Drop for FakePage {
    fn drop(&mut self) {
        let mut state = self.grants.state();
        let granted = state.entries.values().any(|entry| Arc::ptr_eq(&entry.page, &self.page));
        assert!(!granted, "a page was freed while it was granted");
        state.out -= 1;
    }
}

struct Entry {
    page: Arc<Page>,
    to: DomainId,
    access: Access,
    mapped: bool,
}

struct GrantState {
    pages: usize,
    out: usize,
    grants_max: usize,
    made: u32,
    entries: BTreeMap<GrantRef, Entry>,
}

/// A grant table, by handle.
#[derive(Clone)]
pub(crate) struct FakeGrants(Arc<Mutex<GrantState>>);

impl FakeGrants {
    /// With memory for `pages` pages.
    pub(crate) fn new(pages: usize) -> Self {
        let entries = BTreeMap::new();
        Self(Arc::new(Mutex::new(GrantState {
            pages,
            out: 0,
            grants_max: usize::MAX,
            made: 0,
            entries,
        })))
    }

    fn state(&self) -> MutexGuard<'_, GrantState> {
        self.0.lock().unwrap()
    }

    pub(crate) fn limit_grants(&self, grants_max: usize) {
        self.state().grants_max = grants_max;
    }

    /// How many grants stand.
    pub(crate) fn granted(&self) -> usize {
        self.state().entries.len()
    }

    /// How many grants were ever made.
    pub(crate) fn grants_made(&self) -> u32 {
        self.state().made
    }

    /// How many pages are not free.
    pub(crate) fn pages_out(&self) -> usize {
        self.state().out
    }

    pub(crate) fn all_granted_to(&self, to: DomainId, access: Access) -> bool {
        self.state().entries.values().all(|entry| entry.to == to && entry.access == access)
    }

    /// The peer maps a page, and never unmaps it.
    pub(crate) fn map(&self, reference: GrantRef) -> Arc<Page> {
        let mut state = self.state();
        let entry = state.entries.get_mut(&reference).unwrap();
        entry.mapped = true;
        entry.page.clone()
    }

    /// The peer unmaps everything.
    pub(crate) fn unmap_all(&self) {
        self.state().entries.values_mut().for_each(|entry| entry.mapped = false);
    }
}

impl Grants for FakeGrants {
    type Page = FakePage;

    fn page(&self) -> Option<FakePage> {
        let mut state = self.state();
        if state.out == state.pages {
            return None;
        }
        state.out += 1;
        Some(FakePage { page: Arc::new(Page::new()), grants: self.clone() })
    }

    fn grant(&self, page: &FakePage, to: DomainId, access: Access) -> Result<GrantRef, GrantError> {
        let mut state = self.state();
        if state.entries.len() == state.grants_max {
            return Err(GrantError::TableFull);
        }
        let reference = GrantRef(8 + state.made);
        state.made += 1;
        let page = page.page.clone();
        state.entries.insert(reference, Entry { page, to, access, mapped: false });
        Ok(reference)
    }

    fn revoke(&self, reference: GrantRef) -> Result<(), StillMapped> {
        let mut state = self.state();
        if state.entries[&reference].mapped {
            return Err(StillMapped);
        }
        state.entries.remove(&reference);
        Ok(())
    }
}

/// Event channels that count.
#[derive(Clone, Default)]
pub(crate) struct FakeEvents(Arc<Mutex<(u32, Vec<Port>, u64)>>);

impl FakeEvents {
    /// Ports that are open.
    pub(crate) fn open(&self) -> Vec<Port> {
        self.0.lock().unwrap().1.clone()
    }

    /// Events sent.
    pub(crate) fn sent(&self) -> u64 {
        self.0.lock().unwrap().2
    }
}

impl Events for FakeEvents {
    fn offer(&self, _: DomainId) -> Result<Port, NoPort> {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        let port = Port(state.0);
        state.1.push(port);
        Ok(port)
    }

    fn bind(&self, peer: DomainId, _: Port) -> Result<Port, NoPort> {
        self.offer(peer)
    }

    fn notify(&self, port: Port) {
        let mut state = self.0.lock().unwrap();
        assert!(state.1.contains(&port), "an event through a port that is closed");
        state.2 += 1;
    }

    fn close(&self, port: Port) {
        self.0.lock().unwrap().1.retain(|&open| open != port);
    }
}

/// A store without permissions, whose transactions take effect at once.
#[derive(Clone, Default)]
pub(crate) struct FakeStore(Arc<Mutex<BTreeMap<String, String>>>);

impl FakeStore {
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        self.0.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn set(&self, path: &str, value: &str) {
        self.0.lock().unwrap().insert(path.to_string(), value.to_string());
    }

    /// Removes a node and all below it.
    pub(crate) fn cut(&self, path: &str) {
        self.0.lock().unwrap().retain(|node, _| {
            !node.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    }

    pub(crate) fn under(&self, path: &str) -> usize {
        self.0.lock().unwrap().keys().filter(|node| node.starts_with(path)).count()
    }
}

impl Store for FakeStore {
    fn read(&self, _: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        Ok(self.get(path))
    }

    fn list(&self, _: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let nodes = self.0.lock().unwrap();
        let below = nodes.keys().filter_map(|node| node.strip_prefix(path)?.strip_prefix('/'));
        Ok(below.filter(|rest| !rest.contains('/')).map(ToString::to_string).collect())
    }

    fn write(&self, _: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        self.set(path, value);
        Ok(())
    }

    fn remove(&self, _: Transaction, path: &str) -> Result<(), StoreError> {
        self.cut(path);
        Ok(())
    }

    fn permit(&self, _: Transaction, _: &str, _: DomainId, _: DomainId) -> Result<(), StoreError> {
        Err(StoreError::Denied)
    }

    fn watch(&self, _: &str, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Invalid)
    }

    fn unwatch(&self, _: &str, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Invalid)
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        Ok(None)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction(1))
    }

    fn end(&self, _: Transaction, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Pages of a ring as the back maps them.
#[derive(Clone)]
pub(crate) struct Mapped(Vec<Arc<Page>>);

impl Memory for Mapped {
    fn words(&self) -> usize {
        self.0.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.0[index / PAGE_WORDS].word(index % PAGE_WORDS)
    }
}

pub(crate) const FRONT: &str = "device/vbd/51712";
pub(crate) const BACK: &str = "/local/domain/0/backend/vbd/7/51712";

/// Both directories, as the tool stack makes them.
pub(crate) fn directories() -> FakeStore {
    let store = FakeStore::default();
    for (key, value) in [("backend", BACK), ("backend-id", "0"), ("state", "1")] {
        store.set(&alloc::format!("{FRONT}/{key}"), value);
    }
    store
}

/// The back's state, and nodes with it.
pub(crate) fn back_says(store: &FakeStore, state: XenbusState, nodes: &[(&str, &str)]) {
    for (key, value) in nodes {
        store.set(&alloc::format!("{BACK}/{key}"), value);
    }
    store.set(&alloc::format!("{BACK}/state"), &state.to_string());
}

/// The back's end of the ring that the front has published, with everything mapped.
pub(crate) struct FakeBack {
    pub(crate) ring: Back<Mapped>,
    memory: Mapped,
    grants: FakeGrants,
}

impl FakeBack {
    pub(crate) fn connect(store: &FakeStore, grants: &FakeGrants) -> Self {
        let node = |key: &str| store.get(&alloc::format!("{FRONT}/{key}"));
        let offer = FrontOffer::read(node, 4, Abi::X86_32).unwrap();
        let pages = offer.ring.iter().map(|&reference| grants.map(reference)).collect();
        let memory = Mapped(pages);
        let layout = offer.abi.layout(offer.order());
        Self { ring: Back::attach(memory.clone(), layout), memory, grants: grants.clone() }
    }

    /// The bare words of the ring, for lies that a ring does not let pass.
    pub(crate) const fn memory(&self) -> &Mapped {
        &self.memory
    }

    /// The next request, with the segments of an indirect one.
    pub(crate) fn take(&mut self) -> Option<Raw> {
        let mut raw = self.ring.take(|reader| Raw::parse(reader, Abi::X86_64)).unwrap()?;
        if let Some(Indirect { count, descriptors }) = raw.indirect {
            raw.segments = segments_in(&*self.grants.map(descriptors), count);
        }
        Some(raw)
    }

    /// Reads or writes the page of a segment.
    pub(crate) fn page(&self, raw: &Raw, index: usize) -> Arc<Page> {
        self.grants.map(raw.segments[index].reference)
    }

    pub(crate) fn answer(&mut self, id: u64, operation: u8, status: Status) {
        self.ring.put(&Response { id, operation, status }.words(Abi::X86_64)).unwrap();
        let _ = self.ring.publish();
    }
}
