//! What two OPENs agree on beyond the base protocol, end to end.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

use manx_bgp::wire::{
    Action, Attributes, Capability, Message, NextHop, Nlri, Open, Reach, Role, RouteRefresh,
    UnknownAttribute, Update,
};
use manx_bgp::{ConnId, Family, Fault, Features, Gateway, Input, PeerConfig, Prefix, RoleConfig, State};

use crate::rig::{
    ASN, Rig, announcement, config, external, graceful_open, internal, open, path, prefix, withdrawal,
};

const V4: Family = Family::Ipv4Unicast;

fn offering(id: u8, asn: u32, capabilities: &[Capability]) -> Open {
    let mut open = open(id, asn);
    open.capabilities.extend_from_slice(capabilities);
    open
}

fn refresh(subtype: u8) -> Message {
    Message::RouteRefresh(RouteRefresh {
        family: Some(V4),
        subtype,
    })
}

/// What was said on a connection: prefixes with `+` or `-`, end marks, and a refresh's beginning and end.
fn heard(rig: &mut Rig, conn: ConnId) -> Vec<String> {
    let mut heard = Vec::new();
    for message in rig.sent(conn) {
        match message {
            Message::Update(update) => {
                heard.extend(update.withdrawn.iter().map(|nlri| format!("-{nlri}")));
                let announced = update.reach.iter().flat_map(|reach| &reach.nlri);
                heard.extend(announced.map(|nlri| format!("+{nlri}")));
                heard.extend(update.end_of_rib.map(|_| "end".to_owned()));
            }
            Message::RouteRefresh(refresh) => heard.push(format!("refresh {}", refresh.subtype)),
            Message::Open(_) | Message::Keepalive | Message::Notification(_) => {}
        }
    }
    heard
}

/// RFC 8654 §4: what does not fit in 4,096 octets goes to a peer that takes extended messages, and is withdrawn
/// from one that does not.
///
/// RFC 8654 §3: as long as was agreed.
#[test]
fn long_attributes_go_where_extended_messages_do() {
    let mut rig = Rig::new(config());
    let source = rig.establish_with(
        external(2),
        2,
        offering(2, 65_002, &[Capability::ExtendedMessage]),
    );
    let extended = rig.establish_with(
        external(3),
        3,
        offering(3, 65_003, &[Capability::ExtendedMessage]),
    );
    let plain = rig.establish(external(4));
    let target = prefix("10.1.0.0/26");
    rig.update(source, announcement(2, target, path(&[65_002])));
    for conn in [extended, plain] {
        assert_eq!(heard(&mut rig, conn), ["end", "+10.1.0.0/26"]);
    }
    let long = Attributes {
        unknown: [UnknownAttribute {
            flags: 0xc0,
            code: 200,
            value: vec![7; 5000].into(),
        }]
        .into(),
        ..path(&[65_002])
    };
    rig.update(source, announcement(2, target, long));
    assert_eq!(heard(&mut rig, extended), ["+10.1.0.0/26"]);
    assert_eq!(heard(&mut rig, plain), ["-10.1.0.0/26"]);
}

/// RFC 7313 §4: beginning and end stand around what is repeated, after the end mark of the initial routes; a peer
/// without the capability hears neither.
///
/// RFC 7313 §4 (sender): both marks.
#[test]
fn a_repetition_has_a_beginning_and_an_end() {
    for (capabilities, expected) in [
        (
            &[Capability::EnhancedRouteRefresh][..],
            vec!["+10.1.0.0/26", "end", "refresh 1", "+10.1.0.0/26", "refresh 2"],
        ),
        (&[], vec!["+10.1.0.0/26", "end", "+10.1.0.0/26"]),
    ] {
        let mut rig = Rig::new(config());
        rig.input(Input::Originate(prefix("10.1.0.0/26")));
        let conn = rig.establish_with(internal(2), 2, offering(2, ASN, capabilities));
        rig.receive(conn, refresh(RouteRefresh::REQUEST));
        assert_eq!(heard(&mut rig, conn), expected);
        rig.receive(
            conn,
            Message::RouteRefresh(RouteRefresh::request(Family::Ipv6Unicast)),
        );
        assert!(
            heard(&mut rig, conn).is_empty(),
            "RFC 2918 §4: another family's request is ignored"
        );
    }
}

