//! The protocol alone: requests become bytes, and bytes replies and events, against a model.

use std::collections::VecDeque;

use xen::abi::{STORE_PAYLOAD_MAX, StoreMessage};
use xen::store::{Client, EVENTS_MAX, REQUESTS_MAX, RequestId};
use xen::{StoreError, Transaction, WatchEvent};

use super::super::choices::{Choices, damage};
use super::{HEADER_BYTES, STEPS_MAX, error_name, message, payload, taken_apart, watch_event};

const KINDS: [StoreMessage; 10] = [
    StoreMessage::Read,
    StoreMessage::Write,
    StoreMessage::Directory,
    StoreMessage::DirectoryPart,
    StoreMessage::Rm,
    StoreMessage::SetPerms,
    StoreMessage::Watch,
    StoreMessage::Unwatch,
    StoreMessage::TransactionStart,
    StoreMessage::TransactionEnd,
];

/// What was answered: a payload, or any error.
type Reply = Result<Vec<u8>, ()>;

/// A request whose reply was not fetched: its number on the wire, its type, ours for it, and the
/// reply that it has by now.
type Open = (u32, StoreMessage, RequestId, Option<Reply>);

/// What one message does, if all that came before were lawful.
enum Effect {
    Reply(u32, Reply),
    Event(WatchEvent),
}

/// A client, and what it must have heard.
struct Talk {
    client: Client,
    /// Requests whose reply was not fetched.
    open: Vec<Open>,
    /// What was sent and not fed, and the effects by the place in the stream at which they come.
    wire: VecDeque<u8>,
    effects: VecDeque<(usize, Effect)>,
    sent: usize,
    fed: usize,
    /// Where in the stream the first message begins that may not be.
    senseless: Option<usize>,
    /// Where the client knows that a message is too long, if that is what is wrong with it.
    too_long: Option<usize>,
    events: VecDeque<WatchEvent>,
    /// Too many events waited for the model to tell what was made of them.
    folded: bool,
    ended: bool,
}

/// Tells whether every message was one that may be.
pub(super) fn check(choices: &mut Choices<'_>, liar: bool) -> bool {
    let mut talk = Talk {
        client: Client::new(),
        open: Vec::new(),
        wire: VecDeque::new(),
        effects: VecDeque::new(),
        sent: 0,
        fed: 0,
        senseless: None,
        too_long: None,
        events: VecDeque::new(),
        folded: false,
        ended: false,
    };
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        match choices.below(16) {
            0..4 => talk.ask(choices),
            4..9 => talk.say(choices, liar),
            9..13 => talk.feed(choices),
            13 | 14 => talk.fetch(choices),
            _ => talk.event(),
        }
    }
    talk.senseless.is_none()
}

impl Talk {
    fn ask(&mut self, choices: &mut Choices<'_>) {
        let kind = choices.of(&KINDS);
        let parts = [payload(choices), payload(choices)];
        let total = parts[0].len() + parts[1].len();
        let within = Transaction(choices.byte().into());
        match self.client.request(kind, within, &[&parts[0], &parts[1]]) {
            Ok((id, bytes)) => {
                let (found, number, transaction, payload) = taken_apart(&bytes);
                assert_eq!((found, transaction), (kind as u32, within.0));
                assert_eq!(payload, parts.concat());
                assert!(self.open.iter().all(|open| open.0 != number), "a number used twice");
                self.open.push((number, kind, id, None));
            }
            Err(StoreError::Invalid) => assert!(total > STORE_PAYLOAD_MAX),
            Err(StoreError::Quota) => assert_eq!(self.open.len(), REQUESTS_MAX),
            Err(error) => assert!(self.ended, "{error}"),
        }
    }

