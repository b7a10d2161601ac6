//! A connection without manners: a ring that is written word by word, and the pages behind it.
//!
//! It keeps its own count of what it asked, and holds every answer against it. Its pages are never
//! used again unless the back let go of them.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use ring::sync::{AtomicU32, Ordering};
use ring::{HEADER_WORDS, PAGE_WORDS};
use xen::{Access, Events, GrantRef, Grants, Port, XenbusState};

use super::ask::{Ask, SLOT_WORDS};
use super::place::TICK;
use super::{Outcome, Place, Trouble};
use crate::programs::Machine;

/// How long a back may take for anything. The machine may be emulated and busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Slots of a ring of one page.
pub(super) const SLOTS: u32 = 32;

/// The words of the ring's header (`xen/include/public/io/ring.h`).
pub(super) const REQ_PROD: usize = 0;
pub(super) const REQ_EVENT: usize = 1;
pub(super) const RSP_PROD: usize = 2;
pub(super) const RSP_EVENT: usize = 3;

/// An answer as it stood in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: u64,
    pub(super) operation: u8,
    pub(super) status: i16,
    /// The bytes between the fields.
    pub(super) padding: [u8; 5],
}

impl Answer {
    fn of(words: [u32; 4]) -> Self {
        let [operation, pad, low, high] = words[2].to_le_bytes();
        let [a, b, c, d] = words[3].to_le_bytes();
        Self {
            id: u64::from(words[0]) | u64::from(words[1]) << 32,
            operation,
            status: i16::from_le_bytes([low, high]),
            padding: [pad, a, b, c, d],
        }
    }
}

/// A granted page, by its place in the wire's list.
pub(super) struct Lent<M: Machine> {
    pub(super) page: <M::Grants as Grants>::Page,
    pub(super) reference: GrantRef,
}

/// A connection.
pub(super) struct Wire<'a, M: Machine> {
    pub(super) machine: &'a M,
    pub(super) place: &'a Place,
    grants: M::Grants,
    events: M::Events,
    pub(super) port: Port,
    /// The ring's page first, then those for data.
    pages: Vec<Lent<M>>,
    asked: u32,
    published: u32,
    taken: u32,
}

impl<'a, M: Machine> Wire<'a, M> {
    /// Makes a ring and an event channel, tells nobody.
    pub(super) fn new(machine: &'a M, place: &'a Place) -> Result<Self, Trouble> {
        let (grants, events) = machine.ends();
        let port = events.offer(place.peer).map_err(Trouble::error)?;
        let (pages, asked, published, taken) = (Vec::new(), 0, 0, 0);
        let mut wire =
            Self { machine, place, grants, events, port, pages, asked, published, taken };
        wire.lend(Access::Write)?;
        wire.poke(REQ_EVENT, 1);
        wire.poke(RSP_EVENT, 1);
        Ok(wire)
    }

    /// Connects: the ring of one page, grants that stay.
    pub(super) fn open(machine: &'a M, place: &'a Place) -> Result<Self, Trouble> {
        let wire = Self::new(machine, place)?;
        wire.await_back()?;
        wire.publish_nodes()?;
        place.say(machine, XenbusState::Initialised)?;
        if !place.comes_to(machine, &[XenbusState::Connected], PATIENCE) {
            let state = place.state(machine);
            return Err(Trouble::failure(format!("the back does not connect: {state}")));
        }
        place.say(machine, XenbusState::Connected)?;
        Ok(wire)
    }

    /// Says 1 and waits for a back that waits for a front. A back that looks at states only when
    /// they change may have missed one: it is told anew that the last front is gone.
    pub(super) fn await_back(&self) -> Outcome {
        let until = self.machine.now().after(PATIENCE);
        loop {
            self.place.say(self.machine, XenbusState::Initialising)?;
            if self.place.comes_to(self.machine, &[XenbusState::InitWait], PATIENCE / 6) {
                return Ok(());
            }
            if self.machine.now() >= until {
                let state = self.place.state(self.machine);
                let what = format!("the back does not wait for a front: {state}");
                return Err(Trouble::failure(what));
            }
            self.place.say(self.machine, XenbusState::Closed)?;
            self.place.comes_to(self.machine, &[XenbusState::Closed], PATIENCE / 6);
        }
    }

