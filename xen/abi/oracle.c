/*
 * Prints what a C compiler makes of Xen's public headers: the table that the Rust definitions are
 * held against (layout.txt). Run by the test `abi::tests` when XEN_HEADERS names the folder that
 * holds `xen/xen.h` (Debian: package libxen-dev, `usr/include`):
 *
 *     cc -I "$XEN_HEADERS" oracle.c -o oracle && ./oracle
 *
 * Lines: `size TYPE BYTES`, `field TYPE MEMBER OFFSET BYTES`, `value NAME NUMBER`, `error NAME`.
 * Nothing here is linked into the project.
 */
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <xen/xen.h>
#include <xen/callback.h>
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>

/*
 * The block protocol of 32-bit x86 guests: the same declarations, in which 64-bit members are
 * aligned to 4 bytes. The names are changed so that both fit in one program.
 */
#undef __XEN_PUBLIC_IO_BLKIF_H__
#define blkif_request_segment blkif32_request_segment
#define blkif_request blkif32_request
#define blkif_request_t blkif32_request_t
#define blkif_request_discard blkif32_request_discard
#define blkif_request_discard_t blkif32_request_discard_t
#define blkif_request_indirect blkif32_request_indirect
#define blkif_request_indirect_t blkif32_request_indirect_t
#define blkif_response blkif32_response
#define blkif_response_t blkif32_response_t
#define blkif_sring_entry blkif32_sring_entry
#define blkif_sring blkif32_sring
#define blkif_sring_t blkif32_sring_t
#define blkif_front_ring blkif32_front_ring
#define blkif_front_ring_t blkif32_front_ring_t
#define blkif_back_ring blkif32_back_ring
#define blkif_back_ring_t blkif32_back_ring_t
#pragma pack(push, 4)
#include <xen/io/blkif.h>
#pragma pack(pop)
#undef blkif_request_segment
#undef blkif_request
#undef blkif_request_discard
#undef blkif_request_indirect
#undef blkif_response
#undef blkif_sring_entry
#undef blkif_sring

#define S(type) printf("size " #type " %zu\n", sizeof(type))
#define F(type, member)                                                                            \
    printf("field " #type " " #member " %zu %zu\n", offsetof(type, member),                        \
           sizeof(((type *)0)->member))
#define V(name) printf("value " #name " %lld\n", (long long)(name))

static void hypercalls(void)
{
    V(__HYPERVISOR_set_trap_table);
    V(__HYPERVISOR_mmu_update);
    V(__HYPERVISOR_set_gdt);
    V(__HYPERVISOR_stack_switch);
    V(__HYPERVISOR_set_callbacks);
    V(__HYPERVISOR_fpu_taskswitch);
    V(__HYPERVISOR_set_debugreg);
    V(__HYPERVISOR_get_debugreg);
    V(__HYPERVISOR_update_descriptor);
    V(__HYPERVISOR_memory_op);
    V(__HYPERVISOR_multicall);
    V(__HYPERVISOR_update_va_mapping);
    V(__HYPERVISOR_set_timer_op);
    V(__HYPERVISOR_xen_version);
    V(__HYPERVISOR_console_io);
    V(__HYPERVISOR_grant_table_op);
    V(__HYPERVISOR_vm_assist);
    V(__HYPERVISOR_iret);
    V(__HYPERVISOR_vcpu_op);
    V(__HYPERVISOR_set_segment_base);
    V(__HYPERVISOR_mmuext_op);
    V(__HYPERVISOR_sched_op);
    V(__HYPERVISOR_callback_op);
    V(__HYPERVISOR_event_channel_op);
    V(DOMID_SELF);
}

static void start(void)
{
    S(struct start_info);
    F(struct start_info, magic);
    F(struct start_info, nr_pages);
    F(struct start_info, shared_info);
    F(struct start_info, flags);
    F(struct start_info, store_mfn);
    F(struct start_info, store_evtchn);
    F(struct start_info, console);
    F(struct start_info, console.domU.mfn);
    F(struct start_info, console.domU.evtchn);
    F(struct start_info, pt_base);
    F(struct start_info, nr_pt_frames);
    F(struct start_info, mfn_list);
    F(struct start_info, mod_start);
    F(struct start_info, mod_len);
    F(struct start_info, cmd_line);
    F(struct start_info, first_p2m_pfn);
    F(struct start_info, nr_p2m_frames);
    V(SIF_PRIVILEGED);
    V(SIF_INITDOMAIN);
    V(SIF_MULTIBOOT_MOD);
    V(SIF_MOD_START_PFN);
    V(SIF_VIRT_P2M_4TOOLS);
    V(MAX_GUEST_CMDLINE);
}

