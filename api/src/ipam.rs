//! Pools and blocks of addresses.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::formats::{cidr, is_false};
#[cfg(feature = "schema")]
use crate::schema;
use crate::{Metadata, Selector};

/// Addresses that pods may get, cut into blocks that nodes own; or addresses for services of type LoadBalancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpPool {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    pub spec: IpPoolSpec,
}

/// What the user asks for of an [`IpPool`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The addresses; no host bits set, never changed once created.
    #[serde(deserialize_with = "cidr::any")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Cidr"))]
    pub cidr: IpNetwork,
    /// Prefix length of a block: 20 to 32 (IPv4, default 26), 116 to 128 (IPv6, default 122).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 20, max = 128)))]
    pub block_size: Option<u8>,
    /// The nodes that may take blocks from the pool. Default `all()`.
    #[serde(default)]
    pub node_selector: Selector,
    /// The namespaces whose pods get addresses from the pool, by their labels. Default `all()`.
    #[serde(default, skip_serializing_if = "Selector::is_all")]
    pub namespace_selector: Selector,
    /// Packets from the pool's addresses to what is in no pool leave the node with the node's address.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nat_outgoing: bool,
    /// Whether pods that name no pool get addresses from it; or services, from a pool that is theirs.
    #[serde(default, skip_serializing_if = "AssignmentMode::is_automatic")]
    pub assignment_mode: AssignmentMode,
    /// Who gets addresses from it: `Workload` (the default) or `LoadBalancer`, not both. Never changed once created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 1)))]
    pub allowed_uses: Vec<PoolUse>,
    /// No new address is taken from a disabled pool; what is held stays.
    #[serde(default)]
    pub disabled: bool,
    /// Keeps the pool's blocks out of BGP.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
}

impl IpPoolSpec {
    /// A pool of these addresses that leaves everything else to the defaults.
    #[must_use]
    pub fn new(cidr: IpNetwork) -> Self {
        Self {
            cidr,
            block_size: None,
            node_selector: Selector::all(),
            namespace_selector: Selector::all(),
            nat_outgoing: false,
            assignment_mode: AssignmentMode::Automatic,
            allowed_uses: Vec::new(),
            disabled: false,
            disable_bgp_export: false,
        }
    }

    /// Whose its addresses are.
    #[must_use]
    pub fn allowed_use(&self) -> PoolUse {
        self.allowed_uses.first().copied().unwrap_or_default()
    }

    /// Prefix length of a block: what the user chose or the family's default.
    #[must_use]
    pub fn block_size(&self) -> u8 {
        self.block_size.unwrap_or(match self.cidr {
            IpNetwork::V4(_) => 26,
            IpNetwork::V6(_) => 122,
        })
    }
}

/// Who gets addresses from a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AssignmentMode {
    /// Pods of the namespaces and nodes that the pool selects, and those that name it.
    #[default]
    Automatic,
    /// Only pods that name the pool, or an address of it, in an annotation.
    Manual,
}

impl AssignmentMode {
    /// Whether pods that name no pool get addresses.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        *self == Self::Automatic
    }
}

/// What a pool's addresses are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PoolUse {
    /// Pods.
    #[default]
    Workload,
    /// Services of type LoadBalancer. No node takes a block of such a pool, and what selects nodes or namespaces, NAT
    /// and the size of blocks have no meaning for it.
    LoadBalancer,
}

impl fmt::Display for PoolUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Workload => "Workload",
            Self::LoadBalancer => "LoadBalancer",
        })
    }
}

impl fmt::Display for AssignmentMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Automatic => "Automatic",
            Self::Manual => "Manual",
        })
    }
}

/// An annotation of a pool that is being split: into how many pools of its own size's fraction, a power of two.
/// Until all of them are there and it goes, they may lie inside it.
pub const SPLIT_INTO: &str = "manx.network/split-into";

impl IpPool {
    /// Into how many pools this one is being split; none where it is not.
    #[must_use]
    pub fn split_into(&self) -> Option<u32> {
        let number = self.metadata.annotations.get(SPLIT_INTO)?.parse::<u32>().ok()?;
        (number > 1 && number.is_power_of_two()).then_some(number)
    }

