//! Attach, detach, resize, list.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use blkback::attach::{self, AttachError, Listed, NewDirectory, Progress};
use blkback::rejoin::{Identity, find_holder};
use blkback::resize::{self, Answer};
use blkback::{Claim, DeviceId, DiskSpec, Image, Xenbus, own_domain};
use signal_hook::consts::SIGINT;
use xen::store::Connection;
use xen::{DomainId, Store, Transaction};

use crate::Failure;

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Something of Xen is not here.
pub(crate) fn environment(node: &str, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "run as root",
        _ => "run in Dom0, with the modules xen-evtchn and xen-gntdev",
    };
    Failure::new(Failure::ENVIRONMENT, format!("{node}: {error}; {hint}"))
}

fn open_store() -> Result<Connection<Xenbus>, Failure> {
    let bus = Xenbus::open().map_err(|error| environment("/dev/xen/xenbus", &error))?;
    Ok(Connection::new(bus))
}

fn read_spec(text: &str) -> Result<DiskSpec, Failure> {
    let mut spec = DiskSpec::parse(text).map_err(|error| {
        Failure::new(Failure::USAGE, AttachError::Spec { spec: text.into(), error })
    })?;
    // The daemon may stand in another folder.
    if let Ok(absolute) = std::path::absolute(&spec.target)
        && let Some(absolute) = absolute.to_str()
    {
        spec.target = absolute.into();
    }
    Ok(spec)
}

/// Attaches a disk and waits until the daemon has taken it.
pub(crate) fn attach(
    pid_file: &Path,
    domain: &str,
    text: &str,
    dry_run: bool,
    timeout: u64,
) -> Result<(), Failure> {
    let store = open_store();
    if dry_run {
        let spec = read_spec(text)?;
        let (server, guest, identity) = match store {
            Ok(store) => {
                let guest = attach::find_domain(&store, domain)?;
                let identity = Identity::read(&store, Transaction::NONE, guest)?;
                (own_domain(&store)?, guest, identity)
            }
            // Without Xen a number is as good as a domain.
            Err(failure) => (DomainId::ZERO, DomainId(domain.parse().map_err(|_| failure)?), None),
        };
        return Ok(print_plan(&attach::plan(server, guest, &spec, identity.as_ref()))?);
    }
    let store = store?;
    need_daemon(pid_file)?;
    let spec = read_spec(text)?;
    let server = own_domain(&store)?;
    let guest = attach::find_domain(&store, domain)?;
    // The same checks that the daemon makes, but the answer comes sooner.
    drop(Image::open(spec.target.as_ref(), spec.read_only).map_err(AttachError::from)?);
    let interrupted = watch_for_interrupt()?;
    let id = attach::attach(&store, server, guest, &spec)?;
    let taken = wait_until_taken(&store, server, id, timeout, &interrupted);
    if taken.is_err() {
        attach::remove(&store, server, id)?;
    }
    Ok(taken?)
}

fn need_daemon(pid_file: &Path) -> Result<(), Failure> {
    if Claim::holder(pid_file)?.is_none() {
        let message = "no daemon is running; start it with: blkback serve &";
        return Err(Failure::new(Failure::FAILED, message));
    }
    Ok(())
}

fn wait_until_taken(
    store: &impl Store,
    server: DomainId,
    id: DeviceId,
    timeout: u64,
    interrupted: &AtomicBool,
) -> Result<(), AttachError> {
    wait_for(timeout, interrupted, || match attach::progress(store, server, id)? {
        Progress::Taken => Ok(Some(())),
        Progress::Refused(reason) => Err(AttachError::Refused(reason)),
        Progress::Closed => Err(AttachError::Refused("the disk was detached meanwhile".into())),
        Progress::Underway => Ok(None),
    })
}

/// Looks again and again, until there is something.
fn wait_for<T>(
    timeout: u64,
    interrupted: &AtomicBool,
    look: impl Fn() -> Result<Option<T>, AttachError>,
) -> Result<T, AttachError> {
    let start = Instant::now();
    while start.elapsed().as_secs() < timeout {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err(AttachError::Interrupted);
        }
        thread::sleep(LOOK_EVERY);
    }
    Err(AttachError::NoAnswer(timeout))
}

