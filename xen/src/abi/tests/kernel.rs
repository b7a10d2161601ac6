//! The lines of what a kernel meets at its entry and in its page tables, traps and clock.

use core::mem::{offset_of, size_of};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::super::*;
use super::{size_behind, structure, values};

pub(super) fn start(out: &mut Vec<String>) {
    structure!(
        out,
        "start_info",
        StartInfo,
        "magic" = magic,
        "nr_pages" = nr_pages,
        "shared_info" = shared_info,
        "flags" = flags,
        "store_mfn" = store_mfn,
        "store_evtchn" = store_evtchn,
        "console" = console,
        "console.domU.mfn" = console.mfn,
        "console.domU.evtchn" = console.evtchn,
        "pt_base" = pt_base,
        "nr_pt_frames" = nr_pt_frames,
        "mfn_list" = mfn_list,
        "mod_start" = mod_start,
        "mod_len" = mod_len,
        "cmd_line" = cmd_line,
        "first_p2m_pfn" = first_p2m_pfn,
        "nr_p2m_frames" = nr_p2m_frames,
    );
    values!(
        out,
        "SIF_PRIVILEGED" = StartFlags::PRIVILEGED.bits(),
        "SIF_INITDOMAIN" = StartFlags::INITIAL_DOMAIN.bits(),
        "SIF_MULTIBOOT_MOD" = StartFlags::MULTIBOOT_MODULE.bits(),
        "SIF_MOD_START_PFN" = StartFlags::MODULE_START_PFN.bits(),
        "SIF_VIRT_P2M_4TOOLS" = StartFlags::VIRT_P2M_4TOOLS.bits(),
        "MAX_GUEST_CMDLINE" = COMMAND_LINE_MAX,
    );
}

pub(super) fn shared(out: &mut Vec<String>) {
    structure!(out, "arch_vcpu_info", ArchVcpuInfo, "cr2" = cr2, "pad" = pad);
    structure!(
        out,
        "vcpu_info",
        VcpuInfo,
        "evtchn_upcall_pending" = evtchn_upcall_pending,
        "evtchn_upcall_mask" = evtchn_upcall_mask,
        "evtchn_pending_sel" = evtchn_pending_sel,
        "arch" = arch,
        "time" = time,
    );
    structure!(
        out,
        "arch_shared_info",
        ArchSharedInfo,
        "max_pfn" = max_pfn,
        "pfn_to_mfn_frame_list_list" = pfn_to_mfn_frame_list_list,
        "nmi_reason" = nmi_reason,
        "p2m_cr3" = p2m_cr3,
        "p2m_vaddr" = p2m_vaddr,
        "p2m_generation" = p2m_generation,
    );
    structure!(
        out,
        "shared_info",
        SharedInfo,
        "vcpu_info" = vcpu_info,
        "evtchn_pending" = evtchn_pending,
        "evtchn_mask" = evtchn_mask,
        "wc_version" = wc_version,
        "wc_sec" = wc_sec,
        "wc_nsec" = wc_nsec,
        "wc_sec_hi" = wc_sec_hi,
        "arch" = arch,
    );
    values!(out, "XEN_LEGACY_MAX_VCPUS" = VCPUS_LEGACY_MAX);
}

pub(super) fn clock(out: &mut Vec<String>) {
    structure!(
        out,
        "vcpu_time_info",
        TimeInfo,
        "version" = version,
        "pad0" = pad0,
        "tsc_timestamp" = tsc_timestamp,
        "system_time" = system_time,
        "tsc_to_system_mul" = tsc_to_system_mul,
        "tsc_shift" = tsc_shift,
        "flags" = flags,
        "pad1" = pad1,
    );
    structure!(
        out,
        "vcpu_runstate_info",
        RunstateInfo,
        "state" = state,
        "state_entry_time" = state_entry_time,
        "time" = time,
    );
    values!(
        out,
        "RUNSTATE_running" = RunstateState::Running,
        "RUNSTATE_runnable" = RunstateState::Runnable,
        "RUNSTATE_blocked" = RunstateState::Blocked,
        "RUNSTATE_offline" = RunstateState::Offline,
        "XEN_RUNSTATE_UPDATE" = RUNSTATE_UPDATE,
    );
}

