//! Pools and blocks of addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Metadata;

/// Addresses that pods may get, cut into blocks that nodes own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpPool {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    pub spec: IpPoolSpec,
}

/// What the user asks for of an [`IpPool`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The addresses; no host bits set, never changed once created.
    pub cidr: IpNetwork,
    /// Prefix length of a block: 20 to 32 (IPv4, default 26), 116 to 128 (IPv6, default 122).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// No new address is taken from a disabled pool; what is held stays.
    #[serde(default)]
    pub disabled: bool,
    /// Keeps the pool's blocks out of BGP.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
}

/// A slice of a pool, owned by one node at a time. Named by its CIDR: `10-244-0-64-26`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The shared part.
    pub metadata: Metadata,
    /// Whose it is, and what its owner last said of its addresses.
    pub spec: IpBlockSpec,
}

/// Whose an [`IpBlock`] is, and its owner's last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpBlockSpec {
    /// The addresses.
    pub cidr: IpNetwork,
    /// The pool it was cut from.
    pub pool: String,
    /// The owner; none while the block is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Grows with each change of owner, so that a late writer is told from the present one.
    pub generation: u64,
    /// The owner's checkpoint; the owner's journal is the truth and may be seconds ahead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocations: Vec<Allocation>,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// Grows with each allocation of the block, so that a stale release cannot free a later holder's address.
    pub sequence: u64,
    /// The CNI attachment that holds it.
    pub owner: AttachmentId,
}

/// A CNI attachment: what the runtime names in ADD and DEL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// The pod's namespace; `default` where the runtime names none.
    pub namespace: String,
    /// The pod's name; the container id where the runtime names none.
    pub pod: String,
}
