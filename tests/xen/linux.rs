//! A Linux guest's own block front on our back.

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::resize;
use crate::scene::{GUEST_TIMEOUT, LINUX, Scene, Story, ensure};

pub(crate) const STORIES: &[Story] = &[
    (
        "linux_makes_fills_and_checks_a_file_system_on_our_back_and_uses_a_disk_that_grows",
        file_system,
    ),
    ("linux_verifies_random_writes_at_depth_32_on_our_back", verified_writes),
];

fn file_system(scene: &Scene) -> Result<()> {
    let job = "set -e\n\
        mkfs.ext4 -q -F /dev/xvda\n\
        mount -t ext4 /dev/xvda /mnt\n\
        mkdir /mnt/tree\n\
        cp -r /bin/busybox /usr/lib/modules /mnt/tree\n\
        (cd /mnt && find tree -type f | sort | xargs sha256sum) >/tmp/sums\n\
        umount /mnt\n\
        e2fsck -fn /dev/xvda\n\
        echo 3 >/proc/sys/vm/drop_caches\n\
        mount -t ext4 -o ro /dev/xvda /mnt\n\
        (cd /mnt && sha256sum -c /tmp/sums) | grep -vc OK$ >/tmp/wrong || true\n\
        umount /mnt\n\
        test $(wc -l </tmp/sums) -gt 5\n\
        test $(cat /tmp/wrong) = 0\n\
        echo files: $(wc -l </tmp/sums)\n\
        test $(cat /sys/block/xvdb/size) = 2048\n\
        while test $(cat /sys/block/xvdb/size) != 4096; do usleep 50000; done\n\
        dd if=/tmp/sums of=/dev/xvdb bs=512 seek=4088 count=8 conv=fsync 2>/dev/null\n\
        echo 3 >/proc/sys/vm/drop_caches\n\
        test $(dd if=/dev/xvdb bs=512 skip=4088 count=8 2>/dev/null | tr -d '\\0' | wc -c) -gt 100\n\
        echo beyond the old end\n";
    scene.lab.linux_job("lin", job, false)?;
    let small = resize::image(scene, "lin")?;
    let guest = Guest::linux("lin").disk(Backend::Pvblk, LINUX[0], "xvda", false).disk(
        Backend::Pvblk,
        &small,
        "xvdb",
        false,
    );
    scene.lab.create(&guest)?;
    scene.lab.wait_guest("lin", "files: ", GUEST_TIMEOUT)?;
    resize::grow(scene, "lin", "xvdb")?;
    let console = scene.outcome("lin")?;
    scene.dom0(&format!("rm {small}"))?;
    ensure(console.contains("beyond the old end"), || format!("the job did not end:\n{console}"))?;
    scene.dom0(&format!("e2fsck -fn {}", LINUX[0])).map(drop)
}

fn verified_writes(scene: &Scene) -> Result<()> {
    let job = "fio --name=verified --filename=/dev/xvda --direct=1 --ioengine=libaio \
        --rw=randwrite --bs=4k --iodepth=32 --size=12M --verify=crc32c --verify_fatal=1 \
        --do_verify=1\n";
    scene.lab.linux_job("fio", job, true)?;
    // Its root has fio's libraries in memory.
    let guest = Guest { memory_mib: 640, ..Guest::linux("fio") }.disk(
        Backend::Pvblk,
        LINUX[1],
        "xvda",
        false,
    );
    let console = scene.play(&guest)?;
    let clean = console.contains("err= 0") && !console.contains("verify:");
    ensure(clean, || format!("fio is not content:\n{console}"))
}
