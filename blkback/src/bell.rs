//! A bell: how one thread wakes another that waits in a poll or in its `io_uring`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A bell that one thread listens to and any number ring.
#[derive(Clone, Debug)]
pub struct Bell {
    counter: Arc<OwnedFd>,
}

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// No file descriptor to be had.
    pub fn new() -> io::Result<Self> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { counter: Arc::new(counter) })
    }

    /// Wakes the listener, now or when it next listens.
    pub fn ring(&self) {
        // The one way to fail is a counter at its end, and then the listener wakes anyway.
        let _ = rustix::io::write(&*self.counter, &1_u64.to_ne_bytes());
    }

    /// Forgets all rings so far.
    pub fn silence(&self) {
        // Nothing to read means that it had not rung.
        let _ = rustix::io::read(&*self.counter, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
