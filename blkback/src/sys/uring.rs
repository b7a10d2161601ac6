//! A disk image over `io_uring`, and the one place where a device's thread waits.
//!
//! One ring per device thread: the image is its registered file, and multishot polls on the event
//! channel and on the control bell wake it as disk completions do, so that one
//! `io_uring_enter` both submits a batch and waits. The kernel writes straight into the pages of
//! the jobs: their handles stay here until the completion. `IOSQE_IO_DRAIN` is never used (with
//! deferred task work it can hang for ever); a flush is ordered by whoever submits it.
//!
//! What goes through a ring passes by every system call filter, so the ring itself is restricted,
//! by the kernel, to these few operations on the image.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use ring::Page;

use crate::disk::{Disk, DiskError, Done, Job, Profile, Verb};
use crate::image::Image;

/// Completions that are not of a job.
const EVENT: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

/// Entries of the queue beside those of jobs.
const POLLS: u32 = 2;

/// All that is done through a ring.
const OPERATIONS: [u8; 5] = [
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::PollAdd::CODE,
];

/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

/// How often one step of a job is tried again after `EAGAIN` or `EINTR`.
const RETRIES_MAX: u32 = 64;

/// Whether to wait for something to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Submit, look, and go on.
    None,
    /// Submit and sleep until there is a completion, an event or a ring of the bell.
    UntilWoken,
}

/// What happened besides completions of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// The event channel has something to read.
    pub event: bool,
    /// The control bell rang.
    pub control: bool,
}

/// A job that the kernel works on.
struct Flight<P> {
    job: Job<P>,
    /// What is left of the job's memory; the kernel reads it while a step is in progress.
    vectors: Vec<libc::iovec>,
    next_vector: usize,
    done_bytes: u64,
    length_bytes: u64,
    retries: u32,
}

/// A disk image over `io_uring`. It stays on the thread that made it.
pub struct UringDisk<P> {
    ring: IoUring,
    image: Arc<Image>,
    flights: Vec<Option<Flight<P>>>,
    free: Vec<usize>,
    spare_vectors: Vec<Vec<libc::iovec>>,
    done: VecDeque<Done<P>>,
    polled: [RawFd; 2],
    woken: Woken,
    enters: u64,
    one_thread: PhantomData<*mut ()>,
}

impl<P> UringDisk<P> {
    /// Makes a ring for `depth` jobs at a time; more are taken, by more system calls.
    ///
    /// # Errors
    /// What the kernel says: no `io_uring` (it may be switched off by
    /// `/proc/sys/kernel/io_uring_disabled`), no memory.
    pub fn new(image: Arc<Image>, depth: u32) -> io::Result<Self> {
        let ring = make_ring((depth + POLLS).next_power_of_two())?;
        let submitter = ring.submitter();
        submitter.register_files(&[image.file.as_raw_fd()])?;
        // No registering from now on, and of operations only these.
        let flags = Restriction::sqe_flags_allowed(squeue::Flags::FIXED_FILE.bits());
        let mut restrictions: Vec<Restriction> =
            OPERATIONS.into_iter().map(Restriction::sqe_op).chain([flags]).collect();
        submitter.register_restrictions(&mut restrictions)?;
        submitter.register_enable_rings()?;
        Ok(Self {
            ring,
            image,
            flights: Vec::new(),
            free: Vec::new(),
            spare_vectors: Vec::new(),
            done: VecDeque::new(),
            polled: [-1; 2],
            woken: Woken::default(),
            enters: 0,
            one_thread: PhantomData,
        })
    }

    /// Lets [`wait`](Self::wait) end when one of these becomes readable. They must stay open for
    /// as long as this value is used: a closed one wakes nobody.
    pub fn listen(&mut self, event: &impl AsFd, control: &impl AsFd) {
        self.polled = [event.as_fd().as_raw_fd(), control.as_fd().as_raw_fd()];
        self.poll(EVENT);
        self.poll(CONTROL);
    }

