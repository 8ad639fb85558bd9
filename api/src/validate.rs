//! What a resource must be, beyond what its type says.
//!
//! Types cannot say that a pool's CIDR has no host bits or that a hold time of two seconds is refused by
//! RFC 4271. [`validate`] looks at one resource by itself, [`validate_update`] at what may not change
//! between two versions of it, [`validate_among_pools`] at what pools may not be to each other, [`validate_delete`] and
//! [`validate_delete_tier`] at what keeps one. Each returns
//! every problem it finds, so that a user mends a manifest in one round; the store calls them inside
//! the transaction that writes.

mod cluster_policy;
mod endpoint;
mod filter;
mod ipam;
mod kubernetes;
mod policy;
mod rule;
mod service;

pub use ipam::{validate_among_pools, validate_delete};
pub use policy::validate_delete_tier;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use crate::announcement::AddressKind;
use crate::bgp::{
    BfdSpec, BgpConfiguration, BgpPeer, BgpPeerSpec, LimitAction, MaxPrefixes, Password, SecretKeyRef,
};
use crate::host_endpoint::HostEndpoint;
use crate::kubernetes::{KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy};
use crate::network_policy::{
    GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedNetworkPolicy,
};
use crate::network_set::{GlobalNetworkSet, NetworkSet};
use crate::node::Node;
use crate::workload::WorkloadEndpoint;
use crate::{Kind, Metadata, Resource, names};

/// One thing wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a path from the resource's root: `spec.blockSize`, `metadata.labels[app]`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What is wrong with it and what would be right; a sentence about the value.
    pub message: String,
}

impl Problem {
    /// A problem with the value of a field.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            value: value.to_string(),
            message: message.into(),
        }
    }

    /// Value and message as one sentence: `'33' is no block size …`.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.value.is_empty() {
            self.message.clone()
        } else {
            format!("'{}' {}", self.value, self.message)
        }
    }
}

/// `spec.blockSize: '33' is no block size …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.sentence())
    }
}

/// The problems of one resource by itself; none means that it may be stored.
#[must_use]
pub fn validate(resource: &Resource) -> Vec<Problem> {
    let mut problems = Vec::new();
    metadata(resource.kind(), resource.metadata(), &mut problems);
    match resource {
        Resource::IpPool(pool) => ipam::ip_pool(pool, &mut problems),
        Resource::IpReservation(reservation) => ipam::ip_reservation(reservation, &mut problems),
        Resource::IpamConfiguration(configuration) => ipam::ipam_configuration(configuration, &mut problems),
        // Its name is a namespace's, which is less than a name may be.
        Resource::Namespace(n) => names::namespace("metadata.name", &n.metadata.name, &mut problems),
        Resource::IpBlock(block) => ipam::ip_block(block, &mut problems),
        Resource::Node(n) => node(n, &mut problems),
        Resource::BgpConfiguration(configuration) => bgp_configuration(configuration, &mut problems),
        Resource::BgpPeer(peer) => bgp_peer(peer, &mut problems),
        Resource::BgpFilter(filter) => filter::bgp_filter(filter, &mut problems),
        Resource::WorkloadEndpoint(endpoint) => workload_endpoint(endpoint, &mut problems),
        Resource::Tier(tier) => policy::tier(tier, &mut problems),
        Resource::NetworkPolicy(NetworkPolicy { spec, .. })
        | Resource::GlobalNetworkPolicy(GlobalNetworkPolicy { spec, .. })
        | Resource::StagedNetworkPolicy(StagedNetworkPolicy { spec, .. })
        | Resource::StagedGlobalNetworkPolicy(StagedGlobalNetworkPolicy { spec, .. }) => {
            policy::network_policy(resource.kind(), spec, &mut problems);
        }
        Resource::NetworkSet(NetworkSet { metadata, spec })
        | Resource::GlobalNetworkSet(GlobalNetworkSet { metadata, spec }) => {
            endpoint::network_set(metadata, spec, &mut problems);
        }
        Resource::HostEndpoint(HostEndpoint { metadata, spec }) => {
            endpoint::host_endpoint(metadata, spec, &mut problems);
        }
        Resource::KubernetesNetworkPolicy(KubernetesNetworkPolicy { spec, .. })
        | Resource::StagedKubernetesNetworkPolicy(StagedKubernetesNetworkPolicy { spec, .. }) => {
            kubernetes::network_policy(spec, &mut problems);
            policy::staged_action(resource.kind(), spec.staged_action, &mut problems);
        }
        Resource::ClusterNetworkPolicy(policy) => cluster_policy::cluster_policy(&policy.spec, &mut problems),
        Resource::Service(service) => service::service(&service.spec, &mut problems),
        Resource::EndpointSlice(slice) => service::endpoint_slice(slice, &mut problems),
        Resource::ServiceAccount(_) => {}
    }
    problems
}

