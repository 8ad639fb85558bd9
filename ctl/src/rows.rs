//! The columns of every list, with calicoctl's names where it has them.

use ipnetwork::IpNetwork;
use manx_api::bgp::{BGP_PORT, BgpConfigurationSpec, BgpPeerSpec};
use manx_api::explanation::StagedCount;
use manx_api::ipam::{IpPoolSpec, IpamConfigurationSpec};
use manx_api::kubernetes::{KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy};
use manx_api::network_policy::{
    GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedNetworkPolicy,
};
use manx_api::network_set::{GlobalNetworkSet, NetworkSet};
use manx_api::node::NodeSpec;
use manx_api::status::{BgpRoute, KernelRoute, LimitStatus, NodeStatus, PeerStatus, RangeStatus, Reload};
use manx_api::{Kind, Resource};
use manx_lab::{LabStatus, NodeView, Pod, RouterView};
use serde::Serialize;

use crate::output::{Row, duration};
use crate::policy::called;
use crate::{policy_rows, service_rows};

/// What a session that works is called.
const ESTABLISHED: &str = "Established";

pub(crate) fn optional(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

pub(crate) fn joined<T: ToString>(values: &[T]) -> String {
    values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// `IPv4 unicast 900 of 1000 (near)`.
fn limit(limit: &LimitStatus) -> String {
    let LimitStatus {
        family,
        received,
        max,
        state,
    } = limit;
    match state.as_str() {
        "below" => format!("{family} {received} of {max}"),
        _ => format!("{family} {received} of {max} ({state})"),
    }
}

/// `192.0.2.0/24: 3 of 100, 2 refused`.
fn range(range: &RangeStatus) -> String {
    let RangeStatus {
        prefix,
        peers,
        limit,
        refused,
    } = range;
    match refused {
        0 => format!("{prefix}: {peers} of {limit}"),
        _ => format!("{prefix}: {peers} of {limit}, {refused} refused"),
    }
}

/// The session's state, and how far its drain is: `Established (draining, 12s left)`.
fn state(peer: &PeerStatus) -> String {
    match &peer.drain {
        None => peer.state.clone(),
        Some(drain) if drain.phase == "down" => format!("{} (drained)", peer.state),
        Some(drain) => format!("{} (draining, {} left)", peer.state, duration(drain.seconds_left)),
    }
}

impl Row for PeerStatus {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "NODE",
            "PEER ADDRESS",
            "ASN",
            "STATE",
            "UPTIME",
            "RECEIVED",
            "ACCEPTED",
            "ADVERTISED",
            "BFD",
            "ORIGIN",
            "HOLD TIME",
            "LIMITS",
            "RANGE",
            "LAST ERROR",
        ],
        9,
    );

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            self.peer(),
            self.asn.to_string(),
            state(self),
            if self.state == ESTABLISHED {
                duration(self.uptime_seconds)
            } else {
                String::new()
            },
            self.received.to_string(),
            self.accepted.to_string(),
            self.advertised.to_string(),
            optional(self.bfd.as_ref().map(|bfd| &bfd.state)),
            self.origin.clone(),
            self.hold_time.to_string(),
            self.limits.iter().map(limit).collect::<Vec<_>>().join(", "),
            self.range.as_ref().map(range).unwrap_or_default(),
            optional(self.last_error.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.node, self.peer())
    }

    fn is_well(&self) -> bool {
        self.state == ESTABLISHED
    }
}

impl Row for BgpRoute {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "NODE",
            "PREFIX",
            "BEST",
            "NEXT HOP",
            "AS PATH",
            "PEER",
            "LOCAL PREF",
            "MED",
            "PRIORITY",
            "ORIGIN",
            "COMMUNITIES",
            "STALE",
            "REASON",
        ],
        5,
    );

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            self.prefix.to_string(),
            if self.best { "*" } else { "" }.to_owned(),
            optional(self.next_hop),
            self.as_path.clone(),
            optional(self.peer),
            optional(self.local_pref),
            optional(self.med),
            optional(self.priority),
            self.origin.clone(),
            joined(&self.communities),
            yes_no(self.stale),
            optional(self.reason.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.node, self.prefix)
    }
}

impl Row for KernelRoute {
    const COLUMNS: (&'static [&'static str], usize) =
        (&["NODE", "PREFIX", "TARGET", "SOURCE", "STATE", "ERROR"], 5);

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            self.prefix.to_string(),
            self.target.clone(),
            self.source.clone(),
            self.state.clone(),
            optional(self.error.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.node, self.prefix)
    }

    fn is_well(&self) -> bool {
        self.state == "installed"
    }
}

