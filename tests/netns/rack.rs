//! A rack as `docs/kubernetes.md` has it: its router with the configuration that is printed there, its nodes with the
//! resources of `deploy/overlays/tor`.

use std::path::Path;
use std::time::Duration;

use manx_tests::foreign::{self, Place, Process};
use manx_tests::manifests::{blocks, rendered};
use serde_json::json;

use crate::agent_harness::Cluster;
use crate::harness::{TestNetns, eventually, exchange};

/// Two sessions, one after the other.
const LATER: Duration = Duration::from_secs(60);

/// Starts a router; what it returns ends with it.
type Start = fn(&Place) -> Vec<Process>;

fn bird(place: &Place) -> Vec<Process> {
    place.write("bird.conf", blocks("kubernetes.md", "bird").concat());
    vec![foreign::bird(place, false)]
}

fn frr(place: &Place) -> Vec<Process> {
    let zebra = foreign::zebra(place);
    place.write("bgpd.conf", blocks("kubernetes.md", "frr").concat());
    vec![zebra, foreign::bgpd(place, true)]
}

fn a_rack_is_connected_by(start: Start) {
    let cluster = Cluster::empty();
    for resource in rendered("overlays/tor") {
        cluster.store(resource);
    }
    let (router, nodes) = cluster.three();
    router.ip("address add 192.0.2.254/24 dev br0");
    let place = Place::new(&router);
    let _router = start(&place);
    let mut nodes = nodes;
    for node in &mut nodes {
        node.configure("labels", json!({"rack": "a"}));
        node.start();
    }
    let pods = ["one", "two"].map(TestNetns::new);
    let address = |index: usize| {
        let output = nodes[index].cni("ADD", "pod", Path::new(pods[index].path()));
        nodes[index].added(&output)[0]
    };
    let addresses = [address(0), address(1)];
    let logs = || [nodes[0].log(), nodes[1].log()].join("\n---\n");
    let passes = || exchange(&pods[0], &pods[1], addresses[1]) == Some(addresses[0]);
    assert!(eventually(LATER, passes), "{}", logs());
    // Each node has a block; the router has heard of all three, and each node of the others'.
    let count = |netns: &TestNetns, proto: &str| {
        netns
            .ip(&format!("route show proto {proto}"))
            .matches("via 192.0.2.")
            .count()
    };
    let heard = || {
        let of_router = count(&router, "bgp") + count(&router, "bird");
        of_router == 3 && nodes.iter().all(|node| count(&node.netns, "179") == 2)
    };
    assert!(eventually(LATER, heard), "{}\n{}", router.ip("route"), logs());
}

#[test]
fn bird_is_a_racks_router_with_what_the_documents_say() {
    a_rack_is_connected_by(bird);
}

#[test]
fn frr_is_a_racks_router_with_what_the_documents_say() {
    a_rack_is_connected_by(frr);
}
