//! What was written down of a ring is played again, and gives the same answers: rings of the
//! simulator, and rings of real guests on a real Xen (`tests/traces`).

use std::path::PathBuf;

use blkback::trace::{MAGIC, Record, Tape, Trace, records};
use blkback::{Session, Turn};
use blkif::{Operation, Raw, Request, Segment, Status};
use ring::Index;
use sim::{Random, Sim};
use tests::fuzz::seeds::traces;
use tests::oracle::{Terms, judge};
use tests::replay::{Connection, Replayed, connections, replay};
use tests::torture::counter::agreed;
use tests::torture::wild::{SLOT_WORDS, Slot, Wild};
use tests::{Platter, RawFront, SeededDisk, join};
use xen::{DomainId, GrantRef};

const SECTORS: usize = 512;
const GUEST: DomainId = DomainId(5);

/// A file that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("replay-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A request that is mostly lawful, of so many words; none fails for its grants alone.
fn wild(random: &mut Random, terms: &Terms, good: &[GrantRef], words: usize) -> Slot {
    let grants = (good[0].0, u32::try_from(good.len()).expect("few"));
    let wild = Wild { terms, grants, segments_max: 11, descriptors: None };
    let mut slot = [0; SLOT_WORDS];
    loop {
        wild.fill(random, &mut slot);
        let bytes: Vec<u8> = slot[..words].iter().flat_map(|word| word.to_le_bytes()).collect();
        let used =
            judge(&bytes, terms, |_| None).work.map(|work| work.segments[..work.count].to_vec());
        let usable = |segment: &(u32, u8, u8)| good.contains(&GrantRef(segment.0));
        if used.unwrap_or_default().iter().all(usable) {
            return slot;
        }
    }
}

/// A disk that does everything, or neither flushes nor discards.
fn terms(wide: bool, able: bool) -> Terms {
    let sectors = SECTORS as u64;
    Terms { wide, sectors, unit: 1, read_only: false, flush: able, discard: able, indirect: 0 }
}

/// The trace of a session in the simulator that served so many requests, and whose disk had twice as
/// many sectors from their midst on.
fn recorded(name: &str, terms: &Terms, persistent: bool, requests: u64) -> Vec<u8> {
    let file = Scratch::new(name);
    let trace = Trace::create(&file.0).expect("a file");
    let sim = Sim::new(1);
    let (geometry, agreed) = agreed(terms, 0, persistent);
    let ring = (0, Index::new(u32::MAX - 5));
    let mut front = RawFront::lend(&sim.domain(GUEST), "", DomainId::ZERO, agreed.abi, ring);
    let good: Vec<GrantRef> = (0..8).map(|_| front.buffer()).collect();
    let (server, link) = join(&sim, (GUEST, &front), (agreed, geometry));
    let platter = Platter::new(SECTORS);
    let disk = SeededDisk::new(&platter, sim.clock(), 1);
    let tape = Tape::new(trace.pen().expect("a pen"), "5/51712", &link);
    let mut session =
        Session::wrapped(server.clone(), server, disk, link, |ring| tape.around(ring));
    let mut random = Random::new(requests);
    let length = agreed.abi.layout(0).slot_words();
    let (mut asked, mut terms) = (0, *terms);
    while asked < requests || session.pending() > 0 {
        if asked > requests / 2 && terms.sectors == SECTORS as u64 {
            platter.grow(SECTORS);
            terms.sectors *= 2;
            session.grow(terms.sectors);
        }
        let batch = random.below(8) as u64;
        for _ in 0..batch.min(requests - asked) {
            let slot = wild(&mut random, &terms, &good, length);
            asked += u64::from(front.put(&slot[..length]));
        }
        front.publish();
        assert!(matches!(session.turn(), Ok(Turn::Again | Turn::Idle)));
        while front.take().expect("our back is honest").is_some() {}
    }
    drop(session);
    front.disconnect();
    std::fs::read(&file.0).expect("the trace")
}

fn one(bytes: &[u8]) -> Connection {
    connections(bytes).expect("a whole trace").pop().expect("a connection")
}

