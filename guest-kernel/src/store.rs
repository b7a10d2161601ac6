//! Xenstore: the bytes to it and back (two rings in a page, and an event channel), and what the
//! toolstack asks of the kernel there.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use ring::bytes::{Area, Receiver, Sender};
use ring::{Broken, Page};
use xen::abi::ShutdownReason;
use xen::store::{Connection, Transport, TransportError};
use xen::{DomainId, Events, Port, Store, StoreError, Transaction, WatchEvent};

use crate::events::{Channels, Woken};
use crate::kernel::now;

/// How long xenstore may take to move a byte before the connection counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
                // A watch may have come in together with the answer, and its event was taken with
                // the answer's: whoever waits next is to look.
                self.events.keep(self.port);
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

/// Where the toolstack asks for a shutdown (`docs/misc/xenstore-paths.pandoc` of Xen), and the
/// token of our watch there.
const CONTROL: &str = "control/shutdown";

/// The most fired watches that are kept until somebody takes them.
pub const EVENTS_MAX: usize = 256;

/// The guest's connection to xenstore. A shutdown that the toolstack asks for is heeded on the
/// way: its watch is never seen outside.
#[derive(Debug)]
pub struct GuestStore {
    connection: Connection<StoreWire>,
    events: RefCell<VecDeque<WatchEvent>>,
    wanted: Cell<Option<ShutdownReason>>,
}

impl GuestStore {
    /// Takes the page over and asks to be told about shutdowns.
    ///
    /// # Errors
    /// [`StoreError`] if xenstore does not answer.
    pub(crate) fn open(
        page: &'static Page,
        port: Port,
        channels: Channels,
    ) -> Result<Self, StoreError> {
        let connection = Connection::new(StoreWire::open(page, port, channels));
        connection.watch(CONTROL, CONTROL)?;
        Ok(Self { connection, events: RefCell::default(), wanted: Cell::new(None) })
    }

    /// How the toolstack wants the guest to end, if it does.
    ///
    /// # Errors
    /// [`StoreError`] if xenstore does not answer.
    pub(crate) fn wanted(&self) -> Result<Option<ShutdownReason>, StoreError> {
        while self.events.borrow().len() < EVENTS_MAX
            && let Some(event) = self.connection.event()?
        {
            if event.token == CONTROL {
                self.heed()?;
            } else {
                self.events.borrow_mut().push_back(event);
            }
        }
        Ok(self.wanted.get())
    }

    /// Reads what is asked for, and answers by emptying the node.
    fn heed(&self) -> Result<(), StoreError> {
        let wanted = match self.connection.read(Transaction::NONE, CONTROL)?.as_deref() {
            Some("poweroff" | "halt") => ShutdownReason::Poweroff,
            Some("reboot") => ShutdownReason::Reboot,
            // Not there, empty, or something that we cannot do (suspend): it stays unanswered.
            _ => return Ok(()),
        };
        self.connection.write(Transaction::NONE, CONTROL, "")?;
        self.wanted.set(Some(wanted));
        Ok(())
    }
}

impl Store for GuestStore {
    fn read(&self, within: Transaction, path: &str) -> Result<Option<String>, StoreError> {
        self.connection.read(within, path)
    }

    fn list(&self, within: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.connection.list(within, path)
    }

    fn write(&self, within: Transaction, path: &str, value: &str) -> Result<(), StoreError> {
        self.connection.write(within, path, value)
    }

    fn remove(&self, within: Transaction, path: &str) -> Result<(), StoreError> {
        self.connection.remove(within, path)
    }

    fn permit(
        &self,
        within: Transaction,
        path: &str,
        owner: DomainId,
        reader: DomainId,
    ) -> Result<(), StoreError> {
        self.connection.permit(within, path, owner, reader)
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.connection.watch(path, token)
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.connection.unwatch(path, token)
    }

    fn event(&self) -> Result<Option<WatchEvent>, StoreError> {
        self.wanted()?;
        Ok(self.events.borrow_mut().pop_front())
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        self.connection.begin()
    }

    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        self.connection.end(transaction, commit)
    }
}
