//! A disk that is to be as large as its image: asked for by the tool stack, measured by the worker,
//! told to the guest.
//!
//! Whoever serves the disk knows of new sectors before the guest does, so that none is refused. What
//! nobody has asked for costs no question: the node is read only if its own watch has fired, or one
//! that stands for many. Must never tell a guest of fewer sectors than before.

use xen::{Store, StoreError, Transaction, XenbusState};

use super::Control;
use super::known::Device;
use crate::connect::{Size, Stage};
use crate::crew::Crew;
use crate::directory::DeviceId;
use crate::resize::{Answer, NODE, is_asked};

/// Where a device stands with its size.
#[derive(Debug, Default)]
pub(super) enum Resize {
    #[default]
    Settled,
    /// Somebody has written this into the node.
    Asked(String),
    /// The worker measures.
    Measuring(String),
    /// It has: whether there are more sectors than before, or why they cannot be had.
    Measured(String, Result<bool, String>),
}

impl Resize {
    pub(super) const fn size(&self) -> Size {
        match self {
            Self::Settled => Size::Settled,
            Self::Asked(_) => Size::Asked,
            Self::Measuring(_) => Size::Measuring,
            Self::Measured(..) => Size::Measured,
        }
    }

    /// There is no worker any more who could report.
    pub(super) fn loses_worker(&mut self) {
        if let Self::Measuring(ask) = self {
            *self = Self::Asked(std::mem::take(ask));
        }
    }
}

impl Device {
    /// The worker has measured the image.
    pub(super) fn measured(&mut self, found: Result<u64, String>) {
        let Resize::Measuring(ask) = &mut self.resize else { return };
        let ask = std::mem::take(ask);
        let grown = found.map(|sectors| {
            let profile = self.profile.as_mut().filter(|profile| profile.sectors < sectors);
            profile.map(|profile| profile.sectors = sectors).is_some()
        });
        self.resize = Resize::Measured(ask, grown);
    }

    /// How it ends; `told`: its guest learns of it at the same time.
    fn answer(&self, told: bool) -> Answer {
        let sectors = self.profile.map_or(0, |profile| profile.sectors);
        match &self.resize {
            Resize::Measured(_, Err(reason)) => Answer::Refused(reason.clone()),
            Resize::Measured(_, Ok(true)) if told => {
                Answer::Done(format!("{sectors} sectors of 512 bytes; its guest was told"))
            }
            Resize::Measured(_, Ok(true)) => {
                Answer::Done(format!("{sectors} sectors of 512 bytes when its guest connects"))
            }
            Resize::Measured(_, Ok(false)) => Answer::Done(format!(
                "{sectors} sectors of 512 bytes as before; make the image larger first"
            )),
            _ if self.stage == Stage::Failed => Answer::Refused(self.reason.clone()),
            _ => Answer::Done("not in use; its image is measured when it is opened".into()),
        }
    }
}

impl<S: Store, C: Crew> Control<S, C> {
    /// Reads what was asked for, if something says that there may be anything and nothing of the kind
    /// is under way.
    pub(super) fn hear_wish(&mut self, id: DeviceId, back: &str) -> Result<Size, StoreError> {
        let Some(device) = self.devices.get_mut(&id) else { return Ok(Size::Settled) };
        if matches!(device.resize, Resize::Settled) && self.wishes.contains(&id) {
            let node = self.store.read(Transaction::NONE, &[back, "/", NODE].concat())?;
            self.wishes.remove(&id);
            if let Some(ask) = node.filter(|node| is_asked(node)) {
                device.resize = Resize::Asked(ask);
            }
        }
        Ok(device.resize.size())
    }

    pub(super) fn measure(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if let (Resize::Asked(ask), Some(worker)) = (&mut device.resize, device.worker) {
            device.resize = Resize::Measuring(std::mem::take(ask));
            self.crew.measure(worker);
        }
    }

    /// Tells the guest, if the disk has grown and is connected, and whoever has asked, at one time.
    pub(super) fn resize(&mut self, id: DeviceId) -> Result<(), StoreError> {
        let Some(device) = self.devices.get(&id) else { return Ok(()) };
        let (Resize::Asked(ask) | Resize::Measured(ask, _)) = &device.resize else {
            return Ok(());
        };
        let ask = ask.clone();
        let grown = matches!(device.resize, Resize::Measured(_, Ok(true)));
        let [told, untold] = [true, false].map(|told| device.answer(told));
        let serving = device.stage == Stage::Serving;
        let geometry = self.offer(id).map(|offer| offer.1).filter(|_| grown && serving);
        self.write(id, |writer| {
            // Who wants the disk closed may have said so meanwhile.
            let state = writer.read("state")?;
            let connected = XenbusState::parse(state.as_deref()) == XenbusState::Connected;
            let geometry = geometry.filter(|_| connected);
            if let Some(geometry) = geometry {
                geometry.write(|key, value| writer.write(key, value))?;
                writer.state(XenbusState::Connected)?;
            }
            // Who has asked since then is answered when it was measured again.
            if writer.read(NODE)?.as_deref() != Some(&ask) {
                return Ok(());
            }
            let answer = if geometry.is_some() { &told } else { &untold };
            writer.write(NODE, format_args!("{answer}"))
        })?;
        if let Some(device) = self.devices.get_mut(&id) {
            device.resize = Resize::Settled;
        }
        Ok(())
    }
}
