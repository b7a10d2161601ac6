//! `cargo xtask`: the project's tasks. Alone it lists them.

mod cli;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use cli::{Cli, Task};
use xtask::{interrupt, measure};

fn main() -> ExitCode {
    let Some(task) = Cli::parse().task else {
        // Asking what there is to do is no error.
        let shown = Cli::command().print_help();
        return if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    interrupt::install();
    let result = match task {
        Task::Setup(task) => task.run(),
        Task::Demo(task) => task.run(),
        Task::Build(task) => task.run(),
        Task::Run(task) => task.run(),
        Task::Shell(task) => task.run(),
        Task::Smoke(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Sim(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Torture(task) => task.run(),
        Task::Orders(task) => task.run(),
        Task::Coverage(task) => task.run(measure::coverage),
        Task::Mutants(task) => task.run(measure::mutants),
        Task::Fuzz(task) => task.run(),
        Task::Dom0(task) => task.run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}
