//! What leaves, and how: the rules between a best path and a peer (RFC 4271 §5 and §9.1.3, RFC 4456, RFC 1997).

use std::net::Ipv4Addr;
use std::sync::Arc;

use thin_vec::ThinVec;

use crate::config::{Config, NextHopMode};
use crate::decision::DEFAULT_LOCAL_PREF;
use crate::drain;
use crate::egress::{Egress, Emptied};
use crate::filter::{
    NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED, NORMAL_PRIORITY, Operation, Subject, Verdict,
};
use crate::handling::Outgoing;
use crate::interfaces;
use crate::leak;
use crate::long_lived;
use crate::rib::{Neighbor, Path, PrefixId, Rib, Route};
use crate::wire::{Attributes, NextHop};
use crate::{Family, PeerKey, Prefix};

/// The bit of an extended community's type that keeps it within the AS (RFC 4360 §3, §6).
const NON_TRANSITIVE: u8 = 0x40;

/// Whom to announce to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The speaker's settings.
    pub(crate) local: &'a Config,
    /// What decides what is told.
    pub(crate) egress: &'a Egress,
    /// Whose own routes are none to be told; nobody's where several peers are asked about, of whom each leaves out its
    /// own.
    pub(crate) peer: Option<PeerKey>,
}

/// Why a peer may not have a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial<'a> {
    /// The session does not carry the family.
    Family,
    /// The peer announced it to us.
    Own,
    /// It came by iBGP, and neither side of the way is our client (RFC 4456 §6).
    NotReflected,
    /// It carries this well-known community (RFC 1997).
    Community(u32),
    /// Its session is about to end, and all is withdrawn.
    Drained,
    /// It is long-lived stale, which the peer does not know of (RFC 9494 §4.3).
    LongLivedStale,
    /// It has come from above, and the peer is not below us (RFC 9234 §5).
    Leak,
    /// The export policy refuses it.
    Policy(Verdict<'a>),
}

