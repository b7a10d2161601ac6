//! What the console and the kernel command line can ask for: a table of commands, and the loops
//! that look commands up in it.

use alloc::string::String;
use alloc::vec::Vec;

use xen::Grants;
use xen::abi::ShutdownReason;

use crate::command_line::{commands, words};
use crate::insmod;
use crate::kernel::{Kernel, Status};
use crate::line::Input;
use crate::programs::observe::Plan;
use crate::time::Instant;
use crate::user::swap;
use crate::{memory, println, programs, selfcheck, tunables};

/// Columns of a command's name and of its arguments in the list of all.
const NAME_COLUMNS: usize = 10;
const ARGUMENT_COLUMNS: usize = 20;

/// A command. It prints its own errors, one line each, and tells how it went.
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What follows the name, for `help`.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Runs it with the words behind the name.
    pub run: fn(&Kernel, &[String]) -> Status,
}

/// The commands of the kernel itself.
pub const COMMANDS: &[Command] = &[
    Command { name: "help", arguments: "", about: "lists the commands", run: help },
    Command { name: "echo", arguments: "WORD…", about: "prints its words", run: echo },
    Command {
        name: "memory",
        arguments: "[touch [SECONDS]]",
        about: "tells how much there is, or uses all of it",
        run: memory::memory,
    },
    Command {
        name: "free",
        arguments: "",
        about: "tells what memory is used for",
        run: memory::free,
    },
    Command { name: "memmap", arguments: "", about: "tells what lies where", run: memory::map },
    Command {
        name: "balloon",
        arguments: "SIZE",
        about: "gives memory back to Xen, or gets it again",
        run: memory::balloon,
    },
    Command {
        name: "uptime",
        arguments: "",
        about: "tells since when it runs, where the time went",
        run: uptime,
    },
    Command {
        name: "cmdline",
        arguments: "",
        about: "shows the kernel command line",
        run: cmdline,
    },
    Command {
        name: "timeline",
        arguments: "",
        about: "tells when what was reached",
        run: timeline,
    },
    Command { name: "disks", arguments: "", about: "lists the disks", run: disks },
    Command {
        name: "sha256",
        arguments: "FILE|DISK",
        about: "hashes it; of a disk --size= from --offset=",
        run: sha256,
    },
    Command {
        name: "dd",
        arguments: "if=DISK of=DISK",
        about: "copies a disk; bs= count= skip= seek=",
        run: dd,
    },
    Command {
        name: "pattern",
        arguments: "write|verify DISK",
        about: "--seed= --generation= --offset= --size=",
        run: pattern,
    },
    Command {
        name: "bench",
        arguments: "DISK --rw=randread",
        about: "--bs= --iodepth= --runtime= --number_ios= …",
        run: bench,
    },
    Command {
        name: "vmstat",
        arguments: "[SECONDS [COUNT]]",
        about: "tells where the time goes; also of a COMMAND",
        run: vmstat,
    },
    Command {
        name: "top",
        arguments: "[-b] [-n N] [-d S]",
        about: "shows it, and the disks, in place; q ends it",
        run: top,
    },
    Command {
        name: "hostile",
        arguments: "DISK KIND",
        about: "means harm: index, requests, rubbish, storm",
        run: hostile,
    },
    Command { name: "spin", arguments: "MS", about: "computes for milliseconds", run: spin },
    Command {
        name: "sysctl",
        arguments: "-a | KEY[=VALUE]…",
        about: "shows and sets tunables",
        run: sysctl,
    },
    Command {
        name: "mount",
        arguments: "[ro|rw] [SPEC [DIR]]",
        about: "mounts LABEL=, UUID= or a device; lists mounts",
        run: mount,
    },
    Command { name: "umount", arguments: "DIR|DEVICE", about: "undoes mount", run: umount },
    Command {
        name: "volumes",
        arguments: "",
        about: "lists file systems and swap areas",
        run: volumes,
    },
    Command { name: "ls", arguments: "[PATH]…", about: "lists folders", run: ls },
    Command { name: "cat", arguments: "FILE…", about: "shows files", run: cat },
    Command { name: "cp", arguments: "FILE FILE", about: "copies a file", run: cp },
    Command {
        name: "write", arguments: "FILE WORD…", about: "makes a file of a line", run: write
    },
    Command { name: "rm", arguments: "PATH…", about: "removes files, empty folders", run: rm },
    Command { name: "mkdir", arguments: "PATH…", about: "makes folders", run: mkdir },
    Command { name: "df", arguments: "", about: "tells how full file systems are", run: df },
    Command { name: "sync", arguments: "", about: "makes all writes durable", run: sync },
    Command {
        name: "swapon",
        arguments: "-s|LABEL=…|/dev/DISK",
        about: "takes a swap area into use, or lists it",
        run: swapon,
    },
    Command { name: "swapoff", arguments: "", about: "takes it out of use", run: swapoff },
    Command { name: "sleep", arguments: "MS", about: "waits for milliseconds", run: sleep },
    Command {
        name: "insmod",
        arguments: "FILE [WORD]…",
        about: "loads a kernel module",
        run: insmod,
    },
    Command { name: "rmmod", arguments: "NAME", about: "takes a module away", run: rmmod },
    Command { name: "lsmod", arguments: "", about: "lists the modules", run: lsmod },
    Command { name: "selfcheck", arguments: "", about: "checks the kernel itself", run: check },
    Command { name: "poweroff", arguments: "", about: "ends the guest", run: poweroff },
    Command { name: "reboot", arguments: "", about: "restarts the guest", run: reboot },
    Command {
        name: "crash",
        arguments: "[KIND]",
        about: "a bug's end: panic, fault, stack, loop, memory",
        run: crash,
    },
];

