//! A lab that runs: up, down, its pods, commands in it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_linux::Netns;
use manx_store::SqliteStore;
use serde::Serialize;

use crate::error::{LabError, Result};
use crate::layout::{BASE, Layout, netns_path};
use crate::options::{Name, Options};
use crate::plan::{Plan, Role};
use crate::pods::Traits;
use crate::progress::Progress;
use crate::state::{Lock, Phase, Pod, Started, State};
use crate::{build, pods, process, wait};

/// How long CNI ADD is tried while the agent says "later".
const ADD_TIMEOUT: Duration = Duration::from_secs(20);
const ADD_INTERVAL: Duration = Duration::from_millis(100);
/// The length of a Kubernetes name, at most.
const MAX_POD_NAME: usize = 63;

/// How labs are made on this machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of all labs.
    pub base: PathBuf,
    /// Where `manxd`, `manx-bgpd` and the plugin `manx` are.
    pub bin_dir: PathBuf,
    /// How long to wait for agents, sessions and routes, each.
    pub timeout: Duration,
}

impl Settings {
    /// The usual folder, and our programs beside the running one.
    ///
    /// # Errors
    /// When the running program's own path is unknown.
    pub fn usual() -> io::Result<Self> {
        let program = std::env::current_exe()?.canonicalize()?;
        let bin_dir = program.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self {
            base: BASE.into(),
            bin_dir,
            timeout: Duration::from_secs(60),
        })
    }
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    state: State,
}

/// What `manxctl lab status -o json` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    /// The lab's name.
    pub name: String,
    /// The nodes.
    pub nodes: Vec<NodeView>,
    /// Routers and reflectors.
    pub routers: Vec<RouterView>,
    /// The pods.
    pub pods: Vec<Pod>,
}

/// A node, as scripts see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its network namespace, a name for `ip netns exec`.
    pub netns: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its AS.
    pub asn: Option<u32>,
    /// The control socket of its agent.
    pub socket: PathBuf,
    /// Whether its agent's process is there.
    pub running: bool,
    /// Where a container runtime finds the network's configuration.
    pub cni_conf_dir: PathBuf,
    /// Where a container runtime finds the plugin.
    pub cni_bin_dir: PathBuf,
}

/// A router or reflector, as scripts see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterView {
    /// Its name.
    pub name: String,
    /// Its network namespace, a name for `ip netns exec`.
    pub netns: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its AS.
    pub asn: Option<u32>,
    /// What it runs.
    pub software: String,
    /// Whether all its processes are there.
    pub running: bool,
}

