//! Xenstore as a domain's program uses it.

use xen::{DomainId, Store, StoreError, Transaction, WatchEvent};

use crate::calls::Call;
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
        call: Call,
        act: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.call(call).ok_or_else(gone)?;
        if state.fails(self.id, call) {
            return Err(StoreError::Quota);
        }
        act(&mut state)
    }

    fn change(&self, call: Call, within: Transaction, change: Change) -> Result<(), StoreError> {
        self.connected(call, |state| state.store.changing(self.id, within, change, &state.limits))
    }
}

impl Store for Domain {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        let path = absolute(self.id, path)?;
        self.connected(Call::Read, |state| {
            state.store.looking(self.id, within, &path, |tree| tree.read(self.id, &path))
        })
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let path = absolute(self.id, path)?;
        self.connected(Call::List, |state| {
            state.store.looking(self.id, within, &path, |tree| tree.list(self.id, &path))
        })
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        self.change(Call::Write, within, Change::Write(absolute(self.id, path)?, value.to_owned()))
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        self.change(Call::Remove, within, Change::Remove(absolute(self.id, path)?))
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        let change = Change::Permit(absolute(self.id, path)?, owner, reader);
        self.change(Call::Permit, within, change)
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        let special = [RELEASE, INTRODUCE].contains(&path);
        if special && self.id != DomainId::ZERO {
            return Err(StoreError::Denied);
        }
        let whole = if special { path.to_owned() } else { absolute(self.id, path)? };
        self.connected(Call::Watch, |state| {
            state.store.watch(self.id, (path, whole), token, &state.limits)
        })
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
