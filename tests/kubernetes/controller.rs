//! What a controller does for nodes with agents: a service of type LoadBalancer gets an address, which a router learns, and
//! blocks of a node that is gone are free.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_store::fake::Sort;
use manx_tests::binaries::program;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::cluster::{Kubernetes, LATER, SERVER, custom};
use super::server::{Account, Server, Which};
use crate::agent_harness::{Node, extend};
use crate::container::DEPLOYED;
use crate::daemon::Daemon;
use crate::harness::{TestNetns, eventually};

/// A `manxd controller` beside the agent of a node, with the rights that `deploy/` gives it and no capability; killed when
/// dropped.
pub(crate) struct Controller {
    child: Child,
    log: PathBuf,
}

impl Controller {
    pub(crate) fn start(kubernetes: &Kubernetes, node: usize) -> Self {
        Self::with(kubernetes, node, &json!({}))
    }

    /// The same with more settings of its own.
    pub(crate) fn with(kubernetes: &Kubernetes, node: usize, more: &Value) -> Self {
        let node = &kubernetes.nodes[node];
        let kubeconfig = kubernetes
            .server
            .configuration(SERVER.parse().unwrap(), Account::Controller);
        let [access, settings] =
            ["controller.kubeconfig", "controller.yaml"].map(|name| node.folder().join(name));
        std::fs::write(&access, kubeconfig.to_string()).unwrap();
        let mut own = json!({"leaseSeconds": 3, "deletedNodeSeconds": 2});
        extend(&mut own, more);
        let text = json!({"datastore": {"kubernetes": {"kubeconfig": access}}, "controller": own});
        std::fs::write(&settings, text.to_string()).unwrap();
        let log = node.folder().join("controller.log");
        let mut controller = node.netns.command("setpriv");
        controller
            .args(["--no-new-privs", "--bounding-set=-all"])
            .arg(program("manxd"))
            .args(["controller", "--config"])
            .arg(settings)
            .stderr(File::create(&log).unwrap());
        let child = controller.spawn().unwrap();
        Self { child, log }
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("{error}");
        }
    }
}

/// A pool and a service from it; the service has an endpoint on `left`, which announces the address by itself.
pub(crate) fn set_service(kubernetes: &Kubernetes) {
    kubernetes.set_namespace("shop", &json!({}));
    let ranges = json!({"serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}]});
    let configuration = custom("BGPConfiguration", "default", &ranges);
    kubernetes.server.put(Kind::BgpConfiguration, configuration);
    let pool = json!({"cidr": "203.0.113.80/28", "allowedUses": ["LoadBalancer"]});
    kubernetes
        .server
        .put(Kind::IpPool, custom("IPPool", "public", &pool));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"],
            "externalTrafficPolicy": "Local", "ports": [{"port": 80, "protocol": "TCP"}],
        },
    });
    kubernetes.server.put(Kind::Service, service);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.64.0.9"], "conditions": {"ready": true}, "nodeName": "left"}],
        "ports": [{"port": 80, "protocol": "TCP"}],
    });
    kubernetes.server.put(Kind::EndpointSlice, slice);
}

/// A router that the node `left` peers with.
fn connect_router(kubernetes: &Kubernetes) -> (TestNetns, Daemon) {
    let router = TestNetns::new("router");
    // The node's routes lead to its own address, wherever the session is.
    let addresses: [&[&str]; 2] = [&["10.9.0.1/24"], &["10.9.0.2/24", "192.0.2.3/24"]];
    kubernetes.nodes[0].netns.connect(&router, "uplink", addresses);
    let speaker = Daemon::start(
        &router,
        Ipv4Addr::new(10, 9, 0, 2),
        "fib: true\nneighbors: [{address: 10.9.0.1, asn: 64512}]\n",
    );
    let peer = json!({"node": "left", "peerIP": "10.9.0.2", "asNumber": 64512});
    kubernetes
        .server
        .put(Kind::BgpPeer, custom("BGPPeer", "tor", &peer));
    (router, speaker)
}

/// The pools that `deploy/` gives a new cluster.
fn shipped_pools() -> Value {
    let is_settings = |object: &&Value| object["kind"] == "ConfigMap";
    let settings = DEPLOYED.iter().find(is_settings).unwrap()["data"]["manxd.yaml"].clone();
    let settings: Value = serde_saphyr::from_str(settings.as_str().unwrap()).unwrap();
    settings["controller"]["defaultPools"].clone()
}

