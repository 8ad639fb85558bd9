//! Many at once: peers that all start together, that reset every connection, that flap, that leave in the middle.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use manx_bgp::wire::{self, AsPath, Attributes, Context, Message, NextHop, Nlri, Reach, Segment, Update};
use manx_bgp::{Family, Gateway, Input, Prefix, State};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::network::{ASN, Network, Node, address, block, key, seeds};
use crate::plan::Plan;

/// A hub with many peers, which do not know each other.
fn star(spokes: usize, seed: u64) -> Plan {
    let mut plan = Plan::new(1 + spokes, seed);
    // Sessions are what counts: few have anything to say.
    plan.origins.iter_mut().skip(10).for_each(BTreeSet::clear);
    (1..=spokes).for_each(|spoke| plan.client(0, spoke));
    plan
}

/// Starts everybody in random order, each within `limit` after the one before.
pub(crate) fn start_all(plan: &Plan, network: &mut Network, limit: Duration) {
    let mut order: Vec<Node> = (0..plan.speakers.len()).collect();
    order.shuffle(&mut network.rng);
    for node in order {
        plan.boot(network, node, false);
        let pause = limit.mul_f64(network.rng.random());
        network.run(pause);
    }
}

/// nasty case 58
#[test]
fn five_hundred_peers_that_start_in_any_order_are_up_in_under_a_second() {
    for seed in seeds(2) {
        let plan = star(500, seed);
        let mut network = Network::new(501, seed);
        start_all(&plan, &mut network, Duration::from_millis(20));
        network.run_until(Duration::from_secs(1), "all sessions are up", |network| {
            network.hosts[0].flaps >= 500
        });
        network.check(network.sessions(0) == 500, "and stay up");
    }
}

/// nasty case 58: a hub that only waits is found as soon, though the first dials find nobody.
#[test]
fn a_hub_that_waits_is_found_by_all_in_under_a_second() {
    for seed in seeds(2) {
        let mut plan = star(200, seed);
        (1..=200).for_each(|spoke| plan.treats(0, spoke, |peer| peer.passive = true));
        let mut network = Network::new(201, seed);
        start_all(&plan, &mut network, Duration::from_millis(2));
        network.run_until(Duration::from_secs(1), "all sessions are up", |network| {
            network.hosts[0].flaps >= 200
        });
    }
}

/// nasty case 58
#[test]
fn a_mesh_that_starts_at_once_is_up_in_under_a_second() {
    for seed in seeds(2) {
        let count = 40;
        let plan = Plan::mesh(count, seed);
        let mut network = Network::new(count, seed);
        start_all(&plan, &mut network, Duration::from_millis(5));
        network.run_until(
            Duration::from_secs(1),
            "everybody talks to everybody",
            |network| (0..count).all(|node| network.sessions(node) == count - 1),
        );
    }
}

/// nasty case 42: a peer that accepts every connection and resets it at once.
#[test]
fn a_peer_that_resets_at_once_is_dialled_less_than_once_a_second() {
    for seed in seeds(5) {
        let mut network = Network::new(2, seed);
        network.boot(0);
        network.boot(1);
        network.set_peer(0, 1);
        let mut seen = Vec::new();
        for _ in 0..30 {
            network.run(Duration::from_secs(10));
            seen.push(network.hosts[0].dials.len());
        }
        network.check(seen[0] <= 10, "ten dials in the first ten seconds");
        network.check(seen[29] - seen[19] <= 5, "a handful in the last hundred");
    }
}

/// nasty case 42: a peer with which every session comes up, to be reset at once.
#[test]
fn sessions_that_flap_are_tried_less_and_less_often() {
    for seed in seeds(5) {
        let mut network = Network::mesh(2, seed);
        let before = network.hosts[0].flaps;
        let end = network.elapsed() + Duration::from_secs(300);
        while network.elapsed() < end {
            if network.state(0, 1) == State::Established {
                network.reset(0, 1);
            }
            network.run(Duration::from_millis(20));
        }
        let sessions = (network.hosts[0].flaps - before) / 2;
        network.check(sessions <= 30, "one session in ten seconds");
        network.check(sessions >= 10, "they are tried all the same");
    }
}

