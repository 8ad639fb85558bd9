//! Manifests in and out: the corpus of bad ones with what is said of each, and round trips.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use manx_api::bgp::{
    Aggregation, BfdSpec, BgpConfiguration, BgpConfigurationSpec, BgpPeer, BgpPeerSpec, MaxPrefixes,
    NextHopMode, Password, SecretKeyRef, ServiceRange, SourceAddress,
};
use manx_api::filter::{BgpFilter, BgpFilterSpec, FilterRule};
use manx_api::ipam::{
    Allocation, AttachmentId, IpBlock, IpBlockSpec, IpPool, IpPoolSpec, Release, block_name,
};
use manx_api::manifest::{load, load_into, to_json, to_yaml};
use manx_api::node::{Node, NodeBgp, NodeSpec};
use manx_api::rule::{NamedPort, Protocol};
use manx_api::workload::{WorkloadEndpoint, WorkloadEndpointSpec};
use manx_api::{Metadata, Resource, Revision, validate};
use proptest::prelude::*;

/// The bad manifests. `NAME.yaml` has `NAME.expected` beside it.
fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let entries = fs::read_dir(folder).expect("tests/data");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// Set `UPDATE_EXPECTED=1` to write the expectations anew; read the difference before committing it.
#[test]
fn every_bad_manifest_is_refused_in_the_words_we_chose() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let files = corpus();
    assert!(files.len() > 40, "the corpus is here");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy();
        let errors = load(&name, &text).expect_err(&name);
        let told: String = errors.iter().map(|error| format!("{error}\n")).collect();
        let expected = file.with_extension("expected");
        if update {
            fs::write(&expected, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&expected).unwrap_or_default(), "{name}");
    }
}

#[test]
fn no_part_of_a_manifest_makes_the_loader_panic() {
    for file in corpus() {
        let bytes = fs::read(file).unwrap();
        for end in (0..bytes.len()).step_by(7) {
            drop(load("torn.yaml", &String::from_utf8_lossy(&bytes[..end])));
            drop(load("late.yaml", &String::from_utf8_lossy(&bytes[end..])));
        }
    }
}

/// The body of the fuzz target, over its corpus and ours.
#[path = "../../tests/fuzz/src/manifest.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes it")]
mod fuzz;

#[test]
fn the_fuzz_corpus_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/manifest");
    let entries = fs::read_dir(folder).expect("the fuzz corpus");
    let inputs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(inputs.len() >= 10, "the corpus is here");
    for input in inputs.into_iter().chain(corpus()) {
        fuzz::manifest(&fs::read(input).unwrap());
    }
}

#[test]
fn every_good_seed_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/manifest");
    for seed in [
        "pool",
        "pool6",
        "block",
        "node",
        "config",
        "peer",
        "filter",
        "endpoint",
        "list",
        "json",
        "documents",
        "policy",
        "kubernetes",
    ] {
        let text = fs::read_to_string(folder.join(seed)).unwrap();
        load(seed, &text).unwrap_or_else(|errors| panic!("{errors:?}"));
    }
}

