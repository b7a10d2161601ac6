//! The `Store` verbs over a transport, whatever the pieces that bytes come in.

use std::cell::RefCell;

use xen::abi::{STORE_PATH_ABSOLUTE_MAX, STORE_PATH_RELATIVE_MAX, StoreMessage};
use xen::store::{Connection, LIST_BYTES_MAX, LIST_TRIES_MAX, Transport, TransportError};
use xen::{DomainId, Store, StoreError, TRANSACTION_TRIES_MAX, Transaction, WatchEvent};

use crate::memory::{Pieces, message, parse};

const NONE: Transaction = Transaction::NONE;

fn event(path: &str, token: &str) -> WatchEvent {
    WatchEvent { path: path.into(), token: token.into() }
}

#[test]
fn every_verb_works_in_pieces_of_every_size() {
    for piece in 1..=64 {
        let store = Connection::new(Pieces::new(piece));
        assert_eq!(store.read(NONE, "/a"), Ok(None));
        assert_eq!(store.list(NONE, "/a"), Ok(vec![]));
        assert_eq!(store.remove(NONE, "/a"), Ok(()));
        store.watch("/a", "token").unwrap();
        assert_eq!(store.watch("/a", "token"), Err(StoreError::Exists));
        store.write(NONE, "/a/b", "1").unwrap();
        store.write(NONE, "/a/c", "").unwrap();
        store.write(NONE, "/z", "2").unwrap();
        assert_eq!(store.read(NONE, "/a/b"), Ok(Some("1".into())));
        assert_eq!(store.read(NONE, "/a/c"), Ok(Some(String::new())));
        assert_eq!(store.list(NONE, "/a"), Ok(vec!["b".into(), "c".into()]));
        store.permit(NONE, "/a/b", DomainId(3), DomainId(0)).unwrap();
        assert_eq!(store.transport().store.borrow().permissions, ["n3", "r0"]);
        assert_eq!(store.event(), Ok(Some(event("/a", "token"))));
        assert_eq!(store.event(), Ok(Some(event("/a/b", "token"))));
        assert_eq!(store.event(), Ok(Some(event("/a/c", "token"))));
        assert_eq!(store.event(), Ok(None));
        store.unwatch("/a", "token").unwrap();
        store.write(NONE, "/a/b", "3").unwrap();
        assert_eq!(store.event(), Ok(None));
        store.remove(NONE, "/a").unwrap();
        assert_eq!(store.read(NONE, "/a/b"), Ok(None));
    }
}

#[test]
fn a_value_that_is_not_text_is_read_with_replacement_characters() {
    let store = Connection::new(Pieces::new(7));
    let bytes = b"4\xff".to_vec();
    store.transport().store.borrow_mut().nodes.insert("/a".into(), bytes);
    assert_eq!(store.read(NONE, "/a"), Ok(Some("4\u{fffd}".into())));
}

#[test]
fn paths_and_tokens_that_cannot_be_carried_are_refused_before_sending() {
    let store = Connection::new(Quiet);
    let absolute = format!("/{}", "a".repeat(STORE_PATH_ABSOLUTE_MAX));
    let relative = "a".repeat(STORE_PATH_RELATIVE_MAX + 1);
    for path in ["", "a\0b", &absolute, &relative] {
        assert_eq!(store.read(NONE, path), Err(StoreError::Invalid));
        assert_eq!(store.list(NONE, path), Err(StoreError::Invalid));
        assert_eq!(store.write(NONE, path, ""), Err(StoreError::Invalid));
        assert_eq!(store.remove(NONE, path), Err(StoreError::Invalid));
        assert_eq!(store.watch(path, ""), Err(StoreError::Invalid));
        assert_eq!(store.unwatch(path, ""), Err(StoreError::Invalid));
        let permitted = store.permit(NONE, path, DomainId(1), DomainId(0));
        assert_eq!(permitted, Err(StoreError::Invalid));
    }
    assert_eq!(store.watch("a", "t\0"), Err(StoreError::Invalid));
    assert_eq!(store.write(NONE, "a", &"x".repeat(4095)), Err(StoreError::Invalid));
}

