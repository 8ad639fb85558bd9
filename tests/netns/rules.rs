//! The kernel's rules and sets, written by the real programs: both back ends, both families, others' rules around.

use std::fs::File;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use manx_linux::{Backend, Error, Rules};
use manx_policy::{Pool, Update};
use nix::fcntl::{Flock, FlockArg};

use crate::harness::{TestNetns, eventually, exchange, seen_as};

/// How long a site may take to carry packets.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node without us has: the rules of a service proxy and of a firewall, and a set.
const OTHERS: [&str; 8] = [
    "-t nat -N KUBE-POSTROUTING",
    "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    "-t nat -A POSTROUTING -j KUBE-POSTROUTING",
    "-t nat -N manx",
    "-t nat -A POSTROUTING -p sctp -j manx",
    "-t nat -A PREROUTING -p tcp --dport 9999 -j REDIRECT --to-ports 9998",
    "-t filter -A FORWARD -p tcp --dport 23 -j DROP",
];

/// iptables' programs by family and back end.
pub(crate) fn iptables(family: &str, backend: Backend) -> String {
    match backend {
        Backend::Nft => format!("{family}-nft"),
        Backend::Legacy => format!("{family}-legacy"),
    }
}

/// Runs a program in the namespace, as somebody would by hand; returns what it printed.
pub(crate) fn run(netns: &TestNetns, program: &str, arguments: &str) -> String {
    let output = netns
        .command(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that a back end holds, without the counters and the time.
pub(crate) fn tables(netns: &TestNetns, backend: Backend) -> Vec<String> {
    let programs = ["iptables", "ip6tables"].map(|family| iptables(family, backend) + "-save");
    let text = programs.map(|program| run(netns, &program, "")).concat();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(" [").next().unwrap().to_owned())
        .collect()
}

/// All sets with their members, in order.
pub(crate) fn sets(netns: &TestNetns) -> Vec<String> {
    let text = run(netns, "ipset", "save");
    let lines = text.lines().map(|line| line.split(" hashsize").next().unwrap());
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn set_pool(name: &str, cidr: &str, nat_outgoing: bool) -> Update {
    let cidr = cidr.parse().unwrap();
    Update::SetPool {
        name: name.to_owned(),
        pool: Pool { cidr, nat_outgoing },
    }
}

/// A node's rules, and a runtime to wait for them in.
pub(crate) struct Owner {
    pub(crate) rules: Rules,
    runtime: tokio::runtime::Runtime,
}

impl Owner {
    pub(crate) fn new(netns: &TestNetns, setting: Option<Backend>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            rules: Rules::start_in(netns, setting),
            runtime,
        }
    }

    /// Waits until the rules are disturbed, for as long as `limit`; returns whether they were.
    fn disturbed(&mut self, limit: Duration) -> bool {
        let (rules, runtime) = (&mut self.rules, &self.runtime);
        runtime.block_on(async { tokio::time::timeout(limit, rules.disturbed()).await.is_ok() })
    }

    pub(crate) fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Result<usize, Error> {
        self.runtime.block_on(self.rules.apply(updates))
    }

    pub(crate) fn check(&mut self) -> Result<usize, Error> {
        self.runtime.block_on(self.rules.check())
    }
}

/// A pod behind a node, another one, and a host outside that knows of no pods.
struct Site {
    pod: TestNetns,
    other: TestNetns,
    node: TestNetns,
    outside: TestNetns,
}

impl Site {
    fn new() -> Self {
        let [node, outside] = TestNetns::pair(["node", "outside"]);
        let [pod, other] = ["pod", "other"].map(TestNetns::new);
        for (pod, name, net) in [(&pod, "eth1", 1), (&other, "eth2", 2)] {
            let [v4, v6] = [format!("10.64.{net}"), format!("fd64:{net}:")];
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
        // Routers ask for neighbours by their link-local addresses, which are theirs a second later.
        let is_up = || seen_as(&pod, &outside, ip("2001:db8::2")).is_some();
        assert!(eventually(PATIENCE, is_up));
        Self {
            pod,
            other,
            node,
            outside,
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn pods_are_masqueraded_towards_the_outside_and_nowhere_else() {
    for backend in Backend::ALL {
        let site = Site::new();
        let mut owner = Owner::new(&site.node, Some(backend));
        let plain = [
            set_pool("v4", "10.64.0.0/16", false),
            set_pool("v6", "fd64::/16", false),
        ];
        let hidden = [
            set_pool("v4", "10.64.0.0/16", true),
            set_pool("v6", "fd64::/16", true),
        ];
        let outside = [
            ("192.0.2.2", "10.64.1.2", "192.0.2.1"),
            ("2001:db8::2", "fd64:1::2", "2001:db8::1"),
        ];
        let inside = [("10.64.2.2", "10.64.1.2"), ("fd64:2::2", "fd64:1::2")];
        owner.apply(plain.clone()).unwrap();
        for round in [false, true, false] {
            owner
                .apply(if round { hidden.clone() } else { plain.clone() })
                .unwrap();
            for (host, pod, node) in outside {
                let seen = seen_as(&site.pod, &site.outside, ip(host));
                assert_eq!(
                    seen,
                    Some(ip(if round { node } else { pod })),
                    "{backend:?} to {host}"
                );
                let answered = exchange(&site.pod, &site.outside, ip(host)).is_some();
                assert_eq!(
                    answered, round,
                    "{backend:?} from {host}: it knows the way to nodes only"
                );
            }
            for (other, pod) in inside {
                assert_eq!(
                    exchange(&site.pod, &site.other, ip(other)),
                    Some(ip(pod)),
                    "{backend:?}"
                );
            }
        }
        // A pool that no pod gets addresses from says who else is to see pods as they are.
        owner.apply(hidden).unwrap();
        owner.apply([set_pool("site", "192.0.2.0/24", false)]).unwrap();
        let seen = seen_as(&site.pod, &site.outside, ip("192.0.2.2"));
        assert_eq!(seen, Some(ip("10.64.1.2")), "{backend:?}");
        // A part of a pool may wish otherwise.
        owner.apply([set_pool("part", "fd64:1::/64", false)]).unwrap();
        let seen = seen_as(&site.pod, &site.outside, ip("2001:db8::2"));
        assert_eq!(seen, Some(ip("fd64:1::2")), "{backend:?}");
        let seen = seen_as(&site.other, &site.outside, ip("2001:db8::2"));
        assert_eq!(seen, Some(ip("2001:db8::1")), "{backend:?}");
    }
}

#[test]
fn rules_and_sets_of_others_stay_as_they_are_and_ours_go_with_the_last_pool() {
    for backend in Backend::ALL {
        let node = TestNetns::new("node");
        for family in ["iptables", "ip6tables"] {
            for rule in OTHERS {
                run(&node, &iptables(family, backend), rule);
            }
        }
        run(&node, "ipset", "create KUBE-CLUSTER-IP hash:ip,port");
        run(&node, "ipset", "add KUBE-CLUSTER-IP 10.96.0.1,tcp:443");
        let before = (tables(&node, backend), sets(&node));
        let mut owner = Owner::new(&node, Some(backend));
        assert_eq!(
            owner.apply([set_pool("plain", "10.65.0.0/16", false)]).unwrap(),
            0
        );
        assert_eq!(
            (tables(&node, backend), sets(&node)),
            before,
            "who does not use it pays nothing"
        );
        owner
            .apply([
                set_pool("v4", "10.64.0.0/16", true),
                set_pool("v6", "fd64::/64", true),
            ])
            .unwrap();
        let others = |lines: Vec<String>| -> Vec<String> {
            let is_ours =
                |line: &String| line.contains("manx-") || line.contains("mx4-") || line.contains("mx6-");
            lines.into_iter().filter(|line| !is_ours(line)).collect()
        };
        assert_eq!((others(tables(&node, backend)), others(sets(&node))), before);
        assert_ne!(tables(&node, backend), before.0);
        owner
            .apply([
                set_pool("v4", "10.64.0.0/16", false),
                set_pool("v6", "fd64::/64", false),
            ])
            .unwrap();
        assert_eq!((tables(&node, backend), sets(&node)), before);
    }
}

#[test]
fn whatever_is_done_to_our_rules_by_hand_is_mended() {
    const DAMAGE: [(&str, &str); 9] = [
        ("iptables", "-t nat -F manx-nat-out"),
        ("iptables", "-t nat -D POSTROUTING 1"),
        ("iptables", "-t nat -F"),
        ("iptables", "-t nat -A POSTROUTING -p tcp -j manx-nat-out"),
        ("iptables", "-t nat -A manx-nat-out -p udp -j ACCEPT"),
        ("ip6tables", "-t nat -F POSTROUTING"),
        ("ipset", "flush mx4-nat-pools"),
        ("ipset", "del mx6-all-pools fd64::/64"),
        ("ipset", "add mx4-nat-pools 10.66.0.0/16"),
    ];
    for backend in Backend::ALL {
        let node = TestNetns::new("node");
        let mut owner = Owner::new(&node, Some(backend));
        let pools = [
            set_pool("v4", "10.64.0.0/16", true),
            set_pool("v6", "fd64::/64", true),
        ];
        owner.apply(pools.clone()).unwrap();
        let right = (tables(&node, backend), sets(&node));
        for (program, arguments) in DAMAGE {
            let program = match program {
                "ipset" => program.to_owned(),
                family => iptables(family, backend),
            };
            run(&node, &program, arguments);
            assert_ne!(
                (tables(&node, backend), sets(&node)),
                right,
                "{program} {arguments}"
            );
            assert!(owner.check().unwrap() > 0, "{program} {arguments}");
            assert_eq!(
                (tables(&node, backend), sets(&node)),
                right,
                "{program} {arguments}"
            );
            assert_eq!(owner.check().unwrap(), 0);
        }
        // Everything at once, sets included.
        run(&node, &iptables("iptables", backend), "-t nat -F");
        run(&node, &iptables("iptables", backend), "-t nat -X");
        run(&node, "ipset", "destroy mx4-nat-pools");
        run(&node, "ipset", "destroy mx4-all-pools");
        owner.check().unwrap();
        assert_eq!((tables(&node, backend), sets(&node)), right);
        // The next life finds what this one made, and has nothing to do.
        assert_eq!(Owner::new(&node, Some(backend)).apply(pools).unwrap(), 0);
    }
}

#[test]
fn nftables_tells_when_our_rules_are_disturbed_and_not_when_others_are() {
    const QUIET: Duration = Duration::from_millis(200);
    let node = TestNetns::new("node");
    let mut owner = Owner::new(&node, None);
    owner
        .apply([
            set_pool("v4", "10.64.0.0/16", true),
            set_pool("v6", "fd64::/64", true),
        ])
        .unwrap();
    assert!(!owner.disturbed(QUIET), "our own hands are no news");
    for others in [
        "-t nat -N KUBE-SVC-A",
        "-t nat -A KUBE-SVC-A -j ACCEPT",
        "-t nat -F KUBE-SVC-A",
        "-t nat -X KUBE-SVC-A",
    ] {
        run(&node, "iptables-nft", others);
        assert!(!owner.disturbed(QUIET), "{others}");
    }
    for ours in [
        "-F manx-nat-out",
        "-D POSTROUTING 1",
        "-F",
        "-A manx-nat-out -j ACCEPT",
    ] {
        run(&node, "ip6tables-nft", &format!("-t nat {ours}"));
        assert!(owner.disturbed(PATIENCE), "{ours}");
        assert!(owner.check().unwrap() > 0, "{ours}");
        assert!(!owner.disturbed(QUIET), "mending {ours} is no news");
    }
    owner
        .apply([
            set_pool("v4", "10.64.0.0/16", false),
            set_pool("v6", "fd64::/64", false),
        ])
        .unwrap();
    run(&node, "iptables-nft", "-t nat -N manx-test");
    run(&node, "iptables-nft", "-t nat -X manx-test");
    assert!(!owner.disturbed(QUIET), "who wants nothing hears nothing");
}

#[test]
fn what_is_refused_is_named_and_made_up_for_later() {
    for backend in Backend::ALL {
        let node = TestNetns::new("node");
        run(&node, "ipset", "create mx4-all-pools hash:ip");
        let rule = "POSTROUTING -t nat -m set --match-set mx4-all-pools src -j ACCEPT";
        run(&node, &iptables("iptables", backend), &format!("-A {rule}"));
        let mut owner = Owner::new(&node, Some(backend));
        let error = owner.apply([set_pool("v4", "10.64.0.0/16", true)]).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { doing, .. } if doing == "destroy mx4-all-pools"),
            "{error}"
        );
        assert!(owner.check().is_err(), "it is tried again");
        run(&node, &iptables("iptables", backend), &format!("-D {rule}"));
        assert!(owner.apply([]).unwrap() > 0);
        assert!(sets(&node).contains(&"add mx4-nat-pools 10.64.0.0/16".to_owned()));
    }
}

#[test]
fn whoever_holds_the_lock_is_waited_for() {
    const HELD: Duration = Duration::from_secs(1);
    let node = TestNetns::new("node");
    let mut owner = Owner::new(&node, Some(Backend::Legacy));
    let file = File::options()
        .create(true)
        .append(true)
        .open("/run/xtables.lock")
        .unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            std::thread::sleep(HELD);
            drop(lock);
        });
        owner.apply([set_pool("v4", "10.64.0.0/16", true)]).unwrap();
        assert!(begun.elapsed() >= HELD);
        holder.join().unwrap();
    });
    let ours = tables(&node, Backend::Legacy);
    assert!(ours.iter().any(|line| line.contains("MASQUERADE")), "{ours:?}");
}

