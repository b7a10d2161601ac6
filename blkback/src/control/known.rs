//! What is known of a device, and what xenstore says of it now.
//!
//! What the tool stack wrote is read once, and again only where another directory may have taken the
//! place of the one that we know. Must never take a new device for the old one.

use xen::{Store, StoreError, Transaction, XenbusState};

use super::Control;
use super::resize::Resize;
use crate::connect::{Stage, View};
use crate::crew::{Crew, WorkerId};
use crate::directory::{DeviceId, Wish};
use crate::disk::Profile;

/// What is known of one device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) wish: Wish,
    /// Our directory.
    pub(super) back: String,
    /// The node that the front's state is in.
    watched: String,
    pub(super) stage: Stage,
    pub(super) worker: Option<WorkerId>,
    pub(super) profile: Option<Profile>,
    pub(super) resize: Resize,
    pub(super) reason: String,
    /// Whether we have written our state into its directory.
    pub(super) spoken: bool,
    /// How often something went wrong that its guest can bring about.
    pub(super) complaints: u64,
}

impl Device {
    /// Whether the directory must be the one that was read before: a new one is in the first state,
    /// which ours is not in once we have written into it.
    fn is_the_same(&self, own: XenbusState) -> bool {
        self.spoken && own != XenbusState::Initialising
    }

    /// Whether the directory was removed and made again before anybody looked: another image, or
    /// again the first state, which we never write.
    fn is_another(&self, wish: &Wish, own: XenbusState) -> bool {
        self.wish != *wish || (self.spoken && own == XenbusState::Initialising)
    }

    /// Its worker is gone, or told to go.
    pub(super) fn loses_worker(&mut self) -> Option<WorkerId> {
        self.stage = Stage::Absent;
        self.resize.loses_worker();
        self.worker.take()
    }
}

impl<S: Store, C: Crew> Control<S, C> {
    /// What xenstore says of a device now; `None` if our directory is gone.
    pub(super) fn look(&mut self, id: DeviceId) -> Result<Option<View>, StoreError> {
        let view = self.view(id)?;
        if view.is_none() {
            self.forget(id);
            self.wishes.remove(&id);
        }
        Ok(view)
    }

    fn view(&mut self, id: DeviceId) -> Result<Option<View>, StoreError> {
        let back = self.back(id);
        let Some(own) = self.store.read(Transaction::NONE, &[&back, "/state"].concat())? else {
            return Ok(None);
        };
        let own = XenbusState::parse(Some(&own));
        if !self.devices.get(&id).is_some_and(|device| device.is_the_same(own)) {
            let Some(wish) = Wish::read(&self.store, Transaction::NONE, &back)? else {
                return Ok(None);
            };
            self.recognise(id, wish, own)?;
        }
        let online = self.store.read(Transaction::NONE, &[&back, "/online"].concat())?;
        let Some(device) = self.devices.get(&id) else { return Ok(None) };
        let state = self.store.read(Transaction::NONE, &device.watched)?;
        let online = online.as_deref() == Some("1");
        let awaited = self.is_awaited(id, state.is_none() && online)?;
        let size = self.hear_wish(id, &back)?;
        let stage = self.devices.get(&id).map_or(Stage::Absent, |device| device.stage);
        Ok(Some(View {
            own,
            front: state.as_deref().map(|state| XenbusState::parse(Some(state))),
            online,
            awaited,
            stage,
            size,
            leave: self.leave,
        }))
    }

    /// Takes what the tool stack wrote for another device than the one that we know, if it is.
    fn recognise(&mut self, id: DeviceId, wish: Wish, own: XenbusState) -> Result<(), StoreError> {
        if self.devices.get(&id).is_some_and(|device| device.is_another(&wish, own)) {
            self.forget(id);
        }
        if self.devices.contains_key(&id) { Ok(()) } else { self.meet(id, wish) }
    }

    fn meet(&mut self, id: DeviceId, wish: Wish) -> Result<(), StoreError> {
        let watched = [&wish.front, "/state"].concat();
        self.store.watch(&watched, &id.to_string())?;
        let device = Device {
            wish,
            back: self.back(id),
            watched,
            stage: Stage::Absent,
            worker: None,
            profile: None,
            resize: Resize::Settled,
            reason: "the daemon that served this disk ended without closing it".into(),
            spoken: false,
            complaints: 0,
        };
        self.devices.insert(id, device);
        self.wishes.insert(id);
        Ok(())
    }

    pub(super) fn forget(&mut self, id: DeviceId) {
        let Some(device) = self.devices.remove(&id) else { return };
        self.absences.end(id);
        log::info!("device {id}: removed");
        if let Some(worker) = device.worker {
            self.crew.dismiss(worker);
        }
        if let Err(error) = self.store.unwatch(&device.watched, &id.to_string()) {
            log::debug!("device {id}: unwatch: {error}");
        }
    }
}
