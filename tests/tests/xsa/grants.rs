//! Grants that cannot be mapped, are not let go of, or are never enough.

use blkif::{Abi, Status};
use xen::{GrantRef, XenbusState};

use crate::{Scene, WANTED, read, write};

/// A grant that is none.
const NONE: GrantRef = GrantRef(4999);

#[test]
fn xsa_361_the_failure_of_any_one_grant_is_that_of_its_request() {
    for (bad, keeps) in (0..12).flat_map(|bad| [(bad, true), (bad, false)]) {
        let mut scene = Scene::with(Abi::X86_64, keeps);
        let mut grants: Vec<GrantRef> = (0..12).map(|_| scene.front.buffer()).collect();
        grants[bad] = NONE;
        let requests: Vec<_> =
            (0..).zip(grants.chunks(3)).map(|(id, three)| write(id, id * 100, three)).collect();
        let mut expected = [Status::Okay; 4];
        expected[bad / 3] = Status::Error;
        assert_eq!(scene.carry_out(&requests), expected, "grant {bad}");
        scene.end();
    }
}

#[test]
fn xsa_362_a_ring_full_of_grants_that_cannot_be_mapped_stops_nothing() {
    for keeps in [true, false] {
        let mut scene = Scene::with(Abi::X86_64, keeps);
        let good = scene.front.buffer();
        let mut requests: Vec<_> = (0..31).map(|id| write(id, 0, &[NONE; 11])).collect();
        requests.push(read(31, 0, &[good]));
        let mut expected = [Status::Error; 32];
        expected[31] = Status::Okay;
        for _ in 0..3 {
            assert_eq!(scene.carry_out(&requests), expected);
        }
        assert_eq!(scene.mapped(), if keeps { 2 } else { 1 }, "the ring and the one good page");
        scene.end();
    }
}

#[test]
fn xsa_365_a_bad_grant_among_new_and_kept_ones_is_noticed() {
    for bad in 0..6 {
        let mut scene = Scene::new();
        let mut grants: Vec<GrantRef> = (0..6).map(|_| scene.front.buffer()).collect();
        // Every other one stays mapped from before.
        let kept: Vec<GrantRef> = grants.iter().copied().step_by(2).collect();
        assert_eq!(scene.carry_out(&[read(0, 0, &kept)]), [Status::Okay]);
        grants[bad] = NONE;
        let requests = [write(1, 0, &grants), write(2, 100, &kept)];
        assert_eq!(scene.carry_out(&requests), [Status::Error, Status::Okay], "grant {bad}");
        scene.end();
    }
}

#[test]
fn xsa_371_no_page_stays_mapped_over_many_connections() {
    let mut scene = Scene::new();
    let grants: Vec<GrantRef> = (0..5).map(|_| scene.front.buffer()).collect();
    for round in 0..200 {
        assert_eq!(scene.carry_out(&[write(round, 0, &grants)]), [Status::Okay]);
        assert_eq!(scene.mapped(), 6, "round {round}");
        scene.front.set_state(XenbusState::Closed);
        scene.settle();
        assert_eq!(scene.mapped(), 0, "round {round}");
        scene.front.set_state(XenbusState::Initialising);
        scene.settle();
        scene.front.reconnect();
        scene.settle();
        assert_eq!(WANTED.back_node(&scene.world.dom0, "state").as_deref(), Some("4"));
    }
    scene.end();
}

#[test]
fn linux_2018_kept_grants_are_not_hoarded_by_the_back() {
    let mut scene = Scene::new();
    let most = 32 * blkif::SEGMENTS_MAX + 1;
    for round in 0..40 {
        let grants: Vec<GrantRef> = (0..32).map(|_| scene.front.buffer()).collect();
        let requests: Vec<_> = (0..).zip(&grants).map(|(id, &it)| read(id, 0, &[it])).collect();
        assert_eq!(scene.carry_out(&requests), [Status::Okay; 32], "round {round}");
        assert!(scene.mapped() <= most, "{} pages mapped", scene.mapped());
    }
    scene.end();
}

#[test]
fn linux_2018_a_front_that_keeps_no_grants_can_end_each_after_its_answer() {
    let mut scene = Scene::with(Abi::X86_64, false);
    let grants: Vec<GrantRef> = (0..11).map(|_| scene.front.buffer()).collect();
    for round in 0..5 {
        assert_eq!(scene.carry_out(&[write(round, 0, &grants)]), [Status::Okay]);
        let mapped = scene.world.sim.audit().grants.iter().filter(|grant| grant.2 > 0).count();
        assert_eq!(mapped, 1, "the ring alone");
    }
    scene.end();
}
