//! Xenstore: permissions, watches, transactions, limits.

use std::collections::BTreeSet;

use sim::{Domain, Faults, Limits, Sim};
use xen::{DomainId, Store, StoreError, Transaction, WatchEvent};

const NONE: Transaction = Transaction::NONE;
const DOM0: DomainId = DomainId(0);
const GUEST: DomainId = DomainId(5);
const OTHER: DomainId = DomainId(6);

fn three() -> (Sim, Domain, Domain, Domain) {
    let sim = Sim::new(1);
    let (dom0, guest, other) = (sim.domain(DOM0), sim.domain(GUEST), sim.domain(OTHER));
    (sim, dom0, guest, other)
}

fn events(domain: &Domain) -> BTreeSet<(String, String)> {
    let next = || domain.event().expect("connected");
    std::iter::from_fn(next).map(|WatchEvent { path, token }| (path, token)).collect()
}

fn set<const N: usize>(pairs: [(&str, &str); N]) -> BTreeSet<(String, String)> {
    pairs.map(|(path, token)| (path.to_owned(), token.to_owned())).into()
}

/// What the toolstack does for a device: a directory that belongs to `owner` and `reader` reads.
fn directory(dom0: &Domain, path: &str, owner: DomainId, reader: DomainId) {
    dom0.write(NONE, path, "").expect("domain 0 may");
    dom0.permit(NONE, path, owner, reader).expect("domain 0 may");
}

#[test]
fn nodes_are_written_read_listed_and_removed_with_all_below() {
    let (_sim, dom0, _, _) = three();
    dom0.write(NONE, "/a/b/c", "1").expect("written");
    dom0.write(NONE, "/a/b-d", "2").expect("written");
    dom0.write(NONE, "/a/b/c/e", "3").expect("written");
    assert_eq!(dom0.read(NONE, "/a/b/c"), Ok(Some("1".into())));
    assert_eq!(dom0.read(NONE, "/a/b"), Ok(Some(String::new())));
    assert_eq!(dom0.read(NONE, "/a/x"), Ok(None));
    assert_eq!(dom0.list(NONE, "/a"), Ok(vec!["b".into(), "b-d".into()]));
    assert_eq!(dom0.list(NONE, "/a/b"), Ok(vec!["c".into()]));
    assert_eq!(dom0.list(NONE, "/x"), Ok(vec![]));
    assert_eq!(dom0.remove(NONE, "/a/b"), Ok(()));
    assert_eq!(dom0.remove(NONE, "/a/b"), Ok(()));
    assert_eq!(dom0.read(NONE, "/a/b/c/e"), Ok(None));
    assert_eq!(dom0.list(NONE, "/a"), Ok(vec!["b-d".into()]));
}

#[test]
fn a_guest_sees_and_changes_only_what_it_was_given() {
    let (_sim, dom0, guest, other) = three();
    let theirs = "/local/domain/0/backend/vbd/5/51712";
    directory(&dom0, "/local/domain/5/device/vbd/51712", GUEST, DOM0);
    directory(&dom0, theirs, DOM0, GUEST);
    dom0.write(NONE, &format!("{theirs}/state"), "2").expect("written");

    assert_eq!(guest.write(NONE, "device/vbd/51712/state", "3"), Ok(()));
    assert_eq!(guest.read(NONE, &format!("{theirs}/state")), Ok(Some("2".into())));
    assert_eq!(guest.write(NONE, &format!("{theirs}/state"), "4"), Err(StoreError::Denied));
    assert_eq!(guest.remove(NONE, theirs), Err(StoreError::Denied));
    assert_eq!(guest.write(NONE, "device/vbd/51728/state", "1"), Err(StoreError::Denied));
    assert_eq!(guest.read(NONE, "/local/domain/0/backend"), Err(StoreError::Denied));
    assert_eq!(guest.read(NONE, "/nothing/here"), Err(StoreError::Denied));
    assert_eq!(guest.read(NONE, "nothing"), Ok(None), "its own directory it may read");
    assert_eq!(guest.write(NONE, "data/mine", "x"), Ok(()));

    assert_eq!(other.read(NONE, "/local/domain/5/device/vbd/51712/state"), Err(StoreError::Denied));
    assert_eq!(other.list(NONE, "/local/domain/5"), Err(StoreError::Denied));
    // What the guest created is its own, with the reader that its directory had.
    assert_eq!(dom0.read(NONE, "/local/domain/5/device/vbd/51712/state"), Ok(Some("3".into())));
    let own = "device/vbd/51712";
    assert_eq!(guest.permit(NONE, own, OTHER, GUEST), Err(StoreError::Denied));
    assert_eq!(guest.permit(NONE, own, GUEST, OTHER), Ok(()));
    assert_eq!(
        guest.permit(NONE, "device/vbd/51712/none", GUEST, OTHER),
        Err(StoreError::NotFound)
    );
}