#[test]
fn a_file_holds_documents_lists_and_nothing() {
    let node = "apiVersion: manx.network/v1\nkind: Node\nmetadata: {name: NAME}\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: manx.network/v1\n  kind: Node\n  metadata: {name: c}\n";
    let (a, b) = (node.replace("NAME", "a"), node.replace("NAME", "b"));
    let text = format!("# nothing\n---\n{a}---\n---\n{b}...\n---\n{list}");
    let resources = load("nodes.yaml", &text).unwrap();
    let names: Vec<&str> = resources
        .iter()
        .map(|resource| resource.metadata().name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(load("empty.yaml", ""), Ok(Vec::new()));
}

#[test]
fn a_namespaced_resource_without_a_namespace_is_put_into_the_one_given() {
    let text =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n  podSelector:\n";
    let errors = load("policy.yaml", text).unwrap_err();
    assert_eq!(errors[0].field, "metadata.namespace");
    let resources = load_into("policy.yaml", text, Some("shop")).unwrap();
    assert_eq!(resources[0].metadata().namespace.as_deref(), Some("shop"));
}

/// A service, what is behind it and a service account, as a cluster has them.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {metallb.universe.tf/address-pool: a}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd96::10']
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  sessionAffinity: None
  externalIPs: [198.51.100.7]
  loadBalancerIP: ''
  loadBalancerClass: example.org/ours
  allocateLoadBalancerNodePorts: false
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  healthCheckNodePort: 31000
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, protocol: TCP, nodePort: 30080, appProtocol: http}]
status: {loadBalancer: {ingress: [{ip: 198.51.100.8, ipMode: VIP}]}, conditions: []}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], ports: null}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-abc, namespace: shop, labels: {kubernetes.io/service-name: web}, generateName: web-}
addressType: IPv4
endpoints:
- addresses: [10.244.0.2]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node1
  zone: a
  targetRef: {kind: Pod, name: web, namespace: shop, uid: b}
  hints: {forZones: [{name: a}]}
ports: [{name: http, port: 8080, protocol: TCP}, {name: any, protocol: UDP}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: clerk, namespace: shop, labels: {team: sales}}
secrets: [{name: clerk-token}]
automountServiceAccountToken: false
";

/// What `kubectl get -o yaml` and `kubectl create --dry-run=client -o yaml` write.
#[test]
fn what_a_cluster_wrote_is_read() {
    let text = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, creationTimestamp: null, labels: null}
spec: {finalizers: [kubernetes]}
status: {phase: Active}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  creationTimestamp: '2026-01-02T03:04:05Z'
  generation: 3
  managedFields: [{manager: kubectl, operation: Update, fieldsV1: {f:spec: {}}}]
  ownerReferences: [{apiVersion: v1, kind: Pod, name: a, uid: b}]
  finalizers: [example.org/wait]
  name: web
  namespace: shop
  resourceVersion: '7'
  uid: c0ffee
spec: {podSelector: {}, policyTypes: [Ingress]}
status: {}
";
    let resources = load("cluster.yaml", &format!("{text}---\n{SERVICES}")).unwrap();
    let again: Vec<String> = resources
        .iter()
        .map(|resource| to_yaml(resource).unwrap())
        .collect();
    assert!(
        !again[..2].concat().contains("status") && !again.concat().contains("generation"),
        "{again:?}"
    );
    assert_eq!(load("again.yaml", &again.join("---\n")), Ok(resources));
}

#[test]
fn defaults_are_filled_in() {
    let text = "
apiVersion: manx.network/v1
kind: IPPool
metadata: {name: main}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: manx.network/v1
kind: BGPConfiguration
metadata: {name: default}
---
apiVersion: manx.network/v1
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: '[2001:db8::1]:1179', asNumber: '1.10'}
";
    let resources = load("defaults.yaml", text).unwrap();
    let [
        Resource::IpPool(pool),
        Resource::BgpConfiguration(bgp),
        Resource::BgpPeer(peer),
    ] = &resources[..]
    else {
        panic!("{resources:?}");
    };
    assert_eq!(
        (pool.spec.block_size(), pool.spec.node_selector.to_string()),
        (26, "all()".to_owned())
    );
    assert_eq!(bgp.spec, BgpConfigurationSpec::default());
    assert_eq!(peer.spec.as_number, Some(65546));
    assert_eq!((peer.spec.hold_time, peer.spec.max_restart_time), (90, 120));
    assert_eq!(peer.spec.next_hop_mode, NextHopMode::Auto);
}

#[test]
fn yaml_reads_as_a_manifest_is_written_by_hand() {
    let text = "\
apiVersion: manx.network/v1
kind: IPPool
metadata:
  name: main
spec:
  cidr: 10.244.0.0/16
  blockSize: 26
  nodeSelector: rack == \"a\"
  disabled: false
  disableBGPExport: false
";
    let resources = load("pool.yaml", text).unwrap();
    assert_eq!(to_yaml(&resources[0]).unwrap(), text);
}

