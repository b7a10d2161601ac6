//! What the simulated machine does badly on purpose, and how large it is.
//!
//! All of it is legal for Xen. Each fault is drawn from the simulator's one seed.

/// How often, in 1000, each fault happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A fired watch is kept back although somebody asks for it.
    pub late_watches: u16,
    /// A fired watch is delivered and stays, to be delivered again.
    pub repeated_watches: u16,
    /// An event arrives that nobody sent.
    pub spurious_events: u16,
    /// A transaction conflicts with nothing at all.
    pub conflicts: u16,
}

impl Faults {
    /// Every fault, each once in four times.
    pub const MANY: Self =
        Self { late_watches: 250, repeated_watches: 250, spurious_events: 250, conflicts: 250 };
}

/// How much of everything each domain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages that a domain can have at once.
    pub pages: usize,
    /// Entries of a grant table, the 8 reserved ones included. Xen's default: 64 frames of 512.
    pub grants: u32,
    /// Pages of others that a domain can have mapped at once. The default is that of Linux's
    /// gntdev, which is below Xen's.
    pub mappings: usize,
    /// Event channel ports, the reserved port 0 included. Xen: 4096 with the 2-level ABI.
    pub ports: u32,
    /// Nodes that a domain other than 0 may own in xenstore.
    pub nodes: usize,
    /// Watches of a domain other than 0.
    pub watches: usize,
    /// Open transactions of a domain other than 0.
    pub transactions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pages: 65_536,
            grants: 64 * 512,
            mappings: 65_536,
            ports: 4096,
            nodes: 1000,
            watches: 128,
            transactions: 10,
        }
    }
}
