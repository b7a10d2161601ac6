//! What users get wrong: one line that says what and what to do, the right exit code, and nothing
//! half attached (the runner compares xenstore before and after every case).

use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::Output;

use crate::scene::{BYSTANDER, GUEST_TIMEOUT, PATTERN, Scene, Story, TREE, ensure, fail};

/// Done, but not well.
const FAILED: i32 = 1;
/// Asked wrongly.
const USAGE: i32 = 2;

pub(crate) const BEFORE_THE_DAEMON: &[Story] =
    &[("attaching_without_a_daemon_says_how_to_start_one", no_daemon)];

pub(crate) const STORIES: &[Story] = &[
    ("a_second_daemon_names_the_first", second_daemon),
    ("a_missing_image_is_refused", missing),
    ("an_image_too_short_for_a_sector_is_refused", short),
    ("an_image_of_half_sectors_is_refused", ragged),
    ("a_directory_is_refused", directory),
    ("a_read_only_file_is_refused_for_writing", read_only),
    ("an_unknown_format_is_refused", format),
    ("a_disk_string_without_a_target_is_refused", no_target),
    ("a_silly_vdev_is_refused", bad_vdev),
    ("a_busy_vdev_is_refused", busy_vdev),
    ("an_image_in_use_is_refused", busy_image),
    ("a_domain_that_does_not_exist_is_refused", no_domain),
    ("a_disk_that_is_not_there_cannot_be_detached_or_resized", not_there),
    ("an_unknown_kernel_command_is_told_and_counted", unknown_command),
    ("a_disk_that_the_guest_does_not_have_is_told", unknown_disk),
    ("a_guest_with_less_than_4_mib_is_refused_by_xl_with_a_reason", too_little_memory),
    ("a_guest_of_4_mib_reads_its_disk", just_enough_memory),
];

/// The output is one line of ours that holds every word, and the exit code is right.
fn told(output: &Output, status: i32, words: &[&str]) -> Result<()> {
    let text = output.text.trim_end();
    let ours = text.starts_with("blkback: ") && !text.contains('\n');
    ensure(ours, || format!("not one line of ours: {text:?}"))?;
    for word in words {
        ensure(text.contains(word), || format!("nothing about {word:?} in: {text}"))?;
    }
    ensure(output.status == status, || format!("exit code {}, not {status}", output.status))
}

/// Attaching `spec` to the bystander fails like that.
fn refused(scene: &Scene, spec: &str, status: i32, words: &[&str]) -> Result<()> {
    let output = scene.blkback(&format!("attach {BYSTANDER} {spec}"))?;
    told(&output, status, words)
}

/// The disk string of an image.
fn image(path: &str) -> String {
    format!("format=raw,vdev=xvda,access=rw,target={path}")
}

fn no_daemon(scene: &Scene) -> Result<()> {
    refused(scene, &image(PATTERN), FAILED, &["no daemon", "blkback serve"])
}

fn second_daemon(scene: &Scene) -> Result<()> {
    let output = scene.blkback("serve")?;
    let first = scene.dom0("cat /run/blkback.pid")?;
    told(&output, FAILED, &["already", first.trim()])
}

fn missing(scene: &Scene) -> Result<()> {
    refused(scene, &image("/tmp/none.img"), FAILED, &["/tmp/none.img", "no such file"])
}

fn short(scene: &Scene) -> Result<()> {
    scene.dom0("truncate -s 100 /tmp/short.img")?;
    refused(scene, &image("/tmp/short.img"), FAILED, &["/tmp/short.img", "100 bytes", "too short"])
}

fn ragged(scene: &Scene) -> Result<()> {
    scene.dom0("truncate -s 1000 /tmp/ragged.img")?;
    refused(scene, &image("/tmp/ragged.img"), FAILED, &["1000 bytes", "multiple of 512"])
}

fn directory(scene: &Scene) -> Result<()> {
    refused(scene, &image("/tmp"), FAILED, &["/tmp", "directory"])
}

fn read_only(scene: &Scene) -> Result<()> {
    scene.dom0("truncate -s 1M /tmp/ro.img; chmod 444 /tmp/ro.img")?;
    refused(scene, &image("/tmp/ro.img"), FAILED, &["/tmp/ro.img", "access=ro"])
}

fn format(scene: &Scene) -> Result<()> {
    let spec = "format=qcow2,vdev=xvda,access=rw,target=/tmp/a.qcow2";
    refused(scene, spec, USAGE, &["qcow2", "raw"])
}

