//! Policies in Calico's language: a table for each thing that a field says.

use super::decides;

/// A policy for the `web` pods of namespace `shop`.
fn web(fields: &str) -> String {
    named("NetworkPolicy", "p", &format!("selector: app == 'web', {fields}"))
}

fn global(fields: &str) -> String {
    named("GlobalNetworkPolicy", "g", fields)
}

fn named(kind: &str, name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: manx.network/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{fields}}}\n"
    )
}

/// One ingress rule that allows.
fn from(source: &str) -> String {
    web(&format!("ingress: [{{action: Allow, source: {{{source}}}}}]"))
}

const DB: &str = "db>web:80";
const API: &str = "api>web:80";
const CLIENT: &str = "client>web:80";
const MONITOR: &str = "monitor>web:80";
const OUTSIDE: &str = "192.0.2.9>web:80";

/// Which directions a policy isolates: those that it has rules for, ingress where it has none, unless `types` speaks.
#[test]
fn types_default() {
    let (into, out) = ("db>web:80", "web>db:80");
    let other = "{action: Allow, protocol: UDP}";
    for (fields, let_through, denied) in [
        (String::new(), vec![out], vec![into]),
        (format!("ingress: [{other}]"), vec![out], vec![into]),
        (format!("egress: [{other}]"), vec![into], vec![out]),
        (
            format!("ingress: [{other}], egress: [{other}]"),
            vec![],
            vec![into, out],
        ),
        ("types: [Egress]".to_owned(), vec![into], vec![out]),
        (
            format!("types: [Ingress, Egress], ingress: [{other}]"),
            vec![],
            vec![into, out],
        ),
    ] {
        decides(&web(&fields), &let_through, &denied);
    }
}

/// A namespaced policy's selectors mean its own namespace; nothing said means any address.
#[test]
fn ends_of_namespaced_policies() {
    decides(&from(""), &[DB, CLIENT, OUTSIDE], &[]);
    decides(&from("selector: ''"), &[DB, CLIENT, OUTSIDE], &[]);
    decides(&from("selector: all()"), &[DB, API], &[CLIENT, OUTSIDE]);
    decides(&from("selector: \"app in {'db', 'web'}\""), &[DB], &[API, CLIENT]);
    decides(
        &from("namespaceSelector: all()"),
        &[DB, CLIENT, MONITOR],
        &[OUTSIDE],
    );
    decides(
        &from("namespaceSelector: team == 'ops'"),
        &[CLIENT, MONITOR],
        &[DB, OUTSIDE],
    );
    decides(
        &from("namespaceSelector: team != 'shop'"),
        &[CLIENT],
        &[DB, OUTSIDE],
    );
    decides(
        &from("namespaceSelector: projectcalico.org/name == 'other'"),
        &[CLIENT],
        &[DB],
    );
    decides(
        &from("namespaceSelector: team == 'ops', selector: has(role)"),
        &[MONITOR],
        &[CLIENT, DB],
    );
    decides(
        &from("namespaceSelector: all(), selector: projectcalico.org/namespace == 'other'"),
        &[CLIENT],
        &[DB],
    );
    // What notSelector leaves out is left out everywhere, and what is left is of the policy's namespace.
    decides(
        &from("notSelector: app == 'db'"),
        &[API],
        &[DB, CLIENT, MONITOR, OUTSIDE],
    );
    decides(
        &from("notSelector: app == 'web', namespaceSelector: all()"),
        &[DB, MONITOR],
        &[CLIENT, OUTSIDE],
    );
    decides(
        &from("nets: [10.0.0.0/30, 192.0.2.0/24], notNets: [10.0.0.2/32]"),
        &[DB, OUTSIDE],
        &[API, CLIENT],
    );
    decides(&from("nets: [192.0.2.9], selector: all()"), &[], &[DB, OUTSIDE]);
}

