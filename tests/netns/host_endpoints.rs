//! Host endpoints: policies for the node's own interfaces, applied as resources, kept by a real agent, seen by packets.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use manx_api::Kind;
use manx_api::policy::Family;
use manx_linux::{ConnectionSocket, Netns};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually};

/// How long a policy may take to be in force, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// How long a packet that arrives may take.
const PATIENCE: Duration = Duration::from_millis(700);

/// The node's own addresses on its wire.
const OWN: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A node with a pod, and somebody at the other end of its wire who knows the way to pods.
struct Site {
    cluster: Cluster,
    node: Node,
    outside: TestNetns,
    pod: (TestNetns, Vec<IpAddr>),
}

impl Site {
    fn open() -> Self {
        let cluster = Cluster::new();
        let [netns, outside] = TestNetns::pair(["node", "outside"]);
        let mut node = cluster.node("n1", netns);
        node.start();
        let pod = TestNetns::new("pod");
        let addresses = node.add("pod", &pod);
        outside.ip("route add 10.64.0.0/16 via 192.0.2.1");
        outside.ip("-6 route add fd64::/64 via 2001:db8::1");
        let pod = (pod, addresses);
        Self {
            cluster,
            node,
            outside,
            pod,
        }
    }

    /// Adds a host endpoint with the label `role: edge`.
    fn endpoint(&self, spec: &Value) {
        self.cluster.store(json!({
            "apiVersion": "manx.network/v1", "kind": "HostEndpoint",
            "metadata": {"name": "uplink", "labels": {"role": "edge"}}, "spec": spec,
        }));
    }

    /// Adds a policy for it.
    fn policy(&self, name: &str, mut spec: Value) {
        spec["selector"] = "role == 'edge'".into();
        self.cluster.create("GlobalNetworkPolicy", name, &spec);
    }

    /// Whether the node is reached at this port, in each family.
    fn reached(&self, port: u16) -> [bool; 2] {
        OWN.map(|own| passes(&self.outside, &self.node.netns, at(own, port)))
    }

    /// Whether the pod is.
    fn pod_reached(&self, port: u16) -> bool {
        let (pod, addresses) = &self.pod;
        passes(&self.outside, pod, SocketAddr::new(addresses[0], port))
    }

    /// Whether the kernel has any rule of Manx.
    fn has_rules(&self) -> bool {
        let saved = self.node.netns.command("iptables-save").output().unwrap();
        String::from_utf8_lossy(&saved.stdout).contains("manx-")
    }