/// RFC 7313 §4: at the end of a refresh goes what was not repeated, and only that; an end alone means nothing.
/// RFC 7313 §4 (receiver): what was not repeated goes.
#[test]
fn what_is_not_repeated_goes_at_the_end_of_the_refresh() {
    let mut rig = Rig::new(config());
    let conn = rig.establish_with(
        internal(2),
        2,
        offering(2, ASN, &[Capability::EnhancedRouteRefresh]),
    );
    let [kept, gone, later] = ["10.1.0.0/26", "10.2.0.0/26", "10.3.0.0/26"].map(prefix);
    for target in [kept, gone] {
        rig.update(conn, announcement(2, target, path(&[])));
    }
    rig.receive(conn, refresh(RouteRefresh::END));
    rig.receive(conn, refresh(RouteRefresh::BEGIN));
    assert_eq!((rig.selected(kept), rig.selected(gone)), (vec![2], vec![2]));
    for target in [kept, later] {
        rig.update(conn, announcement(2, target, path(&[])));
    }
    rig.update(conn, withdrawal(later));
    rig.receive(conn, refresh(RouteRefresh::END));
    assert_eq!((rig.selected(kept), rig.selected(gone)), (vec![2], vec![]));
    assert_eq!(rig.peer(2).received, 1);
}

/// RFC 7313 §4: before a restarter's End-of-RIB a refresh does not begin; one that a crash interrupts leaves its
/// routes to graceful restart.
#[test]
fn a_refresh_and_a_restart_do_not_mix() {
    let mut rig = Rig::new(config());
    let graceful = PeerConfig {
        graceful_restart: Some(std::time::Duration::from_secs(60)),
        ..internal(2)
    };
    let mut open = graceful_open(2);
    open.capabilities.push(Capability::EnhancedRouteRefresh);
    let conn = rig.establish_with(graceful, 2, open.clone());
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    rig.receive(conn, refresh(RouteRefresh::BEGIN));
    rig.receive(conn, refresh(RouteRefresh::END));
    assert_eq!(rig.selected(target), [2], "begun before the End-of-RIB: ignored");
    rig.update(
        conn,
        Update {
            end_of_rib: Some(V4),
            ..Update::default()
        },
    );
    rig.receive(conn, refresh(RouteRefresh::BEGIN));
    rig.input(Input::Closed { conn });
    assert!(rig.paths(target)[0].stale);
    assert_eq!(rig.selected(target), [2]);
}

/// RFC 7313 §5: a subtype that means nothing is ignored, and the session stays.
/// RFC 7313 §5: other subtypes are ignored.
#[test]
fn an_unknown_refresh_subtype_is_ignored() {
    let mut rig = Rig::new(config());
    let conn = rig.establish_with(
        internal(2),
        2,
        offering(2, ASN, &[Capability::EnhancedRouteRefresh]),
    );
    rig.receive(conn, refresh(9));
    assert_eq!(rig.peer(2).state, State::Established);
}

/// RFC 8950 §4: an IPv4 prefix with an IPv6 next hop comes in, is selected so, and goes on to who takes such.
/// RFC 8950 §3: in and out.
#[test]
fn ipv4_prefixes_flow_with_ipv6_next_hops() {
    let takes = Capability::ExtendedNextHop(vec![V4]);
    let asked = |id| PeerConfig {
        features: Features {
            extended_next_hop: Some(true),
            ..Features::default()
        },
        ..internal(id)
    };
    let client = |peer| PeerConfig {
        route_reflector_client: true,
        ..peer
    };
    let mut rig = Rig::new(config());
    let source = rig.establish_with(
        client(asked(2)),
        2,
        offering(2, ASN, std::slice::from_ref(&takes)),
    );
    let able = rig.establish_with(asked(3), 3, offering(3, ASN, std::slice::from_ref(&takes)));
    let unable = rig.establish_with(internal(4), 4, offering(4, ASN, &[takes]));
    let (target, next_hop) = (prefix("10.1.0.0/26"), v6(2));
    rig.update(
        source,
        Update {
            reach: vec![Reach {
                next_hop,
                nlri: vec![Nlri {
                    path_id: None,
                    prefix: target,
                }],
            }],
            ..Update::default()
        },
    );
    assert_eq!(rig.selected[&target], [Gateway::new(next_hop, 0)]);
    assert_eq!(next_hops(&mut rig, able, target), [next_hop]);
    assert!(next_hops(&mut rig, unable, target).is_empty());
}

