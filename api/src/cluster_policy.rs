//! Kubernetes' policies of administrators (`policy.networking.k8s.io/v1alpha2`).

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::condition::Status;
use crate::formats::{cidr, nullable, refused};
use crate::kubernetes::LabelSelector;

/// A policy of the cluster's administrators: before those of the namespaces' owners, or after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    pub spec: ClusterPolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// What the user asks for of a [`ClusterNetworkPolicy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterPolicySpec {
    /// Before or after the namespaces' own policies.
    pub tier: ClusterTier,
    /// Its place in the tier, 0 to 1000: lower decides first.
    pub priority: u16,
    /// The pods that it applies to.
    pub subject: ClusterSubject,
    /// Rules for what comes in; the first that matches decides. At most 25.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ClusterIngressRule>,
    /// Rules for what goes out; the first that matches decides. At most 25.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ClusterEgressRule>,
}

/// A tier of administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterTier {
    /// Before the namespaces' own policies.
    Admin,
    /// For what no policy of a namespace applies to.
    Baseline,
}

/// Pods; exactly one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSubject {
    /// All pods of namespaces with such labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
}

/// Some pods of some namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespacedPods {
    /// The namespaces. Empty: all.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// The pods. Empty: all.
    pub pod_selector: LabelSelector,
}

/// What becomes of packets that come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIngressRule {
    /// For people; at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What becomes of them.
    pub action: ClusterAction,
    /// From any of these, 1 to 25.
    pub from: Vec<ClusterSubject>,
    /// By any of these protocols, at most 25. Empty: by whatever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// What becomes of packets that go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterEgressRule {
    /// For people; at most 100 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What becomes of them.
    pub action: ClusterAction,
    /// To any of these, 1 to 25.
    pub to: Vec<ClusterEgressPeer>,
    /// By any of these protocols, at most 25. Empty: by whatever.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<ClusterProtocol>,
}

/// What becomes of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterAction {
    /// They may go on; no later policy is asked for this direction.
    Accept,
    /// They are dropped.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Where packets go; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterEgressPeer {
    /// To pods of namespaces with such labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// To some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPods>,
    /// To these networks, pods' addresses included; 1 to 25.
    #[serde(deserialize_with = "cidr::strict_list", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNetwork>,
    /// Refused: experimental.
    #[serde(deserialize_with = "refused::nodes", skip_serializing)]
    pub nodes: (),
    /// Refused: experimental.
    #[serde(deserialize_with = "refused::domain_names", skip_serializing)]
    pub domain_names: (),
}

/// A protocol and its ports; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterProtocol {
    /// By TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ClusterPorts>,
    /// By UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<ClusterPorts>,
    /// By SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ClusterPorts>,
    /// To the port that the pod calls so, by whatever protocol it has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterPorts {
    /// Where to.
    pub destination_port: ClusterPort,
}

/// A port or some; exactly one of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterPort {
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// The ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterPortRange>,
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterPortRange {
    /// The first.
    pub start: u16,
    /// The last, above the first.
    pub end: u16,
}
