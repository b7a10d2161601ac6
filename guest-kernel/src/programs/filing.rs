//! The programs that use files: `mount`, `umount`, `ls`, `cat`, `cp`, `write`, `rm`, `mkdir`, `df`,
//! `sync`.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::digest::Hex;
use super::stream::Writer;
use super::{Disks, Failure, Machine, Speed};
use crate::files::{Access, CHUNK_BYTES, Error, FileSystem, Files, Kind, Mount, Node, clean};
use crate::volumes::{self, Found, Signature};

/// `mount [-r|-w] [SPEC [FOLDER]]`: without a spec, what is mounted.
///
/// # Errors
/// [`Failure`].
pub fn mount<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    let (access, words) = match words.split_first() {
        Some((first, rest)) if first == "-w" || first == "rw" => (Access::ReadWrite, rest),
        Some((first, rest)) if first == "-r" || first == "ro" => (Access::ReadOnly, rest),
        _ => (Access::ReadOnly, words),
    };
    match words {
        [] => {
            for it in disks.mounts.iter() {
                machine.print(format_args!("{}", line(it)));
            }
            Ok(())
        }
        [spec] => add(machine, disks, spec, "/", access),
        [spec, folder] => add(machine, disks, spec, folder, access),
        _ => Err(Failure::usage("usage: mount [ro|rw] [LABEL=…|UUID=…|DEVICE [FOLDER]]")),
    }
}

fn line(mount: &Mount) -> String {
    let Mount { folder, volume, kind, access } = mount;
    let access = if *access == Access::ReadWrite { "rw" } else { "ro" };
    format!("{} on {folder} type {kind} ({access})", volume.name)
}

fn add<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    spec: &str,
    folder: &str,
    access: Access,
) -> Result<(), Failure> {
    let found = volumes::find_files(machine, disks, spec)?;
    add_found(machine, disks, (spec, found), folder, access)
}

/// Mounts a volume that was found by its name.
pub(super) fn add_found<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    (spec, found): (&str, Found),
    folder: &str,
    access: Access,
) -> Result<(), Failure> {
    let Found { volume, signature } = found;
    let Some(Signature { kind, .. }) = signature.filter(|it| it.kind.has_files()) else {
        return Err(Failure::missing(format!("{}: no ext2, ext3 or ext4 there", volume.name)));
    };
    let mount = Mount { folder: clean(folder), volume, kind, access };
    disks.mounts.check(&mount)?;
    // Whether it can be opened shows now, and a journal that was left behind is done with.
    let files = Files::new(machine, disks);
    files.open_mount(&mount)?.close().map_err(|it| files.told(spec, it))?;
    drop(files);
    machine.print(format_args!("{}", line(&mount)));
    disks.mounts.add(mount)
}

/// `volumes`: every volume and what is on it.
///
/// # Errors
/// [`Failure::usage`] for any word.
pub fn volumes<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: volumes"));
    }
    for found in volumes::all(machine, disks) {
        machine.print(format_args!("{found}"));
    }
    Ok(())
}

/// `umount FOLDER|DEVICE`. Nothing is open, so there is nothing to wait for.
///
/// # Errors
/// [`Failure`] if it is not mounted.
pub fn umount<M: Machine>(_: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let [what] = words else { return Err(Failure::usage("usage: umount FOLDER|DEVICE")) };
    disks.mounts.remove(what).map(drop)
}

/// `ls [PATH]…`: kind, permissions, size and name, in order of the names.
///
/// # Errors
/// [`Failure`].
pub fn ls<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let root = [String::from("/")];
    let paths = if words.is_empty() { &root } else { words };
    for path in paths {
        let files = Files::new(machine, disks);
        let (mut system, inner) = files.open(path, Access::ReadOnly)?;
        let entries = entries(&mut system, path, &inner).map_err(|it| files.told(path, it))?;
        for (name, Node { kind, size_bytes, mode, .. }) in entries {
            let letter = match kind {
                Kind::File => '-',
                Kind::Folder => 'd',
                Kind::Link => 'l',
                Kind::Other => '?',
            };
            let name: String =
                name.chars().map(|it| if it.is_control() { '?' } else { it }).collect();
            machine.print(format_args!("{letter}{mode:04o} {size_bytes:>10} {name}"));
        }
        system.close().map_err(|it| files.told(path, it))?;
    }
    Ok(())
}

