//! Connections of the real kernel: listed as they are, and forgotten when asked.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use manx_linux::{Connection, ConnectionSocket};
use manx_policy::Family;
use nix::sys::signal::Signal;

use crate::agent_harness::Cluster;
use crate::harness::{TestNetns, eventually, exchange};

/// Two machines, the first of which tracks connections, of both families.
fn tracked() -> [TestNetns; 2] {
    let pair = TestNetns::pair(["tracker", "peer"]);
    for program in ["iptables", "ip6tables"] {
        run(
            &pair[0],
            &[program, "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID"],
        );
    }
    pair
}

fn run(netns: &TestNetns, words: &[&str]) {
    let output = netns.command(words[0]).args(&words[1..]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {complaint}");
}

fn all(socket: &mut ConnectionSocket) -> Vec<Connection> {
    Family::ALL
        .into_iter()
        .flat_map(|family| socket.list(family).unwrap())
        .filter(|connection| connection.protocol == 17)
        .collect()
}

#[test]
fn connections_of_an_address_are_forgotten_and_the_others_stay() {
    let [tracker, peer] = tracked();
    tracker.ip("address add 192.0.2.11/24 dev eth0");
    let addresses = ["192.0.2.1", "192.0.2.11", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
    for address in addresses {
        assert!(exchange(&peer, &tracker, address).is_some(), "{address}");
    }
    let mut socket = ConnectionSocket::open_in(&tracker).unwrap();
    let before = all(&mut socket);
    let ends: Vec<(IpAddr, IpAddr)> = before
        .iter()
        .map(|it| (it.source.ip(), it.destination.ip()))
        .collect();
    assert_eq!(before.len(), 3, "{ends:?}");
    assert!(
        before
            .iter()
            .all(|it| it.source.port() > 0 && it.destination.port() > 0)
    );

    for (gone, address) in addresses.into_iter().enumerate() {
        let theirs: Vec<&Connection> = before
            .iter()
            .filter(|it| it.ends().iter().any(|end| end.ip() == address))
            .collect();
        assert_eq!(theirs.len(), 1, "{address}");
        assert_eq!(socket.forget(theirs.iter().copied()).unwrap(), 1);
        assert_eq!(all(&mut socket).len(), 2 - gone);
        assert_eq!(socket.forget(theirs).unwrap(), 0, "it has been forgotten already");
    }
}

#[test]
fn translated_connections_name_the_pod_behind_the_service() {
    let [tracker, peer] = tracked();
    peer.ip("route add 10.96.0.1 via 192.0.2.1");
    run(
        &tracker,
        &[
            "iptables",
            "-t",
            "nat",
            "-A",
            "PREROUTING",
            "-d",
            "10.96.0.1",
            "-j",
            "DNAT",
            "--to",
            "192.0.2.1",
        ],
    );
    let receiver = tracker.run(|| UdpSocket::bind("192.0.2.1:53").unwrap()).unwrap();
    let sender = peer.run(|| UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
    sender.send_to(b"question", "10.96.0.1:53").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    receiver.recv_from(&mut [0; 16]).unwrap();
    let mut socket = ConnectionSocket::open_in(&tracker).unwrap();
    let connections = all(&mut socket);
    let ends = connections
        .iter()
        .map(|it| it.ends().map(|end| end.to_string()))
        .collect::<Vec<_>>();
    let source = sender.local_addr().unwrap().to_string();
    assert_eq!(ends, [[&source, "10.96.0.1:53", "192.0.2.1:53", &source]]);
    assert_eq!(socket.forget(&connections).unwrap(), 1);
}

/// The pods' addresses that connections on the node have at an end.
fn connected(node: &TestNetns, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut socket = ConnectionSocket::open_in(node).unwrap();
    let connections = all(&mut socket);
    let has = |address: &&IpAddr| {
        connections
            .iter()
            .any(|it| it.ends().iter().any(|end| end.ip() == **address))
    };
    addresses.iter().filter(has).copied().collect()
}

#[test]
fn a_pods_connections_end_with_it() {
    let cluster = Cluster::new();
    let [netns, _beyond] = tracked();
    let mut node = cluster.node("n1", netns);
    node.start();
    let pods = ["a", "b", "c"].map(TestNetns::new);
    let at: Vec<Vec<IpAddr>> = ["a", "b", "c"]
        .iter()
        .zip(&pods)
        .map(|(name, pod)| node.add(name, pod))
        .collect();
    let [b, c] = [&at[1], &at[2]];
    let everybody = at.concat();
    let [pod_a, pod_b, pod_c] = pods;
    for family in 0..2 {
        assert!(exchange(&pod_a, &pod_b, b[family]).is_some());
        assert!(
            exchange(
                &pod_c,
                &node.netns,
                ["192.0.2.1", "2001:db8::1"][family].parse().unwrap()
            )
            .is_some()
        );
    }
    assert_eq!(connected(&node.netns, &everybody), everybody);

    node.delete("a", pod_a.path());
    assert_eq!(connected(&node.netns, &everybody), *c, "b spoke to nobody but a");

    node.end(Signal::SIGKILL);
    drop(pod_c);
    // The kernel takes a namespace apart in its own time, and the pod's link with it.
    let links = || node.netns.ip("-o link").matches(": mx").count();
    assert!(
        eventually(Duration::from_secs(10), || links() == 1),
        "{}",
        node.netns.ip("-o link")
    );
    node.start();
    assert!(connected(&node.netns, &everybody).is_empty(), "{}", node.log());
}
