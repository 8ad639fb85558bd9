//! `manxctl policy explain` between ends of every kind, in a lab, beside packets.

use std::net::IpAddr;

use manx_lab::layout::netns_path;
use manx_linux::Netns;
use serde_json::{Value, json};

use crate::harness::{eventually, exchange};
use crate::lab_policies::{DENY_ALL, SOON, Shop, WEB_FROM_TILL};

/// A node's namespace, and its addresses.
fn node(shop: &Shop, name: &str) -> (Netns, Vec<IpAddr>) {
    let status = shop.name.json("lab status");
    let nodes = status["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["name"] == name).unwrap();
    let netns = Netns::open(netns_path(node["netns"].as_str().unwrap())).unwrap();
    (netns, serde_json::from_value(node["addresses"].clone()).unwrap())
}

fn explained(shop: &Shop, from: &str, to: &str) -> Value {
    shop.name.json(&format!("policy explain --from {from} --to {to}"))
}

/// Why manxctl refuses to say anything.
fn refused(shop: &Shop, from: &str, to: &str) -> String {
    let output = shop
        .name
        .try_ctl(&format!("policy explain --from {from} --to {to}"));
    assert!(!output.status.success(), "{from} to {to}");
    String::from_utf8(output.stderr).unwrap()
}

/// The names of fields, in their order.
fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

/// The fields of an explanation, and of what is in it; `walks` says whether each end has one.
fn assert_shape(found: &Value, walks: &[&str]) {
    let mut expected = vec!["destination", "port", "protocol", "source", "verdict", "walks"];
    if !found["deciding"].is_null() {
        expected.insert(0, "deciding");
        let deciding = [
            "apiVersion",
            "direction",
            "kind",
            "name",
            "namespace",
            "rule",
            "tier",
        ];
        assert_eq!(keys(&found["deciding"]), deciding, "{found:#}");
    }
    if !found["toNode"].is_null() {
        expected.push("toNode");
    }
    expected.sort_unstable();
    assert_eq!(keys(found), expected, "{found:#}");
    let all = found["walks"].as_array().unwrap();
    let directions: Vec<&str> = all
        .iter()
        .map(|walk| walk["direction"].as_str().unwrap())
        .collect();
    assert_eq!(directions, walks, "{found:#}");
    for walk in all {
        assert_eq!(
            keys(walk),
            ["direction", "endpoint", "tiers", "verdict"],
            "{found:#}"
        );
    }
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80, targetPort: 8080, protocol: UDP}]}
";

/// Who is behind it: those that are ready, and one that is not.
fn slice(ready: &[IpAddr], other: IpAddr) -> String {
    let endpoint = |address: &IpAddr, ready: bool| {
        format!("{{addresses: ['{address}'], conditions: {{ready: {ready}}}}}")
    };
    let mut endpoints: Vec<String> = ready.iter().map(|address| endpoint(address, true)).collect();
    endpoints.push(endpoint(&other, false));
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: front, namespace: shop, labels: {{kubernetes.io/service-name: front}}}}
addressType: IPv4
endpoints: [{}]
ports: [{{name: http, port: 8080, protocol: UDP}}]
",
        endpoints.join(", ")
    )
}

#[test]
fn every_kind_of_end_is_explained_in_one_shape_and_as_packets_go() {
    let shop = Shop::open();
    shop.apply(&format!("{DENY_ALL}---\n{WEB_FROM_TILL}"));
    shop.becomes("db", "web", false);
    shop.becomes("till", "web", true);
    let ((_, web), (_, db), (_, till)) = (shop.pod("web"), shop.pod("db"), shop.pod("till"));

    let by_name = explained(&shop, "shop/till", "shop/web:8080/UDP");
    assert_shape(&by_name, &["Egress", "Ingress"]);
    assert_eq!(
        by_name,
        explained(&shop, "shop/till@eth0", "shop/web@eth0:8080/UDP")
    );
    assert_eq!(
        by_name,
        explained(&shop, &till[0].to_string(), &format!("{}:8080/UDP", web[0]))
    );
    let error = refused(&shop, "shop/till", "shop/web@net9:80");
    assert!(
        error.contains("no interface 'net9'") && error.contains("eth0"),
        "{error}"
    );
    let stranger = explained(&shop, "192.0.2.77", "shop/web:8080/UDP");
    assert_shape(&stranger, &["Ingress"]);
    assert_eq!(stranger["verdict"], "deny");

    // A node reaches its own pods whatever policies say, and no other's.
    for (name, verdict) in [("node1", "allow"), ("node2", "deny")] {
        let (netns, addresses) = node(&shop, name);
        let found = explained(&shop, &format!("host:{name}"), "shop/db:8080/UDP");
        let walks: &[&str] = if verdict == "allow" { &[] } else { &["Ingress"] };
        assert_shape(&found, walks);
        assert_eq!(found["verdict"], verdict, "{found:#}");
        assert_eq!(
            found,
            explained(&shop, &addresses[0].to_string(), "shop/db:8080/UDP")
        );
        let db_netns = shop.pod("db").0;
        let arrives = exchange(&netns, &db_netns, db[0]).is_some();
        assert_eq!(arrives, verdict == "allow", "{name}");
    }
    let error = refused(&shop, "host:node9", "shop/web:80");
    assert!(
        error.contains("there is no node 'node9'") && error.contains("node1"),
        "{error}"
    );
}

