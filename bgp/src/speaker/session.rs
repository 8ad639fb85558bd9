//! Steps of the peers' connections, and what they mean for sockets and routes.

use std::time::Instant;

use bytes::Bytes;

use super::{ConnId, Output, PeerKey, Speaker};
use crate::PeerConfig;
use crate::handling::LimitAction;
use crate::peer::Peer;
use crate::session::peering::Peering;
use crate::session::{Action, Cx, Link, Loss, Session, negotiate};
use crate::status::Fault;
use crate::wire::{self, Cease, Context, Message, Notification, RouteRefresh};

impl Speaker {
    pub(super) fn add_peer(&mut self, now: Instant, config: PeerConfig) {
        let key = config.key;
        let mut actions = Vec::new();
        let peering = Peering::start(&mut Cx {
            now,
            local: &self.config,
            peer: &config,
            rng: &mut self.rng,
            dialled: &mut self.dialled,
            out: &mut actions,
        });
        self.peers.insert(key, Peer::new(config, peering));
        self.perform(now, key, actions);
    }

    /// Steps the connections of the peer that `conn` belongs to, if it still belongs to one.
    pub(super) fn on_connection(
        &mut self,
        now: Instant,
        conn: ConnId,
        step: impl FnOnce(&mut Peering, &mut Cx<'_>),
    ) {
        if let Some(&key) = self.connections.get(&conn) {
            self.on_peer(now, key, step);
        }
    }

    /// Steps a peer's connections.
    pub(super) fn on_peer(
        &mut self,
        now: Instant,
        key: PeerKey,
        step: impl FnOnce(&mut Peering, &mut Cx<'_>),
    ) {
        let actions = self.step(now, key, step);
        self.perform(now, key, actions);
    }

    /// Ends the session of a peer that cannot be reached. An attempt goes on: it has nothing to lose.
    pub(super) fn path_down(&mut self, now: Instant, key: PeerKey) {
        if self.peers.get(&key).is_some_and(|peer| peer.live.is_some()) {
            self.on_peer(now, key, |peering, cx| {
                peering.reset(&Loss::cease(Cease::BfdDown), cx);
            });
        }
    }

    /// The peer takes no more part, in silence where that makes it keep our routes.
    pub(super) fn leave(&mut self, now: Instant, key: PeerKey) {
        let session = self.peers.get(&key).and_then(|peer| peer.live.as_ref());
        let loss = match session {
            Some(live) if live.session.restart.is_none() => {
                let shutdown = Notification::cease(Cease::AdministrativeShutdown);
                Loss::Sent(shutdown.saying(&self.config.farewell))
            }
            Some(_) | None => Loss::Restart,
        };
        let actions = self.step(now, key, |peering, cx| peering.stop(&loss, cx));
        for action in actions {
            // Routes stay as they are: the process ends, forwarding does not.
            if !matches!(action, Action::Ended(..)) {
                self.act(now, key, action);
            }
        }
    }

    fn step(
        &mut self,
        now: Instant,
        key: PeerKey,
        step: impl FnOnce(&mut Peering, &mut Cx<'_>),
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(peer) = self.peers.get_mut(&key) {
            let mut cx = Cx {
                now,
                local: &self.config,
                peer: &peer.config,
                rng: &mut self.rng,
                dialled: &mut self.dialled,
                out: &mut actions,
            };
            step(&mut peer.peering, &mut cx);
        }
        actions
    }

    fn perform(&mut self, now: Instant, key: PeerKey, actions: Vec<Action>) {
        for action in actions {
            self.act(now, key, action);
        }
        self.reschedule(key);
    }

    fn act(&mut self, now: Instant, key: PeerKey, action: Action) {
        match action {
            Action::Dial(conn) => self.dial(key, conn),
            Action::Open(conn) => self.send_open(key, conn),
            Action::Decode(conn, context) => self.outputs.push_back(Output::Decode { conn, context }),
            Action::Send(conn, message) => self.send(key, conn, encode(&message)),
            Action::Close(conn) => {
                self.connections.remove(&conn);
                self.outputs.push_back(Output::Close { conn });
            }
            Action::Up(link, session) => self.up(now, key, link, session),
            Action::Ended(session, loss) => self.ended(now, key, session.as_deref(), &loss),
            Action::Update(update) => {
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.update(*update, &self.config, &mut self.rib);
                }
                self.enforce_limits(now, key);
            }
            Action::Refresh(refresh) => self.refresh(now, key, refresh),
        }
    }

    /// Ends the session of a peer that announces more than it may (RFC 4271 §6.7, RFC 4486 §4).
    pub(super) fn enforce_limits(&mut self, now: Instant, key: PeerKey) {
        let Some(limit) = self.peers.get_mut(&key).and_then(Peer::broken_limit) else {
            return;
        };
        let until = match limit.action {
            LimitAction::Restart(pause) => Some(now + pause),
            LimitAction::Down | LimitAction::Warn => None,
        };
        let loss = Loss::Sent(Notification::maximum_prefixes(limit.family, limit.max));
        self.on_peer(now, key, |peering, cx| peering.hold_down(&loss, until, cx));
    }

    fn dial(&mut self, key: PeerKey, conn: ConnId) {
        if let Some(peer) = self.peers.get(&key) {
            self.connections.insert(conn, key);
            let remote = key.socket_address(peer.config.port);
            self.outputs.push_back(Output::Dial {
                conn,
                remote,
                local: peer.config.local_address,
            });
        }
    }

    fn send_open(&mut self, key: PeerKey, conn: ConnId) {
        let recovering = !self.convergence.announces();
        if let Some(peer) = self.peers.get(&key) {
            let restarted = peer.restarted(&self.config, recovering);
            let open = negotiate::offer(&self.config, &peer.config, restarted);
            // Until the peer's OPEN has come, nothing is negotiated.
            let context = negotiate::initial_context(&self.config, &peer.config);
            self.outputs.push_back(Output::Decode { conn, context });
            self.send(key, conn, encode(&Message::Open(open)));
        }
    }

    fn up(&mut self, now: Instant, key: PeerKey, link: Link, session: Box<Session>) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.up(link, session, now, &self.config, &mut self.rib);
            self.outputs.push_back(Output::Session {
                peer: key,
                up: true,
                reason: None,
                end: None,
            });
        }
        self.join(key);
    }

