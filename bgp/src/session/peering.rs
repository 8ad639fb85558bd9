//! A peer's connections: at most one that we dial, or that carries the session, and one newcomer.
//!
//! A connection that the peer dials starts as the newcomer, with a state machine of its own (RFC 4271 §8.2.1).
//! It becomes the main one when it is ahead: when its OPENs agree while the main one is still dialling or
//! waiting, or when it alone survives a collision. What it replaces then is closed. So there is always a
//! main connection that knows when to try again, and never more than two.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::collision::{self, Identity, Progress, SETTLED, Verdict};
use super::fsm::{Event, Fsm};
use super::timers::{Timer, Timers};
use super::{Action, Cx, Link, Loss, Session, negotiate};
use crate::wire::{Message, Notification, Open};
use crate::{ConnId, State};

/// The shortest time after which a peer that takes no bytes counts as dead (RFC 9687 §3.2).
const SEND_HOLD: Duration = Duration::from_secs(8 * 60);

/// The connections with one peer.
#[derive(Debug)]
pub(crate) struct Peering {
    main: Connection,
    newcomer: Option<Connection>,
    backoff: Backoff,
    established: Option<Instant>,
    /// No connection is wanted until the idle hold timer expires, if it is armed, or [`Peering::release`].
    held: bool,
}

/// A connection: its state and its timers.
#[derive(Debug)]
struct Connection {
    fsm: Fsm,
    timers: Timers,
}

impl Connection {
    fn new(fsm: Fsm) -> Self {
        Self {
            fsm,
            timers: Timers::default(),
        }
    }

    fn on(&mut self, event: Event, cx: &mut Cx<'_>) {
        let fsm = std::mem::replace(&mut self.fsm, Fsm::Idle);
        self.fsm = fsm.on(event, &mut self.timers, cx);
    }

    fn state(&self) -> State {
        match self.fsm {
            Fsm::Idle => State::Idle,
            Fsm::Connect(_) => State::Connect,
            Fsm::Active => State::Active,
            Fsm::OpenSent(_) => State::OpenSent,
            Fsm::OpenConfirm(..) => State::OpenConfirm,
            Fsm::Established(..) => State::Established,
        }
    }
}

impl Peering {
    /// Starts to connect, or to wait for the peer's connection.
    pub(crate) fn start(cx: &mut Cx<'_>) -> Self {
        let mut main = Connection::new(Fsm::Idle);
        main.on(Event::Start, cx);
        Self {
            main,
            newcomer: None,
            backoff: Backoff::default(),
            established: None,
            held: false,
        }
    }

    /// How far the farther connection is.
    pub(crate) fn state(&self) -> State {
        let newcomer = self.newcomer.as_ref().map_or(State::Idle, Connection::state);
        self.main.state().max(newcomer)
    }

    /// The Established session, and since when.
    pub(crate) fn established(&self) -> Option<(Link, &Session, Instant)> {
        match &self.main.fsm {
            Fsm::Established(link, session) => Some((*link, session, self.established?)),
            Fsm::Idle | Fsm::Connect(_) | Fsm::Active | Fsm::OpenSent(_) | Fsm::OpenConfirm(..) => None,
        }
    }

