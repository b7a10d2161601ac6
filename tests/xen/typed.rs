//! A guest whose console is a terminal that somebody sits at: `top` in place, keys that end things.

use std::time::{Duration, Instant};

use xtask::error::Result;
use xtask::guest::{Backend, Guest};
use xtask::lab::Job;

use crate::scene::{GUEST_TIMEOUT, PATTERN, PROMPT, Scene, Story, TREE, ensure, fail};
use crate::terminal::{ROWS, Terminal};

pub(crate) const STORIES: &[Story] = &[
    ("top_refreshes_in_place_with_all_its_figures_until_q", top),
    ("ctrl_c_ends_a_long_command_and_the_guest_goes_on", ctrl_c),
];

/// What `top` sends before each page.
const HOME: &str = "\x1b[H";

/// Somebody at the console of a guest.
pub(crate) struct Typist<'a> {
    scene: &'a Scene,
    console: Job,
    /// All that came.
    seen: String,
}

impl<'a> Typist<'a> {
    /// Sits down before the guest starts, and waits for its prompt.
    pub(crate) fn at(scene: &'a Scene, guest: &Guest) -> Result<Self> {
        scene.lab.create_paused(guest)?;
        let open = format!("exec xenconsole --interactive --type pv $(xl domid {})", guest.name);
        let console = scene.lab.start_with_input(&open)?;
        let mut typist = Self { scene, console, seen: String::new() };
        scene.lab.unpause(&guest.name)?;
        typist.until("a prompt", |new| new.contains(PROMPT))?;
        Ok(typist)
    }

    fn keys(&self, keys: &str) -> Result<()> {
        self.scene.lab.input(self.console, keys.as_bytes())
    }

    /// Waits until what comes from now on is `enough`, and gives it.
    fn until(&mut self, what: &str, enough: impl Fn(&str) -> bool) -> Result<String> {
        let from = self.seen.len();
        let end = Instant::now() + GUEST_TIMEOUT;
        while !enough(&self.seen[from..]) {
            let (bytes, ended) = self.scene.lab.read(self.console, Duration::from_millis(100))?;
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
            let over = ended.is_some() || Instant::now() > end;
            ensure(!over, || format!("never {what}:\n{}", self.seen[from..].escape_debug()))?;
        }
        Ok(self.seen[from..].to_owned())
    }

    /// Types a command and waits for the next prompt.
    pub(crate) fn command(&mut self, line: &str) -> Result<String> {
        self.keys(&format!("{line}\r"))?;
        self.until(line, |new| new.contains(PROMPT))
    }

    /// Leaves, and the guest ends.
    pub(crate) fn leave(self, name: &str) -> Result<()> {
        self.scene.lab.kill(self.console)?;
        self.scene.lab.destroy(name)
    }

    /// The screen as it is now.
    fn screen(&self) -> Result<Vec<String>> {
        let mut terminal = Terminal::new();
        terminal.feed(&self.seen);
        let complaints = terminal.complaints.join("\n");
        ensure(complaints.is_empty(), || complaints)?;
        Ok(terminal.rows())
    }
}

/// The number before a word in a row.
fn figure(row: &str, nth: usize) -> Result<f64> {
    let word = row.split_whitespace().nth(nth).unwrap_or_default();
    word.parse().or_else(|_| fail(format!("no number at {nth} in {row:?}")))
}

/// The one row of a screen that begins with `start`.
fn row<'a>(screen: &'a [String], start: &str) -> Result<&'a str> {
    let found: Vec<&String> = screen.iter().filter(|row| row.starts_with(start)).collect();
    match found[..] {
        [row] => Ok(row),
        _ => fail(format!("{} rows begin with {start:?}:\n{}", found.len(), screen.join("\n"))),
    }
}

/// The first page is at the top of the screen, all of it, once, and within it.
fn assert_page(screen: &[String], disks: &[&str]) -> Result<()> {
    let first = screen.first().is_some_and(|row| row.starts_with("top - the last "));
    ensure(first, || format!("top is not at the top:\n{}", screen.join("\n")))?;
    let cpu = row(screen, "%Cpu(s):")?;
    let words: Vec<&str> = cpu.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let names: Vec<&str> = words.iter().skip(2).step_by(2).copied().take(5).collect();
    ensure(names == ["us", "sy", "id", "wa", "st"], || cpu.to_owned())?;
    let heading = row(screen, "disk ")?;
    for word in ["IOPS", "MiB/s", "depth", "await ms"] {
        ensure(heading.contains(word), || heading.to_owned())?;
    }
    for disk in disks {
        row(screen, disk)?;
    }
    row(screen, "waits: ").map(drop)
}

