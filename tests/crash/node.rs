//! A node: what outlives its agent, and the agent's own tasks wired to it, one life after the other.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use manx_agent::ask::ask;
use manx_agent::events::Events;
use manx_agent::identity::Identity;
use manx_agent::ipam::{Clock, Owned};
use manx_agent::journal::JournalError;
use manx_agent::metrics::Metrics;
use manx_agent::ready::Readiness;
use manx_agent::tombstones::Tombstones;
use manx_agent::view::View;
use manx_agent::{cni, ipam, reclaim, releases, restore, startup, watch, workload};
use manx_api::status::BlockStatus;
use manx_api::{Key, Kind};
use manx_cni::Attachment;
use manx_ipam::journal;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bgp::Air;
use crate::chance::{Chance, Dead, Life};
use crate::disk::{CrashingDisk, Platter};
use crate::kernel::{self, Kernel};
use crate::memory::{Memory, Remote};

/// Messages that wait in a channel, at most.
const QUEUE: usize = 256;

/// How long the plugin waits for the agent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the agent keeps its journal.
const JOURNAL: &str = "/state/ipam.journal";

/// When the nodes' clocks begin, in seconds of UTC.
const EPOCH: u64 = 1_800_000_000;

/// A node of the cluster.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kernel: Kernel,
    pub(crate) platter: Platter,
    /// Where tombstones are.
    pub(crate) state_dir: PathBuf,
    /// Calls of the datastore by the tasks that ADD and DEL wait for.
    pub(crate) calls: Arc<AtomicUsize>,
    /// It joined anew with its old disk, and may not have learned yet that it lost blocks.
    pub(crate) old_disk: bool,
    /// The journal need not know all that was answered: it was lost, and may not be recovered yet.
    pub(crate) disk_lost: bool,
    /// The blocks that an agent of this node published last.
    pub(crate) owned: Arc<Owned>,
    /// When its clock showed [`EPOCH`].
    born: Instant,
    /// Whether it is a node of the cluster.
    pub(crate) joined: bool,
    memory: Memory,
    air: Air,
    chance: Chance,
    lives: u32,
    agent: Option<Agent>,
    /// What no agent should do.
    crimes: Crimes,
}

/// What was found wrong in tasks.
pub(crate) type Crimes = Arc<Mutex<Vec<String>>>;

/// A way to a living agent, as the plugin has one. Clones lead to the same life.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) life: Life,
    jobs: mpsc::Sender<cni::Job>,
    ipam: mpsc::Sender<ipam::Request>,
    owned: channel::Receiver<Arc<Owned>>,
}

impl Agent {
    /// Calls the agent as the plugin does; none: it gave no answer.
    pub(crate) async fn call<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, manx_cni::Error>>) -> cni::Job,
    ) -> Option<Result<T, manx_cni::Error>> {
        tokio::select! {
            biased;
            () = self.life.over() => None,
            () = tokio::time::sleep(PATIENCE) => None,
            answer = ask(&self.jobs, job) => answer.ok(),
        }
    }

    /// Who holds what.
    pub(crate) async fn show(&self) -> Option<Vec<BlockStatus>> {
        tokio::select! {
            biased;
            () = self.life.over() => None,
            blocks = ask(&self.ipam, ipam::Request::Show) => blocks.ok(),
        }
    }
}

impl Node {
    pub(crate) fn new(
        name: &str,
        state_dir: &Path,
        (memory, air): (&Memory, &Air),
        chance: &Chance,
        crimes: &Crimes,
    ) -> Self {
        Self {
            name: name.to_owned(),
            kernel: Kernel::default(),
            platter: Platter::default(),
            state_dir: state_dir.join(name),
            calls: Arc::default(),
            old_disk: false,
            disk_lost: false,
            owned: Arc::default(),
            born: Instant::now(),
            joined: false,
            memory: memory.clone(),
            air: air.clone(),
            chance: chance.clone(),
            lives: 0,
            agent: None,
            crimes: crimes.clone(),
        }
    }

    /// The agent, if it lives.
    pub(crate) fn agent(&self) -> Option<Agent> {
        self.agent.clone().filter(|agent| !agent.life.is_over())
    }

    /// What the journal says.
    pub(crate) fn replay(&self) -> manx_ipam::Allocator {
        let bytes = self.platter.read(Path::new(JOURNAL)).unwrap_or_default();
        let replay = journal::replay(&bytes);
        let replay = replay.unwrap_or_else(|error| panic!("the journal of {}: {error}", self.name));
        replay.allocator
    }

    /// The blocks that the node holds, as far as anybody can know.
    pub(crate) fn blocks(&mut self) -> Arc<Owned> {
        if let Some(agent) = &self.agent {
            self.owned = agent.owned.borrow().clone();
        }
        self.owned.clone()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.blocks();
        if let Some(agent) = self.agent.take() {
            agent.life.end();
        }
    }

    /// The node loses power and starts again; the agent does not, yet.
    pub(crate) fn reboot(&mut self) {
        self.kill();
        self.kernel.reset();
        self.platter.lose_power(self.chance.draw(&self.name));
    }

