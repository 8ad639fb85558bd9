//! A cluster whose datastore is the tests' own Kubernetes API server: the scenarios that a real one is held to as well, and what
//! this one alone lets us see.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_store::fake::{FakeApiServer, Sort, Streaming, Trouble};
use serde_json::{Value, json};

use crate::clusters::cluster::{Kubernetes, LATER, custom};
use crate::clusters::controller::{Controller, set_service};
use crate::clusters::server::{Server, Which};
use crate::clusters::{controller, each_scenario, network, rights, told};
use crate::harness::eventually;

/// A test of every scenario.
macro_rules! tests {
    ($($module:ident { $($scenario:ident)* })*) => {
        $($(
            #[test]
            fn $scenario() {
                $module::$scenario(Which::Fake);
            }
        )*)*
    };
}

each_scenario!([tests]);

/// Two nodes with a server that is prepared so.
fn prepared(prepare: fn(&FakeApiServer)) -> Kubernetes {
    let server = Server::start(Which::Fake);
    prepare(server.fake());
    Kubernetes::with_server(server, &json!({"cidr": "10.64.0.0/16"}))
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
    let kubernetes = prepared(|server| server.stream_lists(Streaming::Unknown));
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
    kubernetes.server.fake().trouble(Trouble::Contention);
    assert!(kubernetes.nodes[0].ask(Method::IpamCheck).is_some());
    // Only a part of a block that was lent and given back, by nodes that are both gone, is deleted; and blocks are written
    // as a whole where leases and releases that operators ask for are.
    let rare = ["delete", "update"].map(|verb| format!("{verb} ipblocks.manx.network"));
    let rare = BTreeSet::from(rare);
    let unused = || kubernetes.server.fake().unused_rights("manx-system", "manxd");
    assert!(
        eventually(LATER, || unused() == rare),
        "{:#?}\n{}",
        unused(),
        kubernetes.logs()
    );
}

/// What a node that is gone has left: its Node, which nothing ties to Kubernetes', a block, and a part of another's that it
/// has returned.
fn leave_behind(server: &Server) {
    server.put(Kind::Node, custom("Node", "ghost", &json!({})));
    let block = json!({"cidr": "10.244.9.0/26", "pool": "default", "node": "ghost", "generation": 1});
    server.put(Kind::IpBlock, custom("IPBlock", "10-244-9-0-26", &block));
    let part = json!({
        "cidr": "10.244.8.0/28", "pool": "default", "node": "ghost", "generation": 1,
        "lease": {"of": "10-244-8-0-26", "state": "Returned"},
    });
    server.put(Kind::IpBlock, custom("IPBlock", "10-244-8-0-28", &part));
}

/// A node that Kubernetes does not know, at an address of that second's.
fn put_left(server: &Server, second: u64) {
    let address = format!("192.0.2.{}/24", second % 200 + 1);
    let node = custom("Node", "left", &json!({"bgp": {"ipv4Address": address}}));
    server.apply(Kind::Node, node);
}

#[test]
fn a_controller_asks_for_all_that_it_may() {
    let server = Server::start(Which::Fake);
    server.fake().stream_lists(Streaming::Unknown);
    let kubernetes = Kubernetes::bare(server);
    let settings = json!({
        "autoHostEndpoints": true, "defaultPools": {"default": {"cidr": "10.244.0.0/16"}},
    });
    leave_behind(&kubernetes.server);
    put_left(&kubernetes.server, 0);
    let controller = Controller::with(&kubernetes, 0, &settings);
    let has_endpoint = || {
        kubernetes
            .server
            .object(Kind::HostEndpoint, "", "left-auto-hep")
            .is_some()
    };
    assert!(eventually(LATER, has_endpoint), "{}", controller.log());
    set_service(&kubernetes);
    let mut unfit = kubernetes.server.object(Kind::Service, "shop", "web").unwrap();
    unfit["metadata"] = json!({
        "name": "unfit", "namespace": "shop", "annotations": {"manx.network/load-balancer-ips": "192.0.2.200"},
    });
    kubernetes.server.put(Kind::Service, unfit);
    let unused = || {
        kubernetes
            .server
            .fake()
            .unused_rights("manx-system", "manx-controller")
    };
    // Lists of blocks are streamed where the server does that, which is a watch to RBAC. Whoever does not know yet that it
    // does not may ask once.
    let streamed = BTreeSet::from(["watch ipblocks.manx.network".to_owned()]);
    let (begun, mut moved) = (Instant::now(), 0);
    let all_but = || {
        let unused = unused();
        let second = begun.elapsed().as_secs() + 1;
        // Its node moves, which may be too late: the controller deletes it before long.
        if unused.contains("update hostendpoints.manx.network") && second > moved {
            moved = second;
            put_left(&kubernetes.server, second);
        }
        unused.is_subset(&streamed)
    };
    assert!(
        eventually(LATER, all_but),
        "{:#?}\n{}",
        unused(),
        controller.log()
    );
    drop(controller);
    kubernetes.server.fake().stream_lists(Streaming::Served);
    let controller = Controller::with(&kubernetes, 0, &settings);
    let all_used = || unused().is_empty();
    assert!(
        eventually(LATER, all_used),
        "{:#?}\n{}",
        unused(),
        controller.log()
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
    let kubernetes = prepared(hundred_nodes);
    // A pod under policies, so that all of them matter here.
    let _pod = kubernetes.run(("team1", "here"), &json!({"app": "app1"}), 0);
    // Until the block's checkpoint is written.
    std::thread::sleep(Duration::from_secs(5));
    let window = Duration::from_secs(20);
    let all_busy = || kubernetes.nodes.each_ref().map(|node| busy(node.pid()));
    let (before, [left, right]) = (kubernetes.server.fake().requests(), all_busy());
    std::thread::sleep(window);
    let asked = kubernetes.server.fake().requests() - before;
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
