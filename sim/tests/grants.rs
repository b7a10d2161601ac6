//! Grants, mappings and copies are at least as strict as on Xen.

use ring::{PAGE_SIZE, Page};
use sim::{Domain, Limits, Sim};
use xen::{
    Access, Direction, DomainId, GrantCopy, GrantError, GrantRef, Grants, MapError, Maps,
    StillMapped,
};

const BACK: DomainId = DomainId(0);
const FRONT: DomainId = DomainId(5);
const OTHER: DomainId = DomainId(6);

fn three() -> (Sim, Domain, Domain, Domain) {
    let sim = Sim::new(1);
    let (back, front, other) = (sim.domain(BACK), sim.domain(FRONT), sim.domain(OTHER));
    (sim, back, front, other)
}

fn text(page: &Page, offset_bytes: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    page.read(offset_bytes, &mut bytes);
    bytes
}

#[test]
fn a_new_page_is_zero_and_a_mapping_shows_the_same_memory() {
    let (sim, back, front, _) = three();
    let page = front.page().expect("memory");
    assert_eq!(text(&page, 0, PAGE_SIZE), vec![0; PAGE_SIZE]);
    let reference = front.grant(&page, BACK, Access::Write).expect("room");
    let mapped = back.map(FRONT, &[reference], Access::Write).expect("granted");
    mapped[0].write(9, b"from the back");
    assert_eq!(text(&page, 9, 13), b"from the back");
    drop(mapped);
    assert_eq!(front.revoke(reference), Ok(()));
    drop(page);
    sim.assert_clean();
}

#[test]
fn a_mapped_grant_cannot_be_revoked_until_its_last_page_is_unmapped() {
    let (_sim, back, front, _) = three();
    let page = front.page().expect("memory");
    let reference = front.grant(&page, BACK, Access::Write).expect("room");
    let mut twice = back.map(FRONT, &[reference, reference], Access::Read).expect("granted");
    let clone = twice[1].clone();
    assert_eq!(front.revoke(reference), Err(StillMapped));
    twice.clear();
    assert_eq!(front.revoke(reference), Err(StillMapped), "the clone holds the whole call");
    drop(clone);
    assert_eq!(front.revoke(reference), Ok(()));
}

#[test]
fn only_the_named_domain_may_map_and_only_the_named_reference() {
    let (_sim, back, front, other) = three();
    let page = front.page().expect("memory");
    let reference = front.grant(&page, BACK, Access::Read).expect("room");
    assert_eq!(other.map(FRONT, &[reference], Access::Read).err(), Some(MapError::Refused));
    assert_eq!(back.map(OTHER, &[reference], Access::Read).err(), Some(MapError::Refused));
    assert_eq!(back.map(DomainId(99), &[reference], Access::Read).err(), Some(MapError::Refused));
    for wild in [0, 7, reference.0 + 1, u32::MAX] {
        assert_eq!(back.map(FRONT, &[GrantRef(wild)], Access::Read).err(), Some(MapError::Refused));
    }
    assert_eq!(back.map(FRONT, &[reference], Access::Write).err(), Some(MapError::Refused));
    assert!(back.map(FRONT, &[reference], Access::Read).is_ok());
    assert_eq!(front.revoke(reference), Ok(()));
    assert_eq!(back.map(FRONT, &[reference], Access::Read).err(), Some(MapError::Refused));
}

#[test]
fn one_bad_reference_anywhere_in_a_call_maps_nothing() {
    let (sim, back, front, _) = three();
    let page = front.page().expect("memory");
    let good = front.grant(&page, BACK, Access::Write).expect("room");
    for bad in 0..5 {
        let mut references = [good; 5];
        references[bad] = GrantRef(good.0 + 1);
        assert_eq!(back.map(FRONT, &references, Access::Write).err(), Some(MapError::Refused));
        assert!(sim.audit().mappings.is_empty());
    }
    assert_eq!(front.revoke(good), Ok(()));
}

#[test]
fn copies_are_judged_one_by_one() {
    let (_sim, back, front, _) = three();
    let (read, write) = (front.page().expect("memory"), front.page().expect("memory"));
    read.write(100, b"abcd");
    let readable = front.grant(&read, BACK, Access::Read).expect("room");
    let writable = front.grant(&write, BACK, Access::Write).expect("room");
    let (to, from) = (Page::new(), Page::new());
    from.write(100, b"wxyz");
    let copy = |reference, local, direction| GrantCopy {
        reference,
        local,
        offset_bytes: 100,
        length_bytes: 4,
        direction,
        done: false,
    };
    let mut copies = [
        copy(readable, &to, Direction::FromPeer),
        copy(readable, &from, Direction::ToPeer),
        copy(GrantRef(99), &to, Direction::FromPeer),
        copy(writable, &from, Direction::ToPeer),
    ];
    back.copy(FRONT, &mut copies);
    assert_eq!(copies.each_ref().map(|copy| copy.done), [true, false, false, true]);
    assert_eq!(text(&to, 98, 8), b"\0\0abcd\0\0");
    assert_eq!(text(&read, 100, 4), b"abcd", "a read-only grant was not written");
    assert_eq!(text(&write, 98, 8), b"\0\0wxyz\0\0");
    for reference in [readable, writable] {
        assert_eq!(front.revoke(reference), Ok(()));
    }
}

