//! The state machine of one connection (RFC 4271 §8).
//!
//! A state holds what is known in it and nothing else: before a dial succeeds there is no [`Link`], before the
//! OPENs agree there is no [`Session`]. [`Fsm::on`] is the whole table, state by state.
//!
//! Where the RFC leaves a choice: a failed dial waits in Active rather than Idle, so that the peer's own dial is
//! welcome meanwhile; `DelayOpen` and `TrackTcpState` are not offered; every start is automatic and every
//! failure is damped (`IdleHoldTimer`, armed by [`Peering`](super::peering::Peering), which knows how many came in a row).
//! A message that no state but another expects is an error of this state machine (RFC 4271 §6.6) whatever else is wrong
//! with it. `docs/adr/0012-state-machine-choices.md` has each choice with its reason.

use std::time::Duration;

use super::timers::{Timer, Timers, jitter};
use super::{Action, Cx, Link, Loss, Session, loss};
use crate::ConnId;
use crate::wire::{Message, Notification, RouteRefresh, Update, Waiting};

/// How long a peer may take to send its OPEN: "a large value", 4 min are suggested (RFC 4271 §8.2.2).
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// How long a dial may take. Linux by itself gives up after two minutes, long after the peer may be back.
const DIAL: Duration = Duration::from_secs(10);

/// No KEEPALIVE follows another sooner (RFC 4271 §4.4).
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(1);

/// The state of a connection (RFC 4271 §8.2.2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fsm {
    /// Nothing is wanted yet.
    Idle,
    /// A dial is under way.
    Connect(ConnId),
    /// Waiting to dial again, or for the peer's dial.
    Active,
    /// Our OPEN is out.
    OpenSent(Link),
    /// The OPENs agree; our KEEPALIVE is out.
    OpenConfirm(Link, Box<Session>),
    /// Routes flow.
    Established(Link, Box<Session>),
}

/// What happens to a connection, with the events of RFC 4271 §8.1 that it stands for.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// 3 `AutomaticStart`, 5 `…_with_PassiveTcpEstablishment` (where the peer is passive), 13
    /// `IdleHoldTimer_Expires`.
    Start,
    /// 2 `ManualStop`, 8 `AutomaticStop`, 23 `OpenCollisionDump`: we end it, for this reason.
    Stop(Loss),
    /// 9 `ConnectRetryTimer_Expires`.
    ConnectRetryExpires,
    /// 10 `HoldTimer_Expires`.
    HoldExpires,
    /// 11 `KeepaliveTimer_Expires`.
    KeepaliveExpires,
    /// `SendHoldTimer_Expires` (RFC 9687 §3.1, event 29).
    SendHoldExpires,
    /// 16 `Tcp_CR_Acked`, 17 `TcpConnectionConfirmed`.
    Connected(Link),
    /// 18 `TcpConnectionFails`.
    Disconnected,
    /// 19 `BGPOpen`, already negotiated.
    Open(Box<Session>),
    /// 21 `BGPHeaderErr`, 22 `BGPOpenMsgErr`, 28 `UpdateMsgErr`: what the peer shall be told.
    Malformed(Notification),
    /// 24 `NotifMsgVerErr`, 25 `NotifMsg`.
    Notification(Notification),
    /// 26 `KeepAliveMsg`.
    Keepalive,
    /// 27 `UpdateMsg`.
    Update(Box<Update>),
    /// ROUTE-REFRESH came (RFC 2918).
    Refresh(RouteRefresh),
}

