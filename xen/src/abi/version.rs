//! What this Xen is and can do (`version.h`, `features.h`).

/// The operation of [`Hypercall::XenVersion`](super::Hypercall::XenVersion) (`XENVER_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VersionOp {
    /// The result is major << 16 | minor. No argument.
    Version = 0,
    /// The rest of the version as text: the address of 16 bytes.
    Extraversion = 1,
    /// What this Xen can do: [`FeatureInfo`].
    GetFeatures = 6,
}

/// Argument of [`VersionOp::GetFeatures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FeatureInfo {
    /// Which 32 features: 0 is the only one.
    pub submap_idx: u32,
    /// Answer: one bit for each [`Feature`].
    pub submap: u32,
}

/// A thing that Xen can do (`XENFEAT_*`): the number of its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Feature {
    /// Page tables need not be read-only.
    WritablePageTables = 0,
    /// Descriptor tables need not be read-only.
    WritableDescriptorTables = 1,
    /// The guest works with own frame numbers instead of machine frames.
    AutoTranslatedPhysmap = 2,
    /// The guest runs in the most privileged ring.
    SupervisorModeKernel = 3,
    /// The top page table may lie above 4 GiB.
    PaePgdirAbove4gb = 4,
    /// [`MmuUpdateKind::PreserveAd`](super::MmuUpdateKind::PreserveAd) works.
    MmuPtUpdatePreserveAd = 5,
    /// The domain is the initial one.
    Dom0 = 11,
}

impl FeatureInfo {
    /// Whether Xen can do it.
    pub const fn has(&self, feature: Feature) -> bool {
        self.submap >> feature as u32 & 1 == 1
    }
}