#[test]
fn paths_and_values_at_the_limit_are_carried() {
    let store = Connection::new(Pieces::new(1000));
    let absolute = format!("/{}", "a".repeat(STORE_PATH_ABSOLUTE_MAX - 1));
    let relative = "a".repeat(STORE_PATH_RELATIVE_MAX);
    store.write(NONE, &absolute, "1").unwrap();
    store.write(NONE, &relative, "2").unwrap();
    store.write(NONE, "a", &"x".repeat(4094)).unwrap();
    assert_eq!(store.read(NONE, &relative), Ok(Some("2".into())));
    assert_eq!(store.read(NONE, "a"), Ok(Some("x".repeat(4094))));
}

/// A transport over which nothing may be sent.
struct Quiet;

impl Transport for Quiet {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        panic!("{bytes:?} was sent");
    }

    fn receive(&self, _: &mut [u8]) -> Result<usize, TransportError> {
        panic!("somebody waits");
    }

    fn try_receive(&self, _: &mut [u8]) -> Result<usize, TransportError> {
        Ok(0)
    }
}

fn with_children(count: usize) -> (Connection<Pieces>, Vec<String>) {
    let store = Connection::new(Pieces::new(500));
    let names: Vec<_> = (0..count).map(|at| format!("child-{at:06}")).collect();
    for name in &names {
        store.transport().store.borrow_mut().nodes.insert(format!("/a/{name}"), vec![]);
    }
    (store, names)
}

#[test]
fn a_listing_longer_than_a_message_is_read_in_parts() {
    // 13 bytes each: 315 names fit into one message, 316 do not.
    for count in [315, 316, 1000] {
        let (store, names) = with_children(count);
        assert_eq!(store.list(NONE, "/a"), Ok(names));
    }
}

#[test]
fn a_long_listing_that_changes_is_read_again_and_at_last_given_up() {
    let (store, names) = with_children(1000);
    store.transport().store.borrow_mut().list_changes = LIST_TRIES_MAX - 1;
    assert_eq!(store.list(NONE, "/a"), Ok(names));
    store.transport().store.borrow_mut().list_changes = LIST_TRIES_MAX;
    assert_eq!(store.list(NONE, "/a"), Err(StoreError::Conflict));
    assert_eq!(store.transport().store.borrow().list_changes, 0);
}

#[test]
fn a_listing_without_an_end_is_given_up() {
    let (store, names) = with_children(LIST_BYTES_MAX / 13 - 1);
    assert_eq!(store.list(NONE, "/a"), Ok(names));
    let (store, _) = with_children(LIST_BYTES_MAX / 13 + 400);
    assert_eq!(store.list(NONE, "/a"), Err(StoreError::Quota));
}

#[test]
fn a_transaction_is_done_again_after_each_conflict() {
    let store = Connection::new(Pieces::new(9));
    store.transport().store.borrow_mut().conflicts = 3;
    let mut tries = 0;
    let result = store.transact(|within| {
        tries += 1;
        store.write(within, "/a", &tries.to_string())?;
        assert_eq!(store.read(NONE, "/a"), Ok(None), "not visible before the end");
        store.read(within, "/a")
    });
    assert_eq!(result, Ok(Some("4".into())));
    assert_eq!(store.read(NONE, "/a"), Ok(Some("4".into())));
}

#[test]
fn a_transaction_in_which_nodes_contradict_each_other_is_done_again_and_given_up_in_the_end() {
    let store = Connection::new(Pieces::new(9));
    let contradiction = || StoreError::Other("EIO".into());
    let mut tries = 0;
    let result = store.transact(|within| {
        tries += 1;
        store.write(within, "/a", "1")?;
        if tries < 3 { Err(contradiction()) } else { Ok(()) }
    });
    assert_eq!((result, tries), (Ok(()), 3));
    assert_eq!(store.read(NONE, "/a"), Ok(Some("1".into())));
    let given_up: Result<(), _> = store.transact(|_| {
        tries += 1;
        Err(contradiction())
    });
    assert_eq!((given_up, tries), (Err(contradiction()), 3 + TRANSACTION_TRIES_MAX));
}

