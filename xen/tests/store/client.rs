//! The protocol alone: bytes cut anywhere, replies in any order, and bytes that make no sense.

use xen::abi::{STORE_ERRORS, STORE_PAYLOAD_MAX, StoreMessage};
use xen::store::{Client, EVENTS_MAX, REQUESTS_MAX, RequestId};
use xen::{StoreError, Transaction, WatchEvent};

use crate::memory::{event, message, parse};

const READ: u32 = StoreMessage::Read as u32;
const ERROR: u32 = StoreMessage::Error as u32;
const EVENT: u32 = StoreMessage::WatchEvent as u32;

fn ask(client: &mut Client) -> (RequestId, u32) {
    let parts: [&[u8]; 2] = [b"name", b"\0"];
    let (id, bytes) = client.request(StoreMessage::Read, Transaction::NONE, &parts).unwrap();
    (id, parse(&bytes).1)
}

fn ends(client: &mut Client, bytes: &[u8]) {
    let error = client.feed(bytes).expect_err("bytes that make no sense");
    assert!(matches!(error, StoreError::Connection(_)), "{error:?}");
    assert_eq!(client.feed(&[]), Err(error.clone()), "it stays ended");
    assert_eq!(client.check(), Err(error.clone()));
    let again = client.request(StoreMessage::Read, Transaction::NONE, &[b"name\0"]);
    assert_eq!(again.expect_err("no more requests"), error);
}

#[test]
fn a_message_may_be_cut_anywhere() {
    for cut in 0..=16 + 5 {
        let mut client = Client::new();
        let (id, number) = ask(&mut client);
        let bytes = message(READ, number, b"value");
        client.feed(&bytes[..cut]).unwrap();
        if cut < bytes.len() {
            assert_eq!(client.reply(id), Ok(None), "cut at {cut}");
        }
        client.feed(&bytes[cut..]).unwrap();
        assert_eq!(client.reply(id), Ok(Some(Ok(b"value".to_vec()))), "cut at {cut}");
        assert_eq!(client.reply(id), Ok(None), "a reply is fetched once");
    }
}

#[test]
fn replies_may_come_in_any_order_and_between_events() {
    let mut client = Client::new();
    let (first, first_number) = ask(&mut client);
    let (second, second_number) = ask(&mut client);
    let mut bytes = event("a", "t");
    bytes.extend(message(READ, second_number, b"2"));
    bytes.extend(event("b", "t"));
    bytes.extend(message(ERROR, first_number, b"ENOENT\0"));
    client.feed(&bytes).unwrap();
    assert_eq!(client.reply(first), Ok(Some(Err(StoreError::NotFound))));
    assert_eq!(client.reply(second), Ok(Some(Ok(b"2".to_vec()))));
    assert_eq!(client.event().unwrap().path, "a");
    assert_eq!(client.event().unwrap().path, "b");
    assert_eq!(client.event(), None);
}

#[test]
fn a_reply_to_nothing_ends_the_connection() {
    let mut client = Client::new();
    let (_, number) = ask(&mut client);
    ends(&mut client, &message(READ, number.wrapping_add(1), b""));
}

#[test]
fn a_second_reply_ends_the_connection_and_the_first_stands() {
    let mut client = Client::new();
    let (id, number) = ask(&mut client);
    client.feed(&message(READ, number, b"value")).unwrap();
    ends(&mut client, &message(READ, number, b"other"));
    assert_eq!(client.reply(id), Ok(Some(Ok(b"value".to_vec()))));
}

#[test]
fn a_reply_of_another_type_ends_the_connection() {
    for kind in [0, StoreMessage::Write as u32, 23, 0xffff, u32::MAX] {
        let mut client = Client::new();
        let (id, number) = ask(&mut client);
        ends(&mut client, &message(kind, number, b"value"));
        assert!(client.reply(id).is_err());
    }
}

#[test]
fn a_payload_at_the_limit_is_accepted_and_one_past_it_ends_the_connection() {
    let mut client = Client::new();
    let (id, number) = ask(&mut client);
    client.feed(&message(READ, number, &[b'x'; STORE_PAYLOAD_MAX])).unwrap();
    assert_eq!(client.reply(id), Ok(Some(Ok(vec![b'x'; STORE_PAYLOAD_MAX]))));
    for length in [4097_u32, u32::MAX] {
        let mut client = Client::new();
        let (_, number) = ask(&mut client);
        let mut bytes = message(READ, number, b"");
        bytes[12..].copy_from_slice(&length.to_le_bytes());
        // The header is enough to tell; the byte behind it is never looked for.
        bytes.push(0);
        ends(&mut client, &bytes);
    }
}