    /// Whether this pool is one of those that `parent` is being split into.
    #[must_use]
    pub fn is_part_of(&self, parent: &Self) -> bool {
        let (part, whole) = (self.spec.cidr, parent.spec.cidr);
        let depth = parent.split_into().map(u32::ilog2);
        let prefix = depth.and_then(|depth| u32::from(whole.prefix()).checked_add(depth));
        part.is_ipv4() == whole.is_ipv4()
            && prefix == Some(part.prefix().into())
            && whole.contains(part.network())
            && self.spec.block_size() == parent.spec.block_size()
    }
}

/// The pool that an address or a block belongs to: the most specific that contains all of it. Pools do not
/// overlap, but while one is being split its parts lie inside it.
#[must_use]
pub fn pool_of<'a>(cidr: IpNetwork, pools: impl IntoIterator<Item = &'a IpPool>) -> Option<&'a IpPool> {
    let contains = |pool: &&IpPool| covers(pool.spec.cidr, cidr);
    pools
        .into_iter()
        .filter(contains)
        .max_by_key(|pool| pool.spec.cidr.prefix())
}

/// Whether every address of `inner` is one of `outer`.
#[must_use]
pub fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.is_ipv4() == inner.is_ipv4() && outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// Addresses that no pod gets unless it asks for one of them by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpReservation {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    pub spec: IpReservationSpec,
}

/// What the user asks for of an [`IpReservation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpReservationSpec {
    /// The addresses; no host bits set.
    #[serde(rename = "reservedCIDRs", deserialize_with = "cidr::list")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Network>", length(min = 1)))]
    pub reserved_cidrs: Vec<IpNetwork>,
}

/// How every node assigns addresses. Only the one named `default` is honoured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpamConfiguration {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: IpamConfigurationSpec,
}

/// What the user asks for of an [`IpamConfiguration`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IpamConfigurationSpec {
    /// A node gives out addresses of its own blocks only, and leases none of another's. Default false.
    pub strict_affinity: bool,
    /// The most blocks that a node may own of each family; 0, the default, is no limit.
    pub max_blocks_per_host: u32,
    /// Seconds for which a freed address is given to nobody else, 0 to 1200. Default 60.
    #[cfg_attr(feature = "schema", schemars(range(max = 1200)))]
    pub ip_cooldown_seconds: u32,
    /// Nodes claim blocks as they need them; without, they keep to those that they own. Default true.
    pub auto_allocate_blocks: bool,
}

impl Default for IpamConfigurationSpec {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            max_blocks_per_host: 0,
            ip_cooldown_seconds: 60,
            auto_allocate_blocks: true,
        }
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// The shared part.
    pub metadata: Metadata,
    /// Whose it is, and what its owner last said of its addresses.
    pub spec: IpBlockSpec,
}

/// Whose an [`IpBlock`] is, and its owner's last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpBlockSpec {
    /// The addresses.
    #[serde(deserialize_with = "cidr::any")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Cidr"))]
    pub cidr: IpNetwork,
    /// The pool it was cut from; [`pool_of`] says which one it belongs to by now.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Name"))]
    pub pool: String,
    /// The owner; none while the block is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Name>"))]
    pub node: Option<String>,
    /// Grows with each change of owner, so that a late writer is told from the present one.
    pub generation: u64,
    /// The owner's checkpoint; the owner's journal is the truth and may be seconds ahead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocations: Vec<Allocation>,
    /// What operators ask the owner to free. It removes what it has dealt with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Release>,
    /// The block is part of another node's, lent to its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// An allocation that an operator wants freed. An owner frees it if it is still the same one, and no interface
/// carries the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// The address.
    pub address: IpAddr,
    /// The allocation's sequence number: a later one of the same address is another's.
    pub sequence: u64,
}

/// How a block is lent. The borrower makes the resource, the lender grants it; the borrower returns it, the
/// lender deletes it. In each state one of them has to act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lease {
    /// The name of the block that it is part of.
    pub of: String,
    /// How far it is.
    pub state: LeaseState,
}

/// How far a [`Lease`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LeaseState {
    /// The borrower asks. The lender grants it, or deletes the resource.
    Requested,
    /// The addresses are the borrower's.
    Granted,
    /// The borrower has no use for it any more. The lender deletes the resource, and has its addresses back.
    Returned,
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Requested => "Requested",
            Self::Granted => "Granted",
            Self::Returned => "Returned",
        })
    }
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// The container of addresses that an interface carries and nobody is known to hold. They are given to nobody.
pub const QUARANTINE: &str = "quarantine";

impl AttachmentId {
    /// Whether it stands for nobody known.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.container_id == QUARANTINE
    }
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
