//! What is refused, field by field. The words are held by the corpus of bad manifests.

use serde_json::{Value, json};

use super::*;
use crate::schema;
mod policy;
mod service;

use crate::ipam::{IpBlock, IpPool, SPLIT_INTO, block_name, pool_of};

/// A document of JSON; `changes` are pointers and what to put there.
fn edited(base: &Value, changes: &[(&str, Value)]) -> Value {
    let mut json = base.clone();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    json
}

/// The resource that [`edited`] describes.
fn changed(base: &Value, changes: &[(&str, Value)]) -> Resource {
    serde_json::from_value(edited(base, changes)).unwrap()
}

/// The problems of [`changed`]; Kubernetes' schema of the kind sees them too, where a schema can.
fn problems(base: &Value, changes: &[(&str, Value)]) -> Vec<Problem> {
    let problems = validate(&changed(base, changes));
    schema::tests::agrees(&edited(base, changes), &problems);
    problems
}

/// The fields that are refused once `pointer` is set to each of `values`.
fn refused(base: &Value, pointer: &str, values: &[Value], field: &str) {
    for value in values {
        let problems = problems(base, &[(pointer, value.clone())]);
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [field], "{pointer} = {value}: {problems:?}");
    }
}

fn accepted(base: &Value, pointer: &str, values: &[Value]) {
    for value in values {
        let problems = problems(base, &[(pointer, value.clone())]);
        assert_eq!(problems, [], "{pointer} = {value}");
    }
}

fn base(kind: &str, name: &str, spec: Value) -> Value {
    let base = json!({
        "apiVersion": "manx.network/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    if kind != "WorkloadEndpoint" {
        assert_eq!(problems(&base, &[]), []);
    }
    base
}

fn pool(name: &str, cidr: &str) -> IpPool {
    let pool = changed(
        &base("IPPool", name, json!({"cidr": "10.0.0.0/8"})),
        &[("/spec/cidr", json!(cidr))],
    );
    let Resource::IpPool(pool) = pool else {
        panic!("{pool:?}")
    };
    pool
}

#[test]
fn pools() {
    let pool = base("IPPool", "main", json!({"cidr": "10.244.0.0/16"}));
    let bad = [
        "10.244.0.1/16",
        "127.0.0.0/16",
        "224.0.0.0/8",
        "169.254.1.0/24",
        "0.0.0.0/1",
        "fe80::/64",
        "ff00::/16",
    ];
    for cidr in bad {
        refused(&pool, "/spec/cidr", &[json!(cidr)], "spec.cidr");
    }
    accepted(
        &pool,
        "/spec/cidr",
        &[json!("192.168.0.0/26"), json!("fd00::/48"), json!("fd00::/122")],
    );
    refused(
        &pool,
        "/spec/cidr",
        &[json!("192.168.0.0/27"), json!("fd00::/123")],
        "spec.blockSize",
    );
    refused(
        &pool,
        "/spec/blockSize",
        &[json!(0), json!(19), json!(33), json!(122)],
        "spec.blockSize",
    );
    accepted(&pool, "/spec/blockSize", &[json!(20), json!(32)]);
    let pool = base("IPPool", "main", json!({"cidr": "fd00::/118"}));
    refused(
        &pool,
        "/spec/blockSize",
        &[json!(26), json!(115), json!(117), json!(129)],
        "spec.blockSize",
    );
    accepted(&pool, "/spec/blockSize", &[json!(118), json!(128)]);
}

#[test]
fn pools_for_load_balancers() {
    let spec = json!({"cidr": "203.0.113.0/28", "allowedUses": ["LoadBalancer"]});
    let pool = base("IPPool", "main", spec);
    accepted(
        &pool,
        "/spec/cidr",
        &[json!("203.0.113.7/32"), json!("fd00::/64")],
    );
    refused(
        &pool,
        "/spec/nodeSelector",
        &[json!("has(rack)")],
        "spec.nodeSelector",
    );
    refused(
        &pool,
        "/spec/namespaceSelector",
        &[json!("has(team)")],
        "spec.namespaceSelector",
    );
    refused(
        &pool,
        "/spec/allowedUses",
        &[json!(["LoadBalancer", "Workload"])],
        "spec.allowedUses",
    );
    let mut pods = pool.clone();
    pods["spec"]["allowedUses"] = json!([]);
    pods["spec"]["blockSize"] = json!(30);
    let [pool, pods] = [pool, pods].map(|json| serde_json::from_value::<Resource>(json).unwrap());
    let problems = validate_update(&pods, &pool);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[1].field, "spec.allowedUses");
}

