//! `cargo xtask orders`: takes the orderings and fences of the rings away, one at a time, and demands
//! that each time the models of [loom](../../ring/tests/loom.rs) notice.
//!
//! What an ordering is good for is easily forgotten, and a model that rests on something else than
//! the ordering passes without it. The places are found in the sources, so that a new one is tried
//! without being listed anywhere. Only copies are changed, in a folder below `target`.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host, TRIAL};
use crate::{build, interrupt};

/// The weaker orderings that may stand in the place of one, in the word `Ordering::…`.
const WEAKER: [(&str, &[&str]); 4] = [
    ("SeqCst", &["AcqRel"]),
    ("AcqRel", &["Acquire", "Release"]),
    ("Acquire", &["Relaxed"]),
    ("Release", &["Relaxed"]),
];

/// Of the shared words' folder, this is loom's side: models of orderings, not orderings.
const MODEL: &str = "src/sync";

/// One change of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mutant {
    /// Below the folder of the crate.
    file: PathBuf,
    /// From 0.
    line: usize,
    from: String,
    to: String,
}

impl std::fmt::Display for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, line) = (self.file.display(), self.line + 1);
        let to = if self.to.is_empty() { "nothing" } else { &self.to };
        write!(f, "ring/{file}:{line}: {} becomes {to}", self.from)
    }
}

/// Which changes are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Every one; before them the models have to hold without a change.
    All,
    /// Fences that are dropped: what is quick enough for every change of the project.
    Fences,
}

/// Runs the models on every mutant; gives how many mutants there were, and those that no model
/// noticed.
///
/// Errors: the models fail without a change, or a mutant is no program.
pub fn run(host: Host, changes: Changes) -> Result<(usize, Vec<String>)> {
    let folder = copy()?;
    let mut mutants = mutants(&folder.join("ring"))?;
    match changes {
        Changes::All => {
            let program = build::test_program(host, &mut cargo(&folder))?;
            if let Some(name) = first_failure(&mut host::tool_at(&program))? {
                let text = format!("{name} fails with the orderings as they are");
                return Err(LabError::Failed(text));
            }
        }
        Changes::Fences => mutants.retain(|mutant| mutant.to.is_empty()),
    }
    if mutants.is_empty() {
        return Err(LabError::Failed("no ordering was found in ring/src".into()));
    }
    let mut missed = Vec::new();
    for mutant in &mutants {
        let start = Instant::now();
        let noticed = noticed(host, &folder, mutant)?;
        let by = noticed.as_deref().unwrap_or("NOBODY");
        eprintln!("{:7.1} s  {mutant}: noticed by {by}", start.elapsed().as_secs_f64());
        if noticed.is_none() {
            missed.push(mutant.to_string());
        }
    }
    Ok((mutants.len(), missed))
}

/// A workspace of the crate alone.
fn copy() -> Result<PathBuf> {
    let folder = host::target().join("orders");
    host::remove_folder(&folder.join("ring"))?;
    let from = host::workspace();
    copy_folder(&from.join("ring"), &folder.join("ring"))?;
    let manifest = read(&from.join("Cargo.toml"))?;
    let lines = manifest.lines().filter(|line| !line.starts_with("default-members"));
    let alone = |line: &str| {
        let line = if line.starts_with("members") { "members = [\"ring\"]" } else { line };
        format!("{line}\n")
    };
    write(&folder.join("Cargo.toml"), &lines.map(alone).collect::<String>())?;
    write(&folder.join("Cargo.lock"), &read(&from.join("Cargo.lock"))?)?;
    Ok(folder)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).context(|| format!("reading {}", from.display()))? {
        let entry = entry.context(|| format!("reading {}", from.display()))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &to)?;
        } else {
            fs::copy(&path, &to).context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// All changes to be tried, in the order of files and lines.
fn mutants(ring: &Path) -> Result<Vec<Mutant>> {
    let mut found = Vec::new();
    let mut folders = vec![ring.join("src")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let file = path.strip_prefix(ring).unwrap_or(&path);
            if path.is_dir() && file != Path::new(MODEL) {
                folders.push(path);
            } else if host::has_extension(&path, "rs") {
                found.extend(mutants_of(file, &read(&path)?));
            }
        }
    }
    found.sort_by(|a, b| (&a.file, a.line, &a.to).cmp(&(&b.file, b.line, &b.to)));
    Ok(found)
}