pub(super) fn traps(out: &mut Vec<String>) {
    values!(
        out,
        "FLAT_KERNEL_CS64" = FLAT_CS64,
        "FLAT_KERNEL_DS64" = FLAT_DS64,
        "FLAT_KERNEL_SS64" = FLAT_SS64,
        "CALLBACKOP_register" = CallbackOp::Register,
        "CALLBACKOP_unregister" = CallbackOp::Unregister,
        "CALLBACKTYPE_event" = CallbackKind::Event,
        "CALLBACKTYPE_failsafe" = CallbackKind::Failsafe,
        "CALLBACKTYPE_syscall" = CallbackKind::Syscall,
        "CALLBACKTYPE_nmi" = CallbackKind::Nmi,
        "CALLBACKF_mask_events" = CallbackFlags::MASK_EVENTS.bits(),
        "SEGBASE_FS" = SegmentBase::Fs,
        "SEGBASE_GS_USER" = SegmentBase::GsUser,
        "SEGBASE_GS_KERNEL" = SegmentBase::GsKernel,
        "VGCF_in_syscall" = IretFlags::IN_SYSCALL.bits(),
    );
    structure!(
        out,
        "trap_info",
        TrapInfo,
        "vector" = vector,
        "flags" = flags,
        "cs" = cs,
        "address" = address,
    );
    structure!(
        out,
        "callback_register",
        CallbackRegister,
        "type" = kind,
        "flags" = flags,
        "address" = address,
    );
    structure!(
        out,
        "iret_context",
        IretContext,
        "rax" = rax,
        "r11" = r11,
        "rcx" = rcx,
        "flags" = flags,
        "rip" = rip,
        "cs" = cs,
        "rflags" = rflags,
        "rsp" = rsp,
        "ss" = ss,
    );
}

pub(super) fn memory(out: &mut Vec<String>) {
    values!(
        out,
        "HYPERVISOR_VIRT_START" = HYPERVISOR_VIRT_START,
        "HYPERVISOR_VIRT_END" = HYPERVISOR_VIRT_END,
        "MMU_NORMAL_PT_UPDATE" = MmuUpdateKind::Normal,
        "MMU_MACHPHYS_UPDATE" = MmuUpdateKind::Machphys,
        "MMU_PT_UPDATE_PRESERVE_AD" = MmuUpdateKind::PreserveAd,
        "UVMF_TLB_FLUSH" = FlushFlags::TLB_FLUSH.bits(),
        "UVMF_INVLPG" = FlushFlags::INVLPG.bits(),
        "UVMF_ALL" = FlushFlags::ALL.bits(),
        "MMUEXT_PIN_L1_TABLE" = MmuExtensionOp::PinL1Table,
        "MMUEXT_PIN_L2_TABLE" = MmuExtensionOp::PinL2Table,
        "MMUEXT_PIN_L3_TABLE" = MmuExtensionOp::PinL3Table,
        "MMUEXT_PIN_L4_TABLE" = MmuExtensionOp::PinL4Table,
        "MMUEXT_UNPIN_TABLE" = MmuExtensionOp::UnpinTable,
        "MMUEXT_NEW_BASEPTR" = MmuExtensionOp::NewBaseptr,
        "MMUEXT_TLB_FLUSH_LOCAL" = MmuExtensionOp::TlbFlushLocal,
        "MMUEXT_INVLPG_LOCAL" = MmuExtensionOp::InvlpgLocal,
        "MMUEXT_TLB_FLUSH_ALL" = MmuExtensionOp::TlbFlushAll,
        "MMUEXT_INVLPG_ALL" = MmuExtensionOp::InvlpgAll,
        "MMUEXT_SET_LDT" = MmuExtensionOp::SetLdt,
        "MMUEXT_NEW_USER_BASEPTR" = MmuExtensionOp::NewUserBaseptr,
        "XENMEM_decrease_reservation" = MemoryOp::DecreaseReservation,
        "XENMEM_current_reservation" = MemoryOp::CurrentReservation,
        "XENMEM_maximum_reservation" = MemoryOp::MaximumReservation,
        "XENMEM_populate_physmap" = MemoryOp::PopulatePhysmap,
        "XENMEM_machphys_mapping" = MemoryOp::MachphysMapping,
        "VMASST_CMD_enable" = VmAssist::Enable,
        "VMASST_CMD_disable" = VmAssist::Disable,
        "VMASST_TYPE_writable_pagetables" = VmAssistKind::WritablePagetables,
        "VMASST_TYPE_architectural_iopl" = VmAssistKind::ArchitecturalIopl,
        "VMASST_TYPE_runstate_update_flag" = VmAssistKind::RunstateUpdateFlag,
        "VMASST_TYPE_m2p_strict" = VmAssistKind::M2pStrict,
    );
    memory_arguments(out);
}

