//! The bgp task: owner of the speaker, which runs on a runtime of its own.
//!
//! It turns the view into sessions, owned blocks and services into announcements, and hands the speaker only what
//! differs from what it was told before. What the speaker selects goes to the route task.
//!
//! The speaker's own settings (AS, identifier, port) are not changed in flight: when they change, a new
//! speaker takes the old one's place, and forwarding stays as it is meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_api::operation::Operated;
use manx_api::status::{BgpExplanation, BgpRoute, PeerStatus, TableDump};
use manx_bgp::{PeerConfig, PeerKey, Prefix};
use manx_bgpd::operate::{Impossible, Operation, operate};
use manx_bgpd::{Event, Events, Handle, LinkKey, LinkPeer, Lost, Options, show};
use manx_routes::{Hop, Source, Update};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::announcing::Announced;
use crate::ask::answer;
use crate::convert;
use crate::convert::filter::Compiler;
use crate::identity::Identity;
use crate::ipam::Owned;
use crate::leaving::{self, Leaving};
use crate::metrics::{FaultLabels, Metrics};
use crate::peering::{self, MESH, Session};
use crate::ready::Guard;
use crate::route::Command;
use crate::secrets::Secrets;
use crate::services::is_services;
use crate::view::View;

/// How long a speaker that comes back waits for its peers' routes before it takes what it has for all.
/// Longer than a session takes to come back on a busy machine; shorter than the time that peers keep ours.
const DEFERRAL: Duration = Duration::from_secs(30);

/// How long sessions wait for blocks that the datastore gave this node before its life.
const RECOVERY: Duration = Duration::from_secs(10);

/// Pause before a port that cannot be listened on is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(1);

/// How long a changed secret may go unnoticed.
const SECRETS_PAUSE: Duration = Duration::from_secs(5);

/// Next hops per prefix, at most.
const MAX_PATHS: usize = 16;

/// A question to the bgp task.
#[derive(Debug)]
pub enum Question {
    /// How the sessions are.
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    /// Which paths there are.
    Routes(oneshot::Sender<Vec<BgpRoute>>),
    /// Why a prefix is reached as it is; nothing where there is no path to it.
    Explain(IpNetwork, oneshot::Sender<Option<BgpExplanation>>),
    /// Every path as a file.
    Dump(oneshot::Sender<TableDump>),
    /// Drain or reset sessions; answered with whose they are.
    Operate(Operation, oneshot::Sender<Result<Operated, Impossible>>),
    /// End all sessions, so that peers keep our routes; answered when it is done.
    Shutdown(oneshot::Sender<()>),
}

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Our blocks.
    pub owned: watch::Receiver<Arc<Owned>>,
    /// What we announce of services.
    pub services: watch::Receiver<Announced>,
    /// Whether the kernel held routes of ours when the agent started.
    pub adopted: bool,
    /// Questions.
    pub questions: mpsc::Receiver<Question>,
    /// The route task.
    pub routes: mpsc::Sender<Command>,
    /// The runtime that speakers run on.
    pub runtime: tokio::runtime::Handle,
    /// Where sessions' passwords are.
    pub secrets_dir: PathBuf,
    /// What is counted.
    pub metrics: Metrics,
    /// Done when the initial routes are in.
    pub converged: Guard,
}

/// What a speaker is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    asn: u32,
    cluster: Option<Ipv4Addr>,
    port: u16,
}

/// The speaker and what it was told.
struct Life {
    settings: Settings,
    handle: Handle,
    events: Events,
    peers: BTreeMap<PeerKey, PeerConfig>,
    link_peers: BTreeMap<LinkKey, LinkPeer>,
    origins: BTreeMap<IpAddr, String>,
    link_origins: BTreeMap<LinkKey, String>,
    originated: BTreeSet<IpNetwork>,
    /// Sessions of a mesh that is given up, which stay for now.
    leaving: Option<(BTreeSet<PeerKey>, Leaving)>,
    /// What this speaker has selected, and what the route task was told of it where it is used.
    selected: BTreeMap<IpNetwork, Update>,
    /// The cluster as the speaker was told of it.
    view: Arc<View>,
}

/// What the speaker is told from.
struct Sources {
    view: watch::Receiver<Arc<View>>,
    owned: watch::Receiver<Arc<Owned>>,
    services: watch::Receiver<Announced>,
}

