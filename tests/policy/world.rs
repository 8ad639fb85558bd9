//! Small clusters for policies to be tried on, and random ones from a seed.
#![expect(clippy::wildcard_enum_match_arm, reason = "of twenty kinds, one is a pod")]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use manx_api::rule::Direction;
use manx_api::workload::WorkloadEndpoint;
use manx_api::{Resource, validate};
use serde_json::{Value, json};

/// A cluster: namespaces, pods, host endpoints, network sets, tiers and policies, and services beside them.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) resources: Vec<Resource>,
    pub(crate) services: Vec<Service>,
}

/// A service, as far as rules speak of it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Address, protocol's number, port.
    pub(crate) endpoints: Vec<(IpAddr, u8, u16)>,
}

/// A packet that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// The protocol's number.
    pub(crate) protocol: u8,
    /// From and to which port; none for protocols without.
    pub(crate) ports: Option<(u16, u16)>,
    /// Type and code, of ICMP.
    pub(crate) icmp: Option<(u8, u8)>,
}

impl World {
    /// A world of documents, which have to be valid.
    pub(crate) fn of(documents: impl IntoIterator<Item = Value>) -> Self {
        let read = |document: Value| {
            let resource: Resource = serde_json::from_value(document.clone())
                .unwrap_or_else(|error| panic!("{error}: {document}"));
            assert_eq!(validate(&resource), [], "{document}");
            resource
        };
        Self {
            resources: documents.into_iter().map(read).collect(),
            services: Vec::new(),
        }
    }

    /// The pods.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &WorkloadEndpoint> {
        self.resources.iter().filter_map(|resource| match resource {
            Resource::WorkloadEndpoint(pod) => Some(pod),
            _ => None,
        })
    }
}

/// Documents and services, one a line: what a failed test shows.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for resource in &self.resources {
            writeln!(f, "{}", serde_json::to_string(resource).map_err(|_| fmt::Error)?)?;
        }
        writeln!(f, "{:?}", self.services)
    }
}

/// A namespace's document; labels as `a=x b=y`.
pub(crate) fn namespace(name: &str, labels: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": pairs(labels)}})
}

/// A pod's document: the `host`th of all, with the ports http (TCP 80), alt (TCP 8080) and dns (UDP 53).
pub(crate) fn pod(namespace: &str, name: &str, labels: &str, host: u8) -> Value {
    json!({
        "apiVersion": "manx.network/v1", "kind": "WorkloadEndpoint",
        "metadata": {"name": name, "namespace": namespace, "labels": pairs(labels)},
        "spec": {
            "node": "n", "pod": name, "containerID": name, "endpoint": "eth0", "interfaceName": format!("mx{host}"),
            "addresses": [address_v4(host), address_v6(host)],
            "ports": [{"name": "http", "port": 80}, {"name": "alt", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}],
        },
    })
}

/// The IPv4 address of the pod with that number.
pub(crate) fn address_v4(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host).into()
}

/// The IPv6 address of the pod with that number.
pub(crate) fn address_v6(host: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into()
}

fn pairs(text: &str) -> Value {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(label, value)| (label.to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Numbers from a seed (SplitMix64): the same on every machine.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        u8::try_from(self.roll() % u64::from(end)).expect("less than end")
    }

    fn once_in(&mut self, times: u8) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        let count = u8::try_from(from.len()).expect("few things to choose from");
        from[usize::from(self.below(count))].clone()
    }

    /// From `least` to `most` of what `make` makes.
    fn some<T>(&mut self, least: u8, most: u8, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| make(self)).collect()
    }
}

const NAMESPACES: [&str; 3] = ["ns-0", "ns-1", "ns-2"];
const PORTS: [u16; 4] = [53, 80, 81, 8080];
/// Networks that cut through the pods' addresses, and one of elsewhere.
const NETS_V4: [&str; 6] = [
    "10.0.0.0/24",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.2/32",
    "0.0.0.0/0",
    "192.0.2.0/24",
];
const NETS_V6: [&str; 5] = ["fd00::/64", "fd00::4/126", "fd00::2/128", "::/0", "2001:db8::/32"];
const SELECTORS: [&str; 10] = [
    "all()",
    "a == 'x'",
    "a != 'x'",
    "has(b)",
    "!has(b)",
    "a == 'x' && b == 'y'",
    "a == 'y' || !(b == 'x')",
    "b not in {'x'}",
    "a in {'x', 'y'}",
    "projectcalico.org/namespace == 'ns-1'",
];
const OF_NAMESPACES: [&str; 6] = [
    "all()",
    "team == 'x'",
    "team != 'x'",
    "!has(team)",
    "projectcalico.org/name == 'ns-0'",
    "kubernetes.io/metadata.name in {'ns-1', 'ns-2'}",
];

