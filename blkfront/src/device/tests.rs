//! A device from its directory to its disk and back, against a store and a back that is played.

use XenbusState::{Closed, Closing, Connected, InitWait, Initialising};

use super::*;
use crate::fake::FakeStore;
use crate::fake::{BACK, FRONT, FakeBack, FakeEvents, FakeGrants, back_says, directories};

struct Scene {
    store: FakeStore,
    grants: FakeGrants,
    events: FakeEvents,
    device: Device<FakeGrants, FakeEvents>,
}

const GEOMETRY: [(&str, &str); 3] =
    [("sectors", "2048"), ("feature-flush-cache", "1"), ("feature-persistent", "1")];

fn scene(order: u32) -> Scene {
    let (store, grants, events) = (directories(), FakeGrants::new(100), FakeEvents::default());
    let ends = (grants.clone(), events.clone());
    let device = Device::open(&store, FRONT, ends, Wishes { order, pool_pages: 20 }).unwrap();
    Scene { store, grants, events, device }
}

impl Scene {
    fn back(&mut self, state: XenbusState, nodes: &[(&str, &str)]) {
        back_says(&self.store, state, nodes);
        self.device.turn(&self.store).unwrap();
    }

    fn node(&self, key: &str) -> Option<String> {
        self.store.get(&format!("{FRONT}/{key}"))
    }

    fn connected(order: u32) -> (Self, FakeBack) {
        let mut scene = scene(order);
        scene.back(InitWait, &[("max-ring-page-order", "4")]);
        let back = FakeBack::connect(&scene.store, &scene.grants);
        scene.back(Connected, &GEOMETRY);
        assert!(scene.device.is_connected());
        (scene, back)
    }

    fn nothing_is_left(&self) {
        assert_eq!((self.grants.granted(), self.grants.pages_out()), (0, 0));
        assert_eq!(self.events.open(), []);
    }
}

#[test]
fn a_device_goes_from_1_over_3_to_4_with_the_back() {
    let mut scene = scene(0);
    scene.device.turn(&scene.store).unwrap();
    assert_eq!(scene.node("state").as_deref(), Some("1"));
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("3"));
    assert_eq!(scene.node("protocol").as_deref(), Some("x86_64-abi"));
    assert_eq!(scene.node("feature-persistent").as_deref(), Some("1"));
    assert_eq!(scene.node("ring-page-order"), None);
    assert!(!scene.device.is_connected());
    scene.back(Connected, &GEOMETRY);
    assert_eq!(scene.node("state").as_deref(), Some("4"));
    let disk = scene.device.disk().unwrap();
    assert_eq!((disk.geometry().sectors, disk.free_slots(), disk.free_pages()), (2048, 64, 20));
}

#[test]
fn the_ring_is_as_large_as_wished_or_as_the_back_takes() {
    for (wish, most, slots) in [(4, "2", 128), (1, "4", 64), (9, "9", 512), (0, "4", 32)] {
        let mut scene = scene(wish);
        scene.back(InitWait, &[("max-ring-page-order", most)]);
        let _back = FakeBack::connect(&scene.store, &scene.grants);
        scene.back(Connected, &GEOMETRY);
        assert_eq!(scene.device.disk().unwrap().free_slots(), 2 * slots);
    }
}

#[test]
fn where_grants_are_short_the_disk_has_fewer_pages() {
    for (grants, pages) in [(21, Some(20)), (20, Some(10)), (11, Some(10)), (10, None)] {
        let mut scene = scene(0);
        scene.grants.limit_grants(grants);
        scene.back(InitWait, &[]);
        let back = FakeBack::connect(&scene.store, &scene.grants);
        back_says(&scene.store, Connected, &GEOMETRY);
        let joined = scene.device.turn(&scene.store);
        assert_eq!(joined.is_ok(), pages.is_some(), "{grants} grants: {joined:?}");
        let disk = scene.device.disk().map(|disk| disk.free_pages());
        assert_eq!(disk, pages, "{grants} grants");
        drop(back);
    }
}

#[test]
fn a_back_that_was_in_4_before_us_is_joined_all_the_same() {
    let mut scene = scene(0);
    scene.back(Connected, &GEOMETRY);
    assert!(scene.device.is_connected());
}

#[test]
fn what_a_former_connection_left_in_the_directory_is_gone() {
    let mut scene = scene(0);
    for key in ["ring-page-order", "ring-ref0", "ring-ref7", "multi-queue-num-queues"] {
        scene.store.set(&format!("{FRONT}/{key}"), "1");
    }
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("ring-ref0").or(scene.node("multi-queue-num-queues")), None);
    assert!(scene.node("ring-ref").is_some());
}

