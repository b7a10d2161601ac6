//! The house rules that neither the compiler nor clippy checks.
//!
//! Reads the sources and manifests of the whole workspace as text. It must never need a rule to
//! be switched off for one file: a rule that does not hold everywhere is not in here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which members a member may depend on: the picture in ARCHITECTURE.md. The second list is for
/// tests only. Those of [`TOP`] may use everything.
const ARROWS: [(&str, &[&str], &[&str]); 12] = [
    ("ring", &[], &[]),
    ("xen", &["ring"], &[]),
    ("blkif", &["xen", "ring"], &[]),
    ("blkfront", &["blkif", "xen", "ring"], &["sim"]),
    ("blkback", &["blkif", "xen", "ring"], &["sim"]),
    ("files", &[], &[]),
    ("guest-kernel", &["files", "blkfront", "blkif", "xen", "ring", "module-abi"], &["sim"]),
    ("guest-programs", &[], &[]),
    ("module-abi", &[], &[]),
    ("modules/sstf", &["module-abi"], &[]),
    ("modules/ramdisk", &["module-abi"], &[]),
    ("sim", &["xen", "ring"], &[]),
];
/// Members at the top of the picture.
const TOP: [&str; 3] = ["bench", "tests", "xtask"];
/// The three folders and the file in which `unsafe` may stand: the machine, Dom0's device nodes,
/// the programs' system calls, and what modules and the kernel pass each other. Modules themselves
/// have none.
const UNSAFE_PLACES: [&str; 4] =
    ["guest-kernel/src/arch", "blkback/src/sys", "guest-programs/src/sys", "module-abi/src/sys.rs"];
/// Members whose `lib.rs` forbids unsafe code for good.
const FORBIDDING: [&str; 8] =
    ["ring", "xen", "blkif", "blkfront", "files", "sim", "bench", "tests"];
/// Code lines of a file before its tests.
const CODE_LINES_MAX: usize = 450;
/// How far above an unsafe operation its proof may begin.
const PROOF_LINES_MAX: usize = 12;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace holds this crate").to_owned()
}

/// Every file of the project with this extension, by its path from the root.
fn files(extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(&path).expect("text");
                let short = path.strip_prefix(root()).expect("under the root");
                found.push((short.display().to_string(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 5, "the search itself is broken: {found:?}");
    found
}

/// Fails with one line per finding.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// The text with comments, strings and characters blanked, line by line.
fn code(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest = text;
    let mut comment_depth = 0;
    while let Some(first) = rest.chars().next() {
        let length = if comment_depth > 0 {
            let (opens, closes) = (rest.starts_with("/*"), rest.starts_with("*/"));
            comment_depth += usize::from(opens);
            comment_depth -= usize::from(closes);
            if opens || closes { 2 } else { first.len_utf8() }
        } else if rest.starts_with("/*") {
            comment_depth = 1;
            2
        } else if let Some(length) = blank(rest) {
            length
        } else {
            if first != '\n' {
                lines.last_mut().expect("never empty").push(first);
            }
            first.len_utf8()
        };
        let (passed, after) = rest.split_at(length);
        lines.extend(passed.matches('\n').map(|_| String::new()));
        rest = after;
    }
    lines
}

/// The length of the line comment, string or character that `text` begins with.
fn blank(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            return body.find(&end).map(|at| 1 + hashes + 1 + at + end.len());
        }
    }
    let quote = text.chars().next().filter(|&c| c == '"' || c == '\'')?;
    if quote == '\'' && !text[1..].starts_with('\\') {
        // A lifetime has no closing quote behind one character.
        let width = text[1..].chars().next()?.len_utf8();
        return text[1 + width..].starts_with('\'').then_some(width + 2);
    }
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(at + 1);
        }
        escaped = at == 0 || (c == '\\' && !escaped);
        if at == 0 {
            escaped = false;
        }
    }
    None
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

#[test]
fn blanking_leaves_code_only() {
    let source = "a // unsafe\nb \"un\\\"safe\" 'x' '\\'' &'a c r#\"uns\"afe\"#d /* e\n */f\n";
    assert_eq!(code(source), ["a ", "b    &'a c d ", "f", ""]);
    assert!(has_word("unsafe {", "unsafe") && !has_word("unsafe_code", "unsafe"));
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<String> =
        files("rs").into_iter().filter(|f| !f.1.starts_with("//! ")).map(|f| f.0).collect();
    assert_none("files that do not open with `//!`", &silent);
}

#[test]
fn unsafe_stands_in_its_places_only() {
    let mut found = Vec::new();
    for (path, text) in files("rs") {
        let allowed = UNSAFE_PLACES.iter().any(|folder| path.starts_with(folder));
        for (at, line) in code(&text).iter().enumerate() {
            if !allowed && has_word(line, "unsafe") {
                found.push(format!("{path}:{}", at + 1));
            }
        }
    }
    assert_none("unsafe outside its places", &found);
}

