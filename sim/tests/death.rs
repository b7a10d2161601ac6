//! What is left when a program or a whole domain ends.

use sim::Sim;
use xen::{
    Access, DomainId, Events, GrantError, Grants, MapError, Maps, NoPort, Store, StoreError,
    Transaction,
};

const BACK: DomainId = DomainId(0);
const FRONT: DomainId = DomainId(5);

#[test]
fn a_crashed_program_leaves_no_mapping_port_watch_or_transaction() {
    let sim = Sim::new(1);
    let (back, front) = (sim.domain(BACK), sim.domain(FRONT));
    let page = front.page().expect("memory");
    let reference = front.grant(&page, BACK, Access::Write).expect("room");
    let mapped = back.map(FRONT, &[reference], Access::Write).expect("granted");
    let port = back.bind(FRONT, front.offer(BACK).expect("a port")).expect("offered");
    back.watch("/a", "w").expect("watched");
    back.begin().expect("begun");

    sim.crash(BACK);
    assert_eq!(front.revoke(reference), Ok(()));
    let audit = sim.audit();
    assert!(audit.mappings.is_empty() && audit.watches.is_empty(), "{audit}");
    assert_eq!((audit.transactions.len(), audit.ports.len()), (0, 1), "{audit}");

    // The dead program's values can be dropped, and ask for things in vain.
    drop(mapped);
    back.notify(port);
    back.close(port);
    assert_eq!(back.take_event(), None);
    assert_eq!(back.map(FRONT, &[reference], Access::Write).err(), Some(MapError::NoRoom));
    assert!(matches!(back.read(Transaction::NONE, "/a"), Err(StoreError::Connection(_))));

    // The next program in the domain starts with nothing.
    let again = sim.domain(BACK);
    assert_eq!(again.event(), Ok(None));
    assert!(again.write(Transaction::NONE, "/a", "1").is_ok());
}

#[test]
fn a_dead_domain_keeps_only_the_grants_that_a_peer_has_mapped() {
    let sim = Sim::new(1);
    let (back, front) = (sim.domain(BACK), sim.domain(FRONT));
    let pages = [front.page().expect("memory"), front.page().expect("memory")];
    let [held, free] = pages.each_ref().map(|p| front.grant(p, BACK, Access::Write).expect("room"));
    pages[0].write(0, b"still here");
    let mapped = back.map(FRONT, &[held], Access::Read).expect("granted");
    let port = back.bind(FRONT, front.offer(BACK).expect("a port")).expect("offered");

    sim.kill(FRONT);
    assert_eq!(sim.audit().grants, [(FRONT, held, 1)]);
    assert_eq!(back.map(FRONT, &[free], Access::Read).err(), Some(MapError::Refused));
    assert_eq!(back.map(FRONT, &[held], Access::Read).err(), Some(MapError::Refused));
    let mut bytes = [0; 10];
    mapped[0].read(0, &mut bytes);
    assert_eq!(&bytes, b"still here");
    back.notify(port);
    drop(mapped);
    back.close(port);

    // A dead domain frees nothing and gets nothing.
    assert!(front.page().is_none());
    assert_eq!(front.grant(&pages[0], BACK, Access::Read), Err(GrantError::TableFull));
    assert_eq!(front.offer(BACK), Err(NoPort));
    assert_eq!(front.revoke(held), Ok(()));
    drop(pages);
    sim.assert_clean();
}

#[test]
fn domain_0_hears_of_a_death_and_the_nodes_stay() {
    let sim = Sim::new(1);
    let (dom0, guest) = (sim.domain(BACK), sim.domain(FRONT));
    guest.write(Transaction::NONE, "data/x", "left").expect("written");
    dom0.watch("@releaseDomain", "gone").expect("watched");
    assert_eq!(dom0.event().expect("connected").map(|e| e.token), Some("gone".into()));
    sim.kill(FRONT);
    let event = dom0.event().expect("connected").expect("fired");
    assert_eq!((event.path.as_str(), event.token.as_str()), ("@releaseDomain", "gone"));
    let left = dom0.read(Transaction::NONE, "/local/domain/5/data/x");
    assert_eq!(left, Ok(Some("left".into())));
}

#[test]
#[should_panic(expected = "domain 5 is dead")]
fn an_id_is_not_used_again() {
    let sim = Sim::new(1);
    sim.domain(FRONT);
    sim.kill(FRONT);
    sim.domain(FRONT);
}

#[test]
fn a_machine_can_be_shared_between_threads() {
    let sim = Sim::new(1);
    let (back, front) = (sim.domain(BACK), sim.domain(FRONT));
    let page = front.page().expect("memory");
    let reference = front.grant(&page, BACK, Access::Write).expect("room");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                let mapped = back.map(FRONT, &[reference], Access::Write).expect("granted");
                mapped[0].write(0, &[7]);
            }
        });
        for _ in 0..50 {
            let mut byte = [0];
            page.read(0, &mut byte);
            assert!(byte == [0] || byte == [7]);
        }
    });
    assert_eq!(front.revoke(reference), Ok(()));
}