#[test]
fn a_watch_event_without_path_and_token_ends_the_connection() {
    for payload in [&b""[..], b"path", b"path\0", b"path\0token"] {
        ends(&mut Client::new(), &message(EVENT, 0, payload));
    }
    let mut client = Client::new();
    client.feed(&message(EVENT, 7, b"\0\0")).unwrap();
    assert_eq!(client.event(), Some(WatchEvent { path: String::new(), token: String::new() }));
}

#[test]
fn every_error_has_its_meaning() {
    for name in STORE_ERRORS {
        let expected = match name {
            "ENOENT" => StoreError::NotFound,
            "EACCES" | "EPERM" => StoreError::Denied,
            "EEXIST" => StoreError::Exists,
            "EAGAIN" => StoreError::Conflict,
            "ENOSPC" | "E2BIG" | "ENOMEM" => StoreError::Quota,
            "EINVAL" => StoreError::Invalid,
            other => StoreError::Other(other.to_string()),
        };
        assert_eq!(error_named(format!("{name}\0").as_bytes()), expected);
        assert_eq!(error_named(name.as_bytes()), expected, "without its NUL");
    }
    assert_eq!(error_named(b"EQUOTA\0"), StoreError::Quota);
    assert_eq!(error_named(b"\0"), StoreError::Other(String::new()));
    assert_eq!(error_named(&[b'E'; 4096]), StoreError::Other("E".repeat(32)));
}

fn error_named(payload: &[u8]) -> StoreError {
    let mut client = Client::new();
    let (id, number) = ask(&mut client);
    client.feed(&message(ERROR, number, payload)).unwrap();
    client.reply(id).unwrap().unwrap().expect_err("an error")
}

#[test]
fn so_many_requests_may_wait_and_no_more() {
    let mut client = Client::new();
    let ids: Vec<_> = (0..REQUESTS_MAX).map(|_| ask(&mut client)).collect();
    let more = client.request(StoreMessage::Read, Transaction::NONE, &[b"name\0"]);
    assert_eq!(more.expect_err("one too many"), StoreError::Quota);
    client.feed(&message(READ, ids[5].1, b"")).unwrap();
    assert!(client.reply(ids[5].0).unwrap().is_some());
    ask(&mut client);
}

#[test]
fn a_request_longer_than_a_payload_is_not_made() {
    let mut client = Client::new();
    let at_limit = [0; STORE_PAYLOAD_MAX];
    assert!(client.request(StoreMessage::Write, Transaction::NONE, &[&at_limit]).is_ok());
    let beyond = client.request(StoreMessage::Write, Transaction::NONE, &[&at_limit, b"x"]);
    assert_eq!(beyond.expect_err("too long"), StoreError::Invalid);
}

#[test]
fn equal_events_become_one() {
    let mut client = Client::new();
    for _ in 0..10 * EVENTS_MAX {
        client.feed(&event("/a/b", "t")).unwrap();
        client.feed(&event("/a/b", "u")).unwrap();
    }
    assert_eq!(client.event(), Some(WatchEvent { path: "/a/b".into(), token: "t".into() }));
    assert_eq!(client.event(), Some(WatchEvent { path: "/a/b".into(), token: "u".into() }));
    assert_eq!(client.event(), None);
}

#[test]
fn a_flood_of_one_watch_becomes_one_event_above_them_all() {
    let mut client = Client::new();
    client.feed(&event("/other", "calm")).unwrap();
    for at in 0..=EVENTS_MAX {
        client.feed(&event(&format!("/a/b/c{at}/d"), "flood")).unwrap();
    }
    assert_eq!(client.event(), Some(WatchEvent { path: "/other".into(), token: "calm".into() }));
    let mut rest: Vec<_> = std::iter::from_fn(|| client.event()).collect();
    assert!(rest.len() <= EVENTS_MAX);
    assert_eq!(rest.remove(0), WatchEvent { path: "/a/b".into(), token: "flood".into() });
}

#[test]
fn a_flood_of_one_watch_leaves_room_for_the_first_event_of_another() {
    let mut client = Client::new();
    for at in 0..EVENTS_MAX {
        client.feed(&event(&format!("/a/{at}"), "flood")).unwrap();
    }
    client.feed(&event("/b", "calm")).unwrap();
    let waiting: Vec<_> = std::iter::from_fn(|| client.event()).collect();
    let [calm, flood] = [("/b", "calm"), ("/a", "flood")]
        .map(|(path, token)| WatchEvent { path: path.into(), token: token.into() });
    assert_eq!(waiting, [calm, flood]);
}

