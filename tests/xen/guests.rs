//! Our guest on every back there is: ours, the kernel's, QEMU's. The host holds its own sums
//! against what the guest says and against what the disks hold afterwards.

use guest_kernel::pattern::{Pattern, SECTOR_BYTES};
use sha2::{Digest, Sha256};
use xtask::error::{Context, Result};
use xtask::guest::{Backend, Guest};

use crate::scene::{PATTERN, PATTERN_BYTES, Scene, Story, TREE, ensure};

pub(crate) const STORIES: &[Story] = &[
    ("our_guest_reads_and_writes_on_our_back", on_ours),
    ("our_guest_reads_and_writes_on_the_kernels_back", on_the_kernels),
    ("our_guest_reads_and_writes_on_qemus_back", on_qemus),
    ("sixteen_disks_of_one_guest_keep_their_data_apart", sixteen),
    ("two_guests_at_once_each_have_their_own", two),
    ("a_disk_is_detached_and_attached_again_while_the_guest_is_paused", again),
];

/// Xen's number of `xvda` and the disks after it.
pub(crate) fn vdev(at: u32) -> u32 {
    202 << 8 | at << 4
}

/// The SHA-256 of a disk that is all pattern, in hex.
pub(crate) fn sum(pattern: Pattern, bytes: u64) -> String {
    let mut hash = Sha256::new();
    let mut sector = [0; SECTOR_BYTES];
    for number in 0..bytes / 512 {
        pattern.fill(number, &mut sector);
        hash.update(sector);
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is really on one of the machine's disks: the host sees it.
pub(crate) fn on_disk(scene: &Scene, disk: &str) -> Result<Vec<u8>> {
    scene.dom0("sync")?;
    let path = scene.image(disk)?;
    std::fs::read(&path).context(|| format!("reading {}", path.display()))
}

/// The SHA-256 of bytes, in hex.
pub(crate) fn sum_of(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

/// The SHA-256 of all that is on a disk, in hex.
pub(crate) fn sum_of_disk(scene: &Scene, disk: &str) -> Result<String> {
    Ok(sum_of(&on_disk(scene, disk)?))
}

/// The disk holds the pattern, and nothing else.
pub(crate) fn assert_pattern(
    scene: &Scene,
    disk: &str,
    pattern: Pattern,
    bytes: u64,
) -> Result<()> {
    let found = sum_of_disk(scene, disk)?;
    ensure(found == sum(pattern, bytes), || {
        format!("{disk} does not hold {pattern:?} after the guest's end")
    })
}

fn read_and_write(scene: &Scene, name: &str, backend: Backend, generation: u32) -> Result<()> {
    let options = format!("xvdb --seed=9 --generation={generation}");
    let run = format!("sha256 xvda; pattern write {options}; pattern verify {options}; poweroff");
    // QEMU 7.2 refuses to serve a disk that is read only ("Block node is read-only").
    let read_only = backend != Backend::Qdisk;
    let guest = Guest::pvblk(name, &format!("run=\"{run}\""))
        .disk(backend, TREE, "xvda", read_only)
        .disk(backend, PATTERN, "xvdb", false);
    let console = scene.play(&guest)?;
    let wanted = sum_of_disk(scene, TREE)?;
    ensure(console.contains(&wanted), || format!("the sum is {wanted}, the guest:\n{console}"))?;
    let pattern = Pattern { disk: vdev(1), generation, seed: 9 };
    assert_pattern(scene, PATTERN, pattern, PATTERN_BYTES)
}

fn on_ours(scene: &Scene) -> Result<()> {
    read_and_write(scene, "on-pvblk", Backend::Pvblk, 1)
}

fn on_the_kernels(scene: &Scene) -> Result<()> {
    read_and_write(scene, "on-blkback", Backend::Blkback, 2)
}

fn on_qemus(scene: &Scene) -> Result<()> {
    read_and_write(scene, "on-qdisk", Backend::Qdisk, 3)
}

fn sixteen(scene: &Scene) -> Result<()> {
    const BYTES: u64 = 256 << 10;
    let letters = 'a'..='p';
    let mut run = String::new();
    for verb in ["write", "verify"] {
        run.extend(letters.clone().map(|letter| format!("pattern {verb} xvd{letter};")));
    }
    let mut guest =
        Guest { memory_mib: 64, ..Guest::pvblk("many", &format!("run=\"{run}poweroff\"")) };
    let paths: Vec<String> =
        letters.clone().map(|letter| format!("/tmp/many-{letter}.img")).collect();
    let all = paths.join(" ");
    scene.dom0(&format!("truncate -s {BYTES} {all}"))?;
    for (path, letter) in paths.iter().zip(letters) {
        guest = guest.disk(Backend::Pvblk, path, &format!("xvd{letter}"), false);
    }
    scene.play(&guest)?;
    let found = scene.dom0(&format!("sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum {all}"))?;
    scene.dom0(&format!("rm {all}"))?;
    let wanted = (0..).zip(&paths).map(|(at, path)| {
        let pattern = Pattern { disk: vdev(at), generation: 0, seed: 0 };
        format!("{}  {path}\n", sum(pattern, BYTES))
    });
    let wanted: String = wanted.collect();
    ensure(found == wanted, || format!("the sums are\n{found}not\n{wanted}"))
}

fn two(scene: &Scene) -> Result<()> {
    let options = "xvda --seed=4 --generation=4";
    let writer = format!("run=\"pattern write {options}; pattern verify {options}; poweroff\"");
    let writer = Guest::pvblk("writer", &writer).disk(Backend::Pvblk, PATTERN, "xvda", false);
    let reader = Guest::pvblk("reader", "run=\"sha256 xvda; poweroff\"");
    let reader = reader.disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create_paused(&writer)?;
    scene.lab.create_paused(&reader)?;
    scene.lab.unpause("writer")?;
    scene.lab.unpause("reader")?;
    let console = scene.outcome("reader")?;
    scene.outcome("writer")?;
    let wanted = sum_of_disk(scene, TREE)?;
    ensure(console.contains(&wanted), || format!("the sum is {wanted}, the guest:\n{console}"))?;
    assert_pattern(scene, PATTERN, Pattern { disk: vdev(0), generation: 4, seed: 4 }, PATTERN_BYTES)
}

fn again(scene: &Scene) -> Result<()> {
    let guest = Guest::pvblk("again", "run=\"sha256 xvda; poweroff\"");
    let guest = guest.disk(Backend::Pvblk, TREE, "xvda", true);
    scene.lab.create_paused(&guest)?;
    for _ in 0..3 {
        scene.blkback("detach again xvda --force")?.ok()?;
        scene.lab.attach("again", &format!("format=raw,vdev=xvda,access=ro,target={TREE}"))?;
    }
    scene.lab.unpause("again")?;
    scene.outcome("again").map(drop)
}
