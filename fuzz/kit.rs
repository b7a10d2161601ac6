//! What the fuzzer needs besides its targets: `kit seeds FOLDER` writes the inputs that are made of
//! recorded traces, `kit pack IMAGE` shows a disk image without its zeros.

use std::fs;
use std::io::{Error, Result, Write, stdout};
use std::path::Path;

use tests::fuzz::{TARGETS, image, seeds};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["seeds", folder] => write_seeds(Path::new(folder)),
        ["pack", path] => stdout().write_all(&image::packed(&fs::read(path)?)),
        _ => Err(Error::other("usage: kit seeds FOLDER, kit pack IMAGE")),
    }
}

fn write_seeds(folder: &Path) -> Result<()> {
    for (target, _) in TARGETS {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds::seeds(target) {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
