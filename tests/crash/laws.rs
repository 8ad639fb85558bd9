//! What has to hold of a cluster, whatever happened to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use manx_agent::ipam::recovery;
use manx_api::ipam::{Allocation, IpBlock, IpPool, QUARANTINE};
use manx_api::report::{NodeReport, PodInterface};
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Kind, Resource};
use manx_ipam::check::{Class, Evidence, check};
use manx_routes::{Actual, Source, Target};

use crate::node::Node;
use crate::runtime::{Pod, State};
use crate::world::World;

/// What is wrong, in words.
type Verdict = Result<(), String>;

fn law(holds: bool, crime: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(crime()) }
}

/// At every moment.
pub(crate) fn always(world: &mut World) -> Verdict {
    let crimes = world.runtime.accusations();
    law(crimes.is_empty(), || crimes.clone())?;
    world.bury_the_forgotten();
    no_address_is_on_two_pods(world)?;
    what_was_answered_is_what_pods_have(world)?;
    no_block_has_two_owners(world)
}

/// An address is routed to one link in the cluster, and one pod was told to have it.
fn no_address_is_on_two_pods(world: &World) -> Verdict {
    let mut routed: BTreeMap<IpAddr, String> = BTreeMap::new();
    for node in &world.nodes {
        let tables = node.kernel.lock();
        for (name, link) in &tables.links {
            for address in tables.addresses_of(link.index) {
                let place = format!("{name} of {}", node.name);
                if let Some(other) = routed.insert(address, place.clone()) {
                    return Err(format!("{address} is routed to {place} and to {other}"));
                }
            }
        }
    }
    let mut told: BTreeMap<IpAddr, String> = BTreeMap::new();
    for pod in world.runtime.pods().values() {
        for address in pod.addresses() {
            if let Some(other) = told.insert(*address, pod.container.clone()) {
                return Err(format!("{address} was given to {} and to {other}", pod.container));
            }
        }
    }
    Ok(())
}

/// A pod's link and routes stay as ADD answered until its DEL, whatever becomes of agents.
fn what_was_answered_is_what_pods_have(world: &World) -> Verdict {
    for pod in world.runtime.pods().values() {
        if let State::Up(addresses) = &pod.state {
            let tables = world.nodes[pod.node].kernel.lock();
            let link = tables.links.get(&pod.interface());
            let has = link.map(|link| {
                let routed: BTreeSet<IpAddr> = tables.addresses_of(link.index).into_iter().collect();
                (link.is.addresses.clone(), routed)
            });
            let should = (addresses.clone(), addresses.iter().copied().collect());
            law(has.as_ref() == Some(&should), || {
                format!("{} was told {addresses:?}, and has {has:?}", pod.container)
            })?;
        }
    }
    Ok(())
}

/// No two nodes believe in one block. One that was away until its blocks were freed may do so until it hears of it,
/// and gives out nothing of them.
fn no_block_has_two_owners(world: &mut World) -> Verdict {
    let stored: BTreeMap<_, _> = blocks(world)
        .into_iter()
        .map(|block| (block.spec.cidr, block.spec.node))
        .collect();
    let mut owners = BTreeMap::new();
    for node in world.nodes.iter_mut().filter(|node| node.joined) {
        for block in node.blocks().blocks.iter() {
            if node.old_disk && stored.get(block) != Some(&Some(node.name.clone())) {
                continue;
            }
            if let Some(other) = owners.insert(*block, node.name.clone()) {
                return Err(format!("block {block} is {}'s and {other}'s", node.name));
            }
        }
    }
    Ok(())
}

/// Before a start: the journal of a node that has kept its disk knows every address that ADD answered.
pub(crate) fn nothing_is_lost(world: &World, node: usize) -> Verdict {
    if world.nodes[node].disk_lost {
        return Ok(());
    }
    let journal = world.nodes[node].replay();
    for pod in world.runtime.pods().values().filter(|pod| pod.node == node) {
        for address in pod.addresses() {
            let held = recovery::held(&journal, &pod.container, "eth0");
            let held = held.iter().any(|held| held.address == *address);
            law(held, || {
                format!(
                    "the journal of node {node} does not know that {} has {address}",
                    pod.container
                )
            })?;
        }
    }
    Ok(())
}

/// After a storm, with nothing under way.
pub(crate) async fn at_rest(world: &mut World) -> Verdict {
    every_pod_is_up_or_gone(world)?;
    for node in (0..world.nodes.len())
        .filter(|node| world.nodes[*node].joined)
        .collect::<Vec<_>>()
    {
        allocations_are_the_pods(world, node).await?;
        routes_are_the_pods(world, node)?;
        checkpoints_say_the_same(world, node)?;
        let graves = std::fs::read_dir(manx_cni::tombstone::directory(&world.nodes[node].state_dir));
        law(graves.is_ok_and(|graves| graves.count() == 0), || {
            format!("tombstones on {node}")
        })?;
    }
    endpoints_are_the_pods(world)?;
    check_is_clean(world).await?;
    every_pod_passes_check(world).await
}

