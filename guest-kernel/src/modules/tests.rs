//! A small object, written here byte by byte, in every state of repair.

extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use elf::abi::{
    R_X86_64_16, R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_GOTPCREL, R_X86_64_PC32,
    R_X86_64_PC64, R_X86_64_PLT32,
};
use module_abi::{ENTRY, MAGIC, VERSION, padded};

use super::*;

/// Where the module goes, and where the one symbol of the kernel's is.
const BASE: u64 = 0x40_0000;
const PRINT: u64 = 0x1234;

/// Numbers of the sections and of the symbols.
const TEXT: u16 = 1;
const RODATA: u16 = 2;
const BSS: u16 = 3;
const SYM_TEXT: u32 = 1;
const SYM_BSS: u32 = 2;
const SYM_ENTRY: u32 = 3;
const SYM_PRINT: u32 = 4;

/// Where the headers of the sections start, and the sections themselves.
const HEADERS: usize = 64;
const TEXT_AT: usize = HEADERS + 8 * 64;
const TEXT_BYTES: usize = 64;
const RODATA_AT: usize = TEXT_AT + TEXT_BYTES;
const RODATA_BYTES: usize = 56;

struct Rela(u64, u32, u32, i64);

fn header(
    words: [u32; 2],
    flags: u64,
    place: [usize; 2],
    links: [u32; 2],
    sizes: [u64; 2],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend(flags.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    place.iter().for_each(|&word| bytes.extend((word as u64).to_le_bytes()));
    links.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    sizes.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes
}

fn symbol(name: usize, info: u8, section: u16, value: u64) -> Vec<u8> {
    let mut bytes = u32::try_from(name).expect("small").to_le_bytes().to_vec();
    bytes.extend([info, 0]);
    bytes.extend(section.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes
}

fn relas(list: &[Rela]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Rela(offset, kind, symbol, addend) in list {
        bytes.extend(offset.to_le_bytes());
        bytes.extend((u64::from(*symbol) << 32 | u64::from(*kind)).to_le_bytes());
        bytes.extend(addend.to_le_bytes());
    }
    bytes
}

/// An object with code, a description, cleared data, and these relocations of its code.
fn object(of_text: &[Rela]) -> Vec<u8> {
    let mut names = vec![0];
    let mut name = |text: &str| {
        let at = names.len();
        names.extend(text.as_bytes());
        names.push(0);
        at
    };
    let mut symbols = symbol(0, 0, 0, 0);
    symbols.extend(symbol(0, 3, TEXT, 0));
    symbols.extend(symbol(0, 3, BSS, 0));
    symbols.extend(symbol(name(ENTRY), 0x11, RODATA, 0));
    symbols.extend(symbol(name("pvblk_print"), 0x10, 0, 0));
    let mut rodata = MAGIC.to_le_bytes().to_vec();
    rodata.extend(VERSION.to_le_bytes());
    rodata.extend([0; 4]);
    rodata.extend(padded("little"));
    rodata.extend([0; 16]);
    let functions = [Rela(40, R_X86_64_64, SYM_TEXT, 0), Rela(48, R_X86_64_64, SYM_TEXT, 1)];
    let (functions, of_text) = (relas(&functions), relas(of_text));
    let pieces = [&[0x90; TEXT_BYTES][..], &rodata, &symbols, &names, &functions, &of_text];
    let mut at = [TEXT_AT; 7];
    for piece in 0..6 {
        at[piece + 1] = at[piece] + pieces[piece].len();
    }
    let place = |piece: usize| [at[piece], pieces[piece].len()];
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    bytes.extend([0; 16]);
    bytes.extend((HEADERS as u64).to_le_bytes());
    bytes.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 8, 0, 5, 0]);
    bytes.extend([0; 64]);
    bytes.extend(header([0, 1], 6, place(0), [0; 2], [16, 0]));
    bytes.extend(header([0, 1], 2, place(1), [0; 2], [8, 0]));
    bytes.extend(header([0, 8], 3, [0, 5000], [0; 2], [4096, 0]));
    bytes.extend(header([0, 2], 0, place(2), [5, 3], [8, 24]));
    bytes.extend(header([0, 3], 0, place(3), [0; 2], [1, 0]));
    bytes.extend(header([0, 4], 0, place(4), [4, u32::from(RODATA)], [8, 24]));
    bytes.extend(header([0, 4], 0, place(5), [4, u32::from(TEXT)], [8, 24]));
    pieces.iter().for_each(|piece| bytes.extend(*piece));
    assert_eq!(place(1), [RODATA_AT, RODATA_BYTES]);
    bytes
}

fn export(name: &str) -> Option<u64> {
    (name == "pvblk_print").then_some(PRINT)
}

fn link(file: &[u8], base: u64) -> Result<Linked, Refusal> {
    Object::parse(file)?.link(base, export)
}

