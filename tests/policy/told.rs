//! What the engine is told of a world, and what it says of its packets.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of twenty kinds, few are policies or what they speak of"
)]

use std::collections::{BTreeMap, BTreeSet};

use manx_api::Resource;
use manx_api::policy::{Icmp, NamespacedName, Policy, Protocol, built_in_tiers, namespace_labels};
use manx_policy::{Engine, Explanation, Party, ServiceEndpoint, Traffic, Update, explain};

use super::world::{Packet, Service, World};

/// What the engine is told of a world.
pub(crate) fn updates(world: &World) -> Vec<Update> {
    let mut updates: Vec<Update> = built_in_tiers()
        .map(|(name, tier)| Update::Tier(name.to_owned(), Some(tier)))
        .into();
    for resource in &world.resources {
        let key = resource.key();
        let (id, name) = (key.to_string(), key.name.clone());
        match resource {
            Resource::Tier(tier) => updates.push(Update::Tier(name, Some((&tier.spec).into()))),
            Resource::WorkloadEndpoint(pod) => updates.push(Update::Endpoint(id, Some(Box::new(pod.into())))),
            Resource::HostEndpoint(host) => updates.push(Update::Endpoint(id, Some(Box::new(host.into())))),
            Resource::NetworkSet(set) => {
                updates.push(Update::NetworkSet(key.into(), Some(Box::new(set.into()))))
            }
            Resource::GlobalNetworkSet(set) => {
                updates.push(Update::NetworkSet(key.into(), Some(Box::new(set.into()))));
            }
            other => {
                let policy = Policy::of(other).map(Box::new);
                updates.extend(policy.map(|policy| Update::Policy(key.into(), Some(policy))));
            }
        }
    }
    updates.extend(
        namespaces(world)
            .into_iter()
            .map(|(name, labels)| Update::Namespace(name, Some(labels))),
    );
    updates.extend(world.services.iter().map(service));
    updates
}

/// All namespaces that anything is in or that are described, with what selectors see of them.
fn namespaces(world: &World) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut namespaces = BTreeMap::new();
    for name in world
        .resources
        .iter()
        .filter_map(|it| it.metadata().namespace.clone())
    {
        let labels = namespace_labels(&name, None);
        namespaces.insert(name, labels);
    }
    for resource in &world.resources {
        if let Resource::Namespace(namespace) = resource {
            let labels = namespace_labels(&namespace.metadata.name, Some(&namespace.metadata));
            namespaces.insert(namespace.metadata.name.clone(), labels);
        }
    }
    namespaces
}

fn service(service: &Service) -> Update {
    let name = NamespacedName {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    };
    let endpoint = |(address, protocol, port): &(_, u8, u16)| ServiceEndpoint {
        address: *address,
        protocol: Protocol(*protocol),
        port: *port,
    };
    let endpoints: BTreeSet<ServiceEndpoint> = service.endpoints.iter().map(endpoint).collect();
    Update::Service(name, endpoints)
}

/// What the engine says of a packet.
pub(crate) fn explained(engine: &Engine, packet: &Packet) -> Explanation {
    let (source_port, port) = packet.ports.unzip();
    let icmp = packet.icmp.map(|(kind, code)| Icmp {
        kind,
        code: Some(code),
    });
    let traffic = Traffic {
        protocol: Protocol(packet.protocol),
        source_port,
        port,
        icmp,
    };
    let (from, to) = (Party::Address(packet.from), Party::Address(packet.to));
    explain(engine, &from, &to, traffic).expect("addresses of one family")
}
