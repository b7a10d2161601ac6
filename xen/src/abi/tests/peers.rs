//! The lines of what a kernel asks of Xen and shares with others: hypercalls, events, scheduler,
//! grants, xenstore and the byte rings.

use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;
use std::format;
use std::string::String;
use std::vec::Vec;

use ring::bytes::{Area, Receiver, Sender};
use ring::{Memory, Page};

use super::super::*;
use super::{size_behind, structure, values};
use crate::{Access, DomainId};

pub(super) fn hypercalls(out: &mut Vec<String>) {
    values!(
        out,
        "__HYPERVISOR_set_trap_table" = Hypercall::SetTrapTable,
        "__HYPERVISOR_mmu_update" = Hypercall::MmuUpdate,
        "__HYPERVISOR_set_gdt" = Hypercall::SetGdt,
        "__HYPERVISOR_stack_switch" = Hypercall::StackSwitch,
        "__HYPERVISOR_set_callbacks" = Hypercall::SetCallbacks,
        "__HYPERVISOR_fpu_taskswitch" = Hypercall::FpuTaskswitch,
        "__HYPERVISOR_set_debugreg" = Hypercall::SetDebugreg,
        "__HYPERVISOR_get_debugreg" = Hypercall::GetDebugreg,
        "__HYPERVISOR_update_descriptor" = Hypercall::UpdateDescriptor,
        "__HYPERVISOR_memory_op" = Hypercall::MemoryOp,
        "__HYPERVISOR_multicall" = Hypercall::Multicall,
        "__HYPERVISOR_update_va_mapping" = Hypercall::UpdateVaMapping,
        "__HYPERVISOR_set_timer_op" = Hypercall::SetTimerOp,
        "__HYPERVISOR_xen_version" = Hypercall::XenVersion,
        "__HYPERVISOR_console_io" = Hypercall::ConsoleIo,
        "__HYPERVISOR_grant_table_op" = Hypercall::GrantTableOp,
        "__HYPERVISOR_vm_assist" = Hypercall::VmAssist,
        "__HYPERVISOR_iret" = Hypercall::Iret,
        "__HYPERVISOR_vcpu_op" = Hypercall::VcpuOp,
        "__HYPERVISOR_set_segment_base" = Hypercall::SetSegmentBase,
        "__HYPERVISOR_mmuext_op" = Hypercall::MmuextOp,
        "__HYPERVISOR_sched_op" = Hypercall::SchedOp,
        "__HYPERVISOR_callback_op" = Hypercall::CallbackOp,
        "__HYPERVISOR_event_channel_op" = Hypercall::EventChannelOp,
        "DOMID_SELF" = DomainId::SELF.0,
    );
}

pub(super) fn events(out: &mut Vec<String>) {
    values!(
        out,
        "EVTCHNOP_bind_interdomain" = EventOp::BindInterdomain,
        "EVTCHNOP_bind_virq" = EventOp::BindVirq,
        "EVTCHNOP_close" = EventOp::Close,
        "EVTCHNOP_send" = EventOp::Send,
        "EVTCHNOP_status" = EventOp::Status,
        "EVTCHNOP_alloc_unbound" = EventOp::AllocUnbound,
        "EVTCHNOP_unmask" = EventOp::Unmask,
        "EVTCHN_2L_NR_CHANNELS" = EVENT_CHANNELS_MAX,
        "VIRQ_TIMER" = Virq::Timer,
        "VIRQ_DEBUG" = Virq::Debug,
        "VIRQ_CONSOLE" = Virq::Console,
        "EVTCHNSTAT_closed" = ChannelState::Closed,
        "EVTCHNSTAT_unbound" = ChannelState::Unbound,
        "EVTCHNSTAT_interdomain" = ChannelState::Interdomain,
        "EVTCHNSTAT_pirq" = ChannelState::Pirq,
        "EVTCHNSTAT_virq" = ChannelState::Virq,
        "EVTCHNSTAT_ipi" = ChannelState::Ipi,
    );
    event_arguments(out);
}

