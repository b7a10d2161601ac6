//! The notes by which a kernel image tells Xen how to start it (`elfnote.h`).

/// The name of all of these notes.
pub const ELF_NOTE_NAME: &str = "Xen";

/// The type of a note (`XEN_ELFNOTE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ElfNote {
    /// Virtual address of the entry point.
    Entry = 1,
    /// Virtual address of the hypercall page. Left out: hypercalls are made inline (XSA-466).
    HypercallPage = 2,
    /// Virtual address that own frame 0 is mapped at.
    VirtBase = 3,
    /// Offset of the physical addresses in the image; goes with [`VirtBase`](Self::VirtBase).
    PaddrOffset = 4,
    /// `xen-3.0`.
    XenVersion = 5,
    /// Name of the guest.
    GuestOs = 6,
    /// Version of the guest.
    GuestVersion = 7,
    /// `generic`.
    Loader = 8,
    /// `yes`.
    PaeMode = 9,
    /// Features needed, and with `!` those not needed.
    Features = 10,
    /// Where Xen's part of the address space begins.
    HvStartLow = 12,
    /// A suspend can be cancelled.
    SuspendCancel = 14,
    /// Where to map the list of machine frames.
    InitP2m = 15,
    /// The module need not be mapped.
    ModStartPfn = 16,
    /// Features supported, as bits.
    SupportedFeatures = 17,
}