#[test]
fn rules_go_where_the_kubelet_is_and_follow_it() {
    let node = TestNetns::new("node");
    let pools = [set_pool("v4", "10.64.0.0/16", true)];
    run(
        &node,
        "iptables-legacy",
        "-t nat -A POSTROUTING -p sctp -j ACCEPT",
    );
    let mut owner = Owner::new(&node, None);
    owner.apply(pools.clone()).unwrap();
    assert_eq!(
        owner.rules.backend(),
        Some(Backend::Legacy),
        "where the others' rules are"
    );
    run(&node, "iptables-nft", "-t mangle -N KUBE-IPTABLES-HINT");
    owner.check().unwrap();
    assert_eq!(owner.rules.backend(), Some(Backend::Nft), "where the kubelet is");
    let has_ours = |backend| tables(&node, backend).iter().any(|line| line.contains("manx-"));
    assert!(has_ours(Backend::Nft) && !has_ours(Backend::Legacy));
    // A setting has the last word, and an earlier life's rules elsewhere go even if nothing is wanted any more.
    let mut owner = Owner::new(&node, Some(Backend::Legacy));
    owner.apply(pools).unwrap();
    assert!(has_ours(Backend::Legacy) && !has_ours(Backend::Nft));
    Owner::new(&node, Some(Backend::Nft)).apply([]).unwrap();
    assert!(!has_ours(Backend::Legacy) && !has_ours(Backend::Nft));
    assert_eq!(sets(&node), [""; 0]);
}
