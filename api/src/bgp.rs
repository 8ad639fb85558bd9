//! The speaker's settings.

use std::net::SocketAddr;
use std::num::NonZeroU8;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::announcement::AddressKind;
use crate::formats::{as_number, cidr, is_false};
#[cfg(feature = "schema")]
use crate::schema;
use crate::{Metadata, Selector};

/// The port that IANA gave BGP.
pub const BGP_PORT: u16 = 179;

/// Settings of every node's speaker. Only the name `default` is honoured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BgpConfiguration {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: BgpConfigurationSpec,
}

/// What the user asks for of all speakers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpConfigurationSpec {
    /// One iBGP session with every other node. Default true.
    pub node_to_node_mesh_enabled: bool,
    /// The AS of nodes that name none. Default 64512. Read from text too, as in `'1.10'`.
    #[serde(deserialize_with = "as_number::deserialize")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::AsNumber"))]
    pub as_number: u32,
    /// The TCP port of nodes' speakers. Default 179.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub listen_port: u16,
    /// Seconds of silence after which a mesh peer is gone: 0 (never) or 3 to 65535. Default 9.
    #[cfg_attr(feature = "schema", schemars(extend("not" = {"enum": [1, 2]})))]
    pub hold_time: u16,
    /// Seconds that mesh peers keep our routes while we restart (RFC 4724): 0 to 4095. Default 120.
    #[cfg_attr(feature = "schema", schemars(range(max = 4095)))]
    pub node_mesh_max_restart_time: u16,
    /// Seconds that routes in the mesh are kept after the restart time, as a last resort (RFC 9494): 0 to 16777215.
    /// Default 0: not at all.
    #[serde(skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schema", schemars(range(max = 16_777_215)))]
    pub node_mesh_long_lived_stale_time: u32,
    /// BGPFilters for the sessions of the mesh, whose rules decide in order. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Set<schema::Name>"))]
    pub node_mesh_filters: Vec<String>,
    /// Watch the paths to mesh peers by BFD (RFC 5880). Default: nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_bfd: Option<BfdSpec>,
    /// Sign all segments between nodes with this (TCP MD5, RFC 2385). Default: nobody signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<Password>,
    /// Announce services' addresses in the cluster that lie in these ranges. Default: none.
    #[serde(rename = "serviceClusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_cluster_ips: Vec<ServiceRange>,
    /// The same for `externalIPs`.
    #[serde(rename = "serviceExternalIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_external_ips: Vec<ServiceRange>,
    /// The same for load balancers' addresses.
    #[serde(rename = "serviceLoadBalancerIPs", skip_serializing_if = "Vec::is_empty")]
    pub service_load_balancer_ips: Vec<ServiceRange>,
    /// Whether load balancers' ranges are announced, or each address by itself. Default Enabled: ranges.
    #[serde(skip_serializing_if = "is_zero")]
    pub service_load_balancer_aggregation: Aggregation,
}

impl BgpConfigurationSpec {
    /// The ranges for a service's addresses of a kind.
    #[must_use]
    pub fn service_ranges(&self, kind: AddressKind) -> &[ServiceRange] {
        match kind {
            AddressKind::Cluster => &self.service_cluster_ips,
            AddressKind::External => &self.service_external_ips,
            AddressKind::LoadBalancer => &self.service_load_balancer_ips,
        }
    }

    /// All ranges for services' addresses.
    pub fn all_service_ranges(&self) -> impl Iterator<Item = IpNetwork> + '_ {
        AddressKind::ALL
            .into_iter()
            .flat_map(|kind| self.service_ranges(kind))
            .map(|range| range.cidr)
    }
}

/// A range of services' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceRange {
    /// The addresses; no host bits set.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Cidr"))]
    #[serde(deserialize_with = "cidr::any")]
    pub cidr: IpNetwork,
}

/// Whether a range is announced, or each address in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Aggregation {
    /// The range.
    #[default]
    Enabled,
    /// Each address that a service has.
    Disabled,
}