static void shared(void)
{
    S(struct arch_vcpu_info);
    F(struct arch_vcpu_info, cr2);
    F(struct arch_vcpu_info, pad);
    S(struct vcpu_time_info);
    F(struct vcpu_time_info, version);
    F(struct vcpu_time_info, pad0);
    F(struct vcpu_time_info, tsc_timestamp);
    F(struct vcpu_time_info, system_time);
    F(struct vcpu_time_info, tsc_to_system_mul);
    F(struct vcpu_time_info, tsc_shift);
    F(struct vcpu_time_info, flags);
    F(struct vcpu_time_info, pad1);
    S(struct vcpu_info);
    F(struct vcpu_info, evtchn_upcall_pending);
    F(struct vcpu_info, evtchn_upcall_mask);
    F(struct vcpu_info, evtchn_pending_sel);
    F(struct vcpu_info, arch);
    F(struct vcpu_info, time);
    S(struct arch_shared_info);
    F(struct arch_shared_info, max_pfn);
    F(struct arch_shared_info, pfn_to_mfn_frame_list_list);
    F(struct arch_shared_info, nmi_reason);
    F(struct arch_shared_info, p2m_cr3);
    F(struct arch_shared_info, p2m_vaddr);
    F(struct arch_shared_info, p2m_generation);
    S(struct shared_info);
    F(struct shared_info, vcpu_info);
    F(struct shared_info, evtchn_pending);
    F(struct shared_info, evtchn_mask);
    F(struct shared_info, wc_version);
    F(struct shared_info, wc_sec);
    F(struct shared_info, wc_nsec);
    F(struct shared_info, wc_sec_hi);
    F(struct shared_info, arch);
    V(XEN_LEGACY_MAX_VCPUS);
    S(struct vcpu_runstate_info);
    F(struct vcpu_runstate_info, state);
    F(struct vcpu_runstate_info, state_entry_time);
    F(struct vcpu_runstate_info, time);
    V(RUNSTATE_running);
    V(RUNSTATE_runnable);
    V(RUNSTATE_blocked);
    V(RUNSTATE_offline);
    V(XEN_RUNSTATE_UPDATE);
}

static void events(void)
{
    V(EVTCHNOP_bind_interdomain);
    V(EVTCHNOP_bind_virq);
    V(EVTCHNOP_close);
    V(EVTCHNOP_send);
    V(EVTCHNOP_status);
    V(EVTCHNOP_alloc_unbound);
    V(EVTCHNOP_unmask);
    V(EVTCHN_2L_NR_CHANNELS);
    V(VIRQ_TIMER);
    V(VIRQ_DEBUG);
    V(VIRQ_CONSOLE);
    V(EVTCHNSTAT_closed);
    V(EVTCHNSTAT_unbound);
    V(EVTCHNSTAT_interdomain);
    V(EVTCHNSTAT_pirq);
    V(EVTCHNSTAT_virq);
    V(EVTCHNSTAT_ipi);
    S(struct evtchn_alloc_unbound);
    F(struct evtchn_alloc_unbound, dom);
    F(struct evtchn_alloc_unbound, remote_dom);
    F(struct evtchn_alloc_unbound, port);
    S(struct evtchn_bind_interdomain);
    F(struct evtchn_bind_interdomain, remote_dom);
    F(struct evtchn_bind_interdomain, remote_port);
    F(struct evtchn_bind_interdomain, local_port);
    S(struct evtchn_bind_virq);
    F(struct evtchn_bind_virq, virq);
    F(struct evtchn_bind_virq, vcpu);
    F(struct evtchn_bind_virq, port);
    S(struct evtchn_close);
    F(struct evtchn_close, port);
    S(struct evtchn_send);
    F(struct evtchn_send, port);
    S(struct evtchn_unmask);
    F(struct evtchn_unmask, port);
    S(struct evtchn_status);
    F(struct evtchn_status, dom);
    F(struct evtchn_status, port);
    F(struct evtchn_status, status);
    F(struct evtchn_status, vcpu);
    F(struct evtchn_status, u.unbound.dom);
    F(struct evtchn_status, u.interdomain.dom);
    F(struct evtchn_status, u.interdomain.port);
}

