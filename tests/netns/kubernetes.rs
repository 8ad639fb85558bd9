//! A cluster whose datastore is a Kubernetes API server: two nodes, pods as a kubelet has them, policies and services.
//!
//! The API server is the tests' own, and answers at the loopback of each node, so that a node reaches it and nothing else. The
//! agents are there as `deploy/` has them: in its container, and to the API server the account that it gives them.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::process::Output;
use std::time::Duration;

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_store::fake::{self, FakeApiServer, Sort, Streaming, Trouble};
use manx_tests::binaries::program;
use manx_tests::manifests::rendered;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::agent_harness::{Cluster, Node};
use crate::container::DEPLOYED;
use crate::harness::{TestNetns, eventually, exchange};

/// A session takes a few seconds on a machine that does much else, and so does a watch that comes back.
pub(crate) const LATER: Duration = Duration::from_secs(60);

/// Where each node finds the API server.
pub(crate) const SERVER: &str = "127.0.0.1:6443";

/// The API server, and the nodes that reach it.
pub(crate) struct Kubernetes {
    pub(crate) nodes: [Node; 2],
    pub(crate) server: FakeApiServer,
    /// Serves as long as it is there.
    serving: Option<Runtime>,
    /// Where the server's state lives.
    _state: Runtime,
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

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl Kubernetes {
    /// Two nodes on one wire, with pools, whose agents are ready.
    pub(crate) fn start() -> Self {
        Self::with_pool(&json!({"cidr": "10.64.0.0/16"}))
    }

    /// The same with this pool of IPv4 addresses.
    fn with_pool(v4: &Value) -> Self {
        Self::with_server(v4, |_| {})
    }

    /// The same with a server that is prepared so.
    fn with_server(v4: &Value, prepare: fn(&FakeApiServer)) -> Self {
        let mut kubernetes = Self::bare(prepare);
        for (name, spec) in [("v4", v4), ("v6", &json!({"cidr": "fd64::/64"}))] {
            kubernetes.server.put(Kind::IpPool, custom("IPPool", name, spec));
        }
        kubernetes.nodes.iter_mut().for_each(Node::start);
        let learned = || kubernetes.nodes.iter().all(Node::has_learned);
        assert!(eventually(LATER, learned), "{}", kubernetes.logs());
        kubernetes
    }

    /// Two nodes on one wire, whose agents are not started, and no pool.
    pub(crate) fn bare(prepare: fn(&FakeApiServer)) -> Self {
        let (cluster, state) = (Cluster::empty(), runtime());
        let server = state.block_on(FakeApiServer::start()).unwrap();
        prepare(&server);
        server.authorize(&[DEPLOYED.clone(), rendered("overlays/admission")].concat());
        let names = ["left", "right"];
        let pair = TestNetns::pair(names);
        let mut pair = names.into_iter().zip(pair).map(|(name, netns)| {
            let mut node = cluster.node(name, netns);
            node.contain();
            let kubeconfig = node.folder().join("kubeconfig");
            let token = fake::token("manx-system", "manxd", name);
            std::fs::write(&kubeconfig, fake::configuration(SERVER.parse().unwrap(), &token)).unwrap();
            node.configure("datastore", json!({"kubernetes": {"kubeconfig": kubeconfig}}));
            node
        });
        let nodes = [pair.next().unwrap(), pair.next().unwrap()];
        drop(pair);
        let mut kubernetes = Self {
            nodes,
            server,
            serving: None,
            _state: state,
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
            runtime.spawn(self.server.serve(listener).unwrap());
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

    /// What the kubelet and its operators say of a node.
    pub(crate) fn set_node(&self, name: &str, rack: &str, cordoned: bool) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"rack": rack}},
            "spec": {"unschedulable": cordoned},
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

#[test]
fn pods_of_a_cluster_meet_its_policies_as_labels_change() {
    let kubernetes = Kubernetes::start();
    kubernetes.set_namespace("shop", &json!({}));
    kubernetes.set_namespace("guests", &json!({}));
    let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let client = kubernetes.run(("shop", "client"), &json!({"app": "client"}), 1);
    let guest = kubernetes.run(("guests", "guest"), &json!({"app": "client"}), 1);
    for from in [&client, &guest] {
        kubernetes.comes_to(from, &web, true);
    }

    kubernetes.set_policy(&json!([
        {"podSelector": {"matchLabels": {"app": "client"}}},
        {"namespaceSelector": {"matchLabels": {"team": "friends"}}},
    ]));
    kubernetes.comes_to(&guest, &web, false);
    kubernetes.comes_to(&client, &web, true);
    kubernetes.set_namespace("guests", &json!({"team": "friends"}));
    kubernetes.comes_to(&guest, &web, true);
    // The sender's labels, on another node, and the receiver's own.
    kubernetes.tell(&client, &json!({"app": "other"}));
    kubernetes.comes_to(&client, &web, false);
    kubernetes.tell(&web, &json!({"app": "free"}));
    kubernetes.comes_to(&client, &web, true);
    assert!(kubernetes.cni(&web, "DEL").status.success());
    assert_eq!(kubernetes.nodes[0].held(), 0);
}

#[test]
fn a_pods_first_packet_waits_until_the_cluster_has_told_of_it() {
    let kubernetes = Kubernetes::start();
    kubernetes.set_namespace("shop", &json!({}));
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "nobody"}}}]));
    let client = kubernetes.run(("shop", "client"), &json!({}), 1);
    let mut web = kubernetes.schedule(("shop", "web"), &json!({"app": "web"}), 0);
    kubernetes.server.delete(Sort::POD, "shop", "web");
    let refused = kubernetes.cni(&web, "ADD");
    let said = String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("has not told this node of pod shop/web"), "{said}");
    assert!(said.contains("\"code\":11"), "{said}");
    assert_eq!(kubernetes.nodes[0].held(), 0);

    kubernetes.tell(&web, &json!({"app": "web"}));
    web.addresses = kubernetes.nodes[0].added(&kubernetes.cni(&web, "ADD"));
    for address in &web.addresses {
        assert_eq!(exchange(&client.netns, &web.netns, *address), None);
    }
}

