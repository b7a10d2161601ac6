//! The protocol without input or output: who asked what, and what has arrived so far.
//!
//! Replies are matched to requests by number, so a reply to nothing, a second reply, or a reply of
//! another type ends the connection. Once ended it stays so: each later call gives the same error.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::events::Events;
use super::wire::{self, HEADER_BYTES};
use crate::abi::{STORE_PAYLOAD_MAX, StoreHeader, StoreMessage};
use crate::{StoreError, Transaction, WatchEvent};

/// The most requests without a reply that was fetched.
pub const REQUESTS_MAX: usize = 32;

/// Names a request until its reply is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u32);

#[derive(Debug)]
enum Request {
    Waiting(StoreMessage),
    Answered(Result<Vec<u8>, StoreError>),
}

/// The state of a connection to xenstore.
#[derive(Debug, Default)]
pub struct Client {
    next_id: u32,
    requests: BTreeMap<u32, Request>,
    events: Events,
    /// The bytes of a message that has not arrived whole.
    partial: Vec<u8>,
    /// Why the connection ended.
    ended: Option<String>,
}

impl Client {
    /// A connection on which nothing was sent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the bytes of a request whose payload is `parts`, one behind the other; NULs between
    /// them are the caller's. All of them must be sent.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the payload is longer than [`STORE_PAYLOAD_MAX`],
    /// [`StoreError::Quota`] if [`REQUESTS_MAX`] requests wait, [`StoreError::Connection`] if the
    /// connection has ended. Nothing is to be sent then.
    pub fn request(
        &mut self,
        kind: StoreMessage,
        within: Transaction,
        parts: &[&[u8]],
    ) -> Result<(RequestId, Vec<u8>), StoreError> {
        self.check()?;
        if self.requests.len() >= REQUESTS_MAX {
            return Err(StoreError::Quota);
        }
        while self.requests.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        let bytes = wire::message(kind, id, within, parts)?;
        self.next_id = id.wrapping_add(1);
        match kind {
            StoreMessage::Watch => self.events.watch(),
            StoreMessage::Unwatch => self.events.unwatch(),
            _ => {}
        }
        self.requests.insert(id, Request::Waiting(kind));
        Ok((RequestId(id), bytes))
    }

    /// Takes bytes that came from xenstore, cut anywhere.
    ///
    /// # Errors
    /// [`StoreError::Connection`] if they make no sense; the connection has ended then.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        while !bytes.is_empty() {
            let missing = self.missing()?;
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            self.accept_whole()?;
        }
        Ok(())
    }

    /// The reply to a request, once: its payload or xenstore's error. `None` if it has not arrived.
    ///
    /// # Errors
    /// [`StoreError::Connection`] if the connection has ended.
    pub fn reply(
        &mut self,
        id: RequestId,
    ) -> Result<Option<Result<Vec<u8>, StoreError>>, StoreError> {
        match self.requests.remove(&id.0) {
            Some(Request::Answered(reply)) => return Ok(Some(reply)),
            Some(waiting) => self.requests.insert(id.0, waiting),
            None => None,
        };
        self.check().map(|()| None)
    }

    /// The next fired watch, also after the connection has ended.
    pub fn event(&mut self) -> Option<WatchEvent> {
        self.events.pop()
    }

    /// Ends the connection: the bytes cannot be carried any more, or what came makes no sense.
    pub fn end(&mut self, reason: impl Into<String>) -> StoreError {
        let reason = self.ended.get_or_insert_with(|| reason.into());
        StoreError::Connection(reason.clone())
    }

    /// Whether the connection has ended.
    ///
    /// # Errors
    /// [`StoreError::Connection`] with the reason, if it has.
    pub fn check(&self) -> Result<(), StoreError> {
        self.ended.clone().map_or(Ok(()), |reason| Err(StoreError::Connection(reason)))
    }

    /// The header, if all of it is here.
    fn header(&self) -> Option<StoreHeader> {
        self.partial.first_chunk().copied().map(wire::header)
    }

    /// How many bytes are missing from the header, or from the message if the header is here.
    fn missing(&mut self) -> Result<usize, StoreError> {
        let Some(header) = self.header() else { return Ok(HEADER_BYTES - self.partial.len()) };
        match usize::try_from(header.len) {
            Ok(length) if length <= STORE_PAYLOAD_MAX => {
                Ok(HEADER_BYTES + length - self.partial.len())
            }
            _ => Err(self.end(format!("a message of {} bytes", header.len))),
        }
    }

    /// Acts on the message if all of it is here.
    fn accept_whole(&mut self) -> Result<(), StoreError> {
        let Some(header) = self.header() else { return Ok(()) };
        if self.missing()? > 0 {
            return Ok(());
        }
        let message = core::mem::take(&mut self.partial);
        let accepted = self.accept(header, &message[HEADER_BYTES..]);
        self.partial = message;
        self.partial.clear();
        accepted
    }

    fn accept(&mut self, header: StoreHeader, payload: &[u8]) -> Result<(), StoreError> {
        if header.kind == StoreMessage::WatchEvent as u32 {
            return self.accept_event(payload);
        }
        let Some(Request::Waiting(asked)) = self.requests.get(&header.req_id) else {
            return Err(
                self.end(format!("a reply to request {}, which waits for none", header.req_id))
            );
        };
        let reply = if header.kind == StoreMessage::Error as u32 {
            Err(wire::error(payload))
        } else if header.kind == *asked as u32 {
            Ok(payload.to_vec())
        } else {
            return Err(self.end(format!("a reply of type {} to {asked:?}", header.kind)));
        };
        self.requests.insert(header.req_id, Request::Answered(reply));
        Ok(())
    }

    fn accept_event(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let parts = wire::until_nul(payload)
            .and_then(|(path, rest)| Some((path, wire::until_nul(rest)?.0)));
        let Some((path, token)) = parts else {
            return Err(self.end("a watch event without a path and a token"));
        };
        let event = WatchEvent { path: wire::text(path), token: wire::text(token) };
        match self.events.push(event) {
            Err(StoreError::Connection(reason)) => Err(self.end(reason)),
            other => other,
        }
    }
}
