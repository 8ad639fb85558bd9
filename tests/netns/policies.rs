//! Policies in the real kernel: every kind of rule and set through the real programs, and packets under them.

use std::net::IpAddr;
use std::time::Duration;

use manx_api::Kind;
use manx_api::policy::{
    Action, DefaultAction, Endpoint, Hook, Icmp, NamedPort, NamespacedName, Not, Order, Origin, Policy, Port,
    PortRange, Protocol, Rule, Side, Subject, Tier,
};
use manx_linux::Backend;
use manx_policy::{
    HostAction, HostInterface, Local, Party, ServiceEndpoint, Settings, Traffic, Update, explain,
};

use crate::harness::{TestNetns, eventually, exchange, exchange_as};
use crate::rules::{Owner, iptables, run, sets, tables};

/// How long a site may take to carry packets.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn select(labels: &str) -> Subject {
    Subject {
        labels: labels.parse().unwrap(),
        ..Subject::default()
    }
}

pub(crate) fn rule(action: Action) -> Rule {
    Rule {
        action,
        family: None,
        protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side::default(),
        destination: Side::default(),
    }
}

/// From what has such labels.
pub(crate) fn from(labels: &str) -> Side {
    Side {
        of: Some(select(labels)),
        ..Side::default()
    }
}

pub(crate) fn policy(name: &str, labels: &str, rules: [Option<Vec<Rule>>; 2]) -> Update {
    Update::Policy(origin(name), Some(Box::new(all_of(select(labels), rules))))
}

pub(crate) fn all_of(subject: Subject, [ingress, egress]: [Option<Vec<Rule>>; 2]) -> Policy {
    Policy {
        tier: "default".to_owned(),
        order: Order::LAST,
        subject,
        hook: Hook::Normal,
        staged: false,
        ingress,
        egress,
    }
}

pub(crate) fn origin(name: &str) -> Origin {
    Origin {
        name: name.to_owned(),
        namespace: None,
        kind: Kind::NetworkPolicy,
    }
}

/// A pod of this node, behind the interface of its name.
pub(crate) fn pod(name: &str, addresses: &[&str]) -> [Update; 2] {
    let endpoint = Endpoint {
        namespace: Some("ns".to_owned()),
        labels: [("app".to_owned(), name.to_owned())].into(),
        service_account: None,
        ports: vec![NamedPort {
            name: "question".to_owned(),
            protocol: Protocol::UDP,
            port: 7,
        }],
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        closed: false,
    };
    let local = Local {
        interface: name.to_owned(),
        sources: vec!["198.51.100.0/24".parse().unwrap()],
    };
    [
        Update::Endpoint(name.to_owned(), Some(Box::new(endpoint))),
        Update::Local(name.to_owned(), Some(local)),
    ]
}

pub(crate) fn enforce(settings: Settings) -> [Update; 2] {
    let tier = Tier {
        order: Order::LAST,
        default_action: DefaultAction::Deny,
    };
    [
        Update::Enforce(Some(settings)),
        Update::Tier("default".to_owned(), Some(tier)),
    ]
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Ends of packets with every condition.
fn all_sides() -> [Side; 4] {
    let ports = (0..20).map(|number| {
        Port::Numbers(PortRange {
            first: number * 10,
            last: number * 10 + number % 2,
        })
    });
    [
        Side {
            nets: ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).into(),
            not_nets: ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]
                .map(|net| net.parse().unwrap())
                .into(),
            ..Side::default()
        },
        Side {
            not_nets: ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]
                .map(|net| net.parse().unwrap())
                .into(),
            not_of: Some(select("app == 'mxb'")),
            ..Side::default()
        },
        Side {
            nets: vec!["10.0.0.0/8".parse().unwrap()],
            ports: ports.chain([Port::Named("question".to_owned())]).collect(),
            ..Side::default()
        },
        Side {
            not_ports: vec![
                Port::Named("question".to_owned()),
                Port::Numbers(PortRange { first: 7, last: 9 }),
            ],
            service: Some(NamespacedName {
                namespace: "ns".to_owned(),
                name: "svc".to_owned(),
            }),
            ..Side::default()
        },
    ]
}

