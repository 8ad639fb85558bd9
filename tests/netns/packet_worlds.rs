//! Random worlds of packets: what the specifications say of each, what the engine says, and what the kernel does with it
//! under the rules that the engine had written.
//!
//! A world's rules replace those of the world before. `PACKET_WORLDS` sets how many worlds, `PACKET_WORLD` a single one.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of twenty kinds, one is a host endpoint"
)]

use std::env;
use std::net::IpAddr;

use manx_api::Resource;
use manx_api::host_endpoint::{ALL_INTERFACES, HostEndpoint};
use manx_api::rule::Direction;
use manx_linux::Backend;
use manx_policy::{Engine, HostInterface, Local, Settings, Update};
use serde_json::json;

use crate::packet_site::{Site, is_local, node_addresses};
use crate::rules::{Owner, iptables, run};
use crate::told::{explained, updates};
use crate::world::{Packet, World, address_v4, address_v6, packets, pod, random};
use crate::{host_reference, reference};

/// Worlds for each back end, where nobody says otherwise.
const WORLDS: u64 = 150;

/// A packet of which not all say the same, or whose answer is lost.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    packet: Packet,
    specified: bool,
    explained: bool,
    arrived: bool,
    answered: bool,
}

/// A node whose rules are those of one world after the other.
struct Kernel {
    site: Site,
    owner: Owner,
    /// What takes the last world's resources away.
    undo: Vec<Update>,
}

impl Kernel {
    fn new(backend: Backend) -> Self {
        let site = Site::new();
        let mut owner = Owner::new(&site.node, Some(backend));
        owner.apply([Update::Enforce(Some(Settings::default()))]).unwrap();
        Self {
            site,
            owner,
            undo: Vec::new(),
        }
    }

    /// Has the rules of a world written, and forgets the connections of the one before.
    fn enter(&mut self, world: &World) {
        let mut told = updates(world);
        told.extend(locals(world));
        told.extend(uplink(world).map(|host| {
            let named = host
                .spec
                .interface_name
                .clone()
                .filter(|name| name != ALL_INTERFACES);
            let interface = named.map_or(HostInterface::All, HostInterface::Named);
            let key = Resource::HostEndpoint(host.clone()).key();
            Update::Host(key.to_string(), Some(interface))
        }));
        let undo = std::mem::replace(&mut self.undo, told.iter().map(gone).collect());
        self.owner.apply(undo.into_iter().chain(told)).unwrap();
        run(&self.site.node, "conntrack", "-F");
    }

    /// Sends all packets of a world, and answers to those that arrived.
    fn differences(&mut self, world: &World) -> Vec<Difference> {
        self.enter(world);
        let mut packets = packets(world, node_addresses());
        // Packets of a protocol without ports answer each other.
        packets.retain(|packet| packet.protocol != 47 || packet.from < packet.to);
        let arrived = self.site.open(&packets);
        let answered = self.answered(world, &packets, &arrived);
        let engine = self.owner.rules.engine();
        let one = |((packet, arrived), answered): ((Packet, bool), bool)| Difference {
            packet,
            specified: is_specified(world, &packet),
            explained: is_explained(world, engine, &packet),
            arrived,
            answered,
        };
        let all = packets.into_iter().zip(arrived).zip(answered).map(one);
        all.filter(|it| [it.specified, it.explained, it.answered] != [it.arrived; 3])
            .collect()
    }

    /// Which packets arrived and got an answer through. What the node's own programs get, they answer themselves; where
    /// some connections are not tracked, answers are packets like others.
    fn answered(&self, world: &World, packets: &[Packet], arrived: &[bool]) -> Vec<bool> {
        let untracked = world.resources.iter().any(
            |resource| matches!(resource, Resource::GlobalNetworkPolicy(policy) if policy.spec.do_not_track),
        );
        let by_us = |packet: &Packet| {
            let ends = [packet.from, packet.to];
            packet.protocol != 47
                && !ends.iter().any(|end| is_nodes(*end))
                && !(untracked && ends.into_iter().any(is_beyond))
        };
        let mut answered = arrived.to_vec();
        let due: Vec<usize> = (0..packets.len())
            .filter(|index| arrived[*index] && by_us(&packets[*index]))
            .collect();
        let opened: Vec<Packet> = due.iter().map(|index| packets[*index]).collect();
        for (index, came) in due.into_iter().zip(self.site.answer(&opened)) {
            answered[index] = came;
        }
        answered
    }
}

/// What the specifications say of a packet.
fn is_specified(world: &World, packet: &Packet) -> bool {
    // What a node sends to its own pods is let through, whatever policies say.
    passes_uplink(world, packet) && (is_nodes(packet.from) || reference::allowed(world, packet, is_local))
}

