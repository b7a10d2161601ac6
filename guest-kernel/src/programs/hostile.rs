//! `hostile`: plays a guest that means harm to the back of one of its disks, so that a real Xen can
//! show that the back bears it and that no other guest notices.
//!
//! It gives the disk up, offers a ring of its own and writes into it what no front would; then the
//! disk is taken into use again. What is on the disk is lost. It must never lie with anything but
//! its own ring and events: not to the kernel here, and not to other disks.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::time::Duration;

use blkfront::{Lender, Lent};
use blkif::{Abi, Features, FrontOffer, Response, Status};
use ring::sync::Ordering;
use ring::{Front, Memory, Notify};
use xen::{DomainId, Events, Port, Store, Transaction, XenbusState};

use super::arguments::Arguments;
use super::random::Random;
use super::{Disks, Failure, Machine};

const USAGE: &str = "hostile DISK index|requests|rubbish|storm [--count=N] [--seed=S]";
/// How long the back may take for one step.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often its nodes are looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// Words that are overwritten between two looks at the back.
const RUBBISH_AT_ONCE: u64 = 256;
/// The layout that it speaks, and a ring of one page in it.
const ABI: Abi = Abi::X86_64;
/// The words of the ring's header that say how far each side is (`io/ring.h`), and of the header.
const REQ_PROD: usize = 0;
const HEADER: usize = 4;
/// Grant references from here on are none of ours: the table of a small guest ends before.
const FOREIGN: u32 = 1 << 20;

/// Does harm of one kind and tells how the back took it.
///
/// # Errors
/// [`Failure`] if it does not answer, or does not close what it has to.
pub fn run<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(words, &["count", "seed"])?;
    let [name, kind] = arguments.plain(USAGE)?;
    let (attack, count): (Attack<M>, u64) = match kind {
        "index" => (index, 1),
        "requests" => (requests, 1000),
        "rubbish" => (rubbish, 10_000),
        "storm" => (storm, 100_000),
        _ => return Err(Failure::usage(format!("usage: {USAGE}"))),
    };
    let count = arguments.number("count")?.unwrap_or(count);
    let random = Random(arguments.number("seed")?.unwrap_or(1));
    let which = disks.find(name)?;
    let path = disks.shut(machine, which)?;
    let told = play(machine, disks, &path, attack, (count, random));
    disks.reopen(machine, which)?;
    machine.print(format_args!("hostile: {name}: {}", told?));
    Ok(())
}

/// A ring that the back has mapped, and what is needed to fill it.
struct Prey<'a, M: Machine> {
    machine: &'a M,
    disks: &'a mut Disks<M>,
    nodes: Nodes<'a, M::Store>,
    /// Also behind the ring's back.
    pages: &'a Lent<M::Grants>,
    ring: Front<&'a Lent<M::Grants>>,
    /// One honest page.
    buffer: &'a Lent<M::Grants>,
    events: M::Events,
    port: Port,
    count: u64,
    random: Random,
}

/// Does harm, and tells what came of it if the back is still there.
type Attack<M> = fn(&mut Prey<'_, M>) -> Result<String, Failure>;

/// Connects, does harm, and lets go of everything.
fn play<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    path: &str,
    attack: Attack<M>,
    (count, random): (u64, Random),
) -> Result<String, Failure> {
    let store = machine.store().ok_or_else(|| Failure::missing("no xenstore"))?;
    let nodes = Nodes::find(store, path)?;
    let (grants, events) = machine.ends();
    let lender = Arc::new(Lender::new(grants, nodes.peer));
    let [pages, buffer] = [(); 2].map(|()| Lent::new(&lender, 1).map_err(Failure::failed));
    let (pages, buffer) = (pages?, buffer?);
    let port = events.offer(nodes.peer).map_err(Failure::failed)?;
    let ring = Front::new(&pages, ABI.layout(0));
    let mut prey = Prey {
        machine,
        disks,
        nodes,
        pages: &pages,
        ring,
        buffer: &buffer,
        events,
        port,
        count,
        random,
    };
    let told = prey.connect().and_then(|()| attack(&mut prey));
    let told = told.and_then(|told| prey.verdict(told));
    let closed = prey.close();
    prey.events.close(port);
    closed.and(told)
}