fn entries(
    system: &mut FileSystem<'_>,
    path: &str,
    inner: &str,
) -> Result<Vec<(String, Node)>, Error> {
    let node = system.find(inner)?;
    match node.kind {
        Kind::Folder => system.list(inner),
        _ => Ok(vec![(String::from(path), node)]),
    }
}

/// Hands a file over in parts, in order.
fn each_part<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    path: &str,
    mut part: impl FnMut(&[u8]),
) -> Result<u64, Failure> {
    let files = Files::new(machine, disks);
    let (mut system, inner) = files.open(path, Access::ReadOnly)?;
    let all = (|| {
        let node = system.find(&inner)?;
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let length = system.read(node, offset, &mut bytes)?;
            if length == 0 {
                break;
            }
            part(&bytes[..length]);
            offset += length as u64;
        }
        system.close().map(|()| offset)
    })();
    all.map_err(|it| files.told(path, it))
}

/// `cat FILE…`: the lines of files. What is no text is shown as far as it is.
///
/// # Errors
/// [`Failure`].
pub fn cat<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    if words.is_empty() {
        return Err(Failure::usage("usage: cat FILE…"));
    }
    for path in words {
        let mut left = Vec::new();
        each_part(machine, disks, path, |part| {
            for &byte in part {
                // A line is printed when it ends, or has become long.
                if byte == b'\n' || left.len() == 4096 {
                    machine.print(format_args!("{}", shown(&left)));
                    left.clear();
                }
                if byte != b'\n' {
                    left.push(byte);
                }
            }
        })?;
        if !left.is_empty() {
            machine.print(format_args!("{}", shown(&left)));
        }
    }
    Ok(())
}

/// Text without what a terminal would obey.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|it| if it.is_control() && it != '\t' { '?' } else { it }).collect()
}

/// `sha256 FILE`, in the form of `sha256sum`.
///
/// # Errors
/// [`Failure`].
pub fn digest<M: Machine>(machine: &M, disks: &mut Disks<M>, path: &str) -> Result<(), Failure> {
    let begin = machine.now();
    let mut hash = Sha256::new();
    let bytes = each_part(machine, disks, path, |part| hash.update(part))?;
    let speed = Speed { bytes, time: machine.now().since(begin) };
    machine.print(format_args!("{}  {path}", Hex(&hash.finalize())));
    machine.print(format_args!("sha256: {path}: {speed}"));
    Ok(())
}

/// `cp FILE FILE`.
///
/// # Errors
/// [`Failure`]. What was copied until then stays.
pub fn cp<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    let [from, to] = words else { return Err(Failure::usage("usage: cp FILE FILE")) };
    if clean(from) == clean(to) {
        return Err(Failure::usage("cp: it is the same file"));
    }
    let apart = disks.mounts.of(from)?.0.folder != disks.mounts.of(to)?.0.folder;
    let begin = machine.now();
    let files = Files::new(machine, disks);
    let (mut target, inner) = files.open(to, Access::ReadWrite)?;
    let job = Copy { files: &files, machine, from, to };
    let copied = if apart {
        let (mut source, from) = files.open(from, Access::ReadOnly)?;
        job.run(Some(&mut source), &from, &mut target, &inner)
    } else {
        job.run(None, &files.place(from)?, &mut target, &inner)
    };
    // What is there is brought to the disk, however far the copy came.
    target.close().map_err(|it| files.told(to, it))?;
    let speed = Speed { bytes: copied?, time: machine.now().since(begin) };
    machine.print(format_args!("cp: copied {speed}"));
    Ok(())
}

/// A copy, with the paths as the user knows them.
struct Copy<'c, 'a, M: Machine> {
    files: &'c Files<'a, M>,
    machine: &'c M,
    from: &'c str,
    to: &'c str,
}

