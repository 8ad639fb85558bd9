//! One node: pods come and go, the agent dies and returns.

use std::path::Path;
use std::time::Duration;

use manx_api::Kind;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};

/// What comes back must do so within this.
const SOON: Duration = Duration::from_secs(1);

/// What goes through the datastore, or waits for a start.
const LATER: Duration = Duration::from_secs(30);

/// A node, and what is at the other end of its wire.
fn node(cluster: &Cluster) -> (Node, TestNetns) {
    let [netns, outside] = TestNetns::pair(["node", "outside"]);
    (cluster.node("n1", netns), outside)
}

#[test]
fn pods_of_a_node_reach_each_other_and_are_reached_by_it() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let (a, b) = (TestNetns::new("a"), TestNetns::new("b"));
    let (at_a, at_b) = (node.add("a", &a), node.add("b", &b));
    assert_eq!((at_a.len(), at_b.len()), (2, 2), "one address per family");
    for (from_a, to_b) in at_a.iter().zip(&at_b) {
        assert_eq!(
            exchange(&a, &b, *to_b),
            Some(*from_a),
            "the receiver sees the sender's own address"
        );
        assert!(exchange(&node.netns, &b, *to_b).is_some());
    }
    assert_eq!(
        node.add("a", &a),
        at_a,
        "a repeated ADD finds what the first one made"
    );
    let described = || cluster.count(Kind::WorkloadEndpoint) == 2;
    assert!(eventually(LATER, described), "{}", node.log());
}

#[test]
fn delete_frees_what_add_made_and_knows_no_error_for_the_unknown() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let pod = TestNetns::new("pod");
    node.add("c", &pod);
    assert_eq!(node.held(), 2);
    node.delete("c", pod.path());
    assert_eq!(node.held(), 0);
    assert!(
        !node.netns.ip("link").contains(": mx"),
        "{}",
        node.netns.ip("link")
    );
    assert!(
        !node.netns.ip("route").contains(" dev mx"),
        "{}",
        node.netns.ip("route")
    );
    node.delete("c", pod.path());
    node.delete("never-seen", Path::new("/run/netns/no-such"));
    assert!(
        eventually(LATER, || cluster.count(Kind::WorkloadEndpoint) == 0),
        "{}",
        node.log()
    );
}

#[test]
fn adds_of_one_container_at_once_make_one_pod() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let pod = TestNetns::new("pod");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| node.add("c", &pod))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(node.held(), 2);
}

#[test]
fn a_full_block_is_followed_by_another_until_the_pool_is_used_up() {
    let cluster = Cluster::empty();
    cluster.create_pool("small", &json!({"cidr": "10.64.0.0/29", "blockSize": 30}));
    let (mut node, _outside) = node(&cluster);
    node.start();
    let pods: Vec<_> = (0..9).map(|_| TestNetns::new("pod")).collect();
    let mut addresses: Vec<_> = (0..8)
        .flat_map(|i| node.add(&format!("c{i}"), &pods[i]))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 8, "{addresses:?}");
    assert_eq!(cluster.count(Kind::IpBlock), 2);
    let output = node.cni("ADD", "c8", pods[8].path());
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 101, "{error}");
    node.delete("c0", pods[0].path());
    assert_eq!(node.add("c8", &pods[8]).len(), 1, "what is freed serves again");
}

#[test]
fn a_block_that_somebody_deleted_is_there_again() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    assert_eq!(cluster.count(Kind::IpBlock), 2);
    cluster.delete(Kind::IpBlock, "");
    assert!(
        eventually(LATER, || cluster.count(Kind::IpBlock) == 2),
        "{}",
        node.log()
    );
}

#[test]
fn a_failed_add_leaves_nothing_behind() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let output = node.cni("ADD", "c", Path::new("/run/netns/no-such"));
    assert!(!output.status.success());
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 3, "{error}");
    assert_eq!(node.held(), 0);
}

#[test]
fn forwarding_and_addresses_outlive_the_agent() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let (a, b, c) = (TestNetns::new("a"), TestNetns::new("b"), TestNetns::new("c"));
    let (at_a, at_b) = (node.add("a", &a), node.add("b", &b));
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let before = node.netns.ip("-N route show table main");
        node.end(signal);
        assert_eq!(node.netns.ip("-N route show table main"), before);
        assert_eq!(
            exchange(&a, &b, at_b[0]),
            Some(at_a[0]),
            "while the agent is down"
        );
        node.start();
        assert_eq!(node.netns.ip("-N route show table main"), before);
    }
    assert_eq!(node.held(), 4);
    assert_eq!(node.add("a", &a), at_a);
    let at_c = node.add("c", &c);
    assert!(
        !at_a.contains(&at_c[0]) && !at_b.contains(&at_c[0]),
        "an address that is held is given to nobody else"
    );
    assert_eq!(exchange(&c, &a, at_a[0]), Some(at_c[0]));
}

#[test]
fn a_start_releases_what_went_while_the_agent_was_down() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let (deleted, vanished, kept) = (
        TestNetns::new("deleted"),
        TestNetns::new("vanished"),
        TestNetns::new("kept"),
    );
    node.add("deleted", &deleted);
    node.add("vanished", &vanished);
    let at_kept = node.add("kept", &kept);
    node.end(Signal::SIGKILL);
    node.delete("deleted", deleted.path());
    drop(vanished);
    assert!(eventually(LATER, || node
        .netns
        .ip("link")
        .matches(": mx")
        .count()
        == 2));
    node.start();
    assert!(eventually(LATER, || node.held() == 2), "{}", node.log());
    assert!(exchange(&node.netns, &kept, at_kept[0]).is_some());
    assert!(eventually(LATER, || node
        .netns
        .ip("link")
        .matches(": mx")
        .count()
        == 1));
    assert!(
        eventually(LATER, || cluster.count(Kind::WorkloadEndpoint) == 1),
        "{}",
        node.log()
    );
}

#[test]
fn a_route_deleted_by_hand_comes_back_and_others_routes_stay() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let pod = TestNetns::new("pod");
    let address = node.add("c", &pod)[0].to_string();
    node.netns.ip("route add 198.51.100.0/24 via 192.0.2.2");
    node.netns.ip(&format!("route del {address}"));
    let back = || node.netns.ip("route").contains(&format!("{address} dev mx"));
    assert!(
        eventually(SOON, back),
        "{}\n{}",
        node.netns.ip("route"),
        node.log()
    );
    node.netns.ip("route flush proto 180");
    assert!(
        eventually(SOON, back),
        "{}\n{}",
        node.netns.ip("route"),
        node.log()
    );
    assert!(node.netns.ip("route").contains("198.51.100.0/24 via 192.0.2.2"));
}

#[test]
fn a_second_agent_on_the_same_socket_is_refused() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    node.start();
    let output = node.start_another();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process serves"), "{said}");
    assert!(node.status().is_some(), "the first one goes on");
}
