//! Target `files`: ext2, ext3 and ext4 on images that somebody has damaged, read and written.
//!
//! A sound image gives what is on it; any other gives that or an error. Nothing is written to a
//! volume that is read-only, no place outside of it is asked for, and the work is bounded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use files::{Access, Error, FileSystem, Lost, Node, Sizes, Volume};

use super::choices::Choices;
use super::{Share, image};

/// Steps of an input, at most.
const STEPS_MAX: usize = 24;
/// Sectors that are read and written for an input, at most.
const WORK_MAX: u64 = 1 << 19;
/// Bytes that are read or written at once, at most.
const PART_BYTES_MAX: usize = 8192;
const SECTOR: usize = 512;
const NOW: Duration = Duration::from_secs(1_800_000_000);

const PATHS: [&str; 14] = [
    "/boot/grub/menu.lst",
    "/big",
    "/holes",
    "/link/menu.lst",
    "/round",
    "/far",
    "/",
    "/boot",
    "/many",
    "/many/file-03-with-a-longer-name",
    "/lost+found",
    "/new",
    "/new/file",
    "/many/../boot/./grub",
];

pub(super) fn check(bytes: &[u8]) -> Share {
    let mut choices = Choices::new(bytes);
    let bases = bases();
    let base = &bases[choices.below(bases.len())];
    let overlay = Rc::new(RefCell::new(Overlay::new(base)));
    let sound = !damage(&mut choices, &overlay);
    overlay.borrow_mut().read_only = choices.rarely(12);
    let access = choices.of(&[Access::ReadWrite, Access::ReadWrite, Access::ReadOnly]);
    let opened = FileSystem::open(Box::new(Medium(overlay.clone())), access, NOW);
    let Ok(mut system) = opened else {
        let refused = access == Access::ReadWrite && overlay.borrow().read_only;
        assert!(!sound || refused, "a sound image: {:?}", opened.err());
        return Share::one(false);
    };
    if sound {
        check_sound(&mut system);
    }
    let mut node = None;
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        step(&mut choices, &mut system, &mut node);
    }
    if choices.valid() {
        let closed = system.close();
        assert!(!sound || closed.is_ok(), "{closed:?}");
    }
    Share::one(true)
}

/// The images, as `mke2fs` made them, and one that was left without being closed.
fn bases() -> &'static [Vec<u8>] {
    static BASES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    BASES.get_or_init(|| {
        let mut bases: Vec<_> = ["ext2", "ext3", "ext4", "ext4-plain"].map(image::load).into();
        bases.push(left(&bases[1]));
        bases
    })
}

/// The image after a write that was not followed by a close: its journal has to be replayed.
fn left(base: &[u8]) -> Vec<u8> {
    let overlay = Rc::new(RefCell::new(Overlay::new(base)));
    let volume = Box::new(Medium(overlay.clone()));
    let mut system = FileSystem::open(volume, Access::ReadWrite, NOW).expect("a sound image");
    let node = system.create("/left").expect("room");
    system.write(node, 0, b"left behind").expect("room");
    drop(system);
    let mut image = base.to_vec();
    for (sector, bytes) in &overlay.borrow().written {
        let at = usize::try_from(*sector).expect("small") * SECTOR;
        image[at..at + SECTOR].copy_from_slice(bytes);
    }
    image
}

/// An image, what was written over it, and how much was asked of it.
struct Overlay<'a> {
    base: &'a [u8],
    written: BTreeMap<u64, [u8; SECTOR]>,
    read_only: bool,
    work: u64,
}

impl<'a> Overlay<'a> {
    fn new(base: &'a [u8]) -> Self {
        Self { base, written: BTreeMap::new(), read_only: false, work: 0 }
    }

    fn sector(&self, number: u64) -> [u8; SECTOR] {
        let at = usize::try_from(number).expect("on the volume") * SECTOR;
        let own = || *self.base[at..].first_chunk().expect("on the volume");
        self.written.get(&number).copied().unwrap_or_else(own)
    }

    fn count(&mut self, sector: u64, length: usize) {
        let sectors = (length / SECTOR) as u64;
        assert!(length.is_multiple_of(SECTOR) && length > 0, "{length} bytes");
        assert!(sector + sectors <= (self.base.len() / SECTOR) as u64, "not on the volume");
        self.work += sectors;
        assert!(self.work < WORK_MAX, "work without end");
    }

    /// Overwrites bytes at any place that is on the volume.
    fn patch(&mut self, at: usize, bytes: &[u8]) {
        for (at, &byte) in (at..self.base.len()).zip(bytes) {
            let number = (at / SECTOR) as u64;
            let mut sector = self.sector(number);
            sector[at % SECTOR] = byte;
            self.written.insert(number, sector);
        }
    }
}

struct Medium<'a>(Rc<RefCell<Overlay<'a>>>);

