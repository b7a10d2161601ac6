//! What a volume says that it holds: file systems and swap, by the marks at their begin.
//!
//! Ext2, ext3 and ext4 differ in their feature words only (the kernel's
//! `Documentation/filesystems/ext4/super.rst`); a swap area's header is as `mkswap` of util-linux
//! writes it. A label is somebody's text: it is shown with everything that a terminal could obey
//! taken out.

use alloc::string::String;
use core::fmt;

/// How much of a volume [`Signature::read`] looks at.
pub const BYTES: usize = 4096;

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No journal, and nothing that only ext4 has.
    Ext2,
    /// With a journal.
    Ext3,
    /// With any of the later features.
    Ext4,
    /// A swap area with a header of version 1.
    Swap,
}

impl Kind {
    /// Whether it can be mounted.
    pub fn has_files(self) -> bool {
        self != Self::Swap
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Swap => "swap",
        })
    }
}

/// A UUID, written in its usual form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What a volume says of itself. Nothing else of it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What it holds.
    pub kind: Kind,
    /// Its label, at most 16 characters; empty if it has none.
    pub label: String,
    /// Its UUID.
    pub uuid: Uuid,
}

/// Offset of an ext superblock, and of the part of a swap header behind the boot block.
const SUPERBLOCK: usize = 1024;
/// `s_magic`.
const EXT_MAGIC: u16 = 0xef53;
/// `s_feature_compat`: a journal.
const HAS_JOURNAL: u32 = 0x4;
/// `s_feature_incompat` without what ext2 and ext3 may have: compression, file types, recovery,
/// journal device, meta groups.
const NOT_EXT3_INCOMPAT: u32 = !0x1f;
/// `s_feature_ro_compat` without what ext2 and ext3 may have: sparse superblocks, large files,
/// B-tree directories.
const NOT_EXT3_RO_COMPAT: u32 = !0x7;

impl Signature {
    /// Looks at the first [`BYTES`] bytes of a volume; fewer hold nothing that is known.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.get(..BYTES)?.try_into().ok()?;
        swap(bytes).or_else(|| ext(bytes))
    }
}

fn word(bytes: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn uuid(bytes: &[u8; BYTES], at: usize) -> Uuid {
    let mut uuid = Uuid::default();
    uuid.0.copy_from_slice(&bytes[at..at + 16]);
    uuid
}

/// The text in 16 bytes that end at a zero.
fn label(bytes: &[u8; BYTES], at: usize) -> String {
    let bytes = &bytes[at..at + 16];
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    text.chars().map(|it| if it.is_control() { '?' } else { it }).collect()
}

fn ext(bytes: &[u8; BYTES]) -> Option<Signature> {
    let at = |offset| SUPERBLOCK + offset;
    if bytes[at(56)..at(58)] != EXT_MAGIC.to_le_bytes() {
        return None;
    }
    let [compat, incompat, ro_compat] = [92, 96, 100].map(|offset| word(bytes, at(offset)));
    let late = incompat & NOT_EXT3_INCOMPAT != 0 || ro_compat & NOT_EXT3_RO_COMPAT != 0;
    let kind = match (late, compat & HAS_JOURNAL != 0) {
        (true, _) => Kind::Ext4,
        (false, true) => Kind::Ext3,
        (false, false) => Kind::Ext2,
    };
    Some(Signature { kind, label: label(bytes, at(120)), uuid: uuid(bytes, at(104)) })
}

fn swap(bytes: &[u8; BYTES]) -> Option<Signature> {
    let marked = &bytes[BYTES - 10..] == b"SWAPSPACE2" && word(bytes, SUPERBLOCK) == 1;
    let (uuid, label) = (uuid(bytes, SUPERBLOCK + 12), label(bytes, SUPERBLOCK + 28));
    marked.then_some(Signature { kind: Kind::Swap, label, uuid })
}
