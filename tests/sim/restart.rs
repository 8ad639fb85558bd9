//! Graceful restart: who keeps forwarding keeps its routes (RFC 4724).

use std::time::Duration;

use manx_bgp::{Input, PeerConfig, Prefix};

use crate::network::{Network, Node, block, config, peer, seeds};

/// All but `node` have been told nothing since `before`.
fn undisturbed(network: &Network, before: &[usize], node: Node) -> bool {
    network
        .changes()
        .iter()
        .zip(before)
        .enumerate()
        .all(|(it, (after, before))| it == node || after == before)
}

/// RFC 4724 §4.2 (stale): until announced again.
#[test]
fn a_killed_speaker_that_comes_back_disturbs_nobody() {
    for seed in seeds(30) {
        let mut network = Network::mesh(5, seed);
        network.run(Duration::from_secs(20));
        let before = network.changes();
        network.kill(2);
        network.run(Duration::from_secs(30));
        network.reboot(2);
        network.run(Duration::from_secs(30));
        network.check(network.complete(), "the mesh is complete");
        network.check(network.hosts[2].converged, "the restarted one has heard all");
        network.check(undisturbed(&network, &before, 2), "no route flapped");
    }
}

#[test]
fn a_speaker_that_is_shut_down_keeps_its_routes_as_well() {
    for seed in seeds(10) {
        let mut network = Network::mesh(4, seed);
        network.run(Duration::from_secs(20));
        let before = network.changes();
        network.input(1, Input::Shutdown);
        network.kill(1);
        network.run(Duration::from_secs(5));
        network.check(network.sessions(0) == 2, "its sessions are down");
        network.reboot(1);
        network.run(Duration::from_secs(20));
        network.check(
            network.complete() && undisturbed(&network, &before, 1),
            "no route flapped",
        );
    }
}

#[test]
fn without_graceful_restart_routes_go_at_once() {
    for seed in seeds(5) {
        let mut network = Network::mesh_with(4, seed, |peer| peer.graceful_restart = None);
        network.run(Duration::from_secs(15));
        network.input(1, Input::Shutdown);
        network.kill(1);
        network.run(Duration::from_secs(1));
        network.check(
            !network.hosts[0].selected.contains_key(&block(1)),
            "its block is gone",
        );
    }
}

/// RFC 4724 §4.2 (stale): or for the restart time.
/// nasty case 55
#[test]
fn who_does_not_come_back_is_dropped_after_its_restart_time() {
    for seed in seeds(5) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(15));
        network.kill(2);
        network.run(Duration::from_secs(119));
        network.check(
            network.hosts[0].selected.contains_key(&block(2)),
            "kept for 120 s",
        );
        let paths = network.hosts[0].speaker.as_ref().unwrap().paths();
        network.check(
            paths.iter().any(|path| path.prefix == block(2) && path.stale),
            "as a stale path",
        );
        network.run(Duration::from_secs(2));
        network.check(network.complete(), "and not longer");
    }
}

/// RFC 4724 §4.2 (forwarding): without F they go.
#[test]
fn who_lost_its_forwarding_state_loses_its_routes_when_it_is_back() {
    for seed in seeds(5) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(15));
        network.kill(2);
        network.run(Duration::from_secs(1));
        let before = network.changes();
        // A first boot: nobody says that packets were forwarded meanwhile.
        network.start(2, config(2, seed));
        network.mesh_peers(2);
        network.run(Duration::from_secs(10));
        network.check(
            !network.hosts[0].selected.contains_key(&block(2)),
            "the old route is gone",
        );
        network.check(network.hosts[0].changes == before[0] + 1, "said once");
    }
}

/// RFC 4724 §4.2 (stale): or until End-of-RIB.
#[test]
fn what_is_not_announced_again_goes_with_the_end_of_rib() {
    for seed in seeds(5) {
        let mut network = Network::mesh(3, seed);
        let extra: Prefix = "10.200.0.0/26".parse().unwrap();
        network.input(2, Input::Originate(extra));
        network.run(Duration::from_secs(15));
        network.check(network.hosts[0].selected.contains_key(&extra), "two prefixes");
        network.kill(2);
        network.run(Duration::from_secs(1));
        network.reboot(2);
        network.run(Duration::from_secs(10));
        network.check(network.complete(), "one prefix");
    }
}

/// RFC 4724 §4.2 (takeover): on the new connection.
/// nasty case 61
#[test]
fn a_host_that_restarts_before_it_is_missed_takes_over() {
    for seed in seeds(20) {
        let mut network = Network::mesh(3, seed);
        network.run(Duration::from_secs(20));
        let before = network.changes();
        network.lose_power(2);
        network.run(Duration::from_millis(100));
        network.reboot(2);
        network.run(Duration::from_secs(3));
        network.check(network.sessions(2) == 2, "its old sessions do not keep it out");
        network.check(
            network.complete() && undisturbed(&network, &before, 2),
            "and nothing flaps",
        );
    }
}

#[test]
fn a_restarted_reflector_does_not_cut_its_clients_off_from_each_other() {
    for seed in seeds(20) {
        let count = 6;
        let mut network = Network::new(count, seed);
        for node in 0..count {
            network.boot(node);
        }
        reflect(&mut network);
        network.run_until(
            Duration::from_secs(5),
            "all learn all through the reflector",
            Network::complete,
        );
        network.run(Duration::from_secs(20));
        let before = network.changes();
        network.kill(0);
        network.run(Duration::from_secs(2));
        network.reboot(0);
        reflect(&mut network);
        network.run(Duration::from_secs(20));
        network.check(
            network.complete() && undisturbed(&network, &before, 0),
            "no route flapped",
        );
    }
}

/// Host 0 reflects for all others, which wait for it to connect.
fn reflect(network: &mut Network) {
    for node in 1..network.hosts.len() {
        let client = PeerConfig {
            route_reflector_client: true,
            ..peer(node)
        };
        network.input(0, Input::SetPeer(Box::new(client)));
        network.set_peer(node, 0);
    }
}

/// nasty case 54
#[test]
fn a_dead_peer_holds_a_restart_up_for_two_seconds_only() {
    for seed in seeds(10) {
        let mut network = Network::mesh(4, seed);
        network.run(Duration::from_secs(20));
        network.kill(3);
        network.kill(2);
        network.run(Duration::from_secs(1));
        network.reboot(2);
        network.run(Duration::from_secs(4));
        let stale = |node: Node| {
            let paths = network.hosts[node].speaker.as_ref().unwrap().paths();
            paths.iter().any(|path| path.prefix == block(2) && path.stale)
        };
        network.check(!stale(0) && !stale(1), "it has announced its block again");
        network.check(
            !network.hosts[2].converged,
            "but it does not call its table complete",
        );
        network.run(Duration::from_secs(10));
        network.check(network.hosts[2].converged, "until the time is up");
    }
}

/// nasty case 69
#[test]
fn a_first_boot_announces_at_once() {
    for seed in seeds(10) {
        let mut network = Network::new(3, seed);
        network.boot(0);
        network.boot(1);
        network.mesh_peers(0);
        network.mesh_peers(1);
        network.run(Duration::from_secs(1));
        network.check(
            network.hosts[0].selected.contains_key(&block(1)),
            "though a third peer is dead",
        );
    }
}
