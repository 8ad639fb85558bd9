//! What a check can find.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::AttachmentId;
use serde::{Deserialize, Serialize};

/// What is wrong. The worst come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// More than one interface or pod has the address, or more than one node gives it out.
    Duplicate,
    /// An interface carries the address, and nobody is known to hold it for that.
    NotAllocated,
    /// A pod has the address, and it is in no pool.
    OutsidePools,
    /// The block's resource is wrong in itself, or contradicts another one or its owner.
    InconsistentBlock,
    /// The block's owner is no node.
    OwnerGone,
    /// The address is held for an attachment that has no interface (any more).
    Leaked,
    /// The interface is there, and no route leads to it.
    Unrouted,
    /// The address is held, and there is no WorkloadEndpoint for it.
    NoWorkload,
    /// A WorkloadEndpoint has the address, and nobody holds it for that.
    WorkloadUnallocated,
    /// The owner's journal and its checkpoint in the datastore say different things.
    CheckpointBehind,
    /// An interface carries the address and nobody is known to hold it: it is given to nobody.
    Quarantined,
    /// A DEL that came while no agent was there, and that is not carried out yet.
    Tombstone,
    /// A pod has a reserved address: it asked for it, or had it before. No problem.
    Reserved,
}

impl Class {
    /// Every class, in the order of findings.
    pub const ALL: [Self; 13] = [
        Self::Duplicate,
        Self::NotAllocated,
        Self::OutsidePools,
        Self::InconsistentBlock,
        Self::OwnerGone,
        Self::Leaked,
        Self::Unrouted,
        Self::NoWorkload,
        Self::WorkloadUnallocated,
        Self::CheckpointBehind,
        Self::Quarantined,
        Self::Tombstone,
        Self::Reserved,
    ];

    /// Whether it is something to do about, and not only to know.
    #[must_use]
    pub fn is_problem(self) -> bool {
        self != Self::Reserved
    }
}

/// What of it there is, as `… found`.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Duplicate => "addresses that more than one pod or node has",
            Self::NotAllocated => "addresses in use but not allocated",
            Self::OutsidePools => "addresses in use outside all pools",
            Self::InconsistentBlock => "inconsistencies of blocks",
            Self::OwnerGone => "blocks whose owner is no node",
            Self::Leaked => "addresses allocated but not in use",
            Self::Unrouted => "addresses in use without a route",
            Self::NoWorkload => "addresses allocated without a WorkloadEndpoint",
            Self::WorkloadUnallocated => "WorkloadEndpoints' addresses that are not allocated",
            Self::CheckpointBehind => "addresses whose checkpoint is behind the owner's journal",
            Self::Quarantined => "addresses in quarantine",
            Self::Tombstone => "DELs not carried out yet",
            Self::Reserved => "reserved addresses in use",
        })
    }
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    pub class: Class,
    /// With which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// With which block, or in which block the address is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<IpNetwork>,
    /// On which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The allocation's sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Who holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<AttachmentId>,
    /// More, for people.
    pub detail: String,
}

impl Finding {
    /// Something, about nothing in particular.
    pub(super) fn new(class: Class, detail: impl Into<String>) -> Self {
        Self {
            class,
            address: None,
            block: None,
            node: None,
            sequence: None,
            owner: None,
            detail: detail.into(),
        }
    }

    /// About a block.
    pub(super) fn of_block(
        class: Class,
        block: IpNetwork,
        node: Option<&str>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            block: Some(block),
            node: node.map(str::to_owned),
            ..Self::new(class, detail)
        }
    }

    /// About an address that somebody holds.
    pub(super) fn of_held(class: Class, held: &super::Held<'_>, detail: impl Into<String>) -> Self {
        Self {
            address: Some(held.allocation.address),
            sequence: Some(held.allocation.sequence),
            owner: Some(held.allocation.owner.clone()),
            ..Self::of_block(class, held.block, held.node, detail)
        }
    }

    /// About an address on a node.
    pub(super) fn of_address(
        class: Class,
        address: IpAddr,
        node: Option<&str>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            address: Some(address),
            node: node.map(str::to_owned),
            ..Self::new(class, detail)
        }
    }
}

/// One line: `10.1.0.2 on n1 (seq 4294967297, shop/web): its interface is gone`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.block) {
            (Some(address), _) => write!(f, "{address}")?,
            (None, Some(block)) => write!(f, "{block}")?,
            (None, None) => {}
        }
        if let Some(node) = &self.node {
            let space = if self.address.is_some() || self.block.is_some() {
                " "
            } else {
                ""
            };
            write!(f, "{space}on {node}")?;
        }
        if let (Some(sequence), Some(owner)) = (self.sequence, &self.owner) {
            write!(f, " ({}/{}, sequence {sequence})", owner.namespace, owner.pod)?;
        }
        write!(f, ": {}", self.detail)
    }
}
