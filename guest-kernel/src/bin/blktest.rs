//! The image of a guest that tests the back of its disk. Everything is in the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
guest_kernel::kernel_main!(guest_kernel::boot::test_back);

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("blktest is a kernel for Xen: build it with --target x86_64-unknown-none");
    std::process::exit(2);
}
