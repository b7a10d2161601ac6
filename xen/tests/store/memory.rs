//! A xenstore that is a map, and a transport that cuts its bytes into pieces.
//!
//! Answers as `docs/misc/xenstore.txt` says; strict about what a client may send.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use xen::abi::{STORE_PAYLOAD_MAX, StoreMessage};
use xen::store::{Transport, TransportError};

/// Makes a message as xenstore does.
pub(crate) fn message(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [kind, request, 0, u32::try_from(payload.len()).unwrap()] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// Takes a message apart: type, request, transaction, payload.
pub(crate) fn parse(bytes: &[u8]) -> (u32, u32, u32, Vec<u8>) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(bytes.len() - 16, usize::try_from(word(12)).unwrap());
    (word(0), word(4), word(8), bytes[16..].to_vec())
}

#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) nodes: BTreeMap<String, Vec<u8>>,
    pub(crate) permissions: Vec<String>,
    /// Changed by somebody else each time a part of a listing was read, this many times.
    pub(crate) list_changes: u32,
    /// Met by the next commits, this many times.
    pub(crate) conflicts: u32,
    watches: BTreeSet<(String, String)>,
    transactions: BTreeMap<u32, BTreeMap<String, Vec<u8>>>,
    generation: u32,
}

type Answer = Result<Vec<u8>, &'static str>;

impl MemoryStore {
    /// Answers one request; events that it raised go behind the reply.
    fn serve(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (kind, request, within, payload) = parse(bytes);
        assert!(payload.len() <= STORE_PAYLOAD_MAX, "a payload that kills the connection");
        let mut events = Vec::new();
        let answer = if within == 0 || kind == StoreMessage::TransactionEnd as u32 {
            self.act(kind, within, &payload, &mut events)
        } else if let Some(nodes) = self.transactions.remove(&within) {
            let outside = std::mem::replace(&mut self.nodes, nodes);
            let answer = self.act(kind, within, &payload, &mut Vec::new());
            let inside = std::mem::replace(&mut self.nodes, outside);
            self.transactions.insert(within, inside);
            answer
        } else {
            Err("ENOENT")
        };
        let mut out = match answer {
            Ok(payload) if payload.len() > STORE_PAYLOAD_MAX => {
                message(StoreMessage::Error as u32, request, b"E2BIG\0")
            }
            Ok(payload) => message(kind, request, &payload),
            Err(name) => {
                let name = [name.as_bytes(), b"\0"].concat();
                message(StoreMessage::Error as u32, request, &name)
            }
        };
        out.extend(events);
        out
    }

    fn act(&mut self, kind: u32, within: u32, payload: &[u8], events: &mut Vec<u8>) -> Answer {
        let mut parts = payload.split(|&byte| byte == 0).map(|part| part.to_vec());
        let first = String::from_utf8(parts.next().unwrap()).unwrap();
        let second = || String::from_utf8(payload.split(|&b| b == 0).nth(1).unwrap().to_vec());
        let ok = || Ok(b"OK\0".to_vec());
        match kind {
            k if k == StoreMessage::Read as u32 => self.nodes.get(&first).cloned().ok_or("ENOENT"),
            k if k == StoreMessage::Directory as u32 => Ok(self.children(&first)?.concat()),
            k if k == StoreMessage::DirectoryPart as u32 => {
                self.part(&first, second().unwrap().parse().unwrap())
            }
            k if k == StoreMessage::Write as u32 => {
                self.nodes.insert(first.clone(), payload[first.len() + 1..].to_vec());
                self.fire(&first, events);
                ok()
            }
            k if k == StoreMessage::Rm as u32 => {
                let below = format!("{first}/");
                let before = self.nodes.len();
                self.nodes.retain(|path, _| *path != first && !path.starts_with(&below));
                if self.nodes.len() == before { Err("ENOENT") } else { ok() }
            }
            k if k == StoreMessage::SetPerms as u32 => {
                self.permissions = parts
                    .take_while(|part| !part.is_empty())
                    .map(|part| String::from_utf8(part).unwrap())
                    .collect();
                ok()
            }
            k if k == StoreMessage::Watch as u32 => {
                let watch = (first, second().unwrap());
                if !self.watches.insert(watch.clone()) {
                    return Err("EEXIST");
                }
                events.extend(event(&watch.0, &watch.1));
                ok()
            }
            k if k == StoreMessage::Unwatch as u32 => {
                let watch = (first, second().unwrap());
                if self.watches.remove(&watch) { ok() } else { Err("ENOENT") }
            }
            k if k == StoreMessage::TransactionStart as u32 => {
                self.generation += 1;
                self.transactions.insert(self.generation, self.nodes.clone());
                Ok(format!("{}\0", self.generation).into_bytes())
            }
            k if k == StoreMessage::TransactionEnd as u32 => self.finish(within, payload),
            _ => Err("ENOSYS"),
        }
    }

