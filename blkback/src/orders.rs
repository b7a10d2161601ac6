//! What the daemon and the process of one device say to each other, over one socket.
//!
//! Whole messages in both directions. The first brings the descriptors that the process works with,
//! because it can open nothing itself. A process that a guest has taken over must not be able to do
//! more than end its own device: of what it says the daemon believes its own device's fate, and
//! keeps a reason's first bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use blkif::{Abi, Agreed, Discard, Features, Geometry, INDIRECT_MAX, Info};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use xen::{DomainId, GrantRef, Port};

use crate::crew::Connect;
use crate::disk::Profile;
use crate::session::Past;

/// The longest message.
const MESSAGE_MAX: usize = 1024;
/// The longest reason that is kept.
const REASON_MAX: usize = 512;
/// Descriptors that come with [`Begin`]: the image, the event channels, the grants, and the trace
/// if there is one.
const DESCRIPTORS_MAX: usize = 4;

/// One end of the socket. The other end's closing is seen as the end of messages.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

/// What there was to receive.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message and what came with it.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    Closed,
}

impl Line {
    /// Both ends: ours and the one to be given away.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that was given to us.
    pub(crate) fn new(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Sends one message, with descriptors.
    pub(crate) fn send(&self, message: &[u8], with: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !with.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(with)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Takes one message, without waiting for it.
    pub(crate) fn receive(&self) -> io::Result<Received> {
        self.take(RecvFlags::DONTWAIT)
    }

    /// Waits for one message.
    pub(crate) fn wait(&self) -> io::Result<Received> {
        self.take(RecvFlags::empty())
    }

    fn take(&self, flags: RecvFlags) -> io::Result<Received> {
        let mut bytes = [0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        // What is not taken now may not be announced again.
        let mut receive = || {
            retry_on_intr(|| {
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
            })
        };
        let got = match receive() {
            // The other side has closed without reading all that it was told. That is said once, and
            // before what it had said itself.
            Err(rustix::io::Errno::CONNRESET) => receive(),
            got => got,
        };
        let length = match got {
            Ok(got) => got.bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
            Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error.into()),
        };
        let mut with = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                with.extend(descriptors);
            }
        }
        // No message is empty: only the end is.
        Ok(match bytes.get(..length) {
            None | Some([]) => Received::Closed,
            Some(message) => Received::Message(message.to_vec(), with),
        })
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The first order: all about one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) connect: Connect,
    pub(crate) profile: Profile,
    /// What earlier connections have left.
    pub(crate) past: Past,
    /// The connection's number in the trace that is written, if one is.
    pub(crate) traced: Option<u32>,
}

impl Begin {
    /// As a message: 64-bit words in this machine's order, the references of the ring last.
    pub(crate) fn message(&self) -> Vec<u8> {
        let Connect { peer, ring, port, agreed, geometry } = &self.connect;
        let head = [
            u64::from(peer.0),
            u64::from(port.0),
            u64::from(agreed.abi == Abi::X86_32),
            u64::from(agreed.order),
            u64::from(agreed.indirect_max),
            u64::from(agreed.features.bits()),
            u64::from(agreed.discard_limits.granularity_bytes),
            u64::from(agreed.discard_limits.alignment_bytes),
            geometry.sectors,
            u64::from(geometry.sector_size),
            u64::from(geometry.physical_sector_size),
            u64::from(geometry.info.bits()),
            self.profile.sectors,
            u64::from(self.profile.physical_sector_size),
            u64::from(self.profile.read_only),
            u64::from(self.profile.discard_granularity.unwrap_or(0)),
            self.past.word(),
            self.traced.map_or(0, |connection| u64::from(connection) + 1),
        ];
        let references = ring.iter().map(|reference| u64::from(reference.0));
        head.into_iter().chain(references).flat_map(u64::to_ne_bytes).collect()
    }

    /// Reads a message; `None` if it is not of this kind.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (words, rest) = message.as_chunks::<8>();
        if !rest.is_empty() {
            return None;
        }
        let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
        let mut wide = || words.next();
        let peer = DomainId(narrow(wide())?);
        let port = Port(narrow(wide())?);
        let agreed = Agreed {
            abi: if wide()? == 0 { Abi::X86_64 } else { Abi::X86_32 },
            order: narrow(wide())?,
            indirect_max: narrow(wide()).filter(|&it| it <= INDIRECT_MAX)?,
            features: Features::from_bits(narrow(wide())?)?,
            discard_limits: Discard {
                granularity_bytes: narrow(wide())?,
                alignment_bytes: narrow(wide())?,
            },
        };
        let geometry = Geometry {
            sectors: wide()?,
            sector_size: narrow(wide())?,
            physical_sector_size: narrow(wide())?,
            info: Info::from_bits(narrow(wide())?)?,
        };
        let profile = Profile {
            sectors: wide()?,
            physical_sector_size: narrow(wide())?,
            read_only: wide()? != 0,
            discard_granularity: narrow(wide()).map(|bytes| (bytes != 0).then_some(bytes))?,
        };
        let past = Past::from_word(wide()?);
        let traced = match wide()?.checked_sub(1) {
            Some(connection) => Some(narrow(Some(connection))?),
            None => None,
        };
        let ring = words.map(|word| narrow(Some(word)).map(GrantRef)).collect::<Option<_>>()?;
        let connect = Connect { peer, ring, port, agreed, geometry };
        Some(Self { connect, profile, past, traced })
    }
}