#[test]
fn the_network_goes_on_while_the_api_server_is_away() {
    let mut kubernetes = Kubernetes::start();
    kubernetes.set_namespace("shop", &json!({}));
    let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let client = kubernetes.run(("shop", "client"), &json!({"app": "client"}), 1);
    let going = kubernetes.run(("shop", "going"), &json!({}), 0);
    let mut late = kubernetes.schedule(("shop", "late"), &json!({"app": "other"}), 1);
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "client"}}}]));
    kubernetes.comes_to(&going, &web, false);
    kubernetes.comes_to(&client, &web, true);
    assert!(kubernetes.cni(&going, "DEL").status.success());

    kubernetes.stop();
    kubernetes.comes_to(&client, &web, true);
    late.addresses = kubernetes.nodes[1].added(&kubernetes.cni(&late, "ADD"));
    kubernetes.comes_to(&client, &late, true);
    kubernetes.comes_to(&late, &web, false);
    assert!(kubernetes.cni(&client, "DEL").status.success());
    assert_eq!(kubernetes.nodes[1].held(), 2, "{}", kubernetes.logs());

    kubernetes.serve();
    kubernetes.tell(&late, &json!({"app": "client"}));
    kubernetes.comes_to(&late, &web, true);
}

#[test]
fn services_of_a_cluster_are_announced_from_where_they_are_until_the_node_is_cordoned() {
    let kubernetes = Kubernetes::start();
    kubernetes.set_namespace("shop", &json!({}));
    let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let ranges = json!({"serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}]});
    kubernetes.server.put(
        Kind::BgpConfiguration,
        custom("BGPConfiguration", "default", &ranges),
    );
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.80"}]}},
    });
    kubernetes.server.apply(Kind::Service, service);
    let slice = |ready: bool| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
            },
            "endpoints": [{
                "addresses": [web.addresses[0]], "conditions": {"ready": ready}, "nodeName": "left",
            }],
            "ports": [{"port": 80, "protocol": "TCP"}],
        })
    };
    kubernetes.server.put(Kind::EndpointSlice, slice(true));
    let routes = || kubernetes.nodes[1].ask(Method::BgpRoutes).unwrap().to_string();
    let announced = || routes().contains("198.51.100.80/32");
    assert!(
        eventually(LATER, announced),
        "{}\n{}",
        routes(),
        kubernetes.logs()
    );

    kubernetes.set_node("left", "b", true);
    assert!(eventually(LATER, || !announced()), "{}", kubernetes.logs());
    let node = kubernetes.server.object(Kind::Node, "", "left").unwrap();
    assert_eq!(node["metadata"]["labels"]["rack"], "b");
    kubernetes.set_node("left", "b", false);
    assert!(
        eventually(LATER, announced),
        "{}\n{}",
        routes(),
        kubernetes.logs()
    );
}

