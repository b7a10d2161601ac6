//! Both halves of a byte ring against a queue, until an index of it is overwritten.

use std::collections::VecDeque;

use ring::bytes::{Area, Receiver, Sender};
use ring::sync::Ordering;
use ring::{Broken, Memory, Page};

use super::super::choices::Choices;
use super::STEPS_MAX;

const AREAS: [Area; 4] =
    [Area::CONSOLE_IN, Area::CONSOLE_OUT, Area::STORE_REQUESTS, Area::STORE_REPLIES];
/// The words of each area's consumer and producer index (`io/console.h`, `io/xs_wire.h`).
const INDEXES: [[usize; 2]; 4] = [[768, 769], [770, 771], [512, 513], [514, 515]];
/// More than any of the rings holds.
const BYTES_MAX: usize = 3000;

struct Pipe<'a> {
    page: &'a Page,
    size: usize,
    indexes: [usize; 2],
    sender: Sender<&'a Page>,
    receiver: Receiver<&'a Page>,
    sent: VecDeque<u8>,
    lied: bool,
}

/// Tells whether somebody lied.
pub(super) fn check(choices: &mut Choices<'_>, liar: bool) -> bool {
    let which = choices.below(AREAS.len());
    let (area, indexes) = (AREAS[which], INDEXES[which]);
    let page = Box::new(Page::new());
    let start = super::start(choices);
    indexes.iter().for_each(|&at| page.word(at).store(start, Ordering::Relaxed));
    let mut pipe = Pipe {
        page: &page,
        size: area.size_bytes() as usize,
        indexes,
        sender: Sender::attach(&page, area),
        receiver: Receiver::attach(&page, area),
        sent: VecDeque::new(),
        lied: false,
    };
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        match choices.below(8) {
            0..3 => pipe.send(choices),
            3..6 => pipe.receive(choices),
            6 => pipe.look(),
            _ if liar => pipe.lie(choices),
            _ => {}
        }
    }
    pipe.lied
}

impl Pipe<'_> {
    fn send(&mut self, choices: &mut Choices<'_>) {
        let (first, count) = (choices.byte(), choices.below(BYTES_MAX));
        let bytes: Vec<u8> = (0..count).map(|at| at.to_le_bytes()[0] ^ first).collect();
        let room = self.size.saturating_sub(self.sent.len());
        match self.sender.send(&bytes) {
            Ok(count) => {
                assert!(self.lied || count == bytes.len().min(room));
                assert!(count <= bytes.len().min(self.size));
                self.sent.extend(&bytes[..count]);
            }
            Err(broken) => self.blame(broken),
        }
    }

    fn receive(&mut self, choices: &mut Choices<'_>) {
        let mut out = vec![0; choices.below(BYTES_MAX)];
        match self.receiver.receive(&mut out) {
            Ok(count) => {
                assert!(self.lied || count == out.len().min(self.sent.len()));
                assert!(count <= out.len().min(self.size));
                let expected: Vec<u8> = self.sent.drain(..count.min(self.sent.len())).collect();
                assert!(self.lied || expected == out[..count]);
            }
            Err(broken) => self.blame(broken),
        }
    }

    fn look(&self) {
        match self.sender.unread() {
            Ok(unread) => {
                assert!(unread as usize <= self.size);
                assert!(self.lied || unread as usize == self.sent.len());
            }
            Err(broken) => self.blame(broken),
        }
    }

    fn blame(&self, broken: Broken) {
        assert!(self.lied, "nobody lied: {broken}");
    }

    fn lie(&mut self, choices: &mut Choices<'_>) {
        let word = self.page.word(choices.of(&self.indexes));
        let near = word.load(Ordering::Relaxed);
        let value = if choices.valid() {
            near.wrapping_add(choices.byte().into()).wrapping_sub(128)
        } else {
            choices.word()
        };
        word.store(value, Ordering::Relaxed);
        self.lied = true;
    }
}