    /// The nodes of a ring of one page, and none besides.
    pub(super) fn publish_nodes(&self) -> Outcome {
        for key in ["ring-page-order", "multi-queue-num-queues", "ring-ref0"] {
            self.place.write(self.machine, key, None)?;
        }
        let (ring, port) = (format!("{}", self.pages[0].reference), format!("{}", self.port));
        for (key, value) in [
            ("ring-ref", ring.as_str()),
            ("event-channel", port.as_str()),
            ("protocol", "x86_64-abi"),
            ("feature-persistent", "1"),
        ] {
            self.place.write(self.machine, key, Some(value))?;
        }
        Ok(())
    }

    /// One more page of zeros for the back; gives its reference.
    pub(super) fn lend(&mut self, access: Access) -> Result<u32, Trouble> {
        let page = self.grants.page().ok_or(Trouble::error("memory is short"))?;
        let reference = self.grants.grant(&page, self.place.peer, access);
        let reference = reference.map_err(Trouble::error)?;
        self.pages.push(Lent { page, reference });
        Ok(reference.0)
    }

    /// One more page that the back may write.
    pub(super) fn page(&mut self) -> Result<u32, Trouble> {
        self.lend(Access::Write)
    }

    /// A reference that means nothing any more.
    pub(super) fn stale(&mut self) -> Result<u32, Trouble> {
        let reference = self.lend(Access::Write)?;
        let lent = self.pages.pop().ok_or(Trouble::error("no page"))?;
        self.grants.revoke(lent.reference).map_err(|_| Trouble::error("mapped already"))?;
        Ok(reference)
    }

    /// The memory of a page that was lent.
    pub(super) fn memory(&self, reference: u32) -> &ring::Page {
        let lent = self.pages.iter().find(|lent| lent.reference.0 == reference);
        &lent.expect("a page of this wire").page
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        use ring::Memory;
        self.pages[0].page.word(at % PAGE_WORDS)
    }

    /// Overwrites a word of the ring.
    pub(super) fn poke(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
    }

    /// A word of the ring.
    pub(super) fn peek(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }

    /// The first word of the slot of the next request.
    pub(super) fn next_slot(&self) -> usize {
        HEADER_WORDS + (self.asked % SLOTS) as usize * SLOT_WORDS
    }

    /// Requests that were published and not answered.
    pub(super) fn open_requests(&self) -> u32 {
        self.published.wrapping_sub(self.taken)
    }

    /// Where the producer index stands.
    pub(super) fn producer(&self) -> u32 {
        self.published
    }

    /// Fills the next slot.
    pub(super) fn put(&mut self, words: &[u32]) {
        let slot = self.next_slot();
        words
            .iter()
            .take(SLOT_WORDS)
            .enumerate()
            .for_each(|(at, &word)| self.poke(slot + at, word));
        self.asked = self.asked.wrapping_add(1);
    }

    /// Shows the back what was put, with an event, wanted or not.
    pub(super) fn publish(&mut self) {
        self.poke(REQ_PROD, self.asked);
        self.published = self.asked;
        self.notify();
    }

    /// Raises an event.
    pub(super) fn notify(&self) {
        self.events.notify(self.port);
    }

    /// The next answer, if there is one now.
    pub(super) fn answer(&mut self) -> Result<Option<Answer>, Trouble> {
        let there = self.peek(RSP_PROD).wrapping_sub(self.taken);
        if there > self.open_requests() {
            let open = self.open_requests();
            return Err(Trouble::failure(format!("{there} answers to {open} requests")));
        }
        if there == 0 {
            return Ok(None);
        }
        let slot = HEADER_WORDS + (self.taken % SLOTS) as usize * SLOT_WORDS;
        let words = [0, 1, 2, 3].map(|at| self.peek(slot + at));
        self.taken = self.taken.wrapping_add(1);
        let answer = Answer::of(words);
        if !(-2..=0).contains(&answer.status) {
            return Err(Trouble::failure(format!("no such status: {answer:?}")));
        }
        Ok(Some(answer))
    }

