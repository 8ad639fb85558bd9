//! The speaker: all peers, the RIB, and what leaves.
//!
//! [`Speaker::handle`] takes one input: it steps the peer's connections and books routes, nothing more. What
//! follows for other prefixes and peers is worked out when the driver has no more inputs at hand and asks for
//! outputs, once per changed prefix and peer however many inputs there were: [`Speaker::poll`].

mod announce;
mod dynamic;
pub(crate) mod foresight;
pub mod monitor;
mod operator;
mod session;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

pub use crate::config::{Config, NextHopMode, PeerConfig, PeerKey, Policy};
use crate::convergence::Convergence;
use crate::dynamic::Ranges;
use crate::egress::Egress;
use crate::explain::{self, ExplainedPath, Explanation, RuleName};
use crate::filter::NORMAL_PRIORITY;
use crate::group::{GroupId, Groups};
use crate::interfaces::Interface;
use crate::peer::Peer;
use crate::rib::{Path, Rib, Route};
pub use crate::seam::{ConnId, Input, Output};
use crate::session::{Link, Loss};
pub use crate::status::{PathSnapshot, PeerSnapshot, State};
use crate::wire::{self, Attributes, Cease, Context, Message, Notification};
use crate::{ANY_EXTERNAL_AS, Prefix};
use operator::Everyone;

/// Bytes under way to one peer beyond which its announcements wait for `Drained`.
pub const SEND_BUDGET: usize = 256 * 1024;

/// Bytes that wait for a peer which takes none, at most, whatever there is to say: what was under way before the last
/// step of announcements, that step with one message more than [`SEND_BUDGET`], and KEEPALIVEs until the send hold
/// timer expires.
pub const SEND_QUEUE: usize = 2 * SEND_BUDGET + 128 * 1024;

/// The machine.
#[derive(Debug)]
pub struct Speaker {
    config: Config,
    peers: BTreeMap<PeerKey, Peer>,
    /// Whose a connection is.
    connections: BTreeMap<ConnId, PeerKey>,
    /// When which peer is due: one entry per peer that ever is.
    deadlines: BTreeSet<(Instant, PeerKey)>,
    rib: Rib,
    /// Peers with a session, by what they are told.
    groups: Groups,
    /// Groups that may have to be told something.
    stirred: BTreeSet<GroupId>,
    /// Peers that may take more, or something else, than before.
    unsent: BTreeSet<PeerKey>,
    ranges: Ranges,
    /// Dynamic neighbours that may have gone.
    leaving: BTreeSet<PeerKey>,
    /// There are peers whose address is not known yet.
    unfound: bool,
    convergence: Convergence,
    /// Whether all peers are drained.
    everyone: Everyone,
    outputs: VecDeque<Output>,
    /// How many connections have been dialled.
    dialled: u64,
    rng: StdRng,
    /// The instant of the last input.
    now: Option<Instant>,
    stopped: bool,
}

