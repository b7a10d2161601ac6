//! What a tool stack does for a disk of this backend: attach, detach, list.
//!
//! `xl` can plug a disk only into the backends that it knows, so the two directories are written
//! here, as it would write them, both in one transaction: nothing is ever half attached.

use std::path::PathBuf;

use thiserror::Error;
use xen::{DomainId, Store, StoreError, Transaction, XenbusState};

use crate::OpenError;
use crate::directory::{DeviceId, KIND, base, devices};
use crate::rejoin::{self, Identity};
use crate::spec::{DiskSpec, SpecError};
use crate::vdev;

/// Why a disk could not be attached, detached, resized or listed. Each is one line and says what to do.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The disk string.
    #[error("{spec:?}: {error}")]
    Spec {
        /// The string.
        spec: String,
        /// What is wrong with it.
        error: SpecError,
    },
    /// The image.
    #[error(transparent)]
    Image(#[from] OpenError),
    /// No such domain.
    #[error("domain {0:?} does not exist; see xl list")]
    NoDomain(String),
    /// The vdev is taken.
    #[error("{vdev} of domain {guest} is in use; detach it first or take another vdev")]
    Busy {
        /// The guest.
        guest: DomainId,
        /// The disk.
        vdev: String,
    },
    /// Nothing of ours there.
    #[error("domain {guest} has no disk {vdev} of this backend; see blkback list")]
    NotOurs {
        /// The guest.
        guest: DomainId,
        /// The disk.
        vdev: String,
    },
    /// The name is no disk's.
    #[error("{0:?} is not a disk; try xvda, xvdb, …")]
    BadVdev(String),
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
    /// The daemon did not answer.
    #[error("the daemon did not answer within {0} s; see its log")]
    NoAnswer(u64),
    /// The guest did not let go.
    #[error(
        "domain {guest} did not let go of {vdev} within {seconds} s; unmount it there, or use \
         --force"
    )]
    HeldByGuest {
        /// The guest.
        guest: DomainId,
        /// The disk.
        vdev: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
    /// Xenstore.
    #[error("xenstore: {0}")]
    Store(#[from] StoreError),
}

/// One node to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its path.
    pub path: String,
    /// Its value.
    pub value: String,
}

/// One directory to be made: who owns it, who else may read it, and its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDirectory {
    /// Its path.
    pub path: String,
    /// Who may do everything with it.
    pub owner: DomainId,
    /// Who may read it besides.
    pub reader: DomainId,
    /// What is in it.
    pub nodes: Vec<Node>,
}

/// The domain of a name or a number.
///
/// # Errors
/// [`AttachError::NoDomain`], or xenstore.
pub fn find_domain(store: &impl Store, text: &str) -> Result<DomainId, AttachError> {
    let missing = || AttachError::NoDomain(text.into());
    let name_of = |id: &str| store.read(Transaction::NONE, &format!("/local/domain/{id}/name"));
    if let Ok(number) = text.parse::<u16>() {
        let there = name_of(&number.to_string())?.is_some();
        return if there { Ok(DomainId(number)) } else { Err(missing()) };
    }
    for id in store.list(Transaction::NONE, "/local/domain")? {
        if name_of(&id)?.as_deref() == Some(text)
            && let Ok(number) = id.parse()
        {
            return Ok(DomainId(number));
        }
    }
    Err(missing())
}

