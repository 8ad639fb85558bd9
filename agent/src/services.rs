//! Which services' addresses a node announces: pure functions of services, what is behind them, and the view.
//!
//! Every node announces the ranges that the BGPConfiguration names, since any node's proxy takes a packet for any service.
//! Where packets may go to a node's own endpoints only (`externalTrafficPolicy: Local`), the nodes with a ready one announce
//! the address by itself, which is more than the range. A range of one address is announced as that address is, and load
//! balancers' ranges may be announced address by address. A node that is cordoned, or that has the label
//! `node.kubernetes.io/exclude-from-external-load-balancers`, announces nothing of this.
//!
//! [`decide`] is the one place where this is decided: announcements and explanations both come from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::announcement::{
    AddressKind, AnnouncedAddress, AnnouncementReason as Reason, NodeAnnouncement, ServiceExplanation,
};
use manx_api::bgp::Aggregation;
use manx_api::ipam::covers;
use manx_api::node::Node;
use manx_api::policy::NamespacedName;
use manx_api::service::{EndpointSlice, Service, ServiceType, TrafficPolicy};
use manx_api::{Key, Kind, Resource};

use crate::slices::Slices;
use crate::view::View;

/// The kinds that services are known by.
pub const KINDS: [Kind; 2] = [Kind::Service, Kind::EndpointSlice];

/// The label with which a node takes no part (Kubernetes' own).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Services with addresses, and where they have ready endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    services: BTreeMap<NamespacedName, Addressed>,
    /// The nodes with ready endpoints.
    slices: Slices<BTreeSet<String>>,
}

/// What matters here of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Addressed {
    policy: TrafficPolicy,
    addresses: BTreeSet<(AddressKind, IpAddr)>,
}

impl Services {
    /// Takes in the new state of a resource of [`KINDS`]; whether anything that matters here changed.
    pub fn put(&mut self, resource: &Resource) -> bool {
        let key = resource.key();
        if let Resource::Service(service) = resource {
            let (name, service) = (name(&key), addressed(service));
            return self.services.insert(name, service.clone()).as_ref() != Some(&service);
        }
        if let Resource::EndpointSlice(slice) = resource {
            return !self.slices.put(key, slice, ready_nodes(slice)).is_empty();
        }
        false
    }

    /// Forgets all resources of a kind.
    pub fn forget(&mut self, kind: Kind) {
        if kind == Kind::Service {
            self.services.clear();
        } else if kind == Kind::EndpointSlice {
            self.slices = Slices::default();
        }
    }

    /// Forgets a resource; whether it was known.
    pub fn remove(&mut self, key: &Key) -> bool {
        if key.kind == Kind::Service {
            return self.services.remove(&name(key)).is_some();
        }
        self.slices.remove(key).is_some()
    }

    /// The nodes with ready endpoints of a service.
    fn ready(&self, service: &NamespacedName) -> BTreeSet<&str> {
        self.slices.of(service).flatten().map(String::as_str).collect()
    }

    /// What node `me` announces of services.
    #[must_use]
    pub fn announced(&self, view: &View, me: &str) -> BTreeSet<IpNetwork> {
        let node = view.nodes.get(me).filter(|node| absence(node).is_none());
        let Some(node) = node.filter(|_| view.configuration.all_service_ranges().next().is_some()) else {
            return BTreeSet::new();
        };
        let mut announced: BTreeSet<IpNetwork> = ranges(view).collect();
        for (name, service) in &self.services {
            let ready = self.ready(name).contains(node.metadata.name.as_str());
            for &(kind, address) in &service.addresses {
                if let Some(range) = range(view, kind, address) {
                    let (announces, _) = decide(view, node, (kind, address, range), (service.policy, ready));
                    announced.extend(announces);
                }
            }
        }
        announced
    }