fn parsed<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a value that this test wrote")
}

fn names() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?"
}

/// Text that a careless YAML writer leaves bare.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "[ -~\n\t]{0,12}",
        prop::sample::select(vec![
            "null", "~", "true", "on", "1e3", "0x1f", "0o7", "1_000", "- a", "a: b", "#", "&a", "*a", "|",
            "---", ".inf", "'", "\""
        ])
        .prop_map(str::to_owned),
    ]
}

fn metadata(name: impl Strategy<Value = String>, namespaced: bool) -> impl Strategy<Value = Metadata> {
    let labels =
        prop::collection::btree_map("([a-z]{1,4}\\.)?[a-z]{1,3}/[a-z0-9]{1,4}", "[a-z0-9]{0,4}", 0..3);
    let annotations = prop::collection::btree_map("[a-z0-9]{1,4}", hostile(), 0..3);
    let given = prop::option::of(any::<u64>());
    (name, names(), labels, annotations, given).prop_map(
        move |(name, namespace, labels, annotations, given)| Metadata {
            name,
            namespace: namespaced.then_some(namespace),
            uid: given.map(|given| format!("{given:x}")),
            resource_version: given.map(|given| Revision(given.to_string())),
            creation_timestamp: given.map(|_| "2026-01-02T03:04:05Z".to_owned()),
            labels,
            annotations,
        },
    )
}

fn pools() -> impl Strategy<Value = Resource> {
    let cidrs = prop::sample::select(vec![
        ("10.0.0.0/8", 26),
        ("192.168.0.0/20", 20),
        ("fd00::/48", 122),
    ]);
    let selectors = prop::sample::select(vec!["all()", "rack in {'a', \"b\"} && !has(x)", "a == ''"]);
    (metadata(names(), false), cidrs, any::<[bool; 3]>(), selectors).prop_map(
        |(metadata, (cidr, size), [sized, disabled, disable_bgp_export], selector)| {
            Resource::IpPool(IpPool {
                metadata,
                spec: IpPoolSpec {
                    block_size: sized.then_some(size),
                    node_selector: parsed(selector),
                    disabled,
                    disable_bgp_export,
                    ..IpPoolSpec::new(parsed(cidr))
                },
            })
        },
    )
}

fn blocks() -> impl Strategy<Value = Resource> {
    let cidrs = prop::sample::select(vec!["10.244.0.64/26", "fd00:10:244::40/122"]);
    (
        metadata(names(), false),
        cidrs,
        prop::option::of(names()),
        any::<u64>(),
        "\\PC{1,12}",
        hostile(),
    )
        .prop_map(|(mut metadata, cidr, node, number, container_id, pod)| {
            let cidr: IpNetwork = parsed(cidr);
            metadata.name = block_name(cidr);
            let owner = AttachmentId {
                container_id,
                ifname: "eth0".to_owned(),
                namespace: "default".to_owned(),
                pod,
                network: (number % 2 == 0).then(|| "pods".to_owned()),
            };
            let allocations = vec![Allocation {
                address: cidr.ip(),
                sequence: number,
                owner,
            }];
            let spec = IpBlockSpec {
                cidr,
                pool: "main".to_owned(),
                node,
                generation: number,
                allocations,
                releases: vec![Release {
                    address: cidr.ip(),
                    sequence: number,
                }],
                lease: None,
            };
            Resource::IpBlock(IpBlock { metadata, spec })
        })
}