impl Default for BgpConfigurationSpec {
    fn default() -> Self {
        Self {
            node_to_node_mesh_enabled: true,
            as_number: 64512,
            listen_port: 179,
            hold_time: 9,
            node_mesh_max_restart_time: 120,
            node_mesh_long_lived_stale_time: 0,
            node_mesh_filters: Vec::new(),
            node_mesh_bfd: None,
            node_mesh_password: None,
            service_cluster_ips: Vec::new(),
            service_external_ips: Vec::new(),
            service_load_balancer_ips: Vec::new(),
            service_load_balancer_aggregation: Aggregation::default(),
        }
    }
}

/// A session beside the mesh: with a router, a reflector, another AS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BgpPeer {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    pub spec: BgpPeerSpec,
}

/// What the user asks for of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// The one node that has this session; with neither this nor `node_selector`, every node has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Name>"))]
    pub node: Option<String>,
    /// The nodes that have this session; not beside `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// The peer: `192.0.2.1`, `192.0.2.1:1179`, `2001:db8::1` or `[2001:db8::1]:1179`; port 179 by default.
    #[serde(
        default,
        rename = "peerIP",
        with = "peer_ip",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::PeerAddress>"))]
    pub peer_ip: Option<SocketAddr>,
    /// The interface that leads to the peer: alone for whoever is found there by router advertisements, beside `peer_ip`
    /// where that is link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Interface>"))]
    pub interface: Option<String>,
    /// Instead of `peer_ip` and `as_number`: the nodes that are the peers, each of which has the session, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_selector: Option<Selector>,
    /// The peer's AS, beside `peer_ip`; beside `interface`, any but ours where absent. Read from text too, as in `'1.10'`.
    #[serde(
        default,
        deserialize_with = "as_number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::AsNumber>"))]
    pub as_number: Option<u32>,
    /// Which next hop our announcements carry. Default Auto.
    #[serde(default)]
    pub next_hop_mode: NextHopMode,
    /// Wait for the peer to connect. Default false.
    #[serde(default)]
    pub passive: bool,
    /// Seconds of silence after which the peer is gone: 0 or 3 to 65535. Default 90.
    #[serde(default = "default_hold_time")]
    #[cfg_attr(feature = "schema", schemars(extend("not" = {"enum": [1, 2]})))]
    pub hold_time: u16,
    /// Seconds that the peer keeps our routes while we restart (RFC 4724): 0 to 4095. Default 120.
    #[serde(default = "default_restart_time")]
    #[cfg_attr(feature = "schema", schemars(range(max = 4095)))]
    pub max_restart_time: u16,
    /// Seconds that the peer keeps our routes after the restart time, as a last resort, and that we keep the peer's at
    /// most (RFC 9494): 0 to 16777215. Default 0: not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schema", schemars(range(max = 16_777_215)))]
    pub long_lived_stale_time: u32,
    /// BGPFilters, whose rules decide in order. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Set<schema::Name>"))]
    pub filters: Vec<String>,
    /// Our AS towards this peer, in place of the node's. Read from text too.
    #[serde(
        default,
        rename = "localASNumber",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "as_number::optional"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::AsNumber>"))]
    pub local_as_number: Option<u32>,
    /// How often our own AS may be in an AS_PATH that comes in: 0 to 255. Default 0.
    #[serde(default, rename = "numAllowedLocalASNumbers", skip_serializing_if = "is_zero")]
    pub allowed_local_as_numbers: u8,
    /// Do not use routes from another AS that do not name it first in AS_PATH (RFC 4271 §6.3). Default false.
    #[serde(default, rename = "enforceFirstAS", skip_serializing_if = "is_false")]
    pub enforce_first_as: bool,
    /// Put our AS in the place of the peer's in paths, so that sites of one AS hear of each other. Default false.
    #[serde(default, rename = "asOverride", skip_serializing_if = "is_false")]
    pub as_override: bool,
    /// Leave private AS numbers (RFC 6996) out of paths to another AS. Default false.
    #[serde(default, rename = "removePrivateAS", skip_serializing_if = "is_false")]
    pub remove_private_as: bool,
    /// How many prefixes the peer may announce. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixes>,
    /// Watch the path to the peer by BFD (RFC 5880); `{}` for the defaults. Default: nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdSpec>,
    /// Sign all segments with this (TCP MD5, RFC 2385). Default: nobody signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// Drop packets that have come more hops than this (GTSM, RFC 5082): 1 to 254; 1 for a peer on our link. The peer
    /// has to do the same. Default: from anywhere.
    #[serde(default, rename = "ttlSecurity", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 254)))]
    pub ttl_security: Option<u8>,
    /// The address to dial from. Default UseNodeIP.
    #[serde(default)]
    pub source_address: SourceAddress,
}