/// Claims to have put more requests than there are slots.
fn index<M: Machine>(prey: &mut Prey<'_, M>) -> Result<String, Failure> {
    let wild = prey.random.word() | 1 << 16;
    prey.poke(REQ_PROD, wild);
    prey.wait_for(|state| !is_up(state))?;
    Ok(String::new())
}

/// Puts requests that ask for anything, and takes their answers.
fn requests<M: Machine>(prey: &mut Prey<'_, M>) -> Result<String, Failure> {
    let (mut left, mut answers) = (prey.count, [0_u64; 3]);
    while left > 0 {
        let batch = left.min(u64::from(prey.ring.free()));
        for _ in 0..batch {
            let words = prey.wild_request();
            prey.ring.put(&words).map_err(|_| Failure::failed("no room in the ring"))?;
        }
        if prey.ring.publish() == Notify::Needed {
            prey.events.notify(prey.port);
        }
        prey.answers(batch, &mut answers)?;
        left -= batch;
    }
    let [okay, error, unsupported] = answers;
    Ok(format!("{okay} requests done, {error} errors, {unsupported} unsupported"))
}

/// Overwrites the ring with anything, its header more often than the rest.
fn rubbish<M: Machine>(prey: &mut Prey<'_, M>) -> Result<String, Failure> {
    let mut written = 0;
    while written < prey.count && is_up(prey.nodes.state()) {
        for _ in 0..RUBBISH_AT_ONCE {
            let within = if prey.random.below(4) == 0 { HEADER } else { prey.pages.words() };
            let (word, value) = (prey.random.below(within), prey.random.word());
            prey.poke(word, value);
        }
        written += RUBBISH_AT_ONCE;
        prey.pause()?;
    }
    Ok(format!("{written} words overwritten"))
}

/// Raises events for nothing.
fn storm<M: Machine>(prey: &mut Prey<'_, M>) -> Result<String, Failure> {
    for _ in 0..prey.count {
        prey.events.notify(prey.port);
    }
    Ok(format!("{} events for nothing", prey.count))
}

