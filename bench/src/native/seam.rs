//! Memory and bells of one process, where Xen would be: what a front lends, a back of another thread
//! finds by its reference, and an event is a bell.
//!
//! Both ends are the production ones and ask the same as on Xen; that Xen is not asked costs nothing
//! here, so no figure of this place tells what a grant or a hypercall costs. It must never check what
//! the simulator checks: it is for ends that are known to behave.

use std::sync::{Arc, Mutex, PoisonError};

use blkback::Bell;
use ring::Page;
use xen::{
    Access, DomainId, Events, GrantCopy, GrantError, GrantRef, Grants, MapError, Maps, NoPort,
    Port, StillMapped,
};

/// The one port of each end.
const PORT: Port = Port(1);

/// Pages by reference: a front's grants, and a back's way to them.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<Mutex<Vec<Arc<Page>>>>);

impl Grants for Pages {
    type Page = Arc<Page>;

    fn page(&self) -> Option<Arc<Page>> {
        Some(Arc::default())
    }

    fn grant(&self, page: &Arc<Page>, _: DomainId, _: Access) -> Result<GrantRef, GrantError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reference = u32::try_from(all.len()).map_err(|_| GrantError::TableFull)?;
        all.push(page.clone());
        Ok(GrantRef(reference))
    }

    fn revoke(&self, _: GrantRef) -> Result<(), StillMapped> {
        Ok(())
    }
}

impl Maps for Pages {
    type Page = Arc<Page>;

    fn map(
        &self,
        _: DomainId,
        references: &[GrantRef],
        _: Access,
    ) -> Result<Vec<Arc<Page>>, MapError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let page = |reference: &GrantRef| all.get(usize::try_from(reference.0).ok()?).cloned();
        references.iter().map(page).collect::<Option<_>>().ok_or(MapError::Refused)
    }

    /// Never asked: both ends keep their grants.
    fn copy(&self, _: DomainId, _: &mut [GrantCopy<'_>]) {}
}

/// One end of an event channel: what it raises, rings the other end's bell.
#[derive(Clone, Debug)]
pub(super) struct Line(pub(super) Bell);

impl Events for Line {
    fn offer(&self, _: DomainId) -> Result<Port, NoPort> {
        Ok(PORT)
    }

    fn bind(&self, _: DomainId, _: Port) -> Result<Port, NoPort> {
        Ok(PORT)
    }

    fn notify(&self, _: Port) {
        self.0.ring();
    }

    fn close(&self, _: Port) {}
}