    /// How many `io_uring_enter` calls were made.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Hands everything submitted to the kernel, waits if told so, and takes in what happened.
    ///
    /// # Errors
    /// What the kernel says. Being interrupted is not an error.
    pub fn wait(&mut self, patience: Patience) -> io::Result<Woken> {
        self.enter(u32::from(patience == Patience::UntilWoken && self.done.is_empty()))?;
        self.take_completions();
        Ok(std::mem::take(&mut self.woken))
    }

    fn enter(&mut self, want: u32) -> io::Result<()> {
        let pending = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        self.enters += 1;
        let submitter = self.ring.submitter();
        // SAFETY: no argument structure is passed. Every entry in the queue was vouched for when
        // it was pushed.
        let entered = unsafe { submitter.enter::<()>(pending, want, GET_EVENTS, None) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Interrupted, or the completion queue must be emptied first: look and come back.
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn poll(&mut self, which: u64) {
        let descriptor = self.polled[usize::from(which == CONTROL)];
        let readable = u32::try_from(libc::POLLIN).unwrap_or(1);
        let poll = opcode::PollAdd::new(types::Fd(descriptor), readable).multi(true);
        // A poll has no memory that it could touch.
        self.push(&poll.build().user_data(which));
    }

    /// Queues an entry, whose memory (if any) is owned by a flight until it completes.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: an entry either refers to no memory (polls, flushes, discards), or to the
            // vectors and pages of a flight, which are neither moved nor dropped before its
            // completion is taken or, in `drop`, awaited.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.enters += 1;
            if let Err(error) = self.ring.submit() {
                log::warn!("io_uring: submitting a full queue: {error}");
                self.take_completions();
            }
        }
    }

    fn take_completions(&mut self) {
        loop {
            let Some(completion) = self.ring.completion().next() else { return };
            match completion.user_data() {
                EVENT => self.note(EVENT, &completion),
                CONTROL => self.note(CONTROL, &completion),
                number => self.complete(number, completion.result()),
            }
        }
    }

    /// A poll fired. One that says that there is no more must be armed again.
    fn note(&mut self, which: u64, completion: &cqueue::Entry) {
        if which == EVENT {
            self.woken.event = true;
        } else {
            self.woken.control = true;
        }
        if !cqueue::more(completion.flags()) {
            self.poll(which);
        }
    }

    /// One step of a flight ended.
    fn complete(&mut self, number: u64, result: i32) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(flight) = self.flights.get_mut(index).and_then(Option::as_mut) else {
            log::error!("io_uring completed job {number}, which is not in flight");
            return;
        };
        match flight.advance(result) {
            Step::Again => self.launch(index),
            Step::Over(result) => self.land(index, result),
        }
    }

    /// Queues the next step of a flight.
    fn launch(&mut self, index: usize) {
        let Some(flight) = &self.flights[index] else { return };
        let entry = flight.entry().user_data(index as u64);
        self.push(&entry);
    }

    fn land(&mut self, index: usize, result: Result<(), DiskError>) {
        let Some(flight) = self.flights[index].take() else { return };
        self.free.push(index);
        self.spare_vectors.push(flight.vectors);
        self.done.push_back(Done {
            tag: flight.job.tag,
            extents: flight.job.extents,
            done_bytes: flight.done_bytes,
            result,
        });
    }

    fn in_flight(&self) -> bool {
        self.free.len() < self.flights.len()
    }
}

impl<P: Deref<Target = Page>> Disk<P> for UringDisk<P> {
    fn profile(&self) -> Profile {
        self.image.profile()
    }

    fn submit(&mut self, batch: &mut Vec<Job<P>>) {
        for job in batch.drain(..) {
            let mut vectors = self.spare_vectors.pop().unwrap_or_default();
            let length_bytes = job.length_bytes();
            // The addresses are those of the handles in their final place: `extents` keeps its
            // allocation when the job moves, and is not touched before the job has landed.
            describe(&job, &mut vectors);
            let flight =
                Flight { job, vectors, next_vector: 0, done_bytes: 0, length_bytes, retries: 0 };
            let index = self.free.pop().unwrap_or_else(|| {
                self.flights.push(None);
                self.flights.len() - 1
            });
            self.flights[index] = Some(flight);
            self.launch(index);
        }
    }

