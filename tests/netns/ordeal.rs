//! Three nodes whose agents die at random moments and whose system calls fail: what the kernels hold in the end.
//!
//! `tests/crash` with nothing played: real agents, plugins, interfaces, disks, sessions and a real datastore; so a
//! hundred steps and not ten thousand. In each life of an agent `strace` makes calls of one kind fail, or kills the
//! agent in one. A failure names its seed: `MANX_ORDEAL_SEED=7` draws the same steps, though not the same races;
//! `MANX_ORDEAL_ROUNDS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use manx_api::Kind;
use manx_api::ipam::IpBlock;
use manx_api::rpc::Method;
use manx_api::status::BlockStatus;
use manx_api::workload::WorkloadEndpoint;
use manx_cni::Success;
use nix::sys::signal::{Signal, kill};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};

/// Rounds of an ordinary run.
const ROUNDS: usize = 4;

/// Steps of a round, after which everything has to agree.
const STEPS: usize = 40;

/// Pods of a node, at most.
const PODS: usize = 8;

/// How long things may take to agree, when nothing goes wrong any more.
const REST: Duration = Duration::from_secs(60);

/// What goes wrong in one life of an agent.
struct Fault {
    /// The system calls.
    calls: &'static str,
    /// Those on these files, as seen from the node's folder; on anything, where there are none.
    files: &'static [&'static str],
    /// The last of the calls that may be the first to fail, in its thread.
    latest: u32,
}

const FAULTS: [Fault; 3] = [
    Fault {
        calls: "write,fsync,fdatasync,ftruncate,?rename,?renameat,?renameat2",
        files: &["state", "state/ipam.journal", "state/ipam.new"],
        latest: 5,
    },
    Fault {
        calls: "pread64,pwrite64,fsync,fdatasync",
        files: &["../store.db", "../store.db-wal"],
        latest: 120,
    },
    // Netlink, and the sessions with it.
    Fault {
        calls: "sendto,sendmsg",
        files: &[],
        latest: 40,
    },
];

/// A pod, as its runtime knows it.
struct Pod {
    node: usize,
    netns: TestNetns,
    /// What ADD answered; none where it failed, or DEL did: DEL has to follow.
    addresses: Option<Vec<IpAddr>>,
}

struct Ordeal {
    cluster: Cluster,
    nodes: [Node; 3],
    _switch: TestNetns,
    pods: BTreeMap<String, Pod>,
    containers: usize,
    /// Of agents that answered under strace.
    lives: usize,
    rng: StdRng,
    begun: Instant,
    story: Vec<String>,
}

