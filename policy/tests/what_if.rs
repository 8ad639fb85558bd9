//! Random clusters and random news: what would change, beside what explanations say before and after.
#![expect(clippy::wildcard_enum_match_arm, reason = "of many kinds, few are meant")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use manx_api::Resource;
use manx_api::policy::{Icmp, Protocol};
use manx_policy::{
    Engine, Explanation, Family, HostInterface, Local, Packets, Party, Place, Traffic, Update, Verdict,
    WhatIf, WhatIfChange, explain, what_if,
};
use serde_json::{Value, json};

#[path = "../../tests/policy/told.rs"]
#[expect(
    dead_code,
    reason = "packets are asked about without the port that they come from"
)]
mod told;
#[path = "../../tests/policy/world.rs"]
mod world;

use told::updates;
use world::{Packet, World, namespace, packets, pod, random};

/// As many walks as it takes.
const ALL: u64 = u64::MAX;

/// What one world becomes: some of its policies go, and another world's come, with its tiers; and for every second seed
/// also its labels, network sets, namespaces and services, of pods that are in both.
fn news(world: &World, seed: u64) -> Vec<Update> {
    let mut other = random(seed + 100_000);
    let keys: BTreeSet<_> = world.resources.iter().map(Resource::key).collect();
    let others_too = seed.is_multiple_of(2);
    other.resources.retain(|resource| match resource {
        Resource::WorkloadEndpoint(_) => others_too && keys.contains(&resource.key()),
        Resource::HostEndpoint(_) => false,
        Resource::Namespace(_) | Resource::NetworkSet(_) | Resource::GlobalNetworkSet(_) => others_too,
        _ => true,
    });
    if !others_too {
        other.services.clear();
    }
    let gone = updates(world).into_iter().filter_map(|update| match update {
        Update::Policy(origin, _) if origin.name.ends_with(['1', '3']) => Some(Update::Policy(origin, None)),
        _ => None,
    });
    let come = updates(&other).into_iter();
    // Namespaces that pods are in are told of whether or not they are described.
    let come = come.filter(|update| others_too || matches!(update, Update::Policy(..) | Update::Tier(..)));
    gone.chain(come).collect()
}

/// Every other pod and the uplink are of this node.
fn locals(world: &World) -> Vec<Update> {
    let ids = world.resources.iter().map(|resource| resource.key().to_string());
    let local = |id: String| match id.as_str() {
        "HostEndpoint/uplink" => Some(Update::Host(id, Some(HostInterface::All))),
        pod if pod.starts_with("WorkloadEndpoint/") && pod.ends_with(['1', '3', '5', '7']) => {
            let local = Local {
                interface: format!("mx-{}", pod.len()),
                sources: Vec::new(),
            };
            Some(Update::Local(id, Some(local)))
        }
        _ => None,
    };
    ids.filter_map(local).collect()
}

/// Where an address is.
fn place(world: &World, found: &WhatIf, address: IpAddr) -> Place {
    let id = world.resources.iter().find_map(|resource| {
        let addresses = match resource {
            Resource::WorkloadEndpoint(pod) => &pod.spec.addresses,
            Resource::HostEndpoint(host) => &host.spec.expected_ips,
            _ => return None,
        };
        addresses.contains(&address).then(|| resource.key().to_string())
    });
    let networks = found.networks.iter().filter(|network| network.contains(address));
    let smallest = networks.max_by_key(|network| network.prefix());
    id.map(Place::Endpoint)
        .or_else(|| smallest.copied().map(Place::Outside))
        .expect("an address is somewhere")
}

fn is_of(packets: &Packets, packet: &Packet) -> bool {
    let is = |protocol: &Protocol| protocol.0 == packet.protocol;
    match packets {
        Packets::Others(these) => !these.iter().any(is),
        Packets::Of(protocol, ports) => {
            let to = packet.ports.map(|(_, to)| to);
            let among = |to| ports.iter().any(|range| (range.first..=range.last).contains(&to));
            is(protocol) && (ports.is_empty() || to.is_some_and(among))
        }
        Packets::Messages(protocol, messages) => {
            let spoken = |(kind, code)| {
                let mut messages = messages.iter();
                messages.any(|message| (message.kind, message.code) == (Some(kind), Some(code)))
            };
            is(protocol) && packet.icmp.is_some_and(spoken)
        }
    }
}

/// What becomes of a packet, from whatever port.
fn verdict(engine: &Engine, packet: &Packet) -> Verdict {
    let traffic = Traffic {
        protocol: Protocol(packet.protocol),
        source_port: None,
        port: packet.ports.map(|(_, to)| to),
        icmp: packet.icmp.map(|(kind, code)| Icmp {
            kind,
            code: Some(code),
        }),
    };
    let (from, to) = (Party::Address(packet.from), Party::Address(packet.to));
    let said: Explanation = explain(engine, &from, &to, traffic).expect("addresses of one family");
    Verdict {
        allowed: said.allowed(),
        decided: said.decided(),
    }
}

