//! What an agent finds of addresses on its node, for `manxctl ipam check`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ipam::AttachmentId;
use crate::status::BlockStatus;

/// What a node's journal, its kernel and its tombstones say, read one after the other in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Whose.
    pub node: String,
    /// The node's blocks, with who holds what.
    pub blocks: Vec<BlockStatus>,
    /// The node's ends of pods' links.
    pub interfaces: Vec<PodInterface>,
    /// DELs that the agent has not carried out yet.
    pub tombstones: Vec<Tombstone>,
}

/// The node's end of a pod's link, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInterface {
    /// Its name.
    pub name: String,
    /// Whose it is, as the journal says; none of an interface that it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<AttachmentId>,
    /// The addresses that are routed to it.
    pub addresses: Vec<IpAddr>,
}

/// An attachment whose DEL came while no agent was there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}
