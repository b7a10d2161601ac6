//! Program files: static ELF64 for x86-64, whose segments lie in the window.
//!
//! The file is somebody else's word: everything about it is checked here, once, and what comes out
//! lies within the file and within the window, page by page without overlap, and is never both
//! writable and executable.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;

use super::{IMAGE_FIRST, PAGE_BYTES, PAGES_MAX, Page};
use crate::layout::Use;

/// The longest program file.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// The most segments that are loaded.
pub const SEGMENTS_MAX: usize = 16;

/// A part of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Pages of the window.
    pub pages: Range<u32>,
    /// What may be done there.
    pub rights: Use,
    /// Where the bytes go.
    pub address: u64,
    /// Where they are in the file; what follows in the pages is zeros.
    pub file: Range<usize>,
}

/// A program that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it starts.
    pub entry: u64,
    /// Its parts, in the order of their pages.
    pub segments: Vec<Segment>,
    /// The first page behind it, where its heap begins.
    pub end: u32,
}

/// Why a file is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No ELF header, or one that contradicts itself.
    NotElf,
    /// Not for this machine.
    Machine,
    /// Wants a dynamic linker, or to be moved.
    NotStatic,
    /// More segments than [`SEGMENTS_MAX`], or none.
    Segments(usize),
    /// A segment's bytes are not in the file.
    OutsideFile,
    /// A segment is not where programs may be.
    OutsideWindow(u64),
    /// Two segments share a page.
    Overlap(u64),
    /// A segment is both writable and executable.
    WritableCode(u64),
    /// The first instruction is not in an executable segment.
    Entry(u64),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::Machine => f.write_str("not a 64-bit program for x86"),
            Self::NotStatic => f.write_str("not a static program with fixed addresses"),
            Self::Segments(count) => write!(f, "{count} segments: 1 to {SEGMENTS_MAX} can be"),
            Self::OutsideFile => f.write_str("a segment is not all in the file: was it cut off?"),
            Self::OutsideWindow(at) => write!(f, "a segment at {at:#x}: programs are not there"),
            Self::Overlap(at) => write!(f, "the segment at {at:#x} shares a page with another"),
            Self::WritableCode(at) => write!(f, "the segment at {at:#x} is writable code"),
            Self::Entry(at) => write!(f, "it would start at {at:#x}, where it has no code"),
        }
    }
}

impl core::error::Error for Unfit {}

impl Image {
    /// Checks a program file.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn parse(file: &[u8]) -> Result<Self, Unfit> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| Unfit::NotElf)?;
        if elf.ehdr.e_machine != EM_X86_64 || elf.ehdr.class != elf::file::Class::ELF64 {
            return Err(Unfit::Machine);
        }
        if elf.ehdr.e_type != ET_EXEC {
            return Err(Unfit::NotStatic);
        }
        let headers = elf.segments().ok_or(Unfit::Segments(0))?;
        let mut segments = Vec::new();
        for header in headers.iter().filter(|header| header.p_type != PT_LOAD) {
            if matches!(header.p_type, PT_INTERP | PT_DYNAMIC) {
                return Err(Unfit::NotStatic);
            }
        }
        for header in headers.iter().filter(|it| it.p_type == PT_LOAD && it.p_memsz > 0) {
            if segments.len() == SEGMENTS_MAX {
                return Err(Unfit::Segments(headers.len()));
            }
            segments.push(segment(&header, file.len())?);
        }
        segments.sort_by_key(|segment| segment.pages.start);
        let overlap = segments.windows(2).find(|pair| pair[0].pages.end > pair[1].pages.start);
        if let Some(pair) = overlap {
            return Err(Unfit::Overlap(pair[1].address));
        }
        let entry = elf.ehdr.e_entry;
        let starts = |it: &&Segment| {
            it.rights == Use::Code && Page::at(entry).is_some_and(|page| it.pages.contains(&page.0))
        };
        if !segments.iter().any(|segment| starts(&segment)) {
            return Err(Unfit::Entry(entry));
        }
        let end = segments.last().map_or(IMAGE_FIRST, |segment| segment.pages.end);
        Ok(Self { entry, segments, end })
    }
}

