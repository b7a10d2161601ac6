//! The peer below: a loop in io_uring's own words, as a program of its own (`peers/raw.c`).
//!
//! It times each block itself, by the same clocks, and sleeps while it has none to do.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::load::{Block, Load};

/// The peer, started.
pub struct Raw {
    child: Child,
    blocks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Raw {
    /// Has `program` open the file for this load.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, file: &Path, load: Load) -> io::Result<Self> {
        let words = [
            if load.direct { "direct" } else { "cached" },
            if load.writes { "write" } else { "read" },
        ];
        let numbers = [load.depth, load.batch, load.depth].map(|it| it.to_string());
        let mut child = Command::new(program)
            .arg(file)
            .args(words)
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(blocks), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are pipes");
        };
        Ok(Self { child, blocks, answers: BufReader::new(answers) })
    }

    /// One block; and how often it entered the kernel.
    ///
    /// # Errors
    /// The peer has ended, or says something else.
    pub fn block(&mut self, length: Duration) -> io::Result<(Block, f64)> {
        writeln!(self.blocks, "{}", length.as_micros())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers: Option<Vec<f64>> =
            line.split_whitespace().map(|word| word.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[ios, wall_ns, cpu_ns, enters]) => Ok((Block { ios, wall_ns, cpu_ns }, enters)),
            _ => Err(io::Error::other(format!("the raw loop said {line:?}"))),
        }
    }
}

impl Drop for Raw {
    /// The end of its input ends it, but it may be in the middle of a block.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