/// Columns of a terminal; a line of help must leave the last one free.
const COLUMNS: usize = 80;
const _: () = {
    let mut at = 0;
    while at < COMMANDS.len() {
        let Command { name, arguments, about, .. } = &COMMANDS[at];
        let head = columns(name, NAME_COLUMNS) + 1 + columns(arguments, ARGUMENT_COLUMNS) + 1;
        assert!(head + columns(about, 0) < COLUMNS, "a line of help is too long");
        at += 1;
    }
};

/// How many columns a text takes, padded to `least`.
const fn columns(text: &str, least: usize) -> usize {
    let (bytes, mut at, mut count) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        // What continues a character is none of its own.
        count += (bytes[at] & 0xc0 != 0x80) as usize;
        at += 1;
    }
    if count > least { count } else { least }
}

/// Runs what the kernel command line says and ends the guest, so that a script never waits for
/// somebody to type; without `run=`, or with the word `shell`, runs what is typed.
pub(crate) fn run(kernel: &Kernel) -> ! {
    let initial_domain = kernel.initial_domain;
    let list = kernel.command_line().value("run");
    kernel.mark("shell");
    if initial_domain && list.is_none() {
        kernel.note(selfcheck::run(kernel));
        kernel.shutdown(ShutdownReason::Reboot);
    }
    for command in list.map(commands).unwrap_or_default() {
        kernel.note(execute(kernel, command));
        heed(kernel);
    }
    if list.is_some() && !kernel.command_line().has("shell") {
        kernel.close_disks();
        kernel.shutdown(ending(initial_domain));
    }
    interact(kernel)
}

/// How a domain ends in good order. The initial domain takes the machine with it: a power-off
/// only halts an emulated machine, a restart ends the emulator.
pub(crate) const fn ending(initial_domain: bool) -> ShutdownReason {
    if initial_domain { ShutdownReason::Reboot } else { ShutdownReason::Poweroff }
}

/// Runs what is typed.
fn interact(kernel: &Kernel) -> ! {
    kernel.keyboard().prompt();
    loop {
        heed(kernel);
        match kernel.keyboard().poll() {
            Input::Nothing => {
                kernel.wait(None);
                kernel.look_after_disks();
                continue;
            }
            Input::Line(line) => commands(&line).into_iter().for_each(|command| {
                execute(kernel, command);
            }),
            Input::Interrupt => {}
            Input::End => println!(),
        }
        kernel.keyboard().prompt();
    }
}

/// Ends the guest if the toolstack wants it to.
fn heed(kernel: &Kernel) {
    if let Some(reason) = kernel.shutdown_wanted() {
        println!("\npvblk: the toolstack wants the guest to end");
        kernel.close_disks();
        kernel.shutdown(reason);
    }
}

/// Runs one command.
pub fn execute(kernel: &Kernel, command: &str) -> Status {
    let words = match words(command) {
        Ok(words) => words,
        Err(error) => {
            println!("pvblk: {error}: {command}");
            return Status::USAGE;
        }
    };
    run_words(kernel, &words)
}

/// Runs one command, given as its words.
fn run_words(kernel: &Kernel, words: &[String]) -> Status {
    let Some((name, arguments)) = words.split_first() else { return Status::OKAY };
    match COMMANDS.iter().find(|command| command.name == name.as_str()) {
        Some(command) => (command.run)(kernel, arguments),
        None => run_other(kernel, words).unwrap_or_else(|| {
            println!("pvblk: no command {name:?}: try help");
            Status::NO_COMMAND
        }),
    }
}

/// Runs what is no command of the kernel's: one of a module, or a program.
fn run_other(kernel: &Kernel, words: &[String]) -> Option<Status> {
    let (name, arguments) = words.split_first()?;
    insmod::run(kernel, name, arguments).or_else(|| kernel.run_program(words))
}

fn help(kernel: &Kernel, _: &[String]) -> Status {
    let line = |name: &str, arguments: &str, about: &str| {
        println!("{name:<NAME_COLUMNS$} {arguments:<ARGUMENT_COLUMNS$} {about}");
    };
    for command in COMMANDS {
        line(command.name, command.arguments, command.about);
    }
    for command in kernel.modules.borrow().commands() {
        line(&command.name, &command.arguments, &command.about);
    }
    Status::OKAY
}

fn echo(_: &Kernel, words: &[String]) -> Status {
    println!("{}", words.join(" "));
    Status::OKAY
}

