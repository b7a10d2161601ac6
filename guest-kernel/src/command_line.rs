//! The kernel command line, and lines of commands.
//!
//! Words are separated and quoted as in a shell (`shlex` does it). The kernel's line has options
//! `key=value` and flags `key`; the value of `run` is a list of commands separated by `;`:
//!
//! ```text
//! run="echo 'one; two'; poweroff" quiet
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Words with a value that something heeds.
const OPTIONS: [&str; 5] = ["elevator", "mem", "root", "rootwait", "run"];
/// What such words begin with, if they are a whole family.
const FAMILIES: [&str; 2] = ["elevator.", "sysctl."];
/// Words without a value that something heeds.
const FLAGS: [&str; 3] = ["ro", "rw", "shell"];

/// The longest line, in bytes (`xen::abi::COMMAND_LINE_MAX`, less its NUL).
pub const LINE_MAX: usize = xen::abi::COMMAND_LINE_MAX - 1;

/// Why a line makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// A quote is opened and not closed, or the line ends with a backslash.
    Unfinished,
    /// The line is not UTF-8.
    NotText,
    /// The line is longer than [`LINE_MAX`].
    TooLong,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("a quote is not closed"),
            Self::NotText => f.write_str("not UTF-8"),
            Self::TooLong => write!(f, "longer than {LINE_MAX} bytes"),
        }
    }
}

impl core::error::Error for LineError {}

/// The kernel command line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
    options: Vec<(String, Option<String>)>,
}

impl CommandLine {
    /// Takes a line apart.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        if line.len() > LINE_MAX {
            return Err(LineError::TooLong);
        }
        let text = core::str::from_utf8(line).map_err(|_| LineError::NotText)?;
        let options = words(text)?.into_iter().map(|word| match word.split_once('=') {
            Some((key, value)) => (key.to_string(), Some(value.to_string())),
            None => (word, None),
        });
        Ok(Self { text: text.to_string(), options: options.collect() })
    }

    /// The line as it was given, with every word that nobody knows.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The words that nothing heeds, each once, in the order of the line.
    pub fn unknown(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (key, value) in &self.options {
            let (known, word) = match value {
                Some(value) => {
                    let family = FAMILIES.iter().any(|prefix| key.starts_with(prefix));
                    (family || OPTIONS.contains(&key.as_str()), format!("{key}={value}"))
                }
                None => (FLAGS.contains(&key.as_str()), key.clone()),
            };
            if !known && !found.contains(&word) {
                found.push(word);
            }
        }
        found
    }

    /// The value of an option; of the last one, if it is given more than once.
    pub fn value(&self, key: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(name, value)| name == key && value.is_some());
        found.and_then(|(_, value)| value.as_deref())
    }

    /// What follows `prefix` in the key, and the value, of every option that begins with it, in
    /// the order of the line.
    pub fn values(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.options
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_deref()?)))
    }

    /// Whether a flag is given.
    pub fn has(&self, flag: &str) -> bool {
        self.options.iter().any(|(name, value)| name == flag && value.is_none())
    }
}

/// Splits a line into words and takes the quotes off.
///
/// # Errors
/// [`LineError::Unfinished`].
pub fn words(line: &str) -> Result<Vec<String>, LineError> {
    shlex::split(line).ok_or(LineError::Unfinished)
}

/// Splits a list of commands at each `;` that is not quoted. Empty commands are left out.
pub fn commands(list: &str) -> Vec<&str> {
    let mut quote = None;
    let mut escaped = false;
    let parts = list.split(|character: char| {
        match (character, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            (';', None) => return true,
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            _ => {}
        }
        false
    });
    parts.map(trimmed).filter(|part| !part.is_empty()).collect()
}

/// What separates words.
const BLANKS: [char; 3] = [' ', '\t', '\n'];

