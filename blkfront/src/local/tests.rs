//! The local disk on a medium in memory that fails where it is told to.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::Mutex;

use blkif::Info;

use super::*;
use crate::fake::FakeGrants;

extern crate std;

const SECTORS: u64 = 256;

/// What was asked of a medium, and what it holds.
#[derive(Default)]
struct Asked {
    bytes: Vec<u8>,
    calls: Vec<(Operation, u64, usize)>,
    /// Sectors that cannot be read or written.
    bad: Option<u64>,
    flush_fails: bool,
}

#[derive(Clone)]
struct Plate(Arc<Mutex<Asked>>);

impl Plate {
    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.0.lock().unwrap()
    }

    /// Notes a call; tells whether it works, and where the bytes are.
    fn note(&self, operation: Operation, sector: u64, length: usize) -> (bool, usize) {
        let mut asked = self.asked();
        asked.calls.push((operation, sector, length));
        let range = sector..sector + (length / 512) as u64;
        (asked.bad.is_none_or(|bad| !range.contains(&bad)), usize::try_from(sector).unwrap() * 512)
    }
}

fn status(works: bool) -> Status {
    if works { Status::Okay } else { Status::Error }
}

impl Medium for Plate {
    fn read(&mut self, sector: u64, out: &mut [u8]) -> Status {
        let (works, at) = self.note(Operation::Read, sector, out.len());
        // Half of it is there before the error.
        let length = if works { out.len() } else { out.len() / 2 };
        out[..length].copy_from_slice(&self.asked().bytes[at..at + length]);
        status(works)
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Status {
        let (works, at) = self.note(Operation::Write, sector, data.len());
        if works {
            self.asked().bytes[at..at + data.len()].copy_from_slice(data);
        }
        status(works)
    }

    fn flush(&mut self) -> Status {
        self.asked().calls.push((Operation::Flush, 0, 0));
        status(!self.asked().flush_fails)
    }
}

fn scene(info: Info) -> (Local<FakeGrants>, Plate, FakeGrants) {
    let bytes = (0..SECTORS * 512).map(|at| (at / 512 + at).to_le_bytes()[0]).collect();
    let plate = Plate(Arc::new(Mutex::new(Asked { bytes, ..Asked::default() })));
    let grants = FakeGrants::new(40);
    let geometry = Geometry { info, ..Geometry::new(SECTORS).unwrap() };
    let named = ("ram0".to_string(), geometry);
    let local = Local::new(&grants, 40, named, Box::new(plate.clone())).unwrap();
    (local, plate, grants)
}

fn submit(local: &mut Local<FakeGrants>, operation: Operation, sector: u64, length: usize) -> Tag {
    let buffer = local.buffer(length).unwrap();
    local.submit(operation, sector, buffer).unwrap()
}

#[test]
fn a_request_is_done_when_it_was_submitted_and_told_when_it_is_polled() {
    let (mut local, plate, grants) = scene(Info::empty());
    let buffer = local.buffer(4096 + 1024).unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(buffer.length_bytes()).collect();
    buffer.write(0, &bytes);
    let written = local.submit(Operation::Write, 3, buffer).unwrap();
    assert_eq!(plate.asked().bytes[3 * 512..13 * 512], bytes);
    let read = submit(&mut local, Operation::Read, 3, bytes.len());
    let flushed = local.flush().unwrap();
    let calls = [
        (Operation::Write, 3, 4096),
        (Operation::Write, 11, 1024),
        (Operation::Read, 3, 4096),
        (Operation::Read, 11, 1024),
        (Operation::Flush, 0, 0),
    ];
    assert_eq!(plate.asked().calls, calls);
    assert_eq!(local.in_flight(), 3);
    for (tag, operation) in
        [(written, Operation::Write), (read, Operation::Read), (flushed, Operation::Flush)]
    {
        let done = local.poll().unwrap();
        assert_eq!((done.tag, done.operation, done.status), (tag, operation, Status::Okay));
        if operation == Operation::Read {
            let mut out = vec![0; bytes.len()];
            done.buffer.unwrap().read(0, &mut out);
            assert_eq!(out, bytes);
        }
    }
    assert!(local.poll().is_none());
    let expected = Counters {
        requests: 3,
        responses: 3,
        read_sectors: 10,
        written_sectors: 10,
        ..Counters::default()
    };
    assert_eq!((*local.counters(), local.free_pages()), (expected, 40));
    drop(local);
    assert_eq!((grants.grants_made(), grants.pages_out()), (0, 0));
}

#[test]
fn a_medium_that_fails_is_an_error_status_and_the_next_request_goes_on() {
    let (mut local, plate, _) = scene(Info::empty());
    plate.asked().bad = Some(12);
    plate.asked().flush_fails = true;
    let buffer = local.buffer(3 * 4096).unwrap();
    buffer.write(0, &[0xee; 3 * 4096]);
    local.submit(Operation::Read, 0, buffer).unwrap();
    submit(&mut local, Operation::Write, 12, 512);
    local.flush().unwrap();
    submit(&mut local, Operation::Read, 13, 512);
    let done = local.poll().unwrap();
    assert_eq!(done.status, Status::Error);
    // The page that failed, and those behind it, are as they were: nothing half read is shown.
    let mut out = vec![0; 2 * 4096];
    done.buffer.unwrap().read(4096, &mut out);
    assert_eq!(out, [0xee; 2 * 4096]);
    assert_eq!(plate.asked().calls[..2], [(Operation::Read, 0, 4096), (Operation::Read, 8, 4096)]);
    assert_eq!(plate.asked().calls[2], (Operation::Write, 12, 512));
    let rest = [(); 3].map(|()| local.poll().unwrap().status);
    assert_eq!(rest, [Status::Error, Status::Error, Status::Okay]);
    assert_eq!(local.counters().errors, 3);
}

#[test]
fn what_is_not_on_the_disk_never_reaches_the_medium() {
    let (mut local, plate, _) = scene(Info::empty());
    submit(&mut local, Operation::Read, SECTORS - 8, 4096);
    let mut refusal = |operation, sector, length| {
        let buffer = local.buffer(length).unwrap();
        let refused = local.submit(operation, sector, buffer).unwrap_err();
        assert!(refused.buffer.is_some_and(|buffer| buffer.length_bytes() == length));
        refused.error
    };
    for sector in [SECTORS - 7, SECTORS, u64::MAX - 7, u64::MAX] {
        let past = SubmitError::Unlawful(Reason::PastTheEnd);
        assert_eq!(refusal(Operation::Read, sector, 4096), past);
        assert_eq!(refusal(Operation::Write, sector, 4096), past);
    }
    let not_offered = SubmitError::Unlawful(Reason::NotAgreed);
    assert_eq!(refusal(Operation::Flush, 0, 512), not_offered);
    assert_eq!(refusal(Operation::Discard, 0, 512), not_offered);
    assert_eq!(plate.asked().calls.len(), 1);
}

#[test]
fn a_read_only_disk_is_read_and_never_written() {
    let (mut local, plate, _) = scene(Info::READ_ONLY);
    submit(&mut local, Operation::Read, 0, 512);
    let buffer = local.buffer(512).unwrap();
    let refused = local.submit(Operation::Write, 0, buffer).unwrap_err();
    assert_eq!(refused.error, SubmitError::Unlawful(Reason::ReadOnly));
    assert_eq!(plate.asked().calls, [(Operation::Read, 0, 512)]);
}

#[test]
fn as_many_completions_wait_as_there_are_slots_and_not_one_more() {
    let (mut local, plate, _) = scene(Info::empty());
    assert_eq!((local.capacity(), local.free_slots()), (64, 64));
    let tags: Vec<Tag> = (0..LOCAL_SLOTS).map(|_| local.flush().unwrap()).collect();
    let mut places: Vec<usize> = tags.iter().map(|tag| tag.place()).collect();
    places.sort_unstable();
    assert_eq!(places, (0..64).collect::<Vec<_>>());
    let buffer = local.buffer(512).unwrap();
    assert_eq!(local.flush(), Err(SubmitError::Busy));
    let refused = local.submit(Operation::Write, 0, buffer).unwrap_err();
    assert_eq!(refused.error, SubmitError::Busy);
    assert_eq!(plate.asked().calls.len(), 64, "what was refused was not done");
    for tag in tags {
        assert_eq!(local.poll().unwrap().tag, tag);
    }
    assert!(local.flush().is_ok());
}

#[test]
fn a_buffer_of_another_disk_is_refused() {
    let (mut local, plate, _) = scene(Info::empty());
    let (other, ..) = scene(Info::empty());
    let refused = local.submit(Operation::Read, 0, other.buffer(512).unwrap()).unwrap_err();
    assert_eq!(refused.error, SubmitError::Foreign);
    assert_eq!(plate.asked().calls, []);
}

#[test]
fn without_memory_there_is_no_disk_and_every_page_is_back() {
    let grants = FakeGrants::new(3);
    let plate = Plate(Arc::default());
    let named = ("ram0".to_string(), Geometry::new(8).unwrap());
    assert!(Local::new(&grants, 4, named, Box::new(plate.clone())).is_none());
    assert_eq!((grants.pages_out(), Arc::strong_count(&plate.0)), (0, 1));
}