#[test]
fn paths_and_values_that_cannot_be_are_refused() {
    let (_sim, dom0, guest, _) = three();
    for path in ["", "/a/", "//a", "/a//b", "/a b", "/\u{e9}", "a/"] {
        assert_eq!(dom0.write(NONE, path, ""), Err(StoreError::Invalid), "{path:?}");
    }
    let longest = format!("data/{}", "x".repeat(2048 - 5));
    assert_eq!(guest.write(NONE, &longest, ""), Ok(()));
    assert_eq!(guest.write(NONE, &format!("{longest}x"), ""), Err(StoreError::Invalid));
    assert_eq!(guest.write(NONE, "data/v", &"v".repeat(2048)), Ok(()));
    assert_eq!(guest.write(NONE, "data/v", &"v".repeat(2049)), Err(StoreError::Quota));
}

#[test]
fn a_watch_fires_at_once_and_for_everything_below() {
    let (_sim, dom0, _, _) = three();
    dom0.watch("/a/b", "w").expect("watched");
    assert_eq!(events(&dom0), set([("/a/b", "w")]));
    for path in ["/a", "/a/b-c", "/a/b/c", "/a/b/c", "/a/b"] {
        dom0.write(NONE, path, "").expect("written");
    }
    assert_eq!(events(&dom0), set([("/a/b/c", "w"), ("/a/b", "w")]));
    dom0.remove(NONE, "/a").expect("removed");
    assert_eq!(events(&dom0), set([("/a/b", "w")]), "its node went with the one above");
    dom0.unwatch("/a/b", "w").expect("it was there");
    dom0.write(NONE, "/a/b", "").expect("written");
    assert_eq!(events(&dom0), set([]));
}

#[test]
fn events_for_the_same_path_and_token_are_one() {
    let (_sim, dom0, _, _) = three();
    dom0.watch("/a", "w").expect("watched");
    for value in ["1", "2", "3"] {
        dom0.write(NONE, "/a", value).expect("written");
    }
    assert!(dom0.event().expect("connected").is_some());
    assert_eq!(dom0.event(), Ok(None));
}

#[test]
fn relative_watches_speak_of_relative_paths() {
    let (_sim, dom0, guest, _) = three();
    guest.watch("data", "w").expect("watched");
    dom0.write(NONE, "/local/domain/5/data/x", "").expect("written");
    assert_eq!(events(&guest), set([("data", "w"), ("data/x", "w")]));
}

#[test]
fn a_watch_shows_nothing_that_may_not_be_read() {
    let (_sim, dom0, guest, _) = three();
    guest.watch("/secret", "w").expect("watched");
    assert_eq!(events(&guest), set([("/secret", "w")]), "the first event says nothing");
    dom0.write(NONE, "/secret", "x").expect("written");
    dom0.remove(NONE, "/secret").expect("removed");
    assert_eq!(events(&guest), set([]));
}

#[test]
fn watches_are_told_apart_by_path_and_token() {
    let (sim, dom0, guest, _) = three();
    dom0.watch("/a", "1").expect("watched");
    assert_eq!(dom0.watch("/a", "1"), Err(StoreError::Exists));
    assert_eq!(dom0.watch("/a", "2"), Ok(()));
    assert_eq!(dom0.unwatch("/a", "3"), Err(StoreError::NotFound));
    assert_eq!(sim.audit().watches.len(), 2);
    sim.set_limits(Limits { watches: 1, ..Limits::default() });
    assert_eq!(guest.watch("data", "1"), Ok(()));
    assert_eq!(guest.watch("data", "2"), Err(StoreError::Quota));
    assert_eq!(guest.watch("@releaseDomain", "r"), Err(StoreError::Denied));
}

