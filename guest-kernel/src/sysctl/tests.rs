//! Tables of tunables: what is shown, what is taken, and what is refused with which words.

extern crate std;

use core::cell::Cell;

use super::*;
use crate::programs::play::Play;

static LEVEL: Number = Number::new(5, (1, 100));

std::thread_local! {
    static LAST: Cell<u64> = const { Cell::new(3) };
}

fn table() -> [Tunable<Play>; 4] {
    [
        Tunable::number("kernel.level", "how loud", &LEVEL),
        Tunable::text("vm.text", "a word", read, write),
        Tunable::fact("kernel.name", "what it is called", |_| "play".to_string()),
        Tunable::family(list, write_one),
    ]
}

fn read(_: &Play) -> String {
    LAST.get().to_string()
}

fn write(_: &Play, value: &str) -> Result<(), Failure> {
    LAST.set(value.len() as u64);
    Ok(())
}

fn list(_: &Play, disks: &mut Disks<Play>) -> Vec<Entry> {
    let entry = |name| Entry {
        key: format!("block.{name}.size").into(),
        value: "1".to_string(),
        about: "how large".into(),
    };
    disks.all().map(|(name, _)| entry(name)).collect()
}

fn write_one(_: &Play, _: &mut Disks<Play>, key: &str, value: &str) -> Result<(), Failure> {
    Err(Failure::failed(format!("{key}={value}: asked")))
}

fn sysctl(line: &str) -> Result<String, Failure> {
    let play = Play::new(2, 8);
    let mut disks = play.disks();
    let words: Vec<String> = line.split_whitespace().map(ToString::to_string).collect();
    run(&play, &mut disks, (&table(), &words)).map(|()| play.printed())
}

#[test]
fn all_are_listed_by_key_with_value_and_meaning() {
    LAST.set(3);
    let printed = sysctl("-a").unwrap();
    let keys: Vec<&str> = printed.lines().filter_map(|line| line.split(' ').next()).collect();
    let expected = ["block.xvda.size", "block.xvdb.size", "kernel.level", "kernel.name", "vm.text"];
    assert_eq!(keys, expected);
    assert!(printed.contains("vm.text = 3  # a word"), "{printed}");
}

#[test]
fn what_is_set_is_shown() {
    let printed = sysctl("kernel.level=7 vm.text=word kernel.name kernel.level").unwrap();
    assert_eq!(printed, "kernel.level = 7\nvm.text = 4\nkernel.name = play\nkernel.level = 7");
    assert_eq!(LEVEL.get(), 7);
}

#[test]
fn what_makes_no_sense_names_what_would() {
    for (line, text) in [
        ("", USAGE),
        ("-x", USAGE),
        ("kernel.level=0", "kernel.level=0: not a number from 1 to 100"),
        ("kernel.level=101", "kernel.level=101: not a number from 1 to 100"),
        ("kernel.level=", "kernel.level=: not a number from 1 to 100"),
        ("kernel.name=x", "kernel.name: read only"),
        ("kernel.nme", "kernel.nme: no such tunable: there is kernel.level, kernel.name"),
        ("block.xvdb.sise=1", "block.xvdb.sise: no such tunable: there is block.xvdb.size"),
        (
            "block.xvdc.size",
            "block.xvdc.size: no such tunable: there is block.xvda.size, block.xvdb.size",
        ),
        ("block.xvdb.size=2", "block.xvdb.size=2: asked"),
    ] {
        assert_eq!(sysctl(line).unwrap_err().text, text, "{line}");
    }
    let everything = sysctl("nonsense").unwrap_err().text;
    assert!(everything.ends_with("kernel.level, kernel.name, vm.text"), "{everything}");
}
