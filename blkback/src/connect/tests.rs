//! The whole table, and the stories that lead through it.

use XenbusState as S;

use super::*;

const STATES: [S; 9] = [
    S::Unknown,
    S::Initialising,
    S::InitWait,
    S::Initialised,
    S::Connected,
    S::Closing,
    S::Closed,
    S::Reconfiguring,
    S::Reconfigured,
];
const STAGES: [Stage; 7] = [
    Stage::Absent,
    Stage::Opening,
    Stage::Ready,
    Stage::Connecting,
    Stage::Serving,
    Stage::Stopping,
    Stage::Failed,
];
const SIZES: [Size; 4] = [Size::Settled, Size::Asked, Size::Measuring, Size::Measured];

fn every_view() -> impl Iterator<Item = View> {
    let fronts = STATES.map(Some).into_iter().chain([None]);
    STATES.into_iter().flat_map(move |own| {
        fronts.clone().flat_map(move |front| {
            STAGES.into_iter().flat_map(move |stage| {
                [(true, true), (true, false), (false, true), (false, false)].into_iter().flat_map(
                    move |(online, awaited)| {
                        [Leave::Stay, Leave::Ask, Leave::Go].into_iter().flat_map(move |leave| {
                            SIZES.map(|size| View {
                                own,
                                front,
                                online,
                                awaited,
                                stage,
                                size,
                                leave,
                            })
                        })
                    },
                )
            })
        })
    })
}

#[test]
fn the_table_holds_for_every_view() {
    for view in every_view() {
        let step = next(&view);
        let busy = matches!(view.stage, Stage::Opening | Stage::Connecting | Stage::Stopping);
        assert!(!busy || step == Step::Wait, "work in progress is waited for: {view:?}");
        let idle = matches!(view.stage, Stage::Absent | Stage::Ready | Stage::Failed);
        match step {
            Step::Wait => {}
            Step::Open => assert!(view.stage == Stage::Absent && view.leave == Leave::Stay),
            Step::Invite => assert!(view.stage == Stage::Ready && view.leave == Leave::Stay),
            Step::Connect => {
                let up = view.front.is_some_and(is_up);
                assert_eq!((view.own, view.stage, up), (S::InitWait, Stage::Ready, true));
                assert_ne!(view.size, Size::Measuring, "it would be told an old size");
            }
            Step::Announce => {
                assert_eq!((view.own, view.stage), (S::InitWait, Stage::Serving));
            }
            Step::Stop => assert_eq!(view.stage, Stage::Serving),
            Step::Remove if view.front.is_none() => assert!(idle && !view.awaited),
            Step::Remove => assert!(idle && !view.online),
            Step::Shut => assert!(idle && view.front.is_none() && view.awaited),
            Step::Measure => {
                assert!(matches!(view.stage, Stage::Ready | Stage::Serving), "{view:?}");
                assert_eq!(view.size, Size::Asked);
            }
            Step::Resize => {
                let shut = matches!(view.stage, Stage::Absent | Stage::Failed);
                assert!(view.size == Size::Measured || shut, "nobody has measured: {view:?}");
                assert!(!matches!(view.size, Size::Settled | Size::Measuring), "{view:?}");
            }
            Step::Say(S::Closed) | Step::Refuse(_) => assert!(idle, "{view:?}"),
            Step::Say(state) => assert_eq!(state, S::Closing),
        }
        assert!(view.own != S::Closed || !matches!(step, Step::Say(_)), "{view:?}");
    }
}

#[test]
fn a_view_that_does_not_change_is_not_acted_on_for_ever() {
    // Each step changes the view as the caller would; from anywhere a rest is reached.
    for start in every_view() {
        let mut view = start;
        let mut steps = 0;
        loop {
            match next(&view) {
                Step::Wait => match view.stage {
                    Stage::Opening => view.stage = Stage::Ready,
                    Stage::Connecting => view.stage = Stage::Serving,
                    Stage::Stopping => view.stage = Stage::Ready,
                    _ if view.size == Size::Measuring => view.size = Size::Measured,
                    _ => break,
                },
                Step::Measure => view.size = Size::Measuring,
                Step::Resize => view.size = Size::Settled,
                Step::Remove => break,
                Step::Open => view.stage = Stage::Opening,
                Step::Invite => view.own = S::InitWait,
                Step::Connect => view.stage = Stage::Connecting,
                Step::Announce => view.own = S::Connected,
                Step::Stop => view.stage = Stage::Stopping,
                Step::Shut => view.stage = Stage::Absent,
                Step::Refuse(state) | Step::Say(state) => view.own = state,
            }
            steps += 1;
            assert!(steps < 16, "no rest from {start:?}");
        }
        let open = view.size != Size::Settled && next(&view) != Step::Remove;
        assert!(!open, "who asked has no answer, from {start:?}");
    }
}

fn view(own: S, front: S, stage: Stage) -> View {
    let (size, leave) = (Size::Settled, Leave::Stay);
    View { own, front: Some(front), online: true, awaited: false, stage, size, leave }
}

#[test]
fn a_disk_is_measured_before_its_guest_is_told_and_no_ring_is_joined_meanwhile() {
    let sized = |size, view| next(&View { size, ..view });
    let up = view(S::Connected, S::Connected, Stage::Serving);
    let coming = view(S::InitWait, S::Initialised, Stage::Ready);
    let away = view(S::Closed, S::Closed, Stage::Absent);
    let table = [
        (up, [Step::Measure, Step::Wait, Step::Resize]),
        (coming, [Step::Connect, Step::Wait, Step::Connect]),
        (
            view(S::InitWait, S::Initialising, Stage::Ready),
            [Step::Measure, Step::Wait, Step::Resize],
        ),
        (away, [Step::Resize, Step::Wait, Step::Resize]),
        (View { front: Some(S::Closing), ..up }, [Step::Stop; 3]),
    ];
    for (view, steps) in table {
        let found = [Size::Asked, Size::Measuring, Size::Measured].map(|size| sized(size, view));
        assert_eq!(found, steps, "{view:?}");
    }
}