#[test]
fn every_unsafe_has_its_proof() {
    let mut found = Vec::new();
    for (path, text) in files("rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in code(&text).iter().enumerate() {
            // Types and attributes (`unsafe extern "C" fn` pointers, `unsafe(naked)`) do nothing.
            let acts = ["unsafe {", "unsafe impl"].iter().any(|form| line.contains(form));
            // What implements a trait keeps the trait's contract.
            let promises = line.contains("pub") && line.contains("unsafe fn");
            let above = &lines[at.saturating_sub(PROOF_LINES_MAX)..lines.len().min(at + 1)];
            let proof = above.iter().any(|line| line.contains("SAFETY:"));
            let contract = above.iter().any(|line| line.contains("# Safety"));
            if (acts && !proof) || (promises && !proof && !contract) {
                found.push(format!("{path}:{}: {}", at + 1, lines[at].trim()));
            }
        }
    }
    assert_none("unsafe without a `SAFETY:` comment or a `# Safety` section", &found);
}

#[test]
fn crates_without_unsafe_forbid_it() {
    let sources = files("rs");
    for member in FORBIDDING {
        let path = format!("{member}/src/lib.rs");
        let (_, text) = sources.iter().find(|file| file.0 == path).expect("a library");
        assert!(text.contains("\n#![forbid(unsafe_code)]\n"), "{path} does not forbid unsafe code");
    }
}

#[test]
fn nothing_is_put_off() {
    // Spelt in two halves, so that this file does not find itself.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let forms = [concat!("#[ig", "nore"), concat!("to", "do!"), concat!("unimpl", "emented!")];
    let mut found = Vec::new();
    for (path, text) in files("rs").into_iter().chain(files("toml")) {
        for (at, line) in text.lines().enumerate() {
            let put_off = words.iter().any(|word| has_word(line, word))
                || forms.iter().any(|form| line.contains(form));
            if put_off {
                found.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert_none("work that was put off", &found);
}

#[test]
fn files_stay_small() {
    let mut found = Vec::new();
    for (path, text) in files("rs") {
        if path.contains("/tests/") || path.ends_with("/tests.rs") {
            continue;
        }
        let before_tests = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
        let lines = code(&text[..before_tests]);
        let count = lines.iter().filter(|line| !line.trim().is_empty()).count();
        if count > CODE_LINES_MAX {
            found.push(format!("{path}: {count} lines of code"));
        }
    }
    assert_none("files to be split", &found);
}

/// A manifest of the workspace and the name of its folder.
fn manifests() -> Vec<(String, toml::Table)> {
    let inner = files("toml").into_iter().filter_map(|(path, text)| {
        let folder = path.strip_suffix("/Cargo.toml")?.to_owned();
        Some((folder, text.parse().expect("a manifest")))
    });
    inner.filter(|(folder, _)| folder != "fuzz").collect()
}

/// The names of all dependencies in `table` under `section`, for every target.
fn dependencies(table: &toml::Table, section: &str) -> BTreeSet<String> {
    let names = |table: &toml::Table| -> Vec<String> {
        let section = table.get(section).and_then(toml::Value::as_table);
        section.map(|section| section.keys().cloned().collect()).unwrap_or_default()
    };
    let mut all: BTreeSet<String> = names(table).into_iter().collect();
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        all.extend(targets.values().filter_map(toml::Value::as_table).flat_map(names));
    }
    all
}

#[test]
fn dependencies_point_one_way() {
    let manifests = manifests();
    let members: BTreeSet<&str> = manifests.iter().map(|(folder, _)| folder.as_str()).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|arrow| arrow.0).chain(TOP).collect();
    assert_eq!(members, known, "a member that the picture does not show, or the reverse");
    let mut found = Vec::new();
    for (member, arrows, for_tests) in ARROWS {
        let (_, table) = manifests.iter().find(|m| m.0 == member).expect("compared above");
        for (section, more) in [
            ("dependencies", &[][..]),
            ("build-dependencies", &[]),
            ("dev-dependencies", for_tests),
        ] {
            let wrong = dependencies(table, section).into_iter().filter(|name| {
                members.contains(name.as_str())
                    && !arrows.contains(&name.as_str())
                    && !more.contains(&name.as_str())
            });
            found.extend(wrong.map(|name| format!("{member} --> {name} ({section})")));
        }
    }
    assert_none("arrows that the picture does not have", &found);
}

#[test]
fn members_inherit_version_licence_and_lints() {
    let mut found = Vec::new();
    for (folder, table) in manifests() {
        let inherits = |value: Option<&toml::Value>| {
            let flag = value.and_then(|value| value.get("workspace"));
            flag.and_then(toml::Value::as_bool) == Some(true)
        };
        let package = table["package"].as_table().expect("a package");
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if !inherits(package.get(key)) {
                found.push(format!("{folder}: package.{key} is its own"));
            }
        }
        if !inherits(table.get("lints").map(|_| &table["lints"])) {
            found.push(format!("{folder}: its own lints"));
        }
        let sentence = package.get("description").and_then(toml::Value::as_str).unwrap_or_default();
        if !sentence.ends_with('.') {
            found.push(format!("{folder}: no sentence that says what it is"));
        }
    }
    assert_none("manifests that differ from the workspace", &found);
}
