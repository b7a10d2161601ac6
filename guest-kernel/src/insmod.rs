//! `insmod`, `rmmod`, `lsmod`: the modules that are loaded, and what they bring.
//!
//! A module stays in memory as long as anything of it may still be called: every elevator and every
//! disk of its making holds on to its code, and `rmmod` refuses while one is in use.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use module_abi::Refused;

use crate::arch::{self, ModuleCode, ModulePages};
use crate::commands::COMMANDS;
use crate::files;
use crate::kernel::{Kernel, Status};
use crate::layout::PAGE_BYTES;
use crate::modules::{Command, Desk, Elevator, FILE_MAX, Object, texts};
use crate::programs::{Disks, Failure, Which};

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
    disks: Vec<Which>,
}

impl Loaded {
    /// How many disks have an elevator of its making.
    fn elevating(&self) -> usize {
        // One hold on the code is ours, and one that of what makes each kind of elevator, and of
        // each disk.
        let others = 1 + self.elevators.len() + self.disks.len();
        Arc::strong_count(&self.code).saturating_sub(others)
    }

    /// What its disks are used for, a sentence each.
    fn disk_uses(&self, kernel: &Kernel, disks: &Disks<Kernel>) -> Vec<String> {
        let mut uses = Vec::new();
        for &which in &self.disks {
            let name = disks.name(which);
            let mounts = disks.mounts_on(which);
            uses.extend(mounts.map(|mount| format!("{name} is mounted on {}", mount.folder)));
            if kernel.swap.borrow().as_ref().is_some_and(|area| area.is_on(which)) {
                uses.push(format!("{name} holds the swap area"));
            }
        }
        uses
    }

    /// Takes back what it brought, and lets it go. Nothing uses it.
    fn leave(self, disks: Disk<'_>) {
        self.disks.into_iter().for_each(|which| disks.remove_local(which));
        for elevator in &self.elevators {
            disks.elevators().remove(&elevator.name);
        }
        Arc::into_inner(self.code).expect("nothing else holds on to it").exit();
    }

    /// The module in a line.
    fn line(&self, kernel: &Kernel, disks: &Disks<Kernel>) -> String {
        let Self { name, code, elevators, commands, .. } = self;
        let kib = code.pages() * PAGE_BYTES / 1024;
        let uses = self.elevating() + self.disk_uses(kernel, disks).len();
        let mut line = format!("{name:<12} {kib} KiB at {:#x}, in use by {uses}", code.address());
        let elevators = elevators.iter().map(|it| ("elevator", it.name.clone()));
        let commands = commands.iter().map(|it| ("command", it.name.clone()));
        let disks = self.disks.iter().map(|&which| ("disk", disks.name(which)));
        for (kind, name) in elevators.chain(commands).chain(disks) {
            line.push_str(&format!(", {kind} {name}"));
        }
        line
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

/// `insmod FILE [WORD…]`: loads a module from the root file system; the words are its own.
///
/// # Errors
/// [`Failure`]: the file cannot be read, is no module for this kernel, or does not want to stay.
pub(crate) fn insmod(kernel: &Kernel, disks: Disk<'_>, words: &[String]) -> Result<(), Failure> {
    let Some((path, words)) = words.split_first() else {
        return Err(Failure::usage("usage: insmod FILE [WORD…]"));
    };
    let words = texts(words).ok_or_else(|| Failure::usage("insmod: too many words"))?;
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
    let (desk, answer) = code.init(desk(kernel, disks), &words);
    if answer != 0 {
        let why = declined(&desk, answer);
        // What it registered ends while its code is there.
        drop(desk);
        return Err(about_file(&format_args!("its init failed: {why}")));
    }
    let module = settle_in(kernel, disks, (name, code), desk);
    let module = module.ok_or_else(|| about_file(&"not enough memory for its disks"))?;
    println!("{}", module.line(kernel, disks));
    kernel.modules.borrow_mut().0.push(module);
    Ok(())
}

/// Why a module's `init` did not answer 0.
fn declined(desk: &Desk, answer: u32) -> String {
    match (Refused::from_code(answer), &desk.refused) {
        (Some(why), Some((name, refused))) if why == *refused => format!("{name}: {why}"),
        (Some(why), _) => why.to_string(),
        (None, _) => format!("it answered {answer}"),
    }
}

/// Puts what a module registered where it is used. `None` if memory is short; then the module is
/// gone.
fn settle_in(
    kernel: &Kernel,
    disks: Disk<'_>,
    (name, code): (String, ModuleCode),
    desk: Desk,
) -> Option<Loaded> {
    let code = Arc::new(code);
    let Desk { elevators, commands, blocks, .. } = desk;
    let mut module = Loaded { name, code, elevators, commands, disks: Vec::new() };
    let mut all = true;
    // All of them, so that none is left to end when the code is gone.
    for block in blocks {
        let named = (block.name.clone(), block.geometry);
        match Disks::make_local(kernel, named, block.medium(&module.code)) {
            Some(local) => module.disks.push(disks.add_local(local)),
            None => all = false,
        }
    }
    if !all {
        module.leave(disks);
        return None;
    }
    for elevator in &module.elevators {
        let added = disks.elevators().add(elevator.choice(&module.code));
        added.expect("the desk knew the names that are taken");
    }
    Some(module)
}

/// A desk that knows the names that are taken.
fn desk(kernel: &Kernel, disks: Disk<'_>) -> Desk {
    let of_kernel = COMMANDS.iter().map(|command| command.name.to_string());
    let modules = kernel.modules.borrow();
    let of_modules = modules.commands().map(|command| command.name.clone());
    Desk {
        taken_elevators: disks.elevators().names().map(String::from).collect(),
        taken_commands: of_kernel.chain(of_modules).collect(),
        taken_disks: disks.places().into_iter().map(|which| disks.name(which)).collect(),
        room_for_disks: disks.room(),
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
    let mut uses = modules.0[at].disk_uses(kernel, disks);
    match modules.0[at].elevating() {
        0 => {}
        count => uses.push(format!("the elevator of {count} disk(s): try sysctl -a")),
    }
    if !uses.is_empty() {
        return Err(Failure::failed(format!("{name} is in use: {}", uses.join("; "))));
    }
    modules.0.remove(at).leave(disks);
    Ok(())
}

/// `lsmod`: lists the modules.
///
/// # Errors
/// [`Failure::usage`] for any word.
pub(crate) fn lsmod(kernel: &Kernel, disks: Disk<'_>, words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: lsmod"));
    }
    let modules = kernel.modules.borrow();
    if modules.0.is_empty() {
        println!("no modules");
    }
    modules.0.iter().for_each(|module| println!("{}", module.line(kernel, disks)));
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
