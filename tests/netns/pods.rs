//! Pods on one node.

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use manx_linux::pod::{self, Amendments, Attached, PodLink};
use manx_linux::{Error, LinkSocket, Mac, Result, RouteSocket, sysctl};
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

    /// Every difference of a link from what it should be.
    fn check(&self, link: &PodLink) -> Result<Vec<String>> {
        self.0.run(|| pod::check(link, &Amendments::default()))?
    }

    fn assert_whole(&self, link: &PodLink) {
        assert_eq!(self.check(link).unwrap(), [""; 0]);
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
                backup: None,
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
        mac: None,
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
    node.assert_whole(&v4);
    node.assert_whole(&v6);
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
    node.assert_whole(&link);
}

/// Whether it is done in the pod or on the node, what is done by `ip`, and what is said of it. `HOST` is the
/// node's end.
const SPOILS: [(bool, &str, &str); 13] = [
    (true, "link set eth0 down", "eth0 is down"),
    (false, "link set HOST mtu 1300", "is 1300 and not 1400"),
    (true, "link set eth0 mtu 1450", "the MTU of eth0 is 1450"),
    (
        true,
        "link set eth0 address 02:00:00:00:00:09",
        "the MAC of eth0 is 02:00:00:00:00:09",
    ),
    (
        false,
        "link set HOST address 02:00:00:00:00:09",
        "is 02:00:00:00:00:09 and not ee:ee:ee:ee:ee:ee",
    ),
    (
        true,
        "addr del 10.0.0.1/32 dev eth0",
        "has not the address 10.0.0.1/32",
    ),
    (
        true,
        "addr add 10.0.0.2/32 dev eth0",
        "the address 10.0.0.2/32, which nobody gave it",
    ),
    (true, "route del default", "no default route via 169.254.1.1"),
    (true, "-6 route del default", "no default route via fe80::1"),
    (true, "neigh del 169.254.1.1 dev eth0", "no neighbour 169.254.1.1"),
    (false, "neigh del fd10::1 dev HOST", "no neighbour fd10::1"),
    (false, "link set HOST name other", "no interface mx"),
    (true, "link set eth0 name other", "no interface eth0"),
];

#[test]
fn what_is_half_made_or_spoilt_is_seen_and_made_anew() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = PodLink {
        mtu: Some(1400),
        ..link(&pod, &["10.0.0.1", "fd10::1"])
    };
    for (in_pod, spoil, complaint) in SPOILS {
        let attached = node.attach(&link).unwrap();
        let place = if in_pod { &pod } else { &node.0 };
        let spoil = spoil.replace("HOST", &link.host_ifname);
        place.ip(&spoil);
        let differences = node.check(&link).unwrap().join("; ");
        assert!(differences.contains(complaint), "after {spoil}: {differences}");
        if spoil.contains(" name other") {
            // An end that was renamed is somebody's now, or goes with the other.
            node.detach(&link).unwrap();
        }
        assert_ne!(
            node.attach(&link).unwrap().host_ifindex,
            attached.host_ifindex,
            "after {spoil}"
        );
        node.assert_whole(&link);
        node.detach(&link).unwrap();
        assert_eq!(
            (node.interfaces(), names(&pod)),
            (vec!["lo".into()], vec!["lo".into()]),
            "after {spoil}"
        );
    }
}

#[test]
fn a_setting_that_somebody_changed_is_seen_and_set_again() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let link = link(&pod, &["10.0.0.1", "fd10::1"]);
    let host = &link.host_ifname;
    for (place, setting, value) in [
        (&node.0, format!("ipv4/conf/{host}/rp_filter"), "0"),
        (&node.0, format!("ipv4/conf/{host}/forwarding"), "0"),
        (&node.0, format!("ipv6/conf/{host}/accept_ra"), "2"),
        (&pod, "ipv6/conf/eth0/accept_dad".to_owned(), "1"),
        (&pod, "ipv6/conf/eth0/accept_ra".to_owned(), "1"),
    ] {
        node.attach(&link).unwrap();
        let right = place.run(|| sysctl::get(&setting)).unwrap().unwrap();
        place.run(|| sysctl::set(&setting, value)).unwrap().unwrap();
        let difference = format!("{setting} is {value} and not {right}");
        assert_eq!(node.check(&link).unwrap(), [difference]);
        node.attach(&link).unwrap();
        node.assert_whole(&link);
    }
}

