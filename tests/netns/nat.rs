//! NAT outgoing on a whole node: pods of a pool that wants it leave for the outside with the node's address.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use manx_linux::Backend;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::agent_harness::{Cluster, Node};
use crate::cni_runtime::{Container, Network};
use crate::harness::{TestNetns, eventually, exchange, seen_as};
use crate::rules::{run, sets, tables};

/// What goes through the datastore, waits for a start, or for the next look at the kernel.
const LATER: Duration = Duration::from_secs(30);

/// How soon what nftables tells of is mended, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// The node's and the outside's addresses of both families.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn configure(node: &Node, backend: Backend, refresh: u16) {
    let name = match backend {
        Backend::Nft => "nft",
        Backend::Legacy => "legacy",
    };
    node.configure("iptables", json!({"backend": name, "refreshSeconds": refresh}));
}

/// A node with a pod of pools with NAT outgoing, and a host beyond that knows no way back to pods.
struct Site {
    cluster: Cluster,
    node: Node,
    outside: TestNetns,
    pod: TestNetns,
    at: Vec<IpAddr>,
    backend: Backend,
}

impl Site {
    fn new(backend: Backend) -> Self {
        let cluster = Cluster::new();
        cluster.set_nat("v4", true);
        cluster.set_nat("v6", true);
        let [netns, outside] = TestNetns::pair(["node", "outside"]);
        let mut node = cluster.node("n1", netns);
        configure(&node, backend, 1);
        node.start();
        // Routers ask for neighbours by their link-local addresses, which are theirs a second later.
        let is_up = || exchange(&node.netns, &outside, ip(OUTSIDE[1])).is_some();
        assert!(eventually(LATER, is_up));
        let pod = TestNetns::new("pod");
        let at = node.add("pod", &pod);
        Self {
            cluster,
            node,
            outside,
            pod,
            at,
            backend,
        }
    }

    /// Who the outside sees when the pod speaks, by family.
    fn seen(&self) -> Vec<IpAddr> {
        let seen = OUTSIDE.map(|host| seen_as(&self.pod, &self.outside, ip(host)));
        seen.into_iter().flatten().collect()
    }

    fn iptables(&self, arguments: &str) {
        for family in ["iptables", "ip6tables"] {
            let program = match self.backend {
                Backend::Nft => format!("{family}-nft"),
                Backend::Legacy => format!("{family}-legacy"),
            };
            run(&self.node.netns, &program, arguments);
        }
    }

    fn held(&self) -> (Vec<String>, Vec<String>) {
        (tables(&self.node.netns, self.backend), sets(&self.node.netns))
    }
}

#[test]
fn the_outside_sees_the_node_and_everybody_else_the_pod() {
    for backend in Backend::ALL {
        let site = Site::new(backend);
        for (host, node) in OUTSIDE.into_iter().zip(NODE) {
            let answered = exchange(&site.pod, &site.outside, ip(host));
            assert_eq!(answered, Some(ip(node)), "{backend:?}: {}", site.node.log());
        }
        let other = TestNetns::new("other");
        let at_other = site.node.add("other", &other);
        for (from, to) in site.at.iter().zip(at_other) {
            assert_eq!(
                exchange(&site.pod, &other, to),
                Some(*from),
                "{backend:?}: between pods"
            );
        }
        for (from, node) in site.at.iter().zip(NODE) {
            assert_eq!(
                exchange(&site.pod, &site.node.netns, ip(node)),
                Some(*from),
                "{backend:?}: to its node"
            );
        }
    }
}

#[test]
fn pods_on_other_nodes_see_the_pod_and_other_nodes_do_if_a_pool_contains_them() {
    let cluster = Cluster::new();
    cluster.set_nat("v4", true);
    cluster.set_nat("v6", true);
    let (left, right) = cluster.pair();
    let (a, b) = (TestNetns::new("a"), TestNetns::new("b"));
    let (at_a, at_b) = (left.add("a", &a), right.add("b", &b));
    for (from, to) in at_a.iter().zip(&at_b) {
        let routed = || exchange(&a, &b, *to).is_some();
        assert!(eventually(LATER, routed), "{}\n{}", left.log(), right.log());
        assert_eq!(exchange(&a, &b, *to), Some(*from));
    }
    for (node, other) in NODE.into_iter().zip(OUTSIDE) {
        assert_eq!(exchange(&a, &right.netns, ip(other)), Some(ip(node)));
    }
    cluster.create_pool("machines", &json!({"cidr": "192.0.2.0/24", "disabled": true}));
    cluster.create_pool("machines6", &json!({"cidr": "2001:db8::/64", "disabled": true}));
    for (from, other) in at_a.iter().zip(OUTSIDE) {
        let true_source = || exchange(&a, &right.netns, ip(other)) == Some(*from);
        assert!(eventually(LATER, true_source), "{}", left.log());
    }
}