#[test]
fn pools_among_pools() {
    let others = [pool("a", "10.0.0.0/16"), pool("b", "fd00::/48")];
    for (cidr, overlapped) in [
        ("10.0.0.0/16", Some("a")),
        ("10.0.0.0/8", Some("a")),
        ("10.0.255.0/24", Some("a")),
        ("10.1.0.0/16", None),
        ("fd00::/64", Some("b")),
        ("fd00:0:1::/48", None),
    ] {
        let problems = validate_among_pools(&pool("new", cidr), &others);
        let named = problems.first().map(|problem| &problem.message);
        assert_eq!(named.is_some(), overlapped.is_some(), "{cidr}");
        if let (Some(message), Some(name)) = (named, overlapped) {
            assert!(message.contains(&format!("IPPool {name} ")), "{message}");
        }
    }
    assert_eq!(
        validate_among_pools(&others[0], &others),
        [],
        "a pool does not overlap itself"
    );
}

#[test]
fn blocks() {
    let block = base(
        "IPBlock",
        "10-244-0-64-26",
        json!({"cidr": "10.244.0.64/26", "pool": "main", "node": "node-1", "generation": 1}),
    );
    refused(
        &block,
        "/metadata/name",
        &[json!("10-244-0-0-26"), json!("main")],
        "metadata.name",
    );
    refused(&block, "/spec/pool", &[json!(""), json!("Main")], "spec.pool");
    refused(&block, "/spec/node", &[json!("node 1")], "spec.node");
    let wide = [
        ("/metadata/name", json!("10-244-0-0-19")),
        ("/spec/cidr", json!("10.244.0.0/19")),
    ];
    assert_eq!(problems(&block, &wide)[0].field, "spec.cidr");

    let owner = json!({"containerID": "c", "ifname": "eth0", "namespace": "default", "pod": "web"});
    let allocation = |address: &str| json!({"address": address, "sequence": 1, "owner": owner});
    let (first, last, outside) = (
        allocation("10.244.0.64"),
        allocation("10.244.0.127"),
        allocation("10.244.0.128"),
    );
    accepted(&block, "/spec/allocations", &[json!([first, last])]);
    refused(
        &block,
        "/spec/allocations",
        &[json!([first, outside])],
        "spec.allocations[1].address",
    );
    refused(
        &block,
        "/spec/allocations",
        &[json!([first, last, first])],
        "spec.allocations[2].address",
    );
}

#[test]
fn nodes() {
    let node = base("Node", "node-1", json!({"bgp": {}}));
    let asns = [json!(0), json!(23456), json!(65535), json!(4_294_967_295_u32)];
    refused(&node, "/spec/bgp/asNumber", &asns, "spec.bgp.asNumber");
    accepted(
        &node,
        "/spec/bgp/asNumber",
        &[json!(1), json!(64512), json!("1.10")],
    );
    for bad in [
        "0.0.0.0/0",
        "127.0.0.1/8",
        "224.0.0.1/24",
        "192.0.2.0/24",
        "192.0.2.255/24",
    ] {
        refused(
            &node,
            "/spec/bgp/ipv4Address",
            &[json!(bad)],
            "spec.bgp.ipv4Address",
        );
    }
    for good in ["192.0.2.1/24", "192.0.2.0/31", "192.0.2.0/32", "10.0.0.255/16"] {
        accepted(&node, "/spec/bgp/ipv4Address", &[json!(good)]);
    }
    for bad in ["::/0", "::1/128", "ff02::1/64", "fe80::1/64", "2001:db8::/64"] {
        refused(
            &node,
            "/spec/bgp/ipv6Address",
            &[json!(bad)],
            "spec.bgp.ipv6Address",
        );
    }
    accepted(
        &node,
        "/spec/bgp/ipv6Address",
        &[json!("2001:db8::1/64"), json!("2001:db8::/127")],
    );
}