/// The same of the node's uplink alone, if that is a host endpoint.
fn passes_uplink(world: &World, packet: &Packet) -> bool {
    let Some(host) = uplink(world) else { return true };
    let ways = [
        (packet.from, Direction::Ingress, is_nodes(packet.to)),
        (packet.to, Direction::Egress, is_nodes(packet.from)),
    ];
    let mut ways = ways.into_iter().filter(|(end, ..)| is_beyond(*end));
    ways.all(|(_, direction, own)| host_reference::passes(world, host, (packet, direction), own))
}

/// What the engine says of a packet, as far as this node goes. Of what passes a host endpoint it says nothing, and of
/// the node nothing either, if nobody has told it of one.
fn is_explained(world: &World, engine: &Engine, packet: &Packet) -> bool {
    let ends = [packet.from, packet.to];
    let is_own = ends.iter().any(|end| is_nodes(*end));
    if is_nodes(packet.from) && uplink(world).is_none() {
        return true;
    }
    let said = explained(engine, packet);
    let walks = [said.egress, said.ingress].into_iter().zip(ends);
    let mut here = walks.filter(|(_, end)| is_local(*end) || is_nodes(*end));
    here.all(|(walk, _)| walk.is_none_or(|walk| walk.allowed)) && (is_own || passes_uplink(world, packet))
}

fn uplink(world: &World) -> Option<&HostEndpoint> {
    world.resources.iter().find_map(|resource| match resource {
        Resource::HostEndpoint(host) if host.metadata.name == "uplink" => Some(host),
        _ => None,
    })
}

fn is_nodes(address: IpAddr) -> bool {
    node_addresses().contains(&address)
}

/// Whether the way to an address is the uplink.
fn is_beyond(address: IpAddr) -> bool {
    !is_local(address) && !is_nodes(address)
}

/// The pods of the node.
fn locals(world: &World) -> Vec<Update> {
    let pods = world
        .pods()
        .filter(|pod| pod.spec.addresses.iter().any(|it| is_local(*it)));
    pods.map(|pod| {
        let local = Local {
            interface: pod.spec.interface_name.clone(),
            sources: Vec::new(),
        };
        let key = Resource::WorkloadEndpoint(pod.clone()).key();
        Update::Local(key.to_string(), Some(local))
    })
    .collect()
}

/// The news that a resource is gone.
fn gone(update: &Update) -> Update {
    match update.clone() {
        Update::Tier(name, _) => Update::Tier(name, None),
        Update::Policy(origin, _) => Update::Policy(origin, None),
        Update::Namespace(name, _) => Update::Namespace(name, None),
        Update::ServiceAccount(name, _) => Update::ServiceAccount(name, None),
        Update::Endpoint(name, _) => Update::Endpoint(name, None),
        Update::Local(name, _) => Update::Local(name, None),
        Update::Host(name, _) => Update::Host(name, None),
        Update::NetworkSet(origin, _) => Update::NetworkSet(origin, None),
        Update::Service(name, _) => Update::Service(name, [].into()),
        other @ (Update::SetPool { .. }
        | Update::RemovePool { .. }
        | Update::Enforce(_)
        | Update::Failsafes(_)) => other,
    }
}

/// Leaves out what a difference does not need.
fn shrunk(kernel: &mut Kernel, mut world: World) -> World {
    let mut index = 0;
    while index < world.resources.len() {
        let mut smaller = world.clone();
        smaller.resources.remove(index);
        if kernel.differences(&smaller).is_empty() {
            index += 1;
        } else {
            world = smaller;
        }
    }
    world
}

fn stated(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Every second seed is the other back end's.
fn compare(backend: Backend, first: u64) {
    let seeds: Vec<u64> = match stated("PACKET_WORLD") {
        Some(seed) => vec![seed],
        None => {
            let count = stated("PACKET_WORLDS").map_or(WORLDS, |all| all.div_ceil(2));
            (0..count).map(|number| number * 2 + first).collect()
        }
    };
    let mut kernel = Kernel::new(backend);
    for seed in seeds {
        let world = random(seed);
        let differences = kernel.differences(&world);
        if differences.is_empty() {
            continue;
        }
        let some = &differences[..differences.len().min(3)];
        let shrunk = shrunk(&mut kernel, world);
        let left = kernel.differences(&shrunk);
        let left = &left[..left.len().min(3)];
        panic!("{backend:?}, PACKET_WORLD={seed}: {some:#?}\nand in what is left of it, {left:#?}\n{shrunk}");
    }
}

#[test]
fn nft_does_with_packets_what_policies_say() {
    compare(Backend::Nft, 0);
}

#[test]
fn legacy_does_with_packets_what_policies_say() {
    compare(Backend::Legacy, 1);
}

#[test]
fn every_packet_arrives_where_nothing_forbids_it_and_a_missing_rule_is_noticed() {
    for backend in Backend::ALL {
        let mut kernel = Kernel::new(backend);
        let pods = || (1..=3).map(|number| pod("ns", &format!("p{number}"), "", number));
        let open = World::of(pods());
        assert_eq!(kernel.differences(&open), []);
        let packets = packets(&open, node_addresses());
        assert_eq!(
            packets.len(),
            2 * (5 * 4 + 3) * 14,
            "three pods, a stranger and the node"
        );
        run(&kernel.site.node, "conntrack", "-F");
        let lost = kernel
            .site
            .open(&packets)
            .iter()
            .filter(|arrived| !**arrived)
            .count();
        assert_eq!(lost, 0, "{backend:?}");

        let closed = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "closed", "namespace": "ns"}, "spec": {"podSelector": {}},
        });
        let closed = World::of(pods().chain([closed]));
        assert_eq!(kernel.differences(&closed), []);
        run(&kernel.site.node, "conntrack", "-F");
        run(&kernel.site.node, &iptables("ip6tables", backend), "-F manx-to");
        let from_elsewhere = packets
            .iter()
            .filter(|it| it.from.is_ipv6() && it.from != it.to && !is_nodes(it.from) && is_local(it.to));
        let from_elsewhere: Vec<Packet> = from_elsewhere.copied().collect();
        let arrived = kernel.site.open(&from_elsewhere);
        assert_eq!(arrived, vec![true; 2 * 3 * 14], "{backend:?}");
    }
}