#[test]
fn an_agent_killed_at_any_moment_of_a_change_leaves_what_the_next_one_mends() {
    for backend in Backend::ALL {
        let mut site = Site::new(backend);
        let right = site.held();
        let mut random = StdRng::seed_from_u64(179);
        for round in 0..12 {
            let nat = round % 2 == 1;
            site.cluster.set_nat("v4", nat);
            site.cluster.set_nat("v6", nat);
            std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
            site.node.end(Signal::SIGKILL);
            if round % 3 == 0 {
                site.iptables("-t nat -F");
            }
            site.node.launch();
        }
        let mended = || site.held() == right;
        assert!(
            eventually(LATER, mended),
            "{backend:?}: {:?}\n{}",
            site.held(),
            site.node.log()
        );
        assert_eq!(site.seen(), NODE.map(ip));
    }
}

#[test]
fn nat_is_switched_while_pods_run_and_leaves_nothing_behind() {
    for backend in Backend::ALL {
        let site = Site::new(backend);
        let nodes: Vec<IpAddr> = NODE.into_iter().map(ip).collect();
        assert_eq!(site.seen(), nodes, "{backend:?}: {}", site.node.log());
        for nat in [false, true, false] {
            site.cluster.set_nat("v4", nat);
            site.cluster.set_nat("v6", nat);
            let expected = if nat { &nodes } else { &site.at };
            assert!(
                eventually(LATER, || site.seen() == *expected),
                "{backend:?} {nat}: {:?}\n{}",
                site.seen(),
                site.node.log()
            );
        }
        let (tables, sets) = site.held();
        assert!(!tables.iter().any(|line| line.contains("manx")), "{tables:?}");
        assert_eq!(sets, [""; 0]);
    }
}

#[test]
fn rules_flushed_by_hand_come_back_and_those_of_a_dead_agent_stay() {
    for backend in Backend::ALL {
        let mut site = Site::new(backend);
        let nodes: Vec<IpAddr> = NODE.into_iter().map(ip).collect();
        let right = site.held();
        for damage in ["-t nat -F manx-nat-out", "-t nat -F"] {
            site.iptables(damage);
            assert!(
                eventually(LATER, || site.held() == right),
                "{backend:?}: {}",
                site.node.log()
            );
        }
        run(&site.node.netns, "ipset", "flush");
        assert!(
            eventually(LATER, || site.held() == right),
            "{backend:?}: {}",
            site.node.log()
        );
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            site.node.end(signal);
            assert_eq!(site.held(), right, "{backend:?}");
            assert_eq!(site.seen(), nodes, "{backend:?}: while the agent is down");
            site.node.start();
            assert_eq!(
                site.held(),
                right,
                "{backend:?}: the next life finds all in place"
            );
        }
        assert!(!site.node.log().contains("panicked"), "{}", site.node.log());
    }
}

#[test]
fn rules_of_nftables_are_back_within_a_second_or_two() {
    let mut site = Site::new(Backend::Nft);
    site.node.end(Signal::SIGTERM);
    configure(&site.node, Backend::Nft, 3600);
    site.node.start();
    let right = site.held();
    for damage in ["-t nat -F manx-nat-out", "-t nat -D POSTROUTING 1", "-t nat -F"] {
        site.iptables(damage);
        assert_ne!(site.held(), right);
        assert!(
            eventually(SOON, || site.held() == right),
            "{damage}: {}",
            site.node.log()
        );
    }
}

#[test]
fn an_add_whose_rules_are_refused_says_why_and_succeeds_when_they_are_not() {
    let cluster = Cluster::new();
    let [netns, _outside] = TestNetns::pair(["node", "outside"]);
    cluster.create_pool(
        "plain",
        &serde_json::json!({"cidr": "10.65.0.0/16", "nodeSelector": "!all()"}),
    );
    let pools = serde_json::json!({"annotations": {"cni.projectcalico.org/ipv4pools": "[\"plain\"]"}});
    cluster.create_namespace("plain", &pools);
    let mut node = cluster.node("n1", netns);
    node.start();
    // A set with the name of ours that somebody uses for something else.
    run(&node.netns, "ipset", "create mx4-all-pools hash:ip");
    let rule = "POSTROUTING -t nat -m set --match-set mx4-all-pools src -j ACCEPT";
    run(&node.netns, "iptables-nft", &format!("-A {rule}"));
    cluster.set_nat("v4", true);
    let refused = || node.log().contains("rules are not as wanted");
    assert!(eventually(LATER, refused), "{}", node.log());
    let pod = TestNetns::new("pod");
    let output = node.cni("ADD", "pod", pod.path());
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 11, "{error}");
    for part in [
        "the rules for this pod are not in the kernel yet",
        "destroy mx4-all-pools",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(node.held(), 0, "the failed ADD leaves nothing behind");
    let plain = TestNetns::new("plain");
    let answer = node.cni_of("plain", "ADD", "plain", plain.path(), &serde_json::json!({}));
    node.added(&answer);
    node.delete("plain", plain.path());
    run(&node.netns, "iptables-nft", &format!("-D {rule}"));
    let added = || node.cni("ADD", "pod", pod.path()).status.success();
    assert!(eventually(LATER, added), "{}", node.log());
}