#[test]
fn configurations() {
    let configuration = base("BGPConfiguration", "default", json!({}));
    refused(
        &configuration,
        "/metadata/name",
        &[json!("node.node-1")],
        "metadata.name",
    );
    refused(
        &configuration,
        "/spec/asNumber",
        &[json!(0), json!(23456)],
        "spec.asNumber",
    );
    refused(&configuration, "/spec/listenPort", &[json!(0)], "spec.listenPort");
    refused(
        &configuration,
        "/spec/holdTime",
        &[json!(1), json!(2)],
        "spec.holdTime",
    );
    accepted(
        &configuration,
        "/spec/holdTime",
        &[json!(0), json!(3), json!(65535)],
    );
    let restart = "/spec/nodeMeshMaxRestartTime";
    refused(
        &configuration,
        restart,
        &[json!(4096)],
        "spec.nodeMeshMaxRestartTime",
    );
    accepted(&configuration, restart, &[json!(0), json!(4095)]);
}

#[test]
fn peers() {
    let peer = base(
        "BGPPeer",
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 64512, "node": "node-1"}),
    );
    for bad in [
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1:0",
        "::ffff:192.0.2.1",
    ] {
        refused(&peer, "/spec/peerIP", &[json!(bad)], "spec.peerIP");
    }
    refused(&peer, "/spec/asNumber", &[json!(0)], "spec.asNumber");
    refused(&peer, "/spec/node", &[json!("Node_1")], "spec.node");
    refused(
        &peer,
        "/spec/nodeSelector",
        &[json!("all()")],
        "spec.nodeSelector",
    );
    refused(&peer, "/spec/holdTime", &[json!(2)], "spec.holdTime");
    refused(
        &peer,
        "/spec/maxRestartTime",
        &[json!(4096)],
        "spec.maxRestartTime",
    );
    accepted(
        &peer,
        "/spec/bfd",
        &[json!({}), json!({"minTx": 10, "minRx": 60000})],
    );
    refused(&peer, "/spec/bfd", &[json!({"minTx": 9})], "spec.bfd.minTx");
    refused(&peer, "/spec/bfd", &[json!({"minRx": 60001})], "spec.bfd.minRx");
    accepted(&peer, "/spec/ttlSecurity", &[json!(1), json!(254)]);
    refused(
        &peer,
        "/spec/ttlSecurity",
        &[json!(0), json!(255)],
        "spec.ttlSecurity",
    );
    let password = |name: &str, key: &str| json!({"secretKeyRef": {"name": name, "key": key}});
    let good = [password("rack-1", "password"), password("a", ".x-1_")];
    accepted(&peer, "/spec/password", &good);
    let keys = ["", ".", "..", "../x", "a/b", "..data"].map(|key| password("rack-1", key));
    refused(&peer, "/spec/password", &keys, "spec.password.secretKeyRef.key");
    let names = ["..", "a/b", ""].map(|name| password(name, "password"));
    refused(&peer, "/spec/password", &names, "spec.password.secretKeyRef.name");
    let selected = [
        ("/spec/node", Value::Null),
        ("/spec/nodeSelector", json!("rack == 'a'")),
    ];
    assert_eq!(problems(&peer, &selected), []);
}

/// Each of these settings is right by itself.
#[test]
fn settings_of_peers_that_contradict_each_other() {
    let with = |spec: Value| base("BGPPeer", "tor", spec);
    let far =
        with(json!({"peerIP": "192.0.2.1", "asNumber": 64512, "ttlSecurity": 3, "bfd": {"multihop": true}}));
    refused(&far, "/spec/bfd", &[json!({})], "spec.bfd.multihop");
    refused(&far, "/spec/ttlSecurity", &[json!(1)], "spec.bfd.multihop");
    accepted(&far, "/spec/bfd", &[Value::Null]);
    let limited = with(json!({"peerIP": "192.0.2.1", "asNumber": 64512, "maxPrefixes": {"ipv4": 100}}));
    let unlimited = [json!({}), json!({"action": "Warn"})];
    refused(&limited, "/spec/maxPrefixes", &unlimited, "spec.maxPrefixes");
    let restless = json!({"ipv6": 1, "action": "Restart", "restartAfter": 0});
    refused(
        &limited,
        "/spec/maxPrefixes",
        &[restless],
        "spec.maxPrefixes.restartAfter",
    );
    let nodes = with(json!({"peerSelector": "has(reflector)"}));
    refused(&nodes, "/spec/passive", &[json!(true)], "spec.passive");
}

