//! Fired watches that nobody has asked for yet.
//!
//! Another domain can make a watch fire as often as it likes, so the queue is bounded without
//! losing what matters: that something below a path is to be read again.

use alloc::collections::VecDeque;

use crate::{StoreError, WatchEvent};

/// The most events that wait, besides one for each watch. Beyond that, the events of one watch are
/// folded into one.
pub const EVENTS_MAX: usize = 256;

/// A queue in which no two events are equal.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<WatchEvent>,
    /// How many watches are set: all of them may fire before anybody asks.
    watches: usize,
}

impl Events {
    /// A watch is about to be set.
    pub(super) const fn watch(&mut self) {
        self.watches = self.watches.saturating_add(1);
    }

    /// A watch is about to end.
    pub(super) const fn unwatch(&mut self) {
        self.watches = self.watches.saturating_sub(1);
    }

    const fn limit(&self) -> usize {
        EVENTS_MAX.saturating_add(self.watches)
    }

    /// Adds an event, unless an equal one waits. When the queue is full, it and all events with its
    /// token become one, at the nearest path above them all.
    pub(super) fn push(&mut self, event: WatchEvent) -> Result<(), StoreError> {
        if self.waiting.contains(&event) {
            return Ok(());
        }
        let event = if self.waiting.len() < self.limit() { event } else { self.fold(event)? };
        self.waiting.push_back(event);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<WatchEvent> {
        self.waiting.pop_front()
    }

    /// Takes all events with the token of `event` out and makes one of them.
    fn fold(&mut self, event: WatchEvent) -> Result<WatchEvent, StoreError> {
        let WatchEvent { mut path, token } = event;
        self.waiting.retain(|other| {
            let same = other.token == token;
            if same {
                path.truncate(common_length(&path, &other.path));
            }
            !same
        });
        if self.waiting.len() >= self.limit() {
            let reason = "events of more watches than were ever set";
            return Err(StoreError::Connection(reason.into()));
        }
        Ok(WatchEvent { path, token })
    }
}

/// How many bytes of `one` are the nearest path above both, or both themselves if they are equal.
fn common_length(one: &str, other: &str) -> usize {
    let ends = |path: &str, at: usize| path.len() == at || path.as_bytes()[at] == b'/';
    let equal = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let cut = (0..=equal).rev().find(|&at| ends(one, at) && ends(other, at)).unwrap_or(0);
    // The root has no name in front of its slash.
    if cut == 0 && one.starts_with('/') && other.starts_with('/') { 1 } else { cut }
}
