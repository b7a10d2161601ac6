//! QEMU: the command line as a pure function, and the process, which never outlives us.
//!
//! The machine is the one on which Xen's own boot was found to be shortest under TCG. The software
//! CPU is `max` without SMAP: QEMU 7.2 faults on a PV guest's `iretq` to ring 3 with it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Context, LabError, Result};
use crate::host;

/// A file of the host as a virtio disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDisk {
    /// A raw image.
    pub path: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
}

impl HostDisk {
    /// A disk that may be written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read_only: false }
    }
}

/// What QEMU shall be.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of CPUs.
    pub cpus: u32,
    /// The hypervisor's ELF.
    pub xen: PathBuf,
    /// Xen's command line.
    pub xen_arguments: String,
    /// The initial domain's kernel.
    pub kernel: PathBuf,
    /// Its command line.
    pub kernel_arguments: String,
    /// Its initramfs.
    pub root: Option<PathBuf>,
    /// Disks, in the order in which they appear.
    pub disks: Vec<HostDisk>,
    /// The socket of the agent's port.
    pub port: Option<PathBuf>,
    /// Counted time: 2^shift ns for each guest instruction, on one thread, nothing from the clock.
    pub icount: Option<u8>,
}

/// Xen's arguments that make it start fast and print on the serial port.
pub const XEN_ARGUMENTS: &str = "console=com1 com1=115200,8n1 loglvl=info guest_loglvl=all \
     noreboot=0 spec-ctrl=no xpti=no cet=no smt=on tsx=1 ucode=no watchdog=0 bootscrub=0 cpuidle=0";

/// Dom0's arguments that make it start fast and stay quiet.
pub const DOM0_ARGUMENTS: &str = "console=hvc0 loglevel=4 mitigations=off audit=0 selinux=0 \
     apparmor=0 random.trust_cpu=on cryptomgr.notests nokaslr panic=-1 8250.nr_uarts=1 \
     net.ifnames=0 swiotlb=2048 rodata=off";

impl Machine {
    /// QEMU's arguments.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        add(&["-machine", "q35,usb=off,vmport=off,smm=off,sata=off,hpet=off"]);
        add(&["-smp", &self.cpus.to_string(), "-m", &self.memory_mib.to_string()]);
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]);
        add(&["-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        match self.icount {
            None => {
                add(&["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,smap=off"]);
            }
            Some(shift) => {
                // REP instructions count once per iteration, so guests must not choose them.
                add(&["-accel", "tcg,thread=single,tb-size=512"]);
                add(&["-cpu", "max,smap=off,-erms,-fsrm"]);
                add(&["-icount", &format!("shift={shift},sleep=off")]);
                add(&["-rtc", "clock=vm,base=2024-01-01", "-seed", "1"]);
            }
        }
        if let Some(port) = &self.port {
            let socket = format!("socket,id=agent,path={},server=on,wait=off", comma(port));
            add(&["-chardev", &socket, "-device", "virtio-serial-pci"]);
            add(&["-device", "virtserialport,chardev=agent,name=agent"]);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let access = if disk.read_only { ",readonly=on" } else { "" };
            let file = comma(&disk.path);
            let drive =
                format!("if=none,id=disk{number},format=raw,file={file},discard=unmap{access}");
            let device = format!("virtio-blk-pci,drive=disk{number},serial=disk{number}");
            add(&["-drive", &drive, "-device", &device]);
        }
        add(&["-kernel", &self.xen.display().to_string(), "-append", &self.xen_arguments]);
        add(&["-initrd", &self.modules()]);
        arguments
    }

    /// Multiboot modules: QEMU splits them at commas, and takes a doubled one as a plain one.
    fn modules(&self) -> String {
        let kernel = format!("{} {}", self.kernel.display(), self.kernel_arguments);
        let mut modules = kernel.trim().replace(',', ",,");
        if let Some(root) = &self.root {
            modules.push(',');
            modules.push_str(&comma(root));
        }
        modules
    }

    /// The whole line, as it could be typed.
    pub fn command_line(&self) -> String {
        let mut command = Command::new("qemu-system-x86_64");
        host::command_line(command.args(self.arguments()))
    }
}