/// Rules with every condition and every action.
fn all_rules() -> Vec<Rule> {
    let message = |kind, code| Some(Icmp { kind, code });
    let icmp = |protocol, icmp, not_icmp| Rule {
        protocol: Some(Not::Is(protocol)),
        icmp,
        not_icmp,
        ..rule(Action::Allow)
    };
    let mut rules = vec![
        icmp(Protocol::ICMP, message(8, Some(0)), None),
        icmp(Protocol::ICMP, None, message(3, None)),
        icmp(Protocol::ICMPV6, message(128, None), message(128, Some(9))),
        Rule {
            protocol: Some(Not::Not(Protocol::SCTP)),
            ..rule(Action::Log)
        },
        Rule {
            protocol: Some(Not::Is(Protocol(255))),
            ..rule(Action::Deny)
        },
        rule(Action::Pass),
    ];
    for source in &all_sides() {
        for destination in &all_sides() {
            rules.push(Rule {
                source: source.clone(),
                destination: destination.clone(),
                ..rule(Action::Allow)
            });
        }
    }
    rules
}

/// A world in which every word of the rules is needed.
fn everything() -> Vec<Update> {
    let settings = Settings {
        log_denied: Some(10),
        ..Settings::default()
    };
    let service = NamespacedName {
        namespace: "ns".to_owned(),
        name: "svc".to_owned(),
    };
    let behind = ["10.64.1.2", "fd64:1::2"].map(|address| ServiceEndpoint {
        address: ip(address),
        protocol: Protocol::SCTP,
        port: 80,
    });
    let long = "x".repeat(200);
    let pods = pod("mxa", &MINE[0]).into_iter().chain(pod("mxb", &MINE[1]));
    let policies = [
        policy(&long, "all()", [Some(all_rules()), Some(all_rules())]),
        policy("second", "app == 'mxa'", [Some(all_rules()), None]),
        Update::Service(service, behind.into()),
    ];
    enforce(settings)
        .into_iter()
        .chain(pods)
        .chain(policies)
        .chain(uplink())
        .collect()
}

/// An interface of the node with policies at all points, and what it does not forbid forbidden.
fn uplink() -> [Update; 5] {
    let at = |name: &str, hook| {
        let policy = Policy {
            hook,
            ..all_of(select("all()"), [Some(all_rules()), None])
        };
        Update::Policy(origin(name), Some(Box::new(policy)))
    };
    let endpoint = Endpoint {
        addresses: vec![ip("192.0.2.1")],
        closed: true,
        ..Endpoint::default()
    };
    let interface = HostInterface::Named("eth0".to_owned());
    [
        Update::Endpoint("uplink".to_owned(), Some(Box::new(endpoint))),
        Update::Host("uplink".to_owned(), Some(interface)),
        at("through", Hook::Forwarded),
        at("early", Hook::PreDnat),
        at("untracked", Hook::Untracked),
    ]
}

#[test]
fn every_rule_and_set_of_policies_is_taken_and_read_back() {
    for backend in Backend::ALL {
        let node = TestNetns::new("node");
        let mut owner = Owner::new(&node, Some(backend));
        owner.apply(everything()).unwrap();
        assert_eq!(
            owner.check().unwrap(),
            0,
            "{backend:?}: what is read is what was written"
        );
        let next_life = Owner::new(&node, Some(backend)).apply(everything()).unwrap();
        assert_eq!(next_life, 0, "{backend:?}: it finds what the first one made");
        owner.apply([Update::Enforce(None)]).unwrap();
        assert_eq!(sets(&node), [""; 0]);
        let left = tables(&node, backend);
        assert!(
            !left.iter().any(|line| line.contains("manx")),
            "{backend:?}: {left:?}"
        );
    }
}

#[test]
fn policies_are_mended_and_stay_in_front() {
    for backend in Backend::ALL {
        let node = TestNetns::new("node");
        let mut owner = Owner::new(&node, Some(backend));
        owner.apply(everything()).unwrap();
        // What somebody puts in front of us would let packets through that are denied here.
        for (family, chain) in [("iptables", "FORWARD"), ("ip6tables", "INPUT")] {
            let right = tables(&node, backend);
            run(
                &node,
                &iptables(family, backend),
                &format!("-I {chain} -p udp -j ACCEPT"),
            );
            assert_eq!(owner.check().unwrap(), 2, "{backend:?}");
            assert_eq!(owner.check().unwrap(), 0, "{backend:?}");
            run(
                &node,
                &iptables(family, backend),
                &format!("-D {chain} -p udp -j ACCEPT"),
            );
            assert_eq!(tables(&node, backend), right);
        }
        for damage in ["-F manx-pod", "-D manx-to 1", "-D FORWARD 1", "-F"] {
            run(&node, &iptables("iptables", backend), damage);
            assert!(owner.check().unwrap() > 0, "{backend:?}: {damage}");
            assert_eq!(owner.check().unwrap(), 0, "{backend:?}");
        }
        run(&node, "ipset", "flush mx6-workloads");
        assert_eq!(
            owner.check().unwrap(),
            2,
            "{backend:?}: each pod has one address in it"
        );
    }
}