/// The labs that are there, up or not.
#[must_use]
pub fn names(base: &Path) -> Vec<Name> {
    let Ok(folder) = fs::read_dir(base) else {
        return Vec::new();
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let mut names: Vec<Name> = folder.filter_map(name).collect();
    names.sort();
    names
}

impl Lab {
    /// Makes a lab and waits until it is whole. What an earlier attempt left behind is removed first; when
    /// this one fails or is interrupted, it removes what it made.
    ///
    /// # Errors
    /// When there can be no such lab, when it is up already, and when something does not come up in time.
    pub fn up(options: &Options, settings: &Settings, progress: &Progress) -> Result<Self> {
        let plan = Plan::new(options, &settings.base)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        build::programs(&plan, &settings.bin_dir)?;
        let _lock = Lock::take(&plan.layout, &options.name)?;
        if let Some(state) = State::load(&plan.layout)? {
            if state.phase == Phase::Up && state.processes.iter().any(process::is_alive) {
                return Err(LabError::Running(options.name.clone()));
            }
            remove(&plan.layout, &state)?;
            fs::create_dir_all(plan.layout.root()).map_err(LabError::file("make", plan.layout.root()))?;
            progress.done("removed what an earlier attempt left behind");
        }
        let namespaces = plan.hosts.iter().map(|host| host.netns.clone()).collect();
        let mut lab = Self {
            state: State::new(options, namespaces),
            plan,
        };
        let made = lab.make(settings, progress);
        if made.is_err() {
            progress.doing("taking down what was made");
            remove(&lab.plan.layout, &lab.state)?;
        }
        progress.finish();
        made.map(|()| lab)
    }

    fn make(&mut self, settings: &Settings, progress: &Progress) -> Result<()> {
        let runtime = runtime()?;
        self.save()?;
        progress.doing("namespaces and links");
        build::network(&self.plan)?;
        build::files(&self.plan, &settings.bin_dir)?;
        runtime.block_on(build::resources(&self.plan))?;
        progress.done(&format!("{} machines with their links", self.plan.hosts.len()));
        progress.check()?;
        self.start_processes(settings, progress)?;
        wait::for_agents(&self.plan, &self.state, settings.timeout, progress)?;
        self.add_planned_pods(progress)?;
        wait::for_sessions(&self.plan, &self.state, settings.timeout, progress)?;
        let store = runtime.block_on(SqliteStore::open(&self.plan.layout.store()))?;
        wait::for_routes(
            &self.plan,
            &self.state,
            (&runtime, &store),
            settings.timeout,
            progress,
        )?;
        self.state.phase = Phase::Up;
        self.save()
    }

    fn save(&self) -> Result<()> {
        self.state.save(&self.plan.layout)
    }

    fn start_processes(&mut self, settings: &Settings, progress: &Progress) -> Result<()> {
        for host in &self.plan.hosts {
            for process in &host.processes {
                progress.doing(&format!("starting {} of {}", process.name, host.name));
                progress.check()?;
                let started = build::start(&self.plan.layout, host, process, &settings.bin_dir)?;
                self.state.processes.push(started);
                self.state.save(&self.plan.layout)?;
            }
        }
        progress.done(&format!("{} processes", self.state.processes.len()));
        Ok(())
    }

    fn add_planned_pods(&mut self, progress: &Progress) -> Result<()> {
        let all = self.plan.pods.len();
        for (index, pod) in self.plan.pods.clone().iter().enumerate() {
            progress.doing(&format!("pods: {index} of {all}"));
            progress.check()?;
            self.attach(&pod.namespace, &pod.name, &pod.node, Traits::default(), progress)?;
        }
        progress.done(&format!("pods: {all} of {all}"));
        Ok(())
    }

    /// The lab of this name.
    ///
    /// # Errors
    /// [`LabError::NotRunning`] with the labs that are there.
    pub fn open(base: &Path, name: &Name) -> Result<Self> {
        let layout = Layout::new(base, name);
        match State::load(&layout)? {
            Some(state) => Ok(Self {
                plan: Plan::new(&state.options, base)?,
                state,
            }),
            None => Err(LabError::NotRunning {
                name: name.clone(),
                others: names(base),
            }),
        }
    }

    /// Removes a lab: its processes, namespaces and files.
    ///
    /// # Errors
    /// [`LabError::NotRunning`] when there is none, and when something cannot be removed.
    pub fn down(base: &Path, name: &Name) -> Result<()> {
        let layout = Layout::new(base, name);
        if !layout.root().exists() {
            return Err(LabError::NotRunning {
                name: name.clone(),
                others: names(base),
            });
        }
        let _lock = Lock::take(&layout, name)?;
        match State::load(&layout)? {
            Some(state) => remove(&layout, &state),
            None => remove_files(&layout),
        }
    }

    /// The lab as a value.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The pods.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.state.pods
    }

    /// The processes that were started.
    #[must_use]
    pub fn processes(&self) -> &[Started] {
        &self.state.processes
    }

    /// What there is, for scripts.
    #[must_use]
    pub fn status(&self) -> LabStatus {
        let layout = &self.plan.layout;
        let addresses =
            |networks: &mut dyn Iterator<Item = IpNetwork>| networks.map(|network| network.ip()).collect();
        let mut status = LabStatus {
            name: self.plan.options.name.to_string(),
            nodes: Vec::new(),
            routers: Vec::new(),
            pods: self.state.pods.clone(),
        };
        for host in &self.plan.hosts {
            let (name, netns, asn) = (host.name.clone(), host.netns.clone(), host.asn);
            let running = self
                .state
                .processes
                .iter()
                .filter(|p| p.host == name)
                .all(process::is_alive);
            let router = |software: String| RouterView {
                name: name.clone(),
                netns: netns.clone(),
                addresses: addresses(&mut host.addresses()),
                asn,
                software,
                running,
            };
            match host.role {
                Role::Fabric => {}
                Role::Router(software) => status.routers.push(router(software.to_string())),
                Role::Reflector => status.routers.push(router("manx-bgpd".to_owned())),
                Role::Node => status.nodes.push(NodeView {
                    socket: layout.socket(&name),
                    cni_conf_dir: layout.cni_conf_dir(&name),
                    cni_bin_dir: layout.cni_bin_dir(&name),
                    addresses: addresses(&mut host.addresses()),
                    name,
                    netns,
                    asn,
                    running,
                }),
            }
        }
        status
    }

    /// Starts a host's processes, those that run being ended first; the kernel's side of the host stays as it
    /// is. Logs go on.
    ///
    /// # Errors
    /// [`LabError::NoHost`], or when a process cannot be started.
    pub fn restart(&mut self, host: &str, settings: &Settings) -> Result<()> {
        let _lock = Lock::take(&self.plan.layout, &self.plan.options.name)?;
        self.reload()?;
        let planned = self.host(host)?;
        let of_host = |process: &Started| process.host == host;
        let old: Vec<Started> = self
            .state
            .processes
            .iter()
            .filter(|process| of_host(process))
            .cloned()
            .collect();
        process::stop(&old);
        let mut processes: Vec<Started> = self
            .state
            .processes
            .iter()
            .filter(|process| !of_host(process))
            .cloned()
            .collect();
        for process in &planned.processes {
            processes.push(build::start(
                &self.plan.layout,
                planned,
                process,
                &settings.bin_dir,
            )?);
        }
        self.state.processes = processes;
        self.save()
    }

    /// Adds a pod.
    ///
    /// # Errors
    /// When the name is no name or taken, when there is no such node, and when CNI ADD fails: then nothing
    /// of the pod is left.
    pub fn add_pod(
        &mut self,
        namespace: &str,
        name: &str,
        node: &str,
        traits: Traits,
        progress: &Progress,
    ) -> Result<&Pod> {
        let _lock = Lock::take(&self.plan.layout, &self.plan.options.name)?;
        self.reload()?;
        self.attach(namespace, name, node, traits, progress)?;
        self.pod(namespace, name)
    }

    fn attach(
        &mut self,
        namespace: &str,
        name: &str,
        node: &str,
        traits: Traits,
        progress: &Progress,
    ) -> Result<()> {
        for text in [namespace, name] {
            check_name(text)?;
        }
        if self.pod(namespace, name).is_ok() {
            return Err(LabError::PodExists {
                pod: format!("{namespace}/{name}"),
            });
        }
        let node_netns = self.node(node)?;
        let pod = Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            netns: self.plan.pod_netns(namespace, name),
            container_id: pods::container_id()?,
            addresses: Vec::new(),
            annotations: traits.annotations,
            labels: traits.labels,
        };
        self.state.pods.push(pod.clone());
        self.save()?;
        let added =
            pods::create(&pod).and_then(|()| add_patiently(&self.plan.layout, &node_netns, &pod, progress));
        match added {
            Ok(addresses) => {
                self.state
                    .pods
                    .iter_mut()
                    .filter(|known| known.netns == pod.netns)
                    .for_each(|known| known.addresses.clone_from(&addresses));
                self.save()
            }
            Err(error) => {
                Netns::delete(netns_path(&pod.netns))
                    .map_err(LabError::kernel(format!("delete namespace {}", pod.netns)))?;
                self.state.pods.retain(|known| known.netns != pod.netns);
                self.save()?;
                Err(error)
            }
        }
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// [`LabError::NoPod`], or when CNI DEL fails: then the pod is still there.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) -> Result<()> {
        let _lock = Lock::take(&self.plan.layout, &self.plan.options.name)?;
        self.reload()?;
        let pod = self.pod(namespace, name)?.clone();
        pods::delete(&self.plan.layout, &self.node(&pod.node)?, &pod)?;
        self.state.pods.retain(|known| *known != pod);
        self.save()
    }

    /// The pod of this name.
    ///
    /// # Errors
    /// [`LabError::NoPod`].
    pub fn pod(&self, namespace: &str, name: &str) -> Result<&Pod> {
        let found = self
            .state
            .pods
            .iter()
            .find(|pod| pod.namespace == namespace && pod.name == name);
        found.ok_or_else(|| LabError::NoPod {
            pod: format!("{namespace}/{name}"),
        })
    }

    /// A command that will run in the namespace of a node, a router or the fabric.
    ///
    /// # Errors
    /// [`LabError::NoHost`] with the hosts that there are.
    pub fn command_on(&self, host: &str, program: impl AsRef<OsStr>) -> Result<Command> {
        command(&self.host(host)?.netns, program)
    }

    /// A command that will run in a pod's namespace.
    ///
    /// # Errors
    /// [`LabError::NoPod`].
    pub fn command_in(&self, namespace: &str, pod: &str, program: impl AsRef<OsStr>) -> Result<Command> {
        command(&self.pod(namespace, pod)?.netns, program)
    }

    /// Other processes may have added pods since this one looked.
    fn reload(&mut self) -> Result<()> {
        let name = &self.plan.options.name;
        let gone = || LabError::NotRunning {
            name: name.clone(),
            others: Vec::new(),
        };
        self.state = State::load(&self.plan.layout)?.ok_or_else(gone)?;
        Ok(())
    }

    fn host(&self, name: &str) -> Result<&crate::plan::Host> {
        self.plan.host_named(name).ok_or_else(|| LabError::NoHost {
            name: name.to_owned(),
            known: self.plan.hosts.iter().map(|host| host.name.clone()).collect(),
        })
    }

    /// The namespace of a node.
    fn node(&self, name: &str) -> Result<String> {
        let node = self
            .plan
            .nodes()
            .find(|node| node.name == name)
            .ok_or_else(|| LabError::NoHost {
                name: name.to_owned(),
                known: self.plan.nodes().map(|node| node.name.clone()).collect(),
            })?;
        Ok(node.netns.clone())
    }
}

