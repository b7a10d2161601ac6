//! The process of one device, as the daemon sees it: started, given its orders, listened to, ended.
//!
//! It runs as a user without rights and gets every descriptor by message, because it may open
//! nothing. It must never outlive the value that stands for it here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use crate::Image;
use crate::orders::{Begin, Last, Line, Order, Received, Told};
use crate::sys::{Channels, GrantDevice};
use crate::trace::Part;

/// Whether it was said that this kernel cannot tie event channels to one guest: once, as guests
/// connect as often as they like.
static UNTIED: Once = Once::new();

/// How the process of a device is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program: this one.
    pub path: PathBuf,
    /// What it is told; the device's name comes behind it.
    pub arguments: Vec<String>,
    /// The user and the group that it runs as; `None`: ours.
    pub user: Option<u32>,
}

/// A process that serves one connection of one device.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    line: Line,
    connected: bool,
    /// It was told of more sectors and has not said that it knows.
    growing: bool,
}

impl Process {
    /// Starts a process, which waits for its first order.
    pub(crate) fn start(program: &Program, device: &str) -> io::Result<Self> {
        let (line, theirs) = Line::pair()?;
        let mut command = Command::new(&program.path);
        command.arg0("blkback").args(&program.arguments).arg(device).stdin(Stdio::from(theirs));
        // What is typed at the daemon's terminal is for the daemon: it ends its devices in order.
        command.process_group(0);
        if let Some(user) = program.user {
            command.gid(user).uid(user);
        }
        Ok(Self { child: command.spawn()?, line, connected: false, growing: false })
    }

    /// Gives it the image, the nodes for one guest, what it writes a trace into, and all that was
    /// settled.
    pub(crate) fn begin(
        &self,
        begin: &Begin,
        image: &Image,
        part: Option<&Part<'_>>,
    ) -> Result<(), String> {
        let channels = Channels::open().map_err(|error| format!("/dev/xen/evtchn: {error}"))?;
        // Before it is out of our hands.
        if let Err(error) = channels.restrict(begin.connect.peer) {
            UNTIED.call_once(|| {
                log::warn!("event channels cannot be restricted to one guest: {error}");
            });
        }
        let grants = GrantDevice::open().map_err(|error| format!("/dev/xen/gntdev: {error}"))?;
        let with = [image.file.as_fd(), channels.as_fd(), grants.as_fd()];
        let with: Vec<BorrowedFd<'_>> = with.into_iter().chain(part.map(Part::as_fd)).collect();
        let sent = self.line.send(&begin.message(), &with);
        sent.map_err(|error| format!("the process of this device: {error}"))
    }

    /// Tells it how many sectors there are; it says when it knows.
    pub(crate) fn grow(&mut self, sectors: u64) {
        self.growing = true;
        self.order(Order::Grow(sectors));
    }

    /// Orders it to leave the ring.
    pub(crate) fn stop(&mut self) {
        self.order(Order::Stop);
    }

    /// Gives an order. A process that cannot be told what to do is ended, as it would never do it; that is
    /// noticed when it is listened to, as any other end.
    fn order(&mut self, order: Order) {
        let message = order.message();
        let tell = || self.line.send(&message, &[]);
        // Once more: what was in the way may be gone.
        if let Err(error) = tell().or_else(|_| tell()) {
            log::warn!("the process of this device cannot be told to {order:?}: {error}");
            // It may be gone already.
            let _ = self.child.kill();
        }
    }

    /// What it tells next, without waiting. An honest process says once that it is connected, then
    /// once for each time that its disk has grown that it knows, and then how it ended; any other
    /// word, and its death before its last, is an error.
    pub(crate) fn hear(&mut self) -> Result<Option<Told>, String> {
        let message = match self.line.receive() {
            Ok(Received::Message(message, _)) => message,
            Ok(Received::Nothing) => return Ok(None),
            Ok(Received::Closed) => return Err("the process of this device died".into()),
            Err(error) => return Err(format!("the process of this device: {error}")),
        };
        let told = Told::read(&message);
        let in_order = match &told {
            Some(Told::Connected) => !self.connected,
            Some(Told::Grown) => self.connected && std::mem::take(&mut self.growing),
            Some(Told::Last(Last::Unconnected(_))) => !self.connected,
            Some(Told::Last(Last::Ended { .. })) => self.connected,
            None => false,
        };
        if !in_order {
            return Err("the process of this device said what none of ours says".into());
        }
        self.connected = true;
        Ok(told)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Drop for Process {
    /// Ends the process. One that told its end has unmapped everything and closed nothing yet.
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        if let Err(error) = self.child.wait() {
            log::error!("the process of this device cannot be waited for: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::net::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn a_process_that_cannot_be_told_to_stop_is_ended() {
        let arguments = vec!["-c".into(), "exec sleep 1000".into()];
        let program = Program { path: "/bin/sh".into(), arguments, user: None };
        let mut process = Process::start(&program, "1/51712").unwrap();
        assert_eq!(process.hear(), Ok(None));
        shutdown(process.line.as_fd(), Shutdown::Write).unwrap();
        process.stop();
        let end = Instant::now() + Duration::from_secs(60);
        while process.hear() == Ok(None) {
            assert!(Instant::now() < end, "it waits for an order that never comes");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(process.hear(), Err("the process of this device died".into()));
    }
}