fn segment(header: &ProgramHeader, file_bytes: usize) -> Result<Segment, Unfit> {
    let address = header.p_vaddr;
    let outside = Unfit::OutsideWindow(address);
    let first = Page::at(address).filter(|page| page.0 >= IMAGE_FIRST).ok_or(outside)?;
    let behind = address.checked_add(header.p_memsz).ok_or(outside)?;
    let last = Page::at(behind - 1).ok_or(outside)?;
    let start = usize::try_from(header.p_offset).map_err(|_| Unfit::OutsideFile)?;
    let length = usize::try_from(header.p_filesz).map_err(|_| Unfit::OutsideFile)?;
    let end = start.checked_add(length).filter(|&end| end <= file_bytes);
    let end = end.filter(|_| header.p_filesz <= header.p_memsz).ok_or(Unfit::OutsideFile)?;
    let rights = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
        (true, true) => return Err(Unfit::WritableCode(address)),
        (true, false) => Use::Data,
        (false, true) => Use::Code,
        (false, false) => Use::Constant,
    };
    // The heap needs a page behind it at least.
    if last.0 + 1 >= PAGES_MAX {
        return Err(outside);
    }
    Ok(Segment { pages: first.0..last.0 + 1, rights, address, file: start..end })
}

/// How many pages hold so many bytes.
pub const fn pages_for(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec;

    use super::*;
    use crate::user::WINDOW;

    const BASE: u64 = WINDOW.start + (IMAGE_FIRST as u64) * PAGE_BYTES;
    const HEADER: usize = 64;
    const ENTRY: usize = 56;

    /// A file with a code segment and a data segment of 100 bytes each in the file.
    fn sample() -> Vec<u8> {
        let mut file = vec![0; 4096];
        file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &2_u16.to_le_bytes());
        put(18, &62_u16.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(24, &(BASE + 8).to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(52, &64_u16.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &2_u16.to_le_bytes());
        for (index, flags, address, memory) in
            [(0, 5_u32, BASE, 100_u64), (1, 6, BASE + 0x2000, 9000)]
        {
            let at = HEADER + ENTRY * index;
            put(at, &1_u32.to_le_bytes());
            put(at + 4, &flags.to_le_bytes());
            put(at + 8, &(1000_u64 + 100 * index as u64).to_le_bytes());
            put(at + 16, &address.to_le_bytes());
            put(at + 32, &100_u64.to_le_bytes());
            put(at + 40, &memory.to_le_bytes());
        }
        file
    }

    #[test]
    fn a_program_is_read() {
        let image = Image::parse(&sample()).expect("good");
        assert_eq!(image.entry, BASE + 8);
        let [code, data] = &image.segments[..] else { panic!("two segments") };
        assert_eq!((code.pages.clone(), code.rights), (256..257, Use::Code));
        assert_eq!((data.pages.clone(), data.rights), (258..261, Use::Data));
        assert_eq!((data.file.clone(), image.end), (1100..1200, 261));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let change = |at: usize, bytes: &[u8]| {
            let mut file = sample();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            Image::parse(&file).expect_err("bad")
        };
        let (first, second) = (HEADER, HEADER + ENTRY);
        assert_eq!(change(0, b"x"), Unfit::NotElf);
        assert_eq!(change(18, &[3]), Unfit::Machine);
        assert_eq!(change(16, &[3]), Unfit::NotStatic);
        assert_eq!(change(first, &[3]), Unfit::NotStatic);
        assert_eq!(change(first + 4, &[7]), Unfit::WritableCode(BASE));
        assert_eq!(change(first + 4, &[6]), Unfit::Entry(BASE + 8));
        assert_eq!(change(first + 8, &[255; 8]), Unfit::OutsideFile);
        assert_eq!(change(first + 32, &[101]), Unfit::OutsideFile);
        assert_eq!(change(second + 16, &BASE.to_le_bytes()), Unfit::Overlap(BASE));
        for address in [0, 4096, WINDOW.start, WINDOW.end - 1, u64::MAX - 10] {
            let found = change(first + 16, &address.to_le_bytes());
            assert_eq!(found, Unfit::OutsideWindow(address));
        }
        assert_eq!(change(second + 40, &[255; 8]), Unfit::OutsideWindow(BASE + 0x2000));
        assert!(Unfit::Entry(1).to_string().contains("0x1"));
        assert_eq!(Image::parse(&[]), Err(Unfit::NotElf));
    }

    #[test]
    fn ten_thousand_corrupted_files_are_read_or_refused() {
        let mut seed = 5_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        let mut refused = 0;
        for _ in 0..10_000 {
            let mut file = sample();
            for _ in 0..=random() % 4 {
                file[random() % 180] = random().to_le_bytes()[0];
            }
            file.truncate(if random() % 4 == 0 { random() % 4096 } else { 4096 });
            match Image::parse(&file) {
                Ok(image) => {
                    for segment in &image.segments {
                        assert!(segment.file.end <= file.len());
                        assert!(segment.pages.start >= IMAGE_FIRST);
                        assert!(segment.pages.end <= image.end && image.end < PAGES_MAX);
                        let bytes = segment.file.len() as u64;
                        assert!(Page(segment.pages.end).address() - segment.address >= bytes);
                    }
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1000, "the corruptions do not reach: {refused}");
    }
}