/// RFC 8950 §3: on a session over IPv6 our IPv4 prefixes have our IPv6 address as next hop.
#[test]
fn our_own_ipv4_prefixes_leave_an_ipv6_session_with_its_address() {
    let mut rig = Rig::new(config());
    let target = prefix("10.1.0.0/26");
    rig.input(Input::Originate(target));
    let mut peer = internal(2);
    let (us, them) = (
        Ipv6Addr::from(0xfd00 << 112 | 1),
        Ipv6Addr::from(0xfd00 << 112 | 2),
    );
    peer.key.address = them.into();
    rig.input(Input::SetPeer(Box::new(peer)));
    let conn = ConnId(1 << 63 | 77);
    rig.input(Input::Accepted {
        conn,
        local: SocketAddr::new(us.into(), 179),
        remote: SocketAddr::new(them.into(), 40_000),
        scope: 0,
    });
    rig.receive(
        conn,
        Message::Open(offering(2, ASN, &[Capability::ExtendedNextHop(vec![V4])])),
    );
    rig.receive(conn, Message::Keepalive);
    let ours = NextHop::V6 {
        global: us,
        link_local: None,
    };
    assert_eq!(next_hops(&mut rig, conn, target), [ours]);
}

/// A peer of another AS to whom we are `role`.
fn related(id: u8, role: Role) -> PeerConfig {
    PeerConfig {
        features: Features {
            role: Some(RoleConfig { role, strict: false }),
            ..Features::default()
        },
        ..external(id)
    }
}

/// RFC 9234 §4.2: whose OPEN has no parameter at all has no role either: that is refused where ours is strict only.
/// nasty case 33
#[test]
fn an_open_without_parameters_is_one_without_a_role() {
    for (strict, told) in [(false, None), (true, Some((2, 11)))] {
        let mut rig = Rig::new(config());
        let mut peer = related(2, Role::Provider);
        peer.features.role = Some(RoleConfig {
            role: Role::Provider,
            strict,
        });
        rig.input(Input::SetPeer(Box::new(peer)));
        let conn = rig.accept(2);
        let mut silent = open(2, 65_002);
        silent.capabilities.clear();
        rig.receive(conn, Message::Open(silent));
        rig.receive(conn, Message::Keepalive);
        assert_eq!(rig.notified(conn), told, "strict: {strict}");
        assert_eq!(rig.peer(2).state == State::Established, !strict);
    }
}

/// RFC 9234 §4.2 and §6: a role that does not pair with ours is answered with Role Mismatch; within an AS there are no
/// roles.
#[test]
fn a_role_mismatch_ends_the_session() {
    let mut rig = Rig::new(config());
    rig.input(Input::SetPeer(Box::new(related(2, Role::Provider))));
    let conn = rig.accept(2);
    let provider = Capability::Role(Role::Provider);
    rig.receive(
        conn,
        Message::Open(offering(2, 65_002, std::slice::from_ref(&provider))),
    );
    assert_eq!(rig.notified(conn), Some((2, 11)));

    let within = PeerConfig {
        asn: ASN,
        ..related(3, Role::Provider)
    };
    let conn = rig.establish_with(within, 3, offering(3, ASN, std::slice::from_ref(&provider)));
    let sent = rig.sent(conn);
    let Some(Message::Open(open)) = sent.first() else {
        panic!("{sent:?}")
    };
    assert!(
        !open.capabilities.contains(&provider),
        "RFC 9234 §4.1: only between ASes"
    );
}

