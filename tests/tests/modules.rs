//! The modules that we ship, as they are built, against the kernel's loader.
//!
//! They run on real Xen (`tests/xen`); here only their files are looked at, and damaged.

use std::fs;

use guest_kernel::modules::{FILE_MAX, Linked, Object, Refusal};
use module_abi::{EXPORTS, MAGIC, VERSION};
use xtask::build;
use xtask::host::Host;

/// Where a module goes, and where the kernel's exports are, one after another.
const BASE: u64 = 0x20_0000;
const KERNEL: u64 = 0x1000;

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let file = |name| {
        let path = build::module(Host::default(), name).expect("it can be built");
        (name, fs::read(path).expect("it was built"))
    };
    build::MODULES.into_iter().map(file).collect()
}

fn export(name: &str) -> Option<u64> {
    let at = EXPORTS.iter().position(|export| *export == name)?;
    Some(KERNEL + 16 * at as u64)
}

fn link(file: &[u8]) -> Result<Linked, Refusal> {
    Object::parse(file)?.link(BASE, export)
}

/// Replaces the one place that holds `from`.
fn replace(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..file.len()).filter(|&at| file[at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("{from:?} is at {places:?}") };
    let mut file = file.to_vec();
    file[at..at + to.len()].copy_from_slice(to);
    file
}

#[test]
fn each_is_a_small_module_of_this_version_that_needs_nothing_but_the_exports() {
    for (name, file) in files() {
        assert!(file.len() < FILE_MAX / 4, "{name}: {} bytes", file.len());
        let object = Object::parse(&file).expect("a module");
        assert_eq!(object.name(), name);
        assert!(object.parts().pages() <= 16, "{name}: {:?}", object.parts());
        let linked = link(&file).expect("nothing is missing");
        assert_ne!(linked.init, linked.exit);
        assert_eq!(link(&file), Ok(linked), "the same every time");
    }
}

#[test]
fn another_version_and_an_unknown_symbol_are_refused_by_name() {
    for (_, file) in files() {
        let old = replace(&file, &MAGIC.to_le_bytes(), &MAGIC.to_le_bytes());
        assert_eq!(old, file, "found once");
        let described = [&MAGIC.to_le_bytes()[..], &VERSION.to_le_bytes()].concat();
        let other = [&MAGIC.to_le_bytes()[..], &(VERSION + 1).to_le_bytes()].concat();
        let other = replace(&file, &described, &other);
        assert_eq!(link(&other), Err(Refusal::Version(VERSION + 1)));
        let unknown = replace(&file, b"\0pvblk_print\0", b"\0pvblk_point\0");
        assert_eq!(link(&unknown), Err(Refusal::UnknownSymbol("pvblk_point".into())));
        let object = Object::parse(&file).expect("a module");
        let missing = object.link(BASE, |name| export(name).filter(|_| name != "memcpy"));
        assert_eq!(missing, Err(Refusal::UnknownSymbol("memcpy".into())));
    }
}

#[test]
fn no_damage_to_a_module_makes_the_loader_panic() {
    let mut seed = 11_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).expect("31 bits") % below
    };
    for (name, file) in files() {
        // Headers, symbols and relocations are at the end of what the compiler writes.
        let (mut taken, mut refused) = (0, 0);
        for round in 0..2000 {
            let mut damaged = file.clone();
            for _ in 0..=random(8) {
                let first = if round % 2 == 0 { 0 } else { file.len() / 2 };
                let at = first + random(file.len() - first);
                damaged[at] = [0, 0xff, damaged[at] ^ 1 << random(8)][random(3)];
            }
            if round % 50 == 0 {
                damaged.truncate(random(file.len()));
            }
            match link(&damaged) {
                Ok(_) => taken += 1,
                Err(refusal) => {
                    refused += 1;
                    assert!(!refusal.to_string().contains(char::is_control));
                }
            }
        }
        assert!(taken > 10 && refused > 10, "{name}: {taken} taken, {refused} refused");
    }
}
