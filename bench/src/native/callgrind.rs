//! Instructions for each message, counted by callgrind: no clock, the same digits each time.

use std::io;
use std::process::Command;

/// Messages of the shorter of two runs.
const MESSAGES: u64 = 8192;

/// What one message costs: a run of so many and one of twice as many differ in nothing else.
/// `program` is told how many to pass.
///
/// # Errors
/// Valgrind is not to be had, or the program failed.
pub fn each(program: impl Fn(u64) -> Command) -> io::Result<f64> {
    let [some, twice] = [MESSAGES, 2 * MESSAGES].map(|messages| counted(&program(messages)));
    #[expect(clippy::cast_precision_loss, reason = "a few million")]
    Ok((twice? - some?) as f64 / MESSAGES as f64)
}

fn counted(program: &Command) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program.get_program())
        .args(program.get_args())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    match collected(&said) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(io::Error::other(said.into_owned())),
    }
}

/// The count in a line like `==123== Collected : 3971063`.
fn collected(said: &str) -> Option<u64> {
    let (_, count) = said.lines().find_map(|line| line.split_once("Collected : "))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_other_lines() {
        assert_eq!(collected("==7== Events : Ir\n==7== Collected : 3971063\n"), Some(3_971_063));
        assert_eq!(collected("==7== Command: x\n"), None);
    }
}
