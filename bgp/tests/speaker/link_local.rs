//! Sessions over link-local addresses, where the interface is part of who the peer is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use manx_bgp::wire::{Capability, Message, NextHop, Nlri, Reach, Update};
use manx_bgp::{Config, ConnId, Family, Gateway, Input, PeerConfig, PeerKey, Prefix, State};

use crate::rig::{ASN, Rig, config, open, path, prefix};

const BOTH: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

fn ll(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host)
}

fn global(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

fn v6(global: Ipv6Addr, link_local: Option<Ipv6Addr>) -> NextHop {
    NextHop::V6 { global, link_local }
}

/// A peer of `asn` over IPv6.
fn peer(address: Ipv6Addr, scope: u32, asn: u32) -> PeerConfig {
    PeerConfig {
        families: BOTH.to_vec(),
        passive: true,
        ..PeerConfig::new(PeerKey::of(address.into(), scope), asn)
    }
}

/// Brings the session with a peer up; the interface is the connection's, as the kernel says.
fn establish(rig: &mut Rig, number: u8, peer: PeerConfig, us: Ipv6Addr) -> ConnId {
    let (key, asn) = (peer.key, peer.asn);
    rig.input(Input::SetPeer(Box::new(peer)));
    let conn = connect(rig, number, key, us);
    let mut open = open(number, asn);
    open.capabilities
        .push(Capability::Multiprotocol(Family::Ipv6Unicast));
    open.capabilities
        .push(Capability::ExtendedNextHop(vec![Family::Ipv4Unicast]));
    rig.receive(conn, Message::Open(open));
    rig.receive(conn, Message::Keepalive);
    assert_eq!(state(rig, key), State::Established);
    conn
}

fn connect(rig: &mut Rig, number: u8, from: PeerKey, us: Ipv6Addr) -> ConnId {
    let IpAddr::V6(address) = from.address else {
        panic!("peers have IPv6 addresses here");
    };
    let conn = ConnId(1 << 63 | u64::from(number));
    rig.input(Input::Accepted {
        conn,
        local: SocketAddrV6::new(us, 179, 0, from.scope).into(),
        remote: SocketAddr::V6(SocketAddrV6::new(address, 40_000, 0, from.scope)),
        scope: from.scope,
    });
    conn
}

fn state(rig: &Rig, key: PeerKey) -> State {
    let peers = rig.speaker.peers();
    peers.iter().find(|peer| peer.key == key).unwrap().state
}

fn announce(rig: &mut Rig, conn: ConnId, asns: &[u32], target: Prefix, next_hop: NextHop) {
    let nlri = vec![Nlri {
        path_id: None,
        prefix: target,
    }];
    rig.update(
        conn,
        Update {
            reach: vec![Reach { next_hop, nlri }],
            attributes: path(asns),
            ..Update::default()
        },
    );
}

/// The next hop last told on a connection for a prefix.
fn told(rig: &mut Rig, conn: ConnId, target: Prefix) -> Option<NextHop> {
    let updates = rig.updates(conn);
    let mut reach = updates.iter().flat_map(|update| &update.reach);
    let of_target = |reach: &&Reach| reach.nlri.iter().any(|nlri| nlri.prefix == target);
    reach.rfind(of_target).map(|reach| reach.next_hop)
}

/// Link-local addresses are unique on their link only (RFC 4291, section 2.5.6).
#[test]
fn peers_with_one_address_are_told_apart_by_their_interface() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    for scope in [2_u8, 3] {
        let asn = 65_000 + u32::from(scope);
        let conn = establish(&mut rig, scope, peer(ll(1), scope.into(), asn), ll(9));
        announce(
            &mut rig,
            conn,
            &[asn],
            target,
            v6(Ipv6Addr::UNSPECIFIED, Some(ll(1))),
        );
    }
    let gateways = [2, 3].map(|scope| Gateway {
        address: ll(1).into(),
        scope,
    });
    assert_eq!(rig.selected[&target], gateways, "both ways at once");
    rig.input(Input::RemovePeer(PeerKey::of(ll(1).into(), 2)));
    assert_eq!(rig.selected[&target], gateways[1..]);
    let stranger = connect(&mut rig, 4, PeerKey::of(ll(1).into(), 4), ll(9));
    assert!(rig.closed.contains(&stranger), "nobody is configured there");
}

