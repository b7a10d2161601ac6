//! `spite`: a back without manners, to see what a guest's front makes of one.
//!
//! It serves one disk of zeros in its own memory, honestly, until its trick; then it says what the
//! front did. It has a backend kind of its own (`spite`), so that neither `blkback` nor the kernel
//! looks at its devices. It is for tests, and is never part of a system that serves anybody.

mod stage;
mod tricks;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use stage::Stage;
use tricks::Trick;

/// A back without manners, for tests of fronts. Run in Dom0, before the guest is unpaused.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The guest's name or number
    domain: String,
    /// The disk: xvda, xvdb, …
    vdev: String,
    /// What to do
    #[arg(long, value_enum)]
    trick: Trick,
    /// Serve so many requests before it
    #[arg(long, value_name = "REQUESTS", default_value_t = 8)]
    after: u64,
    /// How long the front has for each step, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(&arguments) {
        Ok(end) => {
            println!("spite: {:?}: the front ended in state {end}", arguments.trick);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the device, serves it, plays the trick; gives the front's last state.
fn play(arguments: &Arguments) -> Result<xen::XenbusState, Box<dyn std::error::Error>> {
    let patience = Duration::from_secs(arguments.timeout);
    let stage = Stage::set(&arguments.domain, &arguments.vdev, patience)?;
    println!("spite: waiting for the front of {}", arguments.domain);
    if arguments.trick.instead_of_connecting(&stage)? {
        return stage.end(None);
    }
    let mut wire = stage.connect()?;
    wire.serve(&stage, arguments.after)?;
    println!("spite: {:?} after {} requests", arguments.trick, wire.served());
    arguments.trick.play(&stage, &mut wire)?;
    stage.end(Some(wire))
}
