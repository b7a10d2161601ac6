//! The booted lab with its disks, and what every case asks of it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use xtask::build;
use xtask::error::{Context, LabError, Result};
use xtask::guest::Guest;
use xtask::host::Host;
use xtask::lab::{Job, Lab, LabConfig, Output};
use xtask::qemu::HostDisk;

/// How long one guest may take. The machine is emulated and may be busy.
pub(crate) const GUEST_TIMEOUT: Duration = Duration::from_secs(240);

/// Our backend in Dom0.
pub(crate) const BLKBACK: &str = "/lab/blkback";

/// A back without manners in Dom0.
pub(crate) const SPITE: &str = "/lab/spite";

/// Where the programs for inside the guest are in Dom0.
pub(crate) const PROGRAMS: &str = "/lab/programs";

/// A guest that never runs, to attach disks to.
pub(crate) const BYSTANDER: &str = "bystander";

/// What our guest shows when it waits for a command.
pub(crate) const PROMPT: &str = "pvblk> ";

/// Bytes of the disk for patterns.
pub(crate) const PATTERN_BYTES: u64 = 4 << 20;
/// Bytes of each disk of the machine.
const DISKS: [u64; 4] = [8 << 20, PATTERN_BYTES, 96 << 20, 32 << 20];

/// A disk with an ext4 file system of a real tree.
pub(crate) const TREE: &str = "/dev/vda";
/// A disk for patterns.
pub(crate) const PATTERN: &str = "/dev/vdb";
/// Disks for a Linux guest.
pub(crate) const LINUX: [&str; 2] = ["/dev/vdc", "/dev/vdd"];

/// A name and what is told.
pub(crate) type Story = (&'static str, fn(&Scene) -> Result<()>);

/// A booted lab.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    daemon: Cell<Option<Job>>,
    folder: PathBuf,
}

/// What a case must leave as it was: nodes of xenstore, domains, loop devices. A disk that waits for
/// a guest that is gone goes by itself, which has a case of its own.
#[derive(PartialEq, Eq)]
pub(crate) struct Inventory(BTreeSet<String>);

/// Fails the case with a sentence.
pub(crate) fn fail<T>(sentence: impl Into<String>) -> Result<T> {
    Err(LabError::Failed(sentence.into()))
}

/// Fails the case unless `condition`.
pub(crate) fn ensure(condition: bool, sentence: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { fail(sentence()) }
}

