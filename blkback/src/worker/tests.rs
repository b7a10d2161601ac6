//! A thread and the process that it attends to, with programs that do not behave like ours.

use std::time::Instant;

use super::*;
use crate::scratch::Scratch;

const FIRST: WorkerId = WorkerId(1);
const SECOND: WorkerId = WorkerId(2);

/// The shell, with words on its standard input, which is the socket.
fn shell(script: &str) -> Program {
    let arguments = ["-c", script].map(Into::into).to_vec();
    Program { path: "/bin/sh".into(), arguments, user: None }
}

fn workers(program: Program, images: &Scratch) -> Workers {
    let folders = Folders::new(&[images.path().into()]).expect("a folder");
    Workers::new(Bell::new().expect("a bell can be had"), program, folders)
}

/// The next report; the bell rings for each.
fn await_report(workers: &mut Workers) -> (WorkerId, Report) {
    for _ in 0..1000 {
        if let Some(report) = workers.report() {
            return report;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("no report");
}

/// How a shell says this to the daemon.
fn say(message: &[u8]) -> String {
    let bytes: String = message.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{bytes}' >&0; ")
}

fn ended(past: Past, broken: Option<&str>) -> Last {
    Last::Ended { past, broken: broken.map(Into::into) }
}

/// What becomes of a process of `program` when it is attended to, and what it reported
/// meanwhile.
fn attended(program: &Program) -> (Result<Last, String>, Vec<Report>) {
    let process = Process::start(program, "1/51712").expect("a shell can be started");
    let (_orders, mine) = channel();
    let inbox = Inbox { orders: mine, bell: Bell::new().expect("a bell can be had") };
    let (reports, inbox_of_reports) = channel();
    let bell = Bell::new().expect("a bell can be had");
    let post = Post { worker: FIRST, reports, bell };
    let last = attend(process, &inbox, &post, || Err("nobody asks".into()));
    (last, inbox_of_reports.try_iter().map(|(_, report)| report).collect())
}

#[test]
fn a_process_that_dies_is_noticed_whenever_it_does() {
    let died = || Err("the process of this device died".to_owned());
    assert_eq!(attended(&shell("exit 0")), (died(), vec![]));
    let connected = say(&Told::Connected.message());
    assert_eq!(
        attended(&shell(&format!("{connected} kill -9 $$"))),
        (died(), vec![Report::Connected])
    );
}

#[test]
fn a_process_that_lies_is_ended() {
    let lied = Err("the process of this device said what none of ours says".to_owned());
    let connected = Told::Connected.message();
    let unconnected = Told::Last(Last::Unconnected("no".into())).message();
    let stopped = Told::Last(ended(Past::default(), None)).message();
    let broken = Told::Last(ended(Past::default(), Some("index"))).message();
    let start = Instant::now();
    for words in [
        &[&b"x"[..]][..],
        &[b"s"],
        &[&stopped],
        &[&broken],
        &[&connected, &connected],
        &[&connected, &unconnected],
        &[&Told::Grown.message()],
        // Nobody has told it of more sectors.
        &[&connected, &Told::Grown.message()],
        &[&connected, b"s"],
    ] {
        let script: String = words.iter().map(|word| say(word)).collect();
        let (last, reports) = attended(&shell(&format!("{script} exec sleep 600")));
        assert_eq!(last, lied, "{script}");
        assert!(reports.len() <= 1, "{script}: {reports:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_last_words_of_a_process_are_passed_on() {
    let past = Past::from_word((1 << 32) | 5);
    let connected = say(&Told::Connected.message());
    for (before, last) in [
        ("", Last::Unconnected("no".into())),
        (&*connected, ended(Past::default(), None)),
        (&*connected, ended(past, None)),
        (&*connected, ended(past, Some("index"))),
    ] {
        let script = before.to_owned() + &say(&Told::Last(last.clone()).message());
        assert_eq!(attended(&shell(&script)).0, Ok(last), "{script}");
    }
}

#[test]
fn a_process_is_the_user_that_it_was_told_to_be_and_nobody_else() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let user = Some(65_533);
    let words = "printf \"u$(id -u) $(id -ru) $(id -g) $(id -rg) $(id -G)\" >&0";
    let told = Last::Unconnected("65533 65533 65533 65533 65533".into());
    assert_eq!(attended(&Program { user, ..shell(words) }).0, Ok(told));
}

#[test]
fn an_order_to_stop_reaches_the_process_in_words_and_so_does_a_dismissal() {
    let scratch = Scratch::new("worker-orders");
    for dismissed in [false, true] {
        let path = scratch.path().join("word");
        let [connected, stopped] = [Told::Connected, Told::Last(ended(Past::default(), None))]
            .map(|told| say(&told.message()));
        let script = format!("{connected} head -c 4 <&0 >{}; {stopped}", path.display());
        let process = Process::start(&shell(&script), "1/51712").expect("a shell can be started");
        let (orders, mine) = channel();
        let bell = Bell::new().expect("a bell can be had");
        let inbox = Inbox { orders: mine, bell: bell.clone() };
        let (reports, _inbox) = channel();
        let post = Post { worker: FIRST, reports, bell: bell.clone() };
        if !dismissed {
            orders.send(Order::Stop).expect("somebody listens");
        }
        drop(orders);
        bell.ring();
        let last = attend(process, &inbox, &post, || Err("nobody asks".into()));
        assert_eq!(last, Ok(ended(Past::default(), None)));
        assert_eq!(std::fs::read(path).unwrap(), b"stop");
    }
}

#[test]
fn new_sectors_are_reported_when_the_process_knows_of_them_or_has_ended() {
    let scratch = Scratch::new("worker-grows");
    let path = scratch.path().join("word");
    let [connected, grown, stopped] =
        [Told::Connected, Told::Grown, Told::Last(ended(Past::default(), None))]
            .map(|told| say(&told.message()));
    // It knows, it ends without having said so, it says so twice, it dies first.
    for (after, last, reports) in [
        (grown.clone() + &stopped, Ok(ended(Past::default(), None)), 2),
        (stopped.clone(), Ok(ended(Past::default(), None)), 2),
        (grown.clone() + &grown, Err("said what none of ours says"), 2),
        ("exit 0".into(), Err("died"), 1),
    ] {
        let script = format!("{connected} head -c 12 <&0 >{}; {after}", path.display());
        let process = Process::start(&shell(&script), "1/51712").expect("a shell can be started");
        let (orders, mine) = channel();
        let bell = Bell::new().expect("a bell can be had");
        let inbox = Inbox { orders: mine, bell: bell.clone() };
        let (reports_of, heard) = channel();
        let post = Post { worker: FIRST, reports: reports_of, bell: bell.clone() };
        orders.send(Order::Measure).expect("somebody listens");
        bell.ring();
        match (attend(process, &inbox, &post, || Ok(17)), last) {
            (Ok(found), Ok(last)) => assert_eq!(found, last),
            (Err(found), Err(word)) => assert!(found.contains(word), "{found}"),
            other => panic!("{other:?} of {script}"),
        }
        let order = std::fs::read(&path).unwrap();
        assert_eq!(order, crate::orders::Order::Grow(17).message());
        let heard: Vec<Report> = heard.try_iter().map(|it| it.1).collect();
        assert_eq!(heard.len(), reports, "{heard:?} of {script}");
        assert_eq!(heard.contains(&Report::Measured(Ok(17))), reports == 2);
    }
}

#[test]
fn a_panic_in_one_worker_is_reported_and_leaves_the_others_alone() {
    let scratch = Scratch::new("worker-panic");
    let mut workers = workers(shell("cat <&0"), &scratch);
    workers.open(SECOND, "2/51712", scratch.file("d.img", 8192), false);
    assert!(matches!(await_report(&mut workers), (SECOND, Report::Opened(_))));
    workers.hire(FIRST, "1/51712", |_, _| panic!("as a test")).unwrap();
    assert_eq!(await_report(&mut workers), (FIRST, Report::Gone));
    workers.stop(SECOND);
    assert_eq!(await_report(&mut workers), (SECOND, Report::Stopped));
}

#[test]
fn a_program_that_cannot_be_started_is_said() {
    let scratch = Scratch::new("worker-program");
    let program = Program { path: "/none/at/all".into(), arguments: vec![], user: None };
    let mut workers = workers(program, &scratch);
    workers.open(FIRST, "1/51712", scratch.file("d.img", 8192), false);
    let (_, Report::Unopened(reason)) = await_report(&mut workers) else { panic!("open") };
    assert!(reason.contains("no process for this device"), "{reason}");
}