/// The file with these bytes at this place.
fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn refusal(file: &[u8]) -> Refusal {
    link(file, BASE).expect_err("it is to be refused")
}

#[test]
fn parts_lie_on_pages_of_their_own_and_functions_in_code() {
    let file = object(&[]);
    let module = Object::parse(&file).expect("a module");
    assert_eq!(module.name(), "little");
    assert_eq!(*module.parts(), Parts { code: 0..1, constants: 1..2, data: 2..4 });
    let linked = module.link(BASE, export).expect("nothing is missing");
    assert_eq!(linked.bytes.len(), 4 * 4096);
    assert_eq!((linked.init, linked.exit), (BASE, BASE + 1));
    assert_eq!(linked.bytes[..64], [0x90; 64]);
    assert_eq!(linked.bytes[4096..4104], MAGIC.to_le_bytes());
    assert!(linked.bytes[2 * 4096..].iter().all(|&byte| byte == 0));
}

#[test]
fn each_relocation_is_computed_as_the_supplement_says() {
    let bss = BASE + 2 * 4096;
    let file = object(&[
        Rela(0, R_X86_64_64, SYM_BSS, 5),
        Rela(8, R_X86_64_32, SYM_BSS, -1),
        Rela(12, R_X86_64_32S, SYM_PRINT, -0x2000),
        Rela(16, R_X86_64_PC32, SYM_PRINT, -4),
        Rela(20, R_X86_64_PLT32, SYM_TEXT, -4),
        Rela(24, R_X86_64_PC64, SYM_ENTRY, 0),
        Rela(32, R_X86_64_GOTPCREL, SYM_PRINT, -4),
        Rela(36, R_X86_64_GOTPCREL, SYM_PRINT, 0),
    ]);
    let bytes = link(&file, BASE).expect("a module").bytes;
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    let short = |at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    assert_eq!(long(0), bss + 5);
    assert_eq!(short(8), 0x40_1fff);
    assert_eq!(short(12), 0x1234 - 0x2000);
    assert_eq!(short(16), 0x1234 - 4 - (0x40_0000 + 16));
    assert_eq!(short(20), -4 - 20);
    assert_eq!(long(24), 4096 - 24);
    // One place for the address, behind the description.
    let place = 4096 + RODATA_BYTES;
    assert_eq!(long(place), PRINT);
    let place = i32::try_from(place).expect("small");
    assert_eq!(short(32), place - 4 - 32);
    assert_eq!(short(36), place - 36);
}

#[test]
fn a_field_takes_its_last_value_and_not_the_one_past_it() {
    let at = |base, kind, addend| {
        let file = object(&[Rela(4, kind, SYM_TEXT, addend)]);
        link(&file, base).map(drop)
    };
    let far = Err(Refusal::OutOfReach("".into()));
    let base = i64::try_from(BASE).expect("small");
    assert_eq!(at(BASE, R_X86_64_32, i64::from(u32::MAX) - base), Ok(()));
    assert_eq!(at(BASE, R_X86_64_32, i64::from(u32::MAX) - base + 1), far);
    assert_eq!(at(BASE, R_X86_64_32, -base - 1), far);
    assert_eq!(at(BASE, R_X86_64_32S, i64::from(i32::MAX) - base), Ok(()));
    assert_eq!(at(BASE, R_X86_64_32S, i64::from(i32::MAX) - base + 1), far);
    assert_eq!(at(BASE, R_X86_64_32S, i64::from(i32::MIN) - base), Ok(()));
    assert_eq!(at(BASE, R_X86_64_32S, i64::from(i32::MIN) - base - 1), far);
    assert_eq!(at(BASE, R_X86_64_PC32, i64::from(i32::MAX) + 4), Ok(()));
    assert_eq!(at(BASE, R_X86_64_PC32, i64::from(i32::MAX) + 5), far);
    // Loaded too far from the kernel.
    let file = object(&[Rela(4, R_X86_64_PLT32, SYM_PRINT, -4)]);
    assert!(link(&file, 1 << 30).is_ok());
    assert_eq!(link(&file, 1 << 32).map(drop), Err(Refusal::OutOfReach("pvblk_print".into())));
}