#[test]
fn an_agents_account_is_enough_for_an_operator_in_its_pod() {
    let kubernetes = Kubernetes::start();
    kubernetes.set_namespace("shop", &json!({}));
    let _web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
    let _till = kubernetes.run(("shop", "till"), &json!({"app": "till"}), 0);
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "client"}}}]));
    let ask = |node: &Node, words: &str| {
        let mut manxctl = node.netns.command(program("manxctl"));
        manxctl.arg("--kubeconfig").arg(node.folder().join("kubeconfig"));
        manxctl.arg("--socket").arg(node.folder().join("manxd.sock"));
        let output = manxctl.args(words.split(' ')).output().unwrap();
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        assert!(said[1].is_empty(), "{words}: {}", said[1]);
        said[0].clone()
    };
    let why = "policy explain --from shop/till --to shop/web:8080/TCP";
    for node in &kubernetes.nodes {
        let denied = || ask(node, why).contains("NetworkPolicy");
        assert!(eventually(LATER, denied), "{}", ask(node, why));
    }
    for words in [
        "bgp peers",
        "route show",
        "ipam show --show-blocks",
        "topology",
        "policy staged",
    ] {
        assert!(!ask(&kubernetes.nodes[1], words).is_empty(), "{words}");
    }
}

#[test]
fn kubernetes_is_told_that_a_node_has_its_network() {
    let kubernetes = Kubernetes::start();
    let said = || {
        let node = kubernetes.server.object(Sort::NODE, "", "left").unwrap();
        let conditions = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let unavailable = conditions
            .into_iter()
            .find(|it| it["type"] == "NetworkUnavailable");
        unavailable.map(|it| (it["status"].clone(), it["reason"].clone()))
    };
    let available = || said() == Some((json!("False"), json!("ManxReady")));
    assert!(
        eventually(LATER, available),
        "{:?}\n{}",
        said(),
        kubernetes.logs()
    );
    // A Node that is made anew says nothing.
    kubernetes.set_node("left", "a", false);
    assert_eq!(said(), None);
    assert!(
        eventually(LATER, available),
        "{:?}\n{}",
        said(),
        kubernetes.logs()
    );
}

/// What events with this reason are about.
fn events(kubernetes: &Kubernetes, reason: &str) -> Vec<Value> {
    let events = kubernetes.server.objects(Sort::EVENT).into_iter();
    let events = events.filter(|event| event["reason"] == reason);
    events
        .map(|event| event["involvedObject"]["name"].clone())
        .collect()
}

/// A policy of this kind that cannot be carried out.
fn broken(kind: Kind) -> Value {
    let spec = match kind.written() {
        "ClusterNetworkPolicy" => json!({"tier": "Admin", "priority": 2000, "subject": {"namespaces": {}}}),
        "NetworkPolicy" if kind == Kind::KubernetesNetworkPolicy => {
            json!({"podSelector": {}, "ingress": [{"ports": [{"endPort": 80}]}]})
        }
        "StagedKubernetesNetworkPolicy" => {
            json!({"podSelector": {}, "ingress": [{"ports": [{"endPort": 80}]}]})
        }
        _ => json!({"ingress": [{"action": "Allow", "destination": {"ports": [80]}}]}),
    };
    let namespace = kind.is_namespaced().then_some("shop");
    json!({
        "apiVersion": kind.api_version(), "kind": kind.written(), "spec": spec,
        "metadata": {"name": "broken", "namespace": namespace},
    })
}