#[test]
fn every_difference_is_named_at_once() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let (link, _) = node.plug(&pod, &["10.0.0.1"]);
    let routes = || node.0.run(|| pod::check_routes(&link)).unwrap().unwrap();
    assert_eq!(routes(), [""; 0]);
    pod.ip("neigh del 169.254.1.1 dev eth0");
    pod.ip("route del default");
    pod.ip("addr add 10.0.0.2/32 dev eth0");
    node.0.ip("route del 10.0.0.1/32");
    assert_eq!(
        node.check(&link).unwrap(),
        [
            "eth0 has the address 10.0.0.2/32, which nobody gave it",
            "eth0 has no neighbour 169.254.1.1 with the MAC ee:ee:ee:ee:ee:ee",
            "the pod has no default route via 169.254.1.1",
        ]
    );
    let host = &link.host_ifname;
    assert_eq!(
        routes(),
        [format!("the node has no route to 10.0.0.1 over {host}")]
    );
    node.0.ip(&format!("link del {host}"));
    let gone = [host.as_str(), "eth0"].map(|name| format!("there is no interface {name}"));
    assert_eq!(node.check(&link).unwrap(), gone);
}

#[test]
fn what_others_changed_and_the_runtime_knows_of_is_right() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    let (link, _) = node.plug(&pod, &["10.0.0.1"]);
    pod.ip("addr add 192.0.2.9/24 dev eth0");
    pod.ip("link set eth0 mtu 1300");
    pod.ip("route replace default dev eth0");
    let amendments = Amendments {
        addresses: vec!["192.0.2.9/24".parse().unwrap()],
        gateways: vec![pod::GATEWAY_V4.into()],
        mtu: Some(1300),
    };
    let check = |amendments: &Amendments| node.0.run(|| pod::check(&link, amendments)).unwrap().unwrap();
    assert_eq!(check(&amendments), [""; 0]);
    let other = Amendments {
        mtu: Some(1200),
        ..amendments
    };
    assert_eq!(check(&other), ["the MTU of eth0 is 1300 and not 1200"]);
}

#[test]
fn a_pod_has_the_mac_that_was_asked_for_and_packets_pass() {
    let (node, pod) = (Node::new(), TestNetns::new("pod"));
    node.plug(&pod, &["10.0.0.1"]);
    node.detach(&link(&pod, &["10.0.0.1"])).unwrap();
    let asked = PodLink {
        mac: Some(Mac([2, 0, 0, 0, 0, 7])),
        ..link(&pod, &["10.0.0.1"])
    };
    let attached = node.attach(&asked).unwrap();
    assert_eq!(attached.pod_mac, Mac([2, 0, 0, 0, 0, 7]));
    assert!(pod.ip("link show eth0").contains("02:00:00:00:00:07"));
    node.assert_whole(&asked);
    assert_eq!(
        node.check(&link(&pod, &["10.0.0.1"])).unwrap().len(),
        2,
        "another MAC is a difference, and so is the neighbour"
    );
    node.0.ip("addr add 192.0.2.100/32 dev lo");
    node.0
        .ip(&format!("route add 10.0.0.1/32 dev {}", asked.host_ifname));
    assert!(exchange(&node.0, &pod, ip("10.0.0.1")).is_some());
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
    assert!(node.check(&link).unwrap().len() > 3, "nothing of it is set up");
    node.attach(&link).unwrap();
    node.assert_whole(&link);
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
    node.assert_whole(&link);
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
