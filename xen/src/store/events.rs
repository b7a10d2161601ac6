//! Fired watches that nobody has asked for yet.
//!
//! Another domain can make a watch fire as often as it likes, so the queue is bounded without
//! losing what matters: that something below a path is to be read again.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use crate::{StoreError, WatchEvent};

/// The most events that wait, besides one for each watch of the most that were ever set. Beyond that, the events of one watch are
/// folded into one.
pub const EVENTS_MAX: usize = 256;

/// A queue in which no two events are equal.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<WatchEvent>,
    /// How many watches are set.
    watches: usize,
    /// The most that ever were: all of them may have fired before anybody asked, and before they ended.
    most: usize,
}

impl Events {
    /// A watch is about to be set.
    pub(super) const fn watch(&mut self) {
        self.watches = self.watches.saturating_add(1);
        if self.watches > self.most {
            self.most = self.watches;
        }
    }

    /// A watch is about to end.
    pub(super) const fn unwatch(&mut self) {
        self.watches = self.watches.saturating_sub(1);
    }

    const fn limit(&self) -> usize {
        EVENTS_MAX.saturating_add(self.most)
    }

    /// Adds an event, unless an equal one waits. When there is no room, all events of the watch that
    /// has the most become one, whichever fired: one that was quiet must not pay for another's noise.
    pub(super) fn push(&mut self, event: WatchEvent) -> Result<(), StoreError> {
        if self.waiting.contains(&event) {
            return Ok(());
        }
        self.waiting.push_back(event);
        if self.waiting.len() <= self.limit() {
            return Ok(());
        }
        self.fold().inspect_err(|_| drop(self.waiting.pop_back()))
    }

    pub(super) fn pop(&mut self) -> Option<WatchEvent> {
        self.waiting.pop_front()
    }

    /// Takes all events of the watch with the most out and makes one of them, at the nearest path
    /// above them all.
    fn fold(&mut self) -> Result<(), StoreError> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for event in &self.waiting {
            *counts.entry(&event.token).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|&(_, count)| count);
        let Some(token) = most.filter(|&(_, count)| count > 1).map(|(token, _)| token.to_owned())
        else {
            let reason = "events of more watches than were ever set";
            return Err(StoreError::Connection(reason.into()));
        };
        let mut above: Option<String> = None;
        self.waiting.retain(|event| {
            let same = event.token == token;
            if same {
                let path = above.get_or_insert_with(|| event.path.clone());
                path.truncate(common_length(path, &event.path));
            }
            !same
        });
        self.waiting.extend(above.map(|path| WatchEvent { path, token }));
        Ok(())
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
