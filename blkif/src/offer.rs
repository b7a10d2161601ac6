//! What each side publishes about itself: values, and the xenstore nodes that say them.
//!
//! Nodes are read through a closure that gives a node's text and written through one that takes
//! it, so that a table of pairs serves as well as xenstore. Reading never fails for what is
//! absent and optional, and never guesses at what is there and senseless.

use core::fmt;

use arrayvec::ArrayVec;
use xen::{GrantRef, Port};

use crate::keys::{self, RING_REFS, Refusal, Silly};
use crate::{Abi, ORDER_MAX, RING_PAGES_MAX, SEGMENTS_MAX};

/// What is offered at most in [`BackOffer::indirect_max`].
#[expect(clippy::cast_possible_truncation, reason = "it is 32")]
pub const INDIRECT_MAX: u8 = SEGMENTS_MAX as u8;

bitflags::bitflags! {
    /// What a side can do beyond reads and writes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Grants stay, and may stay mapped, for the life of the connection.
        const PERSISTENT = 1;
        /// Flush (`feature-flush-cache`).
        const FLUSH = 2;
        /// Discard.
        const DISCARD = 4;
    }
}

/// What a front publishes before its state 3: its ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontOffer {
    /// The layout of its requests.
    pub abi: Abi,
    /// The pages of its ring in order: a power of two, 1 to 16, no two the same.
    pub ring: ArrayVec<GrantRef, RING_PAGES_MAX>,
    /// The port that it offered to the back.
    pub port: Port,
    /// [`Features::PERSISTENT`] or nothing.
    pub features: Features,
}

impl FrontOffer {
    /// The ring has `2^order` pages.
    pub fn order(&self) -> u32 {
        self.ring.len().max(1).ilog2()
    }

    /// Reads what a front wrote, for a back that published `max_order`. A front without
    /// `protocol` is taken for `missing`. One page is found as `ring-ref` and as `ring-ref0`,
    /// since fronts of one page differ in how they name it.
    ///
    /// # Errors
    /// [`Refusal`]: a node is missing or makes no sense; an order above `max_order`; one page
    /// twice; more queues than the one that is offered.
    pub fn read<S: AsRef<str>>(
        mut node: impl FnMut(&str) -> Option<S>,
        max_order: u32,
        missing: Abi,
    ) -> Result<Self, Refusal> {
        let protocol = node(keys::PROTOCOL);
        let abi = Abi::of_protocol(protocol.as_ref().map(AsRef::as_ref), missing)?;
        one_queue(node(keys::NUM_QUEUES))?;
        let most = max_order.min(ORDER_MAX);
        let order_text = node(keys::RING_PAGE_ORDER);
        let order = keys::number_up_to(keys::RING_PAGE_ORDER, order_text, (0, most))?;
        let ring = if order == 0 { one_page(&mut node)? } else { pages(&mut node, order)? };
        let port = required(keys::EVENT_CHANNEL, node(keys::EVENT_CHANNEL))?;
        if port == 0 {
            let silly = Silly::TooSmall { value: 0, least: 1 };
            return Err(Refusal::new(keys::EVENT_CHANNEL, silly));
        }
        let mut features = Features::empty();
        features.set(Features::PERSISTENT, keys::switch(keys::PERSISTENT, node(keys::PERSISTENT))?);
        Ok(Self { abi, ring, port: Port(port), features })
    }

    /// Writes the nodes. A ring of one page is `ring-ref` without any `ring-page-order`: with an
    /// order, even 0, some backs look for `ring-ref0` and others for `ring-ref`.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn write<E>(
        &self,
        mut write: impl FnMut(&str, fmt::Arguments<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        write(keys::PROTOCOL, format_args!("{}", self.abi.protocol()))?;
        if self.order() == 0 {
            for reference in &self.ring {
                write(keys::RING_REF, format_args!("{reference}"))?;
            }
        } else {
            write(keys::RING_PAGE_ORDER, format_args!("{}", self.order()))?;
            for (key, reference) in RING_REFS.iter().zip(&self.ring) {
                write(key, format_args!("{reference}"))?;
            }
        }
        write(keys::EVENT_CHANNEL, format_args!("{}", self.port))?;
        let persistent = u8::from(self.features.contains(Features::PERSISTENT));
        write(keys::PERSISTENT, format_args!("{persistent}"))
    }

    /// The nodes that this offer does not write and that a former connection may have left: they
    /// must go before, or the back takes them for ours.
    pub fn stale(&self) -> impl Iterator<Item = &'static str> {
        let one = self.order() == 0;
        let named = if one { 0 } else { self.ring.len() };
        let first = if one { keys::RING_PAGE_ORDER } else { keys::RING_REF };
        [first, keys::NUM_QUEUES].into_iter().chain(RING_REFS.into_iter().skip(named))
    }
}

/// Where discards should begin and how long they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Ranges should be multiples of this; at least 512.
    pub granularity_bytes: u32,
    /// And begin this far from one.
    pub alignment_bytes: u32,
}

impl Default for Discard {
    fn default() -> Self {
        Self { granularity_bytes: 512, alignment_bytes: 0 }
    }
}

/// What a back publishes about itself; the disk's own nodes are in [`Geometry`](crate::Geometry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOffer {
    /// The largest ring it takes has `2^max_order` pages.
    pub max_order: u32,
    /// The most segments of an indirect request that it takes, at most [`SEGMENTS_MAX`]; 0 if it
    /// takes none.
    pub indirect_max: u8,
    /// What it can do.
    pub features: Features,
    /// Where to discard; means something only with [`Features::DISCARD`].
    pub discard: Discard,
}

