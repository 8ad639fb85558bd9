//! Rules of others around ours: a service proxy's and Docker's, whoever comes first, and whoever takes everything away.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use manx_api::Kind;
use manx_api::policy::Action;
use manx_linux::Backend;
use manx_policy::{Settings, Update};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::agent_harness::Cluster;
use crate::harness::{TestNetns, eventually, exchange};
use crate::policies::{MINE, Site, enforce, from, ip, pod, policy, rule};
use crate::policy_packets::asked_by;
use crate::rules::{Owner, iptables, run, tables};

/// How long an agent that looks every second may take to mend what it finds, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// What a service proxy writes for a service of one pod: it comes first in each chain, accepts what it has marked, and
/// hides whoever is no pod.
const PROXY: &str = "*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-ZDNSA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ZDNS - [0:0]
-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d {service} -p udp -m comment --comment \"shop/dns:dns cluster IP\" -m udp --dport 53 -j KUBE-SVC-ZDNS
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p udp -m comment --comment \"shop/dns:dns\" -m udp --dport 30053 -j KUBE-SVC-ZDNS
-A KUBE-SVC-ZDNS ! -s {pods} -d {service} -p udp -m udp --dport 53 -j KUBE-MARK-MASQ
-A KUBE-SVC-ZDNS -m comment --comment \"shop/dns:dns -> {target}\" -j KUBE-SEP-ZDNSA
-A KUBE-SEP-ZDNSA -s {pod} -m comment --comment \"shop/dns:dns\" -j KUBE-MARK-MASQ
-A KUBE-SEP-ZDNSA -p udp -m comment --comment \"shop/dns:dns\" -m udp -j DNAT --to-destination {target}
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-I FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// What Docker writes: nothing is forwarded but what it wants.
const DOCKER: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {containers} ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-I FORWARD -i docker0 -o docker0 -j ACCEPT
-I FORWARD -i docker0 ! -o docker0 -j ACCEPT
-I FORWARD -o docker0 -j DOCKER
-I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-I FORWARD -j DOCKER-ISOLATION-STAGE-1
-I FORWARD -j DOCKER-USER
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
";

/// A service of the pod B by family: its address, the pods' network, the pod, its port, Docker's network, the node.
const SERVICES: [[&str; 6]; 2] = [
    [
        "10.96.0.10",
        "10.64.0.0/16",
        "10.64.2.2",
        "10.64.2.2:7",
        "172.17.0.0/16",
        "10.64.1.1",
    ],
    [
        "fd96::10",
        "fd64::/16",
        "fd64:2::2",
        "[fd64:2::2]:7",
        "fd17::/64",
        "fd64:1::1",
    ],
];

/// Has both write their rules.
fn write_others(node: &TestNetns, backend: Backend) {
    for (family, [service, pods, pod, target, containers, _]) in
        ["iptables", "ip6tables"].iter().zip(SERVICES)
    {
        let places = [
            ("{service}", service),
            ("{pods}", pods),
            ("{pod}", pod),
            ("{target}", target),
            ("{containers}", containers),
        ];
        let text = [PROXY, DOCKER].concat();
        let text = places
            .iter()
            .fold(text, |text, (place, value)| text.replace(place, value));
        restore(node, &format!("{}-restore", iptables(family, backend)), &text);
    }
}

fn restore(node: &TestNetns, program: &str, text: &str) {
    let mut child = node
        .command(program)
        .arg("--noflush")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}\n{text}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The others' chains and rules, in order.
fn others(node: &TestNetns, backend: Backend) -> Vec<String> {
    let lines = tables(node, backend).into_iter();
    // A table that we made stays, empty.
    let is_theirs =
        |line: &String| !line.contains("manx-") && (line.starts_with("-A") || line.contains(" - "));
    lines.filter(is_theirs).collect()
}

fn ours() -> Vec<Update> {
    let from_a = vec![manx_api::policy::Rule {
        source: from("app == 'mxa'"),
        ..rule(Action::Allow)
    }];
    let pods = pod("mxa", &MINE[0]).into_iter().chain(pod("mxb", &MINE[1]));
    let told = enforce(Settings::default()).into_iter().chain(pods);
    told.chain([policy("in", "app == 'mxb'", [Some(from_a), None])])
        .collect()
}

/// The service is there for the pod A, which policy lets in, and for nobody else.
fn holds(site: &Site, outsider: &TestNetns, why: &str) {
    for [service, _, _, target, _, node] in SERVICES {
        let target: SocketAddr = target.parse().unwrap();
        let receiver = site.pods[1].run(|| UdpSocket::bind(target).unwrap()).unwrap();
        let service = SocketAddr::new(ip(service), 53);
        let node_port = SocketAddr::new(ip(node), 30_053);
        assert!(
            asked_by(&site.pods[0], service, &receiver, true),
            "{why}: {service}"
        );
        assert!(
            asked_by(&site.pods[0], node_port, &receiver, true),
            "{why}: {node_port}"
        );
        assert!(
            asked_by(&site.pods[1], service, &receiver, true),
            "{why}: {service}, itself"
        );
        for at in [service, target] {
            assert!(
                !asked_by(outsider, at, &receiver, false),
                "{why}: {at} from outside"
            );
        }
    }
}

/// Somebody who is no pod, behind the node's uplink.
fn outsider(site: &Site) -> TestNetns {
    let outsider = TestNetns::new("outsider");
    site.node.connect(
        &outsider,
        "eth0",
        [
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        ],
    );
    for net in ["10.64.0.0/16", "10.96.0.0/16"] {
        outsider.ip(&format!("route add {net} via 192.0.2.1"));
    }
    for net in ["fd64::/16", "fd96::/16"] {
        outsider.ip(&format!("route add {net} via 2001:db8::1"));
    }
    let is_up = || {
        MINE[1]
            .iter()
            .all(|pod| exchange(&outsider, &site.pods[1], ip(pod)).is_some())
    };
    assert!(eventually(SOON, is_up));
    outsider
}

