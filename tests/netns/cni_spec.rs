//! The CNI specification 1.1, sentence by sentence, with a real agent and real namespaces. Each test names its
//! section; what the plugin alone answers is in `cni/tests/suite`.

use std::io::Read as _;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use manx_cni::{SpecVersion, Success};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::agent_harness::{Cluster, Node};
use crate::cni_runtime::{Container, Network, Outcome};
use crate::harness::{TestNetns, eventually, exchange};

/// What the kernel may take to send of its own accord.
const A_WHILE: Duration = Duration::from_millis(1500);

/// ARP's number in an Ethernet frame.
const ETHERTYPE_ARP: u16 = 0x0806;

/// A node at work, and what is at the other end of its wire.
fn node(cluster: &Cluster) -> (Node, TestNetns) {
    let [netns, outside] = TestNetns::pair(["node", "outside"]);
    let mut node = cluster.node("n1", netns);
    node.start();
    (node, outside)
}

/// The code, the message and the details of an error.
#[track_caller]
fn error(outcome: Outcome) -> (i64, String, String) {
    let error = outcome.unwrap_err();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (error["code"].as_i64().unwrap(), text("msg"), text("details"))
}

/// Section 5, "ADD Success", in every version: what is answered is what the kernel has.
#[test]
fn an_add_answers_what_the_kernel_has() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    for version in SpecVersion::ALL {
        let pod = TestNetns::new("pod");
        let container = Container::new(&format!("c-{version}"), pod.path());
        let network = Network::new(&node, version.as_str(), "pods", &[]);
        let answer = network.add(&container).unwrap();
        assert_eq!(answer["cniVersion"], version.as_str());
        let result: Success = serde_json::from_value(answer.clone()).unwrap();
        let [host, inside] = result.interfaces.as_slice() else {
            panic!("{answer}")
        };
        assert_eq!(
            (host.sandbox.as_deref(), inside.sandbox.as_deref()),
            (None, pod.path().to_str())
        );
        for (place, interface) in [(&node.netns, host), (&pod, inside)] {
            let link = place.ip(&format!("link show {}", interface.name));
            assert!(link.contains(interface.mac.as_deref().unwrap()), "{link}");
            if version >= SpecVersion::V1_1_0 {
                assert!(
                    link.contains(&format!("mtu {}", interface.mtu.unwrap())),
                    "{link}"
                );
            }
        }
        let addresses = pod.ip("-o addr show dev eth0");
        for ip in &result.ips {
            assert_eq!(ip.interface, Some(1));
            assert!(addresses.contains(&ip.address.to_string()), "{addresses}");
        }
        for route in &result.routes {
            let family = if route.dst.is_ipv4() { "-4" } else { "-6" };
            let routes = pod.ip(&format!("{family} route show default"));
            assert!(routes.contains(&format!("via {}", route.gw.unwrap())), "{routes}");
        }
    }
}

/// Section 2, ADD: "If an interface of the requested name already exists in the container, the CNI plugin MUST
/// return with an error."
#[test]
fn an_add_under_a_name_that_is_taken_fails_and_holds_nothing() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    pod.ip("link add eth0 type bridge");
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let (code, message, details) = error(network.add(&Container::new("c", pod.path())));
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("CNI_IFNAME is taken"), "{message}");
    assert!(details.contains("an interface eth0 already"), "{details}");
    assert_eq!(node.held(), 0);
}

/// Section 3: an attachment is known by `(CNI_CONTAINERID, CNI_IFNAME)`; one container may have several.
#[test]
fn a_container_is_attached_once_per_interface() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let (blue, red) = (
        Network::new(&node, "1.1.0", "blue", &[]),
        Network::new(&node, "1.1.0", "red", &[]),
    );
    let container = Container::new("c", pod.path());
    blue.add(&container).unwrap();
    let (code, message, _) = error(red.add(&container));
    assert_eq!(code, 4);
    assert!(
        message.contains("attached to network 'blue' already"),
        "{message}"
    );
    assert_eq!(node.held(), 2, "the first attachment stays");
    let second = Container {
        ifname: "eth1".to_owned(),
        ..container
    };
    // The second default routes replace the first: which of two networks leads out is the runtime's choice.
    red.add(&second).unwrap();
    assert_eq!(node.held(), 4);
}

