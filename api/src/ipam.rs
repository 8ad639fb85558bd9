//! Pools and blocks of addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::formats::cidr;
use crate::{Metadata, Selector};

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
    #[serde(deserialize_with = "cidr::any")]
    pub cidr: IpNetwork,
    /// Prefix length of a block: 20 to 32 (IPv4, default 26), 116 to 128 (IPv6, default 122).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// The nodes that may take blocks from the pool. Default `all()`.
    #[serde(default)]
    pub node_selector: Selector,
    /// No new address is taken from a disabled pool; what is held stays.
    #[serde(default)]
    pub disabled: bool,
    /// Keeps the pool's blocks out of BGP.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
}

impl IpPoolSpec {
    /// Prefix length of a block: what the user chose or the family's default.
    #[must_use]
    pub fn block_size(&self) -> u8 {
        self.block_size.unwrap_or(match self.cidr {
            IpNetwork::V4(_) => 26,
            IpNetwork::V6(_) => 122,
        })
    }
}

/// The name of the [`IpBlock`] with this CIDR: `10-244-0-64-26`; for IPv6 all eight groups,
/// `fd00-0-0-0-0-0-0-40-122`, so that every block's name is a DNS-1123 subdomain.
#[must_use]
pub fn block_name(cidr: IpNetwork) -> String {
    let groups: Vec<String> = match cidr.network() {
        IpAddr::V4(address) => address.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(address) => address
            .segments()
            .iter()
            .map(|group| format!("{group:x}"))
            .collect(),
    };
    format!("{}-{}", groups.join("-"), cidr.prefix())
}

/// The CIDR of the [`IpBlock`] with this name; none when no block has it.
#[must_use]
pub fn block_cidr(name: &str) -> Option<IpNetwork> {
    let (address, prefix) = name.rsplit_once('-')?;
    let address = match address.matches('-').count() {
        3 => address.replace('-', ".").parse().ok().map(IpAddr::V4)?,
        7 => address.replace('-', ":").parse().ok().map(IpAddr::V6)?,
        _ => return None,
    };
    let cidr = IpNetwork::new(address, prefix.parse().ok()?).ok()?;
    // Only the canonical spelling is a name: no leading zeros, no capitals, no host bits.
    (block_name(cidr) == name).then_some(cidr)
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
    #[serde(deserialize_with = "cidr::any")]
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
    /// The network's name in the CNI configuration; none in journals of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_are_named_by_their_cidr() {
        for (cidr, name) in [
            ("10.244.0.64/26", "10-244-0-64-26"),
            ("0.0.0.0/20", "0-0-0-0-20"),
            ("fd00::40/122", "fd00-0-0-0-0-0-0-40-122"),
            ("::/116", "0-0-0-0-0-0-0-0-116"),
        ] {
            let cidr: IpNetwork = cidr.parse().unwrap();
            assert_eq!(block_name(cidr), name);
            assert_eq!(block_cidr(name), Some(cidr));
        }
        for name in [
            "",
            "main",
            "10-244-0-64",
            "10-244-0-65-26",
            "10-244-0-064-26",
            "10-244-0-64-026",
            "10-244-0-64-33",
            "10-244-0-256-26",
            "FD00-0-0-0-0-0-0-40-122",
            "fd00-0-0-0-0-0-0-040-122",
            "10.244.0.64-26",
        ] {
            assert_eq!(block_cidr(name), None, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn names_and_cidrs_are_one_to_one(v6: bool, bits: u128, length in 0_u8..=128) {
            let address: IpAddr = if v6 {
                std::net::Ipv6Addr::from(bits).into()
            } else {
                std::net::Ipv4Addr::from(u32::try_from(bits >> 96).unwrap()).into()
            };
            let cidr = IpNetwork::new(address, length.min(if v6 { 128 } else { 32 })).unwrap();
            let block = IpNetwork::new(cidr.network(), cidr.prefix()).unwrap();
            prop_assert_eq!(block_cidr(&block_name(block)), Some(block));
        }
    }
}