impl Row for StagedCount {
    const COLUMNS: (&'static [&'static str], usize) =
        (&["NODE", "POLICY", "DIRECTION", "RULE", "ACTION", "PACKETS"], 6);

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            called(&self.policy),
            self.direction.to_string(),
            optional(self.rule),
            optional(self.action),
            self.packets.to_string(),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.node, called(&self.policy))
    }
}

impl Row for NodeStatus {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "NODE",
            "READY",
            "PEERS",
            "ROUTES",
            "PODS",
            "UPTIME",
            "ASN",
            "ROUTER ID",
            "VERSION",
            "WAITING FOR",
        ],
        6,
    );

    fn cells(&self) -> Vec<String> {
        vec![
            self.node.clone(),
            yes_no(self.ready),
            format!("{}/{}", self.peers_established, self.peers_configured),
            format!("{}/{}", self.routes_installed, self.routes_wanted),
            self.pods.to_string(),
            duration(self.uptime_seconds),
            self.asn.to_string(),
            self.router_id.to_string(),
            self.version.clone(),
            joined(&self.waiting_for),
        ]
    }

    fn name(&self) -> String {
        format!("node/{}", self.node)
    }

    fn is_well(&self) -> bool {
        self.ready
    }
}

/// What reading a configuration again, or an operator's word, has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// `neighbor`, `route` or `collector`.
    kind: &'static str,
    /// Which.
    name: String,
    /// `added`, `changed`, `removed`, or what was done to it.
    change: &'static str,
}

impl Change {
    /// Every change.
    pub(crate) fn all(done: &Reload) -> Vec<Self> {
        let Reload {
            peers_added,
            peers_changed,
            peers_removed,
            routes_added,
            routes_removed,
            collectors_added,
            collectors_removed,
        } = done;
        let of = |kind, change| move |name: String| Self { kind, name, change };
        let peers = |peers: &[String], change| Self::of_neighbors(peers, change);
        let routes = |routes: &[IpNetwork], change| {
            routes
                .iter()
                .map(IpNetwork::to_string)
                .map(of("route", change))
                .collect()
        };
        let collectors = |names: &[String], change| {
            let names = names.iter().cloned();
            names.map(of("collector", change)).collect()
        };
        [
            peers(peers_added, "added"),
            peers(peers_changed, "changed"),
            peers(peers_removed, "removed"),
            routes(routes_added, "added"),
            routes(routes_removed, "removed"),
            collectors(collectors_removed, "removed"),
            collectors(collectors_added, "added"),
        ]
        .concat()
    }
}

impl Change {
    /// The same of all of these.
    pub(crate) fn of_neighbors<P: ToString>(peers: &[P], change: &'static str) -> Vec<Self> {
        let of = |peer: &P| Self {
            kind: "neighbor",
            name: peer.to_string(),
            change,
        };
        peers.iter().map(of).collect()
    }
}

impl Row for Change {
    const COLUMNS: (&'static [&'static str], usize) = (&["KIND", "NAME", "CHANGE"], 3);

    fn cells(&self) -> Vec<String> {
        vec![self.kind.to_owned(), self.name.clone(), self.change.to_owned()]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// A session, as `node status` shows it: calicoctl's columns.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct PeerLine(pub PeerStatus);

impl Row for PeerLine {
    const COLUMNS: (&'static [&'static str], usize) =
        (&["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"], 5);

    fn cells(&self) -> Vec<String> {
        let peer = &self.0;
        let up = peer.state == ESTABLISHED;
        let kind = if peer.origin == "mesh" {
            "node-to-node mesh".to_owned()
        } else {
            format!("BGPPeer {}", peer.origin)
        };
        let info = match &peer.last_error {
            Some(error) if !up => format!("{}: {error}", peer.state),
            Some(_) | None => peer.state.clone(),
        };
        vec![
            peer.peer(),
            kind,
            if up { "up" } else { "down" }.to_owned(),
            if up {
                format!("{} ago", duration(peer.uptime_seconds))
            } else {
                String::new()
            },
            info,
        ]
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn is_well(&self) -> bool {
        self.0.is_well()
    }
}

impl Row for Pod {
    const COLUMNS: (&'static [&'static str], usize) = (
        &["NAMESPACE", "NAME", "NODE", "ADDRESSES", "NETNS", "CONTAINER ID"],
        4,
    );

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.node.clone(),
            joined(&self.addresses),
            self.netns.clone(),
            self.container_id.clone(),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn is_well(&self) -> bool {
        !self.addresses.is_empty()
    }
}

impl Row for NodeView {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "NODE",
            "ADDRESSES",
            "ASN",
            "AGENT",
            "NETNS",
            "CNI CONFIGURATION",
            "CNI PLUGINS",
        ],
        5,
    );

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            joined(&self.addresses),
            optional(self.asn),
            if self.running { "running" } else { "stopped" }.to_owned(),
            self.netns.clone(),
            self.cni_conf_dir.display().to_string(),
            self.cni_bin_dir.display().to_string(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_well(&self) -> bool {
        self.running
    }
}