#[test]
fn xsa_349_events_that_a_guest_makes_without_end_wait_in_bounded_memory() {
    let mut client = Client::new();
    for at in 0..100 * EVENTS_MAX {
        client.feed(&event(&format!("/local/domain/5/device/vbd/{at}/state"), "5/51712")).unwrap();
        client.feed(&event("/local/domain/6/device/vbd/51712/state", "6/51712")).unwrap();
    }
    let waiting: Vec<_> = std::iter::from_fn(|| client.event()).collect();
    assert!(waiting.len() <= EVENTS_MAX, "{} events", waiting.len());
    // And nobody's was lost: each device that something happened to is still named.
    for token in ["5/51712", "6/51712"] {
        assert!(waiting.iter().any(|event| event.token == token), "{token}");
    }
}

#[test]
fn folded_events_name_a_path_above_both() {
    for (one, other, above) in [
        ("/a", "/b", "/"),
        ("/a/b", "/a/bc", "/a"),
        ("/a/b", "/a/b/c", "/a/b"),
        ("a/b", "a/c", "a"),
        ("@introduceDomain", "@releaseDomain", ""),
    ] {
        let mut client = Client::new();
        client.feed(&event(one, "t")).unwrap();
        for at in 1..EVENTS_MAX {
            client.feed(&event("x", &at.to_string())).unwrap();
        }
        client.feed(&event(other, "t")).unwrap();
        let last = std::iter::from_fn(|| client.event()).last();
        assert_eq!(last, Some(WatchEvent { path: above.into(), token: "t".into() }));
    }
}

#[test]
fn events_of_more_watches_than_the_limit_end_the_connection() {
    let mut client = Client::new();
    for at in 0..EVENTS_MAX {
        client.feed(&event("x", &at.to_string())).unwrap();
    }
    ends(&mut client, &event("x", "one more"));
    let kept = std::iter::from_fn(|| client.event()).count();
    assert_eq!(kept, EVENTS_MAX, "what came before is still there");
}

/// Sets or ends a watch and has that answered.
fn tell_watch(client: &mut Client, kind: StoreMessage, token: &str) {
    let parts: [&[u8]; 4] = [b"/a", b"\0", token.as_bytes(), b"\0"];
    let (id, bytes) = client.request(kind, Transaction::NONE, &parts).unwrap();
    client.feed(&message(kind as u32, parse(&bytes).1, b"OK\0")).unwrap();
    assert_eq!(client.reply(id), Ok(Some(Ok(b"OK\0".to_vec()))));
}

/// So many watches, each of which has fired once.
fn fired(watches: usize) -> Client {
    let mut client = Client::new();
    for at in 0..watches {
        tell_watch(&mut client, StoreMessage::Watch, &at.to_string());
        client.feed(&event("/a", &at.to_string())).unwrap();
    }
    client
}

#[test]
fn each_of_more_watches_than_the_limit_may_have_fired_before_anybody_asks() {
    let watches = 3 * EVENTS_MAX;
    let mut client = fired(watches);
    assert_eq!(std::iter::from_fn(|| client.event()).count(), watches);
    (0..watches).for_each(|at| tell_watch(&mut client, StoreMessage::Unwatch, &at.to_string()));
    (0..watches + EVENTS_MAX).for_each(|at| client.feed(&event("x", &at.to_string())).unwrap());
    ends(&mut client, &event("x", "one more"));
}

#[test]
fn watches_that_end_while_their_events_wait_leave_room_for_the_others() {
    let watches = 3 * EVENTS_MAX;
    let mut client = fired(watches);
    (0..watches).for_each(|at| tell_watch(&mut client, StoreMessage::Unwatch, &at.to_string()));
    tell_watch(&mut client, StoreMessage::Watch, "new");
    client.feed(&event("/a", "new")).unwrap();
    assert_eq!(std::iter::from_fn(|| client.event()).count(), watches + 1);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

#[test]
fn changed_bytes_give_a_reply_or_an_end_and_never_a_panic() {
    let mut random = Random(2);
    for _ in 0..20_000 {
        let mut client = Client::new();
        let (id, number) = ask(&mut client);
        let mut bytes = event("/a/b", "token");
        bytes.extend(message(READ, number, b"value"));
        bytes.extend(event("/c", "token"));
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(1 + random.below(rest.len()));
            rest = later;
            if client.feed(now).is_err() {
                assert!(matches!(client.check(), Err(StoreError::Connection(_))));
            }
        }
        let replied = matches!(client.reply(id), Ok(Some(_)));
        let whole = std::iter::from_fn(|| client.event()).count() == 2;
        // A changed length makes the client wait for more; anything else is told apart.
        assert!(replied || !whole || client.check().is_err(), "{bytes:?}");
    }
}
