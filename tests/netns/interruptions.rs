//! CNI calls that something cuts short: the node, the agent, or the pod is gone in the middle. Each has a right end.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use manx_api::Kind;
use manx_cni::Success;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent_harness::{Cluster, Node};
use crate::cni_runtime::{Container, Network};
use crate::harness::{TestNetns, eventually, exchange};

/// What goes through the datastore, or waits for a start.
const LATER: Duration = Duration::from_secs(30);

/// Pods that come or go at once.
const PODS: usize = 6;

/// When the agent is killed, in milliseconds after the calls began: before the first is answered, and until
/// after the last.
const MOMENTS: [u64; 6] = [0, 5, 10, 20, 40, 80];

fn node(cluster: &Cluster) -> (Node, TestNetns) {
    let [netns, outside] = TestNetns::pair(["node", "outside"]);
    let mut node = cluster.node("n1", netns);
    node.start();
    (node, outside)
}

fn network(node: &Node) -> Network<'_> {
    Network::new(node, "1.1.0", "pods", &[])
}

/// So many pods' namespaces, and their containers, whose ids begin like this.
fn pods(count: usize, beginning: &str) -> (Vec<TestNetns>, Vec<Container>) {
    let pods: Vec<_> = (0..count).map(|_| TestNetns::new("pod")).collect();
    let container =
        |(index, pod): (usize, &TestNetns)| Container::new(&format!("{beginning}{index}"), pod.path());
    let containers = pods.iter().enumerate().map(container).collect();
    (pods, containers)
}

fn address(result: &Value) -> IpAddr {
    let result: Success = serde_json::from_value(result.clone()).unwrap();
    result.ips[0].address.ip()
}

/// Nothing of any pod is left on the node.
#[track_caller]
fn assert_clean(node: &Node) {
    assert!(eventually(LATER, || node.held() == 0), "{}", node.log());
    let gone = || !node.netns.ip("link").contains(": mx") && !node.netns.ip("route").contains(" dev mx");
    assert!(
        eventually(LATER, gone),
        "{}\n{}",
        node.netns.ip("link"),
        node.log()
    );
}

/// Every pod is attached, has an address of its own, and is reached.
#[track_caller]
fn assert_attached(node: &Node, pods: &[TestNetns], containers: &[Container], results: &[Value]) {
    let addresses: BTreeSet<IpAddr> = results.iter().map(address).collect();
    assert_eq!(addresses.len(), pods.len(), "{results:?}");
    for ((pod, container), result) in pods.iter().zip(containers).zip(results) {
        network(node).check(container, result).unwrap();
        assert!(exchange(&node.netns, pod, address(result)).is_some());
    }
    assert_eq!(node.held(), 2 * pods.len(), "{}", node.log());
}