impl Row for RouterView {
    const COLUMNS: (&'static [&'static str], usize) =
        (&["ROUTER", "ADDRESSES", "ASN", "SOFTWARE", "NETNS"], 5);

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            joined(&self.addresses),
            optional(self.asn),
            self.software.clone(),
            self.netns.clone(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_well(&self) -> bool {
        self.running
    }
}

/// The names of everything in a lab, one a line.
#[must_use]
pub(crate) fn names(status: &LabStatus) -> String {
    let hosts = status
        .nodes
        .iter()
        .map(Row::name)
        .chain(status.routers.iter().map(Row::name));
    hosts
        .chain(status.pods.iter().map(Row::name))
        .map(|name| name + "\n")
        .collect()
}

const POOL: &[&str] = &[
    "NAME",
    "CIDR",
    "SELECTOR",
    "NAT",
    "BLOCKSIZE",
    "DISABLED",
    "DISABLEBGPEXPORT",
    "ASSIGNMENTMODE",
    "NAMESPACES",
];

/// The columns for resources of a kind, and how many of them a narrow table has.
#[must_use]
pub(crate) fn columns(kind: Kind) -> (&'static [&'static str], usize) {
    match kind {
        Kind::IpPool => (POOL, 3),
        Kind::IpReservation => (&["NAME", "CIDRS"], 2),
        Kind::IpamConfiguration => (
            &[
                "NAME",
                "STRICTAFFINITY",
                "AUTOALLOCATEBLOCKS",
                "MAXBLOCKSPERHOST",
                "IPCOOLDOWNSECONDS",
            ],
            3,
        ),
        Kind::Namespace => (&["NAME", "LABELS"], 2),
        Kind::IpBlock => (&["NAME", "CIDR", "NODE", "POOL", "GENERATION", "ALLOCATIONS"], 3),
        Kind::Node => (&["NAME", "ASN", "IPV4", "IPV6"], 1),
        Kind::BgpConfiguration => (
            &[
                "NAME",
                "MESHENABLED",
                "ASNUMBER",
                "LISTENPORT",
                "HOLDTIME",
                "MESHMAXRESTARTTIME",
            ],
            3,
        ),
        Kind::BgpPeer => (&["NAME", "PEERIP", "NODE", "ASN", "NEXTHOPMODE", "HOLDTIME"], 4),
        Kind::BgpFilter => (&["NAME", "IMPORTV4", "EXPORTV4", "IMPORTV6", "EXPORTV6"], 5),
        Kind::WorkloadEndpoint => (
            &[
                "NAMESPACE",
                "WORKLOAD",
                "NODE",
                "NETWORKS",
                "INTERFACE",
                "CONTAINERID",
            ],
            5,
        ),
        Kind::Tier => policy_rows::TIER,
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => policy_rows::NAMESPACED,
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => policy_rows::GLOBAL,
        Kind::KubernetesNetworkPolicy | Kind::StagedKubernetesNetworkPolicy => policy_rows::KUBERNETES,
        Kind::ClusterNetworkPolicy => policy_rows::CLUSTER,
        Kind::NetworkSet => policy_rows::NETWORK_SET,
        Kind::GlobalNetworkSet => policy_rows::GLOBAL_NETWORK_SET,
        Kind::HostEndpoint => policy_rows::HOST_ENDPOINT,
        Kind::Service => service_rows::SERVICE,
        Kind::EndpointSlice => service_rows::ENDPOINT_SLICE,
        Kind::ServiceAccount => service_rows::SERVICE_ACCOUNT,
    }
}

