//! The emergency console (`xen.h`). The console's page is [`ring::bytes::Area`]'s.

/// The operation of [`Hypercall::ConsoleIo`](super::Hypercall::ConsoleIo) (`CONSOLEIO_*`);
/// followed by a count and the address of so many bytes. Refused for a domain that is not the
/// initial one, unless Xen was built for debugging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ConsoleOp {
    /// Writes bytes.
    Write = 0,
    /// Reads what has come in; the result is how many bytes.
    Read = 1,
}
