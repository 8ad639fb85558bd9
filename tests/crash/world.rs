//! A cluster under a seed: what happens to it, step by step.

use std::time::Duration;

use manx_api::Resource;
use manx_api::ipam::{IpBlock, Release};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::bgp::Air;
use crate::chance::Chance;
use crate::laws;
use crate::memory::Memory;
use crate::node::Node;
use crate::runtime::{Pod, Runtime, State};

const NODES: usize = 3;

/// Pods that a node has at most.
const PODS: usize = 40;

/// Steps of a storm.
const STORM: usize = 60;

/// How long a cluster may take to come to rest, with nothing going wrong any more.
const REST: Duration = Duration::from_secs(300);

/// A cluster.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) runtime: Runtime,
    pub(crate) memory: Memory,
    pub(crate) chance: Chance,
    rng: StdRng,
    containers: usize,
    begun: Instant,
    /// What happened, for whoever looks into a failure.
    pub(crate) story: Vec<String>,
    /// Where tombstones are.
    _folder: tempfile::TempDir,
}

impl World {
    /// Three nodes, whose agents are not started.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(NODES, seed)
    }

    /// So many nodes, whose agents are not started.
    pub(crate) fn of(nodes: usize, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (chance, memory, runtime) = (Chance::new(seed), Memory::default(), Runtime::default());
        let air = Air::default();
        let node = |number: usize| {
            let name = format!("node-{}", number + 1);
            let mut node = Node::new(&name, folder.path(), (&memory, &air), &chance, &runtime.crimes);
            node.join();
            node
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            runtime,
            memory,
            chance,
            rng: StdRng::seed_from_u64(seed),
            containers: 0,
            begun: Instant::now(),
            story: Vec::new(),
            _folder: folder,
        }
    }

    /// Adds a pool.
    pub(crate) fn pool(&self, name: &str, cidr: &str, block_size: u8) {
        let pool = json!({
            "apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": {"name": name},
            "spec": {"cidr": cidr, "blockSize": block_size},
        });
        let pool: Resource = serde_json::from_value(pool).unwrap();
        self.memory.insert(pool).unwrap();
    }

    /// Storms and rests until so many steps are done.
    pub(crate) async fn run(&mut self, steps: usize) {
        for step in 0..steps {
            if step % STORM == STORM - 1 {
                self.rest().await;
            }
            self.chance.set_storm(true);
            self.step();
            let pause = *[0, 1, 5, 20, 100, 1_000, 3_000].choose(&mut self.rng).unwrap();
            sleep(Duration::from_millis(pause)).await;
            laws::always(self).unwrap_or_else(|crime| self.fail(&crime));
        }
        self.rest().await;
    }

    fn fail(&self, crime: &str) -> ! {
        let tail = self.story.len().saturating_sub(150);
        panic!(
            "{crime}\nthe last that happened:\n{}",
            self.story[tail..].join("\n")
        )
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{:?} {what}", self.begun.elapsed()));
    }

    fn step(&mut self) {
        let node = self.rng.random_range(0..NODES);
        if !self.nodes[node].joined {
            return self.join(node);
        }
        match self.rng.random_range(0..100) {
            0..36 => self.add(node),
            36..62 => self.delete(node),
            62..67 => self.add_again(node),
            67..70 => self.check(node),
            70..72 => {
                self.tell(format!("collect on {node}"));
                self.collect(node);
            }
            72..75 => self.forget(node),
            75..79 => self.vanish(node),
            79..84 => {
                self.tell(format!("kill {node}"));
                self.nodes[node].kill();
            }
            84..91 => self.start_all(),
            91 => self.leave(node),
            92..94 => self.release(node),
            94 => self.reboot(node),
            95..97 => self.memory_away(true),
            97 => self.lose_disk(node),
            98 => self.memory_away(false),
            _ => self.memory.forget(),
        }
    }

    fn some_pod(&mut self, node: usize, wanted: impl Fn(&State) -> bool) -> Option<Pod> {
        let pods = self.runtime.some(|pod| pod.node == node && wanted(&pod.state));
        pods.choose(&mut self.rng).cloned()
    }

    fn add(&mut self, node: usize) {
        let living = self
            .runtime
            .some(|pod| pod.node == node && pod.state != State::Gone);
        if living.len() >= PODS {
            return;
        }
        // Some runtimes use a container's id again.
        let again = self.some_pod(node, |state| *state == State::Gone);
        let container = match again {
            Some(pod) if self.rng.random_ratio(1, 5) => pod.container,
            Some(_) | None => {
                self.containers += 1;
                format!("c{}", self.containers)
            }
        };
        self.tell(format!("add {container} on {node}"));
        self.runtime.add(node, &self.nodes[node], &container);
    }

    fn delete(&mut self, node: usize) {
        if let Some(pod) = self.some_pod(node, |state| matches!(state, State::Up(_) | State::Failed)) {
            self.tell(format!("delete {} on {node}", pod.container));
            self.runtime.delete(&self.nodes[node], pod);
        }
    }

    fn add_again(&mut self, node: usize) {
        if let Some(pod) = self.some_pod(node, |state| matches!(state, State::Up(_) | State::Adding)) {
            self.tell(format!("add again {} on {node}", pod.container));
            self.runtime.add_again(&self.nodes[node], pod);
        }
    }

    fn check(&mut self, node: usize) {
        let pod = self.some_pod(node, |state| matches!(state, State::Up(_)));
        if let (Some(pod), Some(agent)) = (pod, self.nodes[node].agent()) {
            tokio::spawn(self.runtime.clone().check(agent, pod));
        }
    }

    fn collect(&self, node: usize) {
        if let Some(agent) = self.nodes[node].agent() {
            tokio::spawn(self.runtime.clone().collect(agent, node));
        }
    }

    fn forget(&mut self, node: usize) {
        if let Some(pod) = self.some_pod(node, |state| matches!(state, State::Up(_))) {
            self.tell(format!("forget {} on {node}", pod.container));
            self.runtime
                .set(&pod.container, State::Forgotten(pod.addresses().to_vec()));
        }
    }

    /// Pods that the runtime has forgotten are gone once their links are.
    pub(crate) fn bury_the_forgotten(&self) {
        for pod in self.runtime.some(|pod| matches!(pod.state, State::Forgotten(_))) {
            let kernel = &self.nodes[pod.node].kernel;
            let linked = kernel.lock().links.contains_key(&pod.interface());
            if !linked {
                kernel.remove_netns(&pod.netns());
                self.runtime.set(&pod.container, State::Gone);
            }
        }
    }

    /// A pod's sandbox is gone, and nobody said so.
    fn vanish(&mut self, node: usize) {
        if let Some(pod) = self.some_pod(node, |state| matches!(state, State::Up(_) | State::Adding)) {
            self.tell(format!("vanish {} on {node}", pod.container));
            self.nodes[node].kernel.remove_netns(&pod.netns());
            self.runtime.set(&pod.container, State::Failed);
        }
    }

    fn reboot(&mut self, node: usize) {
        self.tell(format!("reboot {node}"));
        self.nodes[node].reboot();
        self.runtime.rebooted(node);
    }

    /// A node is deleted, unless it is the last one.
    fn leave(&mut self, node: usize) {
        let joined = self.nodes.iter().filter(|node| node.joined).count();
        if joined > 1 {
            self.tell(format!("leave {node}"));
            self.nodes[node].leave();
            self.runtime.left(node);
        }
    }

    /// A node that was deleted comes back, as it was when it was switched off or as a new machine.
    fn join(&mut self, node: usize) {
        if self.rng.random_ratio(9, 10) {
            return;
        }
        let new: bool = self.rng.random();
        self.tell(format!("join {node}, new: {new}"));
        self.nodes[node].old_disk = !new;
        if new {
            self.nodes[node].lose_disk();
        }
        self.nodes[node].join();
    }

    /// An operator asks for an address to be freed, which may be lost or not, or somebody else's by now.
    fn release(&mut self, node: usize) {
        let name = &self.nodes[node].name;
        let of_node = |block: &IpBlock| block.spec.node.as_ref() == Some(name);
        let mut blocks = laws::blocks(self).into_iter().filter(of_node);
        let meant = |block: IpBlock| {
            let held = block.spec.allocations.choose(&mut self.rng)?.clone();
            Some((block, held))
        };
        if let Some((mut block, held)) = blocks.find_map(meant) {
            let (address, sequence) = (held.address, held.sequence);
            self.tell(format!("release {address} ({sequence}) on {node}"));
            block.spec.releases.push(Release { address, sequence });
            block.spec.releases.dedup();
            self.memory.replace(Resource::IpBlock(block)).unwrap();
        }
    }

    fn lose_disk(&mut self, node: usize) {
        self.tell(format!("lose the disk of {node}"));
        self.nodes[node].lose_disk();
    }

    fn memory_away(&mut self, away: bool) {
        self.tell(format!("datastore away: {away}"));
        self.memory.set_away(away);
    }

    /// Starts the agents that are dead.
    pub(crate) fn start_all(&mut self) {
        for node in 0..NODES {
            if self.nodes[node].joined && self.nodes[node].agent().is_none() {
                self.tell(format!("start {node}"));
                laws::nothing_is_lost(self, node).unwrap_or_else(|crime| self.fail(&crime));
                self.nodes[node].start();
            }
        }
    }

    /// Nothing goes wrong any more, and the runtime cleans up: then everything has to agree.
    pub(crate) async fn rest(&mut self) {
        self.tell("rest".to_owned());
        self.chance.set_storm(false);
        self.memory_away(false);
        let begun = Instant::now();
        loop {
            self.start_all();
            for pod in self.runtime.some(|pod| pod.state == State::Failed) {
                self.runtime.delete(&self.nodes[pod.node], pod);
            }
            for node in 0..NODES {
                self.collect(node);
            }
            sleep(Duration::from_secs(5)).await;
            laws::always(self).unwrap_or_else(|crime| self.fail(&crime));
            match laws::at_rest(self).await {
                Ok(()) => {
                    let settled = |node: &mut Node| (node.disk_lost, node.old_disk) = (false, false);
                    self.nodes.iter_mut().filter(|node| node.joined).for_each(settled);
                    return;
                }
                Err(crime) if begun.elapsed() > REST => self.fail(&crime),
                Err(_) => {}
            }
        }
    }
}
