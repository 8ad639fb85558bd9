//! Which of a service's addresses nodes announce, and why, as `manxctl svc explain -o json` shows it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::service::TrafficPolicy;

/// What `service.explain` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceExplainCall {
    /// The service's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What becomes of a service's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExplanation {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where what comes from outside may go.
    pub external_traffic_policy: TrafficPolicy,
    /// Its addresses, those in the cluster first.
    pub addresses: Vec<AnnouncedAddress>,
}

/// An address of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedAddress {
    /// The address.
    pub address: IpAddr,
    /// What it is to the service.
    pub kind: AddressKind,
    /// The range of the BGPConfiguration that it lies in; without one nobody announces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNetwork>,
    /// What each node does; empty where there is no range.
    pub nodes: Vec<NodeAnnouncement>,
}

/// What an address is to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressKind {
    /// Its address in the cluster (`clusterIPs`).
    Cluster,
    /// Somebody brings it to the nodes (`externalIPs`).
    External,
    /// A load balancer gave it (`status.loadBalancer`).
    LoadBalancer,
}

impl AddressKind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::External, Self::LoadBalancer];

    /// The field of a BGPConfiguration that has the ranges for it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Cluster => "serviceClusterIPs",
            Self::External => "serviceExternalIPs",
            Self::LoadBalancer => "serviceLoadBalancerIPs",
        }
    }
}

/// What a node does about an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnnouncement {
    /// The node.
    pub node: String,
    /// What brings packets for the address to this node: the address itself, the range, or nothing.
    pub announces: Vec<IpNetwork>,
    /// Why.
    pub reason: AnnouncementReason,
}

/// Why a node announces an address, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnnouncementReason {
    /// Packets may go to any endpoint, so any node takes them: it announces the range.
    AnyEndpoint,
    /// Packets may go to any endpoint, so any node takes them: it announces the address, for nobody announces the range.
    AnyNode,
    /// Packets may go to a node's own endpoints only, and a ready one is here: it announces the address.
    ReadyEndpoint,
    /// Packets may go to a node's own endpoints only, and none is ready here: no address beside the range.
    NoReadyEndpoint,
    /// The node is cordoned (`spec.unschedulable`).
    Cordoned,
    /// The node has the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    Excluded,
}

impl AnnouncementReason {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::AnyEndpoint => "any node may take it: the range is announced",
            Self::AnyNode => "any node may take it: the address is announced by itself",
            Self::ReadyEndpoint => "a ready endpoint is here: the address is announced by itself",
            Self::NoReadyEndpoint => "externalTrafficPolicy is Local, and no ready endpoint is here",
            Self::Cordoned => "the node is cordoned",
            Self::Excluded => {
                "the node has the label node.kubernetes.io/exclude-from-external-load-balancers"
            }
        }
    }
}
