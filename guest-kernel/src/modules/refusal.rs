//! Why a file is not loaded as a module: one line for the administrator, with the name of what is
//! wrong.

use alloc::string::String;
use core::fmt;

use module_abi::VERSION;

/// Why a file is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no relocatable object for x86-64; what it is not.
    NotAnObject(&'static str),
    /// It contradicts itself, or has a part that no module has.
    Malformed(&'static str),
    /// It is larger than the limit of what.
    TooLarge(&'static str),
    /// It is an object, but not a module.
    NotAModule,
    /// It was built for another version of the interface.
    Version(u32),
    /// It needs a symbol that the kernel does not export.
    UnknownSymbol(String),
    /// It has a relocation of this type.
    Relocation(u32),
    /// This symbol is further away than a relocation of it reaches.
    OutOfReach(String),
    /// There is not enough memory.
    NoMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject(what) => write!(f, "not a relocatable object for x86-64: {what}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::TooLarge(what) => write!(f, "too large: {what}"),
            Self::NotAModule => write!(f, "no module: it has no {}", module_abi::ENTRY),
            Self::Version(is) => {
                write!(f, "built for version {is} of the module interface: this is {VERSION}")
            }
            Self::UnknownSymbol(name) => write!(f, "unknown symbol {}", name.escape_debug()),
            Self::Relocation(kind) => write!(f, "unsupported relocation of type {kind}"),
            Self::OutOfReach(name) => write!(f, "symbol {name:?} is out of reach"),
            Self::NoMemory => f.write_str("not enough memory"),
        }
    }
}

impl core::error::Error for Refusal {}