#[test]
fn a_host_endpoint_of_a_node_is_explained_from_its_own_pods_and_from_others() {
    let shop = Shop::open();
    let (netns, addresses) = node(&shop, "node2");
    let address = addresses[0];
    shop.apply(&format!(
        "{{apiVersion: manx.network/v1, kind: HostEndpoint, metadata: {{name: uplink}}, \
          spec: {{node: node2, expectedIPs: ['{address}']}}}}"
    ));
    let reaches = |from: &str| exchange(&shop.pod(from).0, &netns, address).is_some();
    assert!(
        eventually(SOON, || !reaches("web")),
        "it is closed\n{}",
        shop.state()
    );
    assert!(reaches("till"), "its own pod is not asked there");
    for (from, verdict, walks, at_node) in [
        ("web", "deny", &["Egress", "Ingress"][..], json!(null)),
        ("till", "allow", &["Egress"], json!("allow")),
    ] {
        for to in ["host:node2".to_owned(), address.to_string()] {
            let found = explained(&shop, &format!("shop/{from}"), &format!("{to}:9999/UDP"));
            assert_shape(&found, walks);
            assert_eq!(found["verdict"], verdict, "{from} to {to}: {found:#}");
            assert_eq!(found["toNode"], at_node, "{from} to {to}: {found:#}");
        }
    }
}

#[test]
fn a_service_is_explained_by_who_is_behind_it() {
    let shop = Shop::open();
    shop.apply(&format!("{DENY_ALL}---\n{WEB_FROM_TILL}"));
    shop.becomes("db", "web", false);
    let ((_, web), (_, db), (_, till)) = (shop.pod("web"), shop.pod("db"), shop.pod("till"));
    let error = refused(&shop, "shop/till", "svc:shop/front:80/UDP");
    assert!(error.contains("no service shop/front"), "{error}");
    shop.apply(SERVICE);
    let nobody = shop
        .name
        .ctl("policy explain --from shop/till --to svc:shop/front:80/UDP");
    assert!(nobody.contains("nobody is behind it"), "{nobody}");
    shop.apply(&slice(&[web[0], db[0]], till[0]));

    let found = explained(&shop, "shop/till", "10.96.0.10:80/UDP");
    for to in ["svc:shop/front:80/UDP", "shop/front:80/UDP"] {
        assert_eq!(found, explained(&shop, "shop/till", to), "{to}");
    }
    assert_eq!(
        keys(&found),
        ["endpoints", "port", "protocol", "service"],
        "the endpoints differ: {found:#}"
    );
    assert_eq!(found["service"], json!({"namespace": "shop", "name": "front"}));
    let endpoints = found["endpoints"].as_array().unwrap();
    for (endpoint, (address, verdict)) in endpoints.iter().zip([(web[0], "allow"), (db[0], "deny")]) {
        assert_shape(endpoint, &["Egress", "Ingress"]);
        assert_eq!(
            json!([endpoint["destination"], endpoint["port"], endpoint["verdict"]]),
            json!([address, 8080, verdict])
        );
    }
    assert_eq!(endpoints.len(), 2, "who is not ready gets nothing");
    let text = shop
        .name
        .ctl("policy explain --from shop/till --to 10.96.0.10:80/UDP");
    assert!(text.ends_with("\ndepends: 1 of 2 can be reached\n"), "{text}");
    assert_eq!(
        explained(&shop, "192.0.2.77", "svc:shop/front:80/UDP")["verdict"],
        "deny"
    );

    let error = refused(&shop, "shop/till", "svc:shop/front:81/UDP");
    assert!(error.contains("it has 80/UDP"), "{error}");
    let error = refused(&shop, "svc:shop/front", "shop/web:80");
    assert!(error.contains("sends nothing"), "{error}");
}
