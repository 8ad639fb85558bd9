//! From Calico, node by node: blocks are carried over, pods that run keep their addresses and their connections.
//!
//! What `docs/migration.md` has people do. A node of Calico's is what Calico leaves in a kernel (pods' links and routes, the block's blackhole) and BIRD with the
//! settings that Calico gives it. Calico itself is not here.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use manx_api::Kind;
use manx_api::ipam::IpBlock;
use manx_linux::link::{Mac, Veth, VethEnd};
use manx_linux::pod::{calico_ifname, host_ifname};
use manx_linux::{LinkSocket, sysctl};
use manx_store::fake::Sort;
use manx_tests::foreign::{self, Place, Process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent_harness::{Cluster, Node};
use crate::clusters::cluster::Kubernetes;
use crate::clusters::server::{Server, Which};
use crate::harness::{TestNetns, eventually, exchange};

/// Everything takes longer on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

/// How long an answer may take: a machine that does much else is no lost packet.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause between packets.
const BEAT: Duration = Duration::from_millis(2);

/// A pod as Calico made it.
struct Pod {
    name: &'static str,
    container: String,
    address: IpAddr,
    netns: TestNetns,
}

impl Pod {
    fn new(node: &TestNetns, (number, name): (u8, &'static str), address: &str) -> Self {
        let netns = TestNetns::new(name);
        let ifname = calico_ifname("shop", name);
        let veth = Veth {
            end: VethEnd {
                mac: Some(Mac([0xee; 6])),
                ..VethEnd::named(&ifname)
            },
            peer: VethEnd {
                netns: Some(&netns),
                ..VethEnd::named("eth0")
            },
        };
        LinkSocket::open_in(node).unwrap().create_veth(&veth).unwrap();
        let settings = [("proxy_arp", "1"), ("forwarding", "1"), ("rp_filter", "1")];
        let set = || {
            for (setting, value) in settings {
                sysctl::set(&format!("ipv4/conf/{ifname}/{setting}"), value)?;
            }
            sysctl::set(&format!("ipv4/neigh/{ifname}/proxy_delay"), "0")
        };
        node.run(set).unwrap().unwrap();
        node.ip(&format!("link set {ifname} up"));
        node.ip(&format!("route add {address}/32 dev {ifname} scope link"));
        netns.ip("link set eth0 up");
        netns.ip(&format!("address add {address}/32 dev eth0"));
        netns.ip("route add 169.254.1.1 dev eth0 scope link");
        netns.ip("route add default via 169.254.1.1 dev eth0");
        Self {
            name,
            container: format!("{number:064x}"),
            address: address.parse().unwrap(),
            netns,
        }
    }

    /// Who holds its address, as Calico has it.
    fn attributes(&self) -> Value {
        json!({"handle_id": format!("k8s-pod-network.{}", self.container),
               "secondary": {"namespace": "shop", "pod": self.name, "node": "left", "timestamp": "2026-01-01 09:00:00 UTC"}})
    }
}

/// A block as Calico has it, with the pods that hold addresses of it by their numbers.
fn block(cidr: &str, node: &str, held: &[(usize, &Pod)]) -> Value {
    let mut allocations = vec![Value::Null; 16];
    for (index, (number, _)) in held.iter().enumerate() {
        allocations[*number] = json!(index);
    }
    let attributes: Vec<Value> = held.iter().map(|(_, pod)| pod.attributes()).collect();
    let spec = json!({"cidr": cidr, "affinity": format!("host:{node}"), "allocations": allocations, "unallocated": [],
                      "attributes": attributes, "sequenceNumber": 12, "deleted": false, "strictAffinity": false});
    calico("IPAMBlock", &cidr.replace(['.', '/'], "-"), &spec)
}

fn calico(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A cluster of Calico's whose node `right` is Manx's already, and `left` is not.
struct Site {
    cluster: Cluster,
    left: Node,
    right: Node,
    old: Pod,
    /// It has borrowed its address from the block of `right`.
    guest: Pod,
    /// Made after the export.
    late: Pod,
    place: Place,
    bird: Process,
}

const BIRD: &str = r#"
router id 192.0.2.1;
protocol device { scan time 2; }
protocol direct { ipv4; interface -"cali*", "*"; }
protocol static { ipv4; route 10.64.0.0/28 blackhole; route 10.64.0.17/32 via "GUEST"; }
protocol kernel {
  ipv4 { import none; export filter { if net.len = 32 || source = RTS_DEVICE then reject; accept; }; };
  persist; metric 0; graceful restart;
}
template bgp calico {
  local 192.0.2.1 as 64512;
  graceful restart;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
protocol bgp Mesh_192_0_2_2 from calico { neighbor 192.0.2.2 as 64512; }
"#;

impl Site {
    fn new() -> Self {
        let [left, right] = TestNetns::pair(["left", "right"]);
        // Proxy ARP answers for the gateway only where the node has a way to it.
        left.ip("route add default via 192.0.2.2");
        left.run(|| sysctl::set("ipv4/ip_forward", "1")).unwrap().unwrap();
        let old = Pod::new(&left, (1, "old"), "10.64.0.5");
        let guest = Pod::new(&left, (2, "guest"), "10.64.0.17");
        let late = Pod::new(&left, (3, "late"), "10.64.0.9");
        let place = Place::new(&left);
        place.write(
            "bird.conf",
            BIRD.replace("GUEST", &calico_ifname("shop", "guest")),
        );
        let bird = foreign::bird(&place, false);
        let cluster = Cluster::empty();
        let (left, right) = (cluster.node("left", left), cluster.node("right", right));
        let mut site = Self {
            cluster,
            left,
            right,
            old,
            guest,
            late,
            place,
            bird,
        };
        site.carry_over("");
        site.right.start();
        site
    }

    /// What `kubectl get -o yaml` prints is given to `manxctl convert`, and that to `manxctl apply`.
    fn carry_over(&self, options: &str) {
        let noted = json!({"name": "left", "annotations": {"projectcalico.org/IPv4Address": "192.0.2.1/24"}});
        let affinity =
            json!({"cidr": "10.64.0.0/28", "node": "left", "state": "confirmed", "deleted": "false"});
        let pool = json!({"cidr": "10.64.0.0/24", "blockSize": 28, "ipipMode": "Never", "vxlanMode": "Never", "nodeSelector": "all()"});
        let items = [
            calico("IPPool", "main", &pool),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": noted, "spec": {}}),
            block("10.64.0.0/28", "left", &[(5, &self.old)]),
            block("10.64.0.16/28", "right", &[(1, &self.guest)]),
            calico("BlockAffinity", "left-10-64-0-0-28", &affinity),
        ];
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let ours = self.cluster.manxctl(&format!("convert -f - {options}"), &list);
        self.cluster.manxctl("apply -f -", &ours);
    }

    fn logs(&self) -> String {
        [self.left.log(), self.right.log(), self.place.log()].join("\n---\n")
    }

    fn blocks(&self) -> Vec<IpBlock> {
        self.cluster.list(Kind::IpBlock)
    }

    /// The next hops of `right` for a prefix.
    fn routed(&self, prefix: &str) -> bool {
        self.right
            .netns
            .ip(&format!("route show {prefix} proto 179"))
            .contains("via 192.0.2.1")
    }
}

/// Packets one after the other to a pod, and its answers, until it ends.
pub(crate) struct Stream {
    end: Arc<AtomicBool>,
    echo: JoinHandle<()>,
    sender: JoinHandle<(u32, u32)>,
}

impl Stream {
    pub(crate) fn between(from: &TestNetns, to: &TestNetns, address: IpAddr) -> Self {
        let bind = |address: SocketAddr| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let receiver = to.run(|| bind(SocketAddr::new(address, 0))).unwrap();
        let sender = from.run(|| bind("0.0.0.0:0".parse().unwrap())).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let (over, stop) = (end.clone(), end.clone());
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 4];
            while !over.load(Ordering::Relaxed) {
                if let Ok((_, from)) = receiver.recv_from(&mut buffer) {
                    receiver.send_to(&buffer, from).ok();
                }
            }
        });
        let sender = std::thread::spawn(move || {
            let (mut sent, mut lost) = (0, 0);
            let mut buffer = [0; 4];
            while !stop.load(Ordering::Relaxed) {
                sent += 1;
                let answered =
                    sender.send(&u32::to_be_bytes(sent)).is_ok() && sender.recv(&mut buffer).is_ok();
                lost += u32::from(!answered);
                std::thread::sleep(BEAT);
            }
            (sent, lost)
        });
        Self { end, echo, sender }
    }

    /// How many packets were sent, and how many of them went unanswered.
    pub(crate) fn end(self) -> (u32, u32) {
        self.end.store(true, Ordering::Relaxed);
        let counted = self.sender.join().unwrap();
        self.echo.join().unwrap();
        counted
    }
}

impl Site {
    /// Waits until both nodes have heard of each other's blocks from BIRD, or over it.
    fn converges(&self) {
        let learned = || self.routed("10.64.0.0/28") && self.routed("10.64.0.17");
        let routes = self.right.netns.ip("route");
        assert!(eventually(LATER, learned), "{routes}\n{}", self.logs());
        let of_bird = || self.left.netns.ip("route show proto bird");
        let returns = || of_bird().contains("via 192.0.2.2");
        assert!(eventually(LATER, returns), "{}", of_bird());
    }

    /// Has the node `left` change hands as `docs/migration.md` says.
    fn migrates(&mut self) {
        // As when the kubelet ends calico-node, which is given no time for farewells.
        self.bird.kill();
        self.carry_over("--blocks-of left");
        self.left.start();
        let links = || self.left.netns.ip("link");
        let has_our_name = |pod: &Pod| links().contains(&host_ifname(&pod.container, "eth0"));
        let renamed = || [&self.old, &self.guest].into_iter().all(has_our_name);
        assert!(eventually(LATER, renamed), "{}\n{}", links(), self.logs());
        let learned = self.left.netns.ip("route show proto 179");
        assert!(learned.contains("via 192.0.2.2"), "{learned}\n{}", self.logs());
        self.left.netns.ip("route flush proto bird");
    }

    /// Ends a pod as its runtime does.
    fn end(&self, pod: &Pod) {
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", pod.name);
        let path = pod.netns.path();
        let output = self.left.cni_with(&args, "DEL", &pod.container, path, &json!({}));
        assert!(output.status.success(), "{output:?}");
        let link = host_ifname(&pod.container, "eth0");
        assert!(!self.left.netns.ip("link").contains(&link));
    }
}

#[test]
fn a_node_of_calicos_becomes_ours_and_no_packet_of_its_pods_is_lost() {
    let mut site = Site::new();
    let client = TestNetns::new("client");
    let from = site.right.add("client", &client)[0];
    site.converges();
    assert_eq!(exchange(&client, &site.old.netns, site.old.address), Some(from));
    let pods = [&site.old, &site.guest, &site.late];
    let streams = pods.map(|pod| Stream::between(&client, &pod.netns, pod.address));
    site.migrates();
    std::thread::sleep(Duration::from_secs(1));
    for stream in streams {
        let (sent, lost) = stream.end();
        println!("{sent} packets, {lost} lost");
        let logs = site.logs();
        assert!(
            sent > 100 && lost == 0,
            "{lost} of {sent} packets are lost\n{logs}"
        );
    }
    let announced = site.routed("10.64.0.0/28") && site.routed("10.64.0.17");
    assert!(announced, "{}", site.logs());

    // New pods get every address of the block that nobody has, and then another block's.
    let fresh: Vec<(TestNetns, IpAddr)> = (0..16)
        .map(|number| {
            let netns = TestNetns::new("fresh");
            let address = site.left.add(&format!("fresh-{number}"), &netns)[0];
            (netns, address)
        })
        .collect();
    let taken = [&site.old, &site.guest, &site.late].map(|pod| pod.address);
    assert!(
        fresh.iter().all(|(_, address)| !taken.contains(address)),
        "{fresh:?}"
    );
    let (first, last) = (&fresh[0], &fresh[15]);
    assert_eq!(
        exchange(&first.0, &site.old.netns, site.old.address),
        Some(first.1)
    );
    assert_eq!(
        exchange(&site.late.netns, &last.0, last.1),
        Some(site.late.address)
    );
}

/// A pod of Calico's in a Kubernetes cluster: what the API server says of it, and of its block.
fn tell(kubernetes: &Kubernetes, pod: &Pod) {
    let pool = calico(
        "IPPool",
        "main",
        &json!({"cidr": "10.64.0.0/24", "blockSize": 28}),
    );
    let items = [pool, block("10.64.0.0/28", "left", &[(5, pod)])];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let ours: Value = serde_json::from_str(&Cluster::empty().manxctl("convert -f - -o json", &list)).unwrap();
    for resource in ours["items"].as_array().unwrap() {
        let kind = if resource["kind"] == "IPPool" {
            Kind::IpPool
        } else {
            Kind::IpBlock
        };
        kubernetes.server.put(kind, resource.clone());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"nodeName": "left", "containers": [{"name": "main", "image": "example.org/main"}]},
        "status": {"phase": "Running", "podIP": pod.address, "podIPs": [{"ip": pod.address}]},
    });
    kubernetes.server.apply(Sort::POD, object);
}

