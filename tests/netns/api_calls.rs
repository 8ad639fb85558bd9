//! What a pod costs the API server over its life, on our side: its agents' requests from before the first of many pods
//! until nothing is left to be said of the last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_store::fake::{Call, Sort};
use serde_json::{Value, json};

use crate::clusters::cluster::{Kubernetes, Pod};
use crate::clusters::server::Which;
use crate::harness::eventually;

/// Pods that come and go, on two nodes.
const PODS: usize = 200;

/// Requests that they may cost: 0.2 each.
const CALLS: usize = PODS / 5;

/// An empty block is kept for a minute.
const GIVEN_BACK: Duration = Duration::from_secs(180);

/// The blocks that nodes have, as the datastore says.
fn owned(kubernetes: &Kubernetes) -> Vec<Value> {
    let mut blocks = kubernetes.server.objects(Kind::IpBlock);
    blocks.retain(|block| !block["spec"]["node"].is_null());
    blocks
}

/// Requests of agents, by what they were for.
fn calls(kubernetes: &Kubernetes) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for (Call { verb, resource, .. }, count) in kubernetes.server.fake().calls() {
        *calls.entry(format!("{verb} {resource}")).or_default() += count;
    }
    calls
}

/// Starts a node's half of the pods one after the other, as a kubelet does.
fn start(kubernetes: &Kubernetes, node: usize) -> Vec<Pod> {
    let name = |number: usize| -> &'static str { format!("n{node}-{number}").leak() };
    (0..PODS / 2)
        .map(|number| kubernetes.run(("shop", name(number)), &json!({"app": "web"}), node))
        .collect()
}

fn end(kubernetes: &Kubernetes, pods: Vec<Pod>) {
    for pod in pods {
        assert!(kubernetes.cni(&pod, "DEL").status.success());
        kubernetes.server.delete(Sort::POD, pod.namespace, pod.name);
    }
}

#[test]
fn a_pods_life_costs_the_api_server_a_fifth_of_a_request() {
    let kubernetes = Kubernetes::start(Which::Fake);
    kubernetes.set_namespace("shop", &json!({}));
    let settled = || owned(&kubernetes).len() == 4;
    assert!(
        eventually(GIVEN_BACK, settled),
        "a block of each family for each node"
    );
    let (before, begin) = (calls(&kubernetes), Instant::now());
    std::thread::scope(|scope| {
        for node in [0, 1] {
            let kubernetes = &kubernetes;
            scope.spawn(move || end(kubernetes, start(kubernetes, node)));
        }
    });
    let lasted = begin.elapsed();
    assert!(eventually(GIVEN_BACK, settled), "{}", kubernetes.logs());
    // What is not written yet would be in ten minutes.
    for node in &kubernetes.nodes {
        assert!(node.ask(Method::IpamCheck).is_some());
    }
    let is_empty = |block: &Value| block["spec"]["allocations"].as_array().is_none_or(Vec::is_empty);
    let written = || owned(&kubernetes).iter().all(is_empty);
    assert!(eventually(GIVEN_BACK, written), "{}", kubernetes.logs());
    let mut spent = calls(&kubernetes);
    for (call, count) in &mut spent {
        *count -= before.get(call).copied().unwrap_or_default();
    }
    spent.retain(|_, count| *count > 0);
    let total: usize = spent.values().sum();
    eprintln!("{PODS} pods came and went in {lasted:.0?} and cost {total} requests: {spent:?}");
    assert!(total > 0, "blocks were claimed, at least");
    assert!(total <= CALLS, "{spent:?}\n{}", kubernetes.logs());
}