fn nodes() -> impl Strategy<Value = Resource> {
    let bgp =
        (prop::option::of(1_u32..20_000), any::<[bool; 2]>()).prop_map(|(as_number, [v4, v6])| NodeBgp {
            as_number,
            ipv4_address: v4.then(|| parsed("192.0.2.1/24")),
            ipv6_address: v6.then(|| parsed("2001:db8::1/64")),
            route_reflector_cluster_id: v6.then(|| parsed("244.0.0.1")),
        });
    (metadata(names(), false), prop::option::of(bgp)).prop_map(|(metadata, bgp)| {
        Resource::Node(Node {
            metadata,
            spec: NodeSpec {
                unschedulable: bgp.is_none(),
                bgp,
            },
        })
    })
}

fn configurations() -> impl Strategy<Value = Resource> {
    let name = Just("default".to_owned());
    (
        metadata(name, false),
        any::<bool>(),
        1_u32..20_000,
        3_u16..,
        0_u16..=4095,
    )
        .prop_map(|(metadata, mesh, as_number, hold_time, restart)| {
            let spec = BgpConfigurationSpec {
                node_to_node_mesh_enabled: mesh,
                as_number,
                listen_port: hold_time,
                hold_time,
                node_mesh_max_restart_time: restart,
                node_mesh_long_lived_stale_time: restart.into(),
                node_mesh_filters: mesh.then(|| "from-mesh".to_owned()).into_iter().collect(),
                node_mesh_bfd: mesh.then(BfdSpec::default),
                node_mesh_password: mesh.then(password),
                service_cluster_ips: vec![ServiceRange {
                    cidr: "10.96.0.0/12".parse().expect("a network"),
                }],
                service_load_balancer_aggregation: Aggregation::Disabled,
                ..BgpConfigurationSpec::default()
            };
            Resource::BgpConfiguration(BgpConfiguration { metadata, spec })
        })
}

fn password() -> Password {
    Password {
        secret_key_ref: SecretKeyRef {
            name: "rack-1".to_owned(),
            key: "password".to_owned(),
        },
    }
}

fn peers() -> impl Strategy<Value = Resource> {
    let peer_ips = prop::sample::select(vec![
        "192.0.2.1:179",
        "192.0.2.1:1179",
        "[2001:db8::1]:179",
        "[2001:db8::1]:1179",
    ]);
    let modes = prop::sample::select(vec![
        NextHopMode::Auto,
        NextHopMode::SelfAddress,
        NextHopMode::Keep,
    ]);
    (
        metadata(names(), false),
        peer_ips,
        prop::option::of(names()),
        1_u32..20_000,
        modes,
        any::<bool>(),
    )
        .prop_map(|(metadata, peer_ip, node, as_number, next_hop_mode, nodes)| {
            let spec = BgpPeerSpec {
                node_selector: node.is_none().then(|| parsed("has(rack)")),
                node,
                peer_ip: (!nodes).then(|| parsed(peer_ip)),
                interface: None,
                peer_selector: nodes.then(|| parsed("has(reflector)")),
                as_number: (!nodes).then_some(as_number),
                next_hop_mode,
                passive: !nodes,
                hold_time: 90,
                max_restart_time: 120,
                long_lived_stale_time: as_number,
                filters: nodes.then(|| "to-tor".to_owned()).into_iter().collect(),
                local_as_number: nodes.then_some(64_999),
                allowed_local_as_numbers: u8::from(nodes),
                enforce_first_as: nodes,
                as_override: nodes,
                remove_private_as: nodes,
                max_prefixes: nodes.then(|| MaxPrefixes {
                    ipv6: Some(u32::MAX),
                    ..MaxPrefixes::default()
                }),
                bfd: nodes.then(|| BfdSpec {
                    min_tx: 50,
                    ..BfdSpec::default()
                }),
                password: nodes.then(password),
                ttl_security: nodes.then_some(1),
                source_address: if nodes {
                    SourceAddress::UseNodeIp
                } else {
                    SourceAddress::None
                },
            };
            Resource::BgpPeer(BgpPeer { metadata, spec })
        })
}