    /// Becomes a node of the cluster.
    pub(crate) fn join(&mut self) {
        let node = json!({
            "apiVersion": "manx.network/v1", "kind": "Node", "metadata": {"name": self.name}, "spec": {},
        });
        self.memory.insert(serde_json::from_value(node).unwrap()).unwrap();
        self.joined = true;
    }

    /// The machine is switched off, and the node deleted.
    pub(crate) fn leave(&mut self) {
        self.reboot();
        self.be_deleted();
        self.owned = Arc::default();
    }

    /// Somebody deletes the node, whose agent is dead and which nobody hears any more.
    pub(crate) fn be_deleted(&mut self) {
        self.kill();
        self.air.silence(&self.name);
        self.memory
            .remove(&Key::cluster(Kind::Node, &self.name), None)
            .unwrap();
        self.joined = false;
    }

    /// The disk with the agent's state is replaced by an empty one.
    pub(crate) fn lose_disk(&mut self) {
        self.kill();
        self.platter.wipe();
        if self.state_dir.exists() {
            std::fs::remove_dir_all(&self.state_dir).unwrap();
        }
        self.disk_lost = true;
    }

    /// Starts the agent; it may die of it.
    pub(crate) fn start(&mut self) {
        self.kill();
        self.lives += 1;
        let life = Life::new(format!("{} life {}", self.name, self.lives), self.chance.clone());
        let disk = Arc::new(CrashingDisk {
            platter: self.platter.clone(),
            life: life.clone(),
        });
        let (live, clock) = (self.kernel.survey(), self.clock());
        let recover = || startup::recover(disk, Path::new(JOURNAL), &live, clock);
        let (journal, allocator) = match std::panic::catch_unwind(AssertUnwindSafe(recover)) {
            Ok(Ok(recovered)) => recovered,
            Ok(Err(error @ JournalError::Replay { .. })) => panic!("{}: {error}", self.name),
            Ok(Err(JournalError::Io { .. } | JournalError::Encode(_))) => return,
            Err(panic) if panic.is::<Dead>() => return,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let graves = Tombstones::open(&self.state_dir).unwrap();
        let start = Start {
            life,
            kernel: self.kernel.clone(),
            identity: Arc::new(self.identity()),
            state_dir: self.state_dir.clone(),
            memory: self.memory.clone(),
            air: self.air.clone(),
            calls: self.calls.clone(),
            metrics: Metrics::new().0,
        };
        let (agent, tasks) = start.spawn((journal, allocator, live, clock), graves);
        tokio::spawn(supervise(agent.life.clone(), tasks, self.crimes.clone()));
        self.agent = Some(agent);
    }

    /// The node's clock, which goes on while the agent is dead.
    fn clock(&self) -> Clock {
        Clock::at(EPOCH + self.born.elapsed().as_secs())
    }

    fn identity(&self) -> Identity {
        Identity {
            name: self.name.clone(),
            ipv4: None,
            ipv6: None,
            as_number: None,
            router_id: Ipv4Addr::LOCALHOST,
            labels: Default::default(),
            mtu: 1500,
        }
    }
}

/// Drops an agent's tasks when its life is over. One that panics is a crime; one that ends is a death.
async fn supervise(life: Life, mut tasks: JoinSet<()>, crimes: Crimes) {
    loop {
        let ended = tokio::select! {
            biased;
            () = life.over() => return,
            ended = tasks.join_next() => ended,
        };
        match ended {
            Some(Err(error)) if error.is_panic() => {
                let panic = error.into_panic();
                if !panic.is::<Dead>() {
                    let reason = manx_agent::supervise::reason(&*panic);
                    crimes.lock().unwrap().push(format!("a task panicked: {reason}"));
                }
                life.end();
            }
            Some(_) => {}
            None => return,
        }
    }
}

/// What a life starts with.
struct Start {
    life: Life,
    kernel: Kernel,
    identity: Arc<Identity>,
    state_dir: PathBuf,
    memory: Memory,
    air: Air,
    calls: Arc<AtomicUsize>,
    metrics: Metrics,
}

type Recovered = (
    manx_agent::journal::Journal,
    manx_ipam::Allocator,
    Vec<manx_ipam::Live<String>>,
    Clock,
);

impl Start {
    fn remote(&self, task: &'static str) -> Remote {
        Remote {
            memory: self.memory.clone(),
            life: self.life.clone(),
            task,
            calls: Arc::default(),
        }
    }

