//! A request on its way: words in a slot, [`Raw`], [`Request`].
//!
//! `Raw` is an owned copy of what the front wrote, each word fetched once, nothing believed.
//! [`Raw::check`](crate::Raw::check) makes a `Request` of it or an answer. The front makes
//! `Request`s itself and writes their words.
//!
//! More than 11 segments do not fit a slot. An *indirect* request names a page instead that holds
//! them, its descriptors: who takes one reads them once ([`segments_in`]) and goes on with the copy.

use core::ops::Deref;

use ring::{Memory, Reader};
use xen::GrantRef;

use crate::{
    Abi, DIRECT_SEGMENTS_MAX, INDIRECT, Operation, SEGMENTS_MAX, SLOT_WORDS_MAX, Segment, Segments,
    Words,
};

/// The words of one request, in its slot's order: the header and what the operation needs.
pub type RequestWords = Words<SLOT_WORDS_MAX>;

/// A request that was checked, or that we made ourselves. Its segments are its own, or stay where they
/// are: a request is passed by value, and they are most of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<S = Segments> {
    /// The front's own word for it: opaque, and not unique. Never an index.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
    /// The first sector of 512 bytes; 0 for a flush without data.
    pub sector: u64,
    /// How many sectors of 512 bytes: those of the segments, or the range to discard.
    pub sectors: u64,
    /// Where the data is, in the order of the disk: 1 to 32 for a read or a write (more than 11 only
    /// as an indirect request), up to 11 for a flush, none for a discard.
    pub segments: S,
}

impl Request {
    /// A flush without data.
    pub fn flush(id: u64) -> Self {
        Self::transfer(id, Operation::Flush, 0, Segments::new())
    }

    /// A discard of `sectors` sectors from `sector` on.
    pub fn discard(id: u64, sector: u64, sectors: u64) -> Self {
        Self { id, operation: Operation::Discard, sector, sectors, segments: Segments::new() }
    }
}

impl Request<&[Segment]> {
    /// The same request with segments of its own.
    ///
    /// # Panics
    /// If they are more than [`SEGMENTS_MAX`].
    pub fn kept(&self) -> Request {
        let Self { id, operation, sector, sectors, segments } = *self;
        Request { id, operation, sector, sectors, segments: segments.iter().copied().collect() }
    }
}

impl<S: Deref<Target = [Segment]>> Request<S> {
    /// A read, a write, or a flush with data, as long as `segments` are.
    #[inline]
    pub fn transfer(id: u64, operation: Operation, sector: u64, segments: S) -> Self {
        let sectors = segments.iter().map(|it| u64::from(it.sectors().unwrap_or(0))).sum();
        Self { id, operation, sector, sectors, segments }
    }

    /// Whether its segments fit its slot. If not, it goes as an indirect request.
    pub fn is_direct(&self) -> bool {
        self.segments.len() <= DIRECT_SEGMENTS_MAX
    }

    /// What its first word says: operation and number of segments; of an indirect request its form, what
    /// it asks for, and the number.
    #[inline]
    pub(crate) fn head(&self) -> (u8, u8, Option<u16>) {
        let count = u8::try_from(self.segments.len()).unwrap_or(u8::MAX);
        match self.operation.wire() {
            operation if self.is_direct() => (operation, count, None),
            operation => (INDIRECT, operation, Some(count.into())),
        }
    }

    /// What stands where its length is, if it is a discard.
    #[inline]
    pub(crate) fn discard_sectors(&self) -> u64 {
        if self.operation == Operation::Discard { self.sectors } else { 0 }
    }

    /// The words of a direct request, for the device number `handle`.
    #[inline]
    pub fn words(&self, abi: Abi, handle: u16) -> RequestWords {
        debug_assert!(self.is_direct(), "more segments than a slot holds");
        let count = u8::try_from(self.segments.len()).unwrap_or(0);
        let [handle_low, handle_high] = handle.to_le_bytes();
        let head = [self.operation.wire(), count, handle_low, handle_high];
        let mut words = RequestWords::new();
        self.begin(&mut words, abi, head);
        let (pairs, _) = words.unused().as_chunks_mut();
        for (to, segment) in pairs.iter_mut().zip(&*self.segments) {
            *to = segment.words();
        }
        let mut used = self.segments.len();
        if self.operation == Operation::Discard {
            // It has no segments: its length is where theirs would be.
            pairs[0] = halves(self.sectors);
            used = 1;
        }
        words.use_more(2 * used);
        words
    }