static void scheduler(void)
{
    V(SCHEDOP_yield);
    V(SCHEDOP_block);
    V(SCHEDOP_shutdown);
    V(SCHEDOP_poll);
    V(SHUTDOWN_poweroff);
    V(SHUTDOWN_reboot);
    V(SHUTDOWN_suspend);
    V(SHUTDOWN_crash);
    S(struct sched_shutdown);
    F(struct sched_shutdown, reason);
    S(struct sched_poll);
    F(struct sched_poll, ports);
    F(struct sched_poll, nr_ports);
    F(struct sched_poll, timeout);
    V(VCPUOP_get_runstate_info);
    V(VCPUOP_register_runstate_memory_area);
    V(VCPUOP_stop_periodic_timer);
    V(VCPUOP_set_singleshot_timer);
    V(VCPUOP_stop_singleshot_timer);
    V(VCPU_SSHOTTMR_future);
    S(struct vcpu_set_singleshot_timer);
    F(struct vcpu_set_singleshot_timer, timeout_abs_ns);
    F(struct vcpu_set_singleshot_timer, flags);
    S(struct vcpu_register_runstate_memory_area);
    F(struct vcpu_register_runstate_memory_area, addr);
}

static void grants(void)
{
    struct grant_entry_v1 entry;
    uint32_t words[2];

    S(struct grant_entry_v1);
    memset(&entry, 0, sizeof(entry));
    entry.flags = GTF_permit_access | GTF_readonly;
    entry.domid = 0x0123;
    entry.frame = 0x89abcdef;
    memcpy(words, &entry, sizeof(words));
    printf("value grant_entry_v1.header %u\n", words[0]);
    printf("value grant_entry_v1.frame %u\n", words[1]);
    V(GTF_permit_access);
    V(GTF_readonly);
    V(GTF_reading);
    V(GTF_writing);
    V(GNTTAB_NR_RESERVED_ENTRIES);
    V(GNTTABOP_setup_table);
    V(GNTTABOP_query_size);
    V(GNTST_okay);
    V(GNTST_general_error);
    V(GNTST_bad_domain);
    V(GNTST_bad_gntref);
    V(GNTST_bad_handle);
    V(GNTST_bad_virt_addr);
    V(GNTST_bad_dev_addr);
    V(GNTST_no_device_space);
    V(GNTST_permission_denied);
    V(GNTST_bad_page);
    V(GNTST_bad_copy_arg);
    V(GNTST_address_too_big);
    V(GNTST_eagain);
    V(GNTST_no_space);
    S(struct gnttab_setup_table);
    F(struct gnttab_setup_table, dom);
    F(struct gnttab_setup_table, nr_frames);
    F(struct gnttab_setup_table, status);
    F(struct gnttab_setup_table, frame_list);
    S(struct gnttab_query_size);
    F(struct gnttab_query_size, dom);
    F(struct gnttab_query_size, nr_frames);
    F(struct gnttab_query_size, max_nr_frames);
    F(struct gnttab_query_size, status);
}

static void memory(void)
{
    V(HYPERVISOR_VIRT_START);
    V(HYPERVISOR_VIRT_END);
    V(MMU_NORMAL_PT_UPDATE);
    V(MMU_MACHPHYS_UPDATE);
    V(MMU_PT_UPDATE_PRESERVE_AD);
    S(struct mmu_update);
    F(struct mmu_update, ptr);
    F(struct mmu_update, val);
    V(UVMF_TLB_FLUSH);
    V(UVMF_INVLPG);
    V(UVMF_ALL);
    V(MMUEXT_PIN_L1_TABLE);
    V(MMUEXT_PIN_L2_TABLE);
    V(MMUEXT_PIN_L3_TABLE);
    V(MMUEXT_PIN_L4_TABLE);
    V(MMUEXT_UNPIN_TABLE);
    V(MMUEXT_NEW_BASEPTR);
    V(MMUEXT_TLB_FLUSH_LOCAL);
    V(MMUEXT_INVLPG_LOCAL);
    V(MMUEXT_TLB_FLUSH_ALL);
    V(MMUEXT_INVLPG_ALL);
    V(MMUEXT_SET_LDT);
    V(MMUEXT_NEW_USER_BASEPTR);
    S(struct mmuext_op);
    F(struct mmuext_op, cmd);
    F(struct mmuext_op, arg1);
    F(struct mmuext_op, arg2);
    V(XENMEM_decrease_reservation);
    V(XENMEM_current_reservation);
    V(XENMEM_maximum_reservation);
    V(XENMEM_populate_physmap);
    V(XENMEM_machphys_mapping);
    S(struct xen_memory_reservation);
    F(struct xen_memory_reservation, extent_start);
    F(struct xen_memory_reservation, nr_extents);
    F(struct xen_memory_reservation, extent_order);
    F(struct xen_memory_reservation, mem_flags);
    F(struct xen_memory_reservation, domid);
    S(struct xen_machphys_mapping);
    F(struct xen_machphys_mapping, v_start);
    F(struct xen_machphys_mapping, v_end);
    F(struct xen_machphys_mapping, max_mfn);
    V(VMASST_CMD_enable);
    V(VMASST_CMD_disable);
    V(VMASST_TYPE_writable_pagetables);
    V(VMASST_TYPE_architectural_iopl);
    V(VMASST_TYPE_runstate_update_flag);
    V(VMASST_TYPE_m2p_strict);
}