#[test]
fn an_agent_as_it_is_deployed_takes_calicos_pods_under_the_clusters_policies() {
    let mut kubernetes = Kubernetes::bare(Server::start(Which::Fake));
    let old = Pod::new(&kubernetes.nodes[0].netns, (1, "old"), "10.64.0.5");
    kubernetes.nodes[0].netns.ip("route add default via 192.0.2.2");
    kubernetes.set_namespace("shop", &json!({}));
    kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"role": "front"}}}]));
    tell(&kubernetes, &old);
    kubernetes.nodes.iter_mut().for_each(Node::start);
    let link = host_ifname(&old.container, "eth0");
    let adopted = || kubernetes.nodes[0].netns.ip("link").contains(&link);
    assert!(eventually(LATER, adopted), "{}", kubernetes.logs());
    for (name, role, passes) in [("till", "front", true), ("stranger", "other", false)] {
        let client = kubernetes.run(("shop", name), &json!({"role": role}), 1);
        let reaches = || exchange(&client.netns, &old.netns, old.address).is_some() == passes;
        assert!(
            eventually(LATER, reaches),
            "{role}: {passes}\n{}",
            kubernetes.logs()
        );
        assert_ne!(client.addresses[0], old.address);
    }
    let args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=old";
    let left = &kubernetes.nodes[0];
    let output = left.cni_with(args, "DEL", &old.container, old.netns.path(), &json!({}));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(left.held(), 0, "{}", left.log());
}

