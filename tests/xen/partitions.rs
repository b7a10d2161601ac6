//! Partitions on a real Xen: tables that Linux reads the same way, file systems and a swap area on
//! them, found by label, UUID and name, and whole afterwards.

use xtask::error::{LabError, Result};
use xtask::guest::{Backend, Guest, exit_status};

use crate::guests::sum_of_disk;
use crate::scene::{GUEST_TIMEOUT, LINUX, PROGRAMS, Scene, Story, ensure};
use crate::tables::{GPT, MBR, Part, Sectors, gpt, mbr};

pub(crate) const STORIES: &[Story] = &[
    ("a_root_on_a_partition_is_found_by_label_uuid_and_name", roots),
    ("a_root_on_a_partition_that_is_mounted_read_only_is_not_changed", read_only),
    ("a_swap_area_on_a_partition_is_used_and_its_neighbours_are_whole", swap),
    ("a_label_that_no_partition_has_is_told_with_all_partitions_and_leaves_a_shell", missing),
];

/// The disk with the table of PCs, `xvda` in the guests, and the one with a GPT, `xvdb` there.
const PC: &str = LINUX[0];
const GUID: &str = LINUX[1];
/// Sectors of the second.
const GUID_SECTORS: u64 = 32 << 11;

/// Writes a table and has Linux read it, which must find the same partitions.
fn partition(scene: &Scene, disk: &str, table: Sectors, parts: &[Part]) -> Result<()> {
    scene.dom0(&format!("dd if=/dev/zero of={disk} bs=1M count=1 2>/dev/null"))?;
    for (sector, bytes) in table {
        scene.lab.put_bytes(&bytes, "/tmp/sectors")?;
        scene.dom0(&format!(
            "dd if=/tmp/sectors of={disk} bs=512 seek={sector} conv=notrunc 2>/dev/null"
        ))?;
    }
    scene.dom0(&format!("sync; blockdev --rereadpt {disk}"))?;
    let name = disk.trim_start_matches("/dev/");
    let found = scene.dom0(&format!(
        "cd /sys/block/{name}; for p in {name}*; do \
         echo ${{p#{name}}} $(cat $p/start) $(cat $p/size); done | grep -v ' 2$'"
    ))?;
    let wanted: String =
        parts.iter().map(|(n, first, long)| format!("{n} {first} {long}\n")).collect();
    ensure(found == wanted, || format!("Linux finds on {disk}:\n{found}not:\n{wanted}"))
}

/// Both disks with their tables, and file systems and a swap area on them.
fn make(scene: &Scene) -> Result<()> {
    partition(scene, PC, mbr(), &MBR)?;
    partition(scene, GUID, gpt(GUID_SECTORS), &GPT)?;
    scene.dom0(&format!(
        "set -e; M='/sbin/mke2fs -q -F'; \
         $M -t ext4 -L first {PC}1; $M -t ext3 -L logical {PC}5; $M -t ext2 -L / {GUID}2; \
         mkswap -L spare {GUID}1 >/dev/null; modprobe ext4; mkdir -p /tmp/root; \
         mount {PC}1 /tmp/root; mkdir /tmp/root/bin; cp {PROGRAMS}/* /tmp/root/bin; umount /tmp/root"
    ))
    .map(drop)
}

/// What Dom0 kept of the disks before a guest wrote to them is not what is on them.
fn look_anew(scene: &Scene) -> Result<()> {
    scene.dom0("sync; echo 3 >/proc/sys/vm/drop_caches").map(drop)
}

/// Every file system is whole.
fn check(scene: &Scene) -> Result<()> {
    look_anew(scene)?;
    for partition in [format!("{PC}1"), format!("{PC}5"), format!("{GUID}2")] {
        scene.dom0(&format!("/sbin/e2fsck -fn {partition}"))?;
    }
    Ok(())
}

/// Takes the partitions away from Dom0, and with them what it keeps of their contents.
fn unmake(scene: &Scene) -> Result<()> {
    let clear = |disk: &str| {
        format!(
            "dd if=/dev/zero of={disk} bs=1M count=1 2>/dev/null; sync; blockdev --rereadpt {disk}"
        )
    };
    scene.dom0(&format!("{}; {}", clear(PC), clear(GUID))).map(drop)
}

fn with_both(guest: Guest, read_only: bool) -> Guest {
    guest.disk(Backend::Pvblk, PC, "xvda", read_only).disk(Backend::Pvblk, GUID, "xvdb", read_only)
}