#[test]
fn a_check_looks_at_the_rules_of_its_pod_and_mends_them() {
    for backend in Backend::ALL {
        let mut site = Site::new(backend);
        site.node.end(Signal::SIGTERM);
        configure(&site.node, backend, 3600);
        site.node.start();
        let right = site.held();
        let pod = TestNetns::new("checked");
        let network = Network::new(&site.node, "1.1.0", "pods", &[]);
        let container = Container::new("checked", pod.path());
        let result = network.add(&container).unwrap();
        run(&site.node.netns, "ipset", "flush");
        network.check(&container, &result).unwrap();
        assert_eq!(site.held(), right, "{backend:?}");
        // What cannot be mended is a difference.
        run(&site.node.netns, "ipset", "create mx4-other hash:ip");
        let used = "POSTROUTING -t nat -m set --match-set mx4-other src -j ACCEPT";
        run(&site.node.netns, "iptables-nft", &format!("-A {used}"));
        let error = network.check(&container, &result).unwrap_err();
        assert!(error.to_string().contains("destroy mx4-other"), "{error}");
    }
}

#[test]
fn a_pods_first_packet_is_masqueraded_even_if_the_node_has_just_started() {
    for backend in Backend::ALL {
        let mut site = Site::new(backend);
        for round in 0..3 {
            site.node.end(Signal::SIGKILL);
            // As after a reboot.
            site.iptables("-t nat -F");
            site.iptables("-t nat -X");
            run(&site.node.netns, "ipset", "destroy");
            site.node.launch();
            let (pod, name) = (TestNetns::new("early"), format!("early{round}"));
            let added = || site.node.cni("ADD", &name, pod.path()).status.success();
            assert!(eventually(LATER, added), "{backend:?}: {}", site.node.log());
            for (host, node) in OUTSIDE.into_iter().zip(NODE) {
                assert_eq!(
                    seen_as(&pod, &site.outside, ip(host)),
                    Some(ip(node)),
                    "{backend:?}"
                );
            }
            site.node.delete(&name, pod.path());
        }
    }
}

/// The programs that the agent starts while `work` is done.
fn programs_started(node: &Node, trace: &Path, work: impl FnOnce()) -> Vec<String> {
    let mut strace = std::process::Command::new("strace")
        .args([
            "-f",
            "-e",
            "trace=execve,flock",
            "-p",
            &node.pid().to_string(),
            "-o",
        ])
        .arg(trace)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", node.pid());
    let traced = || {
        fs::read_to_string(&status)
            .unwrap()
            .contains(&format!("TracerPid:\t{}", strace.id()))
    };
    assert!(eventually(LATER, traced));
    work();
    kill(Pid::from_raw(i32::try_from(strace.id()).unwrap()), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    let text = fs::read_to_string(trace).unwrap();
    text.lines()
        .filter(|line| line.contains("execve(") || line.contains("flock("))
        .map(str::to_owned)
        .collect()
}

#[test]
fn add_and_delete_start_no_program_and_take_no_lock() {
    for backend in Backend::ALL {
        let site = Site::new(backend);
        // The pod that is there is under the policy, so that those that come are of a known kind.
        let policy = json!({
            "selector": "all()",
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'client'"}}],
        });
        site.cluster.create("GlobalNetworkPolicy", "all", &policy);
        let listed = || {
            sets(&site.node.netns)
                .iter()
                .any(|line| line.starts_with("add mx6-to-"))
        };
        assert!(eventually(LATER, listed), "{}", site.node.log());
        // No look at the kernel comes in between.
        let mut node = site.node;
        node.end(Signal::SIGTERM);
        configure(&node, backend, 3600);
        node.start();
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let started = programs_started(&node, &trace, || {
            for round in 0..5 {
                let (pod, name) = (TestNetns::new("pod"), format!("churn{round}"));
                let at = node.add(&name, &pod);
                let is_under = |address: &IpAddr| {
                    let held = sets(&node.netns).into_iter().filter(|line| line.contains("-to-"));
                    held.filter(|line| line.contains(&format!(" {address}"))).count() == 1
                };
                assert!(
                    at.len() == 2 && at.iter().all(is_under),
                    "{:?}",
                    sets(&node.netns)
                );
                node.delete(&name, pod.path());
                assert!(!at.iter().any(is_under), "{:?}", sets(&node.netns));
            }
        });
        assert_eq!(started, [""; 0]);
        let started = programs_started(&node, &trace, || {
            site.cluster.set_nat("v4", false);
            let gone = || {
                !sets(&node.netns)
                    .iter()
                    .any(|line| line.contains("mx4-nat-pools"))
            };
            assert!(eventually(LATER, gone), "{}", node.log());
        });
        assert!(
            started.iter().any(|line| line.contains("tables")),
            "the trace sees programs: {started:?}"
        );
    }
}