#[test]
fn peers_are_an_address_or_nodes() {
    let peer = base(
        "BGPPeer",
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 64512}),
    );
    refused(&peer, "/spec/asNumber", &[Value::Null], "spec.asNumber");
    refused(
        &peer,
        "/spec/peerSelector",
        &[json!("has(reflector)")],
        "spec.peerSelector",
    );
    let nodes = base("BGPPeer", "reflectors", json!({"peerSelector": "has(reflector)"}));
    assert_eq!(problems(&nodes, &[]), []);
    refused(&nodes, "/spec/asNumber", &[json!(64512)], "spec.asNumber");
    refused(&nodes, "/spec/peerSelector", &[Value::Null], "spec.peerIP");
}

#[test]
fn peers_on_links_have_an_interface() {
    let found = base("BGPPeer", "leaf", json!({"interface": "swp1"}));
    assert_eq!(problems(&found, &[]), []);
    accepted(&found, "/spec/asNumber", &[json!(65000)]);
    accepted(
        &found,
        "/spec/peerIP",
        &[json!("fe80::1"), json!("[fe80::1]:1179")],
    );
    accepted(&found, "/spec/ttlSecurity", &[json!(1)]);
    accepted(&found, "/spec/bfd", &[json!({})]);
    for (field, value) in [
        ("interface", json!("a/b")),
        ("interface", json!("")),
        ("interface", json!("abcdefghijklmnop")),
        ("asNumber", json!(0)),
        ("peerIP", json!("192.0.2.1")),
        ("peerSelector", json!("has(rack)")),
        ("ttlSecurity", json!(2)),
    ] {
        let pointer = format!("/spec/{field}");
        refused(&found, &pointer, &[value], &format!("spec.{field}"));
    }
    refused(
        &found,
        "/spec/bfd",
        &[json!({"multihop": true})],
        "spec.bfd.multihop",
    );
    refused(&found, "/spec/interface", &[Value::Null], "spec.peerIP");
    let lost = [
        ("/spec/interface", Value::Null),
        ("/spec/peerIP", json!("fe80::1")),
        ("/spec/asNumber", json!(65000)),
    ];
    let problems = problems(&found, &lost);
    assert!(
        problems.len() == 1 && problems[0].message.contains("spec.interface"),
        "{problems:?}"
    );
}

#[test]
fn endpoints() {
    let mut endpoint = base(
        "WorkloadEndpoint",
        "node-1-web-eth0",
        json!({"node": "node-1", "pod": "web", "containerID": "c0", "endpoint": "eth0",
               "interfaceName": "mx0123456789a", "addresses": ["10.244.0.1", "fd00::1"]}),
    );
    assert_eq!(problems(&endpoint, &[])[0].field, "metadata.namespace");
    endpoint["metadata"]["namespace"] = json!("default");
    accepted(&endpoint, "/metadata/namespace", &[json!("kube-system")]);
    refused(
        &endpoint,
        "/metadata/namespace",
        &[json!("a.b"), json!("")],
        "metadata.namespace",
    );
    refused(&endpoint, "/spec/containerID", &[json!("")], "spec.containerID");
    refused(
        &endpoint,
        "/spec/endpoint",
        &[json!(""), json!("a/b"), json!("..")],
        "spec.endpoint",
    );
    refused(
        &endpoint,
        "/spec/interfaceName",
        &[json!("mx0123456789abcd"), json!("a b")],
        "spec.interfaceName",
    );
    refused(&endpoint, "/spec/addresses", &[json!([])], "spec.addresses");
    refused(
        &endpoint,
        "/spec/addresses",
        &[json!(["10.0.0.1", "10.0.0.2"])],
        "spec.addresses[1]",
    );
    refused(
        &endpoint,
        "/spec/addresses",
        &[json!(["127.0.0.1"]), json!(["::"])],
        "spec.addresses[0]",
    );
}

#[test]
fn metadata_of_any_kind() {
    let node = base("Node", "node-1", json!({}));
    refused(
        &node,
        "/metadata/name",
        &[json!(""), json!("Node"), json!("a_b")],
        "metadata.name",
    );
    refused(
        &node,
        "/metadata/namespace",
        &[json!("default")],
        "metadata.namespace",
    );
    refused(
        &node,
        "/metadata/labels",
        &[json!({"a b": ""})],
        "metadata.labels",
    );
    refused(
        &node,
        "/metadata/labels",
        &[json!({"app": "a b"})],
        "metadata.labels[app]",
    );
    refused(
        &node,
        "/metadata/annotations",
        &[json!({"a b": ""})],
        "metadata.annotations",
    );
    accepted(
        &node,
        "/metadata/annotations",
        &[json!({"example.org/note": "any text\nat all"})],
    );
}

