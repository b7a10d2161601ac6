//! Relocatable objects: sections, symbols and relocations, and what becomes of them.

use guest_kernel::modules::{Object, PAGES_MAX};
use module_abi::{ENTRY, EXPORTS, MAGIC, VERSION, padded};

use super::super::choices::{Choices, damage};
use super::{HEADER_BYTES, PAGE_BYTES, header, short};

const SECTION_BYTES: usize = 64;
/// Types of sections (`SHT_`).
const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const RELA: u32 = 4;
const NOBITS: u32 = 8;

/// A section as it is going to be in the file.
struct Section {
    kind: u32,
    flags: u64,
    bytes: Vec<u8>,
    /// For one without bytes in the file.
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry_bytes: u64,
}

impl Section {
    fn new(kind: u32, flags: u64, bytes: Vec<u8>) -> Self {
        let (size, entry_bytes) =
            (bytes.len() as u64, if kind == SYMTAB || kind == RELA { 24 } else { 0 });
        Self { kind, flags, bytes, size, link: 0, info: 0, align: 8, entry_bytes }
    }
}

/// A relocatable object of these sections; the first one, which is none, is added.
fn object(sections: &[Section]) -> Vec<u8> {
    let mut headers = vec![0; SECTION_BYTES];
    let mut contents = Vec::new();
    let start = HEADER_BYTES + SECTION_BYTES * (sections.len() + 1);
    for section in sections {
        let at = (start + contents.len()) as u64;
        headers.extend([0, section.kind].map(u32::to_le_bytes).concat());
        headers.extend([section.flags, 0, at, section.size].map(u64::to_le_bytes).concat());
        headers.extend([section.link, section.info].map(u32::to_le_bytes).concat());
        headers.extend([section.align, section.entry_bytes].map(u64::to_le_bytes).concat());
        contents.extend(&section.bytes);
        contents.resize(contents.len().next_multiple_of(8), 0);
    }
    let mut file = header(1);
    file[40..48].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&short(sections.len() + 1).to_le_bytes());
    [file, headers, contents].concat()
}

fn symbol(name: usize, info: u8, section: u16, value: u64) -> Vec<u8> {
    let name = u32::try_from(name).unwrap_or(0);
    let head = [&name.to_le_bytes()[..], &[info, 0], &section.to_le_bytes()].concat();
    [head, [value, 0].map(u64::to_le_bytes).concat()].concat()
}

fn relocation(offset: u64, kind: u32, symbol: u32, addend: i64) -> Vec<u8> {
    let info = u64::from(symbol) << 32 | u64::from(kind);
    [offset.to_le_bytes(), info.to_le_bytes(), addend.to_le_bytes()].concat()
}

/// Symbols and their names: sections 1 to 4, the entry, and some of the kernel's.
fn symbols(choices: &mut Choices<'_>, lawful: bool) -> (Vec<u8>, Vec<u8>) {
    let mut names = vec![0];
    let mut name = |text: &str| {
        let at = names.len();
        names.extend(text.as_bytes());
        names.push(0);
        at
    };
    let mut symbols = symbol(0, 0, 0, 0);
    (1..5).for_each(|section| symbols.extend(symbol(0, 3, section, 0)));
    let entry = if !lawful && choices.rarely(16) { "another" } else { ENTRY };
    symbols.extend(symbol(name(entry), 0x11, 2, 0));
    for _ in 0..choices.below(4) {
        let export = if !lawful && choices.rarely(8) { "nothing" } else { choices.of(&EXPORTS) };
        symbols.extend(symbol(name(export), 0x10, 0, 0));
    }
    // A place in the code, and a number that every relocation reaches, or not.
    symbols.extend(symbol(0, 0x12, 1, choices.byte().into()));
    let number = if lawful { 64 + choices.word() / 4 } else { choices.word() };
    symbols.extend(symbol(0, 0x10, 0xfff1, number.into()));
    (symbols, names)
}

