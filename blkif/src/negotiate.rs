//! From two offers to what both sides do: the only place where features are decided.

use crate::keys::{self, Refusal, Silly};
use crate::{Abi, BackOffer, DIRECT_SEGMENTS_MAX, Discard, Features, FrontOffer};

/// What a front and a back agreed on; the data plane sees nothing else of the offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The layout of requests and responses.
    pub abi: Abi,
    /// The ring has `2^order` pages; at most [`ORDER_MAX`](crate::ORDER_MAX).
    pub order: u32,
    /// An indirect request has at most this many segments; 0 if none was agreed on.
    pub indirect_max: u8,
    /// What may be used.
    pub features: Features,
    /// Where discards should begin and end.
    pub discard_limits: Discard,
}

impl Agreed {
    /// Whether grants stay for the life of the connection.
    pub const fn persistent(&self) -> bool {
        self.features.contains(Features::PERSISTENT)
    }

    /// How many segments a request has at most, be it direct or not.
    pub const fn segments_max(&self) -> usize {
        let indirect = self.indirect_max as usize;
        if indirect > DIRECT_SEGMENTS_MAX { indirect } else { DIRECT_SEGMENTS_MAX }
    }

    /// Whether a flush is done.
    pub const fn flush(&self) -> bool {
        self.features.contains(Features::FLUSH)
    }

    /// Whether a discard is done.
    pub const fn discard(&self) -> bool {
        self.features.contains(Features::DISCARD)
    }
}

/// Brings two offers together. Persistent grants take both sides; indirect requests, flush and
/// discard are the back's to offer.
///
/// # Errors
/// [`Refusal`] if the front's ring is larger than the back takes.
pub fn negotiate(front: &FrontOffer, back: &BackOffer) -> Result<Agreed, Refusal> {
    let order = front.order();
    if order > back.max_order {
        let silly = Silly::TooLarge { value: u64::from(order), most: u64::from(back.max_order) };
        return Err(Refusal::new(keys::RING_PAGE_ORDER, silly));
    }
    let both = front.features | Features::PERSISTENT.complement();
    Ok(Agreed {
        abi: front.abi,
        order,
        indirect_max: back.indirect_max,
        features: back.features & both,
        discard_limits: back.discard,
    })
}

#[cfg(test)]
mod tests {
    use xen::{GrantRef, Port};

    use super::*;

    fn front(pages: u32, features: Features) -> FrontOffer {
        let ring = (0..pages).map(GrantRef).collect();
        FrontOffer { abi: Abi::X86_32, ring, port: Port(1), features }
    }

    fn back(max_order: u32, features: Features) -> BackOffer {
        BackOffer { max_order, indirect_max: 32, features, discard: Discard::default() }
    }

    #[test]
    fn grants_persist_only_if_both_sides_say_so() {
        let (yes, no) = (Features::PERSISTENT, Features::empty());
        for (front_says, back_says) in [(yes, yes), (yes, no), (no, yes), (no, no)] {
            let agreed = negotiate(&front(1, front_says), &back(0, back_says)).unwrap();
            assert_eq!(agreed.persistent(), front_says == yes && back_says == yes);
        }
    }

    #[test]
    fn flush_and_discard_are_done_if_the_back_offers_them() {
        for bits in 0..=Features::all().bits() {
            let features = Features::from_bits_truncate(bits);
            let agreed = negotiate(&front(1, Features::empty()), &back(0, features)).unwrap();
            assert_eq!(agreed.flush(), features.contains(Features::FLUSH));
            assert_eq!(agreed.discard(), features.contains(Features::DISCARD));
        }
    }

    #[test]
    fn a_request_has_as_many_segments_as_the_back_offers_and_eleven_at_least() {
        for most in 0..=crate::INDIRECT_MAX {
            let offer = BackOffer { indirect_max: most, ..back(0, Features::empty()) };
            let agreed = negotiate(&front(1, Features::empty()), &offer).unwrap();
            assert_eq!(agreed.indirect_max, most);
            assert_eq!(agreed.segments_max(), usize::from(most).max(11));
        }
    }

    #[test]
    fn a_ring_is_taken_up_to_the_order_that_the_back_offers() {
        for most in 0..=crate::ORDER_MAX {
            for order in 0..=crate::ORDER_MAX {
                let answer = negotiate(
                    &front(1 << order, Features::empty()),
                    &back(most, Features::empty()),
                );
                assert_eq!(answer.is_ok(), order <= most);
                assert!(
                    answer.is_ok_and(|it| it.order == order && it.abi == Abi::X86_32)
                        || order > most
                );
            }
        }
    }
}
