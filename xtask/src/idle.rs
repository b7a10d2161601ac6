//! What a disk costs that nobody uses: many of them on one daemon, connected, and Dom0's memory before
//! and after, on real Xen.
//!
//! What a disk costs Dom0 is how much less memory is available there: its process, the daemon's
//! thread, and all that both kernels' tables and xenstored keep for it. Images and guests are made
//! before the first look. Must never count what the guest has: that is not Dom0's.

use std::time::Duration;

use crate::counted;
use crate::error::{LabError, Result};
use crate::figures::Figure;
use crate::guest::Guest;
use crate::host::Host;
use crate::lab::{DOM0_FOLDER, Lab, LabConfig};
use crate::progress::Progress;

/// Guests, and disks of each.
const GUESTS: usize = 16;
const DISKS_OF_EACH: usize = 16;
const DISKS: usize = GUESTS * DISKS_OF_EACH;
/// About how long it takes, in seconds.
pub const SECONDS: u64 = 420;
/// How long all guests may take to connect, under any load.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(900);

/// Memory that is to be had in Dom0 once nothing is cached.
const AVAILABLE: &str =
    "echo 3 >/proc/sys/vm/drop_caches && awk '/^MemAvailable:/ {print $2}' /proc/meminfo";

/// What was found, in KiB.
#[derive(Debug, Clone, PartialEq)]
pub struct Idle {
    /// What each disk has taken from Dom0's memory.
    dom0: f64,
    /// What each disk's process has alone, and its part of what it shares (`Pss`).
    processes: Vec<f64>,
}

impl Idle {
    /// As figures.
    pub fn figures(&self) -> [Figure; 2] {
        let name = |what: &str| format!("{DISKS} idle devices on one daemon: {what}");
        // One run, whose devices have a spread.
        let process = Figure::new(name("memory of a process"), "KiB", &self.processes, None);
        [
            Figure::new(name("memory of Dom0 for each"), "KiB", &[self.dom0], None),
            Figure { seeds: 1, ..process },
        ]
    }

    /// As a line.
    pub fn line(&self) -> String {
        let [dom0, process] = self.figures();
        let [least, most] = process.spread;
        format!(
            "{}: {:.0} KiB, of which {:.0} ({least:.0} to {most:.0}) are a process's\n",
            dom0.name, dom0.value, process.value
        )
    }
}

/// Boots and measures.
///
/// Errors: what keeps the lab from running; disks that do not connect.
pub fn run(host: Host, progress: &Progress) -> Result<Idle> {
    let config = LabConfig { name: "idle".into(), ..LabConfig::default() };
    let lab = counted::boot(host, config, progress)?;
    let idle = measure(&lab, progress)?;
    progress.finish();
    lab.power_off()?;
    Ok(idle)
}

fn measure(lab: &Lab, progress: &Progress) -> Result<Idle> {
    lab.dom0(&format!("cd /tmp && truncate -s 1M $(seq {DISKS})"))?.ok()?;
    // As it is used: it does not write down every step.
    lab.start_daemon(&format!("exec {DOM0_FOLDER}/blkback serve --images /tmp"), "serving")?;
    let guests: Vec<Guest> = (0..GUESTS).map(guest).collect();
    guests.iter().try_for_each(|guest| lab.create_paused(guest))?;
    let available = || Ok(numbers(&lab.dom0(AVAILABLE)?.ok()?)?.iter().sum::<f64>());
    let before: f64 = available()?;
    let mut image = 0;
    for guest in &guests {
        for letter in ('a'..='z').take(DISKS_OF_EACH) {
            image += 1;
            let spec = format!("format=raw,vdev=xvd{letter},access=rw,target=/tmp/{image}");
            lab.attach(&guest.name, &spec)?;
        }
        progress.phase(&format!("{image} of {DISKS} disks attached"));
    }
    guests.iter().try_for_each(|guest| lab.unpause(&guest.name))?;
    let connected = format!(
        "until [ $({DOM0_FOLDER}/blkback list | awk '$4 == 4' | wc -l) = {DISKS} ]; do sleep 20; done"
    );
    lab.dom0_within(&connected, CONNECT_TIMEOUT)?.ok()?;
    let taken = before - available()?;
    let processes = "daemon=$(cat /run/blkback.pid); awk '/^Pss:/ {print $2}' \
                     $(cat /proc/$daemon/task/*/children | sed 's: *$::; s:[0-9]*:/proc/&/smaps_rollup:g')";
    let processes = numbers(&lab.dom0(processes)?.ok()?)?;
    if processes.len() != DISKS {
        let found = processes.len();
        return Err(LabError::Failed(format!("{found} processes serve {DISKS} disks")));
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of disks")]
    Ok(Idle { dom0: taken / DISKS as f64, processes })
}

/// One that has disks and leaves them alone.
fn guest(number: usize) -> Guest {
    let guest = Guest::pvblk(&format!("idle{number}"), "run=\"sleep 1000000\"");
    Guest { beside_dom0: false, ..guest }
}

/// Numbers, one a line.
fn numbers(text: &str) -> Result<Vec<f64>> {
    let number = |line: &str| {
        line.trim().parse().map_err(|_| LabError::Failed(format!("not a number: {line:?}")))
    };
    text.lines().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_line_by_line_and_nothing_else_is() {
        assert_eq!(numbers("12\r\n7\n").unwrap(), [12.0, 7.0]);
        assert!(
            numbers("12\nawk: no such file\n").unwrap_err().to_string().contains("no such file")
        );
    }

    #[test]
    fn what_a_process_has_is_told_with_its_spread_and_what_dom0_gave_without() {
        let idle = Idle { dom0: 300.0, processes: vec![130.0, 150.0, 140.0] };
        let [dom0, process] = idle.figures();
        assert_eq!((dom0.value, dom0.spread), (300.0, [300.0; 2]));
        assert_eq!((process.value, process.spread, process.seeds), (140.0, [130.0, 150.0], 1));
        let line = idle.line();
        assert!(line.contains("for each: 300 KiB, of which 140 (130 to 150)"), "{line}");
    }
}