    /// When [`expire`](Self::expire) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let newcomer = self.newcomer.as_ref().and_then(|it| it.timers.next());
        self.main.timers.next().into_iter().chain(newcomer).min()
    }

    /// A dial succeeded.
    pub(crate) fn connected(&mut self, link: Link, cx: &mut Cx<'_>) {
        self.on(link.conn, Event::Connected(link), cx);
    }

    /// The peer dialled us. A newcomer that was there is one that the peer has given up.
    pub(crate) fn accepted(&mut self, link: Link, cx: &mut Cx<'_>) {
        if self.held {
            return cx.out.push(Action::Close(link.conn));
        }
        if let Some(mut abandoned) = self.newcomer.take() {
            abandoned.on(Event::Stop(Loss::Collision), cx);
        }
        let newcomer = self.newcomer.insert(Connection::new(Fsm::Active));
        newcomer.on(Event::Connected(link), cx);
    }

    /// A dial failed, or a connection is gone.
    pub(crate) fn disconnected(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        self.on(conn, Event::Disconnected, cx);
    }

    /// A message came, or one that could not be decoded, with what the peer shall be told.
    pub(crate) fn received(&mut self, conn: ConnId, message: Result<Message, Notification>, cx: &mut Cx<'_>) {
        let event = match message {
            Ok(Message::Open(open)) => self.open(conn, &open, cx),
            Ok(Message::Update(update)) => Event::Update(Box::new(update)),
            Ok(Message::Keepalive) => Event::Keepalive,
            Ok(Message::Notification(notification)) => Event::Notification(notification),
            Ok(Message::RouteRefresh(refresh)) => Event::Refresh(refresh),
            Err(notification) => Event::Malformed(notification),
        };
        self.on(conn, event, cx);
    }

    /// Bytes for the Established session are under way: the peer has to take them in time (RFC 9687).
    pub(crate) fn sending(&mut self, now: Instant) {
        if let Some((_, session, _)) = self.established()
            && self.main.timers.at(Timer::SendHold).is_none()
        {
            let limit = SEND_HOLD.max(session.hold_time * 2);
            self.main.timers.arm(Timer::SendHold, now + limit);
        }
    }

    /// The peer has taken all bytes.
    pub(crate) fn drained(&mut self) {
        self.main.timers.stop(Timer::SendHold);
    }

    /// Ends every connection, and tries again in a moment.
    pub(crate) fn reset(&mut self, loss: &Loss, cx: &mut Cx<'_>) {
        self.stop(loss, cx);
        self.release(cx);
    }

    /// Ends every connection, and has none before `until`, or before [`release`](Self::release).
    pub(crate) fn hold_down(&mut self, loss: &Loss, until: Option<Instant>, cx: &mut Cx<'_>) {
        self.stop(loss, cx);
        self.held = true;
        self.main.timers.stop_all();
        if let Some(until) = until {
            self.main.timers.arm(Timer::IdleHold, until);
        }
        self.settle(cx);
    }

    /// What kept the peer away has changed.
    pub(crate) fn release(&mut self, cx: &mut Cx<'_>) {
        self.held = false;
        self.settle(cx);
    }

    /// Ends every connection for good.
    pub(crate) fn stop(&mut self, loss: &Loss, cx: &mut Cx<'_>) {
        if let Some(mut newcomer) = self.newcomer.take() {
            newcomer.on(Event::Stop(loss.clone()), cx);
        }
        self.main.on(Event::Stop(loss.clone()), cx);
    }

    /// Lets the expired timers take effect.
    pub(crate) fn expire(&mut self, cx: &mut Cx<'_>) {
        while let Some((connection, timer)) = self.take_expired(cx.now) {
            let event = match timer {
                Timer::ConnectRetry => Event::ConnectRetryExpires,
                Timer::Hold => Event::HoldExpires,
                Timer::Keepalive => Event::KeepaliveExpires,
                Timer::IdleHold => Event::Start,
                Timer::SendHold => Event::SendHoldExpires,
            };
            connection.on(event, cx);
            self.held &= timer != Timer::IdleHold;
            self.settle(cx);
        }
    }

    fn take_expired(&mut self, now: Instant) -> Option<(&mut Connection, Timer)> {
        if let Some(timer) = self.main.timers.take_expired(now) {
            return Some((&mut self.main, timer));
        }
        let newcomer = self.newcomer.as_mut()?;
        newcomer.timers.take_expired(now).map(|timer| (newcomer, timer))
    }

    fn on(&mut self, conn: ConnId, event: Event, cx: &mut Cx<'_>) {
        let found = self.connections().find(|it| it.fsm.conn() == Some(conn));
        if let Some(connection) = found {
            connection.on(event, cx);
            self.settle(cx);
        }
    }

    fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        std::iter::once(&mut self.main).chain(&mut self.newcomer)
    }

    /// What an OPEN on `conn` means, once the other connection has been dealt with.
    fn open(&mut self, conn: ConnId, open: &Open, cx: &mut Cx<'_>) -> Event {
        let session = match negotiate::negotiate(cx.local, cx.peer, open) {
            Ok(session) => Box::new(session),
            Err(error) => return Event::Malformed(error.into()),
        };
        match self.collision(conn, session.router_id, cx) {
            None | Some(Verdict::Both) => {}
            Some(Verdict::Older) => return Event::Stop(Loss::Collision),
            Some(Verdict::Newer) => self.stop_rival(conn, Loss::Collision, cx),
            Some(Verdict::Takeover) => self.stop_rival(conn, Loss::Takeover, cx),
        }
        Event::Open(session)
    }

    /// Which connection stays now that the first OPEN has come on `conn`; none if there is but one.
    fn collision(&mut self, conn: ConnId, router_id: Ipv4Addr, cx: &Cx<'_>) -> Option<Verdict> {
        let stands = self.established.is_some_and(|since| cx.now - since >= SETTLED);
        let newer = self
            .connections()
            .find(|it| it.fsm.conn() == Some(conn) && it.state() == State::OpenSent)?;
        let newer_dialled = newer.fsm.link()?.dialled;
        let rival = self
            .connections()
            .find(|it| it.fsm.link().is_some_and(|link| link.conn != conn))?;
        let progress = match &rival.fsm {
            Fsm::Idle | Fsm::Connect(_) | Fsm::Active | Fsm::OpenSent(_) => Progress::OpenSent,
            Fsm::OpenConfirm(..) => Progress::OpenConfirm,
            Fsm::Established(_, session) if stands => Progress::Settled {
                graceful: session.restart.is_some(),
            },
            Fsm::Established(..) => Progress::Fresh,
        };
        let us = Identity {
            router_id: cx.local.router_id,
            asn: cx.peer.local_as(cx.local),
        };
        let peer = Identity {
            router_id,
            asn: cx.peer.asn,
        };
        let older_dialled = rival.fsm.link()?.dialled;
        Some(collision::judge(us, peer, newer_dialled, older_dialled, progress))
    }

    fn stop_rival(&mut self, conn: ConnId, loss: Loss, cx: &mut Cx<'_>) {
        if let Some(rival) = self.connections().find(|it| it.fsm.conn() != Some(conn)) {
            rival.on(Event::Stop(loss), cx);
        }
    }

    /// Puts the connection that is ahead first, and sees to it that something happens next.
    pub(crate) fn settle(&mut self, cx: &mut Cx<'_>) {
        self.newcomer.take_if(|newcomer| newcomer.fsm.link().is_none());
        if let Some(newcomer) = &mut self.newcomer
            && newcomer.state() >= State::OpenConfirm
            && newcomer.state() > self.main.state()
        {
            std::mem::swap(newcomer, &mut self.main);
            // What waits for an OPEN may still collide; a mere attempt is given up.
            if let Some(mut attempt) = self.newcomer.take_if(|it| it.fsm.link().is_none()) {
                attempt.on(Event::Stop(Loss::Collision), cx);
            }
        }
        self.note_establishment(cx.now);
        self.damp(cx);
    }

    fn note_establishment(&mut self, now: Instant) {
        if self.main.state() == State::Established {
            self.established.get_or_insert(now);
        } else if self
            .established
            .take()
            .is_some_and(|since| now - since >= SETTLED)
        {
            self.backoff.reset();
        }
    }

    /// An attempt that has failed is followed by another, after a while (RFC 4271 §8.1.1).
    fn damp(&mut self, cx: &mut Cx<'_>) {
        let timer = match self.main.state() {
            State::Idle if self.held => return,
            State::Idle => Timer::IdleHold,
            State::Active if !cx.peer.passive => Timer::ConnectRetry,
            // The settings may just have become passive.
            State::Active => return self.main.timers.stop(Timer::ConnectRetry),
            State::Connect | State::OpenSent | State::OpenConfirm | State::Established => return,
        };
        if self.main.timers.at(timer).is_none() {
            self.main.timers.arm(timer, cx.now + self.backoff.next(cx.rng));
        }
    }
}
