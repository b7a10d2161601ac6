//! The decision to notify: the header's formula, for every event index that could matter.

use ring::{Index, Layout, Notify};

use crate::{REQ_EVENT, RSP_EVENT, RSP_PROD, halves, memory, poke};

/// `RING_PUSH_…_AND_CHECK_NOTIFY` of `xen/include/public/io/ring.h`.
fn formula(old: u32, new: u32, event: u32) -> Notify {
    if new.wrapping_sub(event) < new.wrapping_sub(old) { Notify::Needed } else { Notify::Spared }
}

fn events(old: u32, new: u32) -> impl Iterator<Item = u32> {
    let near = (0..=new.wrapping_sub(old) + 8).map(move |at| old.wrapping_sub(4).wrapping_add(at));
    near.chain([0, 1, u32::MAX, 1 << 31, (1 << 31) - 1, old ^ (1 << 31), new ^ (1 << 31)])
}

#[test]
fn the_peer_is_notified_exactly_when_the_formula_says_so() {
    let slots = 4;
    let layout = Layout::of_slots(slots, 2);
    for start in [0, 1, (1 << 31) - 2, u32::MAX - 3, u32::MAX - 1, u32::MAX] {
        for count in 0..=slots {
            let new = start.wrapping_add(count);
            for event in events(start, new) {
                let words = memory(slots, 2);
                let (mut front, mut back) = halves(&words, layout, start);
                for _ in 0..count {
                    front.put(&[0, 0]).unwrap();
                }
                poke(&words, REQ_EVENT, event);
                let expected = formula(start, new, event);
                assert_eq!(front.publish(), expected, "{count} from {start}, event {event}");
                assert_eq!(front.publish(), Notify::Spared, "nothing new");
                while back.take(|_| ()).unwrap().is_some() {
                    back.put(&[0]).unwrap();
                }
                poke(&words, RSP_EVENT, event);
                assert_eq!(back.publish(), expected, "{count} from {start}, event {event}");
                assert_eq!(back.publish(), Notify::Spared, "nothing new");
            }
        }
    }
}

#[test]
fn a_new_ring_asks_for_the_first_message() {
    for start in [0, u32::MAX] {
        let words = memory(2, 2);
        let (mut front, mut back) = halves(&words, Layout::of_slots(2, 2), start);
        front.put(&[0, 0]).unwrap();
        assert_eq!(front.publish(), Notify::Needed);
        assert_eq!(back.take(|_| ()), Ok(Some(())));
        back.put(&[0]).unwrap();
        assert_eq!(back.publish(), Notify::Needed);
    }
}

#[test]
fn what_is_there_to_take_is_seen_without_taking_it() {
    for start in [0, u32::MAX] {
        let layout = Layout::of_slots(4, 2);
        let words = memory(4, 2);
        let (mut front, mut back) = halves(&words, layout, start);
        let after = |steps| Index::new(start.wrapping_add(steps));
        assert!(!front.unread());
        front.put(&[1, 2]).unwrap();
        let _ = front.publish();
        assert_eq!(back.next(), after(0));
        assert!(back.take(|_| ()).unwrap().is_some());
        assert_eq!(back.next(), after(1));
        back.put(&[3]).unwrap();
        assert!(!front.unread(), "put, but not shown");
        let _ = back.publish();
        assert!(front.unread());
        assert!(front.take(|_| ()).unwrap().is_some());
        assert!(!front.unread());
        // A claim is seen whether or not it makes sense.
        poke(&words, RSP_PROD, start.wrapping_sub(7));
        assert!(front.unread());
    }
}
