//! From the elevator to the ring: adjacent requests become one.

use blkif::{Operation, Segments};
use xen::{Events, Grants};

use crate::elevator::{Batch, Sorted};
use crate::lane::{Lane, Load};
use crate::pool::Buffer;
use crate::slots::{Slots, Stage};

/// Requests that go down as one.
struct Run {
    head: u16,
    tail: u16,
    operation: Operation,
    sector: u64,
    end: u64,
    segments: Segments,
}

/// A batch that an elevator fills, on its way to the ring.
pub(crate) struct Loading<'a, G: Grants, E: Events> {
    lane: &'a mut Lane<G, E>,
    slots: &'a mut Slots<G>,
    /// Where the requests in the elevator are on the disk, and how many they are.
    spans: &'a mut Sorted,
    sorting: &'a mut usize,
    run: Option<Run>,
}

impl<'a, G: Grants, E: Events> Loading<'a, G, E> {
    /// A batch for a lane that takes requests.
    pub(crate) const fn new(
        lane: &'a mut Lane<G, E>,
        slots: &'a mut Slots<G>,
        (spans, sorting): (&'a mut Sorted, &'a mut usize),
    ) -> Self {
        Self { lane, slots, spans, sorting, run: None }
    }

    /// Puts what is left. Whoever forgets it loses the last request.
    pub(crate) fn finish(mut self) {
        self.put();
    }

    /// Notes that the elevator has handed the request out.
    #[inline]
    fn leave(&mut self, place: u16) {
        let work = self.slots.work(place);
        assert_eq!(
            work.stage,
            Stage::Sorting,
            "it is handed out once, by the elevator that has it"
        );
        work.stage = Stage::Sent;
        if !self.spans.is_empty() {
            self.spans.remove(work.key(place));
        }
        *self.sorting -= 1;
    }

    fn put(&mut self) {
        let Some(Run { head, operation, sector, end, segments, .. }) = self.run.take() else {
            return;
        };
        let load = Load { operation, sector, sectors: end - sector, segments: &segments };
        self.lane.put(load, head).expect("the lane is open, and the room was counted");
    }
}

impl<G: Grants, E: Events> Batch for Loading<'_, G, E> {
    fn join(&mut self, place: u16) -> bool {
        let Some(run) = &mut self.run else { return false };
        let work = self.slots.work(place);
        if run.end != work.sector || run.operation != work.operation {
            return false;
        }
        let Some(buffer) = &work.buffer else { return false };
        if run.segments.len() + buffer.pages().len() > self.lane.segments_max() {
            return false;
        }
        run.end += work.sectors;
        run.segments.extend(buffer.segments());
        let before = core::mem::replace(&mut run.tail, place);
        self.slots.work(before).next = Some(place);
        self.lane.counters.merged += 1;
        self.leave(place);
        true
    }

    fn begin(&mut self, place: u16) -> bool {
        // The run that is to be put needs a place too.
        if self.lane.free() <= u32::from(self.run.is_some()) {
            return false;
        }
        self.put();
        let work = self.slots.work(place);
        self.run = Some(Run {
            head: place,
            tail: place,
            operation: work.operation,
            sector: work.sector,
            end: work.sector + work.sectors,
            segments: work.buffer.as_ref().map(Buffer::segments).unwrap_or_default(),
        });
        self.leave(place);
        true
    }
}