    fn becomes(&self, what: &str, condition: impl FnMut() -> bool) {
        let rules = |program: &str| {
            let output = self.node.netns.command(program).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(
            eventually(SOON, condition),
            "{what}\n{}\n{}",
            rules("iptables-save"),
            self.node.log()
        );
    }
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Whether a question arrives there, and its answer comes back.
pub(crate) fn passes(from: &Netns, to: &Netns, at: SocketAddr) -> bool {
    passes_by(from, at, to, at)
}

/// Whether a question that is sent to `by` arrives at `at`, and its answer comes back.
fn passes_by(from: &Netns, by: SocketAddr, to: &Netns, at: SocketAddr) -> bool {
    let bind = |at: SocketAddr| {
        let mut bound = UdpSocket::bind(at);
        // A program that another test starts has the last socket of this port for a moment.
        eventually(SOON, || {
            if bound.is_err() {
                bound = UdpSocket::bind(at);
            }
            bound.is_ok()
        });
        let socket = bound.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let receiver = to.run(|| bind(at)).unwrap();
    let anywhere = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = from.run(|| bind(anywhere.parse().unwrap())).unwrap();
    let mut buffer = [0; 16];
    // Rules that drop what a node itself sends tell it so.
    if sender.send_to(b"question", by).is_err() {
        return false;
    }
    receiver.recv_from(&mut buffer).is_ok_and(|(_, asker)| {
        let answered = receiver.send_to(b"answer", asker).is_ok();
        answered && sender.recv_from(&mut buffer).is_ok_and(|(_, from)| from == by)
    })
}

/// Whether a TCP connection to there comes to be.
fn connects(from: &Netns, to: &Netns, at: SocketAddr) -> bool {
    let mut listener = None;
    eventually(SOON, || {
        listener = to.run(|| TcpListener::bind(at)).unwrap().ok();
        listener.is_some()
    });
    assert!(listener.is_some(), "{at} is taken");
    from.run(|| TcpStream::connect_timeout(&at, PATIENCE).is_ok())
        .unwrap()
}

fn udp(action: &str, port: u16) -> Value {
    json!({"action": action, "protocol": "UDP", "destination": {"ports": [port]}})
}

#[test]
fn a_closed_host_endpoint_lets_in_failsafes_and_what_policies_allow_also_after_a_crash() {
    let mut site = Site::open();
    assert_eq!(site.reached(7000), [true; 2]);
    site.endpoint(&json!({"node": "n1", "interfaceName": "eth0", "expectedIPs": OWN}));
    site.becomes("closed without any policy", || site.reached(7000) == [false; 2]);
    let ssh = |site: &Site| OWN.map(|own| connects(&site.outside, &site.node.netns, at(own, 22)));
    assert_eq!(ssh(&site), [true; 2], "a failsafe");
    let out = |port| passes(&site.node.netns, &site.outside, at("192.0.2.2", port));
    assert!(out(53) && !out(7000), "and a failsafe on the way out, alone");
    assert!(site.pod_reached(7000), "what is forwarded is not meant");

    site.policy("open", json!({"ingress": [udp("Allow", 7000)]}));
    site.becomes("allowed", || site.reached(7000) == [true; 2]);
    assert_eq!(site.reached(7001), [false; 2]);

    site.node.end(Signal::SIGKILL);
    assert_eq!((site.reached(7000), site.reached(7001)), ([true; 2], [false; 2]));
    site.node.start();
    assert_eq!((site.reached(7000), site.reached(7001)), ([true; 2], [false; 2]));

    site.policy(
        "shut",
        json!({"order": 1, "ingress": [{"action": "Deny"}], "egress": [{"action": "Deny"}]}),
    );
    site.becomes("denied", || site.reached(7000) == [false; 2]);
    assert_eq!(ssh(&site), [true; 2], "whatever a policy denies");

    site.cluster.delete(Kind::HostEndpoint, "uplink");
    site.becomes("open without the endpoint", || site.reached(7001) == [true; 2]);
    site.cluster.delete(Kind::GlobalNetworkPolicy, "");
    site.becomes("no rule is left", || !site.has_rules());
}

#[test]
fn failsafes_are_those_of_the_settings() {
    let mut site = Site::open();
    site.node.end(Signal::SIGTERM);
    site.node.configure(
        "policy",
        json!({"failsafeInboundHostPorts": [{"protocol": "UDP", "port": 7000}]}),
    );
    site.node.start();
    site.endpoint(&json!({"node": "n1", "interfaceName": "*"}));
    site.becomes("closed", || site.reached(7001) == [false; 2]);
    assert_eq!(site.reached(7000), [true; 2]);
    assert!(!connects(&site.outside, &site.node.netns, at(OWN[0], 22)));
}

#[test]
fn a_host_endpoint_without_an_interfaces_name_is_where_its_address_is() {
    let site = Site::open();
    site.endpoint(&json!({"node": "n1", "expectedIPs": ["192.0.2.99"]}));
    site.becomes("known", || site.has_rules());
    assert_eq!(site.reached(7000), [true; 2], "nowhere");
    site.node.netns.ip("address add 192.0.2.99/24 dev eth0");
    site.becomes("its address came", || site.reached(7000) == [false; 2]);
    site.node.netns.ip("address del 192.0.2.99/24 dev eth0");
    site.becomes("its address went", || site.reached(7000) == [true; 2]);
}

#[test]
fn policies_act_on_what_is_forwarded_before_nat_and_without_tracking() {
    let site = Site::open();
    let allow = ["projectcalico-default-allow"];
    site.endpoint(&json!({"node": "n1", "interfaceName": "eth0", "profiles": allow}));
    let (_, pod) = &site.pod;
    let nat = format!(
        "-t nat -A PREROUTING -i eth0 -p udp --dport 8000 -j DNAT --to {}",
        SocketAddr::new(pod[0], 7001)
    );
    let mut iptables = site.node.netns.command("iptables");
    assert!(iptables.args(nat.split(' ')).status().unwrap().success());
    let behind_nat = || {
        let (pod, addresses) = &site.pod;
        let at_pod = SocketAddr::new(addresses[0], 7001);
        passes_by(&site.outside, at(OWN[0], 8000), pod, at_pod)
    };
    assert!(behind_nat());

    let others = json!({"action": "Allow"});
    site.policy("own", json!({"order": 5, "ingress": [udp("Deny", 7000), others]}));
    site.becomes("the node's own", || site.reached(7000) == [false; 2]);
    assert!(site.pod_reached(7000), "the pod is behind it");
    site.policy(
        "forward",
        json!({"order": 4, "applyOnForward": true, "ingress": [udp("Deny", 7002), others]}),
    );
    site.becomes("forwarded", || !site.pod_reached(7002));
    assert!(site.pod_reached(7001) && behind_nat());

    site.policy(
        "early",
        json!({"order": 3, "applyOnForward": true, "preDNAT": true, "ingress": [udp("Deny", 8000)]}),
    );
    site.becomes("before NAT", || !behind_nat());
    assert!(site.pod_reached(7001), "by its own address");

    let untracked = json!({
        "order": 2, "applyOnForward": true, "doNotTrack": true,
        "ingress": [udp("Allow", 7003), udp("Deny", 7004)],
        "egress": [{"action": "Allow", "protocol": "UDP", "source": {"ports": [7003]}}],
    });
    site.policy("untracked", untracked);
    site.becomes("without tracking", || site.reached(7004) == [false; 2]);
    assert_eq!((site.reached(7003), site.reached(7005)), ([true; 2], [true; 2]));
    let mut socket = ConnectionSocket::open_in(&site.node.netns).unwrap();
    let known = socket.list(Family::V4).unwrap();
    let tracked = |port| known.iter().any(|it| it.answerer.port() == port);
    assert!(tracked(7005) && !tracked(7003), "{known:?}");
}
