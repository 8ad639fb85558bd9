//! Two nodes on one wire: a mesh of one session carries their blocks to each other.

use std::time::Duration;

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_api::status::PeerStatus;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};

/// A session takes a few seconds on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

#[test]
fn pods_on_two_nodes_reach_each_other_through_an_agents_death_and_return() {
    let cluster = Cluster::new();
    let (mut left, right) = cluster.pair();
    let (a, b) = (TestNetns::new("a"), TestNetns::new("b"));
    let (at_a, at_b) = (left.add("a", &a), right.add("b", &b));
    assert!(
        eventually(LATER, || left.has_learned() && right.has_learned()),
        "{}\n{}",
        left.log(),
        right.log()
    );
    let connected = || {
        for (from, to) in at_a.iter().zip(&at_b) {
            assert_eq!(exchange(&a, &b, *to), Some(*from));
            assert_eq!(exchange(&b, &a, *from), Some(*to));
        }
    };
    connected();

    let before = [table(&left), table(&right)];
    left.end(Signal::SIGKILL);
    connected();
    left.start();
    let established = || left.status().is_some_and(|status| status.peers_established == 1);
    assert!(eventually(LATER, established), "{}", left.log());
    connected();
    assert_eq!([table(&left), table(&right)], before);
}

#[test]
fn a_pool_that_comes_late_and_a_node_that_leaves_are_followed() {
    let cluster = Cluster::empty();
    let [left, right] = TestNetns::pair(["left", "right"]);
    let (mut left, mut right) = (cluster.node("left", left), cluster.node("right", right));
    left.launch();
    right.launch();
    let established = |node: &Node| node.status().is_some_and(|status| status.peers_established == 1);
    assert!(
        eventually(LATER, || established(&left) && established(&right)),
        "{}",
        left.log()
    );
    assert!(
        !left.status().unwrap().ready,
        "without a pool no pod can be attached"
    );
    cluster.create_pool("v4", &json!({"cidr": "10.64.0.0/16"}));
    cluster.create_pool("v6", &json!({"cidr": "fd64::/64"}));
    assert!(
        eventually(LATER, || left.has_learned() && right.has_learned()),
        "{}\n{}",
        left.log(),
        right.log()
    );
    assert!(eventually(LATER, || left
        .status()
        .is_some_and(|status| status.ready)));

    right.end(Signal::SIGTERM);
    cluster.delete(Kind::Node, "right");
    let forgotten = || left.netns.ip("-4 route show proto 179").is_empty();
    assert!(eventually(LATER, forgotten), "{}", left.log());
    assert_eq!(left.status().unwrap().peers_configured, 0);
}

#[test]
fn the_clusters_as_changes_and_no_route_with_it() {
    let cluster = Cluster::new();
    let (left, right) = cluster.pair();
    assert!(
        eventually(LATER, || left.has_learned() && right.has_learned()),
        "{}\n{}",
        left.log(),
        right.log()
    );
    let before = [table(&left), table(&right)];
    cluster.create("BGPConfiguration", "default", &json!({"asNumber": 64600}));
    let follows = |node: &Node| {
        node.status()
            .is_some_and(|status| status.asn == 64600 && status.peers_established == 1)
    };
    assert!(
        eventually(LATER, || follows(&left) && follows(&right)),
        "{}\n{}",
        left.log(),
        right.log()
    );
    assert_eq!([table(&left), table(&right)], before);
}

/// RFC 5882 §3.2: a path that fails takes down what relies on it.
#[test]
fn the_mesh_is_watched_by_bfd_where_the_cluster_says_so() {
    let cluster = Cluster::new();
    let (left, right) = cluster.pair();
    let peer = |node: &Node| {
        let peers: Vec<PeerStatus> = serde_json::from_value(node.ask(Method::BgpPeers)?).ok()?;
        peers.into_iter().next()
    };
    let established = |node: &Node| peer(node).is_some_and(|peer| peer.state == "Established");
    let spec = json!({"holdTime": 90, "nodeMeshBfd": {"minTx": 100, "minRx": 100}});
    cluster.create("BGPConfiguration", "default", &spec);
    let watched = |node: &Node| {
        let bfd = peer(node).and_then(|peer| peer.bfd);
        established(node) && bfd.is_some_and(|bfd| bfd.state == "Up" && bfd.detection_time == Some(300))
    };
    assert!(
        eventually(LATER, || watched(&left) && watched(&right)),
        "{:?}\n{}",
        peer(&left),
        left.log()
    );
    right.netns.ip("link set eth0 down");
    assert!(
        eventually(Duration::from_secs(5), || !established(&left)),
        "{:?}",
        peer(&left)
    );
    right.netns.ip("link set eth0 up");
    assert!(
        eventually(LATER, || watched(&left) && watched(&right)),
        "{}",
        left.log()
    );
}