/// Whether an update of `old` with `changes` is refused, and for which field.
fn update_refused(old: &Value, changes: &[(&str, Value)], field: Option<&str>) {
    let problems = validate_update(&changed(old, &[]), &changed(old, changes));
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, Vec::from_iter(field), "{changes:?}");
    let of_spec = fields.first().is_some_and(|field| field.starts_with("spec"));
    schema::tests::agrees_on_update(old, &edited(old, changes), of_spec);
}

#[test]
fn updates_of_pools() {
    let pool = base("IPPool", "main", json!({"cidr": "10.244.0.0/16"}));
    update_refused(
        &pool,
        &[("/spec/cidr", json!("10.245.0.0/16"))],
        Some("spec.cidr"),
    );
    update_refused(&pool, &[("/spec/blockSize", json!(27))], Some("spec.blockSize"));
    update_refused(&pool, &[("/spec/blockSize", json!(26))], None);
    update_refused(&pool, &[("/spec/disabled", json!(true))], None);

    let with_uid = |uid: &str| changed(&pool, &[("/metadata/uid", json!(uid))]);
    assert_eq!(
        validate_update(&with_uid("a"), &with_uid("b"))[0].field,
        "metadata.uid"
    );
    assert_eq!(validate_update(&with_uid("a"), &changed(&pool, &[])), []);
}

#[test]
fn updates_of_blocks() {
    let free = base(
        "IPBlock",
        "10-244-0-64-26",
        json!({"cidr": "10.244.0.64/26", "pool": "main", "generation": 5}),
    );
    let mut owned = free.clone();
    owned["spec"]["node"] = json!("node-1");
    let claim = |node: &str, generation: u64| {
        [
            ("/spec/node", json!(node)),
            ("/spec/generation", json!(generation)),
        ]
    };

    update_refused(
        &free,
        &[("/spec/cidr", json!("10.244.0.128/26"))],
        Some("spec.cidr"),
    );
    update_refused(&free, &[("/spec/pool", json!("other"))], None);
    update_refused(&free, &[("/spec/generation", json!(4))], Some("spec.generation"));
    update_refused(&free, &claim("node-1", 5), Some("spec.generation"));
    update_refused(&free, &claim("node-1", 6), None);
    update_refused(&owned, &claim("node-2", 5), Some("spec.generation"));
    update_refused(&owned, &claim("node-2", 6), None);
    update_refused(&owned, &[("/spec/node", Value::Null)], None);
    update_refused(&owned, &[("/spec/allocations", json!([]))], None);
}

/// A pool that is being split into `parts`.
fn splitting(name: &str, cidr: &str, parts: &str) -> IpPool {
    let mut pool = pool(name, cidr);
    pool.metadata
        .annotations
        .insert(SPLIT_INTO.to_owned(), parts.to_owned());
    pool
}

#[test]
fn a_pool_that_is_being_split_may_hold_its_parts_and_nothing_else() {
    let whole = splitting("whole", "10.0.0.0/16", "4");
    for (cidr, allowed) in [
        ("10.0.0.0/18", true),
        ("10.0.192.0/18", true),
        ("10.0.0.0/17", false),
        ("10.0.0.0/19", false),
        ("10.0.0.0/16", false),
    ] {
        let part = pool("part", cidr);
        assert_eq!(
            validate_among_pools(&part, [&whole]).is_empty(),
            allowed,
            "{cidr}"
        );
        assert_eq!(
            validate_among_pools(&whole, [&part]).is_empty(),
            allowed,
            "{cidr}"
        );
    }
    let mut other_size = pool("part", "10.0.0.0/18");
    other_size.spec.block_size = Some(28);
    assert!(!validate_among_pools(&other_size, [&whole]).is_empty());
    for wrong in ["0", "1", "3", "many", ""] {
        let problems = validate(&Resource::IpPool(splitting("whole", "10.0.0.0/16", wrong)));
        assert_eq!(problems.len(), 1, "{wrong}");
    }
}