    /// The agent's tasks, put together as the agent does it (`tasks/assembly.rs`).
    fn spawn(self, recovered: Recovered, buried: (Tombstones, Vec<Attachment>)) -> (Agent, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let readiness = Readiness::default();
        let (jobs_out, jobs) = mpsc::channel(QUEUE);
        let (ipam_out, requests) = mpsc::channel(QUEUE);
        let (routes_out, routes) = mpsc::channel(QUEUE);
        let (endpoints_out, endpoints) = mpsc::channel(QUEUE);
        let (workloads_out, changes) = mpsc::channel(QUEUE);
        let (owned_out, owned) = channel::channel(Arc::default());
        let agent = Agent {
            life: self.life.clone(),
            jobs: jobs_out.clone(),
            ipam: ipam_out.clone(),
            owned: owned.clone(),
        };
        self.air.announce(&self.identity.name, owned.clone());
        let view = self.spawn_watch(&mut tasks, &readiness);
        tasks.spawn(ipam::run(self.ipam(
            recovered,
            view.clone(),
            owned_out,
            requests,
            &readiness,
        )));
        let (life, kernel) = (self.life.clone(), self.kernel.clone());
        tasks.spawn(kernel::serve_routes(life.clone(), kernel.clone(), routes, owned));
        tasks.spawn(kernel::serve_endpoints(life, kernel, endpoints));
        self.spawn_workload(&mut tasks, changes);
        self.spawn_upkeep(&mut tasks, &view, &agent);
        let gate = kernel::open_gate(&mut tasks);
        let parts = cni::Parts {
            identity: self.identity,
            state_dir: self.state_dir,
            ipam: ipam_out.clone(),
            endpoints: endpoints_out,
            routes: routes_out.clone(),
            workloads: Some(workloads_out.clone()),
            jobs: jobs_out.downgrade(),
            gate: gate.clone(),
            connections: kernel::serve_conntrack(&mut tasks),
            events: Events::of(None, String::new()).0,
            metrics: self.metrics,
        };
        let mut inbox = cni::Inbox { jobs, parts };
        tasks.spawn(async move { cni::run(&mut inbox).await });
        let doors = restore::Doors {
            ipam: ipam_out,
            cni: jobs_out,
            routes: routes_out,
            workloads: Some(workloads_out),
            gate,
            restored: readiness.wait_for("pods of an earlier life"),
        };
        tasks.spawn(take_up(doors, buried));
        (agent, tasks)
    }

    fn spawn_workload(&self, tasks: &mut JoinSet<()>, changes: mpsc::Receiver<workload::Change>) {
        let mut inbox = workload::Inbox {
            identity: self.identity.clone(),
            store: self.remote("workload"),
            changes,
            metrics: self.metrics.clone(),
        };
        tasks.spawn(async move { workload::run(&mut inbox).await });
    }

    /// What looks after blocks beside the address task.
    fn spawn_upkeep(&self, tasks: &mut JoinSet<()>, view: &channel::Receiver<Arc<View>>, agent: &Agent) {
        let mut inbox = releases::Inbox {
            identity: self.identity.clone(),
            store: self.remote("releases"),
            view: view.clone(),
            ipam: agent.ipam.clone(),
            cni: agent.jobs.clone(),
        };
        tasks.spawn(async move { releases::run(&mut inbox).await });
        let (bgp, questions) = mpsc::channel(QUEUE);
        tasks.spawn(self.air.clone().serve(self.identity.name.clone(), questions));
        let mut inbox = reclaim::Inbox {
            identity: self.identity.clone(),
            store: self.remote("reclaim"),
            view: view.clone(),
            bgp,
        };
        tasks.spawn(async move { reclaim::run(&mut inbox).await });
    }

    fn spawn_watch(&self, tasks: &mut JoinSet<()>, readiness: &Readiness) -> channel::Receiver<Arc<View>> {
        let (view_out, view) = channel::channel(Arc::default());
        let mut inbox = watch::Inbox {
            identity: self.identity.clone(),
            store: self.remote("watch"),
            view: view_out,
            policies: mpsc::channel(1).0,
            services: mpsc::channel(1).0,
            metrics: self.metrics.clone(),
            listed: Some(readiness.wait_for("datastore")),
        };
        tasks.spawn(async move { watch::run(&mut inbox).await });
        view
    }

    fn ipam(
        &self,
        (journal, allocator, live, clock): Recovered,
        view: channel::Receiver<Arc<View>>,
        owned: channel::Sender<Arc<Owned>>,
        requests: mpsc::Receiver<ipam::Request>,
        readiness: &Readiness,
    ) -> ipam::Inbox<Remote> {
        ipam::Inbox {
            identity: self.identity.clone(),
            store: Remote {
                calls: self.calls.clone(),
                ..self.remote("ipam")
            },
            view,
            owned,
            requests,
            allocator,
            journal,
            live,
            clock,
            metrics: self.metrics.clone(),
            claimed: readiness.wait_for(cni::BLOCKS),
        }
    }
}

/// Sees to the pods of an earlier life: those whose end it did not live to see, and the others.
async fn take_up(doors: restore::Doors, (tombstones, buried): (Tombstones, Vec<Attachment>)) {
    let jobs = doors.cni.clone();
    for attachment in buried {
        jobs.send(cni::Job::Bury(attachment)).await.unwrap();
    }
    restore::run(doors).await;
    tombstones.run(jobs).await.unwrap();
}

/// An address of each family that an answer to ADD has.
pub(crate) fn addresses(success: &manx_cni::Success) -> Vec<IpAddr> {
    success.ips.iter().map(|ip| ip.address.ip()).collect()
}