/// A path in a comma-separated option of QEMU.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// A running QEMU. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Qemu {
    pid: Pid,
    exit: mpsc::Receiver<std::io::Result<ExitStatus>>,
    ended: Option<ExitStatus>,
}

impl Qemu {
    /// Starts QEMU; gives the process and its serial port's output. Its complaints go to `errors`.
    pub fn start(machine: &Machine, errors: &Path) -> Result<(Qemu, ChildStdout)> {
        let errors_file =
            File::create(errors).context(|| format!("making {}", errors.display()))?;
        // The parent-death signal ends QEMU even when we are killed ourselves.
        let mut command = host::tool("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]).args(machine.arguments());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors_file);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let (started, start) = mpsc::channel();
        let (ended, exit) = mpsc::channel();
        // Its own thread: the parent-death signal comes when the thread that forked ends.
        thread::spawn(move || {
            let child = command.spawn();
            wait_for(child, &started, &ended);
        });
        let (pid, stdout) = start
            .recv()
            .map_err(|_| LabError::Failed("QEMU's thread died".into()))?
            .map_err(|error| {
                LabError::Missing(format!("cannot start QEMU: {error} (package qemu-system-x86)"))
            })?;
        Ok((Qemu { pid, exit, ended: None }, stdout))
    }

    /// The exit status, if QEMU has ended within `time`.
    pub fn wait(&mut self, time: Duration) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Ok(status)) = self.exit.recv_timeout(time)
        {
            self.ended = Some(status);
        }
        self.ended
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if self.wait(Duration::ZERO).is_some() {
            return;
        }
        // Not yet waited for by its thread, or the receive above would have seen it: the pid is
        // still QEMU's.
        if let Ok(process) = pidfd_open(self.pid, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        self.wait(Duration::from_secs(10));
    }
}

type Started = std::io::Result<(Pid, ChildStdout)>;

fn wait_for(
    child: std::io::Result<Child>,
    started: &mpsc::Sender<Started>,
    ended: &mpsc::Sender<std::io::Result<ExitStatus>>,
) {
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let Some(stdout) = child.stdout.take() else { return };
    if started.send(Ok((Pid::from_child(&child), stdout))).is_err() {
        let _ = child.kill();
    }
    let _ = ended.send(child.wait());
}

/// What QEMU complained about, for an error message.
pub fn complaints(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_string(&mut text);
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            memory_mib: 1024,
            cpus: 2,
            xen: "/i/xen.elf".into(),
            xen_arguments: "com1=115200,8n1".into(),
            kernel: "/i/vmlinux".into(),
            kernel_arguments: "a=1,2".into(),
            root: Some("/i/root,1.cpio".into()),
            disks: vec![
                HostDisk::new("/d/a.img"),
                HostDisk { path: "/d/b,c.img".into(), read_only: true },
            ],
            port: Some("/s/port".into()),
            icount: None,
        }
    }

    fn after<'a>(arguments: &'a [String], flag: &str) -> Vec<&'a str> {
        let pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
        pairs.map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn commas_are_doubled_where_qemu_splits_and_nowhere_else() {
        let arguments = machine().arguments();
        assert_eq!(after(&arguments, "-initrd"), ["/i/vmlinux a=1,,2,/i/root,,1.cpio"]);
        assert_eq!(after(&arguments, "-append"), ["com1=115200,8n1"]);
        let drives = after(&arguments, "-drive");
        assert!(drives[1].contains("file=/d/b,,c.img,"), "{}", drives[1]);
    }

    #[test]
    fn only_a_read_only_disk_is_opened_so() {
        let arguments = machine().arguments();
        let drives = after(&arguments, "-drive");
        assert!(!drives[0].contains("readonly"));
        assert!(drives[1].ends_with("readonly=on"));
    }

    #[test]
    fn a_counted_run_is_single_threaded_and_takes_no_host_time() {
        let counted = Machine { icount: Some(0), ..machine() };
        let line = counted.command_line();
        for part in ["thread=single", "-icount shift=0,sleep=off", "clock=vm", "-seed 1"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!machine().command_line().contains("icount"));
    }
}
