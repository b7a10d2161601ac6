//! What fronts did to backs.

use blkif::{Abi, Operation, Request, Response, Segment, Segments, Status};
use ring::Front;
use sim::Random;
use tests::Wanted;
use tests::torture::{Flicker, Tally, pages, requests};
use xen::{DomainId, Events, GrantRef, XenbusState};

use crate::{SECTORS, Scene, WANTED, read, write};

#[test]
fn xsa_39_a_bad_ring_costs_a_bounded_amount_and_leaves_nothing_behind() {
    let memory = Flicker::new(pages::WORDS, 16);
    let (mut random, mut tally) = (Random::new(39), Tally::default());
    // Each turn is held against its bound in there, and each session's end against nothing left.
    while tally.broken < 10 {
        pages::play(&memory, &mut random, 64, &mut tally);
    }
}

#[test]
fn cve_2013_2140_nothing_that_writes_reaches_a_read_only_disk() {
    let mut scene = Scene::new();
    let good = scene.front.buffer();
    scene.platter.write(0, &[0x5a; SECTORS * 512]);
    // The same disk, attached anew and not to be written.
    scene.front.set_state(XenbusState::Closed);
    WANTED.detach(&scene.world.dom0).expect("detached");
    scene.settle();
    WANTED.remove(&scene.world.dom0).expect("removed");
    scene.settle();
    let read_only = Wanted { read_only: true, ..WANTED };
    read_only.attach(&scene.world.dom0).expect("attached");
    scene.front.reconnect();
    scene.settle();
    let requests = [
        Request::discard(1, 0, 8),
        write(2, 0, &[good]),
        Request::transfer(3, Operation::Flush, 0, [Segment::whole(good)].into_iter().collect()),
        Request::flush(4),
        read(5, 0, &[good]),
    ];
    use Status::{Error, Okay, Unsupported};
    assert_eq!(scene.carry_out(&requests), [Unsupported, Error, Error, Okay, Okay]);
    assert_eq!(scene.platter.read(0, SECTORS), vec![0x5a; SECTORS * 512]);
    scene.end();
}

#[test]
fn xsa_155_no_word_of_a_request_is_fetched_twice() {
    let memory = Flicker::new(2048, 0);
    let mut tally = Tally::default();
    requests::play(&memory, &mut Random::new(155), 3000, &mut tally);
    // And by a whole session.
    let memory = Flicker::new(pages::WORDS, 16);
    while tally.pages < 200 {
        pages::play(&memory, &mut Random::new(155 + tally.pages), 64, &mut tally);
    }
}

#[test]
fn xsa_155_no_word_of_a_response_is_fetched_twice() {
    let memory = Flicker::new(2048, 0);
    let layout = Abi::X86_64.layout(0);
    let mut front = Front::new(&memory, layout);
    for round in 0..100_u32 {
        assert!(front.put(&[0; 6]).is_ok());
        memory.begin();
        let _ = front.publish();
        let id = u64::from(round) << 33 | 7;
        let sent = Response { id, operation: 3, status: Status::Unsupported };
        let place = 16 + (round % layout.slots()) as usize * layout.slot_words();
        for (at, &word) in sent.words(Abi::X86_64).iter().enumerate() {
            memory.poke(place + at, word);
        }
        memory.poke(2, round + 1);
        memory.begin();
        assert_eq!(front.take(Response::parse), Ok(Some(sent)));
    }
}

#[test]
fn xsa_216_no_byte_of_a_response_is_what_stood_there_before() {
    for (abi, words) in [(Abi::X86_64, 4), (Abi::X86_32, 3)] {
        let mut scene = Scene::with(abi, true);
        let requests = [Request::flush(0x1122_3344_5566_7788), read(u64::MAX, 0, &[])];
        for request in &requests {
            let mut slot = request.words(abi, 0).to_vec();
            slot.resize(abi.layout(0).slot_words(), 0xa5a5_a5a5);
            assert!(scene.front.put(&slot));
        }
        scene.front.publish();
        scene.settle();
        let slot = |nth: usize| {
            let first = 16 + nth * abi.layout(0).slot_words();
            (first..first + words).map(|word| scene.front.peek(word)).collect::<Vec<_>>()
        };
        let okay = [0x5566_7788, 0x1122_3344, 3, 0];
        let error = [u32::MAX, u32::MAX, 0xffff_0000, 0];
        let mut found = [slot(0), slot(1)];
        // Which one is answered first is the back's affair.
        found.sort_unstable();
        assert_eq!(found, [okay[..words].to_vec(), error[..words].to_vec()]);
        assert_eq!(scene.answers().len(), 2);
        scene.end();
    }
}

