//! The console, both ways.
//!
//! Output is one value for the whole kernel ([`print!`](crate::print)), because everything may
//! print. A guest's console is a byte ring: when it is full, printing waits for the backend
//! rather than lose a line; when nobody has read for [`PATIENCE`], what does not fit is dropped
//! until somebody reads again, and the gap is marked. The initial domain prints by hypercall.
//! Nothing here takes memory for output: the kernel must be able to say that there is none.
//!
//! Input is a value of its own that the kernel hands to whoever reads lines.

use alloc::string::String;
use core::fmt::{self, Write};
use core::time::Duration;

use crossbeam_queue::ArrayQueue;
use ring::bytes::{Area, Receiver, Sender};
use ring::{Broken, Page};
use spin::Mutex;
use xen::Port;
use xen::abi::Virq;

use crate::arch::{self, ConsoleWire};
use crate::events;
use crate::kernel::now;
use crate::line::{Editor, Input};
use crate::time::Instant;

/// How long printing waits for a backend that does not read.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long it sleeps between two looks.
const NAP: Duration = Duration::from_millis(20);
/// Looks without a clock, before time can be told: each lets other domains run.
const LOOKS_MAX: u32 = 100_000;
/// Stands where output was dropped.
const GAP: &[u8] = b"\r\n[console output lost here]\r\n";
/// Bytes of input that are kept until somebody reads them.
pub const INPUT_MAX: usize = 1024;
/// Ctrl-C.
const INTERRUPT: u8 = 3;

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::write(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::console::write(format_args!("{}\n", format_args!($($argument)*))) };
}

static OUTPUT: Mutex<Output> = Mutex::new(Output { sink: Sink::None, deaf: false });

/// Where output goes.
enum Sink {
    /// Nowhere yet: Xen's own console may take it.
    None,
    Hypervisor,
    Ring {
        sender: Sender<&'static Page>,
        port: Port,
    },
}

struct Output {
    sink: Sink,
    /// The backend did not read for as long as we had patience: what does not fit is dropped.
    deaf: bool,
}

/// Prints. Something that prints while it is being printed would wait for itself.
pub fn write(arguments: fmt::Arguments<'_>) {
    let mut output = OUTPUT.lock();
    // It never fails: what cannot be printed is dropped.
    let _ = output.write_fmt(arguments);
    output.notify();
}

/// Directs output to its place.
pub(crate) fn open_output(wire: &ConsoleWire) {
    OUTPUT.lock().sink = Sink::open(wire);
}

/// Waits until the backend has read everything, or for `patience`.
pub(crate) fn drain(patience: Duration) {
    OUTPUT.lock().drain(patience);
}

/// Prints as the last thing that the kernel does: takes no lock, because whoever holds it never
/// goes on. Works before the console is open as far as anything can.
pub(crate) fn last_words(wire: Option<&ConsoleWire>, arguments: fmt::Arguments<'_>) {
    // A second sender on the page, from the index that stands in it; the first one is not used
    // any more.
    let mut output = Output { sink: wire.map_or(Sink::None, Sink::open), deaf: false };
    let _ = output.write_fmt(arguments);
    output.notify();
    output.drain(Duration::from_secs(2));
}

impl Sink {
    fn open(wire: &ConsoleWire) -> Self {
        match *wire {
            ConsoleWire::Hypervisor => Self::Hypervisor,
            ConsoleWire::Ring(page, port) => {
                Self::Ring { sender: Sender::attach(page, Area::CONSOLE_OUT), port }
            }
        }
    }
}

impl Output {
    fn send(&mut self, bytes: &[u8]) {
        match &self.sink {
            Sink::None | Sink::Hypervisor => {
                // A guest's Xen refuses this: there is nobody to tell.
                let _ = arch::console_write(bytes);
            }
            Sink::Ring { port, .. } => self.send_all(bytes, *port),
        }
    }

    /// Puts everything into the ring, waiting for room.
    fn send_all(&mut self, mut bytes: &[u8], port: Port) {
        let mut wait = Wait::new(port, PATIENCE);
        while !bytes.is_empty() {
            match self.put(bytes) {
                Ok(0) if self.deaf || !wait.nap() => {
                    self.deaf = true;
                    return;
                }
                Ok(0) => {}
                Ok(count) => {
                    bytes = &bytes[count..];
                    wait = Wait::new(port, PATIENCE);
                }
                // The backend has broken the ring: nobody can print any more.
                Err(_) => {
                    self.sink = Sink::None;
                    return;
                }
            }
        }
    }

    /// Puts what there is room for into the ring. If there is no room, the backend is told.
    fn put(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let Sink::Ring { sender, port } = &mut self.sink else { return Ok(bytes.len()) };
        if self.deaf {
            // Somebody reads again: before anything else is printed, the gap is marked.
            let room = Area::CONSOLE_OUT.size_bytes() - sender.unread()?;
            if (room as usize) < GAP.len() {
                return Ok(0);
            }
            sender.send(GAP)?;
            self.deaf = false;
        }
        let count = sender.send(bytes)?;
        if count < bytes.len() {
            let _ = arch::send_event(*port);
        }
        Ok(count)
    }

