//! Full meshes: everybody learns everybody's block, whoever comes and goes.

use std::time::Duration;

use manx_bgp::Input;
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::network::{Network, block, key, seeds};

#[test]
fn two_speakers_bring_up_a_session_and_exchange_routes() {
    for seed in seeds(20) {
        let mut network = Network::mesh(2, seed);
        network.run(Duration::from_secs(600));
        for node in 0..2 {
            network.check(network.sessions(node) == 1, "the session stays");
            network.check(network.connections(node) == 1, "one connection");
            network.check(network.hosts[node].converged, "converged");
        }
    }
}

#[test]
fn a_hundred_speakers_started_in_random_order_converge() {
    for seed in seeds(1) {
        let count = 100;
        let mut network = Network::new(count, seed);
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut network.rng);
        for node in order {
            network.boot(node);
            network.mesh_peers(node);
            let pause = Duration::from_millis(network.rng.random_range(0..20));
            network.run(pause);
        }
        network.run_until(
            Duration::from_secs(5),
            "every table equals the model",
            Network::complete,
        );
        network.run(Duration::from_secs(12));
        for node in 0..count {
            network.check(network.sessions(node) == count - 1, "one session with each");
            network.check(network.connections(node) == count - 1, "one connection with each");
            network.check(network.hosts[node].converged, "all have said End-of-RIB");
        }
    }
}

#[test]
fn removing_a_node_withdraws_its_block_and_touches_no_other_session() {
    for seed in seeds(5) {
        let mut network = Network::mesh(6, seed);
        network.run(Duration::from_secs(15));
        let flaps = network.flaps();
        for node in 0..5 {
            network.input(node, Input::RemovePeer(key(5)));
        }
        network.run(Duration::from_secs(1));
        for (node, flaps) in flaps.into_iter().enumerate().take(5) {
            network.check(
                !network.hosts[node].selected.contains_key(&block(5)),
                "its block is gone",
            );
            network.check(network.hosts[node].selected.len() == 4, "the others' are not");
            network.check(network.hosts[node].flaps == flaps + 1, "one session went");
        }
        network.run(Duration::from_secs(60));
        network.check(network.sessions(5) == 0, "nobody talks to it any more");
    }
}

/// nasty case 56
#[test]
fn adding_a_node_touches_no_session_that_stands() {
    for seed in seeds(5) {
        let mut network = Network::new(6, seed);
        for a in 0..5 {
            network.boot(a);
        }
        for (a, b) in (0..5).flat_map(|a| (0..a).map(move |b| (a, b))) {
            network.join(a, b);
        }
        network.run(Duration::from_secs(15));
        let flaps = network.flaps();
        network.boot(5);
        for node in 0..5 {
            network.join(node, 5);
        }
        network.run_until(
            Duration::from_secs(5),
            "the newcomer is part of the mesh",
            Network::complete,
        );
        network.run(Duration::from_secs(60));
        for (node, flaps) in flaps.into_iter().enumerate().take(5) {
            network.check(network.sessions(node) == 5, "all sessions are up");
            // A collision may take a session down that has just come up, once.
            network.check(
                network.hosts[node].flaps <= flaps + 3,
                "the others never went down",
            );
        }
    }
}

/// RFC 4271 §6.5: and its routes go.
#[test]
fn a_dead_peers_routes_go_when_the_hold_time_is_over() {
    for seed in seeds(10) {
        let mut network = Network::mesh_with(3, seed, |peer| {
            peer.graceful_restart = None;
            peer.hold_time = Duration::from_secs(9);
        });
        network.run(Duration::from_secs(30));
        network.lose_power(2);
        network.run(Duration::from_secs(5));
        network.check(
            network.hosts[0].selected.contains_key(&block(2)),
            "not before the hold time",
        );
        network.run(Duration::from_secs(5));
        network.check(network.complete(), "gone afterwards");
        network.check(
            network.sessions(0) == 1 && network.sessions(1) == 1,
            "the others still talk",
        );
    }
}

#[test]
fn a_partition_heals() {
    for seed in seeds(10) {
        let mut network = Network::mesh_with(4, seed, |peer| {
            peer.graceful_restart = None;
            peer.hold_time = Duration::from_secs(9);
        });
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            network.cut(a, b);
        }
        network.run(Duration::from_secs(60));
        network.check(
            network.hosts.iter().all(|host| host.selected.len() == 1),
            "each half knows itself",
        );
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            network.mend(a, b);
        }
        network.run_until(
            Duration::from_secs(35),
            "the halves are one again",
            Network::complete,
        );
    }
}

#[test]
fn connections_reset_at_random_come_back() {
    for seed in seeds(10) {
        let mut network = Network::mesh(8, seed);
        for _ in 0..200 {
            let (a, b) = (network.rng.random_range(0..8), network.rng.random_range(0..8));
            network.reset(a, b);
            let pause = Duration::from_millis(network.rng.random_range(0..500));
            network.run(pause);
        }
        network.run(Duration::from_secs(60));
        network.check(network.complete(), "the mesh is complete");
        network.check(
            (0..8).all(|node| network.connections(node) == 7),
            "with one connection each",
        );
    }
}
