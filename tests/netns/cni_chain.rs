//! Manx before the reference plugins `tuning`, `portmap` and `bandwidth`, in a list run as a runtime runs it.
//!
//! Debian 12 has these plugins in version 1.1.1, which speak the specification up to 1.0.0.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use manx_cni::Success;
use serde_json::{Value, json};

use crate::agent_harness::{Cluster, Node};
use crate::cni_runtime::{Container, Network};
use crate::harness::TestNetns;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node at work, and a machine at the other end of its wire.
fn node(cluster: &Cluster) -> (Node, TestNetns) {
    let [netns, outside] = TestNetns::pair(["node", "outside"]);
    let mut node = cluster.node("n1", netns);
    node.start();
    (node, outside)
}

/// What stands behind Manx.
fn behind() -> [Value; 3] {
    [
        json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400}),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
    ]
}

/// A container whose port 80 is the node's 8080, and that gets 8 Mbit/s in either direction.
fn container(name: &str, pod: &TestNetns) -> Container {
    Container::new(name, pod.path()).wishing(json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000,
        },
    }))
}

fn listen(pod: &TestNetns) -> TcpListener {
    pod.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap()
}

/// Connects to an address and has the listener answer; returns whom the listener saw.
fn connect(from: &TestNetns, to: &str, listener: &TcpListener) -> SocketAddr {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = from
        .run(|| TcpStream::connect_timeout(&to, PATIENCE))
        .unwrap()
        .unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut served, seen) = listener.accept().unwrap();
    served.write_all(b"here").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"here");
    seen
}

fn rules(node: &Node) -> String {
    let save = node.netns.command("iptables-save").output().unwrap();
    String::from_utf8(save.stdout).unwrap()
}

#[test]
fn a_chain_attaches_checks_and_detaches_in_every_version_that_it_speaks() {
    let cluster = Cluster::new();
    let (node, outside) = node(&cluster);
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let network = Network::new(&node, version, "chain", &behind());
        let pod = TestNetns::new("pod");
        let container = container(&format!("c-{version}"), &pod);
        let answer = network.add(&container).unwrap();
        assert_eq!(answer["cniVersion"], version);
        let result: Success = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!((result.ips.len(), result.routes.len()), (2, 2), "{answer}");

        let somaxconn = pod.run(|| manx_linux::sysctl::get("core/somaxconn")).unwrap();
        assert_eq!(somaxconn.unwrap(), "500");
        let listener = listen(&pod);
        let seen = connect(&outside, "192.0.2.1:8080", &listener);
        assert_eq!(seen.ip().to_string(), "192.0.2.2", "the pod sees who it is");
        let shaped = node.netns.command("tc").args(["qdisc", "show"]).output().unwrap();
        let shaped = String::from_utf8(shaped.stdout).unwrap();
        let host = &result.interfaces[0].name;
        assert!(shaped.contains(&format!("tbf 1: dev {host}")), "{shaped}");
        if version != "0.3.1" {
            // Without portmap: where there is ip6tables, its CHECK looks for the rules of IPv4 there, too.
            let [tuning, _, bandwidth] = behind();
            let checked = Network::new(&node, version, "chain", &[tuning, bandwidth]);
            checked.check(&container, &answer).unwrap();
        }

        network.del(&container, Some(&answer)).unwrap();
        network.del(&container, Some(&answer)).unwrap();
        assert_eq!(node.held(), 0);
        assert!(!rules(&node).contains("--dport 8080"), "{}", rules(&node));
        let links = node.netns.ip("link");
        assert!(!links.contains(": mx") && !links.contains("ifb"), "{links}");
    }
}

#[test]
fn a_chains_bandwidth_is_what_was_asked_for() {
    let cluster = Cluster::new();
    let (node, outside) = node(&cluster);
    let network = Network::new(&node, "1.0.0", "chain", &behind());
    let pod = TestNetns::new("pod");
    network.add(&container("c", &pod)).unwrap();
    let listener = listen(&pod);
    let to: SocketAddr = "192.0.2.1:8080".parse().unwrap();
    let mut stream = outside
        .run(|| TcpStream::connect_timeout(&to, PATIENCE))
        .unwrap()
        .unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let octets = vec![0; 1 << 20];
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| stream.write_all(&octets).unwrap());
        served.read_exact(&mut vec![0; octets.len()]).unwrap();
    });
    // 8.4 Mbit less the burst of 0.8, at 8 Mbit/s.
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(900),
        "a mebioctet passed in {took:?}"
    );
}

/// Setting a MAC, even the one that an interface has, makes the kernel forget its neighbours, those for good too.
#[test]
fn a_check_sees_that_a_plugin_behind_has_set_the_mac() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let tuning = json!({"type": "tuning", "mac": "02:00:00:00:00:08"});
    let network = Network::new(&node, "1.0.0", "chain", &[tuning]);
    let container = Container::new("c", pod.path());
    let result = network.add(&container).unwrap();
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:08");
    let error = network.check(&container, &result).unwrap_err();
    let details = error["details"].as_str().unwrap();
    for part in [
        "with the MAC 02:00:00:00:00:08",
        "eth0 has no neighbour 169.254.1.1",
    ] {
        assert!(details.contains(part), "{details}");
    }
}

#[test]
fn a_chain_that_fails_half_way_leaves_an_attachment_that_gc_collects() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let network = Network::new(&node, "1.1.0", "chain", &behind());
    let container = container("c", &pod);
    let error = network.add(&container).unwrap_err();
    assert_eq!(error["code"], 1, "these plugins do not speak 1.1.0: {error}");
    assert!(network.del(&container, None).is_err(), "nor do they undo in it");
    assert_eq!(node.held(), 2);
    network.gc(&[]).unwrap();
    assert_eq!(node.held(), 0);
}