/// A random cluster. Pods are numbered from 1.
pub(crate) fn random(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let count = 2 + dice.below(2);
    let namespaces = &NAMESPACES[..usize::from(count)];
    let mut documents = Vec::new();
    for name in namespaces {
        // One that nobody has described is there as well.
        if !dice.once_in(5) {
            documents.push(namespace(name, dice.choose(&["", "team=x", "team=y"])));
        }
    }
    for host in 1..=3 + dice.below(6) {
        let mut pod = pod(
            dice.choose(namespaces),
            &format!("p{host}"),
            &labels(&mut dice),
            host,
        );
        if dice.once_in(2) {
            pod["spec"]["serviceAccount"] = json!(dice.choose(&["web", "db"]));
        }
        documents.push(pod);
    }
    for i in 0..dice.below(3) {
        documents.push(network_set(&mut dice, i, namespaces));
    }
    if dice.once_in(3) {
        documents.push(host_endpoint(&mut dice));
    }
    let has_uplink = dice.once_in(3);
    if has_uplink {
        documents.push(uplink(&mut dice));
    }
    let tiers = dice.some(0, 2, tier);
    let tiers: Vec<Value> = (0..)
        .zip(tiers)
        .map(|(i, tier)| renamed(tier, &format!("t{i}")))
        .collect();
    // One of them is not there.
    let mut names = vec!["default".to_owned(), "default".to_owned(), "t9".to_owned()];
    names.extend((0..tiers.len()).map(|i| format!("t{i}")));
    documents.extend(tiers);
    let mut policies = dice.some(0, 8, |dice| policy(dice, namespaces, &names));
    if has_uplink {
        policies.extend(dice.some(1, 4, |dice| host_policy(dice, namespaces, &names)));
    }
    documents.extend(
        (0..)
            .zip(policies)
            .map(|(i, policy)| renamed(policy, &format!("policy-{i}"))),
    );
    let mut world = World::of(documents);
    world.services = vec![service(&mut dice, namespaces)];
    world
}

/// Packets between all pods, each and itself, one stranger and `others`, of every family, protocol and port that policies speak of.
pub(crate) fn packets(world: &World, others: impl IntoIterator<Item = IpAddr>) -> Vec<Packet> {
    let stranger: [IpAddr; 2] = [
        Ipv4Addr::new(192, 0, 2, 9).into(),
        "2001:db8::9".parse().expect("an address"),
    ];
    let pods: Vec<IpAddr> = world.pods().flat_map(|pod| pod.spec.addresses.clone()).collect();
    let mut addresses = pods.clone();
    addresses.extend(stranger.into_iter().chain(others));
    let mut packets = Vec::new();
    for &from in &addresses {
        for &to in addresses
            .iter()
            .filter(|to| to.is_ipv4() == from.is_ipv4() && (**to != from || pods.contains(to)))
        {
            let packet = |protocol, ports, icmp| Packet {
                from,
                to,
                protocol,
                ports,
                icmp,
            };
            for protocol in [6, 17, 132] {
                packets.extend(PORTS.map(|port| packet(protocol, Some((40_000, port)), None)));
            }
            let (icmp, echo) = if from.is_ipv4() { (1, 8) } else { (58, 128) };
            packets.push(packet(icmp, None, Some((echo, 0))));
            packets.push(packet(47, None, None));
        }
    }
    packets
}

fn renamed(mut document: Value, name: &str) -> Value {
    document["metadata"]["name"] = json!(name);
    document
}

fn labels(dice: &mut Dice) -> String {
    let a = dice.choose(&["", "a=x", "a=y"]);
    format!("{a} {}", dice.choose(&["", "b=x", "b=y"]))
}