/// What `new` changes of `old`, an earlier version of it, that may not change.
#[must_use]
pub fn validate_update(old: &Resource, new: &Resource) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let (Some(old), Some(new)) = (&old.metadata().uid, &new.metadata().uid) {
        unchanged("metadata.uid", old, new, &mut problems);
    }
    if let (Resource::IpPool(old), Resource::IpPool(new)) = (old, new) {
        let (old, new) = (&old.spec, &new.spec);
        unchanged("spec.cidr", &old.cidr, &new.cidr, &mut problems);
        let (before, after) = (old.block_size(), new.block_size());
        unchanged("spec.blockSize", &before, &after, &mut problems);
        let (before, after) = (old.allowed_use(), new.allowed_use());
        unchanged("spec.allowedUses", &before, &after, &mut problems);
    }
    if let (Resource::IpBlock(old), Resource::IpBlock(new)) = (old, new) {
        ipam::block_update(old, new, &mut problems);
    }
    problems
}

fn unchanged<T: PartialEq + fmt::Display>(field: &str, old: &T, new: &T, problems: &mut Vec<Problem>) {
    if old != new {
        let message = format!("may not replace '{old}': delete the resource and create it anew");
        problems.push(Problem::new(field, new, message));
    }
}

fn metadata(kind: Kind, metadata: &Metadata, problems: &mut Vec<Problem>) {
    names::subdomain("metadata.name", &metadata.name, problems);
    match (&metadata.namespace, kind.is_namespaced()) {
        (Some(namespace), true) => names::namespace("metadata.namespace", namespace, problems),
        (Some(namespace), false) => problems.push(Problem::new(
            "metadata.namespace",
            namespace,
            format!("must be left out: {kind} belongs to the whole cluster"),
        )),
        (None, true) => problems.push(Problem::new(
            "metadata.namespace",
            "",
            format!("is missing: every {kind} belongs to a namespace"),
        )),
        (None, false) => {}
    }
    names::labels(&metadata.labels, problems);
    for key in metadata.annotations.keys() {
        names::label_key("metadata.annotations", key, problems);
    }
}

fn no_host_bits(field: &str, cidr: IpNetwork, problems: &mut Vec<Problem>) {
    if cidr.ip() != cidr.network() {
        let message = format!("has host bits set: write {}/{}", cidr.network(), cidr.prefix());
        problems.push(Problem::new(field, cidr, message));
    }
}

fn node(node: &Node, problems: &mut Vec<Problem>) {
    let Some(bgp) = &node.spec.bgp else { return };
    if bgp
        .route_reflector_cluster_id
        .is_some_and(|id| id.is_unspecified())
    {
        let message = "is no cluster's id: write an IPv4 address other than 0.0.0.0, as in 244.0.0.1";
        problems.push(Problem::new(
            "spec.bgp.routeReflectorClusterID",
            "0.0.0.0",
            message,
        ));
    }
    if let Some(asn) = bgp.as_number {
        as_number("spec.bgp.asNumber", asn, problems);
    }
    if let Some(address) = bgp.ipv4_address {
        node_address("spec.bgp.ipv4Address", address.into(), problems);
    }
    if let Some(address) = bgp.ipv6_address {
        node_address("spec.bgp.ipv6Address", address.into(), problems);
    }
}

/// RFC 7607 (0), RFC 6793 (23456, AS_TRANS) and RFC 7300 (the last of each size) keep these ASes from use.
fn as_number(field: &str, asn: u32, problems: &mut Vec<Problem>) {
    if matches!(asn, 0 | 23456 | 65535 | u32::MAX) {
        let message = "is a reserved AS number: private ones are 64512 to 65534 and 4200000000 to 4294967294";
        problems.push(Problem::new(field, asn, message));
    }
}

fn node_address(field: &str, address: IpNetwork, problems: &mut Vec<Problem>) {
    let ip = address.ip();
    let wrong = if ip.is_unspecified() {
        "the unspecified address"
    } else if ip.is_loopback() {
        "a loopback address"
    } else if ip.is_multicast() {
        "a multicast address"
    } else if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        "a link-local address"
    } else if host_bits(address) >= 2 && ip == address.network() {
        "the network's own address"
    } else if matches!(address, IpNetwork::V4(v4) if v4.prefix() < 31 && v4.ip() == v4.broadcast()) {
        "the network's broadcast address"
    } else {
        return;
    };
    let message =
        format!("is {wrong}: write the node's own address and its on-link prefix, as in 192.0.2.1/24");
    problems.push(Problem::new(field, address, message));
}