/// Two pods behind a node, each at `10.64.N.2` and `fd64:N::2`.
pub(crate) struct Site {
    pub(crate) node: TestNetns,
    pub(crate) pods: [TestNetns; 2],
}

impl Site {
    pub(crate) fn new() -> Self {
        let node = TestNetns::new("node");
        let pods = ["mxa", "mxb"].map(TestNetns::new);
        for (number, (pod, name)) in (1..).zip(pods.iter().zip(["mxa", "mxb"])) {
            let [v4, v6] = [format!("10.64.{number}"), format!("fd64:{number}:")];
            let ends = [
                [format!("{v4}.1/24"), format!("{v6}:1/64")],
                [format!("{v4}.2/24"), format!("{v6}:2/64")],
            ];
            let [near, far] = ends.each_ref().map(|end| end.each_ref().map(String::as_str));
            node.connect(pod, name, [&near, &far]);
            pod.ip(&format!("route add default via {v4}.1"));
            pod.ip(&format!("route add default via {v6}:1"));
        }
        node.run(manx_linux::sysctl::enable_forwarding).unwrap().unwrap();
        let site = Self { node, pods };
        assert!(eventually(PATIENCE, || site.is_answered([0, 1]) == [true; 2]));
        site
    }

    /// Whether one pod's questions are answered by the other, in each family.
    fn is_answered(&self, [from, to]: [usize; 2]) -> [bool; 2] {
        ["10.64.N.2", "fd64:N::2"].map(|address| {
            let address = ip(&address.replace('N', &(to + 1).to_string()));
            exchange(&self.pods[from], &self.pods[to], address).is_some()
        })
    }
}

/// The pods' addresses.
pub(crate) const MINE: [[&str; 2]; 2] = [["10.64.1.2", "fd64:1::2"], ["10.64.2.2", "fd64:2::2"]];

/// The pod A may ask.
fn from_a() -> Vec<Rule> {
    vec![Rule {
        source: from("app == 'mxa'"),
        ..rule(Action::Allow)
    }]
}

#[test]
fn packets_between_pods_meet_the_policies_of_both_ends() {
    for backend in Backend::ALL {
        let site = Site::new();
        let mut owner = Owner::new(&site.node, Some(backend));
        owner.apply(enforce(Settings::default())).unwrap();
        assert_eq!(
            site.is_answered([0, 1]),
            [false; 2],
            "{backend:?}: nobody knows these pods"
        );
        let pods = pod("mxa", &MINE[0]).into_iter().chain(pod("mxb", &MINE[1]));
        owner.apply(pods).unwrap();
        assert_eq!(site.is_answered([0, 1]), [true; 2], "{backend:?}: no policy");
        owner
            .apply([policy("in", "app == 'mxb'", [Some(from_a()), None])])
            .unwrap();
        assert_eq!(
            site.is_answered([0, 1]),
            [true; 2],
            "{backend:?}: allowed by ingress"
        );
        assert_eq!(
            site.is_answered([1, 0]),
            [true; 2],
            "{backend:?}: ingress says nothing of egress"
        );
        owner
            .apply([policy("out", "app == 'mxa'", [None, Some(Vec::new())])])
            .unwrap();
        assert_eq!(
            site.is_answered([0, 1]),
            [false; 2],
            "{backend:?}: denied by egress"
        );
        assert_eq!(
            site.is_answered([1, 0]),
            [true; 2],
            "{backend:?}: answers are let through"
        );
    }
}

#[test]
fn sets_follow_the_peers_labels() {
    for backend in Backend::ALL {
        let site = Site::new();
        let mut owner = Owner::new(&site.node, Some(backend));
        let pods = pod("mxa", &MINE[0]).into_iter().chain(pod("mxb", &MINE[1]));
        owner
            .apply(enforce(Settings::default()).into_iter().chain(pods))
            .unwrap();
        owner
            .apply([policy("in", "all()", [Some(from_a()), None])])
            .unwrap();
        assert_eq!(
            site.is_answered([1, 0]),
            [false; 2],
            "{backend:?}: denied by ingress"
        );
        assert_eq!(site.is_answered([0, 1]), [true; 2], "{backend:?}");
        let [renamed, _] = pod("mxb", &MINE[0]);
        let Update::Endpoint(_, endpoint) = renamed else {
            panic!("an endpoint");
        };
        owner
            .apply([Update::Endpoint("mxa".to_owned(), endpoint)])
            .unwrap();
        assert_eq!(
            site.is_answered([0, 1]),
            [false; 2],
            "{backend:?}: nobody is called so any more"
        );
        assert_eq!(owner.check().unwrap(), 0);
    }
}

