//! One machine with a back in domain 0 and any number of guests, told step by step.
//!
//! Nothing runs by itself: [`World::settle`] gives everybody turns until nobody has anything to
//! do. All choices come from the seed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use blkback::Control;
use blkback::connect::Leave;
use blkfront::elevator::Elevators;
use blkfront::{Device, DeviceError, Disk, Wishes};
use ring::Rest;
use sim::{Domain, Random, Sim};
use xen::{DomainId, Store, Transaction};

use crate::{Ledger, Plain, Platter, SimCrew, Wanted};

/// How long the back keeps the disks of a guest that is gone.
pub const KEEP: Duration = Duration::from_secs(60);

/// More rounds than any story needs to come to rest.
const ROUNDS_MAX: usize = 10_000;

/// A guest with its devices, by their number.
pub struct Guest {
    /// The guest's domain.
    pub domain: Domain,
    /// Whether its devices keep their grants; for devices that are opened from now on.
    pub persistent: bool,
    /// The elevator of devices that it opens.
    pub elevator: &'static str,
    devices: BTreeMap<u32, Attached>,
}

struct Attached {
    device: Device<Domain, Domain>,
    /// Its event was raised, or it found more at rest.
    woken: bool,
    trouble: Option<DeviceError>,
}

/// A back: control plane and workers.
struct Back {
    control: Control<Domain, SimCrew>,
    crew: SimCrew,
}

/// One machine.
pub struct World {
    /// The machine.
    pub sim: Sim,
    /// Domain 0 as the tool stack sees it; dead after a crash of the back, see [`World::crash_back`].
    pub dom0: Domain,
    /// For whatever the story chooses.
    pub random: Random,
    seed: u64,
    platters: BTreeMap<PathBuf, Platter>,
    back: Option<Back>,
    clock: Duration,
}

impl World {
    /// A machine without guests whose back is up.
    pub fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let dom0 = sim.domain(DomainId::ZERO);
        let random = Random::new(!seed);
        let (platters, clock) = (BTreeMap::new(), Duration::ZERO);
        let mut world = Self { sim, dom0, random, seed, platters, back: None, clock };
        world.start_back();
        world
    }

    /// A new disk image of zeros under a name.
    pub fn image(&mut self, name: &str, sectors: usize) -> Platter {
        let platter = Platter::new(sectors);
        self.platters.insert(name.into(), platter.clone());
        if let Some(back) = &self.back {
            back.crew.add(name.into(), platter.clone());
        }
        platter
    }

    /// Starts a back in domain 0.
    ///
    /// # Panics
    /// If xenstore refuses domain 0.
    pub fn start_back(&mut self) {
        let crew = SimCrew::new(self.dom0.clone(), self.platters.clone(), self.seed);
        let control = Control::new(self.dom0.clone(), crew.clone(), DomainId::ZERO, KEEP);
        self.back = Some(Back { control: control.expect("xenstore"), crew });
        self.wait(Duration::ZERO);
    }

    /// The back dies without a word, and its kernel takes back what it held.
    pub fn crash_back(&mut self) {
        self.sim.crash(DomainId::ZERO);
        self.dom0 = self.sim.domain(DomainId::ZERO);
        self.back = None;
    }

    /// Asks the back to close everything.
    pub fn leave_back(&mut self, leave: Leave) {
        if let Some(back) = &mut self.back {
            back.control.leave(leave);
        }
    }

    /// Detaches a disk as the tool stack does, and takes its directories away.
    ///
    /// # Panics
    /// If front or back does not let go of everything.
    pub fn unplug(&mut self, guest: &mut Guest, wanted: &Wanted<'_>) {
        wanted.detach(&self.dom0).expect("detached");
        self.settle(&mut [guest]);
        assert!(guest.device(wanted.vdev).is_closed());
        assert_eq!(guest.device(wanted.vdev).pages_kept(), 0);
        guest.forget(wanted.vdev);
        wanted.remove(&self.dom0).expect("removed");
        self.settle(&mut [guest]);
    }

    /// Ends the story: nobody holds anything but the back its three watches.
    ///
    /// # Panics
    /// If anything is left.
    pub fn end(self) {
        let mut audit = self.sim.audit();
        audit.watches.retain(|(id, _, token)| {
            *id != DomainId::ZERO || !["back", "domains"].contains(&token.as_str())
        });
        assert!(audit.is_clean(), "left behind:\n{audit}");
    }

    /// Whether the back serves nobody.
    pub fn is_back_idle(&self) -> bool {
        self.back.as_ref().is_none_or(|back| back.control.is_quiet())
    }

    /// How many devices the back knows.
    pub fn devices(&self) -> usize {
        self.back.as_ref().map_or(0, |back| back.control.device_count())
    }

    /// The workers of the back.
    ///
    /// # Panics
    /// If there is no back.
    pub fn crew(&self) -> &SimCrew {
        &self.back.as_ref().expect("a back").crew
    }

    /// A guest without devices, and without a UUID.
    pub fn guest(&self, id: u16) -> Guest {
        self.life(id, &[])
    }

    /// A life of the guest that is called `name`, without devices. Its name is its UUID, too.
    pub fn life_of(&self, name: &str, id: u16) -> Guest {
        self.life(id, &[("vm", &format!("/vm/{name}")), ("name", name)])
    }

    fn life(&self, id: u16, nodes: &[(&str, &str)]) -> Guest {
        let (domain, devices) = (self.sim.guest(DomainId(id), nodes), BTreeMap::new());
        Guest { domain, persistent: true, elevator: "noop", devices }
    }

    /// Destroys a guest as the tool stack does. Whether its directory goes before its domain is
    /// the seed's choice.
    ///
    /// # Panics
    /// If xenstore refuses domain 0.
    pub fn destroy(&mut self, guest: Guest) {
        let id = guest.domain.id();
        let early = self.random.chance(500);
        let remove = |world: &Self| {
            world.dom0.remove(Transaction::NONE, &format!("/local/domain/{id}")).expect("removed");
        };
        if early {
            remove(self);
            self.settle_back();
        }
        self.sim.kill(id);
        drop(guest);
        if !early {
            remove(self);
        }
    }

    /// Lets so much time pass.
    pub fn wait(&mut self, time: Duration) {
        self.clock += time;
        if let Some(back) = &mut self.back {
            back.control.at(self.clock);
        }
    }

    /// Gives the back one turn; tells whether it had something to do.
    ///
    /// # Panics
    /// If the back loses its xenstore.
    pub fn turn_back(&mut self) -> bool {
        let Some(back) = &mut self.back else { return false };
        back.control.work().expect("xenstore");
        back.crew.turn()
    }

    /// Gives the back alone more turns than it needs for anything.
    ///
    /// # Panics
    /// If the back loses its xenstore.
    pub fn settle_back(&mut self) {
        for _ in 0..100 {
            self.turn_back();
        }
    }

    /// Gives everybody turns until nobody has anything to do.
    ///
    /// # Panics
    /// If that never comes.
    pub fn settle(&mut self, guests: &mut [&mut Guest]) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = self.turn_back();
            for guest in guests.iter_mut() {
                busy |= guest.turn();
            }
            if !busy && self.sim.is_quiet() {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds");
    }

    /// Shows the back what was submitted and gives everybody turns until it is answered.
    ///
    /// # Panics
    /// If that never comes: a wake-up was lost.
    pub fn drain(&mut self, guest: &mut Guest, vdev: u32, ledger: &mut Ledger) {
        guest.disk(vdev).kick();
        for _ in 0..ROUNDS_MAX {
            if ledger.in_flight() == 0 {
                return;
            }
            self.turn_back();
            guest.turn();
            guest.listen(vdev, ledger);
        }
        panic!("{} requests wait for a wake-up that never comes", ledger.in_flight());
    }

    /// Attaches a disk and has the guest find it; both come to rest.
    ///
    /// # Panics
    /// If the guest does not find it.
    pub fn plug(&mut self, guest: &mut Guest, wanted: &Wanted<'_>, wishes: Wishes) {
        wanted.attach(&self.dom0).expect("attached");
        guest.open(wanted.vdev, wishes);
        self.settle(&mut [guest]);
    }
}

