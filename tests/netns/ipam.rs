//! Which addresses pods get, through the plugin and the agent.

use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::Kind;
use manx_api::ipam::IpBlock;
use serde_json::{Value, json};

use crate::agent_harness::{Cluster, Node};
use crate::containers::fetch;
use crate::harness::{TestNetns, eventually};

/// A node with an uplink.
fn node(cluster: &Cluster) -> Node {
    let node = cluster.node("node", TestNetns::new("node"));
    node.netns.ip("link add eth0 type bridge");
    node.netns.ip("address add 192.0.2.1/24 dev eth0");
    node.netns.ip("link set eth0 up");
    node
}

/// A pod's namespace, and the name of its container.
struct Pod {
    container: &'static str,
    netns: TestNetns,
}

fn pods<const N: usize>(containers: [&'static str; N]) -> [Pod; N] {
    containers.map(|container| Pod {
        container,
        netns: TestNetns::new(container),
    })
}

fn add(node: &Node, namespace: &str, pod: &Pod, annotations: &Value) -> Output {
    let runtime = json!({"io.kubernetes.cri.pod-annotations": annotations});
    node.cni_of(namespace, "ADD", pod.container, pod.netns.path(), &runtime)
}

/// What ADD refused with: the code and the message.
fn refusal(output: &Output) -> (u64, String) {
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    (
        error["code"].as_u64().unwrap(),
        error["msg"].as_str().unwrap().to_owned(),
    )
}

fn is_of(address: IpAddr, network: &str) -> bool {
    network.parse::<IpNetwork>().unwrap().contains(address)
}

#[test]
fn pools_are_chosen_by_the_pods_annotation_its_namespaces_and_selectors() {
    let cluster = Cluster::empty();
    cluster.create_pool("all", &json!({"cidr": "10.1.0.0/16"}));
    cluster.create_pool(
        "red",
        &json!({"cidr": "10.2.0.0/16", "namespaceSelector": "team == 'red'"}),
    );
    let manual = json!({"cidr": "10.3.0.0/16", "assignmentMode": "Manual"});
    cluster.create_pool("manual", &manual);
    cluster.create_pool("off", &json!({"cidr": "10.4.0.0/16", "disabled": true}));
    let annotations = json!({"cni.projectcalico.org/ipv4pools": r#"["red"]"#});
    cluster.create_namespace("annotated", &json!({"annotations": annotations}));
    let mut node = node(&cluster);
    node.start();

    let pods = pods(["a", "b", "c", "d"]);
    let plain = add(&node, "plain", &pods[0], &json!({}));
    assert!(is_of(node.added(&plain)[0], "10.1.0.0/16"));
    let by_namespace = add(&node, "annotated", &pods[1], &json!({}));
    assert!(is_of(node.added(&by_namespace)[0], "10.2.0.0/16"));
    let named = json!({"manx.network/ipv4pools": r#"["10.3.0.0/16"]"#});
    let by_pod = add(&node, "annotated", &pods[2], &named);
    assert!(is_of(node.added(&by_pod)[0], "10.3.0.0/16"));
    let again = add(&node, "annotated", &pods[2], &named);
    assert_eq!(node.added(&again), node.added(&by_pod));

    for (pools, problem) in [
        ("manual", "no JSON list of strings"),
        (r#"["of"]"#, "the IPv4 ones are [all, manual, off, red]"),
        (r#"["off"]"#, "names disabled IPPools only"),
    ] {
        let refused = add(
            &node,
            "plain",
            &pods[3],
            &json!({"manx.network/ipv4pools": pools}),
        );
        let (code, message) = refusal(&refused);
        assert!(code == 7 && message.contains(problem), "{code} {message}");
    }
    assert_eq!(node.held(), 3);
}

#[test]
fn a_reserved_address_goes_to_nobody_and_a_reserved_block_is_not_claimed() {
    let cluster = Cluster::empty();
    cluster.create_pool("small", &json!({"cidr": "10.1.0.0/28", "blockSize": 30}));
    let most = ["10.1.0.0/29", "10.1.0.8/30", "10.1.0.12/31"];
    cluster.create("IPReservation", "most", &json!({"reservedCIDRs": most}));
    let mut node = node(&cluster);
    node.start();
    let blocks = cluster.list::<IpBlock>(Kind::IpBlock);
    let cidrs: Vec<String> = blocks.iter().map(|block| block.spec.cidr.to_string()).collect();
    assert_eq!(cidrs, ["10.1.0.12/30"]);

    let pods = pods(["a", "b", "c"]);
    let given: Vec<IpAddr> = pods[..2]
        .iter()
        .map(|pod| node.added(&add(&node, "default", pod, &json!({})))[0])
        .collect();
    let free: [IpAddr; 2] = ["10.1.0.14", "10.1.0.15"].map(|address| address.parse().unwrap());
    assert_eq!(given, free);
    let (code, message) = refusal(&add(&node, "default", &pods[2], &json!({})));
    assert_eq!((code, message.contains("10.1.0")), (101, false), "{message}");

    cluster.delete(Kind::IpReservation, "most");
    let taken = || add(&node, "default", &pods[2], &json!({})).status.success();
    assert!(eventually(Duration::from_secs(20), taken), "{}", node.log());
}

#[test]
fn a_freed_address_rests_and_is_used_again_only_when_no_block_can_be_had() {
    let cluster = Cluster::empty();
    cluster.create_pool("small", &json!({"cidr": "10.1.0.0/30", "blockSize": 31}));
    let mut node = node(&cluster);
    node.start();
    let pods = pods(["a", "b", "c", "d", "e", "f"]);
    let first = node.added(&add(&node, "default", &pods[0], &json!({})));
    node.delete(pods[0].container, pods[0].netns.path());
    // Across a restart: when it was freed is in the journal.
    node.end(nix::sys::signal::Signal::SIGKILL);
    node.start();
    let others: Vec<IpAddr> = pods[1..4]
        .iter()
        .map(|pod| node.added(&add(&node, "default", pod, &json!({})))[0])
        .collect();
    assert!(!others.contains(&first[0]), "{first:?} rests: {others:?}");
    let last = node.added(&add(&node, "default", &pods[4], &json!({})));
    assert_eq!(last, first, "there is no other");
    let (code, message) = refusal(&add(&node, "default", &pods[5], &json!({})));
    assert!(
        code == 101 && message.contains("add an IPPool"),
        "{code} {message}"
    );
}

#[test]
fn an_address_that_is_asked_for_is_given_from_whichever_block_it_is_in_or_refused_with_the_reason() {
    let cluster = Cluster::empty();
    cluster.create_pool("v4", &json!({"cidr": "10.1.0.0/24"}));
    cluster.create_pool("v6", &json!({"cidr": "fd01::/64"}));
    cluster.create_pool("off", &json!({"cidr": "10.2.0.0/24", "disabled": true}));
    cluster.create(
        "IPReservation",
        "some",
        &json!({"reservedCIDRs": ["10.1.0.7/32"]}),
    );
    let mut node = node(&cluster);
    node.start();
    let ask = |pod: &Pod, list: &str| {
        let annotations = json!({"cni.projectcalico.org/ipAddrs": list});
        add(&node, "default", pod, &annotations)
    };
    let pods = pods(["a", "b", "c", "d"]);
    // One address of each of the pool's four blocks, so that three are claimed for it; a reserved one, too.
    let blocks = cluster.list::<IpBlock>(Kind::IpBlock).len();
    for (pod, address) in pods
        .iter()
        .zip(["10.1.0.7", "10.1.0.64", "10.1.0.130", "10.1.0.255"])
    {
        let list = format!(r#"["{address}"]"#);
        let given = node.added(&ask(pod, &list));
        assert_eq!(
            given,
            [address.parse::<IpAddr>().unwrap()],
            "that one, and no other family's"
        );
        assert_eq!(node.added(&ask(pod, &list)), given, "asked again");
    }
    assert_eq!(cluster.list::<IpBlock>(Kind::IpBlock).len(), blocks + 3);

    let other = Pod {
        container: "e",
        netns: TestNetns::new("e"),
    };
    for (list, code, problem) in [
        (r#"["10.1.0.64"]"#, 11, "is held by eth0 of container b"),
        (r#"["10.2.0.1"]"#, 101, "which is disabled"),
        (r#"["10.3.0.1"]"#, 101, "is in no IPPool"),
        (r#"["10.1.0.1", "10.1.0.2"]"#, 7, "two IPv4 addresses"),
        ("10.1.0.1", 7, "no JSON list"),
        (r#"["fd01::7", "10.1.0.64"]"#, 11, "is held"),
    ] {
        let refused = refusal(&ask(&other, list));
        assert!(
            refused.0 == code && refused.1.contains(problem),
            "{list}: {refused:?}"
        );
    }
    assert_eq!(node.held(), 4, "what was refused took nothing");
    let both = node.added(&ask(&other, r#"["fd01::7", "10.1.0.1"]"#));
    assert_eq!(both.len(), 2);
    node.delete("b", pods[1].netns.path());
    let by_runtime = json!({"ips": ["10.1.0.64/24"]});
    let given = node.cni_of("default", "ADD", "b", pods[1].netns.path(), &by_runtime);
    assert_eq!(node.added(&given), ["10.1.0.64".parse::<IpAddr>().unwrap()]);
}

#[test]
fn metrics_count_each_blocks_addresses_and_each_pools_blocks() {
    let cluster = Cluster::empty();
    cluster.create_pool("small", &json!({"cidr": "10.1.0.0/28", "blockSize": 30}));
    // One address of each block.
    let some = ["10.1.0.0/32", "10.1.0.4/32", "10.1.0.8/32", "10.1.0.12/32"];
    cluster.create("IPReservation", "some", &json!({"reservedCIDRs": some}));
    let mut node = node(&cluster);
    node.netns.ip("link set lo up");
    node.configure("http", json!("127.0.0.1:9099"));
    node.start();
    let pods = pods(["a", "b"]);
    for pod in &pods {
        assert!(add(&node, "default", pod, &json!({})).status.success());
    }
    node.delete("a", pods[0].netns.path());
    let block = cluster.list::<IpBlock>(Kind::IpBlock)[0].spec.cidr;
    let mut wanted: Vec<String> = [
        ("InUse", 1),
        ("Cooling", 1),
        ("Reserved", 1),
        ("Lent", 0),
        ("Free", 1),
    ]
    .map(|(state, count)| {
        format!(r#"manx_ipam_block_addresses{{pool="small",block="{block}",state="{state}"}} {count}"#)
    })
    .into();
    wanted.push(r#"manx_ipam_pool_blocks{pool="small"} 1"#.to_owned());
    wanted.sort();
    let mut told = Vec::new();
    let counted = eventually(Duration::from_secs(20), || {
        let page = fetch(&node.netns, "127.0.0.1:9099", "/metrics").unwrap_or_default();
        let of_ipam = |line: &&str| {
            ["manx_ipam_block_addresses{", "manx_ipam_pool_blocks{"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        told = page.lines().filter(of_ipam).map(str::to_owned).collect();
        told.sort();
        told == wanted
    });
    assert!(counted, "{told:#?}");
}