/// The changes to one file.
fn mutants_of(file: &Path, text: &str) -> Vec<Mutant> {
    let mut found = Vec::new();
    for (line, code) in text.lines().enumerate() {
        let code = code.split("//").next().unwrap_or_default();
        let mut add = |from: String, to: String| {
            found.push(Mutant { file: file.into(), line, from, to });
        };
        for (ordering, weaker) in WEAKER {
            let from = format!("Ordering::{ordering}");
            let fence = format!("fence({from});");
            if code.contains(&fence) {
                add(fence, String::new());
                // A fence without an ordering is none.
                let weaker = weaker.iter().filter(|&&weaker| weaker != "Relaxed");
                weaker.for_each(|weaker| add(from.clone(), format!("Ordering::{weaker}")));
            } else if code.contains(&from) {
                weaker.iter().for_each(|weaker| add(from.clone(), format!("Ordering::{weaker}")));
            }
        }
    }
    found
}

/// The model that is the first to fail with this change.
fn noticed(host: Host, folder: &Path, mutant: &Mutant) -> Result<Option<String>> {
    let path = folder.join("ring").join(&mutant.file);
    let text = read(&path)?;
    write(&path, &changed(&text, mutant))?;
    let program = build::test_program(host, &mut cargo(folder));
    write(&path, &text)?;
    first_failure(&mut host::tool_at(&program?))
}

fn changed(text: &str, mutant: &Mutant) -> String {
    let lines = text.lines().enumerate().map(|(at, line)| {
        let line = if at == mutant.line {
            line.replace(&mutant.from, &mutant.to)
        } else {
            line.to_owned()
        };
        line + "\n"
    });
    lines.collect()
}

/// Runs all models, until one fails: its name.
fn first_failure(models: &mut Command) -> Result<Option<String>> {
    let line = host::command_line(models);
    let running = || format!("running {line}");
    models.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = models.spawn().context(running)?;
    let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    let failed = lines.map_while(io::Result::ok).find_map(|line| {
        // How the test harness says it.
        Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())
    });
    if failed.is_some() {
        // The others would only take time.
        child.kill().context(running)?;
    }
    let status = child.wait().context(running)?;
    interrupt::check()?;
    match failed {
        None if !status.success() => Err(LabError::Failed(format!("{}: {status}", running()))),
        failed => Ok(failed),
    }
}

/// Each program is built to fail at once.
fn cargo(folder: &Path) -> Command {
    let mut cargo = host::cargo();
    cargo.current_dir(folder).args(["test", "-p", "ring", "--profile", TRIAL, "--test", "loom"]);
    cargo.arg("--target-dir").arg(folder.join("target")).env("RUSTFLAGS", "--cfg loom");
    cargo
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordering_and_fence_is_found_and_comments_are_not() {
        let text = "a.store(1, Ordering::Release);\n\
                    fence(Ordering::SeqCst); // not Ordering::Acquire\n\
                    b.load(Ordering::Acquire) + c.load(Ordering::Relaxed);\n\
                    /// [`Ordering::Release`]\n\
                    fence(Ordering::Release);\n";
        let found = mutants_of(Path::new("src/a.rs"), text);
        let changes: Vec<_> = found.iter().map(|it| (it.line, &*it.from, &*it.to)).collect();
        assert_eq!(
            changes,
            [
                (0, "Ordering::Release", "Ordering::Relaxed"),
                (1, "fence(Ordering::SeqCst);", ""),
                (1, "Ordering::SeqCst", "Ordering::AcqRel"),
                (2, "Ordering::Acquire", "Ordering::Relaxed"),
                (4, "fence(Ordering::Release);", ""),
            ]
        );
        assert!(changed(text, &found[1]).contains("\n // not"));
        assert_eq!(changed(text, &found[0]).matches("Release").count(), 2);
    }

    #[test]
    fn the_first_model_that_fails_is_named_and_nobody_waits_for_the_others() {
        let models = |script: &str| {
            let start = Instant::now();
            let failed = first_failure(Command::new("sh").args(["-c", script]));
            assert!(start.elapsed().as_secs() < 60, "{script}");
            failed
        };
        let passed = "echo 'test a ... ok'";
        assert_eq!(models(passed).unwrap(), None);
        let failed = format!("{passed}; echo 'test b::c ... FAILED'; exec sleep 600");
        assert_eq!(models(&failed).unwrap().as_deref(), Some("b::c"));
        // Neither is this: a model that could not even run.
        assert!(models(&format!("{passed}; exit 1")).is_err());
    }

    #[test]
    fn the_rings_have_orderings_to_take_away() {
        let found = mutants(&host::workspace().join("ring")).unwrap();
        let dropped = found.iter().filter(|mutant| mutant.to.is_empty()).count();
        // Two of the block ring and two of the byte rings.
        assert!(dropped >= 4 && found.len() >= 2 * dropped, "{found:#?}");
        assert!(found.iter().all(|mutant| !mutant.file.starts_with(MODEL)));
    }
}
