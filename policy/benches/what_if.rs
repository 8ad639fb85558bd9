//! How long what-if takes for a cluster of 1,000 pods and 100 policies, and how long its answer is.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::unwrap_used, reason = "a bench's resources are what they are")]

use std::net::Ipv4Addr;
use std::time::Instant;

use manx_api::policy::{Endpoint, Origin, Policy, Tier, built_in_tiers, namespace_labels};
use manx_api::{Kind, Resource};
use manx_policy::{Engine, Update, what_if};
use serde_json::{Value, json};

const PODS: u32 = 1_000;
const NAMESPACES: u32 = 25;
/// Applications of a namespace.
const APPS: u32 = 8;

fn policy(document: Value) -> Update {
    let resource: Resource = serde_json::from_value(document).unwrap();
    let policy = Policy::of(&resource).unwrap();
    Update::Policy(Origin::from(resource.key()), Some(Box::new(policy)))
}

fn kubernetes(namespace: u32, name: &str, spec: Value) -> Update {
    policy(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": format!("ns-{namespace}")}, "spec": spec,
    }))
}

/// Four policies for each namespace: nothing gets in, but for two applications' neighbours and what monitors.
fn policies(namespace: u32) -> Vec<Update> {
    let app = |number: u32| json!({"matchLabels": {"app": format!("app-{}", number % APPS)}});
    let mut policies = vec![kubernetes(
        namespace,
        "deny-all",
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
    )];
    for number in 0..3 {
        let spec = json!({
            "podSelector": app(number),
            "ingress": [
                {"from": [{"podSelector": app(number + 1)}], "ports": [{"port": 8080 + number}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}], "ports": [{"port": "metrics"}]},
            ],
        });
        policies.push(kubernetes(namespace, &format!("app-{number}"), spec));
    }
    policies
}

fn cluster() -> Engine {
    let tiers = built_in_tiers().map(|(name, tier): (_, Tier)| Update::Tier(name.to_owned(), Some(tier)));
    let mut updates: Vec<Update> = tiers.into();
    for number in 0..NAMESPACES {
        let name = format!("ns-{number}");
        updates.push(Update::Namespace(
            name.clone(),
            Some(namespace_labels(&name, None)),
        ));
        updates.extend(policies(number));
    }
    for number in 0..PODS {
        let namespace = format!("ns-{}", number % NAMESPACES);
        let labels = [
            ("app", format!("app-{}", number / NAMESPACES % APPS)),
            ("index", number.to_string()),
        ];
        let endpoint = Endpoint {
            namespace: Some(namespace.clone()),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            addresses: vec![Ipv4Addr::from_bits(0x0a00_0000 + number).into()],
            ..Endpoint::default()
        };
        updates.push(Update::Endpoint(
            format!("{namespace}/pod-{number}"),
            Some(Box::new(endpoint)),
        ));
    }
    let mut engine = Engine::new();
    drop(engine.apply(updates));
    engine
}

fn main() {
    let engine = cluster();
    let everywhere = json!({
        "apiVersion": "manx.network/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "no-metadata-service"},
        "spec": {"order": 1, "egress": [{"action": "Deny", "destination": {"nets": ["169.254.169.254"]}}, {"action": "Allow"}]},
    });
    let gone = Origin {
        name: "deny-all".to_owned(),
        namespace: Some("ns-3".to_owned()),
        kind: Kind::KubernetesNetworkPolicy,
    };
    let spec =
        json!({"podSelector": {"matchLabels": {"app": "app-5"}}, "ingress": [{"ports": [{"port": 443}]}]});
    let ops = namespace_labels("ns-1", None)
        .into_iter()
        .chain([("team".to_owned(), "ops".to_owned())]);
    println!(
        "{:<34} {:>9} {:>12} {:>12} {:>6}",
        format!("{PODS} pods, {} policies", NAMESPACES * 4),
        "time",
        "flows",
        "changed",
        "lines"
    );
    for (what, news) in [
        ("a policy of one application comes", kubernetes(7, "app-5", spec)),
        ("a namespace's isolation goes", Update::Policy(gone, None)),
        ("a policy of all pods comes", policy(everywhere)),
        (
            "a namespace is labelled",
            Update::Namespace("ns-1".to_owned(), Some(ops.collect())),
        ),
    ] {
        let begun = Instant::now();
        let mut after = engine.clone();
        drop(after.apply([news]));
        let found = what_if(&engine, &after, u64::MAX);
        println!(
            "{what:<34} {:>9.1?} {:>12} {:>12} {:>6}",
            begun.elapsed(),
            found.flows,
            found.changed,
            found.changes.len()
        );
    }
}
