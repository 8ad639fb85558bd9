//! A model of a node's kernel, as far as pods are wired by it: links, and the routes to them.
//!
//! It outlives the agent. The two tasks that own it in an agent, endpoint and route, are played here: requests come
//! through the agent's own channels, the route table is kept by the agent's own [`Reconciler`], and each change
//! can fail, or be the last that the agent does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_agent::ipam::Owned;
use manx_agent::{conntrack, convert, endpoint, policy, route};
use manx_ipam::Live;
use manx_linux::pod::Adopted;
use manx_linux::{Attached, Mac, PodLink};
use manx_routes::{Actual, Change, Found, Reconciler, Source, State, Target, Update};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::chance::Life;

/// Milliseconds that a change takes at most.
const SLOW: u64 = 40;

/// How long after a refusal the route table is read again.
const RETRY: Duration = Duration::from_secs(1);

/// A node's kernel. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel(Arc<Mutex<Tables>>);

/// What it holds.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// The node's ends of pods' links, by name.
    pub(crate) links: BTreeMap<String, Link>,
    /// Pods' network namespaces.
    pub(crate) netns: BTreeSet<PathBuf>,
    /// The main route table, by prefix.
    pub(crate) routes: BTreeMap<IpNetwork, Actual>,
    /// The last interface's index.
    index: u32,
}

/// A pod's link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) is: PodLink,
    /// False: whoever made it died over it.
    finished: bool,
}

impl Kernel {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }

    /// A pod's sandbox is made.
    pub(crate) fn add_netns(&self, path: &Path) {
        self.lock().netns.insert(path.to_owned());
    }

    /// A pod's sandbox goes, and its link with it.
    pub(crate) fn remove_netns(&self, path: &Path) {
        let mut tables = self.lock();
        tables.netns.remove(path);
        let of_pod = |(_, link): &(&String, &Link)| link.is.netns == path;
        let links: Vec<String> = tables
            .links
            .iter()
            .filter(of_pod)
            .map(|(name, _)| name.clone())
            .collect();
        links.iter().for_each(|name| tables.unlink(name));
    }

    /// The node restarts.
    pub(crate) fn reset(&self) {
        *self.lock() = Tables::default();
    }

    /// What an agent finds when it starts.
    pub(crate) fn survey(&self) -> Vec<Live<String>> {
        let tables = self.lock();
        let live = |(name, link): (&String, &Link)| Live {
            interface: name.clone(),
            addresses: tables.addresses_of(link.index),
        };
        tables.links.iter().map(live).collect()
    }
}

impl Tables {
    /// The addresses that are routed to a link.
    pub(crate) fn addresses_of(&self, index: u32) -> Vec<IpAddr> {
        let to_it = |route: &&Actual| route.target == Some(Target::Device(index));
        self.routes
            .values()
            .filter(to_it)
            .map(|route| route.prefix.ip())
            .collect()
    }

    fn unlink(&mut self, name: &str) {
        if let Some(link) = self.links.remove(name) {
            self.routes
                .retain(|_, route| route.target != Some(Target::Device(link.index)));
        }
    }

    /// The link as it is wanted; or none: it is made, and not configured yet.
    fn create(&mut self, wanted: &PodLink) -> manx_linux::Result<Option<Attached>> {
        if !self.netns.contains(&wanted.netns) {
            return Err(manx_linux::Error::NoNetns(wanted.netns.clone()));
        }
        if let Ok(attached) = self.check(wanted) {
            return Ok(Some(attached));
        }
        self.unlink(&wanted.host_ifname);
        self.index += 1;
        let link = Link {
            index: self.index,
            is: wanted.clone(),
            finished: false,
        };
        self.links.insert(wanted.host_ifname.clone(), link);
        Ok(None)
    }

    fn configure(&mut self, wanted: &PodLink) -> manx_linux::Result<Attached> {
        if let Some(link) = self.links.get_mut(&wanted.host_ifname) {
            link.finished = true;
        }
        self.check(wanted)
    }

    fn check(&self, wanted: &PodLink) -> manx_linux::Result<Attached> {
        match self.links.get(&wanted.host_ifname) {
            Some(link) if link.is == *wanted && link.finished => Ok(Attached {
                host_ifindex: link.index,
                host_mac: Mac([2, 0, 0, 0, 0, 1]),
                pod_ifindex: 2,
                pod_mac: Mac([2, 0, 0, 0, 0, 2]),
                netns_inode: 1,
                mtu: 1500,
            }),
            other => Err(manx_linux::Error::Broken(format!("{other:?}"))),
        }
    }

