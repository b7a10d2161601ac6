//! Disks without a back: how they come, what becomes of their completions, and how they go.

use alloc::boxed::Box;
use alloc::string::String;
use core::ops::RangeInclusive;

use blkfront::{Completion, Local, Medium};
use blkif::{Geometry, Status};

use super::{DISKS_MAX, Disks, Which};
use crate::files::Mount;
use crate::programs::{Failure, Machine};

/// Pages for the data of one: up to what a request of the largest size, or a deep queue of small
/// ones, has any use for.
const POOL_PAGES: RangeInclusive<u64> = 16..=64;
/// And at most this part of the free memory.
const SHARE: u64 = 16;
/// No disk of Xen's has this bit in its number.
const LOCAL_NUMBER: u32 = 1 << 31;

impl<M: Machine> Disks<M> {
    /// A disk that `medium` serves, not yet one of these. `None` if memory is short.
    pub fn make_local(
        machine: &M,
        named: (String, Geometry),
        medium: Box<dyn Medium>,
    ) -> Option<Local<M::Grants>> {
        let pages = machine.free_pages() / SHARE;
        let pages = pages.clamp(*POOL_PAGES.start(), *POOL_PAGES.end());
        Local::new(&machine.ends().0, usize::try_from(pages).ok()?, named, medium)
    }

    /// How many disks more there can be.
    pub fn room(&self) -> usize {
        DISKS_MAX.saturating_sub(self.devices.len() + self.locals.len())
    }

    /// Takes one in. Its name is no other disk's, and there is [`room`](Self::room): both have
    /// been looked at.
    pub fn add_local(&mut self, local: Local<M::Grants>) -> Which {
        self.locals_made += 1;
        self.locals.push((self.locals_made, local));
        Which::Local(self.locals_made)
    }

    /// Ends one, and its medium. Nothing is [mounted](Self::mounts_on), and no program runs.
    pub fn remove_local(&mut self, which: Which) {
        if let Which::Local(id) = which {
            self.locals.retain(|it| it.0 != id);
        }
    }

    /// What is mounted of a disk: all of it, or its partitions.
    pub fn mounts_on(&self, which: Which) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |it| it.volume.which == which)
    }

    /// The number that stands in patterns on this disk: xenstore's, or one made of the name.
    pub(in crate::programs) fn number(&self, which: Which) -> u32 {
        let of_name = |name: &str| {
            let sum = |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte));
            name.bytes().fold(0, sum) | LOCAL_NUMBER
        };
        match which {
            Which::Front(at) => self.devices[at].name().number(),
            Which::Local(_) => of_name(&self.name(which)),
        }
    }

    pub(super) fn local(&mut self, id: u32) -> Result<&mut Local<M::Grants>, Failure> {
        let local = self.locals.iter_mut().find(|it| it.0 == id);
        local.map(|it| &mut it.1).ok_or_else(gone)
    }

    /// The next completion. Behind the last one it looks after everything, as a wait would have:
    /// a program on such a disk never waits.
    pub(super) fn poll_local(
        &mut self,
        machine: &M,
        id: u32,
    ) -> Result<Option<Completion<M::Grants>>, Failure> {
        let done = self.local(id)?.poll();
        if done.is_none() {
            self.look_after(machine);
            if !self.steadfast && machine.interrupted() {
                return Err(Failure::interrupted());
            }
        }
        Ok(done)
    }

    /// Makes durable what was written to them.
    pub(super) fn flush_locals(&mut self, machine: &M) {
        let locals = self.locals.iter_mut().map(|it| &mut it.1);
        for local in locals.filter(|it| it.counters().written_sectors > 0) {
            if let Err(error) = local.flush() {
                machine.print(format_args!("{}: flush: {error}", local.name()));
            }
        }
    }

    /// Takes what was left behind in them.
    pub(super) fn settle_locals(&mut self, machine: &M) {
        for which in self.places() {
            let Which::Local(id) = which else { continue };
            while let Ok(Some(done)) = self.local(id).map(Local::poll) {
                if done.status != Status::Okay {
                    machine.print(format_args!("{}", self.trouble(which, &done)));
                }
            }
        }
    }
}

#[cold]
fn gone() -> Failure {
    Failure::missing("a disk that is not there any more")
}
