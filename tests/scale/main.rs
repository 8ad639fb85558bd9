//! Many agents and one API server: what they ask of it, under a clock that is paused while nothing happens.
//!
//! Each agent is what a node's has to do with the API server: its client, store watch, node task and ipam task, as `manxd`
//! has them, with a journal on a disk. There is no kernel, and nobody enforces the policies that they are told of.
//! `MANX_AGENTS=500` has so many, `MANX_REST=11` leaves them alone for so many minutes, and `MANX_MINUTES=1` has pods come
//! and go for that long. Work grows with the square of the agents: each looks at all blocks every second.

#![expect(
    clippy::unwrap_used,
    reason = "in a test and its harness, an unwrap is an assertion"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use manx_agent::ask::ask;
use manx_agent::disk::FileSystem;
use manx_agent::identity::Identity;
use manx_agent::ipam::{self, Clock, Wish};
use manx_agent::metrics::Metrics;
use manx_agent::policy::News;
use manx_agent::ready::Readiness;
use manx_agent::view::View;
use manx_agent::{cni, node, startup, watch};
use manx_api::Kind;
use manx_api::ipam::AttachmentId;
use manx_store::KubeStore;
use manx_store::fake::{FakeApiServer, Sort};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Agents, unless `MANX_AGENTS` says otherwise.
const AGENTS: usize = 10;

/// Minutes for which pods come and go, unless `MANX_MINUTES` says otherwise: many times what a checkpoint waits for others.
const MINUTES: u64 = 60;

/// So long after the last change at most, checkpoints say all.
const WRITTEN: Duration = Duration::from_secs(660);

/// A pod comes that often on each node: with 500 nodes, ten a second in the cluster.
const EACH: Duration = Duration::from_secs(50);

/// So long it stays.
const STAYS: Duration = Duration::from_secs(60);

/// Minutes for which agents are looked at while nothing happens, unless `MANX_REST` says otherwise.
const REST: u64 = 60;

/// Minutes in which each watch is renewed once at least.
const RENEWED: u64 = 10;

/// When the nodes' clocks begin, in seconds of UTC.
const EPOCH: u64 = 1_800_000_000;

/// Requests a second that an agent may make.
const RATE: f64 = 0.1;

/// Messages that wait in a channel, at most.
const QUEUE: usize = 256;

/// A number that whoever runs this may choose.
fn chosen<T: FromStr<Err: Debug>>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).map_or(otherwise, |number| number.parse().unwrap())
}

/// A node's agent, as far as it has to do with the API server.
struct Agent {
    name: String,
    ipam: mpsc::Sender<ipam::Request>,
    /// It ends with this.
    _tasks: JoinSet<()>,
}

/// Hears news and makes nothing of them.
async fn hear(mut news: mpsc::Receiver<News>) {
    while news.recv().await.is_some() {}
}

impl Agent {
    fn start(store: KubeStore, number: usize, folder: &Path) -> Self {
        let name = format!("node-{number:03}");
        let [third, fourth] = u16::try_from(number + 1).unwrap().to_be_bytes();
        let address = Ipv4Addr::new(10, 128, third, fourth);
        let identity = Arc::new(Identity {
            name: name.clone(),
            ipv4: Some(format!("{address}/9").parse().unwrap()),
            ipv6: None,
            as_number: None,
            router_id: address,
            labels: BTreeMap::new(),
            mtu: 1500,
        });
        let (readiness, metrics) = (Readiness::default(), Metrics::new().0);
        let (view_out, view) = channel::channel(Arc::<View>::default());
        let (policies, policy_news) = mpsc::channel(QUEUE);
        let (services, service_news) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(hear(policy_news));
        tasks.spawn(hear(service_news));
        let mut watching = watch::Inbox {
            identity: identity.clone(),
            store: store.clone(),
            view: view_out,
            policies,
            services,
            metrics: metrics.clone(),
            listed: Some(readiness.wait_for("datastore")),
        };
        tasks.spawn(async move { watch::run(&mut watching).await });
        let mut own = node::Inbox {
            identity: identity.clone(),
            store: store.clone(),
            view: view.clone(),
            host: channel::channel(None).0,
        };
        tasks.spawn(async move { node::run(&mut own).await });
        let (ipam, requests) = mpsc::channel(QUEUE);
        let (clock, journal) = (Clock::at(EPOCH), folder.join(format!("{name}.journal")));
        let (journal, allocator) = startup::recover(Arc::new(FileSystem), &journal, &[], clock).unwrap();
        tasks.spawn(ipam::run(ipam::Inbox {
            identity,
            store,
            view,
            owned: channel::channel(Arc::default()).0,
            requests,
            allocator,
            journal,
            live: Vec::new(),
            clock,
            metrics,
            claimed: readiness.wait_for(cni::BLOCKS),
        }));
        Self {
            name,
            ipam,
            _tasks: tasks,
        }
    }

    /// A pod of this node, from the scheduler's word to its end, with what its kubelet says of it.
    async fn run(&self, server: &FakeApiServer, number: usize) {
        let pod = format!("pod-{}-{number}", self.name);
        let tell = |phase: &str, addresses: &[Value]| {
            let object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod, "namespace": "default", "labels": {"app": "web"}},
                "spec": {"nodeName": self.name, "containers": [{"name": "main", "image": "example.org/main"}]},
                "status": {"phase": phase, "podIPs": addresses},
            });
            server.apply(Sort::POD, object);
        };
        tell("Pending", &[]);
        let assign = |reply| ipam::Request::Assign {
            owner: AttachmentId {
                container_id: pod.clone(),
                ifname: "eth0".to_owned(),
                namespace: "default".to_owned(),
                pod: pod.clone(),
                network: None,
            },
            wish: Wish::default(),
            reply,
        };
        let assigned = ask(&self.ipam, assign).await.unwrap().unwrap();
        let addresses = assigned.allocations.iter().map(|it| json!({"ip": it.address}));
        let addresses: Vec<Value> = addresses.collect();
        assert_eq!(addresses.len(), 2, "one of each family");
        tell("Running", &addresses);
        sleep(STAYS).await;
        let release = |reply| ipam::Request::Release {
            container_id: pod.clone(),
            ifname: "eth0".to_owned(),
            reply,
        };
        ask(&self.ipam, release).await.unwrap().unwrap();
        server.delete(Sort::POD, "default", &pod);
    }
}

