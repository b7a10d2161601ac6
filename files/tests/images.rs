//! What is done to images of `mke2fs`, as `e2fsck` sees it afterwards, and what happens with images
//! that somebody damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends here")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use files::{Access, Error, FileSystem, Kind, Lost, Sizes, Volume};

const NOW: Duration = Duration::from_secs(1_800_000_000);

/// A volume in memory that cannot grow, and counts.
struct Medium<'a> {
    bytes: &'a mut Vec<u8>,
    sector_bytes: u32,
    read_only: bool,
}

impl Volume for Medium<'_> {
    fn sizes(&self) -> Sizes {
        let sectors = self.bytes.len() as u64 / u64::from(self.sector_bytes);
        Sizes { sector_bytes: self.sector_bytes, sectors, read_only: self.read_only }
    }

    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Lost> {
        let at = usize::try_from(sector).unwrap() * self.sector_bytes as usize;
        out.copy_from_slice(&self.bytes[at..at + out.len()]);
        Ok(())
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Lost> {
        assert!(!self.read_only, "a read-only volume is written to");
        let at = usize::try_from(sector).unwrap() * self.sector_bytes as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Lost> {
        Ok(())
    }
}

/// A file in the temporary folder, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("files-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0).and_then(|()| fs::remove_file(&self.0));
        let _ = fs::remove_file(&self.0);
    }
}

/// An image with a small tree, made by mke2fs with these arguments.
fn image(name: &str, arguments: &[&str]) -> Vec<u8> {
    let (tree, file) = (Scratch::new(&format!("{name}-tree")), Scratch::new(name));
    fs::create_dir_all(tree.0.join("boot/grub")).unwrap();
    fs::write(tree.0.join("boot/grub/menu.lst"), "title one\n").unwrap();
    fs::write(tree.0.join("big"), big()).unwrap();
    std::os::unix::fs::symlink("boot/grub", tree.0.join("link")).unwrap();
    std::os::unix::fs::symlink("/round", tree.0.join("round")).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-L", "/"]).args(arguments).arg("-d").arg(&tree.0);
    let status = command.arg(&file.0).arg("12M").status().expect("mke2fs");
    assert!(status.success());
    fs::read(&file.0).unwrap()
}

fn big() -> Vec<u8> {
    (0..700_000_u32).flat_map(|it| it.to_le_bytes()).take(700_001).collect()
}

/// Fails with what e2fsck finds.
fn check(name: &str, bytes: &[u8]) {
    let file = Scratch::new(&format!("{name}-check"));
    fs::write(&file.0, bytes).unwrap();
    let checked = Command::new("e2fsck").arg("-fn").arg(&file.0).output().expect("e2fsck");
    assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stdout));
}

fn open(bytes: &mut Vec<u8>, access: Access) -> Result<FileSystem<'_>, Error> {
    let medium = Medium { bytes, sector_bytes: 512, read_only: false };
    FileSystem::open(Box::new(medium), access, NOW)
}

/// The kinds of file systems that there are, as arguments.
const KINDS: [(&str, &[&str]); 7] = [
    ("ext2", &["-t", "ext2"]),
    ("ext3", &["-t", "ext3"]),
    ("ext4", &["-t", "ext4"]),
    ("ext2-4k", &["-t", "ext2", "-b", "4096"]),
    ("ext3-4k", &["-t", "ext3", "-b", "4096"]),
    ("ext4-4k", &["-t", "ext4", "-b", "4096"]),
    ("ext4-plain", &["-t", "ext4", "-O", "^has_journal,^metadata_csum,^64bit"]),
];

