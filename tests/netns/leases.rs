//! Parts of other nodes' blocks: asked for, lent, announced, returned, whoever dies meanwhile.

use std::net::IpAddr;
use std::time::Duration;

use manx_api::Kind;
use manx_api::ipam::{IpBlock, LeaseState};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};

/// Everything takes longer on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

/// Two nodes and a pool of one block, which the first has.
fn cluster() -> (Cluster, Node, Node) {
    let cluster = Cluster::empty();
    cluster.create_pool("tight", &json!({"cidr": "10.64.0.0/26"}));
    let [left, right] = TestNetns::pair(["left", "right"]);
    let (mut left, mut right) = (cluster.node("left", left), cluster.node("right", right));
    left.start();
    // It has no block, and is not ready for that.
    right.launch();
    let serves = || right.status().is_some();
    assert!(eventually(LATER, serves), "{}", right.log());
    (cluster, left, right)
}

fn leases(cluster: &Cluster) -> Vec<IpBlock> {
    let mut blocks: Vec<IpBlock> = cluster.list(Kind::IpBlock);
    blocks.retain(|block| block.spec.lease.is_some());
    blocks
}

/// `ipam check` finds nothing, whichever agent it can ask.
fn assert_clean(cluster: &Cluster, nodes: [&Node; 2]) {
    for node in nodes {
        let mut output = None;
        let clean = eventually(LATER, || {
            let found = cluster.check(node);
            let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
            output = Some(found);
            report["findings"] == json!([])
        });
        assert!(clean, "{output:?}\n{}", node.log());
    }
}

/// ADD as a runtime does it: again while the plugin says "later".
fn add(node: &Node, container: &str, netns: &TestNetns, runtime: &serde_json::Value) -> Vec<IpAddr> {
    let mut output = None;
    let done = eventually(LATER, || {
        let answer = node.cni_of("default", "ADD", container, netns.path(), runtime);
        let done = answer.status.success();
        output = Some(answer);
        done
    });
    assert!(done, "{output:?}\n{}", node.log());
    node.added(&output.unwrap())
}

#[test]
fn a_node_without_a_block_is_lent_a_part_of_anothers_and_its_pods_are_reached() {
    let (cluster, left, right) = cluster();
    let (at_left, at_right) = (TestNetns::new("at-left"), TestNetns::new("at-right"));
    let first = add(&left, "first", &at_left, &json!({}))[0];
    let second = add(&right, "second", &at_right, &json!({}))[0];
    let lease = leases(&cluster).remove(0);
    assert_eq!(lease.spec.node.as_deref(), Some("right"));
    assert_eq!(lease.spec.cidr.prefix(), 28);
    assert!(lease.spec.cidr.contains(second) && !lease.spec.cidr.contains(first));
    let reached = || exchange(&at_left, &at_right, second) == Some(first);
    assert!(eventually(LATER, reached), "{}\n{}", left.log(), right.log());
    assert_clean(&cluster, [&left, &right]);
    right.delete("second", at_right.path());
    let returned = || leases(&cluster).is_empty();
    assert!(eventually(2 * LATER, returned), "{}\n{}", left.log(), right.log());
    assert_clean(&cluster, [&left, &right]);
}

#[test]
fn one_address_of_anothers_block_is_lent_to_who_asks_for_it_and_returned_with_its_pod() {
    let (cluster, mut left, right) = cluster();
    let pod = TestNetns::new("pod");
    let wish = json!({"ips": ["10.64.0.33"]});
    let given = add(&right, "pod", &pod, &wish);
    assert_eq!(given, ["10.64.0.33".parse::<IpAddr>().unwrap()]);
    assert_eq!(leases(&cluster)[0].spec.cidr.to_string(), "10.64.0.33/32");

    // A lender that was killed knows what it has lent.
    left.end(Signal::SIGKILL);
    left.start();
    let other = TestNetns::new("other");
    let refused = left.cni_of("default", "ADD", "other", other.path(), &wish);
    assert!(!refused.status.success(), "{refused:?}");
    right.delete("pod", pod.path());
    let returned = || leases(&cluster).is_empty();
    assert!(eventually(LATER, returned), "{}\n{}", left.log(), right.log());
    assert_eq!(add(&left, "other", &other, &wish), given);
}

#[test]
fn a_borrower_that_dies_before_its_lease_is_granted_has_it_in_its_next_life() {
    let (cluster, mut left, mut right) = cluster();
    left.end(Signal::SIGKILL);
    let pod = TestNetns::new("pod");
    // Nobody answers: the request stands, and its author is killed.
    std::thread::scope(|scope| {
        scope.spawn(|| right.cni("ADD", "pod", pod.path()));
        let asked = || !leases(&cluster).is_empty();
        assert!(eventually(LATER, asked), "{}", right.log());
        kill(right.agent_id(), Signal::SIGKILL).unwrap();
    });
    right.end(Signal::SIGKILL);
    left.start();
    let granted = || {
        let state = |block: &IpBlock| block.spec.lease.as_ref().map(|lease| lease.state);
        leases(&cluster)
            .iter()
            .any(|block| state(block) == Some(LeaseState::Granted))
    };
    assert!(eventually(LATER, granted), "{}", left.log());
    right.launch();
    let given = add(&right, "pod", &pod, &json!({}));
    let has_it = |block: &IpBlock| block.spec.cidr.contains(given[0]);
    assert!(leases(&cluster).iter().any(has_it), "{given:?}\n{}", right.log());
}

#[test]
fn strict_affinity_lends_nothing() {
    let (cluster, _left, right) = cluster();
    cluster.create("IPAMConfiguration", "default", &json!({"strictAffinity": true}));
    std::thread::sleep(Duration::from_secs(2));
    let pod = TestNetns::new("pod");
    for runtime in [json!({}), json!({"ips": ["10.64.0.9"]})] {
        let refused = right.cni_of("default", "ADD", "pod", pod.path(), &runtime);
        let text = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(!refused.status.success() && text.contains("101"), "{text}");
    }
    assert!(leases(&cluster).is_empty());
}