    /// The words of an indirect request, for the device number `handle`, whose segments
    /// [`describe`](Self::describe) has written into the page that is granted as `descriptors`.
    pub fn indirect_words(&self, abi: Abi, handle: u16, descriptors: GrantRef) -> RequestWords {
        let [count_low, count_high, ..] = self.segments.len().to_le_bytes();
        let head = [INDIRECT, self.operation.wire(), count_low, count_high];
        let mut words = RequestWords::new();
        self.begin(&mut words, abi, head);
        words.push([u32::from(handle), descriptors.0]);
        words
    }

    /// The words that every form of a request begins with.
    #[inline]
    fn begin(&self, words: &mut RequestWords, abi: Abi, head: [u8; 4]) {
        let [id, sector] = [halves(self.id), halves(self.sector)];
        words.push([u32::from_le_bytes(head)]);
        words.use_more(abi.request_padding());
        words.push([id[0], id[1], sector[0], sector[1]]);
    }

    /// Writes the segments into a page of descriptors.
    pub fn describe<M: Memory + ?Sized>(&self, page: &M) {
        for (at, segment) in self.segments.iter().enumerate() {
            page.store_all(2 * at, &segment.words());
        }
    }
}

/// Reads the first `count` segments out of a page of descriptors, each word once; at most
/// [`SEGMENTS_MAX`].
pub fn segments_in<M: Memory + ?Sized>(page: &M, count: u16) -> Segments {
    let count = usize::from(count).min(SEGMENTS_MAX);
    let mut words = [0; 2 * SEGMENTS_MAX];
    page.load_all(0, &mut words[..2 * count]);
    let (pairs, _) = words.as_chunks();
    pairs[..count].iter().map(|&pair| Segment::from_words(pair)).collect()
}

/// A request as the front wrote it: nothing in it is true yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Alleged operation, any number.
    pub operation: u8,
    /// Alleged number of segments; a discard's flags; what an indirect request asks for.
    pub count: u8,
    /// The front's word for the request.
    pub id: u64,
    /// Alleged first sector.
    pub sector: u64,
    /// Alleged length of a discard; 0 for anything else.
    pub discard_sectors: u64,
    /// Alleged segments: `count` of them if that many fit a request, else none. Those of an
    /// indirect request are for whoever takes it to fetch.
    pub segments: Segments,
    /// Where they are, if the request is an indirect one.
    pub indirect: Option<Indirect>,
}

/// The part of an indirect request that tells of its segments, as the front wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indirect {
    /// Alleged number of segments.
    pub count: u16,
    /// The grant of the page that has the first 512 of them.
    pub descriptors: GrantRef,
}

impl Raw {
    /// No request yet: one to [read](Self::read) into.
    pub const fn new() -> Self {
        Self {
            operation: 0,
            count: 0,
            id: 0,
            sector: 0,
            discard_sectors: 0,
            segments: Segments::new_const(),
            indirect: None,
        }
    }

    /// Reads a request out of its slot, as [`read`](Self::read).
    pub fn parse<M: Memory + ?Sized>(reader: &mut Reader<'_, M>, abi: Abi) -> Self {
        let mut raw = Self::new();
        raw.read(reader, abi);
        raw
    }

