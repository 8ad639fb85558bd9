//! Both ends dial at once.

use std::time::Duration;

use manx_bgp::{Config, Input, PeerConfig, State};
use rand::RngExt;

use crate::network::{ASN, Network, address, config, key, peer, seeds};

/// Two speakers of these settings that dial each other at about the same time.
fn dial_both(seed: u64, configs: [Config; 2], graceful_restart: Option<Duration>) -> Network {
    let mut network = Network::new(2, seed);
    network.latency = Duration::from_micros(network.rng.random_range(20..200_000));
    let asns = [configs[0].asn, configs[1].asn];
    for (node, config) in configs.into_iter().enumerate() {
        network.start(node, config);
        let other = PeerConfig {
            asn: asns[1 - node],
            graceful_restart,
            ..peer(1 - node)
        };
        network.input(node, Input::SetPeer(Box::new(other)));
        if network.rng.random_bool(0.5) {
            let pause = Duration::from_micros(network.rng.random_range(0..200_000));
            network.run(pause);
        }
    }
    network
}

/// Exactly one session is up, on one connection, and stays up.
fn check_one_session(network: &mut Network) {
    let up = |network: &Network| {
        [(0, 1), (1, 0)]
            .into_iter()
            .all(|(a, b)| network.state(a, b) == State::Established)
    };
    network.run(Duration::from_secs(8));
    network.check(up(network), "the session is up");
    network.check(
        network.connections(0) == 1 && network.connections(1) == 1,
        "on one connection",
    );
    let flaps = network.flaps();
    network.run(Duration::from_secs(300));
    network.check(up(network) && network.flaps() == flaps, "and stays up");
}

/// RFC 4271 §6.8: the same one at both ends.
/// nasty case 43
#[test]
fn exactly_one_session_survives_a_thousand_times() {
    for seed in seeds(1000) {
        let restart = (seed % 2 == 0).then_some(Duration::from_secs(120));
        let mut network = dial_both(seed, [config(0, seed), config(1, seed)], restart);
        check_one_session(&mut network);
    }
}

/// RFC 6286 §2.3: the greater AS wins.
#[test]
fn speakers_of_equal_identifiers_in_different_ases_settle_by_as() {
    for seed in seeds(200) {
        let of = |node, asn| Config {
            asn,
            router_id: address(7),
            ..config(node, seed)
        };
        let mut network = dial_both(seed, [of(0, ASN), of(1, ASN + 1)], None);
        check_one_session(&mut network);
    }
}

/// nasty case 38
#[test]
fn a_connection_from_nowhere_is_closed() {
    for seed in seeds(3) {
        let mut network = Network::new(2, seed);
        network.start(0, config(0, seed));
        network.start(1, config(1, seed));
        network.set_peer(0, 1);
        network.run(Duration::from_secs(30));
        network.check(
            network.state(0, 1) != State::Established,
            "node 1 does not know node 0",
        );
        network.check(network.connections(1) == 0, "it keeps no connection");
        network.check(
            network.hosts[0].dials.len() <= 10,
            "node 0 tries less and less often",
        );
        network.set_peer(1, 0);
        network.run(Duration::from_secs(3));
        network.check(
            network.state(0, 1) == State::Established,
            "as soon as it does, they talk",
        );
        network.input(1, Input::RemovePeer(key(0)));
        network.run(Duration::from_secs(1));
        network.check(
            network.connections(0) == 0 && network.connections(1) == 0,
            "until it does not",
        );
    }
}