#[test]
fn ends_of_global_policies() {
    let from = |source: &str| {
        global(&format!(
            "selector: app == 'web', ingress: [{{action: Allow, source: {{{source}}}}}]"
        ))
    };
    decides(&from("selector: all()"), &[DB, CLIENT], &[OUTSIDE]);
    decides(&from("selector: role == 'monitor'"), &[MONITOR], &[CLIENT]);
    decides(&from("notSelector: app == 'db'"), &[API, CLIENT, OUTSIDE], &[DB]);
    decides(
        &from("namespaceSelector: team == 'shop'"),
        &[DB],
        &[CLIENT, OUTSIDE],
    );
    // It applies to pods of all namespaces, unless it says which.
    let nobody = "types: [Ingress]";
    decides(
        &global(&format!("selector: app == 'web', {nobody}")),
        &["web>db:80"],
        &[DB, "db>client:80"],
    );
    decides(
        &global(&format!("namespaceSelector: team == 'ops', {nobody}")),
        &[DB],
        &["db>client:80", "db>monitor:80"],
    );
}

/// Network sets and host endpoints are meant by selectors; `global()` means what has no namespace.
#[test]
fn sets_and_host_endpoints() {
    let set = |kind: &str| {
        format!(
            "---\napiVersion: manx.network/v1\nkind: {kind}\nmetadata: {{name: s, labels: {{app: office}}}}\nspec: {{nets: [192.0.2.0/24]}}\n"
        )
    };
    let (own, everybodys) = (set("NetworkSet"), set("GlobalNetworkSet"));
    let host = "---\napiVersion: manx.network/v1\nkind: HostEndpoint\nmetadata: {name: h, labels: {app: office}}\nspec: {node: n, expectedIPs: [192.0.2.9]}\n";
    decides(
        &(own.clone() + &from("selector: app == 'office'")),
        &[OUTSIDE],
        &[DB],
    );
    decides(
        &(own.clone() + &from("selector: all()")),
        &[OUTSIDE, DB],
        &[CLIENT],
    );
    decides(
        &(own.clone() + &from("namespaceSelector: team == 'shop'")),
        &[OUTSIDE, DB],
        &[CLIENT],
    );
    decides(&(own + &from("namespaceSelector: global()")), &[], &[OUTSIDE, DB]);
    let labelled = from("namespaceSelector: all(), selector: projectcalico.org/namespace == 'shop'");
    decides(&(set("NetworkSet") + &labelled), &[OUTSIDE, DB], &[CLIENT]);
    for global_thing in [&everybodys, host] {
        let with = |source: &str| global_thing.to_owned() + &from(source);
        decides(&with("selector: app == 'office'"), &[], &[OUTSIDE]);
        decides(
            &with("selector: app == 'office', namespaceSelector: all()"),
            &[],
            &[OUTSIDE],
        );
        decides(
            &with("selector: app == 'office', namespaceSelector: global()"),
            &[OUTSIDE],
            &[DB],
        );
        decides(&with("namespaceSelector: global()"), &[OUTSIDE], &[DB]);
        let of_global =
            global("selector: app == 'web', ingress: [{action: Allow, source: {selector: app == 'office'}}]");
        decides(&(global_thing.to_owned() + &of_global), &[OUTSIDE], &[DB]);
    }
}

