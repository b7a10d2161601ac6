//! Holds every definition of this module against the table of a C compiler (`abi/layout.txt`).
//!
//! The table and the definitions are compared as sets of lines, so that a definition without a
//! line and a line without a definition both fail. Lines of the block protocol are the business
//! of `ring` and `blkif`.
#![allow(clippy::cast_possible_wrap, reason = "the table holds numbers as a C `long long`")]

mod behaviour;
mod kernel;
mod peers;

use core::mem::size_of;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{env, format, fs, process};

const TABLE: &str = include_str!("../../../abi/layout.txt");
const BLOCK_PREFIXES: [&str; 4] =
    ["size struct blkif", "field struct blkif", "value BLKIF_", "value VDISK_"];

fn lines(table: &str) -> BTreeSet<String> {
    table.lines().filter(|line| !line.starts_with('#')).map(ToString::to_string).collect()
}

/// The table without the lines of the block protocol.
fn ours(table: &str) -> BTreeSet<String> {
    let mut lines = lines(table);
    lines.retain(|line| !BLOCK_PREFIXES.iter().any(|prefix| line.starts_with(prefix)));
    lines
}

/// Size of the member that a projection leads to.
fn size_behind<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Lines for one structure: its C name, its Rust type, and pairs of C and Rust members.
macro_rules! structure {
    ($out:ident, $c:literal, $rust:ty $(, $c_member:literal = $($member:ident).+)* $(,)?) => {
        $out.push(format!("size struct {} {}", $c, size_of::<$rust>()));
        structure!(@fields $out, $c, $rust $(, $c_member = $($member).+)*);
    };
    (@fields $out:ident, $c:literal, $rust:ty $(, $c_member:literal = $($member:ident).+)*) => {
        $($out.push(format!(
            "field struct {} {} {} {}",
            $c,
            $c_member,
            offset_of!($rust, $($member).+),
            size_behind(|value: &$rust| &value.$($member).+),
        ));)*
    };
}

/// Lines for numbers: their C names and the Rust expressions.
macro_rules! values {
    ($out:ident $(, $c:literal = $value:expr)* $(,)?) => {
        $($out.push(format!("value {} {}", $c, $value as i64));)*
    };
}

use {structure, values};

#[test]
fn every_definition_agrees_with_the_c_compiler() {
    let mut out = Vec::new();
    peers::hypercalls(&mut out);
    kernel::start(&mut out);
    kernel::shared(&mut out);
    kernel::clock(&mut out);
    peers::events(&mut out);
    peers::scheduler(&mut out);
    peers::grants(&mut out);
    kernel::memory(&mut out);
    kernel::traps(&mut out);
    kernel::versions(&mut out);
    peers::store(&mut out);
    peers::byte_rings(&mut out);
    let rust: BTreeSet<String> = out.into_iter().collect();
    let c = ours(TABLE);
    let wrong: Vec<_> = rust.difference(&c).collect();
    let missing: Vec<_> = c.difference(&rust).collect();
    assert!(wrong.is_empty() && missing.is_empty(), "Rust: {wrong:#?}\nC: {missing:#?}");
}

/// `cargo xtask test` fetches the headers and sets `XEN_HEADERS`; without it only the table that
/// is checked in is compared.
#[test]
fn the_table_is_what_the_headers_say() {
    let Some(headers) = env::var_os("XEN_HEADERS") else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/oracle.c");
    let program = env::temp_dir().join(format!("xen-abi-oracle-{}", process::id()));
    let compiled = Command::new("cc")
        .args(["-Wall", "-Werror", "-I"])
        .arg(&headers)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .status()
        .expect("a C compiler (package gcc) is needed when XEN_HEADERS is set");
    assert!(compiled.success(), "the oracle does not compile against {}", headers.display());
    let output = Command::new(&program).output().expect("the oracle runs");
    fs::remove_file(&program).expect("the oracle can be removed");
    let printed = String::from_utf8(output.stdout).expect("the oracle prints text");
    assert_eq!(lines(&printed), lines(TABLE));
}
