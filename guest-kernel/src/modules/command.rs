//! Calls of a module's commands.

use alloc::string::String;

use super::{Command, texts};

impl Command {
    /// Runs it with the words behind its name; gives its exit status. `None` if there are more
    /// than [`WORDS_MAX`](module_abi::WORDS_MAX) words.
    ///
    /// The code of its module must be in memory still: its owner calls it, and nobody else.
    pub fn call(&self, words: &[String]) -> Option<u8> {
        let words = texts(words)?;
        Some(u8::try_from((self.run)(words.as_ptr(), words.len())).unwrap_or(u8::MAX))
    }
}
