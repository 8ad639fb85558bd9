//! What happens to flows under policies, clause by clause: real sockets in real pods, in both back ends and families.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use manx_api::policy::{
    Action, DefaultAction, Endpoint, Hook, Not, Order, Policy, Port, PortRange, Protocol, Rule, Side, Tier,
};
use manx_linux::{Backend, ConnectionSocket};
use manx_policy::{Failsafe, Failsafes, Family, HostAction, HostInterface, Settings, Update};

use crate::harness::{TestNetns, eventually, exchange};
use crate::policies::{MINE, PATIENCE, Site, all_of, enforce, from, ip, origin, pod, policy, rule, select};
use crate::rules::{Owner, iptables, run};

/// How long what is denied is given to arrive all the same: the kernel decides at once.
const MOMENT: Duration = Duration::from_millis(200);
/// The node's addresses on its uplink, and those of the host beyond.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// Two pods that are known, and no policy, in each back end.
fn on_each(site: &Site, check: impl Fn(&mut Owner, Backend)) {
    for backend in Backend::ALL {
        let mut owner = Owner::new(&site.node, Some(backend));
        let pods = pod("mxa", &MINE[0]).into_iter().chain(pod("mxb", &MINE[1]));
        let known = enforce(Settings::default()).into_iter().chain(pods);
        owner.apply(known).unwrap();
        check(&mut owner, backend);
        assert_eq!(owner.check().unwrap(), 0, "{backend:?}");
        owner.apply([Update::Enforce(None)]).unwrap();
        run(&site.node, "conntrack", "-F");
    }
}

/// A site with a host beyond the node's uplink, which knows the way to pods.
fn site_with_outside() -> (Site, TestNetns) {
    let site = Site::new();
    let outside = TestNetns::new("outside");
    let addresses = [NODE, OUTSIDE].map(|[v4, v6]| [format!("{v4}/24"), format!("{v6}/64")]);
    let [near, far] = addresses.each_ref().map(|end| end.each_ref().map(String::as_str));
    site.node.connect(&outside, "eth0", [&near, &far]);
    outside.ip("route add 10.64.0.0/16 via 192.0.2.1");
    outside.ip("route add fd64::/16 via 2001:db8::1");
    let is_up = || {
        let mut pods = MINE[0].iter();
        pods.all(|address| exchange(&outside, &site.pods[0], ip(address)).is_some())
    };
    assert!(eventually(PATIENCE, is_up));
    (site, outside)
}

/// Allows what goes to this port.
fn to_port(protocol: Protocol, port: u16) -> Rule {
    with_port(rule(Action::Allow), protocol, port)
}

fn with_port(rule: Rule, protocol: Protocol, port: u16) -> Rule {
    let range = PortRange {
        first: port,
        last: port,
    };
    let destination = Side {
        ports: vec![Port::Numbers(range)],
        ..rule.destination
    };
    Rule {
        protocol: Some(Not::Is(protocol)),
        destination,
        ..rule
    }
}

fn deny(protocol: Protocol, port: u16) -> Rule {
    with_port(rule(Action::Deny), protocol, port)
}