/// RFC 2545 §2: the neighbour shares our link, so packets go to its link-local address, whatever it says beside it.
/// RFC 8950 §4: that of an IPv4 prefix, too.
#[test]
fn packets_go_to_the_link_local_address_on_the_sessions_interface() {
    let mut rig = Rig::new(config());
    let conn = establish(&mut rig, 2, peer(ll(1), 7, 65_002), ll(9));
    let on_link = Gateway {
        address: ll(1).into(),
        scope: 7,
    };
    for target in ["10.1.0.0/26", "2001:db8:1::/64"] {
        for global in [Ipv6Addr::UNSPECIFIED, global(1)] {
            announce(&mut rig, conn, &[65_002], prefix(target), v6(global, Some(ll(1))));
            assert_eq!(rig.selected[&prefix(target)], [on_link]);
        }
    }
    let through = Gateway {
        address: global(5).into(),
        scope: 0,
    };
    announce(
        &mut rig,
        conn,
        &[65_002],
        prefix("10.1.0.0/26"),
        v6(global(5), None),
    );
    assert_eq!(
        rig.selected[&prefix("10.1.0.0/26")],
        [through],
        "somebody else's address"
    );
}

/// RFC 2545 §3 (link-local): a peer on our link gets our link-local address, beside a global one where there is one.
/// RFC 8950 §3: for IPv4 prefixes, too.
#[test]
fn a_peer_on_our_link_gets_our_link_local_address() {
    let targets = ["10.1.0.0/26", "2001:db8:1::/64"].map(prefix);
    for configured in [None, Some(global(9))] {
        let mut rig = Rig::new(config());
        let neighbour = PeerConfig {
            next_hop_v6: configured,
            ..peer(ll(1), 7, 65_002)
        };
        for target in targets {
            rig.input(Input::Originate(target));
        }
        let conn = establish(&mut rig, 2, neighbour, ll(9));
        let expected = v6(configured.unwrap_or(Ipv6Addr::UNSPECIFIED), Some(ll(9)));
        let updates = rig.updates(conn);
        let mut said = updates.iter().flat_map(|update| &update.reach);
        assert!(said.clone().count() == 2 && said.all(|reach| reach.next_hop == expected));
    }
}

/// RFC 2545 §3 (link-local): one goes to nobody who does not share its link; what has no other address leads
/// through us.
#[test]
fn a_link_local_next_hop_stays_on_its_link() {
    let mut rig = Rig::new(config());
    let target = prefix("2001:db8:1::/64");
    let source = establish(&mut rig, 2, peer(ll(1), 7, 65_002), ll(9));
    let inside = establish(&mut rig, 3, peer(global(3), 0, ASN), global(9));
    let same_link = establish(&mut rig, 4, peer(ll(4), 7, ASN), ll(9));
    let both = v6(global(1), Some(ll(1)));
    announce(&mut rig, source, &[65_002], target, both);
    assert_eq!(told(&mut rig, inside, target), Some(v6(global(1), None)));
    assert_eq!(told(&mut rig, same_link, target), Some(both));
    let alone = v6(Ipv6Addr::UNSPECIFIED, Some(ll(1)));
    announce(&mut rig, source, &[65_002], target, alone);
    assert_eq!(told(&mut rig, inside, target), Some(v6(global(9), None)));
    assert_eq!(told(&mut rig, same_link, target), Some(alone));
}

/// RFC 2545 §2: without its link a link-local next hop leads nowhere.
#[test]
fn a_link_local_next_hop_from_beyond_the_link_is_not_used() {
    let mut rig = Rig::new(config());
    let target = prefix("2001:db8:1::/64");
    let conn = establish(&mut rig, 2, peer(global(2), 0, 65_002), global(9));
    announce(
        &mut rig,
        conn,
        &[65_002],
        target,
        v6(Ipv6Addr::UNSPECIFIED, Some(ll(1))),
    );
    assert!(!rig.selected.contains_key(&target));
    let paths = rig.paths(target);
    let reason = paths[0].reason.as_deref();
    assert_eq!(reason, Some("its next hop is link-local, and the session is not"));
}

/// A start waits for peers that have not been found as for those that do not answer: for the deferral.
#[test]
fn a_start_waits_for_peers_that_are_not_found_yet() {
    let mut rig = Rig::new(Config {
        restarted: true,
        ..config()
    });
    rig.input(Input::Unfound(true));
    rig.wait(Duration::from_secs(9));
    assert!(!rig.converged);
    rig.wait(Duration::from_secs(2));
    assert!(rig.converged);
}