    fn differences(&self, wanted: &PodLink) -> Vec<String> {
        // The MAC is one that the kernel chose.
        let wanted = PodLink {
            mac: None,
            ..wanted.clone()
        };
        let checked = self
            .check(&wanted)
            .map(|link| self.addresses_of(link.host_ifindex));
        match checked {
            Ok(routed) => wanted
                .addresses
                .iter()
                .filter(|address| !routed.contains(address))
                .map(|address| format!("{address} is not routed"))
                .collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    fn change(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Add(route) if self.routes.contains_key(&route.prefix) => Err("it exists".to_owned()),
            Change::Add(route) | Change::Replace(route) => {
                if let Target::Device(index) = route.target
                    && !self
                        .links
                        .values()
                        .any(|link| link.index == index && link.finished)
                {
                    return Err("no such device, or it is down".to_owned());
                }
                let actual = Actual {
                    prefix: route.prefix,
                    target: Some(route.target.clone()),
                    protocol: route.source.protocol(),
                    metric: route.metric,
                };
                self.routes.insert(route.prefix, actual);
                Ok(())
            }
            Change::Delete { prefix, .. } => {
                let gone = self.routes.remove(prefix);
                gone.map(drop).ok_or_else(|| "no such route".to_owned())
            }
            Change::Put(_) | Change::Drop(_) => Err("there are no nexthop objects".to_owned()),
        }
    }
}

fn failure<T>(doing: &str) -> manx_linux::Result<T> {
    Err(manx_linux::Error::Os {
        doing: doing.to_owned(),
        source: io::Error::other("the kernel fails"),
    })
}

/// The endpoint task.
pub(crate) async fn serve_endpoints(
    life: Life,
    kernel: Kernel,
    mut requests: mpsc::Receiver<endpoint::Request>,
) {
    while let Some(request) = requests.recv().await {
        tokio::spawn(serve_endpoint(life.clone(), kernel.clone(), request));
    }
}

async fn serve_endpoint(life: Life, kernel: Kernel, request: endpoint::Request) {
    match request {
        endpoint::Request::Attach { link, reply } => {
            answer(reply, attach(&life, &kernel, &link).await);
        }
        endpoint::Request::Detach { host_ifname, reply } => {
            let what = format!("detach {host_ifname}");
            let gone = || {
                kernel.lock().unlink(&host_ifname);
                Ok(())
            };
            answer(
                reply,
                life.operation(&what, SLOW, gone, || failure("detach")).await,
            );
        }
        endpoint::Request::Check { link, reply, .. } => {
            let what = format!("check {}", link.host_ifname);
            let differences = || Ok(kernel.lock().differences(&link));
            answer(
                reply,
                life.operation(&what, SLOW, differences, || failure("check"))
                    .await,
            );
        }
        // There are no other networks here.
        endpoint::Request::Adopt { reply, .. } => answer(reply, Ok(Adopted::Absent)),
        endpoint::Request::Find { host_ifname, reply } => {
            let what = format!("find {host_ifname}");
            let found = |link: &Link| endpoint::Found {
                index: link.index,
                up: link.finished,
            };
            let find = || Ok(kernel.lock().links.get(&host_ifname).map(found));
            answer(reply, life.operation(&what, SLOW, find, || failure("find")).await);
        }
    }
}

async fn attach(life: &Life, kernel: &Kernel, link: &PodLink) -> manx_linux::Result<Attached> {
    let create = || kernel.lock().create(link);
    let what = format!("create {}", link.host_ifname);
    let created = life.operation(&what, SLOW, create, || failure("create")).await?;
    if let Some(attached) = created {
        return Ok(attached);
    }
    let configure = || kernel.lock().configure(link);
    let what = format!("configure {}", link.host_ifname);
    let configured = life
        .operation(&what, SLOW, configure, || failure("configure"))
        .await;
    if configured.is_err() {
        kernel.lock().unlink(&link.host_ifname);
    }
    configured
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Whoever asked may have died.
    drop(reply.send(value));
}

/// The route task's state in one life.
struct Routes {
    life: Life,
    kernel: Kernel,
    reconciler: Reconciler,
    /// The links that were there when it last looked.
    links: BTreeSet<u32>,
    blocks: BTreeSet<IpNetwork>,
}

/// The policy task: there are no policies.
pub(crate) fn open_gate(tasks: &mut JoinSet<()>) -> policy::Gate {
    let (sender, mut requests) = mpsc::channel(1);
    tasks.spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                policy::Request::Join(_, reply)
                | policy::Request::Leave { reply, .. }
                | policy::Request::Log(_, reply)
                | policy::Request::Look(reply) => answer(reply, Ok(())),
                policy::Request::Adopt(_)
                | policy::Request::Seek { .. }
                | policy::Request::Settle
                | policy::Request::Explain(..)
                | policy::Request::Name(..)
                | policy::Request::Staged(_)
                | policy::Request::Suppose(..) => {}
            }
        }
    });
    policy::Gate { requests: sender }
}

