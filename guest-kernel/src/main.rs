//! The image of a guest: it uses its disks and runs commands. Everything is in the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
guest_kernel::kernel_main!(guest_kernel::boot::shell);

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("pvblk is a kernel for Xen: build it with --target x86_64-unknown-none");
    std::process::exit(2);
}
