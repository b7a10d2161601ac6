//! The daemon and the guest of a device's process, both as simple as can be: one connection, in
//! which data is written, flushed and read back, and then the order to stop.
//!
//! It writes the ring's words itself (`xen/include/public/io/ring.h`, `blkif.h`) and must never
//! believe an answer: what was written is looked for in the image, what was read in memory.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use blkif::{Abi, Features, Operation, Request, Segment, Segments};
use nix::unistd::Pid;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, send, sendmsg, socketpair,
};
use xen::GrantRef;

use crate::tracer::PORT;

const PAGE_BYTES: usize = 4096;
/// The ring's page, then those for data.
const PAGES: u64 = 8;
/// Of the image, in sectors.
pub(crate) const SECTORS: u64 = 64;
/// Where the ring's words are, in bytes.
const REQUESTS_PRODUCED: u64 = 0;
const RESPONSES_PRODUCED: u64 = 8;
const RESPONSE_EVENT: u64 = 12;
const SLOTS: u64 = 64;
const SLOT_BYTES: u64 = 112;
/// What is written; each page differs.
const WRITTEN: u8 = 0x11;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of one connection.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// It said that it serves.
    pub(crate) connected: bool,
    /// It had given up its rights when it said so.
    pub(crate) confined: bool,
    /// Answers that said that all is well.
    done: u32,
    /// Its last word, if it said one: how it ended.
    pub(crate) last: Option<u8>,
    /// What it said that was not so.
    pub(crate) lies: Vec<String>,
}

impl Life {
    /// All was done, and it ended as it was told.
    pub(crate) fn is_whole(&self) -> bool {
        self.done == 5 && self.last == Some(b's')
    }
}

/// Who a device's process has to do with.
pub(crate) struct Front {
    line: OwnedFd,
    events: OwnedFd,
    memory: File,
    image: File,
    process: Pid,
    produced: u32,
    /// An event waits, as the last one was not answered by an unmask.
    pending: bool,
    masked: bool,
    life: Life,
}

