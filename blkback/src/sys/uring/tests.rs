//! The real `io_uring` of this machine on files of its own.

use std::os::unix::fs::FileExt;

use super::*;
use crate::Bell;
use crate::disk::Extent;
use crate::scratch::Scratch;

type Handle = Arc<Page>;

fn page(value: u8) -> Handle {
    let page = Arc::new(Page::new());
    page.write(0, &[value; 4096]);
    page
}

fn bytes(page: &Page) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    page.read(0, &mut bytes);
    bytes
}

fn extent(page: &Handle, offset_bytes: u16, length_bytes: u16) -> Extent<Handle> {
    Extent { page: page.clone(), offset_bytes, length_bytes }
}

fn job(tag: u32, verb: Verb, offset_bytes: u64, extents: Vec<Extent<Handle>>) -> Job<Handle> {
    Job { tag, verb, offset_bytes, extents }
}

fn disk(path: &std::path::Path) -> UringDisk<Handle> {
    let image = Image::open(path, false).expect("the image can be opened");
    UringDisk::new(Arc::new(image), 32).expect("io_uring can be had")
}

/// Submits one job and waits for it.
fn carry_out(disk: &mut UringDisk<Handle>, job: Job<Handle>) -> Done<Handle> {
    disk.submit(&mut vec![job]);
    loop {
        disk.wait(Patience::UntilWoken).expect("waiting works");
        if let Some(done) = disk.reap() {
            return done;
        }
    }
}

#[test]
fn what_is_written_from_scattered_pages_is_in_the_file_and_read_back() {
    let folder = Scratch::new("uring-scattered");
    let path = folder.file("d.img", 1 << 20);
    let mut disk = disk(&path);
    let pages = [page(1), page(2), page(3)];
    let extents = vec![
        extent(&pages[0], 512, 1024),
        extent(&pages[1], 0, 4096),
        extent(&pages[2], 3584, 512),
    ];
    let done = carry_out(&mut disk, job(7, Verb::Write, 512, extents));
    assert_eq!((done.tag, done.result, done.done_bytes), (7, Ok(()), 5632));
    assert_eq!(carry_out(&mut disk, job(8, Verb::Flush, 0, vec![])).result, Ok(()));

    let mut want = vec![0; 512];
    want.extend([[1; 512]; 2].concat());
    want.extend([2; 4096]);
    want.extend([3; 512]);
    want.extend([0; 512]);
    let mut found = vec![9; want.len()];
    std::fs::File::open(&path).unwrap().read_exact_at(&mut found, 0).unwrap();
    assert!(found == want);

    let back = page(9);
    let done = carry_out(&mut disk, job(9, Verb::Read, 512, vec![extent(&back, 1024, 2048)]));
    assert_eq!(done.result, Ok(()));
    let expect = [vec![9; 1024], vec![1; 1024], vec![2; 1024], vec![9; 1024]].concat();
    assert!(bytes(&back) == expect);
}

#[test]
fn an_image_cut_short_answers_with_what_was_there() {
    let folder = Scratch::new("uring-short");
    let path = folder.file("d.img", 16384);
    let mut disk = disk(&path);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let (first, second) = (page(1), page(2));
    let extents = vec![extent(&first, 0, 4096), extent(&second, 0, 4096)];
    let done = carry_out(&mut disk, job(1, Verb::Read, 0, extents));
    assert_eq!((done.result, done.done_bytes), (Err(DiskError::Short), 4096));
    assert!(bytes(&first) == vec![0; 4096]);
}

