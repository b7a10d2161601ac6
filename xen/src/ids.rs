//! Numbers of Xen that must not be mistaken for each other.
//!
//! Each is only a name for a number: holding one proves nothing about what it refers to.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A domain (`domid_t`).
    DomainId(u16)
}
number! {
    /// An event channel port of one domain (`evtchn_port_t`).
    Port(u32)
}
number! {
    /// An entry in one domain's grant table (`grant_ref_t`).
    GrantRef(u32)
}
number! {
    /// A frame of the machine.
    Mfn(u64)
}
number! {
    /// A frame as one domain numbers its own memory.
    Pfn(u64)
}

impl DomainId {
    /// The domain that holds the devices, where nothing says otherwise.
    pub const ZERO: Self = Self(0);
    /// Stands for the calling domain (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7ff0);
}
