//! Xenstore as a domain's program uses it.

use xen::{DomainId, Store, StoreError, Transaction, WatchEvent};

use crate::calls::Call;
use crate::domain::Domain;
use crate::paths::PathId;
use crate::state::State;
use crate::xenstore::{Change, INTRODUCE, RELEASE};

fn gone() -> StoreError {
    StoreError::Connection("the program is dead".to_owned())
}

impl Domain {
    fn connected<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.call(call).ok_or_else(gone)?;
        if state.fails(self.id, call) {
            return Err(StoreError::Quota);
        }
        act(&mut state)
    }

    fn change<'a>(
        &self,
        call: Call,
        within: Transaction,
        path: &str,
        change: impl FnOnce(PathId) -> Change<'a>,
    ) -> Result<(), StoreError> {
        self.connected(call, |state| {
            let change = change(state.store.path(self.id, path)?);
            state.store.changing(self.id, within, change, &state.limits)
        })
    }
}

impl Store for Domain {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        self.connected(Call::Read, |state| {
            let path = state.store.path(self.id, path)?;
            state.store.looking(self.id, within, path, |tree| {
                Ok(tree.read(self.id, path)?.map(ToOwned::to_owned))
            })
        })
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.connected(Call::List, |state| {
            let path = state.store.path(self.id, path)?;
            state.store.looking(self.id, within, path, |tree| tree.list(self.id, path))
        })
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        self.change(Call::Write, within, path, |path| Change::Write(path, value))
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        self.change(Call::Remove, within, path, Change::Remove)
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        self.change(Call::Permit, within, path, |path| Change::Permit(path, owner, reader))
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        let special = [RELEASE, INTRODUCE].contains(&path);
        if special && self.id != DomainId::ZERO {
            return Err(StoreError::Denied);
        }
        self.connected(Call::Watch, |state| state.store.watch(self.id, path, token, &state.limits))
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.connected(Call::Unwatch, |state| state.store.unwatch(self.id, path, token))
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        self.connected(Call::Event, |state| Ok(state.deliver(self.id)))
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.connected(Call::Begin, |state| state.store.begin(self.id, &state.limits))
    }

    /// # Panics
    /// If the transaction is not open.
    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        self.connected(Call::End, |state| {
            let struck = commit && state.draws(state.faults.conflicts);
            state.tally.conflicts += u64::from(struck);
            let ended = state.store.end(self.id, transaction, commit && !struck, &state.limits);
            if struck { Err(StoreError::Conflict) } else { ended }
        })
    }
}
