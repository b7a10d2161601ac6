//! A kernel module from the guest's own root file system: loaded, used, refused, taken away.

use std::fs;

use module_abi::{MAGIC, VERSION};
use xtask::build;
use xtask::error::{Context, Result};
use xtask::guest::{Backend, Guest};
use xtask::host::Host;

use crate::scene::{GUEST_TIMEOUT, LINUX, PATTERN, Scene, Story, ensure};

pub(crate) const STORIES: &[Story] = &[("a_module_brings_an_elevator_and_takes_it_away", sstf)];

/// What the guest does, and what its console says of it, in this order.
const STEPS: [(&str, &str); 14] = [
    ("insmod /other.ko", "built for version 2 of the module interface: this is 1"),
    ("insmod /unknown.ko", "unknown symbol pvblk_point"),
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

/// Replaces what stands in the module once.
fn changed(module: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
    let at = module.windows(from.len()).position(|bytes| bytes == from);
    ensure(at.is_some(), || format!("{from:?} is not in the module"))?;
    let (before, rest) = module.split_at(at.unwrap_or_default());
    Ok([before, to, &rest[from.len()..]].concat())
}

/// Makes a root file system with the module, one of another version, and one that needs a symbol
/// that does not exist.
fn root(scene: &Scene, device: &str) -> Result<()> {
    let path = build::module(Host::default(), "sstf")?;
    let module = fs::read(&path).context(|| format!("reading {}", path.display()))?;
    let described = |version: u32| [&MAGIC.to_le_bytes()[..], &version.to_le_bytes()].concat();
    let other = changed(&module, &described(VERSION), &described(VERSION + 1))?;
    let unknown = changed(&module, b"\0pvblk_print\0", b"\0pvblk_point\0")?;
    scene.dom0("mkdir -p /tmp/root")?;
    for (bytes, name) in [(&module, "sstf"), (&other, "other"), (&unknown, "unknown")] {
        scene.lab.put_bytes(bytes, &format!("/tmp/root/{name}.ko"))?;
    }
    scene.dom0(&format!("mkfs.ext4 -q -F -L modules -d /tmp/root {device}")).map(drop)
}

fn sstf(scene: &Scene) -> Result<()> {
    root(scene, PATTERN)?;
    let run: Vec<&str> = STEPS.iter().map(|step| step.0).collect();
    let words = format!("root=LABEL=modules ro run=\"{}; poweroff\"", run.join("; "));
    let guest = Guest::pvblk("modules", &words).disk(Backend::Pvblk, PATTERN, "xvda", true).disk(
        Backend::Pvblk,
        LINUX[0],
        "xvdb",
        false,
    );
    scene.lab.create(&guest)?;
    let status = scene.lab.wait_status("modules", GUEST_TIMEOUT, |_| {});
    let console = scene.lab.guest_log("modules");
    scene.lab.destroy("modules")?;
    // The first module was refused.
    ensure(status? == 1, || format!("the guest ended otherwise:\n{console}"))?;
    let mut rest = console.as_str();
    for (step, answer) in STEPS {
        let at = rest.find(answer);
        ensure(at.is_some(), || format!("{step} did not say {answer:?}:\n{console}"))?;
        rest = &rest[at.unwrap_or_default() + answer.len()..];
    }
    Ok(())
}
