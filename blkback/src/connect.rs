//! The connection as a pure function: from what both ends say and where our own work stands, to
//! the one next step.
//!
//! Follows `xen/include/public/io/blkif.h` and what fronts do in practice: a front may skip state
//! 3, may come back after it closed, may vanish, and a tool stack that wants the disk gone writes
//! state 5 into *our* node. Nothing waits in here; the caller looks again whenever anything has
//! changed, so a watch that fires late, twice or for nothing changes nothing.

use xen::XenbusState;

/// Where our own work on the device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The image is not open.
    Absent,
    /// The image is being opened.
    Opening,
    /// The image is open; no ring is mapped.
    Ready,
    /// The ring is being mapped.
    Connecting,
    /// Requests are served.
    Serving,
    /// Requests in flight are finished; then the ring is unmapped.
    Stopping,
    /// The image cannot be opened.
    Failed,
}

/// How far a wish stands that the disk be as large as its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// There is none.
    Settled,
    /// Somebody has asked for it.
    Asked,
    /// The image is being measured.
    Measuring,
    /// The image was measured, and whoever serves it knows.
    Measured,
}

/// Whether the daemon is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// No.
    Stay,
    /// It is, and asks the fronts to let go.
    Ask,
    /// It is, and waits for nobody any more.
    Go,
}

/// All that the next step depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Our state, as xenstore has it: the tool stack may have changed it.
    pub own: XenbusState,
    /// The front's state; `None` if its directory is gone.
    pub front: Option<XenbusState>,
    /// Whether the device is to stay when the front closes.
    pub online: bool,
    /// Whether the guest, which is gone with its front, may come back for the device.
    pub awaited: bool,
    /// Where our own work stands.
    pub stage: Stage,
    /// How far a wish stands that the disk be as large as its image.
    pub size: Size,
    /// Whether the daemon is about to end.
    pub leave: Leave,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Wait,
    /// Open the image.
    Open,
    /// Publish the limits that a front needs to make its ring, and state 2.
    Invite,
    /// Read the front's offer, map its ring, bind its event channel.
    Connect,
    /// Publish features and geometry, and state 4.
    Announce,
    /// Finish what is in flight and unmap the ring.
    Stop,
    /// Measure the image, and let whoever serves it know.
    Measure,
    /// Publish the size that was measured, if a guest is connected, and say how it ended.
    Resize,
    /// Say why the device cannot be had, and the state.
    Refuse(XenbusState),
    /// Write the state.
    Say(XenbusState),
    /// Close the image.
    Shut,
    /// Remove our own directory.
    Remove,
}

/// The next step for one device. Its size comes last: what else there is to do may change it.
pub fn next(view: &View) -> Step {
    match proceed(view) {
        Step::Wait => resize(view),
        step => step,
    }
}

fn proceed(view: &View) -> Step {
    let Some(front) = view.front else { return bury(view) };
    if view.leave != Leave::Stay && !matches!(view.own, XenbusState::Closing | XenbusState::Closed)
    {
        return match view.stage {
            Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
            _ => Step::Say(XenbusState::Closing),
        };
    }
    match view.own {
        XenbusState::Initialising => initialise(view.stage),
        XenbusState::InitWait => wait_for_front(view, front),
        XenbusState::Connected => serve(view.stage, front),
        XenbusState::Closing => close(view, front),
        XenbusState::Closed => rest(view, front),
        _ => Step::Wait,
    }
}

/// The front's directory is gone: nobody is there to talk to.
fn bury(view: &View) -> Step {
    match view.stage {
        Stage::Serving => Step::Stop,
        Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
        Stage::Absent | Stage::Ready | Stage::Failed if !view.awaited => Step::Remove,
        // Whoever wants the image meanwhile can have it.
        Stage::Ready | Stage::Failed => Step::Shut,
        Stage::Absent => Step::Wait,
    }
}

fn initialise(stage: Stage) -> Step {
    match stage {
        Stage::Absent => Step::Open,
        Stage::Ready => Step::Invite,
        Stage::Failed => Step::Refuse(XenbusState::Closed),
        Stage::Serving => Step::Stop,
        Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
    }
}

fn wait_for_front(view: &View, front: XenbusState) -> Step {
    match view.stage {
        Stage::Absent => Step::Open,
        // Who joins the ring is told how large the disk is.
        Stage::Ready if is_up(front) && view.size == Size::Measuring => Step::Wait,
        // Some fronts write 4 without having passed 3.
        Stage::Ready if is_up(front) => Step::Connect,
        // It had come, and went before we looked: it waits for our goodbye.
        Stage::Ready if matches!(front, XenbusState::Closing | XenbusState::Closed) => {
            Step::Say(XenbusState::Closing)
        }
        Stage::Serving => Step::Announce,
        Stage::Failed => Step::Refuse(XenbusState::Closed),
        Stage::Ready | Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
    }
}

fn serve(stage: Stage, front: XenbusState) -> Step {
    let down = matches!(
        front,
        XenbusState::Closing
            | XenbusState::Closed
            | XenbusState::Initialising
            | XenbusState::InitWait
    );
    match stage {
        Stage::Serving if down => Step::Stop,
        Stage::Serving | Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
        // The front began anew without having said goodbye.
        Stage::Ready if matches!(front, XenbusState::Initialising | XenbusState::InitWait) => {
            Step::Invite
        }
        Stage::Ready if down => Step::Say(XenbusState::Closing),
        // Connected, and nobody serves: a daemon before us was killed.
        Stage::Ready | Stage::Absent | Stage::Failed => Step::Refuse(XenbusState::Closing),
    }
}

fn close(view: &View, front: XenbusState) -> Step {
    match view.stage {
        // The tool stack or we want to close: the front is to let go first.
        Stage::Serving if is_up(front) && view.leave != Leave::Go => Step::Wait,
        Stage::Serving => Step::Stop,
        Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
        Stage::Absent | Stage::Ready | Stage::Failed => Step::Say(XenbusState::Closed),
    }
}

fn rest(view: &View, front: XenbusState) -> Step {
    match view.stage {
        Stage::Serving => Step::Stop,
        Stage::Opening | Stage::Connecting | Stage::Stopping => Step::Wait,
        Stage::Absent | Stage::Ready | Stage::Failed if !view.online => Step::Remove,
        // The front has come back.
        Stage::Absent if comes_back(view, front) => Step::Open,
        Stage::Ready if comes_back(view, front) => Step::Invite,
        Stage::Absent | Stage::Ready | Stage::Failed => Step::Wait,
    }
}

fn resize(view: &View) -> Step {
    match (view.size, view.stage) {
        (Size::Asked, Stage::Ready | Stage::Serving) => Step::Measure,
        // An image is measured when it is opened.
        (Size::Asked, Stage::Absent | Stage::Failed) => Step::Resize,
        (Size::Measured, Stage::Absent | Stage::Failed | Stage::Ready | Stage::Serving) => {
            Step::Resize
        }
        _ => Step::Wait,
    }
}

fn is_up(front: XenbusState) -> bool {
    matches!(front, XenbusState::Initialised | XenbusState::Connected)
}

fn comes_back(view: &View, front: XenbusState) -> bool {
    view.leave == Leave::Stay && front == XenbusState::Initialising
}

#[cfg(test)]
mod tests;
