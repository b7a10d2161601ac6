//! The states that the two ends of a device tell each other (`xen/include/public/io/xenbus.h`).

use core::fmt;

/// One end's state, as its `state` node in xenstore says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XenbusState {
    /// No node, an unreadable one, or 0.
    Unknown,
    /// 1: the directories exist.
    Initialising,
    /// 2: the back has published its limits and waits for the front.
    InitWait,
    /// 3: the front has published its ring and event channel.
    Initialised,
    /// 4: in service.
    Connected,
    /// 5: this end wants to close.
    Closing,
    /// 6: this end has let go of everything.
    Closed,
    /// 7: configuration changes.
    Reconfiguring,
    /// 8: configuration has changed.
    Reconfigured,
}

impl XenbusState {
    /// What a `state` node means. Whatever is not one of the numbers is [`Unknown`](Self::Unknown).
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("1") => Self::Initialising,
            Some("2") => Self::InitWait,
            Some("3") => Self::Initialised,
            Some("4") => Self::Connected,
            Some("5") => Self::Closing,
            Some("6") => Self::Closed,
            Some("7") => Self::Reconfiguring,
            Some("8") => Self::Reconfigured,
            _ => Self::Unknown,
        }
    }

    /// The number that goes into the `state` node.
    pub const fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Initialising => 1,
            Self::InitWait => 2,
            Self::Initialised => 3,
            Self::Connected => 4,
            Self::Closing => 5,
            Self::Closed => 6,
            Self::Reconfiguring => 7,
            Self::Reconfigured => 8,
        }
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}