impl Fsm {
    /// The state after `event`.
    #[rustfmt::skip]
    pub(crate) fn on(self, event: Event, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        use Event as E;
        match (self, event) {
            (Self::Idle, E::Start) => Self::start(timers, cx),
            (Self::Idle, E::Connected(link)) => { cx.out.push(Action::Close(link.conn)); Self::Idle }
            (Self::Idle, E::Stop(_)) => { timers.stop_all(); Self::Idle }
            (Self::Idle,
                E::ConnectRetryExpires | E::HoldExpires | E::KeepaliveExpires | E::SendHoldExpires | E::Disconnected
                | E::Open(_) | E::Malformed(_) | E::Notification(_) | E::Keepalive | E::Update(_) | E::Refresh(_),
            ) => Self::Idle,

            (Self::Connect(_) | Self::Active, E::Connected(link)) => Self::open(link, timers, cx),
            (Self::Connect(conn), E::ConnectRetryExpires) => {
                cx.out.push(Action::Close(conn));
                Self::dial(timers, cx)
            }
            (Self::Active, E::ConnectRetryExpires) => Self::dial(timers, cx),
            (Self::Connect(_), E::Disconnected) => Self::unreachable(timers, cx),
            (state @ (Self::Connect(_) | Self::Active), E::Stop(loss)) => state.end(loss, timers, cx),
            // Besides a start that has happened, none of these can come without a link.
            (state @ (Self::Connect(_) | Self::Active),
                E::Start | E::HoldExpires | E::KeepaliveExpires | E::SendHoldExpires
                | E::Open(_) | E::Malformed(_) | E::Notification(_) | E::Keepalive | E::Update(_) | E::Refresh(_),
            ) | (state @ Self::Active, E::Disconnected) => state,

            (Self::OpenSent(link), E::Open(session)) => Self::confirm(link, session, timers, cx),
            (Self::OpenConfirm(link, session), E::Keepalive) => Self::establish(link, session, timers, cx),
            (Self::OpenConfirm(link, session), E::KeepaliveExpires) => {
                send_keepalive(link, &session, timers, cx);
                Self::OpenConfirm(link, session)
            }
            (Self::Established(link, session), E::KeepaliveExpires) => {
                send_keepalive(link, &session, timers, cx);
                Self::Established(link, session)
            }
            (Self::Established(link, session), E::Keepalive) => Self::alive(link, session, timers, cx),
            (Self::Established(link, session), E::Update(update)) => {
                cx.out.push(Action::Update(update));
                Self::alive(link, session, timers, cx)
            }
            (Self::Established(link, session), E::Refresh(refresh)) => {
                cx.out.push(Action::Refresh(refresh));
                Self::alive(link, session, timers, cx)
            }

            (state @ Self::OpenSent(_), E::Disconnected) => {
                state.end(Loss::Closed, timers, cx);
                Self::Active
            }
            (state @ (Self::OpenSent(_) | Self::OpenConfirm(..) | Self::Established(..)), event) => match event {
                E::Start => state,
                E::Stop(loss) => state.end(loss, timers, cx),
                E::HoldExpires => state.end(Loss::HoldExpired, timers, cx),
                E::SendHoldExpires => state.end(Loss::SendHoldExpired, timers, cx),
                E::Disconnected => state.end(Loss::Closed, timers, cx),
                E::Malformed(notification) => match state.misplaced(&notification) {
                    Some(kind) => state.unexpected(kind, timers, cx),
                    None => state.end(Loss::Sent(notification), timers, cx),
                },
                E::Notification(notification) => state.end(Loss::Received(notification), timers, cx),
                // No timer that is not armed expires, and a link is never connected twice.
                E::ConnectRetryExpires | E::KeepaliveExpires | E::Connected(_) => state,
                // The numbers are message types (RFC 4271 §4.1).
                E::Open(_) => state.unexpected(1, timers, cx),
                E::Update(_) => state.unexpected(2, timers, cx),
                E::Keepalive => state.unexpected(4, timers, cx),
                E::Refresh(_) => state.unexpected(5, timers, cx),
            },
        }
    }