    fn reap(&mut self) -> Option<Done<P>> {
        self.done.pop_front()
    }
}

impl<P> Drop for UringDisk<P> {
    /// Waits until the kernel has let go of every page.
    fn drop(&mut self) {
        while self.in_flight() {
            if let Err(error) = self.enter(1) {
                log::error!("io_uring: waiting for jobs in flight: {error}; their memory is kept");
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            self.take_completions();
        }
    }
}

enum Step {
    Again,
    Over(Result<(), DiskError>),
}

impl<P> Flight<P> {
    /// What the result of a step means for the job.
    fn advance(&mut self, result: i32) -> Step {
        let Ok(bytes) = u64::try_from(result) else {
            let busy = matches!(-result, libc::EAGAIN | libc::EINTR);
            if busy && self.retries < RETRIES_MAX {
                self.retries += 1;
                return Step::Again;
            }
            return Step::Over(Err(DiskError::Errno(-result)));
        };
        if !matches!(self.job.verb, Verb::Read | Verb::Write) {
            return Step::Over(Ok(()));
        }
        self.done_bytes += bytes;
        if self.done_bytes >= self.length_bytes {
            return Step::Over(Ok(()));
        }
        if bytes == 0 {
            return Step::Over(Err(DiskError::Short));
        }
        self.skip(usize::try_from(bytes).unwrap_or(usize::MAX));
        Step::Again
    }

    /// Passes over memory that is done.
    fn skip(&mut self, mut bytes: usize) {
        while let Some(vector) = self.vectors.get_mut(self.next_vector) {
            if bytes < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(bytes);
                vector.iov_len -= bytes;
                return;
            }
            bytes -= vector.iov_len;
            self.next_vector += 1;
        }
    }

    /// The submission queue entry for what is left of the job.
    fn entry(&self) -> squeue::Entry {
        let image = types::Fixed(0);
        let offset = self.job.offset_bytes + self.done_bytes;
        let vectors = &self.vectors[self.next_vector..];
        let count = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
        match self.job.verb {
            Verb::Read => opcode::Readv::new(image, vectors.as_ptr(), count).offset(offset).build(),
            Verb::Write => {
                opcode::Writev::new(image, vectors.as_ptr(), count).offset(offset).build()
            }
            Verb::Flush => opcode::Fsync::new(image).flags(types::FsyncFlags::DATASYNC).build(),
            Verb::Discard { length_bytes } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(image, length_bytes).offset(offset).mode(mode).build()
            }
        }
    }
}

/// Lists the memory of a job; neighbours become one.
fn describe<P: Deref<Target = Page>>(job: &Job<P>, vectors: &mut Vec<libc::iovec>) {
    vectors.clear();
    for extent in &job.extents {
        let (offset, length) = (usize::from(extent.offset_bytes), usize::from(extent.length_bytes));
        assert!(offset + length <= ring::PAGE_SIZE, "extent past the end of its page");
        let page: *const Page = &raw const *extent.page;
        let base = page.cast_mut().cast::<libc::c_void>().wrapping_byte_add(offset);
        match vectors.last_mut() {
            Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == base => {
                last.iov_len += length;
            }
            _ => vectors.push(libc::iovec { iov_base: base, iov_len: length }),
        }
    }
}

/// A ring with what this kernel has of the flags that spare interrupts; all of them are for one
/// thread that submits and waits in the same call. It does nothing until it is enabled.
fn make_ring(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled();
    let deferred = builder.clone().setup_single_issuer().setup_defer_taskrun().build(entries);
    deferred.or_else(|_| builder.build(entries))
}

#[cfg(test)]
mod tests;
