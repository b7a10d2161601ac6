//! Devices of a module that notes what it is called with.

extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use blkif::SECTORS_MAX;
use module_abi::{FAILED, Text, WORD_MAX};
use spin::Mutex;

use super::super::Desk;
use super::*;

/// What the devices were called with: state, what, sector, sectors.
static CALLS: Mutex<Vec<(usize, &str, u64, u64)>> = Mutex::new(Vec::new());

fn note(state: *mut c_void, what: &'static str, sector: u64, sectors: u64) {
    CALLS.lock().push((state.addr(), what, sector, sectors));
}

/// The calls of one device.
fn calls(state: usize) -> Vec<(&'static str, u64, u64)> {
    let calls = CALLS.lock();
    calls.iter().filter(|call| call.0 == state).map(|call| (call.1, call.2, call.3)).collect()
}

extern "C" fn destroy(state: *mut c_void) {
    note(state, "destroy", 0, 0);
}

extern "C" fn read(state: *mut c_void, sector: u64, data: *mut u8, sectors: u64) -> u32 {
    assert!(!data.is_null());
    note(state, "read", sector, sectors);
    // The answer is the sector, to see what becomes of each.
    u32::try_from(sector).unwrap_or(FAILED)
}

extern "C" fn write(state: *mut c_void, sector: u64, data: *const u8, sectors: u64) -> u32 {
    assert!(!data.is_null());
    note(state, "write", sector, sectors);
    u32::try_from(sector).unwrap_or(FAILED)
}

extern "C" fn flush(state: *mut c_void) -> u32 {
    note(state, "flush", 0, 0);
    // One of the devices cannot.
    if state.addr() == 2 { FAILED } else { DONE }
}

/// The code of a device: what goes last.
struct Code(usize);

impl Drop for Code {
    fn drop(&mut self) {
        note(core::ptr::without_provenance_mut(self.0), "code", 0, 0);
    }
}

fn table(state: usize, sectors: u64) -> BlockTable {
    BlockTable {
        name: Text::new(""),
        sectors,
        read_only: 0,
        reserved: 0,
        state: core::ptr::without_provenance_mut(state),
        destroy,
        read,
        write,
        flush,
    }
}

fn desk() -> Desk {
    Desk { room_for_disks: 2, ..Desk::default() }
}

#[test]
fn a_medium_passes_on_what_it_is_asked_and_what_is_answered() {
    let mut desk = desk();
    assert_eq!(desk.block("ram0", &table(1, 8)), Ok(()));
    assert_eq!(desk.block("ram1", &table(2, 8)), Ok(()));
    let code = Arc::new(());
    let [mut one, mut two] =
        [desk.blocks.remove(0), desk.blocks.remove(0)].map(|block| block.medium(&code));
    let mut page = [0; 4096];
    assert_eq!(one.read(0, &mut page[..1024]), Status::Okay);
    assert_eq!(one.read(1, &mut page), Status::Error);
    assert_eq!(one.write(0, &page), Status::Okay);
    // Whatever is not "done" is an error.
    for sector in [1, 2, 255, u64::from(u32::MAX)] {
        assert_eq!(one.write(sector, &page[..512]), Status::Error);
    }
    assert_eq!((one.flush(), two.flush()), (Status::Okay, Status::Error));
    let expected = [("read", 0, 2), ("read", 1, 8), ("write", 0, 8), ("write", 1, 1)];
    assert_eq!(calls(1)[..4], expected);
    assert_eq!(calls(2), [("flush", 0, 0)]);
}

#[test]
fn a_device_ends_once_with_its_medium_and_the_code_is_there_until_then() {
    let mut desk = desk();
    assert_eq!(desk.block("ram0", &table(3, 8)), Ok(()));
    let code = Arc::new(Code(3));
    let medium = desk.blocks.remove(0).medium(&code);
    drop((desk, code));
    assert_eq!(calls(3), []);
    drop(medium);
    assert_eq!(calls(3), [("destroy", 0, 0), ("code", 0, 0)]);
}

#[test]
fn what_was_registered_ends_with_the_desk_and_what_was_refused_stays_the_modules() {
    let mut desk = desk();
    assert_eq!(desk.block("ram0", &table(4, 8)), Ok(()));
    assert_eq!(desk.block("ram0", &table(5, 8)), Err(Refused::NameTaken));
    assert_eq!(desk.refused, Some(("ram0".to_string(), Refused::NameTaken)));
    assert_eq!(desk.block("ram1", &table(6, 0)), Err(Refused::BadSize));
    drop(desk);
    assert_eq!(calls(4), [("destroy", 0, 0)]);
    assert_eq!((calls(5), calls(6)), (vec![], vec![]));
}

#[test]
fn a_name_is_letters_and_digits_and_nobody_elses() {
    let longest = std::format!("r{}", "0".repeat(WORD_MAX - 1));
    for name in ["a0", "ram0", "ram15", "loop007", &longest] {
        assert_eq!(desk().block(name, &table(7, 8)), Ok(()), "{name}");
    }
    let too_long = longest.clone() + "0";
    for name in [
        "",
        "ram",
        "0",
        "0ram",
        "ram0p1",
        "Ram0",
        "ram 0",
        "ram-0",
        "ram0\n",
        "räm0",
        "/dev/ram0",
        "LABEL=0",
        &too_long,
    ] {
        assert_eq!(desk().block(name, &table(7, 8)), Err(Refused::BadName), "{name:?}");
    }
    // As is every name that Xen's disks have, there or not.
    for name in ["xvda", "xvda1", "xvdaa", "xvd0", "vbd768", "ram9"] {
        let mut desk = Desk { taken_disks: vec!["ram9".to_string()], ..desk() };
        assert_eq!(desk.block(name, &table(7, 8)), Err(Refused::NameTaken), "{name}");
    }
}

#[test]
fn there_are_as_many_as_there_is_room_for_and_not_one_more() {
    let mut desk = desk();
    for (name, taken) in [("a0", Ok(())), ("b0", Ok(())), ("c0", Err(Refused::TooMany))] {
        assert_eq!(desk.block(name, &table(8, 8)), taken);
    }
}

#[test]
fn a_size_is_from_one_sector_to_the_most_that_a_disk_has() {
    for (sectors, taken) in [
        (0, Err(Refused::BadSize)),
        (1, Ok(())),
        (SECTORS_MAX, Ok(())),
        (SECTORS_MAX + 1, Err(Refused::BadSize)),
        (u64::MAX, Err(Refused::BadSize)),
    ] {
        let mut desk = desk();
        assert_eq!(desk.block("ram0", &table(9, sectors)), taken, "{sectors}");
        assert!(desk.blocks.iter().all(|block| block.geometry.sectors == sectors));
    }
    let mut desk = desk();
    let table = BlockTable { read_only: 1, ..table(9, 8) };
    assert_eq!(desk.block("ram0", &table), Ok(()));
    assert!(desk.blocks[0].geometry.read_only());
}