fn event_arguments(out: &mut Vec<String>) {
    structure!(
        out,
        "evtchn_alloc_unbound",
        AllocUnbound,
        "dom" = dom,
        "remote_dom" = remote_dom,
        "port" = port,
    );
    structure!(
        out,
        "evtchn_bind_interdomain",
        BindInterdomain,
        "remote_dom" = remote_dom,
        "remote_port" = remote_port,
        "local_port" = local_port,
    );
    structure!(out, "evtchn_bind_virq", BindVirq, "virq" = virq, "vcpu" = vcpu, "port" = port,);
    structure!(out, "evtchn_close", OnePort, "port" = port);
    structure!(out, "evtchn_send", OnePort, "port" = port);
    structure!(out, "evtchn_unmask", OnePort, "port" = port);
    structure!(
        out,
        "evtchn_status",
        ChannelStatus,
        "dom" = dom,
        "port" = port,
        "status" = status,
        "vcpu" = vcpu,
        "u.unbound.dom" = remote_dom,
        "u.interdomain.dom" = remote_dom,
        "u.interdomain.port" = remote_port,
    );
}

pub(super) fn scheduler(out: &mut Vec<String>) {
    values!(
        out,
        "SCHEDOP_yield" = SchedOp::Yield,
        "SCHEDOP_block" = SchedOp::Block,
        "SCHEDOP_shutdown" = SchedOp::Shutdown,
        "SCHEDOP_poll" = SchedOp::Poll,
        "SHUTDOWN_poweroff" = ShutdownReason::Poweroff,
        "SHUTDOWN_reboot" = ShutdownReason::Reboot,
        "SHUTDOWN_suspend" = ShutdownReason::Suspend,
        "SHUTDOWN_crash" = ShutdownReason::Crash,
        "VCPUOP_get_runstate_info" = VcpuOp::GetRunstateInfo,
        "VCPUOP_register_runstate_memory_area" = VcpuOp::RegisterRunstateMemoryArea,
        "VCPUOP_stop_periodic_timer" = VcpuOp::StopPeriodicTimer,
        "VCPUOP_set_singleshot_timer" = VcpuOp::SetSingleshotTimer,
        "VCPUOP_stop_singleshot_timer" = VcpuOp::StopSingleshotTimer,
        "VCPU_SSHOTTMR_future" = TimerFlags::FUTURE.bits(),
    );
    structure!(out, "sched_shutdown", Shutdown, "reason" = reason);
    structure!(
        out,
        "sched_poll",
        Poll,
        "ports" = ports,
        "nr_ports" = nr_ports,
        "timeout" = timeout,
    );
    structure!(
        out,
        "vcpu_set_singleshot_timer",
        SetSingleshotTimer,
        "timeout_abs_ns" = timeout_abs_ns,
        "flags" = flags,
    );
    structure!(out, "vcpu_register_runstate_memory_area", RegisterRunstate, "addr" = addr);
}

pub(super) fn grants(out: &mut Vec<String>) {
    let entry = GrantEntry::new();
    entry.grant(DomainId(0x0123), 0x89ab_cdef, Access::Read);
    assert_eq!((offset_of!(GrantEntry, header), offset_of!(GrantEntry, frame)), (0, 4));
    out.push(format!("size struct grant_entry_v1 {}", size_of::<GrantEntry>()));
    values!(
        out,
        "grant_entry_v1.header" = entry.header.load(Ordering::Relaxed),
        "grant_entry_v1.frame" = entry.frame.load(Ordering::Relaxed),
        "GTF_permit_access" = GrantFlags::PERMIT_ACCESS.bits(),
        "GTF_readonly" = GrantFlags::READONLY.bits(),
        "GTF_reading" = GrantFlags::READING.bits(),
        "GTF_writing" = GrantFlags::WRITING.bits(),
        "GNTTAB_NR_RESERVED_ENTRIES" = GRANT_ENTRIES_RESERVED,
        "GNTTABOP_setup_table" = GrantOp::SetupTable,
        "GNTTABOP_query_size" = GrantOp::QuerySize,
        "GNTST_okay" = GrantStatus::Okay,
        "GNTST_general_error" = GrantStatus::GeneralError,
        "GNTST_bad_domain" = GrantStatus::BadDomain,
        "GNTST_bad_gntref" = GrantStatus::BadReference,
        "GNTST_bad_handle" = GrantStatus::BadHandle,
        "GNTST_bad_virt_addr" = GrantStatus::BadAddress,
        "GNTST_bad_dev_addr" = GrantStatus::BadDeviceAddress,
        "GNTST_no_device_space" = GrantStatus::NoDeviceSpace,
        "GNTST_permission_denied" = GrantStatus::PermissionDenied,
        "GNTST_bad_page" = GrantStatus::BadPage,
        "GNTST_bad_copy_arg" = GrantStatus::BadCopy,
        "GNTST_address_too_big" = GrantStatus::AddressTooBig,
        "GNTST_eagain" = GrantStatus::Again,
        "GNTST_no_space" = GrantStatus::NoSpace,
    );
    structure!(
        out,
        "gnttab_setup_table",
        SetupTable,
        "dom" = dom,
        "nr_frames" = nr_frames,
        "status" = status,
        "frame_list" = frame_list,
    );
    structure!(
        out,
        "gnttab_query_size",
        QuerySize,
        "dom" = dom,
        "nr_frames" = nr_frames,
        "max_nr_frames" = max_nr_frames,
        "status" = status,
    );
}

