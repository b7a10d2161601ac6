//! What the control plane asks of those who serve: one worker per device.
//!
//! Orders are given and never waited for; what became of them comes back as a [`Report`].

use std::path::PathBuf;

use blkif::{Agreed, Geometry};
use xen::{DomainId, GrantRef, Port};

use crate::disk::Profile;

/// A worker. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// All that a worker needs to join a front's ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The guest.
    pub peer: DomainId,
    /// The pages of its ring.
    pub ring: Vec<GrantRef>,
    /// The port that it offers.
    pub port: Port,
    /// What was agreed on.
    pub agreed: Agreed,
    /// The disk, as it will be published.
    pub geometry: Geometry,
}

/// What became of an order, or happened by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The image is open.
    Opened(Profile),
    /// The image cannot be opened: why.
    Unopened(String),
    /// Requests are served.
    Connected,
    /// The ring cannot be joined: why.
    Unconnected(String),
    /// The image was measured: its sectors now, or why they cannot be had, and then nothing has
    /// changed. Whoever serves the image knows of more sectors already.
    Measured(Result<u64, String>),
    /// The ring is unmapped, as ordered.
    Stopped,
    /// The ring had to be given up: why. It is unmapped.
    Broken(String),
    /// The worker is gone. If it was not told to go, it stumbled over a bug of ours.
    Gone,
}

/// Those who serve.
pub trait Crew {
    /// A new worker opens an image.
    fn open(&mut self, worker: WorkerId, name: &str, image: PathBuf, read_only: bool);

    /// The worker joins a front's ring and serves it.
    fn connect(&mut self, worker: WorkerId, connect: Connect);

    /// The worker measures its image anew, which may have grown and must not have shrunk. Not again
    /// before it has reported.
    fn measure(&mut self, worker: WorkerId);

    /// The worker finishes what is in flight and leaves the ring. The image stays open.
    fn stop(&mut self, worker: WorkerId);

    /// The worker leaves the ring if it is in one, closes the image and goes.
    fn dismiss(&mut self, worker: WorkerId);

    /// The next report, if there is any.
    fn report(&mut self) -> Option<(WorkerId, Report)>;
}
