//! What objects name is there: namespaces, service accounts, roles, and what an object is called is unique.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{is, items, spoilt, title};

/// Kinds that are of no namespace.
const OF_THE_CLUSTER: [&str; 6] = [
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Names that lead nowhere.
pub(crate) fn problems(objects: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let there = |kind: &str, name: &Value| {
        objects
            .iter()
            .any(|it| is(it, kind, name.as_str().unwrap_or_default()))
    };
    for object in objects {
        let mut lacks = |what: String| problems.push(format!("{}: {what}", title(object)));
        let namespace = &object["metadata"]["namespace"];
        if !seen.insert((title(object), namespace.to_string())) {
            lacks("is there twice".to_owned());
        }
        let kind = object["kind"].as_str().unwrap_or_default();
        let ours = object["apiVersion"] == "manx.network/v1";
        if !ours && !OF_THE_CLUSTER.contains(&kind) && !there("Namespace", namespace) {
            lacks(format!("no namespace {namespace}"));
        }
        if kind.ends_with("RoleBinding") {
            let role = &object["roleRef"];
            if !there(role["kind"].as_str().unwrap_or_default(), &role["name"]) {
                lacks(format!("no {} {}", role["kind"], role["name"]));
            }
            for subject in items(&object["subjects"]) {
                let home = |it: &&Value| it["metadata"]["namespace"] == subject["namespace"];
                let name = subject["name"].as_str().unwrap_or_default();
                if !objects
                    .iter()
                    .filter(home)
                    .any(|it| is(it, "ServiceAccount", name))
                {
                    lacks(format!("no service account {name}"));
                }
            }
        }
    }
    problems
}

#[test]
fn names_that_lead_nowhere_are_found() {
    let binding = ("ClusterRoleBinding", "manxd");
    spoilt(
        binding,
        "/roleRef/name",
        json!("manx"),
        "no \"ClusterRole\" \"manx\"",
    );
    spoilt(
        binding,
        "/subjects/0/name",
        json!("manx"),
        "no service account manx",
    );
    spoilt(
        binding,
        "/subjects/0/namespace",
        json!("default"),
        "no service account manxd",
    );
    spoilt(
        ("DaemonSet", "manxd"),
        "/metadata/namespace",
        json!("manx"),
        "no namespace \"manx\"",
    );
}
