//! What libFuzzer says, as numbers; and a name for an input that failed.

use std::fmt;

/// How far a target has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Inputs that were run.
    pub executed: u64,
    /// The same in a second.
    pub per_second: u64,
    /// Edges of the code that were reached.
    pub coverage: u64,
    /// Edges, by how often, and what was compared there.
    pub features: u64,
    /// Inputs that reached something new.
    pub new: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executed, per_second, coverage, new, .. } = self;
        write!(f, "{executed:>9} inputs ({per_second}/s), coverage {coverage}, {new} new")
    }
}

impl Figures {
    /// Takes in a line such as `#31770 NEW cov: 530 ft: 2071 corp: 291/4486b exec/s: 1512`.
    pub(super) fn take_in(&mut self, line: &str) {
        let after = |name: &str| -> Option<u64> {
            let rest = line.split_once(name)?.1.trim_start();
            rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
        };
        let Some(executed) = line.starts_with('#').then(|| after("#")).flatten() else { return };
        let Some(coverage) = after("cov:") else { return };
        self.executed = executed;
        self.coverage = coverage;
        self.features = after(" ft:").unwrap_or(self.features);
        self.per_second = after("exec/s:").unwrap_or(self.per_second);
        // What it reads at the begin is known already.
        self.new += u64::from(line.contains("\tNEW "));
    }
}

/// A name for the input that a log tells of: what went wrong and where, in words and dashes.
pub(super) fn name_of(log: &str) -> String {
    let panic = log.lines().skip_while(|line| !line.contains(" panicked at "));
    let mut panic = panic.take(2);
    let place = panic.next().and_then(|line| line.split_once(" panicked at "));
    let text = match (place, panic.next()) {
        (Some((_, place)), message) => {
            // The file's last two parts: `wild.rs:12:5` alone says little.
            let place = place.trim_end_matches(':').rsplit_once(':').map_or(place, |it| it.0);
            let from = place.rmatch_indices('/').nth(1).map_or(0, |it| it.0 + 1);
            format!("{} {}", &place[from..], message.unwrap_or_default())
        }
        (None, _) => log
            .lines()
            .find_map(|line| line.split_once("ERROR: ").map(|it| it.1))
            .unwrap_or("unknown")
            .to_owned(),
    };
    let words = text.split(|it: char| !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.take(12).map(str::to_ascii_lowercase).collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_last_line_that_has_some() {
        let mut figures = Figures::default();
        for line in [
            "INFO: seed corpus: files: 12",
            "#13\tINITED cov: 500 ft: 1900 corp: 280/4k exec/s: 0 rss: 40Mb",
            "#900\tNEW    cov: 520 ft: 2000 corp: 281/4486b lim: 38 exec/s: 450 rss: 46Mb L: 3/9",
            "#31770\tDONE   cov: 530 ft: 2071 corp: 291/4486b lim: 38 exec/s: 1512 rss: 406Mb",
            "Done 31770 runs in 21 second(s)",
        ] {
            figures.take_in(line);
        }
        let expected =
            Figures { executed: 31770, per_second: 1512, coverage: 530, features: 2071, new: 1 };
        assert_eq!(figures, expected);
    }

    #[test]
    fn an_input_that_failed_is_named_by_what_went_wrong_and_where() {
        let panic = "#5 NEW\n\nthread '<unnamed>' (12) panicked at /w/blkif/src/check.rs:92:9:\n\
                     attempt to add with overflow\nstack backtrace:\n";
        assert_eq!(name_of(panic), "src-check-rs-92-attempt-to-add-with-overflow");
        let asan = "==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x60\n";
        assert!(name_of(asan).starts_with("addresssanitizer-heap-buffer-overflow-on"));
        let late = "ALARM: working on the last Unit\n==3== ERROR: libFuzzer: timeout after 11 s\n";
        assert_eq!(name_of(late), "libfuzzer-timeout-after-11-s");
        assert_eq!(name_of(""), "unknown");
    }
}
