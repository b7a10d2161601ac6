//! Xenstore with somebody in between, who may act before each operation, or refuse it, and put
//! other words into it. It must never do anything else.

use sim::Domain;
use xen::{DomainId, Store, StoreError, Transaction, WatchEvent};

/// Who stands between a program and its xenstore.
pub trait Hook {
    /// Comes before each operation but the look for events.
    ///
    /// # Errors
    /// What the operation is to fail with.
    fn pass(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What is to be written to `path` instead of `value`.
    fn say<'a>(&self, _path: &str, value: &'a str) -> &'a str {
        value
    }
}

/// Somebody who says `feature-persistent = 0` for a front that wanted to say something else.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Whether to pass everything on as it is.
    pub keeps: bool,
}

impl Hook for Plain {
    fn say<'a>(&self, path: &str, value: &'a str) -> &'a str {
        if !self.keeps && path.ends_with("/feature-persistent") { "0" } else { value }
    }
}

/// A domain's xenstore, and who stands in between.
#[derive(Clone, Debug)]
pub struct Hooked<H> {
    /// The store itself.
    pub domain: Domain,
    /// Who stands in between.
    pub hook: H,
}

impl<H: Hook> Store for Hooked<H> {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        self.hook.pass().and_then(|()| self.domain.read(within, path))
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.hook.pass().and_then(|()| self.domain.list(within, path))
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        let said = self.hook.say(path, value);
        self.hook.pass().and_then(|()| self.domain.write(within, path, said))
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        self.hook.pass().and_then(|()| self.domain.remove(within, path))
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        self.hook.pass().and_then(|()| self.domain.permit(within, path, owner, reader))
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.hook.pass().and_then(|()| self.domain.watch(path, token))
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.hook.pass().and_then(|()| self.domain.unwatch(path, token))
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        self.domain.event()
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.hook.pass().and_then(|()| self.domain.begin())
    }

    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        // An end that fails has ended the transaction all the same.
        let failed = self.hook.pass().err();
        let ended = self.domain.end(transaction, commit && failed.is_none());
        failed.map_or(ended, Err)
    }
}
