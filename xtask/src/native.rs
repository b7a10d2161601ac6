//! The native part of `cargo xtask bench`: its peers in C, its program, and one run of it.
//!
//! What is missing on this machine costs the figures that need it, and no others.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, LabError, Result};
use crate::host::{self, Host};
use crate::{packages, setup};

/// About how long it takes, in seconds, once all is built.
pub const SECONDS: u64 = 330;
/// The same for a quick run.
pub const QUICK_SECONDS: u64 = 30;

/// What a run has left in its folder.
#[derive(Debug)]
pub struct Left {
    /// Figures, in the form of all figures.
    pub figures: PathBuf,
    /// Plots, as an SVG.
    pub plots: PathBuf,
    /// What was printed.
    pub table: PathBuf,
}

/// Builds everything and measures.
///
/// Errors: no compiler; an I/O that failed.
pub fn run(host: Host, quick: bool, out: &Path) -> Result<Left> {
    if let Err(error) = setup::valgrind(host) {
        eprintln!("the ring's instructions will not be counted: {error}");
    }
    let peers = out.join("peers");
    fs::create_dir_all(&peers).context(|| format!("making {}", peers.display()))?;
    let raw = compiled(host, &peers, "raw", None)?;
    let macros = packages::ensure(host).and_then(|pool| {
        let headers = pool.headers();
        compiled(host, &peers, "macros", Some(&headers))
    });
    let mut cargo = host::cargo();
    host.show(cargo.args(["build", "--release", "--quiet", "-p", "bench", "--bin", "native"]))?;
    let mut native = host::tool_at(&host::target().join("release/native"));
    native.arg("measure").args(quick.then_some("--quick"));
    native.arg("--raw").arg(raw).arg("--out").arg(out);
    match macros {
        Ok(macros) => drop(native.arg("--macros").arg(macros)),
        Err(error) => eprintln!("the ring will not be beside Xen's macros: {error}"),
    }
    host.show(&mut native)?;
    let [figures, plots, table] = ["json", "svg", "txt"].map(|it| out.join(format!("native.{it}")));
    Ok(Left { figures, plots, table })
}

/// A program of `bench/peers`, compiled for speed.
fn compiled(host: Host, out: &Path, name: &str, headers: Option<&Path>) -> Result<PathBuf> {
    let program = out.join(name);
    let source = host::workspace().join(format!("bench/peers/{name}.c"));
    let mut cc = host::tool("cc");
    cc.args(["-O3", "-std=gnu11", "-o"]).arg(&program).arg(source);
    if let Some(headers) = headers {
        cc.arg("-isystem").arg(headers);
    }
    host.run(&mut cc).map_err(|error| match error {
        LabError::Missing(why) => LabError::Missing(format!("{why}; apt-get install gcc")),
        other => other,
    })?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_loop_compiles_and_says_how_it_is_called() {
        let folder = std::env::temp_dir().join(format!("pvblk-peers-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let raw = compiled(Host::default(), &folder, "raw", None).unwrap();
        let said = host::tool_at(&raw).output().unwrap();
        assert_eq!(said.status.code(), Some(2));
        assert!(said.stderr.starts_with(b"usage: raw FILE "));
        fs::remove_dir_all(folder).unwrap();
    }
}
