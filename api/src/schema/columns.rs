//! What `kubectl get` shows of each kind.

use serde_json::{Value, json};

use crate::Kind;

/// A column: its heading, its type, and where its value stands.
type Column = (&'static str, &'static str, &'static str);

/// The columns of a kind, behind its name: its own, and its age.
pub(super) fn of(kind: Kind) -> Value {
    const AGE: Column = ("Age", "date", ".metadata.creationTimestamp");
    let column = |(name, of_type, path): &Column| json!({"name": name, "type": of_type, "jsonPath": path});
    own(kind).iter().chain([&AGE]).map(column).collect()
}

fn own(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::IpPool => &[
            ("CIDR", "string", ".spec.cidr"),
            ("NAT", "boolean", ".spec.natOutgoing"),
            ("Assignment", "string", ".spec.assignmentMode"),
            ("Disabled", "boolean", ".spec.disabled"),
        ],
        Kind::IpReservation => &[("CIDRs", "string", ".spec.reservedCIDRs")],
        Kind::IpamConfiguration => &[("Strict", "boolean", ".spec.strictAffinity")],
        Kind::IpBlock => &[
            ("CIDR", "string", ".spec.cidr"),
            ("Node", "string", ".spec.node"),
            ("Pool", "string", ".spec.pool"),
        ],
        Kind::Node => &[
            ("IPv4", "string", ".spec.bgp.ipv4Address"),
            ("IPv6", "string", ".spec.bgp.ipv6Address"),
        ],
        Kind::BgpConfiguration => &[("Mesh", "boolean", ".spec.nodeToNodeMeshEnabled")],
        Kind::BgpPeer => &[
            ("Peer", "string", ".spec.peerIP"),
            ("Node", "string", ".spec.node"),
        ],
        Kind::WorkloadEndpoint => &[("Pod", "string", ".spec.pod"), ("Node", "string", ".spec.node")],
        Kind::Tier => &[
            ("Order", "number", ".spec.order"),
            ("Otherwise", "string", ".spec.defaultAction"),
        ],
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy => &[
            ("Tier", "string", ".spec.tier"),
            ("Order", "number", ".spec.order"),
            ("Selector", "string", ".spec.selector"),
        ],
        Kind::HostEndpoint => &[
            ("Node", "string", ".spec.node"),
            ("Interface", "string", ".spec.interfaceName"),
        ],
        Kind::BgpFilter
        | Kind::NetworkSet
        | Kind::GlobalNetworkSet
        | Kind::Namespace
        | Kind::KubernetesNetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::ServiceAccount => &[],
    }
}