/// Pods without policies: two of this node, and one elsewhere.
fn village() -> World {
    World::of((1..=3).map(|number| pod("ns", &format!("p{number}"), "", number)))
}

#[test]
fn a_pods_wire_carries_its_own_addresses_and_no_others() {
    for backend in Backend::ALL {
        let mut kernel = Kernel::new(backend);
        let world = village();
        kernel.enter(&world);
        // Also what would belong to a connection that somebody else has opened.
        let packets = packets(&world, node_addresses());
        let arrived = kernel.site.open(&packets);
        assert!(arrived.iter().all(|arrived| *arrived), "{backend:?}");
        let own = [address_v4(1), address_v6(1)];
        let (own, others): (Vec<Packet>, Vec<Packet>) =
            packets.into_iter().partition(|packet| own.contains(&packet.from));
        assert_eq!(kernel.site.open_by(1, &own), vec![true; own.len()], "{backend:?}");
        assert_eq!(
            kernel.site.open_by(1, &others),
            vec![false; others.len()],
            "{backend:?}"
        );
    }
}

#[test]
fn what_a_pod_may_also_send_from_is_under_its_policies_and_its_alone() {
    let also: [IpAddr; 2] = ["198.51.100.7".parse().unwrap(), "2001:db8:5::7".parse().unwrap()];
    for backend in Backend::ALL {
        let mut kernel = Kernel::new(backend);
        kernel.enter(&village());
        for net in ["198.51.100.0/24", "2001:db8:5::/48"] {
            kernel.site.node.ip(&format!("route add {net} dev mx1"));
        }
        let key = village().resources[0].key().to_string();
        let local = Local {
            interface: "mx1".to_owned(),
            sources: ["198.51.100.0/24", "2001:db8:5::/48"]
                .map(|net| net.parse().unwrap())
                .into(),
        };
        kernel.owner.apply([Update::Local(key, Some(local))]).unwrap();
        let mut packets = packets(&village(), also);
        packets.retain(|packet| also.contains(&packet.from));
        let all = |arrives: bool| vec![arrives; packets.len()];
        assert_eq!(kernel.site.open_by(1, &packets), all(true), "{backend:?}: it may");
        assert_eq!(
            kernel.site.open_by(2, &packets),
            all(false),
            "{backend:?}: another may not"
        );
        let closed = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "closed", "namespace": "ns"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
        });
        kernel.owner.apply(updates(&World::of([closed]))).unwrap();
        run(&kernel.site.node, "conntrack", "-F");
        // What comes back to the pod itself is nobody's business.
        packets.retain(|packet| ![address_v4(1), address_v6(1)].contains(&packet.to));
        let all = vec![false; packets.len()];
        assert_eq!(
            kernel.site.open_by(1, &packets),
            all,
            "{backend:?}: its policy holds"
        );
    }
}

#[test]
fn an_interface_of_an_unknown_pod_is_closed_in_both_directions() {
    for backend in Backend::ALL {
        let mut kernel = Kernel::new(backend);
        kernel.enter(&village());
        let unknown = [address_v4(4), address_v6(4)];
        let (from, to): (Vec<Packet>, Vec<Packet>) = packets(&village(), unknown)
            .into_iter()
            .filter(|it| [it.from, it.to].iter().any(|end| unknown.contains(end)))
            .partition(|it| unknown.contains(&it.from));
        assert_eq!(
            kernel.site.open(&from),
            vec![false; from.len()],
            "{backend:?}: from it"
        );
        assert_eq!(kernel.site.open(&to), vec![false; to.len()], "{backend:?}: to it");
        assert!(!from.is_empty() && !to.is_empty());
    }
}
