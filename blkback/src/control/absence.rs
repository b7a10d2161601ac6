//! Disks whose guest is gone: how long they wait for it, and what happens when it comes back.
//!
//! That a domain is gone says nothing of why: `xl reboot` destroys the old one and makes the new
//! one some seconds later, as `xl destroy` and `xl create` by hand would. So time decides.

use std::collections::BTreeMap;
use std::time::Duration;

use xen::{Store, StoreError, Transaction};

use super::Control;
use super::refusals::RETRY;
use crate::attach::AttachError;
use crate::connect::Stage;
use crate::crew::Crew;
use crate::directory::DeviceId;
use crate::rejoin::{self, Identity};

/// Which disks wait, and since when.
#[derive(Debug)]
pub(super) struct Absences {
    now: Duration,
    patience: Duration,
    since: BTreeMap<DeviceId, Duration>,
    /// Whether it is to be looked whether a guest is back.
    look: bool,
}

impl Absences {
    pub(super) fn new(patience: Duration) -> Self {
        Self { now: Duration::ZERO, patience, since: BTreeMap::new(), look: false }
    }

    /// A domain has come or gone.
    pub(super) fn domains_changed(&mut self) {
        self.look = true;
    }

    /// Whether the disk waits.
    pub(super) fn waits(&self, id: DeviceId) -> bool {
        self.since.contains_key(&id)
    }

    /// The disk waits no more.
    pub(super) fn end(&mut self, id: DeviceId) {
        self.since.remove(&id);
    }

    fn is_over(&self, since: Duration) -> bool {
        self.now.saturating_sub(since) >= self.patience
    }
}

impl<S: Store, C: Crew> Control<S, C> {
    /// Tells the time, which begins anywhere and does not go back.
    pub fn at(&mut self, now: Duration) {
        self.absences.now = now;
        let over = self.absences.since.iter().filter(|(_, since)| self.absences.is_over(**since));
        self.due.extend(over.map(|(&id, _)| id));
    }

    /// When there is something to do at the latest; then the time is to be told and
    /// [`work`](Self::work) called.
    pub fn due(&self) -> Option<Duration> {
        let Absences { patience, since, .. } = &self.absences;
        let waiting = since.values().filter(|since| !self.absences.is_over(**since));
        let over = waiting.map(|since| since.saturating_add(*patience));
        let retry = self.is_stuck().then(|| self.absences.now.saturating_add(RETRY));
        over.chain(retry).min()
    }

    /// Whether a disk waits for its guest; `gone`: its front's directory is, and nobody has asked
    /// for an end of the disk.
    pub(super) fn is_awaited(&mut self, id: DeviceId, gone: bool) -> Result<bool, StoreError> {
        let vm = self.devices.get(&id).and_then(|device| device.wish.vm.as_ref());
        let Some(vm) = vm.filter(|_| gone) else {
            self.absences.end(id);
            return Ok(false);
        };
        // Its guest is there: somebody has taken away its disk alone.
        if Identity::read(&self.store, Transaction::NONE, id.guest)?.is_some_and(|it| it.vm == *vm)
        {
            self.absences.end(id);
            return Ok(false);
        }
        let now = self.absences.now;
        let absences = &mut self.absences;
        let since = *absences.since.entry(id).or_insert_with(|| {
            let seconds = absences.patience.as_secs();
            log::info!("device {id}: its guest is gone; waiting {seconds} s for its return");
            absences.look = true;
            now
        });
        Ok(!absences.is_over(since))
    }

    /// The disks that wait and could follow their guests now: one whose image is still open has its turn
    /// when that is closed.
    fn waiting(&self) -> impl Iterator<Item = DeviceId> {
        let shut = |id: &DeviceId| self.devices.get(id).is_some_and(|it| it.stage == Stage::Absent);
        self.absences.since.keys().copied().filter(shut)
    }

    /// Whether a guest may be back whose disks wait.
    pub(super) fn may_rejoin(&self) -> bool {
        self.absences.look && self.waiting().next().is_some()
    }

    /// Moves the disks of guests that are back to their new domains.
    pub(super) fn rejoin(&mut self) -> Result<(), StoreError> {
        if !self.may_rejoin() {
            return Ok(());
        }
        self.absences.look = false;
        let waiting: Vec<DeviceId> = self.waiting().collect();
        let lives = rejoin::lives(&self.store).inspect_err(|_| self.absences.look = true)?;
        let mut refused = Ok(());
        for old in waiting {
            let vm = self.devices.get(&old).and_then(|device| device.wish.vm.as_ref());
            let Some(&guest) = vm.and_then(|vm| lives.get(vm)) else { continue };
            match rejoin::rejoin(&self.store, self.server, old, guest) {
                Ok(Some(new)) => {
                    log::info!("device {old}: its guest is back; the disk is device {new} now");
                    self.due.insert(new);
                }
                Ok(None) => log::info!("device {old}: its guest is back; this disk is not wanted"),
                Err(AttachError::Store(StoreError::Connection(reason))) => {
                    return Err(StoreError::Connection(reason));
                }
                Err(AttachError::Store(error)) => {
                    self.absences.look = true;
                    refused = Err(error);
                }
                Err(error) => log::warn!("device {old}: cannot follow its guest: {error}"),
            }
            self.due.insert(old);
        }
        refused
    }
}
