//! What the one form says of a packet, rule by rule: how a conversion is compared with the specifications.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of twenty kinds, few are policies or what they speak of"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::policy::{
    Action, DefaultAction, Direction, Endpoint, Family, Hook, NamespacedName, NetworkSet, Not, Order, Origin,
    Policy, Port, Protocol, Rule, Scope, Side, Subject, Tier, built_in_tiers, namespace_labels,
};
use manx_api::{Resource, Selector};

use super::world::{Packet, Service, World};

/// A world, converted.
pub(crate) struct Form {
    policies: Vec<(Origin, Policy)>,
    tiers: Vec<(String, Tier)>,
    endpoints: Vec<Endpoint>,
    sets: Vec<NetworkSet>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    services: Vec<Service>,
}

impl Form {
    pub(crate) fn of(world: &World) -> Self {
        let mut form = Self {
            policies: Vec::new(),
            tiers: built_in_tiers()
                .map(|(name, tier)| (name.to_owned(), tier))
                .into(),
            endpoints: Vec::new(),
            sets: Vec::new(),
            namespaces: BTreeMap::new(),
            services: world.services.clone(),
        };
        for resource in &world.resources {
            match resource {
                Resource::Tier(tier) => form.tiers.push((tier.metadata.name.clone(), (&tier.spec).into())),
                Resource::WorkloadEndpoint(pod) => form.endpoints.push(pod.into()),
                Resource::HostEndpoint(host) => form.endpoints.push(host.into()),
                Resource::NetworkSet(set) => form.sets.push(set.into()),
                Resource::GlobalNetworkSet(set) => form.sets.push(set.into()),
                Resource::Namespace(namespace) => {
                    let labels = namespace_labels(&namespace.metadata.name, Some(&namespace.metadata));
                    form.namespaces.insert(namespace.metadata.name.clone(), labels);
                }
                other => form
                    .policies
                    .extend(Policy::of(other).map(|policy| (other.key().into(), policy))),
            }
        }
        for (_, policy) in &form.policies {
            if form.tiers.iter().all(|(name, _)| *name != policy.tier) {
                let unknown = Tier {
                    order: Order::LAST,
                    default_action: DefaultAction::Deny,
                };
                form.tiers.push((policy.tier.clone(), unknown));
            }
        }
        form.tiers
            .sort_by(|(a, x), (b, y)| (x.order, a).cmp(&(y.order, b)));
        form.policies
            .sort_by(|(a, x), (b, y)| (x.order, a).cmp(&(y.order, b)));
        form
    }

