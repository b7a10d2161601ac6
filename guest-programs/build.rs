//! Hands the programs' linker script to the linker, for the guest's target only.

fn main() {
    println!("cargo::rerun-if-changed=program.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/program.ld");
    // The target calls the linker itself, so the arguments have no "-Wl,". The addresses are
    // fixed: the kernel loads a program where it says.
    for argument in ["--no-pie", "--strip-all", "-z", "noexecstack"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