fn command(netns: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let netns = Netns::open(netns_path(netns)).map_err(LabError::kernel(format!("enter {netns}")))?;
    Ok(netns.command(program))
}

/// CNI ADD as a runtime does it: again while the plugin says "later".
fn add_patiently(layout: &Layout, node_netns: &str, pod: &Pod, progress: &Progress) -> Result<Vec<IpAddr>> {
    let deadline = Instant::now() + ADD_TIMEOUT;
    loop {
        progress.check()?;
        match pods::add(layout, node_netns, pod) {
            Err(error) if error.is_temporary() && Instant::now() < deadline => {
                std::thread::sleep(ADD_INTERVAL)
            }
            other => return other,
        }
    }
}

fn check_name(text: &str) -> Result<()> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let right = !text.is_empty() && text.len() <= MAX_POD_NAME && text.chars().all(inner);
    if right && !text.starts_with('-') && !text.ends_with('-') {
        Ok(())
    } else {
        Err(LabError::PodName(text.to_owned()))
    }
}

fn remove(layout: &Layout, state: &State) -> Result<()> {
    let pods = state.pods.iter().map(|pod| pod.netns.clone());
    let namespaces: Vec<String> = state.namespaces.iter().cloned().chain(pods).collect();
    process::stop_all(&state.processes, &namespaces);
    for netns in &namespaces {
        Netns::delete(netns_path(netns)).map_err(LabError::kernel(format!("delete namespace {netns}")))?;
    }
    remove_files(layout)
}

fn remove_files(layout: &Layout) -> Result<()> {
    fs::remove_dir_all(layout.root()).map_err(LabError::file("remove", layout.root()))?;
    // The folder of all labs goes with the last one.
    if let Some(base) = layout.root().parent() {
        fs::remove_dir(base).ok();
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.map_err(LabError::file("start a runtime for", Path::new("the datastore")))
}
