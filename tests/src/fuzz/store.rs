//! Target `store`: the xenstore client on replies and events of any shape, cut anywhere.
//!
//! As long as every message is one that the protocol allows, each reply is what was sent to its
//! request, and each event arrives; whatever comes after the first that is not, the connection ends
//! once and stays ended, and nothing piles up.

mod client;
mod connection;

use xen::WatchEvent;
use xen::abi::{STORE_ERRORS, STORE_PAYLOAD_MAX};

use super::Share;
use super::choices::Choices;

/// Steps of an input, at most.
const STEPS_MAX: usize = 512;
const HEADER_BYTES: usize = 16;

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let liar = !choices.valid();
    let sound = match choices.below(2) {
        0 => client::check(&mut choices, liar),
        _ => connection::check(choices, liar),
    };
    Share::one(sound)
}

/// A message as it comes from xenstore.
fn message(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    let header = [kind, request, 0, length].map(u32::to_le_bytes).concat();
    [&header, payload].concat()
}

/// Type, request, transaction and payload of a message of ours.
fn taken_apart(bytes: &[u8]) -> (u32, u32, u32, &[u8]) {
    let (header, payload) = bytes.split_at(HEADER_BYTES);
    let word = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("a header"));
    assert_eq!(word(12) as usize, payload.len(), "a wrong length");
    assert!(payload.len() <= STORE_PAYLOAD_MAX, "a message that xenstore would not take");
    (word(0), word(4), word(8), payload)
}

/// A payload: text with zeros, or anything.
fn payload(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = choices.bytes(40).to_vec();
    if choices.rarely(16) {
        bytes.resize(choices.of(&[STORE_PAYLOAD_MAX, STORE_PAYLOAD_MAX - 1, 1000]), b'x');
    }
    if choices.valid() {
        bytes.truncate(STORE_PAYLOAD_MAX - 1);
        bytes.push(0);
    }
    bytes
}

fn error_name(choices: &mut Choices<'_>) -> Vec<u8> {
    if choices.valid() {
        [choices.of(&STORE_ERRORS).as_bytes(), b"\0"].concat()
    } else {
        choices.bytes(60).to_vec()
    }
}

/// Path and token of a fired watch, as they are on the wire.
fn watch_event(choices: &mut Choices<'_>) -> (WatchEvent, Vec<u8>) {
    let path = choices.of(&[
        "/local/domain/5",
        "/local/domain/5/device",
        "/local",
        "/",
        "device/x",
        "@releaseDomain",
    ]);
    let (path, token) = (format!("{path}/{}", choices.byte()), choices.byte().to_string());
    let bytes = format!("{path}\0{token}\0").into_bytes();
    (WatchEvent { path, token }, bytes)
}
