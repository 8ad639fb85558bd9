//! Pods' attachments to the network.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::formats::cidr;
use crate::rule::NamedPort;
#[cfg(feature = "schema")]
use crate::schema;

/// The annotation of a pod that says what its ports are called, where there is no cluster to ask: a JSON list of
/// [`NamedPort`]s.
pub const PORTS_ANNOTATION: &str = "manx.network/ports";

/// The annotation of a pod that names its service account, where there is no cluster to ask.
pub const SERVICE_ACCOUNT_ANNOTATION: &str = "manx.network/serviceAccount";

/// The annotation of a pod that says what it may send from beside its own addresses, a JSON list of networks: Calico's
/// name of it, and ours, which counts where both are there.
pub const ALLOWED_SOURCES_ANNOTATIONS: [&str; 2] = [
    "cni.projectcalico.org/allowedSourcePrefixes",
    "manx.network/allowedSourcePrefixes",
];

/// A pod's attachment to the network, written by the agent of its node. Namespaced as the pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkloadEndpoint {
    /// The shared part; named `<node>-<pod>-<ifname>` (`k8s` style), labels are the pod's.
    pub metadata: Metadata,
    /// The attachment.
    pub spec: WorkloadEndpointSpec,
}

/// The attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEndpointSpec {
    /// Where the pod runs.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Name"))]
    pub node: String,
    /// The pod.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Name"))]
    pub pod: String,
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub container_id: String,
    /// The interface in the pod.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Interface"))]
    pub endpoint: String,
    /// The host's end of the veth pair: `mx` and 11 hexadecimal characters.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Interface"))]
    pub interface_name: String,
    /// The pod's addresses, one per family.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub addresses: Vec<IpAddr>,
    /// The pod's service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Name>"))]
    pub service_account: Option<String>,
    /// What the pod's ports are called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// What the pod may send from beside its own addresses.
    #[serde(
        default,
        deserialize_with = "cidr::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Network>"))]
    pub allowed_source_prefixes: Vec<IpNetwork>,
}
