//! When a lab is whole: every session Established, every block's route in every other node's kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_api::Kind;
use manx_api::ipam::IpBlock;
use manx_api::rpc::Method;
use manx_api::status::{NodeStatus, PeerStatus};
use manx_linux::{Netns, RouteSocket};
use manx_routes::Target;
use manx_store::{SqliteStore, Store};

use crate::agent::ask;
use crate::error::{LabError, Result};
use crate::layout::netns_path;
use crate::plan::{Host, Plan, Role};
use crate::process;
use crate::progress::Progress;
use crate::state::State;

const INTERVAL: Duration = Duration::from_millis(50);
/// The state of a session that works.
const ESTABLISHED: &str = "Established";

/// Something that a whole lab has and this one has not yet.
struct Missing {
    host: String,
    what: String,
}

/// Waits until every agent answers.
pub(crate) fn for_agents(plan: &Plan, state: &State, timeout: Duration, progress: &Progress) -> Result<()> {
    poll(
        plan,
        state,
        timeout,
        progress,
        "agents",
        plan.nodes().count(),
        || {
            let silent = plan.nodes().filter_map(|node| {
                let answer = ask::<NodeStatus>(&plan.layout.socket(&node.name), Method::NodeStatus);
                let error = answer.err()?;
                Some(Missing {
                    host: node.name.clone(),
                    what: format!("agent of {}: {error}", node.name),
                })
            });
            Ok(silent.collect())
        },
    )
}

/// Waits until every session is Established.
pub(crate) fn for_sessions(plan: &Plan, state: &State, timeout: Duration, progress: &Progress) -> Result<()> {
    let all = plan.nodes().map(|node| node.peers.len()).sum();
    poll(plan, state, timeout, progress, "sessions", all, || {
        Ok(plan
            .nodes()
            .flat_map(|node| missing_sessions(plan, node))
            .collect())
    })
}

fn missing_sessions(plan: &Plan, node: &Host) -> Vec<Missing> {
    let missing = |what: String| Missing {
        host: node.name.clone(),
        what,
    };
    let peers: Vec<PeerStatus> = match ask(&plan.layout.socket(&node.name), Method::BgpPeers) {
        Ok(peers) => peers,
        Err(error) => return vec![missing(format!("sessions of {}: {error}", node.name))],
    };
    let found: BTreeMap<IpAddr, &PeerStatus> = peers.iter().map(|peer| (peer.address, peer)).collect();
    let down = node.peers.iter().filter_map(|(address, name)| {
        let state = found.get(address).map_or("unknown", |peer| peer.state.as_str());
        (state != ESTABLISHED)
            .then(|| missing(format!("session {} with {name} ({address}): {state}", node.name)))
    });
    down.collect()
}

/// Waits until every machine that forwards has a route to every block that is not its own, and routers to each
/// other's racks: nodes may know the way before the routers on it do.
pub(crate) fn for_routes(
    plan: &Plan,
    state: &State,
    (runtime, store): (&tokio::runtime::Runtime, &SqliteStore),
    timeout: Duration,
    progress: &Progress,
) -> Result<()> {
    let blocks = runtime.block_on(blocks(store))?;
    let wanted: Vec<(&Host, Vec<Wanted>)> = plan
        .hosts
        .iter()
        .map(|host| (host, wanted(plan, host, &blocks)))
        .collect();
    let all = wanted.iter().map(|(_, routes)| routes.len()).sum();
    poll(plan, state, timeout, progress, "routes", all, || {
        let mut missing = Vec::new();
        for (host, routes) in &wanted {
            missing.extend(missing_routes(host, routes)?);
        }
        Ok(missing)
    })
}

/// A prefix that a host must have a route to, and whose it is.
type Wanted = (IpNetwork, String);

fn wanted(plan: &Plan, host: &Host, blocks: &[Wanted]) -> Vec<Wanted> {
    let is_router = |host: &Host| matches!(host.role, Role::Router(_));
    let of_others = blocks.iter().filter(|(_, owner)| *owner != host.name).cloned();
    let routers = || {
        plan.hosts
            .iter()
            .filter(|other| is_router(other) && other.name != host.name)
    };
    let racks = routers().flat_map(|router| router.prefixes().map(|prefix| (prefix, router.name.clone())));
    match host.role {
        Role::Node => of_others.collect(),
        Role::Router(_) => of_others.chain(racks).collect(),
        Role::Fabric | Role::Reflector => Vec::new(),
    }
}

/// Every block that a node owns, with its owner.
async fn blocks(store: &SqliteStore) -> Result<Vec<Wanted>> {
    let listing = store.list(Kind::IpBlock, None).await?;
    let blocks = listing
        .items
        .into_iter()
        .filter_map(|resource| IpBlock::try_from(resource).ok());
    let blocks = blocks.filter_map(|block| Some((block.spec.cidr, block.spec.node?)));
    Ok(blocks.collect())
}

fn missing_routes(host: &Host, wanted: &[Wanted]) -> Result<Vec<Missing>> {
    let found = Netns::open(netns_path(&host.netns))
        .and_then(|netns| RouteSocket::open_in(&netns)?.dump_all())
        .map_err(LabError::kernel(format!("read the routes of {}", host.name)))?;
    // Routers may use targets that we have no word for, such as nexthop objects; nowhere is what none may use.
    let leads_on = |target: &Option<Target>| !matches!(target, Some(Target::Unreachable | Target::Device(_)));
    let is_routed = |prefix: &IpNetwork| {
        found
            .iter()
            .any(|route| route.prefix == *prefix && leads_on(&route.target))
    };
    let missing = wanted.iter().filter(|(prefix, _)| !is_routed(prefix));
    let name = &host.name;
    let told = missing.map(|(prefix, owner)| Missing {
        host: name.clone(),
        what: format!("route on {name} to {prefix} of {owner}"),
    });
    Ok(told.collect())
}

/// Looks until nothing is missing.
fn poll(
    plan: &Plan,
    state: &State,
    timeout: Duration,
    progress: &Progress,
    noun: &str,
    all: usize,
    mut look: impl FnMut() -> Result<Vec<Missing>>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        progress.check()?;
        let missing = look()?;
        let Some(first) = missing.first() else { break };
        progress.doing(&format!("{noun}: {} of {all}", all.saturating_sub(missing.len())));
        none_ended(plan, state)?;
        if Instant::now() > deadline {
            return Err(LabError::TimedOut {
                seconds: timeout.as_secs(),
                host: first.host.clone(),
                log: log_of(plan, &first.host),
                missing: missing.into_iter().map(|missing| missing.what).collect(),
            });
        }
        std::thread::sleep(INTERVAL);
    }
    progress.done(&format!("{noun}: {all} of {all}"));
    Ok(())
}

/// The end of the log of a host's first process.
fn log_of(plan: &Plan, host: &str) -> String {
    let process = plan.host_named(host).and_then(|host| host.processes.first());
    process
        .map(|process| process::tail(&plan.layout.log(host, &process.name)))
        .unwrap_or_default()
}

/// A process that ended is a better reason than the timeout that would follow.
fn none_ended(plan: &Plan, state: &State) -> Result<()> {
    match state.processes.iter().find(|process| !process::is_alive(process)) {
        None => Ok(()),
        Some(ended) => Err(LabError::Ended {
            host: ended.host.clone(),
            process: ended.name.clone(),
            log: process::tail(&plan.layout.log(&ended.host, &ended.name)),
        }),
    }
}
