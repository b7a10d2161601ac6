//! A machine to play on: a domain of the simulator, and a back that serves it from memory.
//!
//! The back answers a batch in reverse order, so that nothing here can count on order. It is
//! turned whenever the machine waits; time passes only then.

extern crate std;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use blkif::{
    Abi, Agreed, BackOffer, Discard, Features, FrontOffer, Geometry, Info, Operation, Raw, Request,
    Response, Segment, Status, negotiate,
};
use ring::sync::AtomicU32;
use ring::{Back, Broken, Memory, PAGE_WORDS, Rest};
use sim::{Audit, Domain, MappedPage, Sim};
use xen::{Access, DomainId, Events, Maps, Port, Store, Transaction, XenbusState};

use super::{Disks, Failure, Machine, Program};
use crate::cpu::CpuTimes;
use crate::time::Instant;

const NONE: Transaction = Transaction::NONE;
const GUEST: DomainId = DomainId(1);

/// What the back does wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mischief {
    /// Answer this request (counted from 0) with an error.
    pub(crate) error_at: Option<u64>,
    /// Answer this request with an id of somebody else.
    pub(crate) lie_at: Option<u64>,
    /// Close the device before this request.
    pub(crate) close_at: Option<u64>,
    /// Never answer from this request on.
    pub(crate) silent_from: Option<u64>,
}

struct RingPages(Vec<MappedPage>);

impl Memory for RingPages {
    fn words(&self) -> usize {
        self.0.len() * PAGE_WORDS
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        self.0[index / PAGE_WORDS].word(index % PAGE_WORDS)
    }
}

struct Connection {
    ring: Back<RingPages>,
    agreed: Agreed,
    port: Port,
}

/// One disk of the guest, as its back has it.
pub(crate) struct PlayDisk {
    pub(crate) number: u32,
    pub(crate) medium: Vec<u8>,
    pub(crate) geometry: Geometry,
    pub(crate) features: Features,
    pub(crate) mischief: Mischief,
    pub(crate) served: u64,
    pub(crate) flushes: u64,
    /// It appears at this wait of the machine; 0: it is there from the start.
    pub(crate) late: u64,
    connection: Option<Connection>,
    /// The front's index made no sense: its ring is not read again.
    broken: bool,
}

impl PlayDisk {
    fn new(at: u32, sectors: usize) -> Self {
        let mut medium = vec![0_u8; sectors * 512];
        for (index, byte) in medium.iter_mut().enumerate() {
            *byte = (index * 7 + index / 512 + (at as usize) * 31).to_le_bytes()[0];
        }
        Self {
            number: if at < 16 { 51712 + at * 16 } else { 1 << 28 | at << 8 },
            medium,
            geometry: Geometry::new(sectors as u64).unwrap(),
            features: Features::PERSISTENT | Features::FLUSH,
            mischief: Mischief::default(),
            served: 0,
            flushes: 0,
            late: 0,
            connection: None,
            broken: false,
        }
    }

    fn folders(&self) -> (String, String) {
        let number = self.number;
        (
            format!("/local/domain/1/device/vbd/{number}"),
            format!("/local/domain/0/backend/vbd/1/{number}"),
        )
    }

