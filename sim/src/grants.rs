//! Pages of a domain and its grant table.
//!
//! Entries are used again at once, the last one first, as Linux does: a reference that a peer
//! still believes in names another page soon.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use ring::Page;
use xen::{Access, DomainId, GrantError, GrantRef, Grants, StillMapped};

use crate::calls::Call;
use crate::domain::Domain;

/// Memory of so many pages is kept by a thread for the machines to come.
const STOCK_MAX: usize = 4096;

thread_local! {
    /// Memory of pages that nobody has. What matters is the time that it saves: it takes the place
    /// of an allocation and nothing else.
    static STOCK: RefCell<Vec<Arc<Page>>> = const { RefCell::new(Vec::new()) };
}

/// A page of zeros.
fn fresh() -> Arc<Page> {
    let mut page = STOCK.with_borrow_mut(Vec::pop);
    if let Some(place) = page.as_mut().and_then(Arc::get_mut) {
        *place = Page::new();
    }
    page.unwrap_or_default()
}

/// Entries at the start of a grant table that Xen keeps for itself.
const RESERVED: u32 = 8;

/// One grant.
pub(crate) struct Entry {
    pub(crate) page: Arc<Page>,
    pub(crate) to: DomainId,
    pub(crate) access: Access,
    /// How often it is mapped now.
    pub(crate) mapped: u32,
}

/// The grant table of one domain.
#[derive(Default)]
pub(crate) struct GrantTable {
    /// Entries beyond the reserved ones.
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// The domain is dead: an entry goes with its last mapping.
    buried: bool,
}

fn reference(at: usize) -> GrantRef {
    GrantRef(RESERVED + u32::try_from(at).expect("a table has fewer entries"))
}

fn place(reference: GrantRef) -> Option<usize> {
    usize::try_from(reference.0.checked_sub(RESERVED)?).ok()
}

impl GrantTable {
    fn add(&mut self, entry: Entry, limit: u32) -> Result<GrantRef, GrantError> {
        let at = self.free.pop().unwrap_or(self.entries.len());
        if at == self.entries.len() {
            if reference(at).0 >= limit {
                return Err(GrantError::TableFull);
            }
            self.entries.push(None);
        }
        self.entries[at] = Some(entry);
        Ok(reference(at))
    }

    fn get(&mut self, reference: GrantRef) -> Option<&mut Entry> {
        self.entries.get_mut(place(reference)?)?.as_mut()
    }

    /// The grant behind `reference` if `to` may use it with `access`.
    pub(crate) fn find(
        &mut self,
        reference: GrantRef,
        to: DomainId,
        access: Access,
    ) -> Option<&mut Entry> {
        self.get(reference)
            .filter(|entry| entry.to == to)
            .filter(|entry| access == Access::Read || entry.access == Access::Write)
    }

    fn remove(&mut self, reference: GrantRef) {
        let at = place(reference).expect("it was found");
        self.entries[at] = None;
        self.free.push(at);
    }

    /// Takes one mapping off `reference`.
    pub(crate) fn unmapped(&mut self, reference: GrantRef) {
        let buried = self.buried;
        let entry = self.get(reference).expect("a mapped grant cannot be revoked");
        entry.mapped -= 1;
        if buried && entry.mapped == 0 {
            self.remove(reference);
        }
    }

    /// Ends all grants of a dead domain that nobody has mapped; the others end with that.
    pub(crate) fn bury(&mut self) {
        self.buried = true;
        for entry in &mut self.entries {
            entry.take_if(|entry| entry.mapped == 0);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GrantRef, &Entry)> {
        let all = self.entries.iter().enumerate();
        all.filter_map(|(at, entry)| Some((reference(at), entry.as_ref()?)))
    }

    fn of_page(&self, page: &Arc<Page>) -> Option<GrantRef> {
        self.iter().find(|(_, e)| Arc::ptr_eq(&e.page, page)).map(|(reference, _)| reference)
    }
}

/// A page of a domain's own memory. Dropping it gives the frame back, which a page that is still
/// granted must never do.
pub struct OwnPage {
    page: Arc<Page>,
    owner: Domain,
}

impl Deref for OwnPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        // Whoever grants or maps the page shares it.
        let shared = Arc::strong_count(&self.page) > 1;
        if !shared {
            STOCK.with_borrow_mut(|stock| {
                if stock.len() < STOCK_MAX {
                    stock.push(self.page.clone());
                }
            });
        }
        let Some(mut state) = self.owner.alive() else { return };
        let id = self.owner.id;
        let resident = state.resident(id);
        resident.pages -= 1;
        if shared
            && let Some(reference) = resident.grants.of_page(&self.page)
            && !std::thread::panicking()
        {
            panic!("domain {id} frees a page that it still grants as {reference}");
        }
    }
}

impl Grants for Domain {
    type Page = OwnPage;

    fn page(&self) -> Option<OwnPage> {
        let mut state = self.call(Call::Page)?;
        if state.fails(self.id, Call::Page) {
            return None;
        }
        let limit = state.limits.pages;
        let resident = state.resident(self.id);
        if resident.pages >= limit {
            return None;
        }
        resident.pages += 1;
        Some(OwnPage { page: fresh(), owner: self.clone() })
    }

    /// # Panics
    /// If the page is not this domain's own.
    fn grant(&self, page: &OwnPage, to: DomainId, access: Access) -> Result<GrantRef, GrantError> {
        let id = self.id;
        assert!(
            page.owner.id == id && page.owner.shared.is(&self.shared),
            "domain {id} grants a page of domain {}",
            page.owner.id
        );
        let Some(mut state) = self.call(Call::Grant) else { return Err(GrantError::TableFull) };
        if state.fails(id, Call::Grant) {
            return Err(GrantError::TableFull);
        }
        let limit = state.limits.grants;
        let entry = Entry { page: Arc::clone(&page.page), to, access, mapped: 0 };
        state.resident(id).grants.add(entry, limit)
    }

    /// # Panics
    /// If there is no such grant.
    fn revoke(&self, reference: GrantRef) -> Result<(), StillMapped> {
        let Some(mut state) = self.call(Call::Revoke) else { return Ok(()) };
        let id = self.id;
        let grants = &mut state.resident(id).grants;
        let entry = grants.get(reference);
        let entry = entry.unwrap_or_else(|| panic!("domain {id} revokes {reference}, no grant"));
        if entry.mapped > 0 {
            return Err(StillMapped);
        }
        grants.remove(reference);
        Ok(())
    }
}
