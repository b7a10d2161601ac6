//! What is in a module's file, checked, and where it goes.
//!
//! Follows the ELF specification and its supplement for x86-64 (section types and flags, symbols,
//! relocations with addend). Sections that take memory are laid out in three parts, each on pages
//! of its own: code, constants (with the table of addresses that `GOTPCREL` wants behind them),
//! and data.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use elf::ElfBytes;
use elf::abi::{
    EM_X86_64, ET_REL, R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_REX_GOTPCRELX, SHF_ALLOC,
    SHF_EXECINSTR, SHF_TLS, SHF_WRITE, SHN_UNDEF, SHT_NOBITS, SHT_NOTE, SHT_PROGBITS, SHT_REL,
    SHT_RELA, SHT_SYMTAB, SHT_X86_64_UNWIND, STB_LOCAL,
};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::section::SectionHeader;
use elf::symbol::Symbol;
use module_abi::{ENTRY, MAGIC, NAME_BYTES, VERSION};

use super::{FILE_MAX, PAGES_MAX, Refusal, is_word};
use crate::layout::PAGE_BYTES;

/// Bytes of the name of a symbol that the kernel is asked for, at most.
pub(super) const SYMBOL_NAME_MAX: usize = 256;
/// Bytes of a relocation in the file.
const RELA_BYTES: u64 = 24;
/// Relocations of a module, at most: as many as can be in a file without lying over each other.
const RELOCATIONS_MAX: u64 = FILE_MAX as u64 / RELA_BYTES;

/// What a section's pages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Code,
    Constants,
    Data,
}

/// A section that takes memory.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    /// Where it starts, in bytes from the start of the module.
    pub(super) start: usize,
    /// Empty if it starts as zeros.
    pub(super) contents: &'a [u8],
}

/// A relocation of a section that takes memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    /// The section's number in the file.
    pub(super) section: usize,
    /// Bytes from its start.
    pub(super) offset: u64,
    pub(super) kind: u32,
    pub(super) symbol: u32,
    pub(super) addend: i64,
}

/// The symbol table. Names are looked up when they are asked for: they may lie over each other,
/// so that all of them together can be far longer than the file.
#[derive(Debug)]
pub(super) struct Symbols<'a> {
    table: Vec<Symbol>,
    names: &'a [u8],
}

impl<'a> Symbols<'a> {
    pub(super) fn get(&self, symbol: u32) -> Option<&Symbol> {
        self.table.get(usize::try_from(symbol).ok()?)
    }

    /// The name of a symbol; `None` if it is no text, or longer than [`SYMBOL_NAME_MAX`].
    pub(super) fn name(&self, symbol: &Symbol) -> Option<&'a str> {
        let name = self.names.get(usize::try_from(symbol.st_name).ok()?..)?;
        let end = name.iter().take(SYMBOL_NAME_MAX + 1).position(|&byte| byte == 0)?;
        core::str::from_utf8(&name[..end]).ok()
    }

    fn is_named(&self, symbol: &Symbol, name: &str) -> bool {
        let at = usize::try_from(symbol.st_name).ok();
        let rest = at.and_then(|at| self.names.get(at..)?.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Where the parts of a module lie, in pages from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Instructions.
    pub code: Range<u64>,
    /// Read only.
    pub constants: Range<u64>,
    /// The rest.
    pub data: Range<u64>,
}

impl Parts {
    /// All pages together; at least 1 and at most [`PAGES_MAX`].
    pub fn pages(&self) -> u64 {
        self.data.end
    }
}

/// The file of a module of this version, whose parts have their places.
#[derive(Debug)]
pub struct Object<'a> {
    pub(super) sections: BTreeMap<usize, Section<'a>>,
    pub(super) symbols: Symbols<'a>,
    pub(super) relocations: Vec<Relocation>,
    /// Where the address of a symbol is kept, in bytes from the start of the module.
    pub(super) addresses: BTreeMap<u32, usize>,
    /// Where its `Module` is, in bytes from the start of the module.
    pub(super) entry: usize,
    name: String,
    parts: Parts,
}

const OVERLAP: Refusal = Refusal::Malformed("something lies outside of the file");

