//! The test bench: a front half on the same ring, guests' pages, and a disk that can be held back.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use blkif::{Abi, Discard, Features, INDIRECT_MAX, Info, Operation, Segment, Segments, Status};
use ring::{Front, Page};
use xen::{Access, Direction, GrantCopy, GrantRef, MapError, NoPort};

use super::super::*;
use crate::disk::{DiskError, MemoryDisk, Profile, Verb};

pub(super) const PEER: DomainId = DomainId(5);
pub(super) const SECTORS: usize = 4096;

/// A granted page, counted while it is mapped.
#[derive(Clone)]
pub(super) struct Mapped {
    page: Arc<Page>,
    _count: Arc<Count>,
}

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for Mapped {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

/// What the guest granted, and which of it Xen refuses.
#[derive(Clone, Default)]
pub(super) struct Guest {
    pub(super) pages: Arc<Mutex<HashMap<GrantRef, Arc<Page>>>>,
    pub(super) refused: Arc<Mutex<HashSet<GrantRef>>>,
    pub(super) read_only: Arc<Mutex<HashSet<GrantRef>>>,
    pub(super) mapped: Arc<AtomicUsize>,
    /// The list of mapped pages lacks its last one.
    pub(super) short: Arc<AtomicBool>,
}

impl Guest {
    /// The page of a reference, filled with `value` when it is new.
    pub(super) fn page(&self, reference: u32, value: u8) -> Arc<Page> {
        let fresh = || {
            let page = Arc::new(Page::new());
            page.write(0, &[value; 4096]);
            page
        };
        self.pages.lock().unwrap().entry(GrantRef(reference)).or_insert_with(fresh).clone()
    }

    fn granted(&self, reference: GrantRef) -> Option<Arc<Page>> {
        let refused = self.refused.lock().unwrap().contains(&reference);
        let page = self.pages.lock().unwrap().get(&reference).cloned();
        page.filter(|_| !refused)
    }

    pub(super) fn mapped(&self) -> usize {
        self.mapped.load(Ordering::Relaxed)
    }
}

impl Maps for Guest {
    type Page = Mapped;

    fn map(
        &self,
        from: DomainId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<Vec<Mapped>, MapError> {
        assert_eq!(from, PEER);
        let read_only = self.read_only.lock().unwrap();
        if access == Access::Write && refs.iter().any(|it| read_only.contains(it)) {
            return Err(MapError::Refused);
        }
        let pages: Option<Vec<_>> = refs.iter().map(|&it| self.granted(it)).collect();
        let mut pages = pages.ok_or(MapError::Refused)?;
        if self.short.load(Ordering::Relaxed) {
            pages.pop();
        }
        self.mapped.fetch_add(pages.len(), Ordering::Relaxed);
        let mapped = |page| Mapped { page, _count: Arc::new(Count(self.mapped.clone())) };
        Ok(pages.into_iter().map(mapped).collect())
    }

    fn copy(&self, peer: DomainId, copies: &mut [GrantCopy<'_>]) {
        assert_eq!(peer, PEER);
        for copy in copies {
            let Some(page) = self.granted(copy.reference) else { continue };
            let mut bytes = vec![0; copy.length_bytes.into()];
            let at = copy.offset_bytes.into();
            match copy.direction {
                Direction::FromPeer => {
                    page.read(at, &mut bytes);
                    copy.local.write(at, &bytes);
                }
                Direction::ToPeer => {
                    copy.local.read(at, &mut bytes);
                    page.write(at, &bytes);
                }
            }
            copy.done = true;
        }
    }
}

/// Counts notifications.
#[derive(Clone, Default)]
pub(super) struct Bells(Arc<AtomicUsize>);

impl Bells {
    pub(super) fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Events for Bells {
    fn offer(&self, _: DomainId) -> Result<Port, NoPort> {
        Err(NoPort)
    }

    fn bind(&self, _: DomainId, offered: Port) -> Result<Port, NoPort> {
        Ok(offered)
    }

    fn notify(&self, _: Port) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&self, _: Port) {}
}

/// A memory disk that keeps jobs until told, and fails where told.
pub(super) struct TestDisk {
    pub(super) memory: MemoryDisk<Buffer<Mapped>>,
    pub(super) held: Option<Vec<Job<Buffer<Mapped>>>>,
    pub(super) bad_sectors: HashSet<u64>,
    pub(super) fail_flush: bool,
    pub(super) log: Vec<(Verb, u64, u64)>,
    failed: Vec<Done<Buffer<Mapped>>>,
}

impl TestDisk {
    fn carry_out(&mut self, job: Job<Buffer<Mapped>>) {
        let length_bytes = job.length_bytes();
        let first = job.offset_bytes / 512;
        self.log.push((job.verb, first, length_bytes / 512));
        let bad = (first..first + length_bytes / 512).find(|it| self.bad_sectors.contains(it));
        if bad.is_none() && !(self.fail_flush && job.verb == Verb::Flush) {
            self.memory.submit(&mut vec![job]);
            return;
        }
        let done_bytes = bad.map_or(0, |sector| (sector - first) * 512);
        let result = Err(DiskError::Errno(5));
        self.failed.push(Done { tag: job.tag, extents: job.extents, done_bytes, result });
    }

    /// Does the job that was submitted `at`-th of those held.
    pub(super) fn release(&mut self, at: usize) {
        let job = self.held.as_mut().unwrap().remove(at);
        self.carry_out(job);
    }
}

impl Disk<Buffer<Mapped>> for TestDisk {
    fn profile(&self) -> Profile {
        self.memory.profile()
    }

    fn submit(&mut self, batch: &mut Vec<Job<Buffer<Mapped>>>) {
        if let Some(held) = &mut self.held {
            held.append(batch);
            return;
        }
        for job in batch.drain(..) {
            self.carry_out(job);
        }
    }

    fn reap(&mut self) -> Option<Done<Buffer<Mapped>>> {
        self.failed.pop().or_else(|| self.memory.reap())
    }
}

/// How a bench is built.
pub(super) struct Plan {
    pub(super) abi: Abi,
    pub(super) order: u32,
    pub(super) persistent: bool,
    pub(super) read_only: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { abi: Abi::X86_64, order: 0, persistent: true, read_only: false }
    }
}

/// Every shape of a connection.
pub(super) fn shapes() -> impl Iterator<Item = Plan> {
    [Abi::X86_64, Abi::X86_32].into_iter().flat_map(|abi| {
        [0, 2].into_iter().flat_map(move |order| {
            [true, false].map(|persistent| Plan { abi, order, persistent, read_only: false })
        })
    })
}

pub(super) struct Bench {
    pub(super) front: Front<RingPages<Arc<Page>>>,
    pub(super) ring: Vec<Arc<Page>>,
    pub(super) session: Session<Guest, TestDisk, Bells>,
    pub(super) guest: Guest,
    pub(super) bells: Bells,
    pub(super) abi: Abi,
}

impl Bench {
    pub(super) fn new(plan: &Plan) -> Self {
        Self::with(plan, Past::default())
    }

    /// After other sessions on the same disk.
    pub(super) fn with(plan: &Plan, past: Past) -> Self {
        let ring: Vec<_> = (0..1 << plan.order).map(|_| Arc::new(Page::new())).collect();
        let front = Front::new(RingPages(ring.clone()), plan.abi.layout(plan.order));
        let (guest, bells) = (Guest::default(), Bells::default());
        let mapped = |page: &Arc<Page>| {
            guest.mapped.fetch_add(1, Ordering::Relaxed);
            Mapped { page: page.clone(), _count: Arc::new(Count(guest.mapped.clone())) }
        };
        let mut features = Features::FLUSH | Features::DISCARD;
        features.set(Features::PERSISTENT, plan.persistent);
        let mut geometry = Geometry::new(SECTORS as u64).unwrap();
        geometry.info.set(Info::READ_ONLY, plan.read_only);
        let link = Link {
            peer: PEER,
            ring: RingPages(ring.iter().map(mapped).collect()),
            port: Port(9),
            agreed: Agreed {
                abi: plan.abi,
                order: plan.order,
                indirect_max: INDIRECT_MAX,
                features,
                discard_limits: Discard::default(),
            },
            geometry,
            past,
        };
        let disk = TestDisk {
            memory: MemoryDisk::new(SECTORS).unwrap(),
            held: None,
            bad_sectors: HashSet::new(),
            fail_flush: false,
            log: Vec::new(),
            failed: Vec::new(),
        };
        let session = Session::new(guest.clone(), bells.clone(), disk, link);
        Self { front, ring, session, guest, bells, abi: plan.abi }
    }

    /// Puts requests and makes them visible; those that do not fit a slot with a page of descriptors
    /// for each, by their ids.
    pub(super) fn send(&mut self, requests: &[Request]) {
        for request in requests {
            let words = if request.is_direct() {
                request.words(self.abi, 0)
            } else {
                let reference = described(request.id);
                request.describe(&*self.guest.page(reference, 0));
                request.indirect_words(self.abi, 0, GrantRef(reference))
            };
            self.front.put(&words).expect("the ring has room");
        }
        let _ = self.front.publish();
    }

    pub(super) fn turn(&mut self) -> Turn {
        self.session.turn().expect("the ring is sound")
    }

    /// All answers there are, as id and status.
    pub(super) fn answers(&mut self) -> Vec<(u64, Status)> {
        let mut answers = Vec::new();
        while let Some(response) = self.front.take(Response::parse).unwrap() {
            answers.push((response.id, response.status));
        }
        let _ = self.front.rest().unwrap();
        answers
    }

    /// Sends, serves, and gives the statuses in the order of the requests.
    pub(super) fn carry_out(&mut self, requests: &[Request]) -> Vec<Status> {
        self.send(requests);
        assert_eq!(self.turn(), Turn::Idle);
        let answers: HashMap<u64, Status> = self.answers().into_iter().collect();
        assert_eq!(answers.len(), requests.len(), "one answer each");
        requests.iter().map(|request| answers[&request.id]).collect()
    }

    pub(super) fn disk(&mut self) -> &mut TestDisk {
        self.session.disk_mut()
    }
}

/// The grant of the descriptors of an indirect request.
pub(super) fn described(id: u64) -> u32 {
    50_000 + u32::try_from(id).unwrap()
}

/// Whole pages, one segment each.
pub(super) fn whole(references: impl IntoIterator<Item = u32>) -> Segments {
    references.into_iter().map(|it| Segment::whole(GrantRef(it))).collect()
}

pub(super) fn read(id: u64, sector: u64, segments: Segments) -> Request {
    Request::transfer(id, Operation::Read, sector, segments)
}

pub(super) fn write(id: u64, sector: u64, segments: Segments) -> Request {
    Request::transfer(id, Operation::Write, sector, segments)
}

pub(super) fn bytes(page: &Page) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    page.read(0, &mut bytes);
    bytes
}
