//! Pages of a domain and its grant table.
//!
//! Entries are used again at once, the last one first, as Linux does: a reference that a peer
//! still believes in names another page soon.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use ring::Page;
use xen::{Access, DomainId, GrantError, GrantRef, Grants, StillMapped};

use crate::domain::Domain;

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
    entries: BTreeMap<GrantRef, Entry>,
    free: Vec<GrantRef>,
    /// How many entries beyond the reserved ones were ever used.
    used: u32,
    /// The domain is dead: an entry goes with its last mapping.
    buried: bool,
}

impl GrantTable {
    fn add(&mut self, entry: Entry, limit: u32) -> Result<GrantRef, GrantError> {
        let reference = match self.free.pop() {
            Some(reference) => reference,
            None if RESERVED + self.used < limit => {
                self.used += 1;
                GrantRef(RESERVED + self.used - 1)
            }
            None => return Err(GrantError::TableFull),
        };
        self.entries.insert(reference, entry);
        Ok(reference)
    }

    /// The grant behind `reference` if `to` may use it with `access`.
    pub(crate) fn find(
        &mut self,
        reference: GrantRef,
        to: DomainId,
        access: Access,
    ) -> Option<&mut Entry> {
        self.entries
            .get_mut(&reference)
            .filter(|entry| entry.to == to)
            .filter(|entry| access == Access::Read || entry.access == Access::Write)
    }

    /// Takes one mapping off `reference`.
    pub(crate) fn unmapped(&mut self, reference: GrantRef) {
        let entry = self.entries.get_mut(&reference).expect("a mapped grant cannot be revoked");
        entry.mapped -= 1;
        if self.buried && entry.mapped == 0 {
            self.entries.remove(&reference);
        }
    }

    /// Ends all grants of a dead domain that nobody has mapped; the others end with that.
    pub(crate) fn bury(&mut self) {
        self.buried = true;
        self.entries.retain(|_, entry| entry.mapped > 0);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GrantRef, &Entry)> {
        self.entries.iter().map(|(&reference, entry)| (reference, entry))
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
        let Some(mut state) = self.owner.alive() else { return };
        let id = self.owner.id;
        let resident = state.resident(id);
        resident.pages -= 1;
        // Whoever grants or maps the page shares it; the search is for those that somebody does.
        if Arc::strong_count(&self.page) > 1
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
        let mut state = self.alive()?;
        let limit = state.limits.pages;
        let resident = state.resident(self.id);
        if resident.pages >= limit {
            return None;
        }
        resident.pages += 1;
        Some(OwnPage { page: Arc::new(Page::new()), owner: self.clone() })
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
        let Some(mut state) = self.alive() else { return Err(GrantError::TableFull) };
        let limit = state.limits.grants;
        let entry = Entry { page: Arc::clone(&page.page), to, access, mapped: 0 };
        state.resident(id).grants.add(entry, limit)
    }

    /// # Panics
    /// If there is no such grant.
    fn revoke(&self, reference: GrantRef) -> Result<(), StillMapped> {
        let Some(mut state) = self.alive() else { return Ok(()) };
        let id = self.id;
        let grants = &mut state.resident(id).grants;
        let entry = grants.entries.get(&reference);
        let entry = entry.unwrap_or_else(|| panic!("domain {id} revokes {reference}, no grant"));
        if entry.mapped > 0 {
            return Err(StillMapped);
        }
        grants.entries.remove(&reference);
        grants.free.push(reference);
        Ok(())
    }
}
