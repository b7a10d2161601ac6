//! Xenstore over something that carries bytes, one request after the other.
//!
//! For one thread: a request waits for its reply, and events that arrive meanwhile are kept.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use super::client::{Client, RequestId};
use super::wire;
use crate::abi::StoreMessage;
use crate::{DomainId, Store, StoreError, Transaction, WatchEvent};

/// The most bytes of names that [`Store::list`] gathers.
pub const LIST_BYTES_MAX: usize = 256 * 1024;
/// How often [`Store::list`] begins again when a long listing changes while it is read.
pub const LIST_TRIES_MAX: u32 = 16;

/// Why bytes could not be carried: the connection is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError(pub String);

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for TransportError {}

/// Carries bytes to xenstore and back.
pub trait Transport {
    /// Sends all of `bytes`, waiting where it must.
    ///
    /// # Errors
    /// [`TransportError`] if the connection is lost.
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError>;

    /// Waits for at least a byte and tells how many were put into `out`; 0 only if the connection
    /// is lost.
    ///
    /// # Errors
    /// [`TransportError`] if the connection is lost.
    fn receive(&self, out: &mut [u8]) -> Result<usize, TransportError>;

    /// The same without waiting: 0 if there is nothing now.
    ///
    /// # Errors
    /// [`TransportError`] if the connection is lost.
    fn try_receive(&self, out: &mut [u8]) -> Result<usize, TransportError>;
}

/// A connection to xenstore.
#[derive(Debug)]
pub struct Connection<T> {
    transport: T,
    client: RefCell<Client>,
}

impl<T: Transport> Connection<T> {
    /// A connection over a transport on which nothing was sent.
    pub fn new(transport: T) -> Self {
        Self { transport, client: RefCell::new(Client::new()) }
    }

    /// What carries the bytes.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Sends a request and waits for its reply.
    fn ask(
        &self,
        kind: StoreMessage,
        within: Transaction,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, StoreError> {
        let (id, bytes) = self.client.borrow_mut().request(kind, within, parts)?;
        self.transport.send(&bytes).map_err(|error| self.lost(&error))?;
        self.wait(id)
    }

    fn wait(&self, id: RequestId) -> Result<Vec<u8>, StoreError> {
        let mut bytes = [0; 1024];
        loop {
            if let Some(reply) = self.client.borrow_mut().reply(id)? {
                return reply;
            }
            let count = self.transport.receive(&mut bytes).map_err(|error| self.lost(&error))?;
            if count == 0 {
                return Err(self.client.borrow_mut().end("closed by xenstore"));
            }
            self.client.borrow_mut().feed(&bytes[..count])?;
        }
    }

    /// Sends a request that is answered by `OK`.
    fn tell(
        &self,
        kind: StoreMessage,
        within: Transaction,
        parts: &[&[u8]],
    ) -> Result<(), StoreError> {
        match self.ask(kind, within, parts)?.as_slice() {
            b"OK\0" | b"OK" => Ok(()),
            _ => Err(self.nonsense(kind)),
        }
    }

    /// Sends a request that carries a path and nothing else.
    fn ask_path(
        &self,
        kind: StoreMessage,
        within: Transaction,
        path: &str,
    ) -> Result<Vec<u8>, StoreError> {
        wire::check_path(path)?;
        self.ask(kind, within, &[path.as_bytes(), b"\0"])
    }

    /// Lists a node whose listing does not fit into one message, in parts.
    fn list_parts(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        for _ in 0..LIST_TRIES_MAX {
            if let Some(bytes) = self.try_list_parts(within, path)? {
                return wire::names(&bytes)
                    .ok_or_else(|| self.nonsense(StoreMessage::DirectoryPart));
            }
        }
        Err(StoreError::Conflict)
    }

    /// Gathers all parts; `None` if the node changed between two of them. Each part begins with
    /// the node's generation; the last one ends with an empty name.
    fn try_list_parts(
        &self,
        within: Transaction,
        path: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let kind = StoreMessage::DirectoryPart;
        let mut generation: Option<Vec<u8>> = None;
        let mut names = Vec::new();
        while names.len() <= LIST_BYTES_MAX {
            let offset = names.len().to_string();
            let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", offset.as_bytes(), b"\0"];
            let payload = self.ask(kind, within, &parts)?;
            let (now, part) = wire::until_nul(&payload).ok_or_else(|| self.nonsense(kind))?;
            if generation.get_or_insert_with(|| now.to_vec()) != now {
                return Ok(None);
            }
            if !part.ends_with(b"\0") {
                return Err(self.nonsense(kind));
            }
            names.extend_from_slice(part);
            if names == b"\0" || names.ends_with(b"\0\0") {
                names.pop();
                return Ok(Some(names));
            }
        }
        Err(StoreError::Quota)
    }

    fn lost(&self, error: &TransportError) -> StoreError {
        self.client.borrow_mut().end(error.to_string())
    }

    /// The reply was of the right type and still not one.
    fn nonsense(&self, kind: StoreMessage) -> StoreError {
        self.client.borrow_mut().end(format!("a reply to {kind:?} that makes no sense"))
    }
}

/// Turns *no such node* into the value for it.
fn unless_missing<V>(result: Result<V, StoreError>, missing: V) -> Result<V, StoreError> {
    match result {
        Err(StoreError::NotFound) => Ok(missing),
        other => other,
    }
}

impl<T: Transport> Store for Connection<T> {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        let reply = self.ask_path(StoreMessage::Read, within, path);
        unless_missing(reply.map(|value| Some(wire::text(&value))), None)
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let kind = StoreMessage::Directory;
        let names = match self.ask_path(kind, within, path) {
            Ok(payload) => wire::names(&payload).ok_or_else(|| self.nonsense(kind)),
            Err(StoreError::Quota) => self.list_parts(within, path),
            Err(error) => Err(error),
        };
        unless_missing(names, Vec::new())
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        wire::check_path(path)?;
        self.tell(StoreMessage::Write, within, &[path.as_bytes(), b"\0", value.as_bytes()])
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        wire::check_path(path)?;
        unless_missing(self.tell(StoreMessage::Rm, within, &[path.as_bytes(), b"\0"]), ())
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        wire::check_path(path)?;
        // The first entry names the owner and what everybody else may do: nothing.
        let permissions = format!("\0n{owner}\0r{reader}\0");
        self.tell(StoreMessage::SetPerms, within, &[path.as_bytes(), permissions.as_bytes()])
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.tell_watch(StoreMessage::Watch, path, token)
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.tell_watch(StoreMessage::Unwatch, path, token)
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        let mut bytes = [0; 1024];
        loop {
            if let Some(event) = self.client.borrow_mut().event() {
                return Ok(Some(event));
            }
            self.client.borrow().check()?;
            let count =
                self.transport.try_receive(&mut bytes).map_err(|error| self.lost(&error))?;
            if count == 0 {
                return Ok(None);
            }
            self.client.borrow_mut().feed(&bytes[..count])?;
        }
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        let kind = StoreMessage::TransactionStart;
        let payload = self.ask(kind, Transaction::NONE, &[b"\0"])?;
        match wire::number(&payload) {
            Some(id) if id != 0 => Ok(Transaction(id)),
            _ => Err(self.nonsense(kind)),
        }
    }

    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let verdict: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.tell(StoreMessage::TransactionEnd, transaction, &[verdict])
    }
}

impl<T: Transport> Connection<T> {
    fn tell_watch(&self, kind: StoreMessage, path: &str, token: &str) -> Result<(), StoreError> {
        wire::check_path(path)?;
        wire::check_text(token)?;
        let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.tell(kind, Transaction::NONE, &parts)
    }
}
