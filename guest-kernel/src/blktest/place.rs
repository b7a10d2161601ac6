//! Where a device stands in xenstore, on both sides, and what its nodes say.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use blkfront::DiskName;
use xen::{DomainId, Store, Transaction, XenbusState};

use super::Trouble;
use crate::programs::Machine;

/// How often nodes are looked at again.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// A device's directories.
#[derive(Clone, Debug)]
pub struct Place {
    /// The guest's own.
    pub(super) front: String,
    /// The back's.
    pub(super) back: String,
    /// The back's domain.
    pub(super) peer: DomainId,
    name: DiskName,
}

impl Place {
    /// The disk of this name, or the first one.
    ///
    /// # Errors
    /// [`Trouble`] if it is not there.
    pub fn find<M: Machine>(machine: &M, disk: Option<&str>) -> Result<Self, Trouble> {
        let store = machine.store().ok_or(Trouble::skip("there is no xenstore, so no disk"))?;
        let listed = store.list(Transaction::NONE, "device/vbd").map_err(Trouble::error)?;
        let mut numbers: alloc::vec::Vec<u32> =
            listed.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        let named =
            |number: &u32| disk.is_none_or(|disk| DiskName::new(*number).to_string() == disk);
        let number = numbers.iter().copied().find(named).ok_or_else(|| match disk {
            Some(disk) => Trouble::error(format!("there is no disk {disk}")),
            None => Trouble::skip("there is no disk"),
        })?;
        let front = format!("device/vbd/{number}");
        let node = |key: &str| {
            let value = store.read(Transaction::NONE, &format!("{front}/{key}"));
            value.map_err(Trouble::error)?.ok_or_else(|| Trouble::error(format!("no node {key}")))
        };
        let peer = node("backend-id")?.parse().map_err(|_| Trouble::error("backend-id"))?;
        let back = node("backend")?;
        Ok(Self { back, peer: DomainId(peer), name: DiskName::new(number), front })
    }

    /// A node of the back's.
    pub(super) fn of_back<M: Machine>(&self, machine: &M, key: &str) -> Option<String> {
        machine.store()?.read(Transaction::NONE, &format!("{}/{key}", self.back)).ok()?
    }

    /// A number that the back publishes.
    pub(super) fn number<M: Machine>(&self, machine: &M, key: &str) -> Option<u64> {
        self.of_back(machine, key)?.parse().ok()
    }

    /// The back's state.
    pub(super) fn state<M: Machine>(&self, machine: &M) -> XenbusState {
        XenbusState::parse(self.of_back(machine, "state").as_deref())
    }

    /// Writes a node of the front's; `None` removes it.
    pub(super) fn write<M: Machine>(
        &self,
        machine: &M,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), Trouble> {
        let store = machine.store().ok_or(Trouble::error("no xenstore"))?;
        let path = format!("{}/{key}", self.front);
        match value {
            Some(value) => store.write(Transaction::NONE, &path, value),
            None => store.remove(Transaction::NONE, &path),
        }
        .map_err(Trouble::error)
    }

    /// Says a state.
    pub(super) fn say<M: Machine>(&self, machine: &M, state: XenbusState) -> Result<(), Trouble> {
        self.write(machine, "state", Some(&state.to_string()))
    }

    /// Waits until the back is in one of `states`; tells whether it came so far within `patience`.
    pub(super) fn comes_to<M: Machine>(
        &self,
        machine: &M,
        states: &[XenbusState],
        patience: Duration,
    ) -> bool {
        let until = machine.now().after(patience);
        loop {
            if states.contains(&self.state(machine)) {
                return true;
            }
            if machine.now() >= until {
                return false;
            }
            machine.wait(Some(machine.now().after(TICK)), &mut |_| {});
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.back)
    }
}
