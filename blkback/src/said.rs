//! How many lines a test has had said, so that a guest's power over our log can be measured.

use std::cell::Cell;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: Cell<u64> = const { Cell::new(0) };
}

/// Counts warnings and errors, for each thread by itself: tests run beside each other.
struct Counting;

impl Log for Counting {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &Record<'_>) {
        LINES.set(LINES.get() + 1);
    }

    fn flush(&self) {}
}

/// How many warnings and errors `act` says on this thread.
pub(crate) fn lines(act: impl FnOnce()) -> u64 {
    // Only the first one of this process is taken, and all are the same.
    let _ = log::set_logger(&Counting);
    log::set_max_level(LevelFilter::Warn);
    let before = LINES.get();
    act();
    LINES.get() - before
}