fn filters() -> impl Strategy<Value = Resource> {
    let rules = prop::sample::subsequence(
        vec![
            r#"{"action": "Reject"}"#,
            r#"{"cidr": "NET", "matchOperator": "NotIn", "prefixLength": {"min": 16}, "action": "Reject"}"#,
            r#"{"source": "RemotePeers", "peerType": "eBGP", "communities": {"values": ["1:2", "rt:1:2"]},
                "asPathPrefix": [1, 4200000000], "action": "Accept"}"#,
            r#"{"action": "Accept", "operations": [{"addCommunity": {"value": "no-export"}}, {"setMED": {"value": 0}},
                {"setCommunities": {"values": []}}, {"setLocalPreference": {"value": 4294967295}},
                {"prependASPath": {"prefix": [64512, 64512]}}]}"#,
        ],
        0..=4,
    );
    (metadata(names(), false), rules.clone(), rules).prop_map(|(metadata, import, export)| {
        let rules = |texts: &[&str], net| -> Vec<FilterRule> {
            let read = |text: &&str| serde_json::from_str(&text.replace("NET", net)).expect("a rule");
            texts.iter().map(read).collect()
        };
        let spec = BgpFilterSpec {
            import_v4: rules(&import, "10.0.0.0/8"),
            import_v6: rules(&import, "fd00::/8"),
            export_v4: rules(&export, "0.0.0.0/0"),
            export_v6: rules(&export, "::/0"),
        };
        Resource::BgpFilter(BgpFilter { metadata, spec })
    })
}

fn endpoints() -> impl Strategy<Value = Resource> {
    (
        metadata(names(), true),
        names(),
        names(),
        "\\PC{1,12}",
        any::<bool>(),
    )
        .prop_map(|(metadata, node, pod, container_id, dual)| {
            let mut addresses = vec![parsed("10.244.0.1")];
            if dual {
                addresses.push(parsed("fd00::1"));
            }
            let spec = WorkloadEndpointSpec {
                node,
                pod,
                container_id,
                endpoint: "eth0".to_owned(),
                interface_name: "mx0123456789a".to_owned(),
                addresses,
                service_account: dual.then(|| "web".to_owned()),
                ports: dual.then(named_port).into_iter().collect(),
                allowed_source_prefixes: dual.then(|| parsed("10.9.0.0/16")).into_iter().collect(),
            };
            Resource::WorkloadEndpoint(WorkloadEndpoint { metadata, spec })
        })
}

fn named_port() -> NamedPort {
    NamedPort {
        name: "http".to_owned(),
        protocol: Protocol::SCTP,
        port: 80,
    }
}

const MANX: &str = "manx.network/v1";
const RULES: &str = r#"[
    {"action": "Log"},
    {"action": "Allow", "ipVersion": 4, "protocol": "TCP", "metadata": {"annotations": {"a": "b"}},
     "source": {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"], "selector": "has(a)", "notSelector": "has(b)",
                "namespaceSelector": "global()", "ports": [80, "81:90", "web"], "notPorts": [82],
                "serviceAccounts": {"names": ["c"], "selector": "all()"}}},
    {"action": "Deny", "protocol": 58, "icmp": {"type": 1, "code": 2}, "notICMP": {"type": 3}},
    {"action": "Pass", "notProtocol": 47}]"#;
const ORDERED: &str = r#"{"tier": "t", "order": 0.5, "selector": "has(x)", "serviceAccountSelector": "has(y)",
    "types": ["Ingress"], "ingress": RULES}"#;
const HOST: &str =
    r#"{"applyOnForward": true, "doNotTrack": true, "namespaceSelector": "all()", "egress": RULES}"#;
const ENDPOINT: &str = r#"{"node": "a", "interfaceName": "*", "expectedIPs": ["fd00::1"],
    "profiles": ["projectcalico-default-allow"], "ports": [{"name": "ssh", "protocol": "TCP", "port": 22}]}"#;
const LABELS: &str = r#"{"matchLabels": {"a": "b"},
    "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]}"#;