/// nasty case 34
#[test]
fn a_peer_that_is_removed_in_the_middle_of_a_full_feed_leaves_nothing() {
    for seed in seeds(3) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(15));
        let prefixes: Vec<Prefix> = (0..20_000_u32)
            .map(|n| Prefix::v4(Ipv4Addr::from(0x1400_0000 + (n << 8)), 24).unwrap())
            .collect();
        // The reader of one peer stops, so that the feed is under way when the peer is removed at either end.
        network.hosts[1].slow = true;
        for &prefix in &prefixes {
            network.input(0, Input::Originate(prefix));
        }
        network.input(0, Input::RemovePeer(key(1)));
        network.input(2, Input::RemovePeer(key(0)));
        network.run(Duration::from_secs(1));
        network.catch_up(1);
        network.run(Duration::from_secs(1));
        for node in [1, 2] {
            let left = network.hosts[node].speaker.as_ref().unwrap().paths().len();
            network.check(left == 2, "two blocks are left, of those who still talk");
            network.check(network.hosts[node].selected.len() == 1, "in the kernel as well");
        }
        network.join(0, 1);
        network.join(0, 2);
        network.run(Duration::from_secs(15));
        for node in [1, 2] {
            network.check(
                network.hosts[node].selected.len() == prefixes.len() + 2,
                "all is there again",
            );
        }
    }
}

/// nasty case 49: what comes and goes and comes within one turn is there, and was told once.
#[test]
fn the_last_word_of_a_turn_is_what_is_said() {
    for seed in seeds(3) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(15));
        let (stays, goes): (Prefix, Prefix) =
            ("10.200.0.0/24".parse().unwrap(), "10.201.0.0/24".parse().unwrap());
        let before = network.changes();
        let now = network.now;
        let speaker = network.hosts[0].speaker.as_mut().unwrap();
        for _ in 0..3 {
            for prefix in [stays, goes] {
                speaker.handle(now, Input::Originate(prefix));
                speaker.handle(now, Input::Unoriginate(prefix));
            }
        }
        speaker.handle(now, Input::Originate(stays));
        network.input(0, Input::Tick);
        network.run(Duration::from_secs(1));
        for (node, before) in before.into_iter().enumerate().skip(1) {
            let host = &network.hosts[node];
            network.check(host.selected.contains_key(&stays), "it is there");
            network.check(!host.selected.contains_key(&goes), "the other is not");
            network.check(host.changes == before + 1, "nothing else was ever said");
        }
    }
}

/// nasty case 50: what flaps a hundred times a second is passed on so often at most, through two reflectors as well.
#[test]
fn a_prefix_that_flaps_is_not_amplified() {
    for seed in seeds(3) {
        let plan = Plan::reflectors(2, 2, seed);
        let mut network = Network::new(plan.speakers.len(), seed);
        start_all(&plan, &mut network, Duration::from_millis(5));
        network.run(Duration::from_secs(15));
        let (source, flapping) = (4, block(900));
        let before = network.changes();
        for _ in 0..500 {
            network.input(source, Input::Originate(flapping));
            network.run(Duration::from_millis(10));
            network.input(source, Input::Unoriginate(flapping));
            network.run(Duration::from_millis(10));
        }
        network.run(Duration::from_secs(1));
        for (node, before) in before.into_iter().enumerate() {
            let host = &network.hosts[node];
            // A reflected copy may come before the other is gone: one more word per path, of two.
            network.check(host.changes - before <= 4 * 1000, "bounded by the flaps");
            network.check(!host.selected.contains_key(&flapping), "and it is gone");
        }
    }
}

/// A route of an AS with a metric for its neighbours, sent by `from` to `to` in its own name.
fn announce_with_med(network: &mut Network, from: Node, to: Node, asn: u32, med: u32) {
    let update = Update {
        reach: vec![Reach {
            next_hop: NextHop::V4(address(from)),
            nlri: vec![Nlri {
                path_id: None,
                prefix: block(900),
            }],
        }],
        attributes: Attributes {
            as_path: AsPath {
                segments: [Segment::Sequence(vec![asn, 9])].into(),
            },
            med: Some(med),
            ..Attributes::default()
        },
        ..Update::default()
    };
    let context = Context {
        external: true,
        four_octet_as: true,
        ..Context::default()
    };
    let bytes: Bytes = wire::encode(&Message::Update(update), &context);
    network.inject(from, to, &bytes);
}

