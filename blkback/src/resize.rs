//! What the tool stack asks for when it has made an image larger, and what it is answered: one node
//! in the back's directory, which a guest can read and not write.
//!
//! The asker writes `ask WHO` and the daemon writes its answer over it, unless somebody else has
//! asked meanwhile: what was measured for the one may be too old for the other.

use std::fmt;

use xen::{DomainId, Store, Transaction};

use crate::attach::AttachError;
use crate::directory::DeviceId;

/// The node, in the back's directory.
pub(crate) const NODE: &str = "resize";

/// How it ended. The text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The size is that of the image.
    Done(String),
    /// Nothing has changed: why.
    Refused(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(text) => write!(f, "done {text}"),
            Self::Refused(reason) => write!(f, "refused {reason}"),
        }
    }
}

impl Answer {
    fn parse(node: &str) -> Option<Self> {
        match node.split_once(' ')? {
            ("done", text) => Some(Self::Done(text.into())),
            ("refused", reason) => Some(Self::Refused(reason.into())),
            _ => None,
        }
    }
}

/// Whether the node says that somebody has asked and has no answer yet.
pub(crate) fn is_asked(node: &str) -> bool {
    node.starts_with("ask ")
}

/// The node of a disk, and what `who` writes into it.
pub fn node(server: DomainId, id: DeviceId, who: u32) -> (String, String) {
    (format!("{}/{NODE}", id.back(server)), format!("ask {who}"))
}

/// Asks for the image of a disk to be measured anew, if the disk is there. Nobody else may ask as
/// `who` at the same time.
///
/// # Errors
/// Xenstore.
pub fn ask(
    store: &impl Store,
    server: DomainId,
    id: DeviceId,
    who: u32,
) -> Result<(), AttachError> {
    let (path, value) = node(server, id, who);
    store.transact(|within| {
        // Writing would bring a directory back that was removed.
        if store.read(within, &format!("{}/frontend", id.back(server)))?.is_none() {
            return Ok(());
        }
        store.write(within, &path, &value)
    })?;
    Ok(())
}

/// The answer, once there is one.
///
/// # Errors
/// Xenstore.
pub fn answer(
    store: &impl Store,
    server: DomainId,
    id: DeviceId,
) -> Result<Option<Answer>, AttachError> {
    let node = store.read(Transaction::NONE, &format!("{}/{NODE}", id.back(server)))?;
    let gone = || Some(Answer::Refused("the disk was detached meanwhile".into()));
    Ok(node.map_or_else(gone, |node| Answer::parse(&node)))
}

/// Takes back what `who` asked for: no daemon that comes later is to heed it. What somebody else has
/// asked meanwhile stays.
///
/// # Errors
/// Xenstore.
pub fn withdraw(
    store: &impl Store,
    server: DomainId,
    id: DeviceId,
    who: u32,
) -> Result<(), AttachError> {
    let (path, value) = node(server, id, who);
    store.transact(|within| {
        if store.read(within, &path)?.as_ref() == Some(&value) {
            store.remove(within, &path)?;
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sim::Sim;

    use super::*;
    use crate::attach;
    use crate::spec::DiskSpec;

    const SERVER: DomainId = DomainId::ZERO;

    #[test]
    fn an_answer_is_read_back_and_an_ask_is_none() {
        for answer in [Answer::Done("8 sectors".into()), Answer::Refused("no: x".into())] {
            let text = answer.to_string();
            assert!(!is_asked(&text));
            assert_eq!(Answer::parse(&text), Some(answer));
        }
        let (_, ask) = node(SERVER, DeviceId { guest: DomainId(3), vdev: 51712 }, 7);
        assert!(is_asked(&ask));
        assert_eq!([ask.as_str(), "", "done", "doner it"].map(Answer::parse), [const { None }; 4]);
    }

    #[test]
    fn asking_for_a_disk_that_is_not_there_does_not_make_its_directory() {
        let dom0 = Sim::new(1).domain(SERVER);
        let id = DeviceId { guest: DomainId(3), vdev: 51712 };
        ask(&dom0, SERVER, id, 1).unwrap();
        assert_eq!(dom0.read(Transaction::NONE, &id.back(SERVER)).unwrap(), None);
        assert!(matches!(answer(&dom0, SERVER, id).unwrap(), Some(Answer::Refused(_))));
    }

    #[test]
    fn what_was_asked_is_open_until_it_is_withdrawn() {
        let dom0 = Sim::new(1).domain(SERVER);
        let spec = DiskSpec::parse("vdev=xvda,target=/images/a.img").unwrap();
        let id = attach::attach(&dom0, SERVER, DomainId(3), &spec).unwrap();
        ask(&dom0, SERVER, id, 1).unwrap();
        assert_eq!(answer(&dom0, SERVER, id).unwrap(), None);
        withdraw(&dom0, SERVER, id, 2).unwrap();
        assert_eq!(answer(&dom0, SERVER, id).unwrap(), None, "another's is not taken back");
        withdraw(&dom0, SERVER, id, 1).unwrap();
        assert_eq!(dom0.read(Transaction::NONE, &node(SERVER, id, 1).0).unwrap(), None);
    }
}
