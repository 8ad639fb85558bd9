//! Host endpoints for all nodes, where they are asked for: which there should be, as a pure function, and the task that sees
//! to it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;

use manx_api::host_endpoint::{ALL_INTERFACES, DEFAULT_ALLOW, HostEndpoint, HostEndpointSpec};
use manx_api::node::Node;
use manx_api::policy::GIVEN_LABELS;
use manx_api::{Key, Kind, Metadata, Resource};
use manx_store::{Error, Store};

use crate::mirror::Mirror;

/// The kinds that decide.
const KINDS: [Kind; 2] = [Kind::Node, Kind::HostEndpoint];

/// The label of host endpoints that are ours, and what it says: others are never touched.
pub const CREATED_BY: (&str, &str) = ("manx.network/created-by", "manx-controller");

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This one is missing.
    Create(HostEndpoint),
    /// This one is not as it should be.
    Update(HostEndpoint),
    /// Its node is gone, or none is asked for any more.
    Delete(HostEndpoint),
}

/// What makes the host endpoints that there are those that there should be: with `wanted`, one of each node.
#[must_use]
pub fn changes<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    existing: impl IntoIterator<Item = &'a HostEndpoint>,
    wanted: bool,
) -> Vec<Change> {
    let nodes = nodes.into_iter().filter(|_| wanted);
    let mut missing: BTreeMap<String, HostEndpoint> = nodes
        .map(endpoint)
        .map(|endpoint| (endpoint.metadata.name.clone(), endpoint))
        .collect();
    let mut changes = Vec::new();
    for found in existing {
        let is_ours = found.metadata.labels.get(CREATED_BY.0).map(String::as_str) == Some(CREATED_BY.1);
        // One that somebody else made stands for the node.
        let Some(wanted) = missing.remove(&found.metadata.name) else {
            if is_ours {
                changes.push(Change::Delete(found.clone()));
            }
            continue;
        };
        let mut next = found.clone();
        next.metadata.labels = wanted.metadata.labels;
        next.spec = wanted.spec;
        if is_ours && next != *found {
            changes.push(Change::Update(next));
        }
    }
    changes.extend(missing.into_values().map(Change::Create));
    changes
}

/// The host endpoint of a node: all its interfaces, with its labels and addresses. What no policy decides is let through.
fn endpoint(node: &Node) -> HostEndpoint {
    let name = &node.metadata.name;
    let mut labels = node.metadata.labels.clone();
    labels.retain(|label, _| !GIVEN_LABELS.contains(&label.as_str()));
    labels.insert(CREATED_BY.0.to_owned(), CREATED_BY.1.to_owned());
    let bgp = node.spec.bgp.as_ref();
    let ipv4 = bgp.and_then(|bgp| bgp.ipv4_address).map(|it| IpAddr::V4(it.ip()));
    let ipv6 = bgp.and_then(|bgp| bgp.ipv6_address).map(|it| IpAddr::V6(it.ip()));
    HostEndpoint {
        metadata: Metadata {
            name: format!("{name}-auto-hep"),
            labels,
            ..Metadata::default()
        },
        spec: HostEndpointSpec {
            node: name.clone(),
            interface_name: Some(ALL_INTERFACES.to_owned()),
            expected_ips: ipv4.into_iter().chain(ipv6).collect(),
            profiles: vec![DEFAULT_ALLOW.to_owned()],
            ports: Vec::new(),
        },
    }
}