impl Volume for Medium<'_> {
    fn sizes(&self) -> Sizes {
        let overlay = self.0.borrow();
        let sectors = (overlay.base.len() / SECTOR) as u64;
        Sizes { sector_bytes: 512, sectors, read_only: overlay.read_only }
    }

    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), Lost> {
        let mut overlay = self.0.borrow_mut();
        overlay.count(sector, out.len());
        for (number, out) in (sector..).zip(out.chunks_mut(SECTOR)) {
            out.copy_from_slice(&overlay.sector(number));
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Lost> {
        let mut overlay = self.0.borrow_mut();
        assert!(!overlay.read_only, "a read-only volume is written to");
        overlay.count(sector, data.len());
        for (number, data) in (sector..).zip(data.as_chunks().0) {
            overlay.written.insert(number, *data);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Lost> {
        Ok(())
    }
}

/// Damages the image where it holds something; tells whether it did.
fn damage(choices: &mut Choices<'_>, overlay: &RefCell<Overlay<'_>>) -> bool {
    let mut overlay = overlay.borrow_mut();
    let count = if choices.rarely(4) { 0 } else { choices.below(8) };
    for _ in 0..count {
        let at = match choices.below(4) {
            // The superblock, and the descriptors behind it.
            0 => 1024 + choices.below(1024),
            1 => 2048 + choices.below(1024),
            2 => choices.below(overlay.base.len()),
            _ => {
                // A place that is not all zeros, from here on.
                let from = choices.below(overlay.base.len());
                let found = overlay.base[from..].iter().position(|&byte| byte != 0);
                from + found.unwrap_or(0)
            }
        };
        let old = overlay.sector((at / SECTOR) as u64)[at % SECTOR];
        match choices.below(6) {
            0 => overlay.patch(at, &[0]),
            1 => overlay.patch(at, &[u8::MAX]),
            2 => overlay.patch(at, &[old ^ (1 << choices.below(8))]),
            3 => overlay.patch(at & !3, &choices.word().to_le_bytes()),
            4 => overlay.patch(at & !3, &u32::from(choices.byte()).to_le_bytes()),
            _ => overlay.patch(at, choices.bytes(16)),
        }
    }
    count > 0
}

/// What `mke2fs` put there is there.
fn check_sound(system: &mut FileSystem<'_>) {
    for (path, expected) in
        [("/boot/grub/menu.lst", "title one\n"), ("/link/menu.lst", "title one\n")]
    {
        let node = system.find(path).expect(path);
        let mut out = [0; 32];
        let length = system.read(node, 0, &mut out).expect(path);
        assert_eq!(&out[..length], expected.as_bytes());
    }
    let big = system.find("/big").expect("it is there");
    let mut out = [0; 8];
    assert_eq!(system.read(big, 16_000, &mut out), Ok(8));
    assert_eq!(out, *b"00002000");
    assert_eq!(system.list("/many").expect("a folder").len(), 12);
    assert!(matches!(system.find("/round"), Err(Error::Other(_))), "a link to itself");
}

/// A volume holds what ends on it.
fn check_bound(choices: &mut Choices<'_>) {
    let sectors = choices.number(1 << 20, &[0, u64::MAX]);
    let edges = [0, sectors, u64::MAX];
    let (first, count) = (choices.number(sectors, &edges), choices.number(sectors, &edges));
    let sizes = Sizes { sector_bytes: 512, sectors, read_only: false };
    let holds = u128::from(first) + u128::from(count) <= u128::from(sectors);
    assert_eq!(sizes.hold(first, count), holds, "{count} sectors from {first} on of {sectors}");
}

fn step(choices: &mut Choices<'_>, system: &mut FileSystem<'_>, node: &mut Option<Node>) {
    let path = choices.of(&PATHS);
    match choices.below(13) {
        0..3 => *node = system.find(path).ok().or(*node),
        3 | 4 => drop(system.list(path)),
        5 | 6 => {
            let Some(node) = *node else { return };
            let mut out = vec![0; choices.below(PART_BYTES_MAX + 1)];
            let offset = choices.number(node.size_bytes, &[0, 1 << 32, u64::MAX, 12 << 10]);
            if let Ok(length) = system.read(node, offset, &mut out) {
                assert!(length <= out.len(), "more than there is room for");
            }
        }
        7 => *node = system.create(path).ok().or(*node),
        8 | 9 => {
            let Some(node) = *node else { return };
            let data = vec![choices.byte(); choices.below(PART_BYTES_MAX + 1)];
            // The caller writes at most at the end of a file.
            let _ = system.write(
                node,
                choices.double_below(node.size_bytes.saturating_add(1).max(1)),
                &data,
            );
        }
        10 => drop(system.make_folder(path)),
        11 => check_bound(choices),
        _ => drop(system.remove(path)),
    }
    let space = system.space();
    assert!(space.total_kib < u64::MAX);
}
