//! The bytes to xenstore and back: two rings in a page, and an event channel.

use alloc::string::{String, ToString};
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use ring::bytes::{Area, Receiver, Sender};
use ring::{Broken, Page};
use xen::store::{Connection, Transport, TransportError};
use xen::{Events, Port};

use crate::events::{Channels, Woken};
use crate::kernel::now;

/// How long xenstore may take to move a byte before the connection counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's connection to xenstore.
pub type StoreConnection = Connection<StoreWire>;

/// Carries bytes over the store's page.
pub struct StoreWire {
    requests: RefCell<Sender<&'static Page>>,
    replies: RefCell<Receiver<&'static Page>>,
    events: Channels,
    port: Port,
}

impl fmt::Debug for StoreWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreWire").field("port", &self.port).finish_non_exhaustive()
    }
}

fn broken(broken: Broken) -> TransportError {
    TransportError(broken.to_string())
}

impl StoreWire {
    /// Takes the rings over as they stand.
    pub(crate) fn open(page: &'static Page, port: Port, events: Channels) -> Self {
        let requests = RefCell::new(Sender::attach(page, Area::STORE_REQUESTS));
        let replies = RefCell::new(Receiver::attach(page, Area::STORE_REPLIES));
        Self { requests, replies, events, port }
    }

    /// The port on which xenstore says that something came.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Waits until xenstore has done something.
    fn wait(&self) -> Result<(), TransportError> {
        match self.events.wait_for(self.port, now().map(|now| now.after(PATIENCE))) {
            Woken::Event => Ok(()),
            Woken::Deadline => Err(TransportError(String::from("no answer for a minute"))),
        }
    }
}

impl Transport for StoreWire {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        let mut rest = bytes;
        loop {
            let count = self.requests.borrow_mut().send(rest).map_err(broken)?;
            if count > 0 {
                self.events.notify(self.port);
                rest = &rest[count..];
            }
            if rest.is_empty() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        loop {
            let count = self.try_receive(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            self.wait()?;
        }
    }

    fn try_receive(&self, out: &mut [u8]) -> Result<usize, TransportError> {
        let count = self.replies.borrow_mut().receive(out).map_err(broken)?;
        if count > 0 {
            self.events.notify(self.port);
        }
        Ok(count)
    }
}