#[test]
fn answers_that_a_back_left_behind_are_given_before_the_ring_is_taken_back() {
    let (mut scene, mut back) = Scene::connected(0);
    let disk = scene.device.disk().unwrap();
    for sector in [0, 64] {
        let buffer = disk.buffer(512).unwrap();
        disk.submit(blkif::Operation::Read, sector, buffer).unwrap();
    }
    disk.kick();
    scene.back(Closing, &[]);
    // The back answers one request and is gone before we look at the ring.
    let request = back.take().unwrap();
    back.answer(request.id, request.operation, blkif::Status::Okay);
    scene.grants.unmap_all();
    scene.back(Closed, &[]);
    assert!(scene.device.is_closing());
    let disk = scene.device.disk().unwrap();
    assert_eq!(disk.poll().unwrap().unwrap().status, blkif::Status::Okay);
    assert!(disk.poll().unwrap().is_none());
    // The other one is lost, as nobody is there to answer it.
    scene.device.turn(&scene.store).unwrap();
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
}

#[test]
fn a_front_that_closes_while_the_back_maps_its_ring_waits_for_the_back() {
    let mut scene = scene(0);
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("3"));
    let ring = scene.node("ring-ref").unwrap().parse().unwrap();
    let _mapped = scene.grants.map(xen::GrantRef(ring));
    scene.device.close(&scene.store).unwrap();
    scene.device.turn(&scene.store).unwrap();
    assert_eq!(scene.node("state").as_deref(), Some("5"));
    scene.back(Connected, &[]);
    scene.grants.unmap_all();
    scene.back(Closing, &[]);
    scene.back(Closed, &[]);
    assert!(scene.device.is_closed());
    assert_eq!(scene.device.pages_kept(), 0);
    scene.nothing_is_left();
}

#[test]
fn a_ring_is_offered_again_when_the_directory_was_replaced_under_it() {
    let mut scene = scene(0);
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("3"));
    let first = scene.node("ring-ref");
    // The tool stack takes the disk away and attaches it anew, and we hear of it only afterwards.
    scene.store.set(&format!("{FRONT}/state"), "1");
    for key in ["ring-ref", "event-channel", "protocol"] {
        scene.store.remove(Transaction::NONE, &format!("{FRONT}/{key}")).unwrap();
    }
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("3"));
    assert!(first.is_some() && scene.node("ring-ref").is_some());
    assert_eq!((scene.grants.granted(), scene.events.open().len()), (1, 1));
}

#[test]
fn a_close_by_the_back_drains_first_and_takes_pages_back_last() {
    let (mut scene, mut back) = Scene::connected(0);
    let disk = scene.device.disk().unwrap();
    let buffer = disk.buffer(4096).unwrap();
    disk.submit(blkif::Operation::Read, 0, buffer).unwrap();
    disk.kick();
    scene.back(Closing, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("5"));
    let request = back.take().unwrap();
    back.answer(request.id, request.operation, blkif::Status::Okay);
    let disk = scene.device.disk().unwrap();
    let refused = disk.submit(blkif::Operation::Read, 0, disk.buffer(512).unwrap());
    assert_eq!(refused.unwrap_err().error, crate::SubmitError::Closing);
    assert!(disk.poll().unwrap().is_some());
    scene.device.turn(&scene.store).unwrap();
    assert_eq!(scene.node("state").as_deref(), Some("6"));
    assert!(scene.grants.granted() > 0, "the back lets go only at our 6");
    scene.grants.unmap_all();
    scene.back(Closed, &[]);
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
    assert_eq!(scene.device.pages_kept(), 0);
}

#[test]
fn pages_that_the_back_keeps_mapped_are_kept_and_counted() {
    let (mut scene, back) = Scene::connected(2);
    scene.back(Closed, &[]);
    assert!(scene.device.is_closed());
    assert_eq!(scene.device.pages_kept(), 4);
    assert_eq!((scene.grants.granted(), scene.grants.pages_out()), (4, 4));
    drop(back);
}

#[test]
fn a_new_back_after_a_close_is_joined_with_a_new_ring() {
    let (mut scene, _) = Scene::connected(0);
    let first = scene.node("ring-ref");
    scene.grants.unmap_all();
    scene.back(Closing, &[]);
    scene.back(Closed, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("6"));
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("3"));
    assert_ne!(scene.node("ring-ref"), first);
    let _back = FakeBack::connect(&scene.store, &scene.grants);
    scene.back(Connected, &GEOMETRY);
    assert!(scene.device.is_connected());
}

#[test]
fn a_back_that_begins_anew_without_a_close_is_joined_with_a_new_ring() {
    let (mut scene, _) = Scene::connected(0);
    scene.back(Initialising, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("1"));
    assert_eq!(scene.device.pages_kept(), 1);
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("3"));
}

#[test]
fn a_back_that_vanishes_closes_the_device_and_no_node_comes_back() {
    let (mut scene, _) = Scene::connected(0);
    scene.grants.unmap_all();
    scene.store.cut(BACK);
    scene.store.cut(FRONT);
    scene.device.turn(&scene.store).unwrap();
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
    assert_eq!(scene.store.under(FRONT), 0);
}

