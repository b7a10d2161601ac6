//! Hypercalls: one instruction, and a safe verb for each that the kernel needs.
//!
//! `syscall` with the number in `rax` and up to four arguments here in `rdi`, `rsi`, `rdx`, `r10`;
//! `rcx` and `r11` are lost; a negative result is an error number. Argument structures lie on the
//! stack, which is mapped and ours, and Xen keeps no reference to them after the call.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use xen::abi::{
    AllocUnbound, BindInterdomain, BindVirq, ConsoleOp, EventOp, GrantOp, Hypercall, MemoryOp,
    MemoryReservation, OnePort, Poll, QuerySize, RegisterRunstate, RunstateInfo, SchedOp,
    SetSingleshotTimer, Shutdown, ShutdownReason, TimerFlags, VcpuOp, Virq, VmAssist, VmAssistKind,
};
use xen::{DomainId, Port};

/// Why Xen refused, by its own number (`xen/include/public/errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i64);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {} of Xen", self.0)
    }
}

/// How many hypercalls were made. There is one processor: a load and a store are enough.
static MADE: AtomicU64 = AtomicU64::new(0);

/// How many hypercalls the kernel has made since it was entered.
pub(crate) fn hypercalls() -> u64 {
    MADE.load(Ordering::Relaxed)
}

/// Makes a hypercall.
///
/// # Safety
/// The operation, with these arguments, must keep every promise that the rest of the program
/// relies on: memory that it writes is ours to write, and no mapping in use changes.
pub(super) unsafe fn hypercall(
    number: Hypercall,
    [first, second, third, fourth]: [u64; 4],
) -> Result<u64, Errno> {
    MADE.store(MADE.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    let result: u64;
    // SAFETY: `syscall` in a PV guest enters Xen, which returns behind it with everything but
    // rax, rcx and r11 as it was; what the operation does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as u64 => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    match result.cast_signed() {
        error @ ..0 => Err(Errno(-error)),
        _ => Ok(result),
    }
}

/// The address of an argument that Xen reads.
fn input<T>(argument: &T) -> u64 {
    (&raw const *argument).addr() as u64
}

/// The address of an argument that Xen writes.
fn output<T>(argument: &mut T) -> u64 {
    (&raw mut *argument).expose_provenance() as u64
}

/// Writes to Xen's own console.
///
/// # Errors
/// Refused for a domain that is not the initial one, unless Xen is a debug build.
pub(crate) fn console_write(bytes: &[u8]) -> Result<(), Errno> {
    let arguments = [ConsoleOp::Write as u64, bytes.len() as u64, bytes.as_ptr().addr() as u64, 0];
    // SAFETY: Xen only reads `bytes`.
    unsafe { hypercall(Hypercall::ConsoleIo, arguments) }.map(drop)
}

/// Reads what came in on Xen's own console and tells how many bytes.
///
/// # Errors
/// As [`console_write`].
pub(crate) fn console_read(out: &mut [u8]) -> Result<usize, Errno> {
    let address = out.as_mut_ptr().expose_provenance() as u64;
    let arguments = [ConsoleOp::Read as u64, out.len() as u64, address, 0];
    // SAFETY: Xen writes at most `out.len()` bytes, to `out`.
    let count = unsafe { hypercall(Hypercall::ConsoleIo, arguments) }?;
    Ok(usize::try_from(count).map_or(0, |count| count.min(out.len())))
}

/// Ends the domain.
pub(crate) fn shutdown(reason: ShutdownReason) -> ! {
    let argument = Shutdown { reason: reason as u32 };
    loop {
        // SAFETY: Xen reads the argument, and the domain never runs again.
        let _ = unsafe {
            hypercall(Hypercall::SchedOp, [SchedOp::Shutdown as u64, input(&argument), 0, 0])
        };
    }
}

/// Lets other domains run first.
pub(crate) fn yield_now() {
    // SAFETY: takes no argument and changes nothing of ours.
    let _ = unsafe { hypercall(Hypercall::SchedOp, [SchedOp::Yield as u64, 0, 0, 0]) };
}

/// Waits with upcalls masked and clears the mask meanwhile. Only [`super::block`] may call it: it
/// knows why the upcall is harmless.
pub(super) fn sched_block() {
    // SAFETY: the one thing that happens besides waiting is the upcall, whose stub touches the
    // stack below the stack pointer only (the target has no red zone).
    let _ = unsafe { hypercall(Hypercall::SchedOp, [SchedOp::Block as u64, 0, 0, 0]) };
}

/// Waits, with upcalls masked throughout, until `port` is pending or until `system_time_ns`. An
/// event at another port may be slept through, so the time must not be far.
pub(crate) fn poll(port: Port, system_time_ns: u64) {
    let ports = [port.0];
    let argument = Poll { ports: input(&ports), nr_ports: 1, timeout: system_time_ns };
    // SAFETY: Xen reads the argument and the one port that it lists.
    let _ =
        unsafe { hypercall(Hypercall::SchedOp, [SchedOp::Poll as u64, input(&argument), 0, 0]) };
}

fn event_op<T>(operation: EventOp, argument: &mut T) -> Result<(), Errno> {
    let arguments = [operation as u64, output(argument), 0, 0];
    // SAFETY: each caller passes the structure that belongs to the operation; Xen reads it and
    // writes its answer into it.
    unsafe { hypercall(Hypercall::EventChannelOp, arguments) }.map(drop)
}

/// Offers a port to `peer`.
pub(crate) fn offer_port(peer: DomainId) -> Result<Port, Errno> {
    let mut argument = AllocUnbound { dom: DomainId::SELF, remote_dom: peer, port: Port(0) };
    event_op(EventOp::AllocUnbound, &mut argument)?;
    Ok(argument.port)
}

