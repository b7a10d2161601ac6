//! Files on a real Xen: what our kernel writes, `e2fsck` of Dom0 looks at.

use xtask::error::Result;
use xtask::guest::{Backend, Guest, exit_status};

use crate::scene::{GUEST_TIMEOUT, LINUX, Scene, Story, ensure};

pub(crate) const STORIES: &[Story] = &[
    ("what_is_written_to_ext2_is_whole_after_poweroff", ext2),
    ("what_is_written_to_ext3_is_whole_after_poweroff", ext3),
    ("what_is_written_to_ext4_is_whole_after_poweroff", ext4),
    ("a_root_that_is_missing_is_told_with_what_there_is", missing),
];

const DISK: &str = LINUX[1];

fn written(scene: &Scene, kind: &str) -> Result<()> {
    scene.dom0(&format!("/sbin/mke2fs -q -F -t {kind} -L / {DISK} 8M"))?;
    let run = "run=\"mkdir /d; write /d/note one two; cp /d/note /copy; rm /d/note; cat /copy; \
               df; sync; poweroff\"";
    let guest = Guest::pvblk(&format!("files-{kind}"), &format!("root=LABEL=/ rw {run}"));
    let console = scene.play(&guest.disk(Backend::Pvblk, DISK, "xvda", false))?;
    let mounted = format!("xvda on / type {kind} (rw)");
    ensure(console.contains(&mounted) && console.contains("one two"), || console.clone())?;
    let checked =
        scene.dom0(&format!("/sbin/e2fsck -fn {DISK} && /sbin/debugfs -R 'cat /copy' {DISK}"))?;
    ensure(checked.contains("one two"), || checked.clone())
}

fn ext2(scene: &Scene) -> Result<()> {
    written(scene, "ext2")
}

fn ext3(scene: &Scene) -> Result<()> {
    written(scene, "ext3")
}

fn ext4(scene: &Scene) -> Result<()> {
    written(scene, "ext4")
}

fn missing(scene: &Scene) -> Result<()> {
    scene.dom0(&format!("/sbin/mke2fs -q -F -t ext3 -L other {DISK} 8M"))?;
    let guest =
        Guest::pvblk("rootless", "root=LABEL=none ro rootwait=1 run=\"echo a shell; poweroff\"");
    scene.lab.create(&guest.disk(Backend::Pvblk, DISK, "xvda", true))?;
    scene.lab.wait_status("rootless", GUEST_TIMEOUT, |_| {})?;
    let console = scene.lab.guest_log("rootless");
    scene.lab.destroy("rootless")?;
    let told = ["LABEL=none: not found", "xvda: ext3, LABEL=\"other\", UUID=", "a shell"];
    let all = told.iter().all(|text| console.contains(text));
    ensure(all && exit_status(&console) == Some(3), || console)
}