    fn ended(&mut self, now: Instant, key: PeerKey, session: Option<&Session>, loss: &Loss) {
        if session.is_some() {
            self.part(key);
        }
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.note(loss);
        if let Some(session) = session {
            peer.down(session, loss, now, &mut self.rib);
            let reason = Some(loss.to_string());
            self.outputs.push_back(Output::Session {
                peer: key,
                up: false,
                reason,
                end: Some(loss.end(session)),
            });
            // A drain ends with its session, whoever ended that.
            self.end_drain(now, key);
        }
        self.may_be_gone(key);
    }

    fn refresh(&mut self, now: Instant, key: PeerKey, refresh: RouteRefresh) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.refresh(refresh, now, &mut self.rib);
            self.unsent.insert(key);
        }
    }

    /// Sends bytes; what goes out on the Established session counts until the peer has taken it.
    pub(super) fn send(&mut self, key: PeerKey, conn: ConnId, bytes: Bytes) {
        if let (Some(peer), Some(now)) = (self.peers.get_mut(&key), self.now)
            && peer.live.as_ref().is_some_and(|live| live.link.conn == conn)
        {
            peer.outbound.in_flight += bytes.len();
            peer.peering.sending(now);
        }
        self.outputs.push_back(Output::Send { conn, bytes });
    }

    /// Counts what was wrong with an UPDATE.
    pub(super) fn faulty(&mut self, conn: ConnId, faults: &[Fault]) {
        let key = self.connections.get(&conn);
        if let Some(peer) = key.and_then(|key| self.peers.get_mut(key)) {
            peer.count(faults);
        }
    }

    pub(super) fn drained(&mut self, conn: ConnId) {
        let Some(&key) = self.connections.get(&conn) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if peer.live.as_ref().is_some_and(|live| live.link.conn == conn) {
            peer.outbound.in_flight = 0;
            peer.peering.drained();
            self.unsent.insert(key);
            self.reschedule(key);
        }
    }

    /// Lets time pass for the peers that are due.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.inbound.expire(now, &mut self.rib);
            }
            self.advance_drain(now, key);
            self.on_peer(now, key, |peering, cx| peering.expire(cx));
        }
    }

    /// Keeps the table of deadlines in step with a peer's timers.
    pub(super) fn reschedule(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let deadline = peer.deadline();
        if peer.scheduled == deadline {
            return;
        }
        if let Some(at) = std::mem::replace(&mut peer.scheduled, deadline) {
            self.deadlines.remove(&(at, key));
        }
        self.deadlines.extend(deadline.map(|at| (at, key)));
    }
}

/// The octets of a message that reads the same on every session.
pub(super) fn encode(message: &Message) -> Bytes {
    wire::encode(message, &Context::default())
}
