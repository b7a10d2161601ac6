//! Nodes of a device in xenstore: ours written, the front's read, each at one time.

use std::cell::RefCell;
use std::fmt;

use blkif::{Abi, FrontOffer, Refusal};
use xen::{Store, StoreError, Transaction, XenbusState};

/// Writes nodes of one directory in one transaction.
pub(super) struct Writer<'a, S> {
    pub(super) store: &'a S,
    pub(super) within: Transaction,
    pub(super) back: &'a str,
}

impl<S: Store> Writer<'_, S> {
    pub(super) fn read(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.store.read(self.within, &[self.back, "/", key].concat())
    }

    pub(super) fn write(&self, key: &str, value: fmt::Arguments<'_>) -> Result<(), StoreError> {
        self.store.write(self.within, &[self.back, "/", key].concat(), &value.to_string())
    }

    pub(super) fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.store.remove(self.within, &[self.back, "/", key].concat())
    }

    pub(super) fn state(&self, state: XenbusState) -> Result<(), StoreError> {
        self.write("state", format_args!("{state}"))
    }
}

/// Reads a front's nodes, all at one time.
pub(super) fn read_front(
    store: &impl Store,
    front: &str,
    max_order: u32,
) -> Result<Result<FrontOffer, Refusal>, StoreError> {
    store.transact(|within| {
        let failed = RefCell::new(None);
        let node = |key: &str| match store.read(within, &[front, "/", key].concat()) {
            Ok(value) => value,
            Err(error) => {
                failed.replace(Some(error));
                None
            }
        };
        let offer = FrontOffer::read(node, max_order, Abi::WHEN_MISSING);
        failed.take().map_or(Ok(offer), Err)
    })
}