    /// All answers to what was published.
    pub(super) fn answers(&mut self) -> Result<Vec<Answer>, Trouble> {
        let until = self.machine.now().after(PATIENCE);
        let mut answers = Vec::new();
        while self.open_requests() > 0 {
            if let Some(answer) = self.answer()? {
                answers.push(answer);
                continue;
            }
            if self.machine.now() >= until {
                let open = self.open_requests();
                return Err(Trouble::failure(format!("{open} requests without an answer")));
            }
            self.poke(RSP_EVENT, self.taken.wrapping_add(1));
            let wake = self.machine.now().after(TICK);
            self.machine.wait_for_disks(Some(wake), &mut |_| {});
        }
        Ok(answers)
    }

    /// Asks all, a ring full at a time; gives the answers in the order of the asking, one for
    /// each. The ids must differ.
    pub(super) fn ask(&mut self, asks: &[Ask]) -> Result<Vec<Answer>, Trouble> {
        let mut all = Vec::new();
        for batch in asks.chunks(SLOTS as usize) {
            batch.iter().for_each(|ask| self.put(&ask.words()));
            self.publish();
            let answers = self.answers()?;
            for ask in batch {
                let mut own = answers.iter().filter(|answer| answer.id == ask.id);
                let found = own.next().ok_or_else(|| {
                    Trouble::failure(format!("no answer with the id {:#x}", ask.id))
                })?;
                if own.next().is_some() {
                    return Err(Trouble::failure(format!("two answers to {:#x}", ask.id)));
                }
                all.push(*found);
            }
        }
        Ok(all)
    }

    /// Asks for something that has to be done.
    pub(super) fn expect_done(&mut self, ask: &Ask) -> Outcome {
        match self.ask(core::slice::from_ref(ask))?[0] {
            Answer { status: 0, .. } => Ok(()),
            other => Err(Trouble::failure(format!("{ask:?} was answered with {}", other.status))),
        }
    }

    /// Asks for what must be refused, each.
    pub(super) fn expect_refused(&mut self, asks: &[Ask]) -> Outcome {
        let answers = self.ask(asks)?;
        match asks.iter().zip(answers).find(|(_, answer)| answer.status == 0) {
            None => Ok(()),
            Some((ask, _)) => Err(Trouble::failure(format!("done, not refused: {ask:?}"))),
        }
    }

    /// Closes, whatever was broken; the back must let go of every page.
    pub(super) fn close(mut self) -> Outcome {
        let (machine, place) = (self.machine, self.place);
        place.say(machine, XenbusState::Closing)?;
        place.comes_to(machine, &[XenbusState::Closing, XenbusState::Closed], PATIENCE);
        place.say(machine, XenbusState::Closed)?;
        let closed = place.comes_to(machine, &[XenbusState::Closed], PATIENCE);
        self.events.close(self.port);
        let kept = self.take_back();
        if !closed {
            let state = place.state(machine);
            return Err(Trouble::failure(format!("the back does not close: {state}")));
        }
        if kept > 0 {
            return Err(Trouble::failure(format!("closed, with {kept} pages still mapped")));
        }
        Ok(())
    }

    /// Takes the grants back; tells how many the back does not let go of. Those are never used
    /// again.
    fn take_back(&mut self) -> usize {
        let until = self.machine.now().after(PATIENCE);
        while !self.pages.is_empty() {
            let grants = &self.grants;
            self.pages.retain(|lent| grants.revoke(lent.reference).is_err());
            if self.machine.now() >= until {
                break;
            }
            self.machine.wait(Some(self.machine.now().after(TICK)), &mut |_| {});
        }
        let kept = self.pages.len();
        core::mem::take(&mut self.pages).into_iter().for_each(core::mem::forget);
        kept
    }
}

impl<M: Machine> Drop for Wire<'_, M> {
    /// After a test that failed: what can be had is taken back, so that the next one may go on.
    fn drop(&mut self) {
        if self.pages.is_empty() {
            return;
        }
        let (machine, place) = (self.machine, self.place);
        for state in [XenbusState::Closing, XenbusState::Closed] {
            // A store that is lost is told by whoever uses it next.
            let _ = place.say(machine, state);
            place.comes_to(machine, &[XenbusState::Closed], PATIENCE);
        }
        self.events.close(self.port);
        self.take_back();
    }
}
