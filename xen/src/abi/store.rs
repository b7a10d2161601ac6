//! Xenstore on the wire (`io/xs_wire.h`). The page's two byte rings are [`ring::bytes::Area`]'s.

use core::mem::size_of;

/// The most bytes behind a header. A longer message ends the connection.
pub const STORE_PAYLOAD_MAX: usize = 4096;
/// The longest path that begins with `/`, in bytes.
pub const STORE_PATH_ABSOLUTE_MAX: usize = 3072;
/// The longest path that does not, in bytes.
pub const STORE_PATH_RELATIVE_MAX: usize = 2048;

/// The header of every message (`struct xsd_sockmsg`); `len` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StoreHeader {
    /// A [`StoreMessage`].
    pub kind: u32,
    /// Chosen by the client, repeated in the reply.
    pub req_id: u32,
    /// Transaction, or 0.
    pub tx_id: u32,
    /// Bytes that follow, at most [`STORE_PAYLOAD_MAX`].
    pub len: u32,
}

const _: () = assert!(size_of::<StoreHeader>() == 16);

/// The type of a message (`enum xsd_sockmsg_type`). A reply has the type of its request, or
/// [`Error`](Self::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StoreMessage {
    /// Lists the children of a node.
    Directory = 1,
    /// Reads a node.
    Read = 2,
    /// Reads who may do what with a node.
    GetPerms = 3,
    /// Starts a watch.
    Watch = 4,
    /// Ends a watch.
    Unwatch = 5,
    /// Begins a transaction.
    TransactionStart = 6,
    /// Ends a transaction.
    TransactionEnd = 7,
    /// Tells the path of a domain's directory.
    GetDomainPath = 10,
    /// Writes a node.
    Write = 11,
    /// Creates a node without a value.
    Mkdir = 12,
    /// Removes a node and all below it.
    Rm = 13,
    /// Sets who may do what with a node.
    SetPerms = 14,
    /// A watch has fired: not a reply.
    WatchEvent = 15,
    /// The request failed; the payload is the name of the error.
    Error = 16,
    /// Ends all watches of the connection.
    ResetWatches = 21,
    /// Lists the children of a node in parts.
    DirectoryPart = 22,
}

/// The names of the errors that xenstore may answer with.
pub const STORE_ERRORS: [&str; 16] = [
    "EINVAL",
    "EACCES",
    "EEXIST",
    "EISDIR",
    "ENOENT",
    "ENOMEM",
    "ENOSPC",
    "EIO",
    "ENOTEMPTY",
    "ENOSYS",
    "EROFS",
    "EBUSY",
    "EAGAIN",
    "EISCONN",
    "E2BIG",
    "EPERM",
];
