//! The control plane: xenstore on one side, the workers on the other, [`connect`] in between.
//!
//! One thread, one xenstore connection, any number of devices. Watches and reports only say which
//! device to look at again; whatever may have changed is then read anew. A device that goes wrong takes no other
//! with it. It must never write into a directory that the tool stack has removed: that would make
//! it again.

mod absence;
mod known;
mod nodes;
mod refusals;
mod resize;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use blkif::{BackOffer, Discard, Features, Geometry, INDIRECT_MAX, Info, ORDER_MAX, negotiate};
use xen::{DomainId, Store, StoreError, Transaction, XenbusState};

use crate::attach;
use crate::connect::{self, Leave, Stage, Step};
use crate::crew::{Connect, Crew, Report, WorkerId};
use crate::directory::{DeviceId, Wish, base, devices};
use crate::resize::NODE;
use absence::Absences;
use known::Device;
use nodes::{Writer, read_front};
use refusals::Subject;

/// A device is looked at again at most this often in a row; then the others have their turn.
const STEPS_MAX: usize = 16;

/// The watch on all our directories.
const BACK_TOKEN: &str = "back";
/// The watch on domains that come and go.
const DOMAINS_TOKEN: &str = "domains";

/// The control plane.
pub struct Control<S, C> {
    store: S,
    crew: C,
    server: DomainId,
    /// Where the directories of all devices are.
    base: String,
    devices: BTreeMap<DeviceId, Device>,
    /// Devices to be looked at.
    due: BTreeSet<DeviceId>,
    /// Devices that somebody may want to be as large as their images.
    wishes: BTreeSet<DeviceId>,
    /// What xenstore has refused something for, and what it said.
    stuck: BTreeMap<Subject, StoreError>,
    absences: Absences,
    leave: Leave,
    next_worker: u64,
}

impl<S: Store, C: Crew> Control<S, C> {
    /// Watches xenstore, as domain `server`. Disks wait for so long for a guest that is gone.
    ///
    /// # Errors
    /// What xenstore says.
    pub fn new(
        store: S,
        crew: C,
        server: DomainId,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let base = base(server);
        store.watch(&base, BACK_TOKEN)?;
        store.watch("@releaseDomain", DOMAINS_TOKEN)?;
        store.watch("@introduceDomain", DOMAINS_TOKEN)?;
        Ok(Self {
            store,
            crew,
            server,
            base,
            devices: BTreeMap::new(),
            due: BTreeSet::new(),
            wishes: BTreeSet::new(),
            stuck: BTreeMap::new(),
            absences: Absences::new(patience),
            leave: Leave::Stay,
            next_worker: 0,
        })
    }

    /// Takes in what has happened and looks at every device that it is about, once: a guest that
    /// changes its mind without end keeps nobody else waiting. Tells whether there is more to do.
    ///
    /// What xenstore refuses is tried again the next time, see [`is_stuck`](Self::is_stuck).
    ///
    /// # Errors
    /// Only what ends the connection to xenstore.
    pub fn work(&mut self) -> Result<bool, StoreError> {
        if self.stuck.contains_key(&Subject::Devices) {
            self.look_everywhere()?;
        }
        self.due.extend(self.stuck.keys().filter_map(|subject| subject.device()));
        self.take_in()?;
        for id in std::mem::take(&mut self.due) {
            let settled = self.settle(id);
            self.note_refusal(Subject::Device(id), settled)?;
        }
        let rejoined = self.rejoin();
        self.note_refusal(Subject::Guests, rejoined)?;
        // Replies bring events with them, which no poll announces any more. What xenstore refused is no
        // reason to go on at once.
        let refused = self.may_rejoin();
        self.take_in()?;
        Ok(!self.due.is_empty() || (self.may_rejoin() && !refused))
    }

    /// Begins to close all devices, or gives up on waiting for the fronts to let go.
    pub fn leave(&mut self, leave: Leave) {
        self.leave = leave;
        self.due.extend(self.devices.keys());
    }

    /// Whether no ring is mapped and nothing is under way.
    pub fn is_quiet(&self) -> bool {
        let idle = |stage| matches!(stage, Stage::Absent | Stage::Ready | Stage::Failed);
        self.due.is_empty() && self.devices.values().all(|device| idle(device.stage))
    }