fn content(system: &mut FileSystem<'_>, path: &str) -> Result<Vec<u8>, Error> {
    let node = system.find(path)?;
    let size = usize::try_from(node.size_bytes).unwrap();
    let mut bytes = vec![0; size.min(16 << 20)];
    let length = system.read(node, 0, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

#[test]
fn what_mke2fs_put_there_is_found_and_reading_changes_nothing() {
    for (name, arguments) in KINDS {
        let mut bytes = image(&format!("read-{name}"), arguments);
        let before = bytes.clone();
        let mut system = open(&mut bytes, Access::ReadOnly).unwrap();
        assert_eq!(content(&mut system, "/big").unwrap(), big(), "{name}");
        assert_eq!(content(&mut system, "/link/menu.lst").unwrap(), b"title one\n");
        assert_eq!(content(&mut system, "boot/../boot//./grub/menu.lst").unwrap(), b"title one\n");
        let names: Vec<String> = system.list("/").unwrap().into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["big", "boot", "link", "lost+found", "round"]);
        assert_eq!(system.find("/nothing").unwrap_err(), Error::NotFound);
        assert_eq!(system.find("/big/under").unwrap_err(), Error::NotFolder);
        assert!(matches!(system.find("/round"), Err(Error::Other(_))), "a link to itself");
        assert_eq!(system.find("/link").unwrap().kind, Kind::Folder);
        assert_eq!(system.create("/new").unwrap_err(), Error::ReadOnly);
        system.close().unwrap();
        assert!(bytes == before, "{name}: reading has changed something");
    }
}

#[test]
fn after_writing_e2fsck_finds_nothing_wrong_and_everything_is_there() {
    for (name, arguments) in KINDS {
        let mut bytes = image(&format!("write-{name}"), arguments);
        let text = big();
        for round in 0..3 {
            let mut system = open(&mut bytes, Access::ReadWrite).unwrap();
            let folder = format!("/folder{round}");
            system.make_folder(&folder).unwrap();
            let path = format!("{folder}/copy");
            let node = system.create(&path).unwrap();
            for (at, part) in (0..).zip(text.chunks(128 << 10)) {
                system.write(node, at * (128 << 10), part).unwrap();
            }
            assert_eq!(system.make_folder(&folder).unwrap_err(), Error::Exists);
            assert_eq!(system.remove(&folder).unwrap_err(), Error::NotEmpty);
            let node = system.create("/boot/grub/menu.lst").unwrap();
            system.write(node, 0, b"shorter\n").unwrap();
            system.close().unwrap();
            check(name, &bytes);
        }
        let mut system = open(&mut bytes, Access::ReadWrite).unwrap();
        system.remove("/folder1/copy").unwrap();
        system.remove("/folder1").unwrap();
        system.remove("/big").unwrap();
        system.remove("/round").unwrap();
        system.close().unwrap();
        check(name, &bytes);
        let mut system = open(&mut bytes, Access::ReadOnly).unwrap();
        assert_eq!(content(&mut system, "/folder2/copy").unwrap(), text);
        assert_eq!(content(&mut system, "/boot/grub/menu.lst").unwrap(), b"shorter\n");
        assert_eq!(system.find("/big").unwrap_err(), Error::NotFound);
    }
}

#[test]
fn a_full_file_system_says_so_and_stays_whole() {
    let mut bytes = image("full", &["-t", "ext4"]);
    let mut system = open(&mut bytes, Access::ReadWrite).unwrap();
    let node = system.create("/all").unwrap();
    let part = vec![7; 128 << 10];
    let failed = (0..200).find_map(|at| system.write(node, at * (128 << 10), &part).err());
    assert_eq!(failed, Some(Error::Full));
    system.close().unwrap();
    check("full", &bytes);
}

#[test]
fn one_that_was_left_open_is_mended_from_its_journal() {
    for (name, arguments) in &KINDS[1..3] {
        let mut bytes = image(&format!("left-{name}"), arguments);
        let mut system = open(&mut bytes, Access::ReadWrite).unwrap();
        let node = system.create("/lost+found/note").unwrap();
        system.write(node, 0, b"hello").unwrap();
        drop(system);
        // A volume that cannot be written is read as it is.
        let sealed = Medium { bytes: &mut bytes.clone(), sector_bytes: 512, read_only: true };
        let mut system = FileSystem::open(Box::new(sealed), Access::ReadOnly, NOW).unwrap();
        assert_eq!(content(&mut system, "/boot/grub/menu.lst").unwrap(), b"title one\n");
        drop(system);
        open(&mut bytes, Access::ReadWrite).unwrap().close().unwrap();
        check(name, &bytes);
    }
}

#[test]
fn sectors_may_be_large() {
    let mut bytes = image("large", &["-t", "ext4", "-b", "4096"]);
    let medium = Medium { bytes: &mut bytes, sector_bytes: 4096, read_only: false };
    let mut system = FileSystem::open(Box::new(medium), Access::ReadWrite, NOW).unwrap();
    let node = system.create("/note").unwrap();
    system.write(node, 0, b"hello").unwrap();
    system.close().unwrap();
    check("large", &bytes);
}

#[test]
fn nothing_to_write_is_refused_on_a_read_only_volume() {
    let mut bytes = image("sealed", &["-t", "ext2"]);
    let medium = Medium { bytes: &mut bytes, sector_bytes: 512, read_only: true };
    let opened = FileSystem::open(Box::new(medium), Access::ReadWrite, NOW);
    assert_eq!(opened.err(), Some(Error::ReadOnly));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % end as u64).unwrap()
    }
}

/// Damages metadata: most of it lies at the begin, and where blocks are not all zeros or data.
fn damage(bytes: &mut [u8], seed: u64) {
    let mut random = Random(seed);
    let reach = [2048, 64 << 10, 1 << 20, bytes.len()][random.below(4)];
    for _ in 0..1 << random.below(8) {
        let at = if reach == 2048 { 1024 + random.below(1024) } else { random.below(reach) };
        bytes[at] = [0, 0xff, bytes[at] ^ (1 << random.below(8))][random.below(3)];
    }
}

/// Everything that the shell can do, whatever the answers; tells whether there was anything to use.
fn use_all(bytes: &mut Vec<u8>, access: Access) -> bool {
    let Ok(mut system) = open(bytes, access) else { return false };
    for path in ["/big", "/link/menu.lst", "/round"] {
        let _ = content(&mut system, path);
    }
    for folder in ["/", "/boot", "/boot/grub", "/lost+found"] {
        let _ = system.list(folder);
    }
    let _ = system.space();
    if access == Access::ReadWrite {
        let _ = system.make_folder("/folder");
        if let Ok(node) = system.create("/folder/file") {
            let _ = system.write(node, 0, &big()[..100_000]);
        }
        let _ = system.remove("/big");
    }
    let _ = system.close();
    true
}

#[test]
fn a_thousand_damaged_images_neither_panic_nor_hang() {
    let images =
        [&KINDS[0], &KINDS[2], &KINDS[6]].map(|(name, it)| image(&format!("bad-{name}"), it));
    let mut opened = 0;
    for seed in 0..1000 {
        let mut bytes = images[usize::try_from(seed % 3).unwrap()].clone();
        damage(&mut bytes, seed);
        let access = if seed % 2 == 0 { Access::ReadOnly } else { Access::ReadWrite };
        let begin = std::time::Instant::now();
        let used =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| use_all(&mut bytes, access)));
        assert!(used.is_ok(), "seed {seed}");
        opened += usize::from(used.is_ok_and(|used| used));
        assert!(begin.elapsed() < Duration::from_secs(20), "seed {seed} takes for ever");
    }
    assert!((200..900).contains(&opened), "the damage does not reach: {opened} were opened");
}