impl<'a> Object<'a> {
    /// Checks a file and lays its parts out.
    ///
    /// # Errors
    /// [`Refusal`]; an unknown symbol is found by [`Object::link`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Refusal> {
        if file.len() > FILE_MAX {
            return Err(Refusal::TooLarge("the file"));
        }
        let elf = open(file)?;
        let headers: Vec<SectionHeader> =
            elf.section_headers().ok_or(Refusal::Malformed("no sections"))?.iter().collect();
        let symbols = symbols(file, &elf, &headers)?;
        let relocations = relocations(&elf, &headers)?;
        let mut places = Places::default();
        let mut sections = BTreeMap::new();
        for part in [Part::Code, Part::Constants, Part::Data] {
            places.begin();
            for (number, header) in headers.iter().enumerate() {
                if part_of(header)? == Some(part) {
                    sections.insert(number, section(file, header, &mut places)?);
                }
            }
            if part == Part::Constants {
                places.keep_addresses(&relocations)?;
            }
            places.end(part)?;
        }
        let (entry, name) = identify(&symbols, &sections)?;
        let Places { addresses, parts, .. } = places;
        Ok(Self { sections, symbols, relocations, addresses, entry, name, parts })
    }

    /// What the module calls itself; never empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its parts lie.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}

fn open(file: &[u8]) -> Result<ElfBytes<'_, LittleEndian>, Refusal> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)
        .map_err(|_| Refusal::NotAnObject("no ELF file, or its headers are broken"))?;
    let header = &elf.ehdr;
    if header.class != Class::ELF64 {
        return Err(Refusal::NotAnObject("of 32 bits"));
    }
    if header.e_machine != EM_X86_64 {
        return Err(Refusal::NotAnObject("another machine's"));
    }
    if header.e_type != ET_REL {
        return Err(Refusal::NotAnObject("linked already"));
    }
    Ok(elf)
}

/// The symbols, and the bytes of their names.
fn symbols<'a>(
    file: &'a [u8],
    elf: &ElfBytes<'a, LittleEndian>,
    headers: &[SectionHeader],
) -> Result<Symbols<'a>, Refusal> {
    let header = headers.iter().find(|it| it.sh_type == SHT_SYMTAB).ok_or(Refusal::NotAModule)?;
    let names = headers.get(index(u64::from(header.sh_link))?).ok_or(OVERLAP)?;
    let table = elf.symbol_table().map_err(|_| OVERLAP)?;
    let (table, _) = table.ok_or(Refusal::NotAModule)?;
    Ok(Symbols { table: table.iter().collect(), names: contents(file, names)? })
}

/// The part that a section belongs to; `None` if it takes no memory.
fn part_of(header: &SectionHeader) -> Result<Option<Part>, Refusal> {
    let flag = |flag: u32| header.sh_flags & u64::from(flag) != 0;
    if !flag(SHF_ALLOC) {
        return Ok(None);
    }
    if !matches!(header.sh_type, SHT_PROGBITS | SHT_NOBITS | SHT_NOTE | SHT_X86_64_UNWIND) {
        return Err(Refusal::Malformed("a section of a kind that no module has"));
    }
    match (flag(SHF_EXECINSTR), flag(SHF_WRITE)) {
        _ if flag(SHF_TLS) => Err(Refusal::Malformed("a section for each thread")),
        (true, true) => Err(Refusal::Malformed("a section both writable and executable")),
        (true, false) => Ok(Some(Part::Code)),
        (false, false) => Ok(Some(Part::Constants)),
        (false, true) => Ok(Some(Part::Data)),
    }
}

fn section<'a>(
    file: &'a [u8],
    header: &SectionHeader,
    places: &mut Places,
) -> Result<Section<'a>, Refusal> {
    let start = places.take(header.sh_size, header.sh_addralign)?;
    let contents = match header.sh_type {
        SHT_NOBITS => &[],
        _ => contents(file, header)?,
    };
    Ok(Section { start, contents })
}

fn contents<'a>(file: &'a [u8], header: &SectionHeader) -> Result<&'a [u8], Refusal> {
    let (from, size) = (index(header.sh_offset)?, index(header.sh_size)?);
    let end = from.checked_add(size).ok_or(OVERLAP)?;
    file.get(from..end).ok_or(OVERLAP)
}

/// The relocations of all sections that take memory.
fn relocations(
    elf: &ElfBytes<'_, LittleEndian>,
    headers: &[SectionHeader],
) -> Result<Vec<Relocation>, Refusal> {
    let mut found = Vec::new();
    for header in headers.iter().filter(|it| matches!(it.sh_type, SHT_RELA | SHT_REL)) {
        let section = index(u64::from(header.sh_info))?;
        let target = headers.get(section).ok_or(OVERLAP)?;
        if part_of(target)?.is_none() {
            continue;
        }
        if header.sh_type == SHT_REL {
            return Err(Refusal::Malformed("relocations without an addend"));
        }
        let list = elf.section_data_as_relas(header).map_err(|_| OVERLAP)?;
        // Sections may lie over each other in the file, so that a small one means a lot of work.
        if found.len() as u64 + header.sh_size / RELA_BYTES > RELOCATIONS_MAX {
            return Err(Refusal::TooLarge("the relocations"));
        }
        found.extend(list.map(|it| Relocation {
            section,
            offset: it.r_offset,
            kind: it.r_type,
            symbol: it.r_sym,
            addend: it.r_addend,
        }));
    }
    Ok(found)
}