    /// What the tool stack and a back that waits write.
    fn announce(&self, root: &Domain) {
        let (front, back) = self.folders();
        root.write(NONE, &front, "").unwrap();
        root.permit(NONE, &front, GUEST, DomainId::ZERO).unwrap();
        root.write(NONE, &back, "").unwrap();
        root.permit(NONE, &back, DomainId::ZERO, GUEST).unwrap();
        root.write(NONE, &format!("{front}/backend"), &back).unwrap();
        root.write(NONE, &format!("{front}/backend-id"), "0").unwrap();
        root.write(NONE, &format!("{front}/state"), "1").unwrap();
        let put = |key: &str, value: fmt::Arguments<'_>| {
            root.write(NONE, &format!("{back}/{key}"), &value.to_string())
        };
        self.offer().write_limits(put).unwrap();
        self.say(root, XenbusState::InitWait);
    }

    fn offer(&self) -> BackOffer {
        let (features, discard) = (self.features, Discard::default());
        BackOffer { max_order: 4, indirect_max: 0, features, discard }
    }

    fn say(&self, root: &Domain, state: XenbusState) {
        root.write(NONE, &format!("{}/state", self.folders().1), &state.to_string()).unwrap();
    }

    fn front_state(&self, root: &Domain) -> XenbusState {
        let state = root.read(NONE, &format!("{}/state", self.folders().0)).unwrap();
        XenbusState::parse(state.as_deref())
    }

    fn own_state(&self, root: &Domain) -> XenbusState {
        let state = root.read(NONE, &format!("{}/state", self.folders().1)).unwrap();
        XenbusState::parse(state.as_deref())
    }

    /// Closes a connection whose front writes nonsense.
    fn give_up(&mut self, root: &Domain, reason: Broken) {
        self.broken = true;
        let path = format!("{}/error", self.folders().1);
        root.write(NONE, &path, &reason.to_string()).unwrap();
        self.say(root, XenbusState::Closing);
    }

    /// Does what the front's state asks for, and serves what is in the ring.
    fn turn(&mut self, root: &Domain) {
        match self.front_state(root) {
            XenbusState::Initialised | XenbusState::Connected if self.connection.is_none() => {
                self.connect(root);
            }
            XenbusState::Closing => self.say(root, XenbusState::Closing),
            XenbusState::Closed if self.connection.is_some() => {
                if let Some(connection) = self.connection.take() {
                    root.close(connection.port);
                }
                self.say(root, XenbusState::Closed);
            }
            // The front has come back.
            XenbusState::Initialising if self.own_state(root) == XenbusState::Closed => {
                self.broken = false;
                self.say(root, XenbusState::InitWait);
            }
            _ => {}
        }
        if !self.broken {
            self.serve(root);
        }
    }

    fn connect(&mut self, root: &Domain) {
        let (front, back) = self.folders();
        let node = |key: &str| root.read(NONE, &format!("{front}/{key}")).unwrap();
        let offer = FrontOffer::read(node, 4, Abi::X86_64).unwrap();
        let agreed = negotiate(&offer, &self.offer()).unwrap();
        let pages = root.map(GUEST, &offer.ring, Access::Write).unwrap();
        let ring = Back::attach(RingPages(pages), agreed.abi.layout(agreed.order));
        let port = root.bind(GUEST, offer.port).unwrap();
        self.connection = Some(Connection { ring, agreed, port });
        let mut put = |key: &str, value: fmt::Arguments<'_>| {
            root.write(NONE, &format!("{back}/{key}"), &value.to_string())
        };
        self.offer().write_features(&mut put).unwrap();
        self.geometry.write(put).unwrap();
        self.say(root, XenbusState::Connected);
    }

    fn serve(&mut self, root: &Domain) {
        let Some(mut connection) = self.connection.take() else { return };
        let mut batch = Vec::new();
        let broken = loop {
            match connection.ring.take(|reader| Raw::parse(reader, Abi::X86_64)) {
                Ok(Some(raw)) => batch.push(raw),
                Ok(None) => break None,
                Err(broken) => break Some(broken),
            }
        };
        if let Some(broken) = broken {
            self.give_up(root, broken);
        }
        for raw in batch.into_iter().rev() {
            self.answer(root, &mut connection, raw);
        }
        if connection.ring.publish() == ring::Notify::Needed {
            root.notify(connection.port);
        }
        if !self.broken {
            assert_eq!(connection.ring.rest(), Ok(Rest::Idle), "the front runs when we do not");
        }
        self.connection = Some(connection);
    }

    fn answer(&mut self, root: &Domain, connection: &mut Connection, raw: Raw) {
        let at = Some(self.served);
        self.served += 1;
        if self.mischief.close_at == at {
            self.say(root, XenbusState::Closing);
        }
        if self.mischief.silent_from.is_some_and(|from| self.served > from) {
            return;
        }
        let (id, operation) = (raw.id, raw.operation);
        let mut response = match raw.check(&self.geometry, &connection.agreed) {
            Ok(request) => {
                let done = self.transfer(root, &request).is_some();
                let status = if done { Status::Okay } else { Status::Error };
                Response { id, operation, status }
            }
            Err(reject) => reject.response,
        };
        if self.mischief.error_at == at {
            response.status = Status::Error;
        }
        if self.mischief.lie_at == at {
            response.id ^= 1 << 40;
        }
        connection.ring.put(&response.words(Abi::X86_64)).unwrap();
    }

    /// `None` if a page was not granted.
    fn transfer(&mut self, root: &Domain, request: &Request<&[Segment]>) -> Option<()> {
        if request.operation == Operation::Flush {
            self.flushes += 1;
        }
        let mut at = usize::try_from(request.sector).unwrap() * 512;
        for segment in request.segments {
            let page = root.map(GUEST, &[segment.reference], Access::Write).ok()?.remove(0);
            let part = &mut self.medium[at..at + segment.length_bytes()];
            match request.operation {
                Operation::Read => page.write(segment.offset_bytes(), part),
                _ => page.read(segment.offset_bytes(), part),
            }
            at += segment.length_bytes();
        }
        Some(())
    }
}

