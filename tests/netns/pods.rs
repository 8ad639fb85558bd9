//! Pods on one node.

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use manx_linux::pod::{self, Attached, PodLink};
use manx_linux::{Error, LinkSocket, Result, RouteSocket, sysctl};
use manx_routes::{Change, METRIC, Route, Source, Target};

use crate::harness::{TestNetns, exchange, exchange_as};

/// A node that forwards, and what attaches pods to it.
struct Node(TestNetns);

impl Node {
    fn new() -> Self {
        let node = TestNetns::new("node");
        node.run(sysctl::enable_forwarding).unwrap().unwrap();
        Self(node)
    }

    fn attach(&self, link: &PodLink) -> Result<Attached> {
        self.0.run(|| pod::attach(link))?
    }

    fn check(&self, link: &PodLink) -> Result<Attached> {
        self.0.run(|| pod::check(link))?
    }

    fn detach(&self, link: &PodLink) -> Result<()> {
        self.0
            .run(|| pod::detach(&link.host_ifname, Some(&link.netns), &link.ifname))?
    }

    /// Attaches a pod and routes its addresses to it, as the agent does.
    fn plug(&self, pod: &TestNetns, addresses: &[&str]) -> (PodLink, Attached) {
        let link = link(pod, addresses);
        let attached = self.attach(&link).unwrap();
        let target = Target::Device(attached.host_ifindex);
        let add = |address: &IpAddr| {
            Change::Add(Route {
                prefix: (*address).into(),
                target: target.clone(),
                source: Source::Pod,
                metric: METRIC,
            })
        };
        let changes: Vec<Change> = link.addresses.iter().map(add).collect();
        let outcomes = RouteSocket::open_in(&self.0).unwrap().commit(&changes).unwrap();
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        (link, attached)
    }

    fn interfaces(&self) -> Vec<String> {
        names(&self.0)
    }
}

fn names(netns: &TestNetns) -> Vec<String> {
    LinkSocket::open_in(netns)
        .unwrap()
        .list()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect()
}