pub(super) fn store(out: &mut Vec<String>) {
    structure!(
        out,
        "xsd_sockmsg",
        StoreHeader,
        "type" = kind,
        "req_id" = req_id,
        "tx_id" = tx_id,
        "len" = len,
    );
    values!(
        out,
        "XENSTORE_PAYLOAD_MAX" = STORE_PAYLOAD_MAX,
        "XENSTORE_ABS_PATH_MAX" = STORE_PATH_ABSOLUTE_MAX,
        "XENSTORE_REL_PATH_MAX" = STORE_PATH_RELATIVE_MAX,
        "XS_DIRECTORY" = StoreMessage::Directory,
        "XS_READ" = StoreMessage::Read,
        "XS_GET_PERMS" = StoreMessage::GetPerms,
        "XS_WATCH" = StoreMessage::Watch,
        "XS_UNWATCH" = StoreMessage::Unwatch,
        "XS_TRANSACTION_START" = StoreMessage::TransactionStart,
        "XS_TRANSACTION_END" = StoreMessage::TransactionEnd,
        "XS_GET_DOMAIN_PATH" = StoreMessage::GetDomainPath,
        "XS_WRITE" = StoreMessage::Write,
        "XS_MKDIR" = StoreMessage::Mkdir,
        "XS_RM" = StoreMessage::Rm,
        "XS_SET_PERMS" = StoreMessage::SetPerms,
        "XS_WATCH_EVENT" = StoreMessage::WatchEvent,
        "XS_ERROR" = StoreMessage::Error,
        "XS_RESET_WATCHES" = StoreMessage::ResetWatches,
        "XS_DIRECTORY_PART" = StoreMessage::DirectoryPart,
    );
    out.extend(STORE_ERRORS.iter().map(|name| format!("error {name}")));
}

/// The byte rings' places are private to `ring`, so they are found by what changes in the page.
pub(super) fn byte_rings(out: &mut Vec<String>) {
    for (c, area, ring, consumer, producer) in [
        ("xenstore_domain_interface", Area::STORE_REQUESTS, "req", "req_cons", "req_prod"),
        ("xenstore_domain_interface", Area::STORE_REPLIES, "rsp", "rsp_cons", "rsp_prod"),
        ("xencons_interface", Area::CONSOLE_IN, "in", "in_cons", "in_prod"),
        ("xencons_interface", Area::CONSOLE_OUT, "out", "out_cons", "out_prod"),
    ] {
        let page = Page::new();
        let count = Sender::attach(&page, area).send(&[0xff; 4096]).expect("an empty ring");
        let size = area.size_bytes();
        let places = places_of(&page, |word| word == u32::MAX);
        let start = places.first().expect("bytes were written");
        assert_eq!((places.len() * 4, count), (size as usize, size as usize));
        out.push(format!("field struct {c} {ring} {start} {size}"));
        let place = places_of(&page, |word| word == size);
        assert_eq!(place.len(), 1, "one index counts the bytes sent");
        out.push(format!("field struct {c} {producer} {} 4", place[0]));
        let mut bytes = [0; 3];
        let count = Receiver::attach(&page, area).receive(&mut bytes).expect("a full ring");
        assert_eq!(count, 3);
        let place = places_of(&page, |word| word == 3);
        assert_eq!(place.len(), 1, "one index counts the bytes received");
        out.push(format!("field struct {c} {consumer} {} 4", place[0]));
    }
}

/// The byte offsets of the words for which `wanted` holds.
fn places_of(page: &Page, wanted: impl Fn(u32) -> bool) -> Vec<usize> {
    (0..page.words())
        .filter(|&at| wanted(page.word(at).load(Ordering::Relaxed)))
        .map(|at| at * 4)
        .collect()
}