#[test]
fn what_is_no_module_of_ours_is_refused_by_name() {
    let good = object(&[Rela(0, R_X86_64_PLT32, SYM_PRINT, -4)]);
    assert!(link(&good, BASE).is_ok());
    let not = |at, bytes: &[u8]| refusal(&with(good.clone(), at, bytes)).to_string();
    let object_text = "not a relocatable object for x86-64: ";
    assert_eq!(not(18, &[183]), std::format!("{object_text}another machine's"));
    assert_eq!(not(16, &[2]), std::format!("{object_text}linked already"));
    assert!(not(0, b"#!/b").starts_with(object_text));
    assert!(not(5, &[2]).starts_with(object_text), "another byte order");
    assert_eq!(refusal(b"").to_string(), not(0, b"#!/b"));
    assert_eq!(not(RODATA_AT, b"P"), "no module: it has no pvblk_module");
    assert_eq!(not(RODATA_AT + 8, &[1]), "built for version 1 of the module interface: this is 2");
    assert_eq!(not(RODATA_AT + 16, &[0]), "malformed: the name of the module");
    assert_eq!(not(RODATA_AT + 16, b" "), "malformed: the name of the module");
    let name = good.windows(5).position(|bytes| bytes == b"print").expect("a symbol");
    assert_eq!(not(name, b"w"), "unknown symbol pvblk_wrint");
    assert_eq!(
        refusal(&object(&[Rela(0, R_X86_64_16, SYM_TEXT, 0)])).to_string(),
        "unsupported relocation of type 12"
    );
    // Writable code: the flags of the first section.
    assert!(not(HEADERS + 64 + 8, &[7]).contains("both writable and executable"));
    // init points behind the code.
    let last = good.len() - 24;
    assert!(not(last - 48 + 16, &[0, 16]).contains("init or exit"));
}

#[test]
fn a_relocation_at_the_end_of_its_section_is_applied_and_one_past_it_is_refused() {
    let end = TEXT_BYTES as u64;
    let at = |offset, kind| link(&object(&[Rela(offset, kind, SYM_TEXT, 0)]), BASE);
    assert!(at(end - 4, R_X86_64_32).is_ok());
    assert!(at(end - 8, R_X86_64_64).is_ok());
    for (offset, kind) in [(end - 3, R_X86_64_32), (end - 7, R_X86_64_64), (u64::MAX, R_X86_64_32)]
    {
        let outside = Refusal::Malformed("a relocation outside of its section");
        assert_eq!(at(offset, kind), Err(outside));
    }
    assert!(link(&object(&[Rela(0, R_X86_64_64, 99, 0)]), BASE).is_err(), "no such symbol");
}

#[test]
fn a_module_of_the_largest_size_is_taken_and_one_of_a_byte_more_is_not() {
    // The cleared section begins on the third page.
    let size = HEADERS + 3 * 64 + 32;
    let largest = (PAGES_MAX - 2) * 4096;
    let of = |bytes: u64| {
        Object::parse(&with(object(&[]), size, &bytes.to_le_bytes())).map(|it| it.parts().pages())
    };
    assert_eq!(of(largest), Ok(PAGES_MAX));
    let too_large = Err(Refusal::TooLarge("the module in memory"));
    assert_eq!(of(largest + 1), too_large);
    assert_eq!(of(u64::MAX), too_large);
    let mut file = object(&[]);
    file.resize(FILE_MAX, 0);
    assert!(link(&file, BASE).is_ok());
    file.push(0);
    assert_eq!(refusal(&file), Refusal::TooLarge("the file"));
}

#[test]
fn many_relocation_tables_over_the_same_bytes_are_refused() {
    // 512 tables of the whole file each.
    let mut file = object(&[]);
    let headers = file.len();
    let copy = file[HEADERS..TEXT_AT].to_vec();
    file.extend(copy);
    file.resize(FILE_MAX - 512 * 64, 0);
    let whole = [0, file.len() / 24 * 24];
    let end = file.len();
    let tables = header([0, 4], 0, whole, [4, u32::from(TEXT)], [8, 24]).repeat(504);
    let moved = file[headers..headers + 8 * 64].to_vec();
    file.extend(moved);
    file.extend(tables);
    let file = with(file, 40, &(end as u64).to_le_bytes());
    let file = with(file, 60, &512_u16.to_le_bytes());
    assert_eq!(refusal(&file), Refusal::TooLarge("the relocations"));
}

#[test]
fn no_damage_makes_it_panic_or_write_outside() {
    let good = object(&[
        Rela(0, R_X86_64_64, SYM_BSS, 5),
        Rela(8, R_X86_64_PLT32, SYM_PRINT, -4),
        Rela(12, R_X86_64_GOTPCREL, SYM_PRINT, -4),
    ]);
    let mut seed = 3_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).expect("31 bits") % below
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let mut file = good.clone();
        for _ in 0..=random(3) {
            let at = random(file.len());
            let edges = [0, 1, 0x7f, 0x80, 0xff, file[at] ^ 1 << random(8)];
            let run = [1, 1, 4, 8][random(4)].min(file.len() - at);
            let byte = edges[random(edges.len())];
            file[at..at + run].fill(byte);
        }
        if random(10) == 0 {
            file.truncate(random(file.len() + 1));
        }
        match link(&file, BASE) {
            Ok(linked) => {
                taken += 1;
                assert!(linked.bytes.len() as u64 <= PAGES_MAX * 4096);
                assert!((BASE..BASE + linked.bytes.len() as u64).contains(&linked.init));
            }
            Err(refusal) => {
                refused += 1;
                assert!(!refusal.to_string().contains('\n'));
            }
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}