fn memory_arguments(out: &mut Vec<String>) {
    structure!(out, "mmu_update", MmuUpdate, "ptr" = ptr, "val" = val);
    structure!(out, "mmuext_op", MmuExtension, "cmd" = cmd, "arg1" = arg1, "arg2" = arg2);
    structure!(
        out,
        "xen_memory_reservation",
        MemoryReservation,
        "extent_start" = extent_start,
        "nr_extents" = nr_extents,
        "extent_order" = extent_order,
        "mem_flags" = mem_flags,
        "domid" = domid,
    );
    structure!(
        out,
        "xen_machphys_mapping",
        MachphysMapping,
        "v_start" = v_start,
        "v_end" = v_end,
        "max_mfn" = max_mfn,
    );
}

pub(super) fn versions(out: &mut Vec<String>) {
    structure!(out, "xen_feature_info", FeatureInfo, "submap_idx" = submap_idx, "submap" = submap,);
    values!(
        out,
        "XENVER_version" = VersionOp::Version,
        "XENVER_extraversion" = VersionOp::Extraversion,
        "XENVER_get_features" = VersionOp::GetFeatures,
        "XENFEAT_writable_page_tables" = Feature::WritablePageTables,
        "XENFEAT_writable_descriptor_tables" = Feature::WritableDescriptorTables,
        "XENFEAT_auto_translated_physmap" = Feature::AutoTranslatedPhysmap,
        "XENFEAT_supervisor_mode_kernel" = Feature::SupervisorModeKernel,
        "XENFEAT_pae_pgdir_above_4gb" = Feature::PaePgdirAbove4gb,
        "XENFEAT_mmu_pt_update_preserve_ad" = Feature::MmuPtUpdatePreserveAd,
        "XENFEAT_dom0" = Feature::Dom0,
        "CONSOLEIO_write" = ConsoleOp::Write,
        "CONSOLEIO_read" = ConsoleOp::Read,
        "XEN_ELFNOTE_ENTRY" = ElfNote::Entry,
        "XEN_ELFNOTE_HYPERCALL_PAGE" = ElfNote::HypercallPage,
        "XEN_ELFNOTE_VIRT_BASE" = ElfNote::VirtBase,
        "XEN_ELFNOTE_PADDR_OFFSET" = ElfNote::PaddrOffset,
        "XEN_ELFNOTE_XEN_VERSION" = ElfNote::XenVersion,
        "XEN_ELFNOTE_GUEST_OS" = ElfNote::GuestOs,
        "XEN_ELFNOTE_GUEST_VERSION" = ElfNote::GuestVersion,
        "XEN_ELFNOTE_LOADER" = ElfNote::Loader,
        "XEN_ELFNOTE_PAE_MODE" = ElfNote::PaeMode,
        "XEN_ELFNOTE_FEATURES" = ElfNote::Features,
        "XEN_ELFNOTE_HV_START_LOW" = ElfNote::HvStartLow,
        "XEN_ELFNOTE_SUSPEND_CANCEL" = ElfNote::SuspendCancel,
        "XEN_ELFNOTE_INIT_P2M" = ElfNote::InitP2m,
        "XEN_ELFNOTE_MOD_START_PFN" = ElfNote::ModStartPfn,
        "XEN_ELFNOTE_SUPPORTED_FEATURES" = ElfNote::SupportedFeatures,
    );
}