#[test]
fn the_way_up() {
    let table = [
        (view(S::Initialising, S::Initialising, Stage::Absent), Step::Open),
        (view(S::Initialising, S::Initialising, Stage::Opening), Step::Wait),
        (view(S::Initialising, S::Initialising, Stage::Ready), Step::Invite),
        (view(S::InitWait, S::Initialising, Stage::Ready), Step::Wait),
        (view(S::InitWait, S::Initialised, Stage::Ready), Step::Connect),
        (view(S::InitWait, S::Connected, Stage::Ready), Step::Connect),
        (view(S::InitWait, S::Initialised, Stage::Serving), Step::Announce),
        (view(S::Connected, S::Initialised, Stage::Serving), Step::Wait),
        (view(S::Connected, S::Connected, Stage::Serving), Step::Wait),
    ];
    table.into_iter().for_each(|(view, step)| assert_eq!(next(&view), step, "{view:?}"));
}

#[test]
fn the_way_down_begun_by_the_front_and_up_again() {
    let table = [
        (view(S::Connected, S::Closing, Stage::Serving), Step::Stop),
        (view(S::Connected, S::Closing, Stage::Ready), Step::Say(S::Closing)),
        (view(S::Closing, S::Closing, Stage::Ready), Step::Say(S::Closed)),
        (view(S::Closed, S::Closed, Stage::Ready), Step::Wait),
        (view(S::Closed, S::Initialising, Stage::Ready), Step::Invite),
        (view(S::InitWait, S::Closed, Stage::Ready), Step::Say(S::Closing)),
        (view(S::InitWait, S::Closing, Stage::Ready), Step::Say(S::Closing)),
    ];
    table.into_iter().for_each(|(view, step)| assert_eq!(next(&view), step, "{view:?}"));
}

#[test]
fn the_way_down_begun_by_the_tool_stack() {
    let offline = |view| View { online: false, ..view };
    let table = [
        (view(S::Closing, S::Connected, Stage::Serving), Step::Wait),
        (view(S::Closing, S::Closing, Stage::Serving), Step::Stop),
        (view(S::Closing, S::Closed, Stage::Serving), Step::Stop),
        (view(S::Closing, S::Closed, Stage::Ready), Step::Say(S::Closed)),
        (view(S::Closed, S::Closed, Stage::Ready), Step::Remove),
        (view(S::Closing, S::Initialising, Stage::Ready), Step::Say(S::Closed)),
    ];
    for (view, step) in table {
        assert_eq!(next(&offline(view)), step, "{view:?}");
    }
}

#[test]
fn a_front_that_vanishes_is_buried_after_its_requests_are_finished() {
    for own in STATES {
        let gone = |stage| View { front: None, ..view(own, S::Unknown, stage) };
        assert_eq!(next(&gone(Stage::Serving)), Step::Stop);
        assert_eq!(next(&gone(Stage::Stopping)), Step::Wait);
        assert_eq!(next(&gone(Stage::Ready)), Step::Remove);
    }
}

#[test]
fn a_device_whose_guest_may_come_back_waits_with_its_image_closed() {
    for own in STATES {
        let away = |stage| View { front: None, awaited: true, ..view(own, S::Unknown, stage) };
        assert_eq!(next(&away(Stage::Serving)), Step::Stop);
        assert_eq!(next(&away(Stage::Stopping)), Step::Wait);
        assert_eq!(next(&away(Stage::Ready)), Step::Shut);
        assert_eq!(next(&away(Stage::Failed)), Step::Shut);
        assert_eq!(next(&away(Stage::Absent)), Step::Wait);
    }
}

#[test]
fn a_front_that_begins_anew_without_goodbye_is_invited_again() {
    assert_eq!(next(&view(S::Connected, S::Initialising, Stage::Serving)), Step::Stop);
    assert_eq!(next(&view(S::Connected, S::Initialising, Stage::Ready)), Step::Invite);
}

#[test]
fn a_device_left_connected_by_a_daemon_that_died_is_closed_with_a_reason() {
    let left = view(S::Connected, S::Connected, Stage::Absent);
    assert_eq!(next(&left), Step::Refuse(S::Closing));
}

#[test]
fn an_image_that_cannot_be_opened_closes_the_device() {
    let failed = view(S::Initialising, S::Initialising, Stage::Failed);
    assert_eq!(next(&failed), Step::Refuse(S::Closed));
    assert_eq!(next(&View { own: S::Closed, ..failed }), Step::Wait);
}

#[test]
fn a_daemon_that_leaves_asks_first_and_goes_then() {
    let ask = |view| View { leave: Leave::Ask, ..view };
    let go = |view| View { leave: Leave::Go, ..view };
    let up = view(S::Connected, S::Connected, Stage::Serving);
    assert_eq!(next(&ask(up)), Step::Say(S::Closing));
    let asked = View { own: S::Closing, ..up };
    assert_eq!(next(&ask(asked)), Step::Wait);
    assert_eq!(next(&go(asked)), Step::Stop);
    assert_eq!(next(&ask(View { front: Some(S::Closed), ..asked })), Step::Stop);
    assert_eq!(next(&go(View { stage: Stage::Ready, ..asked })), Step::Say(S::Closed));
}
