//! What agents do about blocks in the datastore: freeing a deleted node's, and what an operator asks for.

use std::net::IpAddr;
use std::time::Duration;

use manx_api::ipam::{Allocation, IpBlock, Release};
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Key, Kind, Resource};
use nix::sys::signal::Signal;

use crate::agent_harness::Cluster;
use crate::harness::{TestNetns, eventually};

/// Everything takes longer on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

fn blocks_of(cluster: &Cluster, node: &str) -> Vec<IpBlock> {
    let blocks: Vec<IpBlock> = cluster.list(Kind::IpBlock);
    let owned = |block: &IpBlock| block.spec.node.as_deref() == Some(node);
    blocks.into_iter().filter(owned).collect()
}

#[test]
fn a_deleted_nodes_blocks_and_endpoints_are_freed_and_not_those_of_a_node_that_is_only_down() {
    let cluster = Cluster::new();
    let (left, mut right) = cluster.pair();
    let pod = TestNetns::new("pod");
    right.add("pod", &pod);
    let described = || cluster.count(Kind::WorkloadEndpoint) == 1;
    assert!(eventually(LATER, described), "{}", right.log());
    right.end(Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(15));
    assert_eq!(
        blocks_of(&cluster, "right").len(),
        2,
        "its node is there, if down"
    );

    cluster.delete(Kind::Node, "right");
    let freed = || blocks_of(&cluster, "right").is_empty();
    assert!(eventually(LATER, freed), "{}", left.log());
    assert_eq!(cluster.list::<WorkloadEndpoint>(Kind::WorkloadEndpoint), []);
    assert_eq!(blocks_of(&cluster, "left").len(), 2);
}

#[test]
fn an_operator_frees_what_no_interface_carries_and_nothing_else() {
    let cluster = Cluster::new();
    let mut node = cluster.node("node", TestNetns::new("node"));
    node.netns.ip("link add eth0 type bridge");
    node.netns.ip("address add 192.0.2.1/24 dev eth0");
    node.netns.ip("link set eth0 up");
    node.start();
    let (lost, kept) = (TestNetns::new("lost"), TestNetns::new("kept"));
    let (at_lost, at_kept) = (node.add("lost", &lost), node.add("kept", &kept));
    lost.ip("link delete eth0");

    let allocation = |address: IpAddr| -> Option<Allocation> {
        let blocks = blocks_of(&cluster, "node");
        let mut allocations = blocks.into_iter().flat_map(|block| block.spec.allocations);
        allocations.find(|allocation| allocation.address == address)
    };
    let known = || allocation(at_lost[0]).is_some() && allocation(at_kept[0]).is_some();
    assert!(eventually(LATER, known), "{}", node.log());
    let release = |address: IpAddr, off: u64| Release {
        address,
        sequence: allocation(address).unwrap().sequence + off,
    };
    // A report from before the address was given anew must not free it.
    let old = release(at_kept[0], 1);
    let asked = [release(at_lost[0], 0), release(at_kept[0], 0), old];
    let block = blocks_of(&cluster, "node")
        .into_iter()
        .find(|block| block.spec.cidr.is_ipv4())
        .unwrap();
    let key = Key::cluster(Kind::IpBlock, block.metadata.name);
    cluster.change(&key, |resource| {
        if let Resource::IpBlock(block) = resource {
            block.spec.releases = asked.to_vec();
        }
    });
    let settled = || {
        blocks_of(&cluster, "node")
            .iter()
            .all(|block| block.spec.releases.is_empty())
    };
    assert!(eventually(LATER, settled), "{}", node.log());
    assert_eq!(allocation(at_lost[0]), None);
    assert!(allocation(at_kept[0]).is_some());
    assert_eq!(
        node.held(),
        2,
        "both families of the one that is there: {}",
        node.log()
    );
}
