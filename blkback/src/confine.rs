//! What the daemon and the processes of its devices give up, and when. SECURITY.md has the table.
//!
//! The daemon keeps what opening images and starting processes takes; a process of a device keeps
//! what serving one connection takes, which is to say that it opens nothing. What is not on a list
//! is refused (`EPERM`), so a call that was forgotten here costs one device and not all of them.
//! It must never let something pass in silence that the kernel cannot do: that is logged.

use std::collections::BTreeMap;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use libc::c_long;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use crate::Folders;
use crate::folders::DEVICES;
use crate::sys::{DEVICE_REQUESTS, RESTRICT};

/// The most address space of a device's process: what a ring of 16 pages needs is 40 MiB.
const DEVICE_BYTES_MAX: u64 = 128 << 20;
/// The most descriptors of a device's process; it has eight.
const DEVICE_DESCRIPTORS_MAX: u64 = 16;
/// The most data of the daemon: a thread with its stack per device, and little else.
const DAEMON_BYTES_MAX: u64 = 512 << 20;

/// Other users' images, starting processes as another user, ending those.
const DAEMON_CAPABILITIES: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL);

/// The newest Landlock whose rights are named here; an older kernel does what it can.
const LANDLOCK: ABI = ABI::V6;

/// What serving takes, beside the ioctls of the event channels and the grants. No signal can be
/// sent with these: processes of other devices are of the same user.
const SERVING: [c_long; 27] = [
    libc::SYS_io_uring_enter,
    // Event channels, orders, the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    // How long the trace is.
    libc::SYS_lseek,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    // Memory; without `PROT_EXEC`, see below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // The run-time library: locks, hash seeds, clocks, signals, a panic's message and the end.
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What the daemon needs besides: images, threads, processes, and what those do before they serve.
const GOVERNING: [c_long; 52] = [
    // Images and nodes.
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_pread64,
    libc::SYS_flock,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    // Waiting.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_socketpair,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // Threads and processes.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_arch_prctl,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_execve,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_setpgid,
    libc::SYS_setgroups,
    libc::SYS_setgid,
    libc::SYS_setuid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    // What a process gives up before it serves.
    libc::SYS_prlimit64,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    libc::SYS_membarrier,
];

/// Confines the daemon, which must have one thread yet: images from `folders`, processes of its
/// own program, and what it has open already.
///
/// # Errors
/// The kernel cannot do it.
pub fn daemon(folders: &Folders) -> io::Result<()> {
    let descriptors = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: descriptors, maximum: descriptors })?;
    limit(Resource::Data, DAEMON_BYTES_MAX)?;
    limit(Resource::Core, 0)?;
    match to_governing(folders)? {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => log::info!("landlock: this kernel has a part of it"),
        RulesetStatus::NotEnforced => log::warn!(
            "landlock: not in this kernel, or not switched on (lsm=landlock,… on its command line); \
             users and system call filters alone guard files"
        ),
    }
    Ok(())
}

/// Confines a thread to what the daemon does; tells how far Landlock goes.
fn to_governing(folders: &Folders) -> io::Result<RulesetStatus> {
    if rustix::process::geteuid().is_root() {
        keep_capabilities(DAEMON_CAPABILITIES)?;
    }
    let reached = reach(Some(folders)).map_err(io::Error::other)?;
    let calls = [&SERVING[..], &GOVERNING].concat();
    let requests = [&DEVICE_REQUESTS[..], &[RESTRICT]].concat();
    install(&calls, &requests)?;
    Ok(reached)
}

/// Confines the process of a device as far as can be before it has its orders: it opens nothing
/// from now on.
///
/// # Errors
/// The kernel cannot do it.
pub(crate) fn device() -> io::Result<()> {
    limit(Resource::As, DEVICE_BYTES_MAX)?;
    limit(Resource::Nofile, DEVICE_DESCRIPTORS_MAX)?;
    limit(Resource::Core, 0)?;
    // Nobody of the same user reads the memory of a guest out of it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // What the kernel cannot do the daemon has told.
    reach(None).map(drop).map_err(io::Error::other)
}

/// Confines the process of a device to serving: from now on it looks at what the guest wrote.
///
/// # Errors
/// The kernel cannot do it.
pub(crate) fn to_serving() -> io::Result<()> {
    install(&SERVING, &DEVICE_REQUESTS)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// Gives up all capabilities but these, for programs that are started too.
fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    for other in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(other) {
            // This kernel does not know it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Leaves within reach what lies in `folders`, block devices and our own program; without folders,
/// nothing at all. Never the network, nor processes that are not ours.
fn reach(folders: Option<&Folders>) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let images = AccessFs::ReadFile | AccessFs::WriteFile;
    let folders = folders.map(|folders| {
        let folders = folders.paths().iter().map(|folder| (folder.as_path(), images));
        folders.chain([
            (DEVICES.as_ref(), images),
            ("/dev/xen/evtchn".as_ref(), images | AccessFs::IoctlDev),
            ("/dev/xen/gntdev".as_ref(), images | AccessFs::IoctlDev),
            ("/proc/self/exe".as_ref(), AccessFs::ReadFile | AccessFs::Execute),
        ])
    });
    for (path, access) in folders.into_iter().flatten() {
        // One that is not there cannot be reached either.
        if let Ok(place) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(place, access))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Refuses all system calls of this thread, and of those that it starts, but these.
fn install(calls: &[c_long], requests: &[rustix::ioctl::Opcode]) -> io::Result<()> {
    let program = program(calls, requests).map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

/// The calls; `ioctl` with these requests; memory that cannot be executed.
fn program(
    calls: &[c_long],
    requests: &[rustix::ioctl::Opcode],
) -> Result<BpfProgram, seccompiler::BackendError> {
    let is = |argument, operation, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)?;
        SeccompRule::new(vec![condition])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().map(|&call| (call, Vec::new())).collect();
    let one_of = requests.iter().map(|&request| is(1, SeccompCmpOp::Eq, u64::from(request)));
    rules.insert(libc::SYS_ioctl, one_of.collect::<Result<_, _>>()?);
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![is(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture)?.try_into()
}

#[cfg(test)]
mod tests;
