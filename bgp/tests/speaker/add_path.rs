//! Several paths per prefix, in both directions (RFC 7911).

use std::collections::BTreeMap;
use std::time::Duration;

use manx_bgp::wire::{
    AddPath, Attributes, Capability, GracefulRestart, Message, NextHop, Nlri, Open, Reach, RouteRefresh,
    Update,
};
use manx_bgp::{AddPathConfig, ConnId, Family, Features, Input, PeerConfig, Prefix};
use proptest::prelude::*;

use crate::rig::{ASN, Rig, announcement, config, external, internal, open, path, prefix, withdrawal};

const V4: Family = Family::Ipv4Unicast;
const ALL: usize = usize::MAX;

/// A client with several paths: it sends them, and gets `send` of ours.
fn client(id: u8, send: usize) -> PeerConfig {
    PeerConfig {
        route_reflector_client: true,
        graceful_restart: Some(Duration::from_secs(60)),
        features: Features {
            add_path: vec![AddPathConfig {
                family: V4,
                receive: true,
                send,
            }],
            ..Features::default()
        },
        ..internal(id)
    }
}

fn client_open(id: u8) -> Open {
    let mut open = open(id, ASN);
    open.capabilities.extend([
        Capability::EnhancedRouteRefresh,
        Capability::AddPath(vec![AddPath {
            family: V4,
            receive: true,
            send: true,
        }]),
        Capability::GracefulRestart(GracefulRestart {
            restarting: false,
            notification: true,
            restart_time: 60,
            families: vec![(V4, true)],
        }),
    ]);
    open
}

/// The session of client `id`, which is sent `send` paths.
fn establish(rig: &mut Rig, id: u8, send: usize) -> ConnId {
    rig.establish_with(client(id, send), id, client_open(id))
}

/// The path `path_id` to `target` through router number `via`.
fn with_id(path_id: u32, via: u8, target: Prefix, attributes: Attributes) -> Update {
    let mut update = announcement(via, target, attributes);
    update.reach[0].nlri[0].path_id = Some(path_id);
    update
}

fn without(path_id: u32, target: Prefix) -> Update {
    let mut update = withdrawal(target);
    update.withdrawn[0].path_id = Some(path_id);
    update
}

fn end_of_rib() -> Update {
    Update {
        end_of_rib: Some(V4),
        ..Update::default()
    }
}

/// What a peer has: the router that each path leads to.
type Held = BTreeMap<(Prefix, Option<u32>), u8>;

/// Applies what was sent since the last look. Nobody is told to forget what he does not have.
fn hear(rig: &mut Rig, conn: ConnId, held: &mut Held) {
    for message in rig.sent(conn) {
        if let Message::Update(update) = message {
            for Nlri { prefix, path_id } in update.withdrawn {
                assert!(held.remove(&(prefix, path_id)).is_some(), "{prefix} {path_id:?}");
            }
            for Reach { next_hop, nlri } in update.reach {
                let NextHop::V4(router) = next_hop else {
                    panic!("{next_hop}")
                };
                held.extend(
                    nlri.iter()
                        .map(|it| ((it.prefix, it.path_id), router.octets()[3])),
                );
            }
        }
    }
}

/// RFC 7911 §3 (withdrawal): of the path with that identifier only.
/// nasty case 46
/// RFC 7911 §3: a path is known by prefix and identifier; 0 is an identifier like any other, and withdrawing one
/// path leaves the others.
#[test]
fn a_peers_paths_come_and_go_by_identifier() {
    let mut rig = Rig::new(config());
    let conn = establish(&mut rig, 2, 0);
    let target = prefix("10.1.0.0/26");
    for (path_id, via) in [(0, 20), (7, 27), (u32::MAX, 30)] {
        rig.update(conn, with_id(path_id, via, target, path(&[])));
    }
    assert_eq!(rig.selected(target), [20, 27, 30]);
    assert_eq!((rig.peer(2).received, rig.peer(2).accepted), (3, 3));
    rig.update(conn, with_id(7, 28, target, path(&[])));
    assert_eq!(rig.selected(target), [20, 28, 30], "the same path, elsewhere");
    rig.update(conn, without(0, target));
    assert_eq!(rig.selected(target), [28, 30]);
    rig.update(conn, without(0, target));
    rig.update(conn, without(7, target));
    assert_eq!(rig.selected(target), [30]);
    assert_eq!(rig.paths(target)[0].path_id, Some(u32::MAX));
    rig.update(conn, without(u32::MAX, target));
    assert_eq!((rig.peer(2).received, rig.paths(target).len()), (0, 0));
}

