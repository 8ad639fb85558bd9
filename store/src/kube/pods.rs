//! Pods as WorkloadEndpoints: the cluster says itself what runs where, and nobody writes that a second time.
//!
//! Of a Pod its name, namespace, node, addresses, labels, service account and the names of its ports are kept, and
//! nothing else, for every node watches all of them. The endpoint is called as the pod is, which no other of the namespace
//! is; of its container and of the node's end of its link a Pod knows nothing.

use std::net::IpAddr;

use manx_api::rule::NamedPort;
use manx_api::workload::{ALLOWED_SOURCES_ANNOTATIONS, WorkloadEndpoint, WorkloadEndpointSpec};
use manx_api::{Metadata, Resource};
use serde_json::Value;

use super::object;

/// The interface in the pod, as every runtime of Kubernetes calls it.
const INTERFACE: &str = "eth0";

/// What a Pod is to the network.
#[derive(Debug)]
pub(super) enum Pod {
    /// It has, or is about to have, an interface of its own.
    Endpoint(Resource),
    /// It has come to its end: its addresses may be another's.
    Ended(Resource),
    /// It is on no node yet, or has its node's interfaces.
    None,
}

impl Pod {
    /// The Pod that an object of the API server is.
    pub(super) fn of(mut object: Value) -> Self {
        let (metadata, spec, status) = (
            object["metadata"].take(),
            object["spec"].take(),
            object["status"].take(),
        );
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let Some(node) = text(&spec["nodeName"]).filter(|_| spec["hostNetwork"] != true) else {
            return Self::None;
        };
        let name = text(&metadata["name"]).unwrap_or_default();
        let endpoint = Resource::WorkloadEndpoint(WorkloadEndpoint {
            spec: WorkloadEndpointSpec {
                node,
                pod: name.clone(),
                endpoint: INTERFACE.to_owned(),
                addresses: addresses(&status),
                service_account: text(&spec["serviceAccountName"]),
                ports: ports(&spec),
                allowed_source_prefixes: serde_json::from_str(sources(&metadata["annotations"]))
                    .unwrap_or_default(),
                ..WorkloadEndpointSpec::default()
            },
            metadata: Metadata {
                name,
                namespace: text(&metadata["namespace"]),
                uid: text(&metadata["uid"]),
                resource_version: Some(object::version(&metadata)),
                creation_timestamp: text(&metadata["creationTimestamp"]),
                labels: object::labels(&metadata),
                ..Metadata::default()
            },
        });
        match status["phase"].as_str() {
            Some("Succeeded" | "Failed") => Self::Ended(endpoint),
            Some(_) | None => Self::Endpoint(endpoint),
        }
    }

    /// The endpoint, if it is there.
    pub(super) fn endpoint(self) -> Option<Resource> {
        match self {
            Self::Endpoint(endpoint) => Some(endpoint),
            Self::Ended(_) | Self::None => None,
        }
    }
}

/// A pod's addresses, in Kubernetes' order.
fn addresses(status: &Value) -> Vec<IpAddr> {
    let all = status["podIPs"].as_array().into_iter().flatten();
    let all = all.map(|it| &it["ip"]).chain([&status["podIP"]]);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in all.filter_map(|text| text.as_str()?.parse().ok()) {
        // The first one stands in both fields.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The named ports of a pod's containers, those that begin before the others as well: some go on beside them.
fn ports(spec: &Value) -> Vec<NamedPort> {
    let containers = ["containers", "initContainers"].into_iter();
    let containers = containers.flat_map(|field| spec[field].as_array().into_iter().flatten());
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|port| {
            Some(NamedPort {
                name: port["name"].as_str()?.to_owned(),
                protocol: port["protocol"].as_str().unwrap_or("TCP").parse().ok()?,
                port: port["containerPort"].as_u64()?.try_into().ok()?,
            })
        })
        .collect()
}

/// What the pod may send from beside its own addresses, as its annotations write it; what is no list of networks allows
/// nothing.
fn sources(annotations: &Value) -> &str {
    let mut texts = ALLOWED_SOURCES_ANNOTATIONS
        .iter()
        .filter_map(|name| annotations[name].as_str());
    texts.next_back().unwrap_or("[]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {
                "name": "web-0", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
                "labels": {"app": "web"}, "managedFields": [{"manager": "kubelet"}],
                "annotations": {"manx.network/allowedSourcePrefixes": "[\"10.9.0.0/24\"]", "other": "x"},
            },
            "spec": {
                "nodeName": "n1", "serviceAccountName": "clerk",
                "containers": [
                    {"name": "a", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 1}]},
                    {"name": "b", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                ],
                "initContainers": [{"name": "c", "ports": [{"name": "side", "containerPort": 9}]}],
            },
            "status": {
                "phase": "Running", "podIP": "10.64.0.1",
                "podIPs": [{"ip": "10.64.0.1"}, {"ip": "fd64::1"}],
            },
        })
    }

    #[test]
    fn a_pod_is_an_endpoint_with_what_policies_go_by() {
        let Pod::Endpoint(Resource::WorkloadEndpoint(endpoint)) = Pod::of(pod()) else {
            panic!("no endpoint")
        };
        assert_eq!(endpoint.metadata.name, "web-0");
        assert_eq!(endpoint.metadata.labels["app"], "web");
        assert_eq!(endpoint.metadata.annotations.len(), 0);
        let WorkloadEndpointSpec {
            node,
            addresses,
            service_account,
            ports,
            allowed_source_prefixes,
            ..
        } = endpoint.spec;
        assert_eq!((node.as_str(), service_account.as_deref()), ("n1", Some("clerk")));
        assert_eq!(
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.64.0.1", "fd64::1"]
        );
        let ports: Vec<String> = ports
            .iter()
            .map(|it| format!("{}={}/{}", it.name, it.port, it.protocol))
            .collect();
        assert_eq!(ports, ["http=8080/TCP", "dns=53/UDP", "side=9/TCP"]);
        assert_eq!(allowed_source_prefixes, ["10.9.0.0/24".parse().unwrap()]);
    }

    #[test]
    fn pods_without_an_interface_of_their_own_are_none_and_those_that_ended_are_gone() {
        for (place, value) in [
            ("/spec/nodeName", json!(null)),
            ("/spec/hostNetwork", json!(true)),
        ] {
            let mut other = pod();
            other["spec"]["hostNetwork"] = json!(false);
            *other.pointer_mut(place).unwrap() = value;
            assert!(matches!(Pod::of(other), Pod::None), "{place}");
        }
        for phase in ["Succeeded", "Failed"] {
            let mut ended = pod();
            ended["status"]["phase"] = json!(phase);
            assert!(matches!(Pod::of(ended), Pod::Ended(_)), "{phase}");
        }
    }
}