#[test]
fn a_directory_that_vanishes_before_the_offer_is_not_written_again() {
    let mut scene = scene(0);
    scene.store.cut(FRONT);
    scene.back(InitWait, &[]);
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
    assert_eq!(scene.store.under(FRONT), 0);
}

#[test]
fn a_close_from_our_side_stays_closed_when_the_back_waits_again() {
    let (mut scene, _) = Scene::connected(0);
    scene.device.close(&scene.store).unwrap();
    assert_eq!(scene.node("state").as_deref(), Some("5"));
    scene.grants.unmap_all();
    scene.back(Closing, &[]);
    scene.back(Closed, &[]);
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
    scene.back(InitWait, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("6"));
}

#[test]
fn a_repeated_4_gives_the_disk_its_new_size() {
    let (mut scene, _) = Scene::connected(0);
    let ring = scene.node("ring-ref");
    scene.back(Connected, &[("sectors", "4096")]);
    assert_eq!(scene.device.disk().unwrap().geometry().sectors, 4096);
    scene.back(Connected, &[]);
    assert_eq!((scene.node("ring-ref"), scene.node("state").as_deref()), (ring, Some("4")));
}

#[test]
fn nonsense_from_the_back_is_reported_and_ends_the_device() {
    let mut scene = scene(0);
    scene.back(InitWait, &[]);
    scene.back(Connected, &[("sectors", "0x800")]);
    assert_eq!(scene.node("state").as_deref(), Some("5"));
    let error = scene.store.get(&format!("error/{FRONT}/error"));
    assert_eq!(error.as_deref(), Some("sectors is not a decimal number"));
    scene.back(Closing, &[]);
    scene.back(Closed, &[]);
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
}

#[test]
fn a_silly_limit_is_refused_once_and_not_for_ever() {
    let mut scene = scene(0);
    scene.back(InitWait, &[("max-ring-page-order", "x")]);
    assert_eq!(scene.node("state").as_deref(), Some("6"));
    assert!(scene.device.is_closed());
    scene.nothing_is_left();
}

#[test]
fn a_fault_of_the_ring_is_reported_and_ends_the_device_without_waiting_for_answers() {
    let (mut scene, mut back) = Scene::connected(0);
    let disk = scene.device.disk().unwrap();
    let buffer = disk.buffer(4096).unwrap();
    disk.submit(blkif::Operation::Read, 0, buffer).unwrap();
    disk.kick();
    let request = back.take().unwrap();
    back.answer(request.id ^ 1, request.operation, blkif::Status::Okay);
    assert!(disk.poll().is_err());
    scene.device.turn(&scene.store).unwrap();
    assert_eq!(scene.node("state").as_deref(), Some("5"));
    let error = scene.store.get(&format!("error/{FRONT}/error")).unwrap();
    assert!(error.contains("not in flight"), "{error}");
    scene.back(Closing, &[]);
    assert_eq!(scene.node("state").as_deref(), Some("6"));
}

#[test]
fn a_pool_is_no_larger_than_all_slots_can_carry() {
    let (store, grants, events) = (directories(), FakeGrants::new(1000), FakeEvents::default());
    let wishes = Wishes { order: 0, pool_pages: 999 };
    let mut device = Device::open(&store, FRONT, (grants, events), wishes).unwrap();
    back_says(&store, Connected, &GEOMETRY);
    device.turn(&store).unwrap();
    assert_eq!(device.disk().unwrap().free_pages(), 32 * 11);
}

#[test]
fn too_little_memory_for_the_pool_ends_the_device_and_says_so() {
    let (store, grants, events) = (directories(), FakeGrants::new(10), FakeEvents::default());
    let ends = (grants.clone(), events);
    let wishes = Wishes { order: 0, pool_pages: 20 };
    let mut device = Device::open(&store, FRONT, ends, wishes).unwrap();
    back_says(&store, InitWait, &[]);
    device.turn(&store).unwrap();
    back_says(&store, Connected, &GEOMETRY);
    let error = device.turn(&store).unwrap_err();
    assert_eq!(error, DeviceError::Setup(SetupError::OutOfMemory));
    assert_eq!(store.get(&format!("{FRONT}/state")).as_deref(), Some("5"));
    assert_eq!(grants.pages_out(), 1, "the ring may be mapped still");
}

#[test]
fn a_device_without_its_nodes_is_not_opened() {
    for key in ["backend", "backend-id"] {
        let store = directories();
        store.cut(&format!("{FRONT}/{key}"));
        let ends = (FakeGrants::new(9), FakeEvents::default());
        let wishes = Wishes { order: 0, pool_pages: 1 };
        let error = Device::open(&store, FRONT, ends, wishes).err();
        assert_eq!(error, Some(DeviceError::Directory(key)));
    }
}
