//! Kernel modules from the guest's own root file system: loaded, used, refused, taken away.

use std::fs;

use module_abi::{MAGIC, VERSION};
use xtask::build;
use xtask::error::{Context, Result};
use xtask::guest::{Backend, Guest};
use xtask::host::Host;

use crate::scene::{GUEST_TIMEOUT, LINUX, PATTERN, PROGRAMS, Scene, Story, ensure, fail};

pub(crate) const STORIES: &[Story] = &[
    ("a_module_brings_an_elevator_and_takes_it_away", sstf),
    ("a_module_brings_a_disk_that_everything_works_on_and_takes_it_away", ramdisk),
];

/// What the guest does, and what its console says of it, in this order.
type Steps<'a> = &'a [(&'a str, &'a str)];

const SSTF: Steps<'_> = &[
    ("insmod /other.ko", "built for version 3 of the module interface: this is 2"),
    ("insmod /unknown.ko", "unknown symbol pvblk_point"),
    ("insmod /sstf.ko word", "its init failed: the module does not want to stay"),
    ("insmod /sstf.ko", "in use by 0, elevator sstf, command sstf"),
    ("sysctl block.xvdb.scheduler=sstf", ""),
    ("sysctl block.xvdb.scheduler", "[sstf]"),
    ("pattern write xvdb --seed=5 --size=4M", "4.00 MiB"),
    ("pattern verify xvdb --seed=5 --size=4M", "4.00 MiB"),
    ("bench xvdb --rw=randread --iodepth=32 --number_ios=300", "bench: {"),
    ("sstf", "sectors from one to the next"),
    ("rmmod sstf", "sstf is in use: the elevator of 1 disk(s)"),
    ("sysctl block.xvdb.scheduler=noop", ""),
    ("rmmod sstf", ""),
    ("lsmod", "no modules"),
    ("pattern verify xvdb --seed=5 --size=4M", "4.00 MiB"),
];

/// What is refused of a module with a disk, and what it does for itself.
const ALONE: Steps<'_> = &[
    ("insmod /other.ko", "built for version 3 of the module interface: this is 2"),
    ("insmod /unknown.ko", "unknown symbol pvblk_point"),
    ("insmod /xvda.ko", "/xvda.ko: its init failed: xvda: the name is taken"),
    ("insmod /bad.ko", "/bad.ko: its init failed: ram/: not a good name"),
    ("insmod /ramdisk.ko size=17", "ramdisk: size=17: not size=BYTES in whole pages"),
    ("insmod /ramdisk.ko size=1G", "its init failed: not enough memory"),
    ("insmod /ramdisk.ko size=12M", "in use by 0, disk ram0"),
    ("insmod /second.ko", "/second.ko: its init failed: ram0: the name is taken"),
    ("disks", "ram0     12.00 MiB, sectors of 512/512, writable, a module's"),
    ("sysctl block.ram0.scheduler", "[none]"),
    ("sysctl block.ram0.scheduler=deadline", "has no elevator: there is none"),
    ("pattern write ram0 --seed=5", "24576 sectors of generation 0, seed 5 written and flushed"),
    ("pattern verify ram0 --seed=5", "verified: 12.00 MiB"),
    ("pattern verify ram0 --seed=6", "with seed 5, not disk"),
    ("bench ram0 --rw=randrw --iodepth=32 --number_ios=2000", "\"total_ios\":2000"),
];

/// What other disks, files and programs do with it.
const TOGETHER: Steps<'_> = &[
    ("insmod /other.ko", "built for version 3 of the module interface: this is 2"),
    ("memory", "KiB mapped"),
    ("insmod /ramdisk.ko size=12M", "in use by 0, disk ram0"),
    ("dd if=xvdb of=ram0 bs=1M count=8", "dd: copied 8.00 MiB"),
    ("mount rw /dev/ram0 /r", "ram0 on /r type ext4 (rw)"),
    ("cp /sstf.ko /r/copy.ko", "cp: copied"),
    ("sha256 /sstf.ko", "  /sstf.ko"),
    ("sha256 /r/copy.ko", "  /r/copy.ko"),
    ("insmod /r/copy.ko", "elevator sstf, command sstf"),
    ("rmmod ramdisk", "ramdisk is in use: ram0 is mounted on /r"),
    ("lsmod", "in use by 1, disk ram0"),
    ("rmmod sstf", ""),
    ("umount /r", ""),
    ("dd if=ram0 of=xvdb bs=1M count=8", "dd: copied 8.00 MiB"),
    ("dd if=xvdc of=ram0 bs=1M count=12", "dd: copied 12.00 MiB"),
    ("swapon /dev/ram0", "swap on ram0 (label \"spare\")"),
    ("memtest 12M --swaps=500", " 0 wrong"),
    ("rmmod ramdisk", "ramdisk is in use: ram0 holds the swap area"),
    ("swapoff", "swap off ram0"),
    ("rmmod ramdisk", ""),
    ("lsmod", "no modules"),
    ("memory", "KiB mapped"),
    ("sha256 ram0", "ram0: no such disk: there is xvda, xvdb, xvdc"),
    ("insmod /ramdisk.ko", "disk ram0"),
    ("sha256 ram0", "  ram0"),
];

/// Replaces what stands in the module once.
fn changed(module: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
    let places = module.windows(from.len()).filter(|&bytes| bytes == from).count();
    ensure(places == 1, || format!("{from:?} is in the module {places} times"))?;
    let at = module.windows(from.len()).position(|bytes| bytes == from).unwrap_or_default();
    let (before, rest) = module.split_at(at);
    Ok([before, to, &rest[from.len()..]].concat())
}

