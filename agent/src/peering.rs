//! Which sessions a node has: a pure function of the resources.
//!
//! The mesh has one session with every other node that has a BGP side, over IPv4 where both have an IPv4
//! address and over IPv6 otherwise; it carries both families. BGPPeer resources add sessions, with an address or
//! with the nodes that a selector picks, or replace the mesh's with the same address. Whoever holds sessions compares them with [`sessions`] and changes only
//! what differs, so a node that comes or goes touches one session.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::bgp::{BGP_PORT, BfdSpec, BgpPeer, NextHopMode, SecretKeyRef, SourceAddress};
use manx_api::node::{Node, NodeBgp};
use manx_bgp::{ANY_EXTERNAL_AS, Handling};
use manx_bgpd::LinkKey;

use crate::convert;
use crate::view::View;

/// A session that the resources ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The peer.
    pub remote: SocketAddr,
    /// The interface of a peer on a link, whose address may be found there only: the unspecified one then.
    pub interface: Option<Arc<str>>,
    /// The peer's AS; [`ANY_EXTERNAL_AS`] for whichever its OPEN names.
    pub asn: u32,
    /// Our end, where the node has an address of the peer's family.
    pub local: Option<IpAddr>,
    /// Wait for the peer to connect.
    pub passive: bool,
    /// The hold time to propose; zero for none.
    pub hold_time: Duration,
    /// How long the peer shall keep our routes while we restart; none: graceful restart is not offered.
    pub restart_time: Option<Duration>,
    /// How long routes are kept beyond that, as a last resort; none: not at all.
    pub stale_time: Option<Duration>,
    /// Which next hop our announcements carry.
    pub next_hop: NextHopMode,
    /// The BGPFilters that decide, in order.
    pub filters: Vec<String>,
    /// How routes are handled beside the filters.
    pub handling: Handling,
    /// How BFD watches the path.
    pub bfd: Option<BfdSpec>,
    /// We reflect for the peer (RFC 4456).
    pub client: bool,
    /// Where the password is.
    pub password: Option<SecretKeyRef>,
    /// How many hops the peer's packets may have come (RFC 5082).
    pub ttl_security: Option<NonZeroU8>,
    /// `mesh`, or the BGPPeer's name.
    pub origin: String,
}

/// What sessions of the mesh are called in statuses.
pub const MESH: &str = "mesh";

/// The AS of a node: its own or the cluster's.
#[must_use]
pub fn asn(view: &View, bgp: &NodeBgp) -> u32 {
    bgp.as_number.unwrap_or(view.configuration.as_number)
}

/// The sessions of node `me`, by the peer's address; none while the node itself is unknown.
#[must_use]
pub fn sessions(view: &View, me: &str) -> BTreeMap<IpAddr, Session> {
    let Some(node) = view.nodes.get(me) else {
        return BTreeMap::new();
    };
    let Some(bgp) = &node.spec.bgp else {
        return BTreeMap::new();
    };
    let others = || view.nodes.values().filter(|other| other.metadata.name != me);
    let mesh = others().filter_map(|other| mesh_session(view, bgp, other));
    let mesh = mesh.filter(|_| view.configuration.node_to_node_mesh_enabled);
    let peers = view.peers.values().flat_map(|peer| {
        let nodes = others().filter(|other| are_selected(peer, node, other));
        let nodes = nodes.filter_map(|other| node_session(view, bgp, peer, other));
        nodes.chain(peer_session(view, node, bgp, peer))
    });
    // Later ones replace earlier ones: a BGPPeer says more than the mesh.
    let all = mesh
        .chain(peers)
        .filter(|session| !is_own(bgp, session.remote.ip()));
    all.map(|session| (session.remote.ip(), session)).collect()
}

/// The sessions of node `me` with peers on its links.
#[must_use]
pub fn link_sessions(view: &View, me: &str) -> BTreeMap<LinkKey, Session> {
    let Some(node) = view.nodes.get(me) else {
        return BTreeMap::new();
    };
    let Some(bgp) = &node.spec.bgp else {
        return BTreeMap::new();
    };
    let peers = view.peers.values().filter(|peer| is_for(peer, node));
    let sessions = peers.filter_map(|peer| link_session(view, bgp, peer));
    sessions.collect()
}

