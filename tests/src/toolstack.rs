//! A disk as the tool stack wants it, and the verbs of the attach command on it.

use blkback::attach::{AttachError, ask_to_close, attach, remove};
use blkback::{DeviceId, DiskSpec, resize};
use sim::Domain;
use xen::{DomainId, Store, Transaction};

/// A disk as the tool stack wants it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The guest.
    pub guest: DomainId,
    /// Its number there: 51712 is `xvda`.
    pub vdev: u32,
    /// What the back opens.
    pub image: &'a str,
    /// Whether the guest may not write.
    pub read_only: bool,
}

impl<'a> Wanted<'a> {
    /// A disk that may be written.
    pub const fn new(guest: u16, vdev: u32, image: &'a str) -> Self {
        Self { guest: DomainId(guest), vdev, image, read_only: false }
    }

    /// The device.
    pub fn id(&self) -> DeviceId {
        DeviceId { guest: self.guest, vdev: self.vdev }
    }

    /// The guest's directory.
    pub fn front(&self) -> String {
        self.id().front()
    }

    /// The directory in domain 0.
    pub fn back(&self) -> String {
        self.id().back(DomainId::ZERO)
    }

    /// Makes both directories, each in state 1, in one transaction.
    ///
    /// # Errors
    /// What the command would say.
    pub fn attach(&self, dom0: &Domain) -> Result<(), AttachError> {
        let spec = DiskSpec {
            target: self.image.to_owned(),
            vdev: format!("d{}", self.vdev),
            number: self.vdev,
            read_only: self.read_only,
        };
        attach(dom0, DomainId::ZERO, self.guest, &spec).map(drop)
    }

    /// Asks the back to let the disk go.
    ///
    /// # Errors
    /// What the command would say.
    pub fn detach(&self, dom0: &Domain) -> Result<(), AttachError> {
        ask_to_close(dom0, DomainId::ZERO, self.id())
    }

    /// Asks the back to look how large the image is, as nobody has asked before.
    ///
    /// # Errors
    /// What the command would say.
    pub fn resize(&self, dom0: &Domain, who: u32) -> Result<(), AttachError> {
        resize::ask(dom0, DomainId::ZERO, self.id(), who)
    }

    /// What the back answered, once it has.
    ///
    /// # Errors
    /// What the command would say.
    pub fn resized(&self, dom0: &Domain) -> Result<Option<resize::Answer>, AttachError> {
        resize::answer(dom0, DomainId::ZERO, self.id())
    }

    /// Removes both directories and whatever is above and empty.
    ///
    /// # Errors
    /// What the command would say.
    pub fn remove(&self, dom0: &Domain) -> Result<(), AttachError> {
        remove(dom0, DomainId::ZERO, self.id())
    }

    /// A node of the directory in domain 0.
    ///
    /// # Panics
    /// If xenstore refuses domain 0.
    pub fn back_node(&self, dom0: &Domain, key: &str) -> Option<String> {
        let path = format!("{}/{key}", self.back());
        dom0.read(Transaction::NONE, &path).expect("domain 0 may read")
    }
}
