//! A BGPPeer's password from its Secret to the kernel's segments: missing, wrong, right, and changed while routes flow.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use manx_api::rpc::Method;
use manx_api::status::PeerStatus;
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::daemon::Daemon;
use crate::harness::{TestNetns, eventually};

/// A session takes a few seconds on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The node's sessions: one, once it has taken it from the resources.
fn sessions(node: &Node) -> Vec<PeerStatus> {
    let peers = node.ask(Method::BgpPeers).unwrap();
    let peers: Vec<PeerStatus> = serde_json::from_value(peers).unwrap();
    assert!(peers.len() <= 1, "{peers:?}");
    peers
}

fn established(node: &Node) -> bool {
    sessions(node)
        .iter()
        .any(|session| session.state == "Established")
}

fn last_error(node: &Node) -> Option<String> {
    sessions(node).pop()?.last_error
}

fn says(node: &Node, words: &str) -> bool {
    last_error(node).is_some_and(|error| error.contains(words))
}

/// Whether the node forwards to a prefix of the router's.
fn forwards(node: &Node, prefix: &str) -> bool {
    !node
        .netns
        .ip(&format!("-4 route show {prefix} proto 179"))
        .is_empty()
}

/// The router's settings besides its AS: these routes, and the password in a file.
fn router(file: &Path, routes: &str) -> String {
    format!(
        "routes: [{routes}]\nneighbors: [{{address: 192.0.2.1, asn: 64512, passwordFile: {}}}]\n",
        file.display()
    )
}

/// A node and a router on one wire, in session by a password.
struct Signed {
    node: Node,
    router: Daemon,
    /// The router's password.
    file: tempfile::NamedTempFile,
    /// Its namespace lives as long as it does.
    _netns: TestNetns,
    _cluster: Cluster,
}

impl Signed {
    /// Before either has the other's password: the node has none, the router's is `one`.
    fn new() -> Self {
        let cluster = Cluster::new();
        let [near, far] = TestNetns::pair(["node", "router"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\n").unwrap();
        let router = Daemon::start(&far, ROUTER, &router(file.path(), "10.64.200.0/24"));
        let mut node = cluster.node("node", near);
        node.start();
        let password = json!({"secretKeyRef": {"name": "rack-1", "key": "password"}});
        cluster.create(
            "BGPPeer",
            "tor",
            &json!({"peerIP": ROUTER, "asNumber": 64512, "password": password}),
        );
        Self {
            node,
            router,
            file,
            _netns: far,
            _cluster: cluster,
        }
    }

    /// The router has another password, and another route to show that it is heard by it.
    fn change_router(&self, password: &str, routes: &str) {
        fs::write(self.file.path(), password).unwrap();
        self.router.reload(ROUTER, &router(self.file.path(), routes));
    }
}

#[track_caller]
fn becomes(node: &Node, what: &str, holds: impl FnMut() -> bool) {
    assert!(
        eventually(LATER, holds),
        "{what}: {:?}\n{}",
        sessions(node),
        node.log()
    );
}

/// RFC 2385 §2.0: without the same password at both ends there is no session; it may change while one stands.
#[test]
fn a_password_is_missing_then_wrong_then_right_and_then_another() {
    let signed = Signed::new();
    let node = &signed.node;
    becomes(node, "the Secret is missed by name", || {
        says(node, "rack-1/password: No such file")
    });
    assert!(!established(node));

    node.set_secret("rack-1", "password", "two\n");
    becomes(node, "a wrong password shows", || {
        says(node, "could not be connected to, or has another password")
    });
    assert!(!established(node));

    node.set_secret("rack-1", "password", "one\n");
    becomes(node, "the right one is noticed", || {
        established(node) && forwards(node, "10.64.200.0/24")
    });

    node.set_secret("rack-1", "password", "three\n");
    signed.change_router("three\n", "10.64.200.0/24, 10.64.201.0/24");
    becomes(node, "what is said after the change is heard", || {
        forwards(node, "10.64.201.0/24")
    });
    assert!(
        established(node) && last_error(node).is_none(),
        "{:?}",
        sessions(node)
    );
    assert!(
        !node.log().contains("session down"),
        "no session has gone for it\n{}",
        node.log()
    );
}