/// Section 2, DEL: "Plugins MUST accept multiple DEL calls", "should still return without error if prevResult is
/// empty", and complete "even if some resources or state are missing".
#[test]
fn a_del_succeeds_whatever_is_left() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let add = |name: &str| {
        let pod = TestNetns::new(name);
        let container = Container::new(name, pod.path());
        let result = network.add(&container).unwrap();
        (pod, container, result)
    };
    let (_pod, container, result) = add("whole");
    network.del(&container, Some(&result)).unwrap();
    network.del(&container, Some(&result)).unwrap();
    let (pod, container, result) = add("netns-gone");
    drop(pod);
    network.del(&container, Some(&result)).unwrap();
    let (pod, container, _) = add("interface-gone");
    pod.ip("link del eth0");
    network.del(&container, None).unwrap();
    let (_pod, container, _) = add("no-namespace-named");
    let request = node.plugin();
    let unnamed = Container {
        netns: "".into(),
        ..container
    };
    network.del(&unnamed, Some(&request)).unwrap();
    assert_eq!(node.held(), 0);
    assert!(
        !node.netns.ip("link").contains(": mx"),
        "{}",
        node.netns.ip("link")
    );
}

/// Section 2, CHECK: right after ADD; every version that has it.
#[test]
fn a_check_finds_what_add_made() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let pod = TestNetns::new("pod");
        let network = Network::new(&node, version, "pods", &[]);
        let container = Container::new(&format!("c-{version}"), pod.path());
        let result = network.add(&container).unwrap();
        network.check(&container, &result).unwrap();
    }
}

/// Section 2, CHECK: "should return an error if a resource … was created by the plugin, and is listed in
/// prevResult, but is missing or in an invalid state", with everything named that is so.
#[test]
fn a_check_names_every_difference() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let container = Container::new("c", pod.path());
    let result = network.add(&container).unwrap();
    let host = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    pod.ip("link set eth0 mtu 1400");
    pod.ip("route del default");
    pod.ip("neigh del fe80::1 dev eth0");
    pod.ip("addr add 192.0.2.77/32 dev eth0");
    node.netns
        .ip(&format!("link set {host} address 02:00:00:00:00:01"));
    let (code, message, details) = error(network.check(&container, &result));
    assert_eq!(code, 100);
    assert_eq!(
        message,
        "eth0 of container c is not as ADD left it: DEL and ADD it again"
    );
    let mtu = &result["interfaces"][1]["mtu"];
    for part in [
        format!("the MTU of eth0 is 1400 and not {mtu}"),
        "the pod has no default route via 169.254.1.1".to_owned(),
        "eth0 has no neighbour fe80::1".to_owned(),
        "the address 192.0.2.77/32, which nobody gave it".to_owned(),
        format!("the MAC of {host} is 02:00:00:00:00:01"),
    ] {
        assert!(details.contains(&part), "{part} is not in: {details}");
    }
    let other = TestNetns::new("other");
    let mut foreign = network.add(&Container::new("other", other.path())).unwrap();
    foreign["interfaces"][1]["sandbox"] = json!(pod.path());
    let (_, _, details) = error(network.check(&container, &foreign));
    assert!(
        details.contains("which the attachment does not hold"),
        "{details}"
    );
}

/// Section 5, "Error", code 3: "Container unknown or does not exist."
#[test]
fn a_check_of_what_is_not_there_says_so() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let pod = TestNetns::new("pod");
    let container = Container::new("c", pod.path());
    let (code, message, _) = error(network.check(&container, &json!({})));
    assert_eq!(
        (code, message.as_str()),
        (3, "eth0 of container c holds no address: ADD it again")
    );
    let result = network.add(&container).unwrap();
    let path = container.netns.display().to_string();
    drop(pod);
    let (code, message, details) = error(network.check(&container, &result));
    assert_eq!(code, 3);
    assert!(message.contains("network namespace is gone"), "{message}");
    assert!(details.contains(&path), "{details}");
}

