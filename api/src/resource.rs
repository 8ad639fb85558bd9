//! One type for a resource of any kind.

use serde::{Deserialize, Serialize};

use crate::bgp::{BgpConfiguration, BgpPeer};
use crate::ipam::{IpBlock, IpPool};
use crate::node::Node;
use crate::workload::WorkloadEndpoint;
use crate::{Key, Kind, Metadata};

/// A resource of any kind; serialized, `kind` names the variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Resource {
    /// See [`IpPool`].
    #[serde(rename = "IPPool")]
    IpPool(IpPool),
    /// See [`IpBlock`].
    #[serde(rename = "IPBlock")]
    IpBlock(IpBlock),
    /// See [`Node`].
    Node(Node),
    /// See [`BgpConfiguration`].
    #[serde(rename = "BGPConfiguration")]
    BgpConfiguration(BgpConfiguration),
    /// See [`BgpPeer`].
    #[serde(rename = "BGPPeer")]
    BgpPeer(BgpPeer),
    /// See [`WorkloadEndpoint`].
    WorkloadEndpoint(WorkloadEndpoint),
}

impl Resource {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::IpPool(_) => Kind::IpPool,
            Self::IpBlock(_) => Kind::IpBlock,
            Self::Node(_) => Kind::Node,
            Self::BgpConfiguration(_) => Kind::BgpConfiguration,
            Self::BgpPeer(_) => Kind::BgpPeer,
            Self::WorkloadEndpoint(_) => Kind::WorkloadEndpoint,
        }
    }

    /// The shared part.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::IpPool(r) => &r.metadata,
            Self::IpBlock(r) => &r.metadata,
            Self::Node(r) => &r.metadata,
            Self::BgpConfiguration(r) => &r.metadata,
            Self::BgpPeer(r) => &r.metadata,
            Self::WorkloadEndpoint(r) => &r.metadata,
        }
    }

    /// The shared part, to change.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::IpPool(r) => &mut r.metadata,
            Self::IpBlock(r) => &mut r.metadata,
            Self::Node(r) => &mut r.metadata,
            Self::BgpConfiguration(r) => &mut r.metadata,
            Self::BgpPeer(r) => &mut r.metadata,
            Self::WorkloadEndpoint(r) => &mut r.metadata,
        }
    }

    /// What identifies it.
    #[must_use]
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key {
            kind: self.kind(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }
}
