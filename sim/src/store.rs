//! Xenstore as a domain's program uses it.

use xen::{DomainId, Store, StoreError, Transaction, WatchEvent};

use crate::domain::Domain;
use crate::state::State;
use crate::tree::absolute;
use crate::xenstore::{Change, INTRODUCE, RELEASE};

fn gone() -> StoreError {
    StoreError::Connection("the program is dead".to_owned())
}

impl Domain {
    fn connected<T>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        act(&mut *self.alive().ok_or_else(gone)?)
    }

    fn change(&self, within: Transaction, change: Change) -> Result<(), StoreError> {
        self.connected(|state| state.store.changing(self.id, within, change, &state.limits))
    }
}

impl Store for Domain {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        let path = absolute(self.id, path)?;
        self.connected(|state| {
            state.store.looking(self.id, within, &path, |tree| tree.read(self.id, &path))
        })
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let path = absolute(self.id, path)?;
        self.connected(|state| {
            state.store.looking(self.id, within, &path, |tree| tree.list(self.id, &path))
        })
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        self.change(within, Change::Write(absolute(self.id, path)?, value.to_owned()))
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        self.change(within, Change::Remove(absolute(self.id, path)?))
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        self.change(within, Change::Permit(absolute(self.id, path)?, owner, reader))
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        let special = [RELEASE, INTRODUCE].contains(&path);
        if special && self.id != DomainId::ZERO {
            return Err(StoreError::Denied);
        }
        let whole = if special { path.to_owned() } else { absolute(self.id, path)? };
        self.connected(|state| state.store.watch(self.id, (path, whole), token, &state.limits))
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.connected(|state| state.store.unwatch(self.id, path, token))
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        self.connected(|state| Ok(state.store.deliver(self.id, &mut state.random, &state.faults)))
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.connected(|state| state.store.begin(self.id, &state.limits))
    }

    /// # Panics
    /// If the transaction is not open.
    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        self.connected(|state| {
            let struck = commit && state.random.chance(state.faults.conflicts);
            let ended = state.store.end(self.id, transaction, commit && !struck, &state.limits);
            if struck { Err(StoreError::Conflict) } else { ended }
        })
    }
}