    /// Who announces a service's addresses, and why; none where there is no such service.
    #[must_use]
    pub fn explain(&self, view: &View, namespace: &str, name: &str) -> Option<ServiceExplanation> {
        let key = NamespacedName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let service = self.services.get(&key)?;
        let ready = self.ready(&key);
        let node = |node: &Node, kind, address, range| {
            let here = ready.contains(node.metadata.name.as_str());
            let (announces, reason) = decide(view, node, (kind, address, range), (service.policy, here));
            NodeAnnouncement {
                node: node.metadata.name.clone(),
                announces,
                reason,
            }
        };
        let addresses = service.addresses.iter().map(|&(kind, address)| {
            let range = range(view, kind, address);
            let nodes = range
                .into_iter()
                .flat_map(|range| view.nodes.values().map(move |it| (it, range)));
            AnnouncedAddress {
                address,
                kind,
                range,
                nodes: nodes.map(|(it, range)| node(it, kind, address, range)).collect(),
            }
        });
        Some(ServiceExplanation {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            external_traffic_policy: service.policy,
            addresses: addresses.collect(),
        })
    }
}

/// Whether a prefix that a peer announces is services': such a route is passed on and not used, since every node's own proxy
/// knows the way.
#[must_use]
pub fn is_services(view: &View, prefix: IpNetwork) -> bool {
    let inside = |outer: IpNetwork| covers(outer, prefix);
    let mut pools = view.pools.values().map(|pool| pool.spec.cidr);
    view.configuration.all_service_ranges().any(inside) && !pools.any(inside)
}

/// What brings packets for an address in `range` to a node, and why.
fn decide(
    view: &View,
    node: &Node,
    (kind, address, range): (AddressKind, IpAddr, IpNetwork),
    (policy, ready): (TrafficPolicy, bool),
) -> (Vec<IpNetwork>, Reason) {
    let by_range = is_announced(view, kind, range);
    let range = by_range.then_some(range);
    let both = || range.into_iter().chain([IpNetwork::from(address)]).collect();
    match (absence(node), policy) {
        (Some(reason), _) => (Vec::new(), reason),
        (None, TrafficPolicy::Local) if ready => (both(), Reason::ReadyEndpoint),
        (None, TrafficPolicy::Local) => (range.into_iter().collect(), Reason::NoReadyEndpoint),
        (None, TrafficPolicy::Cluster) if by_range => (range.into_iter().collect(), Reason::AnyEndpoint),
        (None, TrafficPolicy::Cluster) => (both(), Reason::AnyNode),
    }
}

/// Why a node announces nothing of services.
fn absence(node: &Node) -> Option<Reason> {
    if node.spec.unschedulable {
        Some(Reason::Cordoned)
    } else if node.metadata.labels.contains_key(EXCLUDED) {
        Some(Reason::Excluded)
    } else {
        None
    }
}

/// The ranges that are announced whatever services there are.
fn ranges(view: &View) -> impl Iterator<Item = IpNetwork> + '_ {
    AddressKind::ALL.into_iter().flat_map(move |kind| {
        let ranges = view
            .configuration
            .service_ranges(kind)
            .iter()
            .map(|range| range.cidr);
        ranges.filter(move |range| is_announced(view, kind, *range))
    })
}

/// Whether a range is announced, not only addresses in it. One address is no range: it is announced when a service has it.
fn is_announced(view: &View, kind: AddressKind, range: IpNetwork) -> bool {
    let longest = if range.is_ipv4() { 32 } else { 128 };
    let aggregated = match kind {
        AddressKind::Cluster | AddressKind::External => true,
        AddressKind::LoadBalancer => {
            view.configuration.service_load_balancer_aggregation == Aggregation::Enabled
        }
    };
    aggregated && range.prefix() < longest
}

/// The range that an address of a kind lies in: the longest.
fn range(view: &View, kind: AddressKind, address: IpAddr) -> Option<IpNetwork> {
    let ranges = view
        .configuration
        .service_ranges(kind)
        .iter()
        .map(|range| range.cidr);
    ranges
        .filter(|range| range.contains(address))
        .max_by_key(|range| range.prefix())
}

fn name(key: &Key) -> NamespacedName {
    NamespacedName {
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
    }
}