/// The session with the one peer that is on a link of ours.
fn link_session(view: &View, me: &NodeBgp, peer: &BgpPeer) -> Option<(LinkKey, Session)> {
    let spec = &peer.spec;
    let address = match spec.peer_ip.map(|remote| remote.ip()) {
        Some(IpAddr::V6(address)) => Some(address),
        Some(IpAddr::V4(_)) | None => None,
    };
    let key = LinkKey {
        interface: spec.interface.as_deref()?.into(),
        address,
    };
    let remote = spec
        .peer_ip
        .unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, BGP_PORT).into());
    let asn = spec.as_number.unwrap_or(ANY_EXTERNAL_AS);
    let session = Session {
        client: is_client(view, me, asn, None),
        ..session(peer, remote, asn)
    };
    Some((key, session))
}

/// The prefixes that may come in and go out: what lies inside a pool, or a range of services.
#[must_use]
pub fn accepted(view: &View) -> Vec<IpNetwork> {
    let pools = view.pools.values().map(|pool| pool.spec.cidr);
    pools.chain(view.configuration.all_service_ranges()).collect()
}

/// Where a session with a node runs from and to: over IPv4 where both have an address.
fn ends(me: &NodeBgp, bgp: &NodeBgp) -> Option<(IpAddr, IpAddr)> {
    let over_v4 = me
        .ipv4_address
        .zip(bgp.ipv4_address)
        .map(|(l, r)| (IpAddr::from(l.ip()), IpAddr::from(r.ip())));
    let over_v6 = me
        .ipv6_address
        .zip(bgp.ipv6_address)
        .map(|(l, r)| (IpAddr::from(l.ip()), IpAddr::from(r.ip())));
    over_v4.or(over_v6)
}

fn mesh_session(view: &View, me: &NodeBgp, other: &Node) -> Option<Session> {
    let bgp = other.spec.bgp.as_ref()?;
    let (local, remote) = ends(me, bgp)?;
    let settings = &view.configuration;
    Some(Session {
        remote: SocketAddr::new(remote, settings.listen_port),
        interface: None,
        asn: asn(view, bgp),
        local: Some(local),
        passive: false,
        hold_time: Duration::from_secs(settings.hold_time.into()),
        restart_time: positive(settings.node_mesh_max_restart_time),
        stale_time: positive(settings.node_mesh_long_lived_stale_time),
        next_hop: NextHopMode::Auto,
        filters: settings.node_mesh_filters.clone(),
        handling: Handling::default(),
        bfd: settings.node_mesh_bfd,
        client: false,
        password: settings.node_mesh_password.clone().map(|it| it.secret_key_ref),
        ttl_security: None,
        origin: MESH.to_owned(),
    })
}

/// The session with the one peer that a BGPPeer names.
fn peer_session(view: &View, node: &Node, me: &NodeBgp, peer: &BgpPeer) -> Option<Session> {
    let (remote, asn) = (peer.spec.peer_ip?, peer.spec.as_number?);
    let by_address = is_for(peer, node) && peer.spec.interface.is_none();
    by_address.then(|| Session {
        local: address_of_family(me, remote.ip()).filter(|_| is_bound(peer)),
        client: is_client(view, me, asn, cluster_of(view, remote.ip())),
        ..session(peer, remote, asn)
    })
}

/// The session with a node that a BGPPeer selects.
fn node_session(view: &View, me: &NodeBgp, peer: &BgpPeer, other: &Node) -> Option<Session> {
    let bgp = other.spec.bgp.as_ref()?;
    let (local, remote) = ends(me, bgp)?;
    let remote = SocketAddr::new(remote, view.configuration.listen_port);
    let asn = asn(view, bgp);
    Some(Session {
        local: is_bound(peer).then_some(local),
        client: is_client(view, me, asn, bgp.route_reflector_cluster_id),
        ..session(peer, remote, asn)
    })
}