#[test]
fn protocols_ports_and_messages() {
    let to = |rule: &str| web(&format!("ingress: [{{action: Allow, {rule}}}]"));
    decides(&to("protocol: TCP"), &[DB], &["db>web:80/UDP", "db>web:ping"]);
    decides(&to("protocol: 17"), &["db>web:80/UDP"], &[DB]);
    decides(&to("notProtocol: TCP"), &["db>web:80/UDP", "db>web:ping"], &[DB]);
    decides(&to("ipVersion: 6"), &[], &[DB]);
    decides(&to("protocol: ICMP"), &["db>web:ping"], &[DB]);
    decides(&to("protocol: ICMP, icmp: {type: 8}"), &["db>web:ping"], &[]);
    decides(
        &to("protocol: ICMP, icmp: {type: 8, code: 1}"),
        &[],
        &["db>web:ping"],
    );
    decides(&to("protocol: ICMP, notICMP: {type: 8}"), &[], &["db>web:ping"]);
    decides(
        &to("protocol: ICMP, notICMP: {type: 8, code: 1}"),
        &["db>web:ping"],
        &[],
    );
    let ports = |list: &str| to(&format!("protocol: TCP, destination: {{{list}}}"));
    decides(
        &ports("ports: [80, '8000:8080']"),
        &[DB, "db>web:8080"],
        &["db>web:81", "db>web:80/UDP"],
    );
    decides(&ports("ports: [http]"), &[DB], &["db>web:8080"]);
    decides(
        &ports("notPorts: [http, 81]"),
        &["db>web:8080"],
        &[DB, "db>web:81"],
    );
    decides(&ports("ports: ['1:100'], notPorts: [80]"), &["db>web:81"], &[DB]);
    decides(&to("protocol: TCP, source: {ports: [40000]}"), &[DB], &[]);
    decides(&to("protocol: TCP, source: {ports: ['1:1023']}"), &[], &[DB]);
}

#[test]
fn services() {
    let out = |services: &str| {
        web(&format!(
            "egress: [{{action: Allow, destination: {{services: {{{services}}}}}}}]"
        ))
    };
    decides(
        &out("name: api"),
        &["web>api:8080"],
        &["web>api:80", "web>api:8080/UDP", "web>db:8080"],
    );
    decides(&out("name: api, namespace: other"), &[], &["web>api:8080"]);
    decides(&from("services: {name: api}"), &[API, "api>web:53/UDP"], &[DB]);
}

/// `Allow` and `Deny` decide, `Pass` leaves the tier, `Log` goes on; who comes first says the order.
#[test]
fn actions_and_orders() {
    let rules = |rules: &str| web(&format!("ingress: [{rules}]"));
    decides(
        &rules("{action: Deny, source: {selector: app == 'db'}}, {action: Allow}"),
        &[API],
        &[DB],
    );
    decides(
        &rules("{action: Allow}, {action: Deny, source: {selector: app == 'db'}}"),
        &[API, DB],
        &[],
    );
    decides(&rules("{action: Log}, {action: Allow}"), &[DB], &[]);
    // A policy that only logs isolates all the same.
    decides(&rules("{action: Log}"), &[], &[DB]);
    // Behind the default tier there is nobody who would deny.
    decides(
        &rules("{action: Pass, source: {selector: app == 'db'}}"),
        &[DB],
        &[API],
    );
    let two = |first: &str, second: &str| {
        named(
            "NetworkPolicy",
            "a",
            &format!("{first}selector: app == 'web', ingress: [{{action: Deny}}]"),
        ) + &named(
            "NetworkPolicy",
            "b",
            &format!("{second}selector: app == 'web', ingress: [{{action: Allow}}]"),
        )
    };
    decides(&two("order: 2, ", "order: 1, "), &[DB], &[]);
    decides(&two("order: 0.5, ", "order: 1, "), &[], &[DB]);
    // No order is last, and names break ties.
    decides(&two("", "order: 1000000, "), &[DB], &[]);
    decides(&two("", ""), &[], &[DB]);
    decides(&two("order: 1, ", "order: 1, "), &[], &[DB]);
    // Kubernetes' policies have order 1000.
    let kubernetes = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k}\nspec: {podSelector: {}, ingress: [{}]}\n";
    let deny = |order: &str| web(&format!("order: {order}, ingress: [{{action: Deny}}]")) + kubernetes;
    decides(&deny("999"), &[], &[DB]);
    decides(&deny("1001"), &[DB], &[]);
}