    /// The other end says something, what it may unless it lies.
    fn say(&mut self, choices: &mut Choices<'_>, liar: bool) {
        let promised = |number: u32| {
            self.effects.iter().any(|it| matches!(it.1, Effect::Reply(to, _) if to == number))
        };
        let free = |open: &&Open| open.3.is_none() && !promised(open.0);
        let free: Vec<Open> = self.open.iter().filter(free).cloned().collect();
        let (bytes, effect) = if liar && choices.rarely(4) {
            (senseless(choices), None)
        } else if free.is_empty() || choices.rarely(3) {
            let (event, bytes) = watch_event(choices);
            let bytes = message(StoreMessage::WatchEvent as u32, choices.word(), &bytes);
            (bytes, Some(Effect::Event(event)))
        } else {
            let at = choices.below(free.len());
            let (bytes, reply) = reply(choices, free[at].1 as u32, free[at].0);
            (bytes, Some(Effect::Reply(free[at].0, reply)))
        };
        if effect.is_none() && self.senseless.is_none() {
            self.senseless = Some(self.sent);
            let length = u32::from_le_bytes(*bytes[12..].first_chunk().expect("a header"));
            let too_long = length as usize > STORE_PAYLOAD_MAX;
            self.too_long = too_long.then_some(self.sent + HEADER_BYTES);
        }
        self.sent += bytes.len();
        self.wire.extend(bytes);
        self.effects.extend(effect.map(|effect| (self.sent, effect)));
    }

    fn feed(&mut self, choices: &mut Choices<'_>) {
        let count = if choices.valid() { choices.below(64) } else { self.wire.len() };
        let bytes: Vec<u8> = self.wire.drain(..count.min(self.wire.len())).collect();
        let fed = self.client.feed(&bytes);
        self.fed += bytes.len();
        // From there on anything may happen, and most of all an end.
        self.ended |= self.senseless.is_some_and(|begin| self.fed > begin);
        while !self.ended
            && self.effects.front().is_some_and(|effect| effect.0 <= self.fed)
            && let Some((_, effect)) = self.effects.pop_front()
        {
            self.take_effect(effect);
        }
        assert!(self.ended || fed.is_ok(), "{fed:?}");
        let must_end = self.too_long.is_some_and(|end| self.fed >= end);
        assert!(fed.is_err() || !must_end, "a message that is too long is waited for");
        assert!(fed.is_ok() || self.client.feed(b"x") == fed, "an end that is none");
    }

    fn take_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(number, reply) => {
                let open = self.open.iter_mut().find(|open| open.0 == number);
                open.expect("a request that waits").3 = Some(reply);
            }
            Effect::Event(event) => {
                self.folded |= self.events.len() >= EVENTS_MAX;
                if !self.events.contains(&event) {
                    self.events.push_back(event);
                }
            }
        }
    }

    fn fetch(&mut self, choices: &mut Choices<'_>) {
        if self.open.is_empty() {
            return;
        }
        let at = choices.below(self.open.len());
        let (_, _, id, expected) = &self.open[at];
        match self.client.reply(*id) {
            Err(error) => assert!(self.ended, "{error}"),
            Ok(None) => assert!(self.ended || expected.is_none(), "a reply was lost"),
            Ok(Some(reply)) => {
                if !self.ended {
                    let expected = expected.clone().expect("a reply that nobody sent");
                    assert_eq!(reply.map_err(drop), expected);
                }
                self.open.swap_remove(at);
            }
        }
    }

    fn event(&mut self) {
        let mut count = 0;
        while let Some(event) = self.client.event() {
            count += 1;
            let expected = self.events.pop_front();
            assert!(self.ended || self.folded || expected == Some(event), "another event");
        }
        assert!(count <= EVENTS_MAX, "{count} events waited");
        assert!(self.ended || self.folded || self.events.is_empty(), "events were lost");
        self.events.clear();
        self.folded = false;
    }
}

/// A message of no shape.
fn senseless(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = message(choices.word() % 24, choices.byte().into(), &payload(choices));
    damage(choices, &mut bytes);
    bytes
}

/// A reply to a request, and what it says.
fn reply(choices: &mut Choices<'_>, kind: u32, request: u32) -> (Vec<u8>, Reply) {
    if choices.rarely(4) {
        let name = error_name(choices);
        (message(StoreMessage::Error as u32, request, &name), Err(()))
    } else {
        let payload = payload(choices);
        (message(kind, request, &payload), Ok(payload))
    }
}
