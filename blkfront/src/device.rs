//! A device of the guest, from its directory in xenstore to its disk and back.
//!
//! Carries out what [`connect::step`](crate::connect::step) answers. [`Device::turn`] is called
//! whenever the back's state may have changed; it reads everything again and never waits.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use blkif::{Agreed, DIRECT_SEGMENTS_MAX, FrontOffer, Geometry};
use xen::{DomainId, Events, GrantError, Grants, Store, StoreError, Transaction, XenbusState};

use crate::connect::{Phase, Step, step};
use crate::descriptors::Descriptors;
use crate::elevator::Choice;
use crate::lender::Lender;
use crate::offered::Offered;
use crate::pool::Pool;
use crate::{Disk, DiskName, SetupError};

/// Steps of one turn: from any phase to any other and back, and one.
const STEPS_MAX: usize = 16;

/// How large a guest makes its ring and its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// A ring of `2^order` pages, or what the back takes if that is less.
    pub order: u32,
    /// Pages for data, granted for the life of the connection: at least 1, and at most as many as
    /// all slots of the ring can carry.
    pub pool_pages: usize,
}

/// Why a device could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// Xenstore did not do what was asked.
    Store(StoreError),
    /// The tool stack's node is missing or silly.
    Directory(&'static str),
    /// There was not enough to lend.
    Setup(SetupError),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Directory(key) => write!(f, "{key} is missing or no sense in it"),
            Self::Setup(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DeviceError {}

impl From<StoreError> for DeviceError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the back may have mapped still.
enum Held<G: Grants, E: Events> {
    Nothing,
    /// Only its drop matters.
    Ring(Offered<G, E>),
    Disk(Box<Disk<G, E>>),
}

enum Stage<G: Grants, E: Events> {
    Initialising,
    Offered(Offered<G, E>),
    Serving(Box<Disk<G, E>>),
    Closing(Held<G, E>),
    Closed(Held<G, E>),
}

/// A device of the guest.
pub struct Device<G: Grants, E: Events> {
    path: String,
    back_path: String,
    name: DiskName,
    lender: Arc<Lender<G>>,
    events: E,
    wishes: Wishes,
    stage: Stage<G, E>,
    /// The elevator of every connection to come, and how it is tuned: index and value.
    choice: Arc<Choice>,
    tuned: Vec<(usize, u64)>,
    /// Whether the device was closed from our side, and not only because the back went away.
    ended: bool,
    /// A state that we are in and that could not be written yet.
    unsaid: Option<XenbusState>,
}

impl<G: Grants, E: Events + Clone> Device<G, E> {
    /// Finds the device whose directory is `path` (`device/vbd/51712`) and says 1, whatever a
    /// former kernel in this domain had said.
    ///
    /// # Errors
    /// [`DeviceError::Directory`] if the tool stack's nodes are not there.
    pub fn open(
        store: &impl Store,
        path: &str,
        (grants, events): (G, E),
        wishes: Wishes,
    ) -> Result<Self, DeviceError> {
        let node = |key| store.read(Transaction::NONE, &format!("{path}/{key}"));
        let number = path.rsplit('/').next().and_then(|it| it.parse().ok());
        let name = number.map(DiskName::new).ok_or(DeviceError::Directory("device number"))?;
        let back_path = node("backend")?.ok_or(DeviceError::Directory("backend"))?;
        let back = node("backend-id")?.and_then(|it| it.parse().ok());
        let back = back.map(DomainId).ok_or(DeviceError::Directory("backend-id"))?;
        let mut device = Self {
            path: path.to_string(),
            back_path,
            name,
            lender: Arc::new(Lender::new(grants, back)),
            events,
            wishes,
            stage: Stage::Initialising,
            choice: Choice::noop(),
            tuned: Vec::new(),
            ended: false,
            unsaid: None,
        };
        device.say(store, XenbusState::Initialising)?;
        Ok(device)
    }

    /// The device's directory.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the disk is called.
    pub const fn name(&self) -> DiskName {
        self.name
    }

    /// The node to watch: whenever it fires, [`turn`](Self::turn) is due.
    pub fn watched(&self) -> String {
        [&self.back_path, "/state"].concat()
    }

    /// The disk, while there is one: in service, or drained before the close.
    pub const fn disk(&mut self) -> Option<&mut Disk<G, E>> {
        match &mut self.stage {
            Stage::Serving(disk) | Stage::Closing(Held::Disk(disk)) => Some(disk),
            _ => None,
        }
    }

    /// Gives the disk, now and after each new connection, an elevator of this kind, tuned as it
    /// comes. Requests that wait go to it.
    pub fn set_elevator(&mut self, choice: &Arc<Choice>) {
        self.choice = choice.clone();
        self.tuned.clear();
        if let Some(disk) = self.disk() {
            let capacity = disk.capacity();
            disk.set_elevator((choice.make)(capacity));
        }
    }

    /// What the elevator is called.
    pub fn elevator(&self) -> &str {
        &self.choice.name
    }

    /// Tunes the elevator, now and after each new connection, by the index of the parameter. A
    /// value outside of its bounds is brought inside.
    pub fn tune(&mut self, index: usize, value: u64) {
        self.tuned.retain(|it| it.0 != index);
        self.tuned.push((index, value));
        if let Some(disk) = self.disk() {
            disk.tune(index, value);
        }
    }

    /// Whether the disk is in service.
    pub const fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Serving(_))
    }

    /// Whether it closes: then a [`turn`](Self::turn) is due after completions were polled too.
    pub const fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing(_))
    }

    /// Whether nothing is lent to the back and nothing is left to do.
    pub const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed(Held::Nothing))
    }

    /// How many pages were given up because the back still had them mapped.
    pub fn pages_kept(&self) -> usize {
        self.lender.kept()
    }

    /// Goes as far as the back's state allows.
    ///
    /// # Errors
    /// [`DeviceError`]; a later turn begins where this one stopped.
    pub fn turn(&mut self, store: &impl Store) -> Result<(), DeviceError> {
        if let Some(state) = self.unsaid {
            self.say(store, state)?;
        }
        for _ in 0..STEPS_MAX {
            self.give_up_on_a_fault(store)?;
            // The state comes first: what it promises was written before it or together with it.
            let state = look(store, Transaction::NONE, &self.watched())?;
            let back = XenbusState::parse(state.as_deref());
            let phase = self.phase(store)?;
            let mut failed = None;
            let next = step(phase, back, |key| {
                let path = [&self.back_path, "/", key].concat();
                look(store, Transaction::NONE, &path).unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
            });
            if let Some(error) = failed {
                return Err(error.into());
            }
            if next == Step::Wait {
                return Ok(());
            }
            self.apply(store, next)?;
        }
        Ok(())
    }

    /// Takes no new requests and tells the back. Turns then close the device, once every
    /// completion was polled.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn close(&mut self, store: &impl Store) -> Result<(), DeviceError> {
        match self.stage {
            Stage::Closing(_) | Stage::Closed(_) => Ok(()),
            _ => {
                self.ended = true;
                self.stop(store)
            }
        }
    }

    fn phase(&self, store: &impl Store) -> Result<Phase<'_>, DeviceError> {
        Ok(match &self.stage {
            Stage::Initialising => Phase::Initialising,
            Stage::Offered(offered) => {
                let published = self.own_state(store)? == XenbusState::Initialised;
                Phase::Initialised { offer: offered.offer(), published }
            }
            Stage::Serving(disk) => Phase::Connected(disk.geometry()),
            Stage::Closing(Held::Disk(disk)) => {
                Phase::Closing { idle: disk.idle(), unread: disk.unread(), offered: false }
            }
            Stage::Closing(Held::Ring(_)) => {
                // In a new directory the back does not see that we close.
                let offered = self.own_state(store)? == XenbusState::Closing;
                Phase::Closing { idle: true, unread: false, offered }
            }
            Stage::Closing(Held::Nothing) => {
                Phase::Closing { idle: true, unread: false, offered: false }
            }
            Stage::Closed(held) => {
                Phase::Closed { lent: !matches!(held, Held::Nothing), again: !self.ended }
            }
        })
    }

    /// What our directory says of us.
    fn own_state(&self, store: &impl Store) -> Result<XenbusState, StoreError> {
        let own = look(store, Transaction::NONE, &[&self.path, "/state"].concat())?;
        Ok(XenbusState::parse(own.as_deref()))
    }

    fn apply(&mut self, store: &impl Store, next: Step) -> Result<(), DeviceError> {
        match next {
            Step::Wait => {}
            Step::Offer { max_order } => self.offer(store, max_order)?,
            Step::Connect { agreed, geometry } => self.connect(store, (agreed, geometry))?,
            Step::Resize(geometry) => {
                if let Stage::Serving(disk) = &mut self.stage {
                    disk.resize(geometry);
                }
            }
            Step::Stop => self.stop(store)?,
            Step::Close => {
                self.stage = Stage::Closed(self.take_held());
                self.say(store, XenbusState::Closed)?;
            }
            Step::Release => self.stage = Stage::Closed(Held::Nothing),
            Step::Restart => {
                self.stage = Stage::Initialising;
                self.say(store, XenbusState::Initialising)?;
            }
            Step::Refuse(refusal) => self.fail(store, &refusal.to_string())?,
        }
        Ok(())
    }

    /// Publishes a ring: all nodes and the state in one transaction.
    fn offer(&mut self, store: &impl Store, max_order: u32) -> Result<(), DeviceError> {
        let order = self.wishes.order.min(max_order);
        let offered = Offered::new(&self.lender, self.events.clone(), order);
        let offered = offered.map_err(DeviceError::Setup)?;
        if publish(store, &self.path, offered.offer())? {
            self.stage = Stage::Offered(offered);
        } else {
            self.ended = true;
            self.stage = Stage::Closed(Held::Nothing);
        }
        Ok(())
    }

    fn connect(
        &mut self,
        store: &impl Store,
        terms: (Agreed, Geometry),
    ) -> Result<(), DeviceError> {
        // More than all slots full of pages could never be in use, and the back would have to
        // forget mappings that come back.
        let mut pages = self.wishes.pool_pages.min((32 << terms.0.order) * terms.0.segments_max());
        let memory = loop {
            match memory(&self.lender, &terms.0, pages) {
                Ok(memory) => break memory,
                // The table cannot grow, as Xen has no memory left for it, which is not the guest's
                // own: with fewer pages the disk is slower, and there.
                Err(SetupError::Grant(GrantError::TableFull)) if pages > DIRECT_SEGMENTS_MAX => {
                    pages /= 2
                }
                Err(error) => {
                    self.fail(store, &error.to_string())?;
                    return Err(DeviceError::Setup(error));
                }
            }
        };
        let [low, high, _, _] = self.name.number().to_le_bytes();
        if let Stage::Offered(offered) = self.take_stage() {
            let mut disk = offered.connect(memory, terms, u16::from_le_bytes([low, high]));
            disk.set_elevator((self.choice.make)(disk.capacity()));
            self.tuned.iter().for_each(|&(index, value)| disk.tune(index, value));
            self.stage = Stage::Serving(Box::new(disk));
        }
        self.say(store, XenbusState::Connected)
    }

    fn stop(&mut self, store: &impl Store) -> Result<(), DeviceError> {
        let mut held = self.take_held();
        if let Held::Disk(disk) = &mut held {
            disk.close();
        }
        self.stage = Stage::Closing(held);
        self.say(store, XenbusState::Closing)
    }

    fn give_up_on_a_fault(&mut self, store: &impl Store) -> Result<(), DeviceError> {
        let Stage::Serving(disk) = &self.stage else { return Ok(()) };
        let Some(fault) = disk.fault() else { return Ok(()) };
        self.fail(store, &fault.to_string())
    }

    /// Reports why the connection ends, where the tool stack looks for it, and ends it.
    fn fail(&mut self, store: &impl Store, reason: &str) -> Result<(), DeviceError> {
        let path = format!("error/{}/error", self.path);
        // The report is for people; closing matters more than whether it could be written.
        let _ = store.write(Transaction::NONE, &path, reason);
        self.ended = true;
        self.stop(store)
    }

    fn take_stage(&mut self) -> Stage<G, E> {
        core::mem::replace(&mut self.stage, Stage::Initialising)
    }

    fn take_held(&mut self) -> Held<G, E> {
        match self.take_stage() {
            Stage::Initialising => Held::Nothing,
            Stage::Offered(offered) => Held::Ring(offered),
            Stage::Serving(disk) => Held::Disk(disk),
            Stage::Closing(held) | Stage::Closed(held) => held,
        }
    }

    /// Writes our state, unless the tool stack has removed our directory: writing would bring it
    /// back. If xenstore refuses, the next turn begins with it.
    fn say(&mut self, store: &impl Store, state: XenbusState) -> Result<(), DeviceError> {
        self.unsaid = Some(state);
        store.transact(|within| {
            if is_there(store, within, &self.path)? {
                store.write(within, &[&self.path, "/state"].concat(), &state.to_string())?;
            }
            Ok(())
        })?;
        self.unsaid = None;
        Ok(())
    }
}