#[test]
fn xsa_229_neighbours_are_joined_by_their_place_on_the_disk_and_not_by_their_pages() {
    for keeps in [true, false] {
        let mut scene = Scene::with(Abi::X86_64, keeps);
        let mut grants: Vec<GrantRef> = (0..24).map(|_| scene.front.buffer()).collect();
        for (value, &grant) in (1..).zip(&grants) {
            scene.front.page(grant).write(0, &[value; 4096]);
        }
        // Far from each other in the guest's memory, next to each other on the disk.
        grants.sort_unstable_by_key(|grant| grant.0.wrapping_mul(0x9e37_79b9));
        let writes = |grants: &[GrantRef], distance: u64| -> Vec<Request> {
            let all = (0..).zip(grants.chunks(3));
            all.map(|(id, three)| write(id, id * distance, three)).collect()
        };
        let bytes = |scene: &Scene, grants: &[GrantRef]| -> Vec<u8> {
            let page = |&grant| {
                let mut bytes = [0; 4096];
                scene.front.page(grant).read(0, &mut bytes);
                bytes
            };
            grants.iter().flat_map(page).collect()
        };
        assert_eq!(scene.carry_out(&writes(&grants, 24)), [Status::Okay; 8]);
        assert_eq!(scene.world.crew().count(|counters| counters.merged), 7);
        assert!(scene.platter.read(0, 24 * 8) == bytes(&scene, &grants));
        // And the reverse: these go on in memory where the one before ends, and not on the disk.
        grants.sort_unstable();
        assert_eq!(scene.carry_out(&writes(&grants, 32)), [Status::Okay; 8]);
        assert_eq!(scene.world.crew().count(|counters| counters.merged), 7);
        for (at, three) in grants.chunks(3).enumerate() {
            assert!(scene.platter.read(at * 32, 24) == bytes(&scene, three), "request {at}");
        }
        scene.end();
    }
}

#[test]
fn xsa_331_events_to_and_from_a_port_that_is_gone_hit_nobody() {
    let mut scene = Scene::new();
    let good = scene.front.buffer();
    scene.platter.hold();
    scene.put(&[read(1, 0, &[good])]);
    scene.settle();
    // The front's end goes while an answer is on its way; the simulator panics over a closed port.
    scene.world.sim.kill(DomainId(5));
    scene.platter.release();
    scene.settle();
    WANTED.remove(&scene.world.dom0).expect("removed");
    scene.settle();
    assert_eq!(scene.mapped(), 0);
    // The number is given out again, and an event for its new owner is his.
    let (dom0, other) = (scene.world.dom0.clone(), scene.world.sim.domain(DomainId(6)));
    let offered = other.offer(DomainId::ZERO).expect("a port");
    let port = dom0.bind(DomainId(6), offered).expect("it is offered");
    dom0.notify(port);
    assert_eq!(other.take_event(), Some(offered));
    dom0.close(port);
    other.close(offered);
    drop(scene.front);
    scene.world.end();
}

#[test]
fn xsa_332_an_event_without_a_request_costs_one_look() {
    const STORM: u64 = 5000;
    let mut scene = Scene::new();
    let before = scene.world.sim.calls(DomainId::ZERO);
    for _ in 0..STORM {
        scene.front.notify();
        scene.world.turn_back();
    }
    let calls = scene.world.sim.calls(DomainId::ZERO) - before;
    // Two looks at xenstore and two at the event channels in each round, with or without it.
    assert!(calls <= STORM * 5, "{calls} calls for {STORM} events");
    assert_eq!(scene.world.crew().count(|counters| counters.notifications), 0);
    assert!(!scene.world.turn_back(), "the last event keeps the back busy");
    scene.end();
}

