//! Guests that nobody wants beside him: what they do, and how they end.

use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::GuestEnd;

use crate::scene::{GUEST_TIMEOUT, Scene, ensure};

/// How a neighbour ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By its own bug, with the reason *crash*.
    Crashes,
    /// By itself and in good order: its status is 0.
    Ends,
    /// It is destroyed while it is at it.
    IsDestroyed,
    /// Not before it is taken away.
    Stays,
}

/// A bad neighbour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    /// What it is called in figures and messages.
    pub(crate) name: &'static str,
    /// What it does after it has read from its disk and said that it begins.
    commands: &'static str,
    pub(crate) fate: Fate,
    /// What its console shows in the end.
    says: &'static str,
}

const fn neighbour(
    name: &'static str,
    commands: &'static str,
    fate: Fate,
    says: &'static str,
) -> Neighbour {
    Neighbour { name, commands, fate, says }
}

pub(crate) const BAD: [Neighbour; 9] = [
    neighbour("panic", "crash panic", Fate::Crashes, "crash: panic"),
    neighbour("wild page fault", "crash fault", Fate::Crashes, "crash: page fault"),
    neighbour("double fault", "crash stack", Fate::Crashes, "now"),
    neighbour("endless loop", "crash loop", Fate::Stays, "now"),
    neighbour(
        "destroyed in mid-I/O",
        "bench xvda --rw=randread --iodepth=32 --runtime=600",
        Fate::IsDestroyed,
        "now",
    ),
    neighbour(
        "wild ring index",
        "hostile xvda index",
        Fate::Ends,
        "the back closed the disk: peer's ring index",
    ),
    neighbour(
        "rubbish in the ring",
        "hostile xvda rubbish",
        Fate::Ends,
        "the back closed the disk: peer's ring index",
    ),
    neighbour("wild requests", "hostile xvda requests --count=1000000", Fate::Stays, "now"),
    neighbour("storm of events", "hostile xvda storm --count=1g", Fate::Stays, "now"),
];

impl Neighbour {
    /// The guest, always of the same name, with this disk to read from.
    pub(crate) fn guest(&self, disk: &str) -> Guest {
        let run = format!("run=\"sha256 xvda --size=4k; echo now; {}\"", self.commands);
        Guest::pvblk("bad", &run).disk(Backend::Pvblk, disk, "xvda", true)
    }

    /// Waits until it is at it.
    pub(crate) fn begun(&self, scene: &Scene) -> Result<()> {
        scene.lab.wait_guest("bad", "now", GUEST_TIMEOUT).map(drop)
    }

    /// Waits until it has done what it does.
    pub(crate) fn done(&self, scene: &Scene) -> Result<()> {
        match self.fate {
            Fate::Crashes => {
                let end = scene.lab.wait_end("bad", GUEST_TIMEOUT, |_| {})?;
                ensure(end == GuestEnd::Crash, || format!("{}: {end:?}", self.name))?;
            }
            Fate::Ends => drop(scene.lab.wait_guest("bad", self.says, GUEST_TIMEOUT)?),
            Fate::IsDestroyed => {
                let end = scene.lab.ended("bad");
                ensure(end.is_none(), || format!("{}: it has ended: {end:?}", self.name))?;
                scene.lab.destroy("bad")?;
            }
            Fate::Stays => {}
        }
        Ok(())
    }

    /// Takes it away, which did nothing but what it had to.
    pub(crate) fn gone(&self, scene: &Scene) -> Result<()> {
        let (name, says) = (self.name, self.says);
        if self.fate == Fate::Ends {
            let status = scene.lab.wait_status("bad", GUEST_TIMEOUT, |_| {})?;
            ensure(status == 0, || format!("{name}: status {status}"))?;
        }
        let end = scene.lab.ended("bad");
        ensure(self.fate != Fate::Stays || end.is_none(), || format!("{name}: {end:?}"))?;
        let console = scene.lab.wait_guest("bad", says, GUEST_TIMEOUT);
        if self.fate != Fate::IsDestroyed {
            scene.lab.destroy("bad")?;
        }
        console.map(drop)
    }
}
