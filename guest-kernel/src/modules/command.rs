//! Calls of a module's commands.

use alloc::string::String;
use alloc::vec::Vec;

use module_abi::{Text, WORDS_MAX};

use super::Command;

impl Command {
    /// Runs it with the words behind its name; gives its exit status. `None` if there are more
    /// than [`WORDS_MAX`] words.
    ///
    /// The code of its module must be in memory still: its owner calls it, and nobody else.
    pub fn call(&self, words: &[String]) -> Option<u8> {
        if words.len() > WORDS_MAX {
            return None;
        }
        let words: Vec<Text> =
            words.iter().map(|word| Text { start: word.as_ptr(), length: word.len() }).collect();
        Some(u8::try_from((self.run)(words.as_ptr(), words.len())).unwrap_or(u8::MAX))
    }
}