/// What happens in a life of the sort that XSA-350 went wrong in.
const HAPPENINGS: [&str; 7] = ["1", "3", "4", "5", "6", "turn", "disk"];

#[test]
fn xsa_350_states_that_change_while_requests_are_in_flight_lose_and_keep_nothing() {
    for number in 0..HAPPENINGS.len().pow(4) {
        let mut scene = Scene::new();
        let [good, other] = [scene.front.buffer(), scene.front.buffer()];
        scene.front.page(good).write(0, &[0x5a; 4096]);
        scene.platter.hold();
        scene.put(&[read(1, 0, &[other]), write(2, 64, &[good]), Request::flush(3)]);
        scene.world.turn_back();
        for at in 0..4 {
            match HAPPENINGS[number / HAPPENINGS.len().pow(at) % HAPPENINGS.len()] {
                "turn" => {
                    scene.world.turn_back();
                }
                "disk" => {
                    scene.platter.release();
                    scene.world.turn_back();
                    scene.platter.hold();
                }
                state => scene.front.write("state", state).expect("its own"),
            }
            // Who hears that the back is gone or begins anew may take its pages back.
            if let Some("2" | "6") = scene.state().as_deref() {
                assert_eq!(scene.mapped(), 0, "pages stay mapped in {number}");
            }
        }
        scene.platter.release();
        scene.settle();
        assert_eq!(scene.platter.waiting(), 0, "{number}");
        // What was taken is done, whatever became of the connection.
        assert!(scene.platter.read(64, 8) == [0x5a; 4096], "a write was lost in {number}");
        scene.end();
    }
}

#[test]
fn xsa_392_a_front_that_takes_no_answers_has_a_ring_of_memory_and_no_more() {
    for keeps in [true, false] {
        let mut scene = Scene::with(Abi::X86_64, keeps);
        let grants: Vec<GrantRef> = (0..11).map(|_| scene.front.buffer()).collect();
        let request = read(1, 0, &grants).words(Abi::X86_64, 0);
        let mut put = 0;
        for _ in 0..5 {
            while scene.front.put(&request) {
                put += 1;
            }
            scene.front.publish();
            scene.settle();
        }
        assert_eq!(put, 32, "requests");
        assert_eq!(scene.world.crew().count(|counters| counters.requests), 32);
        assert_eq!(scene.mapped(), if keeps { 12 } else { 1 });
        while scene.front.take().expect("honest").is_some() {}
        // With a ring full of requests at the disk there is no room for one more, whatever it says.
        scene.platter.hold();
        while scene.front.put(&request) {}
        scene.front.publish();
        scene.settle();
        scene.front.poke(0, 65);
        scene.settle();
        assert!(matches!(scene.state().as_deref(), Some("5" | "6")), "{:?}", scene.state());
        scene.platter.release();
        scene.end();
    }
}

/// Requests in the oddest pieces that are lawful, and in some that are not.
fn odd_pieces(grants: &[GrantRef]) -> Vec<(Request, Status)> {
    let piece = |at: usize, first_sector, last_sector| Segment {
        reference: grants[at],
        first_sector,
        last_sector,
    };
    let one = |segments: Segments, id| Request::transfer(id, Operation::Write, 100 * id, segments);
    let single = (0..11_u8).map(|at| piece(at.into(), at % 8, at % 8)).collect();
    let same = (0..11).map(|_| piece(0, 7, 7)).collect();
    let overlapping = [piece(0, 0, 5), piece(0, 2, 7), piece(0, 0, 0)].into_iter().collect();
    let backwards = [piece(0, 0, 7), piece(1, 5, 4)].into_iter().collect();
    let long = (0..11).map(|at| piece(at, 0, 8)).collect();
    vec![
        (one(single, 1), Status::Okay),
        (one(same, 2), Status::Okay),
        (one(overlapping, 3), Status::Okay),
        (one(backwards, 4), Status::Error),
        (one(long, 5), Status::Error),
        (one(Segments::new(), 6), Status::Error),
    ]
}