impl<M: Machine> Copy<'_, '_, M> {
    /// Copies a file of `source`, or of the target's own file system. Ctrl-C ends it between two
    /// parts.
    fn run(
        &self,
        mut source: Option<&mut FileSystem<'_>>,
        from: &str,
        target: &mut FileSystem<'_>,
        to: &str,
    ) -> Result<u64, Failure> {
        let of_source = |error| self.files.told(self.from, error);
        let of_target = |error| self.files.told(self.to, error);
        let found = match &mut source {
            Some(source) => source.find(from),
            None => target.find(from),
        };
        let node = found.map_err(of_source)?;
        if node.kind != Kind::File {
            return Err(Failure::failed(format!("{}: not a file", self.from)));
        }
        let copy = target.create(to).map_err(of_target)?;
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let read = match &mut source {
                Some(source) => source.read(node, offset, &mut bytes),
                None => target.read(node, offset, &mut bytes),
            };
            let length = read.map_err(of_source)?;
            if length == 0 {
                return Ok(offset);
            }
            if self.machine.interrupted() {
                return Err(Failure::interrupted());
            }
            target.write(copy, offset, &bytes[..length]).map_err(of_target)?;
            offset += length as u64;
        }
    }
}

/// Changes the file system that `path` is on and closes it, whether that went well or not.
fn change<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    path: &str,
    action: impl FnOnce(&mut FileSystem<'_>, &str) -> Result<(), Error>,
) -> Result<(), Failure> {
    let files = Files::new(machine, disks);
    let (mut system, inner) = files.open(path, Access::ReadWrite)?;
    let done = action(&mut system, &inner);
    system.close().and(done).map_err(|it| files.told(path, it))
}

/// `write FILE WORD…`: makes a file of one line.
///
/// # Errors
/// [`Failure`].
pub fn write<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    let Some((path, text)) = words.split_first() else {
        return Err(Failure::usage("usage: write FILE WORD…"));
    };
    let line = text.join(" ") + "\n";
    change(machine, disks, path, |system, inner| {
        let node = system.create(inner)?;
        system.write(node, 0, line.as_bytes())
    })
}

/// `rm PATH…`: removes files, links and empty folders.
///
/// # Errors
/// [`Failure`] at the first that cannot be removed.
pub fn rm<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    if words.is_empty() {
        return Err(Failure::usage("usage: rm PATH…"));
    }
    words.iter().try_for_each(|path| change(machine, disks, path, |it, inner| it.remove(inner)))
}

/// `mkdir PATH…`.
///
/// # Errors
/// [`Failure`] at the first that cannot be made.
pub fn mkdir<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    if words.is_empty() {
        return Err(Failure::usage("usage: mkdir PATH…"));
    }
    words
        .iter()
        .try_for_each(|path| change(machine, disks, path, |it, inner| it.make_folder(inner)))
}

/// `df`: how full each mounted file system is.
///
/// # Errors
/// [`Failure`].
pub fn df<M: Machine>(machine: &M, disks: &mut Disks<M>, words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: df"));
    }
    let mounts: Vec<Mount> = disks.mounts.iter().cloned().collect();
    machine.print(format_args!("device        KiB in all    KiB free  folder"));
    for mount in mounts {
        let reading = Mount { access: Access::ReadOnly, ..mount };
        let files = Files::new(machine, disks);
        let system = files.open_mount(&reading)?;
        let space = system.space();
        let (name, folder) = (&reading.volume.name, &reading.folder);
        let (total, free) = (space.total_kib, space.free_kib);
        machine.print(format_args!("{name:<10} {total:>13} {free:>11}  {folder}"));
        system.close().map_err(|it| files.told(folder, it))?;
    }
    Ok(())
}

/// `sync`: makes everything durable that was written to any disk.
///
/// # Errors
/// [`Failure`] of the first disk that does not.
pub fn sync<M: Machine>(
    machine: &M,
    disks: &mut Disks<M>,
    words: &[String],
) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: sync"));
    }
    for which in disks.places() {
        if disks.disk(which).is_ok() && !Writer::new(which).finish(machine, disks)? {
            machine.print(format_args!("{}: it has no flush", disks.name(which)));
        }
    }
    Ok(())
}