#[test]
fn pods_that_calico_made_meet_our_rules_and_end_as_ours_do() {
    let mut site = Site::new();
    site.bird.kill();
    site.left.start();
    // The late one's address is given to nobody.
    assert_eq!(site.left.held(), 3, "{}", site.logs());
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        site.left.end(signal);
        site.left.start();
        assert_eq!(site.left.held(), 3, "{}", site.logs());
    }
    let client = TestNetns::new("client");
    site.left.add("client", &client);
    let reached = || exchange(&client, &site.old.netns, site.old.address).is_some();
    assert!(reached());
    let denies = json!({"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Deny"}]});
    site.cluster.create("GlobalNetworkPolicy", "deny", &denies);
    assert!(eventually(LATER, || !reached()), "{}", site.logs());

    site.end(&site.old);
    site.end(&site.guest);
    assert_eq!(site.left.held(), 2, "{}", site.logs());
    let returned = || site.blocks().iter().all(|block| block.spec.lease.is_none());
    assert!(
        eventually(2 * LATER, returned),
        "{:?}\n{}",
        site.blocks(),
        site.logs()
    );
    // Nobody is told of the late one's end.
    site.left.end(Signal::SIGTERM);
    let link = calico_ifname("shop", "late");
    site.left.netns.ip(&format!("link delete {link}"));
    site.left.start();
    assert_eq!(site.left.held(), 1, "{}", site.logs());
}