fn top(scene: &Scene) -> Result<()> {
    let guest = Guest::pvblk("topped", "").disk(Backend::Pvblk, TREE, "xvda", true).disk(
        Backend::Pvblk,
        PATTERN,
        "xvdb",
        false,
    );
    let mut typist = Typist::at(scene, &guest)?;
    // More on the screen than a page has rows.
    typist.command("help")?;
    typist.keys("top -d 0.3\r")?;
    let refreshed = |times: usize| move |new: &str| new.matches(HOME).count() > times;
    typist.until("five pages", refreshed(5))?;
    typist.until("a whole page", |new| new.contains("waits: nothing"))?;
    assert_page(&typist.screen()?, &["xvda", "xvdb"])?;
    typist.keys("q")?;
    let end = typist.until("a prompt", |new| new.contains(PROMPT))?;
    ensure(!end.contains("q"), || format!("the key is shown: {end:?}"))?;
    let below = typist.screen()?.iter().rposition(|row| row == PROMPT.trim_end());
    ensure(below.is_some_and(|at| (7..ROWS).contains(&at)), || "no prompt below".into())?;
    let quiet = typist.command("echo still")?;
    ensure(!quiet.contains(HOME), || format!("it goes on: {}", quiet.escape_debug()))?;
    busy(&mut typist)?;
    typist.leave("topped")
}

/// The figures while a command runs: of the page before the last.
fn busy(typist: &mut Typist<'_>) -> Result<()> {
    let text =
        typist.command("top -d 0.5 bench xvda --rw=randread --bs=4k --iodepth=8 --runtime=3")?;
    let pages: Vec<&str> = text.split(HOME).collect();
    ensure(pages.len() > 4, || format!("{} pages", pages.len()))?;
    // Nothing is drawn over what the command says last.
    let last = pages[pages.len() - 1];
    ensure(last.contains("bench: {"), || format!("no result behind {last:?}"))?;
    let page: Vec<String> =
        pages[pages.len() - 2].lines().map(|line| line.replace("\x1b[K", "")).collect();
    let disk = row(&page, "xvda")?;
    println!("    {disk}");
    let [iops, speed, flight, depth, wait] = [1, 2, 3, 4, 5].map(|nth| figure(disk, nth));
    let all = [iops?, speed?, flight?, depth?, wait?];
    ensure(all.iter().all(|&it| it > 0.0) && all[3] <= 8.01, || disk.to_owned())?;
    // Little's law, by the guest's own figures.
    let apart = (all[0] * all[4] / 1000.0 - all[3]).abs();
    ensure(apart < 0.5, || format!("IOPS x await is not depth: {disk}"))?;
    let waits = row(&page, "waits: ")?;
    ensure(waits.starts_with("waits: bench for xvda ("), || waits.to_owned())
}

fn ctrl_c(scene: &Scene) -> Result<()> {
    let guest = Guest::pvblk("stopped", "");
    let guest = guest.disk(Backend::Pvblk, TREE, "xvda", true);
    let mut typist = Typist::at(scene, &guest)?;
    let long = [
        "bench xvda --rw=randread --iodepth=32 --runtime=600",
        "sleep 600000",
        "spin 600000",
        "top -d 0.3",
        "vmstat 1 600 spin 600000",
    ];
    for line in long {
        typist.keys(&format!("{line}\r"))?;
        typist.until("its echo", |new| new.contains('\n'))?;
        scene.dom0("usleep 500000")?;
        typist.keys("\x03")?;
        typist.until("a prompt", |new| new.contains(PROMPT))?;
        let after = typist.command("sha256 xvda --size=4k")?;
        ensure(after.contains("sha256: xvda: "), || format!("after {line}: {after:?}"))?;
    }
    typist.leave("stopped")
}
