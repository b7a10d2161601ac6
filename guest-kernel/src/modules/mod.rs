//! Kernel modules as files: from the bytes of a relocatable object to the bytes of its pages.
//!
//! [`Object::parse`] decides whether the file is a module for this kernel and where its parts go;
//! [`Object::link`] makes the pages for a place in memory. The file may hold anything: nothing in
//! it makes this panic, loop, or write outside of its own buffer. Whether the code in it means
//! well cannot be seen: a module is trusted once it runs (`module_abi`).
//!
//! Pure: pages, permissions and calls are `arch`'s; the list of modules is `insmod`'s.

use alloc::string::String;
use alloc::vec::Vec;

use module_abi::{Text, WORDS_MAX};

mod block;
mod command;
mod desk;
mod elevator;
mod link;
mod object;
mod refusal;

#[cfg(test)]
mod tests;

pub use desk::{Block, Command, Desk, Elevator};
pub use link::Linked;
pub use object::{Object, Parts};
pub use refusal::Refusal;

/// Bytes of a module's file, at most.
pub const FILE_MAX: usize = 1 << 20;
/// Pages of a module in memory, at most.
pub const PAGES_MAX: u64 = 128;

/// Words as a module gets them; `None` if there are more than [`WORDS_MAX`].
pub(crate) fn texts(words: &[String]) -> Option<Vec<Text>> {
    let text = |word: &String| Text { start: word.as_ptr(), length: word.len() };
    (words.len() <= WORDS_MAX).then(|| words.iter().map(text).collect())
}

/// Whether a name can be typed and printed.
fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic())
}
