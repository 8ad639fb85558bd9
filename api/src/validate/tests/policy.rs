//! What is refused of policies, tiers, network sets and host endpoints.

use super::*;

/// A document of a kind, whose fields are right.
fn document(api_version: &str, kind: &str, namespace: Option<&str>, spec: &Value) -> Value {
    let mut metadata = json!({"name": "p"});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let document = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
    assert_eq!(problems(&document, &[]), [], "{document}");
    document
}

fn namespaced(spec: &Value) -> Value {
    document("manx.network/v1", "NetworkPolicy", Some("default"), spec)
}

fn global(spec: &Value) -> Value {
    document("manx.network/v1", "GlobalNetworkPolicy", None, spec)
}

fn kubernetes(spec: &Value) -> Value {
    document("networking.k8s.io/v1", "NetworkPolicy", Some("default"), spec)
}

fn cluster(spec: &Value) -> Value {
    document(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        None,
        spec,
    )
}

/// The fields of a resource that are refused, in order.
fn fields(base: &Value, changes: &[(&str, Value)]) -> Vec<String> {
    let found = problems(base, changes);
    for problem in &found {
        assert!(!problem.message.is_empty(), "{problem}");
    }
    found.into_iter().map(|problem| problem.field).collect()
}

/// Values at a pointer, and the fields refused of each.
fn table(base: &Value, pointer: &str, rows: &[(Value, &[&str])]) {
    for (value, expected) in rows {
        let found = fields(base, &[(pointer, value.clone())]);
        assert_eq!(found, *expected, "{pointer} = {value}");
    }
}

#[test]
fn rules_of_policies() {
    let rule = |rule: Value| json!([rule]);
    let policy = namespaced(&json!({}));
    table(
        &policy,
        "/spec/ingress",
        &[
            (rule(json!({"action": "Allow"})), &[]),
            (rule(json!({"action": "Pass", "protocol": 47})), &[]),
            (
                rule(
                    json!({"action": "Log", "protocol": "tcp", "destination": {"ports": [80, "90:99", "web"]}}),
                ),
                &[],
            ),
            (
                rule(json!({"action": "Allow", "destination": {"ports": [80]}})),
                &["spec.ingress[0].destination.ports"],
            ),
            (
                rule(json!({"action": "Allow", "notProtocol": "TCP", "source": {"notPorts": ["web"]}})),
                &["spec.ingress[0].source.notPorts"],
            ),
            (
                rule(json!({"action": "Allow", "protocol": "ICMP", "source": {"ports": [1]}})),
                &["spec.ingress[0].source.ports"],
            ),
            (
                rule(json!({"action": "Allow", "protocol": "TCP", "notProtocol": "UDP"})),
                &["spec.ingress[0].notProtocol"],
            ),
        ],
    );
}

#[test]
fn rules_of_icmp() {
    let rule = |rule: Value| json!([rule]);
    let policy = namespaced(&json!({}));
    table(
        &policy,
        "/spec/ingress",
        &[
            (
                rule(json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8, "code": 255}})),
                &[],
            ),
            (
                rule(json!({"action": "Allow", "protocol": 58, "notICMP": {"type": 128}})),
                &[],
            ),
            (
                rule(json!({"action": "Allow", "icmp": {"type": 8}})),
                &["spec.ingress[0].icmp"],
            ),
            (
                rule(json!({"action": "Allow", "protocol": "UDP", "notICMP": {"type": 8}})),
                &["spec.ingress[0].notICMP"],
            ),
            (
                rule(json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 255}})),
                &["spec.ingress[0].icmp.type"],
            ),
            (
                rule(json!({"action": "Allow", "protocol": "ICMP", "ipVersion": 6})),
                &["spec.ingress[0].ipVersion"],
            ),
            (
                rule(json!({"action": "Allow", "notProtocol": "ICMPv6", "ipVersion": 4})),
                &["spec.ingress[0].ipVersion"],
            ),
        ],
    );
}

