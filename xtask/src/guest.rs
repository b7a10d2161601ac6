//! Guests of a lab: what xl is told about them, and the verbs to start and end them.

use std::time::Duration;

use crate::cpio::Tree;
use crate::error::{LabError, Result};
use crate::lab::{COMMAND_TIMEOUT, DOM0_FOLDER, GuestEnd, Job, Lab};

/// The last console line of a guest that ran a program: this, and a number.
pub const STATUS_LINE: &str = "pvblk: exit status ";

/// How long the last lines of a console may be on their way after the guest has ended.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments that make a Linux guest start fast and stay quiet.
const LINUX_ARGUMENTS: &str = "console=hvc0 loglevel=4 mitigations=off audit=0 apparmor=0 \
     random.trust_cpu=on cryptomgr.notests nokaslr rodata=off panic=-1";

/// The most bytes that Xen hands to a PV guest as its command line (`MAX_GUEST_CMDLINE` of
/// xen/include/public/xen.h), its closing zero not counted.
pub const COMMAND_LINE_MAX: usize = 1023;

/// Who serves a guest's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Our blkback.
    Pvblk,
    /// The kernel's xen-blkback.
    Blkback,
    /// QEMU's qdisk.
    Qdisk,
}

/// A guest as xl is told about it. Paths are Dom0's.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its kernel; nothing if pygrub takes it, with its command line, from the first disk.
    pub kernel: Option<String>,
    /// Its initramfs.
    pub ramdisk: Option<String>,
    /// The kernel's command line, at most [`COMMAND_LINE_MAX`] bytes.
    pub command_line: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// Keep it off the first CPU, which is Dom0's alone then.
    pub beside_dom0: bool,
    /// Disks: xl's strings, with the backend that serves them.
    pub disks: Vec<(Backend, String)>,
}

impl Guest {
    /// Our kernel with a command line, 32 MiB and one CPU.
    pub fn pvblk(name: &str, command_line: &str) -> Self {
        Self {
            name: name.into(),
            kernel: Some(format!("{DOM0_FOLDER}/pvblk")),
            ramdisk: None,
            command_line: command_line.into(),
            memory_mib: 32,
            vcpus: 1,
            beside_dom0: true,
            disks: Vec::new(),
        }
    }

    /// The same kernel as a test of the back of its first disk, which it overwrites.
    pub fn blktest(name: &str, command_line: &str) -> Self {
        Self { kernel: Some(format!("{DOM0_FOLDER}/blktest")), ..Self::pvblk(name, command_line) }
    }

    /// A guest whose own first disk says what it boots, by its `/boot/grub/menu.lst`. The lab must
    /// bring pygrub ([`crate::lab::LabConfig::pygrub`]).
    pub fn from_its_disk(name: &str) -> Self {
        Self { kernel: None, ..Self::pvblk(name, "") }
    }

    /// A Linux guest that runs the job given to [`Lab::linux_job`].
    pub fn linux(name: &str) -> Self {
        Self {
            kernel: Some(format!("{DOM0_FOLDER}/vmlinux")),
            ramdisk: Some(format!("/tmp/{name}.cpio")),
            // fio and its libraries are held twice while they are unpacked.
            memory_mib: 448,
            ..Self::pvblk(name, LINUX_ARGUMENTS)
        }
    }

    /// Adds a disk.
    #[must_use]
    pub fn disk(mut self, backend: Backend, device: &str, vdev: &str, read_only: bool) -> Self {
        let access = if read_only { "ro" } else { "rw" };
        let spec = format!("format=raw,vdev={vdev},access={access},target={device}");
        self.disks.push((backend, spec));
        self
    }

    /// Refuses what Xen would cut off without a word.
    pub fn check(&self) -> Result<()> {
        let length = self.command_line.len();
        if length <= COMMAND_LINE_MAX {
            return Ok(());
        }
        let max = COMMAND_LINE_MAX;
        Err(LabError::Usage(format!("a kernel command line of {length} bytes, at most {max} fit")))
    }