fn link(pod: &TestNetns, addresses: &[&str]) -> PodLink {
    let container = pod.path().file_name().unwrap().to_str().unwrap();
    PodLink {
        netns: pod.path().to_owned(),
        ifname: "eth0".into(),
        host_ifname: pod::host_ifname(container, "eth0"),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn packets_pass_at_once_between_node_and_pods_with_their_true_source() {
    let (node, one, two) = (Node::new(), TestNetns::new("one"), TestNetns::new("two"));
    let mut links = LinkSocket::open_in(&node.0).unwrap();
    for address in ["192.0.2.100/32", "fd00::100/128"] {
        links.add_address(1, address.parse().unwrap()).unwrap();
    }
    node.plug(&one, &["10.0.0.1", "fd10::1"]);
    node.plug(&two, &["10.0.0.2", "fd10::2"]);
    for (first, second, host) in [
        ("10.0.0.1", "10.0.0.2", "192.0.2.100"),
        ("fd10::1", "fd10::2", "fd00::100"),
    ] {
        assert_eq!(exchange(&one, &two, ip(second)), Some(ip(first)));
        assert_eq!(exchange(&two, &one, ip(first)), Some(ip(second)));
        assert_eq!(exchange(&node.0, &one, ip(first)), Some(ip(host)));
        assert_eq!(exchange(&two, &node.0, ip(host)), Some(ip(second)));
    }
}

#[test]
fn nobody_asks_who_has_an_address() {
    let (node, one, two) = (Node::new(), TestNetns::new("one"), TestNetns::new("two"));
    let (_, attached) = node.plug(&one, &["10.0.0.1", "fd10::1"]);
    node.plug(&two, &["10.0.0.2", "fd10::2"]);
    for address in ["10.0.0.1", "fd10::1"] {
        assert!(exchange(&two, &one, ip(address)).is_some(), "{address}");
    }
    for family in ["-4", "-6"] {
        for netns in [&node.0, &one, &two] {
            let neighbours = netns.ip(&format!("{family} neigh show nud all"));
            let learned = neighbours
                .lines()
                .find(|line| !line.contains("PERMANENT") && !line.contains("NOARP"));
            assert_eq!(learned, None, "every neighbour is known for good");
        }
    }
    let neighbours = LinkSocket::open_in(&node.0)
        .unwrap()
        .neighbours(attached.host_ifindex)
        .unwrap();
    assert!(neighbours.contains(&(ip("10.0.0.1"), attached.pod_mac)));
}

#[test]
fn a_pod_of_one_family_has_a_link_of_one_family() {
    let (node, four, six) = (Node::new(), TestNetns::new("four"), TestNetns::new("six"));
    let (v4, _) = node.plug(&four, &["10.0.0.4"]);
    let (v6, _) = node.plug(&six, &["fd10::6"]);
    assert!(node.check(&v4).is_ok() && node.check(&v6).is_ok());
    assert_eq!(four.ip("-6 route show default"), "");
    assert_eq!(six.ip("-4 route show"), "");
    let off = |link: &PodLink| format!("ipv6/conf/{}/disable_ipv6", link.host_ifname);
    assert_eq!(node.0.run(|| sysctl::get(&off(&v4))).unwrap().unwrap(), "1");
    assert_eq!(node.0.run(|| sysctl::get(&off(&v6))).unwrap().unwrap(), "0");
}

#[test]
fn a_pod_cannot_speak_for_another() {
    let (node, one, two) = (Node::new(), TestNetns::new("one"), TestNetns::new("two"));
    node.plug(&one, &["10.0.0.1"]);
    node.plug(&two, &["10.0.0.2"]);
    one.ip("addr add 10.0.0.9/32 dev lo");
    assert_eq!(
        exchange_as(&one, Some(ip("10.0.0.9")), &two, ip("10.0.0.2")),
        None
    );
    assert_eq!(
        exchange_as(&one, Some(ip("10.0.0.1")), &two, ip("10.0.0.2")),
        Some(ip("10.0.0.1"))
    );
}

#[test]
fn the_same_attach_again_finds_it_done() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = PodLink {
        mtu: Some(1400),
        ..link(&pod, &["10.0.0.1", "fd10::1"])
    };
    let attached = node.attach(&link).unwrap();
    assert_eq!(attached.netns_inode, pod.inode().unwrap());
    assert_eq!(attached.mtu, 1400);
    assert_eq!(node.attach(&link).unwrap(), attached);
    assert_eq!(node.check(&link).unwrap(), attached);
}

#[test]
fn what_is_half_made_or_spoilt_is_seen_and_made_anew() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = link(&pod, &["10.0.0.1", "fd10::1"]);
    let host = &link.host_ifname;
    let spoils: [(&TestNetns, String, &str); 9] = [
        (&pod, "link set eth0 down".into(), "eth0 is down"),
        (&pod, "addr del 10.0.0.1/32 dev eth0".into(), "has the addresses"),
        (&pod, "addr add 10.0.0.2/32 dev eth0".into(), "has the addresses"),
        (
            &pod,
            "route del default".into(),
            "no default route via 169.254.1.1",
        ),
        (
            &pod,
            "-6 route del default".into(),
            "no default route via fe80::1",
        ),
        (
            &pod,
            "neigh del 169.254.1.1 dev eth0".into(),
            "no neighbour 169.254.1.1",
        ),
        (
            &node.0,
            format!("neigh del fd10::1 dev {host}"),
            "no neighbour fd10::1",
        ),
        (&node.0, format!("link set {host} name other"), "no interface mx"),
        (&pod, "link set eth0 name other".into(), "no interface eth0"),
    ];
    for (place, spoil, complaint) in spoils {
        let attached = node.attach(&link).unwrap();
        place.ip(&spoil);
        let error = node.check(&link).unwrap_err().to_string();
        assert!(error.contains(complaint), "after {spoil}: {error}");
        if spoil.contains(" name other") {
            // An end that was renamed is somebody's now, or goes with the other.
            node.detach(&link).unwrap();
        }
        assert_ne!(
            node.attach(&link).unwrap().host_ifindex,
            attached.host_ifindex,
            "after {spoil}"
        );
        node.check(&link).unwrap();
        node.detach(&link).unwrap();
        assert_eq!(
            (node.interfaces(), names(&pod)),
            (vec!["lo".into()], vec!["lo".into()]),
            "after {spoil}"
        );
    }
}