fn addressed(service: &Service) -> Addressed {
    let spec = &service.spec;
    let mut addresses = BTreeSet::new();
    let mut add = |kind, all: Vec<IpAddr>| addresses.extend(all.into_iter().map(|it| (kind, it)));
    if spec.kind != ServiceType::ExternalName {
        add(AddressKind::Cluster, spec.cluster_addresses());
        add(AddressKind::External, spec.external_ips.clone());
    }
    if spec.kind == ServiceType::LoadBalancer {
        add(AddressKind::LoadBalancer, service.status.addresses());
    }
    Addressed {
        policy: spec.external_traffic_policy,
        addresses,
    }
}

fn ready_nodes(slice: &EndpointSlice) -> BTreeSet<String> {
    let ready = slice
        .endpoints
        .iter()
        .filter(|it| it.conditions.ready != Some(false));
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use manx_api::manifest;

    use super::*;

    /// Two nodes, ranges of all kinds, a service of each traffic policy.
    const CLUSTER: &str = "
apiVersion: manx.network/v1
kind: BGPConfiguration
metadata: {name: default}
spec:
  serviceClusterIPs: [{cidr: 10.96.0.0/16}, {cidr: 'fd00:96::/112'}]
  serviceExternalIPs: [{cidr: 198.51.100.7/32}]
  serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]
