//! Hands the kernel's linker script to the linker, for the kernel's target only.

fn main() {
    println!("cargo::rerun-if-changed=kernel.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel.ld");
    // The target calls the linker itself, so the arguments have no "-Wl,". The addresses are
    // fixed (Xen loads the image where it says), so nothing is left to relocate.
    for argument in ["--no-pie", "--strip-all", "-z", "noexecstack"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