    /// What xl is told of a disk; nothing for ours, which xl 4.17 cannot plug in.
    fn xl_disk(&self, (backend, spec): &(Backend, String)) -> Option<String> {
        match backend {
            Backend::Pvblk => None,
            // A disk with a script of its own would be attached to Dom0 for pygrub; without one
            // pygrub reads the device itself, and Xen's script `block` attaches it.
            Backend::Blkback if self.kernel.is_none() => Some(xl_string(spec)),
            Backend::Blkback => Some(xl_string(&format!("script=block-raw,{spec}"))),
            Backend::Qdisk => Some(xl_string(&format!("backendtype=qdisk,{spec}"))),
        }
    }

    /// The configuration file for xl. Shut down or crashed guests are kept, so that no console line
    /// is lost; [`Lab::destroy`] takes them away.
    pub fn config(&self) -> String {
        let disks: Vec<String> = self.disks.iter().filter_map(|disk| self.xl_disk(disk)).collect();
        let mut command_line = self.command_line.clone();
        if self.ramdisk.is_some() {
            command_line.push_str(&format!(" disks={}", self.disks.len()));
        }
        let mut lines = vec![
            "type=\"pv\"".to_owned(),
            format!("name={}", xl_string(&self.name)),
            format!("memory={}", self.memory_mib),
            format!("vcpus={}", self.vcpus),
            "on_poweroff=\"preserve\"".to_owned(),
            "on_reboot=\"preserve\"".to_owned(),
            "on_crash=\"preserve\"".to_owned(),
            format!("disk=[{}]", disks.join(",")),
        ];
        if self.beside_dom0 {
            lines.push("cpus=\"all,^0\"".to_owned());
        }
        match &self.kernel {
            Some(kernel) => {
                lines.push(format!("kernel={}", xl_string(kernel)));
                lines.push(format!("extra={}", xl_string(&command_line)));
            }
            None => {
                lines.push("bootloader=\"pygrub\"".to_owned());
                lines.push("bootloader_args=[\"-q\"]".to_owned());
            }
        }
        lines.extend(self.ramdisk.iter().map(|path| format!("ramdisk={}", xl_string(path))));
        lines.join("\n") + "\n"
    }
}

/// A string in xl's configuration syntax.
fn xl_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}

/// The number in a guest's last status line.
pub fn exit_status(console: &str) -> Option<u8> {
    let lines = console.lines().rev();
    let mut numbers = lines.filter_map(|line| line.trim_end().split_once(STATUS_LINE));
    numbers.next()?.1.parse().ok()
}

impl Lab {
    /// Starts `blkback serve` in Dom0, with images in `/tmp`, and waits until it serves;
    /// [`crate::lab::LabConfig::files`] must bring it as `/lab/blkback`.
    pub fn start_blkback(&self) -> Result<Job> {
        self.start_blkback_with("")
    }

    /// The same, with more options for `serve`.
    pub fn start_blkback_with(&self, options: &str) -> Result<Job> {
        let command = format!("exec {DOM0_FOLDER}/blkback -v serve --images /tmp {options}");
        self.start_daemon(&command, "serving")
    }

    /// Ends a `blkback serve` in good order.
    pub fn stop_blkback(&self, daemon: Job) -> Result<()> {
        self.dom0("kill -TERM $(cat /run/blkback.pid)")?.ok()?;
        match self.finish(daemon, COMMAND_TIMEOUT)? {
            (0, _) => Ok(()),
            (status, _) => Err(LabError::Failed(format!("blkback ended with status {status}"))),
        }
    }

    /// Creates a guest, attaches its disks and lets it run.
    pub fn create(&self, guest: &Guest) -> Result<()> {
        self.create_paused(guest)?;
        self.unpause(&guest.name)
    }

    /// Lets a paused guest run.
    pub fn unpause(&self, guest: &str) -> Result<()> {
        self.dom0(&format!("xl unpause {guest}"))?.ok().map(drop)
    }