/// A packet as [`exchange`] sends it, to a port that no rule speaks of.
const UDP: Traffic = Traffic {
    protocol: Protocol::UDP,
    source_port: None,
    port: Some(1),
    icmp: None,
};

#[test]
fn pods_send_from_their_own_addresses_and_meet_the_node_as_it_wishes() {
    for backend in Backend::ALL {
        let site = Site::new();
        let [pod_a, pod_b] = &site.pods;
        let mut owner = Owner::new(&site.node, Some(backend));
        let told = enforce(Settings::default()).into_iter();
        owner
            .apply(told.chain(pod("mxa", &MINE[0])).chain(pod("mxb", &MINE[1])))
            .unwrap();
        for (address, own) in [("198.51.100.7", true), ("203.0.113.7", false)] {
            pod_a.ip(&format!("address add {address}/32 dev mxa"));
            site.node.ip(&format!("route add {address}/32 dev mxa"));
            let answered = exchange_as(pod_a, Some(ip(address)), pod_b, ip("10.64.2.2"));
            assert_eq!(answered, own.then(|| ip(address)), "{backend:?}: {address}");
        }
        let to_node = |owner: &Owner, expected: bool, why: &str| {
            for (from, to) in MINE[0].into_iter().zip(["10.64.1.1", "fd64:1::1"]) {
                let answered = exchange(pod_a, &site.node, ip(to)).is_some();
                assert_eq!(answered, expected, "{backend:?} to {to}: {why}");
                let engine = owner.rules.engine();
                let explained =
                    explain(engine, &Party::Address(ip(from)), &Party::Address(ip(to)), UDP).unwrap();
                assert_eq!(explained.at_node(engine).allowed(), expected, "{to}: {why}");
            }
        };
        let from_node = || MINE[0].map(|address| exchange(&site.node, pod_a, ip(address)).is_some());
        to_node(&owner, true, "let through");
        owner
            .apply([policy("all", "all()", [Some(Vec::new()), Some(Vec::new())])])
            .unwrap();
        to_node(&owner, false, "the pod's own policy denies it");
        assert_eq!(
            from_node(),
            [true; 2],
            "{backend:?}: the kubelet asks pods how they are"
        );
        let to_host = HostAction::Drop;
        owner
            .apply([
                Update::Policy(origin("all"), None),
                Update::Enforce(Some(Settings {
                    to_host,
                    ..Settings::default()
                })),
            ])
            .unwrap();
        to_node(&owner, false, "the node takes nothing of pods");
        assert_eq!(from_node(), [true; 2], "{backend:?}");
    }
}

#[test]
fn a_host_endpoint_gets_what_its_policies_let_through() {
    for backend in Backend::ALL {
        let [node, other] = TestNetns::pair(["node", "other"]);
        let mut owner = Owner::new(&node, Some(backend));
        let asked =
            || ["192.0.2.1", "2001:db8::1"].map(|node_ip| exchange(&other, &node, ip(node_ip)).is_some());
        assert!(eventually(PATIENCE, || asked() == [true; 2]));
        let uplink = |closed| {
            let endpoint = Endpoint {
                labels: [("app".to_owned(), "uplink".to_owned())].into(),
                closed,
                ..Endpoint::default()
            };
            Update::Endpoint("uplink".to_owned(), Some(Box::new(endpoint)))
        };
        let host = Update::Host("uplink".to_owned(), Some(HostInterface::All));
        let told = enforce(Settings::default()).into_iter();
        owner.apply(told.chain([uplink(false), host])).unwrap();
        assert_eq!(asked(), [true; 2], "{backend:?}: no policy, and not closed");
        owner.apply([uplink(true)]).unwrap();
        assert_eq!(asked(), [false; 2], "{backend:?}: closed");
        let asks = exchange(&node, &other, ip("192.0.2.2")).is_some();
        assert!(!asks, "{backend:?}: closed in both directions");
        let udp = Rule {
            protocol: Some(Not::Is(Protocol::UDP)),
            ..rule(Action::Allow)
        };
        let only = |rules| policy("in", "app == 'uplink'", [Some(rules), None]);
        owner.apply([only(vec![udp])]).unwrap();
        assert_eq!(
            asked(),
            [true; 2],
            "{backend:?}: allowed, and the answers with it"
        );
        owner.apply([only(Vec::new()), uplink(false)]).unwrap();
        assert_eq!(asked(), [false; 2], "{backend:?}: denied by the tier's end");
        assert_eq!(owner.check().unwrap(), 0);
    }
}
