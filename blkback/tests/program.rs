//! The program where there is no Xen: usage, dry runs, and what it says is missing.

use std::process::{Command, Output};

fn blkback(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blkback")).args(arguments).output().expect("it starts")
}

/// The exit code and what was said on standard error.
fn ended(arguments: &[&str]) -> (Option<i32>, String) {
    let output = blkback(arguments);
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [&[][..], &["attach"], &["attach", "g1"], &["frobnicate"], &["serve", "-x"]] {
        assert_eq!(ended(arguments).0, Some(2), "{arguments:?}");
    }
}

#[test]
fn help_names_the_exit_codes() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["attach", "--help"]] {
        let output = blkback(arguments);
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(output.status.code(), Some(0));
        for code in ["0 done", "1 failed", "2 usage", "3 not on Xen", "130 interrupted"] {
            assert!(text.contains(code), "{arguments:?}: {code}");
        }
    }
}

#[test]
fn without_xen_everything_that_needs_it_is_3_in_one_line() {
    if std::path::Path::new("/dev/xen/xenbus").exists() {
        return;
    }
    for arguments in [
        &["serve"][..],
        &["list"],
        &["attach", "g1", "/a,raw,xvda,w"],
        &["attach", "-N", "g1", "/a,raw,xvda,w"],
        &["detach", "g1", "xvda"],
        &["resize", "g1", "xvda"],
    ] {
        let (code, text) = ended(arguments);
        assert_eq!((code, text.lines().count()), (Some(3), 1), "{arguments:?}: {text}");
        assert!(text.contains("/dev/xen/xenbus"), "{text}");
    }
}

#[test]
fn a_dry_run_prints_both_directories_with_their_permissions() {
    if std::path::Path::new("/dev/xen/xenbus").exists() {
        return;
    }
    let spec = "format=raw,vdev=xvdb,access=ro,target=/images/a,b.img";
    let output = blkback(&["attach", "--dry-run", "7", spec]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0));
    for line in [
        "/local/domain/7/device/vbd/51728/state = \"1\"   (n7,r0)",
        "/local/domain/0/backend/pvblk/7/51728/mode = \"r\"   (n0,r7)",
        "/local/domain/0/backend/pvblk/7/51728/params = \"/images/a,b.img\"   (n0,r7)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let (code, text) = ended(&["attach", "-N", "7", "/a,qcow2,xvda,w"]);
    assert_eq!((code, text.lines().count()), (Some(2), 1));
    assert!(text.contains("only raw"));
}