    /// Creates a guest with its disks, paused.
    pub fn create_paused(&self, guest: &Guest) -> Result<()> {
        guest.check()?;
        // xl runs pygrub on disks that it knows; ours it does not, so pygrub runs ahead of it.
        let loaded = match (&guest.kernel, guest.disks.first()) {
            (None, Some((Backend::Pvblk, spec))) => Some(self.pygrub(guest, spec)?),
            _ => None,
        };
        let guest = loaded.as_ref().unwrap_or(guest);
        let Guest { name, .. } = guest;
        self.forget(name);
        self.put_bytes(guest.config().as_bytes(), &format!("/tmp/{name}.cfg"))?;
        if guest.disks.iter().any(|(backend, _)| *backend == Backend::Blkback) {
            self.dom0("modprobe xen-blkback")?.ok()?;
        }
        self.dom0(&format!("xl create -q -p /tmp/{name}.cfg"))?.ok()?;
        for (_, spec) in guest.disks.iter().filter(|(backend, _)| *backend == Backend::Pvblk) {
            self.attach(name, spec)?;
        }
        Ok(())
    }

    /// The guest with the kernel and the command line that pygrub takes from its disk.
    fn pygrub(&self, guest: &Guest, spec: &str) -> Result<Guest> {
        let target = spec.rsplit_once("target=").map_or(spec, |(_, target)| target);
        let folder = format!("/tmp/{}.boot", guest.name);
        let text = self
            .dom0(&format!(
                "mkdir -p {folder} && TERM=vt100 pygrub -q --output-format=simple \
                 --output-directory={folder} {target}"
            ))?
            .ok()?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let Some(kernel) = value("kernel ") else {
            return Err(LabError::Failed(format!("pygrub found no kernel in {target}:\n{text}")));
        };
        let command_line = value("args ").unwrap_or_default().trim().to_owned();
        Ok(Guest { kernel: Some(kernel.trim().to_owned()), command_line, ..guest.clone() })
    }

    /// Attaches a disk of our blkback to a guest.
    pub fn attach(&self, guest: &str, spec: &str) -> Result<()> {
        self.dom0(&format!("{DOM0_FOLDER}/blkback attach {guest} '{spec}'"))?.ok().map(drop)
    }

    /// Destroys a guest, running or ended.
    pub fn destroy(&self, guest: &str) -> Result<()> {
        self.dom0(&format!("xl destroy {guest}"))?.ok().map(drop)
    }

    /// Gives a Linux guest of this name its root with a job: a shell script. `fio` brings fio.
    pub fn linux_job(&self, name: &str, script: &str, fio: bool) -> Result<()> {
        let mut job = Tree::new();
        job.program("job.sh", script);
        let path = format!("/tmp/{name}.job");
        self.put_bytes(&job.archive(), &path)?;
        let fio = if fio { "/lab/fio.cpio" } else { "" };
        self.dom0(&format!("cat /lab/linux.cpio {fio} {path} >/tmp/{name}.cpio"))?.ok().map(drop)
    }

    /// Waits for a guest's end and gives its exit status. `show` gets its console as it comes.
    ///
    /// Errors: [`LabError::Crashed`] when the guest crashed, [`LabError::Failed`] when it ended
    /// without a status.
    pub fn wait_status(
        &self,
        guest: &str,
        timeout: Duration,
        mut show: impl FnMut(&str),
    ) -> Result<u8> {
        let mut shown = 0;
        let end = self.wait_end(guest, timeout, |text| {
            shown += text.len();
            show(text);
        })?;
        if matches!(end, GuestEnd::PowerOff | GuestEnd::Reboot) {
            // The two logs come by different ways: xl's may be ahead of the console's. Without a
            // status there is nothing to wait for, and that is told below.
            let _ = self.wait_guest(guest, STATUS_LINE, LAST_LINES_TIMEOUT);
        }
        let console = self.guest_log(guest);
        show(console.get(shown..).unwrap_or_default());
        let crashed = |what: &str| {
            let lines: Vec<&str> = console.lines().collect();
            let from = lines.len().saturating_sub(crate::console::TAIL_LINES);
            let tail = lines[from..].iter().map(|&line| line.to_owned()).collect();
            LabError::Crashed { what: format!("guest {guest} {what}"), tail }
        };
        match (end, exit_status(&console)) {
            (GuestEnd::Crash, _) => Err(crashed("crashed")),
            (GuestEnd::PowerOff | GuestEnd::Reboot, Some(status)) => Ok(status),
            (GuestEnd::PowerOff | GuestEnd::Reboot, None) => {
                Err(LabError::Failed(format!("guest {guest} ended without an exit status")))
            }
            (GuestEnd::Destroyed, _) => Err(crashed("was destroyed")),
            (GuestEnd::Other(code), _) => Err(crashed(&format!("ended with reason {code}"))),
        }
    }
}