#[test]
fn events_come_in_another_order_for_another_seed() {
    let order = |seed| {
        let sim = Sim::new(seed);
        let dom0 = sim.domain(DOM0);
        for path in ["/a", "/b", "/c", "/d"] {
            dom0.watch(path, "w").expect("watched");
        }
        let next = || dom0.event().expect("connected").map(|event| event.path);
        std::iter::from_fn(next).collect::<Vec<_>>()
    };
    assert_eq!(order(1), order(1));
    let orders: BTreeSet<_> = (0..20).map(order).collect();
    assert!(orders.len() > 5, "{orders:?}");
}

#[test]
fn late_and_repeated_events_arrive_in_the_end() {
    let (sim, dom0, _, _) = three();
    sim.set_faults(Faults::MANY);
    dom0.watch("/a", "w").expect("watched");
    let mut asked = 0;
    let mut times = 0;
    while !sim.is_quiet() {
        asked += 1;
        times += u32::from(dom0.event().expect("connected").is_some());
    }
    assert!(times >= 1 && asked < 1000, "{times} of {asked}");
}

#[test]
fn a_transaction_is_seen_by_itself_only_until_it_commits() {
    let (sim, dom0, _, _) = three();
    dom0.watch("/a", "w").expect("watched");
    events(&dom0);
    let open = dom0.begin().expect("begun");
    dom0.write(open, "/a/b", "1").expect("written");
    assert_eq!(dom0.read(open, "/a/b"), Ok(Some("1".into())));
    assert_eq!(dom0.read(NONE, "/a/b"), Ok(None));
    assert_eq!(events(&dom0), set([]));
    assert_eq!(sim.audit().transactions.len(), 1);
    assert_eq!(dom0.end(open, true), Ok(()));
    assert_eq!(dom0.read(NONE, "/a/b"), Ok(Some("1".into())));
    assert_eq!(events(&dom0), set([("/a/b", "w")]));
    let open = dom0.begin().expect("begun");
    dom0.remove(open, "/a").expect("removed");
    assert_eq!(dom0.end(open, false), Ok(()));
    assert_eq!(dom0.read(NONE, "/a/b"), Ok(Some("1".into())));
    assert!(sim.audit().transactions.is_empty());
}

/// Does `inside` in a transaction, `outside` beside it, and tells how the transaction ends.
fn race(inside: fn(&Domain, Transaction), outside: fn(&Domain)) -> Result<(), StoreError> {
    let (_sim, dom0, _, _) = three();
    dom0.write(NONE, "/a/b", "old").expect("written");
    let open = dom0.begin().expect("begun");
    inside(&dom0, open);
    outside(&dom0);
    dom0.end(open, true)
}

#[test]
fn a_transaction_conflicts_with_changes_of_what_it_read_or_wrote() {
    let read: fn(&Domain, Transaction) = |d, t| assert!(d.read(t, "/a/b").is_ok());
    let list: fn(&Domain, Transaction) = |d, t| assert!(d.list(t, "/a").is_ok());
    let write: fn(&Domain, Transaction) = |d, t| assert!(d.write(t, "/a/b", "in").is_ok());
    let create: fn(&Domain, Transaction) = |d, t| assert!(d.write(t, "/a/c", "in").is_ok());
    let missing: fn(&Domain, Transaction) = |d, t| assert_eq!(d.read(t, "/a/d"), Ok(None));
    let overwrite: fn(&Domain) = |d| assert!(d.write(NONE, "/a/b", "out").is_ok());
    let sibling: fn(&Domain) = |d| assert!(d.write(NONE, "/a/d", "out").is_ok());
    let remove: fn(&Domain) = |d| assert!(d.remove(NONE, "/a/b").is_ok());
    let elsewhere: fn(&Domain) = |d| assert!(d.write(NONE, "/x/y", "out").is_ok());
    let uproot: fn(&Domain, Transaction) = |d, t| assert!(d.remove(t, "/a/b").is_ok());
    for inside in [read, write] {
        assert_eq!(race(inside, overwrite), Err(StoreError::Conflict));
        assert_eq!(race(inside, remove), Err(StoreError::Conflict));
        assert_eq!(race(inside, sibling), Ok(()));
    }
    assert_eq!(race(uproot, sibling), Err(StoreError::Conflict));
    assert_eq!(race(uproot, overwrite), Err(StoreError::Conflict));
    for inside in [list, create, missing] {
        assert_eq!(race(inside, sibling), Err(StoreError::Conflict));
        assert_eq!(race(inside, overwrite), Ok(()));
    }
    for inside in [read, list, write, create, missing, uproot] {
        assert_eq!(race(inside, elsewhere), Ok(()));
    }
}