const KUBERNETES: &str = r#"{"podSelector": LABELS, "policyTypes": ["Egress", "Ingress"],
    "ingress": [{}, {"from": [{"podSelector": {}, "namespaceSelector": LABELS},
                              {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
    "egress": [{"to": [{"podSelector": LABELS}],
                "ports": [{"port": 80, "endPort": 90, "protocol": "UDP"}, {"port": "web"}]}]}"#;
const CLUSTER: &str = r#"{"tier": "Baseline", "priority": 7, "subject": {"pods": {"podSelector": LABELS}},
    "ingress": [{"action": "Pass", "from": [{"namespaces": LABELS}], "protocols": [{"destinationNamedPort": "web"}]}],
    "egress": [{"name": "out", "action": "Deny", "to": [{"networks": ["fd00::/8"]}],
                "protocols": [{"udp": {"destinationPort": {"range": {"start": 1, "end": 2}}}}]}]}"#;

/// Policies and what they speak of: documents with every field that a kind has.
fn policies() -> impl Strategy<Value = Resource> {
    let kinds = prop::sample::select(vec![
        (MANX, "NetworkPolicy", true, ORDERED),
        (MANX, "NetworkPolicy", true, r#"{"order": -7}"#),
        (MANX, "StagedNetworkPolicy", true, r#"{"stagedAction": "Set"}"#),
        (MANX, "GlobalNetworkPolicy", false, HOST),
        (MANX, "StagedGlobalNetworkPolicy", false, HOST),
        (
            MANX,
            "Tier",
            false,
            r#"{"order": 100.25, "defaultAction": "Pass"}"#,
        ),
        (
            MANX,
            "NetworkSet",
            true,
            r#"{"nets": ["10.0.0.0/8", "fd00::/8"]}"#,
        ),
        (MANX, "GlobalNetworkSet", false, "{}"),
        (MANX, "HostEndpoint", false, ENDPOINT),
        ("networking.k8s.io/v1", "NetworkPolicy", true, KUBERNETES),
        (
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            false,
            CLUSTER,
        ),
    ]);
    (kinds, metadata(names(), false), names()).prop_map(
        move |((version, kind, namespaced, spec), mut metadata, namespace)| {
            metadata.namespace = namespaced.then_some(namespace);
            let spec = spec.replace("RULES", RULES).replace("LABELS", LABELS);
            let spec: serde_json::Value = serde_json::from_str(&spec).expect("a spec");
            let document =
                serde_json::json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
            serde_json::from_value(document).expect("a policy")
        },
    )
}

fn resources() -> impl Strategy<Value = Resource> {
    prop_oneof![
        policies(),
        pools(),
        blocks(),
        nodes(),
        configurations(),
        peers(),
        filters(),
        endpoints()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(resources in prop::collection::vec(resources(), 1..4)) {
        for resource in &resources {
            prop_assert_eq!(validate(resource), vec![]);
            prop_assert_eq!(load("one.json", &to_json(resource).unwrap()), Ok(vec![resource.clone()]));
        }
        let documents: Vec<String> = resources.iter().map(|resource| to_yaml(resource).unwrap()).collect();
        let text = documents.join("---\n");
        prop_assert_eq!(load("all.yaml", &text), Ok(resources), "{}", text);
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "([-a: \n\t\\[\\]{},&*!|>'\"#%0.<]|kind: |List|items:|metadata: |apiVersion: manx.network/v1\n){0,40}") {
        drop(load("noise.yaml", &text));
    }
}

#[test]
fn labels_with_dots_are_found() {
    let labels = BTreeMap::from([("example.org/rack".to_owned(), "a b".to_owned())]);
    let text = format!(
        "apiVersion: manx.network/v1\nkind: Node\nmetadata:\n  name: a\n  labels:\n    rack: a\n    example.org/rack: {}\n",
        labels["example.org/rack"]
    );
    let errors = load("node.yaml", &text).unwrap_err();
    assert_eq!(
        (errors[0].line, errors[0].field.as_str()),
        (Some(7), "metadata.labels[example.org/rack]")
    );
}