static void traps(void)
{
    V(FLAT_KERNEL_CS64);
    V(FLAT_KERNEL_DS64);
    V(FLAT_KERNEL_SS64);
    S(struct trap_info);
    F(struct trap_info, vector);
    F(struct trap_info, flags);
    F(struct trap_info, cs);
    F(struct trap_info, address);
    V(CALLBACKOP_register);
    V(CALLBACKOP_unregister);
    V(CALLBACKTYPE_event);
    V(CALLBACKTYPE_failsafe);
    V(CALLBACKTYPE_syscall);
    V(CALLBACKTYPE_nmi);
    V(CALLBACKF_mask_events);
    S(struct callback_register);
    F(struct callback_register, type);
    F(struct callback_register, flags);
    F(struct callback_register, address);
    V(SEGBASE_FS);
    V(SEGBASE_GS_USER);
    V(SEGBASE_GS_KERNEL);
    V(VGCF_in_syscall);
    S(struct iret_context);
    F(struct iret_context, rax);
    F(struct iret_context, r11);
    F(struct iret_context, rcx);
    F(struct iret_context, flags);
    F(struct iret_context, rip);
    F(struct iret_context, cs);
    F(struct iret_context, rflags);
    F(struct iret_context, rsp);
    F(struct iret_context, ss);
}

static void version(void)
{
    V(XENVER_version);
    V(XENVER_extraversion);
    V(XENVER_get_features);
    S(struct xen_feature_info);
    F(struct xen_feature_info, submap_idx);
    F(struct xen_feature_info, submap);
    V(XENFEAT_writable_page_tables);
    V(XENFEAT_writable_descriptor_tables);
    V(XENFEAT_auto_translated_physmap);
    V(XENFEAT_supervisor_mode_kernel);
    V(XENFEAT_pae_pgdir_above_4gb);
    V(XENFEAT_mmu_pt_update_preserve_ad);
    V(XENFEAT_dom0);
    V(CONSOLEIO_write);
    V(CONSOLEIO_read);
    V(XEN_ELFNOTE_ENTRY);
    V(XEN_ELFNOTE_HYPERCALL_PAGE);
    V(XEN_ELFNOTE_VIRT_BASE);
    V(XEN_ELFNOTE_PADDR_OFFSET);
    V(XEN_ELFNOTE_XEN_VERSION);
    V(XEN_ELFNOTE_GUEST_OS);
    V(XEN_ELFNOTE_GUEST_VERSION);
    V(XEN_ELFNOTE_LOADER);
    V(XEN_ELFNOTE_PAE_MODE);
    V(XEN_ELFNOTE_FEATURES);
    V(XEN_ELFNOTE_HV_START_LOW);
    V(XEN_ELFNOTE_SUSPEND_CANCEL);
    V(XEN_ELFNOTE_INIT_P2M);
    V(XEN_ELFNOTE_MOD_START_PFN);
    V(XEN_ELFNOTE_SUPPORTED_FEATURES);
}