/// A resource's cells.
#[must_use]
pub(crate) fn cells(resource: &Resource) -> Vec<String> {
    let name = resource.metadata().name.clone();
    match resource {
        Resource::IpPool(pool) => pool_cells(name, &pool.spec),
        Resource::IpReservation(reservation) => vec![name, joined(&reservation.spec.reserved_cidrs)],
        Resource::IpamConfiguration(configuration) => ipam_cells(name, &configuration.spec),
        Resource::Namespace(namespace) => {
            let label = |(key, value)| format!("{key}={value}");
            let labels: Vec<String> = namespace.metadata.labels.iter().map(label).collect();
            vec![name, labels.join(",")]
        }
        Resource::IpBlock(block) => vec![
            name,
            block.spec.cidr.to_string(),
            optional(block.spec.node.as_ref()),
            block.spec.pool.clone(),
            block.spec.generation.to_string(),
            block.spec.allocations.len().to_string(),
        ],
        Resource::Node(node) => node_cells(name, &node.spec),
        Resource::BgpConfiguration(configuration) => configuration_cells(name, &configuration.spec),
        Resource::BgpPeer(peer) => peer_cells(name, &peer.spec),
        Resource::BgpFilter(filter) => {
            let spec = &filter.spec;
            let lists = [&spec.import_v4, &spec.export_v4, &spec.import_v6, &spec.export_v6];
            let counts = lists.map(|rules| rules.len().to_string());
            std::iter::once(name).chain(counts).collect()
        }
        Resource::WorkloadEndpoint(endpoint) => vec![
            optional(endpoint.metadata.namespace.as_ref()),
            endpoint.spec.pod.clone(),
            endpoint.spec.node.clone(),
            joined(&endpoint.spec.addresses),
            endpoint.spec.interface_name.clone(),
            endpoint.spec.container_id.clone(),
        ],
        Resource::Tier(tier) => policy_rows::tier(tier),
        Resource::NetworkPolicy(NetworkPolicy { metadata, spec, .. })
        | Resource::GlobalNetworkPolicy(GlobalNetworkPolicy { metadata, spec, .. })
        | Resource::StagedNetworkPolicy(StagedNetworkPolicy { metadata, spec, .. })
        | Resource::StagedGlobalNetworkPolicy(StagedGlobalNetworkPolicy { metadata, spec, .. }) => {
            policy_rows::policy(resource.kind(), metadata, spec)
        }
        Resource::KubernetesNetworkPolicy(KubernetesNetworkPolicy { metadata, spec, .. })
        | Resource::StagedKubernetesNetworkPolicy(StagedKubernetesNetworkPolicy { metadata, spec, .. }) => {
            policy_rows::kubernetes(resource.kind(), metadata, spec)
        }
        Resource::ClusterNetworkPolicy(policy) => policy_rows::cluster(policy),
        Resource::NetworkSet(NetworkSet { metadata, spec })
        | Resource::GlobalNetworkSet(GlobalNetworkSet { metadata, spec }) => {
            policy_rows::network_set(metadata, spec)
        }
        Resource::HostEndpoint(endpoint) => policy_rows::host_endpoint(endpoint),
        Resource::Service(service) => service_rows::service(service),
        Resource::EndpointSlice(slice) => service_rows::endpoint_slice(slice),
        Resource::ServiceAccount(account) => service_rows::service_account(account),
    }
}

fn ipam_cells(name: String, spec: &IpamConfigurationSpec) -> Vec<String> {
    vec![
        name,
        spec.strict_affinity.to_string(),
        spec.auto_allocate_blocks.to_string(),
        spec.max_blocks_per_host.to_string(),
        spec.ip_cooldown_seconds.to_string(),
    ]
}

fn node_cells(name: String, spec: &NodeSpec) -> Vec<String> {
    let bgp = spec.bgp.clone().unwrap_or_default();
    vec![
        name,
        optional(bgp.as_number),
        optional(bgp.ipv4_address),
        optional(bgp.ipv6_address),
    ]
}

fn pool_cells(name: String, spec: &IpPoolSpec) -> Vec<String> {
    vec![
        name,
        spec.cidr.to_string(),
        spec.node_selector.to_string(),
        spec.nat_outgoing.to_string(),
        spec.block_size().to_string(),
        spec.disabled.to_string(),
        spec.disable_bgp_export.to_string(),
        spec.assignment_mode.to_string(),
        spec.namespace_selector.to_string(),
    ]
}

fn configuration_cells(name: String, spec: &BgpConfigurationSpec) -> Vec<String> {
    vec![
        name,
        spec.node_to_node_mesh_enabled.to_string(),
        spec.as_number.to_string(),
        spec.listen_port.to_string(),
        spec.hold_time.to_string(),
        spec.node_mesh_max_restart_time.to_string(),
    ]
}

fn peer_cells(name: String, spec: &BgpPeerSpec) -> Vec<String> {
    let nodes = spec
        .node
        .clone()
        .or_else(|| spec.node_selector.as_ref().map(ToString::to_string));
    let address = spec.peer_ip.map(|peer| match peer.port() {
        BGP_PORT => peer.ip().to_string(),
        _ => peer.to_string(),
    });
    let address = match (address, &spec.interface) {
        (Some(address), Some(interface)) => Some(format!("{address}%{interface}")),
        (address, interface) => address.or_else(|| interface.clone()),
    };
    let selected = || optional(spec.peer_selector.as_ref());
    vec![
        name,
        address.unwrap_or_else(selected),
        nodes.unwrap_or_else(|| "(global)".to_owned()),
        optional(spec.as_number),
        format!("{:?}", spec.next_hop_mode),
        spec.hold_time.to_string(),
    ]
}
