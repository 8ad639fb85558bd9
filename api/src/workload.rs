//! Pods' attachments to the network.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Metadata;

/// A pod's attachment to the network, written by the agent of its node. Namespaced as the pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadEndpoint {
    /// The shared part; named `<node>-<pod>-<ifname>` (`k8s` style), labels are the pod's.
    pub metadata: Metadata,
    /// The attachment.
    pub spec: WorkloadEndpointSpec,
}

/// The attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEndpointSpec {
    /// Where the pod runs.
    pub node: String,
    /// The pod.
    pub pod: String,
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface in the pod.
    pub endpoint: String,
    /// The host's end of the veth pair: `mx` and 11 hexadecimal characters.
    pub interface_name: String,
    /// The pod's addresses, one per family.
    pub addresses: Vec<IpAddr>,
}
