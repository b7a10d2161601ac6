//! pygrub for Dom0: the boot loader that reads a guest's own menu, with as much of Python as it uses.
//!
//! What it uses is asked of Python itself (`modulefinder`), and compiled here: under emulation every
//! file that Dom0 need not unpack, read or compile counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::Tree;
use crate::error::{Context, Result};
use crate::host;

use super::root::Maker;

const PYTHON: &str = "usr/bin/python3.11";
/// Python's library, and pygrub's own modules below Xen's folder.
const LIBRARY: &str = "usr/lib/python3.11";
/// Imported by name when Python starts.
const ENCODINGS: &str = "encodings";

impl Maker<'_> {
    /// Python, pygrub, and the libraries with which it reads file systems.
    pub(super) fn pygrub(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        self.program(&mut tree, PYTHON)?;
        tree.link("usr/bin/python3", "python3.11");
        let folder = format!("usr/lib/{}", self.xen_name());
        let pygrub = format!("{folder}/bin/pygrub");
        tree.program(&pygrub, self.read(&pygrub)?);
        tree.link("usr/bin/pygrub", &format!("/{pygrub}"));
        // Opened by name, one for each kind of file system.
        let plugins = format!("{folder}/lib/x86_64-linux-gnu/xenfsimage");
        for plugin in self.names(&plugins)? {
            self.program(&mut tree, &format!("{plugins}/{plugin}/fsimage.so"))?;
        }
        let modules = self.python_modules(&folder, &pygrub)?;
        let (native, text): (Vec<_>, Vec<_>) =
            modules.into_iter().partition(|path| host::has_extension(Path::new(path), "so"));
        for path in native {
            self.program(&mut tree, &path)?;
        }
        self.compile(&mut tree, &text)?;
        Ok(tree)
    }

    /// The pool's Python, on this machine.
    fn python(&self) -> Command {
        let mut python = self.runner(PYTHON);
        python.env("PYTHONHOME", self.pool.root.join("usr")).arg("-B");
        python
    }

    /// The files of every module that pygrub may import, below the pool's root.
    fn python_modules(&self, folder: &str, pygrub: &str) -> Result<Vec<String>> {
        let (root, own) = (&self.pool.root, self.pool.root.join(folder).join("lib/python"));
        let mut finder = self.python();
        finder.env("PYTHONPATH", &own).args(["-m", "modulefinder", "-p"]);
        // Its -p takes the place of the whole search path.
        let library = root.join(LIBRARY);
        let path = [own, library.clone(), library.join("lib-dynload")];
        let path: Vec<String> = path.iter().map(|it| it.display().to_string()).collect();
        let list = self.host.output(finder.arg(path.join(":")).arg(root.join(pygrub)))?;
        let list = String::from_utf8_lossy(&list).into_owned();
        let files = list.lines().filter_map(|line| line.split_ascii_whitespace().nth(2));
        let below = files.filter_map(|file| Path::new(file).strip_prefix(root).ok());
        let mut found: Vec<String> = below.map(|path| path.display().to_string()).collect();
        found.retain(|path| path != pygrub);
        let encodings = format!("{LIBRARY}/{ENCODINGS}");
        let names = self.names(&encodings)?.into_iter().filter(|name| name.ends_with(".py"));
        found.extend(names.map(|name| format!("{encodings}/{name}")));
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Adds modules as code without its text.
    fn compile(&self, tree: &mut Tree, modules: &[String]) -> Result<()> {
        let scratch = host::cache()?.join("python.draft");
        host::remove_folder(&scratch)?;
        for path in modules {
            let to = scratch.join(path);
            let folder: PathBuf = to.parent().map(Path::to_owned).unwrap_or_default();
            fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
            fs::write(&to, self.read(path)?).context(|| format!("writing {}", to.display()))?;
        }
        let mut compiler = self.python();
        compiler.args(["-m", "compileall", "-q", "-b", "--invalidation-mode", "unchecked-hash"]);
        self.host.run(compiler.arg(&scratch))?;
        for path in modules {
            let code = format!("{path}c");
            let from = scratch.join(&code);
            let bytes = fs::read(&from).context(|| format!("reading {}", from.display()))?;
            tree.file(&code, bytes);
        }
        host::remove_folder(&scratch)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let folder = self.pool.root.join(folder);
        let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }
}