#[test]
fn the_grant_table_ends_at_its_limit_and_reuses_the_last_entry_first() {
    let (sim, _, front, _) = three();
    sim.set_limits(Limits { grants: 11, ..Limits::default() });
    let page = front.page().expect("memory");
    let grant = || front.grant(&page, BACK, Access::Read);
    let given: Vec<GrantRef> = (0..3).map(|_| grant().expect("room")).collect();
    assert_eq!(given, [GrantRef(8), GrantRef(9), GrantRef(10)], "8 entries are Xen's");
    assert_eq!(grant(), Err(GrantError::TableFull));
    assert_eq!(front.revoke(given[0]), Ok(()));
    assert_eq!(front.revoke(given[2]), Ok(()));
    assert_eq!(grant(), Ok(given[2]));
    assert_eq!(grant(), Ok(given[0]));
    assert_eq!(grant(), Err(GrantError::TableFull));
    for reference in given {
        assert_eq!(front.revoke(reference), Ok(()));
    }
}

#[test]
fn mappings_and_pages_end_at_their_limits() {
    let (sim, back, front, _) = three();
    sim.set_limits(Limits { mappings: 3, pages: 2, ..Limits::default() });
    let (page, second) = (front.page().expect("memory"), front.page().expect("memory"));
    assert!(front.page().is_none());
    drop(second);
    assert!(front.page().is_some());
    let reference = front.grant(&page, BACK, Access::Read).expect("room");
    let held = back.map(FRONT, &[reference; 2], Access::Read).expect("room for two");
    assert_eq!(back.map(FRONT, &[reference; 2], Access::Read).err(), Some(MapError::NoRoom));
    assert!(back.map(FRONT, &[reference], Access::Read).is_ok());
    drop(held);
    assert!(back.map(FRONT, &[reference; 3], Access::Read).is_ok());
    assert_eq!(front.revoke(reference), Ok(()));
}

#[test]
#[should_panic(expected = "domain 5 frees a page that it still grants as 8")]
fn freeing_a_granted_page_is_a_mistake() {
    let (_sim, _, front, _) = three();
    let page = front.page().expect("memory");
    front.grant(&page, BACK, Access::Read).expect("room");
    drop(page);
}

#[test]
#[should_panic(expected = "domain 5 revokes 8, no grant")]
fn revoking_twice_is_a_mistake() {
    let (_sim, _, front, _) = three();
    let page = front.page().expect("memory");
    let reference = front.grant(&page, BACK, Access::Read).expect("room");
    assert_eq!(front.revoke(reference), Ok(()));
    let _ = front.revoke(reference);
}

#[test]
#[should_panic(expected = "domain 6 grants a page of domain 5")]
fn granting_the_page_of_another_domain_is_a_mistake() {
    let (_sim, _, front, other) = three();
    let page = front.page().expect("memory");
    let _ = other.grant(&page, BACK, Access::Read);
}

#[test]
#[should_panic(expected = "domain 0 copies past a page")]
fn copying_past_a_page_is_a_mistake() {
    let (_sim, back, _, _) = three();
    back.copy(
        FRONT,
        &mut [GrantCopy {
            reference: GrantRef(8),
            local: &Page::new(),
            offset_bytes: 4095,
            length_bytes: 2,
            direction: Direction::FromPeer,
            done: false,
        }],
    );
}

#[test]
fn the_audit_names_what_is_left() {
    let (sim, back, front, _) = three();
    let page = front.page().expect("memory");
    let reference = front.grant(&page, BACK, Access::Read).expect("room");
    let mapped = back.map(FRONT, &[reference], Access::Read).expect("granted");
    let audit = sim.audit();
    assert_eq!(audit.pages, [(FRONT, 1)]);
    assert_eq!(audit.grants, [(FRONT, reference, 1)]);
    assert_eq!(audit.mappings, [(BACK, FRONT, reference)]);
    assert!(!audit.is_clean());
    assert!(audit.to_string().contains("domain 0 maps 8 of domain 5"), "{audit}");
    drop(mapped);
    assert_eq!(front.revoke(reference), Ok(()));
    drop(page);
    assert!(sim.audit().is_clean());
}