fn network_set(dice: &mut Dice, number: u8, namespaces: &[&str]) -> Value {
    let mut metadata = json!({"name": format!("set-{number}"), "labels": pairs(&labels(dice))});
    let kind = if dice.once_in(2) {
        "GlobalNetworkSet"
    } else {
        metadata["namespace"] = json!(dice.choose(namespaces));
        "NetworkSet"
    };
    let mut nets = dice.some(0, 2, |dice| dice.choose(&NETS_V4));
    nets.extend(dice.some(0, 1, |dice| dice.choose(&NETS_V6)));
    json!({"apiVersion": "manx.network/v1", "kind": kind, "metadata": metadata, "spec": {"nets": nets}})
}

/// Where the stranger is.
fn host_endpoint(dice: &mut Dice) -> Value {
    json!({
        "apiVersion": "manx.network/v1", "kind": "HostEndpoint",
        "metadata": {"name": "host", "labels": pairs(&labels(dice))},
        "spec": {"node": "n", "expectedIPs": ["192.0.2.9", "2001:db8::9"], "ports": [{"name": "http", "port": 81}]},
    })
}

/// The interface to everything outside of the node that local pods are on.
fn uplink(dice: &mut Dice) -> Value {
    let profiles: &[&str] = if dice.once_in(2) {
        &["projectcalico-default-allow"]
    } else {
        &[]
    };
    json!({
        "apiVersion": "manx.network/v1", "kind": "HostEndpoint",
        "metadata": {"name": "uplink", "labels": pairs(&labels(dice))},
        "spec": {
            "node": "here", "interfaceName": dice.choose(&["eth0", "*"]), "expectedIPs": ["192.0.2.1", "2001:db8::1"],
            "ports": [{"name": "http", "port": 8080}], "profiles": profiles,
        },
    })
}

fn tier(dice: &mut Dice) -> Value {
    let orders = [json!(10), json!(0.5), json!(2_000_000), json!(null)];
    let spec = json!({"order": dice.choose(&orders), "defaultAction": dice.choose(&["Deny", "Pass"])});
    json!({"apiVersion": "manx.network/v1", "kind": "Tier", "metadata": {"name": ""}, "spec": spec})
}

fn service(dice: &mut Dice, namespaces: &[&str]) -> Service {
    Service {
        namespace: (dice.choose(namespaces)).to_owned(),
        name: "web".to_owned(),
        endpoints: dice.some(0, 3, |dice| {
            (address_v4(1 + dice.below(8)), 6, dice.choose(&PORTS))
        }),
    }
}

fn policy(dice: &mut Dice, namespaces: &[&str], tiers: &[String]) -> Value {
    let (version, kind, namespaced) = dice.choose(&[
        ("networking.k8s.io/v1", "NetworkPolicy", true),
        ("networking.k8s.io/v1", "NetworkPolicy", true),
        ("manx.network/v1", "NetworkPolicy", true),
        ("manx.network/v1", "NetworkPolicy", true),
        ("manx.network/v1", "GlobalNetworkPolicy", false),
        ("manx.network/v1", "GlobalNetworkPolicy", false),
        ("manx.network/v1", "StagedNetworkPolicy", true),
        ("manx.network/v1", "StagedGlobalNetworkPolicy", false),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false),
    ]);
    let spec = match version {
        "networking.k8s.io/v1" => kubernetes(dice),
        "manx.network/v1" => tiered(dice, namespaces, tiers, namespaced),
        _ => cluster(dice),
    };
    let mut metadata = json!({"name": ""});
    if namespaced {
        metadata["namespace"] = json!(dice.choose(namespaces));
    }
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

/// A global policy that acts on host endpoints, at any of the points where those do.
fn host_policy(dice: &mut Dice, namespaces: &[&str], tiers: &[String]) -> Value {
    let mut spec = tiered(dice, namespaces, tiers, false);
    if dice.once_in(2) {
        spec["selector"] = json!("all()");
    }
    let point = dice.choose(&["", "applyOnForward", "preDNAT", "doNotTrack"]);
    if !point.is_empty() {
        spec["applyOnForward"] = json!(true);
        spec[point] = json!(true);
    }
    if point == "preDNAT" {
        spec["egress"] = json!([]);
        spec["types"] = json!(["Ingress"]);
    }
    json!({"apiVersion": "manx.network/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": ""}, "spec": spec})
}