#[test]
fn xsa_423_432_requests_in_the_oddest_pieces_are_put_together_right_or_refused() {
    for keeps in [true, false] {
        let mut scene = Scene::with(Abi::X86_64, keeps);
        let grants: Vec<GrantRef> = (0..11).map(|_| scene.front.buffer()).collect();
        for (value, &grant) in (0..).zip(&grants) {
            let bytes: Vec<u8> = (0..8).flat_map(|sector| [value * 16 + sector; 512]).collect();
            scene.front.page(grant).write(0, &bytes);
        }
        let (requests, expected): (Vec<_>, Vec<_>) = odd_pieces(&grants).into_iter().unzip();
        assert_eq!(scene.carry_out(&requests), expected);
        for (request, _) in requests.iter().zip(expected).filter(|it| it.1 == Status::Okay) {
            let pieces = request.segments.iter().flat_map(|segment| {
                let mut bytes = vec![0; segment.length_bytes()];
                scene.front.page(segment.reference).read(segment.offset_bytes(), &mut bytes);
                bytes
            });
            let sector = usize::try_from(request.sector).expect("small");
            let sectors = usize::try_from(request.sectors).expect("small");
            assert!(scene.platter.read(sector, sectors) == pieces.collect::<Vec<_>>());
        }
        scene.end();
    }
}

#[test]
fn xsa_424_an_answer_is_written_while_nothing_is_held() {
    // Errors are answered in the turn in which they are found, with other requests in flight.
    let mut scene = Scene::new();
    let good = scene.front.buffer();
    scene.platter.hold();
    scene.put(&[read(1, 0, &[good]), read(2, u64::MAX, &[good]), read(3, 0, &[GrantRef(5000)])]);
    scene.settle();
    let early = scene.answers();
    assert_eq!(early.into_iter().collect::<Vec<_>>(), [(2, Status::Error), (3, Status::Error)]);
    scene.platter.release();
    scene.settle();
    assert_eq!(scene.answers().into_iter().collect::<Vec<_>>(), [(1, Status::Okay)]);
    scene.end();
}

#[test]
fn xsa_448_nothing_of_zero_length_reaches_the_hypervisor_or_the_disk() {
    for keeps in [true, false] {
        let mut scene = Scene::with(Abi::X86_64, keeps);
        let empty = [
            read(1, 0, &[]),
            write(2, 0, &[]),
            Request::discard(3, 0, 0),
            // The one that may be empty; the simulator panics over an empty copy.
            Request::flush(4),
        ];
        use Status::{Error, Okay};
        assert_eq!(scene.carry_out(&empty), [Error, Error, Error, Okay]);
        let calls = scene.world.crew().count(|counters| counters.copy_calls + counters.map_calls);
        assert_eq!(calls, 0, "calls that map or copy");
        scene.end();
    }
}

#[test]
fn linux_a9b54bb9_a_repeated_state_of_the_front_joins_its_ring_once() {
    let mut scene = Scene::new();
    let good = scene.front.buffer();
    scene.platter.hold();
    scene.put(&[read(1, 0, &[good])]);
    scene.settle();
    for state in ["3", "4", "4", "3", "4"] {
        scene.front.write("state", state).expect("its own");
        scene.settle();
        assert_eq!(scene.mapped(), 2, "the ring and the page in flight");
        assert_eq!(scene.state().as_deref(), Some("4"));
    }
    scene.platter.release();
    scene.settle();
    assert_eq!(scene.answers().into_iter().collect::<Vec<_>>(), [(1, Status::Okay)]);
    scene.end();
}

#[test]
fn linux_4a8c31a1_a_ring_page_of_a_former_front_is_not_taken_for_ours() {
    let mut scene = Scene::new();
    scene.front.set_state(XenbusState::Closed);
    scene.settle();
    scene.front.set_state(XenbusState::Initialising);
    scene.settle();
    // Left by a front that had more pages; the one that is there now has one, and no order.
    for key in ["ring-ref0", "ring-ref1"] {
        scene.front.write(key, "4999").expect("its own");
    }
    scene.front.reconnect();
    scene.settle();
    assert_eq!(scene.state().as_deref(), Some("4"));
    assert_eq!(scene.carry_out(&[Request::flush(1)]), [Status::Okay]);
    scene.end();
}
