//! The words behind a program's name: options as fio has them (`--bs=4k`), operands as dd has
//! them (`bs=4k`), and plain ones.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use getargs::{Arg, Options};

use super::Failure;

/// The words of a program, taken apart.
#[derive(Debug)]
pub struct Arguments<'a> {
    named: Vec<(&'a str, &'a str)>,
    plain: Vec<&'a str>,
}

impl<'a> Arguments<'a> {
    /// Takes `words` apart. Each name must be one of `known`: `--name=value`, `--name value` and
    /// `name=value` mean the same. The last of several wins.
    ///
    /// # Errors
    /// [`Failure::usage`], naming the word.
    pub fn parse(words: &'a [String], known: &[&str]) -> Result<Self, Failure> {
        let mut found = Self { named: Vec::new(), plain: Vec::new() };
        let mut options = Options::new(words.iter().map(String::as_str));
        loop {
            let next = options.next_arg().map_err(|error| Failure::usage(format!("{error}")))?;
            let (name, value) = match next {
                None => return Ok(found),
                Some(Arg::Short(letter)) => {
                    return Err(Failure::usage(format!("no option -{letter}")));
                }
                Some(Arg::Long(name)) => {
                    let value = options.value();
                    (name, value.map_err(|error| Failure::usage(format!("{error}")))?)
                }
                Some(Arg::Positional(word)) => match word.split_once('=') {
                    Some(pair) => pair,
                    None => {
                        found.plain.push(word);
                        continue;
                    }
                },
            };
            if !known.contains(&name) {
                let known = known.join(", ");
                return Err(Failure::usage(format!("no option {name}: there is {known}")));
            }
            found.named.push((name, value));
        }
    }

    /// The plain words, exactly `N` of them.
    ///
    /// # Errors
    /// [`Failure::usage`] with `usage`.
    pub fn plain<const N: usize>(&self, usage: &str) -> Result<[&'a str; N], Failure> {
        let words = <[&str; N]>::try_from(self.plain.as_slice());
        words.map_err(|_| Failure::usage(format!("usage: {usage}")))
    }

    /// The value of an option.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.named.iter().rev().find(|pair| pair.0 == name).map(|pair| pair.1)
    }

    /// The number in an option, also with a suffix (see [`size`]).
    ///
    /// # Errors
    /// [`Failure::usage`] if it is no number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let silly = || Failure::usage(format!("{name}={text}: not a number like 512, 4k or 1M"));
        size(text).map(Some).ok_or_else(silly)
    }

    /// The same in sectors of 512 bytes.
    ///
    /// # Errors
    /// [`Failure::usage`] if it is no multiple of 512.
    pub fn sectors(&self, name: &str) -> Result<Option<u64>, Failure> {
        match self.number(name)? {
            Some(bytes) if bytes % 512 != 0 => {
                Err(Failure::usage(format!("{name}={bytes}: not a multiple of 512")))
            }
            bytes => Ok(bytes.map(|bytes| bytes / 512)),
        }
    }
}

/// A number with an optional suffix: k, m, g, t for powers of 1024, in either case, with `i`, `b`
/// or `ib` behind it. `None` for anything else and past 64 bits.
pub fn size(text: &str) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let mut suffix = suffix.chars().map(|character| character.to_ascii_lowercase());
    let shift = match suffix.next() {
        None => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        Some(_) => return None,
    };
    let tail: String = suffix.collect();
    let known = ["", "i", "b", "ib"].contains(&tail.as_str());
    let value: u64 = digits.parse().ok().filter(|_| known)?;
    value.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|word| !word.is_empty()).map(ToString::to_string).collect()
    }

    #[test]
    fn a_size_has_a_suffix_or_none() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("1M", 1 << 20),
            ("1mb", 1 << 20),
            ("2Gi", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(size(text), Some(value), "{text}");
        }
        for text in ["", "k", "-1", "4x", "4kk", "4 k", "1.5k", "99999999999999999999", "99999999t"]
        {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn options_may_be_written_as_fio_and_as_dd_do() {
        let words = words("xvda --bs=4k --rw randread count=7 xvdb --bs=8k");
        let found = Arguments::parse(&words, &["bs", "rw", "count"]).unwrap();
        assert_eq!(found.plain::<2>("").unwrap(), ["xvda", "xvdb"]);
        assert_eq!(found.number("bs"), Ok(Some(8192)));
        assert_eq!((found.text("rw"), found.text("count")), (Some("randread"), Some("7")));
        assert_eq!(found.number("size"), Ok(None));
        assert_eq!(found.sectors("bs"), Ok(Some(16)));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (line, named) in [("--no=1", "no"), ("no=1", "no"), ("-x", "-x"), ("--bs", "bs")] {
            let words = words(line);
            let failure = Arguments::parse(&words, &["bs"]).unwrap_err();
            assert!(failure.text.contains(named), "{line}: {failure}");
            assert_eq!(failure.status, 2);
        }
        let words = words("bs=4q xvda");
        let found = Arguments::parse(&words, &["bs"]).unwrap();
        assert!(found.number("bs").unwrap_err().text.contains("bs=4q"));
        assert_eq!(found.plain::<2>("x A B").unwrap_err().text, "usage: x A B");
        let odd = words_of_odd_size();
        let found = Arguments::parse(&odd, &["bs"]).unwrap();
        assert_eq!(found.sectors("bs").unwrap_err().status, 2);
    }

    fn words_of_odd_size() -> Vec<String> {
        words("bs=1000")
    }
}