/// Finds the module's own description and reads what must be known before anything else is
/// believed: that it is one, its version, its name.
fn identify(
    symbols: &Symbols<'_>,
    sections: &BTreeMap<usize, Section<'_>>,
) -> Result<(usize, String), Refusal> {
    let is_entry = |symbol: &&Symbol| {
        let defined = symbol.st_bind() != STB_LOCAL && symbol.st_shndx != SHN_UNDEF;
        defined && symbols.is_named(symbol, ENTRY)
    };
    let symbol = symbols.table.iter().find(is_entry).ok_or(Refusal::NotAModule)?;
    let section = sections.get(&usize::from(symbol.st_shndx)).ok_or(Refusal::NotAModule)?;
    let at = index(symbol.st_value)?;
    let words = |offset: usize, length: usize| {
        let from = at.checked_add(offset)?;
        section.contents.get(from..from.checked_add(length)?)
    };
    let short = Refusal::Malformed("the description of the module is cut off");
    let magic = words(0, 8).ok_or(short.clone())?;
    if magic != MAGIC.to_le_bytes() {
        return Err(Refusal::NotAModule);
    }
    let version = words(8, 4).and_then(|bytes| bytes.try_into().ok()).ok_or(short.clone())?;
    let version = u32::from_le_bytes(version);
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let name = words(16, NAME_BYTES).ok_or(short.clone())?;
    // The two functions behind it are looked up when they are known.
    words(0, size_of::<module_abi::Module>()).ok_or(short)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = core::str::from_utf8(name).ok().filter(|name| is_word(name));
    let name = name.ok_or(Refusal::Malformed("the name of the module"))?;
    Ok((section.start + at, name.into()))
}

/// Gives out places, part by part.
#[derive(Debug)]
struct Places {
    /// In bytes from the start of the module.
    next: usize,
    /// In pages.
    begun: u64,
    addresses: BTreeMap<u32, usize>,
    parts: Parts,
}

impl Default for Places {
    fn default() -> Self {
        let parts = Parts { code: 0..0, constants: 0..0, data: 0..0 };
        Self { next: 0, begun: 0, addresses: BTreeMap::new(), parts }
    }
}

impl Places {
    fn begin(&mut self) {
        self.begun = self.next as u64 / PAGE_BYTES;
    }

    /// Room for `size` bytes.
    fn take(&mut self, size: u64, align: u64) -> Result<usize, Refusal> {
        let align = align.max(1);
        if !align.is_power_of_two() || align > PAGE_BYTES {
            return Err(Refusal::Malformed("the alignment of a section"));
        }
        let start = (self.next as u64).next_multiple_of(align);
        let end = start.checked_add(size).filter(|&end| end <= PAGES_MAX * PAGE_BYTES);
        self.next = index(end.ok_or(Refusal::TooLarge("the module in memory"))?)?;
        index(start)
    }

    /// Room for the address of each symbol that is asked for by the place of its address.
    fn keep_addresses(&mut self, relocations: &[Relocation]) -> Result<(), Refusal> {
        for relocation in relocations.iter().filter(|it| wants_place_of_address(it.kind)) {
            if !self.addresses.contains_key(&relocation.symbol) {
                let place = self.take(8, 8)?;
                self.addresses.insert(relocation.symbol, place);
            }
        }
        Ok(())
    }

    fn end(&mut self, part: Part) -> Result<(), Refusal> {
        self.take(0, PAGE_BYTES)?;
        let pages = self.begun..self.next as u64 / PAGE_BYTES;
        match part {
            Part::Code => self.parts.code = pages,
            Part::Constants => self.parts.constants = pages,
            Part::Data => self.parts.data = pages,
        }
        Ok(())
    }
}

pub(super) const fn wants_place_of_address(kind: u32) -> bool {
    matches!(kind, R_X86_64_GOTPCREL | R_X86_64_GOTPCRELX | R_X86_64_REX_GOTPCRELX)
}

/// A number of the file as an index; beyond what this machine can count, it is outside.
pub(super) fn index(number: u64) -> Result<usize, Refusal> {
    usize::try_from(number).map_err(|_| OVERLAP)
}