fn narrow<T: TryFrom<u64>>(word: Option<u64>) -> Option<T> {
    T::try_from(word?).ok()
}

/// What may be ordered then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The disk has so many sectors now, and its guest is about to be told.
    Grow(u64),
    /// Leave the ring, and end.
    Stop,
}

impl Order {
    /// As a message: a word, and its number.
    pub(crate) fn message(self) -> Vec<u8> {
        match self {
            Self::Grow(sectors) => [b"grow".as_slice(), &sectors.to_ne_bytes()].concat(),
            Self::Stop => b"stop".to_vec(),
        }
    }

    /// Reads a message and how much came with it; `None` if it is none of these.
    pub(crate) fn read(message: &[u8], with: &[OwnedFd]) -> Option<Self> {
        let (word, number) = message.split_first_chunk()?;
        match (word, number) {
            _ if !with.is_empty() => None,
            (b"grow", number) => number.try_into().ok().map(u64::from_ne_bytes).map(Self::Grow),
            (b"stop", []) => Some(Self::Stop),
            _ => None,
        }
    }
}

/// What a process tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Requests are served.
    Connected,
    /// Requests may reach as far as was ordered last.
    Grown,
    /// It is about to end.
    Last(Last),
}

/// How a connection ended; the guest's pages are unmapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// The ring could not be joined: why.
    Unconnected(String),
    /// Requests were served.
    Ended {
        /// What is left to the next connection.
        past: Past,
        /// Why the ring had to be given up, if that was not ordered.
        broken: Option<String>,
    },
}

impl Told {
    /// As a message: a letter, what is left to the next connection, and the reason.
    pub(crate) fn message(&self) -> Vec<u8> {
        let (letter, past, reason) = match self {
            Self::Connected => (b'c', None, None),
            Self::Grown => (b'g', None, None),
            Self::Last(Last::Unconnected(reason)) => (b'u', None, Some(reason)),
            Self::Last(Last::Ended { past, broken: None }) => (b's', Some(past), None),
            Self::Last(Last::Ended { past, broken: Some(reason) }) => {
                (b'b', Some(past), Some(reason))
            }
        };
        let mut message = vec![letter];
        message.extend(past.into_iter().flat_map(|past| past.word().to_ne_bytes()));
        message.extend(reason.iter().flat_map(|reason| reason.bytes()).take(REASON_MAX));
        message
    }

    /// Reads a message; `None` if it is none that an honest process sends.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (&letter, rest) = message.split_first()?;
        let ended = || {
            let (&word, reason) = rest.split_first_chunk()?;
            Some((Past::from_word(u64::from_ne_bytes(word)), printable(reason)))
        };
        Some(match letter {
            b'c' => Self::Connected,
            b'g' => Self::Grown,
            b'u' => Self::Last(Last::Unconnected(printable(rest))),
            b's' => Self::Last(Last::Ended { past: ended()?.0, broken: None }),
            b'b' => {
                let (past, reason) = ended()?;
                Self::Last(Last::Ended { past, broken: Some(reason) })
            }
            _ => return None,
        })
    }
}