/// Section 2, STATUS: not able to service ADD "if those resources are exhausted".
#[test]
fn a_status_without_free_addresses_is_error_50() {
    let cluster = Cluster::empty();
    cluster.create_pool("small", &json!({"cidr": "10.64.0.0/31", "blockSize": 31}));
    let (node, _outside) = node(&cluster);
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    assert_eq!(network.status(), Ok(Value::Null));
    let pods = [TestNetns::new("a"), TestNetns::new("b"), TestNetns::new("c")];
    let containers = pods
        .each_ref()
        .map(|pod| Container::new(&format!("c{}", pod.inode().unwrap()), pod.path()));
    network.add(&containers[0]).unwrap();
    network.add(&containers[1]).unwrap();
    let (code, message, _) = error(network.status());
    assert_eq!(code, 50);
    assert!(
        message.contains("every IPv4 address of this node's blocks is held"),
        "{message}"
    );
    let (code, message, _) = error(network.add(&containers[2]));
    assert_eq!(code, 101, "{message}");
    network.del(&containers[0], None).unwrap();
    assert_eq!(network.status(), Ok(Value::Null));
}

/// Section 2, GC: "the expected set of attachments to a network"; what is of other networks is not touched.
#[test]
fn a_gc_removes_what_is_not_valid_and_of_its_own_network_alone() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let (blue, red) = (
        Network::new(&node, "1.1.0", "blue", &[]),
        Network::new(&node, "1.1.0", "red", &[]),
    );
    let pods = ["stale", "valid", "gone", "red"].map(TestNetns::new);
    let [stale, valid, gone, other] = ["stale", "valid", "gone", "red"].map(|name| {
        let pod = pods
            .iter()
            .find(|pod| pod.path().to_str().unwrap().ends_with(name));
        Container::new(name, pod.unwrap().path())
    });
    for container in [&stale, &valid, &gone] {
        blue.add(container).unwrap();
    }
    let kept = blue.add(&valid).unwrap();
    let others = red.add(&other).unwrap();
    let [_stale, _valid, vanishing, _red] = pods;
    drop(vanishing);
    assert_eq!(blue.gc(&[&valid]), Ok(Value::Null));
    assert_eq!(node.held(), 4, "two attachments of two addresses: {}", node.log());
    blue.check(&valid, &kept).unwrap();
    red.check(&other, &others).unwrap();
    assert_eq!(blue.gc(&[]), Ok(Value::Null));
    red.check(&other, &others).unwrap();
    assert_eq!(node.held(), 2);
}

/// CONVENTIONS.md, "Well-known Capabilities": `mac`.
#[test]
fn a_pod_gets_the_mac_that_the_runtime_names() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let plain = Container::new("c", pod.path());
    let container = plain.clone().wishing(json!({"mac": "02:00:00:00:00:07"}));
    let result = network.add(&container).unwrap();
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:07");
    assert!(pod.ip("link show eth0").contains("02:00:00:00:00:07"));
    network.check(&container, &result).unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address: IpAddr = address.split('/').next().unwrap().parse().unwrap();
    assert!(exchange(&node.netns, &pod, address).is_some());
    network.del(&container, Some(&result)).unwrap();
    let (code, message, _) = error(network.add(&plain.wishing(json!({"mac": "ee:ee:ee:ee:ee:ee"}))));
    assert_eq!(code, 7, "{message}");
    assert_eq!(node.held(), 0);
}

/// CONVENTIONS.md, "Well-known Capabilities": `ips`. What cannot be had is not replaced by something else.
#[test]
fn a_requested_address_that_nobody_has_to_give_is_refused() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let container = Container::new("c", pod.path()).wishing(json!({"ips": ["198.51.100.9/24"]}));
    let (_, message, _) = error(network.add(&container));
    assert!(message.contains("198.51.100.9"), "{message}");
    assert_eq!(node.held(), 0);
}