#[test]
fn an_agent_asks_for_all_that_it_may() {
    let kubernetes = Kubernetes::with_server(&json!({"cidr": "10.64.0.0/16"}), |server| {
        server.stream_lists(Streaming::Unknown);
    });
    kubernetes.set_namespace("shop", &json!({}));
    for kind in [
        Kind::NetworkPolicy,
        Kind::GlobalNetworkPolicy,
        Kind::StagedNetworkPolicy,
        Kind::StagedGlobalNetworkPolicy,
        Kind::StagedKubernetesNetworkPolicy,
        Kind::KubernetesNetworkPolicy,
        Kind::ClusterNetworkPolicy,
    ] {
        kubernetes.server.put(kind, broken(kind));
    }
    kubernetes.set_node("left", "b", false);
    let _pod = kubernetes.run(("shop", "web"), &json!({}), 0);
    // A checkpoint that is refused has the block read again.
    kubernetes.server.trouble(Trouble::Contention);
    assert!(kubernetes.nodes[0].ask(Method::IpamCheck).is_some());
    // Only a part of a block that was lent and given back, by nodes that are both gone, is deleted; and blocks are written
    // as a whole where leases and releases that operators ask for are.
    let rare = ["delete", "update"].map(|verb| format!("{verb} ipblocks.manx.network"));
    let rare = BTreeSet::from(rare);
    let unused = || kubernetes.server.unused_rights("manx-system", "manxd");
    assert!(
        eventually(LATER, || unused() == rare),
        "{:#?}\n{}",
        unused(),
        kubernetes.logs()
    );
}

#[test]
fn operators_are_told_of_what_they_must_mend() {
    let kubernetes = Kubernetes::with_pool(&json!({"cidr": "10.64.0.0/29", "blockSize": 30}));
    let events = |reason| events(&kubernetes, reason);
    kubernetes.set_namespace("shop", &json!({}));
    let broken = json!({
        "apiVersion": "manx.network/v1", "kind": "NetworkPolicy", "metadata": {"name": "broken", "namespace": "shop"},
        "spec": {"ingress": [{"action": "Allow", "destination": {"ports": [80]}}]},
    });
    kubernetes.server.put(Kind::NetworkPolicy, broken);
    // Kubernetes' own has no status that could say so.
    let unfit = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "unfit", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"endPort": 80}]}]},
    });
    kubernetes.server.put(Kind::KubernetesNetworkPolicy, unfit);
    let told = || {
        let told = events("PolicyNotAccepted");
        told.len() == 2 && ["broken", "unfit"].iter().all(|name| told.contains(&json!(name)))
    };
    assert!(
        eventually(LATER, told),
        "{:?}\n{}",
        events("PolicyNotAccepted"),
        kubernetes.logs()
    );

    let own_blocks_alone = custom("IPAMConfiguration", "default", &json!({"strictAffinity": true}));
    kubernetes.server.put(Kind::IpamConfiguration, own_blocks_alone);
    let names = ["p0", "p1", "p2", "p3", "p4"].map(|name| ("shop", name));
    let pods = names.map(|name| kubernetes.schedule(name, &json!({}), 0));
    let outcomes = pods
        .each_ref()
        .map(|pod| kubernetes.cni(pod, "ADD").status.success());
    assert_eq!(outcomes, [true, true, true, true, false]);
    assert!(!kubernetes.cni(&pods[4], "ADD").status.success());
    let told = || events("NoFreeAddress") == [json!("left")];
    assert!(
        eventually(LATER, told),
        "{:?}\n{}",
        events("NoFreeAddress"),
        kubernetes.logs()
    );
}