impl Scene {
    /// Builds the programs, makes the disks, boots; `counted`: with time counted by instructions.
    pub(crate) fn set(verbose: bool, counted: bool) -> Result<Self> {
        let host = Host { verbose };
        xtask::setup::ensure(host)?;
        let kernel = build::guest_kernel(host)?;
        let blkback = build::blkback(host)?;
        let programs = build::guest_programs(host)?;
        let folder = std::env::temp_dir().join(format!("pvblk-xen-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
        let disks = make_disks(&folder)?;
        let mut files = vec![
            (kernel, "/lab/pvblk".into()),
            (build::blktest(host)?, "/lab/blktest".into()),
            (blkback, BLKBACK.into()),
            (build::spite(host)?, SPITE.into()),
        ];
        for name in build::GUEST_PROGRAMS {
            files.push((programs.join(name), format!("{PROGRAMS}/{name}")));
        }
        let config = LabConfig {
            guests_memory_mib: 800,
            disks: disks.into_iter().map(HostDisk::new).collect(),
            files,
            linux_guest: true,
            fio: true,
            qdisk: true,
            icount: counted.then_some(0),
            // Where emulated processors take turns, Xen sets their clocks wrong by a turn.
            cpus: if counted { 1 } else { 2 },
            name: "xen-tests".into(),
            verbose,
            ..LabConfig::default()
        };
        let scene = Self { lab: Lab::boot(&config)?, daemon: Cell::new(None), folder };
        let bystander = Guest { beside_dom0: !counted, ..Guest::pvblk(BYSTANDER, "") };
        scene.lab.create_paused(&bystander)?;
        Ok(scene)
    }

    /// Starts the daemon, unless it runs.
    pub(crate) fn daemon(&self) -> Result<()> {
        if self.daemon.get().is_none() {
            self.daemon.set(Some(self.lab.start_blkback()?));
        }
        Ok(())
    }

    /// Waits for the end of the daemon and gives its exit code.
    pub(crate) fn daemon_ended(&self, timeout: Duration) -> Result<i32> {
        match self.daemon.take() {
            Some(job) => self.lab.finish(job, timeout).map(|(status, _)| status),
            None => fail("no daemon was started"),
        }
    }

    /// Powers off, and removes the disks.
    pub(crate) fn strike(self) -> Result<()> {
        self.lab.power_off()?;
        std::fs::remove_dir_all(&self.folder).context(|| "removing the disks".into())
    }

    /// The host's file of one of the machine's disks.
    pub(crate) fn image(&self, disk: &str) -> Result<PathBuf> {
        let letter = disk.strip_prefix("/dev/vd").unwrap_or_default();
        match ["a", "b", "c", "d"].iter().position(|it| *it == letter) {
            Some(number) => Ok(image(&self.folder, number)),
            None => fail(format!("{disk} is no disk of the machine")),
        }
    }

    /// Runs a command in Dom0, which must succeed.
    pub(crate) fn dom0(&self, command: &str) -> Result<String> {
        self.lab.dom0(command)?.ok()
    }

    /// Runs our backend's program with these arguments.
    pub(crate) fn blkback(&self, arguments: &str) -> Result<Output> {
        self.lab.dom0(&format!("{BLKBACK} {arguments}"))
    }

    /// Starts a guest and waits for its end, which must be with status 0; gives its console.
    pub(crate) fn play(&self, guest: &Guest) -> Result<String> {
        self.lab.create(guest)?;
        self.outcome(&guest.name)
    }

    /// Waits for the end of a guest, which must be with status 0; gives its console.
    pub(crate) fn outcome(&self, name: &str) -> Result<String> {
        let status = self.lab.wait_status(name, GUEST_TIMEOUT, |_| {});
        let console = self.lab.guest_log(name);
        self.lab.destroy(name)?;
        match status? {
            0 => Ok(console),
            status => fail(format!("guest {name} ended with status {status}:\n{console}")),
        }
    }

    /// Waits until something holds, of which a question to Dom0 tells.
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + GUEST_TIMEOUT;
        while !holds()? {
            ensure(Instant::now() < end, || format!("never: {what}"))?;
            self.dom0("usleep 100000")?;
        }
        Ok(())
    }

    /// What is there now.
    pub(crate) fn inventory(&self) -> Result<Inventory> {
        // Little is done in Dom0, which is slow.
        let text = self.dom0(
            "xenstore-ls -f; echo; xl list; cat /sys/block/loop*/loop/backing_file 2>/dev/null; true",
        )?;
        let Some((nodes, rest)) = text.split_once("\n\n") else {
            return fail(format!("no list of nodes and domains:\n{text}"));
        };
        let ours = |line: &&str| {
            let of_devices = ["/vbd/", "/qdisk/", "pvblk"].iter().any(|part| line.contains(part));
            let of_guests = line.starts_with("/vm/") || line.starts_with("/local/domain/");
            let of_dom0 = line.starts_with("/local/domain/0");
            of_devices || (of_guests && !of_dom0)
        };
        // Tool stacks leave the empty folders that devices were in.
        let empty = |line: &&str| line.ends_with("= \"\"");
        let left = nodes.lines().filter(ours).filter(|line| !empty(line) && !waits(line, nodes));
        // Of a domain its name: its state changes.
        let rest = rest.lines().skip(1).map(|line| line.split(' ').next().unwrap_or_default());
        Ok(Inventory(left.chain(rest).map(str::to_owned).collect()))
    }

    /// Fails if anything is there that was not before, or has gone.
    pub(crate) fn assert_same(&self, before: &Inventory) -> Result<()> {
        let mut last = Inventory(BTreeSet::new());
        // Domains that were destroyed, and their directories, take a moment to go.
        for _ in 0..20 {
            last = self.inventory()?;
            if last == *before {
                return Ok(());
            }
            self.dom0("usleep 100000")?;
        }
        let more: Vec<&String> = last.0.difference(&before.0).collect();
        let less: Vec<&String> = before.0.difference(&last.0).collect();
        fail(format!("left behind: {more:#?}\ngone: {less:#?}"))
    }

    /// Destroys every guest, after a case that failed.
    pub(crate) fn clear(&self) -> Result<()> {
        let names = format!("xl list | awk 'NR>2 && $1!=\"{BYSTANDER}\" {{print $1}}'");
        self.dom0(&format!("for g in $({names}); do xl destroy $g; done")).map(drop)?;
        let own = format!("{BLKBACK} detach {BYSTANDER} xvda --force 2>/dev/null; true");
        self.dom0(&own).map(drop)
    }
}

/// Whether a node belongs to a disk of ours whose guest has no directory.
fn waits(line: &str, nodes: &str) -> bool {
    let ours = line.strip_prefix("/local/domain/0/backend/pvblk/");
    let guest = ours.and_then(|rest| rest.split('/').next());
    guest.is_some_and(|id| !nodes.contains(&format!("\n/local/domain/{id}/")))
}

fn image(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("disk{number}.img"))
}

/// Disk images on the host: the first with an ext4 file system made of this project's sources.
fn make_disks(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (number, bytes) in DISKS.into_iter().enumerate() {
        let path = image(folder, number);
        let file = File::create(&path).context(|| format!("making {}", path.display()))?;
        file.set_len(bytes).context(|| format!("extending {}", path.display()))?;
        paths.push(path);
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-F", "-d"]).arg(sources).arg(&paths[0]);
    let status = mke2fs.status().context(|| "running mke2fs (package e2fsprogs)".into())?;
    ensure(status.success(), || format!("mke2fs: {status}"))?;
    Ok(paths)
}