/// RFC 9234 §5: what a provider gave us goes to customers, marked by the provider's AS, and to nobody else of another
/// AS; within ours it keeps its mark.
#[test]
fn what_comes_from_above_goes_only_below() {
    let mut rig = Rig::new(config());
    let provider = rig.establish(related(2, Role::Customer));
    let customer = rig.establish(related(3, Role::Provider));
    let peer = rig.establish(related(4, Role::Peer));
    let inside = rig.establish(internal(5));
    let plain = rig.establish(external(6));
    for conn in [customer, peer, inside, plain] {
        rig.sent(conn);
    }
    let target = prefix("10.1.0.0/26");
    rig.update(provider, announcement(2, target, path(&[65_002])));
    let marks = |rig: &mut Rig, conn| -> Vec<Option<u32>> {
        let sent = rig.sent(conn).into_iter();
        let updates = sent.filter_map(|message| match message {
            Message::Update(update) if !update.reach.is_empty() => Some(update.attributes.only_to_customer),
            Message::Update(_)
            | Message::Open(_)
            | Message::Notification(_)
            | Message::Keepalive
            | Message::RouteRefresh(_) => None,
        });
        updates.collect()
    };
    assert_eq!(marks(&mut rig, customer), [Some(65_002)]);
    assert_eq!(marks(&mut rig, peer), []);
    assert_eq!(marks(&mut rig, inside), [Some(65_002)]);
    assert_eq!(
        marks(&mut rig, plain),
        [Some(65_002)],
        "no role: nothing is kept back"
    );

    rig.input(Input::Originate(prefix("10.2.0.0/26")));
    assert_eq!(marks(&mut rig, customer), [Some(ASN)]);
    assert_eq!(marks(&mut rig, peer), [Some(ASN)]);
    assert_eq!(marks(&mut rig, provider), [None]);
}

/// RFC 9234 §5: a customer's route that is marked has leaked and is not selected.
#[test]
fn a_leak_is_not_selected() {
    let mut rig = Rig::new(config());
    let customer = rig.establish(related(3, Role::Provider));
    let target = prefix("10.1.0.0/26");
    let leaked = Attributes {
        only_to_customer: Some(65_009),
        ..path(&[65_003])
    };
    rig.update(customer, announcement(3, target, leaked));
    assert_eq!(rig.selected(target), []);
    assert_eq!(
        rig.paths(target)[0].reason.as_deref(),
        Some("its ONLY_TO_CUSTOMER says that the peer leaks it")
    );
    rig.update(customer, announcement(3, target, path(&[65_003])));
    assert_eq!(rig.selected(target), [3]);
}

/// RFC 7606 §8: what was wrong with UPDATEs is there for operators, a kind once per message, and outlives the session.
#[test]
fn faults_are_counted_by_kind() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(external(2));
    let fault = |attribute, action| Fault { attribute, action };
    let (origin, own) = (fault(Some(1), Action::Withdraw), fault(None, Action::Discard));
    for faults in [vec![origin, origin, own], vec![origin]] {
        rig.input(Input::Faulty { conn, faults });
    }
    rig.input(Input::Faulty {
        conn: ConnId(9),
        faults: vec![own],
    });
    rig.input(Input::Closed { conn });
    assert_eq!(rig.peer(2).faults, BTreeMap::from([(origin, 2), (own, 1)]));
    assert_eq!(
        (origin.to_string(), own.to_string()),
        ("ORIGIN".into(), "message".into())
    );
}

fn v6(last: u8) -> NextHop {
    NextHop::V6 {
        global: Ipv6Addr::from(0xfd00 << 112 | u128::from(last)),
        link_local: None,
    }
}

/// The next hops that a prefix was announced with.
fn next_hops(rig: &mut Rig, conn: ConnId, target: Prefix) -> Vec<NextHop> {
    let mut next_hops = Vec::new();
    for message in rig.sent(conn) {
        if let Message::Update(update) = message {
            let of_target = |reach: &&Reach| reach.nlri.iter().any(|nlri| nlri.prefix == target);
            next_hops.extend(update.reach.iter().filter(of_target).map(|reach| reach.next_hop));
        }
    }
    next_hops
}
