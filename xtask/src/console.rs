//! Console lines of Xen, Dom0 and the guests: stamped, kept, saved, and shown under `-v`.
//!
//! Each source has its own log file in the lab's log folder, always written; the terminal gets one
//! merged stream with a prefix per source. The seconds count from the start of QEMU.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Context, Result};

/// How many lines a failure shows.
pub const TAIL_LINES: usize = 30;

/// Who wrote a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The hypervisor.
    Xen,
    /// Dom0's kernel, its init, and late output of commands.
    Dom0,
    /// A guest, by its name.
    Guest(String),
}

impl Source {
    fn file_name(&self) -> String {
        match self {
            Source::Xen => "xen.log".into(),
            Source::Dom0 => "dom0.log".into(),
            Source::Guest(name) => format!("domU-{name}.log"),
        }
    }

    /// The prefix on the terminal. A lone guest is `domU`, whatever its name.
    fn prefix(&self, guests: usize) -> String {
        match self {
            Source::Xen => "xen|".into(),
            Source::Dom0 => "dom0|".into(),
            Source::Guest(name) if guests > 1 => format!("domU {name}|"),
            Source::Guest(_) => "domU|".into(),
        }
    }
}

/// Collects lines.
#[derive(Debug)]
pub struct Console {
    start: Instant,
    folder: PathBuf,
    verbose: bool,
    files: BTreeMap<Source, File>,
    partial: BTreeMap<Source, Vec<u8>>,
    tail: VecDeque<String>,
    guests: usize,
}

impl Console {
    /// Starts to collect into log files in `folder`, which is made.
    pub fn new(folder: &Path, verbose: bool) -> Result<Self> {
        fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
        Ok(Self {
            start: Instant::now(),
            folder: folder.to_owned(),
            verbose,
            files: BTreeMap::new(),
            partial: BTreeMap::new(),
            tail: VecDeque::new(),
            guests: 0,
        })
    }

    /// Takes bytes of one source; gives the lines that they complete.
    pub fn bytes(&mut self, source: &Source, bytes: &[u8]) -> Vec<String> {
        let partial = self.partial.entry(source.clone()).or_default();
        partial.extend_from_slice(bytes);
        let lines = take_lines(partial);
        for line in &lines {
            self.line(source, line);
        }
        lines
    }

    /// Takes one whole line.
    pub fn line(&mut self, source: &Source, line: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        if !self.files.contains_key(source) {
            if matches!(source, Source::Guest(_)) {
                self.guests += 1;
            }
            if let Ok(file) = File::create(self.folder.join(source.file_name())) {
                self.files.insert(source.clone(), file);
            }
        }
        if let Some(file) = self.files.get_mut(source) {
            // A full disk must not end a run; the line is still in memory and on the terminal.
            let _ = writeln!(file, "{seconds:8.2} {line}");
        }
        let stamped = format!("{seconds:8.2} {:5} {line}", source.prefix(self.guests));
        if self.verbose {
            eprintln!("{stamped}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(stamped);
    }

    /// The last lines of all sources, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    /// Where the log files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Takes the whole lines out of `bytes`, without line ends; leaves the rest.
pub fn take_lines(bytes: &mut Vec<u8>) -> Vec<String> {
    let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else { return Vec::new() };
    let rest = bytes.split_off(end + 1);
    let whole = std::mem::replace(bytes, rest);
    let text = String::from_utf8_lossy(&whole);
    text.lines().map(|line| line.trim_matches('\r').to_owned()).collect()
}

/// Whose line this is on the serial port that Xen and Dom0 share.
pub fn serial_source(line: &str) -> Source {
    let hypervisor = line.starts_with("(XEN)") || line.starts_with(" Xen ");
    if hypervisor { Source::Xen } else { Source::Dom0 }
}

/// True for a line that says that Xen or Dom0's kernel is dead.
pub fn is_crash(line: &str) -> bool {
    let signs = ["Kernel panic - not syncing", "Panic on CPU", "FATAL TRAP", "FATAL PAGE FAULT"];
    signs.iter().any(|sign| line.contains(sign))
        || line.contains("Reboot in five seconds")
        || line.contains("Hardware Dom0 crashed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_and_a_rest_stays() {
        let mut bytes = b"one\r\ntwo\npart".to_vec();
        assert_eq!(take_lines(&mut bytes), ["one", "two"]);
        assert_eq!(bytes, b"part");
        bytes.extend_from_slice(b"ial\n");
        assert_eq!(take_lines(&mut bytes), ["partial"]);
    }

    #[test]
    fn the_serial_port_is_shared_out_by_prefix() {
        assert_eq!(serial_source("(XEN) Xen version 4.17"), Source::Xen);
        assert_eq!(serial_source("[    0.0] Linux version 6.1"), Source::Dom0);
    }

    #[test]
    fn crashes_are_told_from_ordinary_lines() {
        assert!(is_crash("(XEN) Panic on CPU 0:"));
        assert!(is_crash("[ 2.1] Kernel panic - not syncing: Attempted to kill init!"));
        assert!(!is_crash("(XEN) Domain 1 (vcpu#0) crashed on cpu#0:"));
    }

    #[test]
    fn the_tail_keeps_the_last_lines_only() {
        let folder = std::env::temp_dir().join(format!("pvblk-console-{}", std::process::id()));
        let mut console = Console::new(&folder, false).unwrap();
        for number in 0..=TAIL_LINES {
            console.line(&Source::Xen, &format!("line {number}"));
        }
        let tail = console.tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert!(tail[0].ends_with("line 1"));
        let log = fs::read_to_string(folder.join("xen.log")).unwrap();
        assert_eq!(log.lines().count(), TAIL_LINES + 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
