//! Where resources are in the API.

use kube::core::Request;
use manx_api::Kind;

/// The resources of a kind: of one namespace, or all. WorkloadEndpoints are the cluster's Pods.
pub(super) fn of(kind: Kind, namespace: Option<&str>) -> Request {
    if kind == Kind::WorkloadEndpoint {
        return at(("v1", "pods"), namespace);
    }
    at((kind.api_version(), kind.plural()), namespace)
}

/// Kubernetes' own nodes.
pub(super) fn nodes() -> Request {
    at(("v1", "nodes"), None)
}

/// What happened in a namespace.
pub(super) fn events(namespace: &str) -> Request {
    at(("v1", "events"), Some(namespace))
}

/// The leases of a namespace.
pub(super) fn leases(namespace: &str) -> Request {
    at(("coordination.k8s.io/v1", "leases"), Some(namespace))
}

fn at((version, plural): (&str, &str), namespace: Option<&str>) -> Request {
    let root = if version.contains('/') { "/apis" } else { "/api" };
    Request::new(match namespace {
        Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{version}/{plural}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_where_kubernetes_has_them() {
        for (kind, namespace, path) in [
            (Kind::Namespace, None, "/api/v1/namespaces"),
            (Kind::IpPool, None, "/apis/manx.network/v1/ippools"),
            (
                Kind::WorkloadEndpoint,
                Some("shop"),
                "/api/v1/namespaces/shop/pods",
            ),
            (
                Kind::KubernetesNetworkPolicy,
                Some("shop"),
                "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies",
            ),
            (
                Kind::ClusterNetworkPolicy,
                None,
                "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
            ),
        ] {
            assert_eq!(of(kind, namespace).url_path, path);
        }
    }
}
