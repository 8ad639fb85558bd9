//! What the specifications say of a packet, read off the resources themselves: plain, slow, and on its own. It shares
//! nothing with what turns resources into rules but the types of the resources and the selector language.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of twenty kinds, each question is about few"
)]

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::cluster_policy::{
    ClusterAction, ClusterPolicySpec, ClusterPort, ClusterProtocol, ClusterTier, NamespacedPods,
};
use manx_api::kubernetes::{
    KubernetesPolicySpec, LabelOperator, LabelSelector, Peer, PolicyPort, PortOrName, Transport,
};
use manx_api::network_policy::{EntityRule, PolicyRule, PolicySpec, ServiceAccountMatch};
use manx_api::rule::{Action, DefaultAction, Direction, Family, Icmp, NamedPort, Order, Port, Protocol};
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Resource, Selector};

use super::world::{Packet, World};

type Labels = BTreeMap<String, String>;

/// Whether a packet gets past the nodes of the pods that `asked` names by their addresses: the sender's egress and the
/// receiver's ingress let it through. What a pod sends to itself is nobody's business.
pub(crate) fn allowed(world: &World, packet: &Packet, asked: impl Fn(IpAddr) -> bool) -> bool {
    let pod_at = |address| world.pods().find(|pod| pod.spec.addresses.contains(&address));
    let (from, to) = (pod_at(packet.from), pod_at(packet.to));
    if from.is_some() && from == to {
        return true;
    }
    let from = from.filter(|_| asked(packet.from));
    let to = to.filter(|_| asked(packet.to));
    from.is_none_or(|pod| let_through(world, pod, packet, Direction::Egress))
        && to.is_none_or(|pod| let_through(world, pod, packet, Direction::Ingress))
}

/// What a policy's rules decide.
#[derive(Clone, Copy)]
enum Decision {
    Allow,
    Deny,
    NextTier,
}

fn let_through(world: &World, pod: &WorkloadEndpoint, packet: &Packet, direction: Direction) -> bool {
    let applies = |policy: &Resource| applies(world, policy, pod, direction);
    decided(world, (packet, direction), applies, false).unwrap_or(true)
}

/// The tiers in their order, each with the policies that apply; none: they do not decide. `open`: the ends of tiers deny
/// nothing.
pub(crate) fn decided(
    world: &World,
    (packet, direction): (&Packet, Direction),
    applies: impl Fn(&Resource) -> bool,
    open: bool,
) -> Option<bool> {
    for (tier, ends_with) in tiers(world) {
        let mut policies: Vec<&Resource> = world
            .resources
            .iter()
            .filter(|policy| place(policy).is_some_and(|(of, _)| of == tier) && applies(policy))
            .collect();
        if policies.is_empty() {
            continue;
        }
        policies.sort_by(|a, b| in_tier(a, b));
        let decisions = policies
            .into_iter()
            .find_map(|policy| decide(world, policy, packet, direction));
        match decisions {
            Some(Decision::Allow) => return Some(true),
            Some(Decision::Deny) => return Some(false),
            Some(Decision::NextTier) => {}
            None if ends_with == DefaultAction::Deny && !open => return Some(false),
            None => {}
        }
    }
    None
}

/// Names of tiers in the order in which they decide, and how they end. Ties are broken by name.
fn tiers(world: &World) -> Vec<(String, DefaultAction)> {
    let order = |number: u32| Order::from(number);
    let mut tiers = vec![
        (order(1_000), "kube-admin".to_owned(), DefaultAction::Pass),
        (order(1_000_000), "default".to_owned(), DefaultAction::Deny),
        (order(10_000_000), "kube-baseline".to_owned(), DefaultAction::Pass),
    ];
    for resource in &world.resources {
        if let Resource::Tier(tier) = resource {
            let ends_with = tier.spec.default_action.unwrap_or(DefaultAction::Deny);
            tiers.push((tier.spec.order, tier.metadata.name.clone(), ends_with));
        }
    }
    // A tier that policies name and that is not there comes last, and denies.
    for (name, _) in world.resources.iter().filter_map(place) {
        if tiers.iter().all(|(_, known, _)| known != name) {
            tiers.push((Order::LAST, name.to_owned(), DefaultAction::Deny));
        }
    }
    tiers.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    tiers
        .into_iter()
        .map(|(_, name, ends_with)| (name, ends_with))
        .collect()
}