static void store(void)
{
    S(struct xsd_sockmsg);
    F(struct xsd_sockmsg, type);
    F(struct xsd_sockmsg, req_id);
    F(struct xsd_sockmsg, tx_id);
    F(struct xsd_sockmsg, len);
    V(XENSTORE_PAYLOAD_MAX);
    V(XENSTORE_ABS_PATH_MAX);
    V(XENSTORE_REL_PATH_MAX);
    V(XS_DIRECTORY);
    V(XS_READ);
    V(XS_GET_PERMS);
    V(XS_WATCH);
    V(XS_UNWATCH);
    V(XS_TRANSACTION_START);
    V(XS_TRANSACTION_END);
    V(XS_GET_DOMAIN_PATH);
    V(XS_WRITE);
    V(XS_MKDIR);
    V(XS_RM);
    V(XS_SET_PERMS);
    V(XS_WATCH_EVENT);
    V(XS_ERROR);
    V(XS_RESET_WATCHES);
    V(XS_DIRECTORY_PART);
    for (size_t at = 0; at < sizeof(xsd_errors) / sizeof(xsd_errors[0]); at++)
        printf("error %s\n", xsd_errors[at].errstring);
}

static void byte_rings(void)
{
    F(struct xenstore_domain_interface, req);
    F(struct xenstore_domain_interface, rsp);
    F(struct xenstore_domain_interface, req_cons);
    F(struct xenstore_domain_interface, req_prod);
    F(struct xenstore_domain_interface, rsp_cons);
    F(struct xenstore_domain_interface, rsp_prod);
    F(struct xencons_interface, in);
    F(struct xencons_interface, out);
    F(struct xencons_interface, in_cons);
    F(struct xencons_interface, in_prod);
    F(struct xencons_interface, out_cons);
    F(struct xencons_interface, out_prod);
}

#define BLKIF(bits)                                                                                \
    do {                                                                                           \
        F(struct blkif##bits##_sring, req_prod);                                                   \
        F(struct blkif##bits##_sring, req_event);                                                  \
        F(struct blkif##bits##_sring, rsp_prod);                                                   \
        F(struct blkif##bits##_sring, rsp_event);                                                  \
        F(struct blkif##bits##_sring, ring);                                                       \
        F(struct blkif##bits##_request, operation);                                                \
        F(struct blkif##bits##_request, nr_segments);                                              \
        F(struct blkif##bits##_request, handle);                                                   \
        F(struct blkif##bits##_request, id);                                                       \
        F(struct blkif##bits##_request, sector_number);                                            \
        F(struct blkif##bits##_request, seg);                                                      \
        S(struct blkif##bits##_request_segment);                                                   \
        F(struct blkif##bits##_request_segment, gref);                                             \
        F(struct blkif##bits##_request_segment, first_sect);                                       \
        F(struct blkif##bits##_request_segment, last_sect);                                        \
        F(struct blkif##bits##_request_discard, operation);                                        \
        F(struct blkif##bits##_request_discard, flag);                                             \
        F(struct blkif##bits##_request_discard, handle);                                           \
        F(struct blkif##bits##_request_discard, id);                                               \
        F(struct blkif##bits##_request_discard, sector_number);                                    \
        F(struct blkif##bits##_request_discard, nr_sectors);                                       \
        F(struct blkif##bits##_request_indirect, operation);                                       \
        F(struct blkif##bits##_request_indirect, indirect_op);                                     \
        F(struct blkif##bits##_request_indirect, nr_segments);                                     \
        F(struct blkif##bits##_request_indirect, id);                                              \
        F(struct blkif##bits##_request_indirect, sector_number);                                   \
        F(struct blkif##bits##_request_indirect, handle);                                          \
        F(struct blkif##bits##_request_indirect, indirect_grefs);                                  \
        S(struct blkif##bits##_response);                                                          \
        F(struct blkif##bits##_response, id);                                                      \
        F(struct blkif##bits##_response, operation);                                               \
        F(struct blkif##bits##_response, status);                                                  \
    } while (0)

static void block(void)
{
    BLKIF();
    BLKIF(32);
    V(BLKIF_OP_READ);
    V(BLKIF_OP_WRITE);
    V(BLKIF_OP_WRITE_BARRIER);
    V(BLKIF_OP_FLUSH_DISKCACHE);
    V(BLKIF_OP_DISCARD);
    V(BLKIF_OP_INDIRECT);
    V(BLKIF_RSP_OKAY);
    V(BLKIF_RSP_ERROR);
    V(BLKIF_RSP_EOPNOTSUPP);
    V(BLKIF_MAX_SEGMENTS_PER_REQUEST);
    V(BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST);
    V(BLKIF_DISCARD_SECURE);
    V(VDISK_CDROM);
    V(VDISK_REMOVABLE);
    V(VDISK_READONLY);
}

int main(void)
{
    hypercalls();
    start();
    shared();
    events();
    scheduler();
    grants();
    memory();
    traps();
    version();
    store();
    byte_rings();
    block();
    return 0;
}
