//! Kubernetes' services, what is behind them, and service accounts, as far as they matter here.
//!
//! A cluster's own objects are read: fields of a `spec` or `status` that say nothing to us are forgotten. Addresses
//! are text as in a manifest, for some are `None`, names or nothing at all; a method says which are addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::formats::{ignored, nullable};
use crate::kubernetes::{PortOrName, Transport};

/// The label by which an [`EndpointSlice`] names its service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What stands for an address of a service that has none.
pub const HEADLESS: &str = "None";

/// A name for a set of pods, with addresses of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ServiceSpec,
    /// What a cluster says of it.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "ServiceStatus::is_empty"
    )]
    pub status: ServiceStatus,
}

/// What the user asks for of a [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// How it is reached.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Its first address in the cluster, or [`HEADLESS`]; empty: none yet.
    #[serde(rename = "clusterIP", skip_serializing_if = "String::is_empty")]
    pub cluster_ip: String,
    /// All its addresses in the cluster, or [`HEADLESS`] alone.
    #[serde(
        rename = "clusterIPs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cluster_ips: Vec<String>,
    /// Addresses that somebody else brings to the nodes.
    #[serde(
        rename = "externalIPs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub external_ips: Vec<IpAddr>,
    /// Of which families its addresses are, the first one first; empty: as its addresses in the cluster are.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<IpFamily>,
    /// Of how many families. Default: one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// The address that a load balancer is to give it; empty: any.
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "String::is_empty")]
    pub load_balancer_ip: String,
    /// Whose load balancer it wants; none: the cluster's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// Whether a load balancer's service has ports on nodes, too. Default: it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Where what comes from outside may go.
    pub external_traffic_policy: TrafficPolicy,
    /// Where what comes from inside may go.
    pub internal_traffic_policy: TrafficPolicy,
    /// The pods behind it; empty: somebody else says who is.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
}

impl ServiceSpec {
    /// Its addresses in the cluster, the first one first; none of a headless service.
    #[must_use]
    pub fn cluster_addresses(&self) -> Vec<IpAddr> {
        let all = std::iter::once(&self.cluster_ip).chain(&self.cluster_ips);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in all.filter_map(|text| text.parse().ok()) {
            // The first one stands in both fields.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// A family of addresses, as services name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl IpFamily {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        })
    }
}

/// Of how many families a service's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilyPolicy {
    /// One.
    SingleStack,
    /// Both where the cluster has both.
    PreferDualStack,
    /// Both.
    RequireDualStack,
}

/// How a service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// At an address in the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// And at a port of every node.
    NodePort,
    /// And at an address of a load balancer.
    LoadBalancer,
    /// By a name of somebody else's.
    ExternalName,
}

/// Where packets for a service may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// To any of its endpoints.
    #[default]
    Cluster,
    /// To those on the node that the packet reached.
    Local,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// What it is called; empty: it is the only one.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its protocol.
    pub protocol: Transport,
    /// Its number at the service's addresses.
    pub port: u16,
    /// The pods' port. Default: the same number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<PortOrName>,
    /// Its number at every node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// What a cluster says of a [`Service`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What a load balancer gave it.
    #[serde(deserialize_with = "nullable")]
    pub load_balancer: LoadBalancerStatus,
}

impl ServiceStatus {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The addresses that a load balancer gave it.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ingress = self.load_balancer.ingress.iter();
        ingress.filter_map(|it| it.ip.parse().ok()).collect()
    }
}

/// What a load balancer gave a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Where it is reached.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// Where a load balancer's service is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// At an address; empty: at [`Self::hostname`].
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// By a name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

/// Some of what is behind a service; the service is named by [`SERVICE_NAME_LABEL`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSlice {
    /// The shared part.
    pub metadata: Metadata,
    /// What its addresses are.
    pub address_type: AddressType,
    /// Who is there.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports that each of them has.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SlicePort>,
}

/// What the addresses of an [`EndpointSlice`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressType {
    /// IPv4 addresses.
    IPv4,
    /// IPv6 addresses.
    IPv6,
    /// Names.
    #[serde(rename = "FQDN")]
    Name,
}

/// One who is behind a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses, which all mean the same.
    pub addresses: Vec<String>,
    /// How it is.
    #[serde(deserialize_with = "nullable")]
    pub conditions: EndpointConditions,
    /// The node that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

/// How an endpoint is; what is not said is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// It takes new connections. Default: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// It answers. Default: as [`Self::ready`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// It is about to end. Default: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// A port of those who are behind a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// What the service calls it; empty: it is the only one.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its protocol.
    #[serde(deserialize_with = "nullable")]
    pub protocol: Transport,
    /// Its number; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl EndpointSlice {
    /// The service that it is of, of its own namespace.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.get(SERVICE_NAME_LABEL).map(String::as_str)
    }

    /// Everybody's addresses, ready or not.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let all = self.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        all.filter_map(|text| text.parse().ok())
    }
}

/// Whom a pod acts as; its labels are what `serviceAccounts` selects by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// The shared part.
    pub metadata: Metadata,
    /// What a cluster wants of it; forgotten.
    #[serde(default, deserialize_with = "ignored", skip_serializing)]
    pub secrets: (),
    /// What a cluster wants of it; forgotten.
    #[serde(default, deserialize_with = "ignored", skip_serializing)]
    pub image_pull_secrets: (),
    /// What a cluster wants of it; forgotten.
    #[serde(default, deserialize_with = "ignored", skip_serializing)]
    pub automount_service_account_token: (),
}
