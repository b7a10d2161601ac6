//! Mappings of granted pages, and grant copies.
//!
//! A mapping call is one batch: it succeeds or fails as a whole and is unmapped as a whole, as the
//! grant device of Linux does it. The same grant may be mapped many times; each time counts.

use std::ops::Deref;
use std::sync::Arc;

use ring::{PAGE_SIZE, Page};
use xen::{Access, Direction, DomainId, GrantCopy, GrantRef, MapError, Maps};

use crate::calls::Call;
use crate::domain::Domain;
use crate::state::State;

/// What the hypervisor knows of one mapping call.
pub(crate) struct Mapping {
    pub(crate) mapper: DomainId,
    pub(crate) from: DomainId,
    pub(crate) references: Vec<GrantRef>,
}

/// A page that another domain granted. The batch it was mapped with is unmapped when the last
/// clone of the last of its pages is dropped.
#[derive(Clone)]
pub struct MappedPage {
    batch: Arc<Batch>,
    at: usize,
}

struct Batch {
    pages: Vec<Arc<Page>>,
    number: u64,
    mapper: Domain,
}

impl Deref for MappedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.batch.pages[self.at]
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // If the mapper is dead, its kernel has unmapped already.
        if let Some(mut state) = self.mapper.alive() {
            state.unmap(self.number);
        }
    }
}

impl State {
    /// Ends one mapping call.
    pub(crate) fn unmap(&mut self, number: u64) {
        let mapping = self.mappings.remove(&number).expect("mappings end once");
        self.resident(mapping.mapper).mapped -= mapping.references.len();
        let granter = self.resident(mapping.from);
        for reference in mapping.references {
            granter.grants.unmapped(reference);
        }
    }

    /// The page behind a grant of `from` to `to`.
    fn granted(
        &mut self,
        from: DomainId,
        reference: GrantRef,
        to: DomainId,
        access: Access,
    ) -> Option<Arc<Page>> {
        let resident = self.residents.get_mut(&from).filter(|resident| !resident.dead)?;
        resident.grants.find(reference, to, access).map(|entry| Arc::clone(&entry.page))
    }
}

impl Maps for Domain {
    type Page = MappedPage;

    fn map(
        &self,
        from: DomainId,
        references: &[GrantRef],
        access: Access,
    ) -> Result<Vec<MappedPage>, MapError> {
        let mut state = self.call(Call::Map).ok_or(MapError::NoRoom)?;
        let mapped = state.resident(self.id).mapped + references.len();
        if state.fails(self.id, Call::Map) || mapped > state.limits.mappings {
            return Err(MapError::NoRoom);
        }
        let pages: Option<Vec<_>> = references
            .iter()
            .map(|&reference| state.granted(from, reference, self.id, access))
            .collect();
        let pages = pages.ok_or(MapError::Refused)?;
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        for &reference in references {
            let entry = state.resident(from).grants.find(reference, self.id, access);
            entry.expect("it was found above").mapped += 1;
        }
        state.resident(self.id).mapped = mapped;
        state.mappings_made += 1;
        let number = state.mappings_made;
        let mapping = Mapping { mapper: self.id, from, references: references.to_vec() };
        state.mappings.insert(number, mapping);
        let batch = Arc::new(Batch { pages, number, mapper: self.clone() });
        Ok((0..references.len()).map(|at| MappedPage { batch: Arc::clone(&batch), at }).collect())
    }

    /// # Panics
    /// If a range is empty or leaves its page.
    fn copy(&self, peer: DomainId, copies: &mut [GrantCopy<'_>]) {
        for copy in copies {
            let (offset, length) = (usize::from(copy.offset_bytes), usize::from(copy.length_bytes));
            assert!(length > 0, "domain {} copies nothing", self.id);
            assert!(offset + length <= PAGE_SIZE, "domain {} copies past a page", self.id);
            let theirs = self.copied(peer, copy);
            copy.done = theirs.is_some();
            let Some(theirs) = theirs else { continue };
            let (source, target) = match copy.direction {
                Direction::FromPeer => (&*theirs, copy.local),
                Direction::ToPeer => (copy.local, &*theirs),
            };
            target.copy_part(source, offset, length);
        }
    }
}

impl Domain {
    /// The peer's page for one copy, if it may be had.
    fn copied(&self, peer: DomainId, copy: &GrantCopy<'_>) -> Option<Arc<Page>> {
        let mut state = self.call(Call::Copy)?;
        if state.fails(self.id, Call::Copy) {
            return None;
        }
        let access = match copy.direction {
            Direction::FromPeer => Access::Read,
            Direction::ToPeer => Access::Write,
        };
        state.granted(peer, copy.reference, self.id, access)
    }
}
