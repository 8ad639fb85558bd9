//! A container runtime: which pods there are on each node, and what it calls the agent with about them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use manx_agent::cni::Job;
use manx_agent::ipam::recovery;
use manx_cni::{Attachment, Call, SpecVersion, Success, tombstone};
use serde_json::{Value, json};

use crate::kernel::Kernel;
use crate::node::{Agent, Crimes, Node, addresses};

/// The interface that pods get.
const IFNAME: &str = "eth0";

/// The network that pods are attached to.
const NETWORK: &str = "manx";

/// How far a pod has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// ADD is under way.
    Adding,
    /// ADD was answered with these addresses.
    Up(Vec<IpAddr>),
    /// ADD failed, or the node restarted under it: DEL has to follow.
    Failed,
    /// DEL is under way.
    Deleting,
    /// The runtime has forgotten it, and never calls DEL.
    Forgotten(Vec<IpAddr>),
    /// DEL was answered.
    Gone,
}

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Index of its node.
    pub(crate) node: usize,
    pub(crate) container: String,
    pub(crate) state: State,
    /// What the first ADD was answered, in JSON.
    answer: Option<Value>,
}

impl Pod {
    pub(crate) fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container.clone().try_into().unwrap(),
            ifname: IFNAME.to_owned().try_into().unwrap(),
        }
    }

    pub(crate) fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.container)
    }

    /// The name of the node's end of its link.
    pub(crate) fn interface(&self) -> String {
        recovery::interface(&self.container, IFNAME)
    }

    /// The addresses that it was told to have, while it may use them.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        match &self.state {
            State::Up(addresses) | State::Forgotten(addresses) => addresses,
            State::Adding | State::Failed | State::Deleting | State::Gone => &[],
        }
    }

    /// The call as the plugin passes it on.
    fn call(&self, previous: Option<&Value>) -> Box<Call> {
        let call = json!({
            "containerID": self.container, "ifname": IFNAME, "netns": self.netns(),
            "config": {
                "cniVersion": "1.1.0", "name": NETWORK, "socket": "/manxd.sock", "stateDir": "/state",
                "timeoutSeconds": 30, "prevResult": previous,
            },
        });
        Box::new(serde_json::from_value(call).unwrap())
    }
}

/// Every pod there ever was, by container. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime {
    pods: Arc<Mutex<BTreeMap<String, Pod>>>,
    pub(crate) crimes: Crimes,
}

