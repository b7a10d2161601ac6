//! Guests beside the one that a run is about: what a neighbour does, and how it ends, is its own
//! business and must not end the run.
//!
//! They are small guests of our kernel, each with commands and a scratch disk of its own. They start
//! first, so that they are at it when the guest comes.

use std::fmt::Write;

use crate::disk::{self, DISKS_MAX};
use crate::error::{LabError, Result};
use crate::guest::{Backend, Guest};
use crate::lab::{GuestEnd, Lab};

/// Bytes of a neighbour's disk.
pub const DISK_BYTES: u64 = 16 << 20;

/// The neighbours of a guest, as asked for on the command line.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The commands that each of them runs.
    pub commands: Vec<String>,
    /// The memory of each, in MiB.
    pub memory_mib: u32,
    /// How many percent of the processor each gets while all want it; unset leaves it to Xen, which
    /// divides evenly.
    pub share: Option<u8>,
}

impl Beside {
    /// The neighbours of the guest `main`, with the disks of the lab from the `first` on.
    ///
    /// Errors: [`LabError::Usage`] for what cannot be.
    pub fn guests(&self, main: &str, backend: Backend, first: usize) -> Result<Vec<Guest>> {
        let usage = |text: String| Err(LabError::Usage(text));
        let shares = self.commands.len() * usize::from(self.share.unwrap_or(0));
        if shares >= 100 {
            return usage(format!("--beside-share: {shares} % in all leave the guest nothing"));
        }
        if first + self.commands.len() > DISKS_MAX {
            return usage(format!("more than {DISKS_MAX} disks, with one for each --beside"));
        }
        let mut guests = Vec::new();
        for (at, commands) in self.commands.iter().enumerate() {
            let name = format!("beside{}", at + 1);
            if commands.trim().is_empty() || commands.contains('"') {
                return usage(format!(
                    "--beside {commands:?}: commands, with ' as the only quotes"
                ));
            }
            if name == main {
                return usage(format!("--name {main}: a guest beside it is called so"));
            }
            let line = format!("run=\"{}\"", commands.trim());
            let guest = Guest { memory_mib: self.memory_mib, ..Guest::pvblk(&name, &line) };
            let guest = guest.disk(backend, &disk::dom0_device(first + at), "xvda", false);
            guest.check()?;
            guests.push(guest);
        }
        Ok(guests)
    }

    /// Creates the neighbours of `main`, divides the processor, and lets them run.
    pub fn start(&self, lab: &Lab, main: &str, guests: &[Guest]) -> Result<()> {
        for guest in guests {
            lab.create_paused(guest)?;
        }
        if let Some(share) = self.share {
            let share = u32::from(share);
            let each = guests.iter().map(|guest| (guest.name.as_str(), share));
            let left = 100 - share * u32::try_from(guests.len()).unwrap_or(0);
            for (name, share) in each.chain([(main, left)]) {
                lab.set_share(name, share)?;
            }
        }
        guests.iter().try_for_each(|guest| lab.unpause(&guest.name))
    }
}

/// What each guest has come to when `main` has ended, with the processor time that Xen counted.
pub fn report(lab: &Lab, main: &str, guests: &[Guest]) -> Result<String> {
    let list = lab.dom0("xl list")?.ok()?;
    let mut text = String::new();
    for name in guests.iter().map(|guest| guest.name.as_str()).chain([main]) {
        let seconds = seconds(&list, name).unwrap_or("?");
        let end = match lab.ended(name) {
            None => "still runs",
            Some(GuestEnd::Crash) => "crashed",
            Some(GuestEnd::PowerOff | GuestEnd::Reboot) => "ended",
            Some(GuestEnd::Destroyed | GuestEnd::Other(_)) => "was ended",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {end}, {seconds} s of processor time by xl list");
    }
    Ok(text)
}

/// The last column of a guest's line of `xl list`.
fn seconds<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().next_back()
}

impl Lab {
    /// Has a guest get this percentage of a processor while others, whose shares make up the rest,
    /// want it too.
    pub fn set_share(&self, guest: &str, percent: u32) -> Result<()> {
        // Weights are relative; the larger, the finer Xen divides by them.
        let weight = percent * 100;
        self.dom0(&format!("xl sched-credit2 -d {guest} -w {weight}"))?.ok().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(commands: &[&str], share: Option<u8>) -> Beside {
        let commands = commands.iter().map(|&it| it.to_owned()).collect();
        Beside { commands, memory_mib: 16, share }
    }

    #[test]
    fn each_neighbour_has_its_name_its_commands_and_the_next_disk() {
        let guests = beside(&["spin 1; crash", " echo 'a  b' "], None);
        let guests = guests.guests("guest", Backend::Pvblk, 2).unwrap();
        let lines: Vec<&str> = guests.iter().map(|guest| guest.command_line.as_str()).collect();
        assert_eq!(lines, ["run=\"spin 1; crash\"", "run=\"echo 'a  b'\""]);
        let last = &guests[1];
        assert_eq!((last.name.as_str(), last.memory_mib), ("beside2", 16));
        assert!(last.disks[0].1.ends_with("vdev=xvda,access=rw,target=/dev/vdd"), "{last:?}");
    }

    #[test]
    fn a_neighbour_that_cannot_be_is_a_usage_error_that_names_it() {
        let long = "x".repeat(crate::guest::COMMAND_LINE_MAX);
        for (commands, share, main, first, reason) in [
            (&["  "][..], None, "guest", 0, "--beside"),
            (&["echo \"a\""], None, "guest", 0, "as the only quotes"),
            (&["a", "b"], None, "beside2", 0, "--name beside2"),
            (&["a", "b"], Some(50), "guest", 0, "100 % in all"),
            (&["a"], None, "guest", DISKS_MAX, "26 disks"),
            (&[long.as_str()], None, "guest", 0, "command line"),
        ] {
            let error = beside(commands, share).guests(main, Backend::Pvblk, first).unwrap_err();
            assert_eq!(error.code(), 2);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(beside(&["a"], Some(99)).guests("guest", Backend::Pvblk, DISKS_MAX - 1).is_ok());
    }

    #[test]
    fn seconds_are_found_by_the_whole_name() {
        let list = "Name  ID   Mem VCPUs\tState\tTime(s)\nDomain-0  0 512 1 r----- 9.5\n\
                    beside10  2 16 1 ---sc- 1.5\nbeside1  1  16 1 -b---- 0.4\n";
        assert_eq!(seconds(list, "beside1"), Some("0.4"));
        assert_eq!(seconds(list, "beside"), None);
    }
}
