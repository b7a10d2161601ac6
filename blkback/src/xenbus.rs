//! Xenstore over `/dev/xen/xenbus`: the kernel passes messages on to xenstore as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, poll};
use xen::store::{Transport, TransportError};

/// The way to xenstore of this domain's kernel.
#[derive(Debug)]
pub struct Xenbus {
    node: File,
}

impl Xenbus {
    /// Opens the node.
    ///
    /// # Errors
    /// What the kernel says: not on Xen, no permission.
    pub fn open() -> io::Result<Self> {
        let node = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/xen/xenbus")?;
        Ok(Self { node })
    }
}

impl AsFd for Xenbus {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

fn lost(error: impl Into<io::Error>) -> TransportError {
    TransportError(error.into().to_string())
}

impl Transport for Xenbus {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        (&self.node).write_all(bytes).map_err(lost)
    }

    fn receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        loop {
            let count = self.try_receive(out)?;
            if count > 0 {
                return Ok(count);
            }
            match poll(&mut [PollFd::new(self, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }

    fn try_receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        match rustix::io::read(&self.node, out) {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(lost(error)),
        }
    }
}
