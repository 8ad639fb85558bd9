//! Neighbours that are known by interface: found by router advertisements, reached by link-local addresses.

use std::fmt::Write as _;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use manx_api::rpc::{self, Method, Request, Response};
use manx_api::status::PeerStatus;
use manx_linux::sysctl;
use manx_tests::binaries::program;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent_harness::Cluster;
use crate::harness::{TestNetns, eventually, exchange_as};

/// For anything that should be quick, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A namespace with a `manx-bgpd`, which is AS 65000 and its number, and has `10.0.NUMBER.1` and `fd00:NUMBER::1`.
struct Router {
    netns: TestNetns,
    number: u8,
    folder: TempDir,
    process: Option<Child>,
}

impl Router {
    fn new(number: u8) -> Self {
        let netns = TestNetns::new(&format!("router{number}"));
        netns.run(sysctl::enable_forwarding).unwrap().unwrap();
        netns.ip("link set lo up");
        netns.ip(&format!("address add 10.0.{number}.1/32 dev lo"));
        netns.ip(&format!("address add fd00:{number}::1/128 dev lo"));
        Self {
            netns,
            number,
            folder: TempDir::new().unwrap(),
            process: None,
        }
    }

    /// Connects two routers.
    fn connect(&self, device: &str, ours: &str, other: &Self, their_device: &str, theirs: &str) {
        connect([(&self.netns, device, ours), (&other.netns, their_device, theirs)]);
    }

    /// Starts with these neighbors, whose routes go into the kernel.
    fn start(&mut self, neighbors: &str) {
        self.start_under(&[], neighbors);
    }