/// A policy in Calico's language.
fn tiered(dice: &mut Dice, namespaces: &[&str], tiers: &[String], namespaced: bool) -> Value {
    let orders = [json!(null), json!(1), json!(1000), json!(1500.5)];
    let mut spec = json!({
        "tier": dice.choose(tiers), "order": dice.choose(&orders), "selector": dice.choose(&SELECTORS),
    });
    if !namespaced && dice.once_in(3) {
        spec["namespaceSelector"] = json!(dice.choose(&OF_NAMESPACES));
    }
    if !namespaced && dice.once_in(6) {
        spec["applyOnForward"] = json!(true);
    }
    if dice.once_in(6) {
        spec["serviceAccountSelector"] = json!("all()");
    }
    let direction = dice.below(3);
    if direction != 0 {
        spec["ingress"] = dice
            .some(0, 3, |dice| rule(dice, namespaces, Direction::Ingress))
            .into();
    }
    if direction != 1 {
        spec["egress"] = dice
            .some(0, 3, |dice| rule(dice, namespaces, Direction::Egress))
            .into();
    }
    if dice.once_in(4) {
        spec["types"] = json!(["Ingress", "Egress"]);
    }
    spec
}

/// Services are what egress goes to, and what ingress comes from.
fn rule(dice: &mut Dice, namespaces: &[&str], direction: Direction) -> Value {
    let mut rule = json!({"action": dice.choose(&["Allow", "Allow", "Deny", "Deny", "Pass", "Log"])});
    let v6 = dice.once_in(3);
    match dice.below(8) {
        0 | 1 => {
            rule["protocol"] = json!(dice.choose(&["TCP", "UDP", "SCTP"]));
            let list = dice.choose(&["ports", "ports", "notPorts"]);
            rule["destination"][list] = ports(dice);
            if dice.once_in(4) {
                rule["source"]["ports"] = json!([dice.choose(&["39000:41000", "1:1000"])]);
            }
        }
        2 => rule["protocol"] = json!(dice.choose(&["TCP", "UDP"])),
        3 => rule["notProtocol"] = json!(dice.choose(&["TCP", "ICMP", "47"])),
        4 if v6 => rule["protocol"] = json!("ICMPv6"),
        4 => {
            rule["protocol"] = json!("ICMP");
            let list = dice.choose(&["icmp", "notICMP"]);
            rule[list] = dice.choose(&[
                json!({"type": 8}),
                json!({"type": 8, "code": 1}),
                json!({"type": 0}),
            ]);
        }
        _ => {}
    }
    let v6 = v6 && rule["notProtocol"] != "ICMP";
    if v6 && dice.once_in(2) {
        rule["ipVersion"] = json!(6);
    }
    for side in ["source", "destination"] {
        if !dice.once_in(3) {
            end(dice, &mut rule[side], v6);
        }
    }
    let service_side = match direction {
        Direction::Ingress => "source",
        Direction::Egress => "destination",
    };
    if rule[service_side].is_null() && dice.once_in(3) {
        rule[service_side] = json!({"services": {"name": "web", "namespace": dice.choose(namespaces)}});
    }
    for side in ["source", "destination"] {
        if rule[side].is_null() {
            rule[side] = json!({});
        }
    }
    rule
}

fn ports(dice: &mut Dice) -> Value {
    let all = [
        json!(80),
        json!("80:81"),
        json!("http"),
        json!("alt"),
        json!("dns"),
        json!(53),
        json!("81:65535"),
    ];
    dice.some(1, 2, |dice| dice.choose(&all)).into()
}

/// What a rule says of one end, beside ports.
fn end(dice: &mut Dice, end: &mut Value, v6: bool) {
    let nets: &[&str] = if v6 { &NETS_V6 } else { &NETS_V4 };
    match dice.below(8) {
        0 => end["nets"] = dice.some(1, 2, |dice| dice.choose(nets)).into(),
        1 => {
            end["nets"] = json!([nets[0]]);
            end["notNets"] = json!([dice.choose(nets)]);
        }
        2 => end["notSelector"] = json!(dice.choose(&SELECTORS)),
        3 => end["serviceAccounts"] = json!({"names": [dice.choose(&["web", "db"])]}),
        4 => end["namespaceSelector"] = json!(dice.choose(&OF_NAMESPACES)),
        5 => end["namespaceSelector"] = json!("global()"),
        _ => end["selector"] = json!(dice.choose(&SELECTORS)),
    }
    if dice.once_in(3) {
        end["selector"] = json!(dice.choose(&SELECTORS));
    }
    if dice.once_in(4) {
        end["namespaceSelector"] = json!(dice.choose(&OF_NAMESPACES));
    }
}

