//! Two nodes on one wire: a mesh of one session carries their blocks to each other.

use manx_api::Kind;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};

/// A session takes a few seconds on a machine that does much else.
const LATER: std::time::Duration = std::time::Duration::from_secs(60);

fn pair(cluster: &Cluster) -> (Node, Node) {
    let (left, right) = (TestNetns::new("left"), TestNetns::new("right"));
    left.connect(
        &right,
        "eth0",
        [
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        ],
    );
    let (mut left, mut right) = (cluster.node("left", left), cluster.node("right", right));
    left.start();
    right.start();
    (left, right)
}

fn learned(node: &Node) -> bool {
    ["-4", "-6"].iter().all(|family| {
        !node
            .netns
            .ip(&format!("{family} route show proto 179"))
            .is_empty()
    })
}

#[test]
fn pods_on_two_nodes_reach_each_other_through_an_agents_death_and_return() {
    let cluster = Cluster::new();
    let (mut left, right) = pair(&cluster);
    let (a, b) = (TestNetns::new("a"), TestNetns::new("b"));
    let (at_a, at_b) = (left.add("a", &a), right.add("b", &b));
    assert!(
        eventually(LATER, || learned(&left) && learned(&right)),
        "{}\n{}",
        left.log(),
        right.log()
    );
    let connected = || {
        for (from, to) in at_a.iter().zip(&at_b) {
            assert_eq!(exchange(&a, &b, *to), Some(*from));
            assert_eq!(exchange(&b, &a, *from), Some(*to));
        }
    };
    connected();

    let before = [table(&left), table(&right)];
    left.end(Signal::SIGKILL);
    connected();
    left.start();
    let established = || left.status().is_some_and(|status| status.peers_established == 1);
    assert!(eventually(LATER, established), "{}", left.log());
    connected();
    assert_eq!([table(&left), table(&right)], before);
}

#[test]
fn a_pool_that_comes_late_and_a_node_that_leaves_are_followed() {
    let cluster = Cluster::empty();
    let (left, right) = (TestNetns::new("left"), TestNetns::new("right"));
    left.connect(
        &right,
        "eth0",
        [
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        ],
    );
    let (mut left, mut right) = (cluster.node("left", left), cluster.node("right", right));
    left.launch();
    right.launch();
    let established = |node: &Node| node.status().is_some_and(|status| status.peers_established == 1);
    assert!(
        eventually(LATER, || established(&left) && established(&right)),
        "{}",
        left.log()
    );
    assert!(
        !left.status().unwrap().ready,
        "without a pool no pod can be attached"
    );
    cluster.create_pool("v4", &json!({"cidr": "10.64.0.0/16"}));
    cluster.create_pool("v6", &json!({"cidr": "fd64::/64"}));
    assert!(
        eventually(LATER, || learned(&left) && learned(&right)),
        "{}\n{}",
        left.log(),
        right.log()
    );
    assert!(eventually(LATER, || left
        .status()
        .is_some_and(|status| status.ready)));

    right.end(Signal::SIGTERM);
    cluster.delete(Kind::Node, "right");
    let forgotten = || left.netns.ip("-4 route show proto 179").is_empty();
    assert!(eventually(LATER, forgotten), "{}", left.log());
    assert_eq!(left.status().unwrap().peers_configured, 0);
}

#[test]
fn the_clusters_as_changes_and_no_route_with_it() {
    let cluster = Cluster::new();
    let (left, right) = pair(&cluster);
    assert!(
        eventually(LATER, || learned(&left) && learned(&right)),
        "{}\n{}",
        left.log(),
        right.log()
    );
    let before = [table(&left), table(&right)];
    cluster.create("BGPConfiguration", "default", &json!({"asNumber": 64600}));
    let follows = |node: &Node| {
        node.status()
            .is_some_and(|status| status.asn == 64600 && status.peers_established == 1)
    };
    assert!(
        eventually(LATER, || follows(&left) && follows(&right)),
        "{}\n{}",
        left.log(),
        right.log()
    );
    assert_eq!([table(&left), table(&right)], before);
}

/// A node's whole main table, for comparison.
fn table(node: &Node) -> String {
    node.netns.ip("-N route show table main") + &node.netns.ip("-N -6 route show table main")
}