#[test]
fn a_transaction_is_given_up_after_its_tries_and_dropped_on_an_error() {
    let store = Connection::new(Pieces::new(9));
    store.transport().store.borrow_mut().conflicts = TRANSACTION_TRIES_MAX;
    let given_up = store.transact(|within| store.write(within, "/a", "1"));
    assert_eq!(given_up, Err(StoreError::Conflict));
    assert_eq!(store.transport().store.borrow().conflicts, 0);
    let dropped: Result<(), _> = store.transact(|within| {
        store.write(within, "/a", "1")?;
        Err(StoreError::Invalid)
    });
    assert_eq!(dropped, Err(StoreError::Invalid));
    assert_eq!(store.read(NONE, "/a"), Ok(None));
}

/// Answers every request with one payload of its own type.
struct Parrot(&'static [u8], RefCell<Vec<u8>>);

impl Transport for Parrot {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        let (kind, request, ..) = parse(bytes);
        let kind = if self.0 == b"E2BIG" && kind == StoreMessage::Directory as u32 {
            StoreMessage::Error as u32
        } else {
            kind
        };
        *self.1.borrow_mut() = message(kind, request, self.0);
        Ok(())
    }

    fn receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        self.try_receive(out)
    }

    fn try_receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        let bytes = self.1.take();
        out[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

fn parrot(payload: &'static [u8]) -> Connection<Parrot> {
    Connection::new(Parrot(payload, RefCell::default()))
}

#[test]
fn replies_that_make_no_sense_end_the_connection() {
    let ended = |result: Result<(), StoreError>, store: &Connection<Parrot>| {
        assert!(matches!(result, Err(StoreError::Connection(_))), "{result:?}");
        assert_eq!(store.read(NONE, "a").map(|_| ()), result, "it stays ended");
        assert_eq!(store.event().map(|_| ()), result);
    };
    for payload in [&b"no"[..], b"", b"OK\0\0", b"ok\0"] {
        let store = parrot(payload);
        ended(store.write(NONE, "a", "b"), &store);
    }
    for payload in [&b""[..], b"0\0", b"\0", b"x\0", b"-1\0", b"+1\0", b"4294967296\0", b"1\0\0"] {
        let store = parrot(payload);
        ended(store.begin().map(|_| ()), &store);
    }
    for payload in [&b"a"[..], b"a\0b", b"\xff\0"] {
        let store = parrot(payload);
        ended(store.list(NONE, "a").map(|_| ()), &store);
    }
    // A directory that is too long, and parts without a generation.
    let store = parrot(b"E2BIG");
    ended(store.list(NONE, "a").map(|_| ()), &store);
}

#[test]
fn a_transport_that_closes_ends_the_connection() {
    let store = parrot(b"value");
    assert_eq!(store.read(NONE, "a"), Ok(Some("value".into())));
    let (id_lost, reason) = (Connection::new(Deaf), "closed by xenstore");
    assert_eq!(id_lost.read(NONE, "a"), Err(StoreError::Connection(reason.into())));
    assert_eq!(id_lost.event(), Err(StoreError::Connection(reason.into())));
}

/// A transport whose other end is gone.
struct Deaf;

impl Transport for Deaf {
    fn send(&self, _: &[u8]) -> Result<(), TransportError> {
        Ok(())
    }

    fn receive(&self, _: &mut [u8]) -> Result<usize, TransportError> {
        Ok(0)
    }

    fn try_receive(&self, _: &mut [u8]) -> Result<usize, TransportError> {
        Ok(0)
    }
}
