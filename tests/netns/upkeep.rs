//! An upgrade and a removal, as `docs/kubernetes.md` has them: packets pass while agents are replaced, and what is removed
//! leaves nothing of ours, and all that is others'.

use std::time::Duration;

use manx_tests::manifests::blocks;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent_harness::{Cluster, Node};
use crate::harness::{TestNetns, eventually, exchange};
use crate::migration::Stream;

/// Everything takes longer on a machine that does much else.
const LATER: Duration = Duration::from_secs(60);

/// Two nodes that know each other's routes, under a policy that lets everything through.
fn pair(cluster: &Cluster) -> [Node; 2] {
    let (left, right) = cluster.pair();
    let lets = json!({"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Allow"}]});
    cluster.create("GlobalNetworkPolicy", "lets", &lets);
    let nodes = [left, right];
    let learned = || nodes.iter().all(Node::has_learned);
    assert!(eventually(LATER, learned), "{}", nodes[0].log());
    nodes
}

/// What a command prints on a node.
fn said(node: &Node, program: &str, words: &str) -> String {
    let output = node
        .netns
        .command(program)
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn agents_are_replaced_one_after_the_other_and_no_packet_is_lost() {
    let cluster = Cluster::new();
    let mut nodes = pair(&cluster);
    let [a, b, gone] = ["a", "b", "gone"].map(TestNetns::new);
    let (at_a, at_b) = (nodes[0].add("a", &a), nodes[1].add("b", &b));
    nodes[0].add("gone", &gone);
    assert_eq!(exchange(&a, &b, at_b[0]), Some(at_a[0]));
    let streams = [Stream::between(&a, &b, at_b[0]), Stream::between(&b, &a, at_a[0])];
    for (number, node) in nodes.iter_mut().enumerate() {
        // Its kubelet ends the pod, and makes one of the new DaemonSet, whose settings are other than the old one's.
        node.end(Signal::SIGTERM);
        if number == 0 {
            node.delete("gone", gone.path());
            let late = node.cni("ADD", "late", gone.path());
            let answer: Value = serde_json::from_slice(&late.stdout).unwrap();
            assert_eq!(answer["code"], 11, "a pod waits for the agent: {answer}");
        }
        node.configure("policy", json!({"logGroup": 7}));
        node.start();
        let established = || node.status().is_some_and(|status| status.peers_established == 1);
        assert!(eventually(LATER, established), "{}", node.log());
    }
    let late = nodes[0].add("late", &gone);
    assert_eq!(
        nodes[0].held(),
        4,
        "of the pod that was deleted meanwhile, nothing"
    );
    assert!(exchange(&gone, &b, at_b[0]).is_some(), "{late:?}");
    for stream in streams {
        let (sent, lost) = stream.end();
        println!("{sent} packets, {lost} lost");
        let logs = nodes.each_ref().map(Node::log).join("\n---\n");
        assert!(
            sent > 100 && lost == 0,
            "{lost} of {sent} packets are lost\n{logs}"
        );
    }
}

#[test]
fn what_is_printed_removes_what_is_ours_and_nothing_else() {
    let cluster = Cluster::new();
    let mut nodes = pair(&cluster);
    let [a, b] = ["a", "b"].map(TestNetns::new);
    nodes[0].add("a", &a);
    let at_b = nodes[1].add("b", &b);
    let node = &mut nodes[0];
    let others = "-A FORWARD -d 198.51.100.1 -j DROP";
    for program in ["iptables", "ip6tables"] {
        let words = if program == "iptables" {
            others.to_owned()
        } else {
            others.replace("198.51.100.1", "2001:db8:9::1")
        };
        said(node, program, &words);
    }
    said(node, "ipset", "create others hash:ip");
    node.netns
        .ip("route add 198.51.100.0/24 via 192.0.2.2 proto static");
    let enforced = || said(node, "iptables-save", "").contains("manx-");
    assert!(eventually(LATER, enforced), "{}", node.log());
    node.end(Signal::SIGTERM);

    let lines = blocks("kubernetes.md", "sh").concat();
    let done = node
        .netns
        .command("sh")
        .arg("-euxc")
        .arg(&lines)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = said(node, program, "");
        assert!(!rules.contains("manx") && rules.contains("-j DROP"), "{rules}");
    }
    assert_eq!(said(node, "ipset", "list -n"), "others\n");
    for family in ["-4", "-6"] {
        let routes = node.netns.ip(&format!("-N {family} route"));
        assert!(
            !routes.contains("proto 179") && !routes.contains("proto 180"),
            "{routes}"
        );
    }
    assert!(node.netns.ip("route").contains("198.51.100.0/24"));
    assert_eq!(node.netns.ip("nexthop"), "");

    // An agent that comes back makes it all anew.
    node.start();
    let reached = || exchange(&a, &b, at_b[0]).is_some();
    assert!(eventually(LATER, reached), "{}", node.log());
}
