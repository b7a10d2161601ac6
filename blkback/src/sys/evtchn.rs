//! Event channels, over `/dev/xen/evtchn` (`include/uapi/xen/evtchn.h` of Linux).
//!
//! One open node per device, so that a read returns this device's port only and a poll wakes this
//! device's thread only. A port that was read stays masked until [`Channels::unmask`]: a guest
//! that sends events without end costs one wake-up per turn, not one per event (XSA-332).
//! It must never block: reads are for what a poll announced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::retry_on_intr;
use rustix::ioctl::Opcode;
use xen::{DomainId, Events, NoPort, Port};

use super::{call, opcode};

pub(super) const BIND_INTERDOMAIN: Opcode = opcode(b'E', 1, 8);
const BIND_UNBOUND: Opcode = opcode(b'E', 2, 4);
pub(super) const UNBIND: Opcode = opcode(b'E', 3, 4);
pub(super) const NOTIFY: Opcode = opcode(b'E', 4, 4);
pub(super) const RESTRICT: Opcode = opcode(b'E', 6, 2);

/// At most this many ports are taken by one read.
const PORTS_PER_READ: usize = 16;

/// The event channels of one device.
#[derive(Debug)]
pub struct Channels {
    node: File,
    /// Whether an event could not be raised.
    mute: AtomicBool,
}

impl Channels {
    /// Opens the node.
    ///
    /// # Errors
    /// What the kernel says: not on Xen, no such module, no permission.
    pub fn open() -> io::Result<Self> {
        let node = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/xen/evtchn")?;
        Ok(Self::from(OwnedFd::from(node)))
    }

    /// Gives up, for good, the right to bind to any domain but `peer`.
    ///
    /// # Errors
    /// The kernel does not know this request.
    pub fn restrict(&self, peer: DomainId) -> io::Result<()> {
        // SAFETY: `struct ioctl_evtchn_restrict_domid` is one 16-bit domain id.
        unsafe { call(&self.node, RESTRICT, &mut [peer.0]) }?;
        Ok(())
    }

    /// Whether an event was not raised, for whatever reason the kernel had: the guest may wait for it
    /// for ever.
    pub fn is_mute(&self) -> bool {
        self.mute.load(Ordering::Relaxed)
    }

    /// Takes the events that arrived and tells how many ports had one. Those ports are masked now.
    ///
    /// # Errors
    /// What the kernel says; nothing to read is not an error.
    pub fn pending(&self, ports: &mut Vec<Port>) -> io::Result<()> {
        let mut bytes = [0; PORTS_PER_READ * 4];
        // What is not taken now may not be announced again.
        let count = match retry_on_intr(|| rustix::io::read(&self.node, &mut bytes)) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        let (words, _) = bytes[..count].as_chunks::<4>();
        ports.extend(words.iter().map(|word| Port(u32::from_ne_bytes(*word))));
        Ok(())
    }

    /// Lets events of `port` through again; one that arrived meanwhile is delivered at once.
    ///
    /// # Errors
    /// What the kernel says: the port is not ours.
    pub fn unmask(&self, port: Port) -> io::Result<()> {
        retry_on_intr(|| rustix::io::write(&self.node, &port.0.to_ne_bytes()))?;
        Ok(())
    }
}

impl From<OwnedFd> for Channels {
    /// The node, opened by another process.
    fn from(node: OwnedFd) -> Self {
        Self { node: node.into(), mute: AtomicBool::new(false) }
    }
}

impl AsFd for Channels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

/// What the kernel returned, if it is a port.
fn port(returned: rustix::io::Result<i32>) -> Result<Port, NoPort> {
    let number = returned.map_err(|_| NoPort)?;
    u32::try_from(number).map(Port).map_err(|_| NoPort)
}

impl Events for Channels {
    fn offer(&self, peer: DomainId) -> Result<Port, NoPort> {
        // SAFETY: `struct ioctl_evtchn_bind_unbound_port` is one 32-bit domain id.
        port(unsafe { call(&self.node, BIND_UNBOUND, &mut [u32::from(peer.0)]) })
    }

    fn bind(&self, peer: DomainId, offered: Port) -> Result<Port, NoPort> {
        let mut words = [u32::from(peer.0), offered.0];
        // SAFETY: `struct ioctl_evtchn_bind_interdomain` is the remote domain and its port, 32
        // bits each.
        port(unsafe { call(&self.node, BIND_INTERDOMAIN, &mut words) })
    }

    fn notify(&self, port: Port) {
        // SAFETY: `struct ioctl_evtchn_notify` is one 32-bit port.
        let raised = || unsafe { call(&self.node, NOTIFY, &mut [port.0]) };
        // Once more: what was in the way may be gone.
        if let Err(error) = raised().or_else(|_| raised()) {
            log::warn!("event channel {port}: notify: {error}");
            self.mute.store(true, Ordering::Relaxed);
        }
    }

    fn close(&self, port: Port) {
        // SAFETY: `struct ioctl_evtchn_unbind` is one 32-bit port.
        let done = unsafe { call(&self.node, UNBIND, &mut [port.0]) };
        if let Err(error) = done {
            log::warn!("event channel {port}: unbind: {error}");
        }
    }
}