---
{apiVersion: manx.network/v1, kind: Node, metadata: {name: one}}
---
{apiVersion: manx.network/v1, kind: Node, metadata: {name: two}}
---
apiVersion: v1
kind: Service
metadata: {name: any, namespace: shop}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:96::1'], externalIPs: [198.51.100.7], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: here, namespace: shop}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.2, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.2}, {ip: 192.0.2.99}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: here-1, namespace: shop, labels: {kubernetes.io/service-name: here}}
addressType: IPv4
endpoints:
- {addresses: [10.244.0.1], nodeName: one, conditions: {ready: true}}
- {addresses: [10.244.1.1], nodeName: two, conditions: {ready: false, serving: true, terminating: true}}
ports: [{port: 80}]
";

    /// The cluster with something written otherwise.
    fn cluster(changes: &[(&str, &str)]) -> (View, Services) {
        let text = changes.iter().fold(CLUSTER.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
        let (mut view, mut services) = (View::default(), Services::default());
        for resource in manifest::load("test", &text).unwrap() {
            services.put(&resource);
            view.put(resource);
        }
        (view, services)
    }

    fn announced(changes: &[(&str, &str)], node: &str) -> Vec<String> {
        let (view, services) = cluster(changes);
        services
            .announced(&view, node)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const RANGES: [&str; 3] = ["10.96.0.0/16", "203.0.113.0/24", "fd00:96::/112"];

    fn ranges_and(addresses: &[&str]) -> Vec<String> {
        let all: BTreeSet<IpNetwork> = RANGES
            .iter()
            .chain(addresses)
            .map(|it| it.parse().unwrap())
            .collect();
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_node_announces_ranges_and_those_with_ready_endpoints_local_services() {
        let one = ["10.96.0.2/32", "198.51.100.7/32", "203.0.113.2/32"];
        assert_eq!(announced(&[], "one"), ranges_and(&one));
        assert_eq!(announced(&[], "two"), ranges_and(&["198.51.100.7/32"]));
        assert_eq!(announced(&[], "stranger"), [""; 0]);
        // What Kubernetes does not say of an endpoint is so.
        let said_nothing = [(
            "conditions: {ready: false, serving: true, terminating: true}",
            "conditions: {}",
        )];
        assert_eq!(announced(&said_nothing, "two"), ranges_and(&one));
    }

    #[test]
    fn the_last_ready_endpoint_takes_the_address_with_it() {
        let gone = [("conditions: {ready: true}", "conditions: {ready: false}")];
        assert_eq!(announced(&gone, "one"), ranges_and(&["198.51.100.7/32"]));
    }

    #[test]
    fn a_node_that_is_cordoned_or_excluded_announces_nothing_of_services() {
        let cordoned = [(
            "metadata: {name: one}}",
            "metadata: {name: one}, spec: {unschedulable: true}}",
        )];
        assert_eq!(announced(&cordoned, "one"), [""; 0]);
        let label = format!("metadata: {{name: one, labels: {{{EXCLUDED}: ''}}}}}}");
        let excluded = [("metadata: {name: one}}", label.as_str())];
        assert_eq!(announced(&excluded, "one"), [""; 0]);
        assert_eq!(announced(&excluded, "two"), ranges_and(&["198.51.100.7/32"]));
    }

    #[test]
    fn without_aggregation_load_balancers_addresses_are_announced_one_by_one() {
        let single = (
            "  serviceLoadBalancerIPs:",
            "  serviceLoadBalancerAggregation: Disabled\n  serviceLoadBalancerIPs:",
        );
        let expected = ["10.96.0.0/16", "198.51.100.7/32", "fd00:96::/112"];
        assert_eq!(announced(&[single], "two"), expected, "it has no endpoint");
        let any = ("externalTrafficPolicy: Local", "externalTrafficPolicy: Cluster");
        let expected = [
            "10.96.0.0/16",
            "198.51.100.7/32",
            "203.0.113.2/32",
            "fd00:96::/112",
        ];
        assert_eq!(announced(&[single, any], "two"), expected);
    }

    #[test]
    fn without_ranges_nothing_is_announced() {
        let (mut view, services) = cluster(&[]);
        view.configuration = manx_api::bgp::BgpConfigurationSpec::default();
        assert!(services.announced(&view, "one").is_empty());
        let explained = services.explain(&view, "shop", "here").unwrap();
        assert!(
            explained
                .addresses
                .iter()
                .all(|it| it.range.is_none() && it.nodes.is_empty())
        );
    }

    /// The explanation and the announcements are one: each address is announced as it is said to be.
    #[test]
    fn what_is_explained_is_what_is_announced() {
        let (view, services) = cluster(&[]);
        for node in ["one", "two"] {
            let mut said: BTreeSet<IpNetwork> = ranges(&view).collect();
            for name in ["any", "here"] {
                let explained = services.explain(&view, "shop", name).unwrap();
                let nodes = explained.addresses.iter().flat_map(|it| &it.nodes);
                said.extend(nodes.filter(|it| it.node == node).flat_map(|it| &it.announces));
            }
            assert_eq!(said, services.announced(&view, node), "{node}");
        }
        let here = services.explain(&view, "shop", "here").unwrap();
        let reasons: Vec<Vec<Reason>> = here
            .addresses
            .iter()
            .map(|it| it.nodes.iter().map(|it| it.reason).collect())
            .collect();
        let local = vec![Reason::ReadyEndpoint, Reason::NoReadyEndpoint];
        // 192.0.2.99 is in no range.
        assert_eq!(reasons, [local.clone(), vec![], local]);
        assert_eq!(services.explain(&view, "shop", "nobody"), None);
    }

    #[test]
    fn slices_that_come_change_and_go_leave_nothing() {
        let (view, mut services) = cluster(&[]);
        let slice = manifest::load("test", CLUSTER).unwrap().pop().unwrap();
        assert!(!services.put(&slice), "nothing new");
        let before = services.announced(&view, "one");
        assert!(services.remove(&slice.key()));
        assert!(!services.remove(&slice.key()));
        assert_ne!(services.announced(&view, "one"), before);
        assert_eq!(services.slices, Slices::default());
        assert!(services.put(&slice));
        assert_eq!(services.announced(&view, "one"), before);
    }

    #[test]
    fn routes_of_services_are_told_from_those_of_pods() {
        let (mut view, _) = cluster(&[]);
        let is = |view: &View, prefix: &str| is_services(view, prefix.parse().unwrap());
        assert!(is(&view, "10.96.0.2/32") && is(&view, "10.96.0.0/16") && is(&view, "fd00:96::1/128"));
        assert!(!is(&view, "10.0.0.0/8") && !is(&view, "10.244.0.0/26"));
        let pool =
            "{apiVersion: manx.network/v1, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.96.128.0/17}}";
        view.put(manifest::load("test", pool).unwrap().pop().unwrap());
        assert!(!is(&view, "10.96.128.0/26"), "a pool's blocks are pods'");
    }
}
