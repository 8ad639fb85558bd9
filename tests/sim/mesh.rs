//! Full meshes: everybody learns everybody's block, whoever comes and goes.

use std::time::Duration;

use crate::network::{Network, seeds};

#[test]
fn two_speakers_bring_up_a_session_and_exchange_routes() {
    for seed in seeds(20) {
        let mut network = Network::new(2, seed);
        network.boot(0);
        network.boot(1);
        network.join(0, 1);
        network.run_until(Duration::from_secs(2), "both learn a route", |network| {
            network.hosts.iter().all(|host| host.selected.len() == 1)
        });
        network.run(Duration::from_secs(600));
        for node in 0..2 {
            network.check(network.sessions(node) == 1, "the session stays");
            network.check(network.connections(node) == 1, "one connection");
            network.check(network.hosts[node].converged, "converged");
        }
    }
}
