//! The seam: what a front, a back and their control planes ask of Xen.
//!
//! Four traits by who needs what. They take `&self`, so that one value serves several devices,
//! and nothing is static, so that two domains fit in one test. How to wait for an event is not
//! here: the guest blocks in the scheduler, the backend in its `io_uring`, the simulator decides.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use ring::Page;

use crate::{DomainId, GrantRef, Port};

/// What the other domain may do with a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// Why a page could not be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// Every entry of the grant table is in use.
    TableFull,
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableFull => f.write_str("the grant table is full"),
        }
    }
}

impl core::error::Error for GrantError {}

/// The peer has a granted page mapped still: its frame must not be used for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillMapped;

/// Asked by a front: pages that may be shown to another domain.
pub trait Grants {
    /// A page of our own, alone in its frame. Dropping it gives the frame back.
    type Page: Deref<Target = Page>;

    /// A page of zeros: nothing that belongs to somebody else may ever be granted with it
    /// (XSA-403). `None` when memory is short.
    fn page(&self) -> Option<Self::Page>;

    /// Lets `to` map `page`. The caller keeps the page until it has revoked the grant.
    ///
    /// # Errors
    /// [`GrantError`] if the table is full.
    fn grant(
        &self,
        page: &Self::Page,
        to: DomainId,
        access: Access,
    ) -> Result<GrantRef, GrantError>;

    /// Takes a grant back.
    ///
    /// # Errors
    /// [`StillMapped`] if the peer has not unmapped the page (XSA-396). The grant stands; the
    /// caller keeps the page aside and counts it, and never reuses it.
    fn revoke(&self, reference: GrantRef) -> Result<(), StillMapped>;
}

/// Why pages could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// At least one of the references is not a grant to us, or not with this access. Nothing was
    /// mapped.
    Refused,
    /// No room for more mappings here. Nothing was mapped.
    NoRoom,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "a grant was refused",
            Self::NoRoom => "no room for more mapped grants",
        })
    }
}

impl core::error::Error for MapError {}

/// Which way a grant copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer's page to ours.
    FromPeer,
    /// From our page to the peer's.
    ToPeer,
}

/// One copy between a peer's granted page and a page of ours, at the same offset in both.
pub struct GrantCopy<'a> {
    /// The peer's page.
    pub reference: GrantRef,
    /// Our page.
    pub local: &'a Page,
    /// First byte, in both pages.
    pub offset_bytes: u16,
    /// Number of bytes, at least 1; the range stays inside the page.
    pub length_bytes: u16,
    /// Which way.
    pub direction: Direction,
    /// Set by [`Maps::copy`]: whether this one was done.
    pub done: bool,
}

/// Asked by a back: access to pages that another domain granted.
pub trait Maps {
    /// A mapped page. All pages of one call are unmapped together, when the last clone of the last
    /// of them is dropped.
    type Page: Deref<Target = Page> + Clone + Send + 'static;

    /// Maps all of `references` in one call, in their order. The same reference may come twice.
    ///
    /// # Errors
    /// [`MapError`]; then none is mapped.
    fn map(
        &self,
        from: DomainId,
        references: &[GrantRef],
        access: Access,
    ) -> Result<Vec<Self::Page>, MapError>;

    /// Does all of `copies` in one call and sets [`GrantCopy::done`] in each: one that failed says
    /// nothing about the others (XSA-361).
    fn copy(&self, peer: DomainId, copies: &mut [GrantCopy<'_>]);
}

/// No event channel port could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPort;

impl fmt::Display for NoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no event channel port: it is not offered to this domain, or none is free")
    }
}

impl core::error::Error for NoPort {}

/// Asked by both sides: event channels.
pub trait Events {
    /// Offers a port that `peer` may bind to. The front's way.
    ///
    /// # Errors
    /// [`NoPort`].
    fn offer(&self, peer: DomainId) -> Result<Port, NoPort>;

    /// Binds to the port that `peer` offered and returns our own end. One event may be pending at
    /// once. The back's way.
    ///
    /// # Errors
    /// [`NoPort`].
    fn bind(&self, peer: DomainId, offered: Port) -> Result<Port, NoPort>;

    /// Raises an event at the other end of `port`. A peer that is gone is not an error.
    fn notify(&self, port: Port);

    /// Gives `port` up.
    fn close(&self, port: Port);
}