/// Whether sessions run from the node's own address.
fn is_bound(peer: &BgpPeer) -> bool {
    peer.spec.source_address == SourceAddress::UseNodeIp
}

/// What a BGPPeer says of each of its sessions.
fn session(peer: &BgpPeer, remote: SocketAddr, asn: u32) -> Session {
    let spec = &peer.spec;
    Session {
        remote,
        interface: spec.interface.as_deref().map(Into::into),
        asn,
        local: None,
        passive: spec.passive,
        hold_time: Duration::from_secs(spec.hold_time.into()),
        restart_time: positive(spec.max_restart_time),
        stale_time: positive(spec.long_lived_stale_time),
        next_hop: spec.next_hop_mode,
        filters: spec.filters.clone(),
        handling: convert::filter::handling(spec),
        bfd: spec.bfd,
        client: false,
        password: spec.password.clone().map(|it| it.secret_key_ref),
        ttl_security: spec.ttl_security.and_then(NonZeroU8::new),
        origin: peer.metadata.name.clone(),
    }
}

/// A reflector's peers within its AS are its clients, but for those of its own cluster (RFC 4456 §7).
fn is_client(view: &View, me: &NodeBgp, peer_asn: u32, peer_cluster: Option<Ipv4Addr>) -> bool {
    let reflects = me.route_reflector_cluster_id.is_some();
    reflects && peer_asn == asn(view, me) && peer_cluster != me.route_reflector_cluster_id
}

/// The cluster of the node at an address; none where it is no node's, or no reflector's.
fn cluster_of(view: &View, address: IpAddr) -> Option<Ipv4Addr> {
    let bgp = view.nodes.values().filter_map(|node| node.spec.bgp.as_ref());
    let mut there = bgp.filter(|bgp| is_own(bgp, address));
    there.next()?.route_reflector_cluster_id
}

/// Whether a BGPPeer that selects peers asks for a session between two nodes; either may be the one selected.
fn are_selected(peer: &BgpPeer, node: &Node, other: &Node) -> bool {
    let selects = |one: &Node| {
        let selector = peer.spec.peer_selector.as_ref();
        selector.is_some_and(|selector| selector.matches(&one.metadata.labels))
    };
    is_for(peer, node) && selects(other) || is_for(peer, other) && selects(node)
}

/// Whether a BGPPeer is this node's: its name, its labels, or everybody's.
fn is_for(peer: &BgpPeer, node: &Node) -> bool {
    match (&peer.spec.node, &peer.spec.node_selector) {
        (Some(name), _) => *name == node.metadata.name,
        (None, Some(selector)) => selector.matches(&node.metadata.labels),
        (None, None) => true,
    }
}

/// Whether an address is a node's.
#[must_use]
pub fn is_node(view: &View, address: IpAddr) -> bool {
    let mut bgp = view.nodes.values().filter_map(|node| node.spec.bgp.as_ref());
    bgp.any(|bgp| is_own(bgp, address))
}

fn is_own(me: &NodeBgp, address: IpAddr) -> bool {
    address_of_family(me, address) == Some(address)
}

fn address_of_family(me: &NodeBgp, peer: IpAddr) -> Option<IpAddr> {
    match peer {
        IpAddr::V4(_) => me.ipv4_address.map(|network| network.ip().into()),
        IpAddr::V6(_) => me.ipv6_address.map(|network| network.ip().into()),
    }
}

/// RFC 4724, RFC 9494: zero seconds keep nothing, so they offer nothing.
fn positive(seconds: impl Into<u64>) -> Option<Duration> {
    let time = Duration::from_secs(seconds.into());
    (!time.is_zero()).then_some(time)
}

#[cfg(test)]
mod tests {
    use manx_api::Metadata;
    use manx_api::bgp::{BgpPeerSpec, Password};
    use manx_api::node::NodeSpec;

    use super::*;

