//! Event channels have Xen's edges, and its traps.

use sim::{Domain, Faults, Limits, Sim};
use xen::{DomainId, Events, NoPort, Port};

const BACK: DomainId = DomainId(0);
const FRONT: DomainId = DomainId(5);

fn two() -> (Sim, Domain, Domain) {
    let sim = Sim::new(1);
    let (back, front) = (sim.domain(BACK), sim.domain(FRONT));
    (sim, back, front)
}

#[test]
fn a_bind_leaves_one_event_pending_that_nobody_sent() {
    let (sim, back, front) = two();
    let theirs = front.offer(BACK).expect("a port");
    let ours = back.bind(FRONT, theirs).expect("offered");
    assert_eq!(back.take_event(), Some(ours));
    assert_eq!(back.take_event(), None);
    assert_eq!(front.take_event(), None);
    assert!(sim.is_quiet());
}

#[test]
fn many_notifications_are_one_event() {
    let (_sim, back, front) = two();
    let theirs = front.offer(BACK).expect("a port");
    front.notify(theirs);
    let ours = back.bind(FRONT, theirs).expect("offered");
    assert_eq!(back.take_event(), Some(ours));
    for _ in 0..3 {
        front.notify(theirs);
        back.notify(ours);
    }
    assert_eq!((back.take_event(), back.take_event()), (Some(ours), None));
    assert_eq!((front.take_event(), front.take_event()), (Some(theirs), None));
}

#[test]
fn a_port_is_bound_once_and_only_by_whom_it_was_offered_to() {
    let (sim, back, front) = two();
    let other = sim.domain(DomainId(6));
    let offered = front.offer(BACK).expect("a port");
    assert_eq!(other.bind(FRONT, offered), Err(NoPort));
    assert_eq!(back.bind(DomainId(6), offered), Err(NoPort));
    assert_eq!(back.bind(DomainId(99), offered), Err(NoPort));
    for wild in [0, offered.0 + 1, u32::MAX] {
        assert_eq!(back.bind(FRONT, Port(wild)), Err(NoPort));
    }
    assert!(back.bind(FRONT, offered).is_ok());
    assert_eq!(back.bind(FRONT, offered), Err(NoPort));
}

#[test]
fn a_closed_end_leaves_the_other_offered_and_its_notifications_unheard() {
    let (sim, back, front) = two();
    let theirs = front.offer(BACK).expect("a port");
    let ours = back.bind(FRONT, theirs).expect("offered");
    front.close(theirs);
    back.notify(ours);
    // Whoever has the number next must not hear events meant for the one before.
    let next = front.offer(BACK).expect("a port");
    assert_eq!(next, theirs);
    back.notify(ours);
    assert_eq!(front.take_event(), None);
    assert!(front.bind(BACK, ours).is_ok(), "the port that lost its peer can be bound again");
    back.close(ours);
    let left: Vec<Port> = sim.audit().ports.into_iter().map(|(_, port)| port).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn ports_end_at_their_limit_and_the_lowest_is_used_next() {
    let (sim, _, front) = two();
    sim.set_limits(Limits { ports: 4, ..Limits::default() });
    let ports: Vec<Port> = (0..3).map(|_| front.offer(BACK).expect("a port")).collect();
    assert_eq!(ports, [Port(1), Port(2), Port(3)], "port 0 is never given out");
    assert_eq!(front.offer(BACK), Err(NoPort));
    front.close(Port(2));
    assert_eq!(front.offer(BACK), Ok(Port(2)));
}

#[test]
#[should_panic(expected = "domain 5 notifies closed port 1")]
fn notifying_a_closed_port_is_a_mistake() {
    let (_sim, _, front) = two();
    let port = front.offer(BACK).expect("a port");
    front.close(port);
    front.notify(port);
}

#[test]
#[should_panic(expected = "domain 5 closes closed port 1")]
fn closing_twice_is_a_mistake() {
    let (_sim, _, front) = two();
    let port = front.offer(BACK).expect("a port");
    front.close(port);
    front.close(port);
}

#[test]
fn spurious_events_name_open_ports_only() {
    let (sim, back, front) = two();
    assert_eq!(front.take_event(), None);
    sim.set_faults(Faults { spurious_events: 1000, ..Faults::default() });
    assert_eq!(front.take_event(), None, "there is no port to name");
    let theirs = front.offer(BACK).expect("a port");
    assert_eq!(front.take_event(), Some(theirs));
    assert_eq!(back.take_event(), None);
    assert!(sim.is_quiet(), "an event that nobody sent is not pending");
}
