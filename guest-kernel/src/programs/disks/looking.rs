//! What is counted of the disks, and shown while programs work.

use alloc::string::ToString;

use super::Disks;
use crate::cpu::STEAL_WARN;
use crate::programs::Machine;
use crate::programs::observe::{DiskLook, Look, Plan};
use crate::time::Instant;

impl<M: Machine> Disks<M> {
    /// Lets those look who look on, if it is time to. A program that computes for long without
    /// waiting calls this now and then.
    pub fn observe(&mut self, machine: &M) {
        let now = machine.now();
        if self.observer.wants_steal(now) {
            let threshold = STEAL_WARN.get();
            if let Some(percent) = self.observer.look_at_steal(machine.cpu_times(), threshold) {
                machine.print(format_args!(
                    "pvblk: warning: steal time is {percent} %, more than {threshold} %: others \
                     take the processor"
                ));
            }
        }
        if self.observer.has_screen() && machine.key() == Some(b'q') {
            self.observer.end();
        }
        if self.observer.is_looking() {
            let depths = self
                .devices
                .iter_mut()
                .map(|it| it.disk().map_or(0, |disk| disk.in_flight() as u64));
            self.observer.sum(now, depths);
            if self.observer.next().is_some_and(|next| now >= next) {
                self.show(machine, now);
            }
        }
    }

    /// Shows from now on what happens, until [`end_report`](Self::end_report). `task` is the name
    /// of the program that is looked at, if it is not the one that looks.
    pub fn begin_report(&mut self, machine: &M, plan: Plan, task: &str) {
        let first = self.look(machine, machine.now());
        self.observer.begin(plan, task, first);
        self.observe(machine);
    }

    /// Whether all that was to be shown was shown.
    pub fn report_is_done(&self) -> bool {
        self.observer.is_done()
    }

    /// Shows no more, but what happened since the last look, if a program was looked at.
    pub fn end_report(&mut self, machine: &M) {
        if self.observer.wants_rest() {
            self.show(machine, machine.now());
        }
        self.observer.end();
    }

    fn show(&mut self, machine: &M, now: Instant) {
        let look = self.look(machine, now);
        if let Some(text) = self.observer.show(look, STEAL_WARN.get()) {
            machine.print(format_args!("{text}"));
        }
    }

    fn look(&mut self, machine: &M, now: Instant) -> Look {
        let observer = &self.observer;
        let fronts = self.devices.iter_mut().enumerate().filter_map(|(at, device)| {
            let name = device.name().to_string();
            let disk = device.disk()?;
            let (counters, in_flight) = (*disk.counters(), disk.in_flight() as u64);
            Some(DiskLook { name, counters, in_flight, queued_ns: observer.queued_ns(at) })
        });
        // Nothing is in flight there for any time.
        let locals = self.locals.iter().map(|(_, local)| DiskLook {
            name: local.name().to_string(),
            counters: *local.counters(),
            in_flight: local.in_flight() as u64,
            queued_ns: 0,
        });
        let (cpu, free_pages) = (machine.cpu_times(), machine.free_pages());
        Look { at_ns: now.as_nanos(), cpu, free_pages, disks: fronts.chain(locals).collect() }
    }
}