fn cmdline(kernel: &Kernel, _: &[String]) -> Status {
    println!("{}", kernel.command_line().text());
    Status::OKAY
}

fn timeline(kernel: &Kernel, _: &[String]) -> Status {
    match kernel.timeline() {
        Some(report) => {
            crate::print!("{report}");
            Status::OKAY
        }
        None => Status::FAILED,
    }
}

fn disks(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("disks", programs::list::run, words)
}

fn sha256(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("sha256", programs::digest::run, words)
}

fn dd(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("dd", programs::copy::run, words)
}

fn pattern(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("pattern", programs::stamp::run, words)
}

fn bench(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("bench", programs::bench::run, words)
}

fn hostile(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("hostile", programs::hostile::run, words)
}

fn sysctl(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("sysctl", tunables::run, words)
}

fn mount(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("mount", programs::filing::mount, words)
}

fn umount(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("umount", programs::filing::umount, words)
}

fn volumes(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("volumes", programs::filing::volumes, words)
}

fn ls(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("ls", programs::filing::ls, words)
}

fn cat(kernel: &Kernel, words: &[String]) -> Status {
    // There is no /proc; this one file of it everybody knows.
    if let [path] = words
        && path == "/proc/cmdline"
    {
        return cmdline(kernel, &[]);
    }
    kernel.program("cat", programs::filing::cat, words)
}

fn cp(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("cp", programs::filing::cp, words)
}

fn write(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("write", programs::filing::write, words)
}

fn rm(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("rm", programs::filing::rm, words)
}

fn mkdir(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("mkdir", programs::filing::mkdir, words)
}

fn df(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("df", programs::filing::df, words)
}

fn sync(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("sync", programs::filing::sync, words)
}

fn swapon(kernel: &Kernel, words: &[String]) -> Status {
    let mut area = kernel.swap.borrow_mut();
    kernel.with_disks("swapon", |disks| swap::on(kernel, disks, &mut area, words))
}

fn swapoff(kernel: &Kernel, _: &[String]) -> Status {
    let mut area = kernel.swap.borrow_mut();
    kernel.with_disks("swapoff", |_| swap::off(kernel, &mut area))
}

fn sleep(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("sleep", programs::watch::sleep, words)
}

fn spin(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("spin", programs::watch::spin, words)
}

fn vmstat(kernel: &Kernel, words: &[String]) -> Status {
    match programs::watch::vmstat_plan(words) {
        Ok((plan, command)) if !command.is_empty() => watched(kernel, plan, command),
        _ => kernel.program("vmstat", programs::watch::vmstat, words),
    }
}

fn top(kernel: &Kernel, words: &[String]) -> Status {
    match programs::watch::top_plan(words) {
        Ok((plan, command)) if !command.is_empty() => watched(kernel, plan, command),
        _ => kernel.program("top", programs::watch::top, words),
    }
}

/// Runs a command and shows what happens meanwhile.
fn watched(kernel: &Kernel, plan: Plan, command: &[String]) -> Status {
    kernel.watched(plan, &command[0], || run_words(kernel, command))
}

fn uptime(kernel: &Kernel, _: &[String]) -> Status {
    let times = kernel.cpu_times();
    let seconds = |ns: u64| alloc::format!("{}", Instant::from_nanos(ns));
    let total = seconds(times.total());
    let parts = [times.user, times.system, times.idle, times.wait, times.steal];
    let [us, sy, id, wa, st] = parts.map(seconds);
    println!("up {total} s: {us} us, {sy} sy, {id} id, {wa} wa, {st} st");
    Status::OKAY
}

fn insmod(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("insmod", insmod::insmod, words)
}

fn rmmod(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("rmmod", insmod::rmmod, words)
}

fn lsmod(kernel: &Kernel, words: &[String]) -> Status {
    kernel.program("lsmod", insmod::lsmod, words)
}

fn check(kernel: &Kernel, _: &[String]) -> Status {
    selfcheck::run(kernel)
}

fn poweroff(kernel: &Kernel, _: &[String]) -> Status {
    kernel.close_disks();
    kernel.shutdown(ShutdownReason::Poweroff)
}

fn reboot(kernel: &Kernel, _: &[String]) -> Status {
    kernel.close_disks();
    kernel.shutdown(ShutdownReason::Reboot)
}

fn crash(kernel: &Kernel, words: &[String]) -> Status {
    kernel.note(Status::CRASHED);
    match words.first().map(String::as_str) {
        None | Some("panic") => panic!("asked to"),
        Some("fault") => crate::arch::fault(),
        Some("stack") => println!("{}", selfcheck::overflow(0)),
        // Not a spin loop's pause: an emulator would take that as a wish to let others run.
        Some("loop") => loop {
            core::hint::black_box(());
        },
        Some("memory") => {
            let mut all = Vec::new();
            while let Some(page) = kernel.grants().page() {
                page.write(0, &[1]);
                all.push(page);
            }
            println!("{} pages taken: {}", all.len(), kernel.memory());
        }
        Some(other) => {
            println!("crash: no such kind: {other}");
            return Status::USAGE;
        }
    }
    kernel.shutdown(ShutdownReason::Crash)
}