/// The machine.
pub(crate) struct Play {
    sim: Sim,
    root: Domain,
    guest: Domain,
    backs: RefCell<Vec<PlayDisk>>,
    lines: RefCell<Vec<String>>,
    time: Cell<u64>,
    step: Cell<u64>,
    interrupt_at: Cell<u64>,
    waits: Cell<u64>,
    free_pages: u64,
    marks: RefCell<Vec<&'static str>>,
    disk_wait: Cell<u64>,
    stolen: Cell<u64>,
    pub(crate) keys: RefCell<VecDeque<u8>>,
}

impl Play {
    /// A machine with `disks` disks of `sectors` sectors, each filled with something else.
    pub(crate) fn new(disks: u32, sectors: usize) -> Self {
        Self::with(disks, sectors, 100_000, |_| {})
    }

    /// The same with other disks or less memory.
    pub(crate) fn with(
        disks: u32,
        sectors: usize,
        free_pages: u64,
        change: impl Fn(&mut PlayDisk),
    ) -> Self {
        let sim = Sim::new(1);
        let (root, guest) = (sim.domain(DomainId::ZERO), sim.domain(GUEST));
        let mut backs = Vec::new();
        for at in 0..disks {
            let mut disk = PlayDisk::new(at, sectors);
            change(&mut disk);
            if disk.late == 0 {
                disk.announce(&root);
            }
            backs.push(disk);
        }
        Self {
            sim,
            root,
            guest,
            backs: RefCell::new(backs),
            lines: RefCell::default(),
            time: Cell::new(1),
            step: Cell::new(0),
            interrupt_at: Cell::new(u64::MAX),
            waits: Cell::new(0),
            free_pages,
            marks: RefCell::default(),
            disk_wait: Cell::new(0),
            stolen: Cell::new(0),
            keys: RefCell::default(),
        }
    }

    /// Its disks, connected.
    pub(crate) fn disks(&self) -> Disks<Self> {
        let mut disks = Disks::new();
        disks.connect(self, Duration::from_secs(60));
        disks
    }

    /// Looks at, or changes, a disk as its back has it.
    pub(crate) fn back<T>(&self, at: usize, look: impl FnOnce(&mut PlayDisk) -> T) -> T {
        look(&mut self.backs.borrow_mut()[at])
    }

    /// Everything printed since the last call.
    pub(crate) fn printed(&self) -> String {
        self.lines.take().join("\n")
    }