    pub(crate) fn allowed(&self, packet: &Packet) -> bool {
        let pod_at = |address| {
            let mut pods = self
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.namespace.is_some());
            pods.find(|pod| pod.addresses.contains(&address))
        };
        let (from, to) = (pod_at(packet.from), pod_at(packet.to));
        let one_pod = from.is_some() && from == to;
        one_pod
            || (from.is_none_or(|pod| self.lets_through(pod, packet, Direction::Egress))
                && to.is_none_or(|pod| self.lets_through(pod, packet, Direction::Ingress)))
    }

    fn lets_through(&self, pod: &Endpoint, packet: &Packet, direction: Direction) -> bool {
        for (name, tier) in &self.tiers {
            let rules: Vec<&Vec<Rule>> = self
                .policies
                .iter()
                .filter(|(_, policy)| policy.tier == *name && !policy.staged)
                .filter(|(_, policy)| matches!(policy.hook, Hook::Normal | Hook::Forwarded))
                .filter(|(_, policy)| self.selects(&policy.subject, pod))
                .filter_map(|(_, policy)| match direction {
                    Direction::Ingress => policy.ingress.as_ref(),
                    Direction::Egress => policy.egress.as_ref(),
                })
                .collect();
            if rules.is_empty() {
                continue;
            }
            let mut matching = rules
                .into_iter()
                .flatten()
                .filter(|rule| self.matches(rule, packet));
            match matching
                .find(|rule| rule.action != Action::Log)
                .map(|rule| rule.action)
            {
                Some(Action::Allow) => return true,
                Some(Action::Deny) => return false,
                Some(Action::Pass | Action::Log) => {}
                None if tier.default_action == DefaultAction::Deny => return false,
                None => {}
            }
        }
        true
    }

    fn selects(&self, subject: &Subject, endpoint: &Endpoint) -> bool {
        self.is_in(&subject.scope, endpoint.namespace.as_deref())
            && subject.labels.matches(&endpoint.labels)
            && subject.service_accounts.as_ref().is_none_or(|accounts| {
                endpoint.service_account.as_ref().is_some_and(|account| {
                    (accounts.names.is_empty() || accounts.names.contains(account))
                        && accounts.labels.matches(&BTreeMap::new())
                })
            })
    }

    fn is_in(&self, scope: &Scope, namespace: Option<&str>) -> bool {
        let labelled = |selector: &Selector, name: &str| match self.namespaces.get(name) {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&namespace_labels(name, None)),
        };
        match scope {
            Scope::Anywhere => true,
            Scope::Namespace(name) => namespace == Some(name),
            Scope::Namespaces(selector) => namespace.is_some_and(|name| labelled(selector, name)),
            Scope::Global => namespace.is_none(),
        }
    }

    fn matches(&self, rule: &Rule, packet: &Packet) -> bool {
        let protocol = Protocol(packet.protocol);
        let message = |icmp: manx_api::policy::Icmp| {
            packet
                .icmp
                .is_some_and(|(kind, code)| icmp.kind == kind && icmp.code.is_none_or(|it| it == code))
        };
        let (from, to) = packet.ports.unzip();
        rule.family
            .is_none_or(|family| (family == Family::V4) == packet.from.is_ipv4())
            && rule.protocol.is_none_or(|wanted| match wanted {
                Not::Is(wanted) => wanted == protocol,
                Not::Not(other) => other != protocol,
            })
            && rule.icmp.is_none_or(message)
            && rule.not_icmp.is_none_or(|other| !message(other))
            && self.is_side(&rule.source, packet.from, protocol, from)
            && self.is_side(&rule.destination, packet.to, protocol, to)
            && self.is_behind(rule.source.service.as_ref(), packet.from, None)
            && self.is_behind(
                rule.destination.service.as_ref(),
                packet.to,
                Some((packet.protocol, to)),
            )
    }

    fn is_side(&self, side: &Side, address: IpAddr, protocol: Protocol, port: Option<u16>) -> bool {
        let within = |nets: &[IpNetwork]| nets.iter().any(|net| net.contains(address));
        let has =
            |ports: &[Port]| port.is_some_and(|port| self.is_port(side, ports, (address, protocol, port)));
        side.of.as_ref().is_none_or(|of| self.is_of(of, address))
            && side.not_of.as_ref().is_none_or(|of| !self.is_of(of, address))
            && (side.nets.is_empty() || within(&side.nets))
            && !within(&side.not_nets)
            && (side.ports.is_empty() || has(&side.ports))
            && (side.not_ports.is_empty() || (port.is_some() && !has(&side.not_ports)))
    }

    fn is_of(&self, subject: &Subject, address: IpAddr) -> bool {
        let set = |set: &&NetworkSet| set.nets.iter().any(|net| net.contains(address));
        let endpoints = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.addresses.contains(&address));
        endpoints
            .into_iter()
            .any(|endpoint| self.selects(subject, endpoint))
            || self.sets.iter().filter(set).any(|set| {
                subject.service_accounts.is_none()
                    && subject.labels.matches(&set.labels)
                    && self.is_in(&subject.scope, set.namespace.as_deref())
            })
    }

    fn is_port(
        &self,
        side: &Side,
        ports: &[Port],
        (address, protocol, port): (IpAddr, Protocol, u16),
    ) -> bool {
        let called = |name: &str| {
            let is_meant = |endpoint: &&Endpoint| {
                let of = side.of.as_ref();
                endpoint.addresses.contains(&address) && of.is_none_or(|of| self.selects(of, endpoint))
            };
            let endpoints = self.endpoints.iter().filter(is_meant);
            let mut named = endpoints.flat_map(|endpoint| &endpoint.ports);
            named.any(|it| it.name == name && it.protocol == protocol && it.port == port)
        };
        ports.iter().any(|it| match it {
            Port::Numbers(range) => (range.first..=range.last).contains(&port),
            Port::Named(name) => called(name),
        })
    }

    fn is_behind(
        &self,
        name: Option<&NamespacedName>,
        address: IpAddr,
        at: Option<(u8, Option<u16>)>,
    ) -> bool {
        let Some(name) = name else { return true };
        let mut services = self.services.iter();
        services.any(|service| {
            (&service.namespace, &service.name) == (&name.namespace, &name.name)
                && service.endpoints.iter().any(|(ip, protocol, port)| {
                    *ip == address && at.is_none_or(|at| at == (*protocol, Some(*port)))
                })
        })
    }
}
