//! Which cluster a command is about: this machine's, or a lab's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use manx_api::rpc::Method;
use manx_lab::{Lab, LabError, Name, Settings};
use manx_store::{AnyStore, KubeOptions, KubeStore, SqliteStore};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::TargetArgs;
use crate::error::{CtlError, Result};

/// Where a node keeps its datastore.
const STORE: &str = "/var/lib/manx/store.db";
/// Where a node's agent listens.
const SOCKET: &str = "/run/manx/manxd.sock";
/// What Kubernetes sets in the environment of its pods: there, the cluster is the datastore.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// How long nothing is said while agents think.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a lab is called when nobody says.
const LAB: &str = "manx";

/// Where to look, with what the user said.
#[derive(Debug)]
pub(crate) struct Target {
    args: TargetArgs,
    settings: Settings,
}

/// An agent that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Its node; none when only the socket is known.
    pub(crate) node: Option<String>,
    /// Its control socket.
    pub(crate) socket: PathBuf,
}

impl Target {
    /// What the user said.
    pub(crate) fn new(args: TargetArgs) -> Result<Self> {
        let settings = Settings::usual().map_err(CtlError::Start)?;
        Ok(Self { args, settings })
    }

    /// What any one agent says: the first that answers, where all know the same.
    pub(crate) fn ask_any<T: DeserializeOwned>(&self, method: Method, params: &Value) -> Result<T> {
        self.ask_any_of(&[], method, params)
    }

    /// The same of these nodes' agents; of all, if none is named.
    pub(crate) fn ask_any_of<T: DeserializeOwned>(
        &self,
        nodes: &[String],
        method: Method,
        params: &Value,
    ) -> Result<T> {
        self.first_answer(nodes, |agent| ask_with(&agent.socket, method, params.clone()))
    }

    /// The same, of agents that may think for so long. Whoever waits for more than a second is told so on standard error.
    pub(crate) fn ask_any_within<T: DeserializeOwned>(
        &self,
        patience: Duration,
        method: Method,
        params: &Value,
    ) -> Result<T> {
        self.first_answer(&[], |agent| {
            let ask = || manx_lab::ask_within(&agent.socket, method, params.clone(), patience);
            Ok(told_meanwhile(&agent.label(), ask)?)
        })
    }

