//! Guests that come back.

use super::*;

const WEB: [(&str, &str); 2] = [("vm", "/vm/web"), ("name", "web")];
const NEXT: DomainId = DomainId(4);

#[test]
fn a_guest_that_returns_while_the_control_plane_works_is_not_kept_waiting() {
    let mut house = House::new();
    for (key, value) in WEB {
        house
            .dom0
            .write(Transaction::NONE, &format!("/local/domain/{GUEST}/{key}"), value)
            .unwrap();
    }
    let id = house.attach("xvda");
    house.say(0, Report::Opened(PROFILE));
    house.dom0.remove(Transaction::NONE, &format!("/local/domain/{GUEST}")).unwrap();
    house.work();
    assert!(house.crew.orders().contains(&Order::Dismiss), "it waits for its guest");
    // The event comes with a reply, when events were looked at and guests, too.
    let sim = house.sim.clone();
    house.crew.meanwhile.replace(Some(Box::new(move || drop(sim.guest(NEXT, &WEB)))));
    assert_eq!(house.control.work(), Ok(true), "nobody calls it again by itself");
    house.work();
    let state = format!("{}/state", DeviceId { guest: NEXT, ..id }.back(DomainId::ZERO));
    let state = house.dom0.read(Transaction::NONE, &state).unwrap();
    assert_eq!(state.as_deref(), Some("1"), "its disk is there");
}
