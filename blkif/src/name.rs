//! What a disk is called: `xvda` for the number that xenstore has for it.
//!
//! Numbers are those of Xen's `docs/man/xen-vbd-interface.7`: `202 << 8 | disk << 4 | partition`
//! for the first 16 disks, and `1 << 28 | disk << 8 | partition` beyond.

use core::fmt;

/// A virtual device number, shown as the name that the guest's users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskName(u32);

impl DiskName {
    /// The name for a virtual device number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The virtual device number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether it is a disk of the `xvd` family, or a partition of one.
    pub const fn is_xvd(self) -> bool {
        self.xvd().is_some()
    }

    /// Which disk and which partition (0: the whole), for the numbers that mean `xvd`. A name has one
    /// number: the later scheme is for what the first cannot say.
    const fn xvd(self) -> Option<(u32, u32)> {
        if self.0 >> 8 == 202 {
            return Some((self.0 >> 4 & 0xf, self.0 & 0xf));
        }
        let (disk, partition) = (self.0 >> 8 & 0xf_ffff, self.0 & 0xff);
        if self.0 >> 28 == 1 && (disk >= 16 || partition >= 16) {
            Some((disk, partition))
        } else {
            None
        }
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((disk, partition)) = self.xvd() else { return write!(f, "vbd{}", self.0) };
        f.write_str("xvd")?;
        letters(f, disk)?;
        if partition == 0 { Ok(()) } else { write!(f, "{partition}") }
    }
}

/// a … z, aa … zz, and so on: at most 5 letters for 20 bits, so the recursion is bounded.
fn letters(f: &mut fmt::Formatter<'_>, disk: u32) -> fmt::Result {
    if disk >= 26 {
        letters(f, disk / 26 - 1)?;
    }
    write!(f, "{}", char::from(b"abcdefghijklmnopqrstuvwxyz"[(disk % 26) as usize]))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn numbers_have_the_names_that_xl_gives_them() {
        for (number, name) in [
            (51712, "xvda"),
            (51713, "xvda1"),
            (51728, "xvdb"),
            (51952, "xvdp"),
            (51967, "xvdp15"),
            (1 << 28 | 16 << 8, "xvdq"),
            (1 << 28 | 26 << 8 | 3, "xvdaa3"),
            (1 << 28 | 16, "xvda16"),
            (1 << 28, "vbd268435456"),
            (1 << 28 | 15 << 8 | 15, "vbd268439311"),
            (768, "vbd768"),
            (0, "vbd0"),
            (u32::MAX, "vbd4294967295"),
        ] {
            assert_eq!(DiskName::new(number).to_string(), name);
        }
    }
}