    /// The connection's number, from the dial on.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Connect(conn) => Some(*conn),
            Self::Idle | Self::Active | Self::OpenSent(_) | Self::OpenConfirm(..) | Self::Established(..) => {
                self.link().map(|link| link.conn)
            }
        }
    }

    /// The transport connection, where it is up.
    pub(crate) fn link(&self) -> Option<Link> {
        match self {
            Self::Idle | Self::Connect(_) | Self::Active => None,
            Self::OpenSent(link) | Self::OpenConfirm(link, _) | Self::Established(link, _) => Some(*link),
        }
    }

    /// What the OPENs agreed on.
    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Self::Idle | Self::Connect(_) | Self::Active | Self::OpenSent(_) => None,
            Self::OpenConfirm(_, session) | Self::Established(_, session) => Some(session),
        }
    }

    /// Idle is left: by dialling, or by waiting for a passive peer.
    fn start(timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        timers.stop_all();
        if cx.peer.passive {
            Self::Active
        } else {
            Self::dial(timers, cx)
        }
    }

    fn dial(timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        timers.stop_all();
        timers.arm(Timer::ConnectRetry, cx.now + jitter(DIAL, cx.rng));
        Self::Connect(cx.dial())
    }

    /// The dial failed; the next one, or the peer's, may not.
    fn unreachable(timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        timers.stop_all();
        cx.out.push(Action::Ended(None, Loss::Unreachable));
        Self::Active
    }

    fn open(link: Link, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        timers.stop_all();
        timers.arm(Timer::Hold, cx.now + OPEN_HOLD);
        cx.out.push(Action::Open(link.conn));
        Self::OpenSent(link)
    }

    fn confirm(link: Link, session: Box<Session>, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        timers.stop_all();
        cx.out.push(Action::Decode(link.conn, session.context.clone()));
        send_keepalive(link, &session, timers, cx);
        restart_hold(&session, timers, cx);
        if session.hold_time.is_zero() {
            // Who has agreed to send no KEEPALIVEs has to send the first one; nobody waits for it for ever.
            timers.arm(Timer::Hold, cx.now + OPEN_HOLD);
        }
        Self::OpenConfirm(link, session)
    }

    fn establish(link: Link, session: Box<Session>, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        cx.out.push(Action::Up(link, session.clone()));
        timers.stop(Timer::Hold);
        Self::alive(link, session, timers, cx)
    }

    /// Established, and the peer has just shown that it lives.
    fn alive(link: Link, session: Box<Session>, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        restart_hold(&session, timers, cx);
        Self::Established(link, session)
    }

    /// The type of the message in which an error was found, where it may not come at all: what is wrong in it is
    /// then beside the point (RFC 4271 §8.2.2, events 22 and 28).
    fn misplaced(&self, error: &Notification) -> Option<u8> {
        let expected: &[u8] = match self {
            Self::Idle | Self::Connect(_) | Self::Active => &[],
            Self::OpenSent(_) | Self::OpenConfirm(..) => &[1],
            Self::Established(..) => &[2, 5],
        };
        error.message().filter(|kind| !expected.contains(kind))
    }

    /// A message of this type may not come here (RFC 6608 §4).
    fn unexpected(self, kind: u8, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        let waiting = match self {
            Self::Idle | Self::Connect(_) | Self::Active | Self::OpenSent(_) => Waiting::OpenSent,
            Self::OpenConfirm(..) => Waiting::OpenConfirm,
            Self::Established(..) => Waiting::Established,
        };
        self.end(
            Loss::Sent(Notification::unexpected_message(waiting, kind)),
            timers,
            cx,
        )
    }

    /// Back to Idle: the peer is told why where it can be, and the connection closed where it is not.
    fn end(self, loss: Loss, timers: &mut Timers, cx: &mut Cx<'_>) -> Self {
        timers.stop_all();
        if let (Some(link), Some(notification)) = (self.link(), loss.notification()) {
            let notification = loss::on_the_wire(notification, self.session());
            cx.out
                .push(Action::Send(link.conn, Message::Notification(notification)));
        }
        if let Some(conn) = self.conn().filter(|_| loss != Loss::Closed) {
            cx.out.push(Action::Close(conn));
        }
        let established = match self {
            Self::Established(_, session) => Some(session),
            Self::Idle | Self::Connect(_) | Self::Active | Self::OpenSent(_) | Self::OpenConfirm(..) => None,
        };
        cx.out.push(Action::Ended(established, loss));
        Self::Idle
    }
}

/// RFC 4271 §4.4: a third of the hold time between KEEPALIVEs, a second at least; none where there is no hold time.
fn send_keepalive(link: Link, session: &Session, timers: &mut Timers, cx: &mut Cx<'_>) {
    cx.out.push(Action::Send(link.conn, Message::Keepalive));
    if !session.hold_time.is_zero() {
        let period = jitter(session.hold_time / 3, cx.rng).max(KEEPALIVE_PERIOD);
        timers.arm(Timer::Keepalive, cx.now + period);
    }
}

