//! What is offered to a peer beyond the base protocol, and what two OPENs make of it (RFC 5492).
//!
//! A feature is one setting in [`Features`], its capability in [`Features::offer`] and its effect on the session in
//! [`Features::agree`]; it is in use where both OPENs have it.

use crate::config::PeerConfig;
use crate::error::Error;
use crate::wire::{AddPath, Capability, Context, Open, Role};
use crate::{Family, PeerKey};

/// The longest message where both sides take extended ones (RFC 8654 §3).
const MAX_EXTENDED_MESSAGE: usize = 65_535;

/// The family whose next hops may be of the other one; IPv6 prefixes never have IPv4 ones (RFC 8950 §4).
const FOREIGN: Family = Family::Ipv4Unicast;

/// What is offered to a peer beyond the base protocol. What changes our OPEN takes a new session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Messages of up to 65,535 octets (RFC 8654). On by default.
    pub extended_messages: bool,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950). Where absent, as by default, on sessions over IPv6.
    pub extended_next_hop: Option<bool>,
    /// Several paths per prefix (RFC 7911), per family. None by default.
    pub add_path: Vec<AddPathConfig>,
    /// What we are to a peer of another AS (RFC 9234). None by default; means nothing within an AS.
    pub role: Option<RoleConfig>,
}

/// What we are to a peer (RFC 9234 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleConfig {
    /// Our role, which decides what comes from the peer and goes to it (§5).
    pub role: Role,
    /// The peer has to state its role, too (§4.2).
    pub strict: bool,
}

/// Several paths per prefix of a family (RFC 7911).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPathConfig {
    /// Which family.
    pub family: Family,
    /// Take the peer's.
    pub receive: bool,
    /// Send as many at most, the best first; 0: only the best, as without Add-Path.
    pub send: usize,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            extended_messages: true,
            extended_next_hop: None,
            add_path: Vec::new(),
            role: None,
        }
    }
}

impl Features {
    /// The capabilities for our OPEN.
    pub(crate) fn offer(&self, peer: &PeerConfig) -> Vec<Capability> {
        let mut offered = vec![Capability::EnhancedRouteRefresh];
        if self.extended_messages {
            offered.push(Capability::ExtendedMessage);
        }
        if self.takes_foreign_next_hops(peer.key) && peer.families.contains(&FOREIGN) {
            offered.push(Capability::ExtendedNextHop(vec![FOREIGN]));
        }
        let add_path: Vec<AddPath> = self
            .add_path
            .iter()
            .filter(|it| peer.families.contains(&it.family) && (it.receive || it.send > 0))
            .map(|it| AddPath {
                family: it.family,
                receive: it.receive,
                send: it.send > 0,
            })
            .collect();
        if !add_path.is_empty() {
            offered.push(Capability::AddPath(add_path));
        }
        offered
    }

    /// Whether the peer's role is one for our neighbor (RFC 9234 §4.2). Each role pairs with one other, so of several
    /// that all pair, all are the same.
    ///
    /// # Errors
    /// It is not, or it is not stated and has to be.
    pub(crate) fn check_role(&self, open: &Open) -> Result<(), Error> {
        let Some(RoleConfig { role: ours, strict }) = self.role else {
            return Ok(());
        };
        let mut theirs = open.capabilities.iter().filter_map(|it| {
            if let Capability::Role(role) = it {
                Some(*role)
            } else {
                None
            }
        });
        let silent = theirs.clone().next().is_none();
        let theirs = theirs.find(|theirs| !ours.pairs_with(*theirs));
        if theirs.is_some() || silent && strict {
            return Err(Error::RoleMismatch { ours, theirs });
        }
        Ok(())
    }

    /// What of it the peer's OPEN has, too; `context.families` is agreed already.
    pub(crate) fn agree(&self, key: PeerKey, open: &Open, context: &mut Context) {
        if self.extended_messages && open.capabilities.contains(&Capability::ExtendedMessage) {
            context.max_message = MAX_EXTENDED_MESSAGE;
        }
        if self.takes_foreign_next_hops(key)
            && context.families.contains(&FOREIGN)
            && open.capabilities.iter().any(takes_foreign_next_hops)
        {
            context.extended_next_hop = vec![FOREIGN];
        }
        for family in context.families.clone() {
            let (Some(ours), Some(theirs)) = (self.add_path_of(family), add_path_of(family, open)) else {
                continue;
            };
            if ours.receive && theirs.send {
                context.add_path_receive.push(family);
            }
            if ours.send > 0 && theirs.receive {
                context.add_path_send.push(family);
            }
        }
    }

    /// How many paths per prefix to send where the session has identifiers for them.
    pub(crate) fn paths_to_send(&self, family: Family) -> usize {
        self.add_path_of(family).map_or(1, |it| it.send)
    }

    fn add_path_of(&self, family: Family) -> Option<&AddPathConfig> {
        self.add_path.iter().find(|it| it.family == family)
    }

    fn takes_foreign_next_hops(&self, key: PeerKey) -> bool {
        self.extended_next_hop.unwrap_or_else(|| key.address.is_ipv6())
    }
}