/// Runs until the watch ends, or what was read is not what is stored.
pub(crate) async fn run<S: Store>(store: &S, wanted: bool) -> Result<Infallible, Error> {
    let mut mirror = Mirror::of(store, &KINDS).await?;
    loop {
        for change in found(&mirror, wanted) {
            let name = match &change {
                Change::Create(it) | Change::Update(it) | Change::Delete(it) => it.metadata.name.clone(),
            };
            match carry_out(store, change).await {
                Ok(Some(written)) => mirror.wrote(written),
                // The watch tells of its end.
                Ok(None) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            tracing::info!(name, "a node's host endpoint");
        }
        mirror.changed().await?;
    }
}

fn found(mirror: &Mirror, wanted: bool) -> Vec<Change> {
    let (mut nodes, mut endpoints) = (Vec::new(), Vec::new());
    for resource in mirror.all() {
        if let Resource::Node(node) = resource {
            nodes.push(node);
        } else if let Resource::HostEndpoint(endpoint) = resource {
            endpoints.push(endpoint);
        }
    }
    changes(nodes, endpoints, wanted)
}

async fn carry_out<S: Store>(store: &S, change: Change) -> Result<Option<Resource>, Error> {
    match change {
        Change::Create(endpoint) => store.create(Resource::HostEndpoint(endpoint)).await.map(Some),
        Change::Update(endpoint) => store.update(Resource::HostEndpoint(endpoint)).await.map(Some),
        Change::Delete(endpoint) => {
            let key = Key::cluster(Kind::HostEndpoint, &endpoint.metadata.name);
            let revision = endpoint.metadata.resource_version.as_ref();
            store.delete(&key, revision).await.map(|_| None)
        }
    }
}

#[cfg(test)]
mod tests {
    use manx_api::{manifest, validate};

    use super::*;

    fn node(name: &str, rack: &str) -> Node {
        let text = format!(
            "{{apiVersion: manx.network/v1, kind: Node, metadata: {{name: {name}, labels: {{rack: {rack}}}}}, spec: {{bgp: \
             {{ipv4Address: 192.0.2.1/24, ipv6Address: '2001:db8::1/64'}}}}}}"
        );
        Node::try_from(manifest::load("test", &text).unwrap().remove(0)).unwrap()
    }

    /// Carries changes out.
    fn apply(endpoints: &mut Vec<HostEndpoint>, changes: Vec<Change>) {
        for change in changes {
            let (Change::Create(it) | Change::Update(it) | Change::Delete(it)) = &change;
            endpoints.retain(|old| old.metadata.name != it.metadata.name);
            if !matches!(change, Change::Delete(_)) {
                assert_eq!(validate(&Resource::HostEndpoint(it.clone())), []);
                endpoints.push(it.clone());
            }
        }
    }

    #[test]
    fn each_node_has_one_with_its_labels_and_addresses_as_long_as_they_are_asked_for() {
        let mut endpoints = Vec::new();
        let mut nodes = vec![node("n1", "a"), node("n2", "a")];
        let due = changes(&nodes, &endpoints, true);
        apply(&mut endpoints, due);
        let names: Vec<&str> = endpoints.iter().map(|it| it.metadata.name.as_str()).collect();
        assert_eq!(names, ["n1-auto-hep", "n2-auto-hep"]);
        assert_eq!(changes(&nodes, &endpoints, true), []);
        let HostEndpointSpec {
            node: of,
            interface_name,
            expected_ips,
            ..
        } = &endpoints[0].spec;
        assert_eq!((of.as_str(), interface_name.as_deref()), ("n1", Some("*")));
        assert_eq!(expected_ips.len(), 2);
        assert!(!endpoints[0].spec.is_closed());

        nodes = vec![node("n2", "b")];
        let due = changes(&nodes, &endpoints, true);
        apply(&mut endpoints, due);
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].metadata.labels["rack"], "b");
        let due = changes(&nodes, &endpoints, false);
        apply(&mut endpoints, due);
        assert_eq!(endpoints, []);
    }

    #[test]
    fn what_others_made_is_theirs() {
        let nodes = [node("n1", "a")];
        let mut theirs = endpoint(&nodes[0]);
        theirs.metadata.labels.clear();
        theirs.spec.profiles.clear();
        for wanted in [true, false] {
            assert_eq!(changes(&nodes, [&theirs], wanted), []);
        }
    }
}