/// A policy's tier and order; none for what is no policy, or is on trial.
fn place(resource: &Resource) -> Option<(&str, Order)> {
    match resource {
        Resource::NetworkPolicy(policy) => Some((&policy.spec.tier, policy.spec.order)),
        Resource::GlobalNetworkPolicy(policy) => Some((&policy.spec.tier, policy.spec.order)),
        Resource::KubernetesNetworkPolicy(_) => Some(("default", Order::from(1000))),
        Resource::ClusterNetworkPolicy(policy) => {
            let tier = match policy.spec.tier {
                ClusterTier::Admin => "kube-admin",
                ClusterTier::Baseline => "kube-baseline",
            };
            Some((tier, Order::from(u32::from(policy.spec.priority))))
        }
        _ => None,
    }
}

fn in_tier(a: &Resource, b: &Resource) -> Ordering {
    let key = |resource: &Resource| {
        let key = resource.key();
        (
            place(resource).map(|(_, order)| order),
            key.name,
            key.namespace,
            key.kind,
        )
    };
    key(a).cmp(&key(b))
}

/// Whether a policy applies to a pod for a direction.
fn applies(world: &World, policy: &Resource, pod: &WorkloadEndpoint, direction: Direction) -> bool {
    let own = policy.metadata().namespace == pod.metadata.namespace;
    let account = |accounts: &Option<Selector>| {
        // Nothing here labels service accounts.
        accounts
            .as_ref()
            .is_none_or(|accounts| pod.spec.service_account.is_some() && accounts.matches(&Labels::new()))
    };
    let tiered = |spec: &PolicySpec| {
        speaks_tiered(spec, direction)
            && spec.selector.matches(&labels(pod))
            && account(&spec.service_account_selector)
    };
    match policy {
        Resource::NetworkPolicy(policy) => own && tiered(&policy.spec),
        Resource::GlobalNetworkPolicy(policy) => {
            let namespaces = policy.spec.namespace_selector.as_ref();
            // Those act on host endpoints alone.
            let early = policy.spec.pre_dnat || policy.spec.do_not_track;
            !early
                && namespaces.is_none_or(|namespaces| namespaces.matches(&namespace_of(world, pod)))
                && tiered(&policy.spec)
        }
        Resource::KubernetesNetworkPolicy(policy) => {
            let spec = &policy.spec;
            own && selects(&spec.pod_selector, &pod.metadata.labels)
                && speaks(&spec.policy_types, true, !spec.egress.is_empty(), direction)
        }
        Resource::ClusterNetworkPolicy(policy) => {
            let spec = &policy.spec;
            let rules = match direction {
                Direction::Ingress => spec.ingress.len(),
                Direction::Egress => spec.egress.len(),
            };
            rules > 0
                && cluster_pod(
                    world,
                    pod,
                    spec.subject.namespaces.as_ref(),
                    spec.subject.pods.as_ref(),
                )
        }
        _ => false,
    }
}

pub(crate) fn speaks_tiered(spec: &PolicySpec, direction: Direction) -> bool {
    let ingress = !spec.ingress.is_empty() || spec.egress.is_empty();
    speaks(&spec.types, ingress, !spec.egress.is_empty(), direction)
}

