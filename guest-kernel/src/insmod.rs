//! `insmod`, `rmmod`, `lsmod`: the modules that are loaded, and what they bring.
//!
//! A module stays in memory as long as anything of it may still be called: every elevator of its
//! making holds on to its code, and `rmmod` refuses while one does.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::arch::{self, ModuleCode, ModulePages};
use crate::commands::COMMANDS;
use crate::files;
use crate::kernel::{Kernel, Status};
use crate::layout::PAGE_BYTES;
use crate::modules::{Command, Desk, Elevator, FILE_MAX, Object};
use crate::programs::{Disks, Failure};

/// The modules that are loaded, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Modules(Vec<Loaded>);

/// A module in memory.
#[derive(Debug)]
struct Loaded {
    name: String,
    code: Arc<ModuleCode>,
    elevators: Vec<Elevator>,
    commands: Vec<Command>,
}

impl Loaded {
    /// How many elevators of its making there are.
    fn uses(&self) -> usize {
        // One hold on the code is ours, and one that of what makes each kind of elevator.
        Arc::strong_count(&self.code).saturating_sub(1 + self.elevators.len())
    }
}

impl Modules {
    /// The command of this name, if a module brings one.
    pub(crate) fn command(&self, name: &str) -> Option<Command> {
        self.commands().find(|command| command.name == name).cloned()
    }

    /// All commands that modules bring.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.0.iter().flat_map(|module| &module.commands)
    }
}

type Disk<'a> = &'a mut Disks<Kernel>;

/// `insmod FILE`: loads a module from the root file system.
///
/// # Errors
/// [`Failure`]: the file cannot be read, is no module for this kernel, or does not want to stay.
pub(crate) fn insmod(kernel: &Kernel, disks: Disk<'_>, words: &[String]) -> Result<(), Failure> {
    let [path] = words else { return Err(Failure::usage("usage: insmod FILE")) };
    let file = files::read(kernel, disks, path, FILE_MAX)?;
    let about_file = |why: &dyn core::fmt::Display| Failure::failed(format!("{path}: {why}"));
    let object = Object::parse(&file).map_err(|refusal| about_file(&refusal))?;
    let name = object.name().to_string();
    if kernel.modules.borrow().0.iter().any(|module| module.name == name) {
        return Err(Failure::failed(format!("{name} is loaded already")));
    }
    let pages = ModulePages::take(object.parts().pages());
    let pages = pages.ok_or_else(|| about_file(&"not enough memory"))?;
    let linked = object.link(pages.address(), arch::export);
    let linked = linked.map_err(|refusal| about_file(&refusal))?;
    let code = pages.load(&linked, object.parts()).map_err(|error| about_file(&error))?;
    let desk = code.init(desk(kernel, disks));
    let Desk { elevators, commands, .. } =
        desk.map_err(|answer| about_file(&format_args!("its init failed with {answer}")))?;
    let code = Arc::new(code);
    for elevator in &elevators {
        let added = disks.elevators().add(elevator.choice(&code));
        added.expect("the desk knew the names that are taken");
    }
    let module = Loaded { name, code, elevators, commands };
    println!("{}", Line(&module));
    kernel.modules.borrow_mut().0.push(module);
    Ok(())
}

/// A desk that knows the names that are taken.
fn desk(kernel: &Kernel, disks: Disk<'_>) -> Desk {
    let of_kernel = COMMANDS.iter().map(|command| command.name.to_string());
    let modules = kernel.modules.borrow();
    let of_modules = modules.commands().map(|command| command.name.clone());
    Desk {
        taken_elevators: disks.elevators().names().map(String::from).collect(),
        taken_commands: of_kernel.chain(of_modules).collect(),
        ..Desk::default()
    }
}

/// `rmmod NAME`: takes a module away that nothing uses.
///
/// # Errors
/// [`Failure`]: there is none of this name, or it is in use.
pub(crate) fn rmmod(kernel: &Kernel, disks: Disk<'_>, words: &[String]) -> Result<(), Failure> {
    let [name] = words else { return Err(Failure::usage("usage: rmmod NAME")) };
    let mut modules = kernel.modules.borrow_mut();
    let at = modules.0.iter().position(|module| module.name == *name);
    let at = at.ok_or_else(|| Failure::failed(format!("{name}: no such module: try lsmod")))?;
    match modules.0[at].uses() {
        0 => {}
        uses => {
            let text = format!("{name} is in use: the elevator of {uses} disk(s): try sysctl -a");
            return Err(Failure::failed(text));
        }
    }
    let Loaded { code, elevators, .. } = modules.0.remove(at);
    for elevator in &elevators {
        disks.elevators().remove(&elevator.name);
    }
    Arc::into_inner(code).expect("nothing else holds on to it").exit();
    Ok(())
}

/// `lsmod`: lists the modules.
///
/// # Errors
/// [`Failure::usage`] for any word.
pub(crate) fn lsmod(kernel: &Kernel, _: Disk<'_>, words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: lsmod"));
    }
    let modules = kernel.modules.borrow();
    if modules.0.is_empty() {
        println!("no modules");
    }
    modules.0.iter().for_each(|module| println!("{}", Line(module)));
    Ok(())
}

/// Runs a command of a module, if there is one of this name.
pub(crate) fn run(kernel: &Kernel, name: &str, words: &[String]) -> Option<Status> {
    // Cloned, so that the list can be looked at while the command runs.
    let command = kernel.modules.borrow().command(name)?;
    Some(command.call(words).map_or_else(
        || {
            println!("{name}: too many words");
            Status::USAGE
        },
        Status,
    ))
}

/// A module in a line.
struct Line<'a>(&'a Loaded);

impl core::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Loaded { name, code, elevators, commands } = self.0;
        let kib = code.pages() * PAGE_BYTES / 1024;
        write!(f, "{name:<12} {kib} KiB at {:#x}, in use by {}", code.address(), self.0.uses())?;
        elevators.iter().try_for_each(|it| write!(f, ", elevator {}", it.name))?;
        commands.iter().try_for_each(|it| write!(f, ", command {}", it.name))
    }
}