pub(crate) fn a_bare_cluster_has_its_network_by_what_is_installed_alone(which: Which) {
    let mut kubernetes = Kubernetes::bare(Server::start(which));
    kubernetes.set_namespace("shop", &json!({}));
    kubernetes.nodes.iter_mut().for_each(Node::launch);
    let pools = json!({"defaultPools": shipped_pools()});
    let _controllers = [0, 1].map(|node| Controller::with(&kubernetes, node, &pools));
    for node in &mut kubernetes.nodes {
        let ready = node.comes_to(|status| status.ready);
        assert!(ready, "{:?}\n{}", node.status(), node.log());
    }
    let pods = [("one", 0), ("two", 1)].map(|(name, node)| kubernetes.run(("shop", name), &json!({}), node));
    kubernetes.comes_to(&pods[0], &pods[1], true);
    let pools = kubernetes.server.objects(Kind::IpPool);
    let [pool] = pools.as_slice() else {
        panic!("{pools:?}");
    };
    assert_eq!(
        (&pool["metadata"]["name"], &pool["spec"]["cidr"]),
        (&json!("default"), &json!("10.244.0.0/16"))
    );
}

pub(crate) fn a_load_balancers_service_gets_an_address_and_a_router_learns_it(which: Which) {
    let kubernetes = Kubernetes::start(which);
    let (router, _speaker) = connect_router(&kubernetes);
    set_service(&kubernetes);
    let controllers = [0, 1].map(|node| Controller::start(&kubernetes, node));

    let routed = |prefix: &str| {
        router
            .ip(&format!("route show {prefix}"))
            .contains("via 192.0.2.1")
    };
    let learned = || routed("203.0.113.80");
    assert!(
        eventually(LATER, learned),
        "{}\n{}",
        router.ip("route"),
        kubernetes.logs()
    );
    assert!(routed("203.0.113.0/24"), "the range is announced as ever");
    let service = || kubernetes.server.object(Kind::Service, "shop", "web").unwrap();
    assert_eq!(
        service()["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "203.0.113.80"}])
    );
    assert_eq!(
        kubernetes.server.objects(Sort::LEASE).len(),
        1,
        "both controllers compete for one"
    );
    // No node takes a block of that pool, or the service's route into its kernel.
    let blocks = kubernetes.server.objects(Kind::IpBlock);
    assert!(
        blocks.iter().all(|block| block["spec"]["pool"] != "public"),
        "{blocks:?}"
    );
    let right = &kubernetes.nodes[1];
    assert!(
        right
            .ask(Method::BgpRoutes)
            .unwrap()
            .to_string()
            .contains("203.0.113.80/32")
    );
    assert!(!right.netns.ip("route").contains("203.0.113"));

    drop(controllers);
    let other = json!({"spec": {
        "type": "ClusterIP", "externalTrafficPolicy": null, "healthCheckNodePort": null,
        "ports": [{"port": 80, "protocol": "TCP"}],
    }});
    kubernetes.server.patch(Kind::Service, ["shop", "web"], &other);
    let _successor = Controller::start(&kubernetes, 1);
    let freed = || !routed("203.0.113.80") && service()["status"]["loadBalancer"]["ingress"].is_null();
    assert!(eventually(LATER, freed), "{}\n{}", service(), kubernetes.logs());
}

pub(crate) fn blocks_of_a_deleted_node_are_freed_when_no_pod_of_it_is_left(which: Which) {
    let mut kubernetes = Kubernetes::start(which);
    kubernetes.set_namespace("shop", &json!({}));
    let pod = kubernetes.run(("shop", "web"), &json!({}), 1);
    let owners = |kubernetes: &Kubernetes| -> Vec<Value> {
        let blocks = kubernetes.server.objects(Kind::IpBlock);
        let owners = blocks.iter().map(|block| block["spec"]["node"].clone());
        owners.filter(|owner| owner == "right").collect()
    };
    assert!(!owners(&kubernetes).is_empty());
    let controller = Controller::start(&kubernetes, 0);
    kubernetes.nodes[1].end(Signal::SIGKILL);
    kubernetes.server.delete(Sort::NODE, "", "right");
    assert_eq!(
        kubernetes.server.object(Kind::Node, "", "right"),
        None,
        "it goes with Kubernetes'"
    );
    let held_back = || {
        kubernetes.nodes[0]
            .log()
            .contains("Kubernetes still has this node, or pods on it")
    };
    assert!(eventually(LATER, held_back), "{}", kubernetes.nodes[0].log());
    assert!(!owners(&kubernetes).is_empty());
    kubernetes.server.delete(Sort::POD, pod.namespace, pod.name);
    let freed = || owners(&kubernetes).is_empty();
    let logs = || kubernetes.nodes[0].log() + "\n---\n" + &controller.log();
    assert!(eventually(LATER, freed), "{}", logs());
}
