//! Our kernel alone on Xen, as its initial domain: no Linux, no disks, three seconds.
//!
//! Tells "the kernel does not start" from "the lab does not work". There is no console ring in this
//! role, so the kernel prints through the hypervisor's console.

use std::io::Read;
use std::path::PathBuf;
use std::process::ChildStdout;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::build;
use crate::console::{self, Console, Source};
use crate::error::{LabError, Result};
use crate::guest;
use crate::host::Host;
use crate::images::Images;
use crate::lab;
use crate::qemu::{Machine, Qemu, XEN_ARGUMENTS};

const TIMEOUT: Duration = Duration::from_secs(90);

/// Builds the kernel; gives the QEMU of a smoke test. Without words the
/// kernel checks itself.
pub fn prepare(host: Host, words: &[String]) -> Result<Machine> {
    let images = lab::prepare(host)?;
    let kernel = build::guest_kernel(host)?;
    Ok(machine(&images, kernel, &guest::command_line(words)))
}

/// The QEMU of a smoke test.
fn machine(images: &Images, kernel: PathBuf, command_line: &str) -> Machine {
    Machine {
        memory_mib: 512,
        cpus: 1,
        xen: images.xen(),
        xen_arguments: format!("{XEN_ARGUMENTS} dom0_mem=32M,max:32M"),
        kernel,
        kernel_arguments: command_line.to_owned(),
        root: None,
        disks: Vec::new(),
        port: None,
        icount: None,
    }
}

/// Boots the machine and waits for its end; gives the kernel's exit status.
pub fn run(host: Host, machine: &Machine) -> Result<u8> {
    let logs = lab::new_logs("smoke")?;
    let mut console = Console::new(&logs, host.verbose)?;
    let (mut qemu, serial) = Qemu::start(machine, &logs.join("qemu.log"))?;
    let text = listen(&mut console, serial)?;
    // Power-off of the initial domain halts without ending QEMU: what follows is not waited for.
    qemu.wait(Duration::from_millis(500));
    guest::exit_status(&text).ok_or_else(|| LabError::Crashed {
        what: format!("the kernel ended without an exit status (logs: {})", logs.display()),
        tail: console.tail(),
    })
}

/// Reads the serial port until it ends, or until the kernel has said its status.
fn listen(console: &mut Console, mut serial: ChildStdout) -> Result<String> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = serial.read(&mut bytes) {
            if sender.send(bytes[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let limit = Instant::now() + TIMEOUT;
    let (mut text, mut partial) = (String::new(), Vec::new());
    loop {
        crate::interrupt::check()?;
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(bytes) => partial.extend_from_slice(&bytes),
            Err(RecvTimeoutError::Disconnected) => return Ok(text),
            Err(RecvTimeoutError::Timeout) if Instant::now() > limit => {
                let what = format!("the smoke test, after {} s", TIMEOUT.as_secs());
                return Err(LabError::TimedOut { what, tail: console.tail() });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        for line in console::take_lines(&mut partial) {
            console.line(&source(&line), &line);
            text.push_str(&line);
            text.push('\n');
        }
        if guest::exit_status(&text).is_some() {
            return Ok(text);
        }
    }
}

fn source(line: &str) -> Source {
    match console::serial_source(line) {
        Source::Xen => Source::Xen,
        _ => Source::Guest("pvblk".into()),
    }
}
