//! Event channel operations (`event_channel.h`, `xen.h`).

use core::mem::size_of;

use crate::{DomainId, Port};

/// Ports of a 64-bit domain with the two-level bitmap: one bit each in the shared page.
pub const EVENT_CHANNELS_MAX: u32 = 4096;

/// The operation of [`Hypercall::EventChannelOp`](super::Hypercall::EventChannelOp)
/// (`EVTCHNOP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventOp {
    /// Binds to a port that another domain offers: [`BindInterdomain`].
    BindInterdomain = 0,
    /// Binds a port to a virtual interrupt: [`BindVirq`].
    BindVirq = 1,
    /// Gives a port up: [`OnePort`].
    Close = 3,
    /// Raises an event at the other end: [`OnePort`].
    Send = 4,
    /// Tells what a port is bound to: [`ChannelStatus`].
    Status = 5,
    /// Offers a port to another domain: [`AllocUnbound`].
    AllocUnbound = 6,
    /// Clears a port's mask bit and makes the upcall that is due then: [`OnePort`].
    Unmask = 9,
}

/// A virtual interrupt (`VIRQ_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Virq {
    /// The one-shot or periodic timer.
    Timer = 0,
    /// Somebody asks for debug information.
    Debug = 1,
    /// Bytes came in on the emergency console; the initial domain's only.
    Console = 2,
}

/// Argument of [`EventOp::AllocUnbound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct AllocUnbound {
    /// Whose port: [`DomainId::SELF`].
    pub dom: DomainId,
    /// Who may bind to it.
    pub remote_dom: DomainId,
    /// Answer: the port.
    pub port: Port,
}

/// Argument of [`EventOp::BindInterdomain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BindInterdomain {
    /// Who offers the port.
    pub remote_dom: DomainId,
    /// The port offered.
    pub remote_port: Port,
    /// Answer: our end.
    pub local_port: Port,
}

/// Argument of [`EventOp::BindVirq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BindVirq {
    /// A [`Virq`].
    pub virq: u32,
    /// Which virtual processor gets it.
    pub vcpu: u32,
    /// Answer: the port.
    pub port: Port,
}

/// Argument of [`EventOp::Close`], [`EventOp::Send`] and [`EventOp::Unmask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OnePort {
    /// The port, our end.
    pub port: Port,
}

/// What a port is bound to (`EVTCHNSTAT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ChannelState {
    /// Not in use.
    Closed = 0,
    /// Offered, nobody has bound to it.
    Unbound = 1,
    /// Joined to another domain.
    Interdomain = 2,
    /// Bound to an interrupt line.
    Pirq = 3,
    /// Bound to a virtual interrupt.
    Virq = 4,
    /// Bound to another virtual processor of this domain.
    Ipi = 5,
}

/// Argument of [`EventOp::Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ChannelStatus {
    /// Whose port: [`DomainId::SELF`].
    pub dom: DomainId,
    /// The port.
    pub port: Port,
    /// Answer: a [`ChannelState`].
    pub status: u32,
    /// Answer: the virtual processor that gets the events.
    pub vcpu: u32,
    /// Answer, if unbound or interdomain: the other domain.
    pub remote_dom: DomainId,
    /// Answer, if interdomain: the other end.
    pub remote_port: Port,
}

const _: () = assert!(size_of::<AllocUnbound>() == 8);
const _: () = assert!(size_of::<BindInterdomain>() == 12);
const _: () = assert!(size_of::<ChannelStatus>() == 24);
