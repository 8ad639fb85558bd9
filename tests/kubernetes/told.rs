//! What a cluster is told.

use manx_api::Kind;
use manx_store::fake::Sort;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::cluster::{Kubernetes, LATER, custom};
use super::server::Which;
use crate::harness::eventually;

/// What the condition `NetworkUnavailable` of a node says, and why.
fn unavailable(kubernetes: &Kubernetes, node: &str) -> Option<[Value; 2]> {
    let node = kubernetes.server.object(Sort::NODE, "", node)?;
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let said = conditions.find(|it| it["type"] == "NetworkUnavailable");
    said.map(|it| ["status", "reason"].map(|field| it[field].clone()))
}

pub(crate) fn kubernetes_is_told_whether_a_node_has_its_network(which: Which) {
    let mut kubernetes = Kubernetes::start(which);
    let comes_to = |kubernetes: &Kubernetes, wanted: [&str; 2]| {
        let said = || unavailable(kubernetes, "left");
        let wanted = Some(wanted.map(|it| json!(it)));
        // A minute passes before it is said that there is none.
        let came = eventually(2 * LATER, || said() == wanted);
        assert!(came, "{:?}\n{}", said(), kubernetes.logs());
    };
    comes_to(&kubernetes, ["False", "ManxReady"]);
    kubernetes.set_node("left", "a", false);
    assert_eq!(
        unavailable(&kubernetes, "left"),
        None,
        "a Node that is made anew says nothing"
    );
    comes_to(&kubernetes, ["False", "ManxReady"]);

    kubernetes.nodes[1].end(Signal::SIGKILL);
    comes_to(&kubernetes, ["True", "NoSession"]);
    kubernetes.nodes[1].start();
    comes_to(&kubernetes, ["False", "ManxReady"]);
}

/// What events with this reason are about.
pub(crate) fn events(kubernetes: &Kubernetes, reason: &str) -> Vec<Value> {
    let events = kubernetes.server.objects(Sort::EVENT).into_iter();
    let events = events.filter(|event| event["reason"] == reason);
    events
        .map(|event| event["involvedObject"]["name"].clone())
        .collect()
}

pub(crate) fn operators_are_told_of_what_they_must_mend(which: Which) {
    let kubernetes = Kubernetes::with_pool(which, &json!({"cidr": "10.64.0.0/29", "blockSize": 30}));
    let events = |reason| events(&kubernetes, reason);
    kubernetes.set_namespace("shop", &json!({}));
    let broken = json!({
        "apiVersion": "manx.network/v1", "kind": "NetworkPolicy", "metadata": {"name": "broken", "namespace": "shop"},
        "spec": {"ingress": [{"action": "Allow", "destination": {"ports": [80]}}]},
    });
    kubernetes.server.put(Kind::NetworkPolicy, broken);
    let mut bad = vec!["broken"];
    // Kubernetes' own has no status that could say so. A real server takes none that we would not.
    let unfit = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "unfit", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"endPort": 80}]}]},
    });
    if which == Which::Fake {
        kubernetes.server.put(Kind::KubernetesNetworkPolicy, unfit);
        bad.push("unfit");
    }
    let told = || {
        let told = events("PolicyNotAccepted");
        told.len() == bad.len() && bad.iter().all(|name| told.contains(&json!(name)))
    };
    assert!(
        eventually(LATER, told),
        "{:?}\n{}",
        events("PolicyNotAccepted"),
        kubernetes.logs()
    );

    let own_blocks_alone = custom("IPAMConfiguration", "default", &json!({"strictAffinity": true}));
    kubernetes.server.put(Kind::IpamConfiguration, own_blocks_alone);
    let names = ["p0", "p1", "p2", "p3", "p4"].map(|name| ("shop", name));
    let pods = names.map(|name| kubernetes.schedule(name, &json!({}), 0));
    let outcomes = pods
        .each_ref()
        .map(|pod| kubernetes.cni(pod, "ADD").status.success());
    assert_eq!(outcomes, [true, true, true, true, false]);
    assert!(!kubernetes.cni(&pods[4], "ADD").status.success());
    let told = || events("NoFreeAddress") == [json!("left")];
    assert!(
        eventually(LATER, told),
        "{:?}\n{}",
        events("NoFreeAddress"),
        kubernetes.logs()
    );
}