    fn start_under(&mut self, wrapper: &[&str], neighbors: &str) {
        let number = self.number;
        let (file, socket) = (self.folder.path().join("speaker.yaml"), self.socket());
        let text = format!(
            "asn: {}\nrouterId: 192.0.2.{number}\nfib: true\nsocket: {}\n\
             routes: [10.0.{number}.1/32, 'fd00:{number}::1/128']\nneighbors:\n{neighbors}",
            65_000 + u32::from(number),
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        let bgpd = program("manx-bgpd");
        let mut line: Vec<&str> = wrapper.to_vec();
        line.extend([bgpd.to_str().unwrap(), "--config", file.to_str().unwrap()]);
        let process = self
            .netns
            .command(line[0])
            .args(&line[1..])
            .env("RUST_LOG", "debug")
            .stderr(Stdio::from(std::fs::File::create(self.log()).unwrap()))
            .spawn()
            .unwrap();
        self.process = Some(process);
        let serves = || UnixStream::connect(&socket).is_ok();
        assert!(eventually(SOON, serves), "{}", self.said());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("control.sock")
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let stream = UnixStream::connect(self.socket()).unwrap();
        rpc::write(&mut &stream, &Request::new(1, Method::BgpPeers, Value::Null)).unwrap();
        let answer: Response = rpc::read(&mut BufReader::new(&stream), rpc::MAX_LINE).unwrap();
        serde_json::from_value(answer.outcome().unwrap()).unwrap()
    }

    /// The peers that have a session, as `manxctl` names them.
    fn established(&self) -> Vec<String> {
        let peers = self.peers().into_iter();
        let up = peers.filter(|peer| peer.state == "Established");
        up.map(|peer| peer.peer()).collect()
    }

    /// The one peer, where it has no session: its name, and why.
    fn missing(&self) -> (String, String) {
        let peers = self.peers();
        let [peer] = &peers[..] else {
            panic!("{peers:?}");
        };
        (peer.peer(), peer.last_error.clone().unwrap_or_default())
    }

    /// Waits until these have a session.
    fn await_established(&self, names: &[&str]) {
        assert!(
            eventually(SOON, || self.established() == names),
            "{:?}\n{}",
            self.peers(),
            self.said()
        );
    }

    /// What the kernel has to another router, in both families.
    fn routes_to(&self, number: u8) -> Vec<String> {
        let v4 = self.netns.ip(&format!("-o route show 10.0.{number}.1"));
        let v6 = self.netns.ip(&format!("-o -6 route show fd00:{number}::1"));
        [v4, v6]
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .into()
    }

    fn await_routes(&self, number: u8, gateway: &str) {
        let there = || {
            let routes = self.routes_to(number);
            let v6 = gateway.trim_start_matches("inet6 ");
            routes[0].contains(&format!("via {gateway}")) && routes[1].contains(&format!("via {v6}"))
        };
        assert!(
            eventually(SOON, there),
            "{:?}\n{}",
            self.routes_to(number),
            self.said()
        );
    }

    /// Whether packets reach another router and answers come back, from our address to its, in both families.
    fn reaches(&self, other: &Self) -> bool {
        ["10.0.N.1", "fd00:N::1"].iter().all(|form| {
            let of = |router: &Self| form.replace('N', &router.number.to_string()).parse().unwrap();
            let (from, to) = (of(self), of(other));
            exchange_as(&self.netns, Some(from), &other.netns, to) == Some(from)
        })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Connects two namespaces: only the link's own addresses are there, both of them fixed.
fn connect(ends: [(&TestNetns, &str, &str); 2]) {
    let [(ours, device, _), (theirs, their_device, _)] = ends;
    let there = theirs.path().file_name().unwrap().to_str().unwrap();
    ours.ip(&format!(
        "link add {device} type veth peer name {their_device} netns {there}"
    ));
    for (netns, device, address) in ends {
        netns.ip(&format!("link set {device} addrgenmode none"));
        netns.ip(&format!("link set {device} up"));
        netns.ip(&format!("address add {address}/64 dev {device} nodad"));
    }
}

const NEIGHBOR: &str = "asn: external, import: accept, export: accept";

/// Neighbors found on these interfaces.
fn found_on(interfaces: &[&str]) -> String {
    let mut text = String::new();
    for interface in interfaces {
        writeln!(text, "- {{interface: {interface}, {NEIGHBOR}}}").unwrap();
    }
    text
}

/// RFC 8950 §4: IPv4 packets travel over a link that has no IPv4 address.
#[test]
fn two_links_with_the_same_addresses_are_two_ways() {
    let [mut left, mut middle, mut right] = [1, 2, 3].map(Router::new);
    middle.connect("swp1", "fe80::2", &left, "uplink", "fe80::1");
    middle.connect("swp2", "fe80::2", &right, "uplink", "fe80::1");
    middle.start(&found_on(&["swp1", "swp2"]));
    left.start(&found_on(&["uplink"]));
    right.start(&found_on(&["uplink"]));
    middle.await_established(&["fe80::1%swp1", "fe80::1%swp2"]);
    middle.await_routes(1, "inet6 fe80::1 dev swp1");
    middle.await_routes(3, "inet6 fe80::1 dev swp2");
    left.await_routes(3, "inet6 fe80::2 dev uplink");
    right.await_routes(1, "inet6 fe80::2 dev uplink");
    assert!(left.reaches(&right) && right.reaches(&left));
}

#[test]
fn a_neighbor_with_a_fixed_address_needs_no_advertisement() {
    let [mut left, mut middle, mut right] = [1, 2, 3].map(Router::new);
    middle.connect("swp1", "fe80::2", &left, "uplink", "fe80::1");
    middle.connect("swp2", "fe80::2", &right, "uplink", "fe80::1");
    let fixed =
        |place: &str| format!("- {{address: fe80::{place}, {NEIGHBOR}, bfd: true, ttlSecurity: true}}\n");
    middle.start(&format!("{}{}", fixed("1%swp1"), fixed("1%swp2")));
    left.start(&fixed("2%uplink"));
    right.start(&fixed("2%uplink"));
    middle.await_established(&["fe80::1%swp1", "fe80::1%swp2"]);
    let watched = || {
        let peers = middle.peers();
        peers
            .iter()
            .all(|peer| peer.bfd.as_ref().is_some_and(|bfd| bfd.state == "Up"))
    };
    assert!(eventually(SOON, watched), "{:?}", middle.peers());
    left.await_routes(3, "inet6 fe80::2 dev uplink");
    assert!(left.reaches(&right));
}

#[test]
fn sessions_on_a_link_are_signed_watched_and_near() {
    let [mut left, mut right] = [1, 2].map(Router::new);
    left.connect("swp1", "fe80::1", &right, "swp1", "fe80::2");
    let neighbor =
        format!("- {{interface: swp1, {NEIGHBOR}, bfd: true, ttlSecurity: true, password: hunter2}}\n");
    left.start(&neighbor);
    right.start(&neighbor);
    left.await_established(&["fe80::2%swp1"]);
    let watched = || left.peers()[0].bfd.as_ref().is_some_and(|bfd| bfd.state == "Up");
    assert!(eventually(SOON, watched), "{:?}", left.peers());
    right.netns.ip("link set swp1 down");
    let gone = || left.missing().0 == "swp1";
    assert!(eventually(SOON, gone), "{:?}", left.peers());
}

#[test]
fn interfaces_and_neighbors_come_and_go() {
    let [mut left, mut right] = [1, 2].map(Router::new);
    left.start(&found_on(&["swp1"]));
    right.start(&found_on(&["swp1"]));
    let missing = |reason: &str| {
        let shown = || left.missing();
        let as_expected = || shown().0 == "swp1" && shown().1.contains(reason);
        assert!(eventually(SOON, as_expected), "{:?} is not {reason}", shown());
    };
    missing("there is no such interface");
    left.connect("swp1", "fe80::1", &right, "swp1", "fe80::2");
    left.await_established(&["fe80::2%swp1"]);
    left.await_routes(2, "inet6 fe80::2 dev swp1");

    left.netns.ip("link set swp1 down");
    missing("the interface is down");
    assert_eq!(left.routes_to(2), ["", ""]);
    left.netns.ip("link set swp1 up");
    left.netns.ip("address replace fe80::1/64 dev swp1 nodad");
    left.await_established(&["fe80::2%swp1"]);

    // The neighbor's other address is that of another router, for all that anybody can tell.
    right.netns.ip("link set swp1 down");
    missing("no carrier");
    right.netns.ip("link set swp1 up");
    right.netns.ip("address add fe80::9/64 dev swp1 nodad");
    left.await_established(&["fe80::9%swp1"]);
    left.await_routes(2, "inet6 fe80::9 dev swp1");

    left.netns.ip("link delete swp1");
    missing("there is no such interface");
    left.connect("swp1", "fe80::1", &right, "swp1", "fe80::2");
    left.await_established(&["fe80::2%swp1"]);
    left.await_routes(2, "inet6 fe80::2 dev swp1");
    right.await_routes(1, "inet6 fe80::1 dev swp1");
    assert!(left.reaches(&right));
}

#[test]
fn what_keeps_neighbors_from_being_found_is_said() {
    let [mut left, right] = [1, 2].map(Router::new);
    left.connect("swp1", "fe80::1", &right, "swp1", "fe80::2");
    let shows = |left: &Router, reason: &str| {
        let shown = || left.missing().1.contains(reason);
        assert!(eventually(SOON, shown), "{:?} is not {reason}", left.missing());
    };
    left.start_under(&["setpriv", "--bounding-set", "-net_raw"], &found_on(&["swp1"]));
    shows(&left, "router advertisements need CAP_NET_RAW");
    left.stop();
    let disable = |value| {
        let set = || sysctl::set("ipv6/conf/swp1/disable_ipv6", value);
        left.netns.run(set).unwrap().unwrap();
    };
    disable("1");
    let mut left = left;
    left.start(&found_on(&["swp1"]));
    shows(
        &left,
        "IPv6 is disabled on swp1: write 0 to /proc/sys/net/ipv6/conf/swp1/disable_ipv6",
    );
    left.netns
        .run(|| sysctl::set("ipv6/conf/swp1/disable_ipv6", "0"))
        .unwrap()
        .unwrap();
    left.netns.ip("address add fe80::1/64 dev swp1 nodad");
    shows(&left, "no router has been heard on swp1");
}

/// nasty case 68
#[test]
fn hundreds_of_interfaces_find_their_neighbors() {
    const LINKS: usize = 300;
    let [mut left, mut right] = [1, 2].map(Router::new);
    let names: Vec<String> = (0..LINKS).map(|number| format!("swp{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let there = right
        .netns
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let batch = left.folder.path().join("batch");
    let lines = |line: &dyn Fn(&str) -> String| {
        let text: String = names.iter().map(|name| line(name) + "\n").collect();
        std::fs::write(&batch, text).unwrap();
        format!("-batch {}", batch.display())
    };
    let make = |name: &str| format!("link add {name} type veth peer name {name} netns {there}");
    left.netns.ip(&lines(&make));
    for router in [&left, &right] {
        router.netns.ip(&lines(&|name| format!("link set {name} up")));
    }
    left.start(&found_on(&names));
    right.start(&found_on(&names));
    let all = || left.established().len() == LINKS && right.established().len() == LINKS;
    assert!(
        eventually(SOON * 2, all),
        "{} of {LINKS}\n{:?}",
        left.established().len(),
        left.peers().iter().find(|peer| peer.state != "Established")
    );
}

/// RFC 8950 §4: pods of both families are reached over a link that has link-local addresses only.
#[test]
fn pods_are_reached_over_an_unnumbered_link() {
    let cluster = Cluster::new();
    let [netns, _outside] = TestNetns::pair(["node", "outside"]);
    let (mut node, mut leaf) = (cluster.node("n1", netns), Router::new(2));
    connect([(&node.netns, "swp1", "fe80::1"), (&leaf.netns, "swp1", "fe80::2")]);
    cluster.create("BGPPeer", "leaf", &json!({"interface": "swp1"}));
    node.start();
    let pod = TestNetns::new("pod");
    let addresses = node.add("a", &pod);
    // What the leaf announces is let in because it is inside a pool.
    cluster.create_pool("leaf-v4", &json!({"cidr": "10.0.2.0/24"}));
    cluster.create_pool("leaf-v6", &json!({"cidr": "fd00:2::/64"}));
    leaf.start(&found_on(&["swp1"]));
    leaf.await_established(&["fe80::1%swp1"]);
    for (from, to) in ["10.0.2.1", "fd00:2::1"].into_iter().zip(addresses) {
        let from = from.parse().unwrap();
        let reached = || exchange_as(&leaf.netns, Some(from), &pod, to) == Some(from);
        assert!(eventually(SOON, reached), "{to}\n{}\n{}", leaf.said(), node.log());
    }
    let peers: Vec<PeerStatus> = serde_json::from_value(node.ask(Method::BgpPeers).unwrap()).unwrap();
    let shown: Vec<_> = peers
        .iter()
        .map(|peer| (peer.peer(), peer.asn, &*peer.origin))
        .collect();
    assert_eq!(shown, [("fe80::2%swp1".to_owned(), 65_002, "leaf")]);
    let route = node.netns.ip("route show 10.0.2.1");
    assert!(route.contains("via inet6 fe80::2 dev swp1"), "{route}");
}