#[test]
fn an_address_belongs_to_the_most_specific_pool_that_has_it() {
    let pools = [
        splitting("whole", "10.0.0.0/16", "2"),
        pool("low", "10.0.0.0/17"),
        pool("six", "fd00::/48"),
    ];
    for (cidr, name) in [
        ("10.0.0.0/26", Some("low")),
        ("10.0.128.0/26", Some("whole")),
        ("10.0.0.0/16", Some("whole")),
        ("10.0.0.0/8", None),
        ("10.1.0.1/32", None),
        ("fd00::1/128", Some("six")),
        ("::/0", None),
    ] {
        let found = pool_of(cidr.parse().unwrap(), &pools).map(|pool| pool.metadata.name.as_str());
        assert_eq!(found, name, "{cidr}");
    }
}

#[test]
fn a_pool_whose_blocks_nodes_own_is_not_deleted() {
    let block = |cidr: &str, node: Option<&str>| -> IpBlock {
        let name = block_name(cidr.parse().unwrap());
        let json = json!({"metadata": {"name": name}, "spec": {"cidr": cidr, "pool": "main", "node": node, "generation": 1}});
        serde_json::from_value(json).unwrap()
    };
    let main = pool("main", "10.0.0.0/16");
    let free = block("10.0.0.0/26", None);
    let elsewhere = block("10.1.0.0/26", Some("n1"));
    let pools = [main.clone()];
    assert_eq!(validate_delete(&main, &pools, [&free, &elsewhere]), []);
    let owned = block("10.0.0.64/26", Some("n1"));
    let problems = validate_delete(&main, &pools, [&free, &owned]);
    assert!(problems[0].message.contains("own 1 blocks"), "{problems:?}");
    let parts = [
        splitting("main", "10.0.0.0/16", "2"),
        pool("low", "10.0.0.0/17"),
        pool("high", "10.0.128.0/17"),
    ];
    assert_eq!(
        validate_delete(&parts[0], &parts, [&owned]),
        [],
        "its parts have them"
    );
}

#[test]
fn reservations() {
    let reservation = base(
        "IPReservation",
        "r",
        json!({"reservedCIDRs": ["10.0.0.0/30", "10.0.0.9", "fd00::/126"]}),
    );
    refused(
        &reservation,
        "/spec/reservedCIDRs",
        &[json!([])],
        "spec.reservedCIDRs",
    );
    refused(
        &reservation,
        "/spec/reservedCIDRs",
        &[json!(["10.0.0.9", "10.0.0.1/30"])],
        "spec.reservedCIDRs[1]",
    );
}

#[test]
fn ipam_configurations() {
    let configuration = base("IPAMConfiguration", "default", json!({}));
    refused(
        &configuration,
        "/metadata/name",
        &[json!("other")],
        "metadata.name",
    );
    accepted(
        &configuration,
        "/spec/ipCooldownSeconds",
        &[json!(0), json!(1200)],
    );
    refused(
        &configuration,
        "/spec/ipCooldownSeconds",
        &[json!(1201)],
        "spec.ipCooldownSeconds",
    );
}

#[test]
fn leases() {
    let spec = json!({
        "cidr": "10.0.0.16/28", "pool": "main", "node": "n2", "generation": 0,
        "lease": {"of": "10-0-0-0-26", "state": "Requested"},
    });
    let lease = base("IPBlock", "10-0-0-16-28", spec);
    accepted(
        &lease,
        "/spec/lease/state",
        &[json!("Granted"), json!("Returned")],
    );
    refused(
        &lease,
        "/spec/lease/of",
        &[json!("10-0-0-64-26"), json!("10-0-0-16-28"), json!("main")],
        "spec.lease.of",
    );
    refused(&lease, "/spec/node", &[json!(null)], "spec.node");
    refused(
        &lease,
        "/spec/releases",
        &[json!([{"address": "10.0.0.1", "sequence": 1}])],
        "spec.releases[0].address",
    );
}

#[test]
fn namespaces() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod", "labels": {"tier": "gold"}}});
    accepted(&namespace, "/metadata/labels", &[json!({"a": "b"})]);
    let problems = problems(&namespace, &[("/metadata/name", json!("a.b"))]);
    assert!(!problems.is_empty());
}
