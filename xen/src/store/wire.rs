//! Messages as bytes: the header, the rules for what may stand behind it, and the names of errors.
//!
//! Nothing here knows which request a message belongs to.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::str;

use crate::abi::{
    STORE_PATH_ABSOLUTE_MAX, STORE_PATH_RELATIVE_MAX, STORE_PAYLOAD_MAX, StoreHeader, StoreMessage,
};
use crate::{StoreError, Transaction};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 16;
/// The most bytes of an error's name that are kept.
const ERROR_NAME_MAX: usize = 32;

/// Reads a header.
pub(super) fn header(bytes: [u8; HEADER_BYTES]) -> StoreHeader {
    let (words, _) = bytes.as_chunks::<4>();
    let word = |at: usize| words.get(at).copied().map_or(0, u32::from_le_bytes);
    StoreHeader { kind: word(0), req_id: word(1), tx_id: word(2), len: word(3) }
}

/// Writes a message whose payload is `parts`, one behind the other.
pub(super) fn message(
    kind: StoreMessage,
    request: u32,
    within: Transaction,
    parts: &[&[u8]],
) -> Result<Vec<u8>, StoreError> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    if length > STORE_PAYLOAD_MAX {
        return Err(StoreError::Invalid);
    }
    let length_word = u32::try_from(length).map_err(|_| StoreError::Invalid)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + length);
    for word in [kind as u32, request, within.0, length_word] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// Accepts a path that the protocol can carry. Whether its characters are right xenstore decides.
pub(super) fn check_path(path: &str) -> Result<(), StoreError> {
    let most =
        if path.starts_with('/') { STORE_PATH_ABSOLUTE_MAX } else { STORE_PATH_RELATIVE_MAX };
    if path.is_empty() || path.len() > most { Err(StoreError::Invalid) } else { check_text(path) }
}

/// Accepts text that can be ended by a NUL.
pub(super) fn check_text(text: &str) -> Result<(), StoreError> {
    if text.contains('\0') { Err(StoreError::Invalid) } else { Ok(()) }
}

/// What an error's name means.
pub(super) fn error(payload: &[u8]) -> StoreError {
    let name = payload.strip_suffix(b"\0").unwrap_or(payload);
    match name {
        b"ENOENT" => StoreError::NotFound,
        b"EACCES" | b"EPERM" => StoreError::Denied,
        b"EEXIST" => StoreError::Exists,
        b"EAGAIN" => StoreError::Conflict,
        b"ENOSPC" | b"EQUOTA" | b"E2BIG" | b"ENOMEM" => StoreError::Quota,
        b"EINVAL" => StoreError::Invalid,
        other => StoreError::Other(text(&other[..other.len().min(ERROR_NAME_MAX)])),
    }
}

/// Bytes as text, with replacement characters where they are none.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Splits off the part up to a NUL; `None` if there is no NUL.
pub(super) fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The names of a listing: each is ended by a NUL.
pub(super) fn names(payload: &[u8]) -> Option<Vec<String>> {
    if payload.is_empty() {
        return Some(Vec::new());
    }
    let names = payload.strip_suffix(b"\0")?;
    names
        .split(|&byte| byte == 0)
        .map(|name| str::from_utf8(name).ok().map(str::to_owned))
        .collect()
}

/// A decimal number, with or without a NUL behind it.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    let digits = payload.strip_suffix(b"\0").unwrap_or(payload);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}