/// Binds to a port that `peer` offers and returns our own end.
pub(crate) fn bind_interdomain(peer: DomainId, offered: Port) -> Result<Port, Errno> {
    let mut argument =
        BindInterdomain { remote_dom: peer, remote_port: offered, local_port: Port(0) };
    event_op(EventOp::BindInterdomain, &mut argument)?;
    Ok(argument.local_port)
}

/// Binds a port to a virtual interrupt of the one virtual processor.
pub(crate) fn bind_virq(virq: Virq) -> Result<Port, Errno> {
    let mut argument = BindVirq { virq: virq as u32, vcpu: 0, port: Port(0) };
    event_op(EventOp::BindVirq, &mut argument)?;
    Ok(argument.port)
}

/// Raises an event at the other end.
pub(crate) fn send_event(port: Port) -> Result<(), Errno> {
    event_op(EventOp::Send, &mut OnePort { port })
}

/// Gives a port up.
pub(crate) fn close_port(port: Port) -> Result<(), Errno> {
    event_op(EventOp::Close, &mut OnePort { port })
}

/// Stops the tick that Xen starts every PV processor with.
pub(crate) fn stop_periodic_timer() {
    // SAFETY: the operation takes no argument.
    let _ = unsafe { hypercall(Hypercall::VcpuOp, [VcpuOp::StopPeriodicTimer as u64, 0, 0, 0]) };
}

/// Has the timer interrupt raised at `system_time_ns`: at once if that has passed.
pub(crate) fn set_timer(system_time_ns: u64) -> Result<(), Errno> {
    let argument =
        SetSingleshotTimer { timeout_abs_ns: system_time_ns, flags: TimerFlags::empty() };
    let arguments = [VcpuOp::SetSingleshotTimer as u64, 0, input(&argument), 0];
    // SAFETY: Xen reads the argument.
    unsafe { hypercall(Hypercall::VcpuOp, arguments) }.map(drop)
}

/// Has Xen mark a runstate area while it changes it.
pub(super) fn mark_runstate_changes() -> Result<(), Errno> {
    let arguments = [VmAssist::Enable as u64, VmAssistKind::RunstateUpdateFlag as u64, 0, 0];
    // SAFETY: changes nothing but a bit in the runstate area, which is read with that bit in mind.
    unsafe { hypercall(Hypercall::VmAssist, arguments) }.map(drop)
}

/// Has Xen keep `area` up to date from now on.
pub(super) fn register_runstate(area: &'static RunstateInfo) -> Result<(), Errno> {
    let argument = RegisterRunstate { addr: (&raw const *area).expose_provenance() as u64 };
    let arguments = [VcpuOp::RegisterRunstateMemoryArea as u64, 0, input(&argument), 0];
    // SAFETY: Xen reads the argument and from now on writes the area, which stays where it is, is
    // mapped writable for good, and consists of atomic words.
    unsafe { hypercall(Hypercall::VcpuOp, arguments) }.map(drop)
}

/// For how many nanoseconds our processor has run, until now; 0 if Xen does not tell.
pub(crate) fn ran_ns() -> u64 {
    let area = RunstateInfo::new();
    let address = (&raw const area).expose_provenance() as u64;
    // SAFETY: Xen writes the area, which consists of atomic words.
    let told =
        unsafe { hypercall(Hypercall::VcpuOp, [VcpuOp::GetRunstateInfo as u64, 0, address, 0]) };
    let sample = told.ok().and_then(|_| area.sample());
    sample.map_or(0, |sample| sample.time_ns[0])
}

/// How many frames this domain has, and how many Xen lets it have.
pub(crate) fn reservation() -> Result<(u64, u64), Errno> {
    let ask = |operation: MemoryOp| {
        let domain = DomainId::SELF;
        // SAFETY: Xen reads the number of the domain.
        unsafe { hypercall(Hypercall::MemoryOp, [operation as u64, input(&domain), 0, 0]) }
    };
    Ok((ask(MemoryOp::CurrentReservation)?, ask(MemoryOp::MaximumReservation)?))
}

/// Gives the machine frames in `frames` back to Xen, or gets memory for the own frames in it, whose
/// machine frames Xen then writes there. Tells how many it did: the first ones.
///
/// # Safety
/// Frames that are given back are mapped nowhere and used for nothing, ever again.
pub(super) unsafe fn reserve(operation: MemoryOp, frames: &mut [u64]) -> Result<usize, Errno> {
    let argument = MemoryReservation {
        extent_start: frames.as_mut_ptr().expose_provenance() as u64,
        nr_extents: frames.len() as u64,
        extent_order: 0,
        mem_flags: 0,
        domid: DomainId::SELF,
    };
    // SAFETY: Xen reads the argument, and reads and writes as many words as it says, which are
    // those of the slice; the caller promises the rest.
    let done =
        unsafe { hypercall(Hypercall::MemoryOp, [operation as u64, input(&argument), 0, 0]) }?;
    Ok(usize::try_from(done).map_or(0, |done| done.min(frames.len())))
}

/// How many frames the grant table may have.
pub(crate) fn grant_table_size() -> Result<u32, Errno> {
    let mut argument = QuerySize { dom: DomainId::SELF, nr_frames: 0, max_nr_frames: 0, status: 0 };
    let arguments = [GrantOp::QuerySize as u64, output(&mut argument), 1, 0];
    // SAFETY: Xen reads one such structure and writes its answer into it.
    unsafe { hypercall(Hypercall::GrantTableOp, arguments) }?;
    Ok(argument.max_nr_frames)
}