impl<M: Machine> Prey<'_, M> {
    /// The handshake, as an honest front does it.
    fn connect(&mut self) -> Result<(), Failure> {
        self.nodes.say(XenbusState::Initialising)?;
        self.wait_for(|state| state == XenbusState::InitWait)?;
        let ring = [self.pages.reference(0)].into_iter().collect();
        let offer = FrontOffer { abi: ABI, ring, port: self.port, features: Features::PERSISTENT };
        self.nodes.publish(&offer)?;
        self.wait_for(|state| state == XenbusState::Connected)?;
        self.nodes.say(XenbusState::Connected)
    }

    /// The goodbye, as an honest front does it: then nothing is mapped any more.
    fn close(&mut self) -> Result<(), Failure> {
        self.nodes.say(XenbusState::Closing)?;
        self.wait_for(|state| !is_up(state))?;
        self.nodes.say(XenbusState::Closed)?;
        self.wait_for(|state| state == XenbusState::Closed)
    }

    /// What the back made of it.
    fn verdict(&self, told: String) -> Result<String, Failure> {
        if is_up(self.nodes.state()) {
            return Ok(format!("{told}, the back serves on"));
        }
        let reason = self.nodes.read(&format!("{}/error", self.nodes.back))?;
        let reason = reason.ok_or_else(|| Failure::failed("the back closed without a reason"))?;
        Ok(format!("the back closed the disk: {reason}"))
    }

    /// Takes as many answers, and counts them by their status.
    fn answers(&mut self, mut left: u64, count: &mut [u64; 3]) -> Result<(), Failure> {
        let until = self.machine.now().after(PATIENCE);
        while left > 0 {
            match self.ring.take(Response::parse).map_err(Failure::failed)? {
                Some(Response { status, .. }) => {
                    let at = [Status::Okay, Status::Error].iter().position(|&it| it == status);
                    count[at.unwrap_or(2)] += 1;
                    left -= 1;
                }
                None if self.machine.now() >= until => {
                    return Err(Failure::failed(format!("{left} requests were never answered")));
                }
                None => self.pause()?,
            }
        }
        Ok(())
    }

    fn poke(&self, word: usize, value: u32) {
        self.pages.word(word).store(value, Ordering::Release);
        self.events.notify(self.port);
    }

    /// A request of which each part makes sense every other time.
    fn wild_request(&mut self) -> [u32; 28] {
        let random = &mut self.random;
        let mut words = [0; 28];
        words.iter_mut().for_each(|word| *word = random.word());
        let (operation, segments) = (random.word() % 8, 1 + random.word() % 11);
        if random.coin() {
            words[0] = operation | segments << 8;
        }
        if random.coin() {
            (words[4], words[5]) = (words[4] % 4096, 0);
        }
        let good = random.coin();
        for segment in words[6..].chunks_exact_mut(2) {
            let honest = good || random.coin();
            segment[0] = if honest { self.buffer.reference(0).0 } else { FOREIGN | segment[0] };
            if good || random.coin() {
                segment[1] = 7 << 8;
            }
        }
        words
    }

    fn wait_for(&mut self, found: impl Fn(XenbusState) -> bool) -> Result<(), Failure> {
        let until = self.machine.now().after(PATIENCE);
        while !found(self.nodes.state()) {
            if self.machine.now() >= until {
                let state = self.nodes.state();
                return Err(Failure::failed(format!("the back stays in state {state}")));
            }
            self.pause()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.disks.pause(self.machine, Some(self.machine.now().after(GLANCE)))
    }
}

const fn is_up(state: XenbusState) -> bool {
    matches!(state, XenbusState::InitWait | XenbusState::Connected)
}

/// What xenstore has of the device.
struct Nodes<'a, S> {
    store: &'a S,
    front: &'a str,
    back: String,
    peer: DomainId,
}

impl<'a, S: Store> Nodes<'a, S> {
    fn find(store: &'a S, front: &'a str) -> Result<Self, Failure> {
        let mut nodes = Self { store, front, back: String::new(), peer: DomainId::ZERO };
        let missing = |key| Failure::missing(format!("{front} has no {key}"));
        let back = nodes.read(&format!("{front}/backend"))?;
        nodes.back = back.ok_or_else(|| missing("backend"))?;
        let peer = nodes.read(&format!("{front}/backend-id"))?;
        let peer = peer.and_then(|it| it.parse().ok()).ok_or_else(|| missing("backend-id"))?;
        Ok(Self { peer: DomainId(peer), ..nodes })
    }

    fn read(&self, path: &str) -> Result<Option<String>, Failure> {
        self.store.read(Transaction::NONE, path).map_err(Failure::failed)
    }

    /// The back's state.
    fn state(&self) -> XenbusState {
        let state = self.store.read(Transaction::NONE, &format!("{}/state", self.back));
        XenbusState::parse(state.ok().flatten().as_deref())
    }

    fn write(&self, key: &str, value: &str) -> Result<(), Failure> {
        let path = format!("{}/{key}", self.front);
        self.store.write(Transaction::NONE, &path, value).map_err(Failure::failed)
    }

    fn say(&self, state: XenbusState) -> Result<(), Failure> {
        self.write("state", &state.to_string())
    }

    fn publish(&self, offer: &FrontOffer) -> Result<(), Failure> {
        for key in offer.stale() {
            let path = format!("{}/{key}", self.front);
            self.store.remove(Transaction::NONE, &path).map_err(Failure::failed)?;
        }
        offer.write(|key, value| self.write(key, &value.to_string()))?;
        self.say(XenbusState::Initialised)
    }
}

#[cfg(test)]
mod tests;