fn anywhere(family: IpAddr) -> SocketAddr {
    let address = if family.is_ipv4() {
        [0; 4].into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(address, 0)
}

/// Asks `at` from one namespace, and answers from the socket in another: whether both arrive, which is expected or not.
pub(crate) fn asked_by(from: &TestNetns, at: SocketAddr, receiver: &UdpSocket, expected: bool) -> bool {
    let patience = if expected { PATIENCE } else { MOMENT };
    let sender = from.run(|| UdpSocket::bind(anywhere(at.ip())).unwrap()).unwrap();
    for socket in [&sender, receiver] {
        socket.set_read_timeout(Some(patience)).unwrap();
    }
    let mut buffer = [0; 64];
    // A sender whose own node drops it is told so.
    let asked = sender.send_to(b"question", at).is_ok();
    let seen = asked.then(|| receiver.recv_from(&mut buffer).ok()).flatten();
    let answered = seen.is_some_and(|(_, seen)| receiver.send_to(b"answer", seen).is_ok());
    answered && sender.recv_from(&mut buffer).is_ok()
}

/// Asserts whether datagrams to these ports of an address arrive, and their answers with them.
fn udp(
    (from, to): (&TestNetns, &TestNetns),
    address: &str,
    expected: impl IntoIterator<Item = (u16, bool)>,
    why: &str,
) {
    for (port, expected) in expected {
        let at = SocketAddr::new(ip(address), port);
        let receiver = to.run(|| UdpSocket::bind(at).unwrap()).unwrap();
        assert_eq!(asked_by(from, at, &receiver, expected), expected, "{at}: {why}");
    }
}

/// Asserts whether connections to these ports of an address come to be.
fn tcp(
    (from, to): (&TestNetns, &TestNetns),
    address: &str,
    expected: impl IntoIterator<Item = (u16, bool)>,
    why: &str,
) {
    for (port, expected) in expected {
        let at = SocketAddr::new(ip(address), port);
        let _listener = to.run(|| TcpListener::bind(at).unwrap()).unwrap();
        let patience = if expected { PATIENCE } else { MOMENT };
        let connected = from
            .run(|| TcpStream::connect_timeout(&at, patience).is_ok())
            .unwrap();
        assert_eq!(connected, expected, "{at}: {why}");
    }
}

/// Changes of policies that leave what the pod A sends to B allowed, one after the other and round again.
fn unrelated(round: usize) -> Vec<Update> {
    let allow = Rule {
        source: from("app == 'mxa'"),
        ..rule(Action::Allow)
    };
    let closed = || [Some(Vec::new()), Some(Vec::new())];
    let tier = Tier {
        order: Order::from(1),
        default_action: DefaultAction::Pass,
    };
    let first = Policy {
        tier: "first".to_owned(),
        ..all_of(
            select("all()"),
            [Some(vec![rule(Action::Log)]), Some(vec![rule(Action::Pass)])],
        )
    };
    match round % 6 {
        0 => vec![policy("nobodys", "app == 'mxc'", closed())],
        1 => vec![
            Update::Tier("first".to_owned(), Some(tier)),
            Update::Policy(origin("first"), Some(Box::new(first))),
        ],
        2 => vec![policy(
            "in",
            "app == 'mxb'",
            [Some(vec![deny(Protocol::TCP, 9999), allow]), None],
        )],
        3 => vec![
            Update::Policy(origin("nobodys"), None),
            policy("a", "app == 'mxa'", [Some(Vec::new()), None]),
        ],
        4 => vec![policy("in", "app == 'mxb'", [Some(vec![allow]), None])],
        _ => vec![
            Update::Policy(origin("first"), None),
            Update::Policy(origin("a"), None),
        ],
    }
}

#[test]
fn a_connection_goes_on_under_unrelated_changes() {
    let site = Site::new();
    on_each(&site, |owner, backend| {
        owner.apply(unrelated(4)).unwrap();
        for address in MINE[1] {
            let at = SocketAddr::new(ip(address), 80);
            let listener = site.pods[1].run(|| TcpListener::bind(at).unwrap()).unwrap();
            let connect = || TcpStream::connect_timeout(&at, PATIENCE).unwrap();
            let client = site.pods[0].run(connect).unwrap();
            let (served, _) = listener.accept().unwrap();
            for round in 0..12 {
                owner.apply(unrelated(round)).unwrap();
                for (mut from, mut to) in [(&client, &served), (&served, &client)] {
                    to.set_read_timeout(Some(PATIENCE)).unwrap();
                    from.write_all(b"on").unwrap();
                    let read = to.read(&mut [0; 2]);
                    assert!(
                        read.is_ok_and(|read| read > 0),
                        "{backend:?} {at}: change {round}"
                    );
                }
            }
        }
    });
}

/// Answers everything that a socket gets, until told to stop.
fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(MOMENT)).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    }
}

