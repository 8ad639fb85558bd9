//! What policies know a pod by, which the runtime says at ADD alone.

use std::time::Duration;

use manx_api::Kind;
use manx_api::workload::{SERVICE_ACCOUNT_ANNOTATION, WorkloadEndpoint};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent_harness::Cluster;
use crate::harness::{TestNetns, eventually, exchange};

/// What goes through the datastore, or waits for a start.
const LATER: Duration = Duration::from_secs(30);

#[test]
fn a_pod_is_known_after_a_crash_although_the_datastore_never_heard_of_it() {
    let cluster = Cluster::new();
    let [netns, _outside] = TestNetns::pair(["node", "outside"]);
    let mut node = cluster.node("n1", netns);
    node.start();
    cluster.create(
        "GlobalNetworkPolicy",
        "clerks",
        &json!({"selector": "projectcalico.org/serviceaccount == 'clerk'", "types": ["Ingress"]}),
    );
    let (clerk, other) = (TestNetns::new("clerk"), TestNetns::new("other"));
    let annotations = json!({SERVICE_ACCOUNT_ANNOTATION: "clerk"});
    let runtime = json!({"io.kubernetes.cri.pod-annotations": annotations});
    let at = node.added(&node.cni_of("default", "ADD", "clerk", clerk.path(), &runtime))[0];
    node.add("other", &other);
    let closed = || exchange(&other, &clerk, at).is_none();
    assert!(eventually(LATER, closed), "{}", node.log());

    node.end(Signal::SIGKILL);
    cluster.delete(Kind::WorkloadEndpoint, "");
    node.start();
    let accounts = || -> Vec<Option<String>> {
        let endpoints = cluster.list::<WorkloadEndpoint>(Kind::WorkloadEndpoint);
        endpoints.into_iter().map(|it| it.spec.service_account).collect()
    };
    let told = || accounts().len() == 2;
    assert!(eventually(LATER, told), "{}", node.log());
    assert!(accounts().contains(&Some("clerk".to_owned())), "{:?}", accounts());
    assert!(exchange(&other, &clerk, at).is_none());

    let kept = || {
        std::fs::read_dir(node.folder().join("state/traits"))
            .unwrap()
            .count()
    };
    assert_eq!(kept(), 1);
    node.delete("clerk", clerk.path());
    assert_eq!(kept(), 0, "it ends with the pod");
}
