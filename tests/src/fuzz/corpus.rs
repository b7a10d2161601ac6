//! The inputs that are kept: `fuzz/corpus/TARGET`, and `fuzz/regressions/TARGET`, which once failed.

use std::fs;
use std::path::{Path, PathBuf};

/// An input and its file's name.
pub type Input = (String, Vec<u8>);

/// The folder of the fuzzer.
pub fn folder() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).join("fuzz")
}

/// What the corpus has for a target, by name.
///
/// # Panics
/// If a file cannot be read.
pub fn corpus(target: &str) -> Vec<Input> {
    inputs(&folder().join("corpus").join(target))
}

/// What once failed for a target, by name.
///
/// # Panics
/// If a file cannot be read.
pub fn regressions(target: &str) -> Vec<Input> {
    inputs(&folder().join("regressions").join(target))
}

/// The files of a folder; none if there is no such folder.
pub(super) fn inputs(folder: &Path) -> Vec<Input> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<Input> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("an input"))
        })
        .collect();
    found.sort();
    found
}
