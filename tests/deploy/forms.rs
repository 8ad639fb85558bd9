//! Each object is of its type: read as that and written again, it is the same, so it has no field that Kubernetes, or
//! Manx, does not know.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use manx_api::manifest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{spoilt, title};

/// The object as its type has it.
fn rewritten(object: &Value) -> Result<Value, String> {
    fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
        let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
        serde_json::to_value(read).map_err(|error| error.to_string())
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    match (object["apiVersion"].as_str().unwrap_or_default(), kind) {
        ("v1", "ConfigMap") => through::<ConfigMap>(object),
        ("v1", "Namespace") => through::<Namespace>(object),
        ("v1", "Secret") => through::<Secret>(object),
        ("v1", "ServiceAccount") => through::<ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => through::<DaemonSet>(object),
        ("apps/v1", "Deployment") => through::<Deployment>(object),
        ("coordination.k8s.io/v1", "Lease") => through::<Lease>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(object),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            through::<CustomResourceDefinition>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            through::<ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            through::<ValidatingAdmissionPolicyBinding>(object)
        }
        // Ours refuse what they do not know by themselves, and judge what is said.
        ("manx.network/v1", _) => match manifest::load("it", &object.to_string()) {
            Ok(_) => Ok(object.clone()),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        },
        (version, kind) => Err(format!("{version} {kind} is no kind that this test knows")),
    }
}

/// The places where two values differ. One number may be written in two ways.
fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left
                .keys()
                .chain(right.keys().filter(|name| !left.contains_key(*name)))
            {
                differences(&format!("{path}.{name}"), &ours[name], &theirs[name], found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}[{index}]"), left, right, found);
            }
        }
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => {}
        (left, right) if left == right => {}
        (left, right) => found.push(format!("{path}: {left} is read as {right}")),
    }
}

/// Objects that Kubernetes would refuse, or read otherwise than they are written.
pub(crate) fn problems(objects: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for object in objects {
        match rewritten(object) {
            Ok(read) => differences(&title(object), object, &read, &mut problems),
            Err(error) => problems.push(format!("{}: {error}", title(object))),
        }
    }
    problems
}

#[test]
fn fields_that_nobody_knows_are_found() {
    let agent = ("DaemonSet", "manxd");
    let pod = "/spec/template/spec";
    spoilt(
        agent,
        &format!("{pod}/hostNetworking"),
        json!(true),
        "hostNetworking: true is read as null",
    );
    let capabilities = format!("{pod}/containers/0/securityContext/capabilities/dropped");
    spoilt(agent, &capabilities, json!(["ALL"]), "dropped");
    spoilt(
        agent,
        &format!("{pod}/containers/0/livenessProbe/periodSeconds"),
        json!("often"),
        "invalid type",
    );
    spoilt(
        ("ClusterRole", "manxd"),
        "/rules/0/resource",
        json!(["pods"]),
        "rules[0].resource",
    );
    spoilt(
        ("ClusterRole", "manxd"),
        "/apiVersion",
        json!("rbac.authorization.k8s.io/v1beta1"),
        "is no kind",
    );
    let definition = ("CustomResourceDefinition", "ippools.manx.network");
    spoilt(definition, "/spec/names/shortName", json!(["pool"]), "shortName");
}
