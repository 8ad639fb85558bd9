//! What pods of `deploy/` are made of: volumes that are there and used, the account, the image of this version, and no
//! more rights than they need.

use serde_json::{Value, json};

use crate::{is, items, spoilt, title};

/// The pods that objects lead to.
pub(crate) fn templates(objects: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    let templates = objects.iter().map(|it| (it, &it["spec"]["template"]["spec"]));
    templates.filter(|(_, pod)| pod.is_object())
}

/// All containers of a pod.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["initContainers"]).chain(items(&pod["containers"]))
}

/// Pods that could not start, or that may more than they need.
pub(crate) fn problems(objects: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for (owner, pod) in templates(objects) {
        let found = volumes(objects, pod)
            .into_iter()
            .chain(containers(pod).flat_map(rights));
        problems.extend(found.map(|problem| format!("{}: {problem}", title(owner))));
        let account = pod["serviceAccountName"].as_str().unwrap_or("default");
        if !objects.iter().any(|it| is(it, "ServiceAccount", account)) {
            problems.push(format!("{}: no service account {account}", title(owner)));
        }
        let (selector, labels) = (
            &owner["spec"]["selector"]["matchLabels"],
            &owner["spec"]["template"]["metadata"]["labels"],
        );
        if selector
            .as_object()
            .is_none_or(|it| it.is_empty() || it.iter().any(|(name, value)| labels[name] != *value))
        {
            problems.push(format!("{}: {selector} does not select {labels}", title(owner)));
        }
    }
    problems
}

fn volumes(objects: &[Value], pod: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for mount in containers(pod).flat_map(|it| items(&it["volumeMounts"])) {
        if !items(&pod["volumes"]).any(|it| it["name"] == mount["name"]) {
            problems.push(format!("no volume {}", mount["name"]));
        }
    }
    for volume in items(&pod["volumes"]) {
        let mut mounts = containers(pod).flat_map(|it| items(&it["volumeMounts"]));
        if !mounts.any(|it| it["name"] == volume["name"]) {
            problems.push(format!("volume {} is mounted nowhere", volume["name"]));
        }
        for (kind, field, reference) in [
            ("ConfigMap", "name", &volume["configMap"]),
            ("Secret", "secretName", &volume["secret"]),
        ] {
            let name = reference[field].as_str().unwrap_or_default();
            let needed = reference.is_object() && reference["optional"] != true;
            if needed && !objects.iter().any(|it| is(it, kind, name)) {
                problems.push(format!("no {kind} {name}"));
            }
        }
        if volume["hostPath"].is_object() && volume["hostPath"]["type"].is_null() {
            problems.push(format!(
                "volume {} would be mounted whatever is there",
                volume["name"]
            ));
        }
    }
    problems
}

fn rights(container: &Value) -> Vec<String> {
    let context = &container["securityContext"];
    let wrong = [
        (
            container["image"] != format!("manx:{}", env!("CARGO_PKG_VERSION")),
            "its image is not of this version",
        ),
        (
            context["readOnlyRootFilesystem"] != true,
            "it may write to its image",
        ),
        (context["allowPrivilegeEscalation"] != false, "it may gain rights"),
        (
            context["capabilities"]["drop"] != json!(["ALL"]),
            "it keeps capabilities that nobody has thought of",
        ),
        (!context["privileged"].is_null(), "it may be privileged"),
        (
            context["seccompProfile"]["type"] != "RuntimeDefault",
            "it may make every system call",
        ),
        (
            container["resources"]["requests"].is_null(),
            "it asks for no resources",
        ),
    ];
    let wrong = wrong.into_iter().filter(|(wrong, _)| *wrong);
    wrong
        .map(|(_, what)| format!("container {}: {what}", container["name"]))
        .collect()
}

/// The agent's pod with one thing spoilt, and the problem that this is.
pub(crate) fn spoil(place: &str, value: Value, problem: &str) {
    spoilt(
        ("DaemonSet", "manxd"),
        &format!("/spec/template/{place}"),
        value,
        problem,
    );
}

#[test]
fn what_a_pod_lacks_and_what_it_may_too_much_is_found() {
    spoil("metadata/labels", json!({}), "does not select");
    spoil(
        "spec/serviceAccountName",
        json!("manx"),
        "no service account manx",
    );
    spoil("spec/volumes/0/name", json!("settings"), "no volume \"config\"");
    spoil(
        "spec/volumes/0/name",
        json!("settings"),
        "volume \"settings\" is mounted nowhere",
    );
    spoil(
        "spec/volumes/0/configMap/name",
        json!("manx"),
        "no ConfigMap manx",
    );
    spoil(
        "spec/volumes/1/secret/optional",
        json!(false),
        "no Secret manx-bgp",
    );
    spoil(
        "spec/volumes/2/hostPath/type",
        Value::Null,
        "would be mounted whatever is there",
    );
    spoil(
        "spec/containers/0/image",
        json!("manx:latest"),
        "its image is not of this version",
    );
    let context = "spec/containers/0/securityContext";
    spoil(
        &format!("{context}/privileged"),
        json!(true),
        "it may be privileged",
    );
    spoil(
        &format!("{context}/readOnlyRootFilesystem"),
        json!(false),
        "it may write to its image",
    );
    spoil(
        &format!("{context}/capabilities/drop"),
        json!([]),
        "it keeps capabilities",
    );
    spoil(
        "spec/initContainers/0/resources",
        json!({}),
        "it asks for no resources",
    );
}