    pub(crate) fn marks(&self) -> Vec<&'static str> {
        self.marks.borrow().clone()
    }

    /// Ctrl-C at the next wait but `waits`.
    pub(crate) fn interrupt_after(&self, waits: u64) {
        self.interrupt_at.set(waits);
    }

    /// From now on so much time passes whenever a program asks whether it is to end.
    pub(crate) fn step(&self, time: Duration) {
        self.step.set(u64::try_from(time.as_nanos()).unwrap());
    }

    /// The back of a disk wants it closed.
    pub(crate) fn close_back(&self, at: usize) {
        self.back(at, |disk| disk.say(&self.root, XenbusState::Closing));
    }

    /// The tool stack gives the machine one disk more, its number `at`.
    pub(crate) fn plug(&self, at: u32) {
        let disk = PlayDisk::new(at, 8);
        disk.announce(&self.root);
        self.backs.borrow_mut().push(disk);
    }

    /// Lets others take the processor for so long.
    pub(crate) fn steal(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap();
        self.time.set(self.time.get() + ns);
        self.stolen.set(self.stolen.get() + ns);
    }

    /// A disk that nobody writes to.
    pub(crate) fn read_only(disk: &mut PlayDisk) {
        disk.geometry.info = Info::READ_ONLY;
    }

    /// Runs a program as the shell does.
    pub(crate) fn run(
        &self,
        disks: &mut Disks<Self>,
        program: Program<Self>,
        line: &str,
    ) -> Result<String, Failure> {
        let words: Vec<String> = line.split_whitespace().map(ToString::to_string).collect();
        let ended = program(self, disks, &words);
        disks.settle(self);
        ended.map(|()| self.printed())
    }

    /// Checks that everything that was lent came back.
    pub(crate) fn assert_clean(self, mut disks: Disks<Self>) {
        disks.close(&self);
        drop(disks);
        // A guest that ends keeps its watches: xenstore drops them with it.
        let left = Audit { watches: Vec::new(), ..self.sim.audit() };
        assert!(left.is_clean(), "{left}");
    }
}

impl Machine for Play {
    type Grants = Domain;
    type Events = Domain;
    type Store = Domain;

    fn ends(&self) -> (Domain, Domain) {
        (self.guest.clone(), self.guest.clone())
    }

    fn store(&self) -> Option<&Domain> {
        Some(&self.guest)
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.time.get())
    }

    fn hypercalls(&self) -> u64 {
        self.waits.get()
    }

    fn wall_clock(&self) -> Duration {
        Duration::from_secs(1_800_000_000)
    }

    fn wait(&self, _: Option<Instant>, note: &mut dyn FnMut(Port)) {
        self.waits.set(self.waits.get() + 1);
        self.time.set(self.time.get() + 5_000_000);
        for disk in self.backs.borrow_mut().iter_mut() {
            if disk.late == self.waits.get() {
                disk.announce(&self.root);
            }
            disk.turn(&self.root);
        }
        while self.root.take_event().is_some() {}
        while let Some(port) = self.guest.take_event() {
            note(port);
        }
    }

    fn wait_for_disks(&self, until: Option<Instant>, note: &mut dyn FnMut(Port)) {
        let before = self.time.get();
        self.wait(until, note);
        self.disk_wait.set(self.disk_wait.get() + self.time.get() - before);
    }

    fn cpu_times(&self) -> CpuTimes {
        let idle = self.time.get() - self.disk_wait.get() - self.stolen.get();
        let (wait, steal) = (self.disk_wait.get(), self.stolen.get());
        CpuTimes { user: 0, system: 0, idle, wait, steal }
    }

    fn key(&self) -> Option<u8> {
        self.keys.borrow_mut().pop_front()
    }

    fn interrupted(&self) -> bool {
        self.time.set(self.time.get() + self.step.get());
        let left = self.interrupt_at.get();
        self.interrupt_at.set(if left == 0 { u64::MAX } else { left.saturating_sub(1) });
        left == 0
    }

    fn free_pages(&self) -> u64 {
        self.free_pages
    }

    fn mark(&self, name: &'static str) {
        self.marks.borrow_mut().push(name);
    }

    fn print(&self, line: fmt::Arguments<'_>) {
        self.lines.borrow_mut().push(line.to_string());
    }
}
