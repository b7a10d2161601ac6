//! Brings what this machine lacks: QEMU and a few small tools by apt-get, and Rust's bare target.
//!
//! It is the only place that changes the machine, and it only adds. Anything already there is left
//! alone, so a second run needs no network and takes milliseconds.

use std::path::Path;
use std::process::Command;

use crate::error::{LabError, Result};
use crate::host::{self, Host};

/// Programs that the tasks run, and the Debian packages that bring them.
const TOOLS: [(&str, &str); 10] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("gzip", "gzip"),
    ("lz4", "lz4"),
    ("mke2fs", "e2fsprogs"),
    ("setpriv", "util-linux"),
    ("sha256sum", "coreutils"),
    ("xz", "xz-utils"),
    ("cc", "gcc"),
];

/// The target that the guest kernel is built for.
pub const KERNEL_TARGET: &str = "x86_64-unknown-none";
/// The target of the programs that run in Dom0.
pub const DOM0_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Installs what is missing: host packages, then the Rust target.
///
/// Errors: [`LabError::Missing`] naming the packages when they cannot be installed from here.
pub fn ensure(host: Host) -> Result<()> {
    packages(host, &TOOLS)?;
    rust_target(host, KERNEL_TARGET)?;
    rust_target(host, DOM0_TARGET)
}

fn packages(host: Host, tools: &[(&str, &'static str)]) -> Result<()> {
    let missing = missing_packages(tools, |program| host::which(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let lacking =
        |why: &str| LabError::Missing(format!("{why}; install by hand: apt-get install {names}"));
    if host::which("apt-get").is_none() {
        return Err(lacking("this machine has no apt-get"));
    }
    if !is_root() && host::which("sudo").is_none() {
        return Err(lacking("not root, and no sudo"));
    }
    eprintln!("installing {names}");
    let install = || {
        let mut command = as_root("apt-get");
        command.args(["install", "-y", "--no-install-recommends"]).args(&missing);
        host.run(&mut command)
    };
    // A fresh machine has no package lists, an old one has lists of packages that are gone.
    if install().is_err() {
        apt_update(host)?;
        install().map_err(|error| lacking(&error.to_string()))?;
    }
    Ok(())
}

fn missing_packages(
    tools: &[(&str, &'static str)],
    has: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    tools.iter().filter(|(program, _)| !has(program)).map(|&(_, package)| package).collect()
}

/// Brings apt's package lists up to date.
pub fn apt_update(host: Host) -> Result<()> {
    host.run(as_root("apt-get").arg("update"))
        .map_err(|error| LabError::Missing(format!("no package lists (no network?): {error}")))
}

fn as_root(program: &str) -> Command {
    let mut command;
    if is_root() {
        command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive");
    } else {
        command = Command::new("sudo");
        command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    }
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn rust_target(host: Host, target: &str) -> Result<()> {
    let mut print = Command::new("rustc");
    let libraries = host.output(print.args(["--print", "target-libdir", "--target", target]))?;
    let folder = String::from_utf8_lossy(&libraries);
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    eprintln!("adding the Rust target {target}");
    host.run(Command::new("rustup").args(["target", "add", target])).map_err(|error| {
        LabError::Missing(format!("no Rust target; try: rustup target add {target}\n{error}"))
    })
}

/// Brings what the fuzzer is built with: a nightly toolchain, which has the sanitizers, and a C++
/// compiler for libFuzzer itself.
pub fn fuzzer(host: Host) -> Result<()> {
    packages(host, &[("c++", "g++")])?;
    let works = || host.output(host::nightly().args(["rustc", "--version"])).is_ok();
    if works() {
        return Ok(());
    }
    eprintln!("adding a nightly toolchain");
    let words = ["toolchain", "install", "nightly", "--profile", "minimal"];
    let install = host.run(Command::new("rustup").args(words));
    if works() {
        return Ok(());
    }
    let why = install.err().map(|error| error.to_string()).unwrap_or_default();
    let by_hand = format!("rustup {}", words.join(" "));
    Err(LabError::Missing(format!("no nightly toolchain; try: {by_hand}\n{why}")))
}

/// Brings the instruction counter for programs of this machine.
pub fn valgrind(host: Host) -> Result<()> {
    packages(host, &[("valgrind", "valgrind")])
}

/// Brings Miri, which exists for nightly toolchains only.
pub fn miri(host: Host) -> Result<()> {
    let works = || host.output(host::nightly().args(["cargo", "miri", "--version"])).is_ok();
    if works() {
        return Ok(());
    }
    eprintln!("adding Miri to the nightly toolchain");
    let parts = ["--component", "miri", "--component", "rust-src"];
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]).args(parts);
    let install = host.run(&mut rustup);
    if works() {
        return Ok(());
    }
    let why = install.err().map(|error| error.to_string()).unwrap_or_default();
    let by_hand = "rustup toolchain install nightly --component miri --component rust-src";
    Err(LabError::Missing(format!("no Miri; try: {by_hand}\n{why}")))
}

/// Brings a subcommand of cargo from crates.io.
pub fn cargo_tool(host: Host, name: &str) -> Result<()> {
    let verb = name.strip_prefix("cargo-").unwrap_or(name);
    let works = || host.output(host::cargo().args([verb, "--version"])).is_ok();
    if works() {
        return Ok(());
    }
    eprintln!("installing {name}");
    let install = host.run(host::cargo().args(["install", "--locked", name]));
    if works() {
        return Ok(());
    }
    let why = install.err().map(|error| error.to_string()).unwrap_or_default();
    Err(LabError::Missing(format!("no {name}; try: cargo install --locked {name}\n{why}")))
}

/// Brings LLVM's tools of the version that the compiler has.
pub fn llvm_tools(host: Host) -> Result<()> {
    let mut rustup = Command::new("rustup");
    // Says nothing and needs no network if it is there.
    host.run(rustup.args(["component", "add", "llvm-tools"])).map_err(|error| {
        LabError::Missing(format!("no LLVM tools; try: rustup component add llvm-tools\n{error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packages_of_absent_programs_are_asked_for() {
        assert_eq!(missing_packages(&TOOLS, |_| true), Vec::<&str>::new());
        assert_eq!(missing_packages(&TOOLS, |program| program != "depmod"), ["kmod"]);
    }
}
