//! What must not even stand in the source.

use std::fs;
use std::path::{Path, PathBuf};

/// All source files below a folder of the project.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut folders = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 3, "{folder} has sources");
    found
}

/// What has no place.
const NONE: &[PathBuf] = &[];

/// Files below `folder` in which `word` stands.
fn with(folder: &str, word: &str) -> Vec<PathBuf> {
    let all = sources(folder).into_iter();
    all.filter(|(_, text)| text.contains(word)).map(|(path, _)| path).collect()
}

#[test]
fn xsa_466_the_kernel_has_no_hypercall_page() {
    assert!(!with("xen/src/abi", "HypercallPage").is_empty(), "the note has another name now");
    assert_eq!(with("guest-kernel", "HypercallPage"), NONE);
    assert_eq!(with("guest-kernel/src", "hypercall_page"), NONE);
    assert!(!with("guest-kernel/src/arch", "\"syscall\"").is_empty(), "hypercalls are inline");
}

#[test]
fn xsa_501_the_version_of_the_grant_table_is_never_changed() {
    for word in ["set_version", "SetVersion", "SET_VERSION"] {
        assert_eq!(with("guest-kernel/src", word), NONE, "{word}");
    }
}

#[test]
fn cve_2026_31787_the_daemon_never_opens_privcmd() {
    assert!(!with("blkback/src", "/dev/xen/gntdev").is_empty(), "nodes have other names now");
    // But for a test, which makes a call of it on another file, to see it refused.
    let mut named = with("blkback/src", "privcmd");
    named.retain(|path| !path.ends_with("sys/forbidden.rs"));
    assert_eq!(named, NONE);
    let modules = with("blkback/src", "#[cfg(test)]\npub(crate) mod forbidden;");
    assert_eq!(modules.len(), 1, "in no build but that of tests");
}