/// Asks until told to stop: by one flow of IPv4, and by flows of IPv6 of one packet each. Returns how many questions were
/// not answered.
fn ask(pod: &TestNetns, at: [SocketAddr; 2], asked: &AtomicU32, stop: &AtomicBool) -> usize {
    let connected = |at: SocketAddr| {
        let socket = UdpSocket::bind(anywhere(at.ip())).unwrap();
        socket.connect(at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let is_answered = |socket: &UdpSocket, number: u32| {
        let mut buffer = [0; 4];
        let sent = socket.send(&number.to_be_bytes()).is_ok();
        sent && socket.recv(&mut buffer).is_ok() && u32::from_be_bytes(buffer) == number
    };
    let work = || {
        let long = connected(at[0]);
        let mut lost = 0;
        while !stop.load(Ordering::Relaxed) {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let answered = [is_answered(&long, number), is_answered(&connected(at[1]), number)];
            lost += answered.iter().filter(|answered| !**answered).count();
        }
        lost
    };
    pod.run(work).unwrap()
}

#[test]
fn no_packet_is_lost_while_policies_churn() {
    /// With their answers, and in two families: 20,000 packets at least.
    const QUESTIONS: u32 = 5_000;
    const CHANGES: usize = 24;
    let site = Site::new();
    let at = MINE[1].map(|address| SocketAddr::new(ip(address), 7));
    on_each(&site, |owner, backend| {
        owner.apply(unrelated(4)).unwrap();
        let asked = AtomicU32::new(0);
        let [enough, answered] = [const { AtomicBool::new(false) }; 2];
        let [pod_a, pod_b] = &site.pods;
        let sockets = at.map(|at| pod_b.run(|| UdpSocket::bind(at).unwrap()).unwrap());
        thread::scope(|scope| {
            for socket in &sockets {
                scope.spawn(|| echo(socket, &answered));
            }
            let flow = scope.spawn(|| ask(pod_a, at, &asked, &enough));
            let (mut applied, mut changes) = (Ok(0), 0);
            let is_enough = |changes| changes >= CHANGES && asked.load(Ordering::Relaxed) >= QUESTIONS;
            while applied.is_ok() && !flow.is_finished() && !is_enough(changes) {
                applied = owner.apply(unrelated(changes));
                changes += 1;
            }
            // Before anything may fail the threads end, who asks before who answers.
            enough.store(true, Ordering::Relaxed);
            let lost = flow.join();
            answered.store(true, Ordering::Relaxed);
            applied.unwrap();
            assert_eq!(lost.unwrap(), 0, "{backend:?}: {changes} changes");
        });
    });
}

#[test]
fn fragments_go_the_way_of_their_datagram() {
    const LENGTH: usize = 4000;
    let site = Site::new();
    on_each(&site, |owner, backend| {
        let allow = vec![to_port(Protocol::UDP, 7)];
        owner
            .apply([policy("in", "app == 'mxb'", [Some(allow), None])])
            .unwrap();
        for address in MINE[1] {
            for (port, expected) in [(7, true), (8, false)] {
                let at = SocketAddr::new(ip(address), port);
                let receiver = site.pods[1].run(|| UdpSocket::bind(at).unwrap()).unwrap();
                let patience = if expected { PATIENCE } else { MOMENT };
                receiver.set_read_timeout(Some(patience)).unwrap();
                let sender = site.pods[0]
                    .run(|| UdpSocket::bind(anywhere(at.ip())).unwrap())
                    .unwrap();
                sender.send_to(&[7; LENGTH], at).unwrap();
                let got = receiver.recv_from(&mut [0; LENGTH + 1]).map(|(length, _)| length);
                assert_eq!(got.ok(), expected.then_some(LENGTH), "{backend:?} {at}");
            }
        }
    });
}

#[test]
fn errors_about_allowed_packets_get_back() {
    let (site, outside) = site_with_outside();
    outside
        .run(manx_linux::sysctl::enable_forwarding)
        .unwrap()
        .unwrap();
    for command in [
        "link add narrow mtu 1300 type veth peer name end",
        "link set narrow up",
        "link set end up",
        "address add 198.51.100.1/24 dev narrow",
        "address add 2001:db8:9::1/64 dev narrow nodad",
    ] {
        outside.ip(command);
    }
    site.node.ip("route add 198.51.100.0/24 via 192.0.2.2");
    site.node.ip("route add 2001:db8:9::/64 via 2001:db8::2");
    let [pod_a, _] = &site.pods;
    on_each(&site, |owner, backend| {
        let silent = policy("silent", "all()", [Some(Vec::new()), None]);
        let to_b = policy(
            "in",
            "app == 'mxb'",
            [Some(vec![to_port(Protocol::UDP, 9)]), Some(Vec::new())],
        );
        owner.apply([silent, to_b]).unwrap();
        for address in MINE[1] {
            let at = SocketAddr::new(ip(address), 9);
            let sender = pod_a.run(|| UdpSocket::bind(anywhere(at.ip())).unwrap()).unwrap();
            sender.set_read_timeout(Some(PATIENCE)).unwrap();
            sender.connect(at).unwrap();
            sender.send(b"question").unwrap();
            let told = sender.recv(&mut [0; 16]).unwrap_err().kind();
            assert_eq!(
                told,
                ErrorKind::ConnectionRefused,
                "{backend:?} {at}: nobody listens there"
            );
        }
        for (family, address) in [("-4", "198.51.100.9"), ("-6", "2001:db8:9::9")] {
            let at = SocketAddr::new(ip(address), 9);
            let learned = || {
                let sender = pod_a.run(|| UdpSocket::bind(anywhere(at.ip())).unwrap()).unwrap();
                // Once it is known, a datagram is cut before it is sent.
                sender.send_to(&[0; 1400], at).unwrap();
                pod_a
                    .ip(&format!("{family} route get {address}"))
                    .contains("mtu 1300")
            };
            assert!(
                eventually(PATIENCE, learned),
                "{backend:?} {at}: the way is narrow"
            );
            pod_a.ip(&format!("{family} route flush cache"));
        }
    });
}

#[test]
fn a_pod_reaches_itself_through_a_service_whatever_its_policies() {
    let site = Site::new();
    let [pod_a, pod_b] = &site.pods;
    let services = [
        ("iptables", "10.96.0.1", "10.64.1.2"),
        ("ip6tables", "fd96::1", "fd64:1::2"),
    ];
    on_each(&site, |owner, backend| {
        let closed = [Some(Vec::new()), Some(Vec::new())];
        owner.apply([policy("closed", "app == 'mxa'", closed)]).unwrap();
        for (family, service, pod) in services {
            let program = iptables(family, backend);
            let target = SocketAddr::new(ip(pod), 7);
            run(
                &site.node,
                &program,
                &format!(
                    "-t nat -A PREROUTING -d {service} -p udp --dport 53 -j DNAT --to-destination {target}"
                ),
            );
            run(
                &site.node,
                &program,
                &format!("-t nat -A POSTROUTING -s {pod} -d {pod} -j MASQUERADE"),
            );
            let receiver = pod_a.run(|| UdpSocket::bind(target).unwrap()).unwrap();
            let at = SocketAddr::new(ip(service), 53);
            assert!(
                asked_by(pod_a, at, &receiver, true),
                "{backend:?} {at}: by itself"
            );
            assert!(
                !asked_by(pod_b, at, &receiver, false),
                "{backend:?} {at}: by another"
            );
            run(&site.node, &program, "-t nat -F PREROUTING");
            run(&site.node, &program, "-t nat -F POSTROUTING");
        }
    });
}

#[test]
fn where_the_host_decides_its_own_rules_do() {
    let site = Site::new();
    on_each(&site, |owner, backend| {
        let programs = ["iptables", "ip6tables"].map(|family| iptables(family, backend));
        for program in &programs {
            run(&site.node, program, "-A INPUT -p udp --dport 8 -j DROP");
        }
        for (to_host, expected) in [(HostAction::Return, false), (HostAction::Accept, true)] {
            let settings = Settings {
                to_host,
                ..Settings::default()
            };
            owner.apply([Update::Enforce(Some(settings))]).unwrap();
            for address in ["10.64.1.1", "fd64:1::1"] {
                let why = format!("{backend:?} {to_host:?}");
                udp(
                    (&site.pods[0], &site.node),
                    address,
                    [(7, true), (8, expected)],
                    &why,
                );
            }
        }
        for program in &programs {
            run(&site.node, program, "-D INPUT -p udp --dport 8 -j DROP");
        }
    });
}

/// The node's uplink as a host endpoint: what no policy allows is denied.
fn uplink() -> [Update; 2] {
    let endpoint = Endpoint {
        labels: [("app".to_owned(), "uplink".to_owned())].into(),
        closed: true,
        ..Endpoint::default()
    };
    [
        Update::Endpoint("uplink".to_owned(), Some(Box::new(endpoint))),
        Update::Host("uplink".to_owned(), Some(HostInterface::Named("eth0".to_owned()))),
    ]
}

/// The policy of the uplink that acts there.
fn acting(hook: Hook, rules: [Option<Vec<Rule>>; 2]) -> Update {
    named("uplink", hook, rules)
}

/// One more.
fn named(name: &str, hook: Hook, rules: [Option<Vec<Rule>>; 2]) -> Update {
    let policy = Policy {
        hook,
        ..all_of(select("app == 'uplink'"), rules)
    };
    Update::Policy(origin(name), Some(Box::new(policy)))
}

#[test]
fn failsafe_ports_stay_open_and_no_others() {
    let (site, outside) = site_with_outside();
    let inward = (&outside, &site.node);
    let outward = (&site.node, &outside);
    on_each(&site, |owner, backend| {
        owner.apply(uplink()).unwrap();
        for (node, beyond) in NODE.into_iter().zip(OUTSIDE) {
            let why = format!("{backend:?}");
            tcp(
                inward,
                node,
                [(22, true), (179, true), (6443, true), (2222, false)],
                &why,
            );
            udp(inward, node, [(68, true), (3784, true), (53, false)], &why);
            tcp(outward, beyond, [(179, true), (2379, true), (22, false)], &why);
            udp(
                outward,
                beyond,
                [(53, true), (67, true), (4784, true), (54, false)],
                &why,
            );
        }
        let custom = Failsafes {
            inbound: [Failsafe::from((Protocol::TCP, 2222))].into(),
            outbound: BTreeSet::new(),
        };
        owner.apply([Update::Failsafes(custom)]).unwrap();
        let why = format!("{backend:?}, of our own choice");
        tcp(inward, NODE[0], [(22, false), (2222, true)], &why);
        udp(outward, OUTSIDE[1], [(53, false)], &why);
        owner
            .apply([acting(
                Hook::Normal,
                [Some(vec![deny(Protocol::TCP, 2222)]), None],
            )])
            .unwrap();
        tcp(
            inward,
            NODE[1],
            [(2222, true)],
            &format!("{backend:?}, in spite of a policy"),
        );
    });
}

#[test]
fn what_passes_a_host_endpoint_meets_the_policies_that_apply_on_forward() {
    let (site, outside) = site_with_outside();
    let inward = (&outside, &site.pods[0]);
    on_each(&site, |owner, backend| {
        owner.apply(uplink()).unwrap();
        for (hook, open) in [
            (None, true),
            (Some(Hook::Normal), true),
            (Some(Hook::Forwarded), false),
        ] {
            let why = format!("{backend:?} {hook:?}");
            let rules = || [Some(vec![to_port(Protocol::UDP, 7)]), None];
            owner.apply(hook.map(|hook| acting(hook, rules()))).unwrap();
            for (inside, beyond) in MINE[0].into_iter().zip(OUTSIDE) {
                udp(inward, inside, [(7, true), (8, open)], &why);
                udp((&site.pods[0], &outside), beyond, [(8, true)], &why);
            }
        }
        let out = [None, Some(vec![to_port(Protocol::UDP, 7)])];
        owner.apply([acting(Hook::Forwarded, out)]).unwrap();
        for (inside, beyond) in MINE[0].into_iter().zip(OUTSIDE) {
            let why = format!("{backend:?}, outwards");
            udp((&site.pods[0], &outside), beyond, [(7, true), (8, false)], &why);
            udp(inward, inside, [(8, true)], &why);
        }
    });
}

#[test]
fn policies_before_nat_see_the_ports_that_were_asked_for() {
    let (site, outside) = site_with_outside();
    on_each(&site, |owner, backend| {
        let told = acting(Hook::PreDnat, [Some(vec![deny(Protocol::UDP, 30_080)]), None]);
        owner.apply(uplink().into_iter().chain([told])).unwrap();
        let families = ["iptables", "ip6tables"].into_iter().zip(NODE).zip(MINE[0]);
        for ((family, node), pod) in families {
            let program = iptables(family, backend);
            let target = SocketAddr::new(ip(pod), 7);
            for port in [30_080, 30_081] {
                let rule = format!("-d {node} -p udp --dport {port} -j DNAT --to-destination {target}");
                run(&site.node, &program, &format!("-t nat -A PREROUTING {rule}"));
            }
            let receiver = site.pods[0].run(|| UdpSocket::bind(target).unwrap()).unwrap();
            for (port, expected) in [(30_080, false), (30_081, true), (30_080, false)] {
                let at = SocketAddr::new(ip(node), port);
                assert_eq!(
                    asked_by(&outside, at, &receiver, expected),
                    expected,
                    "{backend:?} {at}"
                );
            }
            let at = SocketAddr::new(ip(pod), 7);
            assert!(
                asked_by(&outside, at, &receiver, true),
                "{backend:?}: the pod's port is open"
            );
            run(&site.node, &program, "-t nat -F PREROUTING");
        }
    });
}

#[test]
fn what_is_allowed_before_nat_is_asked_about_by_pods_alone() {
    let (site, outside) = site_with_outside();
    let (to_node, to_pod) = ((&outside, &site.node), (&outside, &site.pods[0]));
    on_each(&site, |owner, backend| {
        let told = acting(Hook::PreDnat, [Some(vec![to_port(Protocol::UDP, 7)]), None]);
        owner.apply(uplink().into_iter().chain([told])).unwrap();
        for (node, pod) in NODE.into_iter().zip(MINE[0]) {
            let why = format!("{backend:?}, of a closed endpoint");
            udp(to_node, node, [(7, true), (8, false)], &why);
            udp(to_pod, pod, [(7, true), (8, true)], &why);
        }
        // What the pod allows is allowed to reach the pod, not to pass the uplink.
        let open = policy("pod", "app == 'mxa'", [Some(vec![rule(Action::Allow)]), None]);
        let forwarded = named("forwarded", Hook::Forwarded, [Some(Vec::new()), None]);
        owner.apply([forwarded, open]).unwrap();
        for pod in MINE[0] {
            udp(
                to_pod,
                pod,
                [(7, true), (8, false)],
                &format!("{backend:?}, passing it"),
            );
        }
        let closed = policy("pod", "app == 'mxa'", [Some(Vec::new()), None]);
        owner.apply([closed]).unwrap();
        for pod in MINE[0] {
            udp(
                to_pod,
                pod,
                [(7, false)],
                &format!("{backend:?}, denied by the pod"),
            );
        }
    });
}

#[test]
fn what_is_not_to_be_tracked_passes_without_a_connection() {
    let (site, outside) = site_with_outside();
    let inward = (&outside, &site.node);
    let tracked = || {
        let mut socket = ConnectionSocket::open_in(&site.node).unwrap();
        let all = Family::ALL
            .into_iter()
            .flat_map(|family| socket.list(family).unwrap());
        let ports = all.filter(|it| it.protocol == 17).map(|it| it.destination.port());
        ports.collect::<BTreeSet<u16>>()
    };
    on_each(&site, |owner, backend| {
        run(&site.node, "conntrack", "-F");
        let normal = all_of(
            select("app == 'uplink'"),
            [Some(vec![to_port(Protocol::UDP, 8)]), None],
        );
        let normal = Update::Policy(origin("tracked"), Some(Box::new(normal)));
        let mut back = to_port(Protocol::UDP, 7);
        std::mem::swap(&mut back.source, &mut back.destination);
        let both = [
            Some(vec![to_port(Protocol::UDP, 7), deny(Protocol::UDP, 10)]),
            Some(vec![back]),
        ];
        // Nobody is asked about what is not tracked.
        let before_nat = named("early", Hook::PreDnat, [Some(vec![deny(Protocol::UDP, 7)]), None]);
        let told = [acting(Hook::Untracked, both), normal, before_nat];
        let told = uplink().into_iter().chain(told);
        owner.apply(told).unwrap();
        for node in NODE {
            let why = format!("{backend:?}");
            udp(
                inward,
                node,
                [(7, true), (8, true), (9, false), (10, false)],
                &why,
            );
        }
        assert_eq!(tracked(), [8].into(), "{backend:?}");
    });
}
