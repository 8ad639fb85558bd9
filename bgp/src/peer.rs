//! A peer: its settings, its connections, what it told us and what we told it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, PeerConfig};
use crate::convergence::Awaited;
use crate::drain::{Drain, Phase};
use crate::egress::Egress;
use crate::explain::{self, ExplainedPeer};
use crate::export::Target;
use crate::group::Outbound;
use crate::handling::{LimitAction, LimitState, PathLimit};
use crate::inbound::{Gate, Inbound};
use crate::leak::Relation;
use crate::rib::{Neighbor, PrefixId, Rib};
use crate::session::negotiate::Restarted;
use crate::session::peering::Peering;
use crate::session::retention::Times;
use crate::session::{Link, Loss, Session};
use crate::speaker::foresight::Routers;
use crate::speaker::monitor::Statistics;
use crate::status::{Fault, LimitSnapshot, PeerSnapshot, State};
use crate::wire::{Action, RouteRefresh, Update};
use crate::{ANY_EXTERNAL_AS, Family, Prefix};

/// A configured peer.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its settings.
    pub(crate) config: PeerConfig,
    /// Its connections.
    pub(crate) peering: Peering,
    /// What it told us.
    pub(crate) inbound: Inbound,
    /// How far it is with what it is told.
    pub(crate) outbound: Outbound,
    /// The Established session.
    pub(crate) live: Option<Live>,
    /// Its session is being emptied, or has been and stays away.
    pub(crate) drain: Option<Drain>,
    /// Its AS is the one that its last OPEN named.
    pub(crate) any_external: bool,
    /// Since we started, there has been a session.
    met: bool,
    last_error: Option<String>,
    /// How what it announces stood to each limit when it was last looked at.
    limits: Vec<LimitState>,
    faults: BTreeMap<Fault, u64>,
    /// UPDATEs whose routes were treated as withdrawn.
    treated_as_withdraw: u64,
    /// Its place in the speaker's table of deadlines.
    pub(crate) scheduled: Option<Instant>,
}

/// What holds while a session is Established.
#[derive(Debug)]
pub(crate) struct Live {
    /// The connection.
    pub(crate) link: Link,
    /// What was agreed.
    pub(crate) session: Box<Session>,
    /// The peer as its paths know it.
    neighbor: Arc<Neighbor>,
    /// What decides what the peer is told, among it our addresses on the session.
    pub(crate) egress: Arc<Egress>,
    /// Through whom it leads.
    pub(crate) routers: Routers,
    /// Families whose End-of-RIB has not come.
    awaited: Vec<Family>,
    /// It has sent a ROUTE-REFRESH that meant nothing.
    confused: bool,
}

impl Peer {
    /// A peer with which there has been no session yet.
    pub(crate) fn new(config: PeerConfig, peering: Peering) -> Self {
        Self {
            inbound: Inbound::new(config.key),
            any_external: config.asn == ANY_EXTERNAL_AS,
            config,
            peering,
            outbound: Outbound::default(),
            live: None,
            drain: None,
            met: false,
            last_error: None,
            limits: Vec::new(),
            faults: BTreeMap::new(),
            treated_as_withdraw: 0,
            scheduled: None,
        }
    }

