//! Where a module registers what it brings, while its `init` runs.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use blkif::Geometry;
use module_abi::{BlockTable, CommandTable, ElevatorTable, LINE_MAX, Refused, WORD_MAX};

use super::block::{self, Served};
use super::is_word;

/// The functions of an elevator, under its name.
#[derive(Clone, Debug)]
pub struct Elevator {
    /// What users call it.
    pub name: String,
    pub(super) calls: ElevatorCalls,
}

type Raw = *mut core::ffi::c_void;

/// [`ElevatorTable`] without its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElevatorCalls {
    pub(super) create: extern "C" fn() -> Raw,
    pub(super) destroy: extern "C" fn(Raw),
    pub(super) add: extern "C" fn(Raw, &module_abi::Entry),
    pub(super) next: extern "C" fn(Raw, u64, &mut module_abi::Entry) -> u32,
    pub(super) due: extern "C" fn(Raw) -> u64,
}

/// A command of the shell.
#[derive(Clone, Debug)]
pub struct Command {
    /// What is typed.
    pub name: String,
    /// What follows the name.
    pub arguments: String,
    /// What it does.
    pub about: String,
    pub(super) run: extern "C" fn(*const module_abi::Text, usize) -> u32,
}

/// A block device, under its name. The device ends when this is dropped, or else when what serves
/// the disk is.
#[derive(Debug)]
pub struct Block {
    /// What users call it.
    pub name: String,
    /// Its size, and whether it may be written.
    pub geometry: Geometry,
    pub(super) served: Served,
}

/// What a module brings, and the names that it may not take.
#[derive(Debug, Default)]
pub struct Desk {
    /// Elevators that there are already.
    pub taken_elevators: Vec<String>,
    /// Commands that there are already.
    pub taken_commands: Vec<String>,
    /// Disks that there are already.
    pub taken_disks: Vec<String>,
    /// How many disks more there can be.
    pub room_for_disks: usize,
    /// What was registered.
    pub elevators: Vec<Elevator>,
    /// What was registered.
    pub commands: Vec<Command>,
    /// What was registered.
    pub blocks: Vec<Block>,
    /// What was refused last, and why.
    pub refused: Option<(String, Refused)>,
}

impl Desk {
    /// Notes what was refused, so that the administrator can be told.
    fn noting(
        &mut self,
        name: &str,
        take: impl FnOnce(&mut Self) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let taken = take(self);
        if let Err(why) = taken {
            self.refused = Some((format!("{}", name.escape_debug()), why));
        }
        taken
    }

    /// Takes an elevator.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn elevator(&mut self, name: &str, table: &ElevatorTable) -> Result<(), Refused> {
        self.noting(name, |desk| {
            check(name, &mut desk.taken_elevators)?;
            let ElevatorTable { name: _, create, destroy, add, next, due } = *table;
            let calls = ElevatorCalls { create, destroy, add, next, due };
            desk.elevators.push(Elevator { name: name.into(), calls });
            Ok(())
        })
    }

    /// Takes a command; `texts` are its name, what follows it, and what it does.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn command(&mut self, texts: [&str; 3], table: &CommandTable) -> Result<(), Refused> {
        let [name, arguments, about] = texts;
        let is_line = |text: &str, max| text.len() <= max && !text.chars().any(char::is_control);
        self.noting(name, |desk| {
            if !is_line(arguments, WORD_MAX) || !is_line(about, LINE_MAX) {
                return Err(Refused::BadName);
            }
            check(name, &mut desk.taken_commands)?;
            let [name, arguments, about] = texts.map(String::from);
            desk.commands.push(Command { name, arguments, about, run: table.run });
            Ok(())
        })
    }

    /// Takes a block device: from here on it is ours, and ends with what is kept of it here.
    ///
    /// # Errors
    /// [`Refused`]; then it stays the module's.
    pub fn block(&mut self, name: &str, table: &BlockTable) -> Result<(), Refused> {
        self.noting(name, |desk| {
            let geometry = block::geometry(table)?;
            block::check_name(name)?;
            if desk.blocks.len() >= desk.room_for_disks {
                return Err(Refused::TooMany);
            }
            check(name, &mut desk.taken_disks)?;
            let served = Served::new(table);
            desk.blocks.push(Block { name: name.into(), geometry, served });
            Ok(())
        })
    }
}

/// Takes a name that is good and free.
fn check(name: &str, taken: &mut Vec<String>) -> Result<(), Refused> {
    if name.len() > WORD_MAX || !is_word(name) {
        return Err(Refused::BadName);
    }
    if taken.iter().any(|it| it == name) {
        return Err(Refused::NameTaken);
    }
    taken.push(name.into());
    Ok(())
}