/// A module with code, its description, more constants and data, and relocations of the code.
fn built(choices: &mut Choices<'_>, lawful: bool) -> Vec<u8> {
    let code = Section::new(PROGBITS, 6, vec![0x90; 16 + choices.below(6000)]);
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(padded("little"));
    bytes.resize(bytes.len() + 16, 0);
    let description = Section::new(PROGBITS, 2, bytes);
    let mut data = Section::new(PROGBITS, 3, vec![7; choices.below(6000)]);
    data.align = choices.of(&[1, 8, 16, 4096]);
    let mut cleared = Section::new(NOBITS, 3, Vec::new());
    let wild = !lawful && choices.rarely(4);
    cleared.size = if wild { choices.word().into() } else { choices.below(9000) as u64 };
    let (table, names) = symbols(choices, lawful);
    let count = u32::try_from(table.len() / 24).unwrap_or(0);
    let mut symbols = Section::new(SYMTAB, 0, table);
    (symbols.link, symbols.info) = (6, 3);
    let mut functions = Section::new(
        RELA,
        0,
        [relocation(40, 1, 1, 0), relocation(48, 1, 1, choices.of(&[0, 8, 15]))].concat(),
    );
    (functions.link, functions.info) = (5, 2);
    let mut relocations =
        Section::new(RELA, 0, relocations(choices, code.bytes.len(), count, lawful));
    (relocations.link, relocations.info) = (5, 1);
    let names = Section::new(STRTAB, 0, names);
    object(&[code, description, data, cleared, symbols, names, functions, relocations])
}

/// Relocations of the code, all lawful or some.
fn relocations(
    choices: &mut Choices<'_>,
    code_bytes: usize,
    symbols: u32,
    all_lawful: bool,
) -> Vec<u8> {
    // 64, PC32, GOTPCREL, 32, 32S, PLT32, PC64, GOTPCRELX, REX_GOTPCRELX, none.
    const KINDS: [u32; 10] = [1, 2, 9, 10, 11, 4, 24, 41, 42, 0];
    let mut bytes = Vec::new();
    for _ in 0..choices.below(12) {
        let lawful = all_lawful || choices.valid();
        let kind = if lawful { choices.of(&KINDS) } else { choices.word() % 48 };
        let offset = if lawful {
            choices.below(code_bytes - 8) as u64
        } else {
            choices.number(code_bytes as u64, &[code_bytes as u64, u64::MAX])
        };
        let symbol = if lawful { 1 + choices.word() % (symbols - 1) } else { choices.word() };
        let addend =
            if lawful { i64::from(choices.byte()) - 4 } else { choices.double().cast_signed() };
        bytes.extend(relocation(offset, kind, symbol, addend));
    }
    bytes
}

/// A module by the rules, or not; tells whether it was taken.
pub(super) fn check(choices: &mut Choices<'_>) -> bool {
    let lawful = choices.valid();
    let mut file = built(choices, lawful);
    if lawful {
        let taken = load(&file, 0x40_0000);
        assert!(taken, "a module by the rules");
        return taken;
    }
    let base = choices.of(&[0x40_0000, 0, 0x7fff_f000, 1 << 32, u64::MAX - 0xfff]);
    if choices.valid() {
        // Headers, or anything.
        let end = if choices.valid() { HEADER_BYTES + 9 * SECTION_BYTES } else { file.len() };
        damage(choices, &mut file[..end]);
    }
    if choices.rarely(4) {
        file.truncate(choices.below(file.len()));
    }
    load(&file, base)
}

/// Links a module, if it is one; tells whether it is.
pub(super) fn load(file: &[u8], base: u64) -> bool {
    let Ok(object) = Object::parse(file) else { return false };
    let parts = object.parts().clone();
    assert!((1..=PAGES_MAX).contains(&parts.pages()));
    assert_eq!((parts.code.start, parts.code.end), (0, parts.constants.start));
    assert_eq!(parts.constants.end, parts.data.start);
    assert!(!object.name().is_empty() && object.name().len() <= module_abi::NAME_BYTES);
    let export = |name: &str| EXPORTS.contains(&name).then_some(0x1234_5678);
    let Ok(linked) = object.link(base, export) else { return false };
    assert_eq!(linked.bytes.len() as u64, parts.pages() * PAGE_BYTES);
    for function in [linked.init, linked.exit] {
        let at = function.wrapping_sub(base);
        assert!(at < parts.code.end * PAGE_BYTES, "a function outside of the code");
    }
    // The same file makes the same pages.
    assert_eq!(object.link(base, export), Ok(linked));
    true
}
