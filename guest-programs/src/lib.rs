//! What a guest program needs: its words, its output, memory, time and disks.
//!
//! A program is a function from its words to a status, named in [`program!`]. It runs in ring 3
//! on its own page tables; everything it has comes from the kernel through [`sys`], the only
//! module with `unsafe` in it.
#![no_std]

use core::fmt;

pub mod page;
pub mod sys;

#[path = "../../guest-kernel/src/user/calls.rs"]
pub mod calls;

/// The program's output.
#[derive(Clone, Copy, Debug)]
pub struct Output;

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        sys::print(text);
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        // The output takes everything.
        let _ = ::core::fmt::Write::write_fmt(
            &mut $crate::Output,
            ::core::format_args!("{}\n", ::core::format_args!($($argument)*)),
        );
    }};
}

/// The words that the program was started with; the first is its name.
#[derive(Clone, Copy, Debug)]
pub struct Words(&'static str);

impl Words {
    /// All words, the name first.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        self.0.split_terminator('\0')
    }

    /// What stands behind `name=` or `--name=` in one of the words.
    pub fn value(self, name: &str) -> Option<&'static str> {
        self.iter().skip(1).find_map(|word| {
            let word = word.strip_prefix("--").unwrap_or(word);
            word.strip_prefix(name)?.strip_prefix('=')
        })
    }
}

/// A number with an optional k, m or g behind it, for powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase_char() {
        None => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The one letter behind a number.
trait Suffix {
    /// The letter in small; `None` if there is none, `'?'` if there are more.
    fn to_ascii_lowercase_char(&self) -> Option<char>;
}

impl Suffix for str {
    fn to_ascii_lowercase_char(&self) -> Option<char> {
        let mut letters = self.chars();
        let first = letters.next()?.to_ascii_lowercase();
        Some(if letters.next().is_none() { first } else { '?' })
    }
}

/// A status of a program: 0 is good.
pub type Status = u8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_suffix_or_none() {
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("64M"), Some(64 << 20));
        assert_eq!(size("4k"), Some(4096));
        for silly in ["", "M", "4kk", "x", "-1", "99999999999g"] {
            assert_eq!(size(silly), None, "{silly:?}");
        }
    }

    #[test]
    fn words_are_split_at_zeros() {
        let words = Words("dd\0if=xvda\0--bs=4k\0");
        assert!(words.iter().eq(["dd", "if=xvda", "--bs=4k"]));
        assert_eq!((words.value("if"), words.value("bs")), (Some("xvda"), Some("4k")));
        assert_eq!(words.value("dd"), None);
    }
}
