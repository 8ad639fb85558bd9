//! Kubernetes' NetworkPolicy: the well-known recipes, and a table for each thing that a field says.

use super::decides;

/// A policy of namespace `shop`.
fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    )
}

const WEB: &str = "podSelector: {matchLabels: {app: web}}";
const ALL: &str = "podSelector: {}";

#[test]
fn who_may_reach_an_application() {
    let api = "podSelector: {matchLabels: {app: api}}";
    // Deny all traffic to an application.
    let deny = policy(&format!("{{{api}, ingress: []}}"));
    decides(
        &deny,
        &["api>web:80", "web>db:80"],
        &["web>api:80", "client>api:80", "192.0.2.9>api:80", "web>api:ping"],
    );
    // Limit traffic to an application.
    let limited = policy(&format!("{{{api}, ingress: [{{from: [{{{WEB}}}]}}]}}"));
    decides(
        &limited,
        &["web>api:80", "web>api:ping"],
        &["db>api:80", "client>api:80", "192.0.2.9>api:80"],
    );
    // Allow all traffic to an application, whatever else denies it.
    let all = policy(&format!("{{{ALL}, ingress: []}}"))
        + &policy(&format!("{{{api}, ingress: [{{}}]}}")).replace("name: p", "name: q");
    decides(&all, &["web>api:80", "192.0.2.9>api:80"], &["web>db:80"]);
}

#[test]
fn who_may_reach_a_namespace() {
    // Deny all non-whitelisted traffic to a namespace.
    decides(
        &policy("{podSelector: {}}"),
        &["web>client:80"],
        &["client>web:80", "web>db:80"],
    );
    // Deny all traffic from other namespaces.
    let own = policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}");
    decides(
        &own,
        &["web>db:80", "db>web:53/UDP"],
        &["client>db:80", "192.0.2.9>db:80"],
    );
    // Allow traffic to an application from all namespaces: from pods, that is.
    let pods = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}"
    ));
    decides(&pods, &["client>web:80", "db>web:80"], &["192.0.2.9>web:80"]);
    // Allow all traffic from a namespace.
    let team = "namespaceSelector: {matchLabels: {team: ops}}";
    let ops = policy(&format!("{{{WEB}, ingress: [{{from: [{{{team}}}]}}]}}"));
    decides(
        &ops,
        &["client>web:80", "monitor>web:80"],
        &["db>web:80", "192.0.2.9>web:80"],
    );
    let by_name = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: other}}}}}}]}}]}}"
    ));
    decides(&by_name, &["client>web:80"], &["db>web:80"]);
    // Allow traffic from some pods in another namespace: both selectors in one peer.
    let some = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{{team}, podSelector: {{matchLabels: {{role: monitor}}}}}}]}}]}}"
    ));
    decides(&some, &["monitor>web:80"], &["client>web:80", "db>web:80"]);
    // Two peers instead: pods of that namespace, and monitors of our own.
    let either = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{{team}}}, {{podSelector: {{matchLabels: {{app: db}}}}}}]}}]}}"
    ));
    decides(
        &either,
        &["monitor>web:80", "client>web:80", "db>web:80"],
        &["api>web:80"],
    );
}

#[test]
fn external_clients_ports_and_several_selectors() {
    // Allow traffic from external clients.
    decides(
        &policy(&format!("{{{WEB}, ingress: [{{from: []}}]}}")),
        &["192.0.2.9>web:80", "client>web:80"],
        &[],
    );
    // Allow traffic only to a port of an application.
    let port = policy(&format!("{{{WEB}, ingress: [{{ports: [{{port: 5000}}]}}]}}"));
    decides(
        &port,
        &["db>web:5000", "192.0.2.9>web:5000"],
        &["db>web:80", "db>web:5000/UDP", "db>web:ping"],
    );
    // Allow traffic from applications using several selectors.
    let peers = "from: [{podSelector: {matchLabels: {app: api}}}, {podSelector: {matchLabels: {app: db, tier: back}}}]";
    let several = policy(&format!(
        "{{{WEB}, ingress: [{{{peers}, ports: [{{protocol: TCP, port: 80}}]}}]}}"
    ));
    decides(
        &several,
        &["api>web:80", "db>web:80"],
        &["db>web:81", "client>web:80"],
    );
}