/// How many random worlds; `POLICY_WORLDS` sets another number.
fn worlds() -> u64 {
    let stated = std::env::var("POLICY_WORLDS").ok();
    stated.and_then(|count| count.parse().ok()).unwrap_or(40)
}

#[test]
fn what_would_change_is_what_explanations_say_before_and_after() {
    let mut changed = 0;
    for seed in 0..worlds() {
        let world = random(seed);
        let news = news(&world, seed);
        let mut before = Engine::new();
        drop(before.apply(updates(&world)));
        if seed % 3 != 0 {
            drop(before.apply(locals(&world)));
        }
        let mut after = before.clone();
        drop(after.apply(news));
        let found = what_if(&before, &after, ALL);
        for packet in packets(&world, []) {
            let [from, to] = [packet.from, packet.to].map(|address| place(&world, &found, address));
            let family = Family::of(packet.from.into());
            let covers = |change: &&WhatIfChange| {
                found.groups[change.from].contains(&from)
                    && found.groups[change.to].contains(&to)
                    && from != to
                    && change.families.contains(&family)
                    && (change.packets.is_empty()
                        || change.packets.iter().any(|packets| is_of(packets, &packet)))
            };
            let covering = found.changes.iter().filter(covers);
            let said: Vec<_> = covering.map(|change| (&change.before, &change.after)).collect();
            let [before, after] = [&before, &after].map(|engine| verdict(engine, &packet));
            let expected = before.allowed != after.allowed;
            let right = if expected {
                vec![(&before, &after)]
            } else {
                Vec::new()
            };
            assert_eq!(
                said,
                right,
                "seed {seed}: {packet:?}\n{world}\nnews of {}",
                seed + 100_000
            );
            changed += usize::from(expected);
        }
        let counted: u64 = found.changes.iter().map(|change| change.flows).sum();
        assert_eq!(counted, found.changed, "seed {seed}");
        assert!(
            found.changed <= found.flows && found.left_out == 0,
            "seed {seed}: {found:?}"
        );
        let nothing = what_if(&after, &after, ALL);
        assert_eq!((nothing.changed, nothing.changes), (0, Vec::new()), "seed {seed}");
    }
    assert!(changed > 1000, "{changed} packets are treated otherwise");
}

/// Three pods of IPv4 alone.
fn three() -> World {
    let pods = ["web", "db", "till"].into_iter().zip(1..);
    let pods = pods.map(|(app, host)| {
        let mut pod = pod("shop", app, &format!("app={app}"), host);
        pod["spec"]["addresses"] = json!([world::address_v4(host)]);
        pod
    });
    World::of([namespace("shop", "")].into_iter().chain(pods))
}

fn policy(spec: Value) -> World {
    World::of([json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
    })])
}

fn supposed(walks: u64, spec: Value) -> WhatIf {
    let mut before = Engine::new();
    drop(before.apply(updates(&three())));
    let mut after = before.clone();
    drop(after.apply(updates(&policy(spec))));
    what_if(&before, &after, walks)
}

#[test]
fn flows_are_counted_by_ends_and_by_what_rules_tell_apart() {
    let web = json!({"matchLabels": {"app": "web"}});
    let till = json!({"matchLabels": {"app": "till"}});
    let spec =
        json!({"podSelector": web, "ingress": [{"from": [{"podSelector": till}], "ports": [{"port": 80}]}]});
    let found = supposed(ALL, spec.clone());
    // Ends are the three pods and all of IPv4 outside; each of four protocols has ports below 80, 80 and those above;
    // an echo request, other codes of it, other messages, and other protocols.
    let sorts = 4 * 3 + 3 + 1;
    assert_eq!(found.flows, (3 * 2 + 3 * 2) * sorts);
    // Everything to the web pod, but TCP 80 from the till.
    assert_eq!(found.changed, 3 * sorts - 1);
    let shown: Vec<_> = found
        .changes
        .iter()
        .map(|change| (change.packets.clone(), change.flows))
        .collect();
    assert_eq!(shown.len(), 2, "{found:?}");
    assert!(
        shown.contains(&(Vec::new(), 2 * sorts)),
        "from db and outside, all: {shown:?}"
    );

    let found = supposed(0, spec);
    assert_eq!((found.changed, found.changes.len()), (0, 0));
    assert_eq!(found.left_out, 3 * sorts, "what is left out is told of");
}
