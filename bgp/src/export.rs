//! What leaves, and how: the rules between a best path and a peer (RFC 4271 §5 and §9.1.3, RFC 4456, RFC 1997).

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::config::{Config, NextHopMode, PeerConfig};
use crate::decision::DEFAULT_LOCAL_PREF;
use crate::import::OwnNextHops;
use crate::rib::{Neighbor, Path, Route};
use crate::wire::{Attributes, NextHop};
use crate::{Family, Prefix};

/// Do not pass on to another AS (RFC 1997).
const NO_EXPORT: u32 = 0xffff_ff01;
/// Do not pass on.
const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Do not pass on to another AS, not even one of our confederation; we have none.
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// Whom to announce to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The speaker's settings.
    pub(crate) local: &'a Config,
    /// The peer's settings.
    pub(crate) peer: &'a PeerConfig,
    /// Our next hops towards it.
    pub(crate) own: OwnNextHops,
    /// The families that it takes.
    pub(crate) families: &'a [Family],
}

impl Target<'_> {
    /// Whether the peer may have this path of this prefix.
    pub(crate) fn admits(&self, prefix: Prefix, path: &Path) -> bool {
        self.families.contains(&prefix.family())
            && self.peer.export.passes(prefix)
            && path.from.as_deref().is_none_or(|from| self.may_learn_from(from))
            && self.communities_admit(&path.route.attributes)
    }

    /// The route as the peer sees it; none if we have no next hop for it.
    pub(crate) fn route(&self, family: Family, from: Option<&Neighbor>, route: &Route) -> Option<Route> {
        let next_hop = self.next_hop(family, from, route.next_hop)?;
        let attributes = (*route.attributes).clone();
        let attributes = if self.external() {
            self.external_attributes(attributes)
        } else {
            self.internal_attributes(attributes, from)
        };
        Some(Route {
            next_hop: Some(next_hop),
            attributes: Arc::new(attributes),
        })
    }

    fn external(&self) -> bool {
        self.peer.asn != self.local.asn
    }

    /// Nobody hears his own routes. What came by iBGP goes to iBGP peers only by reflection: from clients to
    /// all, from others to clients (RFC 4456 §6).
    fn may_learn_from(&self, from: &Neighbor) -> bool {
        let reflects = from.client || self.peer.route_reflector_client;
        from.key != self.peer.key && (from.external || self.external() || reflects)
    }

    fn communities_admit(&self, attributes: &Attributes) -> bool {
        !attributes.communities.iter().any(|&community| match community {
            NO_ADVERTISE => true,
            NO_EXPORT | NO_EXPORT_SUBCONFED => self.external(),
            _ => false,
        })
    }

    /// RFC 4271 §5.1.3. Without a next hop of its own, a prefix is ours.
    fn next_hop(&self, family: Family, from: Option<&Neighbor>, learned: Option<NextHop>) -> Option<NextHop> {
        let keeps = match self.peer.next_hop {
            NextHopMode::Auto => from.is_some() && !self.external(),
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
        };
        learned.filter(|_| keeps).or_else(|| self.own.of(family))
    }

    /// Our AS in front; what is for our AS only stays here (RFC 4271 §5.1.4, §5.1.5, RFC 4456 §8).
    fn external_attributes(&self, mut attributes: Attributes) -> Attributes {
        attributes.as_path.prepend(self.local.asn);
        Attributes {
            local_pref: None,
            med: None,
            originator_id: None,
            cluster_list: Vec::new(),
            ..attributes
        }
    }

    /// A preference is always stated (RFC 4271 §5.1.5); a reflected route says whose it is and that it has been
    /// here (RFC 4456 §8).
    fn internal_attributes(&self, mut attributes: Attributes, from: Option<&Neighbor>) -> Attributes {
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        if let Some(from) = from.filter(|from| !from.external) {
            attributes.originator_id.get_or_insert(from.router_id);
            let cluster: Ipv4Addr = self.local.cluster();
            attributes.cluster_list.insert(0, cluster);
        }
        attributes
    }
}