fn print_plan(plan: &[NewDirectory]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for directory in plan {
        let (owner, reader) = (directory.owner, directory.reader);
        writeln!(out, "{} = \"\"   (n{owner},r{reader})", directory.path)?;
        for node in &directory.nodes {
            writeln!(out, "{} = {:?}   (n{owner},r{reader})", node.path, node.value)?;
        }
    }
    Ok(())
}

/// Takes a disk away; without `patience`, at once.
pub(crate) fn detach(
    pid_file: &Path,
    domain: &str,
    vdev: &str,
    dry_run: bool,
    patience: Option<u64>,
) -> Result<(), Failure> {
    let store = open_store()?;
    let server = own_domain(&store)?;
    let guest = find_holder(&store, server, domain)?;
    let id = attach::find_disk(&store, server, guest, vdev)?;
    if dry_run {
        let back = id.back(server);
        println!("{back}/online = \"0\"\n{back}/state = \"5\"\nrm {}\nrm {back}", id.front());
        return Ok(());
    }
    // Without a daemon there is nobody to wait for.
    let alive = Claim::holder(pid_file)?.is_some();
    if let Some(timeout) = patience.filter(|_| alive) {
        let interrupted = watch_for_interrupt()?;
        attach::ask_to_close(&store, server, id)?;
        let closed = || Ok(attach::is_closed(&store, server, id)?.then_some(()));
        wait_for(timeout, &interrupted, closed).map_err(|error| match error {
            AttachError::NoAnswer(seconds) => {
                AttachError::HeldByGuest { guest, vdev: vdev.into(), seconds }
            }
            other => other,
        })?;
    }
    Ok(attach::remove(&store, server, id)?)
}

/// Has the daemon look how large the image of a disk is now, and tells what came of it.
pub(crate) fn resize(
    pid_file: &Path,
    domain: &str,
    vdev: &str,
    dry_run: bool,
    timeout: u64,
) -> Result<(), Failure> {
    let store = open_store()?;
    let server = own_domain(&store)?;
    let guest = find_holder(&store, server, domain)?;
    let id = attach::find_disk(&store, server, guest, vdev)?;
    let who = std::process::id();
    if dry_run {
        let (path, value) = resize::node(server, id, who);
        println!("{path} = {value:?}");
        return Ok(());
    }
    need_daemon(pid_file)?;
    let interrupted = watch_for_interrupt()?;
    resize::ask(&store, server, id, who)?;
    let answer = wait_for(timeout, &interrupted, || resize::answer(&store, server, id));
    if answer.is_err() {
        resize::withdraw(&store, server, id, who)?;
    }
    match answer? {
        Answer::Done(text) => println!("{vdev} of domain {guest}: {text}"),
        Answer::Refused(reason) => return Err(AttachError::Refused(reason).into()),
    }
    Ok(())
}

fn watch_for_interrupt() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, interrupted.clone())?;
    Ok(interrupted)
}

/// Lists the disks.
pub(crate) fn list(domain: Option<&str>, json: bool) -> Result<(), Failure> {
    let store = open_store()?;
    let server = own_domain(&store)?;
    let guest = domain.map(|domain| find_holder(&store, server, domain)).transpose()?;
    let lines = attach::list(&store, server, guest)?;
    let mut out = io::stdout().lock();
    if json {
        let all: Vec<_> = lines.iter().map(object).collect();
        return Ok(writeln!(out, "{}", serde_json::Value::Array(all))?);
    }
    writeln!(
        out,
        "Vdev  BE  handle state evt-ch ring-ref BE-path                        target fmt"
    )?;
    for line in &lines {
        writeln!(
            out,
            "{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {:<30} {} raw",
            line.id.vdev,
            line.server,
            line.id.guest,
            if line.away { "away" } else { &line.state },
            line.event_channel,
            line.ring_ref,
            line.back,
            line.image.display(),
        )?;
    }
    Ok(())
}

fn object(line: &Listed) -> serde_json::Value {
    serde_json::json!({
        "vdev": line.id.vdev,
        "name": blkback::vdev::name(line.id.vdev),
        "be": line.server.0,
        "handle": line.id.guest.0,
        "state": line.state.parse::<u8>().ok(),
        "evt_ch": line.event_channel.parse::<i64>().ok(),
        "ring_ref": line.ring_ref.parse::<i64>().ok(),
        "be_path": line.back,
        "target": line.image,
        "fmt": "raw",
        "read_only": line.read_only,
        "away": line.away,
        "error": line.error,
    })
}