/// `types` says which directions a policy speaks of; without it, its rules do.
fn speaks(types: &[Direction], ingress: bool, egress: bool, direction: Direction) -> bool {
    if !types.is_empty() {
        return types.contains(&direction);
    }
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

fn decide(world: &World, policy: &Resource, packet: &Packet, direction: Direction) -> Option<Decision> {
    let namespace = policy.metadata().namespace.as_deref();
    match policy {
        Resource::NetworkPolicy(policy) => tiered(world, &policy.spec, namespace, packet, direction),
        Resource::GlobalNetworkPolicy(policy) => tiered(world, &policy.spec, None, packet, direction),
        Resource::KubernetesNetworkPolicy(policy) => {
            let allows = kubernetes(world, &policy.spec, namespace, packet, direction);
            allows.then_some(Decision::Allow)
        }
        Resource::ClusterNetworkPolicy(policy) => cluster(world, &policy.spec, packet, direction),
        _ => None,
    }
}

// Policies in Calico's language.

fn tiered(
    world: &World,
    spec: &PolicySpec,
    namespace: Option<&str>,
    packet: &Packet,
    direction: Direction,
) -> Option<Decision> {
    let rules = match direction {
        Direction::Ingress => &spec.ingress,
        Direction::Egress => &spec.egress,
    };
    let matching = rules
        .iter()
        .filter(|rule| rule_matches(world, rule, namespace, packet));
    matching.into_iter().find_map(|rule| match rule.action {
        Action::Allow => Some(Decision::Allow),
        Action::Deny => Some(Decision::Deny),
        Action::Pass => Some(Decision::NextTier),
        Action::Log => None,
    })
}

fn rule_matches(world: &World, rule: &PolicyRule, namespace: Option<&str>, packet: &Packet) -> bool {
    let family = if packet.from.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let protocol = Protocol(packet.protocol);
    let message = |icmp: Icmp| {
        packet
            .icmp
            .is_some_and(|(kind, code)| kind == icmp.kind && icmp.code.is_none_or(|wanted| wanted == code))
    };
    let (from, to) = packet.ports.unzip();
    rule.ip_version.is_none_or(|version| version == family)
        && rule.protocol.is_none_or(|wanted| wanted == protocol)
        && rule.not_protocol.is_none_or(|other| other != protocol)
        && rule.icmp.is_none_or(message)
        && rule.not_icmp.is_none_or(|other| !message(other))
        && end_matches(world, &rule.source, namespace, packet.from, packet.protocol, from)
        && end_matches(
            world,
            &rule.destination,
            namespace,
            packet.to,
            packet.protocol,
            to,
        )
        && service_matches(world, &rule.source, namespace, packet.from, None)
        && service_matches(
            world,
            &rule.destination,
            namespace,
            packet.to,
            Some((packet.protocol, to)),
        )
}

/// Anything that selectors speak of: a pod, a host endpoint, a network set.
struct Thing {
    namespace: Option<String>,
    labels: Labels,
    account: Option<String>,
    ports: Vec<NamedPort>,
}

fn things_at(world: &World, address: IpAddr) -> Vec<Thing> {
    let labelled = |resource: &Resource, namespaced: bool| Thing {
        namespace: resource.metadata().namespace.clone().filter(|_| namespaced),
        labels: resource.metadata().labels.clone(),
        account: None,
        ports: Vec::new(),
    };
    let holds = |nets: &[IpNetwork]| nets.iter().any(|net| net.contains(address));
    let mut things = Vec::new();
    for resource in &world.resources {
        match resource {
            Resource::WorkloadEndpoint(pod) if pod.spec.addresses.contains(&address) => things.push(Thing {
                namespace: pod.metadata.namespace.clone(),
                labels: labels(pod),
                account: pod.spec.service_account.clone(),
                ports: pod.spec.ports.clone(),
            }),
            Resource::HostEndpoint(host) if host.spec.expected_ips.contains(&address) => {
                things.push(Thing {
                    ports: host.spec.ports.clone(),
                    ..labelled(resource, false)
                });
            }
            Resource::GlobalNetworkSet(set) if holds(&set.spec.nets) => {
                things.push(labelled(resource, false))
            }
            Resource::NetworkSet(set) if holds(&set.spec.nets) => {
                let mut thing = labelled(resource, true);
                let namespace = thing.namespace.clone().unwrap_or_default();
                thing
                    .labels
                    .insert("projectcalico.org/namespace".to_owned(), namespace);
                things.push(thing);
            }
            _ => {}
        }
    }
    things
}

fn end_matches(
    world: &World,
    end: &EntityRule,
    namespace: Option<&str>,
    address: IpAddr,
    protocol: u8,
    port: Option<u16>,
) -> bool {
    let things = things_at(world, address);
    let in_nets = |nets: &[IpNetwork]| nets.iter().any(|net| net.contains(address));
    let accounts = end.service_accounts.as_ref();
    let accounts = accounts.filter(|wanted| !wanted.names.is_empty() || wanted.selector.is_some());
    let place = |thing: &Thing| match &end.namespace_selector {
        Some(wanted) if wanted.to_string() == "global()" => thing.namespace.is_none(),
        Some(wanted) => thing
            .namespace
            .as_ref()
            .is_some_and(|name| wanted.matches(&namespace_labels(world, name))),
        None => namespace.is_none_or(|own| thing.namespace.as_deref() == Some(own)),
    };
    let speaks_of_things = end.selector.is_some()
        || end.namespace_selector.is_some()
        || accounts.is_some()
        || (namespace.is_some() && end.not_selector.is_some());
    let is_one = |thing: &Thing| {
        place(thing)
            && accounts.is_none_or(|wanted| has_account(thing, wanted))
            && end
                .selector
                .as_ref()
                .is_none_or(|wanted| wanted.matches(&thing.labels))
    };
    // A port's name is given by what the rule speaks of.
    let calls = |thing: &Thing, name: &str| {
        let mut named = thing.ports.iter();
        named.any(|it| (it.name.as_str(), it.protocol, Some(it.port)) == (name, Protocol(protocol), port))
    };
    let is_called = |name: &str| {
        let mut things = things.iter();
        things.any(|thing| (!speaks_of_things || is_one(thing)) && calls(thing, name))
    };
    let one_of = |ports: &[Port]| {
        ports.iter().any(|wanted| match wanted {
            Port::Numbers(range) => port.is_some_and(|port| (range.first..=range.last).contains(&port)),
            Port::Named(name) => is_called(name),
        })
    };
    (end.nets.is_empty() || in_nets(&end.nets))
        && !in_nets(&end.not_nets)
        && (!speaks_of_things || things.iter().any(is_one))
        && end
            .not_selector
            .as_ref()
            .is_none_or(|other| !things.iter().any(|thing| other.matches(&thing.labels)))
        && (end.ports.is_empty() || one_of(&end.ports))
        && !one_of(&end.not_ports)
}

/// Nothing here labels service accounts.
fn has_account(thing: &Thing, wanted: &ServiceAccountMatch) -> bool {
    thing.account.as_ref().is_some_and(|account| {
        (wanted.names.is_empty() || wanted.names.contains(account))
            && wanted
                .selector
                .as_ref()
                .is_none_or(|labels| labels.matches(&Labels::new()))
    })
}

/// `at`: protocol and port, for a destination.
fn service_matches(
    world: &World,
    end: &EntityRule,
    namespace: Option<&str>,
    address: IpAddr,
    at: Option<(u8, Option<u16>)>,
) -> bool {
    let Some(wanted) = &end.services else { return true };
    let namespace = wanted.namespace.as_deref().or(namespace);
    world.services.iter().any(|service| {
        service.name == wanted.name
            && Some(service.namespace.as_str()) == namespace
            && service.endpoints.iter().any(|(ip, protocol, port)| {
                *ip == address && at.is_none_or(|at| at == (*protocol, Some(*port)))
            })
    })
}

/// Whether what has the address calls the port so.
fn is_called(world: &World, address: IpAddr, protocol: u8, port: u16, name: &str) -> bool {
    let is = |ports: &[NamedPort]| {
        ports.iter().any(|named| {
            (named.name.as_str(), named.protocol, named.port) == (name, Protocol(protocol), port)
        })
    };
    world.resources.iter().any(|resource| match resource {
        Resource::WorkloadEndpoint(pod) => pod.spec.addresses.contains(&address) && is(&pod.spec.ports),
        Resource::HostEndpoint(host) => host.spec.expected_ips.contains(&address) && is(&host.spec.ports),
        _ => false,
    })
}

/// What selectors in Calico's language see of a pod.
fn labels(pod: &WorkloadEndpoint) -> Labels {
    let mut labels = pod.metadata.labels.clone();
    let given = [
        ("projectcalico.org/namespace", pod.metadata.namespace.clone()),
        ("projectcalico.org/orchestrator", Some("k8s".to_owned())),
        (
            "projectcalico.org/serviceaccount",
            pod.spec.service_account.clone(),
        ),
    ];
    labels.extend(
        given
            .into_iter()
            .filter_map(|(label, value)| Some((label.to_owned(), value?))),
    );
    labels
}

fn namespace_of(world: &World, pod: &WorkloadEndpoint) -> Labels {
    namespace_labels(world, pod.metadata.namespace.as_deref().unwrap_or_default())
}

fn namespace_labels(world: &World, name: &str) -> Labels {
    let described = world.resources.iter().find_map(|resource| match resource {
        Resource::Namespace(namespace) if namespace.metadata.name == name => {
            Some(namespace.metadata.labels.clone())
        }
        _ => None,
    });
    let mut labels = described.unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    labels.insert("projectcalico.org/name".to_owned(), name.to_owned());
    labels
}

// Kubernetes' policies.

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let has_one_of = |key, values: &[String]| labels.get(key).is_some_and(|value| values.contains(value));
    selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && selector
            .match_expressions
            .iter()
            .all(|wanted| match wanted.operator {
                LabelOperator::In => has_one_of(&wanted.key, &wanted.values),
                LabelOperator::NotIn => !has_one_of(&wanted.key, &wanted.values),
                LabelOperator::Exists => labels.contains_key(&wanted.key),
                LabelOperator::DoesNotExist => !labels.contains_key(&wanted.key),
            })
}

