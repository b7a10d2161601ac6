//! What a hostile front does beside writing requests.

use sim::Random;

/// What a hostile front does beside writing requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Nothing.
    None,
    /// Overwrites every word of the header that is not its index.
    Header,
    /// An index too far ahead.
    IndexAhead,
    /// An index that goes back.
    IndexBack,
    /// Overwrites slots while their requests are with the disk.
    SlotsInFlight,
    /// An index too far ahead while requests are with the disk.
    JumpInFlight,
    /// More requests while others are with the disk.
    MoreInFlight,
    /// Event after event for nothing.
    Storm,
    /// Leaves while requests are with the disk.
    Leave,
}

impl Attack {
    /// All of them, with their names for reports.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::None, "none"),
        (Self::Header, "header words"),
        (Self::IndexAhead, "index ahead"),
        (Self::IndexBack, "index back"),
        (Self::SlotsInFlight, "slots in flight"),
        (Self::JumpInFlight, "index ahead in flight"),
        (Self::MoreInFlight, "more in flight"),
        (Self::Storm, "event storm"),
        (Self::Leave, "left in flight"),
    ];

    /// One of them; those that end the connection are rarer.
    pub fn draw(random: &mut Random) -> Self {
        match random.below(32) {
            0 => [Self::IndexAhead, Self::IndexBack, Self::JumpInFlight, Self::Leave]
                [random.below(4)],
            1 => Self::Storm,
            2..6 => Self::Header,
            6..10 => Self::SlotsInFlight,
            10..14 => Self::MoreInFlight,
            _ => Self::None,
        }
    }
}