impl Front {
    /// Gives the process its orders.
    pub(crate) fn new(line: OwnedFd, image: &Path, process: Pid) -> Self {
        let memory = File::from(memfd_create("granted", MemfdFlags::CLOEXEC).expect("memory"));
        memory.set_len(PAGES * PAGE_BYTES as u64).expect("memory");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (events, theirs) = pair.expect("a pair of sockets");
        let image = OpenOptions::new().read(true).write(true).open(image).expect("an image");
        // As `Begin` of `blkback/src/orders.rs`: guest, port, layout, order, indirect segments, features,
        // two of discards, four of the geometry, four of the image, the past, no trace, the ring's reference.
        let features = u64::from((Features::PERSISTENT | Features::FLUSH).bits());
        let (guest, port, reference) = (1, 9, 0);
        let words =
            [guest, port, 0, 0, 0, features, 0, 0, SECTORS, 512, 512, 0, SECTORS, 512, 0, 0, 0, 0];
        let begin = words.into_iter().chain([reference]).flat_map(u64::to_ne_bytes);
        let begin: Vec<u8> = begin.collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let with = [image.as_fd(), theirs.as_fd(), memory.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&with)), "there is room");
        // Nobody may be there to listen any more.
        let _ = sendmsg(&line, &[IoSlice::new(&begin)], &mut ancillary, SendFlags::NOSIGNAL);
        Self {
            line,
            events,
            memory,
            image,
            process,
            produced: 0,
            pending: false,
            masked: false,
            life: Life::default(),
        }
    }

    /// One connection, as far as it goes.
    pub(crate) fn live(&mut self) -> Life {
        if self.hears() == Some(b'c') {
            self.life.connected = true;
            self.life.confined = self.is_confined();
            // Two that are apart, in one batch.
            self.fill(1..4, WRITTEN);
            let all = self.ask(Operation::Write, 0, 1..3) && self.ask(Operation::Write, 40, 3..4);
            let all = all && self.answered(2);
            if all && self.ask(Operation::Flush, 0, 0..0) && self.answered(1) {
                self.look_at_the_image(0, 1..3);
                self.look_at_the_image(40, 3..4);
            }
            self.fill(4..7, !WRITTEN);
            let asked = self.ask(Operation::Read, 0, 4..6) && self.ask(Operation::Read, 40, 6..7);
            if asked && self.answered(2) {
                self.look_at_memory();
            }
            let _ = send(&self.line, b"stop", SendFlags::NOSIGNAL);
            self.hears();
        }
        std::mem::take(&mut self.life)
    }

    /// What it says next, and nothing after its last word; `None`: it is gone.
    fn hears(&mut self) -> Option<u8> {
        let mut bytes = [0; 1024];
        let (count, _) = recv(&self.line, &mut bytes, RecvFlags::empty()).ok()?;
        let letter = *bytes[..count].first()?;
        if letter != b'c' {
            self.life.last = Some(letter);
        }
        Some(letter)
    }

    fn is_confined(&self) -> bool {
        let about = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", self.process));
        let (Ok(status), Ok(limits)) = (about("status"), about("limits")) else {
            // It is gone already, and serves nobody.
            return true;
        };
        let within = |name: &str, most: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().take(2).all(|word| word == most)
        };
        status.contains("\nSeccomp:\t2\n")
            && status.contains("\nNoNewPrivs:\t1\n")
            && within("Max address space", "134217728")
            && within("Max open files", "16")
            && within("Max core file size", "0")
    }

    /// Fills pages for data, each with a byte of its own.
    fn fill(&self, pages: Range<u32>, byte: u8) {
        for page in pages {
            self.write(place(page), &content(byte, page));
        }
    }

    /// Puts a request of whole pages on the ring and tells the back; `false`: it is gone.
    fn ask(&mut self, operation: Operation, sector: u64, pages: Range<u32>) -> bool {
        let segments: Segments = pages.map(GrantRef).map(Segment::whole).collect();
        let id = u64::from(self.produced);
        let request = match operation {
            Operation::Flush => Request::flush(id),
            _ => Request::transfer(id, operation, sector, segments),
        };
        let words = request.words(Abi::X86_64, 0);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.write(SLOTS + u64::from(self.produced) * SLOT_BYTES, &bytes);
        if self.word(RESPONSES_PRODUCED) == self.produced {
            // With the first answer to come.
            self.write(RESPONSE_EVENT, &(self.produced + 1).to_ne_bytes());
        }
        self.produced += 1;
        self.write(REQUESTS_PRODUCED, &self.produced.to_ne_bytes());
        self.pending = true;
        self.deliver();
        !self.is_gone()
    }

    /// Delivers an event as the node does: a port is masked from then on, until it is unmasked.
    fn deliver(&mut self) {
        let mut port = [0; 4];
        while recv(&self.events, &mut port, RecvFlags::DONTWAIT).is_ok_and(|(count, _)| count > 0) {
            self.masked = false;
        }
        if self.pending && !self.masked {
            // Nobody may be there to listen any more.
            let _ = send(&self.events, &PORT.to_ne_bytes(), SendFlags::NOSIGNAL);
            (self.pending, self.masked) = (false, true);
        }
    }

    /// Waits for so many answers; `false`: not all of them said that it was done.
    fn answered(&mut self, count: u32) -> bool {
        let end = Instant::now() + PATIENCE;
        while self.word(RESPONSES_PRODUCED) < self.produced {
            if self.word(RESPONSES_PRODUCED) > self.produced || self.is_gone() {
                return false;
            }
            if Instant::now() > end {
                self.life.lies.push("it serves and does not answer".into());
                return false;
            }
            self.deliver();
            thread::sleep(Duration::from_micros(200));
        }
        let fine = (self.produced - count..self.produced).filter(|&at| {
            let slot = SLOTS + u64::from(at) * SLOT_BYTES;
            let (operation_and_status, id) = (self.word(slot + 8), self.word(slot));
            id < self.produced && operation_and_status >> 16 == 0
        });
        let fine = u32::try_from(fine.count()).unwrap_or(0);
        self.life.done += fine;
        fine == count
    }

    fn is_gone(&self) -> bool {
        let mut byte = [0];
        let peeked = recv(&self.line, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    fn look_at_the_image(&mut self, sector: u64, pages: Range<u32>) {
        for (at, page) in (0..).zip(pages) {
            let mut found = [0; PAGE_BYTES];
            let at = sector * 512 + place(at);
            self.image.read_exact_at(&mut found, at).expect("the image can be read");
            if found != content(WRITTEN, page) {
                self.life.lies.push(format!("page {page} is not in the image"));
            }
        }
    }

    fn look_at_memory(&mut self) {
        for (read, written) in (4..7).zip(1..) {
            let mut found = [0; PAGE_BYTES];
            self.memory.read_exact_at(&mut found, place(read)).expect("memory can be read");
            if found != content(WRITTEN, written) {
                self.life.lies.push(format!("page {written} was not read"));
            }
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).expect("memory can be written");
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, at).expect("memory can be read");
        u32::from_ne_bytes(bytes)
    }
}

/// Where a page is in memory.
fn place(page: u32) -> u64 {
    u64::from(page) * PAGE_BYTES as u64
}

/// What a page is filled with.
fn content(byte: u8, page: u32) -> [u8; PAGE_BYTES] {
    [byte ^ page.to_ne_bytes()[0]; PAGE_BYTES]
}