async fn every_pod_passes_check(world: &World) -> Verdict {
    for pod in world.runtime.some(|pod| matches!(pod.state, State::Up(_))) {
        let agent = world.nodes[pod.node].agent().ok_or("the agent is dead")?;
        let container = pod.container.clone();
        let error = world.runtime.clone().check(agent, pod).await;
        law(error.is_none(), || format!("CHECK of {container}: {error:?}"))?;
    }
    Ok(())
}

fn every_pod_is_up_or_gone(world: &World) -> Verdict {
    let others = world
        .runtime
        .some(|pod| !matches!(pod.state, State::Up(_) | State::Gone | State::Forgotten(_)));
    law(others.is_empty(), || format!("{others:?} do not come to an end"))
}

/// The pods that are up on a node, by the name of their interface.
fn up(world: &World, node: usize) -> BTreeMap<String, Pod> {
    let pods = world
        .runtime
        .some(|pod| pod.node == node && matches!(pod.state, State::Up(_)));
    pods.into_iter().map(|pod| (pod.interface(), pod)).collect()
}

fn of(allocations: impl IntoIterator<Item = Allocation>) -> BTreeSet<(String, IpAddr)> {
    let place = |held: Allocation| {
        let interface = recovery::interface(&held.owner.container_id, &held.owner.ifname);
        (interface, held.address)
    };
    allocations.into_iter().map(place).collect()
}

/// The allocator, its journal and the pods say the same.
async fn allocations_are_the_pods(world: &World, node: usize) -> Verdict {
    let Some(blocks) = world.nodes[node].agent().ok_or("the agent is dead")?.show().await else {
        return Err("the agent does not answer".to_owned());
    };
    let held = of(blocks.iter().flat_map(|block| block.allocations.clone()));
    let pods = up(world, node);
    let given: BTreeSet<_> = pods
        .iter()
        .flat_map(|(interface, pod)| {
            pod.addresses()
                .iter()
                .map(|address| (interface.clone(), *address))
        })
        .collect();
    law(held == given, || {
        let (leaked, lost) = (&held - &given, &given - &held);
        format!("node {node} leaked {leaked:?} and lost {lost:?}")
    })?;
    let journal = world.nodes[node].replay();
    let own: Vec<_> = blocks
        .iter()
        .map(|block| (block.cidr, block.allocations.clone()))
        .collect();
    let written: Vec<_> = journal
        .blocks()
        .map(|block| (block.cidr(), block.allocations().collect::<Vec<_>>()))
        .collect();
    law(own == written, || {
        format!("node {node} holds {own:?}, and its journal {written:?}")
    })
}

/// The kernel routes each pod's addresses to its link, covers each block, and routes nothing else.
fn routes_are_the_pods(world: &mut World, node: usize) -> Verdict {
    let blocks = world.nodes[node].blocks();
    let pods = up(world, node);
    let tables = world.nodes[node].kernel.lock();
    let source = |source: Source| {
        let of_source = move |route: &&Actual| Source::of(route) == Some(source);
        tables.routes.values().filter(of_source)
    };
    let covered: BTreeSet<_> = source(Source::Block).map(|route| route.prefix).collect();
    law(covered.iter().eq(blocks.blocks.iter()), || {
        format!("node {node} covers {covered:?}, and has the blocks {blocks:?}")
    })?;
    let routed = source(Source::Pod).count();
    let wanted: usize = pods.values().map(|pod| pod.addresses().len()).sum();
    law(routed == wanted, || {
        format!("node {node} has {routed} routes of pods, not {wanted}")
    })?;
    let links: Vec<&String> = tables.links.keys().collect();
    law(links.into_iter().eq(pods.keys()), || {
        format!(
            "node {node} has the links {:?}, and the pods {pods:?}",
            tables.links
        )
    })?;
    let dangling = source(Source::Pod).find(|route| !matches!(route.target, Some(Target::Device(_))));
    law(dangling.is_none(), || format!("{dangling:?} leads to no pod"))
}

