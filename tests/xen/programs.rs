//! Programs in an address space of their own, and the swap area that their memory goes to.

use std::time::Instant;

use xtask::error::Result;
use xtask::guest::{Backend, Guest};

use crate::isolation::states;
use crate::scene::{GUEST_TIMEOUT, LINUX, PATTERN, PROGRAMS, Scene, Story, ensure, fail};

pub(crate) const STORIES: &[Story] = &[
    ("programs_run_from_the_root_and_die_alone", run_and_die),
    ("four_times_the_memory_goes_to_swap_and_comes_back_whole", overcommit),
    ("a_long_program_ends_in_good_order_when_the_guest_is_shut_down", shut_down),
];

/// A guest of 24 MiB with the programs in the root of its first disk.
fn guest(scene: &Scene, name: &str, run: &str) -> Result<Guest> {
    let [_, root] = LINUX;
    scene.dom0(&format!(
        "modprobe ext4; mkfs.ext4 -q -F {root} && mkdir -p /tmp/root && mount {root} /tmp/root && \
         mkdir /tmp/root/bin && cp {PROGRAMS}/* /tmp/root/bin/ && umount /tmp/root"
    ))?;
    let line = format!("run=\"mount {MOUNT}; {run}; poweroff\"");
    let mut guest = Guest::pvblk(name, &line).disk(Backend::Pvblk, root, "xvda", true);
    guest.memory_mib = 24;
    Ok(guest)
}

/// How the root is mounted.
const MOUNT: &str = "ro /dev/xvda /";

/// The guest's console. The first command that fails gives the guest its status, and here some
/// must fail.
fn console(scene: &Scene, guest: &Guest) -> Result<String> {
    scene.lab.create(guest)?;
    let status = scene.lab.wait_status(&guest.name, crate::scene::GUEST_TIMEOUT, |_| {});
    let console = scene.lab.guest_log(&guest.name);
    scene.lab.destroy(&guest.name)?;
    match status? {
        4 => fail(format!("the guest crashed:\n{console}")),
        _ => Ok(console),
    }
}

fn run_and_die(scene: &Scene) -> Result<()> {
    let words = ["", "wild", "kernel", "frames", "code", "deep", "panic"];
    let run: Vec<String> = words.iter().map(|word| format!("hello {word}")).collect();
    let run = format!("{}; memtest 64M; nothing; echo alive", run.join("; "));
    let console = console(scene, &guest(scene, "programs", &run)?)?;
    for line in [
        "hello from hello, in an address space of its own",
        "hello: killed: writing 0x8000000000: not mapped",
        "hello: killed: reading 0x200000: not mapped",
        "hello: killed: reading 0xffff800000000000: not mapped",
        "not permitted, by the code at",
        "asked to",
        "memtest: killed: out of memory, and there is no swap",
        "pvblk: no command \"nothing\"",
        "alive",
        "pvblk: exit status 139",
    ] {
        ensure(console.contains(line), || format!("no {line:?}:\n{console}"))?;
    }
    ensure(!console.contains("can be read"), || format!("no protection:\n{console}"))
}

fn overcommit(scene: &Scene) -> Result<()> {
    let [swap, _] = LINUX;
    scene.dom0(&format!("mkswap -L spare {swap}"))?;
    let run = "swapon LABEL=spare; memtest 72M --swaps=20000; swapon -s; free; \
               /bin/dd if=xvda of=xvdc count=512; swapoff";
    let guest = guest(scene, "overcommit", run)?;
    let guest = guest.disk(Backend::Pvblk, swap, "xvdb", false);
    let guest = guest.disk(Backend::Pvblk, PATTERN, "xvdc", false);
    let console = scene.play(&guest)?;
    for line in ["memtest: 18432 pages", " 0 wrong", "Swap:", "dd: 4096 sectors", "swap off xvdb"] {
        ensure(console.contains(line), || format!("no {line:?}:\n{console}"))?;
    }
    let [_, root] = LINUX;
    scene.dom0(&format!("cmp -n 2097152 {root} {PATTERN}")).map(drop)
}

fn shut_down(scene: &Scene) -> Result<()> {
    let [swap, _] = LINUX;
    scene.dom0(&format!("mkswap -L spare {swap}"))?;
    // One that is in swap all the time, and one that asks the kernel for nothing.
    for (size, swaps) in [("72M", "swaps"), ("4M", "accesses")] {
        let run = format!("swapon LABEL=spare; memtest {size} --{swaps}=1000000000; echo not-run");
        let guest = guest(scene, "long", &run)?.disk(Backend::Pvblk, swap, "xvdb", false);
        scene.lab.create(&guest)?;
        scene.lab.wait_guest("long", "memtest: written", GUEST_TIMEOUT)?;
        scene.dom0("usleep 500000")?;
        let begin = Instant::now();
        scene.dom0("xl shutdown long")?;
        let status = scene.lab.wait_status("long", GUEST_TIMEOUT, |_| {});
        let (console, states) = (scene.lab.guest_log("long"), states(scene, "long")?);
        scene.lab.destroy("long")?;
        println!("    {size}: ended after {:.1} s", begin.elapsed().as_secs_f64());
        let last = console.split("memtest: written").nth(1).unwrap_or_default();
        for text in ["memtest: interrupted", "the toolstack wants the guest to end"] {
            ensure(last.contains(text), || format!("{size}: no {text:?}:\n{console}"))?;
        }
        ensure(status? == 130 && states == "6 6", || format!("{states}:\n{console}"))?;
        ensure(!last.contains("not-run"), || format!("it went on:\n{console}"))?;
    }
    Ok(())
}
