//! Members of the cluster.

use std::net::Ipv4Addr;

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::formats::{as_number, cidr, is_false};
#[cfg(feature = "schema")]
use crate::schema;

/// A member of the cluster. Each `manxd` writes its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The shared part; labels are what selectors see.
    pub metadata: Metadata,
    /// How the node takes part.
    #[serde(default)]
    pub spec: NodeSpec,
}

/// How a node takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Its BGP side; a node without one is in no mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<NodeBgp>,
    /// The node is cordoned: it announces no service's address. Default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unschedulable: bool,
}

/// The BGP side of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeBgp {
    /// The node's AS; the cluster's default (BGPConfiguration) where absent.
    #[serde(
        default,
        deserialize_with = "as_number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::AsNumber>"))]
    pub as_number: Option<u32>,
    /// Address and on-link prefix, as in `192.0.2.1/24`: where sessions run and the next hop of IPv4 routes.
    #[serde(
        default,
        rename = "ipv4Address",
        deserialize_with = "cidr::v4",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Cidr>"))]
    pub ipv4_address: Option<Ipv4Network>,
    /// The same for IPv6.
    #[serde(
        default,
        rename = "ipv6Address",
        deserialize_with = "cidr::v6",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Cidr>"))]
    pub ipv6_address: Option<Ipv6Network>,
    /// The node reflects routes (RFC 4456) as a member of this cluster, an IPv4 address in form: nodes of its AS
    /// that it has a session with by a BGPPeer, and that are of no cluster or of another, are its clients.
    #[serde(
        default,
        rename = "routeReflectorClusterID",
        skip_serializing_if = "Option::is_none"
    )]
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}