#[test]
fn what_the_simulator_wrote_down_gives_the_same_answers_again() {
    for (name, terms, persistent) in [
        ("kept", terms(true, true), true),
        ("copied", terms(false, true), false),
        ("plain", terms(true, false), false),
    ] {
        let connection = one(&recorded(name, &terms, persistent, 300));
        for seed in 0..5 {
            let replayed = replay(&connection, seed).expect(name);
            assert_eq!((replayed.requests, replayed.answers), (300, 300), "{name}");
            assert!(replayed.refused > 10 && replayed.refused < 290, "{name}: {replayed:?}");
            assert_eq!(replayed.flushes > 10, terms.flush, "{replayed:?}");
        }
    }
}

/// Records, each with the number of its connection.
type Records = Vec<(u32, Record)>;

/// The bytes of a trace with these records.
fn bytes_of(all: &[(u32, Record)]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    all.iter().for_each(|(connection, record)| record.write(*connection, &mut bytes));
    bytes
}

#[test]
fn a_trace_that_is_not_of_this_back_is_found_out() {
    let whole = records(&recorded("lies", &terms(true, true), true, 60)).expect("whole");
    let with = |change: &dyn Fn(&mut Records)| {
        let mut changed = whole.clone();
        change(&mut changed);
        replay(&one(&bytes_of(&changed)), 1)
    };
    assert!(with(&|_| {}).is_ok());
    let put = |all: &[(u32, Record)]| all.iter().position(|it| matches!(it.1, Record::Put(..)));
    // Another status, another id, an answer that is missing, and one that is given twice.
    let other_status = with(&|all| {
        let at = put(all).expect("an answer");
        let Record::Put(_, response) = &mut all[at].1 else { return };
        response.status =
            if response.status == Status::Okay { Status::Error } else { Status::Okay };
    });
    assert!(other_status.is_err(), "{other_status:?}");
    let other_id = with(&|all| {
        let at = put(all).expect("an answer");
        let Record::Put(_, response) = &mut all[at].1 else { return };
        response.id += 1000;
    });
    assert!(other_id.is_err(), "{other_id:?}");
    let missing = with(&|all| drop(all.remove(put(all).expect("an answer"))));
    assert!(missing.is_err(), "{missing:?}");
    let twice = with(&|all| {
        let at = put(all).expect("an answer");
        all.insert(at, all[at].clone());
    });
    assert!(twice.is_err(), "{twice:?}");
}

#[test]
fn a_flush_that_is_answered_before_an_earlier_write_is_found_out() {
    let segment = Segment { reference: GrantRef(9), first_sector: 0, last_sector: 7 };
    let write = Request::transfer(7, Operation::Write, 0, [segment].into_iter().collect());
    let (write, flush) = (Raw::from(write), Raw::from(Request::flush(8)));
    let begin = records(&recorded("order", &terms(true, true), true, 1)).expect("whole");
    let answer = |id, operation| blkif::Response { id, operation, status: Status::Okay };
    let (first, second) = (Index::new(u32::MAX - 5), Index::new(u32::MAX - 4));
    let taken =
        [begin[0].clone(), (0, Record::Take(first, write)), (0, Record::Take(second, flush))];
    let ends = |answers: [blkif::Response; 2]| {
        let puts = [(0, Record::Put(first, answers[0])), (0, Record::Put(second, answers[1]))];
        let end = [(0, Record::End(0))];
        replay(&one(&bytes_of(&[&taken[..], &puts, &end].concat())), 1)
    };
    let expected = Replayed { requests: 2, answers: 2, refused: 0, flushes: 1 };
    assert_eq!(ends([answer(7, 1), answer(8, 3)]), Ok(expected));
    let hasty = ends([answer(8, 3), answer(7, 1)]).expect_err("hasty");
    assert!(hasty.contains("before"), "{hasty}");
}

#[test]
fn what_guests_asked_on_a_real_xen_is_answered_here_as_it_was_there() {
    let traces = traces();
    assert!(traces.len() >= 2, "the traces are missing");
    for (name, bytes) in traces {
        let connections = connections(&bytes).expect(&name);
        assert!(!connections.is_empty(), "{name} is empty");
        for (connection, seed) in connections.iter().zip(1..) {
            let replayed = replay(connection, seed).expect(&name);
            assert!(replayed.requests > 10 && replayed.answers == replayed.requests, "{name}");
        }
    }
}