impl Sources {
    /// Returns when any of them has changed.
    async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.view.changed() => {}
            Ok(()) = self.owned.changed() => {}
            Ok(()) = self.services.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// The cluster, and what this node announces of it.
    fn now(&mut self, node: &str) -> (Arc<View>, BTreeSet<IpNetwork>) {
        let view = self.view.borrow_and_update().clone();
        let mut announced = self.owned.borrow_and_update().exported(&view, node);
        announced.extend(self.services.borrow_and_update().iter().flat_map(|it| it.iter()));
        (view, announced)
    }
}

struct Task {
    identity: Arc<Identity>,
    routes: mpsc::Sender<Command>,
    runtime: tokio::runtime::Handle,
    metrics: Metrics,
    converged: Option<Guard>,
    established: BTreeSet<PeerKey>,
    /// Peers whose path BFD sees up.
    watched_up: BTreeSet<PeerKey>,
    /// Routers that went with their peers' sessions, until what follows from that is known.
    lost: BTreeMap<PeerKey, Vec<Hop>>,
    /// What an earlier speaker of this process selected and its successor has not confirmed.
    unconfirmed: BTreeSet<IpNetwork>,
    secrets: Secrets,
}

/// Runs until told to shut down.
pub async fn run(inbox: Inbox) {
    let Inbox {
        identity,
        view,
        owned,
        services,
        adopted,
        mut questions,
        routes,
        runtime,
        secrets_dir,
        metrics,
        converged,
    } = inbox;
    let mut task = Task {
        identity,
        routes,
        runtime,
        metrics,
        converged: Some(converged),
        established: BTreeSet::new(),
        watched_up: BTreeSet::new(),
        lost: BTreeMap::new(),
        unconfirmed: BTreeSet::new(),
        secrets: Secrets::new(secrets_dir),
    };
    let mut restarted = adopted;
    let mut sources = Sources {
        view,
        owned,
        services,
    };
    while let Some(settings) = task.settings(&mut sources).await {
        let mut life = task.start(settings, restarted).await;
        let end = task.live(&mut life, &mut sources, &mut questions).await;
        task.unconfirmed.extend(life.selected.into_keys());
        task.established.clear();
        task.watched_up.clear();
        let lost = std::mem::take(&mut task.lost);
        task.send(Command::Found(lost.into_values().flatten().collect()))
            .await;
        life.handle.shutdown().await;
        if let End::Shutdown(done) = end {
            answer(done, ());
            return;
        }
        restarted = true;
    }
}

/// Why a speaker's life ended.
enum End {
    /// The agent ends.
    Shutdown(oneshot::Sender<()>),
    /// Its settings changed, or it failed.
    Restart,
}

impl Task {
    /// The speaker's settings, once the node is known and all that it announces; none when the agent ends. Peers that kept
    /// routes of ours forget, with the first End-of-RIB, what was not announced again.
    async fn settings(&self, sources: &mut Sources) -> Option<Settings> {
        sources.services.wait_for(Option::is_some).await.ok()?;
        let name = &self.identity.name;
        let known = |view: &Arc<View>| settings(view, name).is_some();
        let settings = settings(&*sources.view.wait_for(known).await.ok()?, name);
        match timeout(RECOVERY, sources.owned.wait_for(|owned| owned.recovered)).await {
            Ok(recovered) => drop(recovered.ok()?),
            Err(_) => tracing::warn!(
                "sessions begin before this node has its blocks back: the datastore takes no writes"
            ),
        }
        settings
    }

    /// A new speaker, without peers. A port that is taken is tried again for as long as it takes.
    async fn start(&self, settings: Settings, restarted: bool) -> Life {
        let options = Options {
            config: self.config(settings, restarted),
            listen: self.listen(settings.port),
        };
        loop {
            let _on_runtime = self.runtime.enter();
            match manx_bgpd::start(options.clone()) {
                Ok((handle, events)) => {
                    tracing::info!(
                        asn = settings.asn,
                        port = settings.port,
                        restarted,
                        "speaker started"
                    );
                    return Life {
                        settings,
                        handle,
                        events,
                        peers: BTreeMap::new(),
                        link_peers: BTreeMap::new(),
                        origins: BTreeMap::new(),
                        link_origins: BTreeMap::new(),
                        originated: BTreeSet::new(),
                        leaving: None,
                        selected: BTreeMap::new(),
                        view: Arc::default(),
                    };
                }
                Err(error) => tracing::warn!(%error, "cannot listen for BGP; trying again"),
            }
            drop(_on_runtime);
            sleep(BIND_PAUSE).await;
        }
    }

