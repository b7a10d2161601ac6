//! Lets a process run from one system call to the next, makes some fail, and answers what it asks of
//! Xen's device nodes: what is granted is a file in memory, where reference `n` is page `n`.
//!
//! It must never change a call that is not to fail and not one of those.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `PTRACE_EVENT_STOP`.
const EVENT_STOP: i32 = 128;
/// How a call is taken away: by a number that is none.
const NO_CALL: u64 = u64::MAX;
const PAGE_BYTES: u64 = 4096;

/// `IOCTL_GNTDEV_MAP_GRANT_REF` of `include/uapi/xen/gntdev.h` of Linux.
const MAP_GRANT_REF: u64 = 0x18_4700;
/// `IOCTL_EVTCHN_NOTIFY` there.
const NOTIFY: u64 = 0x04_4504;
/// What else is asked of the two nodes: unmap, notify on unmap; unbind, notify.
const GRANTED: [u64; 4] = [0x10_4701, 0x10_4707, 0x04_4503, NOTIFY];
/// `IOCTL_EVTCHN_BIND_INTERDOMAIN` of `include/uapi/xen/evtchn.h` of Linux.
const BIND_INTERDOMAIN: u64 = 0x08_4501;
/// The port that it is answered with.
pub(crate) const PORT: u32 = 3;

/// What fails for nobody who asks rightly, and ends a process, which may take several of them.
const SPARED: [i64; 8] = [
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_tgkill,
    libc::SYS_gettid,
    libc::SYS_getpid,
];

/// Which calls fail, from a call on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spell {
    /// That one.
    Once,
    /// All.
    FromThenOn,
    /// Those that raise an event.
    NotifiesFromThenOn,
}

/// What goes wrong: so many calls pass before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) nth: u64,
    pub(crate) errno: i32,
    pub(crate) spell: Spell,
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The first call that failed.
    pub(crate) hit: Option<u64>,
    /// The last calls, by number.
    calls: Vec<u64>,
    /// An event was not raised, and none after it.
    pub(crate) is_mute: bool,
    pub(crate) status: WaitStatus,
}

impl Traced {
    /// Where it was at its end.
    pub(crate) fn last(&self) -> String {
        let from = self.calls.len().saturating_sub(8);
        format!("call {:?} failed, the last were {:?}", self.hit, &self.calls[from..])
    }
}

/// Goes with a stopped process to its end. Calls count from where it becomes another program.
pub(crate) fn trace(process: Pid, fault: Fault) -> Traced {
    waitpid(process, Some(WaitPidFlag::WUNTRACED)).expect("it stops");
    let options =
        [Options::PTRACE_O_EXITKILL, Options::PTRACE_O_TRACEEXEC, Options::PTRACE_O_TRACESYSGOOD];
    ptrace::seize(process, options.into_iter().collect()).expect("it can be traced");
    kill(process, Signal::SIGCONT).expect("it is there");
    let mut tracer = Tracer {
        process,
        fault,
        memory: None,
        answer: None,
        hit: None,
        calls: vec![],
        is_mute: false,
    };
    let status = tracer.go_along();
    Traced { hit: tracer.hit, calls: tracer.calls, is_mute: tracer.is_mute, status }
}

struct Tracer {
    process: Pid,
    fault: Fault,
    /// The memory of the program, once it is there.
    memory: Option<File>,
    /// What the call under way is answered with, instead of being made.
    answer: Option<i64>,
    hit: Option<u64>,
    calls: Vec<u64>,
    is_mute: bool,
}

impl Tracer {
    fn go_along(&mut self) -> WaitStatus {
        loop {
            let status = waitpid(self.process, Some(WaitPidFlag::__WALL)).expect("it is ours");
            let signal = match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return status,
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                    let path = format!("/proc/{}/mem", self.process);
                    let memory = OpenOptions::new().read(true).write(true).open(path);
                    self.memory = Some(memory.expect("its memory can be had"));
                    None
                }
                WaitStatus::PtraceSyscall(_) => {
                    self.call();
                    None
                }
                WaitStatus::PtraceEvent(_, _, EVENT_STOP) => None,
                WaitStatus::Stopped(_, signal) => Some(signal),
                _ => None,
            };
            // It may have been killed meanwhile.
            let _ = ptrace::syscall(self.process, signal);
        }
    }

    /// A call begins or ends.
    fn call(&mut self) {
        let Ok(info) = ptrace::syscall_info(self.process) else { return };
        let Ok(mut registers) = ptrace::getregs(self.process) else { return };
        if self.memory.is_none() {
            return;
        }
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            let Some(answer) = self.answer.take() else { return };
            registers.rax = answer.cast_unsigned();
        } else {
            let number = registers.orig_rax;
            let is_ioctl = number.cast_signed() == libc::SYS_ioctl;
            let raises = is_ioctl && registers.rsi == NOTIFY;
            let fails = self.fails(number, raises);
            if raises {
                self.is_mute = fails;
            }
            self.answer = match fails {
                true => Some(-i64::from(self.fault.errno)),
                false if is_ioctl => self.of_a_node(registers.rsi, registers.rdx),
                false => None,
            };
            if self.answer.is_none() {
                return;
            }
            registers.orig_rax = NO_CALL;
        }
        let _ = ptrace::setregs(self.process, registers);
    }

    fn fails(&mut self, number: u64, raises: bool) -> bool {
        if SPARED.contains(&number.cast_signed()) {
            return false;
        }
        let at = self.calls.len() as u64;
        self.calls.push(number);
        let fails = match self.fault.spell {
            Spell::Once => at == self.fault.nth,
            Spell::FromThenOn => at >= self.fault.nth,
            Spell::NotifiesFromThenOn => raises && at >= self.fault.nth,
        };
        if fails {
            self.hit.get_or_insert(number);
        }
        fails
    }

    /// The answer to a request of a node.
    fn of_a_node(&self, request: u64, argument: u64) -> Option<i64> {
        match request {
            MAP_GRANT_REF => {
                let memory = self.memory.as_ref()?;
                let count = u32::from_ne_bytes(read(memory, argument));
                let reference = |at: u32| {
                    let bytes = read(memory, argument + 20 + 8 * u64::from(at));
                    u64::from(u32::from_ne_bytes(bytes))
                };
                let first = reference(0);
                let in_order = (0..count).all(|at| reference(at) == first + u64::from(at));
                assert!(in_order, "only pages that follow on one another can be mapped together");
                let index = (first * PAGE_BYTES).to_ne_bytes();
                memory.write_all_at(&index, argument + 8).expect("its memory can be written");
                Some(0)
            }
            BIND_INTERDOMAIN => Some(PORT.into()),
            _ => GRANTED.contains(&request).then_some(0),
        }
    }
}

fn read<const N: usize>(memory: &File, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_exact_at(&mut bytes, address).expect("its memory can be read");
    bytes
}