    /// When something of the peer is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.peering
            .deadline()
            .into_iter()
            .chain(self.inbound.deadline())
            .chain(self.drain_phase().and_then(Phase::deadline))
            .min()
    }

    /// How far its drain is.
    pub(crate) fn drain_phase(&self) -> Option<Phase> {
        self.drain.as_ref().map(|drain| drain.phase)
    }

    /// Its session stays away until an operator wants it back.
    pub(crate) fn is_drained(&self) -> bool {
        self.drain_phase() == Some(Phase::Down)
    }

    /// What the next OPEN says of restarts. Forwarding state outlives our sessions; whether it outlived the
    /// process before us, the settings know.
    pub(crate) fn restarted(&self, local: &Config, recovering: bool) -> Restarted {
        Restarted {
            recovering,
            forwarding: local.restarted || self.met,
        }
    }

    /// A session is Established.
    pub(crate) fn up(
        &mut self,
        link: Link,
        session: Box<Session>,
        now: Instant,
        local: &Config,
        rib: &mut Rib,
    ) {
        self.inbound.resume(now, |family| session.forwarding(family), rib);
        self.outbound.expect(session.families());
        self.met = true;
        self.last_error = None;
        self.live = Some(Live {
            neighbor: Arc::new(neighbor(local, &self.config, link, &session)),
            egress: Egress::of(local, &self.config, link, &session, self.drain_phase()).into(),
            routers: Routers::default(),
            awaited: session.families().to_vec(),
            confused: false,
            link,
            session,
        });
    }

    /// The Established session is over.
    pub(crate) fn down(&mut self, session: &Session, loss: &Loss, now: Instant, rib: &mut Rib) {
        self.live = None;
        let keeps = loss.keeps_routes(session);
        let times = |family| {
            if keeps {
                session.times(family)
            } else {
                Times::default()
            }
        };
        self.inbound.lose(now, times, rib);
    }

    /// Notes why an attempt or a session ended. That one of two connections won is nobody's error.
    pub(crate) fn note(&mut self, loss: &Loss) {
        if *loss != Loss::Collision {
            // The kernel drops what is signed otherwise, and tells nobody.
            let unheard = *loss == Loss::Unreachable && self.config.transport.authentication.is_some();
            let doubt = if unheard { ", or has another password" } else { "" };
            self.last_error = Some(format!("{loss}{doubt}"));
        }
    }

    /// Counts what was wrong with an UPDATE: each kind once, however often it came in the message.
    pub(crate) fn count(&mut self, faults: &[Fault]) {
        for &fault in faults.iter().collect::<BTreeSet<_>>() {
            *self.faults.entry(fault).or_default() += 1;
        }
        let withdrawn = faults.iter().any(|fault| fault.action == Action::Withdraw);
        self.treated_as_withdraw += u64::from(withdrawn);
    }

    /// What monitoring counts.
    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            received: Family::ALL.map(|family| self.inbound.received_of(family)),
            treated_as_withdraw: self.treated_as_withdraw,
        }
    }

    /// All initial routes of a family have come: what the peer did not announce again is gone.
    pub(crate) fn end_of_rib(&mut self, family: Family, rib: &mut Rib) {
        self.inbound.sweep(family, rib);
        if let Some(live) = &mut self.live {
            live.awaited.retain(|awaited| *awaited != family);
        }
    }

    /// Takes a ROUTE-REFRESH. What asks for a family that the session does not carry is ignored (RFC 2918 §4), as is a
    /// subtype that means nothing, and a beginning before the end of a restarter's initial routes, which still
    /// decides what is stale (RFC 7313 §4, §5).
    pub(crate) fn refresh(
        &mut self,
        RouteRefresh { family, subtype }: RouteRefresh,
        now: Instant,
        rib: &mut Rib,
    ) {
        let Some(live) = &mut self.live else { return };
        let Live { session, awaited, .. } = live;
        let Some(family) = family.filter(|family| session.families().contains(family)) else {
            return;
        };
        let restarting = session.restart.is_some() && awaited.contains(&family);
        match subtype {
            RouteRefresh::REQUEST => self.outbound.repeat(family),
            RouteRefresh::BEGIN if session.demarcates_refresh && !restarting => {
                self.inbound.begin_refresh(family, now, rib);
            }
            RouteRefresh::END if session.demarcates_refresh => self.inbound.end_refresh(family, rib),
            _ => {
                // RFC 7313 §5 asks for a log; who floods us with them writes one line a session.
                if !std::mem::replace(&mut live.confused, true) {
                    tracing::info!(peer = %self.config.key.address, %family, subtype, "a route refresh means nothing here");
                }
            }
        }
    }

    /// Applies changed settings to the session as it stands: paths are judged anew. What the peer is told follows from
    /// `Live::egress`.
    pub(crate) fn reapply(&mut self, local: &Config, rib: &mut Rib) {
        let drain = self.drain_phase();
        let Some(live) = &mut self.live else { return };
        live.neighbor = Arc::new(neighbor(local, &self.config, live.link, &live.session));
        live.egress = Egress::of(local, &self.config, live.link, &live.session, drain).into();
        if let Some(gate) = gate(&self.config, self.live.as_ref(), self.drain.is_some(), local) {
            self.inbound.judge_again(gate, rib);
        }
    }

    /// Takes an UPDATE's routes in.
    pub(crate) fn update(&mut self, update: Update, local: &Config, rib: &mut Rib) {
        let end_of_rib = update.end_of_rib;
        if let Some(live) = &mut self.live {
            for reach in &update.reach {
                live.routers.note(reach.next_hop);
            }
        }
        if let Some(gate) = gate(&self.config, self.live.as_ref(), self.drain.is_some(), local) {
            self.inbound.update(update, gate, rib);
        }
        if let Some(family) = end_of_rib {
            self.end_of_rib(family, rib);
        }
    }

    /// Whether the peer announces more than it may, so that its session has to end: which limit it broke. What is
    /// near a limit or over it is logged once.
    pub(crate) fn broken_limit(&mut self) -> Option<PathLimit> {
        self.live.as_ref()?;
        let limits = &self.config.handling.limits;
        self.limits.resize(limits.len(), LimitState::Below);
        let mut broken = None;
        for (limit, before) in limits.iter().zip(&mut self.limits) {
            let count = self.inbound.received_of(limit.family);
            let state = limit.state(count);
            if state > *before {
                let PathLimit { family, max, .. } = limit;
                let peer = self.config.key.address;
                tracing::warn!(%peer, %family, count, max, "the peer announces almost or more than it may");
            }
            *before = state;
            if state == LimitState::Over && limit.action != LimitAction::Warn {
                broken = Some(*limit);
            }
        }
        broken
    }

    /// What the peer is told of a prefix; nothing is known of peers without a session.
    pub(crate) fn told(&self, local: &Config, id: PrefixId, prefix: Prefix, rib: &Rib) -> ExplainedPeer {
        let peer = self.config.key;
        let Some(live) = &self.live else {
            return ExplainedPeer {
                peer,
                advertised: false,
                rule: None,
                reason: Some(self.why_down()),
            };
        };
        let target = Target {
            local,
            egress: &live.egress,
            peer: Some(peer),
        };
        explain::told(peer, &target, id, prefix, rib)
    }

    fn why_down(&self) -> String {
        let drained = if self.is_drained() { ", drained" } else { "" };
        format!("the session is {}{drained}", self.peering.state())
    }

    /// How far the peer's initial routes are.
    pub(crate) fn awaited(&self) -> Awaited {
        match &self.live {
            Some(live) if live.awaited.is_empty() => Awaited::Nothing,
            Some(live) if live.session.restart.as_ref().is_none_or(|it| it.restarting) => Awaited::EndOfRib,
            Some(_) => Awaited::Routes,
            None if self.is_drained() => Awaited::Session,
            None if self.peering.state() >= State::OpenSent || self.last_error.is_none() => Awaited::Routes,
            None => Awaited::Session,
        }
    }

    /// The peer as it stands.
    pub(crate) fn snapshot(&self) -> PeerSnapshot {
        let established = self.peering.established();
        PeerSnapshot {
            key: self.config.key,
            asn: self.config.asn,
            router_id: established.map(|(_, session, _)| session.router_id),
            state: self.peering.state(),
            established_since: established.map(|(_, _, since)| since),
            received: self.inbound.received(),
            accepted: self.inbound.accepted(),
            advertised: self.outbound.advertised() as u64,
            hold_time: established.map_or(self.config.hold_time, |(_, session, _)| session.hold_time),
            drain: self.drain_phase(),
            limits: self.limits(),
            last_error: self.last_error.clone(),
            faults: self.faults.clone(),
        }
    }
}

impl Peer {
    fn limits(&self) -> Vec<LimitSnapshot> {
        let shown = |limit: &PathLimit| {
            let received = self.inbound.received_of(limit.family);
            LimitSnapshot {
                family: limit.family,
                received,
                max: limit.max,
                state: limit.state(received),
            }
        };
        self.config.handling.limits.iter().map(shown).collect()
    }
}

fn gate<'a>(
    config: &'a PeerConfig,
    live: Option<&'a Live>,
    drains: bool,
    local: &'a Config,
) -> Option<Gate<'a>> {
    let Live {
        session,
        neighbor,
        egress,
        ..
    } = live?;
    Some(Gate {
        local,
        own: egress.own,
        peer: config,
        from: neighbor,
        families: session.families(),
        relation: config.role(local).map(|role| Relation {
            role,
            asn: config.asn,
        }),
        drains,
    })
}

fn neighbor(local: &Config, config: &PeerConfig, link: Link, session: &Session) -> Neighbor {
    Neighbor {
        key: config.key,
        router_id: session.router_id,
        external: config.is_external(local),
        client: config.route_reflector_client,
        local: link.local,
    }
}