/// RFC 7911 §3: the decision is over all paths, a peer's own included.
#[test]
fn the_best_path_is_the_best_of_all() {
    let mut rig = Rig::new(config());
    let conn = establish(&mut rig, 2, 0);
    let other = rig.establish(internal(3));
    let target = prefix("10.1.0.0/26");
    rig.update(conn, with_id(1, 21, target, path(&[1, 2, 3])));
    rig.update(other, announcement(33, target, path(&[1, 2])));
    assert_eq!(rig.selected(target), [33]);
    rig.update(conn, with_id(2, 22, target, path(&[1])));
    assert_eq!(rig.selected(target), [22]);
    rig.update(conn, without(2, target));
    assert_eq!(rig.selected(target), [33]);
}

/// A peer that has told two paths, 0 and 7, to one prefix, and that they are all.
fn two_paths() -> (Rig, ConnId, Prefix) {
    let mut rig = Rig::new(config());
    let conn = establish(&mut rig, 2, 0);
    let target = prefix("10.1.0.0/26");
    for (path_id, via) in [(0, 20), (7, 27)] {
        rig.update(conn, with_id(path_id, via, target, path(&[])));
    }
    rig.update(conn, end_of_rib());
    (rig, conn, target)
}

/// RFC 4724 §4.2 (stale): after a restart each path is kept, and swept, by itself.
#[test]
fn a_restart_keeps_and_sweeps_path_by_path() {
    let (mut rig, conn, target) = two_paths();
    rig.input(Input::Closed { conn });
    assert_eq!(rig.selected(target), [20, 27]);
    assert!(rig.paths(target).iter().all(|path| path.stale));
    let conn = rig.accept(2);
    rig.receive(conn, Message::Open(client_open(2)));
    rig.receive(conn, Message::Keepalive);
    rig.update(conn, with_id(7, 27, target, path(&[])));
    assert_eq!(rig.selected(target), [20, 27]);
    rig.update(conn, end_of_rib());
    assert_eq!(rig.selected(target), [27]);
    assert_eq!(rig.peer(2).received, 1);
}

/// RFC 7313 §4 (receiver): a refresh sweeps path by path, too.
#[test]
fn a_refresh_sweeps_path_by_path() {
    let (mut rig, conn, target) = two_paths();
    let mark = |subtype| {
        Message::RouteRefresh(RouteRefresh {
            family: Some(V4),
            subtype,
        })
    };
    rig.receive(conn, mark(RouteRefresh::BEGIN));
    rig.update(conn, with_id(0, 20, target, path(&[])));
    rig.receive(conn, mark(RouteRefresh::END));
    assert_eq!(rig.selected(target), [20]);
}

/// RFC 7911 §3: each path that leaves has an identifier of ours, which stays while the path does, whatever becomes of
/// the others; the paths' sources hear none of their own.
#[test]
fn every_path_is_reflected_with_an_identifier_that_stays() {
    let mut rig = Rig::new(config());
    let from = establish(&mut rig, 2, 0);
    let other = rig.establish(PeerConfig {
        route_reflector_client: true,
        ..internal(3)
    });
    let to = establish(&mut rig, 4, ALL);
    let plain = rig.establish(external(5));
    let target = prefix("10.1.0.0/26");
    let mut held = Held::new();
    rig.update(from, with_id(0, 20, target, path(&[1])));
    rig.update(from, with_id(9, 29, target, path(&[1, 2])));
    rig.update(other, announcement(33, target, path(&[1])));
    hear(&mut rig, to, &mut held);
    let before = held.clone();
    assert_eq!(before.values().copied().collect::<Vec<_>>(), [20, 29, 33]);
    assert!(before.keys().all(|(_, id)| id.is_some_and(|id| id > 0)));

    rig.update(from, without(0, target));
    rig.update(other, announcement(34, target, path(&[5, 6, 7])));
    hear(&mut rig, to, &mut held);
    let of = |held: &Held, router| held.iter().find(|(_, it)| **it == router).map(|(key, _)| *key);
    assert_eq!(of(&held, 29), of(&before, 29));
    assert_eq!(of(&held, 34), of(&before, 33), "the same path, changed");
    assert_eq!(held.len(), 2);

    let mut back = Held::new();
    hear(&mut rig, other, &mut back);
    assert_eq!(
        back.into_values().collect::<Vec<_>>(),
        [29],
        "without Add-Path, the best of the others' paths"
    );
    let mut one = Held::new();
    hear(&mut rig, plain, &mut one);
    assert_eq!(one.keys().map(|(_, id)| *id).collect::<Vec<_>>(), [None]);
    assert_eq!(rig.peer(4).advertised, 2);
}