/// So many pages for data, and what their requests need.
fn memory<G: Grants>(
    lender: &Arc<Lender<G>>,
    agreed: &Agreed,
    pages: usize,
) -> Result<(Pool<G>, Descriptors<G>), SetupError> {
    Ok((Pool::new(lender, pages)?, Descriptors::new(lender, agreed, pages)?))
}

/// Reads a node that the tool stack may have removed. Once its directory is gone, xenstore may
/// answer "denied" and not "no such node": a guest cannot read the directory above it
/// (`docs/misc/xenstore.txt` of Xen).
fn look(store: &impl Store, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
    match store.read(within, path) {
        Err(StoreError::Denied) => Ok(None),
        other => other,
    }
}

fn is_there(store: &impl Store, within: Transaction, path: &str) -> Result<bool, StoreError> {
    Ok(look(store, within, &[path, "/backend"].concat())?.is_some())
}

/// Writes an offer and state 3 into the device's directory; tells whether the directory is there.
fn publish(store: &impl Store, path: &str, offer: &FrontOffer) -> Result<bool, StoreError> {
    store.transact(|within| {
        if !is_there(store, within, path)? {
            return Ok(false);
        }
        // Asked first, because hardly ever is any of them there.
        let there = store.list(within, path)?;
        for key in offer.stale().filter(|&stale| there.iter().any(|key| key == stale)) {
            store.remove(within, &format!("{path}/{key}"))?;
        }
        offer.write(|key, value| {
            store.write(within, &[path, "/", key].concat(), &value.to_string())
        })?;
        let state = XenbusState::Initialised;
        store.write(within, &format!("{path}/state"), &state.to_string())?;
        Ok(true)
    })
}

#[cfg(test)]
mod tests;
