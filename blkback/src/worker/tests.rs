//! Workers where there is no Xen: they open images, say what is missing, and go.

use blkif::{Abi, Agreed, Discard, Features, Geometry};
use xen::{DomainId, GrantRef};

use super::*;
use crate::scratch::Scratch;

/// The next report; the bell rings for each.
fn await_report(workers: &mut Workers) -> (WorkerId, Report) {
    for _ in 0..1000 {
        if let Some(report) = workers.report() {
            return report;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("no report");
}

fn workers() -> Workers {
    Workers::new(Bell::new().expect("a bell can be had"))
}

const FIRST: WorkerId = WorkerId(1);
const SECOND: WorkerId = WorkerId(2);

#[test]
fn a_worker_opens_its_image_says_why_it_cannot_connect_and_goes_when_told() {
    if Path::new("/dev/xen/evtchn").exists() {
        return;
    }
    let folder = Scratch::new("worker-life");
    let image = folder.file("d.img", 8192);
    let mut workers = workers();
    workers.open(FIRST, "1/51712", image.clone(), false);
    let (_, Report::Opened(profile)) = await_report(&mut workers) else { panic!("not open") };
    assert_eq!(profile.sectors, 16);
    let connect = Connect {
        peer: DomainId(1),
        ring: vec![GrantRef(8)],
        port: Port(9),
        agreed: Agreed {
            abi: Abi::X86_64,
            order: 0,
            features: Features::empty(),
            discard_limits: Discard::default(),
        },
        geometry: Geometry::new(16).unwrap(),
    };
    workers.connect(FIRST, connect);
    let (_, Report::Unconnected(reason)) = await_report(&mut workers) else { panic!("connected") };
    assert!(reason.contains("/dev/xen/evtchn"), "{reason}");
    workers.stop(FIRST);
    assert_eq!(await_report(&mut workers), (FIRST, Report::Stopped));
    workers.dismiss(FIRST);
    assert_eq!(await_report(&mut workers), (FIRST, Report::Gone));
    // Its image is free again.
    assert!(Image::open(&image, false).is_ok());
}

#[test]
fn an_image_that_its_last_user_is_about_to_close_is_waited_for() {
    let folder = Scratch::new("worker-waits");
    let image = folder.file("d.img", 8192);
    let first = Image::open(&image, false).unwrap();
    let mut workers = workers();
    workers.open(FIRST, "1/51712", image, false);
    thread::sleep(IN_USE_PAUSE * 2);
    assert_eq!(workers.report(), None);
    drop(first);
    assert!(matches!(await_report(&mut workers), (FIRST, Report::Opened(_))));
}

#[test]
fn an_image_that_cannot_be_opened_is_said_and_is_no_bug() {
    let mut workers = workers();
    workers.open(FIRST, "1/51712", "/none/at/all".into(), false);
    let (_, Report::Unopened(reason)) = await_report(&mut workers) else { panic!("open") };
    assert!(reason.contains("no such file"), "{reason}");
    thread::sleep(Duration::from_millis(20));
    assert_eq!(workers.report(), None);
}

#[test]
fn a_panic_in_one_worker_is_reported_and_leaves_the_others_alone() {
    let folder = Scratch::new("worker-panic");
    let mut workers = workers();
    workers.open(SECOND, "2/51712", folder.file("d.img", 8192), false);
    assert!(matches!(await_report(&mut workers), (SECOND, Report::Opened(_))));
    workers.hire(FIRST, "1/51712", |_, _, _| panic!("as a test")).unwrap();
    assert_eq!(await_report(&mut workers), (FIRST, Report::Gone));
    workers.stop(SECOND);
    assert_eq!(await_report(&mut workers), (SECOND, Report::Stopped));
}

#[test]
fn a_storm_of_empty_events_is_noticed_and_ends_with_the_next_request() {
    let mut storm = Storm::default();
    assert!(!storm.is_on(5));
    for _ in 0..EMPTY_EVENTS_MAX {
        assert!(!storm.is_on(5));
    }
    assert!(storm.is_on(5) && storm.is_on(5));
    assert!(!storm.is_on(6));
}

#[test]
fn xsa_332_events_without_end_cost_a_small_share_of_a_processor() {
    // An event is there whenever somebody looks, and a turn over nothing takes so long.
    const TURN: Duration = Duration::from_micros(5);
    let (mut storm, mut now, mut busy) = (Storm::default(), Duration::ZERO, Duration::ZERO);
    while now < Duration::from_secs(1) {
        busy += TURN;
        now += TURN;
        if storm.is_on(0) {
            now += STORM_PAUSE;
        }
    }
    assert!(busy < Duration::from_millis(10), "{busy:?} of a second");
}

#[test]
fn xsa_374_a_worker_that_is_dismissed_in_the_middle_of_anything_frees_its_image() {
    let folder = Scratch::new("worker-dismissed");
    let image = folder.file("d.img", 8192);
    for round in 0..40 {
        let mut workers = workers();
        workers.open(FIRST, "1/51712", image.clone(), false);
        if round % 2 == 0 {
            await_report(&mut workers);
        }
        if round % 4 < 2 {
            workers.stop(FIRST);
        }
        workers.dismiss(FIRST);
        // Waits for the thread, wherever it was.
        drop(workers);
        assert!(Image::open(&image, false).is_ok(), "round {round}");
    }
}