#[test]
fn discarded_bytes_read_as_zeros() {
    let folder = Scratch::new("uring-discard");
    let path = folder.file("d.img", 16384);
    let mut disk = disk(&path);
    if disk.profile().discard_granularity.is_none() {
        return;
    }
    carry_out(&mut disk, job(1, Verb::Write, 4096, vec![extent(&page(5), 0, 4096)]));
    let discard = Verb::Discard { length_bytes: 4096 };
    assert_eq!(carry_out(&mut disk, job(2, discard, 4096, vec![])).result, Ok(()));
    let back = page(9);
    carry_out(&mut disk, job(3, Verb::Read, 4096, vec![extent(&back, 0, 4096)]));
    assert!(bytes(&back) == vec![0; 4096]);
}

#[test]
fn one_enter_submits_a_batch_and_the_bell_wakes_the_waiter() {
    let folder = Scratch::new("uring-batch");
    let path = folder.file("d.img", 1 << 20);
    let mut disk = disk(&path);
    let (event, control) = (Bell::new().unwrap(), Bell::new().unwrap());
    disk.listen(&event, &control);
    let mut batch: Vec<_> = (0..32)
        .map(|tag| job(tag, Verb::Write, u64::from(tag) * 4096, vec![extent(&page(1), 0, 4096)]))
        .collect();
    disk.submit(&mut batch);
    assert_eq!(disk.enters(), 0);
    let mut reaped = 0;
    while reaped < 32 {
        assert_eq!(disk.wait(Patience::UntilWoken).unwrap(), Woken::default());
        while let Some(done) = disk.reap() {
            assert_eq!(done.result, Ok(()));
            reaped += 1;
        }
    }
    for _ in 0..3 {
        event.ring();
        assert_eq!(disk.wait(Patience::UntilWoken).unwrap(), Woken { event: true, control: false });
        event.silence();
        control.ring();
        assert!(disk.wait(Patience::UntilWoken).unwrap().control);
        control.silence();
    }
}

#[test]
fn a_disk_dropped_with_jobs_in_flight_waits_for_them() {
    let folder = Scratch::new("uring-drop");
    let path = folder.file("d.img", 1 << 20);
    let kept = page(7);
    let mut disk = disk(&path);
    let mut batch: Vec<_> = (0..64)
        .map(|tag| job(tag, Verb::Write, u64::from(tag) * 4096, vec![extent(&kept, 0, 4096)]))
        .collect();
    disk.submit(&mut batch);
    disk.wait(Patience::None).unwrap();
    drop(disk);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(std::fs::read(&path).unwrap()[..64 * 4096] == vec![7; 64 * 4096]);
}

#[test]
fn the_ring_carries_out_nothing_but_what_a_disk_does() {
    let folder = Scratch::new("uring-restricted");
    let mut disk = disk(&folder.file("d.img", 8192));
    for entry in [
        opcode::Nop::new().build(),
        opcode::Close::new(types::Fd(-1)).build(),
        opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build(),
        opcode::Fsync::new(types::Fixed(0)).build().flags(squeue::Flags::IO_LINK),
    ] {
        // SAFETY: none of these refers to memory.
        unsafe { disk.ring.submission().push(&entry) }.expect("there is room");
        disk.ring.submit_and_wait(1).expect("the ring itself works");
        let done = disk.ring.completion().next().expect("an answer");
        assert_eq!(done.result(), -libc::EACCES, "{entry:?}");
    }
    let registered = disk.ring.submitter().register_files(&[0]);
    assert_eq!(registered.unwrap_err().raw_os_error(), Some(libc::EACCES));
}

/// What becomes of the results of entries.
struct Trouble {
    /// So many pass before.
    nth: u64,
    once: bool,
    /// What the kernel's result is taken for.
    change: fn(i32) -> i32,
    seen: u64,
    hits: u64,
}

impl Trouble {
    /// Waits for entries, and takes in what is made of their results.
    fn wait(&mut self, disk: &mut UringDisk<Handle>) {
        disk.enter(1).expect("waiting works");
        loop {
            let Some(done) = disk.ring.completion().next() else { return };
            let hit = if self.once { self.seen == self.nth } else { self.seen >= self.nth };
            self.seen += 1;
            self.hits += u64::from(hit);
            let result = done.result();
            disk.complete(done.user_data(), if hit { (self.change)(result) } else { result });
        }
    }