/// Joins the words after `--` into a kernel command line: a value with blanks is quoted as the kernel
/// command lines of Linux and of our guest want it, `run='a b'` as `run="a b"`.
pub fn command_line(words: &[String]) -> String {
    let quoted = |word: &String| match word.split_once('=') {
        Some((key, value)) if value.contains(' ') && !value.starts_with(['"', '\'']) => {
            format!("{key}=\"{value}\"")
        }
        _ => word.clone(),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The script in the words after `--` for a Linux guest: the value of `run=`.
pub fn linux_script(words: &[String]) -> Result<String> {
    let script = words.iter().find_map(|word| word.strip_prefix("run="));
    let script =
        script.ok_or_else(|| LabError::Usage("a Linux guest needs run='COMMANDS'".into()))?;
    Ok(format!("{script}\n"))
}

/// Removes a temporary image when dropped.
#[derive(Debug)]
pub struct ScratchFile(pub std::path::PathBuf);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_quotes_what_xl_would_misread() {
        let guest = Guest::pvblk("g", r#"run="a \ b""#);
        assert!(guest.config().contains(r#"extra="run=\"a \\ b\"""#), "{}", guest.config());
    }

    #[test]
    fn a_command_line_may_be_as_long_as_xen_takes_and_no_longer() {
        assert!(Guest::pvblk("g", &"x".repeat(COMMAND_LINE_MAX)).check().is_ok());
        let error = Guest::pvblk("g", &"x".repeat(COMMAND_LINE_MAX + 1)).check().unwrap_err();
        assert_eq!(error.code(), 2);
    }

    #[test]
    fn xl_hears_only_of_disks_that_it_can_plug_in() {
        let guest = Guest::pvblk("g", "")
            .disk(Backend::Pvblk, "/dev/vda", "xvda", false)
            .disk(Backend::Blkback, "/dev/vdb", "xvdb", true)
            .disk(Backend::Qdisk, "/dev/vdc", "xvdc", false);
        let config = guest.config();
        assert!(!config.contains("/dev/vda"));
        let blkback = "script=block-raw,format=raw,vdev=xvdb,access=ro,target=/dev/vdb";
        assert!(config.contains(blkback), "{config}");
        assert!(config.contains("backendtype=qdisk,format=raw,vdev=xvdc,access=rw"), "{config}");
    }

    #[test]
    fn a_guest_is_kept_off_dom0s_cpu_unless_there_is_no_other() {
        let guest = Guest::pvblk("g", "");
        assert!(guest.config().contains("cpus=\"all,^0\""));
        assert!(!Guest { beside_dom0: false, ..guest }.config().contains("cpus=\"all"));
    }

    #[test]
    fn a_linux_guest_is_told_how_many_disks_to_wait_for() {
        let guest = Guest::linux("l").disk(Backend::Pvblk, "/dev/vda", "xvda", false);
        assert!(guest.config().contains(" disks=1\""), "{}", guest.config());
        assert!(!Guest::pvblk("g", "").config().contains("disks="));
    }

    #[test]
    fn the_last_status_line_counts_and_others_do_not() {
        assert_eq!(exit_status("pvblk: exit status 3\r\npvblk: exit status 0\r\n"), Some(0));
        assert_eq!(exit_status("pvblk: exit status 300\n"), None);
        assert_eq!(exit_status("hello\n"), None);
        assert_eq!(exit_status("[  2.1] pvblk: exit status 7\n[ 2.2] reboot\n"), Some(7));
    }

    #[test]
    fn values_with_blanks_are_quoted_for_the_kernel() {
        let words = ["run=sha256 xvda; poweroff", "quiet", "run=\"a b\"", "run='c d'"];
        let line = command_line(&words.map(str::to_owned));
        assert_eq!(line, "run=\"sha256 xvda; poweroff\" quiet run=\"a b\" run='c d'");
    }

    #[test]
    fn a_linux_guest_without_a_job_is_a_usage_error() {
        assert_eq!(linux_script(&["quiet".to_owned()]).unwrap_err().code(), 2);
        assert_eq!(linux_script(&["run=ls /".to_owned()]).unwrap(), "ls /\n");
    }
}