/// A limit keeps the best: the next one comes in when one of them goes.
#[test]
fn a_limit_sends_the_best_paths() {
    let mut rig = Rig::new(config());
    let from = establish(&mut rig, 2, 0);
    let to = establish(&mut rig, 4, 2);
    let target = prefix("10.1.0.0/26");
    let long = |hops: u32| path(&(1..=hops).collect::<Vec<_>>());
    for (hops, via) in [(4, 24), (2, 22), (3, 23), (1, 21)] {
        rig.update(from, with_id(hops, via, target, long(hops)));
    }
    let routers = |held: &Held| {
        let mut routers: Vec<_> = held.values().copied().collect();
        routers.sort_unstable();
        routers
    };
    let mut held = Held::new();
    hear(&mut rig, to, &mut held);
    assert_eq!(routers(&held), [21, 22]);
    rig.update(from, without(1, target));
    hear(&mut rig, to, &mut held);
    assert_eq!(routers(&held), [22, 23]);
    // More paths need no new session.
    rig.input(Input::SetPeer(Box::new(client(4, ALL))));
    hear(&mut rig, to, &mut held);
    assert_eq!(routers(&held), [22, 23, 24]);
}

/// RFC 7911 §4: identifiers are in a direction where the sender sends and the receiver receives.
#[test]
fn identifiers_need_both_sides() {
    let mut deaf = client_open(2);
    deaf.capabilities
        .retain(|it| !matches!(it, Capability::AddPath(_)));
    let target = prefix("10.1.0.0/26");
    let mut rig = Rig::new(config());
    rig.input(Input::Originate(target));
    let conn = rig.establish_with(client(2, ALL), 2, deaf);
    let mut held = Held::new();
    hear(&mut rig, conn, &mut held);
    assert_eq!(held, Held::from([((target, None), 1)]));
}

/// What a source does: announce a path with a length, or withdraw it.
type Step = (u8, u8, u8, Option<u8>);

fn any_step() -> impl Strategy<Value = Step> {
    (2..5_u8, 0..2_u8, 0..3_u8, proptest::option::of(0..3_u8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever was announced and withdrawn, in the end a peer that is sent all paths has exactly those that there
    /// are, and one with a limit the best and no more than the limit.
    #[test]
    fn peers_hold_what_there_is(steps in proptest::collection::vec(any_step(), 1..40)) {
        let mut rig = Rig::new(config());
        let sources: Vec<ConnId> = (2..5).map(|id| establish(&mut rig, id, 0)).collect();
        let (all, two) = (establish(&mut rig, 8, ALL), establish(&mut rig, 9, 2));
        let mut held = [Held::new(), Held::new()];
        for (source, number, path_id, length) in steps {
            let conn = sources[usize::from(source - 2)];
            let target = prefix(["10.1.0.0/26", "10.2.0.0/26"][usize::from(number)]);
            rig.update(conn, match length {
                Some(length) => {
                    let hops: Vec<u32> = (1..=length.into()).collect();
                    with_id(path_id.into(), source * 10 + path_id, target, path(&hops))
                }
                None => without(path_id.into(), target),
            });
            for (conn, held) in [all, two].into_iter().zip(&mut held) {
                hear(&mut rig, conn, held);
                let of_target = |held: &Held| {
                    let of_target = held.iter().filter(|((prefix, _), _)| *prefix == target);
                    of_target.map(|(_, router)| *router).collect::<Vec<_>>()
                };
                let mut there = Vec::new();
                for path in rig.paths(target) {
                    let Some(NextHop::V4(router)) = path.next_hop else { panic!("{path:?}") };
                    there.push(router.octets()[3]);
                }
                let mut has = of_target(held);
                let limit = if conn == all { ALL } else { 2 };
                prop_assert_eq!(has.len(), there.len().min(limit));
                prop_assert!(there.first().is_none_or(|best| has.contains(best)));
                if conn == all {
                    has.sort_unstable();
                    there.sort_unstable();
                    prop_assert_eq!(has, there);
                }
            }
        }
    }
}