/// The datastore has each block of the node as its journal has it, and no other of this node.
fn checkpoints_say_the_same(world: &World, node: usize) -> Verdict {
    let own = &world.nodes[node];
    let of_node = |block: &&IpBlock| block.spec.node.as_ref() == Some(&own.name);
    let state = |block: &IpBlock| {
        let spec = block.spec.clone();
        (spec.cidr, spec.generation, spec.allocations)
    };
    let stored: Vec<_> = blocks(world).iter().filter(of_node).map(state).collect();
    let journal = own.replay();
    let state = |block: &manx_ipam::Block| (block.cidr(), block.generation(), block.allocations().collect());
    let written: Vec<_> = journal.blocks().map(state).collect();
    let lacks = stored.iter().find(|block| !written.contains(block));
    law(lacks.is_none(), || {
        format!("the journal of node {node} lacks what the datastore has: {lacks:?}")
    })?;
    let lacks = written.iter().find(|block| !stored.contains(block));
    law(lacks.is_none(), || {
        format!("the datastore lacks what the journal of node {node} has: {lacks:?}")
    })
}

/// The blocks, as the datastore has them.
pub(crate) fn blocks(world: &World) -> Vec<IpBlock> {
    let block = |resource| {
        if let Resource::IpBlock(block) = resource {
            return Some(block);
        }
        None
    };
    world
        .memory
        .items(Kind::IpBlock)
        .into_iter()
        .filter_map(block)
        .collect()
}

/// The datastore describes the pods that are up, and no others; but those of which a lost disk has left no more than
/// their interface nobody can describe.
fn endpoints_are_the_pods(world: &World) -> Verdict {
    let journals: Vec<_> = world.nodes.iter().map(Node::replay).collect();
    let is_known = |pod: &Pod| {
        journals[pod.node]
            .held_by(QUARANTINE, &pod.interface())
            .next()
            .is_none()
    };
    let pods = world
        .runtime
        .some(|pod| matches!(pod.state, State::Up(_)) && is_known(pod));
    let wanted: BTreeSet<_> = pods
        .iter()
        .map(|pod| (pod.container.clone(), pod.addresses().to_vec()))
        .collect();
    let endpoint = |resource| {
        if let Resource::WorkloadEndpoint(endpoint) = resource {
            return Some((endpoint.spec.container_id, endpoint.spec.addresses));
        }
        None
    };
    let stored: BTreeSet<_> = world
        .memory
        .items(Kind::WorkloadEndpoint)
        .into_iter()
        .filter_map(endpoint)
        .collect();
    law(stored == wanted, || {
        let (old, missing) = (&stored - &wanted, &wanted - &stored);
        format!("the datastore describes pods that are gone, {old:?}, and lacks {missing:?}")
    })
}

/// `manxctl ipam check` finds nothing, but what a lost disk has left in quarantine; and what operators asked for is
/// dealt with.
async fn check_is_clean(world: &World) -> Verdict {
    let blocks = blocks(world);
    let asked = blocks.iter().find(|block| !block.spec.releases.is_empty());
    law(asked.is_none(), || {
        format!("nobody deals with the releases of {asked:?}")
    })?;
    let items = |kind| world.memory.items(kind).into_iter();
    let mut evidence = Evidence {
        pools: items(Kind::IpPool)
            .filter_map(|item| IpPool::try_from(item).ok())
            .collect(),
        blocks,
        nodes: items(Kind::Node)
            .map(|node| node.metadata().name.clone())
            .collect(),
        workloads: items(Kind::WorkloadEndpoint)
            .filter_map(|item| WorkloadEndpoint::try_from(item).ok())
            .collect(),
        ..Evidence::default()
    };
    for node in world.nodes.iter().filter(|node| node.joined) {
        evidence.reports.push(report(node).await?);
    }
    let found = check(&evidence).into_iter();
    let problems: Vec<String> = found
        .filter(|finding| finding.class.is_problem() && finding.class != Class::Quarantined)
        .map(|finding| finding.to_string())
        .collect();
    law(problems.is_empty(), || format!("ipam check: {problems:#?}"))
}

/// What a node's agent reports to a check.
async fn report(node: &Node) -> Result<NodeReport, String> {
    let agent = node.agent().ok_or("the agent is dead")?;
    let blocks = agent.show().await.ok_or("the agent does not answer")?;
    let owners = blocks.iter().flat_map(|block| &block.allocations).map(|held| {
        let owner = held.owner.clone();
        (recovery::interface(&owner.container_id, &owner.ifname), owner)
    });
    let owners: BTreeMap<String, _> = owners.collect();
    let interfaces = node.kernel.survey().into_iter().map(|live| PodInterface {
        attachment: owners.get(&live.interface).cloned(),
        name: live.interface,
        addresses: live.addresses,
    });
    Ok(NodeReport {
        node: node.name.clone(),
        interfaces: interfaces.collect(),
        tombstones: Vec::new(),
        blocks,
    })
}
