//! Many nodes at once: claims of blocks race, in a nearly full pool and at a cold start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_agent::identity::Identity;
use manx_agent::ipam::{self, Clock, Owned};
use manx_agent::journal::Journal;
use manx_agent::metrics::Metrics;
use manx_agent::ready::Readiness;
use manx_agent::view::View;
use manx_api::ipam::{IpBlock, IpPool, block_name};
use manx_api::{Key, Kind, Resource, Revision};
use manx_ipam::{Reserved, candidates, claim, release_block};
use manx_store::{Error, Events, Listing, SqliteStore, Store};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::{Barrier, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::chance::{Chance, Life};
use crate::disk::{CrashingDisk, Platter};
use crate::laws;
use crate::memory::{Memory, Remote};
use crate::node::Node;
use crate::runtime::State;
use crate::storm::virtually;
use crate::world::World;

/// Of the pods that come and go.
const SEED: u64 = 1;

/// Nodes that share the nearly full pool.
const NODES: usize = 50;

/// Its blocks, of four addresses each: of 64, twelve are reserved.
const BLOCKS: usize = 52;
const POOL: &str = "10.64.0.0/24";
const RESERVED: [&str; 2] = ["10.64.0.0/28", "10.64.0.128/27"];

/// Long enough for an empty block to go back.
const LATER: Duration = Duration::from_secs(150);

/// How long nodes may take to agree with the datastore once nothing happens any more.
const REST: Duration = Duration::from_secs(300);

fn resource(kind: &str, name: &str, spec: &Value) -> Resource {
    let resource = json!({
        "apiVersion": "manx.network/v1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(resource).unwrap()
}

/// The nodes' agents, started, over the nearly full pool.
fn crowd(seed: u64) -> World {
    let mut world = World::of(NODES, seed);
    world.pool("v4", POOL, 30);
    let settings = [
        resource("IPReservation", "some", &json!({"reservedCIDRs": RESERVED})),
        resource("IPAMConfiguration", "default", &json!({"strictAffinity": true})),
    ];
    for setting in settings {
        world.memory.insert(setting).unwrap();
    }
    world.nodes.iter_mut().for_each(Node::start);
    world
}

fn owned(world: &World, node: usize) -> usize {
    world.nodes[node].replay().blocks().count()
}

/// Adds pods one after the other; how many of them got an address.
async fn add(world: &World, node: usize, pods: Range<usize>) -> usize {
    let names: Vec<String> = pods.map(|pod| format!("late-{node}-{pod}")).collect();
    for name in &names {
        world.runtime.add(node, &world.nodes[node], name);
        // Whoever has to wait for a block is told after ten seconds that there is none.
        sleep(Duration::from_secs(15)).await;
    }
    let up = world
        .runtime
        .some(|pod| names.contains(&pod.container) && matches!(pod.state, State::Up(_)));
    up.len()
}

fn delete(world: &World, wanted: impl Fn(&State) -> bool) {
    for pod in world.runtime.some(|pod| wanted(&pod.state)) {
        world.runtime.delete(&world.nodes[pod.node], pod);
    }
}

async fn rest(world: &mut World) {
    let begun = Instant::now();
    delete(world, |state| *state == State::Failed);
    while let Err(crime) = laws::at_rest(world).await {
        assert!(begun.elapsed() < REST, "{crime}");
        sleep(Duration::from_secs(5)).await;
    }
}

/// The pods of nodes come and go, and so do blocks: some node always wants what another has just given back.
async fn churn(world: &mut World) {
    let mut rng = StdRng::seed_from_u64(SEED);
    for step in 0..600 {
        let node = rng.random_range(0..NODES);
        let pods = world
            .runtime
            .some(|pod| pod.node == node && pod.state != State::Gone);
        let over = |state: &State| matches!(state, State::Up(_) | State::Failed);
        // Some nodes fill up while others empty.
        let growing = (node + step / 150) % 3 == 0;
        if pods.len() < 8 && rng.random_bool(if growing { 0.8 } else { 0.2 }) {
            world
                .runtime
                .add(node, &world.nodes[node], &format!("pod-{step}"));
        } else if let Some(pod) = pods.choose(&mut rng).filter(|pod| over(&pod.state)) {
            world.runtime.delete(&world.nodes[node], pod.clone());
        }
        let pause = *[0, 1, 5, 20, 500, 2_000].choose(&mut rng).unwrap();
        sleep(Duration::from_millis(pause)).await;
        laws::always(world).unwrap();
    }
}

#[test]
fn fifty_nodes_share_a_nearly_full_pool_and_each_has_its_block() {
    virtually(async {
        let mut world = crowd(SEED);
        churn(&mut world).await;
        rest(&mut world).await;
        for node in 0..NODES {
            assert!(owned(&world, node) > 0, "node {node} has no block");
        }
        delete(&world, |state| matches!(state, State::Up(_)));
        sleep(LATER).await;
        rest(&mut world).await;
        for node in 0..NODES {
            assert_eq!(owned(&world, node), 1, "node {node}");
        }
        // Two blocks are left, for whoever comes first.
        assert_eq!(BLOCKS - NODES, 2);
        for (node, up) in [(7, 6), (23, 6), (41, 4)] {
            assert_eq!(add(&world, node, 0..6).await, up, "node {node}");
        }
        rest(&mut world).await;
    });
}

/// A datastore that counts reads, and writes that somebody else was quicker with.
#[derive(Clone)]
struct Counting {
    remote: Remote,
    reads: Arc<AtomicUsize>,
    conflicts: Arc<AtomicUsize>,
}

impl Counting {
    fn written(&self, outcome: Result<Resource, Error>) -> Result<Resource, Error> {
        if let Err(Error::AlreadyExists(_) | Error::Conflict { .. }) = &outcome {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

impl Store for Counting {
    async fn get(&self, key: &Key) -> Result<Resource, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.remote.get(key).await
    }

    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Listing, Error> {
        self.remote.list(kind, namespace).await
    }

    async fn create(&self, resource: Resource) -> Result<Resource, Error> {
        self.written(self.remote.create(resource).await)
    }

    async fn update(&self, resource: Resource) -> Result<Resource, Error> {
        self.written(self.remote.update(resource).await)
    }

    async fn delete(&self, key: &Key, revision: Option<&Revision>) -> Result<Resource, Error> {
        self.remote.delete(key, revision).await
    }

    fn watch(&self, kinds: &[Kind], from: Revision) -> Events {
        self.remote.watch(kinds, from)
    }
}

/// The ipam task of a node that has never been, and that hears of no other's block; what it publishes.
fn newcomer(
    number: usize,
    store: &Counting,
    view: watch::Receiver<Arc<View>>,
) -> watch::Receiver<Arc<Owned>> {
    let name = format!("node-{number}");
    let life = Life::new(name.clone(), Chance::new(0));
    let disk = CrashingDisk {
        platter: Platter::default(),
        life: life.clone(),
    };
    let (journal, allocator) = Journal::open(Arc::new(disk), Path::new("/state/ipam.journal")).unwrap();
    let (owned_out, owned) = watch::channel(Arc::default());
    let (requests_out, requests) = mpsc::channel(1);
    let remote = Remote {
        life,
        ..store.remote.clone()
    };
    let inbox = ipam::Inbox {
        identity: Arc::new(Identity {
            name,
            ipv4: None,
            ipv6: None,
            as_number: None,
            router_id: Ipv4Addr::LOCALHOST,
            labels: BTreeMap::new(),
            mtu: 1500,
        }),
        store: Counting {
            remote,
            ..store.clone()
        },
        view,
        owned: owned_out,
        requests,
        allocator,
        journal,
        live: Vec::new(),
        clock: Clock::at(0),
        metrics: Metrics::new().0,
        claimed: Readiness::default().wait_for("blocks"),
    };
    tokio::spawn(async move {
        let _requests = requests_out;
        ipam::run(inbox).await;
    });
    owned
}

/// How many blocks that others have nodes of these names come upon before each has one, if all look upwards from
/// their first candidate. That does not depend on who comes when: which blocks are taken in the end does not, and
/// who passes a block goes one further.
fn passed(pool: &IpPool, nodes: usize) -> usize {
    let mut taken = BTreeSet::new();
    let mut passed = 0;
    for number in 0..nodes {
        let (none, reserved) = (BTreeSet::new(), Reserved::default());
        let mut blocks = candidates(pool, &none, &reserved, &format!("node-{number}"));
        passed += blocks.position(|block| taken.insert(block)).unwrap();
    }
    passed
}

/// A thousand nodes in 4,096 blocks, none of which knows of another's claim until it comes upon it.
#[test]
fn a_cold_start_of_a_thousand_nodes_collides_no_more_than_chance_would_have_it() {
    const NODES: u32 = 1_000;
    let nodes = usize::try_from(NODES).unwrap();
    virtually(async {
        let memory = Memory::default();
        let pool = resource("IPPool", "v4", &json!({"cidr": "10.0.0.0/14"}));
        let mut view = View {
            complete: true,
            ..View::default()
        };
        view.put(memory.insert(pool).unwrap());
        let pool = view.pools["v4"].clone();
        let (_view, seen) = watch::channel(Arc::new(view));
        let remote = Remote {
            memory: memory.clone(),
            life: Life::new(String::new(), Chance::new(0)),
            task: "ipam",
            calls: Arc::default(),
        };
        let store = Counting {
            remote,
            reads: Arc::default(),
            conflicts: Arc::default(),
        };
        let owned: Vec<_> = (0..nodes)
            .map(|number| newcomer(number, &store, seen.clone()))
            .collect();
        sleep(Duration::from_secs(3)).await;

        let blocks: BTreeSet<IpNetwork> = owned
            .iter()
            .flat_map(|owned| owned.borrow().blocks.clone())
            .collect();
        assert!(owned.iter().all(|owned| owned.borrow().blocks.len() == 1));
        assert_eq!((blocks.len(), memory.items(Kind::IpBlock).len()), (nodes, nodes));
        let passed = passed(&pool, nodes);
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        let (reads, conflicts) = (count(&store.reads), count(&store.conflicts));
        eprintln!("{passed} blocks were another's");
        assert_eq!(
            (reads, conflicts),
            (0, passed),
            "nobody reads what nobody had: a claim that is refused says that another was first"
        );
        // Knuth: thrown at random, n nodes pass n · α / 2(1 − α) blocks of others, where α is the part that is taken.
        let load = f64::from(NODES) / 4096.0;
        let chance = f64::from(NODES) * load / (2.0 * (1.0 - load));
        let bound = 1.25 * chance;
        assert!(
            f64::from(u32::try_from(passed).unwrap()) < bound,
            "{passed} is more than {bound}"
        );
    });
}

/// Who believes to own which block.
type Beliefs = Arc<Mutex<BTreeMap<IpNetwork, String>>>;

async fn existing(store: &SqliteStore, cidr: IpNetwork) -> Option<IpBlock> {
    let key = Key::cluster(Kind::IpBlock, block_name(cidr));
    match store.get(&key).await {
        Ok(resource) => Some(IpBlock::try_from(resource).unwrap()),
        Err(Error::NotFound(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Claims one block more, as the ipam task does; none where all are others'.
async fn claim_one(
    store: &SqliteStore,
    pool: &IpPool,
    own: &BTreeSet<IpNetwork>,
    node: &str,
) -> Option<IpBlock> {
    let reserved = Reserved::new(RESERVED.map(|net| net.parse().unwrap()));
    for cidr in candidates(pool, own, &reserved, node) {
        let before = existing(store, cidr).await;
        let Ok(wanted) = claim(before.as_ref(), pool, cidr, node) else {
            continue;
        };
        let written = match before {
            Some(_) => store.update(Resource::IpBlock(wanted)).await,
            None => store.create(Resource::IpBlock(wanted)).await,
        };
        match written {
            Ok(block) => return Some(IpBlock::try_from(block).unwrap()),
            Err(Error::Conflict { .. } | Error::AlreadyExists(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    None
}

/// A node that claims up to so many blocks, and believes to own them.
async fn claim_up_to(
    most: usize,
    store: &SqliteStore,
    pool: &IpPool,
    node: &str,
    beliefs: &Beliefs,
) -> Vec<IpBlock> {
    let (mut blocks, mut own) = (Vec::new(), BTreeSet::new());
    while blocks.len() < most {
        let Some(block) = claim_one(store, pool, &own, node).await else {
            break;
        };
        let other = beliefs.lock().unwrap().insert(block.spec.cidr, node.to_owned());
        assert_eq!(other, None, "{} is {node}'s as well", block.spec.cidr);
        own.insert(block.spec.cidr);
        blocks.push(block);
    }
    blocks
}

/// Claims and gives back, a few times over; when all have done so, claims one to keep.
async fn race(store: SqliteStore, pool: IpPool, node: String, beliefs: Beliefs, all: Arc<Barrier>) {
    for _ in 0..3 {
        for block in claim_up_to(3, &store, &pool, &node, &beliefs).await {
            beliefs.lock().unwrap().remove(&block.spec.cidr);
            let free = release_block(&block, &node).unwrap();
            store.update(Resource::IpBlock(free)).await.unwrap();
        }
    }
    all.wait().await;
    let kept = claim_up_to(1, &store, &pool, &node, &beliefs).await;
    assert_eq!(kept.len(), 1, "there are more blocks than nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_tasks_on_one_embedded_datastore_never_own_one_block() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let store = SqliteStore::open(&file).await.unwrap();
    let pool = resource("IPPool", "v4", &json!({"cidr": POOL, "blockSize": 30}));
    let pool = IpPool::try_from(store.create(pool).await.unwrap()).unwrap();
    let (beliefs, all) = (Beliefs::default(), Arc::new(Barrier::new(NODES)));
    let mut racers = JoinSet::new();
    for number in 0..NODES {
        // Some share a process's connections; others have their own, as other processes do.
        let store = match number % 10 {
            0 => SqliteStore::open(&file).await.unwrap(),
            _ => store.clone(),
        };
        let node = format!("node-{number}");
        racers.spawn(race(store, pool.clone(), node, beliefs.clone(), all.clone()));
    }
    racers.join_all().await;

    let stored = store.list(Kind::IpBlock, None).await.unwrap().items.into_iter();
    let stored = stored.filter_map(|resource| IpBlock::try_from(resource).ok());
    let owned: BTreeMap<_, _> = stored
        .filter_map(|block| Some((block.spec.cidr, block.spec.node?)))
        .collect();
    assert_eq!(owned, *beliefs.lock().unwrap());
    assert_eq!(owned.len(), NODES);
}
