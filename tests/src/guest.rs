//! A guest with its devices, and the turns that it takes.

use std::collections::BTreeMap;

use blkfront::elevator::{Elevators, Time};
use blkfront::{Device, DeviceError, Disk, Wishes};
use ring::Rest;
use sim::{Clock, Domain};
use xen::{Store, Transaction};

use crate::{Hooked, Ledger, Plain};

/// Nanoseconds that a tick of the clock is for an elevator: its deadlines are to come within a tale.
const NS_PER_TICK: u64 = 1_000_000;

/// A guest with its devices, by their number.
pub struct Guest {
    /// The guest's domain.
    pub domain: Domain,
    /// Whether its devices keep their grants; for devices that are opened from now on.
    pub persistent: bool,
    /// The elevator of devices that it opens.
    pub elevator: &'static str,
    devices: BTreeMap<u32, Attached>,
    clock: Clock,
}

struct Attached {
    device: Device<Domain, Domain>,
    /// Something was raised that may have to do with completions, or there were more at rest.
    woken: bool,
    /// The last turn did not get through.
    unfinished: bool,
    trouble: Option<DeviceError>,
}

impl Guest {
    /// A guest without devices.
    pub(crate) fn new(domain: Domain) -> Self {
        let (devices, clock) = (BTreeMap::new(), domain.clock());
        Self { domain, persistent: true, elevator: "noop", devices, clock }
    }

    /// Finds a device in the guest's own directory.
    ///
    /// # Panics
    /// If it is not there, or there is no such elevator.
    pub fn open(&mut self, vdev: u32, wishes: Wishes) {
        self.try_open(vdev, wishes).expect("a device");
    }

    /// Finds a device in the guest's own directory.
    ///
    /// # Errors
    /// Why it cannot be used.
    ///
    /// # Panics
    /// If there is no such elevator.
    pub fn try_open(&mut self, vdev: u32, wishes: Wishes) -> Result<(), DeviceError> {
        let path = format!("device/vbd/{vdev}");
        let seam = (self.domain.clone(), self.domain.clone());
        let mut device = Device::open(&self.domain, &path, seam, wishes)?;
        device.set_elevator(Elevators::new().find(self.elevator).expect("a name of one"));
        self.domain.watch(&device.watched(), &vdev.to_string())?;
        let attached = Attached { device, woken: false, unfinished: false, trouble: None };
        self.devices.insert(vdev, attached);
        Ok(())
    }

    /// A device.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn device(&mut self, vdev: u32) -> &mut Device<Domain, Domain> {
        &mut self.devices.get_mut(&vdev).expect("a device").device
    }

    /// Whether there is such a device, in whatever state.
    pub fn has(&self, vdev: u32) -> bool {
        self.devices.contains_key(&vdev)
    }

    /// Forgets a device, which drops all it has.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn forget(&mut self, vdev: u32) {
        let gone = self.devices.remove(&vdev).expect("a device");
        let watched = gone.device.watched();
        self.domain.unwatch(&watched, &vdev.to_string()).expect("its watch");
    }

    /// Takes in events and fired watches, and tries again what did not get through; tells whether
    /// anything came of it.
    ///
    /// # Panics
    /// If a device loses its xenstore.
    pub fn turn(&mut self) -> bool {
        let store = self.store();
        let mut busy = false;
        for attached in self.devices.values_mut().filter(|attached| attached.unfinished) {
            busy |= attached.turn(&store);
        }
        while let Some(event) = self.domain.event().expect("xenstore") {
            busy = true;
            let vdev: u32 = event.token.parse().expect("its own token");
            if let Some(attached) = self.devices.get_mut(&vdev) {
                attached.turn(&store);
            }
        }
        while let Some(port) = self.domain.take_event() {
            busy = true;
            for attached in self.devices.values_mut() {
                let woken = attached.device.disk().filter(|disk| disk.port() == port);
                if let Some(disk) = woken {
                    disk.woken();
                    attached.woken = true;
                }
            }
        }
        busy
    }

    /// Its xenstore, as its fronts are to use it.
    fn store(&self) -> Hooked<Plain> {
        Hooked { domain: self.domain.clone(), hook: Plain { keeps: self.persistent } }
    }

    /// The disk of a device.
    ///
    /// # Panics
    /// If it is not connected.
    pub fn disk(&mut self, vdev: u32) -> &mut Disk<Domain, Domain> {
        let now = Time(self.clock.now() * NS_PER_TICK);
        let disk = self.device(vdev).disk().expect("a connected device");
        disk.at(now);
        disk
    }

    /// Takes completions, if there is such a device and something was raised that says that there
    /// may be some, until none is left; then asks for the next event. Tells whether it looked.
    ///
    /// # Panics
    /// If the back breaks the ring.
    pub fn listen(&mut self, vdev: u32, ledger: &mut Ledger) -> bool {
        let Some(attached) = self.devices.get_mut(&vdev) else { return false };
        if !std::mem::take(&mut attached.woken) {
            return false;
        }
        let Some(disk) = attached.device.disk() else { return true };
        disk.at(Time(self.clock.now() * NS_PER_TICK));
        loop {
            ledger.poll(disk);
            // What had no room goes down now.
            disk.kick();
            if disk.rest().expect("an honest back") == Rest::Idle {
                break;
            }
        }
        // A device that closes goes on once it has its last answer.
        if !attached.device.is_connected() {
            self.look(vdev);
        }
        true
    }

    /// Whether the guest has such a device in service.
    pub fn is_connected(&self, vdev: u32) -> bool {
        self.devices.get(&vdev).is_some_and(|attached| attached.device.is_connected())
    }

    /// Whether the guest has such a device and it is closed.
    pub fn is_closed(&self, vdev: u32) -> bool {
        self.devices.get(&vdev).is_some_and(|attached| attached.device.is_closed())
    }

    /// What a device last could not do.
    pub fn trouble(&self, vdev: u32) -> Option<&DeviceError> {
        self.devices.get(&vdev)?.trouble.as_ref()
    }

    /// Lets a device look at xenstore again.
    pub fn look(&mut self, vdev: u32) {
        let store = self.store();
        self.devices.get_mut(&vdev).expect("a device").turn(&store);
    }

    /// What the guest says its state is.
    pub fn state(&self, vdev: u32) -> Option<String> {
        let path = format!("device/vbd/{vdev}/state");
        self.domain.read(Transaction::NONE, &path).expect("its own node")
    }
}

impl Attached {
    /// Whoever waits for completions looks for them after every wake-up, whatever it was.
    fn turn(&mut self, store: &Hooked<Plain>) -> bool {
        self.woken = true;
        let result = self.device.turn(store);
        self.unfinished = result.is_err();
        let finished = result.is_ok();
        self.trouble = result.err().or(self.trouble.take());
        finished
    }
}
