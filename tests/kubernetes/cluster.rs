//! Two nodes of a cluster, pods as a kubelet has them, policies and services.
//!
//! The API server answers at the loopback of each node, so that a node reaches it and nothing else. The agents are there as
//! `deploy/` has them: in its container, and to the API server the account that it gives them.

use std::net::{IpAddr, TcpListener};
use std::process::Output;
use std::time::Duration;

use manx_api::Kind;
use manx_store::fake::Sort;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::server::{Account, Server, Which};
use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};

/// A session takes a few seconds on a machine that does much else, and so does a watch that comes back.
pub(crate) const LATER: Duration = Duration::from_secs(60);

/// Where each node finds the API server.
pub(crate) const SERVER: &str = "127.0.0.1:6443";

/// The API server, and the nodes that reach it.
pub(crate) struct Kubernetes {
    pub(crate) nodes: [Node; 2],
    /// Serves as long as it is there.
    serving: Option<Runtime>,
    pub(crate) server: Server,
    _cluster: Cluster,
}

/// A pod as its kubelet knows it.
pub(crate) struct Pod {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    node: usize,
    pub(crate) netns: TestNetns,
    pub(crate) addresses: Vec<IpAddr>,
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl Kubernetes {
    /// Two nodes on one wire, with pools, whose agents are ready.
    pub(crate) fn start(which: Which) -> Self {
        Self::with_pool(which, &json!({"cidr": "10.64.0.0/16"}))
    }

    /// The same with this pool of IPv4 addresses.
    pub(crate) fn with_pool(which: Which, v4: &Value) -> Self {
        Self::with_server(Server::start(which), v4)
    }

    /// The same with a server that is there already.
    pub(crate) fn with_server(server: Server, v4: &Value) -> Self {
        let mut kubernetes = Self::bare(server);
        for (name, spec) in [("v4", v4), ("v6", &json!({"cidr": "fd64::/64"}))] {
            kubernetes.server.put(Kind::IpPool, custom("IPPool", name, spec));
        }
        kubernetes.nodes.iter_mut().for_each(Node::start);
        let learned = || kubernetes.nodes.iter().all(Node::has_learned);
        assert!(eventually(LATER, learned), "{}", kubernetes.logs());
        kubernetes
    }

    /// Two nodes on one wire, whose agents are not started, and no pool.
    pub(crate) fn bare(server: Server) -> Self {
        let cluster = Cluster::empty();
        let names = ["left", "right"];
        let pair = TestNetns::pair(names);
        let mut pair = names.into_iter().zip(pair).map(|(name, netns)| {
            let mut node = cluster.node(name, netns);
            node.contain();
            let kubeconfig = node.folder().join("kubeconfig");
            let access = server.configuration(SERVER.parse().unwrap(), Account::Agent(name));
            std::fs::write(&kubeconfig, access.to_string()).unwrap();
            node.configure("datastore", json!({"kubernetes": {"kubeconfig": kubeconfig}}));
            node
        });
        let nodes = [pair.next().unwrap(), pair.next().unwrap()];
        drop(pair);
        let mut kubernetes = Self {
            nodes,
            serving: None,
            server,
            _cluster: cluster,
        };
        for name in names {
            kubernetes.set_node(name, "a", false);
        }
        kubernetes.serve();
        kubernetes
    }

    /// Has the API server answer.
    pub(crate) fn serve(&mut self) {
        let runtime = runtime();
        for node in &self.nodes {
            let listener = node.netns.run(|| TcpListener::bind(SERVER)).unwrap().unwrap();
            runtime.spawn(self.server.serve(listener));
        }
        self.serving = Some(runtime);
    }

    /// Ends the API server; what it has stored stays.
    pub(crate) fn stop(&mut self) {
        self.serving
            .take()
            .unwrap()
            .shutdown_timeout(Duration::from_secs(5));
    }

    pub(crate) fn logs(&self) -> String {
        self.nodes.each_ref().map(Node::log).join("\n---\n")
    }

    /// What the kubelet and its operators say of a node; of its network they say nothing.
    pub(crate) fn set_node(&self, name: &str, rack: &str, cordoned: bool) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"rack": rack}},
            "spec": {"unschedulable": cordoned}, "status": {},
        });
        self.server.apply(Sort::NODE, node);
    }

    pub(crate) fn set_namespace(&self, name: &str, labels: &Value) {
        let metadata = json!({"name": name, "labels": labels});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.server.apply(Kind::Namespace, namespace);
    }

    /// A policy of Kubernetes' for the pods with `app: web` of the namespace `shop`.
    pub(crate) fn set_policy(&self, from: &Value) {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]},
        });
        self.server.apply(Kind::KubernetesNetworkPolicy, policy);
    }

    /// A pod that the scheduler has put on a node; nothing runs yet.
    pub(crate) fn schedule(
        &self,
        (namespace, name): (&'static str, &'static str),
        labels: &Value,
        node: usize,
    ) -> Pod {
        let pod = Pod {
            namespace,
            name,
            node,
            netns: TestNetns::new(name),
            addresses: Vec::new(),
        };
        self.tell(&pod, labels);
        pod
    }

    /// What the API server has of a pod.
    pub(crate) fn tell(&self, pod: &Pod, labels: &Value) {
        let addresses: Vec<Value> = pod.addresses.iter().map(|it| json!({"ip": it})).collect();
        let node = ["left", "right"][pod.node];
        let phase = if addresses.is_empty() {
            "Pending"
        } else {
            "Running"
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels},
            "spec": {
                "nodeName": node, "serviceAccountName": "default",
                "containers": [{"name": "main", "image": "example.org/main"}],
            },
            "status": {"phase": phase, "podIP": pod.addresses.first(), "podIPs": addresses},
        });
        self.server.apply(Sort::POD, object);
    }

    /// Calls the plugin as the pod's kubelet does.
    pub(crate) fn cni(&self, pod: &Pod, verb: &str) -> Output {
        let object = self.server.object(Sort::POD, pod.namespace, pod.name);
        let uid = object.map_or_else(String::new, |pod| {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            format!(";K8S_POD_UID={uid}")
        });
        let Pod { namespace, name, .. } = pod;
        let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}{uid}");
        self.nodes[pod.node].cni_with(&args, verb, name, pod.netns.path(), &json!({}))
    }

    /// A pod that runs.
    pub(crate) fn run(&self, name: (&'static str, &'static str), labels: &Value, node: usize) -> Pod {
        let mut pod = self.schedule(name, labels, node);
        pod.addresses = self.nodes[node].added(&self.cni(&pod, "ADD"));
        self.tell(&pod, labels);
        pod
    }

    /// Waits until packets between two pods pass in both families, or in none.
    pub(crate) fn comes_to(&self, from: &Pod, to: &Pod, pass: bool) {
        let passes = |address: &IpAddr| exchange(&from.netns, &to.netns, *address).is_some();
        let as_wanted = || to.addresses.iter().all(|address| passes(address) == pass);
        assert!(
            eventually(LATER, as_wanted),
            "{} to {}, which should be {pass}\n{}",
            from.name,
            to.name,
            self.logs()
        );
    }
}

pub(crate) fn custom(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "manx.network/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