/// Calls for all containers at once, and the agent is killed so long after; then another one is started.
fn killed_meanwhile<T: Send>(
    node: &mut Node,
    containers: &[Container],
    moment: u64,
    call: impl Fn(&Network<'_>, &Container) -> T + Sync,
) -> Vec<T> {
    let agent = node.agent_id();
    let outcomes = std::thread::scope(|scope| {
        let (shared, call) = (&*node, &call);
        let calls: Vec<_> = containers
            .iter()
            .map(|container| scope.spawn(move || call(&network(shared), container)))
            .collect();
        std::thread::sleep(Duration::from_millis(moment));
        nix::sys::signal::kill(agent, Signal::SIGKILL).unwrap();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    node.end(Signal::SIGKILL);
    node.start();
    outcomes
}

#[test]
fn a_node_that_restarts_has_its_blocks_and_no_pods() {
    let cluster = Cluster::new();
    let (mut node, outside) = node(&cluster);
    let (pods, containers) = pods(3, "c");
    for container in &containers {
        network(&node).add(container).unwrap();
    }
    let described = || cluster.count(Kind::WorkloadEndpoint) == 3;
    assert!(eventually(LATER, described), "{}", node.log());
    let blocks = cluster.count(Kind::IpBlock);

    // The power goes: processes, namespaces, interfaces and routes, all but the disk.
    node.end(Signal::SIGKILL);
    drop((pods, outside));
    let [netns, _outside] = TestNetns::pair(["node", "outside"]);
    node.netns = netns;
    node.start();
    assert_clean(&node);
    assert_eq!(cluster.count(Kind::IpBlock), blocks);
    let forgotten = || cluster.count(Kind::WorkloadEndpoint) == 0;
    assert!(eventually(LATER, forgotten), "{}", node.log());

    // The kubelet detaches what it knew, and makes the pods anew.
    for container in &containers {
        network(&node).del(container, None).unwrap();
    }
    let pod = TestNetns::new("pod");
    let again = Container::new("c0-again", pod.path());
    let result = network(&node).add(&again).unwrap();
    network(&node).check(&again, &result).unwrap();
    assert!(exchange(&node.netns, &pod, address(&result)).is_some());
}

#[test]
fn an_agent_that_is_replaced_in_the_middle_of_adds_leaves_what_the_runtime_expects() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    for moment in MOMENTS {
        let (pods, containers) = pods(PODS, &format!("c{moment}-"));
        let outcomes = killed_meanwhile(&mut node, &containers, moment, |network, container| {
            network.add(container)
        });
        let mut results = Vec::new();
        for (container, outcome) in containers.iter().zip(outcomes) {
            // "A delete must still be executed even if the add fails" (section 3), and then the pod is tried again.
            results.push(outcome.unwrap_or_else(|error| {
                assert_eq!(error["code"], 11, "{error}");
                network(&node).del(container, None).unwrap();
                network(&node).add(container).unwrap()
            }));
        }
        assert_attached(&node, &pods, &containers, &results);
        for (container, result) in containers.iter().zip(&results) {
            network(&node).del(container, Some(result)).unwrap();
        }
        assert_clean(&node);
    }
}

#[test]
fn an_agent_that_is_replaced_in_the_middle_of_dels_carries_them_out() {
    let cluster = Cluster::new();
    let (mut node, _outside) = node(&cluster);
    for moment in MOMENTS {
        let (_pods, containers) = pods(PODS, &format!("c{moment}-"));
        for container in &containers {
            network(&node).add(container).unwrap();
        }
        let outcomes = killed_meanwhile(&mut node, &containers, moment, |network, container| {
            network.del(container, None)
        });
        for outcome in outcomes {
            assert_eq!(outcome, Ok(Value::Null), "a DEL succeeds in any case");
        }
        assert_clean(&node);
    }
}

#[test]
fn a_pod_that_vanishes_during_its_add_leaves_nothing() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    for moment in 0..12 {
        let pod = TestNetns::new("pod");
        let container = Container::new(&format!("c{moment}"), pod.path());
        let outcome = std::thread::scope(|scope| {
            let adding = scope.spawn(|| network(&node).add(&container));
            std::thread::sleep(Duration::from_millis(moment));
            drop(pod);
            adding.join().unwrap()
        });
        match outcome {
            Ok(_) => network(&node).del(&container, None).unwrap(),
            // "The runtime does not need to perform any container network cleanup" (section 5, code 3).
            Err(error) => {
                assert_eq!(error["code"], 3, "{error}");
                Value::Null
            }
        };
        assert_eq!(node.held(), 0, "{}", node.log());
    }
    assert_clean(&node);
}

#[test]
fn a_pod_that_vanishes_after_its_add_keeps_its_address_until_it_is_detached() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let container = Container::new("c", pod.path());
    let result = network(&node).add(&container).unwrap();
    drop(pod);
    assert_eq!(node.held(), 2);
    let other = TestNetns::new("other");
    let next = network(&node)
        .add(&Container::new("other", other.path()))
        .unwrap();
    assert_ne!(address(&next), address(&result));
    network(&node).del(&container, Some(&result)).unwrap();
    assert_eq!(node.held(), 2);
    assert!(exchange(&node.netns, &other, address(&next)).is_some());
}
