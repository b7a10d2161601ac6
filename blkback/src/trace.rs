//! A trace of what passed through rings: `blkback serve --trace FILE`.
//!
//! [`Traced`] wraps a session's end of a ring and writes down every request as it was copied,
//! every answer, and the indexes; a session without a trace has no wrapper. No data is in it. The
//! simulator replays it. It must never hold up service: a file that cannot be written, or that has
//! reached [`TRACE_BYTES_MAX`], ends the trace and nothing else.

mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use blkif::{Raw, Response, Segments};
use ring::{Broken, Full, Index, Notify, Rest};

pub use record::{Begin, Damage, MAGIC, Record, records};

use crate::session::{Link, Past, Queue};

/// A trace file has at most this many bytes, and what connections at the same time write at once:
/// about a million requests.
pub const TRACE_BYTES_MAX: u64 = 64 << 20;
/// What a ring keeps in memory before it is written.
const BUFFER_BYTES: usize = 16 << 10;
/// Left for the record that says that the trace is full.
const LAST_BYTES: u64 = 16;

/// A trace file that any number of connections write to. Clones are the same file.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: File,
    connections: AtomicU32,
}

impl Trace {
    /// A new trace in place of what the file held.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create(path)?;
        // Whoever appends writes behind what others have written, in whatever process they are.
        let mut file = OpenOptions::new().append(true).open(path)?;
        file.write_all(&MAGIC)?;
        Ok(Self(Arc::new(Shared { file, connections: AtomicU32::new(0) })))
    }

    /// The part of one more connection, which may be given to another process.
    pub(crate) fn part(&self) -> Part<'_> {
        Part { file: &self.0.file, connection: self.0.connections.fetch_add(1, Ordering::Relaxed) }
    }

    /// A pen for one more connection, which is served here.
    ///
    /// # Errors
    /// The file cannot be had once more.
    pub fn pen(&self) -> io::Result<Pen> {
        let Part { file, connection } = self.part();
        Ok(Pen::new(file.try_clone()?.into(), connection))
    }
}

/// What a connection that is about to begin has of a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    file: &'a File,
    connection: u32,
}

impl Part<'_> {
    /// Its number in the file.
    pub(crate) const fn connection(&self) -> u32 {
        self.connection
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What one connection writes with. All pens of a trace share the file's position, which is its end.
#[derive(Debug)]
pub struct Pen {
    /// `None` once it has stopped.
    file: Option<File>,
    connection: u32,
    bytes_max: u64,
}

impl Pen {
    /// A pen for a file of a [`Trace`].
    pub(crate) fn new(file: OwnedFd, connection: u32) -> Self {
        Self { file: Some(file.into()), connection, bytes_max: TRACE_BYTES_MAX }
    }

    /// Writes whole records, as long as there is room.
    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = append(file, bytes, self.bytes_max) {
            log::warn!("the trace ends here: {error}");
            self.file = None;
        }
    }
}

fn append(file: &mut File, bytes: &[u8], bytes_max: u64) -> io::Result<()> {
    if file.stream_position()? + bytes.len() as u64 + LAST_BYTES <= bytes_max {
        return file.write_all(bytes);
    }
    let mut last = Vec::new();
    Record::Full.write(u32::MAX, &mut last);
    file.write_all(&last).and(Err(io::ErrorKind::FileTooLarge.into()))
}

/// One connection's way into the file.
#[derive(Debug)]
pub struct Tape {
    pen: Pen,
    begin: Begin,
    buffer: Vec<u8>,
}

impl Tape {
    /// A tape for the connection of a device that is about to begin.
    pub fn new<R>(pen: Pen, name: &str, link: &Link<R>) -> Self {
        let &Link { peer, agreed, geometry, past: Past { failed_flush, .. }, .. } = link;
        let index = Index::new(0);
        let begin = Begin { peer, agreed, index, geometry, failed_flush, name: name.into() };
        Self { pen, begin, buffer: Vec::new() }
    }

    /// Begins to write down what passes through `queue`.
    pub fn around<Q: Queue>(mut self, queue: Q) -> Traced<Q> {
        let index = queue.next();
        self.begin.index = index;
        self.note(&Record::Begin(self.begin.clone()));
        Traced { queue, tape: self, answered: index, published: index }
    }

    fn note(&mut self, record: &Record) {
        record.write(self.pen.connection, &mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.pen.write(&self.buffer);
        self.buffer.clear();
    }
}

/// An end of a ring of which everything is written down.
#[derive(Debug)]
pub struct Traced<Q: Queue> {
    queue: Q,
    tape: Tape,
    /// The index of the next answer.
    answered: Index,
    /// Answers made visible.
    published: Index,
}

impl<Q: Queue> Traced<Q> {
    fn broken(&mut self, broken: Broken) -> Broken {
        self.tape.note(&Record::Broken(broken));
        broken
    }
}

impl<Q: Queue> Queue for Traced<Q> {
    fn next(&self) -> Index {
        self.queue.next()
    }

    fn unanswered(&self) -> u32 {
        self.queue.unanswered()
    }

    fn take(&mut self, raw: &mut Raw) -> Result<Option<()>, Broken> {
        let index = self.queue.next();
        let taken = self.queue.take(raw).map_err(|broken| self.broken(broken))?;
        if taken.is_some() {
            self.tape.note(&Record::Take(index, raw.clone()));
        }
        Ok(taken)
    }

    fn put(&mut self, response: Response) -> Result<(), Full> {
        self.queue.put(response)?;
        self.tape.note(&Record::Put(self.answered, response));
        self.answered = self.answered.after(1);
        Ok(())
    }

    fn publish(&mut self) -> Notify {
        let notify = self.queue.publish();
        if self.published != self.answered {
            self.published = self.answered;
            self.tape.note(&Record::Publish(self.published, notify));
        }
        notify
    }

    /// The end of a turn: what it did goes into the file.
    fn rest(&mut self) -> Result<Rest, Broken> {
        let index = self.queue.next();
        let rest = self.queue.rest().map_err(|broken| self.broken(broken))?;
        self.tape.note(&Record::Rest(index, rest));
        self.tape.flush();
        Ok(rest)
    }

    fn described(&mut self, segments: &Segments) {
        self.tape.note(&Record::Describe(segments.clone()));
    }

    fn grown(&mut self, sectors: u64) {
        self.tape.note(&Record::Grow(sectors));
    }
}

impl<Q: Queue> Drop for Traced<Q> {
    fn drop(&mut self) {
        let unanswered = self.queue.unanswered();
        self.tape.note(&Record::End(unanswered));
        self.tape.flush();
    }
}

#[cfg(test)]
mod tests;