/// A cluster of a hundred nodes, but for the two that are there: thirty pods on each, and two policies in each of thirty
/// namespaces.
fn hundred_nodes(server: &FakeApiServer) {
    // As a real one does.
    server.bookmark_every(Duration::from_secs(60));
    // The two peer with each other alone: nobody waits for those that are not there.
    let no_mesh = json!({"nodeToNodeMeshEnabled": false});
    server.put(
        Kind::BgpConfiguration,
        custom("BGPConfiguration", "default", &no_mesh),
    );
    let pair = json!({"nodeSelector": "has(rack)", "peerSelector": "has(rack)"});
    server.put(Kind::BgpPeer, custom("BGPPeer", "pair", &pair));
    for number in 0..30 {
        let namespace = format!("team{number}");
        let metadata = json!({"name": namespace, "labels": {"team": number.to_string()}});
        server.apply(
            Kind::Namespace,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
        );
        for app in 0..2 {
            let spec = json!({
                "podSelector": {"matchLabels": {"app": format!("app{app}")}},
                "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "1"}}}], "ports": [{"port": 80}]}],
            });
            let metadata = json!({"name": format!("policy{app}"), "namespace": namespace});
            let policy = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec,
            });
            server.put(Kind::KubernetesNetworkPolicy, policy);
        }
    }
    for number in 2..100_u8 {
        let (node, block) = (format!("n{number}"), format!("10-64-{number}-0-26"));
        let address = json!({"bgp": {"ipv4Address": format!("192.0.2.{number}/24")}});
        server.put(Kind::Node, custom("Node", &node, &address));
        let owned =
            json!({"cidr": format!("10.64.{number}.0/26"), "pool": "v4", "node": node, "generation": 1});
        server.put(Kind::IpBlock, custom("IPBlock", &block, &owned));
        for pod in 0..30 {
            let metadata = json!({
                "name": format!("{node}-{pod}"), "namespace": format!("team{pod}"),
                "labels": {"app": format!("app{}", number % 20), "pod-template-hash": "7d4b9c6f55"},
            });
            let ip = format!("10.64.{number}.{pod}");
            server.apply(
                Sort::POD,
                json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                    "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.org/main"}]},
                    "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
                }),
            );
        }
    }
}

/// What a process holds of its own, in KiB: memory that is not of its program's file.
fn held_memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

/// How long a process has kept processors busy.
fn busy(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name in parentheses; user and system, in hundredths of a second on every Linux.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let hundredths = |field: usize| fields[field].parse::<u64>().unwrap();
    Duration::from_millis(10 * (hundredths(11) + hundredths(12)))
}

#[test]
fn an_agent_of_a_hundred_nodes_and_three_thousand_pods_is_small_and_quiet() {
    let kubernetes = Kubernetes::with_server(&json!({"cidr": "10.64.0.0/16"}), hundred_nodes);
    // A pod under policies, so that all of them matter here.
    let _pod = kubernetes.run(("team1", "here"), &json!({"app": "app1"}), 0);
    // Until the block's checkpoint is written.
    std::thread::sleep(Duration::from_secs(5));
    let window = Duration::from_secs(20);
    let all_busy = || kubernetes.nodes.each_ref().map(|node| busy(node.pid()));
    let (before, [left, right]) = (kubernetes.server.requests(), all_busy());
    std::thread::sleep(window);
    let asked = kubernetes.server.requests() - before;
    let held = kubernetes.nodes.each_ref().map(|node| held_memory(node.pid()));
    let now = all_busy();
    let spent = [now[0] - left, now[1] - right];
    eprintln!(
        "{held:?} KiB; {spent:?} of processors and {asked} requests of two agents in {window:?}; busy since their \
         starts {now:?}"
    );
    assert!(held.iter().all(|held| *held <= 60 << 10), "{held:?} KiB");
    // A tenth of a request a second for each.
    assert!(asked <= 4, "{asked}\n{}", kubernetes.logs());
}