fn no_target(scene: &Scene) -> Result<()> {
    refused(scene, "format=raw,vdev=xvda,access=rw", USAGE, &["target="])
}

fn bad_vdev(scene: &Scene) -> Result<()> {
    refused(scene, "format=raw,vdev=disk,access=rw,target=/tmp/a.img", USAGE, &["disk", "xvda"])
}

fn busy_vdev(scene: &Scene) -> Result<()> {
    scene.dom0("truncate -s 1M /tmp/one.img /tmp/two.img")?;
    scene.lab.attach(BYSTANDER, &image("/tmp/one.img"))?;
    refused(scene, &image("/tmp/two.img"), FAILED, &["xvda", "in use"])?;
    // The first disk is as it was.
    let list = scene.blkback(&format!("list {BYSTANDER}"))?.ok()?;
    ensure(list.contains("/tmp/one.img") && !list.contains("two.img"), || list.clone())?;
    detach(scene)
}

fn busy_image(scene: &Scene) -> Result<()> {
    scene.dom0("truncate -s 1M /tmp/one.img")?;
    scene.lab.attach(BYSTANDER, &image("/tmp/one.img"))?;
    let again = "format=raw,vdev=xvdb,access=rw,target=/tmp/one.img";
    refused(scene, again, FAILED, &["/tmp/one.img", "in use"])?;
    detach(scene)
}

/// Takes `xvda` from the bystander, which has never run and so cannot let go of it.
fn detach(scene: &Scene) -> Result<()> {
    scene.blkback(&format!("detach {BYSTANDER} xvda --force"))?.ok().map(drop)
}

fn no_domain(scene: &Scene) -> Result<()> {
    for domain in ["nobody", "4711"] {
        let output = scene.blkback(&format!("attach {domain} {}", image(PATTERN)))?;
        told(&output, FAILED, &[domain, "does not exist", "xl list"])?;
    }
    Ok(())
}

fn not_there(scene: &Scene) -> Result<()> {
    for verb in ["detach", "resize"] {
        let output = scene.blkback(&format!("{verb} {BYSTANDER} xvdq"))?;
        told(&output, FAILED, &["xvdq", "blkback list"])?;
    }
    Ok(())
}

/// The guest says one line about it and goes on, and its status tells.
fn guest_tells(scene: &Scene, name: &str, command: &str, words: &[&str]) -> Result<()> {
    let guest = Guest::pvblk(name, &format!("run=\"{command}; echo still here; poweroff\""));
    scene.lab.create(&guest)?;
    let status = scene.lab.wait_status(name, GUEST_TIMEOUT, |_| {})?;
    let console = scene.lab.guest_log(name);
    scene.lab.destroy(name)?;
    let line = console.lines().find(|line| words.iter().all(|word| line.contains(word)));
    ensure(line.is_some(), || format!("no line with {words:?}:\n{console}"))?;
    ensure(console.contains("still here"), || format!("it did not go on:\n{console}"))?;
    ensure(status != 0, || format!("status 0:\n{console}"))
}

fn unknown_command(scene: &Scene) -> Result<()> {
    guest_tells(scene, "typo", "frobnicate xvda", &["frobnicate", "help"])
}

fn unknown_disk(scene: &Scene) -> Result<()> {
    guest_tells(scene, "nodisk", "sha256 xvdz", &["xvdz"])
}

/// Xen maps 4 MiB at the start of any PV guest, so that its own builder refuses less; nothing
/// of the guest is left.
fn too_little_memory(scene: &Scene) -> Result<()> {
    // 1 MiB does not hold the kernel; 3 MiB hold no page tables for what a guest starts with.
    for (memory_mib, reason) in [(1, "segment kernel too large"), (3, "not enough memory")] {
        let guest = Guest { memory_mib, ..Guest::pvblk("tiny", "run=\"poweroff\"") };
        let Err(error) = scene.lab.create(&guest) else {
            return fail(format!("a guest of {memory_mib} MiB was built"));
        };
        let text = error.to_string();
        ensure(text.contains(reason), || format!("xl said: {text}"))?;
    }
    Ok(())
}

fn just_enough_memory(scene: &Scene) -> Result<()> {
    let guest = Guest { memory_mib: 4, ..Guest::pvblk("small", "run=\"sha256 xvda; poweroff\"") };
    let console = scene.play(&guest.disk(Backend::Pvblk, TREE, "xvda", true))?;
    ensure(console.contains("sha256: xvda: "), || format!("it read nothing:\n{console}"))
}