    /// Carries out a batch; every job comes back once, with its memory.
    fn carry_out(&mut self, disk: &mut UringDisk<Handle>, mut jobs: Vec<Job<Handle>>) -> Vec<u32> {
        let mut waiting: Vec<(u32, usize)> =
            jobs.iter().map(|job| (job.tag, job.extents.len())).collect();
        disk.submit(&mut jobs);
        let mut failed = Vec::new();
        while !waiting.is_empty() {
            self.wait(disk);
            while let Some(done) = disk.reap() {
                let known = waiting.iter().position(|it| *it == (done.tag, done.extents.len()));
                waiting.swap_remove(known.expect("each job once, with its memory"));
                failed.extend(done.result.is_err().then_some(done.tag));
            }
        }
        failed
    }
}

/// Writes, flushes, reads back; what was not said to have failed must have been done. Tells how many
/// jobs failed.
fn write_and_read_back(trouble: &mut Trouble) -> usize {
    let folder = Scratch::new("uring-nth");
    let mut disk = disk(&folder.file("d.img", 1 << 20));
    let kept = page(0);
    let places = [(1, 0), (2, 4096), (3, 65536)];
    let memory = |value: u8| (0..value).map(|at| extent(&page(value + at), 0, 4096)).collect();
    let writes = places.map(|(value, at)| job(value.into(), Verb::Write, at, memory(value)));
    let mut failed = trouble.carry_out(&mut disk, writes.into());
    failed.extend(trouble.carry_out(&mut disk, vec![job(9, Verb::Flush, 0, vec![])]));
    for (value, at) in places {
        if failed.contains(&value.into()) {
            continue;
        }
        let pages: Vec<Handle> = (0..value).map(|_| page(0xee)).collect();
        let extents = pages.iter().map(|page| extent(page, 0, 4096)).collect();
        if trouble.carry_out(&mut disk, vec![job(10, Verb::Read, at, extents)]).is_empty() {
            for (page, number) in pages.iter().zip(0..) {
                assert!(bytes(page) == vec![value + number; 4096], "page {number} of {value}");
            }
        } else {
            failed.push(10);
        }
    }
    let last = vec![job(11, Verb::Write, 0, vec![extent(&kept, 0, 4096)])];
    failed.extend(trouble.carry_out(&mut disk, last));
    drop(disk);
    assert_eq!(Arc::strong_count(&kept), 1);
    failed.len()
}

#[test]
fn the_nth_entry_may_fail_be_cut_short_or_have_to_be_tried_again() {
    let half = |result: i32| result - result / 1024 * 512;
    /// What results become, whether once, and how many jobs may fail then.
    type Kind = (fn(i32) -> i32, bool, fn(usize) -> bool);
    let changes: [Kind; 7] = [
        (|_| -libc::EIO, true, |failed| failed <= 1),
        (|_| -libc::EIO, false, |failed| failed > 0),
        (|_| -libc::EAGAIN, true, |failed| failed == 0),
        (|_| -libc::EINTR, true, |failed| failed == 0),
        // For ever: it is given up.
        (|_| -libc::EAGAIN, false, |failed| failed > 0),
        (half, true, |failed| failed == 0),
        (|result| result.min(0), true, |failed| failed <= 1),
    ];
    for (at, (change, once, expected)) in changes.into_iter().enumerate() {
        for nth in 0.. {
            let mut trouble = Trouble { nth, once, change, seen: 0, hits: 0 };
            let failed = write_and_read_back(&mut trouble);
            if trouble.hits == 0 {
                assert!(nth > 6 && failed == 0, "{nth} entries, {failed} jobs failed");
                break;
            }
            assert!(expected(failed), "kind {at}, entry {nth}: {failed} jobs failed");
        }
    }
}