#[test]
fn the_mtu_is_the_uplinks_or_the_configurations() {
    let cluster = Cluster::new();
    let [netns, _outside] = TestNetns::pair(["node", "outside"]);
    netns.ip("link set eth0 mtu 1450");
    let mut node = cluster.node("n1", netns);
    node.start();
    let mtu = |more: Value, name: &str| {
        let pod = TestNetns::new(name);
        let network = Network::new(&node, "1.1.0", "pods", &[]).with(&more);
        let container = Container::new(name, pod.path());
        let result = network.add(&container).map_err(|error| error["code"].clone())?;
        network.check(&container, &result).unwrap();
        network.del(&container, Some(&result)).unwrap();
        Ok(result["interfaces"][1]["mtu"].clone())
    };
    assert_eq!(mtu(json!({}), "detected"), Ok(json!(1450)));
    assert_eq!(mtu(json!({"mtu": 1300}), "configured"), Ok(json!(1300)));
    assert_eq!(mtu(json!({"mtu": 1000}), "too-small-for-ipv6"), Err(json!(7)));
    assert_eq!(node.held(), 0);
}

/// A pod is there without a word on any wire, and can bind its addresses when ADD returns.
#[test]
fn nothing_is_asked_or_announced_and_addresses_are_ready_at_once() {
    let cluster = Cluster::new();
    let (node, outside) = node(&cluster);
    let pod = TestNetns::new("pod");
    let arp = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
    let mut listener = node
        .netns
        .run(|| Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(arp)).unwrap())
        .unwrap();
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let result = network.add(&Container::new("c", pod.path())).unwrap();
    let result: Success = serde_json::from_value(result).unwrap();
    for ip in &result.ips {
        let bound = pod.run(|| UdpSocket::bind((ip.address.ip(), 0))).unwrap();
        assert!(bound.is_ok(), "{}: {bound:?}", ip.address);
        assert!(exchange(&node.netns, &pod, ip.address.ip()).is_some());
    }
    std::thread::sleep(A_WHILE);
    let heard = listener.read(&mut [0; 64]);
    assert!(heard.is_err(), "an ARP packet of {heard:?} bytes");
    exchange(&node.netns, &outside, IpAddr::from([192, 0, 2, 2])).unwrap();
    assert!(
        listener.read(&mut [0; 64]).is_ok(),
        "the listener hears ARP where there is some"
    );
    let counters = pod.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap());
    for counter in counters.unwrap().lines().map(str::split_whitespace) {
        let counter: Vec<_> = counter.collect();
        let announces = [
            "Icmp6OutNeighborSolicits",
            "Icmp6OutNeighborAdvertisements",
            "Icmp6OutRouterSolicits",
        ];
        assert!(
            !announces.contains(&counter[0]) || counter[1] == "0",
            "the pod has sent: {counter:?}"
        );
    }
}

/// Section 3, "Lifecycle": "Plugins must handle being executed concurrently across different containers."
#[test]
fn containers_that_come_and_go_at_once_get_their_own_addresses() {
    let cluster = Cluster::new();
    let (node, _outside) = node(&cluster);
    let network = Network::new(&node, "1.1.0", "pods", &[]);
    let pods: Vec<_> = (0..8).map(|_| TestNetns::new("pod")).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let attach = |(index, pod): (usize, &TestNetns)| {
            let container = Container::new(&format!("c{index}"), pod.path());
            let network = &network;
            scope.spawn(move || {
                let first = network.add(&container).unwrap();
                network.del(&container, Some(&first)).unwrap();
                let second = network.add(&container).unwrap();
                network.check(&container, &second).unwrap();
                second["ips"][0]["address"].as_str().unwrap().to_owned()
            })
        };
        let threads: Vec<_> = pods.iter().enumerate().map(attach).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 8);
    let settled = || node.held() == 16;
    assert!(eventually(Duration::from_secs(5), settled), "{}", node.held());
}
