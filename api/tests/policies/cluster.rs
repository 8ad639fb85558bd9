//! Kubernetes' ClusterNetworkPolicy: before and after the namespaces' own policies.

use super::decides;

fn policy(name: &str, tier: &str, priority: u16, fields: &str) -> String {
    let subject = "subject: {namespaces: {matchLabels: {team: shop}}}";
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{tier: {tier}, priority: {priority}, {subject}, {fields}}}\n"
    )
}

fn from_ops(action: &str) -> String {
    format!("ingress: [{{action: {action}, from: [{{namespaces: {{matchLabels: {{team: ops}}}}}}]}}]")
}

/// What a namespace's owner says of `web`.
fn owner(ingress: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: o}}\nspec: {{podSelector: {{matchLabels: {{app: web}}}}, ingress: {ingress}}}\n"
    )
}

const CLIENT: &str = "client>web:80";
const DB: &str = "db>web:80";

#[test]
fn administrators_come_before_owners() {
    for (action, says_nothing, allows, denies) in [
        ("Accept", true, true, true),
        ("Deny", false, false, false),
        ("Pass", true, true, false),
    ] {
        let admin = policy("a", "Admin", 10, &from_ops(action));
        for (owner, expected) in [
            (String::new(), says_nothing),
            (owner("[{}]"), allows),
            (owner("[]"), denies),
        ] {
            let (through, denied) = if expected {
                (vec![CLIENT], vec![])
            } else {
                (vec![], vec![CLIENT])
            };
            decides(&(admin.clone() + &owner), &through, &denied);
        }
        // What no rule of theirs matches is left to the others.
        decides(&admin, &[DB, "client>monitor:80"], &[]);
    }
}

#[test]
fn the_baseline_is_for_whom_no_owner_speaks() {
    let baseline = policy("b", "Baseline", 10, &from_ops("Deny"));
    decides(&baseline, &[DB, "web>client:80"], &[CLIENT, "client>db:80"]);
    decides(&(baseline.clone() + &owner("[{}]")), &[CLIENT], &["client>db:80"]);
    let admin = policy("a", "Admin", 10, &from_ops("Accept"));
    decides(&(baseline.clone() + &admin), &[CLIENT], &[]);
    let admin = policy("a", "Admin", 10, &from_ops("Pass"));
    decides(&(baseline + &admin), &[], &[CLIENT]);
}

#[test]
fn lower_priorities_and_earlier_rules_decide() {
    let two = |deny, accept| {
        policy("d", "Admin", deny, &from_ops("Deny")) + &policy("a", "Admin", accept, &from_ops("Accept"))
    };
    decides(&two(1, 2), &[], &[CLIENT]);
    decides(&two(2, 1), &[CLIENT], &[]);
    let pass_first = policy("p", "Admin", 0, &from_ops("Pass")) + &two(1, 2);
    decides(&pass_first, &[CLIENT], &[]);
    let peer = "namespaces: {}";
    let rules =
        format!("ingress: [{{action: Accept, from: [{{{peer}}}]}}, {{action: Deny, from: [{{{peer}}}]}}]");
    decides(&policy("r", "Admin", 1, &rules), &[CLIENT, DB], &[]);
}

#[test]
fn peers_networks_and_protocols() {
    let deny = |peer: &str, more: &str| {
        policy(
            "p",
            "Admin",
            1,
            &format!("egress: [{{action: Deny, to: [{peer}]{more}}}]"),
        )
    };
    decides(
        &deny("{namespaces: {}}", ""),
        &["web>192.0.2.9:80", "client>web:80"],
        &["web>db:80", "web>client:80"],
    );
    let pods = "{pods: {namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {role: monitor}}}}";
    decides(&deny(pods, ""), &["web>client:80"], &["web>monitor:80"]);
    decides(
        &deny("{pods: {podSelector: {matchLabels: {app: db}}}}", ""),
        &["web>api:80"],
        &["web>db:80"],
    );
    // Networks are addresses, pods' included.
    let networks = "{networks: [192.0.2.0/24, 10.0.0.4/31]}";
    decides(
        &deny(networks, ""),
        &["web>db:80"],
        &["web>192.0.2.9:80", "web>client:80", "web>client:ping"],
    );
    let any = "{namespaces: {}}";
    let tcp = ", protocols: [{tcp: {destinationPort: {number: 80}}}]";
    decides(
        &deny(any, tcp),
        &["web>db:81", "web>db:80/UDP", "web>db:ping"],
        &["web>db:80"],
    );
    let range = ", protocols: [{udp: {destinationPort: {range: {start: 50, end: 60}}}}, {sctp: {destinationPort: {number: 9}}}]";
    decides(
        &deny(any, range),
        &["web>db:53", "web>db:61/UDP"],
        &["web>db:60/UDP", "web>db:9/SCTP"],
    );
    // A name means its port and its protocol.
    let named = ", protocols: [{destinationNamedPort: dns}]";
    decides(&deny(any, named), &["web>db:53", "web>db:80"], &["web>db:53/UDP"]);
}

#[test]
fn subjects() {
    let pods = policy("p", "Admin", 1, "ingress: [{action: Deny, from: [{namespaces: {}}]}]").replace(
        "subject: {namespaces: {matchLabels: {team: shop}}}",
        "subject: {pods: {namespaceSelector: {matchLabels: {team: shop}}, podSelector: {matchLabels: {app: web}}}}",
    );
    decides(&pods, &["web>client:80", "web>db:80"], &[CLIENT, DB]);
    let everybody = pods.replace("namespaceSelector: {matchLabels: {team: shop}}, ", "");
    decides(&everybody, &["web>db:80"], &[CLIENT, DB, "db>client:80"]);
}
