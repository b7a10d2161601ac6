//! Where a module registers what it brings, while its `init` runs.

use alloc::string::String;
use alloc::vec::Vec;

use module_abi::{CommandTable, ElevatorTable, LINE_MAX, Refused, WORD_MAX};

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

/// What a module brings, and the names that it may not take.
#[derive(Debug, Default)]
pub struct Desk {
    /// Elevators that there are already.
    pub taken_elevators: Vec<String>,
    /// Commands that there are already.
    pub taken_commands: Vec<String>,
    /// What was registered.
    pub elevators: Vec<Elevator>,
    /// What was registered.
    pub commands: Vec<Command>,
}

impl Desk {
    /// Takes an elevator.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn elevator(&mut self, name: &str, table: &ElevatorTable) -> Result<(), Refused> {
        check(name, &mut self.taken_elevators)?;
        let ElevatorTable { name: _, create, destroy, add, next, due } = *table;
        let calls = ElevatorCalls { create, destroy, add, next, due };
        self.elevators.push(Elevator { name: name.into(), calls });
        Ok(())
    }

    /// Takes a command; `texts` are its name, what follows it, and what it does.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn command(&mut self, texts: [&str; 3], table: &CommandTable) -> Result<(), Refused> {
        let [name, arguments, about] = texts;
        let is_line = |text: &str, max| text.len() <= max && !text.chars().any(char::is_control);
        if !is_line(arguments, WORD_MAX) || !is_line(about, LINE_MAX) {
            return Err(Refused::BadName);
        }
        check(name, &mut self.taken_commands)?;
        let [name, arguments, about] = texts.map(String::from);
        self.commands.push(Command { name, arguments, about, run: table.run });
        Ok(())
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