/// Both directories of a disk, the front's first. By the guest's identity the disk is found again
/// after a reboot; without one it is not.
pub fn plan(
    server: DomainId,
    guest: DomainId,
    spec: &DiskSpec,
    identity: Option<&Identity>,
) -> [NewDirectory; 2] {
    let id = DeviceId { guest, vdev: spec.number };
    let (front, back) = (id.front(), id.back(server));
    let fill = |path: &str, nodes: &[(&str, &str)]| -> Vec<Node> {
        let node = |&(key, value): &(&str, &str)| Node {
            path: [path, "/", key].concat(),
            value: value.into(),
        };
        nodes.iter().map(node).collect()
    };
    let (vdev, peer, server_text) =
        (spec.number.to_string(), guest.to_string(), server.to_string());
    let front_nodes = fill(
        &front,
        &[
            ("backend", &back),
            ("backend-id", &server_text),
            ("state", "1"),
            ("virtual-device", &vdev),
            ("device-type", "disk"),
            ("trusted", "1"),
        ],
    );
    let mode = if spec.read_only { "r" } else { "w" };
    let mut back_nodes = fill(
        &back,
        &[
            ("frontend", &front),
            ("frontend-id", &peer),
            ("online", "1"),
            ("removable", "0"),
            ("bootable", "1"),
            ("state", "1"),
            ("dev", &spec.vdev),
            ("type", KIND),
            ("mode", mode),
            ("device-type", "disk"),
            ("params", &spec.target),
        ],
    );
    if let Some(Identity { vm, name }) = identity {
        back_nodes.extend(fill(&back, &[("vm", vm), ("domain", name)]));
    }
    [
        NewDirectory { path: front, owner: guest, reader: server, nodes: front_nodes },
        NewDirectory { path: back, owner: server, reader: guest, nodes: back_nodes },
    ]
}

/// Writes both directories, unless the vdev is taken. A disk that has come back by itself may be
/// attached once more as it is: whoever does not know that it comes back is content, too.
///
/// # Errors
/// [`AttachError::Busy`], or xenstore; then nothing was written.
pub fn attach(
    store: &impl Store,
    server: DomainId,
    guest: DomainId,
    spec: &DiskSpec,
) -> Result<DeviceId, AttachError> {
    let id = DeviceId { guest, vdev: spec.number };
    let written = store.transact(|within| {
        let identity = Identity::read(store, within, guest)?;
        let plan = plan(server, guest, spec, identity.as_ref());
        Ok(make_both(store, within, &plan)? || rejoin::confirm(store, within, server, id, spec)?)
    })?;
    if written { Ok(id) } else { Err(AttachError::Busy { guest, vdev: spec.vdev.clone() }) }
}

/// Makes both directories of a plan, unless one is there.
pub(crate) fn make_both(
    store: &impl Store,
    within: Transaction,
    directories: &[NewDirectory; 2],
) -> Result<bool, StoreError> {
    for directory in directories {
        if store.read(within, &directory.path)?.is_some() {
            return Ok(false);
        }
    }
    directories.iter().try_for_each(|directory| make(store, within, directory))?;
    Ok(true)
}

fn make(
    store: &impl Store,
    within: Transaction,
    directory: &NewDirectory,
) -> Result<(), StoreError> {
    store.write(within, &directory.path, "")?;
    // What is made below it has the same permissions.
    store.permit(within, &directory.path, directory.owner, directory.reader)?;
    for node in &directory.nodes {
        store.write(within, &node.path, &node.value)?;
    }
    Ok(())
}

/// Removes both directories, at once.
///
/// # Errors
/// Xenstore.
pub fn remove(store: &impl Store, server: DomainId, id: DeviceId) -> Result<(), AttachError> {
    store.transact(|within| {
        store.remove(within, &id.front())?;
        remove_back(store, within, server, id)
    })?;
    Ok(())
}

/// Removes the back's directory, and the one above it if that is empty then.
pub(crate) fn remove_back(
    store: &impl Store,
    within: Transaction,
    server: DomainId,
    id: DeviceId,
) -> Result<(), StoreError> {
    store.remove(within, &id.back(server))?;
    let above = format!("{}/{}", base(server), id.guest);
    if store.list(within, &above)?.is_empty() {
        store.remove(within, &above)?;
    }
    Ok(())
}

/// Our disk by its name in a guest.
///
/// # Errors
/// [`AttachError::BadVdev`], [`AttachError::NotOurs`], or xenstore.
pub fn find_disk(
    store: &impl Store,
    server: DomainId,
    guest: DomainId,
    name: &str,
) -> Result<DeviceId, AttachError> {
    let vdev = vdev::number(name).ok_or_else(|| AttachError::BadVdev(name.into()))?;
    let id = DeviceId { guest, vdev };
    if store.read(Transaction::NONE, &format!("{}/frontend", id.back(server)))?.is_none() {
        return Err(AttachError::NotOurs { guest, vdev: name.into() });
    }
    Ok(id)
}