/// An API server with pools and nodes, and the agents of these.
struct Cluster {
    server: Arc<FakeApiServer>,
    agents: Vec<Arc<Agent>>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(size: usize) -> Self {
        let server = Arc::new(FakeApiServer::start().await.unwrap());
        server.bookmark_every(Duration::from_secs(60));
        for (name, cidr) in [("v4", "10.0.0.0/12"), ("v6", "fd64::/64")] {
            let metadata = json!({"name": name});
            server.put(
                Kind::IpPool,
                json!({"apiVersion": "manx.network/v1", "kind": "IPPool", "metadata": metadata, "spec": {"cidr": cidr}}),
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let mut agents = Vec::new();
        for number in 0..size {
            let name = format!("node-{number:03}");
            server.apply(
                Sort::NODE,
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
            );
            let store = server.store_within("manx-system", "manxd", &name);
            agents.push(Arc::new(Agent::start(store, number, folder.path())));
        }
        let cluster = Self {
            server,
            agents,
            _folder: folder,
        };
        cluster.settle().await;
        cluster
    }

    /// Waits until every node has a block of each family, and says what it is.
    async fn settle(&self) {
        let limit = Instant::now() + Duration::from_secs(600);
        let wanted = self.agents.len();
        loop {
            let nodes = self.server.objects(Kind::Node).len();
            let blocks = self.server.objects(Kind::IpBlock).len();
            if nodes == wanted && blocks >= 2 * wanted {
                return;
            }
            assert!(
                Instant::now() < limit,
                "{nodes} nodes and {blocks} blocks of {wanted}"
            );
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Requests so far, by what they were for.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for (call, count) in self.server.calls() {
            // Twenty-five sorts of watches are one thing.
            let what = match call.verb {
                "watch" => "watch".to_owned(),
                verb => format!("{verb} {}", call.resource),
            };
            *calls.entry(what).or_default() += count;
        }
        calls
    }

    /// What was asked since, and how often a second each agent did.
    fn since(&self, before: &BTreeMap<String, usize>, begin: Instant) -> (BTreeMap<String, usize>, f64) {
        let mut spent = self.calls();
        for (what, count) in &mut spent {
            *count -= before.get(what).copied().unwrap_or_default();
        }
        spent.retain(|_, count| *count > 0);
        let total = u32::try_from(spent.values().sum::<usize>()).unwrap();
        let agents = u32::try_from(self.agents.len()).unwrap();
        let rate = f64::from(total) / f64::from(agents) / begin.elapsed().as_secs_f64();
        (spent, rate)
    }

    /// Pods come and go on all nodes.
    async fn churn(&self, during: Duration) -> usize {
        let (begin, mut pods, mut number) = (Instant::now(), JoinSet::new(), 0_u32);
        let pause = EACH / u32::try_from(self.agents.len()).unwrap();
        while begin.elapsed() < during {
            let place = usize::try_from(number).unwrap();
            let agent = self.agents[place % self.agents.len()].clone();
            let server = self.server.clone();
            pods.spawn(async move { agent.run(&server, place).await });
            number += 1;
            sleep_until(begin + pause * number).await;
        }
        while let Some(ended) = pods.join_next().await {
            ended.unwrap();
        }
        usize::try_from(number).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn agents_ask_little_at_rest_and_while_pods_come_and_go() {
    let real = std::time::Instant::now();
    let cluster = Cluster::start(chosen("MANX_AGENTS", AGENTS)).await;
    let agents = cluster.agents.len();
    sleep(Duration::from_secs(60)).await;
    let rest = chosen("MANX_REST", REST);
    let (before, begin) = (cluster.calls(), Instant::now());
    sleep(Duration::from_secs(60 * rest)).await;
    let (spent, rate) = cluster.since(&before, begin);
    println!("{agents} agents at rest for {rest} min: {rate:.3} requests a second each, {spent:?}");
    let renewed = 25 * agents * usize::try_from(rest / RENEWED).unwrap();
    assert!(
        spent["watch"] >= renewed,
        "{renewed} renewals at least: {spent:?}"
    );
    assert!(rate <= RATE, "{spent:?}");

    let minutes = chosen("MANX_MINUTES", MINUTES);
    let (before, begin) = (cluster.calls(), Instant::now());
    let pods = cluster.churn(Duration::from_secs(60 * minutes)).await;
    let (spent, rate) = cluster.since(&before, begin);
    assert!(rate <= RATE, "{spent:?}");
    if minutes >= MINUTES {
        sleep(WRITTEN).await;
    }
    let (spent, _) = cluster.since(&before, begin);
    // Watches would be renewed without pods as well.
    let others = spent.iter().filter(|(what, _)| *what != "watch");
    let others: usize = others.map(|(_, count)| count).sum();
    println!(
        "{agents} agents, {pods} pods come and go in {minutes} min: {rate:.3} requests a second each; \
         {others} for {pods} pods, {spent:?}; {:.0?} of a real clock in all",
        real.elapsed()
    );
    // In a short time nothing is spread over many pods.
    assert!(
        minutes < MINUTES || 5 * others <= pods,
        "{others} for {pods} pods: {spent:?}"
    );
}
