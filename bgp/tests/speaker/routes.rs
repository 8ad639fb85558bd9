//! From announcements to the kernel and to other peers.

use std::net::IpAddr;

use manx_bgp::wire::{Attributes, Message, NextHop, RouteRefresh, Update};
use manx_bgp::{Config, ConnId, Family, Input, NextHopMode, PeerConfig, Policy};

use crate::rig::{ASN, Rig, address, announcement, config, external, internal, path, prefix, withdrawal};

#[test]
fn a_learned_route_is_selected_until_it_is_withdrawn() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    assert_eq!(rig.selected(target), [2]);
    assert_eq!((rig.peer(2).received, rig.peer(2).accepted), (1, 1));
    rig.update(conn, withdrawal(target));
    assert_eq!(rig.selected(target), []);
    assert_eq!(rig.peer(2).received, 0);
    assert!(rig.speaker.paths().is_empty());
}

/// nasty case 15
#[test]
fn withdrawing_what_was_never_announced_changes_nothing() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let other = rig.establish(internal(3));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(2, target, path(&[])));
    let changes = rig.changes;
    rig.update(other, withdrawal(target));
    rig.update(other, withdrawal(prefix("10.9.0.0/26")));
    assert_eq!((rig.changes, rig.selected(target)), (changes, vec![2]));
}

/// RFC 4271 §9.1.2 (loop): nor does the earlier one stay.
/// RFC 4456 §8 (originator): our own is refused.
/// RFC 4456 §8 (cluster): our own is refused.
/// nasty case 37
#[test]
fn a_looped_announcement_replaces_the_peers_earlier_one() {
    let reflected = |originator: u8, clusters: &[u8]| Attributes {
        originator_id: Some(address(originator)),
        cluster_list: clusters.iter().copied().map(address).collect(),
        ..path(&[])
    };
    let looped = [
        (path(&[65_002, ASN]), "our own AS is in its AS_PATH"),
        (reflected(1, &[9]), "its ORIGINATOR_ID is our own BGP identifier"),
        (reflected(9, &[8, 1]), "our own cluster is in its CLUSTER_LIST"),
    ];
    for (attributes, reason) in looped {
        let mut rig = Rig::new(config());
        let conn = rig.establish(internal(2));
        let target = prefix("10.1.0.0/26");
        rig.update(conn, announcement(2, target, path(&[])));
        rig.update(conn, announcement(2, target, attributes));
        assert_eq!(rig.selected(target), [], "{reason}");
        assert_eq!((rig.peer(2).received, rig.peer(2).accepted), (1, 0));
        assert_eq!(rig.paths(target)[0].reason.as_deref(), Some(reason));
    }
}

/// RFC 4271 §5.1.3 (own): a route to ourselves is none.
#[test]
fn a_route_to_ourselves_is_not_selected() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, announcement(1, target, path(&[])));
    assert_eq!(rig.selected(target), []);
    assert_eq!(
        rig.paths(target)[0].reason.as_deref(),
        Some("its next hop is our own address")
    );
}

#[test]
fn equal_paths_share_the_traffic_up_to_the_limit() {
    let mut rig = Rig::new(Config {
        max_paths: 2,
        ..config()
    });
    let target = prefix("10.1.0.0/26");
    for id in [4, 2, 3] {
        let conn = rig.establish(internal(id));
        rig.update(conn, announcement(id, target, path(&[])));
    }
    assert_eq!(rig.selected(target), [2, 3]);
    let paths = rig.paths(target);
    let shown: Vec<_> = paths
        .iter()
        .map(|path| (path.best, path.multipath, path.reason.is_some()))
        .collect();
    assert_eq!(
        shown,
        [(true, false, false), (false, true, true), (false, false, true)]
    );
}