#[test]
fn a_transaction_conflicts_with_one_that_began_before_it_looked() {
    let (_sim, dom0, _, _) = three();
    dom0.write(NONE, "/a/b", "old").expect("written");
    let (first, second) = (dom0.begin().expect("begun"), dom0.begin().expect("begun"));
    dom0.write(second, "/a/b", "new").expect("written");
    assert_eq!(dom0.end(second, true), Ok(()));
    // What it sees may not fit what it saw before.
    assert_eq!(dom0.read(first, "/a/b"), Ok(Some("new".into())));
    assert_eq!(dom0.end(first, true), Err(StoreError::Conflict));
}

#[test]
fn transact_succeeds_through_conflicts_and_gives_up_after_its_tries() {
    let (sim, dom0, _, _) = three();
    sim.set_faults(Faults { conflicts: 500, ..Faults::default() });
    for round in 0..50 {
        dom0.transact(|t| dom0.write(t, "/n", &round.to_string())).expect("in 64 tries");
        assert_eq!(dom0.read(NONE, "/n"), Ok(Some(round.to_string())));
    }
    sim.set_faults(Faults { conflicts: 1000, ..Faults::default() });
    let mut tries = 0;
    let never = dom0.transact(|t| {
        tries += 1;
        dom0.write(t, "/n", "never")
    });
    assert_eq!((never, tries), (Err(StoreError::Conflict), xen::TRANSACTION_TRIES_MAX));
    assert_eq!(dom0.read(NONE, "/n"), Ok(Some("49".into())));
    assert!(sim.audit().transactions.is_empty());
}

#[test]
fn nodes_and_transactions_of_a_guest_end_at_their_limits() {
    let (sim, _, guest, _) = three();
    sim.set_limits(Limits { nodes: 4, transactions: 1, ..Limits::default() });
    assert_eq!(guest.write(NONE, "data/a/b", ""), Ok(()));
    assert_eq!(guest.write(NONE, "data/c", ""), Err(StoreError::Quota));
    assert_eq!(guest.write(NONE, "data/a", "again"), Ok(()));
    guest.remove(NONE, "data/a/b").expect("removed");
    assert_eq!(guest.write(NONE, "data/c", ""), Ok(()));
    let open = guest.begin().expect("begun");
    assert_eq!(guest.begin(), Err(StoreError::Quota));
    guest.end(open, false).expect("ended");
    assert!(guest.begin().is_ok());
}

#[test]
fn a_transaction_for_which_no_room_is_left_when_it_ends_does_nothing() {
    let (sim, _, guest, _) = three();
    sim.set_limits(Limits { nodes: 4, ..Limits::default() });
    let open = guest.begin().expect("begun");
    guest.write(open, "data/a/b", "").expect("written");
    guest.write(NONE, "error/c", "").expect("written");
    assert_eq!(guest.end(open, true), Err(StoreError::Quota));
    assert_eq!(guest.read(NONE, "data/a"), Ok(None));
    guest.write(NONE, "data/d", "").expect("the last one");
}

#[test]
#[should_panic(expected = "domain 0 is in no transaction 1")]
fn using_a_transaction_that_ended_is_a_mistake() {
    let (_sim, dom0, _, _) = three();
    let open = dom0.begin().expect("begun");
    dom0.end(open, true).expect("ended");
    let _ = dom0.write(open, "/a", "");
}
