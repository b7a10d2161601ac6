//! The device in xenstore, and the ring that its front lends us.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use blkback::sys::{Channels, GrantDevice, MappedPage};
use blkback::{RingPages, Xenbus, attach, own_domain, vdev};
use blkif::{
    Abi, Agreed, BackOffer, Discard, Features, FrontOffer, Geometry, Operation, Raw, Request,
    Response, Segment, Status, negotiate,
};
use ring::sync::Ordering;
use ring::{Back, Memory, PAGE_WORDS};
use xen::store::Connection;
use xen::{Access, DomainId, Events, Maps, Port, Store, Transaction, XenbusState};

pub(super) type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NONE: Transaction = Transaction::NONE;
/// Sectors of the disk.
pub(super) const SECTORS: u64 = 16_384;
/// How often the ring is looked at.
const TICK: Duration = Duration::from_millis(5);
/// How often xenstore is asked: it serves everybody, and each question costs it more than the ring us.
const QUESTION_EVERY: Duration = Duration::from_millis(100);

/// The device.
pub(super) struct Stage {
    pub(super) store: Connection<Xenbus>,
    guest: DomainId,
    pub(super) front: String,
    pub(super) back: String,
    pub(super) patience: Duration,
}

impl Stage {
    /// Writes both directories and waits in state 2.
    pub(super) fn set(domain: &str, name: &str, patience: Duration) -> Result<Self> {
        let store = Connection::new(Xenbus::open()?);
        let guest = attach::find_domain(&store, domain)?;
        let number = vdev::number(name).ok_or("not the name of a disk")?;
        let server = own_domain(&store)?;
        let front = format!("/local/domain/{guest}/device/vbd/{number}");
        let back = format!("/local/domain/{server}/backend/spite/{guest}/{number}");
        let stage = Self { store, guest, front, back, patience };
        let (front, back) = (stage.front.clone(), stage.back.clone());
        for (folder, owner, reader) in [(&front, guest, server), (&back, server, guest)] {
            stage.store.write(NONE, folder, "")?;
            stage.store.permit(NONE, folder, owner, reader)?;
        }
        stage.say("max-ring-page-order", "0")?;
        stage.say("frontend", &front)?;
        stage.say("frontend-id", &guest.to_string())?;
        stage.say("online", "1")?;
        for (key, value) in [
            ("backend", back.as_str()),
            ("backend-id", &server.to_string()),
            ("virtual-device", &number.to_string()),
            ("device-type", "disk"),
            ("state", "1"),
        ] {
            stage.store.write(NONE, &format!("{front}/{key}"), value)?;
        }
        stage.state(XenbusState::InitWait)?;
        Ok(stage)
    }

    /// Writes a node of the back's.
    pub(super) fn say(&self, key: &str, value: &str) -> Result<()> {
        Ok(self.store.write(NONE, &format!("{}/{key}", self.back), value)?)
    }

    /// Says a state.
    pub(super) fn state(&self, state: XenbusState) -> Result<()> {
        self.say("state", &state.to_string())
    }

    /// The front's state.
    pub(super) fn front_state(&self) -> Result<XenbusState> {
        let text = self.store.read(NONE, &format!("{}/state", self.front))?;
        Ok(XenbusState::parse(text.as_deref()))
    }

    /// Waits until the front is in one of `states`; tells whether it came so far.
    pub(super) fn comes_to(&self, states: &[XenbusState], patience: Duration) -> Result<bool> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if states.contains(&self.front_state()?) {
                return Ok(true);
            }
            thread::sleep(QUESTION_EVERY);
        }
        Ok(false)
    }

    /// What the disk and the back are, as a back with manners says it.
    pub(super) fn introduce(&self) -> Result<()> {
        for (key, value) in [
            ("feature-persistent", "1"),
            ("feature-flush-cache", "1"),
            ("sectors", &SECTORS.to_string()),
            ("sector-size", "512"),
            ("info", "0"),
        ] {
            self.say(key, value)?;
        }
        self.state(XenbusState::Connected)
    }

    /// Maps the front's ring and connects.
    pub(super) fn connect(&self) -> Result<Wire> {
        if !self.comes_to(&[XenbusState::Initialised, XenbusState::Connected], self.patience)? {
            return Err("the front does not come".into());
        }
        let node =
            |key: &str| self.store.read(NONE, &format!("{}/{key}", self.front)).ok().flatten();
        let offer = FrontOffer::read(node, 0, Abi::X86_64).map_err(|it| it.to_string())?;
        let features = Features::PERSISTENT | Features::FLUSH;
        let discard = Discard::default();
        let back = BackOffer { max_order: 0, indirect_max: 0, features, discard };
        let agreed = negotiate(&offer, &back).map_err(|it| it.to_string())?;
        let (grants, channels) = (GrantDevice::open()?, Channels::open()?);
        let pages = grants.map(self.guest, &offer.ring, Access::Write)?;
        let port = channels.bind(self.guest, offer.port)?;
        let layout = agreed.abi.layout(agreed.order);
        let ring = Back::attach(RingPages::new(pages.clone()), layout);
        self.introduce()?;
        let medium = vec![0; usize::try_from(SECTORS)? * 512];
        let geometry = Geometry::new(SECTORS).map_err(|it| it.to_string())?;
        let peer = self.guest;
        let (served, kept) = (0, Vec::new());
        Ok(Wire {
            peer,
            grants,
            channels,
            port,
            pages,
            ring,
            agreed,
            geometry,
            medium,
            served,
            kept,
        })
    }

    /// Waits for the front to close, lets go, and removes what it made; gives the front's state.
    pub(super) fn end(self, wire: Option<Wire>) -> Result<XenbusState> {
        self.comes_to(&[XenbusState::Closing, XenbusState::Closed], self.patience)?;
        let end = self.front_state()?;
        drop(wire);
        self.state(XenbusState::Closed)?;
        self.comes_to(&[XenbusState::Closed, XenbusState::Unknown], self.patience)?;
        self.store.remove(NONE, &self.back)?;
        Ok(end)
    }
}