/// Where a password is to be found: not here, for whoever may read resources may not know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Password {
    /// Which key of which Secret.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret: the file `name/key` in each node's directory of secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Name"))]
    pub name: String,
    /// The key in it.
    #[cfg_attr(feature = "schema", schemars(with = "schema::SecretKey"))]
    pub key: String,
}

/// Where connections to a peer come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SourceAddress {
    /// The node's address of the peer's family.
    #[default]
    #[serde(rename = "UseNodeIP")]
    UseNodeIp,
    /// Whichever the kernel chooses.
    None,
}

/// How BFD watches the path to a peer, which has to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BfdSpec {
    /// The peer is several hops away (RFC 5883). Default false: it is on our link (RFC 5881).
    pub multihop: bool,
    /// Milliseconds between our packets at least, 10 to 60000. Default 300.
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 60_000)))]
    pub min_tx: u16,
    /// Milliseconds between the peer's at least, 10 to 60000. Default 300.
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 60_000)))]
    pub min_rx: u16,
    /// The path is down after this many intervals of silence, 1 to 255. Default 3.
    pub multiplier: NonZeroU8,
}

impl Default for BfdSpec {
    fn default() -> Self {
        Self {
            multihop: false,
            min_tx: 300,
            min_rx: 300,
            multiplier: NonZeroU8::MIN.saturating_add(2),
        }
    }
}

/// How many prefixes a peer may announce, used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MaxPrefixes {
    /// Of IPv4. Default: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u32>,
    /// Of IPv6. Default: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u32>,
    /// A warning is logged at this percentage, 1 to 100. Default 75.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    pub warn_percent: u8,
    /// What becomes of a session with more. Default Down.
    pub action: LimitAction,
    /// Seconds after which the session may come back, with action Restart. Default 60.
    pub restart_after: u32,
}

/// What becomes of a session whose peer announces more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LimitAction {
    /// A warning is logged, no more.
    Warn,
    /// It ends, and comes back after a while.
    Restart,
    /// It ends, until the peer's settings change.
    Down,
}

impl Default for MaxPrefixes {
    fn default() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            warn_percent: 75,
            action: LimitAction::Down,
            restart_after: 60,
        }
    }
}

/// Which next hop announcements carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum NextHopMode {
    /// RFC 4271 §5.1.3: ourselves for our own routes and towards eBGP peers, unchanged otherwise.
    #[default]
    Auto,
    /// Always ourselves.
    #[serde(rename = "Self")]
    SelfAddress,
    /// Unchanged wherever there is one.
    Keep,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_hold_time() -> u16 {
    90
}

fn default_restart_time() -> u16 {
    120
}

/// `peerIP` is an address with an optional port.
mod peer_ip {
    use std::net::{IpAddr, SocketAddr};

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::BGP_PORT;

    pub(super) fn serialize<S: Serializer>(
        peer: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match peer {
            None => serializer.serialize_none(),
            Some(peer) if peer.port() == BGP_PORT => serializer.collect_str(&peer.ip()),
            Some(peer) => serializer.collect_str(peer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Some(SocketAddr::new(ip, BGP_PORT)));
        }
        text.parse().map(Some).map_err(|_| {
            D::Error::custom(format!(
                "'{text}' is not a peer address: write 192.0.2.1, 192.0.2.1:1179, 2001:db8::1 or [2001:db8::1]:1179"
            ))
        })
    }
}