    fn config(&self, settings: Settings, restarted: bool) -> manx_bgp::Config {
        manx_bgp::Config {
            asn: settings.asn,
            router_id: self.identity.router_id,
            cluster_id: settings.cluster,
            restarted,
            deferral: DEFERRAL,
            farewell: format!("manxd on {} stops", self.identity.name),
            interfaces: [].into(),
            seed: rand::random(),
            max_paths: MAX_PATHS,
        }
    }

    /// Every address of the families that the node has; of IPv6 wherever the kernel does, for peers on links.
    fn listen(&self, port: u16) -> Vec<SocketAddr> {
        let v4 = self
            .identity
            .ipv4
            .map(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        let v6 = Path::new("/proc/net/if_inet6")
            .exists()
            .then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        v4.into_iter().chain(v6).collect()
    }

    async fn live(
        &mut self,
        life: &mut Life,
        sources: &mut Sources,
        questions: &mut mpsc::Receiver<Question>,
    ) -> End {
        let mut looks = interval(leaving::PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh = interval(SECRETS_PAUSE);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stale = true;
        loop {
            if std::mem::take(&mut stale) {
                let (view, announced) = sources.now(&self.identity.name);
                match settings(&view, &self.identity.name) {
                    Some(settings) if settings == life.settings => {
                        self.tell(life, &view, announced).await;
                        self.sort(life, view).await;
                    }
                    // Our Node resource is gone or has lost its BGP side: keep the sessions until it says otherwise.
                    None => {}
                    Some(_) => return End::Restart,
                }
            }
            tokio::select! {
                () = sources.changed() => stale = true,
                _ = looks.tick(), if life.leaving.is_some() => {
                    look(life).await;
                    stale = true;
                }
                _ = refresh.tick(), if !self.secrets.is_empty() => stale = self.secrets.refresh(),
                event = life.events.next() => match event {
                    Some(event) => self.event(life, event).await,
                    None => {
                        tracing::error!("the speaker has stopped; starting another");
                        return End::Restart;
                    }
                },
                question = questions.recv() => match question {
                    Some(Question::Peers(reply)) => answer(reply, self.peers(life).await),
                    Some(Question::Routes(reply)) => answer(reply, self.paths(life).await),
                    Some(Question::Explain(prefix, reply)) => {
                        let name = &self.identity.name;
                        answer(reply, show::explain(&life.handle, name, Prefix::new(prefix)).await);
                    }
                    Some(Question::Operate(it, reply)) => answer(reply, operate(&life.handle, it).await),
                    Some(Question::Dump(reply)) => {
                        let asn = life.settings.asn;
                        answer(reply, show::dump(&life.handle, self.identity.router_id, asn).await);
                    }
                    Some(Question::Shutdown(done)) => return End::Shutdown(done),
                    None => return End::Shutdown(oneshot::channel().0),
                },
            }
        }
    }

    /// Tells the speaker what differs from what it was told before.
    async fn tell(&mut self, life: &mut Life, view: &View, originated: BTreeSet<IpNetwork>) {
        let sessions = peering::sessions(view, &self.identity.name);
        let within: Arc<[Prefix]> = peering::accepted(view).into_iter().map(Prefix::new).collect();
        let mut compiler = Compiler::new(&view.filters, within);
        let secrets = &mut self.secrets;
        let mut config = |session: &Session| {
            let password = session.password.as_ref().map(|it| secrets.password(it));
            let policies = compiler.policies(&session.filters);
            convert::peer_config(session, &self.identity, policies, password)
        };
        let on_links = peering::link_sessions(view, &self.identity.name);
        let link_peers = on_links
            .iter()
            .map(|(key, session)| {
                let (key, config) = (key.clone(), config(session));
                (key.clone(), LinkPeer { key, config })
            })
            .collect();
        let mut peers: BTreeMap<_, _> = sessions
            .values()
            .map(&mut config)
            .map(|peer| (peer.key, peer))
            .collect();
        keep_leaving(life, view, &mut peers);
        for gone in life.peers.keys().filter(|key| !peers.contains_key(key)) {
            life.handle.remove_peer(*gone).await;
        }
        for (key, peer) in &peers {
            if life.peers.get(key) != Some(peer) {
                life.handle.set_peer(peer.clone()).await;
            }
        }
        tell_of_links(life, link_peers).await;
        for gone in life.originated.difference(&originated) {
            life.handle.unoriginate(Prefix::new(*gone)).await;
        }
        for new in originated.difference(&life.originated) {
            life.handle.originate(Prefix::new(*new)).await;
        }
        let peers_on_links = life.link_peers.values().map(|peer| &peer.config);
        self.count(peers.values().chain(peers_on_links));
        // Who goes from a link says so himself.
        self.established
            .retain(|peer| peer.scope != 0 || peers.contains_key(peer));
        life.peers = peers;
        life.originated = originated;
        let leaving = life.leaving.iter().flat_map(|(leaving, _)| leaving);
        let leaving = leaving.map(|peer| (peer.address, MESH.to_owned()));
        let origins = sessions
            .into_iter()
            .map(|(address, session)| (address, session.origin));
        life.origins = origins.chain(leaving).collect();
        let on_links = on_links.into_iter().map(|(key, session)| (key, session.origin));
        life.link_origins = on_links.collect();
    }

    /// Has routes used that are no longer services', and those no longer that have become so.
    async fn sort(&self, life: &mut Life, view: Arc<View>) {
        let before = std::mem::replace(&mut life.view, view);
        let ranges = |view: &View| {
            let pools: BTreeSet<IpNetwork> = view.pools.values().map(|pool| pool.spec.cidr).collect();
            (view.configuration.all_service_ranges().collect::<Vec<_>>(), pools)
        };
        if ranges(&before) == ranges(&life.view) {
            return;
        }
        let sorted = life.selected.iter();
        let changed =
            sorted.filter(|(prefix, _)| is_services(&before, **prefix) != is_services(&life.view, **prefix));
        let updates = changed.map(|(prefix, update)| used(&life.view, *prefix, update.clone()));
        let updates = updates.collect();
        self.send(Command::Learned(updates)).await;
    }

    /// Counts the configured peers.
    fn count<'a>(&mut self, peers: impl Iterator<Item = &'a PeerConfig> + Clone) {
        let configured = peers.clone().count();
        set(&self.metrics.peers, configured);
        let watched = peers.filter(|peer| peer.bfd.is_some()).count();
        set(&self.metrics.bfd_sessions, watched);
        if configured == 0
            && let Some(guard) = self.converged.take()
        {
            // Nobody has routes to tell us.
            guard.done();
        }
    }

    async fn event(&mut self, life: &mut Life, event: Event) {
        match event {
            Event::Selected(changes) => {
                let updates = changes.iter().map(|(prefix, choice)| {
                    let (prefix, update) = (prefix.network(), convert::learned(*prefix, choice));
                    if choice.next_hops.is_empty() {
                        life.selected.remove(&prefix);
                    } else {
                        life.selected.insert(prefix, update.clone());
                    }
                    used(&life.view, prefix, update)
                });
                let updates = updates.collect();
                self.send(Command::Learned(updates)).await;
            }
            Event::Converged => {
                tracing::info!(routes = life.selected.len(), "initial routes are in");
                let gone = std::mem::take(&mut self.unconfirmed);
                let gone = gone
                    .into_iter()
                    .filter(|prefix| !life.selected.contains_key(prefix));
                self.send(Command::Learned(gone.map(unused).collect())).await;
                self.send(Command::Settle(Source::Bgp)).await;
                if let Some(guard) = self.converged.take() {
                    guard.done();
                }
            }
            Event::Lost(Lost { peer, routers }) => {
                let routers: Vec<Hop> = routers.iter().map(convert::router).collect();
                self.lost.entry(peer).or_default().extend(&routers);
                self.send(Command::Lost(routers)).await;
            }
            Event::Session { peer, up, reason } => {
                self.session(peer, up, reason.as_deref());
                if let Some(routers) = self.lost.remove(&peer) {
                    self.send(Command::Found(routers)).await;
                }
            }
            Event::Bfd { peer, up } => {
                if up {
                    self.watched_up.insert(peer);
                } else {
                    self.watched_up.remove(&peer);
                }
                set(&self.metrics.bfd_sessions_up, self.watched_up.len());
            }
            Event::Faults(faults) => {
                for (action, count) in faults {
                    let counter = self.metrics.update_faults.get_or_create(&FaultLabels::of(action));
                    counter.inc_by(count);
                }
            }
        }
    }

    fn session(&mut self, peer: PeerKey, up: bool, reason: Option<&str>) {
        if up {
            tracing::info!(%peer, "session up");
            self.established.insert(peer);
            self.metrics.sessions_up.inc();
        } else {
            tracing::warn!(%peer, reason, "session down");
            self.established.remove(&peer);
            self.metrics.sessions_down.inc();
        }
        set(&self.metrics.peers_established, self.established.len());
    }

    async fn send(&self, command: Command) {
        if self.routes.send(command).await.is_err() {
            tracing::debug!("the route task has ended");
        }
    }

    async fn peers(&self, life: &Life) -> Vec<PeerStatus> {
        let origin = |address, link: Option<&LinkKey>| {
            let origin = match link {
                Some(link) => life.link_origins.get(link),
                None => life.origins.get(&address),
            };
            origin.map_or("", String::as_str)
        };
        show::peers(&life.handle, &self.identity.name, origin).await
    }

    async fn paths(&self, life: &Life) -> Vec<BgpRoute> {
        show::paths(&life.handle, &self.identity.name).await
    }
}

/// What the route task is told of a selected route: services' are for others.
fn used(view: &View, prefix: IpNetwork, update: Update) -> Update {
    if is_services(view, prefix) {
        unused(prefix)
    } else {
        update
    }
}

fn unused(prefix: IpNetwork) -> Update {
    Update::Remove {
        prefix,
        source: Source::Bgp,
    }
}

/// Tells the speaker which peers are on links, as far as that differs from what it was told before.
async fn tell_of_links(life: &mut Life, peers: BTreeMap<LinkKey, LinkPeer>) {
    for gone in life.link_peers.keys().filter(|key| !peers.contains_key(key)) {
        life.handle.remove_link_peer(gone.clone()).await;
    }
    for (key, peer) in &peers {
        if life.link_peers.get(key) != Some(peer) {
            life.handle.set_link_peer(peer.clone()).await;
        }
    }
    life.link_peers = peers;
}

/// Adds to the peers those of the mesh that are no longer wanted and may not go yet.
fn keep_leaving(life: &mut Life, view: &View, peers: &mut BTreeMap<PeerKey, PeerConfig>) {
    let of_mesh = |peer: &PeerKey| {
        life.origins
            .get(&peer.address)
            .is_some_and(|origin| origin == MESH)
    };
    // A node that is gone takes its session with it; a node without any other session wants none.
    let unwanted = |peer: &&PeerKey| !peers.contains_key(peer) && peering::is_node(view, peer.address);
    let gone: BTreeSet<PeerKey> = life
        .peers
        .keys()
        .filter(unwanted)
        .copied()
        .filter(of_mesh)
        .collect();
    let state = life.leaving.take().map(|(_, state)| state);
    let now = Instant::now();
    let state = state.unwrap_or_else(|| Leaving::new(now));
    if gone.is_empty() || peers.is_empty() || state.is_over(now) {
        return;
    }
    let kept = life.peers.iter().filter(|(peer, _)| gone.contains(peer));
    peers.extend(kept.map(|(peer, config)| (*peer, config.clone())));
    life.leaving = Some((gone, state));
}

/// Looks whether sessions that are to go have been replaced.
async fn look(life: &mut Life) {
    let (peers, paths) = (life.handle.peers().await, life.handle.paths().await);
    if let Some((leaving, state)) = &mut life.leaving {
        state.look(Instant::now(), leaving, &peers, &paths);
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// What the resources say of the speaker itself; none while they do not know the node.
fn settings(view: &View, name: &str) -> Option<Settings> {
    let bgp = view.nodes.get(name)?.spec.bgp.as_ref()?;
    Some(Settings {
        asn: peering::asn(view, bgp),
        cluster: bgp.route_reflector_cluster_id,
        port: view.configuration.listen_port,
    })
}
