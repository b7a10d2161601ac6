//! What a PV guest finds at its entry, in `rsi` (`xen.h`, `struct start_info`).

use core::mem::size_of;

use bitflags::bitflags;

/// Bytes of [`StartInfo::cmd_line`], the ending NUL included (`MAX_GUEST_CMDLINE`).
pub const COMMAND_LINE_MAX: usize = 1024;

bitflags! {
    /// What kind of domain this is (`SIF_*`). Other bits may be set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub struct StartFlags: u32 {
        /// The domain is privileged.
        const PRIVILEGED = 1 << 0;
        /// The domain is the one that Xen started first.
        const INITIAL_DOMAIN = 1 << 1;
        /// The module is a multiboot module.
        const MULTIBOOT_MODULE = 1 << 2;
        /// `mod_start` is a frame number and not an address.
        const MODULE_START_PFN = 1 << 3;
        /// The toolstack understands a linear frame list.
        const VIRT_P2M_4TOOLS = 1 << 4;
        const _ = !0;
    }
}

/// The console's page and port; for the initial domain the same place says where the description
/// of a VGA console lies, so check [`StartFlags::INITIAL_DOMAIN`] first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartConsole {
    /// Machine frame of the console page.
    pub mfn: u64,
    /// Event channel port of the console.
    pub evtchn: u32,
}

/// The start info page. Xen writes it before the guest runs and, up to the console, again before
/// a resume: never while we look.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartInfo {
    /// `xen-<version>-<platform>`, ended by NUL.
    pub magic: [u8; 32],
    /// Pages of memory of this domain.
    pub nr_pages: u64,
    /// Machine **address** of the [`SharedInfo`](super::SharedInfo) page.
    pub shared_info: u64,
    /// What kind of domain this is.
    pub flags: StartFlags,
    /// Machine frame of the xenstore page.
    pub store_mfn: u64,
    /// Event channel port of xenstore.
    pub store_evtchn: u32,
    /// Console.
    pub console: StartConsole,
    /// Virtual address of the top page table.
    pub pt_base: u64,
    /// How many frames the boot page tables take.
    pub nr_pt_frames: u64,
    /// Virtual address of the list of machine frames, one `u64` for each page.
    pub mfn_list: u64,
    /// Virtual address (or frame number) of the module; 0 if there is none.
    pub mod_start: u64,
    /// Bytes of the module.
    pub mod_len: u64,
    /// Kernel command line, ended by NUL.
    pub cmd_line: [u8; COMMAND_LINE_MAX],
    /// First frame of the initial list of machine frames, if that is not mapped.
    pub first_p2m_pfn: u64,
    /// How many frames that list takes.
    pub nr_p2m_frames: u64,
}

const _: () = assert!(size_of::<StartInfo>() == 1168);

impl StartInfo {
    /// The command line up to its NUL.
    pub fn command_line(&self) -> &[u8] {
        until_nul(&self.cmd_line)
    }

    /// The magic up to its NUL: begins with `xen-`.
    pub fn magic(&self) -> &[u8] {
        until_nul(&self.magic)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}