fn module(name: &str) -> Result<Vec<u8>> {
    let path = build::module(Host::default(), name)?;
    fs::read(&path).context(|| format!("reading {}", path.display()))
}

/// A module, one of another version, and one that needs a symbol that does not exist.
fn variants(name: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let module = module(name)?;
    let described = |version: u32| [&MAGIC.to_le_bytes()[..], &version.to_le_bytes()].concat();
    let other = changed(&module, &described(VERSION), &described(VERSION + 1))?;
    let unknown = changed(&module, b"\0pvblk_print\0", b"\0pvblk_point\0")?;
    Ok(vec![(name.into(), module), ("other".into(), other), ("unknown".into(), unknown)])
}

/// Makes a root file system with modules, and the programs that there are.
fn root(scene: &Scene, device: &str, modules: &[(String, Vec<u8>)]) -> Result<()> {
    scene.dom0(&format!("rm -rf /tmp/root; mkdir -p /tmp/root; cp -r {PROGRAMS} /tmp/root/bin"))?;
    for (name, bytes) in modules {
        scene.lab.put_bytes(bytes, &format!("/tmp/root/{name}.ko"))?;
    }
    scene.dom0(&format!("mkfs.ext4 -q -F -L modules -d /tmp/root {device}")).map(drop)
}

/// Lets a guest take the steps; gives its console.
fn take(scene: &Scene, guest: &Guest, steps: Steps<'_>) -> Result<String> {
    scene.lab.create(guest)?;
    let status = scene.lab.wait_status(&guest.name, GUEST_TIMEOUT, |_| {});
    let console = scene.lab.guest_log(&guest.name);
    scene.lab.destroy(&guest.name)?;
    // The first module was refused.
    ensure(status? == 1, || format!("the guest ended otherwise:\n{console}"))?;
    let mut rest = console.as_str();
    for (step, answer) in steps {
        let at = rest.find(answer);
        ensure(at.is_some(), || format!("{step} did not say {answer:?}:\n{console}"))?;
        rest = &rest[at.unwrap_or_default() + answer.len()..];
    }
    Ok(console)
}

fn guest(name: &str, steps: Steps<'_>) -> Guest {
    let run: Vec<&str> = steps.iter().map(|step| step.0).collect();
    let words = format!("root=LABEL=modules ro run=\"{}; poweroff\"", run.join("; "));
    Guest::pvblk(name, &words).disk(Backend::Pvblk, PATTERN, "xvda", true)
}

fn sstf(scene: &Scene) -> Result<()> {
    root(scene, PATTERN, &variants("sstf")?)?;
    let guest = guest("modules", SSTF).disk(Backend::Pvblk, LINUX[0], "xvdb", false);
    take(scene, &guest, SSTF).map(drop)
}

/// The module as it is and as it is refused: of another version, with another symbol, with other
/// names for the disk, and once more under another name of its own.
fn ramdisks() -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = variants("ramdisk")?;
    let module = &all[0].1.clone();
    let described = |name: &[u8]| [&VERSION.to_le_bytes()[..], &[0; 4], name].concat();
    let second = changed(module, &described(b"ramdisk\0"), &described(b"second\0\0"))?;
    all.push(("second".into(), second));
    for (name, disk) in [("xvda", b"xvda"), ("bad", b"ram/")] {
        all.push((name.into(), changed(module, b"ram0", disk)?));
    }
    Ok(all)
}

fn ramdisk(scene: &Scene) -> Result<()> {
    let [swap, files] = LINUX;
    root(scene, PATTERN, &[ramdisks()?, variants("sstf")?[..1].to_vec()].concat())?;
    scene.dom0(&format!("mkfs.ext4 -q -F -L small {files} 8M; mkswap -L spare {swap} 12288"))?;
    let mut alone = guest("ramdisk", ALONE);
    alone.memory_mib = 24;
    take(scene, &alone, ALONE)?;

    let together = guest("ramdisk", TOGETHER).disk(Backend::Pvblk, files, "xvdb", false);
    let together = together.disk(Backend::Pvblk, swap, "xvdc", false);
    let console = take(scene, &together, TOGETHER)?;
    same_copy(&console)?;
    memory_is_back(&console)?;
    // What the guest wrote into its disk in memory came back as a whole file system.
    let stat = format!("debugfs -R 'stat /copy.ko' {files} | grep -q regular");
    scene.dom0(&format!("e2fsck -fn {files} && {stat}")).map(drop)
}

/// The guest has as much free memory without the disk as before it, but for a little heap.
fn memory_is_back(console: &str) -> Result<()> {
    let free = |line: &str| {
        let (before, _) = line.split_once(" KiB free, ")?;
        line.contains("KiB mapped").then(|| before.rsplit(' ').next()?.parse().ok())?
    };
    // The first is that of the start, without pages for disks.
    match console.lines().filter_map(free).collect::<Vec<u64>>()[..] {
        [_, before, after] if after + 4096 > before => Ok(()),
        ref figures => fail(format!("free: {figures:?} KiB:\n{console}")),
    }
}

/// Both hashes of the file and its copy are the same.
fn same_copy(console: &str) -> Result<()> {
    let hash = |name: &str| {
        let line = console.lines().find(|line| line.trim_end().ends_with(name));
        line.and_then(|line| line.split(' ').next()).map(str::to_owned)
    };
    match (hash("  /sstf.ko"), hash("  /r/copy.ko")) {
        (Some(one), Some(other)) if one == other => Ok(()),
        hashes => fail(format!("{hashes:?}:\n{console}")),
    }
}