#[test]
fn networks_of_rules_are_of_one_family() {
    let policy = namespaced(&json!({}));
    let rule = |source: Value, destination: Value| json!([{"action": "Allow", "source": source, "destination": destination}]);
    table(
        &policy,
        "/spec/egress",
        &[
            (
                rule(
                    json!({"nets": ["10.0.0.0/8", "192.0.2.1"]}),
                    json!({"notNets": ["10.0.0.0/8"]}),
                ),
                &[],
            ),
            (rule(json!({"nets": ["fd00::/8"]}), json!({})), &[]),
            (
                rule(json!({"nets": ["10.0.0.1/8"]}), json!({})),
                &["spec.egress[0].source.nets[0]"],
            ),
            (
                rule(json!({"nets": ["10.0.0.0/8", "fd00::/8"]}), json!({})),
                &["spec.egress[0].source.nets[1]"],
            ),
            (
                rule(json!({"nets": ["10.0.0.0/8"]}), json!({"notNets": ["fd00::/8"]})),
                &["spec.egress[0].destination.notNets[0]"],
            ),
            (
                json!([{"action": "Deny", "ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}}]),
                &["spec.egress[0].source.nets[0]"],
            ),
            (
                json!([{"action": "Deny", "protocol": "ICMPv6", "source": {"nets": ["10.0.0.0/8"]}}]),
                &["spec.egress[0].source.nets[0]"],
            ),
        ],
    );
}

#[test]
fn ends_of_rules() {
    let source = |source: Value| json!([{"action": "Allow", "source": source}]);
    table(
        &namespaced(&json!({})),
        "/spec/ingress",
        &[
            (
                source(json!({"selector": "a == 'b'", "namespaceSelector": "global()"})),
                &[],
            ),
            (source(json!({"selector": "", "notSelector": "has(x)"})), &[]),
            (
                source(json!({"serviceAccounts": {"names": ["web"], "selector": "has(x)"}})),
                &[],
            ),
            (source(json!({"services": {"name": "web"}})), &[]),
            (
                source(json!({"services": {"name": "web", "namespace": "other"}})),
                &[],
            ),
            (
                source(json!({"selector": "global()"})),
                &["spec.ingress[0].source.selector"],
            ),
            (
                source(json!({"notSelector": "!global()"})),
                &["spec.ingress[0].source.notSelector"],
            ),
            (
                source(json!({"namespaceSelector": "global() || has(a)"})),
                &["spec.ingress[0].source.namespaceSelector"],
            ),
        ],
    );
}

#[test]
fn services_and_their_accounts() {
    let source = |source: Value| json!([{"action": "Allow", "source": source}]);
    table(
        &namespaced(&json!({})),
        "/spec/ingress",
        &[
            (
                source(json!({"serviceAccounts": {"names": ["Web"], "selector": "global()"}})),
                &[
                    "spec.ingress[0].source.serviceAccounts.selector",
                    "spec.ingress[0].source.serviceAccounts.names[0]",
                ],
            ),
            (
                source(json!({"services": {"name": "Web", "namespace": "a.b"}})),
                &[
                    "spec.ingress[0].source.services.name",
                    "spec.ingress[0].source.services.namespace",
                ],
            ),
            (
                source(json!({"services": {"name": "web"}, "selector": "has(a)", "nets": ["10.0.0.0/8"]})),
                &["spec.ingress[0].source.selector", "spec.ingress[0].source.nets"],
            ),
            (
                json!([{"action": "Allow", "destination": {"services": {"name": "web"}}}]),
                &["spec.ingress[0].destination.services"],
            ),
        ],
    );
    let rule = json!([{"action": "Allow", "protocol": "TCP", "destination": {"services": {"name": "web"}, "ports": [80]}}]);
    assert_eq!(
        fields(&global(&json!({})), &[("/spec/egress", rule)]),
        [
            "spec.egress[0].destination.ports",
            "spec.egress[0].destination.services.namespace"
        ]
    );
}

#[test]
fn hooks_and_types_of_global_policies() {
    let egress = json!([{"action": "Allow"}]);
    for (spec, expected) in [
        (
            json!({"applyOnForward": true, "preDNAT": true, "types": ["Ingress"]}),
            &[][..],
        ),
        (
            json!({"applyOnForward": true, "doNotTrack": true, "egress": egress}),
            &[],
        ),
        (
            json!({"namespaceSelector": "has(a)", "serviceAccountSelector": "has(b)"}),
            &[],
        ),
        (json!({"types": ["Ingress", "Egress"], "egress": egress}), &[]),
        (json!({"preDNAT": true}), &["spec.applyOnForward"]),
        (json!({"doNotTrack": true}), &["spec.applyOnForward"]),
        (
            json!({"applyOnForward": true, "doNotTrack": true, "preDNAT": true}),
            &["spec.preDNAT"],
        ),
        (
            json!({"applyOnForward": true, "preDNAT": true, "egress": egress, "types": ["Ingress", "Egress"]}),
            &["spec.egress", "spec.types"],
        ),
        (json!({"types": ["Ingress", "Ingress"]}), &["spec.types[1]"]),
        (json!({"types": ["Ingress"], "egress": egress}), &["spec.egress"]),
        (json!({"tier": "kube-admin"}), &["spec.tier"]),
        (json!({"tier": "a.b"}), &["spec.tier"]),
        (
            json!({"selector": "global()", "namespaceSelector": "global()", "serviceAccountSelector": "!global()"}),
            &[
                "spec.selector",
                "spec.namespaceSelector",
                "spec.serviceAccountSelector",
            ],
        ),
        (json!({"stagedAction": "Set"}), &["spec.stagedAction"]),
    ] {
        assert_eq!(
            fields(&global(&json!({})), &[("/spec", spec.clone())]),
            expected,
            "{spec}"
        );
    }
    for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
        let namespace = (kind == "StagedNetworkPolicy").then_some("default");
        document(
            "manx.network/v1",
            kind,
            namespace,
            &json!({"stagedAction": "Set"}),
        );
    }
}

#[test]
fn namespaced_policies_are_for_pods_of_their_namespace() {
    let spec =
        json!({"namespaceSelector": "all()", "doNotTrack": true, "preDNAT": true, "applyOnForward": true});
    assert_eq!(
        fields(&namespaced(&json!({})), &[("/spec", spec)]),
        [
            "spec.namespaceSelector",
            "spec.doNotTrack",
            "spec.preDNAT",
            "spec.applyOnForward",
            "spec.preDNAT"
        ]
    );
}

#[test]
fn values_that_are_none_are_refused_as_they_are_read() {
    let rule = |field: &str, value: Value| json!({"ingress": [{"action": "Allow", field: value}]});
    for (spec, words) in [
        (
            rule("protocol", json!("HTTP")),
            "'HTTP' is no protocol: write TCP, UDP",
        ),
        (rule("protocol", json!(0)), "'0' is no protocol"),
        (rule("protocol", json!(256)), "'256' is no protocol"),
        (rule("ipVersion", json!(5)), "expected 4 or 6"),
        (rule("icmp", json!({"code": 1})), "missing field `type`"),
        (rule("icmp", json!({"type": 256})), "256"),
        (rule("source", json!({"ports": [65536]})), "'65536' is no port"),
        (
            rule("source", json!({"ports": ["2:1"]})),
            "'2:1' is no port: write a number",
        ),
        (rule("source", json!({"ports": ["a:1"]})), "'a:1' is no port"),
        (rule("source", json!({"ports": [""]})), "'' is no port"),
        (rule("source", json!({"ports": ["a b"]})), "'a b' is no port"),
        (rule("source", json!({"selector": "b"})), "'b' is no selector"),
        (rule("source", json!({"nets": ["10.0.0.0/33"]})), "10.0.0.0/33"),
        (
            rule("http", json!({"methods": ["GET"]})),
            "is refused: packets are looked at one by one",
        ),
        (
            json!({"ingress": [{"action": "Accept"}]}),
            "unknown variant `Accept`",
        ),
        (json!({"ingress": [{}]}), "missing field `action`"),
        (json!({"order": "first"}), "invalid type"),
        (json!({"types": ["ingress"]}), "unknown variant `ingress`"),
    ] {
        let mut document = namespaced(&json!({}));
        document["spec"] = spec.clone();
        let error = serde_json::from_value::<Resource>(document)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{spec}: {error}");
    }
}

#[test]
fn tiers_that_are_always_there_stay_as_they_are() {
    let tier = document(
        "manx.network/v1",
        "Tier",
        None,
        &json!({"order": 100, "defaultAction": "Pass"}),
    );
    let named = |name: &str, spec: Value| fields(&tier, &[("/metadata/name", json!(name)), ("/spec", spec)]);
    for (name, spec) in [
        ("security", json!({})),
        ("default", json!({"order": 1_000_000})),
        ("default", json!({"order": 1e6, "defaultAction": "Deny"})),
        ("kube-admin", json!({"order": 1000, "defaultAction": "Pass"})),
        (
            "kube-baseline",
            json!({"order": 10_000_000, "defaultAction": "Pass"}),
        ),
    ] {
        assert_eq!(named(name, spec), Vec::<String>::new(), "{name}");
    }
    assert_eq!(named("a.b", json!({})), ["metadata.name"]);
    assert_eq!(named("default", json!({})), ["spec.order"]);
    assert_eq!(
        named("kube-admin", json!({"order": 1000})),
        ["spec.defaultAction"]
    );
    assert_eq!(
        named("kube-baseline", json!({"order": 1})),
        ["spec.order", "spec.defaultAction"]
    );
}

#[test]
fn host_endpoints() {
    let spec = json!({"node": "a", "interfaceName": "eth0"});
    let endpoint = document("manx.network/v1", "HostEndpoint", None, &spec);
    accepted(&endpoint, "/spec/interfaceName", &[json!("*"), json!("bond0.1")]);
    refused(
        &endpoint,
        "/spec/interfaceName",
        &[json!("a/b"), json!("")],
        "spec.interfaceName",
    );
    refused(
        &endpoint,
        "/spec/interfaceName",
        &[Value::Null],
        "spec.interfaceName",
    );
    accepted(&endpoint, "/spec/expectedIPs", &[json!(["192.0.2.1", "fd00::1"])]);
    refused(
        &endpoint,
        "/spec/expectedIPs",
        &[json!(["0.0.0.0"]), json!(["224.0.0.1"])],
        "spec.expectedIPs[0]",
    );
    refused(
        &endpoint,
        "/spec/expectedIPs",
        &[json!(["192.0.2.1", "192.0.2.1"])],
        "spec.expectedIPs[1]",
    );
    refused(&endpoint, "/spec/node", &[json!(""), json!("A")], "spec.node");
    accepted(
        &endpoint,
        "/spec/profiles",
        &[json!(["projectcalico-default-allow"])],
    );
    refused(
        &endpoint,
        "/spec/profiles",
        &[json!(["kns.default"])],
        "spec.profiles[0]",
    );
    let by_address = json!({"node": "a", "expectedIPs": ["192.0.2.1"]});
    document("manx.network/v1", "HostEndpoint", None, &by_address);
}

#[test]
fn names_of_ports() {
    let spec = json!({"node": "a", "interfaceName": "eth0"});
    let endpoint = document("manx.network/v1", "HostEndpoint", None, &spec);
    accepted(
        &endpoint,
        "/spec/ports",
        &[json!([{"name": "ssh", "port": 22}, {"name": "ssh", "protocol": "UDP", "port": 22}])],
    );
    for (ports, field) in [
        (json!([{"name": "22", "port": 22}]), "spec.ports[0].name"),
        (
            json!([{"name": "ssh", "protocol": "ICMP", "port": 22}]),
            "spec.ports[0].protocol",
        ),
        (json!([{"name": "ssh", "port": 0}]), "spec.ports[0].port"),
        (
            json!([{"name": "ssh", "port": 22}, {"name": "ssh", "port": 23}]),
            "spec.ports[1].name",
        ),
    ] {
        refused(&endpoint, "/spec/ports", &[ports], field);
    }
}

#[test]
fn network_sets() {
    for (kind, namespace) in [("NetworkSet", Some("default")), ("GlobalNetworkSet", None)] {
        let set = document(
            "manx.network/v1",
            kind,
            namespace,
            &json!({"nets": ["10.0.0.0/8", "fd00::1"]}),
        );
        refused(
            &set,
            "/spec/nets",
            &[json!(["10.0.0.0/8", "10.0.0.1/8"])],
            "spec.nets[1]",
        );
        let label = "projectcalico.org/orchestrator";
        refused(
            &set,
            "/metadata/labels",
            &[json!({label: "k8s"})],
            "metadata.labels[projectcalico.org/orchestrator]",
        );
    }
}

#[test]
fn workloads_ports_and_prefixes() {
    let spec = json!({
        "node": "a", "pod": "p", "containerID": "c", "endpoint": "eth0", "interfaceName": "mx0", "addresses": ["10.0.0.1"],
    });
    let endpoint = document("manx.network/v1", "WorkloadEndpoint", Some("default"), &spec);
    accepted(
        &endpoint,
        "/spec/ports",
        &[json!([{"name": "http", "protocol": "TCP", "port": 80}])],
    );
    refused(
        &endpoint,
        "/spec/ports",
        &[json!([{"name": "http", "port": 0}])],
        "spec.ports[0].port",
    );
    accepted(
        &endpoint,
        "/spec/allowedSourcePrefixes",
        &[json!(["10.9.0.0/16", "fd00::1"])],
    );
    refused(
        &endpoint,
        "/spec/allowedSourcePrefixes",
        &[json!(["10.9.0.1/16"])],
        "spec.allowedSourcePrefixes[0]",
    );
    refused(
        &endpoint,
        "/spec/serviceAccount",
        &[json!("A")],
        "spec.serviceAccount",
    );
}

#[test]
fn kubernetes_peers() {
    let policy = kubernetes(&json!({"podSelector": {}}));
    let from = |peer: Value| json!([{"from": [peer]}]);
    let block = |cidr: &str, except: &str| from(json!({"ipBlock": {"cidr": cidr, "except": [except]}}));
    table(
        &policy,
        "/spec/ingress",
        &[
            (Value::Null, &[]),
            (json!([{"from": null, "ports": null}]), &[]),
            (from(json!({"podSelector": {}, "namespaceSelector": {}})), &[]),
            (from(json!({"ipBlock": {"cidr": "10.0.0.1/8"}})), &[]),
            (block("10.0.0.0/8", "10.1.0.0/16"), &[]),
            (block("fd00::/8", "fd00::/16"), &[]),
            (block("10.0.0.5/24", "10.0.0.4/30"), &[]),
            (
                block("10.0.0.0/8", "10.0.0.0/8"),
                &["spec.ingress[0].from[0].ipBlock.except[0]"],
            ),
            (
                block("10.0.0.0/8", "11.0.0.0/16"),
                &["spec.ingress[0].from[0].ipBlock.except[0]"],
            ),
            (
                block("10.0.0.0/8", "0.0.0.0/0"),
                &["spec.ingress[0].from[0].ipBlock.except[0]"],
            ),
            (
                block("10.0.0.0/8", "fd00::/64"),
                &["spec.ingress[0].from[0].ipBlock.except[0]"],
            ),
            (from(json!({})), &["spec.ingress[0].from[0]"]),
            (
                from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
                &["spec.ingress[0].from[0].podSelector"],
            ),
        ],
    );
}

#[test]
fn kubernetes_ports() {
    let policy = kubernetes(&json!({"podSelector": {}}));
    let port = |port: Value| json!([{"ports": [port]}]);
    table(
        &policy,
        "/spec/ingress",
        &[
            (port(json!({})), &[]),
            (port(json!({"protocol": "SCTP", "port": 80, "endPort": 80})), &[]),
            (port(json!({"port": "http"})), &[]),
            (port(json!({"port": 0})), &["spec.ingress[0].ports[0].port"]),
            (port(json!({"port": "80"})), &["spec.ingress[0].ports[0].port"]),
            (port(json!({"port": "a--b"})), &["spec.ingress[0].ports[0].port"]),
            (port(json!({"port": "Http"})), &["spec.ingress[0].ports[0].port"]),
            (
                port(json!({"port": "sixteen-letters-"})),
                &["spec.ingress[0].ports[0].port"],
            ),
            (
                port(json!({"port": 80, "endPort": 79})),
                &["spec.ingress[0].ports[0].endPort"],
            ),
            (
                port(json!({"port": "http", "endPort": 80})),
                &["spec.ingress[0].ports[0].endPort"],
            ),
            (
                port(json!({"endPort": 80})),
                &["spec.ingress[0].ports[0].endPort"],
            ),
        ],
    );
}

#[test]
fn kubernetes_selectors() {
    let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
    table(
        &kubernetes(&json!({"podSelector": {}})),
        "/spec/podSelector",
        &[
            (Value::Null, &[]),
            (json!({"matchLabels": {"example.org/a": ""}}), &[]),
            (expression("In", json!(["x", ""])), &[]),
            (expression("Exists", json!([])), &[]),
            (expression("DoesNotExist", Value::Null), &[]),
            (
                expression("In", json!([])),
                &["spec.podSelector.matchExpressions[0].values"],
            ),
            (
                expression("NotIn", Value::Null),
                &["spec.podSelector.matchExpressions[0].values"],
            ),
            (
                expression("Exists", json!(["x"])),
                &["spec.podSelector.matchExpressions[0].values"],
            ),
            (
                expression("In", json!(["x", "-"])),
                &["spec.podSelector.matchExpressions[0].values[1]"],
            ),
            (
                json!({"matchLabels": {"a b": "x"}}),
                &["spec.podSelector.matchLabels"],
            ),
            (
                json!({"matchLabels": {"a": "x y"}}),
                &["spec.podSelector.matchLabels[a]"],
            ),
        ],
    );
}

#[test]
fn cluster_policies() {
    let policy = cluster(&json!({"tier": "Admin", "priority": 1000, "subject": {"namespaces": {}}}));
    refused(&policy, "/spec/priority", &[json!(1001)], "spec.priority");
    let pods = json!({"pods": {"podSelector": {"matchLabels": {"a": "b"}}}});
    accepted(&policy, "/spec/subject", std::slice::from_ref(&pods));
    refused(
        &policy,
        "/spec/subject",
        &[json!({}), json!({"namespaces": {}, "pods": {"podSelector": {}}})],
        "spec.subject",
    );
    let egress = |peer: Value, protocol: Value| json!([{"name": "r", "action": "Accept", "to": [peer], "protocols": [protocol]}]);
    let tcp = |port: Value| {
        egress(
            json!({"namespaces": {}}),
            json!({"tcp": {"destinationPort": port}}),
        )
    };
    let named = json!({"destinationNamedPort": "http"});
    table(
        &policy,
        "/spec/egress",
        &[
            (tcp(json!({"number": 80})), &[]),
            (tcp(json!({"range": {"start": 80, "end": 81}})), &[]),
            (egress(pods.clone(), named.clone()), &[]),
            (
                egress(
                    json!({"networks": ["10.0.0.0/8", "fd00::/8"]}),
                    json!({"sctp": {"destinationPort": {"number": 1}}}),
                ),
                &[],
            ),
            (
                tcp(json!({"number": 0})),
                &["spec.egress[0].protocols[0].tcp.destinationPort.number"],
            ),
            (
                tcp(json!({})),
                &["spec.egress[0].protocols[0].tcp.destinationPort"],
            ),
            (
                tcp(json!({"range": {"start": 80, "end": 80}})),
                &["spec.egress[0].protocols[0].tcp.destinationPort.range"],
            ),
            (egress(pods.clone(), json!({})), &["spec.egress[0].protocols[0]"]),
            (egress(json!({}), named.clone()), &["spec.egress[0].to[0]"]),
            (
                egress(json!({"networks": ["10.0.0.0/8"]}), named),
                &["spec.egress[0].protocols[0].destinationNamedPort"],
            ),
            (
                egress(pods, json!({"destinationNamedPort": "80"})),
                &["spec.egress[0].protocols[0].destinationNamedPort"],
            ),
        ],
    );
}

#[test]
fn sizes_of_cluster_policies() {
    let policy = cluster(&json!({"tier": "Admin", "priority": 1000, "subject": {"namespaces": {}}}));
    table(
        &policy,
        "/spec/egress",
        &[
            (json!([{"action": "Deny", "to": []}]), &["spec.egress[0].to"]),
            (
                json!([{"action": "Deny", "to": vec![json!({"namespaces": {}}); 26]}]),
                &["spec.egress[0].to"],
            ),
            (
                json!([{"action": "Deny", "name": "n".repeat(101), "to": [{"namespaces": {}}]}]),
                &["spec.egress[0].name"],
            ),
            (
                json!(vec![json!({"action": "Pass", "to": [{"namespaces": {}}]}); 26]),
                &["spec.egress"],
            ),
        ],
    );
}

#[test]
fn cluster_peers_that_are_refused() {
    let policy = cluster(&json!({"tier": "Admin", "priority": 1000, "subject": {"namespaces": {}}}));
    for (peer, words) in [
        (json!({"nodes": {}}), "is refused: it is no standard field yet"),
        (
            json!({"domainNames": ["example.org"]}),
            "is refused: names are not looked up",
        ),
        (json!({"networks": ["10.0.0.1"]}), "'10.0.0.1' is not a network"),
    ] {
        let mut document = policy.clone();
        document["spec"]["egress"] = json!([{"action": "Accept", "to": [peer]}]);
        let error = serde_json::from_value::<Resource>(document)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn only_a_staged_policy_says_what_is_staged() {
    for (kind, version, fine) in [
        ("NetworkPolicy", "networking.k8s.io/v1", false),
        ("StagedKubernetesNetworkPolicy", "manx.network/v1", true),
    ] {
        let manifest = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: b}}\nspec: {{podSelector: {{}}, stagedAction: Set}}\n"
        );
        let found = crate::manifest::load("m.yaml", &manifest);
        assert_eq!(found.is_ok(), fine, "{found:?}");
    }
}
