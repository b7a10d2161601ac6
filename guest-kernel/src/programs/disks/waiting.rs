//! The only place where programs wait.
//!
//! Each wake-up looks after all disks, not only the one that the program works on: xenstore may say
//! that another one closes, or has a new size.

use alloc::format;
use core::time::Duration;

use blkfront::elevator::Time;
use blkfront::{Device, Disk, Fault};
use blkif::Status;
use ring::Rest;
use xen::Store;

use super::connecting::turn;
use super::{Disks, FOLDER, OneDisk, Which};
use crate::programs::{Failure, Machine};
use crate::time::Instant;

/// How long a program that ended waits for its last requests.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

impl<M: Machine> Disks<M> {
    /// Waits until a disk may have completions, for the caller who has requests in flight there.
    ///
    /// # Errors
    /// [`Failure`] if the connection of `which` is lost, or on Ctrl-C.
    pub fn wait(&mut self, machine: &M, which: Which) -> Result<(), Failure> {
        match which {
            Which::Front(at) => self.wait_until(machine, at, None),
            // Its completions are there; only polling helps.
            Which::Local(_) if self.disk(which)?.in_flight() > 0 => Ok(()),
            Which::Local(_) => {
                Err(Failure::failed(format!("{}: nothing is in flight", self.name(which))))
            }
        }
    }

    /// The same for a disk with a back.
    fn wait_until(
        &mut self,
        machine: &M,
        which: usize,
        until: Option<Instant>,
    ) -> Result<(), Failure> {
        let disk = self.front(which)?;
        tell_time(machine, disk);
        if disk.in_flight() == 0 {
            let name = self.devices[which].name();
            return Err(Failure::failed(format!("{name}: the connection was lost")));
        }
        // What did not find room in the ring, or had better wait, goes on by itself.
        if disk.unsent() > 0 {
            disk.kick();
        }
        let due = disk.due().map(|Time(nanoseconds)| Instant::from_nanos(nanoseconds));
        let until = [until, due].into_iter().flatten().min();
        for at in 0..self.devices.len() {
            match self.devices[at].disk().map(Disk::rest) {
                None | Some(Ok(Rest::Idle)) => {}
                Some(Ok(Rest::Work)) if at == which => return Ok(()),
                // Somebody else's completions; whoever asked for them polls.
                Some(Ok(Rest::Work)) => {}
                Some(Err(fault)) if at == which => return Err(self.broken(machine, which, fault)),
                Some(Err(_)) => {}
            }
        }
        self.sleep(machine, until);
        if !self.steadfast && machine.interrupted() {
            return Err(Failure::interrupted());
        }
        Ok(())
    }

    /// Ends what a program left behind: waits for its last requests and forgets them. A disk that
    /// has let us wait in vain is not waited for again until it has answered all: it must not slow
    /// down what works on others.
    pub fn settle(&mut self, machine: &M) {
        self.settle_locals(machine);
        let until = machine.now().after(DRAIN_PATIENCE);
        for at in 0..self.devices.len() {
            while let Some(disk) = self.devices[at].disk().filter(|disk| disk.in_flight() > 0) {
                disk.kick();
                match disk.poll() {
                    Ok(Some(done)) if done.status != Status::Okay => {
                        let trouble = self.trouble(Which::Front(at), &done);
                        machine.print(format_args!("{trouble}"));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) if self.silent.contains(&at) => break,
                    Ok(None) if machine.now() >= until => {
                        let (waiting, name) = (disk.in_flight(), self.devices[at].name());
                        machine.print(format_args!(
                            "{name}: {waiting} requests are not answered; going on without"
                        ));
                        self.silent.push(at);
                        break;
                    }
                    // An interrupt ends programs, not this.
                    Ok(None) => drop(self.wait_until(machine, at, Some(until))),
                    Err(_) => break,
                }
            }
            if self.devices[at].disk().is_none_or(|disk| disk.in_flight() == 0) {
                self.silent.retain(|&silent| silent != at);
            }
        }
    }

    /// Waits once, until an event or until `until`, for a program that waits for something else
    /// than a disk.
    ///
    /// # Errors
    /// [`Failure`] on Ctrl-C.
    pub fn pause(&mut self, machine: &M, until: Option<Instant>) -> Result<(), Failure> {
        self.sleep(machine, until);
        if machine.interrupted() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Sleeps until an event, notes whose it was, and looks after everything.
    pub(super) fn sleep(&mut self, machine: &M, until: Option<Instant>) {
        self.go_on_closing(machine);
        if self.observer.is_looking() {
            self.observe(machine);
        }
        let until = [until, self.observer.next()].into_iter().flatten().min();
        let devices = &mut self.devices;
        let busy = devices.iter_mut().filter_map(Device::disk).any(|disk| disk.in_flight() > 0);
        let wait = if busy { M::wait_for_disks } else { M::wait };
        wait(machine, until, &mut |port| {
            let mut disks = devices.iter_mut().filter_map(Device::disk);
            if let Some(disk) = disks.find(|disk| disk.port() == port) {
                disk.woken();
            }
        });
        self.look_after(machine);
    }

    /// A disk that closes waited for completions, and they may have been polled since: no event
    /// tells of that.
    fn go_on_closing(&mut self, machine: &M) {
        let Some(store) = machine.store() else { return };
        for device in self.devices.iter_mut().filter(|device| device.is_closing()) {
            turn(machine, store, device);
        }
    }

    /// Follows what xenstore says of the backs, and of disks that are new. Whoever waits for
    /// something else than a disk calls this after every wake-up.
    pub fn look_after(&mut self, machine: &M) {
        self.observe(machine);
        let Some(store) = machine.store() else { return };
        loop {
            let mut folder = false;
            while let Ok(Some(event)) = store.event() {
                folder |= event.token == FOLDER;
                for device in self.devices.iter_mut().filter(|it| it.path() == event.token) {
                    turn(machine, store, device);
                }
            }
            if !folder {
                return;
            }
            // Its questions may have brought more watches in with the answers, and nothing else
            // will tell of those.
            self.look_for_new(machine);
        }
    }

    /// Reports a broken connection and begins its end.
    pub(super) fn broken(&mut self, machine: &M, at: usize, fault: Fault) -> Failure {
        let device = &mut self.devices[at];
        if let Some(store) = machine.store() {
            turn(machine, store, device);
        }
        Failure::failed(format!("{}: the back broke the connection: {fault}", device.name()))
    }
}

/// Tells a disk the time, if its elevator wants to know.
pub(super) fn tell_time<M: Machine>(machine: &M, disk: &mut OneDisk<M>) {
    if disk.wants_time() {
        disk.at(Time(machine.now().as_nanos()));
    }
}