/// The front's ring, mapped.
pub(super) struct Wire {
    peer: DomainId,
    grants: GrantDevice,
    channels: Channels,
    port: Port,
    pages: Vec<MappedPage>,
    ring: Back<RingPages<MappedPage>>,
    agreed: Agreed,
    geometry: Geometry,
    medium: Vec<u8>,
    served: u64,
    /// Pages of data that stay mapped.
    pub(super) kept: Vec<MappedPage>,
}

impl Wire {
    /// Requests answered so far.
    pub(super) const fn served(&self) -> u64 {
        self.served
    }

    /// Serves honestly until so many requests were answered, or the front closes.
    pub(super) fn serve(&mut self, stage: &Stage, requests: u64) -> Result<()> {
        let until = Instant::now() + stage.patience;
        while self.served < requests && Instant::now() < until {
            match self.take()? {
                Some(raw) => {
                    let response = self.done(&raw);
                    self.put(response);
                }
                None => thread::sleep(TICK),
            }
        }
        Ok(())
    }

    /// The next request, if there is one.
    pub(super) fn take(&mut self) -> Result<Option<Raw>> {
        let abi = self.agreed.abi;
        Ok(self.ring.take(|reader| Raw::parse(reader, abi))?)
    }

    /// Waits for a request.
    pub(super) fn next(&mut self, stage: &Stage) -> Result<Raw> {
        let until = Instant::now() + stage.patience;
        loop {
            if let Some(raw) = self.take()? {
                return Ok(raw);
            }
            if Instant::now() > until {
                return Err("the front asks for nothing".into());
            }
            thread::sleep(TICK);
        }
    }

    /// Does a request; gives the honest answer.
    pub(super) fn done(&mut self, raw: &Raw) -> Response {
        let (id, operation) = (raw.id, raw.operation);
        match raw.check(&self.geometry, &self.agreed) {
            Ok(request) => {
                let done = self.transfer(&request).is_ok();
                let status = if done { Status::Okay } else { Status::Error };
                Response { id, operation, status }
            }
            Err(reject) => reject.response,
        }
    }

    fn transfer(&mut self, request: &Request<&[Segment]>) -> Result<()> {
        let mut at = usize::try_from(request.sector)? * 512;
        for segment in request.segments {
            let page = self.grants.map(self.peer, &[segment.reference], Access::Write)?.remove(0);
            let bytes = &mut self.medium[at..at + segment.length_bytes()];
            match request.operation {
                Operation::Read => page.write(segment.offset_bytes(), bytes),
                _ => page.read(segment.offset_bytes(), bytes),
            }
            at += segment.length_bytes();
            self.kept.push(page);
        }
        Ok(())
    }

    /// Shows the front an answer.
    pub(super) fn put(&mut self, response: Response) {
        self.put_words(&response.words(self.agreed.abi));
    }

    /// Shows the front these words as an answer.
    pub(super) fn put_words(&mut self, words: &[u32]) {
        self.served += 1;
        // There is room: each answer has a request.
        let _ = self.ring.put(words);
        let _ = self.ring.publish();
        self.notify();
    }

    /// Raises an event, wanted or not.
    pub(super) fn notify(&self) {
        self.channels.notify(self.port);
    }

    /// Overwrites a word of the ring.
    pub(super) fn poke(&self, word: usize, value: u32) {
        self.pages[word / PAGE_WORDS].word(word % PAGE_WORDS).store(value, Ordering::Release);
    }

    /// A word of the ring.
    pub(super) fn peek(&self, word: usize) -> u32 {
        self.pages[word / PAGE_WORDS].word(word % PAGE_WORDS).load(Ordering::Acquire)
    }

    /// Words of the ring.
    pub(super) fn words(&self) -> usize {
        self.pages.len() * PAGE_WORDS
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.channels.close(self.port);
    }
}