#[test]
fn what_may_leave() {
    // Deny egress traffic from an application.
    decides(
        &policy(&format!("{{{WEB}, policyTypes: [Egress], egress: []}}")),
        &["db>web:80"],
        &["web>db:80", "web>192.0.2.9:443", "web>db:53/UDP"],
    );
    // The same, but for DNS.
    let dns = "egress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]";
    decides(
        &policy(&format!("{{{WEB}, policyTypes: [Egress], {dns}}}")),
        &["web>db:53/UDP", "web>192.0.2.9:53"],
        &["web>db:80", "web>db:53/SCTP"],
    );
    // Deny all non-whitelisted traffic from a namespace.
    decides(
        &policy(&format!("{{{ALL}, policyTypes: [Egress]}}")),
        &["client>web:80"],
        &["web>db:80", "db>client:80", "api>192.0.2.9:80"],
    );
    // Deny external egress traffic: to pods of every namespace it may go.
    decides(
        &policy(&format!(
            "{{{ALL}, policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{}}}}]}}]}}"
        )),
        &["web>db:80", "web>client:80"],
        &["web>192.0.2.9:80"],
    );
}

/// Which directions a policy isolates: ingress always, egress where there are rules, unless `policyTypes` speaks.
#[test]
fn policy_types_default() {
    let (into, out) = ("db>web:80", "web>db:80");
    for (fields, let_through, denied) in [
        ("", vec![out], vec![into]),
        ("ingress: [], egress: []", vec![out], vec![into]),
        ("ingress: [{}]", vec![into, out], vec![]),
        ("egress: [{}]", vec![out], vec![into]),
        ("egress: [{ports: [{port: 1}]}]", vec![], vec![into, out]),
        (
            "policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]",
            vec![out],
            vec![into],
        ),
        ("policyTypes: [Egress]", vec![into], vec![out]),
        (
            "policyTypes: [Egress], ingress: [{ports: [{port: 1}]}]",
            vec![into],
            vec![out],
        ),
        ("policyTypes: [Ingress, Egress]", vec![], vec![into, out]),
        (
            "policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]",
            vec![into, out],
            vec![],
        ),
    ] {
        decides(&policy(&format!("{{{WEB}, {fields}}}")), &let_through, &denied);
    }
}

/// Nothing said is everything; the empty list too. An empty selector is every pod, and no address outside.
#[test]
fn missing_and_empty_lists() {
    let outside = "192.0.2.9>web:80";
    for (rule, let_through, denied) in [
        (
            "{}",
            vec!["db>web:80", outside, "db>web:53/UDP", "db>web:ping"],
            vec![],
        ),
        (
            "{from: [], ports: []}",
            vec!["db>web:80", outside, "db>web:ping"],
            vec![],
        ),
        ("{from: null, ports: null}", vec!["db>web:80", outside], vec![]),
        (
            "{from: [{podSelector: {}}]}",
            vec!["db>web:80"],
            vec![outside, "client>web:80"],
        ),
        (
            "{from: [{namespaceSelector: {}}]}",
            vec!["db>web:80", "client>web:80"],
            vec![outside],
        ),
        (
            "{from: [{namespaceSelector: {}, podSelector: {}}]}",
            vec!["db>web:80", "client>web:80"],
            vec![outside],
        ),
        (
            "{ports: [{}]}",
            vec!["db>web:80", outside],
            vec!["db>web:53/UDP", "db>web:ping"],
        ),
        (
            "{ports: [{protocol: UDP}]}",
            vec!["db>web:53/UDP"],
            vec!["db>web:53"],
        ),
    ] {
        decides(
            &policy(&format!("{{{WEB}, ingress: [{rule}]}}")),
            &let_through,
            &denied,
        );
    }
}

#[test]
fn expressions_of_selectors() {
    let expression = |operator: &str, values: &str| {
        let expression = format!("{{key: app, operator: {operator}{values}}}");
        policy(&format!(
            "{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{expression}]}}}}]}}]}}"
        ))
    };
    let (api, db, client, monitor) = ("api>web:80", "db>web:80", "client>web:80", "monitor>web:80");
    decides(
        &expression("In", ", values: [api, web]"),
        &[api, client],
        &[db, monitor],
    );
    // What lacks the label has none of the values.
    decides(
        &expression("NotIn", ", values: [api, web]"),
        &[db, monitor],
        &[api, client],
    );
    decides(&expression("Exists", ""), &[api, db, client], &[monitor]);
    decides(&expression("DoesNotExist", ""), &[monitor], &[api, db, client]);
    let both = "matchLabels: {tier: back}, matchExpressions: [{key: app, operator: NotIn, values: [db]}]";
    let both = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{podSelector: {{{both}}}}}]}}]}}"
    ));
    decides(&both, &[api], &[db, client, monitor]);
}