#[test]
fn tiers() {
    let tier = |order: &str, action: &str| {
        named(
            "Tier",
            "security",
            &format!("order: {order}, defaultAction: {action}"),
        )
    };
    let first = |rules: &str| {
        named(
            "NetworkPolicy",
            "s",
            &format!("tier: security, selector: app == 'web', ingress: [{rules}]"),
        )
    };
    let allow_all = web("ingress: [{action: Allow}]");
    let deny_db = "{action: Deny, source: {selector: app == 'db'}}";
    // The end of a tier is met by whom a policy of it applies to.
    decides(
        &(tier("10", "Deny") + &first(deny_db) + &allow_all),
        &["db>api:80"],
        &[DB, API],
    );
    decides(
        &(tier("10", "Pass") + &first(deny_db) + &allow_all),
        &[API],
        &[DB],
    );
    decides(&(tier("10", "Deny") + &allow_all), &[DB, API], &[]);
    // Pass skips the rest of the tier.
    decides(
        &(tier("10", "Deny") + &first(&format!("{{action: Pass}}, {deny_db}")) + &allow_all),
        &[DB],
        &[],
    );
    // A tier that is not there comes last, and ends with Deny.
    decides(&first(deny_db), &["db>api:80"], &[DB, API]);
    decides(&(first(deny_db) + &allow_all), &[DB], &[]);
    // A later tier is not asked where an earlier one decided.
    decides(
        &(tier("2000000", "Deny") + &first(deny_db) + &allow_all),
        &[DB],
        &[],
    );
    decides(&(tier("2000000", "Deny") + &first(deny_db)), &[], &[DB, API]);
}

#[test]
fn service_accounts() {
    let account = "---\napiVersion: manx.network/v1\nkind: WorkloadEndpoint\nmetadata: {name: job, namespace: NAMESPACE}\nspec: {node: n, pod: job, containerID: c, endpoint: eth0, interfaceName: mx9, addresses: [10.0.0.9], serviceAccount: builder}\n";
    let (own, other) = (
        account.replace("NAMESPACE", "shop"),
        account.replace("NAMESPACE", "other"),
    );
    let job = "10.0.0.9>web:80";
    let by_name = from("serviceAccounts: {names: [builder, x]}");
    decides(&(own.clone() + &by_name), &[job], &[DB]);
    decides(&(other.clone() + &by_name), &[], &[job, DB]);
    decides(
        &(other + &from("serviceAccounts: {names: [builder]}, namespaceSelector: team == 'ops'")),
        &[job],
        &[CLIENT],
    );
    // Whoever has an account, and whoever asks for nothing of it.
    decides(
        &(own.clone() + &from("serviceAccounts: {selector: all()}")),
        &[job],
        &[DB],
    );
    decides(&(own.clone() + &from("serviceAccounts: {}")), &[job, DB], &[]);
    decides(
        &(own.clone() + &from("selector: projectcalico.org/serviceaccount == 'builder'")),
        &[job],
        &[DB],
    );
    // Whom a policy applies to, by account.
    let of_account = named(
        "NetworkPolicy",
        "p",
        "serviceAccountSelector: all(), types: [Ingress]",
    );
    decides(&(own + &of_account), &[DB], &["db>10.0.0.9:80"]);
}

#[test]
fn staged_policies_decide_nothing() {
    let deny = "types: [Ingress, Egress]";
    decides(&named("StagedNetworkPolicy", "p", deny), &[DB, "web>db:80"], &[]);
    decides(
        &named("StagedGlobalNetworkPolicy", "p", deny),
        &[DB, "web>db:80"],
        &[],
    );
    // An enforced one isolates as if the staged one were not there.
    let allow = named("StagedNetworkPolicy", "q", "order: 1, ingress: [{action: Allow}]");
    decides(
        &(allow + &named("NetworkPolicy", "p", "types: [Ingress]")),
        &[],
        &[DB],
    );
}