impl BackOffer {
    /// Reads the largest order that a back takes, which is all that it says before its state 4:
    /// at most [`ORDER_MAX`].
    ///
    /// # Errors
    /// [`Refusal`]: it is no number.
    pub fn read_max_order<S: AsRef<str>>(
        mut node: impl FnMut(&str) -> Option<S>,
    ) -> Result<u32, Refusal> {
        let order = node(keys::MAX_RING_PAGE_ORDER);
        // A back may take larger rings than we ever make.
        let max_order = keys::number_up_to(keys::MAX_RING_PAGE_ORDER, order, (0, u32::MAX))?;
        Ok(max_order.min(ORDER_MAX))
    }

    /// Reads all that a back wrote, once it is in state 4.
    ///
    /// # Errors
    /// [`Refusal`]: a node makes no sense.
    pub fn read<S: AsRef<str>>(mut node: impl FnMut(&str) -> Option<S>) -> Result<Self, Refusal> {
        let max_order = Self::read_max_order(&mut node)?;
        let indirect = node(keys::MAX_INDIRECT_SEGMENTS);
        // A back may take longer requests than we ever make.
        let indirect = keys::number_up_to(keys::MAX_INDIRECT_SEGMENTS, indirect, (0, u32::MAX))?;
        let indirect_max = u8::try_from(indirect).map_or(INDIRECT_MAX, |it| it.min(INDIRECT_MAX));
        let mut features = Features::empty();
        for (key, feature) in [
            (keys::PERSISTENT, Features::PERSISTENT),
            (keys::FLUSH, Features::FLUSH),
            (keys::DISCARD, Features::DISCARD),
        ] {
            features.set(feature, keys::switch(key, node(key))?);
        }
        let mut size = |key, default| keys::number_up_to(key, node(key), (default, u32::MAX));
        let discard = Discard {
            granularity_bytes: size(keys::DISCARD_GRANULARITY, 512)?.max(512),
            alignment_bytes: size(keys::DISCARD_ALIGNMENT, 0)?,
        };
        Ok(Self { max_order, indirect_max, features, discard })
    }

    /// Writes what the front needs to make its ring: before state 2.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn write_limits<E>(
        &self,
        mut write: impl FnMut(&str, fmt::Arguments<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        write(keys::MAX_RING_PAGE_ORDER, format_args!("{}", self.max_order))?;
        write(keys::MAX_INDIRECT_SEGMENTS, format_args!("{}", self.indirect_max))
    }

    /// Writes the features: before state 4, with the geometry. What is not offered is written as
    /// 0, over what a former connection may have left.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn write_features<E>(
        &self,
        mut write: impl FnMut(&str, fmt::Arguments<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bit = |feature| u8::from(self.features.contains(feature));
        write(keys::PERSISTENT, format_args!("{}", bit(Features::PERSISTENT)))?;
        write(keys::FLUSH, format_args!("{}", bit(Features::FLUSH)))?;
        write(keys::DISCARD, format_args!("{}", bit(Features::DISCARD)))?;
        if self.features.contains(Features::DISCARD) {
            write(keys::DISCARD_GRANULARITY, format_args!("{}", self.discard.granularity_bytes))?;
            write(keys::DISCARD_ALIGNMENT, format_args!("{}", self.discard.alignment_bytes))?;
        }
        Ok(())
    }
}

/// Several queues are not offered, so a front may only say one, or nothing.
fn one_queue<S: AsRef<str>>(text: Option<S>) -> Result<(), Refusal> {
    let silly = match keys::number(keys::NUM_QUEUES, text)? {
        None | Some(1) => return Ok(()),
        Some(0) => Silly::TooSmall { value: 0, least: 1 },
        Some(value) => Silly::TooLarge { value, most: 1 },
    };
    Err(Refusal::new(keys::NUM_QUEUES, silly))
}

fn one_page<S: AsRef<str>>(
    node: &mut impl FnMut(&str) -> Option<S>,
) -> Result<ArrayVec<GrantRef, RING_PAGES_MAX>, Refusal> {
    let text = node(keys::RING_REF).or_else(|| node(RING_REFS[0]));
    let reference = required(keys::RING_REF, text)?;
    Ok(core::iter::once(GrantRef(reference)).collect())
}

fn pages<S: AsRef<str>>(
    node: &mut impl FnMut(&str) -> Option<S>,
    order: u32,
) -> Result<ArrayVec<GrantRef, RING_PAGES_MAX>, Refusal> {
    let mut ring = ArrayVec::new();
    for key in RING_REFS.iter().take(1 << order) {
        let reference = GrantRef(required(key, node(key))?);
        if ring.contains(&reference) {
            return Err(Refusal::new(key, Silly::Repeated(u64::from(reference.0))));
        }
        ring.push(reference);
    }
    Ok(ring)
}

/// A 32-bit number that must be there.
fn required<S: AsRef<str>>(key: &'static str, text: Option<S>) -> Result<u32, Refusal> {
    if text.is_none() {
        return Err(Refusal::new(key, Silly::Missing));
    }
    keys::number_up_to(key, text, (0, u32::MAX))
}

#[cfg(test)]
mod tests;