/// Whether the peer marks beginning and end of what it repeats (RFC 7313 §4); we always do.
pub(crate) fn demarcates_refresh(open: &Open) -> bool {
    open.capabilities.contains(&Capability::EnhancedRouteRefresh)
}

/// What the peer does with several paths of a family; of contradicting entries the first counts.
fn add_path_of(family: Family, open: &Open) -> Option<AddPath> {
    let entries = open.capabilities.iter().filter_map(|it| {
        if let Capability::AddPath(entries) = it {
            Some(entries)
        } else {
            None
        }
    });
    entries.flatten().find(|it| it.family == family).copied()
}

/// Whether a capability says that IPv4 prefixes may have IPv6 next hops.
fn takes_foreign_next_hops(capability: &Capability) -> bool {
    matches!(capability, Capability::ExtendedNextHop(families) if families.contains(&FOREIGN))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::testing::{config, peer};
    use crate::wire::MAX_MESSAGE;

    fn over_ipv6() -> PeerConfig {
        let mut peer = peer(2);
        peer.key.address = Ipv6Addr::LOCALHOST.into();
        peer
    }

    fn with(features: Features) -> PeerConfig {
        PeerConfig { features, ..peer(2) }
    }

    /// What two sides agree on.
    fn agreed(ours: &PeerConfig, theirs: &PeerConfig) -> Context {
        let open = Open {
            asn: 1,
            hold_time: 90,
            router_id: config(2).router_id,
            capabilities: theirs.features.offer(theirs),
        };
        let mut context = Context {
            families: theirs.families.clone(),
            ..Context::default()
        };
        ours.features.agree(ours.key, &open, &mut context);
        context
    }

    /// RFC 8654 §3: extended messages pass where both sides take them.
    /// RFC 8654 §3: both sides have to say so.
    #[test]
    fn messages_are_extended_where_both_sides_take_them() {
        let without = with(Features {
            extended_messages: false,
            ..Features::default()
        });
        let table = [
            (&peer(2), &peer(2), MAX_EXTENDED_MESSAGE),
            (&peer(2), &without, MAX_MESSAGE),
            (&without, &peer(2), MAX_MESSAGE),
        ];
        for (ours, theirs, longest) in table {
            assert_eq!(agreed(ours, theirs).max_message, longest);
        }
    }

    /// RFC 8950 §4: IPv4 prefixes have IPv6 next hops where both sides take them, if the session carries IPv4.
    /// RFC 8950 §4: both sides have to say so.
    #[test]
    fn next_hops_are_foreign_where_both_sides_take_them() {
        let asked = |wanted| {
            with(Features {
                extended_next_hop: Some(wanted),
                ..Features::default()
            })
        };
        let deaf = PeerConfig {
            families: vec![Family::Ipv6Unicast],
            ..over_ipv6()
        };
        let (over_ipv4, yes, no) = (peer(2), asked(true), asked(false));
        let table = [
            (&over_ipv4, &yes, false),
            (&yes, &over_ipv4, false),
            (&yes, &yes, true),
            (&over_ipv6(), &over_ipv6(), true),
            (&over_ipv6(), &no, false),
            (&over_ipv6(), &deaf, false),
        ];
        for (ours, theirs, foreign) in table {
            let expected = if foreign { vec![FOREIGN] } else { Vec::new() };
            assert_eq!(
                agreed(ours, theirs).extended_next_hop,
                expected,
                "{ours:?}\n{theirs:?}"
            );
        }
    }

    /// RFC 9234 §4.2: roles that do not pair, several that contradict each other, and silence where roles are needed end
    /// the session.
    #[test]
    fn roles_have_to_pair() {
        use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient, Unassigned};
        /// Ours, strictly, theirs: the outcome.
        type Case<'a> = (Role, bool, &'a [Role], Result<(), Error>);

        let mismatch = |ours, theirs| Err(Error::RoleMismatch { ours, theirs });
        let table: [Case<'_>; 11] = [
            (Provider, false, &[Customer], Ok(())),
            (Customer, true, &[Provider], Ok(())),
            (RouteServer, false, &[RouteServerClient], Ok(())),
            (RouteServerClient, false, &[RouteServer], Ok(())),
            (Peer, false, &[Peer, Peer], Ok(())),
            (Peer, false, &[], Ok(())),
            (Peer, true, &[], mismatch(Peer, None)),
            (Provider, false, &[Provider], mismatch(Provider, Some(Provider))),
            (Customer, false, &[Peer], mismatch(Customer, Some(Peer))),
            (Peer, false, &[Peer, Customer], mismatch(Peer, Some(Customer))),
            (
                Customer,
                false,
                &[Unassigned(9)],
                mismatch(Customer, Some(Unassigned(9))),
            ),
        ];
        for (role, strict, theirs, expected) in table {
            let open = Open {
                asn: 1,
                hold_time: 90,
                router_id: config(2).router_id,
                capabilities: theirs.iter().copied().map(Capability::Role).collect(),
            };
            let features = Features {
                role: Some(RoleConfig { role, strict }),
                ..Features::default()
            };
            assert_eq!(features.check_role(&open), expected);
        }
    }
}
