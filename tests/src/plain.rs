//! Xenstore as a front that does not keep its grants would use it.

use sim::Domain;
use xen::{DomainId, Store, StoreError, Transaction, WatchEvent};

/// Says `feature-persistent = 0`, whatever the front wanted to say, unless it `keeps` its grants.
pub struct Plain<'a> {
    /// The guest's own xenstore.
    pub domain: &'a Domain,
    /// Whether to pass everything on as it is.
    pub keeps: bool,
}

impl Store for Plain<'_> {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        self.domain.read(within, path)
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.domain.list(within, path)
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        let silenced = !self.keeps && path.ends_with("/feature-persistent");
        self.domain.write(within, path, if silenced { "0" } else { value })
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        self.domain.remove(within, path)
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        self.domain.permit(within, path, owner, reader)
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.domain.watch(path, token)
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.domain.unwatch(path, token)
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        self.domain.event()
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.domain.begin()
    }

    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        self.domain.end(transaction, commit)
    }
}