fn uuid(scene: &Scene, partition: &str) -> Result<String> {
    let text =
        scene.dom0(&format!("/sbin/debugfs -R 'show_super_stats -h' {partition} 2>/dev/null"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Filesystem UUID:"));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn roots(scene: &Scene) -> Result<()> {
    make(scene)?;
    let by_uuid = format!("UUID={}", uuid(scene, &format!("{PC}5"))?);
    let cases = [
        ("LABEL=first", "xvda1", "ext4", format!("{PC}1")),
        ("LABEL=/", "xvdb2", "ext2", format!("{GUID}2")),
        (&by_uuid, "xvda5", "ext3", format!("{PC}5")),
        ("/dev/xvda1", "xvda1", "ext4", format!("{PC}1")),
        ("xvdb2", "xvdb2", "ext2", format!("{GUID}2")),
    ];
    for (number, (spec, name, kind, partition)) in cases.into_iter().enumerate() {
        let note = format!("/note-{number}");
        let run = format!("run=\"write {note} by {spec}; cp {note} /copy; df; poweroff\"");
        let guest = Guest::pvblk("parted", &format!("root={spec} rw {run}"));
        let console = scene.play(&with_both(guest, false))?;
        let mounted = format!("{name} on / type {kind} (rw)");
        ensure(console.contains(&mounted), || format!("no {mounted:?}:\n{console}"))?;
        check(scene)?;
        let text = scene.dom0(&format!("/sbin/debugfs -R 'cat {note}' {partition} 2>/dev/null"))?;
        ensure(text.trim() == format!("by {spec}"), || format!("{note} holds {text:?}"))?;
    }
    unmake(scene)
}

fn read_only(scene: &Scene) -> Result<()> {
    make(scene)?;
    let sums = || Ok::<_, LabError>([sum_of_disk(scene, PC)?, sum_of_disk(scene, GUID)?]);
    let before = sums()?;
    let run = "run=\"ls /; write /note no; df; poweroff\"";
    for words in ["root=LABEL=logical ro", "root=/dev/xvda5"] {
        // The disk itself may be written to.
        let guest = Guest::pvblk("parted-ro", &format!("{words} {run}"));
        scene.lab.create(&with_both(guest, false))?;
        scene.lab.wait_status("parted-ro", GUEST_TIMEOUT, |_| {})?;
        let console = scene.lab.guest_log("parted-ro");
        scene.lab.destroy("parted-ro")?;
        for text in ["xvda5 on / type ext3 (ro)", "write: xvda5 is mounted on / read-only"] {
            ensure(console.contains(text), || format!("no {text:?}:\n{console}"))?;
        }
    }
    ensure(sums()? == before, || "a disk was changed".into())?;
    unmake(scene)
}

fn swap(scene: &Scene) -> Result<()> {
    make(scene)?;
    let run = "run=\"volumes; swapon /dev/xvdb1; memtest 24M --swaps=3000; swapon -s; swapoff; \
               swapon LABEL=spare; swapon -s; poweroff\"";
    let mut guest = Guest::pvblk("parted-swap", &format!("root=LABEL=first ro {run}"));
    guest.memory_mib = 24;
    let console = scene.play(&with_both(guest, false))?;
    for text in ["xvdb1: swap, LABEL=\"spare\"", "memtest: 6144 pages", " 0 wrong", "xvdb1"] {
        ensure(console.contains(text), || format!("no {text:?}:\n{console}"))?;
    }
    check(scene)?;
    unmake(scene)
}

fn missing(scene: &Scene) -> Result<()> {
    make(scene)?;
    let guest = with_both(Guest::pvblk("parted-none", "root=LABEL=none ro rootwait=1"), true);
    scene.lab.create(&guest)?;
    let console = scene.lab.wait_guest("parted-none", "pvblk> ", GUEST_TIMEOUT)?;
    // At a prompt, it ends when it is told to.
    scene.dom0("xl shutdown -w parted-none")?;
    let ended = scene.lab.wait_status("parted-none", GUEST_TIMEOUT, |_| {});
    scene.lab.destroy("parted-none")?;
    let status = exit_status(&scene.lab.guest_log("parted-none"));
    for text in [
        "root: LABEL=none is not there yet: waiting for its disk, 1 s at most",
        "root: LABEL=none: not found, there is:",
        "xvda1: ext4, LABEL=\"first\", UUID=",
        "xvda3: nothing known",
        "xvda5: ext3, LABEL=\"logical\", UUID=",
        "xvdb1: swap, LABEL=\"spare\", UUID=",
        "xvdb2: ext2, LABEL=\"/\", UUID=",
    ] {
        ensure(console.contains(text), || format!("no {text:?}:\n{console}"))?;
    }
    ensure(ended.is_ok() && status == Some(3), || format!("ended with {status:?}:\n{console}"))?;
    unmake(scene)
}