    fn notify(&self) {
        if let Sink::Ring { port, .. } = &self.sink {
            let _ = arch::send_event(*port);
        }
    }

    fn drain(&self, patience: Duration) {
        let Sink::Ring { sender, port } = &self.sink else { return };
        let mut wait = Wait::new(*port, patience);
        while sender.unread().is_ok_and(|count| count > 0) && wait.nap() {}
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Terminals want a carriage return; Xen's own console adds it itself.
        let raw = matches!(self.sink, Sink::Ring { .. });
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) if raw => {
                    self.send(line.as_bytes());
                    self.send(b"\r\n");
                }
                _ => self.send(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// Waiting for the backend with an end, also before there is a clock.
struct Wait {
    port: Port,
    looks: u32,
    until: Option<Instant>,
    patience: Duration,
}

impl Wait {
    fn new(port: Port, patience: Duration) -> Self {
        Self { port, looks: 0, until: None, patience }
    }

    /// Lets time pass, or the backend notify us; tells whether there is patience left. What the
    /// backend did just before is noticed after [`NAP`] at the latest.
    fn nap(&mut self) -> bool {
        let Some(time) = now() else {
            arch::yield_now();
            self.looks += 1;
            return self.looks < LOOKS_MAX;
        };
        let until = *self.until.get_or_insert_with(|| time.after(self.patience));
        events::collect();
        arch::poll(self.port, time.after(NAP).as_nanos());
        time < until
    }
}

/// Where input comes from.
enum Source {
    Hypervisor,
    Ring(Receiver<&'static Page>),
}

/// Input from the console, and the line that is being typed.
pub struct Keyboard {
    source: Mutex<Source>,
    port: Option<Port>,
    queue: ArrayQueue<u8>,
    editor: Mutex<Editor>,
}

impl fmt::Debug for Keyboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyboard").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Keyboard {
    /// Input from the same place that output goes to.
    pub(crate) fn open(wire: &ConsoleWire) -> Self {
        let (source, port) = match *wire {
            ConsoleWire::Hypervisor => (Source::Hypervisor, arch::bind_virq(Virq::Console).ok()),
            ConsoleWire::Ring(page, port) => {
                (Source::Ring(Receiver::attach(page, Area::CONSOLE_IN)), Some(port))
            }
        };
        let editor = Mutex::new(Editor::new("pvblk> "));
        Self { source: Mutex::new(source), port, queue: ArrayQueue::new(INPUT_MAX), editor }
    }

    /// Takes in what has come; tells whether Ctrl-C was among it. A program that runs for long
    /// asks this between two steps. Input beyond [`INPUT_MAX`] stays where it is.
    pub fn interrupted(&self) -> bool {
        self.pump();
        // Rotates the queue once, without the interrupts.
        let before = self.queue.len();
        for _ in 0..before {
            if let Some(byte) = self.queue.pop().filter(|&byte| byte != INTERRUPT) {
                let _ = self.queue.push(byte);
            }
        }
        self.queue.len() < before
    }

    /// The next byte that was typed, for a program that is steered by keys.
    pub fn key(&self) -> Option<u8> {
        self.pump();
        self.queue.pop()
    }

    /// Shows the prompt and what is typed so far.
    pub fn prompt(&self) {
        let mut echo = String::new();
        self.editor.lock().redraw(&mut echo);
        crate::print!("{echo}");
    }

    /// Takes in what has come, without waiting, and tells what it completed. Called again until it
    /// is [`Input::Nothing`]; then a wait for any event will not miss input.
    pub fn poll(&self) -> Input {
        self.pump();
        let mut editor = self.editor.lock();
        let mut echo = String::new();
        let mut input = Input::Nothing;
        while input == Input::Nothing
            && let Some(byte) = self.queue.pop()
        {
            input = editor.feed(byte, &mut echo);
        }
        if !echo.is_empty() {
            crate::print!("{echo}");
        }
        input
    }

    /// Moves bytes from the source to the queue, as far as there is room.
    fn pump(&self) {
        let mut bytes = [0; 64];
        let mut source = self.source.lock();
        loop {
            let room = (self.queue.capacity() - self.queue.len()).min(bytes.len());
            let count = match &mut *source {
                Source::Hypervisor => arch::console_read(&mut bytes[..room]).unwrap_or(0),
                // A broken ring gives nothing any more.
                Source::Ring(receiver) => receiver.receive(&mut bytes[..room]).unwrap_or(0),
            };
            if count == 0 {
                return;
            }
            for &byte in &bytes[..count] {
                let _ = self.queue.push(byte);
            }
            if let (Source::Ring(_), Some(port)) = (&*source, self.port) {
                // There is room again.
                let _ = arch::send_event(port);
            }
        }
    }
}