/// The conntrack task: these pods have none.
pub(crate) fn serve_conntrack(tasks: &mut JoinSet<()>) -> mpsc::Sender<conntrack::Forget> {
    let (sender, mut requests) = mpsc::channel::<conntrack::Forget>(1);
    tasks.spawn(async move {
        while let Some(request) = requests.recv().await {
            answer(request.reply, ());
        }
    });
    sender
}

/// The route task.
pub(crate) async fn serve_routes(
    life: Life,
    kernel: Kernel,
    mut commands: mpsc::Receiver<route::Command>,
    mut owned: watch::Receiver<Arc<Owned>>,
) {
    let found = kernel.found();
    let mut reconciler = Reconciler::new();
    reconciler.adopt(&found);
    reconciler.resync(&found);
    let links = kernel.indexes();
    let mut task = Routes {
        life,
        kernel,
        reconciler,
        links,
        blocks: BTreeSet::new(),
    };
    task.flush().await;
    loop {
        let failed = task.reconciler.has_failed();
        let command = tokio::select! {
            biased;
            Ok(()) = owned.changed() => None,
            command = commands.recv() => match command {
                Some(command) => Some(command),
                None => return,
            },
            () = tokio::time::sleep(RETRY), if failed => {
                task.reconciler.resync(&task.kernel.found());
                task.flush().await;
                None
            }
        };
        task.notice();
        task.cover(&owned.borrow_and_update().clone());
        task.serve(command).await;
    }
}

impl Kernel {
    fn found(&self) -> Found {
        Found {
            routes: self.lock().routes.values().cloned().collect(),
            nexthops: Vec::new(),
        }
    }

    fn indexes(&self) -> BTreeSet<u32> {
        self.lock().links.values().map(|link| link.index).collect()
    }
}

impl Routes {
    /// Hears of links that went.
    fn notice(&mut self) {
        let links = self.kernel.indexes();
        for gone in self.links.difference(&links) {
            self.reconciler.device_changed(*gone);
        }
        self.links = links;
    }

    fn cover(&mut self, owned: &Owned) {
        let blocks: BTreeSet<IpNetwork> = owned.blocks.clone();
        for prefix in self.blocks.difference(&blocks).copied() {
            let source = Source::Block;
            self.reconciler.apply(Update::Remove { prefix, source });
        }
        for block in blocks.difference(&self.blocks) {
            self.reconciler.apply(Update::Set(convert::block_route(*block)));
        }
        self.blocks = blocks;
    }

    async fn serve(&mut self, command: Option<route::Command>) {
        match command {
            None => self.flush().await,
            Some(route::Command::Settle(source)) => {
                self.reconciler.settle(source);
                self.flush().await;
            }
            Some(route::Command::Attach { routes, reply }) => {
                let prefixes: Vec<IpNetwork> = routes.iter().map(|route| route.prefix).collect();
                for route in routes {
                    self.reconciler.apply(Update::Set(route));
                }
                self.flush().await;
                let refusal = prefixes.iter().find_map(|prefix| self.refusal(*prefix));
                answer(reply, refusal.map_or(Ok(()), Err));
            }
            Some(route::Command::Detach { addresses, reply }) => {
                for address in addresses {
                    let (prefix, source) = (address.into(), Source::Pod);
                    self.reconciler.apply(Update::Remove { prefix, source });
                }
                self.flush().await;
                answer(reply, ());
            }
            Some(
                route::Command::Learned(_)
                | route::Command::Lost(_)
                | route::Command::Found(_)
                | route::Command::Show(_)
                | route::Command::Count(_),
            ) => panic!("nobody asks the model of a kernel for this"),
        }
    }

    fn refusal(&self, prefix: IpNetwork) -> Option<String> {
        match self.reconciler.state(prefix) {
            Some(State::Installed) => None,
            Some(State::Failed(refusal)) => Some(refusal),
            Some(State::Pending) | None => Some("it is lost".to_owned()),
        }
    }

    async fn flush(&mut self) {
        loop {
            let changes = self.reconciler.changes(usize::MAX);
            if changes.is_empty() {
                return;
            }
            self.make(changes).await;
        }
    }

    async fn make(&mut self, changes: Vec<Change>) {
        for change in changes {
            let what = change
                .prefix()
                .map_or_else(String::new, |prefix| format!("route {prefix}"));
            let effect = || self.kernel.lock().change(&change);
            let refusal = || Err("the kernel fails".to_owned());
            let outcome = self.life.operation(&what, SLOW / 8, effect, refusal).await;
            self.reconciler.committed(&change, outcome);
        }
    }
}