    fn first_answer<T>(&self, nodes: &[String], ask: impl Fn(&Agent) -> Result<T>) -> Result<T> {
        let mut refused = None;
        for agent in self.agents(nodes)? {
            match ask(&agent) {
                Ok(found) => return Ok(found),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(CtlError::Nobody))
    }

    /// How labs are made here.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The lab's name for the verbs of `manxctl lab`.
    pub(crate) fn lab_name(&self) -> Result<Name> {
        match &self.args.lab {
            Some(name) => Ok(name.clone()),
            None => Ok(LAB.parse().map_err(LabError::from)?),
        }
    }

    /// The lab, for the verbs of `manxctl lab`.
    pub(crate) fn lab(&self) -> Result<Lab> {
        Ok(Lab::open(&self.settings.base, &self.lab_name()?)?)
    }

    /// The lab that the user named for a command that is not about labs.
    fn named_lab(&self) -> Result<Option<Lab>> {
        let open = |name| Lab::open(&self.settings.base, name);
        Ok(self.args.lab.as_ref().map(open).transpose()?)
    }

    /// The datastore.
    pub(crate) async fn store(&self) -> Result<AnyStore> {
        if let Some(kubeconfig) = &self.args.kubeconfig {
            let options = KubeOptions {
                kubeconfig: Some(kubeconfig.clone()),
                context: self.args.context.clone(),
            };
            return Ok(AnyStore::Kubernetes(KubeStore::connect(&options).await?));
        }
        let path = match (&self.args.store, self.named_lab()?) {
            (Some(path), _) => path.clone(),
            (None, Some(lab)) => lab.plan().layout.store(),
            (None, None) if std::env::var_os(IN_CLUSTER).is_some() => {
                let options = KubeOptions::default();
                return Ok(AnyStore::Kubernetes(KubeStore::connect(&options).await?));
            }
            (None, None) => PathBuf::from(STORE),
        };
        if self.args.store.is_none() && !path.exists() {
            let hint = self.hint("name another file with --store, or a cluster with --kubeconfig");
            return Err(CtlError::NoStore { path, hint });
        }
        Ok(AnyStore::Sqlite(SqliteStore::open(&path).await?))
    }

    /// The agents that `nodes` name, or all that can be reached from here.
    pub(crate) fn agents(&self, nodes: &[String]) -> Result<Vec<Agent>> {
        let all = match (&self.args.socket, self.named_lab()?) {
            (Some(socket), _) => vec![Agent {
                node: None,
                socket: socket.clone(),
            }],
            (None, Some(lab)) => agents_of(&lab),
            (None, None) => vec![self.own_agent()?],
        };
        let Some(unknown) = nodes
            .iter()
            .find(|name| !all.iter().any(|agent| agent.is_of(name)))
        else {
            let wanted = |agent: &Agent| nodes.is_empty() || nodes.iter().any(|name| agent.is_of(name));
            return Ok(all.into_iter().filter(wanted).collect());
        };
        let known = all.into_iter().filter_map(|agent| agent.node).collect();
        Err(CtlError::NoNode {
            name: unknown.clone(),
            known,
        })
    }

    /// The agents that there may be here; none where there is no socket.
    pub(crate) fn known_agents(&self) -> Result<Vec<Agent>> {
        match self.agents(&[]) {
            Err(CtlError::NoAgent { .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    fn own_agent(&self) -> Result<Agent> {
        let socket = PathBuf::from(SOCKET);
        if !socket.exists() {
            let hint = self.hint("is manxd running? name another socket with --socket");
            return Err(CtlError::NoAgent { path: socket, hint });
        }
        Ok(Agent { node: None, socket })
    }

    fn hint(&self, otherwise: &str) -> String {
        match manx_lab::names(&self.settings.base).first() {
            Some(lab) => format!("for the lab that is up, say `--lab {lab}` or `export MANX_LAB={lab}`"),
            None => otherwise.to_owned(),
        }
    }
}

fn agents_of(lab: &Lab) -> Vec<Agent> {
    let nodes = lab.status().nodes.into_iter();
    nodes
        .map(|node| Agent {
            node: Some(node.name),
            socket: node.socket,
        })
        .collect()
}

impl Agent {
    /// Whether it is `name`'s; of a lone socket we know nothing better.
    fn is_of(&self, name: &str) -> bool {
        self.node.as_deref().is_none_or(|node| node == name)
    }

    /// What to call it.
    pub(crate) fn label(&self) -> String {
        self.node
            .clone()
            .unwrap_or_else(|| self.socket.display().to_string())
    }
}

/// Asks every agent for a list and joins the answers. Those that do not answer are told of on standard error;
/// the second value says whether all did.
pub(crate) fn ask_all<T: DeserializeOwned>(agents: &[Agent], method: Method) -> (Vec<T>, Result<()>) {
    let answers = agents
        .iter()
        .map(|agent| (agent, ask::<Vec<T>>(&agent.socket, method)));
    let (mut all, mut failed) = (Vec::new(), 0);
    for (agent, answer) in answers {
        match answer {
            Ok(mut items) => all.append(&mut items),
            Err(error) => {
                anstream::eprintln!("manxctl: {}: {error}", agent.label());
                failed += 1;
            }
        }
    }
    let outcome = if failed == 0 {
        Ok(())
    } else {
        Err(CtlError::Partly {
            failed,
            all: agents.len(),
        })
    };
    (all, outcome)
}

/// Asks all agents at once. Those that let us wait are named on standard error meanwhile.
pub(crate) fn ask_each<T: DeserializeOwned + Send>(
    agents: &[Agent],
    method: Method,
) -> Vec<(&Agent, Result<T>)> {
    let (out, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for (index, agent) in agents.iter().enumerate() {
            let out = out.clone();
            scope.spawn(move || out.send((index, ask::<T>(&agent.socket, method))));
        }
        drop(out);
        let mut waiting: BTreeMap<usize, &Agent> = agents.iter().enumerate().collect();
        let mut found = Vec::new();
        loop {
            match answers.recv_timeout(PATIENCE) {
                Ok((index, answer)) => {
                    found.extend(waiting.remove(&index).map(|agent| (index, agent, answer)))
                }
                Err(RecvTimeoutError::Timeout) => {
                    let names: Vec<String> = waiting.values().map(|agent| agent.label()).collect();
                    anstream::eprintln!("manxctl: waiting for the answer of {}", names.join(", "));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        found.sort_by_key(|(index, _, _)| *index);
        found
            .into_iter()
            .map(|(_, agent, answer)| (agent, answer))
            .collect()
    })
}

/// Does something that `who` may need a while for, and says so on standard error each time that the while has doubled.
fn told_meanwhile<T>(who: &str, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, waits) = mpsc::channel::<()>();
        scope.spawn(move || {
            let (mut waited, mut pause) = (Duration::ZERO, PATIENCE);
            while waits.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                waited += pause;
                pause = waited;
                anstream::eprintln!("manxctl: {who} thinks, for {} s now", waited.as_secs());
            }
        });
        let found = work();
        drop(done);
        found
    })
}

/// Asks one agent, with parameters.
pub(crate) fn ask_with<T: DeserializeOwned>(socket: &Path, method: Method, params: Value) -> Result<T> {
    Ok(manx_lab::ask_with(socket, method, params)?)
}

/// Asks one agent.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, method: Method) -> Result<T> {
    Ok(manx_lab::ask(socket, method)?)
}
