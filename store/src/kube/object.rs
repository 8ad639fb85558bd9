//! Objects of the API server and resources of ours, each made from the other.

use std::collections::BTreeMap;

use manx_api::{Key, Kind, Problem, Resource, Revision, validate};
use serde_json::{Map, Value};

use super::pods::Pod;
use crate::{Error, Listing};

/// What we keep of an object's metadata.
const KEPT: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "labels",
    "annotations",
];

/// The revision of an object or a list.
pub(super) fn revision(object: &Value) -> Revision {
    version(&object["metadata"])
}

/// The labels in an object's metadata.
pub(super) fn labels(metadata: &Value) -> BTreeMap<String, String> {
    let labels = metadata["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    labels.collect()
}

/// The same of its metadata.
pub(super) fn version(metadata: &Value) -> Revision {
    let version = metadata["resourceVersion"].as_str();
    version.map_or_else(Revision::start, |version| Revision(version.to_owned()))
}

/// What to call all resources of a kind in a message.
pub(super) fn all(kind: Kind, namespace: Option<&str>) -> Key {
    Key {
        kind,
        namespace: namespace.map(str::to_owned),
        name: "*".to_owned(),
    }
}

/// A listing in its order.
pub(super) fn listing(mut items: Vec<Resource>, revision: Revision) -> Listing {
    items.sort_by_cached_key(Resource::key);
    Listing { revision, items }
}

/// Whether Manx says in resources of a kind what it makes of them.
const fn has_status(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::KubernetesNetworkPolicy
            | Kind::ClusterNetworkPolicy
    )
}

/// What Manx reads of a kind's objects beside their metadata.
const fn fields(kind: Kind) -> &'static [&'static str] {
    if matches!(kind, Kind::EndpointSlice) {
        return &["addressType", "endpoints", "ports"];
    }
    if has_status(kind) || matches!(kind, Kind::Service) {
        return &["spec", "status"];
    }
    &["spec"]
}

/// The resource that an object is: of its metadata what Manx knows, of the rest its specification.
///
/// # Errors
/// [`Error::Invalid`] when it is none, or breaks rules; [`Error::NotFound`] of a pod that has no interface of its own.
pub(super) fn read(kind: Kind, mut object: Value) -> Result<Resource, Error> {
    let name = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let key = Key {
        kind,
        namespace: name("namespace"),
        name: name("name").unwrap_or_default(),
    };
    if kind == Kind::WorkloadEndpoint {
        return Pod::of(object).endpoint().ok_or(Error::NotFound(key));
    }
    let mut kept = Map::new();
    if let Some(Value::Object(mut metadata)) = object.get_mut("metadata").map(Value::take) {
        metadata.retain(|field, _| KEPT.contains(&field.as_str()));
        kept.insert("metadata".to_owned(), Value::Object(metadata));
    }
    for field in fields(kind) {
        if let Some(value) = object.get_mut(field).map(Value::take) {
            kept.insert((*field).to_owned(), value);
        }
    }
    let problems = match Resource::deserialize_as(kind, Value::Object(kept)) {
        Ok(resource) => {
            let problems = validate(&resource);
            // What is wrong with a policy is said in its status, and it opens nothing.
            if problems.is_empty() || has_status(kind) {
                return Ok(resource);
            }
            problems
        }
        Err(error) => vec![Problem::new("spec", "", format!("cannot be read: {error}"))],
    };
    Err(Error::Invalid { key, problems })
}

/// As [`read`]; what is no resource is told of in the log, and left out.
pub(super) fn taken(kind: Kind, object: Value) -> Option<Resource> {
    if kind == Kind::WorkloadEndpoint {
        return Pod::of(object).endpoint();
    }
    read(kind, object)
        .inspect_err(|error| tracing::warn!(%error, "left out of what Manx goes by; mend or delete it"))
        .ok()
}

/// Whether an update of `old` by `new` would change nothing. Only the server changes what it gave.
pub(super) fn same(old: &Resource, new: &Resource) -> bool {
    let mut new = new.clone();
    let (given, metadata) = (old.metadata(), new.metadata_mut());
    metadata.uid.clone_from(&given.uid);
    metadata.creation_timestamp.clone_from(&given.creation_timestamp);
    if let (Some(said), Some(status)) = (old.status(), new.status_mut()) {
        status.clone_from(said);
    }
    new == *old
}

/// A resource as the body of a request.
pub(super) fn bytes<T: serde::Serialize>(key: &Key, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|error| Error::unavailable(format!("cannot write {key} as JSON"), error))
}

/// The stored object with the resource's labels, annotations and specification, and everything else as it was.
pub(super) fn merged(key: &Key, mut stored: Value, resource: &Resource) -> Result<Vec<u8>, Error> {
    let mut ours = serde_json::to_value(resource)
        .map_err(|error| Error::unavailable(format!("cannot write {key} as JSON"), error))?;
    for field in ["labels", "annotations"] {
        stored["metadata"][field] = ours["metadata"][field].take();
    }
    for field in fields(key.kind).iter().filter(|field| **field != "status") {
        stored[*field] = ours[*field].take();
    }
    bytes(key, &stored)
}