fn number<T: FromStr<Err: Debug>>(variable: &str, default: T) -> T {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn agents_that_die_and_fail_leave_the_kernels_as_adds_answered() {
    let seed = number("MANX_ORDEAL_SEED", rand::random());
    eprintln!("MANX_ORDEAL_SEED={seed}");
    let mut ordeal = Ordeal::new(seed);
    for _ in 0..number("MANX_ORDEAL_ROUNDS", ROUNDS) {
        ordeal.round();
    }
}

impl Ordeal {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::new();
        let (switch, nodes) = cluster.three();
        Self {
            cluster,
            nodes,
            _switch: switch,
            pods: BTreeMap::new(),
            containers: 0,
            lives: 0,
            rng: StdRng::seed_from_u64(seed),
            begun: Instant::now(),
            story: Vec::new(),
        }
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{:?} {what}", self.begun.elapsed()));
    }

    #[track_caller]
    fn law(&self, holds: bool, crime: impl FnOnce() -> String) {
        let story = || self.story.join("\n");
        assert!(holds, "{}\n{}\n{}", crime(), story(), self.logs());
    }

    /// The last that agents said.
    fn logs(&self) -> String {
        let tail = |node: &Node| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        self.nodes.each_ref().map(tail).join("\n---\n")
    }

    fn round(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].end(Signal::SIGKILL);
            self.start(node);
        }
        for _ in 0..STEPS {
            self.step();
        }
        self.law(self.lives > 0, || "no agent runs under strace".to_owned());
        self.rest();
    }

    fn step(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        if !self.nodes[node].is_alive() && self.rng.random_ratio(3, 4) {
            return self.start(node);
        }
        match self.rng.random_range(0..12) {
            0..6 => self.add(node),
            6..9 => self.delete(node),
            9 => self.add_again(node),
            10 => self.kill(node),
            _ => std::thread::sleep(Duration::from_millis(self.rng.random_range(0..600))),
        }
    }

    fn start(&mut self, node: usize) {
        let fault = self.fault(node);
        self.tell(format!("start {node}: {fault:?}"));
        self.nodes[node].launch_traced(&fault);
        // It may well die of its fault first.
        self.lives += usize::from(self.nodes[node].comes_to(|_| true));
    }

    /// What goes wrong in a node's next life, as `strace` is told.
    fn fault(&mut self, node: usize) -> Vec<String> {
        let fault = FAULTS.choose(&mut self.rng).unwrap();
        let first = self.rng.random_range(1..=fault.latest);
        let last = first + self.rng.random_range(1..40);
        // Once; for a while, as when a disk is full or the datastore is away; or it is the last call of this life.
        let how = [
            format!("error=EIO:when={first}"),
            format!("error=ENOSPC:when={first}..{last}"),
            format!("signal=SIGKILL:when={first}"),
        ];
        let how = how.choose(&mut self.rng).unwrap();
        let folder = self.nodes[node].folder();
        let path = |file: &&str| format!("--trace-path={}", folder.join(file).display());
        let what = [
            format!("--trace={}", fault.calls),
            format!("--inject={}:{how}", fault.calls),
        ];
        what.into_iter().chain(fault.files.iter().map(path)).collect()
    }

    fn kill(&mut self, node: usize) {
        self.tell(format!("kill {node}"));
        self.nodes[node].end(Signal::SIGKILL);
    }

    /// Calls the plugin, with luck while the agent dies; gives what it printed where it succeeded.
    fn call(&mut self, verb: &str, container: &str) -> Option<String> {
        let pod = &self.pods[container];
        let victim = (self.nodes[pod.node].is_alive() && self.rng.random_ratio(1, 8))
            .then(|| self.nodes[pod.node].agent_id());
        let moment = Duration::from_micros(self.rng.random_range(0..60_000));
        let output = std::thread::scope(|scope| {
            if let Some(victim) = victim {
                scope.spawn(move || {
                    std::thread::sleep(moment);
                    kill(victim, Signal::SIGKILL).unwrap();
                });
            }
            self.nodes[pod.node].cni(verb, container, pod.netns.path())
        });
        let (done, node) = (output.status.success(), pod.node);
        let said = String::from_utf8(output.stdout).unwrap();
        let killed = victim.map_or_else(String::new, |_| format!(" (killed after {moment:?})"));
        self.tell(format!("{verb} {container} on {node}{killed}: {done} {said}"));
        done.then_some(said)
    }

    fn add(&mut self, node: usize) {
        if self.pods.values().filter(|pod| pod.node == node).count() >= PODS {
            return;
        }
        self.containers += 1;
        let container = format!("c{}", self.containers);
        let pod = Pod {
            node,
            netns: TestNetns::new("pod"),
            addresses: None,
        };
        self.pods.insert(container.clone(), pod);
        let answer = self.call("ADD", &container);
        let given = answer.as_deref().map(addresses);
        for address in given.iter().flatten() {
            let has = |pod: &&Pod| pod.addresses.iter().flatten().any(|held| held == address);
            let holds = self.pods.values().find(has).is_none();
            self.law(holds, || format!("{address} of {container} is another pod's"));
        }
        self.pods.get_mut(&container).unwrap().addresses = given;
    }

    fn some_pod(&mut self, node: usize) -> Option<String> {
        let pods = self.pods.iter().filter(|(_, pod)| pod.node == node);
        pods.map(|(container, _)| container.clone()).choose(&mut self.rng)
    }

    fn delete(&mut self, node: usize) {
        let Some(container) = self.some_pod(node) else {
            return;
        };
        if self.call("DEL", &container).is_some() {
            self.pods.remove(&container);
        } else {
            self.pods.get_mut(&container).unwrap().addresses = None;
        }
    }

    fn add_again(&mut self, node: usize) {
        let Some(container) = self.some_pod(node) else {
            return;
        };
        let before = self.pods[&container].addresses.clone();
        if let (Some(before), Some(answer)) = (before, self.call("ADD", &container)) {
            let after = addresses(&answer);
            self.law(before == after, || {
                format!("{container} had {before:?}, and has {after:?}")
            });
        }
    }

    /// Nothing goes wrong any more, and the runtime cleans up: then everything has to agree.
    fn rest(&mut self) {
        self.tell("rest".to_owned());
        for node in &mut self.nodes {
            node.end(Signal::SIGKILL);
            node.launch();
        }
        for node in 0..self.nodes.len() {
            let ready = self.nodes[node].comes_to(|status| status.ready);
            self.law(ready, || {
                format!("node {node} is not ready: {:?}", self.nodes[node].status())
            });
        }
        let failed = self.pods.iter().filter(|(_, pod)| pod.addresses.is_none());
        for container in failed.map(|(container, _)| container.clone()).collect::<Vec<_>>() {
            let pod = self.pods.remove(&container).unwrap();
            self.nodes[pod.node].delete(&container, pod.netns.path());
        }
        let mut crimes = Vec::new();
        let innocent = eventually(REST, || {
            crimes = self.crimes();
            crimes.is_empty()
        });
        self.law(innocent, || format!("{crimes:#?}"));
        for node in &self.nodes {
            let report = self.cluster.check(node).stdout;
            let report: Value = serde_json::from_slice(&report).unwrap();
            self.law(report["problems"] == 0, || format!("{report:#}"));
        }
    }

    /// What does not agree.
    fn crimes(&self) -> Vec<String> {
        let mut crimes = Vec::new();
        for node in 0..self.nodes.len() {
            self.node_holds_what_it_gave(node, &mut crimes);
        }
        self.datastore_says_the_same(&mut crimes);
        if crimes.is_empty() {
            self.pods_are_reached(&mut crimes);
        }
        crimes
    }

    fn node_holds_what_it_gave(&self, index: usize, crimes: &mut Vec<String>) {
        let node = &self.nodes[index];
        let pods = || self.pods.iter().filter(|(_, pod)| pod.node == index);
        let given: BTreeSet<(&String, IpAddr)> = pods()
            .flat_map(|(container, pod)| {
                pod.addresses
                    .iter()
                    .flatten()
                    .map(move |address| (container, *address))
            })
            .collect();
        let blocks: Vec<BlockStatus> = node
            .ask(Method::IpamShow)
            .map_or_else(Vec::new, |blocks| serde_json::from_value(blocks).unwrap());
        let held = blocks.iter().flat_map(|block| &block.allocations);
        let held = held
            .map(|held| (&held.owner.container_id, held.address))
            .collect();
        compare(crimes, &format!("node {index} holds"), &held, &given);
        let routes = ["-4", "-6"]
            .map(|family| node.netns.ip(&format!("{family} route show")))
            .concat();
        let to_pods = routes.lines().filter(|line| line.contains(" dev mx"));
        let routed = to_pods
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect();
        let wanted = given.iter().map(|(_, address)| *address).collect();
        compare(crimes, &format!("node {index} routes"), &routed, &wanted);
        let links = node.netns.ip("-o link").matches(": mx").count();
        if links != pods().count() {
            crimes.push(format!(
                "node {index} has {links} links of {} pods",
                pods().count()
            ));
        }
    }

    fn datastore_says_the_same(&self, crimes: &mut Vec<String>) {
        let endpoints: Vec<WorkloadEndpoint> = self.cluster.list(Kind::WorkloadEndpoint);
        let described = endpoints
            .iter()
            .map(|endpoint| &endpoint.spec.container_id)
            .collect();
        compare(
            crimes,
            "the datastore describes",
            &described,
            &self.pods.keys().collect(),
        );
        let blocks: Vec<IpBlock> = self.cluster.list(Kind::IpBlock);
        let checkpointed = blocks.iter().flat_map(|block| &block.spec.allocations);
        let checkpointed = checkpointed.map(|held| held.address).collect();
        let given = self
            .pods
            .values()
            .flat_map(|pod| pod.addresses.iter().flatten().copied());
        compare(
            crimes,
            "the datastore's blocks hold",
            &checkpointed,
            &given.collect(),
        );
    }

    /// From its own node, and over the wire from the next.
    fn pods_are_reached(&self, crimes: &mut Vec<String>) {
        for (container, pod) in &self.pods {
            for from in [pod.node, (pod.node + 1) % self.nodes.len()] {
                for address in pod.addresses.iter().flatten() {
                    if exchange(&self.nodes[from].netns, &pod.netns, *address).is_none() {
                        crimes.push(format!("{container} at {address} does not answer node {from}"));
                    }
                }
            }
        }
    }
}

fn compare<T: Ord + Clone + Debug>(
    crimes: &mut Vec<String>,
    what: &str,
    is: &BTreeSet<T>,
    should: &BTreeSet<T>,
) {
    if is != should {
        let (more, less) = (is - should, should - is);
        crimes.push(format!("{what} {more:?} too much, and lacks {less:?}"));
    }
}

fn addresses(result: &str) -> Vec<IpAddr> {
    let result: Success = serde_json::from_str(result).unwrap();
    result.ips.iter().map(|ip| ip.address.ip()).collect()
}