#[test]
fn nobody_takes_our_own_prefix_from_us() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let ours = prefix("10.1.0.0/26");
    rig.update(
        conn,
        announcement(
            2,
            ours,
            Attributes {
                local_pref: Some(1000),
                ..path(&[])
            },
        ),
    );
    assert_eq!(rig.selected(ours), [2]);
    rig.input(Input::Originate(ours));
    assert_eq!(
        rig.selected(ours),
        [],
        "the kernel is told nothing of our own prefixes"
    );
    let paths = rig.paths(ours);
    assert!(paths[0].best && paths[0].peer.is_none());
    assert_eq!(paths[1].reason.as_deref(), Some("the prefix is our own"));
    rig.input(Input::Unoriginate(ours));
    assert_eq!(rig.selected(ours), [2]);
}

/// RFC 4724 §2: the initial routes end with a mark.
#[test]
fn own_prefixes_are_announced_with_our_address_and_an_end_mark() {
    let mut rig = Rig::new(config());
    rig.input(Input::Originate(prefix("10.1.0.0/26")));
    let conn = rig.establish(internal(2));
    let updates: Vec<_> = rig
        .sent(conn)
        .into_iter()
        .filter_map(|message| {
            if let Message::Update(update) = message {
                Some(update)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(updates.len(), 2);
    assert_eq!(updates[0].reach[0].next_hop, NextHop::V4(address(1)));
    assert_eq!(updates[0].attributes.local_pref, Some(100));
    assert_eq!(updates[1].end_of_rib, Some(Family::Ipv4Unicast));
    assert_eq!(rig.peer(2).advertised, 1);
}

/// nasty case 49
/// nasty case 50
#[test]
fn the_last_word_of_a_turn_is_the_only_one() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    let (kept, gone) = (prefix("10.1.0.0/26"), prefix("10.2.0.0/26"));
    for input in [
        Input::Originate(kept),
        Input::Unoriginate(kept),
        Input::Originate(gone),
        Input::Originate(kept),
        Input::Unoriginate(gone),
    ] {
        rig.speaker.handle(rig.now, input);
    }
    rig.perform();
    assert_eq!(rig.told(conn), (vec![kept], vec![]));
}

#[test]
fn what_came_from_one_as_goes_to_the_others_and_is_withdrawn_there() {
    let mut rig = Rig::new(config());
    let (from, inside, abroad) = (
        rig.establish(external(2)),
        rig.establish(internal(3)),
        rig.establish(external(4)),
    );
    for conn in [from, inside, abroad] {
        rig.sent(conn);
    }
    let target = prefix("10.1.0.0/26");
    rig.update(from, announcement(2, target, path(&[65_002])));
    assert_eq!(rig.told(from), (vec![], vec![]), "not back");
    assert_eq!(rig.told(inside), (vec![target], vec![]));
    assert_eq!(rig.told(abroad), (vec![target], vec![]));
    rig.input(Input::Closed { conn: from });
    assert_eq!(rig.told(inside), (vec![], vec![target]));
    assert_eq!(rig.told(abroad), (vec![], vec![target]));
}

/// RFC 4456 §6 (client): to all others.
/// RFC 4456 §6 (non-client): to clients only.
#[test]
fn internal_routes_reach_internal_peers_by_reflection_only() {
    let mut rig = Rig::new(config());
    let from = rig.establish(internal(2));
    let plain = rig.establish(internal(3));
    let client = rig.establish(PeerConfig {
        route_reflector_client: true,
        ..internal(4)
    });
    for conn in [from, plain, client] {
        rig.sent(conn);
    }
    let target = prefix("10.1.0.0/26");
    rig.update(from, announcement(2, target, path(&[])));
    assert_eq!(rig.told(plain), (vec![], vec![]));
    let sent = rig.sent(client);
    let Message::Update(update) = &sent[0] else {
        panic!("{sent:?}")
    };
    assert_eq!(update.attributes.originator_id, Some(address(2)));
    assert_eq!(update.attributes.cluster_list, [address(1)]);
    assert_eq!(
        update.reach[0].next_hop,
        NextHop::V4(address(2)),
        "the next hop stays"
    );
}

/// RFC 2918 §4: all routes of the family, again.
#[test]
fn a_refresh_repeats_everything_and_a_demarcation_nothing() {
    let mut rig = Rig::new(config());
    let ours = prefix("10.1.0.0/26");
    rig.input(Input::Originate(ours));
    let conn = rig.establish(internal(2));
    rig.sent(conn);
    let refresh = |subtype| RouteRefresh {
        family: Some(Family::Ipv4Unicast),
        subtype,
    };
    rig.receive(conn, Message::RouteRefresh(refresh(1)));
    assert_eq!(rig.told(conn), (vec![], vec![]));
    rig.receive(conn, Message::RouteRefresh(refresh(0)));
    assert_eq!(rig.told(conn), (vec![ours], vec![]));
}

#[test]
fn a_peer_without_our_family_is_told_nothing_of_it() {
    let mut rig = Rig::new(config());
    rig.input(Input::Originate(prefix("fd00::/64")));
    rig.input(Input::Originate(prefix("10.1.0.0/26")));
    let conn = rig.establish(PeerConfig {
        families: Family::ALL.to_vec(),
        ..internal(2)
    });
    assert_eq!(rig.told(conn).0, [prefix("10.1.0.0/26")]);
    assert!(matches!(rig.peer(2).key.address, IpAddr::V4(_)));
}

/// RFC 4271 §4.3 (withdrawn): it is announced.
#[test]
fn a_prefix_both_withdrawn_and_announced_is_announced() {
    let mut rig = Rig::new(config());
    let conn = rig.establish(internal(2));
    let target = prefix("10.1.0.0/26");
    for _ in 0..2 {
        let both = Update {
            withdrawn: withdrawal(target).withdrawn,
            ..announcement(2, target, path(&[]))
        };
        rig.update(conn, both);
        assert_eq!(rig.selected(target), [2]);
    }
}

/// nasty case 47: what peers are told is worked out for each, from all of its settings.
#[test]
fn peers_that_differ_in_one_export_setting_are_told_different_things() {
    let mut rig = Rig::new(config());
    let source = rig.establish(internal(2));
    let plain = rig.establish(external(3));
    let keeping = rig.establish(PeerConfig {
        next_hop: NextHopMode::Keep,
        ..external(4)
    });
    let silent = rig.establish(PeerConfig {
        export: Policy::Reject,
        ..external(5)
    });
    let client = rig.establish(PeerConfig {
        route_reflector_client: true,
        ..internal(6)
    });
    let bystander = rig.establish(internal(7));
    for conn in [plain, keeping, silent, client, bystander] {
        rig.sent(conn);
    }
    rig.update(source, announcement(2, prefix("10.1.0.0/26"), path(&[])));
    let told = [plain, keeping, client].map(|conn| rig.updates(conn));
    let next_hops = told.each_ref().map(|updates| updates[0].reach[0].next_hop);
    assert_eq!(next_hops, [1, 2, 2].map(|id| NextHop::V4(address(id))));
    let paths = told
        .each_ref()
        .map(|updates| updates[0].attributes.as_path.hops());
    assert_eq!(paths, [1, 1, 0]);
    assert_eq!([silent, bystander].map(|conn| rig.updates(conn).len()), [0, 0]);
}

/// nasty case 48: peers alike in what they are told share it, so that memory for attributes does not grow with their
/// number.
#[test]
fn what_two_hundred_equal_peers_are_told_is_held_once() {
    let distinct = |clients: u8| {
        let mut rig = Rig::new(config());
        let source = rig.establish(external(2));
        let client = |id| PeerConfig {
            route_reflector_client: true,
            ..internal(id)
        };
        let conns: Vec<ConnId> = (3..3 + clients).map(|id| rig.establish(client(id))).collect();
        for number in 0..20_u8 {
            let told = prefix(&format!("10.1.{number}.0/24"));
            rig.update(
                source,
                announcement(2, told, path(&[65_002, u32::from(number) + 1])),
            );
        }
        for conn in conns {
            assert_eq!(rig.told(conn).0.len(), 20);
        }
        rig.speaker.distinct_routes()
    };
    let few = distinct(2);
    assert!(few >= 20, "{few}");
    assert_eq!(distinct(200), few);
}