/// The patch (RFC 7386) that makes the one resource the other, and nothing else of the object, where that is as it was.
pub(super) fn patch(key: &Key, before: &Resource, after: &Resource) -> Result<Value, Error> {
    let value = |resource: &Resource| {
        serde_json::to_value(resource)
            .map_err(|error| Error::unavailable(format!("cannot write {key} as JSON"), error))
    };
    let mut patch = difference(&value(before)?, value(after)?);
    if let Some(fields) = patch.as_object_mut() {
        fields.remove("status");
    }
    patch["metadata"]["resourceVersion"] = value(after)?["metadata"]["resourceVersion"].take();
    Ok(patch)
}

/// What of `after` is not as in `before`; null stands for what it lacks.
fn difference(before: &Value, after: Value) -> Value {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let lacks = before.keys().filter(|field| !after.contains_key(*field));
            let mut changed: Map<String, Value> = lacks.map(|field| (field.clone(), Value::Null)).collect();
            for (field, value) in after {
                let old = before.get(&field).unwrap_or(&Value::Null);
                if *old != value {
                    changed.insert(field, difference(old, value));
                }
            }
            Value::Object(changed)
        }
        (_, after) => after,
    }
}

/// The stored object with what the resource says in its status.
pub(super) fn with_status(key: &Key, mut stored: Value, resource: &Resource) -> Result<Vec<u8>, Error> {
    let status = serde_json::to_value(resource.status())
        .map_err(|error| Error::unavailable(format!("cannot write {key} as JSON"), error))?;
    stored["status"] = status;
    bytes(key, &stored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(metadata: Value) -> Value {
        let mut pool = json!({
            "apiVersion": "manx.network/v1",
            "kind": "IPPool",
            "metadata": metadata,
            "spec": {"cidr": "10.0.0.0/16"},
            "status": {"conditions": []},
        });
        pool["metadata"]["name"] = json!("main");
        pool
    }

    #[test]
    fn what_a_server_adds_is_no_part_of_a_resource() {
        let object = pool(json!({
            "resourceVersion": "7", "generation": 2, "managedFields": [], "deletionTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"a": "b"},
        }));
        let resource = read(Kind::IpPool, object).unwrap();
        assert_eq!(resource.metadata().labels["a"], "b");
        assert_eq!(
            resource.metadata().resource_version,
            Some(Revision("7".to_owned()))
        );
    }

    #[test]
    fn an_update_keeps_what_is_others() {
        let stored = pool(
            json!({"finalizers": ["example.org/wait"], "labels": {"a": "b"}, "annotations": {"c": "d"}}),
        );
        let mut resource = read(Kind::IpPool, stored.clone()).unwrap();
        resource.metadata_mut().labels.clear();
        resource
            .metadata_mut()
            .annotations
            .insert("e".to_owned(), "f".to_owned());
        let body = merged(&resource.key(), stored.clone(), &resource).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["metadata"]["finalizers"], json!(["example.org/wait"]));
        assert_eq!(body["metadata"]["labels"], Value::Null);
        assert_eq!(body["metadata"]["annotations"], json!({"c": "d", "e": "f"}));
        assert_eq!(body["status"], stored["status"]);
    }

    #[test]
    fn a_patch_has_what_changed_and_what_is_gone_and_the_revision_it_is_made_from() {
        let stored = pool(json!({"resourceVersion": "7", "labels": {"a": "b", "kept": "x"}}));
        let before = read(Kind::IpPool, stored).unwrap();
        let mut after = before.clone();
        let Resource::IpPool(pool) = &mut after else {
            panic!("no pool")
        };
        pool.metadata.labels.remove("a");
        pool.spec.disabled = true;
        let patch = patch(&before.key(), &before, &after).unwrap();
        let wanted = json!({
            "metadata": {"labels": {"a": null}, "resourceVersion": "7"}, "spec": {"disabled": true},
        });
        assert_eq!(patch, wanted);
    }

    #[test]
    fn what_breaks_rules_is_no_resource() {
        let mut wrong = pool(json!({}));
        wrong["spec"]["cidr"] = json!("10.0.0.1/16");
        let error = read(Kind::IpPool, wrong.clone()).unwrap_err().to_string();
        assert!(
            error.starts_with("IPPool/main is not valid: spec.cidr: '10.0.0.1/16' has host bits set"),
            "{error}"
        );
        wrong["spec"]["cidr"] = json!("ten");
        let error = read(Kind::IpPool, wrong.clone()).unwrap_err().to_string();
        assert!(
            error.contains("spec: cannot be read: 'ten' is not a network"),
            "{error}"
        );
        assert!(taken(Kind::IpPool, wrong).is_none());
    }
}
