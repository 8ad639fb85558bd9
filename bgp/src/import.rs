//! What may come in: loops and the import policy (RFC 4271 §9.1.2, RFC 4456 §8).
//!
//! A path that may not is kept all the same, as one that cannot be selected: it replaces the peer's earlier path
//! of the prefix, operators can see why it is not used, and a change of policy needs no help from the peer.

use std::fmt;

use crate::config::{Config, PeerConfig, Policy};
use crate::filter::{NORMAL_PRIORITY, Subject, Verdict};
use crate::interfaces;
use crate::rib::{Neighbor, Route};
use crate::wire::{Attributes, NextHop};
use crate::{Family, Prefix};

/// Why a path cannot be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Our AS is in its AS_PATH.
    OwnAs,
    /// It is of another AS, which is not the first in its AS_PATH.
    FirstAs,
    /// It was ours, before it was reflected.
    OwnOriginator,
    /// It has been through our cluster.
    OwnCluster,
    /// It leads to ourselves.
    OwnNextHop,
    /// It is link-local, on a link that nobody knows.
    UnknownLink,
    /// A neighbor below us, or beside us, passed on what it had from above (RFC 9234 §5).
    Leaked,
    /// The import policy.
    Policy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnAs => "our own AS is in its AS_PATH",
            Self::FirstAs => "the first AS in its AS_PATH is not the peer's",
            Self::OwnOriginator => "its ORIGINATOR_ID is our own BGP identifier",
            Self::OwnCluster => "our own cluster is in its CLUSTER_LIST",
            Self::OwnNextHop => "its next hop is our own address",
            Self::UnknownLink => "its next hop is link-local, and the session is not",
            Self::Leaked => "its ONLY_TO_CUSTOMER says that the peer leaks it",
            Self::Policy => "the import policy refuses the prefix",
        })
    }
}

/// Our own addresses on a session: what others see as our next hop, per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct OwnNextHops {
    /// For IPv4 prefixes.
    pub(crate) v4: Option<NextHop>,
    /// For IPv6 prefixes.
    pub(crate) v6: Option<NextHop>,
}

impl OwnNextHops {
    /// Our next hop for a family, if we have an address of it.
    pub(crate) fn of(self, family: Family) -> Option<NextHop> {
        match family {
            Family::Ipv4Unicast => self.v4,
            Family::Ipv6Unicast => self.v6,
        }
    }
}

/// Whether a path with these attributes would lead back to us, or cannot have come from the peer.
pub(crate) fn loops(
    local: &Config,
    peer: &PeerConfig,
    own: OwnNextHops,
    attributes: &Attributes,
    next_hop: NextHop,
) -> Option<Refusal> {
    let allowed = usize::from(peer.handling.allowed_own_as);
    let external = peer.is_external(local);
    let is_ours = |asn| attributes.as_path.count(asn) > allowed;
    if is_ours(local.asn) || is_ours(peer.local_as(local)) {
        Some(Refusal::OwnAs)
    } else if external && peer.handling.enforce_first_as && attributes.as_path.neighbor() != Some(peer.asn) {
        // RFC 4271 §6.3.
        Some(Refusal::FirstAs)
    } else if attributes.originator_id == Some(local.router_id) {
        Some(Refusal::OwnOriginator)
    } else if attributes.cluster_list.contains(&local.cluster()) {
        Some(Refusal::OwnCluster)
    } else if [own.v4, own.v6]
        .into_iter()
        .flatten()
        .any(|it| it.address() == next_hop.address())
    {
        Some(Refusal::OwnNextHop)
    } else if peer.key.scope == 0 && next_hop.is_link_local() {
        Some(Refusal::UnknownLink)
    } else {
        None
    }
}

/// What the import policy makes of a route that `from` announced.
pub(crate) fn judge<'a>(
    local: &Config,
    policy: &'a Policy,
    from: &Neighbor,
    prefix: Prefix,
    route: &Route,
) -> Verdict<'a> {
    let over = || interfaces::towards(&local.interfaces, route.next_hop, from);
    policy.judge(&Subject {
        prefix,
        attributes: &route.attributes,
        learned: true,
        external: from.external,
        priority: NORMAL_PRIORITY,
        interface: policy.asks_for_interfaces().then(over).flatten(),
    })
}
