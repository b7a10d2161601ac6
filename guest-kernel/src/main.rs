//! The kernel image. Everything is in the library; this gives the linker something to link.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use guest_kernel as _;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("pvblk is a kernel for Xen: build it with --target x86_64-unknown-none");
    std::process::exit(2);
}