impl Guest {
    /// Finds a device in the guest's own directory.
    ///
    /// # Panics
    /// If it is not there, or there is no such elevator.
    pub fn open(&mut self, vdev: u32, wishes: Wishes) {
        let path = format!("device/vbd/{vdev}");
        let seam = (self.domain.clone(), self.domain.clone());
        let mut device = Device::open(&self.domain, &path, seam, wishes).expect("a device");
        device.set_elevator(Elevators::new().find(self.elevator).expect("a name of one"));
        self.domain.watch(&device.watched(), &vdev.to_string()).expect("a watch");
        self.devices.insert(vdev, Attached { device, woken: false, trouble: None });
    }

    /// A device.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn device(&mut self, vdev: u32) -> &mut Device<Domain, Domain> {
        &mut self.devices.get_mut(&vdev).expect("a device").device
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

    /// Takes in events and fired watches; tells whether there were any.
    ///
    /// # Panics
    /// If a device loses its xenstore.
    pub fn turn(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.domain.event().expect("xenstore") {
            busy = true;
            let vdev: u32 = event.token.parse().expect("its own token");
            if let Some(attached) = self.devices.get_mut(&vdev) {
                attached.turn(&Plain { domain: &self.domain, keeps: self.persistent });
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

    /// The disk of a device.
    ///
    /// # Panics
    /// If it is not connected.
    pub fn disk(&mut self, vdev: u32) -> &mut Disk<Domain, Domain> {
        self.device(vdev).disk().expect("a connected device")
    }

    /// Takes completions, if there is such a device and an event said that there are some, until
    /// none is left; then asks for the next event.
    ///
    /// # Panics
    /// If the back breaks the ring.
    pub fn listen(&mut self, vdev: u32, ledger: &mut Ledger) {
        let Some(attached) = self.devices.get_mut(&vdev) else { return };
        if !std::mem::take(&mut attached.woken) {
            return;
        }
        let Some(disk) = attached.device.disk() else { return };
        loop {
            ledger.poll(disk);
            // What had no room goes down now.
            disk.kick();
            if disk.rest().expect("an honest back") == Rest::Idle {
                break;
            }
        }
        // A device that closes goes on once it has its last answer.
        self.look(vdev);
    }

    /// Whether the guest has such a device in service.
    pub fn is_connected(&self, vdev: u32) -> bool {
        self.devices.get(&vdev).is_some_and(|attached| attached.device.is_connected())
    }

    /// What a device last could not do.
    pub fn trouble(&self, vdev: u32) -> Option<&DeviceError> {
        self.devices.get(&vdev)?.trouble.as_ref()
    }

    /// Lets a device look at xenstore again.
    pub fn look(&mut self, vdev: u32) {
        let store = Plain { domain: &self.domain, keeps: self.persistent };
        self.devices.get_mut(&vdev).expect("a device").turn(&store);
    }

    /// What the guest says its state is.
    pub fn state(&self, vdev: u32) -> Option<String> {
        let path = format!("device/vbd/{vdev}/state");
        self.domain.read(Transaction::NONE, &path).expect("its own node")
    }
}

impl Attached {
    fn turn(&mut self, store: &Plain<'_>) {
        self.trouble = self.device.turn(store).err().or(self.trouble.take());
    }
}
