//! The bytes of a module for one place in memory.
//!
//! Every relocation is computed with wrapping 64-bit arithmetic, as the supplement for x86-64
//! defines it, and refused if the field is too small for the result or lies outside its section.

use alloc::vec::Vec;
use core::mem::offset_of;

use elf::abi::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PC64,
    R_X86_64_PLT32, SHN_ABS, SHN_UNDEF,
};
use module_abi::Module;

use super::Refusal;
use super::object::{Object, Relocation, index, wants_place_of_address};
use crate::layout::PAGE_BYTES;

/// A module as it will lie in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// All its pages.
    pub bytes: Vec<u8>,
    /// The address of its `init`, inside its code.
    pub init: u64,
    /// The address of its `exit`, inside its code.
    pub exit: u64,
}

impl Object<'_> {
    /// Makes the pages for the address `base`, which is a page's. `export` tells the address of a
    /// symbol of the kernel's.
    ///
    /// # Errors
    /// [`Refusal`], above all [`Refusal::UnknownSymbol`].
    pub fn link(&self, base: u64, export: impl Fn(&str) -> Option<u64>) -> Result<Linked, Refusal> {
        let mut bytes = self.unlinked()?;
        for (&symbol, &place) in &self.addresses {
            let address = self.address(symbol, base, &export)?;
            patch(&mut bytes, place, &address.to_le_bytes())?;
        }
        for relocation in &self.relocations {
            self.relocate(&mut bytes, base, relocation, &export)?;
        }
        let code = &self.parts().code;
        let code =
            base.wrapping_add(code.start * PAGE_BYTES)..base.wrapping_add(code.end * PAGE_BYTES);
        let function = |offset: usize| {
            let from = self.entry + offset;
            let word = bytes.get(from..from + 8).and_then(|word| word.try_into().ok());
            let address = word.map(u64::from_le_bytes).filter(|address| code.contains(address));
            address.ok_or(Refusal::Malformed("init or exit is not in the module's code"))
        };
        let (init, exit) =
            (function(offset_of!(Module, init))?, function(offset_of!(Module, exit))?);
        Ok(Linked { bytes, init, exit })
    }

    /// The contents of the sections at their places, and zeros between them.
    fn unlinked(&self) -> Result<Vec<u8>, Refusal> {
        let size = index(self.parts().pages() * PAGE_BYTES)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| Refusal::NoMemory)?;
        bytes.resize(size, 0);
        for section in self.sections.values() {
            patch(&mut bytes, section.start, section.contents)?;
        }
        Ok(bytes)
    }

    /// The address of a symbol.
    fn address(
        &self,
        symbol: u32,
        base: u64,
        export: &impl Fn(&str) -> Option<u64>,
    ) -> Result<u64, Refusal> {
        let there = Refusal::Malformed("a relocation to a symbol that is not there");
        let symbol = self.symbols.get(symbol).ok_or(there)?;
        match symbol.st_shndx {
            SHN_UNDEF => {
                let name = self.symbols.name(symbol);
                let name = name.ok_or(Refusal::Malformed("the name of a symbol"))?;
                export(name).ok_or_else(|| Refusal::UnknownSymbol(name.into()))
            }
            SHN_ABS => Ok(symbol.st_value),
            section => {
                let section = self.sections.get(&usize::from(section));
                let section =
                    section.ok_or(Refusal::Malformed("a symbol that is not in memory"))?;
                Ok(base.wrapping_add(section.start as u64).wrapping_add(symbol.st_value))
            }
        }
    }

    fn relocate(
        &self,
        bytes: &mut [u8],
        base: u64,
        relocation: &Relocation,
        export: &impl Fn(&str) -> Option<u64>,
    ) -> Result<(), Refusal> {
        const OUTSIDE: Refusal = Refusal::Malformed("a relocation outside of its section");
        let Relocation { section, offset, kind, symbol, addend } = *relocation;
        let width = match kind {
            R_X86_64_NONE => return Ok(()),
            R_X86_64_64 | R_X86_64_PC64 => 8,
            R_X86_64_32 | R_X86_64_32S | R_X86_64_PC32 | R_X86_64_PLT32 => 4,
            kind if wants_place_of_address(kind) => 4,
            kind => return Err(Refusal::Relocation(kind)),
        };
        let section = self.sections.get(&section).ok_or(OUTSIDE)?;
        let offset = index(offset)?;
        let inside = offset.checked_add(width).is_some_and(|end| end <= section.contents.len());
        if !inside {
            return Err(OUTSIDE);
        }
        let place = section.start + offset;
        let target = match self.addresses.get(&symbol) {
            Some(&place) if wants_place_of_address(kind) => base.wrapping_add(place as u64),
            _ => self.address(symbol, base, export)?,
        };
        let value = target.wrapping_add_signed(addend);
        let distance = value.wrapping_sub(base.wrapping_add(place as u64));
        let name = || {
            let symbol = self.symbols.get(symbol);
            symbol.and_then(|symbol| self.symbols.name(symbol)).unwrap_or_default().into()
        };
        let field = match kind {
            R_X86_64_64 => return patch(bytes, place, &value.to_le_bytes()),
            R_X86_64_PC64 => return patch(bytes, place, &distance.to_le_bytes()),
            R_X86_64_32 => u32::try_from(value).map(u32::to_le_bytes).ok(),
            R_X86_64_32S => i32::try_from(value.cast_signed()).map(i32::to_le_bytes).ok(),
            _ => i32::try_from(distance.cast_signed()).map(i32::to_le_bytes).ok(),
        };
        patch(bytes, place, &field.ok_or_else(|| Refusal::OutOfReach(name()))?)
    }
}

/// Writes `field` at `place`.
fn patch(bytes: &mut [u8], place: usize, field: &[u8]) -> Result<(), Refusal> {
    let end = place.checked_add(field.len());
    let slot = end.and_then(|end| bytes.get_mut(place..end));
    slot.ok_or(Refusal::Malformed("a section outside of the module"))?.copy_from_slice(field);
    Ok(())
}