#[test]
fn blocks_of_addresses() {
    let block = |block: &str| policy(&format!("{{{WEB}, ingress: [{{from: [{{ipBlock: {block}}}]}}]}}"));
    decides(
        &block("{cidr: 192.0.2.0/24}"),
        &["192.0.2.9>web:80"],
        &["db>web:80", "198.51.100.1>web:80"],
    );
    decides(
        &block("{cidr: 192.0.2.0/24, except: [192.0.2.8/30, 192.0.2.32/32]}"),
        &["192.0.2.7>web:80", "192.0.2.12>web:80"],
        &["192.0.2.9>web:80", "192.0.2.32>web:80"],
    );
    // Pods have addresses as well, and host bits are passed over.
    decides(&block("{cidr: 10.0.0.9/30}"), &[], &["db>web:80"]);
    decides(
        &block("{cidr: 10.0.0.3/30}"),
        &["db>web:80", "api>web:80"],
        &["client>web:80"],
    );
    // What one peer excepts, another may allow.
    let peers =
        "[{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}, {podSelector: {matchLabels: {app: db}}}]";
    decides(
        &policy(&format!("{{{WEB}, ingress: [{{from: {peers}}}]}}")),
        &["192.0.2.9>web:80", "db>web:80"],
        &["api>web:80", "client>web:80"],
    );
}

#[test]
fn ports_and_their_names() {
    let ports = |ports: &str| policy(&format!("{{{WEB}, ingress: [{{ports: [{ports}]}}]}}"));
    decides(
        &ports("{port: 80}"),
        &["db>web:80"],
        &["db>web:81", "db>web:80/UDP", "db>web:80/SCTP"],
    );
    decides(
        &ports("{port: 80, endPort: 82}"),
        &["db>web:80", "db>web:82"],
        &["db>web:79", "db>web:83"],
    );
    decides(
        &ports("{port: 80, endPort: 80, protocol: SCTP}"),
        &["db>web:80/SCTP"],
        &["db>web:80"],
    );
    decides(
        &ports("{port: http}"),
        &["db>web:80"],
        &["db>web:8080", "db>web:80/UDP"],
    );
    // A name means the port of that protocol.
    decides(&ports("{port: dns}"), &[], &["db>web:53", "db>web:53/UDP"]);
    decides(
        &ports("{port: dns, protocol: UDP}"),
        &["db>web:53/UDP"],
        &["db>web:53"],
    );
    decides(&ports("{port: nobody}"), &[], &["db>web:80"]);
    decides(
        &ports("{port: 80}, {port: alt}, {protocol: UDP}"),
        &["db>web:80", "db>web:8080", "db>web:1/UDP"],
        &["db>web:81"],
    );
    decides(&ports("{port: 80}, {}"), &["db>web:81"], &["db>web:80/UDP"]);
    // Of egress, names are those of the other end, which a stranger does not have.
    let out = policy(&format!(
        "{{{WEB}, policyTypes: [Egress], egress: [{{ports: [{{port: http}}]}}]}}"
    ));
    decides(&out, &["web>db:80"], &["web>db:8080", "web>192.0.2.9:80"]);
}

#[test]
fn policies_add_up_and_both_ends_decide() {
    let from = |app: &str| {
        policy(&format!(
            "{{{WEB}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}"
        ))
    };
    let two = from("db") + &from("api").replace("name: p", "name: q");
    decides(&two, &["db>web:80", "api>web:80"], &["client>web:80"]);
    let closed_out = policy("{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]}")
        .replace("name: p", "name: q");
    decides(&(from("db") + &closed_out), &[], &["db>web:80", "api>web:80"]);
}

/// Kubernetes selects pods; a network set whose labels fit is none.
#[test]
fn selectors_do_not_mean_network_sets() {
    let set = "---\napiVersion: manx.network/v1\nkind: NetworkSet\nmetadata: {name: s, labels: {app: db}}\nspec: {nets: [192.0.2.0/24]}\n";
    let peer = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: db}}}}}}]}}]}}"
    ));
    decides(&(set.to_owned() + &peer), &["db>web:80"], &["192.0.2.9>web:80"]);
    let any = policy(&format!(
        "{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}"
    ));
    decides(
        &(set.to_owned() + &any),
        &["client>web:80"],
        &["192.0.2.9>web:80"],
    );
}
