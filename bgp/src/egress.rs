//! What decides what a peer is told: all of it, and nothing else of the peer.
//!
//! Peers with equal values are told the same, so they are told together: a value is the key of their
//! [`Group`](crate::group::Group). The rules of [`export`](crate::export) see nothing else of a peer, so that no
//! setting can bear on what it is told and be missing here.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::{Config, NextHopMode, PeerConfig, Policy};
use crate::drain::Phase;
use crate::features::Features;
use crate::handling::{Handling, Outgoing};
use crate::import::OwnNextHops;
use crate::session::{Link, Session};
use crate::wire::{Context, NextHop, Role};
use crate::{Family, PeerKey};

/// What decides what a peer is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Egress {
    /// The peer, where its paths carry identifiers: how many of a prefix it is told depends on which are its own.
    pub(crate) alone: Option<PeerKey>,
    /// We reflect for it.
    pub(crate) client: bool,
    /// What we are to it, if it is of another AS.
    pub(crate) role: Option<Role>,
    /// The link that we share, where the session is over link-local addresses; 0 otherwise.
    pub(crate) scope: u32,
    /// Which next hop it is told.
    pub(crate) next_hop: NextHopMode,
    /// Our next hops towards it.
    pub(crate) own: OwnNextHops,
    /// How messages to it are coded, among it the families that it takes.
    pub(crate) context: Context,
    /// How many paths of a prefix it is told at most, of the families that have identifiers for them (RFC 7911).
    pub(crate) paths: Vec<(Family, usize)>,
    /// It knows what a long-lived stale route is.
    pub(crate) takes_stale: bool,
    /// How far its session has been emptied.
    pub(crate) emptied: Option<Emptied>,
    /// What passes.
    pub(crate) export: Policy,
    /// What changes on the way out, before rules do.
    pub(crate) outgoing: Outgoing,
}

/// How far a drained session has been emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Emptied {
    /// Routes are marked as the last to be taken.
    Marked,
    /// They are withdrawn.
    Withdrawn,
}

impl Egress {
    /// What decides what a peer is told in a session. Every field of its settings is named: who adds one has to say here
    /// whether it bears on that.
    pub(crate) fn of(
        local: &Config,
        peer: &PeerConfig,
        link: Link,
        session: &Session,
        drain: Option<Phase>,
    ) -> Self {
        let PeerConfig {
            key,
            port: _,
            asn,
            local_address: _,
            next_hop_v4: _,
            next_hop_v6: _,
            passive: _,
            hold_time: _,
            min_hold_time: _,
            families: _,
            route_reflector_client,
            graceful_restart: _,
            long_lived_graceful_restart: _,
            next_hop,
            import: _,
            export,
            bfd: _,
            transport: _,
            features,
            handling,
        } = peer;
        let context = Context {
            // What comes in is none of its matters.
            add_path_receive: Vec::new(),
            ..session.context.clone()
        };
        Self {
            alone: Some(*key).filter(|_| !context.add_path_send.is_empty()),
            client: *route_reflector_client,
            role: peer.role(local),
            scope: key.scope,
            next_hop: *next_hop,
            own: own_next_hops(peer, link),
            paths: paths(features, &context),
            takes_stale: session.takes_stale,
            emptied: drain.map(Emptied::at),
            export: export.clone(),
            outgoing: outgoing(handling, peer.local_as(local), *asn),
            context,
        }
    }

    /// The peer is of another AS.
    pub(crate) fn external(&self) -> bool {
        self.context.external
    }

    /// How many paths of a prefix the peer may be told, where they carry identifiers (RFC 7911).
    pub(crate) fn paths(&self, family: Family) -> Option<usize> {
        let of_family = self.paths.iter().find(|(it, _)| *it == family);
        of_family.map(|(_, paths)| *paths)
    }

    /// Whether the peer may be told of more than what any peer may be ([`Rib::open`](crate::rib::Rib::open)): what came
    /// by iBGP from others than clients, and with Add-Path what is not the best path.
    pub(crate) fn hears_inside(&self) -> bool {
        self.external() || self.client || self.alone.is_some()
    }
}

impl Emptied {
    fn at(phase: Phase) -> Self {
        match phase {
            Phase::Marked { .. } => Self::Marked,
            Phase::Withdrawn { .. } | Phase::Down => Self::Withdrawn,
        }
    }
}

fn paths(features: &Features, context: &Context) -> Vec<(Family, usize)> {
    let families = context.add_path_send.iter();
    families
        .map(|&family| (family, features.paths_to_send(family)))
        .collect()
}

fn outgoing(handling: &Handling, our_as: u32, peer_as: u32) -> Outgoing {
    let Handling {
        local_as: _,
        allowed_own_as: _,
        enforce_first_as: _,
        local_preference: _,
        med,
        prepend,
        as_override,
        remove_private_as,
        limits: _,
    } = handling;
    Outgoing {
        our_as,
        med: *med,
        prepend: *prepend,
        overrides: as_override.then_some(peer_as),
        remove_private_as: *remove_private_as,
    }
}

/// Our next hops: as configured, else our end of the connection. Where that is link-local, the peer is on the link, so
/// it gets the link-local address beside a global one (RFC 2545 §3).
fn own_next_hops(config: &PeerConfig, link: Link) -> OwnNextHops {
    let ends = [config.local_address, Some(link.local)];
    let mut own = OwnNextHops {
        v4: config.next_hop_v4.map(NextHop::V4),
        v6: config.next_hop_v6.map(|global| NextHop::V6 {
            global,
            link_local: None,
        }),
    };
    for end in ends.into_iter().flatten() {
        match end {
            IpAddr::V4(address) => own.v4.get_or_insert(NextHop::V4(address)),
            IpAddr::V6(address) => own.v6.get_or_insert_with(|| next_hop_v6(address)),
        };
    }
    if let (IpAddr::V6(end), Some(NextHop::V6 { link_local, .. })) = (link.local, &mut own.v6)
        && end.is_unicast_link_local()
    {
        link_local.get_or_insert(end);
    }
    own
}

fn next_hop_v6(address: Ipv6Addr) -> NextHop {
    if address.is_unicast_link_local() {
        NextHop::V6 {
            global: Ipv6Addr::UNSPECIFIED,
            link_local: Some(address),
        }
    } else {
        NextHop::V6 {
            global: address,
            link_local: None,
        }
    }
}