/// nasty case 65: metrics compare within a neighbouring AS only, which makes preference intransitive (RFC 3345); the
/// choice is the same in whatever order the routes come, change and come again.
#[test]
fn metrics_decide_the_same_in_any_order() {
    // Three routers of two ASes: the first would win but for its metric.
    let offers = [(1, ASN + 1, 10), (2, ASN + 2, 50), (3, ASN + 1, 5)];
    for seed in seeds(30) {
        let mut plan = Plan::new(4, seed);
        for (node, asn, _) in offers {
            plan.speakers[node].asn = asn;
            plan.link(0, node);
            plan.treats(node, 0, |peer| peer.families = vec![Family::Ipv4Unicast]);
        }
        let mut network = Network::new(4, seed);
        start_all(&plan, &mut network, Duration::from_millis(5));
        network.run(Duration::from_secs(15));
        for _ in 0..4 {
            let mut order = offers;
            order.shuffle(&mut network.rng);
            for (node, asn, med) in order {
                // Now and then, another metric first.
                if network.rng.random_bool(0.3) {
                    let other = network.rng.random_range(0..100);
                    announce_with_med(&mut network, node, 0, asn, other);
                }
                announce_with_med(&mut network, node, 0, asn, med);
                let pause = Duration::from_millis(network.rng.random_range(0..10));
                network.run(pause);
            }
            network.run(Duration::from_secs(1));
            let next_hops = network.hosts[0].selected.get(&block(900)).cloned();
            let wanted = [2, 3].map(|id| Gateway::new(NextHop::V4(address(id)), 0));
            network.check(
                next_hops.as_deref() == Some(&wanted),
                &format!("the better of one AS, and the other AS's: {next_hops:?}"),
            );
        }
        let changes = network.changes();
        network.run(Duration::from_secs(60));
        network.check(changes == network.changes(), "nothing goes round in circles");
    }
}

/// nasty case 53: a peer that carries one family is not waited for with the other.
#[test]
fn the_end_of_routes_is_awaited_for_the_families_that_both_carry() {
    for seed in seeds(5) {
        let mut plan = Plan::mesh(3, seed);
        plan.treats(1, 0, |peer| peer.families = vec![Family::Ipv4Unicast]);
        plan.treats(2, 0, |peer| peer.families = vec![Family::Ipv6Unicast]);
        let mut network = Network::new(3, seed);
        (0..3).for_each(|node| plan.boot(&mut network, node, true));
        network.run(Duration::from_secs(3));
        network.check(
            network.hosts[0].converged,
            "long before the deferral of ten seconds is over",
        );
    }
}

/// nasty case 63: a route whose next hop lies within itself, or within one that leads back, is told once: the kernel,
/// which resolves next hops, refuses it or not; nothing is taken back and tried again.
#[test]
fn a_route_through_itself_is_told_once() {
    for seed in seeds(3) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(15));
        let before = network.changes();
        for (prefix, next_hop) in [
            ("10.50.0.0/24", [10, 50, 0, 1]),
            ("10.60.0.0/24", [10, 70, 0, 1]),
            ("10.70.0.0/24", [10, 60, 0, 1]),
        ] {
            let update = Update {
                reach: vec![Reach {
                    next_hop: NextHop::V4(next_hop.into()),
                    nlri: vec![Nlri {
                        path_id: None,
                        prefix: prefix.parse().unwrap(),
                    }],
                }],
                attributes: Attributes {
                    local_pref: Some(100),
                    ..Attributes::default()
                },
                ..Update::default()
            };
            let bytes = wire::encode(&Message::Update(update), &Context::default());
            network.inject(1, 0, &bytes);
        }
        network.run(Duration::from_secs(600));
        network.check(
            network.changes()[0] == before[0] + 3,
            "three routes, each told once",
        );
    }
}