impl Runtime {
    pub(crate) fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap()
    }

    /// The pods of a node in a state.
    pub(crate) fn some(&self, wanted: impl Fn(&Pod) -> bool) -> Vec<Pod> {
        self.pods().values().filter(|pod| wanted(pod)).cloned().collect()
    }

    pub(crate) fn set(&self, container: &str, state: State) {
        if let Some(pod) = self.pods().get_mut(container) {
            pod.state = state;
        }
    }

    fn state(&self, container: &str) -> State {
        self.pods()[container].state.clone()
    }

    /// What was found wrong so far.
    pub(crate) fn accusations(&self) -> String {
        self.crimes.lock().unwrap().join("; ")
    }

    fn accuse(&self, crime: String) {
        self.crimes.lock().unwrap().push(crime);
    }

    /// Makes a sandbox on a node and calls ADD for it, in the background.
    pub(crate) fn add(&self, index: usize, node: &Node, container: &str) {
        let pod = Pod {
            node: index,
            container: container.to_owned(),
            state: State::Adding,
            answer: None,
        };
        node.kernel.add_netns(&pod.netns());
        self.pods().insert(container.to_owned(), pod.clone());
        tokio::spawn(self.clone().adding(node.agent(), pod));
    }

    async fn adding(self, agent: Option<Agent>, pod: Pod) {
        let answer = match agent {
            Some(agent) => agent.call(|reply| add_job(&pod, reply)).await,
            None => None,
        };
        let rendered = |success: &Success| success.render(SpecVersion::NEWEST);
        let result = answer
            .as_ref()
            .and_then(|answer| answer.as_ref().ok())
            .map(rendered);
        let answered = match answer {
            Some(Ok(success)) => State::Up(addresses(&success)),
            Some(Err(_)) | None => State::Failed,
        };
        // The node may have restarted, or a repeated ADD may have been answered first.
        match (self.state(&pod.container), answered) {
            (State::Adding, answered) => {
                self.set(&pod.container, answered);
                self.pods()
                    .entry(pod.container)
                    .and_modify(|pod| pod.answer = result);
            }
            (State::Up(first), State::Up(second)) if first != second => {
                self.accuse(format!("{} was given {first:?}, then {second:?}", pod.container));
            }
            _ => {}
        }
    }

    /// Calls ADD once more for a pod that is up, or on its way.
    pub(crate) fn add_again(&self, node: &Node, pod: Pod) {
        if let Some(agent) = node.agent() {
            tokio::spawn(self.clone().adding(Some(agent), pod));
        }
    }

    /// Calls DEL, in the background.
    pub(crate) fn delete(&self, node: &Node, pod: Pod) {
        self.set(&pod.container, State::Deleting);
        let grave = (node.kernel.clone(), node.state_dir.clone());
        tokio::spawn(self.clone().deleting(node.agent(), pod, grave));
    }

    async fn deleting(self, agent: Option<Agent>, pod: Pod, (kernel, state_dir): (Kernel, PathBuf)) {
        let attachment = pod.attachment();
        let answer = match &agent {
            Some(agent) => agent.call(|reply| del_job(&attachment, reply)).await,
            None => None,
        };
        match answer {
            Some(Ok(())) => {}
            Some(Err(_)) => return self.set(&pod.container, State::Failed),
            None => tombstone::write(&state_dir, &attachment).unwrap(),
        }
        kernel.remove_netns(&pod.netns());
        self.set(&pod.container, State::Gone);
    }

    /// Calls CHECK; the error, if there is an answer and it is one.
    pub(crate) async fn check(self, agent: Agent, pod: Pod) -> Option<manx_cni::Error> {
        let call = pod.call(pod.answer.as_ref());
        let answer = agent.call(|reply| Job::Check { call, reply }).await;
        answer.and_then(Result::err)
    }

    /// Calls GC with every pod of the node that is known.
    pub(crate) async fn collect(self, agent: Agent, node: usize) {
        let known = |pod: &Pod| pod.node == node && !matches!(pod.state, State::Forgotten(_) | State::Gone);
        let valid = self.some(known).iter().map(Pod::attachment).collect();
        // What it did shows.
        drop(agent.call(|reply| collect_job(valid, reply)).await);
    }

    /// The node has left: nobody will ever ask for its pods again.
    pub(crate) fn left(&self, node: usize) {
        for pod in self.pods().values_mut().filter(|pod| pod.node == node) {
            pod.state = State::Gone;
        }
    }

    /// The node restarted: none of its pods lives any more.
    pub(crate) fn rebooted(&self, node: usize) {
        for pod in self.pods().values_mut().filter(|pod| pod.node == node) {
            match pod.state {
                State::Adding | State::Up(_) | State::Failed => pod.state = State::Failed,
                State::Forgotten(_) => pod.state = State::Gone,
                State::Deleting | State::Gone => {}
            }
        }
    }
}

type Reply<T> = tokio::sync::oneshot::Sender<Result<T, manx_cni::Error>>;

fn add_job(pod: &Pod, reply: Reply<Success>) -> Job {
    let call = pod.call(None);
    Job::Add { call, reply }
}

fn del_job(attachment: &Attachment, reply: Reply<()>) -> Job {
    let attachment = attachment.clone();
    Job::Del { attachment, reply }
}

fn collect_job(valid: Vec<Attachment>, reply: Reply<()>) -> Job {
    let network = NETWORK.to_owned();
    Job::Collect {
        network,
        valid,
        reply,
    }
}