    /// How many devices there are.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// The connection to xenstore.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Notes which devices watches and reports are about.
    fn take_in(&mut self) -> Result<(), StoreError> {
        while let Some(event) = self.store.event()? {
            match event.token.as_str() {
                BACK_TOKEN => match named(&event.path, &self.base) {
                    Some((id, node)) => {
                        self.due.insert(id);
                        // An event at the directory may stand for any below it.
                        if node.is_none_or(|node| node == NODE) {
                            self.wishes.insert(id);
                        }
                    }
                    None => {
                        self.look_everywhere()?;
                        self.wishes.extend(self.devices.keys());
                    }
                },
                DOMAINS_TOKEN => {
                    self.absences.domains_changed();
                    // Those whose guest is gone are looked at when it is back, or when time is over.
                    let present = self.devices.keys().filter(|id| !self.absences.waits(**id));
                    self.due.extend(present);
                }
                token => self.due.extend(DeviceId::parse(token)),
            }
        }
        while let Some((worker, report)) = self.crew.report() {
            self.note(worker, report);
        }
        Ok(())
    }

    /// Our directory of a device.
    fn back(&self, id: DeviceId) -> String {
        let known = self.devices.get(&id).map(|device| device.back.clone());
        known.unwrap_or_else(|| id.back(self.server))
    }

    fn look_everywhere(&mut self) -> Result<(), StoreError> {
        let found = devices(&self.store, self.server);
        let listed = found.map(|found| self.due.extend(found));
        self.note_refusal(Subject::Devices, listed)?;
        self.due.extend(self.devices.keys());
        Ok(())
    }

    fn note(&mut self, worker: WorkerId, report: Report) {
        let owner = self.devices.iter_mut().find(|(_, device)| device.worker == Some(worker));
        let Some((&id, device)) = owner else { return };
        self.due.insert(id);
        match report {
            Report::Opened(profile) => {
                device.profile = Some(profile);
                device.stage = Stage::Ready;
            }
            Report::Unopened(reason) => {
                log::warn!("device {id}: {reason}");
                device.reason = reason;
                device.stage = Stage::Failed;
            }
            Report::Connected => device.stage = Stage::Serving,
            Report::Measured(found) => device.measured(found),
            Report::Stopped => device.stage = Stage::Ready,
            Report::Unconnected(reason) | Report::Broken(reason) => {
                device.stage = Stage::Ready;
                self.give_up(id, reason);
            }
            Report::Gone => {
                device.loses_worker();
                self.give_up(id, "the backend stumbled over a bug of its own; see its log".into());
            }
        }
    }

    /// Closes a device whose connection has gone wrong.
    fn give_up(&mut self, id: DeviceId, reason: String) {
        self.complain(id, &reason);
        if let Some(device) = self.devices.get_mut(&id) {
            device.reason = reason;
        }
        if let Err(error) = self.refuse(id, XenbusState::Closing) {
            self.complain(id, &format_args!("xenstore: {error}"));
        }
    }

    /// Says what is wrong with a device the first time, the second, the fourth and so on: a guest
    /// can make its own device go wrong as often as it likes, and must not fill our log.
    fn complain(&mut self, id: DeviceId, what: &dyn fmt::Display) {
        let mut complaints = 1;
        if let Some(device) = self.devices.get_mut(&id) {
            device.complaints += 1;
            complaints = device.complaints;
        }
        match complaints {
            1 => log::error!("device {id}: {what}"),
            count if count.is_power_of_two() => {
                log::error!("device {id}: {what} (complaint {count}; not each is shown)");
            }
            _ => {}
        }
    }

    /// Takes steps until there is nothing to do for a device.
    fn settle(&mut self, id: DeviceId) -> Result<(), StoreError> {
        for _ in 0..STEPS_MAX {
            let Some(view) = self.look(id)? else { return Ok(()) };
            let step = connect::next(&view);
            log::debug!("device {id}: {view:?}: {step:?}");
            match step {
                Step::Wait => return Ok(()),
                Step::Remove => return self.remove(id),
                step => self.take(id, step)?,
            }
        }
        self.due.insert(id);
        Ok(())
    }

    fn take(&mut self, id: DeviceId, step: Step) -> Result<(), StoreError> {
        match step {
            Step::Wait | Step::Remove => Ok(()),
            Step::Open => {
                self.open(id);
                Ok(())
            }
            Step::Invite => self.invite(id),
            Step::Connect => self.connect(id),
            Step::Announce => self.announce(id),
            Step::Stop => {
                self.stop(id);
                Ok(())
            }
            Step::Shut => {
                self.shut(id);
                Ok(())
            }
            Step::Measure => {
                self.measure(id);
                Ok(())
            }
            Step::Resize => self.resize(id),
            Step::Refuse(state) => self.refuse(id, state),
            Step::Say(state) => self.update(id, |writer| writer.state(state)),
        }
    }

    fn open(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        device.worker = Some(worker);
        device.stage = Stage::Opening;
        let Wish { image, read_only, .. } = device.wish.clone();
        log::info!("device {id}: {}", image.display());
        self.crew.open(worker, &id.to_string(), image, read_only);
    }