/// What xenstore answered instead of doing what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No such node (`ENOENT`).
    NotFound,
    /// The node belongs to somebody else (`EACCES`, `EPERM`).
    Denied,
    /// The node or watch exists already (`EEXIST`).
    Exists,
    /// The transaction met a change by somebody else (`EAGAIN`).
    Conflict,
    /// Xenstore's own limits (`ENOSPC`, `EQUOTA`, `E2BIG`, `ENOMEM`).
    Quota,
    /// A path or value that the protocol cannot carry (`EINVAL`), found here or there.
    Invalid,
    /// Any other error, by xenstore's name for it.
    Other(String),
    /// The connection to xenstore is lost or talks nonsense.
    Connection(String),
}

impl StoreError {
    /// Whether it may be that somebody else has changed what a transaction works on. Xen's xenstored says
    /// `EIO` when a node that it keeps for the transaction and one that it reads now contradict each
    /// other: a directory that another has removed meanwhile is not among its parent's children.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict) || matches!(self, Self::Other(name) if name == "EIO")
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such node"),
            Self::Denied => f.write_str("permission denied"),
            Self::Exists => f.write_str("exists already"),
            Self::Conflict => f.write_str("the transaction met a conflicting change"),
            Self::Quota => f.write_str("xenstore quota exceeded"),
            Self::Invalid => f.write_str("invalid path or value"),
            Self::Other(name) => write!(f, "xenstore answered {name}"),
            Self::Connection(reason) => write!(f, "connection to xenstore: {reason}"),
        }
    }
}

impl core::error::Error for StoreError {}

/// A xenstore transaction, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(pub u32);

impl Transaction {
    /// Each operation stands for itself.
    pub const NONE: Self = Self(0);
}

/// A fired watch. It proves nothing: the path is to be read again (XSA-115).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The path that changed, or the watched path itself.
    pub path: String,
    /// The token given with the watch.
    pub token: String,
}

/// How often [`Store::transact`] tries before it gives up.
pub const TRANSACTION_TRIES_MAX: u32 = 64;

/// Asked by both control planes: xenstore (`docs/misc/xenstore.txt` of Xen).
///
/// Paths that do not begin with `/` are relative to the caller's own domain directory. Values that
/// are not UTF-8 are read with replacement characters, which no parser here accepts.
pub trait Store {
    /// The value of a node; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`], except `NotFound`.
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError>;

    /// The names of a node's children; empty if there is no such node.
    ///
    /// # Errors
    /// [`StoreError`], except `NotFound`.
    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError>;

    /// Creates or overwrites a node.
    ///
    /// # Errors
    /// [`StoreError`].
    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError>;

    /// Removes a node and all below it. A node that does not exist is not an error.
    ///
    /// # Errors
    /// [`StoreError`], except `NotFound`.
    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError>;

    /// Sets who owns a node and who may read it besides: `owner` may do everything, `reader` read.
    ///
    /// # Errors
    /// [`StoreError`].
    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError>;

    /// Asks for events about `path` and all below it. One event fires at once.
    ///
    /// # Errors
    /// [`StoreError`].
    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError>;

    /// Ends a watch. Events that fired before may be delivered still.
    ///
    /// # Errors
    /// [`StoreError`].
    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError>;

    /// The next fired watch, without waiting.
    ///
    /// # Errors
    /// [`StoreError::Connection`].
    fn event(&self) -> Result<Option<WatchEvent>, StoreError>;

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    fn begin(&self) -> Result<Transaction, StoreError>;

    /// Ends a transaction: makes its changes visible at once if `commit`, else drops them.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it must be done again.
    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError>;

    /// Runs `body` inside a transaction, again after each conflict.
    ///
    /// # Errors
    /// What `body` or xenstore said; after [`TRANSACTION_TRIES_MAX`] tries, what kept the last one from
    /// its end.
    fn transact<T>(
        &self,
        mut body: impl FnMut(Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError>
    where
        Self: Sized,
    {
        let mut last = StoreError::Conflict;
        for _ in 0..TRANSACTION_TRIES_MAX {
            let transaction = self.begin()?;
            last = match body(transaction) {
                Ok(value) => match self.end(transaction, true) {
                    Ok(()) => return Ok(value),
                    Err(StoreError::Conflict) => StoreError::Conflict,
                    Err(error) => return Err(error),
                },
                Err(error) => {
                    self.end(transaction, false)?;
                    if !error.is_conflict() {
                        return Err(error);
                    }
                    error
                }
            };
        }
        Err(last)
    }
}