fn restart_hold(session: &Session, timers: &mut Timers, cx: &Cx<'_>) {
    if !session.hold_time.is_zero() {
        timers.arm(Timer::Hold, cx.now + session.hold_time);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::State;
    use crate::testing::{address, config, epoch, peer, session};
    use crate::wire::Cease;

    const CONN: ConnId = ConnId(7);

    fn link() -> Link {
        Link {
            conn: CONN,
            dialled: true,
            local: address(1).into(),
        }
    }

    fn states() -> [Fsm; 6] {
        [
            Fsm::Idle,
            Fsm::Connect(CONN),
            Fsm::Active,
            Fsm::OpenSent(link()),
            Fsm::OpenConfirm(link(), Box::new(session())),
            Fsm::Established(link(), Box::new(session())),
        ]
    }

    fn name(fsm: &Fsm) -> State {
        match fsm {
            Fsm::Idle => State::Idle,
            Fsm::Connect(_) => State::Connect,
            Fsm::Active => State::Active,
            Fsm::OpenSent(_) => State::OpenSent,
            Fsm::OpenConfirm(..) => State::OpenConfirm,
            Fsm::Established(..) => State::Established,
        }
    }

    /// The state after an event, what it asked for, and the timers.
    fn on(state: Fsm, event: Event, now: Instant) -> (Fsm, Vec<Action>, Timers) {
        let (local, peer, mut timers) = (config(1), peer(2), Timers::default());
        let (mut rng, mut dialled, mut out) = (StdRng::seed_from_u64(1), 100, Vec::new());
        let mut cx = Cx {
            now,
            local: &local,
            peer: &peer,
            rng: &mut rng,
            dialled: &mut dialled,
            out: &mut out,
        };
        let state = state.on(event, &mut timers, &mut cx);
        (state, out, timers)
    }

    /// What the peer is told by a NOTIFICATION among the actions, and whether the connection is closed.
    fn told(actions: &[Action]) -> (Option<(u8, u8)>, bool) {
        let notification = actions.iter().find_map(|action| {
            if let Action::Send(_, Message::Notification(it)) = action {
                Some((it.code, it.subcode))
            } else {
                None
            }
        });
        (notification, actions.contains(&Action::Close(CONN)))
    }

    /// Every event, by the number that RFC 4271 §8.1 gives it, and a name for what it has no number for.
    fn events() -> Vec<(&'static str, Event)> {
        let error = |code, subcode| Notification {
            code,
            subcode,
            data: Bytes::new(),
        };
        let shutdown = || Loss::cease(Cease::AdministrativeShutdown);
        vec![
            ("1 start", Event::Start),
            ("2 stop", Event::Stop(shutdown())),
            ("9 connect retry", Event::ConnectRetryExpires),
            ("10 hold", Event::HoldExpires),
            ("11 keepalive", Event::KeepaliveExpires),
            ("16 connected", Event::Connected(link())),
            ("18 failed", Event::Disconnected),
            ("19 open", Event::Open(Box::new(session()))),
            ("21 header", Event::Malformed(error(1, 2))),
            ("22 bad open", Event::Malformed(error(2, 6))),
            ("23 collision", Event::Stop(Loss::Collision)),
            ("24 version", Event::Notification(error(2, 1))),
            ("25 notification", Event::Notification(error(6, 4))),
            ("26 keepalive", Event::Keepalive),
            ("27 update", Event::Update(Box::default())),
            ("28 bad update", Event::Malformed(error(3, 1))),
            ("29 send hold", Event::SendHoldExpires),
            (
                "refresh",
                Event::Refresh(RouteRefresh {
                    family: None,
                    subtype: 0,
                }),
            ),
            ("bad refresh", Event::Malformed(error(7, 1))),
        ]
    }

    /// An event, the state after it, the code and subcode that the peer is told, whether the connection is closed.
    type Row<'a> = (&'a str, State, Option<(u8, u8)>, bool);

    /// Checks the state after every event, what the peer is told and whether the connection is closed.
    /// Events that `rows` do not name change nothing.
    fn check(state: &Fsm, rows: &[Row<'_>]) {
        for (name_of_event, event) in events() {
            let (after, actions, _) = on(state.clone(), event, epoch());
            let row = rows.iter().find(|(event, ..)| *event == name_of_event);
            let wanted = match row {
                Some(&(_, after, told, closed)) => (after, told, closed),
                None => (name(state), None, false),
            };
            let (notification, closed) = told(&actions);
            assert_eq!(
                (name(&after), notification, closed),
                wanted,
                "{} on {name_of_event}",
                name(state)
            );
        }
        assert!(
            rows.iter()
                .all(|(row, ..)| events().iter().any(|(event, _)| event == row))
        );
    }

    /// RFC 4271 §8.2.2 (Idle): a start, and nothing else; connections are refused.
    #[test]
    fn idle_takes_a_start_and_refuses_connections() {
        check(
            &Fsm::Idle,
            &[
                ("1 start", State::Connect, None, false),
                ("16 connected", State::Idle, None, true),
            ],
        );
    }

    /// RFC 4271 §8.2.2 (Connect): a dial that takes too long is given up for another.
    #[test]
    fn connect_waits_for_its_dial() {
        check(
            &Fsm::Connect(CONN),
            &[
                ("2 stop", State::Idle, None, true),
                ("9 connect retry", State::Connect, None, true),
                ("16 connected", State::OpenSent, None, false),
                ("18 failed", State::Active, None, false),
                ("23 collision", State::Idle, None, true),
            ],
        );
    }

    /// RFC 4271 §8.2.2 (Active): it dials when its time has come, and takes the peer's dial before.
    #[test]
    fn active_waits_for_either_dial() {
        check(
            &Fsm::Active,
            &[
                ("2 stop", State::Idle, None, false),
                ("9 connect retry", State::Connect, None, false),
                ("16 connected", State::OpenSent, None, false),
                ("23 collision", State::Idle, None, false),
            ],
        );
    }

    /// RFC 4271 §8.2.2 (OpenSent): anything but an OPEN is told by its own code, or by 5.
    /// RFC 4271 §6.6: an unexpected message ends it.
    /// RFC 4271 §6.4: a NOTIFICATION is not answered.
    /// RFC 6608 §4: 5/1.
    #[test]
    fn open_sent_waits_for_an_open() {
        check(
            &Fsm::OpenSent(link()),
            &[
                ("2 stop", State::Idle, Some((6, 2)), true),
                ("10 hold", State::Idle, Some((4, 0)), true),
                ("18 failed", State::Active, None, false),
                ("19 open", State::OpenConfirm, None, false),
                ("21 header", State::Idle, Some((1, 2)), true),
                ("22 bad open", State::Idle, Some((2, 6)), true),
                ("23 collision", State::Idle, Some((6, 7)), true),
                ("24 version", State::Idle, None, true),
                ("25 notification", State::Idle, None, true),
                ("26 keepalive", State::Idle, Some((5, 1)), true),
                ("27 update", State::Idle, Some((5, 1)), true),
                ("28 bad update", State::Idle, Some((5, 1)), true),
                ("29 send hold", State::Idle, Some((8, 0)), true),
                ("refresh", State::Idle, Some((5, 1)), true),
                ("bad refresh", State::Idle, Some((5, 1)), true),
            ],
        );
    }

    /// RFC 4271 §8.2.2 (OpenConfirm): only a KEEPALIVE leads on.
    /// RFC 6608 §4: 5/2.
    #[test]
    fn open_confirm_waits_for_a_keepalive() {
        check(
            &Fsm::OpenConfirm(link(), Box::new(session())),
            &[
                ("2 stop", State::Idle, Some((6, 2)), true),
                ("10 hold", State::Idle, Some((4, 0)), true),
                ("18 failed", State::Idle, None, false),
                ("19 open", State::Idle, Some((5, 2)), true),
                ("21 header", State::Idle, Some((1, 2)), true),
                ("22 bad open", State::Idle, Some((2, 6)), true),
                ("23 collision", State::Idle, Some((6, 7)), true),
                ("24 version", State::Idle, None, true),
                ("25 notification", State::Idle, None, true),
                ("26 keepalive", State::Established, None, false),
                ("27 update", State::Idle, Some((5, 2)), true),
                ("28 bad update", State::Idle, Some((5, 2)), true),
                ("29 send hold", State::Idle, Some((8, 0)), true),
                ("refresh", State::Idle, Some((5, 2)), true),
                ("bad refresh", State::Idle, Some((5, 2)), true),
            ],
        );
    }

    /// RFC 4271 §8.2.2 (Established): only an OPEN is out of place.
    /// RFC 4271 §6.7: a stop is a Cease; an error has its own code.
    /// RFC 6608 §4: 5/3.
    /// nasty case 10
    #[test]
    fn established_goes_on_until_an_error_or_a_stop() {
        check(
            &Fsm::Established(link(), Box::new(session())),
            &[
                ("2 stop", State::Idle, Some((6, 2)), true),
                ("10 hold", State::Idle, Some((4, 0)), true),
                ("18 failed", State::Idle, None, false),
                ("19 open", State::Idle, Some((5, 3)), true),
                ("21 header", State::Idle, Some((1, 2)), true),
                ("22 bad open", State::Idle, Some((5, 3)), true),
                ("23 collision", State::Idle, Some((6, 7)), true),
                ("24 version", State::Idle, None, true),
                ("25 notification", State::Idle, None, true),
                ("28 bad update", State::Idle, Some((3, 1)), true),
                ("29 send hold", State::Idle, Some((8, 0)), true),
                ("bad refresh", State::Idle, Some((7, 1)), true),
            ],
        );
    }

    /// RFC 4271 §4.5: closed right after the NOTIFICATION.
    #[test]
    fn an_ended_connection_is_closed_and_its_timers_stopped() {
        for state in states().into_iter().skip(3) {
            for event in [
                Event::HoldExpires,
                Event::SendHoldExpires,
                Event::Stop(Loss::Collision),
            ] {
                let (_, out, timers) = on(state.clone(), event, epoch());
                assert!(
                    matches!(out[0], Action::Send(CONN, Message::Notification(_))),
                    "{out:?}"
                );
                assert_eq!(out[1], Action::Close(CONN));
                assert!(matches!(out[2], Action::Ended(..)), "{out:?}");
                assert_eq!(timers.next(), None);
            }
        }
    }

    /// RFC 6608 §4: by state, with the message's type.
    #[test]
    fn a_message_out_of_place_is_told_apart_by_state_and_type() {
        let table = [
            (3, Event::Keepalive, (5, 1, 4)),
            (3, Event::Update(Box::default()), (5, 1, 2)),
            (4, Event::Open(Box::new(session())), (5, 2, 1)),
            (
                4,
                Event::Refresh(RouteRefresh::request(crate::Family::Ipv4Unicast)),
                (5, 2, 5),
            ),
            (5, Event::Open(Box::new(session())), (5, 3, 1)),
        ];
        for (state, event, (code, subcode, kind)) in table {
            let (_, out, _) = on(states()[state].clone(), event, epoch());
            let Action::Send(CONN, Message::Notification(told)) = &out[0] else {
                panic!("{out:?}")
            };
            assert_eq!(
                (told.code, told.subcode, told.data[..].first()),
                (code, subcode, Some(&kind))
            );
        }
    }

    /// RFC 4271 §8.2.2 (large hold): 4 minutes until the OPEN comes.
    /// RFC 4271 §4.4: no KEEPALIVEs without a hold time, but for the one that confirms the OPEN.
    #[test]
    fn timers_run_as_the_session_needs_them() {
        let now = epoch();
        let seconds = |timers: &Timers, timer| timers.at(timer).map(|at| (at - now).as_secs_f64());
        let (_, _, timers) = on(Fsm::Active, Event::Connected(link()), now);
        assert_eq!(
            seconds(&timers, Timer::Hold),
            Some(240.0),
            "a large hold time before the OPEN"
        );

        let (_, out, timers) = on(Fsm::OpenSent(link()), Event::Open(Box::new(session())), now);
        assert!(out.contains(&Action::Send(CONN, Message::Keepalive)));
        assert_eq!(seconds(&timers, Timer::Hold), Some(90.0));
        let keepalive = seconds(&timers, Timer::Keepalive).unwrap();
        assert!(
            (22.5..=30.0).contains(&keepalive),
            "a third of the hold time, jittered: {keepalive}"
        );

        let silent = Session {
            hold_time: Duration::ZERO,
            ..session()
        };
        let open = Event::Open(Box::new(silent.clone()));
        let (_, out, timers) = on(Fsm::OpenSent(link()), open, now);
        assert!(
            out.contains(&Action::Send(CONN, Message::Keepalive)),
            "one confirms the OPEN"
        );
        assert_eq!(
            (timers.next(), seconds(&timers, Timer::Hold)),
            (timers.at(Timer::Hold), Some(240.0)),
            "without hold time only the peer's own KEEPALIVE is waited for"
        );
        let confirmed = Fsm::OpenConfirm(link(), Box::new(silent));
        let (_, _, timers) = on(confirmed, Event::Keepalive, now);
        assert_eq!(timers.next(), None, "no hold time, no timers");
    }
}
