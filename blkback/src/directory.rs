//! The two xenstore directories of a device: their paths and what is in the back's.

use std::fmt;
use std::path::PathBuf;

use xen::{DomainId, Store, StoreError, Transaction};

/// The name that our devices have below `backend/`: not `vbd`, so that the kernel's own backend
/// may be loaded beside this daemon.
pub const KIND: &str = "pvblk";

/// A device: which guest, and which of its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// The guest.
    pub guest: DomainId,
    /// The disk's number in it.
    pub vdev: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.guest, self.vdev)
    }
}

impl DeviceId {
    /// Reads `GUEST/VDEV`, alone or in front of another slash.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(&mut text.split('/'))
    }

    /// Takes both from the parts of a path.
    pub(crate) fn of<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let guest = DomainId(parts.next()?.parse().ok()?);
        Some(Self { guest, vdev: parts.next()?.parse().ok()? })
    }

    /// The back's directory, in a domain that serves.
    pub fn back(self, server: DomainId) -> String {
        format!("{}/{self}", base(server))
    }

    /// The front's directory.
    pub fn front(self) -> String {
        format!("/local/domain/{}/device/vbd/{}", self.guest, self.vdev)
    }
}

/// Where the directories of all our devices are.
pub fn base(server: DomainId) -> String {
    format!("/local/domain/{server}/backend/{KIND}")
}

/// The domain that we run in.
///
/// # Errors
/// What xenstore says.
pub fn own_domain(store: &impl Store) -> Result<DomainId, StoreError> {
    let text = store.read(Transaction::NONE, "domid")?;
    Ok(text.and_then(|text| text.parse().ok()).map_or(DomainId::ZERO, DomainId))
}

/// All our devices in xenstore.
///
/// # Errors
/// What xenstore says.
pub fn devices(store: &impl Store, server: DomainId) -> Result<Vec<DeviceId>, StoreError> {
    let base = base(server);
    let mut found = Vec::new();
    for guest in store.list(Transaction::NONE, &base)? {
        for vdev in store.list(Transaction::NONE, &format!("{base}/{guest}"))? {
            found.extend(DeviceId::parse(&format!("{guest}/{vdev}")));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What the tool stack wrote about a device when it made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The front's directory.
    pub front: String,
    /// The image.
    pub image: PathBuf,
    /// The disk's name in the guest, as it was given.
    pub vdev: String,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Which guest it is, in every life: `/vm/UUID`.
    pub vm: Option<String>,
}

impl Wish {
    /// Reads it; `None` if the directory is not there, or not yet complete.
    ///
    /// # Errors
    /// What xenstore says.
    pub fn read(
        store: &impl Store,
        within: Transaction,
        back: &str,
    ) -> Result<Option<Self>, StoreError> {
        let node = |name: &str| store.read(within, &[back, "/", name].concat());
        let (Some(front), Some(image)) = (node("frontend")?, node("params")?) else {
            return Ok(None);
        };
        let read_only = node("mode")?.is_none_or(|mode| mode != "w");
        let (vdev, vm) = (node("dev")?.unwrap_or_default(), node("vm")?);
        Ok(Some(Self { front, image: image.into(), vdev, read_only, vm }))
    }
}
