//! Where resources are in the API.

use kube::core::Request;
use manx_api::Kind;

/// The resources of a kind: of one namespace, or all.
pub(super) fn of(kind: Kind, namespace: Option<&str>) -> Request {
    let root = if kind.group().is_empty() { "/api" } else { "/apis" };
    let (version, plural) = (kind.api_version(), kind.plural());
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
                "/apis/manx.network/v1/namespaces/shop/workloadendpoints",
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