#[test]
fn a_pair_that_an_earlier_life_made_and_no_more_is_finished() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = link(&pod, &["10.0.0.1", "fd10::1"]);
    node.0.ip(&format!(
        "link add {} type veth peer name eth0 netns {}",
        link.host_ifname,
        pod_name(&pod)
    ));
    assert!(node.check(&link).is_err());
    node.attach(&link).unwrap();
    node.check(&link).unwrap();
}

fn pod_name(pod: &TestNetns) -> &str {
    pod.path().file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_leftover_of_another_pod_does_not_stand_in_the_way() {
    let (node, old, new) = (Node::new(), TestNetns::new("old"), TestNetns::new("new"));
    let mut link = link(&old, &["10.0.0.1"]);
    node.attach(&link).unwrap();
    link.netns = new.path().to_owned();
    node.attach(&link).unwrap();
    assert_eq!(names(&old), ["lo"]);
    node.check(&link).unwrap();
}

#[test]
fn an_interface_of_somebody_else_stays() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    pod.ip("link add eth0 type bridge");
    let link = link(&pod, &["10.0.0.1"]);
    assert!(matches!(node.attach(&link), Err(Error::Taken { ifname }) if ifname == "eth0"));
    assert_eq!(node.interfaces(), ["lo"], "nothing is left of the attempt");
    node.detach(&link).unwrap();
    assert_eq!(names(&pod), ["lo", "eth0"]);
}

#[test]
fn an_attach_that_fails_leaves_nothing() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = PodLink {
        addresses: vec![ip("10.0.0.1"), ip("ff02::5")],
        ..link(&pod, &[])
    };
    assert!(matches!(node.attach(&link), Err(Error::Refused { .. })));
    assert_eq!(
        (node.interfaces(), names(&pod)),
        (vec!["lo".into()], vec!["lo".into()])
    );
}

#[test]
fn a_pod_that_has_gone_can_be_detached_any_number_of_times_and_not_attached() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = link(&pod, &["10.0.0.1", "fd10::1"]);
    node.attach(&link).unwrap();
    node.detach(&link).unwrap();
    node.detach(&link).unwrap();
    node.attach(&link).unwrap();
    drop(pod);
    node.detach(&link).unwrap();
    node.detach(&link).unwrap();
    assert!(matches!(node.attach(&link), Err(Error::NoNetns(path)) if path == link.netns));
    assert!(matches!(node.check(&link), Err(Error::NoNetns(_))));
    let unknown = node
        .0
        .run(|| pod::detach("mx00000000000", Some(Path::new("/nowhere")), "eth0"))
        .unwrap();
    unknown.unwrap();
    assert_eq!(node.interfaces(), ["lo"]);
}

#[test]
fn attaching_takes_milliseconds() {
    let node = Node::new();
    let pods: Vec<TestNetns> = (0..20).map(|_| TestNetns::new("pod")).collect();
    let mut times = Vec::new();
    for (i, pod) in pods.iter().enumerate() {
        let link = link(pod, &[&format!("10.0.0.{i}"), &format!("fd10::{i}")]);
        let time = node.0.run(|| {
            let start = Instant::now();
            pod::attach(&link).unwrap();
            start.elapsed()
        });
        times.push(time.unwrap());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("attach: median {median:?}, slowest {:?}", times[times.len() - 1]);
    // Ten times what an idle machine needs: this test shall catch a sleep, not a busy neighbour.
    assert!(median.as_millis() < 50, "{median:?}");
}