/// A reason that may stand in a log and in xenstore, whoever wrote it.
fn printable(reason: &[u8]) -> String {
    let kept = &reason[..reason.len().min(REASON_MAX)];
    let text = String::from_utf8_lossy(kept);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Begin {
        let mut geometry = Geometry::new(1 << 40).unwrap();
        geometry.physical_sector_size = 4096;
        geometry.info = Info::READ_ONLY;
        let connect = Connect {
            peer: DomainId(7),
            ring: (0..16).map(|number| GrantRef(u32::MAX - number)).collect(),
            port: Port(9),
            agreed: Agreed {
                abi: Abi::X86_32,
                order: 4,
                indirect_max: INDIRECT_MAX,
                features: Features::PERSISTENT | Features::DISCARD,
                discard_limits: Discard { granularity_bytes: 4096, alignment_bytes: 512 },
            },
            geometry,
        };
        let profile = Profile {
            sectors: 1 << 40,
            physical_sector_size: 4096,
            read_only: true,
            discard_granularity: Some(4096),
        };
        Begin { connect, profile, past: Past::from_word((1 << 32) | 5), traced: Some(0) }
    }

    #[test]
    fn a_beginning_arrives_as_it_was_sent_and_never_by_halves() {
        let mut begin = begin();
        for _ in 0..2 {
            let message = begin.message();
            assert!(message.len() <= MESSAGE_MAX);
            assert_eq!(Begin::read(&message), Some(begin.clone()));
            begin.connect.agreed.abi = Abi::X86_64;
            begin.profile.discard_granularity = None;
            begin.past = Past::default();
            begin.traced = None;
        }
        let message = begin.message();
        let head = message.len() - 16 * 8;
        for length in 0..head {
            assert_eq!(Begin::read(&message[..length]), None, "{length} bytes");
        }
        assert_eq!(Begin::read(&message[..head + 7]), None);
    }

    #[test]
    fn an_order_is_read_to_the_last_byte_and_comes_alone() {
        let (pipe, _) = io::pipe().unwrap();
        let with = [OwnedFd::from(pipe)];
        for order in [Order::Stop, Order::Grow(0), Order::Grow(u64::MAX)] {
            let message = order.message();
            assert_eq!(Order::read(&message, &[]), Some(order));
            assert_eq!(Order::read(&message, &with), None);
            assert_eq!(Order::read(&[&message[..], b"0"].concat(), &[]), None);
            for length in 0..message.len() {
                assert_eq!(Order::read(&message[..length], &[]), None, "{length} bytes");
            }
        }
        assert_eq!(Order::read(&begin().message(), &[]), None);
    }

    #[test]
    fn what_a_process_tells_is_read_back_cut_to_length_and_printable() {
        let ended = |past: u64, broken: Option<&str>| {
            let past = Past::from_word(past);
            Told::Last(Last::Ended { past, broken: broken.map(Into::into) })
        };
        let unconnected = |reason: &str| Told::Last(Last::Unconnected(reason.into()));
        for told in [
            Told::Connected,
            Told::Grown,
            unconnected("no"),
            ended(0, None),
            ended(1 << 32, None),
            ended(6, Some("index")),
            ended((1 << 32) | 0x8000_0001, Some("index")),
        ] {
            assert_eq!(Told::read(&told.message()), Some(told));
        }
        assert_eq!(Told::read(b""), None);
        assert_eq!(Told::read(b"x"), None);
        assert_eq!(Told::read(b"s1234567"), None, "half of what is left");
        assert_eq!(Told::read(b"u\n\xff\x1b[2J"), Some(unconnected("?\u{fffd}?[2J")));
        let long = Told::read(&[b'u'; MESSAGE_MAX]);
        assert_eq!(long, Some(unconnected(&"u".repeat(REASON_MAX))));
        let long = unconnected(&"r".repeat(5 * REASON_MAX)).message();
        assert_eq!(long.len(), 1 + REASON_MAX);
    }

    #[test]
    fn messages_bring_descriptors_and_the_end_is_seen() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line::new(theirs);
        assert!(matches!(theirs.receive().unwrap(), Received::Nothing));
        let (reader, writer) = io::pipe().unwrap();
        ours.send(b"first", &[writer.as_fd()]).unwrap();
        ours.send(&Order::Stop.message(), &[]).unwrap();
        drop((ours, writer));
        let Received::Message(text, with) = theirs.wait().unwrap() else { panic!("no message") };
        assert_eq!((&text[..], with.len()), (&b"first"[..], 1));
        // The descriptor is the pipe's other end.
        rustix::io::write(&with[0], b"x").unwrap();
        drop(with);
        assert_eq!(io::read_to_string(reader).unwrap(), "x");
        let Received::Message(text, with) = theirs.wait().unwrap() else { panic!("no message") };
        assert_eq!(Order::read(&text, &with), Some(Order::Stop));
        assert!(matches!(theirs.receive().unwrap(), Received::Closed));
    }

    #[test]
    fn last_words_are_heard_of_a_side_that_did_not_listen_to_the_end() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line::new(theirs);
        ours.send(&Order::Stop.message(), &[]).unwrap();
        theirs.send(b"last", &[]).unwrap();
        drop(theirs);
        let Received::Message(text, _) = ours.receive().unwrap() else { panic!("no message") };
        assert_eq!(text, b"last");
        assert!(matches!(ours.receive().unwrap(), Received::Closed));
    }
}
