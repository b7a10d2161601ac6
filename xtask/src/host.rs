//! The machine that the tasks run on: its programs, its folders.
//!
//! All commands of all tasks go through [`Host`], so that `-v` prints each of them as it could be
//! typed, and a missing program names the Debian package that brings it. Must never run a shell.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, LabError, Result};
use crate::interrupt;

/// Runs programs on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host {
    /// Print every command before it runs, and let its output through.
    pub verbose: bool,
}

impl Host {
    /// Runs `command` and waits; its output is shown only when it fails (or under `-v`).
    ///
    /// Errors: [`LabError::Missing`] when there is no such program, [`LabError::Failed`] with the end
    /// of its output when it fails.
    pub fn run(self, command: &mut Command) -> Result<()> {
        if self.verbose {
            return self.show(command);
        }
        self.output(command).map(drop)
    }

    /// Runs `command` with its output on our terminal.
    pub fn show(self, command: &mut Command) -> Result<()> {
        let line = self.announce(command);
        let status = command.status().map_err(|error| not_started(command, &error))?;
        interrupt::check()?;
        if status.success() {
            return Ok(());
        }
        Err(LabError::Failed(format!("{line}: {status}")))
    }

    /// Runs `command` and returns its standard output.
    pub fn output(self, command: &mut Command) -> Result<Vec<u8>> {
        let line = self.announce(command);
        command.stdin(Stdio::null());
        let output = command.output().map_err(|error| not_started(command, &error))?;
        interrupt::check()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        Err(LabError::Failed(format!("{line}: {}\n{end}", output.status)))
    }

    /// Runs `command` with the standard input that it was given, and returns its output.
    pub fn filter(self, command: &mut Command) -> Result<Vec<u8>> {
        let line = self.announce(command);
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| not_started(command, &error))?;
        interrupt::check()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(LabError::Failed(format!("{line}: {}", output.status)))
    }

    fn announce(self, command: &Command) -> String {
        let line = command_line(command);
        if self.verbose {
            eprintln!("$ {line}");
        }
        line
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> LabError {
    let program = command.get_program().to_string_lossy();
    LabError::Missing(format!("cannot run {program}: {error} (try `cargo xtask setup`)"))
}

/// A command as a person would type it.
pub fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word quoted for a POSIX shell, only when it needs it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Where `program` is, searched in `PATH` and in the folders of root (a user's `PATH` lacks them).
pub fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let found = |folder: PathBuf| Some(folder.join(program)).filter(|file| file.is_file());
    env::split_paths(&path).chain(usual).find_map(found)
}

/// A command for `program`, found also in the folders of root.
pub fn tool(program: &str) -> Command {
    Command::new(which(program).unwrap_or_else(|| program.into()))
}

/// A command for the program at this path.
pub fn tool_at(path: &Path) -> Command {
    Command::new(path)
}

/// The folder of everything that is fetched or made once: `$PVBLK_CACHE`, or `pvblk` in the user's
/// cache folder.
pub fn cache() -> Result<PathBuf> {
    let own = env::var_os("PVBLK_CACHE").map(PathBuf::from);
    let xdg = || env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("pvblk"));
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache/pvblk"));
    let folder = own.or_else(xdg).or_else(home);
    let folder = folder.ok_or_else(|| {
        LabError::Missing("no cache folder: set PVBLK_CACHE or HOME to a folder".into())
    })?;
    fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// The workspace that this program was built from.
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target folder for this workspace.
pub fn target() -> PathBuf {
    let set = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    workspace().join(set.unwrap_or_else(|| "target".into()))
}

/// The `cargo` that started us, or the one in `PATH`.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    // A caller's own flags would give each step another build of everything.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

/// The profile of what is built to run a short time (see the workspace's manifest).
pub const TRIAL: &str = "trial";

/// A program of another member, built for speed and run, with the options that are set. Members that
/// depend on this one can only be started and not be called.
pub fn program(member: &str, name: &str, options: &[(&str, Option<String>)]) -> Command {
    let mut cargo = cargo();
    cargo.args(["run", "--release", "--quiet", "-p", member, "--bin", name, "--"]);
    for (option, value) in options {
        cargo.args(value.iter().flat_map(|value| [*option, value]));
    }
    cargo
}

/// A command of the nightly toolchain, for what stable does not have.
pub fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).current_dir(workspace());
    // Set by the cargo that started us, for another toolchain.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// Holds one task's turn at the cache; others wait. Released on drop.
pub fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).context(|| format!("making {}", path.display()))?;
    file.lock().context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Writes a file so that it is there whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_added_extension("draft");
    fs::write(&draft, bytes).context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, path).context(|| format!("writing {}", path.display()))
}

/// Removes a folder that may not be there.
pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::Failed(format!("removing {}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// A short name for some contents (FNV-1a, 64 bits): tells cache folders apart, nothing more.
pub fn stamp<T: AsRef<[u8]>>(parts: &[T]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.as_ref().iter().chain(&[0xff])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// True when `path` ends with one of the `extensions`.
pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension() == Some(OsStr::new(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_when_a_shell_would_split_or_expand_them() {
        assert_eq!(quoted("format=raw,vdev=xvda"), "format=raw,vdev=xvda");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_stamp_tells_parts_apart_that_join_to_the_same_text() {
        assert_ne!(stamp(&["ab", "c"]), stamp(&["a", "bc"]));
        assert_eq!(stamp(&["ab", "c"]), stamp(&["ab", "c"]));
    }

    #[test]
    fn a_program_that_is_not_there_is_missing_not_failed() {
        let error = Host::default().run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert_eq!(error.code(), 3);
    }
}