/// How many bits of the network are the host's.
fn host_bits(network: IpNetwork) -> u8 {
    match network {
        IpNetwork::V4(v4) => 32 - v4.prefix(),
        IpNetwork::V6(v6) => 128 - v6.prefix(),
    }
}

fn bgp_configuration(configuration: &BgpConfiguration, problems: &mut Vec<Problem>) {
    let name = &configuration.metadata.name;
    if name != "default" {
        let message = "is not honoured: there is one BGPConfiguration, named 'default'";
        problems.push(Problem::new("metadata.name", name, message));
    }
    let spec = &configuration.spec;
    as_number("spec.asNumber", spec.as_number, problems);
    if spec.listen_port == 0 {
        problems.push(Problem::new(
            "spec.listenPort",
            0,
            "is no port: choose 1 to 65535; BGP's is 179",
        ));
    }
    hold_time(spec.hold_time, problems);
    restart_time(
        "spec.nodeMeshMaxRestartTime",
        spec.node_mesh_max_restart_time,
        problems,
    );
    stale_time(
        "spec.nodeMeshLongLivedStaleTime",
        spec.node_mesh_long_lived_stale_time,
        ("spec.nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time),
        problems,
    );
    filter::named("spec.nodeMeshFilters", &spec.node_mesh_filters, problems);
    bfd("spec.nodeMeshBfd", spec.node_mesh_bfd, problems);
    password(
        "spec.nodeMeshPassword",
        spec.node_mesh_password.as_ref(),
        problems,
    );
    for kind in AddressKind::ALL {
        for (i, range) in spec.service_ranges(kind).iter().enumerate() {
            let field = format!("spec.{}[{i}].cidr", kind.field());
            no_host_bits(&field, range.cidr, problems);
            if range.cidr.prefix() == 0 {
                let message = "is every address: name the range that services get theirs from";
                problems.push(Problem::new(field, range.cidr, message));
            }
        }
    }
}

fn bgp_peer(peer: &BgpPeer, problems: &mut Vec<Problem>) {
    let spec = &peer.spec;
    if let Some(node) = &spec.node {
        names::subdomain("spec.node", node, problems);
        if let Some(selector) = &spec.node_selector {
            let message = "stands beside spec.node: name one node or select some, not both";
            problems.push(Problem::new("spec.nodeSelector", selector, message));
        }
    }
    who(spec, problems);
    hold_time(spec.hold_time, problems);
    restart_time("spec.maxRestartTime", spec.max_restart_time, problems);
    stale_time(
        "spec.longLivedStaleTime",
        spec.long_lived_stale_time,
        ("spec.maxRestartTime", spec.max_restart_time),
        problems,
    );
    bfd("spec.bfd", spec.bfd, problems);
    filter::named("spec.filters", &spec.filters, problems);
    if let Some(asn) = spec.local_as_number {
        as_number("spec.localASNumber", asn, problems);
        if spec.as_number == Some(asn) {
            let message = "is the peer's own AS: write another, or leave it out";
            problems.push(Problem::new("spec.localASNumber", asn, message));
        }
    }
    max_prefixes(spec.max_prefixes, problems);
    agreement(spec, problems);
    password("spec.password", spec.password.as_ref(), problems);
    // RFC 5082 §3: 255 hops would let everything through.
    if let Some(hops @ (0 | 255)) = spec.ttl_security {
        let message = "is no number of hops to check: choose 1 (on our link) to 254, or leave it out";
        problems.push(Problem::new("spec.ttlSecurity", hops, message));
    }
}

/// A limit limits something, and a session that it ends stays away for a while.
fn max_prefixes(limit: Option<MaxPrefixes>, problems: &mut Vec<Problem>) {
    let Some(limit) = limit else { return };
    if !(1..=100).contains(&limit.warn_percent) {
        let message = "is no percentage: choose 1 to 100";
        problems.push(Problem::new(
            "spec.maxPrefixes.warnPercent",
            limit.warn_percent,
            message,
        ));
    }
    if limit.ipv4.or(limit.ipv6).is_none() {
        let message = "limits no family: write ipv4 or ipv6, or leave it out";
        problems.push(Problem::new("spec.maxPrefixes", "", message));
    }
    if limit.action == LimitAction::Restart && limit.restart_after == 0 {
        let message = "would have the session come and go without end: choose 1 or more seconds";
        problems.push(Problem::new("spec.maxPrefixes.restartAfter", 0, message));
    }
}

/// Settings that are each right and cannot be meant together.
fn agreement(spec: &BgpPeerSpec, problems: &mut Vec<Problem>) {
    if spec.passive && spec.peer_selector.is_some() {
        let message =
            "stands beside spec.peerSelector, so both nodes would wait and neither connect: leave it out";
        problems.push(Problem::new("spec.passive", true, message));
    }
    // RFC 5881 §1: over one hop BFD watches who is one hop away.
    if let (Some(bfd), Some(hops)) = (spec.bfd, spec.ttl_security)
        && bfd.multihop != (hops > 1)
    {
        let message =
            format!("disagrees with spec.ttlSecurity, by which the peer is {hops} hops away at most");
        problems.push(Problem::new("spec.bfd.multihop", bfd.multihop, message));
    }
}

/// Both names are parts of a path, and a key is named as Kubernetes has it.
fn password(field: &str, password: Option<&Password>, problems: &mut Vec<Problem>) {
    let Some(Password { secret_key_ref }) = password else {
        return;
    };
    let SecretKeyRef { name, key } = secret_key_ref;
    names::subdomain(&format!("{field}.secretKeyRef.name"), name, problems);
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || key.len() > 253 || !key.chars().all(usual) || key.starts_with("..") || key == "." {
        let message = "is no key of a Secret: write letters, digits, '-', '_' and '.', as in 'password'";
        problems.push(Problem::new(format!("{field}.secretKeyRef.key"), key, message));
    }
}

/// A peer is an address with its AS, whoever is on a link, or nodes, whose addresses and AS are known.
fn who(spec: &BgpPeerSpec, problems: &mut Vec<Problem>) {
    if let Some(name) = &spec.interface {
        return on_link(spec, name, problems);
    }
    match (spec.peer_ip, &spec.peer_selector) {
        (Some(peer), None) => {
            address_of_peer(peer, problems);
            if is_link_local(peer) {
                let message = "means nothing without its link: name that in spec.interface";
                problems.push(Problem::new("spec.peerIP", peer.ip(), message));
            }
            match spec.as_number {
                Some(asn) => as_number("spec.asNumber", asn, problems),
                None => problems.push(Problem::new(
                    "spec.asNumber",
                    "",
                    "is missing: write the peer's AS",
                )),
            }
        }
        (None, Some(_)) => {
            if let Some(asn) = spec.as_number {
                let message = "stands beside spec.peerSelector: leave it out, nodes have their own";
                problems.push(Problem::new("spec.asNumber", asn, message));
            }
        }
        (Some(_), Some(selector)) => {
            let message = "stands beside spec.peerIP: name one peer or select nodes, not both";
            problems.push(Problem::new("spec.peerSelector", selector, message));
        }
        (None, None) => {
            let message = "is missing: write the peer's address, its link in spec.interface, or select nodes with \
                           spec.peerSelector";
            problems.push(Problem::new("spec.peerIP", "", message));
        }
    }
}

/// A session over a link is between its addresses, and goes no farther.
fn on_link(spec: &BgpPeerSpec, name: &str, problems: &mut Vec<Problem>) {
    interface("spec.interface", name, problems);
    if let Some(asn) = spec.as_number {
        as_number("spec.asNumber", asn, problems);
    }
    if let Some(selector) = &spec.peer_selector {
        let message = "stands beside spec.interface: name one link or select nodes, not both";
        problems.push(Problem::new("spec.peerSelector", selector, message));
    }
    if let Some(peer) = spec.peer_ip {
        address_of_peer(peer, problems);
        if !is_link_local(peer) {
            let message = "is no link-local address: leave it out, or spec.interface";
            problems.push(Problem::new("spec.peerIP", peer.ip(), message));
        }
    }
    if let Some(hops @ 2..=254) = spec.ttl_security {
        let message = "is for peers beyond the link, and this one is on it: choose 1, or leave it out";
        problems.push(Problem::new("spec.ttlSecurity", hops, message));
    }
    if spec.bfd.is_some_and(|bfd| bfd.multihop) {
        let message = "is for peers beyond the link, and this one is on it: leave it out";
        problems.push(Problem::new("spec.bfd.multihop", true, message));
    }
}

fn is_link_local(peer: SocketAddr) -> bool {
    matches!(peer.ip(), IpAddr::V6(address) if address.is_unicast_link_local())
}

fn address_of_peer(peer: SocketAddr, problems: &mut Vec<Problem>) {
    let ip = peer.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.to_canonical() != ip {
        let message = format!("is an IPv4 address: write {}", ip.to_canonical());
        problems.push(Problem::new("spec.peerIP", peer, message));
    }
    if ip.is_unspecified() || ip.is_multicast() || broadcast || peer.port() == 0 {
        let message = "is no peer: write the router's own address, with a port unless it is 179";
        problems.push(Problem::new("spec.peerIP", peer, message));
    }
}

/// Nobody keeps up with less than 10 ms, and nobody who watches wants more than a minute.
fn bfd(field: &str, spec: Option<BfdSpec>, problems: &mut Vec<Problem>) {
    let intervals = spec.map(|spec| [("minTx", spec.min_tx), ("minRx", spec.min_rx)]);
    for (name, milliseconds) in intervals.into_iter().flatten() {
        if !(10..=60_000).contains(&milliseconds) {
            let message = "is no interval: choose 10 to 60000 milliseconds";
            problems.push(Problem::new(format!("{field}.{name}"), milliseconds, message));
        }
    }
}

/// RFC 4271 §4.2: zero or at least three seconds.
fn hold_time(seconds: u16, problems: &mut Vec<Problem>) {
    if matches!(seconds, 1 | 2) {
        let message = "is no hold time: choose 0 (never) or 3 to 65535 seconds";
        problems.push(Problem::new("spec.holdTime", seconds, message));
    }
}

/// RFC 4724 §3: the restart time has twelve bits.
fn restart_time(field: &str, seconds: u16, problems: &mut Vec<Problem>) {
    if seconds > 4095 {
        problems.push(Problem::new(
            field,
            seconds,
            "is no restart time: choose 0 to 4095 seconds",
        ));
    }
}

/// RFC 9494 §3.1: the stale time has 24 bits; §4.1: it is not without a restart time.
fn stale_time(field: &str, seconds: u32, restart: (&str, u16), problems: &mut Vec<Problem>) {
    let (restart_field, restart_time) = restart;
    if seconds > 0x00ff_ffff {
        let message = "is no stale time: choose 0 (none) to 16777215 seconds";
        problems.push(Problem::new(field, seconds, message));
    } else if seconds > 0 && restart_time == 0 {
        let message = format!("needs graceful restart (RFC 9494): choose a {restart_field}, or 0 here");
        problems.push(Problem::new(field, seconds, message));
    }
}

fn workload_endpoint(endpoint: &WorkloadEndpoint, problems: &mut Vec<Problem>) {
    let spec = &endpoint.spec;
    names::subdomain("spec.node", &spec.node, problems);
    names::subdomain("spec.pod", &spec.pod, problems);
    if spec.container_id.is_empty() {
        problems.push(Problem::new(
            "spec.containerID",
            "",
            "is empty: write the CNI container id",
        ));
    }
    interface("spec.endpoint", &spec.endpoint, problems);
    interface("spec.interfaceName", &spec.interface_name, problems);
    if spec.addresses.is_empty() {
        problems.push(Problem::new(
            "spec.addresses",
            "[]",
            "is empty: an endpoint has an address",
        ));
    }
    for (i, address) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        if spec.addresses[..i]
            .iter()
            .any(|earlier| earlier.is_ipv4() == address.is_ipv4())
        {
            problems.push(Problem::new(
                field,
                address,
                "is a second address of its family: one is allowed",
            ));
        } else if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            problems.push(Problem::new(
                field,
                address,
                "is no pod's address: a unicast address is",
            ));
        }
    }
    if let Some(account) = &spec.service_account {
        names::subdomain("spec.serviceAccount", account, problems);
    }
    rule::named_ports("spec.ports", &spec.ports, problems);
    for (i, prefix) in spec.allowed_source_prefixes.iter().enumerate() {
        no_host_bits(&format!("spec.allowedSourcePrefixes[{i}]"), *prefix, problems);
    }
}

/// The kernel's rule (`dev_valid_name`).
fn interface(field: &str, name: &str, problems: &mut Vec<Problem>) {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace());
    if !valid {
        let message = "is no interface's name: use 1 to 15 bytes without '/', ':' or space";
        problems.push(Problem::new(field, name, message));
    }
}

#[cfg(test)]
mod tests;