#[test]
fn services_work_and_policies_hold_behind_them_whoever_comes_first() {
    for backend in Backend::ALL {
        let site = Site::new();
        let outsider = outsider(&site);
        write_others(&site.node, backend);
        let theirs = others(&site.node, backend);
        let mut owner = Owner::new(&site.node, None);
        owner.apply(ours()).unwrap();
        assert_eq!(
            owner.rules.backend(),
            Some(backend),
            "where the others' rules are"
        );
        holds(&site, &outsider, &format!("{backend:?}: they came first"));
        assert_eq!(others(&site.node, backend), theirs);

        drop(owner);
        let mut next = Owner::new(&site.node, None);
        assert_eq!(
            next.apply(ours()).unwrap(),
            0,
            "{backend:?}: after a restart all is there"
        );
        holds(&site, &outsider, &format!("{backend:?}: after our restart"));

        for family in ["iptables", "ip6tables"] {
            for damage in ["-F", "-X", "-t nat -F", "-t nat -X"] {
                // Who starts anew flushes its own chains, and we are not asked.
                run(&site.node, &iptables(family, backend), damage);
            }
        }
        next.check().unwrap();
        write_others(&site.node, backend);
        assert!(next.check().unwrap() > 0, "{backend:?}: ours are in front again");
        holds(&site, &outsider, &format!("{backend:?}: they came after us"));
        assert_eq!(others(&site.node, backend), theirs);

        next.apply([Update::Enforce(None)]).unwrap();
        assert_eq!(
            others(&site.node, backend),
            theirs,
            "{backend:?}: ours are gone, theirs are not"
        );
    }
}

#[test]
fn an_agent_whose_tables_are_flushed_writes_them_again() {
    for (backend, name) in Backend::ALL.into_iter().zip(["nft", "legacy"]) {
        let cluster = Cluster::new();
        let [netns, _beyond] = TestNetns::pair(["node", "beyond"]);
        let mut node = cluster.node("n1", netns);
        node.configure("iptables", json!({"backend": name, "refreshSeconds": 1}));
        node.start();
        let pods = ["a", "b"].map(TestNetns::new);
        let at: Vec<_> = ["a", "b"]
            .iter()
            .zip(&pods)
            .map(|(name, pod)| node.add(name, pod))
            .collect();
        let answered = || {
            at[1]
                .iter()
                .map(|to| exchange(&pods[0], &pods[1], *to).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(answered(), [true; 2]);
        let closed = json!({"selector": "all()", "types": ["Ingress"]});
        cluster.create("GlobalNetworkPolicy", "closed", &closed);
        let is_closed = || answered() == [false; 2];
        assert!(eventually(SOON, is_closed), "{backend:?}: {}", node.log());
        let ours = || {
            let mut lines = tables(&node.netns, backend);
            lines.retain(|line| line.contains("manx-"));
            lines
        };
        let right = ours();
        assert!(!right.is_empty());
        for family in ["iptables", "ip6tables"] {
            for table in ["filter", "nat", "raw", "mangle"] {
                for damage in ["-F", "-X"] {
                    run(
                        &node.netns,
                        &iptables(family, backend),
                        &format!("-t {table} {damage}"),
                    );
                }
            }
        }
        assert!(
            eventually(SOON, || ours() == right),
            "{backend:?}: {}",
            node.log()
        );
        run(&node.netns, "conntrack", "-F");
        assert_eq!(answered(), [false; 2], "{backend:?}");
    }
}

/// Legacy programs wait for a lock that is a file's, and give up in the end.
#[test]
fn a_lock_that_another_program_keeps_delays_new_rules_and_opens_nothing() {
    let cluster = Cluster::new();
    let [netns, _beyond] = TestNetns::pair(["node", "beyond"]);
    let mut node = cluster.node("n1", netns);
    node.configure("iptables", json!({"backend": "legacy", "refreshSeconds": 60}));
    let path = node.folder().join("xtables.lock");
    node.start_with("XTABLES_LOCKFILE", &path);
    let pods = ["a", "b"].map(TestNetns::new);
    let [_, to] = [node.add("a", &pods[0]), node.add("b", &pods[1])];
    let answered = || to.iter().all(|to| exchange(&pods[0], &pods[1], *to).is_some());
    let guarded = |types: &[&str], ingress: &[Value]| {
        json!({
            "namespaceSelector": "kubernetes.io/metadata.name == 'default'",
            "order": types.len(), "types": types, "ingress": ingress,
        })
    };
    cluster.create(
        "GlobalNetworkPolicy",
        "closed",
        &guarded(&["Ingress", "Egress"], &[]),
    );
    assert!(eventually(SOON, || !answered()), "{}", node.log());

    let lock = std::fs::File::options().write(true).open(&path).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let open = guarded(&["Ingress"], &[json!({"action": "Allow"})]);
    cluster.create("GlobalNetworkPolicy", "open-ingress", &open);
    let gave_up = || {
        assert!(!answered(), "what is in force stays in force");
        node.log().contains("holding the xtables lock")
    };
    assert!(eventually(SOON, gave_up), "{}", node.log());
    // A pod that no rule concerns comes and goes.
    let free = TestNetns::new("free");
    let added = node.cni_of("free", "ADD", "free", free.path(), &json!({}));
    node.added(&added);
    node.delete("free", free.path());

    drop(lock);
    cluster.delete(Kind::GlobalNetworkPolicy, "closed");
    assert!(eventually(SOON, answered), "{}", node.log());
}