fn label_selector(dice: &mut Dice, keys: &[&str]) -> Value {
    let key = dice.choose(keys);
    let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    match dice.below(7) {
        0 | 1 => json!({}),
        2 => json!({"matchLabels": {key: dice.choose(&["x", "y"])}}),
        3 => expression("In", json!(["x"])),
        4 => expression("NotIn", json!(["x", "z"])),
        5 => expression("Exists", json!([])),
        _ => expression("DoesNotExist", json!([])),
    }
}

const POD_KEYS: [&str; 2] = ["a", "b"];
const NAMESPACE_KEYS: [&str; 1] = ["team"];

fn kubernetes(dice: &mut Dice) -> Value {
    let rules = |dice: &mut Dice, peers: &str| {
        dice.some(0, 2, |dice| {
            let mut rule = json!({});
            rule[peers] = dice.some(0, 2, kubernetes_peer).into();
            rule["ports"] = dice.some(0, 2, kubernetes_port).into();
            rule
        })
    };
    let types = [
        json!(null),
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
    ];
    json!({
        "podSelector": label_selector(dice, &POD_KEYS), "policyTypes": dice.choose(&types),
        "ingress": rules(dice, "from"), "egress": rules(dice, "to"),
    })
}

fn kubernetes_peer(dice: &mut Dice) -> Value {
    match dice.below(5) {
        0 => json!({"podSelector": label_selector(dice, &POD_KEYS)}),
        1 => json!({"namespaceSelector": label_selector(dice, &NAMESPACE_KEYS)}),
        2 => json!({
            "podSelector": label_selector(dice, &POD_KEYS), "namespaceSelector": label_selector(dice, &NAMESPACE_KEYS),
        }),
        3 => {
            json!({"ipBlock": {"cidr": "10.0.0.5/24", "except": [dice.choose(&["10.0.0.4/30", "10.0.0.2/32"])]}})
        }
        _ => json!({"ipBlock": {"cidr": dice.choose(&NETS_V6)}}),
    }
}

fn kubernetes_port(dice: &mut Dice) -> Value {
    let port = [
        json!({}),
        json!({"port": 80}),
        json!({"port": 80, "endPort": 81}),
        json!({"port": "http"}),
        json!({"port": "dns"}),
    ];
    let mut port = dice.choose(&port);
    if dice.once_in(2) {
        port["protocol"] = json!(dice.choose(&["TCP", "UDP", "SCTP"]));
    }
    port
}

fn cluster(dice: &mut Dice) -> Value {
    let ingress = dice.some(0, 2, |dice| {
        json!({
            "action": dice.choose(&["Accept", "Deny", "Pass"]), "from": dice.some(1, 2, cluster_pods),
            "protocols": dice.some(0, 2, cluster_protocol),
        })
    });
    let egress = dice.some(0, 2, |dice| {
        let action = dice.choose(&["Accept", "Deny", "Pass"]);
        let protocols = dice.some(0, 2, cluster_protocol);
        let named = protocols
            .iter()
            .any(|protocol| protocol["destinationNamedPort"].is_string());
        let to = dice.some(1, 2, |dice| {
            if !named && dice.once_in(2) {
                json!({"networks": [dice.choose(&NETS_V4), dice.choose(&NETS_V6)]})
            } else {
                cluster_pods(dice)
            }
        });
        json!({"action": action, "to": to, "protocols": protocols})
    });
    json!({
        "tier": dice.choose(&["Admin", "Baseline"]), "priority": dice.below(3), "subject": cluster_pods(dice),
        "ingress": ingress, "egress": egress,
    })
}

fn cluster_pods(dice: &mut Dice) -> Value {
    if dice.once_in(2) {
        return json!({"namespaces": label_selector(dice, &NAMESPACE_KEYS)});
    }
    json!({"pods": {
        "namespaceSelector": label_selector(dice, &NAMESPACE_KEYS), "podSelector": label_selector(dice, &POD_KEYS),
    }})
}

fn cluster_protocol(dice: &mut Dice) -> Value {
    dice.choose(&[
        json!({"tcp": {"destinationPort": {"number": 80}}}),
        json!({"udp": {"destinationPort": {"range": {"start": 53, "end": 80}}}}),
        json!({"sctp": {"destinationPort": {"number": 8080}}}),
        json!({"destinationNamedPort": "http"}),
        json!({"destinationNamedPort": "dns"}),
    ])
}