impl Speaker {
    /// A speaker without peers.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            peers: BTreeMap::new(),
            connections: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            rib: Rib::new(config.max_paths, config.seed),
            groups: Groups::new(config.seed),
            stirred: BTreeSet::new(),
            unsent: BTreeSet::new(),
            ranges: Ranges::default(),
            leaving: BTreeSet::new(),
            unfound: false,
            convergence: Convergence::new(config.restarted, config.deferral),
            everyone: Everyone::default(),
            outputs: VecDeque::new(),
            dialled: 0,
            rng: StdRng::seed_from_u64(config.seed),
            now: None,
            stopped: false,
            config,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = Some(now);
        if self.stopped {
            return self.refuse(&input);
        }
        match input {
            Input::SetPeer(config) => self.set_peer(now, *config),
            Input::RemovePeer(key) => self.remove_peer(now, key),
            Input::SetRange(config) => self.set_range(now, *config),
            Input::RemoveRange(range) => self.remove_range(now, range),
            Input::Originate(prefix) => self.originate(prefix),
            Input::Unoriginate(prefix) => self.unoriginate(prefix),
            Input::Connected { conn, local } => {
                let link = Link {
                    conn,
                    dialled: true,
                    local: local.ip().to_canonical(),
                };
                self.on_connection(now, conn, |peering, cx| peering.connected(link, cx));
            }
            Input::Accepted {
                conn,
                local,
                remote,
                scope,
            } => self.accept(now, conn, local, remote, scope),
            Input::ConnectFailed { conn } | Input::Closed { conn } => {
                self.on_connection(now, conn, |peering, cx| peering.disconnected(conn, cx));
                self.connections.remove(&conn);
            }
            Input::Received { conn, message } => {
                if let Ok(message) = &message {
                    self.learn_asn(conn, message);
                }
                self.on_connection(now, conn, |peering, cx| peering.received(conn, message, cx));
            }
            Input::Faulty { conn, faults } => self.faulty(conn, &faults),
            Input::Drained { conn } => self.drained(conn),
            Input::Unfound(some) => self.unfound = some,
            Input::PathDown(key) => self.path_down(now, key),
            Input::Drain { peer, time, words } => self.drain(now, peer, time, &words),
            Input::Undrain(peer) => self.undrain(now, peer),
            Input::Reset { peer, words } => self.reset(now, peer, &words),
            Input::Refresh(peer) => self.refresh_both_ways(peer),
            Input::Interfaces(interfaces) => self.set_interfaces(interfaces),
            Input::Tick => {}
            Input::Shutdown => return self.shutdown(now),
        }
        self.expire(now);
        self.forget_gone(now);
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && !self.stopped {
            self.turn();
        }
        self.outputs.pop_front()
    }

    /// When to call `handle` with `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let peers = self.deadlines.first().map(|(at, _)| *at);
        peers
            .into_iter()
            .chain(self.convergence.deadline())
            .min()
            .filter(|_| !self.stopped)
    }

    /// Whether [`Output::Selected`] says where prefixes lead, which it does from the start: who has no kernel to tell can
    /// spare it, before there are routes.
    pub fn select(&mut self, wanted: bool) {
        self.rib.select(wanted);
    }

    /// Every configured peer as it stands, in order of key.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        self.peers.values().map(Peer::snapshot).collect()
    }

    /// Whether there is such a peer, configured or come from a range.
    #[must_use]
    pub fn has_peer(&self, key: PeerKey) -> bool {
        self.peers.contains_key(&key)
    }

    /// Every path of every prefix, in order of prefix, the best first.
    #[must_use]
    pub fn paths(&self) -> Vec<PathSnapshot> {
        self.rib.snapshot()
    }

    /// How many different routes (next hop, attributes, metric) memory holds. Equal ones are one, whoever they are
    /// from and whomever they were told, so that peers alike in what they are told cost no attributes of their own.
    #[must_use]
    pub fn distinct_routes(&self) -> usize {
        self.rib.distinct_routes()
    }

    /// Why a prefix is reached as it is, and which peers are told of it; none where there is no path to it.
    #[must_use]
    pub fn explain(&self, prefix: Prefix) -> Option<Explanation> {
        let id = self.rib.id(prefix)?;
        let rule = |path: &Path| {
            let from = self.peers.get(&path.from.as_ref()?.key)?;
            let verdict = explain::imported(&self.config, &from.config.import, prefix, path)?;
            RuleName::of_import(verdict, prefix.family())
        };
        let paths = self.rib.explain(id).into_iter();
        let paths = paths.map(|(path, shown)| ExplainedPath {
            rule: rule(path),
            path: shown,
        });
        let peers = self.peers.values();
        Some(Explanation {
            prefix,
            paths: paths.collect(),
            peers: peers
                .map(|peer| peer.told(&self.config, id, prefix, &self.rib))
                .collect(),
        })
    }

    /// A peer has settings of its own from now on, whether it was there before or not.
    fn set_peer(&mut self, now: Instant, config: PeerConfig) {
        self.ranges.forget(config.key);
        if self.peers.contains_key(&config.key) {
            self.change_peer(now, config);
        } else {
            let key = config.key;
            self.add_peer(now, config);
            self.drain_with_all(now, key);
        }
    }

    fn change_peer(&mut self, now: Instant, mut config: PeerConfig) {
        let key = config.key;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let any_external = config.asn == ANY_EXTERNAL_AS;
        dynamic::keep_learned_asn(&peer.config, peer.any_external, &mut config);
        peer.any_external = any_external;
        let old = std::mem::replace(&mut peer.config, config);
        if old == peer.config || peer.is_drained() {
            return;
        }
        if old.needs_new_session(&peer.config) {
            let (loss, moved) = (
                Loss::cease(Cease::OtherConfigurationChange),
                old.asn != peer.config.asn,
            );
            self.on_peer(now, key, |peering, cx| peering.reset(&loss, cx));
            if moved {
                self.forget_routes(key);
            }
        } else {
            peer.reapply(&self.config, &mut self.rib);
            self.regroup(key);
            self.on_peer(now, key, |peering, cx| peering.release(cx));
            self.enforce_limits(now, key);
        }
    }

    /// What a peer of another AS announced is not this one's.
    fn forget_routes(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.inbound.drop_stale(&mut self.rib);
            self.reschedule(key);
        }
    }

    fn remove_peer(&mut self, now: Instant, key: PeerKey) {
        let loss = Loss::cease(Cease::PeerDeconfigured);
        self.on_peer(now, key, |peering, cx| peering.stop(&loss, cx));
        self.ranges.forget(key);
        self.leaving.remove(&key);
        if let Some(mut peer) = self.peers.remove(&key) {
            peer.inbound.clear(&mut self.rib);
            if let Some(at) = peer.scheduled {
                self.deadlines.remove(&(at, key));
            }
            self.unsent.remove(&key);
        }
    }

    fn set_interfaces(&mut self, interfaces: Arc<[Interface]>) {
        self.config.interfaces = interfaces;
        let asking = self
            .peers
            .values_mut()
            .filter(|it| it.config.asks_for_interfaces());
        for peer in asking {
            peer.reapply(&self.config, &mut self.rib);
        }
        let asks = |egress: &Egress| egress.export.asks_for_interfaces();
        let ids = self.rib.ids();
        self.stir(&ids, asks);
    }

    fn originate(&mut self, prefix: Prefix) {
        let route = Route {
            next_hop: None,
            attributes: Arc::new(Attributes::default()),
            priority: NORMAL_PRIORITY,
        };
        let route = self.rib.intern(route);
        let id = self.rib.number(prefix);
        self.rib.insert(id, Path::own(route));
    }

    fn unoriginate(&mut self, prefix: Prefix) {
        if let Some(id) = self.rib.id(prefix) {
            self.rib.remove(id, (None, None));
        }
    }

    /// A connection from a configured peer is its, one from a range makes a peer; others are closed before a byte of theirs is read.
    fn accept(&mut self, now: Instant, conn: ConnId, local: SocketAddr, remote: SocketAddr, scope: u32) {
        let key = PeerKey::of(remote.ip(), scope);
        if self.is_welcome(now, key) {
            self.connections.insert(conn, key);
            let link = Link {
                conn,
                dialled: false,
                local: local.ip().to_canonical(),
            };
            self.on_peer(now, key, |peering, cx| peering.accepted(link, cx));
        } else {
            self.reject(conn);
        }
    }

    /// Says to whom is not configured that this is why (RFC 4486 §4), and reads nothing of his.
    fn reject(&mut self, conn: ConnId) {
        let rejected = Message::Notification(Notification::cease(Cease::ConnectionRejected));
        let bytes = wire::encode(&rejected, &Context::default());
        self.outputs.push_back(Output::Send { conn, bytes });
        self.outputs.push_back(Output::Close { conn });
    }

    /// The process ends. What was selected stays selected, so that forwarding goes on.
    fn shutdown(&mut self, now: Instant) {
        self.stopped = true;
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.leave(now, key);
        }
    }

    /// After the end there is nothing to say but no.
    fn refuse(&mut self, input: &Input) {
        if let Input::Accepted { conn, .. } = input {
            self.reject(*conn);
        }
    }
}
