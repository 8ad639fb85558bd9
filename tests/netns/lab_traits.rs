//! What policies know pods by, in a lab: said when a pod is added, stored, kept over the agent's restart.

use std::time::{Duration, Instant};

use manx_lab::Topology;
use serde_json::{Value, json};

use crate::lab_harness::{LabName, assert_proved, settings};

/// The WorkloadEndpoint of a pod, once it is as `expected`: it is written off the path of ADD.
fn stored(lab: &LabName, expected: &Value) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let found = lab.json("get workloadendpoints -n shop");
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let told = items
            .iter()
            .find(|item| item["spec"]["pod"] == "web")
            .map(|item| {
                let spec = &item["spec"];
                json!({
                    "labels": item["metadata"]["labels"], "account": spec["serviceAccount"],
                    "ports": spec["ports"], "sources": spec["allowedSourcePrefixes"],
                })
            });
        if told.as_ref() == Some(expected) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

#[test]
fn what_policies_know_a_pod_by_is_stored_and_outlives_the_agent() {
    let name = LabName::new();
    let mut lab = name.up(Topology::Mesh, 1, false);
    name.ctl(
        "lab pod add web --node node1 -n shop -l app=web --label tier=front --port http=80/TCP --port dns=53/udp \
         --service-account till --annotation manx.network/allowedSourcePrefixes=[\"10.9.0.0/24\"]",
    );
    let expected = json!({
        "labels": {"app": "web", "tier": "front"}, "account": "till", "sources": ["10.9.0.0/24"],
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53},
        ],
    });
    assert!(
        stored(&name, &expected),
        "{}",
        name.ctl("get wep -n shop -o yaml")
    );

    name.edit("wep node1-web-eth0 -n shop", |endpoint| {
        endpoint["metadata"]["labels"]["tier"] = json!("back");
    });
    let mut expected = expected;
    expected["labels"]["tier"] = json!("back");
    lab.restart("node1", &settings()).unwrap();
    assert_proved(&lab);
    assert!(
        stored(&name, &expected),
        "{}",
        name.ctl("get wep -n shop -o yaml")
    );
}

#[test]
fn what_no_pod_can_be_known_by_is_refused() {
    let name = LabName::new();
    let _lab = name.up(Topology::Mesh, 1, false);
    for (words, refusal) in [
        ("-l app=a/b", "metadata.labels[app]"),
        ("--port 80=80/TCP", "spec.ports[0].name"),
        ("--port http=0/TCP", "spec.ports[0].port"),
        ("--service-account A", "spec.serviceAccount"),
        ("--port http=80/ICMP", "spec.ports[0].protocol"),
        (
            "--annotation manx.network/ports=http",
            "annotation manx.network/ports 'http'",
        ),
    ] {
        let output = name.try_ctl(&format!("lab pod add web --node node1 {words}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(refusal),
            "{words}: {said}"
        );
    }
    assert_eq!(
        name.json("lab pod list").as_array().unwrap().len(),
        2,
        "nothing of it is left"
    );
}