fn kubernetes(
    world: &World,
    spec: &KubernetesPolicySpec,
    namespace: Option<&str>,
    packet: &Packet,
    direction: Direction,
) -> bool {
    let peers = |peers: &[Peer], address| {
        peers.is_empty()
            || peers
                .iter()
                .any(|peer| kubernetes_peer(world, peer, namespace, address))
    };
    let ports = |ports: &[PolicyPort]| {
        ports.is_empty() || ports.iter().any(|port| kubernetes_port(world, port, packet))
    };
    match direction {
        Direction::Ingress => spec
            .ingress
            .iter()
            .any(|rule| peers(&rule.from, packet.from) && ports(&rule.ports)),
        Direction::Egress => spec
            .egress
            .iter()
            .any(|rule| peers(&rule.to, packet.to) && ports(&rule.ports)),
    }
}

fn kubernetes_peer(world: &World, peer: &Peer, namespace: Option<&str>, address: IpAddr) -> bool {
    if let Some(block) = &peer.ip_block {
        return block.cidr.contains(address) && !block.except.iter().any(|except| except.contains(address));
    }
    world
        .pods()
        .filter(|pod| pod.spec.addresses.contains(&address))
        .any(|pod| {
            let place = match &peer.namespace_selector {
                Some(wanted) => selects(wanted, &namespace_of(world, pod)),
                None => pod.metadata.namespace.as_deref() == namespace,
            };
            place
                && peer
                    .pod_selector
                    .as_ref()
                    .is_none_or(|wanted| selects(wanted, &pod.metadata.labels))
        })
}

