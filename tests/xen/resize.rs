//! Disks that are made larger while a guest uses them, on a real Xen: the guest sees it and uses what
//! is new. A Linux guest does so at the end of its story of a file system.

use guest_kernel::pattern::Pattern;
use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::guests::{sum, vdev};
use crate::scene::{Scene, Story, ensure};
use crate::typed::Typist;

pub(crate) const STORIES: &[Story] =
    &[("a_disk_that_grows_under_our_guest_is_used_to_its_new_end_and_does_not_shrink", ours)];

/// The size of a disk before and after, in MiB.
const MIB: [u64; 2] = [1, 2];

/// The image of a disk that is to grow, in Dom0.
pub(crate) fn image(scene: &Scene, guest: &str) -> Result<String> {
    let path = format!("/tmp/{guest}-grows.img");
    scene.dom0(&format!("truncate -s {}M {path}", MIB[0]))?;
    Ok(path)
}

/// Makes the image of a guest's disk larger and has the guest told.
pub(crate) fn grow(scene: &Scene, guest: &str, disk: &str) -> Result<()> {
    scene.dom0(&format!("truncate -s {}M /tmp/{guest}-grows.img", MIB[1]))?;
    let told = scene.blkback(&format!("resize {guest} {disk}"))?.ok()?;
    let right = told.contains("4096 sectors") && told.contains("its guest was told");
    ensure(right, || told.clone())?;
    let again = scene.blkback(&format!("resize {guest} {disk}"))?.ok()?;
    ensure(again.contains("4096 sectors of 512 bytes as before"), || again.clone())
}

fn ours(scene: &Scene) -> Result<()> {
    let path = image(scene, "grown")?;
    let guest = Guest::pvblk("grown", "").disk(Backend::Pvblk, &path, "xvda", false);
    let mut typist = Typist::at(scene, &guest)?;
    let before = typist.command("disks")?;
    ensure(before.contains("1.00 MiB"), || before.clone())?;
    grow(scene, "grown", "xvda")?;
    let pattern = Pattern { disk: vdev(0), generation: 6, seed: 3 };
    for (command, wanted) in [
        ("disks", "2.00 MiB"),
        ("pattern write xvda --seed=3 --generation=6", "4096 sectors"),
        ("pattern verify xvda --seed=3 --generation=6", "4096 sectors of generation 6, seed 3"),
    ] {
        let told = typist.command(command)?;
        ensure(told.contains(wanted), || format!("{command}: {told}"))?;
    }
    let found = scene.dom0(&format!("sha256sum {path}; truncate -s 1M {path}"))?;
    let refused = scene.blkback("resize grown xvda")?;
    let right = refused.status == 1 && refused.text.contains("does not become smaller");
    ensure(right, || format!("{}: {}", refused.status, refused.text))?;
    let after = typist.command("disks")?;
    ensure(after.contains("2.00 MiB"), || after.clone())?;
    typist.leave("grown")?;
    scene.dom0(&format!("rm {path}"))?;
    let wanted = sum(pattern, MIB[1] << 20);
    ensure(found.starts_with(&wanted), || format!("{found} where {wanted} was written"))
}
