//! A device whose back is ours to play: both directories, and the back's voice in xenstore.

use sim::{Domain, Sim};
use xen::{DomainId, Store, Transaction};

/// A back that says anything about a device of domain 5.
#[derive(Clone)]
pub struct Liar {
    /// The back's domain: a driver domain of its own.
    pub domain: Domain,
}

impl Liar {
    /// The front's directory.
    pub const FRONT: &'static str = "/local/domain/5/device/vbd/51712";
    /// The back's directory.
    pub const BACK: &'static str = "/local/domain/7/backend/vbd/5/51712";

    /// Makes both directories as a tool stack does, each in state 1.
    ///
    /// # Panics
    /// If the simulator refuses domain 0.
    pub fn new(sim: &Sim, dom0: &Domain) -> Self {
        let _ = sim.domain(DomainId(5));
        let domain = sim.domain(DomainId(7));
        let make = |folder: &str, owner, reader, nodes: &[(&str, &str)]| {
            dom0.write(Transaction::NONE, folder, "").expect("domain 0 may");
            dom0.permit(Transaction::NONE, folder, owner, reader).expect("domain 0 may");
            for (key, value) in nodes {
                let path = format!("{folder}/{key}");
                dom0.write(Transaction::NONE, &path, value).expect("domain 0 may");
            }
        };
        let front = [("backend", Self::BACK), ("backend-id", "7"), ("state", "1")];
        make(Self::FRONT, DomainId(5), DomainId(7), &front);
        make(Self::BACK, DomainId(7), DomainId(5), &[("state", "1")]);
        Self { domain }
    }

    /// Writes nodes in their order.
    ///
    /// # Panics
    /// If xenstore refuses one.
    pub fn say(&self, nodes: &[(&str, &str)]) {
        for (key, value) in nodes {
            let path = format!("{}/{key}", Self::BACK);
            self.domain.write(Transaction::NONE, &path, value).expect("its own");
        }
    }

    /// Writes a node or takes it away, if xenstore lets it.
    pub fn try_say(&self, key: &str, value: Option<&str>) {
        let path = format!("{}/{key}", Self::BACK);
        // Of what xenstore refuses the front hears nothing.
        let _ = match value {
            Some(value) => self.domain.write(Transaction::NONE, &path, value),
            None => self.domain.remove(Transaction::NONE, &path),
        };
    }

    /// What the front says, in a node of its own.
    ///
    /// # Panics
    /// If xenstore refuses to show it.
    pub fn hears(&self, key: &str) -> Option<String> {
        let path = format!("{}/{key}", Self::FRONT);
        self.domain.read(Transaction::NONE, &path).expect("readable")
    }
}