    fn finish(&mut self, within: u32, verdict: &[u8]) -> Answer {
        let nodes = self.transactions.remove(&within).ok_or("ENOENT")?;
        match verdict {
            b"F\0" => {}
            b"T\0" if self.conflicts > 0 => {
                self.conflicts -= 1;
                return Err("EAGAIN");
            }
            b"T\0" => self.nodes = nodes,
            _ => return Err("EINVAL"),
        }
        Ok(b"OK\0".to_vec())
    }

    /// The names of children, each with its NUL.
    fn children(&self, path: &str) -> Result<Vec<Vec<u8>>, &'static str> {
        let below = format!("{path}/");
        let names: BTreeSet<_> = self
            .nodes
            .keys()
            .filter_map(|node| node.strip_prefix(&below)?.split('/').next())
            .collect();
        if names.is_empty() && !self.nodes.contains_key(path) {
            return Err("ENOENT");
        }
        Ok(names.iter().map(|name| [name.as_bytes(), b"\0"].concat()).collect())
    }

    fn part(&mut self, path: &str, offset: usize) -> Answer {
        if self.list_changes > 0 && offset > 0 {
            self.list_changes -= 1;
            self.generation += 1;
        }
        let names = self.children(path)?;
        let mut out = format!("{}\0", self.generation).into_bytes();
        let (mut at, mut whole) = (0, true);
        for name in names {
            if at >= offset {
                if out.len() + name.len() >= STORE_PAYLOAD_MAX {
                    whole = false;
                    break;
                }
                out.extend(&name);
            }
            at += name.len();
        }
        if whole {
            out.push(0);
        }
        Ok(out)
    }

    fn fire(&self, path: &str, events: &mut Vec<u8>) {
        for (watched, token) in &self.watches {
            if path == watched || path.starts_with(&format!("{watched}/")) {
                events.extend(event(path, token));
            }
        }
    }
}

/// A fired watch on the wire.
pub(crate) fn event(path: &str, token: &str) -> Vec<u8> {
    message(StoreMessage::WatchEvent as u32, 0, format!("{path}\0{token}\0").as_bytes())
}

/// Joins a client to a [`MemoryStore`], giving its bytes in pieces of at most `piece` bytes.
pub(crate) struct Pieces {
    pub(crate) store: RefCell<MemoryStore>,
    coming: RefCell<VecDeque<u8>>,
    piece: usize,
}

impl Pieces {
    pub(crate) fn new(piece: usize) -> Self {
        Self { store: RefCell::default(), coming: RefCell::default(), piece }
    }
}

impl Transport for Pieces {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        self.coming.borrow_mut().extend(self.store.borrow_mut().serve(bytes));
        Ok(())
    }

    fn receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        assert!(!self.coming.borrow().is_empty(), "waits for a reply that does not come");
        self.try_receive(out)
    }

    fn try_receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        let mut coming = self.coming.borrow_mut();
        let count = out.len().min(self.piece).min(coming.len());
        for byte in &mut out[..count] {
            *byte = coming.pop_front().unwrap();
        }
        Ok(count)
    }
}
