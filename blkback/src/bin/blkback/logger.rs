//! Log lines on standard error: `blkback: DEVICE: message`. The device is the one that the process
//! is for, or else the one that the thread is named for.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Lines {
    device: Option<String>,
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        let thread = std::thread::current();
        let named = thread.name().filter(|&name| name != "main");
        let device = self.device.as_deref().or(named);
        let device = device.map(|name| format!("device {name}: ")).unwrap_or_default();
        let line = format!("blkback: {device}{level}{}\n", record.args());
        // A log that cannot be written is no reason to stop serving.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Shows warnings, from 1 on what happens to devices, from 2 on everything.
pub(crate) fn install(verbosity: u8, device: Option<String>) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    if log::set_boxed_logger(Box::new(Lines { device })).is_ok() {
        log::set_max_level(level);
    }
}
