//! A ring that is written down is still the same ring, whatever becomes of the file.

use std::collections::VecDeque;

use blkif::{Abi, Agreed, Discard, Features, Geometry, Request, Status};
use xen::{DomainId, Port};

use super::*;
use crate::scratch::Scratch;

/// A ring whose front has asked for so many flushes, in a turn each, and then talks nonsense.
struct Script {
    requests: VecDeque<Raw>,
    next: Index,
    unanswered: u32,
}

const BROKEN: Broken = Broken { alleged: Index::new(99), consumed: Index::new(0), limit: 32 };

impl Script {
    fn new(requests: u64) -> Self {
        let requests = (0..requests).map(|id| Raw::from(Request::flush(id))).collect();
        Self { requests, next: Index::new(u32::MAX), unanswered: 0 }
    }
}

impl Queue for Script {
    fn next(&self) -> Index {
        self.next
    }

    fn unanswered(&self) -> u32 {
        self.unanswered
    }

    fn take(&mut self, raw: &mut Raw) -> Result<Option<()>, Broken> {
        *raw = self.requests.pop_front().ok_or(BROKEN)?;
        self.next = self.next.after(1);
        self.unanswered += 1;
        Ok(Some(()))
    }

    fn put(&mut self, _: Response) -> Result<(), Full> {
        self.unanswered = self.unanswered.checked_sub(1).ok_or(Full)?;
        Ok(())
    }

    fn publish(&mut self) -> Notify {
        Notify::Needed
    }

    fn rest(&mut self) -> Result<Rest, Broken> {
        Ok(Rest::Idle)
    }
}

fn link() -> Link<()> {
    let (abi, features) = (Abi::X86_64, Features::FLUSH);
    let discard_limits = Discard::default();
    let agreed = Agreed { abi, order: 0, indirect_max: 32, features, discard_limits };
    let geometry = Geometry::new(16).unwrap();
    Link { peer: DomainId(5), ring: (), port: Port(1), agreed, geometry, past: Past::default() }
}

fn tape(trace: &Trace, name: &str) -> Tape {
    Tape::new(trace.pen().unwrap(), name, &link())
}

/// Takes and answers everything; tells how much that was.
fn serve(ring: &mut Traced<Script>) -> u64 {
    for count in 0.. {
        let mut raw = Raw::new();
        let Ok(taken) = ring.take(&mut raw) else { return count };
        assert_eq!(taken, Some(()));
        let Raw { id, operation, .. } = raw;
        ring.put(Response { id, operation, status: Status::Okay }).unwrap();
        assert_eq!(ring.put(Response { id, operation, status: Status::Okay }), Err(Full));
        assert_eq!(ring.publish(), Notify::Needed);
        assert_eq!(ring.publish(), Notify::Needed);
        assert_eq!(ring.rest(), Ok(Rest::Idle));
    }
    unreachable!("a script ends")
}

#[test]
fn everything_that_passes_is_written_down_once_and_in_order() {
    let folder = Scratch::new("trace");
    let path = folder.path().join("trace");
    let trace = Trace::create(&path).unwrap();
    let mut other = tape(&trace, "6/51712").around(Script::new(0));
    let mut ring = tape(&trace, "5/51712").around(Script::new(2));
    ring.grown(32);
    ring.described(&Segments::new());
    assert_eq!(serve(&mut ring), 2);
    drop(ring);
    assert_eq!(other.rest(), Ok(Rest::Idle));
    let found = records(&std::fs::read(&path).unwrap()).unwrap();
    let own: Vec<_> = found.iter().filter(|it| it.0 == 1).map(|it| &it.1).collect();
    let Record::Begin(begin) = own[0] else { panic!("{own:?}") };
    assert_eq!((begin.name.as_str(), begin.index), ("5/51712", Index::new(u32::MAX)));
    let turn = |index: u32, id: u64| {
        let (before, after) = (Index::new(index), Index::new(index).after(1));
        let answer = Response { id, operation: 3, status: Status::Okay };
        [
            Record::Take(before, Raw::from(Request::flush(id))),
            Record::Put(before, answer),
            Record::Publish(after, Notify::Needed),
            Record::Rest(after, Rest::Idle),
        ]
    };
    let end = [Record::Broken(BROKEN), Record::End(0)];
    let before = [Record::Grow(32), Record::Describe(Segments::new())];
    let want = [&before, &turn(u32::MAX, 0)[..], &turn(0, 1), &end];
    assert_eq!(own[1..], want.concat().iter().collect::<Vec<_>>());
    assert!(matches!(&found.last().unwrap(), (0, Record::Rest(..))));
}

#[test]
fn a_trace_stays_within_its_limit_says_that_it_is_full_and_the_ring_goes_on() {
    let folder = Scratch::new("trace-full");
    let path = folder.path().join("trace");
    let trace = Trace::create(&path).unwrap();
    // The second finds what the first has left.
    for requests in [3, 100] {
        let pen = Pen { bytes_max: 1000, ..trace.pen().unwrap() };
        let mut ring = Tape::new(pen, "5/51712", &link()).around(Script::new(requests));
        assert_eq!(serve(&mut ring), requests);
    }
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() <= 1000 && bytes.len() > 900, "{}", bytes.len());
    assert_eq!(records(&bytes).unwrap().pop(), Some((u32::MAX, Record::Full)));
}

#[test]
fn a_file_that_cannot_be_written_ends_the_trace_and_the_ring_goes_on() {
    let trace = Trace::create(Path::new("/dev/full"));
    // It takes nothing at all, not even the beginning.
    assert!(trace.is_err());
    let pen = Pen::new(File::create("/dev/full").unwrap().into(), 0);
    let mut ring = Tape::new(pen, "5/51712", &link()).around(Script::new(3));
    assert_eq!(serve(&mut ring), 3);
    assert!(ring.tape.pen.file.is_none());
}