/// What the kernel says of routes of a node while this lives.
struct Monitor {
    said: tempfile::NamedTempFile,
    process: std::process::Child,
}

impl Monitor {
    fn of(node: &Node) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let process = node
            .netns
            .command("ip")
            .args(["-N", "monitor", "route"])
            .stdout(said.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { said, process }
    }

    /// Learned routes that were deleted.
    fn lost(&self) -> Vec<String> {
        let said = std::fs::read_to_string(self.said.path()).unwrap();
        let lost = |line: &&str| line.starts_with("Deleted") && line.contains("proto 179");
        said.lines().filter(lost).map(str::to_owned).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// RFC 4456 §7: reflectors picked by label take the mesh's place, whatever order agents hear of it in.
#[test]
fn nodes_move_from_the_mesh_to_reflectors_without_losing_a_route() {
    let cluster = Cluster::new();
    let (_switch, mut nodes) = cluster.three();
    nodes.iter_mut().for_each(Node::start);
    let routes = |node: &Node| node.netns.ip("-N -4 route show proto 179").lines().count();
    let logs = || nodes.each_ref().map(Node::log).join("\n---\n");
    assert!(
        eventually(LATER, || nodes.iter().all(|node| routes(node) == 2)),
        "{}",
        logs()
    );
    let before = nodes.each_ref().map(table);
    let monitors = nodes.each_ref().map(Monitor::of);

    cluster.change_node("n1", |node| {
        node.metadata
            .labels
            .insert("reflector".to_owned(), "yes".to_owned());
        let bgp = node.spec.bgp.get_or_insert_default();
        bgp.route_reflector_cluster_id = "244.0.0.1".parse().ok();
    });
    let spec = json!({"nodeSelector": "all()", "peerSelector": "has(reflector)", "holdTime": 9});
    cluster.create("BGPPeer", "reflectors", &spec);
    cluster.create(
        "BGPConfiguration",
        "default",
        &json!({"nodeToNodeMeshEnabled": false}),
    );

    let sessions = |node: &Node| -> Option<Vec<(String, String)>> {
        let peers: Vec<PeerStatus> = serde_json::from_value(node.ask(Method::BgpPeers)?).ok()?;
        Some(peers.into_iter().map(|peer| (peer.origin, peer.state)).collect())
    };
    let reflected = ("reflectors".to_owned(), "Established".to_owned());
    let moved = |node: &Node| sessions(node).is_some_and(|sessions| sessions == [reflected.clone()]);
    assert!(
        eventually(LATER, || moved(&nodes[1]) && moved(&nodes[2])),
        "{:?}\n{}",
        nodes.each_ref().map(sessions),
        logs()
    );
    // Long enough for stale routes of a speaker that came back to be swept.
    std::thread::sleep(Duration::from_secs(3));
    let lost = monitors.each_ref().map(Monitor::lost);
    assert!(lost.iter().all(Vec::is_empty), "{lost:?}\n{}", logs());
    assert_eq!(nodes.each_ref().map(table), before);
}

/// A node's whole main table, for comparison.
fn table(node: &Node) -> String {
    node.netns.ip("-N route show table main") + &node.netns.ip("-N -6 route show table main")
}

#[test]
fn operators_drain_reset_and_undrain_the_mesh_of_a_node() {
    let cluster = Cluster::new();
    let (left, right) = cluster.pair();
    let both = || left.has_learned() && right.has_learned();
    assert!(eventually(LATER, both), "{}\n{}", left.log(), right.log());
    let done = |method, params| left.ask_with(method, params);
    let peer = json!({"peers": ["192.0.2.2"]});
    assert_eq!(
        done(Method::BgpReset, json!({"peer": "192.0.2.2", "soft": true})),
        Some(peer.clone())
    );
    assert!(left.has_learned(), "a soft reset loses nothing");
    let call = json!({"seconds": 1, "message": "a new rack"});
    assert_eq!(done(Method::BgpDrain, call), Some(peer.clone()));
    let phase = || {
        let peers: Vec<PeerStatus> = serde_json::from_value(left.ask(Method::BgpPeers)?).ok()?;
        peers.into_iter().next()?.drain.map(|drain| drain.phase)
    };
    assert_eq!(phase().as_deref(), Some("marked"));
    assert!(
        eventually(LATER, || phase().as_deref() == Some("down")),
        "{}",
        left.log()
    );
    let forgotten = || right.netns.ip("-4 route show proto 179").is_empty();
    assert!(eventually(LATER, forgotten), "{}", right.log());
    assert!(right.log().contains("a new rack"), "{}", right.log());
    assert_eq!(
        done(Method::BgpReset, json!({"peer": "192.0.2.2"})),
        None,
        "it is drained"
    );
    assert_eq!(done(Method::BgpUndrain, json!({})), Some(peer));
    assert!(eventually(LATER, both), "{}\n{}", left.log(), right.log());
}
