//! The elevators that there are, by name.
//!
//! Two are built in. Others come and go while the kernel runs; whoever takes one away asks first
//! whether a device uses it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{Deadline, Elevator, Noop};

/// Makes an elevator for a disk on which at most so many requests wait.
pub type Make = Box<dyn Fn(usize) -> Box<dyn Elevator> + Send + Sync>;

/// Makes elevators of one kind.
pub struct Choice {
    /// What it is called, as its elevators are: one word.
    pub name: String,
    /// Makes one.
    pub make: Make,
}

impl Choice {
    /// The order of arrival.
    pub fn noop() -> Arc<Self> {
        let make: Make = Box::new(|capacity| Box::new(Noop::new(capacity)));
        Arc::new(Self { name: Noop::NAME.into(), make })
    }

    fn deadline() -> Arc<Self> {
        let make: Make = Box::new(|capacity| Box::new(Deadline::new(capacity)));
        Arc::new(Self { name: Deadline::NAME.into(), make })
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Choice").field(&self.name).finish()
    }
}

/// There is an elevator of this name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTaken;

impl fmt::Display for NameTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is an elevator of this name")
    }
}

impl core::error::Error for NameTaken {}

/// All choices.
#[derive(Debug)]
pub struct Elevators(Vec<Arc<Choice>>);

impl Elevators {
    /// Those that are built in: noop, which is always the first, and deadline.
    pub fn new() -> Self {
        Self(Vec::from([Choice::noop(), Choice::deadline()]))
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<Choice>> {
        self.0.iter().find(|choice| choice.name == name)
    }

    /// The names, those that are built in first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|choice| choice.name.as_str())
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`NameTaken`].
    pub fn add(&mut self, choice: Choice) -> Result<(), NameTaken> {
        if self.find(&choice.name).is_some() {
            return Err(NameTaken);
        }
        self.0.push(Arc::new(choice));
        Ok(())
    }

    /// Takes one away, if there is one of this name and it is not built in. Devices that use it
    /// go on with it.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|it| it.name != name || [Noop::NAME, Deadline::NAME].contains(&name));
    }
}

impl Default for Elevators {
    fn default() -> Self {
        Self::new()
    }
}
