//! Target `request`: one slot of a ring through `ring` and `blkif`, held against the oracle.
//!
//! What comes out of the checks is what the oracle says, for any disk, and no word of the slot is
//! fetched twice; what one side accepts it can send again; what is no answer is read as one without
//! harm. An indirect request has its segments in a page that changes as the slot does.

use blkif::{Abi, Operation, Raw, Request, Response, Segment};
use ring::{Back, Front, Memory, Page};
use sim::Random;
use xen::GrantRef;

use super::Share;
use super::choices::Choices;
use crate::oracle::{EOPNOTSUPP, ERROR, Terms, Verdict, Work};
use crate::torture::counter::{Counter, agreed};
use crate::torture::requests::terms;
use crate::torture::wild::{Descriptors, SLOT_WORDS, Wild};
use crate::torture::{Flicker, Slot};

pub(super) fn check(bytes: &[u8]) -> Share {
    let (terms, slot, described) = input(bytes);
    let memory = Flicker::new(2 * ring::PAGE_WORDS, 0);
    let mut counter = Counter::new(&memory, terms, u32::MAX);
    counter.describe(&described);
    let verdict = counter.hold(&slot);
    let offered = ![2, 4, 6].contains(&verdict.operation) || verdict.work == Err(ERROR);
    assert!(offered || verdict.work == Err(EOPNOTSUPP), "{verdict:?}");
    if let Ok(work) = &verdict.work {
        let (slot, described) = sent(&terms, &verdict, work);
        counter.describe(&described);
        assert_eq!(counter.hold(&slot), verdict, "what was sent again");
    }
    as_answer(&slot);
    Share::one(verdict.work.is_ok())
}

/// A disk, and a slot with a request for it that is lawful three times in four.
pub(super) fn input(bytes: &[u8]) -> (Terms, Slot, Descriptors) {
    let mut choices = Choices::new(bytes);
    let terms = terms(&mut choices);
    let mut wild = Wild { terms: &terms, grants: (8, 100), segments_max: 11, descriptors: None };
    let described = described(&mut choices, &wild);
    wild.descriptors = described.as_ref().map(|words| (7, words));
    let mut slot = [0; SLOT_WORDS];
    fill(&mut choices, &wild, &mut slot);
    (terms, slot, described.unwrap_or([0; _]))
}

/// What is in the page of descriptors, if the back takes indirect requests: from a seed, as it is longer
/// than an input.
pub(super) fn described(choices: &mut Choices<'_>, wild: &Wild<'_>) -> Option<Descriptors> {
    let wanted = wild.terms.indirect > 0;
    wanted.then(|| wild.describe(&mut Random::new(choices.byte().into())))
}

/// Fills a slot: lawfully, or in any way.
pub(super) fn fill(choices: &mut Choices<'_>, wild: &Wild<'_>, slot: &mut Slot) {
    if choices.valid() {
        wild.lawful(choices, slot);
    } else {
        wild.fill(choices, slot);
    }
}

/// A slot with the request that was accepted, as our front writes it, and a page that has its segments
/// if they do not fit.
fn sent(terms: &Terms, verdict: &Verdict, work: &Work) -> (Slot, Descriptors) {
    let segments = work.segments[..work.count].iter();
    let segment = |&(reference, first_sector, last_sector): &(u32, u8, u8)| Segment {
        reference: GrantRef(reference),
        first_sector,
        last_sector,
    };
    let request = Request {
        id: verdict.id,
        operation: Operation::from_wire(verdict.operation).expect("it was accepted"),
        sector: work.sector,
        sectors: work.sectors,
        segments: segments.map(segment).collect(),
    };
    let (geometry, agreed) = agreed(terms, 0, true);
    let own = Raw::from(request.clone());
    let own = own.check(&geometry, &agreed).map(|own| own.kept());
    assert_eq!(own.as_ref(), Ok(&request), "our front would not send it");
    let page = Page::new();
    let words = if request.is_direct() {
        request.words(agreed.abi, 7)
    } else {
        request.describe(&page);
        request.indirect_words(agreed.abi, 7, GrantRef(7))
    };
    let mut described = [0; _];
    page.load_all(0, &mut described);
    (std::array::from_fn(|at| words.get(at).copied().unwrap_or(0)), described)
}

/// The words of a slot as an answer: the front makes something of any.
fn as_answer(words: &Slot) {
    let (page, layout) = (Box::new(Page::new()), Abi::X86_64.layout(0));
    let mut front = Front::new(&*page, layout);
    let mut back = Back::attach(&*page, layout);
    front.put(&[0]).expect("an empty ring");
    let _ = front.publish();
    back.take(|_| ()).expect("an honest index");
    back.put(words).expect("one request");
    let _ = back.publish();
    let response = front.take(Response::parse).expect("an honest index").expect("an answer");
    assert_eq!(response.words(Abi::X86_64)[..2], words[..2], "another id");
}