    fn shut(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        // Its guest may be back already.
        self.absences.domains_changed();
        if let Some(worker) = device.loses_worker() {
            self.crew.dismiss(worker);
        }
    }

    fn stop(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.stage = Stage::Stopping;
        if let Some(worker) = device.worker {
            self.crew.stop(worker);
        }
    }

    fn invite(&mut self, id: DeviceId) -> Result<(), StoreError> {
        let Some((offer, _)) = self.offer(id) else { return Ok(()) };
        self.update(id, |writer| {
            writer.remove("error")?;
            offer.write_limits(|key, value| writer.write(key, value))?;
            writer.state(XenbusState::InitWait)
        })
    }

    fn announce(&mut self, id: DeviceId) -> Result<(), StoreError> {
        let Some((offer, geometry)) = self.offer(id) else { return Ok(()) };
        log::info!("device {id}: connected");
        self.update(id, |writer| {
            offer.write_features(|key, value| writer.write(key, value))?;
            geometry.write(|key, value| writer.write(key, value))?;
            writer.state(XenbusState::Connected)
        })
    }

    /// Brings the front's offer and ours together.
    fn connect(&mut self, id: DeviceId) -> Result<(), StoreError> {
        let Some((offer, geometry)) = self.offer(id) else { return Ok(()) };
        let Some(device) = self.devices.get_mut(&id) else { return Ok(()) };
        let front = match read_front(&self.store, &device.wish.front, offer.max_order)? {
            Ok(front) => front,
            Err(refusal) => {
                self.give_up(id, format!("the guest offers no usable ring: {refusal}"));
                return Ok(());
            }
        };
        match (negotiate(&front, &offer), device.worker) {
            (Ok(agreed), Some(worker)) => {
                device.stage = Stage::Connecting;
                let ring = front.ring.to_vec();
                let connect = Connect { peer: id.guest, ring, port: front.port, agreed, geometry };
                self.crew.connect(worker, connect);
            }
            (Ok(_), None) => {}
            (Err(refusal), _) => self.give_up(id, format!("no agreement: {refusal}")),
        }
        Ok(())
    }

    /// What we publish about a disk.
    fn offer(&self, id: DeviceId) -> Option<(BackOffer, Geometry)> {
        let profile = self.devices.get(&id)?.profile?;
        let mut geometry = Geometry::new(profile.sectors).ok()?;
        geometry.physical_sector_size = profile.physical_sector_size;
        geometry.info.set(Info::READ_ONLY, profile.read_only);
        let granularity = profile.discard_granularity.filter(|_| !profile.read_only);
        let mut features = Features::PERSISTENT | Features::FLUSH;
        features.set(Features::DISCARD, granularity.is_some());
        let discard = Discard { granularity_bytes: granularity.unwrap_or(512), alignment_bytes: 0 };
        let (max_order, indirect_max) = (ORDER_MAX, INDIRECT_MAX);
        Some((BackOffer { max_order, indirect_max, features, discard }, geometry))
    }

    fn refuse(&mut self, id: DeviceId, state: XenbusState) -> Result<(), StoreError> {
        let reason = self.devices.get(&id).map(|device| device.reason.clone()).unwrap_or_default();
        self.update(id, |writer| {
            writer.write("error", format_args!("{reason}"))?;
            writer.state(state)
        })
    }

    fn remove(&mut self, id: DeviceId) -> Result<(), StoreError> {
        attach::remove_back(&self.store, Transaction::NONE, self.server, id)?;
        self.forget(id);
        Ok(())
    }

    /// Writes into our directory with another state than the first.
    fn update(
        &mut self,
        id: DeviceId,
        write: impl Fn(&Writer<'_, S>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.write(id, write)?;
        if let Some(device) = self.devices.get_mut(&id) {
            device.spoken = true;
        }
        Ok(())
    }

    /// Writes into our directory, all at once, and only if it still is there.
    fn write(
        &self,
        id: DeviceId,
        write: impl Fn(&Writer<'_, S>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let back = self.back(id);
        self.store.transact(|within| {
            if self.store.read(within, &[&back, "/frontend"].concat())?.is_none() {
                return Ok(());
            }
            write(&Writer { store: &self.store, within, back: &back })
        })
    }
}

/// The device that a path is about, and the node in its directory, if it is one of these.
fn named<'a>(path: &'a str, base: &str) -> Option<(DeviceId, Option<&'a str>)> {
    let mut parts = path.strip_prefix(base)?.strip_prefix('/')?.split('/');
    Some((DeviceId::of(&mut parts)?, parts.next()))
}

#[cfg(test)]
mod tests;
