//! `cargo xtask shell`: the guest's console on this terminal, as `xl console` has it. Ctrl-] leaves.
//!
//! Keys go to `xenconsole` in Dom0 and from there to the guest, so Ctrl-C is the guest's; the
//! terminal's own modes are restored whatever happens.

use std::io::{IsTerminal, Write, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

use crate::error::{Context, Result};
use crate::lab::{Job, Lab};

/// Ctrl-], the key that leaves.
const LEAVE: u8 = 0x1d;

/// How the session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The user left; the guest goes on.
    ByKey,
    /// The guest ended.
    ByGuest,
}

/// Joins the terminal with a guest's console, which a job has opened.
pub fn session(lab: &Lab, guest: &str, console: Job) -> Result<Left> {
    let _raw = Raw::enter()?;
    let over = AtomicBool::new(false);
    let by_key = AtomicBool::new(false);
    thread::scope(|scope| {
        let keys = scope.spawn(|| {
            let result = send_keys(lab, console, &over);
            if let Ok(true) = result {
                by_key.store(true, Ordering::Relaxed);
            }
            result
        });
        let shown = show_output(lab, guest, console, &by_key);
        over.store(true, Ordering::Relaxed);
        let sent = keys.join().unwrap_or(Ok(false));
        shown.and(sent.map(|_| ()))
    })?;
    lab.kill(console)?;
    Ok(if by_key.into_inner() { Left::ByKey } else { Left::ByGuest })
}

/// Shows the console until the guest has ended or the user has left.
fn show_output(lab: &Lab, guest: &str, console: Job, left: &AtomicBool) -> Result<()> {
    let mut out = stdout();
    while !left.load(Ordering::Relaxed) {
        let (bytes, ended) = lab.read(console, Duration::from_millis(100))?;
        out.write_all(&bytes).and_then(|()| out.flush()).context(|| "the terminal".into())?;
        if ended.is_some() || (bytes.is_empty() && lab.ended(guest).is_some()) {
            break;
        }
    }
    Ok(())
}

/// Sends keys until `over`, or until the user leaves, which gives true.
fn send_keys(lab: &Lab, console: Job, over: &AtomicBool) -> Result<bool> {
    let keyboard = stdin();
    let terminal = keyboard.is_terminal();
    let mut bytes = [0; 256];
    while !over.load(Ordering::Relaxed) {
        let step = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut sources = [PollFd::new(&keyboard, PollFlags::IN)];
        let ready = poll(&mut sources, Some(&step)).context(|| "the keyboard".into())?;
        if ready == 0 {
            continue;
        }
        let count = rustix::io::read(&keyboard, &mut bytes).context(|| "the keyboard".into())?;
        let keys = &bytes[..count];
        // The end of a file is not the end of the session: the guest may still work on it.
        if keys.is_empty() {
            return Ok(false);
        }
        let leave = keys.iter().position(|&key| terminal && key == LEAVE);
        let typed = &keys[..leave.unwrap_or(count)];
        if !typed.is_empty() {
            lab.input(console, typed)?;
        }
        if leave.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The terminal in raw mode; its own modes come back on drop.
struct Raw {
    before: Option<Termios>,
}

impl Raw {
    fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin()).context(|| "the terminal".into())?;
        let mut raw = before.clone();
        raw.make_raw();
        // A guest that ends lines with a line feed alone is still readable.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        tcsetattr(stdin(), OptionalActions::Now, &raw).context(|| "the terminal".into())?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing better can be done than to try.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
