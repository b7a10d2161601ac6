//! Initramfs archives: a tree of files in memory, and the `newc` cpio that Linux unpacks at boot.
//!
//! Written here because an archive for a lab must hold the same bytes for the same contents (times,
//! owners and inode numbers are fixed), and because the format is one header and two paddings.
//! The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;

/// What a name in the tree stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Folder,
    File { executable: bool, bytes: Vec<u8> },
    Link { target: String },
}

/// A tree of files, by path without a leading slash. Folders above a file come with it.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

const MODE_FOLDER: u32 = 0o040_755;
const MODE_FILE: u32 = 0o100_644;
const MODE_PROGRAM: u32 = 0o100_755;
const MODE_LINK: u32 = 0o120_777;

impl Tree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder and those above it.
    pub fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        let above = path.char_indices().filter(|&(_, c)| c == '/').map(|(at, _)| &path[..at]);
        for folder in above.chain([path]) {
            self.nodes.entry(folder.to_owned()).or_insert(Node::Folder);
        }
    }

    /// Adds a file of plain data.
    pub fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.add(path, Node::File { executable: false, bytes: bytes.into() });
    }

    /// Adds a program or a script.
    pub fn program(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.add(path, Node::File { executable: true, bytes: bytes.into() });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Node::Link { target: target.to_owned() });
    }

    /// True when the path is in the tree.
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path.trim_matches('/'))
    }

    /// Takes out everything that `other` has too: what is left can be unpacked over it.
    pub fn without(mut self, other: &Tree) -> Tree {
        self.nodes.retain(|path, node| *node == Node::Folder || !other.nodes.contains_key(path));
        self
    }

    fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// The archive. Its length is a multiple of 512, so archives may be joined end to end.
    pub fn archive(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (inode, (path, node)) in (1..).zip(&self.nodes) {
            let (mode, bytes) = match node {
                Node::Folder => (MODE_FOLDER, &[][..]),
                Node::File { executable: false, bytes } => (MODE_FILE, &bytes[..]),
                Node::File { executable: true, bytes } => (MODE_PROGRAM, &bytes[..]),
                Node::Link { target } => (MODE_LINK, target.as_bytes()),
            };
            entry(&mut archive, inode, path, mode, bytes);
        }
        entry(&mut archive, 0, "TRAILER!!!", 0, &[]);
        pad(&mut archive, 512);
        archive
    }
}

fn entry(archive: &mut Vec<u8>, inode: usize, path: &str, mode: u32, bytes: &[u8]) {
    let (uid, gid, links, time, device) = (0, 0, 1, 0, 0);
    let name_size = path.len() + 1;
    let header = format!(
        "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{time:08x}{:08x}\
         {device:08x}{device:08x}{device:08x}{device:08x}{name_size:08x}{:08x}",
        bytes.len(),
        0,
    );
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    pad(archive, 4);
    archive.extend_from_slice(bytes);
    pad(archive, 4);
}

fn pad(archive: &mut Vec<u8>, to: usize) {
    archive.resize(archive.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_bytes_of_the_format() {
        let mut tree = Tree::new();
        tree.program("init", "#!/bin/sh\n");
        let archive = tree.archive();
        let text = String::from_utf8_lossy(&archive);
        // Header 110 bytes, name with its zero, padding to 4, then the data.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[14..22], "000081ed", "mode 0100755");
        assert_eq!(&text[54..62], "0000000a", "file size");
        assert_eq!(&text[94..102], "00000005", "name size with its zero");
        assert_eq!(&archive[110..115], b"init\0");
        assert_eq!(&archive[116..126], b"#!/bin/sh\n");
        assert_eq!(&archive[128..134], b"070701", "the trailer starts on a multiple of 4");
        assert_eq!(archive.len() % 512, 0);
    }

    #[test]
    fn folders_above_a_file_come_before_it() {
        let mut tree = Tree::new();
        tree.file("/usr/lib/x", "1");
        let paths: Vec<&String> = tree.nodes.keys().collect();
        assert_eq!(paths, ["usr", "usr/lib", "usr/lib/x"]);
    }

    #[test]
    fn an_overlay_leaves_out_what_the_base_has() {
        let (mut base, mut more) = (Tree::new(), Tree::new());
        base.file("lib/a", "1");
        more.file("lib/a", "1");
        more.file("lib/b", "2");
        let left = more.without(&base);
        assert!(left.has("lib/b") && !left.has("lib/a"));
    }
}