/// Asks for a disk to be closed, as `xl` does: not to come back, and state 5 in the back's own
/// node.
///
/// # Errors
/// Xenstore.
pub fn ask_to_close(store: &impl Store, server: DomainId, id: DeviceId) -> Result<(), AttachError> {
    let back = id.back(server);
    store.transact(|within| {
        let state = store.read(within, &format!("{back}/state"))?;
        if state.is_none() {
            return Ok(());
        }
        store.write(within, &format!("{back}/online"), "0")?;
        if XenbusState::parse(state.as_deref()) == XenbusState::Closed {
            return Ok(());
        }
        store.write(within, &format!("{back}/state"), "5")
    })?;
    Ok(())
}

/// How far a disk is on its way up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Neither up nor down yet.
    Underway,
    /// The daemon has taken it: its state is 2 or 4.
    Taken,
    /// Closed, or its directory is gone.
    Closed,
    /// The daemon says why it cannot.
    Refused(String),
}

/// Looks how far a disk is.
///
/// # Errors
/// Xenstore.
pub fn progress(
    store: &impl Store,
    server: DomainId,
    id: DeviceId,
) -> Result<Progress, AttachError> {
    let node = |name: &str| store.read(Transaction::NONE, &format!("{}/{name}", id.back(server)));
    // The daemon writes both at one time, so after its last state the reason is there, too.
    let state = node("state")?;
    if let Some(reason) = node("error")? {
        return Ok(Progress::Refused(reason));
    }
    let Some(state) = state else { return Ok(Progress::Closed) };
    Ok(match XenbusState::parse(Some(&state)) {
        XenbusState::InitWait | XenbusState::Connected => Progress::Taken,
        XenbusState::Closed => Progress::Closed,
        _ => Progress::Underway,
    })
}

/// Whether a disk is closed, or its directory gone.
///
/// # Errors
/// Xenstore.
pub fn is_closed(store: &impl Store, server: DomainId, id: DeviceId) -> Result<bool, AttachError> {
    let state = store.read(Transaction::NONE, &format!("{}/state", id.back(server)))?;
    Ok(state.is_none_or(|state| XenbusState::parse(Some(&state)) == XenbusState::Closed))
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The device.
    pub id: DeviceId,
    /// The domain that serves it.
    pub server: DomainId,
    /// The front's state.
    pub state: String,
    /// The front's event channel.
    pub event_channel: String,
    /// The front's ring, or the first page of it.
    pub ring_ref: String,
    /// The back's directory.
    pub back: String,
    /// The image.
    pub image: PathBuf,
    /// Whether the guest may not write.
    pub read_only: bool,
    /// Whether its guest is gone, and the disk waits for it to come back.
    pub away: bool,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// All our disks, of one guest or of all.
///
/// # Errors
/// Xenstore.
pub fn list(
    store: &impl Store,
    server: DomainId,
    guest: Option<DomainId>,
) -> Result<Vec<Listed>, AttachError> {
    let mut lines = Vec::new();
    for id in devices(store, server)? {
        if guest.is_none_or(|guest| guest == id.guest) {
            lines.push(describe(store, server, id)?);
        }
    }
    Ok(lines)
}

fn describe(store: &impl Store, server: DomainId, id: DeviceId) -> Result<Listed, StoreError> {
    let back = id.back(server);
    let ours = |name: &str| store.read(Transaction::NONE, &format!("{back}/{name}"));
    let front = ours("frontend")?.unwrap_or_else(|| id.front());
    let theirs = |name: &str| store.read(Transaction::NONE, &format!("{front}/{name}"));
    let ring_ref = match theirs("ring-ref")? {
        Some(reference) => Some(reference),
        None => theirs("ring-ref0")?,
    };
    let state = theirs("state")?;
    Ok(Listed {
        id,
        server,
        away: state.is_none(),
        state: state.unwrap_or_default(),
        event_channel: theirs("event-channel")?.unwrap_or_else(|| "-1".into()),
        ring_ref: ring_ref.unwrap_or_else(|| "-1".into()),
        image: ours("params")?.unwrap_or_default().into(),
        read_only: ours("mode")?.as_deref() == Some("r"),
        error: ours("error")?,
        back,
    })
}