/// A command without the blanks around it; one behind a backslash belongs to its last word.
fn trimmed(command: &str) -> &str {
    let command = command.trim_start_matches(BLANKS);
    let end = command.trim_end_matches(BLANKS);
    let backslashes = end.len() - end.trim_end_matches('\\').len();
    let escaped = backslashes % 2 == 1 && end.len() < command.len();
    &command[..end.len() + usize::from(escaped)]
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(line.as_bytes()).expect("a good line")
    }

    #[test]
    fn options_flags_and_quotes_are_told_apart() {
        let line = parse("quiet run=\"echo 'one; two'; poweroff\" empty= last=1 last=2");
        assert!(line.has("quiet"));
        assert!(!line.has("run"), "an option is not a flag");
        assert_eq!(line.value("run"), Some("echo 'one; two'; poweroff"));
        assert_eq!(line.value("empty"), Some(""));
        assert_eq!(line.value("last"), Some("2"));
        assert_eq!(line.value("quiet"), None);
        assert_eq!(parse("").value("run"), None);
    }

    #[test]
    fn options_of_a_family_are_found_in_their_order() {
        let line = parse("elevator=noop elevator.xvdb=deadline elevator. elevator.xvda=x=y");
        let found: Vec<_> = line.values("elevator.").collect();
        assert_eq!(found, [("xvdb", "deadline"), ("xvda", "x=y")]);
    }

    #[test]
    fn words_that_nobody_knows_are_kept_and_told_once() {
        let text = "console=hvc0 quiet root=LABEL=/ ro quiet  run=\"help\" rootwait elevator.x=y \
                    sysctl.a=b run rw=1 quiet=1 elevatorx=1";
        let line = parse(text);
        let unknown =
            ["console=hvc0", "quiet", "rootwait", "run", "rw=1", "quiet=1", "elevatorx=1"];
        assert_eq!(line.unknown(), unknown);
        assert_eq!(line.text(), text);
        assert!(parse("mem=8M shell rootwait=3 elevator=noop rw").unknown().is_empty());
    }

    #[test]
    fn an_open_quote_is_an_error() {
        assert_eq!(CommandLine::parse(b"run=\"help"), Err(LineError::Unfinished));
        assert_eq!(words("echo 'a"), Err(LineError::Unfinished));
        assert_eq!(words("echo \\"), Err(LineError::Unfinished));
    }

    #[test]
    fn what_is_not_text_is_an_error() {
        assert_eq!(CommandLine::parse(b"run=\xff"), Err(LineError::NotText));
    }

    #[test]
    fn the_longest_line_is_taken_and_one_byte_more_is_not() {
        assert!(CommandLine::parse(&vec![b'a'; LINE_MAX]).is_ok());
        assert_eq!(CommandLine::parse(&vec![b'a'; LINE_MAX + 1]), Err(LineError::TooLong));
    }

    #[test]
    fn commands_are_split_outside_quotes_only() {
        assert_eq!(commands("help; poweroff"), ["help", "poweroff"]);
        assert_eq!(
            commands("echo 'a;b';; echo \"c;\\\";d\" ; "),
            ["echo 'a;b'", "echo \"c;\\\";d\""]
        );
        assert_eq!(commands("echo a\\;b"), ["echo a\\;b"]);
        assert_eq!(commands("echo '\\'; x"), ["echo '\\'", "x"]);
        assert!(commands(" ; ;").is_empty());
    }

    #[test]
    fn a_blank_that_belongs_to_a_word_is_kept() {
        assert_eq!(commands("echo a\\ ;x"), ["echo a\\ ", "x"]);
        assert_eq!(commands(" echo a\\\\ \t"), ["echo a\\\\"]);
        assert_eq!(commands("echo '\\' "), ["echo '\\'"]);
        // No blank to a shell.
        assert_eq!(commands("echo \u{a0};\u{a0}"), ["echo \u{a0}", "\u{a0}"]);
    }

    #[test]
    fn any_bytes_are_parsed_without_panic() {
        let mut seed = 1_u32;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"a=;'\"\\ #\n\xc3\xa9\0"[(seed >> 24) as usize % 12]
                })
                .collect();
            if let Ok(text) = core::str::from_utf8(&bytes) {
                for command in commands(text) {
                    assert!(!command.is_empty());
                }
            }
            let parsed = CommandLine::parse(&bytes);
            assert_eq!(parsed == Err(LineError::NotText), core::str::from_utf8(&bytes).is_err());
        }
    }
}