fn kubernetes_port(world: &World, wanted: &PolicyPort, packet: &Packet) -> bool {
    let protocol = match wanted.protocol {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => 132,
    };
    let port = |port| match (&wanted.port, wanted.end_port) {
        (None, _) => true,
        (Some(PortOrName::Number(first)), last) => (*first..=last.unwrap_or(*first)).contains(&port),
        (Some(PortOrName::Name(name)), _) => is_called(world, packet.to, packet.protocol, port, name),
    };
    packet.protocol == protocol && packet.ports.is_some_and(|(_, to)| port(to))
}

// Kubernetes' policies of administrators.

fn cluster(
    world: &World,
    spec: &ClusterPolicySpec,
    packet: &Packet,
    direction: Direction,
) -> Option<Decision> {
    let is_pod = |address, namespaces: Option<&LabelSelector>, pods: Option<&NamespacedPods>| {
        let mut there = world.pods().filter(|pod| pod.spec.addresses.contains(&address));
        there.any(|pod| cluster_pod(world, pod, namespaces, pods))
    };
    let by = |protocols: &[ClusterProtocol]| {
        protocols.is_empty()
            || protocols
                .iter()
                .any(|protocol| cluster_protocol(world, protocol, packet))
    };
    let action = match direction {
        Direction::Ingress => spec.ingress.iter().find_map(|rule| {
            let mut peers = rule.from.iter();
            let from = peers.any(|peer| is_pod(packet.from, peer.namespaces.as_ref(), peer.pods.as_ref()));
            (from && by(&rule.protocols)).then_some(rule.action)
        }),
        Direction::Egress => spec.egress.iter().find_map(|rule| {
            let to = rule.to.iter().any(|peer| {
                peer.networks.iter().any(|network| network.contains(packet.to))
                    || is_pod(packet.to, peer.namespaces.as_ref(), peer.pods.as_ref())
            });
            (to && by(&rule.protocols)).then_some(rule.action)
        }),
    };
    action.map(|action| match action {
        ClusterAction::Accept => Decision::Allow,
        ClusterAction::Deny => Decision::Deny,
        ClusterAction::Pass => Decision::NextTier,
    })
}

fn cluster_pod(
    world: &World,
    pod: &WorkloadEndpoint,
    namespaces: Option<&LabelSelector>,
    pods: Option<&NamespacedPods>,
) -> bool {
    let namespace = namespace_of(world, pod);
    namespaces.is_some_and(|wanted| selects(wanted, &namespace))
        || pods.is_some_and(|wanted| {
            selects(&wanted.namespace_selector, &namespace)
                && selects(&wanted.pod_selector, &pod.metadata.labels)
        })
}

fn cluster_protocol(world: &World, wanted: &ClusterProtocol, packet: &Packet) -> bool {
    let Some((_, to)) = packet.ports else { return false };
    let is = |port: ClusterPort| {
        port.number == Some(to)
            || port
                .range
                .is_some_and(|range| (range.start..=range.end).contains(&to))
    };
    let ports = match packet.protocol {
        6 => wanted.tcp,
        17 => wanted.udp,
        132 => wanted.sctp,
        _ => None,
    };
    let named = wanted.destination_named_port.as_ref();
    ports.is_some_and(|ports| is(ports.destination_port))
        || named.is_some_and(|name| is_called(world, packet.to, packet.protocol, to, name))
}