    /// Becomes the request in a slot: the header, and the words that its operation announces. Each is
    /// fetched once, and words that do not matter are not fetched. Requests that are read into one
    /// place are not moved.
    // Always, because by itself the compiler does not where a program has two rings, and then neither
    // the layout nor the memory is known in here: a fifth of all that a round trip costs.
    #[inline(always)]
    pub fn read<M: Memory + ?Sized>(&mut self, reader: &mut Reader<'_, M>, abi: Abi) {
        // A slot is as long as its ABI's longest request, so every word is there.
        let [head] = reader.array().unwrap_or_default();
        reader.skip(abi.request_padding());
        let [id_low, id_high, sector_low, sector_high] = reader.array().unwrap_or_default();
        let [operation, count, many_low, many_high] = u32::to_le_bytes(head);
        (self.operation, self.count) = (operation, count);
        self.id = double([id_low, id_high]);
        self.sector = double([sector_low, sector_high]);
        (self.discard_sectors, self.indirect) = (0, None);
        self.segments.clear();
        let fits = usize::from(count) <= DIRECT_SEGMENTS_MAX;
        match Operation::from_wire(operation) {
            Some(Operation::Discard) => {
                self.discard_sectors = double(reader.array().unwrap_or_default());
            }
            Some(_) if fits => {
                let mut pairs = [[0; 2]; DIRECT_SEGMENTS_MAX];
                let pairs = &mut pairs[..usize::from(count)];
                reader.words(pairs.as_flattened_mut());
                for &mut pair in pairs {
                    self.segments.push(Segment::from_words(pair));
                }
            }
            None if operation == INDIRECT => {
                let count = u16::from_le_bytes([many_low, many_high]);
                // The device's number, which says nothing, and the first page.
                let [_, page] = reader.array().unwrap_or_default();
                self.indirect = Some(Indirect { count, descriptors: GrantRef(page) });
            }
            _ => {}
        }
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Request> for Raw {
    /// What the other side will find.
    fn from(request: Request) -> Self {
        let (operation, count, indirect) = request.head();
        Self {
            operation,
            count,
            id: request.id,
            sector: request.sector,
            discard_sectors: request.discard_sectors(),
            segments: request.segments,
            // Which page it will be is not known yet.
            indirect: indirect.map(|count| Indirect { count, descriptors: GrantRef(0) }),
        }
    }
}

/// A 64-bit number of two words, low one first.
#[inline]
const fn double([low, high]: [u32; 2]) -> u64 {
    low as u64 | (high as u64) << 32
}

/// A 64-bit number as two words, low one first.
#[inline]
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    use ring::{Back, Front, Page};

    use super::*;

    /// What the back makes of a request slot that holds `words`.
    fn parsed(abi: Abi, words: &[u32]) -> Raw {
        let page = Box::new(Page::new());
        let mut front = Front::new(&*page, abi.layout(0));
        let mut back = Back::attach(&*page, abi.layout(0));
        front.put(words).unwrap();
        let _ = front.publish();
        back.take(|reader| Raw::parse(reader, abi)).unwrap().unwrap()
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect()
    }

    const ID: u64 = 0x8877_6655_4433_2211;
    const SECTOR: u64 = 0x0807_0605_0403_0201;
    const ID_BYTES: [u8; 8] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    const SECTOR_BYTES: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    const SEGMENTS_BYTES: [u8; 16] = [0xd4, 0xc3, 0xb2, 0xa1, 1, 6, 0, 0, 9, 0, 0, 0, 0, 7, 0, 0];

    fn write() -> Request {
        let segments = [
            Segment { reference: GrantRef(0xa1b2_c3d4), first_sector: 1, last_sector: 6 },
            Segment::whole(GrantRef(9)),
        ];
        Request::transfer(ID, Operation::Write, SECTOR, segments.into_iter().collect())
    }

    #[test]
    fn a_write_is_laid_out_as_the_header_says_in_the_64_bit_layout() {
        let header = [1, 2, 0x34, 0x12, 0, 0, 0, 0];
        let expected = [&header[..], &ID_BYTES, &SECTOR_BYTES, &SEGMENTS_BYTES].concat();
        assert_eq!(bytes(&write().words(Abi::X86_64, 0x1234)), expected);
    }

    #[test]
    fn a_write_is_laid_out_as_the_header_says_in_the_32_bit_layout() {
        let header = [1, 2, 0x34, 0x12];
        let expected = [&header[..], &ID_BYTES, &SECTOR_BYTES, &SEGMENTS_BYTES].concat();
        assert_eq!(bytes(&write().words(Abi::X86_32, 0x1234)), expected);
    }

    #[test]
    fn a_discard_has_its_length_where_the_segments_would_be() {
        let tail = [&ID_BYTES[..], &[1, 0, 0, 0, 0, 0, 0, 0], &SECTOR_BYTES].concat();
        let request = Request::discard(ID, 1, SECTOR);
        let wide = [&[5, 0, 0, 0, 0, 0, 0, 0][..], &tail].concat();
        assert_eq!(bytes(&request.words(Abi::X86_64, 0)), wide);
        let narrow = [&[5, 0, 0, 0][..], &tail].concat();
        assert_eq!(bytes(&request.words(Abi::X86_32, 0)), narrow);
        for (abi, bytes) in [(Abi::X86_64, wide), (Abi::X86_32, narrow)] {
            let raw = parsed(abi, &words(&bytes));
            assert_eq!((raw.operation, raw.count, raw.id), (5, 0, ID));
            assert_eq!((raw.sector, raw.discard_sectors, raw.segments.len()), (1, SECTOR, 0));
            assert_eq!(raw, Raw::from(request.clone()));
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_put() {
        for abi in [Abi::X86_64, Abi::X86_32] {
            for count in 0..=DIRECT_SEGMENTS_MAX {
                let segments: Segments =
                    (0..11).take(count).map(|it| Segment::whole(GrantRef(it))).collect();
                let sent = Request::transfer(ID, Operation::Read, SECTOR, segments);
                let raw = parsed(abi, &sent.words(abi, 7));
                assert_eq!(usize::from(raw.count), count);
                assert_eq!((raw.operation, raw.id, raw.sector), (0, ID, SECTOR));
                assert_eq!(raw.segments, sent.segments);
                assert_eq!(raw, Raw::from(sent.clone()));
                assert_eq!(sent.sectors, 8 * u64::try_from(count).unwrap());
            }
        }
    }

    #[test]
    fn an_indirect_request_arrives_as_it_was_put() {
        let page = Box::new(Page::new());
        for abi in [Abi::X86_64, Abi::X86_32] {
            for count in DIRECT_SEGMENTS_MAX + 1..=SEGMENTS_MAX {
                let segments = (0..).map(|it| Segment {
                    reference: GrantRef(1000 + it),
                    first_sector: 1,
                    last_sector: 6,
                });
                let segments = segments.take(count).collect();
                let sent = Request::transfer(ID, Operation::Write, SECTOR, segments);
                sent.describe(&*page);
                let mut raw = parsed(abi, &sent.indirect_words(abi, 7, GrantRef(0xa1b2_c3d4)));
                let indirect = raw.indirect.unwrap();
                assert_eq!((raw.operation, raw.count, raw.segments.len()), (INDIRECT, 1, 0));
                assert_eq!(usize::from(indirect.count), count);
                assert_eq!(indirect.descriptors, GrantRef(0xa1b2_c3d4));
                raw.segments = segments_in(&*page, indirect.count);
                raw.indirect = Some(Indirect { descriptors: GrantRef(0), ..indirect });
                assert_eq!(raw, Raw::from(sent));
            }
        }
    }

    #[test]
    fn of_a_page_of_descriptors_as_many_are_read_as_were_said_and_never_more_than_32() {
        let page = Box::new(Page::new());
        for count in 0..=u16::MAX {
            assert_eq!(segments_in(&*page, count).len(), usize::from(count).min(SEGMENTS_MAX));
        }
    }

    #[test]
    fn the_longest_request_fills_the_slot_exactly() {
        let whole: Segments = (0..11).map(|it| Segment::whole(GrantRef(it))).collect();
        let request = Request::transfer(ID, Operation::Write, SECTOR, whole);
        assert_eq!(request.words(Abi::X86_64, 0).len() * 4, 112);
        assert_eq!(request.words(Abi::X86_32, 0).len() * 4, 108);
    }

    #[test]
    fn only_the_words_that_matter_are_looked_at() {
        for abi in [Abi::X86_64, Abi::X86_32] {
            let header = 6 - 1 + abi.request_padding();
            for operation in 0..=u8::MAX {
                for count in 0..=u8::MAX {
                    let mut slot = [0xffff_ffff; 28];
                    slot[0] = u32::from_le_bytes([operation, count, 0, 0]);
                    let raw = parsed(abi, &slot[..abi.slot_words()]);
                    assert_eq!((raw.operation, raw.count), (operation, count));
                    let announced = match operation {
                        0 | 1 | 3 if count <= 11 => usize::from(count),
                        _ => 0,
                    };
                    assert_eq!(raw.segments.len(), announced);
                    assert_eq!(raw.discard_sectors == u64::MAX, operation == 5);
                    let descriptors = raw.indirect.map(|it| it.descriptors);
                    assert_eq!(descriptors, (operation == 6).then_some(GrantRef(u32::MAX)));
                    assert!(header + announced * 2 <= abi.slot_words());
                }
            }
        }
    }
}
