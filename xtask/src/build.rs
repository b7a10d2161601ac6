//! Our own programs, built for where they run: the agent and `blkback` for Dom0, the guest kernel.
//!
//! Programs for Dom0 are linked statically, so that they do not depend on which C library Dom0 has,
//! and have their own folder below `target`: other flags must not rebuild everything else.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host, TRIAL};
use crate::setup::{DOM0_TARGET, KERNEL_TARGET};

/// What runs inside the guest in an address space of its own.
pub const GUEST_PROGRAMS: [&str; 3] = ["hello", "memtest", "dd"];

/// Builds the lab's agent; gives its path.
pub fn agent(host: Host) -> Result<PathBuf> {
    dom0_program(host, &["-p", "xtask", "--bin", "dom0-agent", "--no-default-features"])
        .map(|folder| folder.join("dom0-agent"))
}

/// Builds the backend; gives its path.
pub fn blkback(host: Host) -> Result<PathBuf> {
    backs(host).map(|folder| folder.join("blkback"))
}

/// Builds the backend without manners; gives its path.
pub fn spite(host: Host) -> Result<PathBuf> {
    backs(host).map(|folder| folder.join("spite"))
}

/// Builds both at the same time, which takes hardly longer than one of them.
fn backs(host: Host) -> Result<PathBuf> {
    dom0_program(host, &["-p", "blkback", "--bins"])
}

/// Builds the tests of the backend's library as a program for Dom0; gives its path.
pub fn blkback_tests(host: Host) -> Result<PathBuf> {
    test_program(host, dom0_cargo("test", TRIAL).args(["-p", "blkback", "--lib"]))
}

/// Builds what a `cargo test` for one target would run; gives its path.
pub fn test_program(host: Host, cargo: &mut Command) -> Result<PathBuf> {
    let messages = host.output(cargo.args(["--no-run", "--message-format=json"]))?;
    // One line for each thing built; only a test has a program.
    let path = String::from_utf8_lossy(&messages).lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    path.ok_or_else(|| LabError::Failed("cargo names no program of the tests".into()))
}

/// Builds the guest kernel; gives its path.
pub fn guest_kernel(host: Host) -> Result<PathBuf> {
    image(host, "pvblk")
}

/// Builds the kernel that tests the back of its disk; gives its path.
pub fn blktest(host: Host) -> Result<PathBuf> {
    image(host, "blktest")
}

/// Builds all kernels at the same time, as above; gives the path of one.
fn image(host: Host, name: &str) -> Result<PathBuf> {
    let mut cargo = host::cargo();
    cargo.args(["build", "--release", "-p", "guest-kernel", "--bins"]);
    cargo.args(["--target", KERNEL_TARGET, "--target-dir"]).arg(host::target());
    host.run(&mut cargo)?;
    Ok(host::target().join(KERNEL_TARGET).join("release").join(name))
}

/// The names of the kernel modules, folders of `modules/`.
pub const MODULES: [&str; 2] = ["sstf", "ramdisk"];

/// Builds a kernel module; gives its path.
///
/// One relocatable object: whole-program optimization puts into it what it needs of the libraries,
/// and what is left undefined is the kernel's.
pub fn module(host: Host, name: &str) -> Result<PathBuf> {
    let folder = host::target().join("modules");
    fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{name}.ko"));
    let mut cargo = host::cargo();
    cargo.args(["rustc", "-p", name, "--profile", "module", "--target", KERNEL_TARGET]);
    cargo.args(["--crate-type", "staticlib", "--target-dir"]).arg(host::target());
    cargo.args(["--", "-C", "relocation-model=static", "-C", "force-unwind-tables=no"]);
    cargo.arg(format!("--emit=obj={}", path.display()));
    host.run(&mut cargo)?;
    Ok(path)
}

/// Builds the programs that run inside the guest; gives the folder that holds [`GUEST_PROGRAMS`].
pub fn guest_programs(host: Host) -> Result<PathBuf> {
    let mut cargo = host::cargo();
    cargo.args(["build", "--release", "-p", "guest-programs", "--target", KERNEL_TARGET]);
    cargo.arg("--target-dir").arg(host::target());
    host.run(&mut cargo)?;
    Ok(host::target().join(KERNEL_TARGET).join("release"))
}

fn dom0_program(host: Host, arguments: &[&str]) -> Result<PathBuf> {
    host.run(dom0_cargo("build", "release").args(arguments))?;
    Ok(dom0_target().join(DOM0_TARGET).join("release"))
}

fn dom0_target() -> PathBuf {
    host::target().join("dom0")
}

fn dom0_cargo(verb: &str, profile: &str) -> Command {
    let mut cargo = host::cargo();
    cargo.args([verb, "--profile", profile, "--target", DOM0_TARGET]);
    cargo.arg("--target-dir").arg(dom0_target());
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo
}