    fn node(name: &str, v4: Option<&str>, v6: Option<&str>) -> Node {
        let bgp = NodeBgp {
            as_number: None,
            ipv4_address: v4.map(|a| a.parse().unwrap()),
            ipv6_address: v6.map(|a| a.parse().unwrap()),
            route_reflector_cluster_id: None,
        };
        Node {
            metadata: metadata(name),
            spec: NodeSpec {
                bgp: Some(bgp),
                ..NodeSpec::default()
            },
        }
    }

    fn metadata(name: &str) -> Metadata {
        let labels = BTreeMap::from([("rack".to_owned(), name.to_owned())]);
        Metadata {
            name: name.to_owned(),
            labels,
            ..Metadata::default()
        }
    }

    fn peer(name: &str, address: &str) -> BgpPeer {
        let spec = format!(r#"{{"peerIP": "{address}", "asNumber": 65100}}"#);
        let spec: BgpPeerSpec = serde_json::from_str(&spec).unwrap();
        BgpPeer {
            metadata: metadata(name),
            spec,
        }
    }

    fn view(nodes: &[Node], peers: &[BgpPeer]) -> View {
        View {
            complete: true,
            nodes: nodes
                .iter()
                .map(|n| (n.metadata.name.clone(), n.clone()))
                .collect(),
            peers: peers
                .iter()
                .map(|p| (p.metadata.name.clone(), p.clone()))
                .collect(),
            ..View::default()
        }
    }

    fn remotes(view: &View, me: &str) -> Vec<String> {
        sessions(view, me)
            .values()
            .map(|s| format!("{} {} {}", s.remote, s.asn, s.origin))
            .collect()
    }

    fn three() -> [Node; 3] {
        [
            node("n1", Some("192.0.2.1/24"), Some("2001:db8::1/64")),
            node("n2", Some("192.0.2.2/24"), None),
            node("n3", None, Some("2001:db8::3/64")),
        ]
    }

    #[test]
    fn the_mesh_has_one_session_with_every_other_node_over_a_family_that_both_have() {
        let view = view(&three(), &[]);
        assert_eq!(
            remotes(&view, "n1"),
            ["192.0.2.2:179 64512 mesh", "[2001:db8::3]:179 64512 mesh"]
        );
        assert_eq!(remotes(&view, "n2"), ["192.0.2.1:179 64512 mesh"]);
        assert_eq!(
            sessions(&view, "n2").values().next().unwrap().local,
            Some("192.0.2.2".parse().unwrap())
        );
    }

    #[test]
    fn a_node_without_a_bgp_side_is_in_no_mesh() {
        let mut nodes = three();
        nodes[1].spec.bgp = None;
        let view = view(&nodes, &[]);
        assert_eq!(remotes(&view, "n1"), ["[2001:db8::3]:179 64512 mesh"]);
        assert!(sessions(&view, "n2").is_empty());
        assert!(sessions(&view, "unknown").is_empty());
    }

    #[test]
    fn the_cluster_can_do_without_the_mesh() {
        let mut view = view(&three(), &[peer("tor", "192.0.2.254")]);
        view.configuration.node_to_node_mesh_enabled = false;
        assert_eq!(remotes(&view, "n1"), ["192.0.2.254:179 65100 tor"]);
    }

    #[test]
    fn a_peer_is_for_its_node_for_the_selected_nodes_or_for_all() {
        let (mut named, mut selected) = (peer("named", "192.0.2.251"), peer("selected", "192.0.2.252"));
        named.spec.node = Some("n1".to_owned());
        selected.spec.node_selector = Some("rack == 'n2'".parse().unwrap());
        let mut view = view(&three(), &[named, selected, peer("all", "192.0.2.253:1179")]);
        view.configuration.node_to_node_mesh_enabled = false;
        assert_eq!(
            remotes(&view, "n1"),
            ["192.0.2.251:179 65100 named", "192.0.2.253:1179 65100 all"]
        );
        assert_eq!(
            remotes(&view, "n2"),
            ["192.0.2.252:179 65100 selected", "192.0.2.253:1179 65100 all"]
        );
    }

    #[test]
    fn nobody_is_their_own_peer() {
        let view = view(&three(), &[peer("router", "192.0.2.1")]);
        assert_eq!(
            remotes(&view, "n1"),
            ["192.0.2.2:179 64512 mesh", "[2001:db8::3]:179 64512 mesh"]
        );
    }

    #[test]
    fn a_peer_replaces_the_meshs_session_with_the_same_address() {
        let view = view(&three(), &[peer("router", "192.0.2.2")]);
        assert_eq!(remotes(&view, "n1")[0], "192.0.2.2:179 65100 router");
    }

    #[test]
    fn the_mesh_and_each_peer_name_filters_of_their_own() {
        let mut peer = peer("tor", "192.0.2.254");
        peer.spec.filters = vec!["tor".to_owned()];
        let mut view = view(&three(), &[peer]);
        view.configuration.node_mesh_filters = vec!["mesh".to_owned()];
        for session in sessions(&view, "n1").values() {
            assert_eq!(session.filters.join(","), session.origin);
        }
    }

    #[test]
    fn adding_a_node_adds_one_session_and_changes_no_other() {
        let before = sessions(&view(&three(), &[]), "n1");
        let mut nodes = three().to_vec();
        nodes.push(node("n4", Some("192.0.2.4/24"), None));
        let mut after = sessions(&view(&nodes, &[]), "n1");
        assert!(after.remove(&"192.0.2.4".parse().unwrap()).is_some());
        assert_eq!(before, after);
    }

    /// Four nodes of which the first two reflect, and a BGPPeer that makes all nodes peers of reflectors.
    fn reflected() -> View {
        let mut nodes = ["n1", "n2", "n3", "n4"].map(|name| {
            let address = format!("192.0.2.{}/24", &name[1..]);
            node(name, Some(&address), None)
        });
        for node in &mut nodes[..2] {
            node.metadata.labels.insert("reflector".to_owned(), String::new());
            node.spec.bgp.as_mut().unwrap().route_reflector_cluster_id = "244.0.0.1".parse().ok();
        }
        let spec = serde_json::from_str(r#"{"peerSelector": "has(reflector)"}"#).unwrap();
        let peer = BgpPeer {
            metadata: metadata("reflectors"),
            spec,
        };
        let mut view = view(&nodes, &[peer]);
        view.configuration.node_to_node_mesh_enabled = false;
        view
    }

    /// RFC 4456 §7: members of one cluster are no clients of each other.
    #[test]
    fn nodes_peer_with_the_reflectors_that_labels_pick_and_these_with_them() {
        let view = reflected();
        let peers = |me: &str| -> Vec<_> {
            let sessions = sessions(&view, me).into_values();
            sessions.map(|s| (s.remote.to_string(), s.client)).collect()
        };
        let peer = |host: u8, client| (format!("192.0.2.{host}:179"), client);
        assert_eq!(peers("n1"), [peer(2, false), peer(3, true), peer(4, true)]);
        assert_eq!(peers("n2"), [peer(1, false), peer(3, true), peer(4, true)]);
        assert_eq!(peers("n3"), [peer(1, false), peer(2, false)]);
        assert_eq!(peers("n4"), [peer(1, false), peer(2, false)]);
    }

    #[test]
    fn a_reflectors_peers_by_address_are_clients_within_its_as() {
        let (mut inside, outside) = (peer("inside", "192.0.2.251"), peer("outside", "192.0.2.252"));
        inside.spec.as_number = Some(64512);
        let mut view = view(&three(), &[inside, outside]);
        view.configuration.node_to_node_mesh_enabled = false;
        let clients =
            |view: &View| -> Vec<bool> { sessions(view, "n1").values().map(|s| s.client).collect() };
        assert_eq!(clients(&view), [false, false]);
        let node = view.nodes.get_mut("n1").unwrap();
        node.spec.bgp.as_mut().unwrap().route_reflector_cluster_id = "244.0.0.1".parse().ok();
        assert_eq!(clients(&view), [true, false]);
    }

    #[test]
    fn bfd_is_a_peers_own_setting_or_the_meshs() {
        let mut tor = peer("tor", "192.0.2.254");
        let multihop = BfdSpec {
            multihop: true,
            ..BfdSpec::default()
        };
        tor.spec.bfd = Some(multihop);
        let mut view = view(&three(), &[tor, peer("plain", "192.0.2.253")]);
        let bfd = |view: &View| {
            let sessions = sessions(view, "n1").into_values();
            sessions.map(|s| (s.origin, s.bfd)).collect::<BTreeMap<_, _>>()
        };
        let expected = |mesh| {
            let expected = [(MESH, mesh), ("plain", None), ("tor", Some(multihop))];
            BTreeMap::from(expected.map(|(origin, bfd)| (origin.to_owned(), bfd)))
        };
        assert_eq!(bfd(&view), expected(None));
        view.configuration.node_mesh_bfd = Some(BfdSpec::default());
        assert_eq!(bfd(&view), expected(Some(BfdSpec::default())));
    }

    #[test]
    fn a_peer_says_how_its_connections_are_guarded_and_the_mesh_has_a_password_of_its_own() {
        let mut guarded = peer("tor", "192.0.2.254");
        guarded.spec = serde_json::from_str(
            r#"{"peerIP": "192.0.2.254", "asNumber": 65100, "ttlSecurity": 2, "sourceAddress": "None",
                "password": {"secretKeyRef": {"name": "rack-1", "key": "password"}}}"#,
        )
        .unwrap();
        let mut view = view(&three(), &[guarded]);
        let mesh = SecretKeyRef {
            name: "mesh".to_owned(),
            key: "password".to_owned(),
        };
        view.configuration.node_mesh_password = Some(Password {
            secret_key_ref: mesh.clone(),
        });
        let sessions = sessions(&view, "n1");
        let tor = &sessions[&"192.0.2.254".parse().unwrap()];
        assert_eq!(tor.password.as_ref().map(|it| it.name.as_str()), Some("rack-1"));
        assert_eq!((tor.ttl_security, tor.local), (NonZeroU8::new(2), None));
        let node = &sessions[&"192.0.2.2".parse().unwrap()];
        assert_eq!((&node.password, node.ttl_security), (&Some(mesh), None));
    }

    #[test]
    fn a_peer_on_a_link_is_known_by_its_interface() {
        let on_link = |name: &str, spec: &str| BgpPeer {
            metadata: metadata(name),
            spec: serde_json::from_str(spec).unwrap(),
        };
        let peers = [
            on_link("found", r#"{"interface": "swp1"}"#),
            on_link(
                "fixed",
                r#"{"interface": "swp2", "peerIP": "fe80::1", "asNumber": 65100}"#,
            ),
            on_link("elsewhere", r#"{"interface": "swp3", "node": "n2"}"#),
        ];
        let view = view(&three()[..1], &peers);
        let sessions: Vec<_> = link_sessions(&view, "n1")
            .into_iter()
            .map(|(key, session)| {
                (
                    key.to_string(),
                    session.remote.to_string(),
                    session.asn,
                    session.origin,
                )
            })
            .collect();
        let expected = |key: &str, remote: &str, asn, origin: &str| {
            (key.to_owned(), remote.to_owned(), asn, origin.to_owned())
        };
        assert_eq!(
            sessions,
            [
                expected("swp1", "[::]:179", ANY_EXTERNAL_AS, "found"),
                expected("fe80::1%swp2", "[fe80::1]:179", 65100, "fixed"),
            ]
        );
        assert!(super::sessions(&view, "n1").is_empty());
        assert!(link_sessions(&view, "unknown").is_empty());
    }

    #[test]
    fn zero_restart_time_offers_no_graceful_restart() {
        let mut view = view(&three(), &[]);
        view.configuration.node_mesh_max_restart_time = 0;
        assert!(sessions(&view, "n1").values().all(|s| s.restart_time.is_none()));
        view.configuration.node_mesh_long_lived_stale_time = 60;
        let minute = Some(Duration::from_secs(60));
        assert!(sessions(&view, "n1").values().all(|s| s.stale_time == minute));
    }
}
