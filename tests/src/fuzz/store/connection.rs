//! A whole store over a peer that answers what it was asked, mostly.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use xen::abi::StoreMessage;
use xen::store::{Connection, Transport, TransportError};
use xen::{DomainId, Store, StoreError, Transaction};

use super::super::choices::{Choices, damage};
use super::{STEPS_MAX, error_name, message, payload, taken_apart, watch_event};

/// Messages that the other end answers for one call, at most.
const ANSWERS_MAX: usize = 300;
/// The verb that asks for an event, among those of a store.
const EVENT: usize = 7;

/// What the other end of a connection said to the last request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Payload(Vec<u8>),
    Error,
}

/// The other end: it answers what it was asked, mostly.
struct Peer<'a> {
    liar: bool,
    choices: RefCell<Choices<'a>>,
    replies: RefCell<VecDeque<u8>>,
    answers: RefCell<Vec<Answer>>,
    /// Nothing was said so far that xenstore may not say.
    sound: Cell<bool>,
}

impl Peer<'_> {
    fn answer(&self, kind: u32, request: u32) {
        let mut choices = self.choices.borrow_mut();
        let mut bytes = Vec::new();
        if choices.rarely(4) {
            let (_, event) = watch_event(&mut choices);
            bytes.extend(message(StoreMessage::WatchEvent as u32, 0, &event));
        }
        let answer = if self.liar && choices.rarely(4) {
            let mut wrong = message(choices.word() % 24, request, &payload(&mut choices));
            damage(&mut choices, &mut wrong);
            bytes.extend(wrong);
            self.sound.set(false);
            Answer::Error
        } else if choices.rarely(4) {
            let name = error_name(&mut choices);
            bytes.extend(message(StoreMessage::Error as u32, request, &name));
            Answer::Error
        } else {
            let lawful = lawful_payload(&mut choices, kind);
            bytes.extend(message(kind, request, &lawful));
            Answer::Payload(lawful)
        };
        self.replies.borrow_mut().extend(bytes);
        self.answers.borrow_mut().push(answer);
    }
}

/// What xenstore may answer to a request of this type.
fn lawful_payload(choices: &mut Choices<'_>, kind: u32) -> Vec<u8> {
    let names = |choices: &mut Choices<'_>| -> Vec<u8> {
        let names = (0..choices.below(6)).map(|_| format!("name{}\0", choices.byte()));
        names.collect::<String>().into_bytes()
    };
    if kind == StoreMessage::Read as u32 {
        choices.bytes(40).to_vec()
    } else if kind == StoreMessage::Directory as u32 {
        names(choices)
    } else if kind == StoreMessage::DirectoryPart as u32 {
        let end: &[u8] = if choices.valid() { b"\0" } else { b"" };
        let generation = if choices.rarely(8) { "2\0" } else { "1\0" };
        [generation.as_bytes(), &names(choices), end].concat()
    } else if kind == StoreMessage::TransactionStart as u32 {
        format!("{}\0", 1 + choices.word() / 2).into_bytes()
    } else {
        b"OK\0".to_vec()
    }
}

impl Transport for &Peer<'_> {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        let (kind, request, ..) = taken_apart(bytes);
        if self.answers.borrow().len() >= ANSWERS_MAX {
            return Err(TransportError("enough".into()));
        }
        self.answer(kind, request);
        Ok(())
    }

    fn receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        let count = {
            let mut choices = self.choices.borrow_mut();
            if choices.valid() { out.len() } else { 1 + choices.below(out.len()) }
        };
        let mut replies = self.replies.borrow_mut();
        let count = count.min(replies.len());
        for (byte, reply) in out.iter_mut().zip(replies.drain(..count)) {
            *byte = reply;
        }
        Ok(count)
    }

    fn try_receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        self.receive(out)
    }
}

/// Tells whether every message was one that may be.
pub(super) fn check(choices: Choices<'_>, liar: bool) -> bool {
    let peer = Peer {
        liar,
        choices: RefCell::new(choices),
        replies: RefCell::default(),
        answers: RefCell::default(),
        sound: Cell::new(true),
    };
    let connection = Connection::new(&peer);
    let mut ended: Option<StoreError> = None;
    for _ in 0..STEPS_MAX {
        if peer.choices.borrow().is_empty() {
            break;
        }
        peer.answers.borrow_mut().clear();
        let verb = peer.choices.borrow_mut().below(10);
        let error = call(&connection, &peer, verb);
        if let Some(before) = ended.as_ref().filter(|_| verb != EVENT) {
            // What cannot be sent at all may be said first.
            let known = [Some(before), Some(&StoreError::Invalid)].contains(&error.as_ref());
            assert!(known, "after {before}: {error:?}");
        }
        if let Some(StoreError::Connection(_)) = &error {
            ended = error;
        }
    }
    peer.sound.get()
}

/// One call of a store, held against what the other end said.
fn call(store: &Connection<&Peer<'_>>, peer: &Peer<'_>, verb: usize) -> Option<StoreError> {
    let (path, within) = {
        let mut choices = peer.choices.borrow_mut();
        let paths = ["/local/domain/5/state", "device/vbd", "", "a\0b", "/"];
        let long = "/x".repeat(2000);
        let path = if choices.rarely(16) { long } else { choices.of(&paths).to_owned() };
        (path, Transaction(choices.below(3).try_into().unwrap_or(0)))
    };
    let told = match verb {
        0 => return read(store, peer, within, &path),
        1 => return list(store, peer, within, &path),
        2 => store.write(within, &path, "value"),
        3 => store.remove(within, &path),
        4 => store.permit(within, &path, DomainId(0), DomainId(5)),
        5 => store.watch(&path, "token"),
        6 => store.unwatch(&path, "to\0ken"),
        EVENT => store.event().map(drop),
        _ => store.transact(|within| store.write(within, &path, "value")),
    };
    if let ([Answer::Payload(_)], true) = (&peer.answers.borrow()[..], peer.sound.get()) {
        assert_eq!(told, Ok(()), "an OK that was not heard");
    }
    told.err()
}

fn read(
    store: &Connection<&Peer<'_>>,
    peer: &Peer<'_>,
    within: Transaction,
    path: &str,
) -> Option<StoreError> {
    let value = store.read(within, path);
    if let ([Answer::Payload(expected)], true) = (&peer.answers.borrow()[..], peer.sound.get()) {
        let expected = String::from_utf8_lossy(expected).into_owned();
        assert_eq!(value, Ok(Some(expected)));
    }
    value.err()
}

fn list(
    store: &Connection<&Peer<'_>>,
    peer: &Peer<'_>,
    within: Transaction,
    path: &str,
) -> Option<StoreError> {
    let names = store.list(within, path);
    if let ([Answer::Payload(expected)], true) = (&peer.answers.borrow()[..], peer.sound.get()) {
        let expected: Vec<String> =
            String::from_utf8_lossy(expected).split_terminator('\0').map(str::to_owned).collect();
        assert_eq!(names.as_ref(), Ok(&expected));
    }
    if let Ok(names) = &names {
        assert!(names.iter().all(|name| !name.contains('\0')));
    }
    names.err()
}