impl<'a> Target<'a> {
    /// The paths of a prefix that it could be told, the best first; without Add-Path only the best.
    pub(crate) fn candidates<'r>(&self, id: PrefixId, family: Family, rib: &'r Rib) -> Vec<&'r Path> {
        if self.egress.paths(family).is_some() {
            rib.in_order(id)
        } else {
            rib.best(id).into_iter().collect()
        }
    }

    /// Whether the peer may have this path of this prefix, and which rule lets it through.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn admit(&self, prefix: Prefix, path: &Path) -> Result<Verdict<'a>, Denial<'a>> {
        let egress = self.egress;
        if !egress.context.families.contains(&prefix.family()) {
            return Err(Denial::Family);
        }
        if egress.emptied == Some(Emptied::Withdrawn) {
            return Err(Denial::Drained);
        }
        if let Some(from) = &path.from {
            self.may_learn_from(from)?;
        }
        let attributes = &path.route.attributes;
        if let Some(community) = self.forbidding_community(attributes) {
            return Err(Denial::Community(community));
        }
        if long_lived::is_stale(attributes) && !egress.takes_stale {
            return Err(Denial::LongLivedStale);
        }
        if egress.role.is_some_and(|role| !leak::may_leave(role, attributes)) {
            return Err(Denial::Leak);
        }
        let over = || {
            let from = path.from.as_deref()?;
            interfaces::towards(&self.local.interfaces, path.route.next_hop, from)
        };
        let verdict = egress.export.judge(&Subject {
            prefix,
            attributes,
            learned: path.from.is_some(),
            external: egress.external(),
            priority: path.route.priority,
            interface: egress.export.asks_for_interfaces().then(over).flatten(),
        });
        if verdict.accepted {
            Ok(verdict)
        } else {
            Err(Denial::Policy(verdict))
        }
    }

    /// The route as the peer sees it, once the rule that let it through has changed it; none if we have no next
    /// hop for it.
    pub(crate) fn route(
        &self,
        family: Family,
        from: Option<&Neighbor>,
        route: &Route,
        operations: &[Operation],
    ) -> Option<Route> {
        let next_hop = self.next_hop(family, from, route.next_hop)?;
        let mut attributes = (*route.attributes).clone();
        let external = self.egress.external();
        self.egress.outgoing.apply(&mut attributes, external);
        for operation in operations {
            operation.apply(&mut attributes);
        }
        long_lived::keep_mark(&route.attributes, &mut attributes);
        let mut attributes = if external {
            self.external_attributes(attributes)
        } else {
            self.internal_attributes(attributes, from)
        };
        if self.egress.emptied.is_some() {
            drain::mark(&mut attributes, !external);
        }
        Some(Route {
            next_hop: Some(next_hop),
            attributes: Arc::new(attributes),
            priority: NORMAL_PRIORITY,
        })
    }

    /// Nobody hears his own routes. What came by iBGP goes to iBGP peers only by reflection: from clients to
    /// all, from others to clients (RFC 4456 §6).
    fn may_learn_from(&self, from: &Neighbor) -> Result<(), Denial<'a>> {
        let reflects = from.client || self.egress.client;
        if self.peer == Some(from.key) {
            Err(Denial::Own)
        } else if from.external || self.egress.external() || reflects {
            Ok(())
        } else {
            Err(Denial::NotReflected)
        }
    }

    /// The well-known community that keeps a route from the peer (RFC 1997 §3).
    fn forbidding_community(&self, attributes: &Attributes) -> Option<u32> {
        let forbids = |community: &u32| match *community {
            NO_ADVERTISE => true,
            NO_EXPORT | NO_EXPORT_SUBCONFED => self.egress.external(),
            _ => false,
        };
        attributes.communities.iter().copied().find(forbids)
    }

    /// RFC 4271 §5.1.3. Without a next hop of its own, a prefix is ours. An IPv4 prefix has an IPv6 next hop only
    /// where the peer takes such (RFC 8950 §4); ours is one where we have no IPv4 address for it.
    fn next_hop(&self, family: Family, from: Option<&Neighbor>, learned: Option<NextHop>) -> Option<NextHop> {
        let egress = self.egress;
        let keeps = match egress.next_hop {
            NextHopMode::Auto => from.is_some() && !egress.external(),
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
        };
        let foreign = egress.context.extended_next_hop.contains(&family);
        let learned = learned.and_then(|next_hop| self.beyond_link(next_hop, from));
        match learned.filter(|_| keeps) {
            Some(next_hop) => Some(next_hop).filter(|it| it.family() == family || foreign),
            None => egress
                .own
                .of(family)
                .or_else(|| egress.own.v6.filter(|_| foreign)),
        }
    }

    /// What is left of a learned next hop for the peer: a link-local address means something on its own link only
    /// (RFC 2545 §3). A next hop that has no other is none, and we are the way.
    fn beyond_link(&self, next_hop: NextHop, from: Option<&Neighbor>) -> Option<NextHop> {
        let scope = self.egress.scope;
        let shares_link = scope != 0 && from.is_some_and(|from| from.key.scope == scope);
        match next_hop {
            NextHop::V6 {
                global,
                link_local: Some(_),
            } if !shares_link => {
                let alone = NextHop::V6 {
                    global,
                    link_local: None,
                };
                (!next_hop.is_link_local()).then_some(alone)
            }
            NextHop::V4(_) | NextHop::V6 { .. } => Some(next_hop),
        }
    }

    /// Our AS in front; what is for our AS only stays here (RFC 4271 §5.1.5, RFC 4456 §8).
    fn external_attributes(&self, mut attributes: Attributes) -> Attributes {
        let Outgoing { our_as, prepend, .. } = self.egress.outgoing;
        for _ in 0..=prepend {
            attributes.as_path.prepend(our_as);
        }
        if let Some(role) = self.egress.role {
            leak::mark_outgoing(role, our_as, &mut attributes);
        }
        attributes
            .extended_communities
            .retain(|community| community[0] & NON_TRANSITIVE == 0);
        Attributes {
            local_pref: None,
            originator_id: None,
            cluster_list: ThinVec::new(),
            ..attributes
        }
    }

    /// A preference is always stated (RFC 4271 §5.1.5); a reflected route says whose it is and that it has been
    /// here (RFC 4456 §8), and is the same otherwise (RFC 4456 §10).
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::filter::LLGR_STALE;
    use crate::import::OwnNextHops;
    use crate::session::Link;
    use crate::testing::{address, config, peer, session};
    use crate::wire::{AsPath, Context, Segment};
    use crate::{ConnId, PeerConfig};

    const EXTERNAL: u32 = 65_000;

    static LOCAL: LazyLock<Config> = LazyLock::new(|| config(1));

    fn external(id: u8) -> PeerConfig {
        PeerConfig {
            asn: EXTERNAL,
            ..peer(id)
        }
    }

    fn client(id: u8) -> PeerConfig {
        PeerConfig {
            route_reflector_client: true,
            ..peer(id)
        }
    }

    fn from(peer: &PeerConfig, id: u8) -> Neighbor {
        Neighbor {
            key: peer.key,
            router_id: address(id),
            external: peer.asn == EXTERNAL,
            client: peer.route_reflector_client,
            local: address(1).into(),
        }
    }

    fn prefix() -> Prefix {
        "10.1.0.0/24".parse().unwrap()
    }

    fn learned(attributes: Attributes) -> Route {
        Route {
            next_hop: Some(NextHop::V4(address(77))),
            attributes: Arc::new(attributes),
            priority: NORMAL_PRIORITY,
        }
    }

    /// What decides what a peer is told in a session of both families in which nothing else is agreed.
    fn egress(peer: &PeerConfig) -> Egress {
        let link = Link {
            conn: ConnId(1),
            dialled: false,
            local: address(1).into(),
        };
        let mut session = session();
        session.context = Context {
            families: Family::ALL.to_vec(),
            external: peer.is_external(&LOCAL),
            ..Context::default()
        };
        Egress::of(&LOCAL, peer, link, &session, None)
    }

    fn target<'a>(egress: &'a Egress, peer: &PeerConfig) -> Target<'a> {
        Target {
            local: &LOCAL,
            egress,
            peer: Some(peer.key),
        }
    }

    fn admits(to: &PeerConfig, source: Option<&PeerConfig>, attributes: Attributes) -> bool {
        let source = source.map(|peer| Arc::new(from(peer, 9)));
        let route = Arc::new(learned(attributes));
        let path = Path::new(source, route.clone(), route, None);
        target(&egress(to), to).admit(prefix(), &path).is_ok()
    }

    /// RFC 4271 §9.2: what an internal peer told goes to no internal peer.
    /// RFC 4456 §6 (client): a client's routes go to all others.
    /// RFC 4456 §6 (non-client): a non-client's routes go to clients only.
    #[test]
    fn follows_the_rules_of_who_hears_whose_routes() {
        // From whom, to whom, whether.
        let table = [
            (None, peer(2), true),
            (None, external(2), true),
            (Some(peer(3)), peer(2), false),
            (Some(peer(3)), client(2), true),
            (Some(client(3)), peer(2), true),
            (Some(client(3)), client(2), true),
            (Some(peer(3)), external(2), true),
            (Some(external(3)), peer(2), true),
            (Some(external(3)), external(2), true),
            (Some(external(2)), external(2), false),
            (Some(client(2)), client(2), false),
        ];
        for (source, to, hears) in table {
            assert_eq!(
                admits(&to, source.as_ref(), Attributes::default()),
                hears,
                "{source:?} to {to:?}"
            );
        }
    }

    /// RFC 9494 §4.3 (advertisement): a long-lived stale route goes to those only that know of such, and keeps its mark
    /// whatever a filter does.
    #[test]
    fn stale_routes_leave_with_their_mark_to_who_knows_it() {
        let attributes = Attributes {
            communities: [LLGR_STALE, 7].into(),
            ..Attributes::default()
        };
        let to = external(2);
        let route = learned(attributes);
        let path = Path::own(Arc::new(route.clone()));
        for takes_stale in [true, false] {
            let egress = Egress {
                takes_stale,
                ..egress(&to)
            };
            let target = target(&egress, &to);
            let denial = (!takes_stale).then_some(Denial::LongLivedStale);
            assert_eq!(target.admit(prefix(), &path).err(), denial);
            let strip = [Operation::SetCommunities(Vec::new())];
            let sent = target.route(Family::Ipv4Unicast, None, &route, &strip).unwrap();
            assert_eq!(sent.attributes.communities, [LLGR_STALE]);
        }
    }

    /// RFC 1997 §3 (no-export): it stays in the AS.
    /// RFC 1997 §3 (no-advertise): it goes nowhere.
    /// RFC 1997 §3 (no-export-subconfed): it goes to no external peer.
    #[test]
    fn honours_the_well_known_communities() {
        let table = [
            (NO_EXPORT, true, false),
            (NO_EXPORT_SUBCONFED, true, false),
            (NO_ADVERTISE, false, false),
            (0xffff_0000, true, true),
        ];
        for (community, internal, abroad) in table {
            let attributes = Attributes {
                communities: [1, community].into(),
                ..Attributes::default()
            };
            let source = external(3);
            assert_eq!(
                admits(&peer(2), Some(&source), attributes.clone()),
                internal,
                "{community:x}"
            );
            assert_eq!(
                admits(&external(2), Some(&source), attributes),
                abroad,
                "{community:x}"
            );
        }
    }

    #[test]
    fn keeps_to_the_policy_and_the_families() {
        let only = |policy| PeerConfig {
            export: policy,
            ..peer(2)
        };
        let within = |range: &str| only(crate::Policy::Within([range.parse().unwrap()].into()));
        assert!(admits(&within("10.1.0.0/16"), None, Attributes::default()));
        assert!(!admits(&within("10.2.0.0/16"), None, Attributes::default()));
        assert!(!admits(&only(crate::Policy::Reject), None, Attributes::default()));
        let mut deaf = egress(&peer(2));
        deaf.context.families = vec![Family::Ipv6Unicast];
        let path = Path::own(Arc::new(learned(Attributes::default())));
        let denied = target(&deaf, &peer(2)).admit(prefix(), &path);
        assert_eq!(denied, Err(Denial::Family));
    }

    /// RFC 4271 §5.1.3: ours to external peers, kept to internal ones.
    #[test]
    fn states_the_next_hop_that_the_mode_asks_for() {
        let own = Some(NextHop::V4(address(1)));
        let theirs = Some(NextHop::V4(address(77)));
        let table = [
            (NextHopMode::Auto, None, peer(2), own),
            (NextHopMode::Auto, Some(external(3)), peer(2), theirs),
            (NextHopMode::Auto, Some(client(3)), peer(2), theirs),
            (NextHopMode::Auto, Some(peer(3)), external(2), own),
            (NextHopMode::SelfAddress, Some(external(3)), peer(2), own),
            (NextHopMode::Keep, Some(peer(3)), external(2), theirs),
            (NextHopMode::Keep, None, external(2), own),
        ];
        for (mode, source, to, expected) in table {
            let to = PeerConfig { next_hop: mode, ..to };
            let next_hop = source.as_ref().and(theirs);
            let route = Route {
                next_hop,
                attributes: Arc::default(),
                priority: NORMAL_PRIORITY,
            };
            let source = source.map(|peer| from(&peer, 3));
            let sent = target(&egress(&to), &to)
                .route(Family::Ipv4Unicast, source.as_ref(), &route, &[])
                .unwrap();
            assert_eq!(sent.next_hop, expected, "{mode:?} {source:?}");
        }
        let to = peer(2);
        let route = Route {
            next_hop: None,
            attributes: Arc::default(),
            priority: NORMAL_PRIORITY,
        };
        assert_eq!(
            target(&egress(&to), &to).route(Family::Ipv6Unicast, None, &route, &[]),
            None,
            "no address, no route"
        );
    }

    /// RFC 8950 §4: an IPv4 prefix goes out with an IPv6 next hop only to a peer that has said that it takes such.
    #[test]
    fn an_ipv6_next_hop_of_an_ipv4_prefix_goes_only_to_who_takes_it() {
        let v6 = |last| NextHop::V6 {
            global: std::net::Ipv6Addr::from(last),
            link_local: None,
        };
        let (ours_v4, ours_v6, theirs) = (NextHop::V4(address(1)), v6(1), v6(77));
        let foreign = &[Family::Ipv4Unicast][..];
        // Our IPv4 next hop, what was learned, the sessions: what is sent.
        let table = [
            (None, None, &[][..], None),
            (None, None, foreign, Some(ours_v6)),
            (Some(ours_v4), None, foreign, Some(ours_v4)),
            (Some(ours_v4), Some(theirs), &[], None),
            (Some(ours_v4), Some(theirs), foreign, Some(theirs)),
        ];
        let (to, client) = (peer(2), client(3));
        for (v4, next_hop, foreign, expected) in table {
            let mut egress = egress(&to);
            egress.own = OwnNextHops {
                v4,
                v6: Some(ours_v6),
            };
            egress.context.extended_next_hop = foreign.to_vec();
            let target = target(&egress, &to);
            let route = Route {
                next_hop,
                attributes: Arc::default(),
                priority: NORMAL_PRIORITY,
            };
            let source = next_hop.map(|_| from(&client, 3));
            let sent = target.route(Family::Ipv4Unicast, source.as_ref(), &route, &[]);
            assert_eq!(sent.and_then(|route| route.next_hop), expected, "{next_hop:?}");
        }
    }

    /// RFC 4360 §6: not from one AS to another.
    #[test]
    fn a_non_transitive_extended_community_stays_in_the_as() {
        let (stays, goes) = ([0x40, 4, 0, 9, 0, 0, 0, 9], [0, 2, 0, 9, 0, 0, 0, 9]);
        let route = learned(Attributes {
            extended_communities: [stays, goes].into(),
            ..Attributes::default()
        });
        for (to, sent) in [(external(2), &[goes][..]), (peer(2), &[stays, goes])] {
            let source = from(&client(3), 3);
            let told = target(&egress(&to), &to).route(Family::Ipv4Unicast, Some(&source), &route, &[]);
            assert_eq!(told.unwrap().attributes.extended_communities, sent);
        }
    }

    /// RFC 4271 §5.1.2: our AS in front, to external peers only.
    /// RFC 4271 §5.1.4: a discriminator does not go on to another AS.
    /// RFC 4271 §5.1.5: a preference goes to internal peers, and to those always.
    /// RFC 4456 §8 (originator): added where there is none.
    /// RFC 4456 §8 (cluster): ours in front.
    /// RFC 4456 §10: nothing else changes.
    #[test]
    fn tells_each_side_what_is_for_it() {
        let attributes = Attributes {
            as_path: AsPath {
                segments: [Segment::Sequence(vec![7])].into(),
            },
            med: Some(5),
            ..Attributes::default()
        };
        let sent = |to: &PeerConfig, source: &PeerConfig, attributes: &Attributes| {
            let route = learned(attributes.clone());
            let egress = egress(to);
            let sent = target(&egress, to).route(Family::Ipv4Unicast, Some(&from(source, 9)), &route, &[]);
            (*sent.unwrap().attributes).clone()
        };
        let abroad = sent(
            &external(2),
            &peer(3),
            &Attributes {
                local_pref: Some(7),
                ..attributes.clone()
            },
        );
        let path = AsPath {
            segments: [Segment::Sequence(vec![64_512, 7])].into(),
        };
        assert_eq!(
            abroad,
            Attributes {
                as_path: path,
                ..Attributes::default()
            }
        );

        let inside = sent(&peer(2), &external(3), &attributes);
        assert_eq!(
            inside,
            Attributes {
                local_pref: Some(100),
                ..attributes.clone()
            }
        );

        let once = sent(&peer(2), &client(3), &attributes);
        assert_eq!(
            (once.originator_id, once.cluster_list.as_slice()),
            (Some(address(9)), &[address(1)][..])
        );
        let reflected = Attributes {
            originator_id: Some(address(8)),
            cluster_list: [address(6)].into(),
            ..attributes
        };
        let twice = sent(&peer(2), &client(3), &reflected);
        assert_eq!(twice.originator_id, Some(address(8)));
        assert_eq!(twice.cluster_list, [address(1), address(6)]);
    }
}
