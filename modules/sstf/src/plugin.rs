//! What the module registers: the elevator, and a command that tells what it has done.

use core::fmt::Write;
use core::sync::atomic::Ordering;

use module_abi::{Command, Console, Help, Plugin, Refused, Registry};

use crate::{PASSED, Sstf, TRAVELLED};

struct Module;

module_abi::module!(Module, "sstf");

impl Plugin for Module {
    fn init(registry: &mut Registry, words: &[&str]) -> Result<(), Refused> {
        if !words.is_empty() {
            // The console cannot refuse.
            let _ = writeln!(Console, "sstf: it takes no words");
            return Err(Refused::Unwilling);
        }
        registry.elevator::<Sstf>()?;
        registry.command::<Figures>()
    }
}

struct Figures;

impl Command for Figures {
    const HELP: Help =
        Help { name: "sstf", arguments: "", about: "tells what the elevator sstf has done" };

    fn run(words: &[&str]) -> u8 {
        if !words.is_empty() {
            // The console cannot refuse.
            let _ = writeln!(Console, "usage: sstf");
            return 2;
        }
        let (passed, travelled) =
            (PASSED.load(Ordering::Relaxed), TRAVELLED.load(Ordering::Relaxed));
        let mean = travelled.checked_div(passed).unwrap_or(0);
        let _ = writeln!(Console, "sstf: {passed} requests, {mean} sectors from one to the next");
        0
    }
}
