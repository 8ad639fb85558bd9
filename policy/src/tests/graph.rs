//! The graph: what is rendered for small worlds, and that it follows whatever order news come in.

use std::collections::BTreeMap;

use manx_api::policy::{
    Action, DefaultAction, Endpoint, Hook, NamespacedName, Not, Order, Policy, Port, Protocol,
    Rule as PolicyRule, Side,
};
use proptest::prelude::*;

use super::worlds::{local, pod, policy, port, resource, rule, select, set_policy, set_tier, updates};
use super::*;

/// Three pods, two of them here; what both are under is said by the caller.
fn world(more: impl IntoIterator<Item = Update>) -> Engine {
    let mut engine = Engine::new();
    let base = [
        Update::Enforce(Some(Settings::default())),
        set_tier("default", 1000.0, DefaultAction::Deny),
        pod("web", "app=web", &["10.0.0.1", "fd00::1"]),
        pod("db", "app=db", &["10.0.0.2"]),
        pod("far", "app=web", &["10.0.1.1"]),
        local("web"),
        local("db"),
    ];
    engine.apply(base.into_iter().chain(more));
    engine
}

fn text(engine: &Engine) -> String {
    shown(&Transaction::of(plan(&engine.snapshot(), &Held::default())))
}

fn ingress(labels: &str, rules: Vec<PolicyRule>) -> Policy {
    Policy {
        ingress: Some(rules),
        ..policy(labels)
    }
}

/// The web pods may reach the database's port.
fn database() -> Update {
    let allow = PolicyRule {
        protocol: Some(Not::Is(Protocol::TCP)),
        source: Side {
            of: Some(select("app == 'web'")),
            ..Side::default()
        },
        destination: Side {
            ports: vec![port(5432, 5432)],
            ..Side::default()
        },
        ..rule(Action::Allow)
    };
    set_policy("database", ingress("app == 'db'", vec![allow]))
}

#[test]
fn pods_without_policies_cost_no_rule_of_their_own() {
    let engine = world([]);
    insta::assert_snapshot!(text(&engine));
    let rules = |engine: &Engine| {
        let full = engine.snapshot();
        full.chains.values().map(Vec::len).sum::<usize>() + full.hooks.len()
    };
    let pools = ["10.0.0.0/16", "fd00::/64"].map(|cidr| set_pool(cidr, cidr, true));
    let mut crowded = world(pools);
    for number in 0..110 {
        let (name, address) = (format!("pod{number}"), format!("10.0.2.{number}"));
        crowded.apply([pod(&name, "", &[&address]), local(&name)]);
    }
    assert_eq!(rules(&crowded), rules(&engine) + 4);
    assert!(rules(&crowded) <= 60, "{}", rules(&crowded));
}

#[test]
fn a_policy_is_a_list_a_chain_and_its_peers() {
    insta::assert_snapshot!(text(&world([database()])));
}

#[test]
fn tiers_pass_log_and_deny_in_turn() {
    let first = Policy {
        tier: "admin".to_owned(),
        order: Order::new(1.0).unwrap(),
        egress: Some(vec![
            rule(Action::Log),
            PolicyRule {
                destination: Side {
                    nets: vec![net("192.0.2.0/24"), net("198.51.100.0/24")],
                    not_nets: vec![net("192.0.2.128/25")],
                    ..Side::default()
                },
                ..rule(Action::Deny)
            },
            rule(Action::Pass),
        ]),
        ..policy("all()")
    };
    let second = Policy {
        egress: Some(vec![PolicyRule {
            protocol: Some(Not::Is(Protocol::UDP)),
            destination: Side {
                ports: (0..9)
                    .map(|number| port(number * 100, number * 100 + 9))
                    .collect(),
                ..Side::default()
            },
            ..rule(Action::Allow)
        }]),
        ..policy("app == 'web'")
    };
    let engine = world([
        Update::Enforce(Some(Settings {
            log_denied: Some(10),
            ..Settings::default()
        })),
        set_tier("admin", 1.0, DefaultAction::Pass),
        set_policy("first", first),
        set_policy("second", second),
    ]);
    insta::assert_snapshot!(text(&engine));
}

#[test]
fn services_named_ports_and_networks_with_exceptions_are_sets() {
    let service = NamespacedName {
        namespace: "ns".to_owned(),
        name: "dns".to_owned(),
    };
    let behind = ["10.0.1.1", "fd00::1"].map(|address| ServiceEndpoint {
        address: address.parse().unwrap(),
        protocol: Protocol::UDP,
        port: 53,
    });
    let of_service = Side {
        service: Some(service.clone()),
        ..Side::default()
    };
    let egress = PolicyRule {
        destination: of_service.clone(),
        ..rule(Action::Allow)
    };
    let from_service = PolicyRule {
        source: of_service,
        destination: Side {
            ports: vec![Port::Named("web".to_owned())],
            ..Side::default()
        },
        ..rule(Action::Allow)
    };
    let from_nets = PolicyRule {
        source: Side {
            nets: vec![net("192.0.2.0/24"), net("198.51.100.0/24"), net("2001:db8::/32")],
            not_nets: vec![
                net("192.0.2.128/25"),
                net("203.0.113.0/24"),
                net("2001:db8:1::/48"),
            ],
            not_of: Some(select("app == 'far'")),
            ..Side::default()
        },
        ..rule(Action::Allow)
    };
    let policy = Policy {
        egress: Some(vec![egress]),
        ..ingress("app == 'web'", vec![from_service, from_nets])
    };
    let engine = world([Update::Service(service, behind.into()), set_policy("dns", policy)]);
    insta::assert_snapshot!(text(&engine));
}

#[test]
fn a_pod_reaches_itself_by_its_own_addresses_and_nobody_else_by_them() {
    let shared = |name: &str| {
        let local = Local {
            interface: format!("mx{name}"),
            sources: vec![net("198.51.100.0/24")],
        };
        Update::Local(name.to_owned(), Some(local))
    };
    let closed = set_policy("closed", ingress("app == 'web'", Vec::new()));
    let mut engine = world([closed, shared("web"), shared("db")]);
    let themselves = |engine: &Engine| -> Vec<String> {
        let sets = engine.snapshot().sets;
        let set = |family: Family| sets.get(&family.set_name("themselves")).cloned();
        let members = Family::ALL
            .into_iter()
            .filter_map(set)
            .flat_map(|set| set.members);
        members.map(|(member, _)| member.to_string()).collect()
    };
    assert_eq!(themselves(&engine), ["10.0.0.1/32,mxweb", "fd00::1/128,mxweb"]);
    let traffic = Traffic {
        protocol: Protocol::TCP,
        source_port: None,
        port: Some(80),
        icmp: None,
    };
    let web = Party::Endpoint("web".to_owned());
    let explained = explain(&engine, &web, &web, traffic).unwrap();
    assert!(explained.allowed() && explained.deciding().is_none());
    engine.apply([Update::Policy(worlds::origin("closed"), None)]);
    assert!(
        themselves(&engine).is_empty(),
        "without policies, nobody needs it"
    );
}

#[test]
fn pods_that_come_and_go_under_a_known_list_touch_sets_only() {
    let mut engine = world([database()]);
    let text = Transaction::of(engine.apply([pod("db2", "app=db", &["10.0.0.3"]), local("db2")]));
    assert!(text.rules.is_empty(), "{text:?}");
    let gains: Vec<String> = text.before.iter().map(SetChange::to_string).collect();
    let [itself, list] = &gains[..] else {
        panic!("its list and itself: {gains:?}");
    };
    assert!(
        list.starts_with("add mx4-to-") && itself.starts_with("add mx4-"),
        "{gains:?}"
    );
    assert_eq!(
        lines(&text.after),
        "add mx4-workloads 10.0.0.3/32,mxdb2\n",
        "known last"
    );
    let text = Transaction::of(engine.apply([Update::Local("db2".to_owned(), None)]));
    assert!(text.rules.is_empty(), "{text:?}");
    assert_eq!(
        lines(&text.before),
        "del mx4-workloads 10.0.0.3/32,mxdb2\n",
        "unknown first"
    );
    assert!(lines(&text.after).starts_with("del mx4-to-"), "{text:?}");
    // A peer elsewhere that changes its labels is a member less.
    let text = Transaction::of(engine.apply([pod("far", "app=other", &["10.0.1.1"])]));
    assert!(text.rules.is_empty() && text.before.is_empty(), "{text:?}");
    assert!(lines(&text.after).ends_with(" 10.0.1.1/32\n"), "{text:?}");
}

#[test]
fn host_endpoints_are_asked_where_their_policies_act() {
    let host = |name: &str, interface, closed| {
        let endpoint = Endpoint {
            labels: [("host".to_owned(), name.to_owned())].into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            closed,
            ..Endpoint::default()
        };
        [
            Update::Endpoint(name.to_owned(), Some(Box::new(endpoint))),
            Update::Host(name.to_owned(), Some(interface)),
        ]
    };
    let at = |hook, rules| Policy {
        hook,
        ingress: Some(vec![rules]),
        ..policy("host == 'uplink'")
    };
    let https = PolicyRule {
        protocol: Some(Not::Is(Protocol::TCP)),
        destination: Side {
            ports: vec![port(443, 443)],
            ..Side::default()
        },
        ..rule(Action::Allow)
    };
    let mut engine = Engine::new();
    engine.apply([
        Update::Enforce(Some(Settings::default())),
        set_tier("default", 1000.0, DefaultAction::Deny),
        set_policy("own", at(Hook::Normal, https.clone())),
        set_policy("through", at(Hook::Forwarded, https.clone())),
        set_policy("early", at(Hook::PreDnat, https.clone())),
        set_policy("untracked", at(Hook::Untracked, https)),
    ]);
    let before = engine.snapshot();
    let hosts = [
        host("uplink", HostInterface::Named("eth0".to_owned()), false),
        host("rest", HostInterface::All, true),
    ];
    let text = Transaction::of(engine.apply(hosts.concat()));
    insta::assert_snapshot!(format!("{}{}", lines(&text.before), text.rules[&Family::V4]));
    engine.apply(["uplink", "rest"].map(|name| Update::Host(name.to_owned(), None)));
    assert_eq!(
        engine.snapshot(),
        before,
        "without host endpoints, nothing is there of them"
    );
}

#[test]
fn a_staged_policy_counts_at_its_place_and_decides_nothing() {
    let port = |number| PolicyRule {
        protocol: Some(Not::Is(Protocol::TCP)),
        destination: Side {
            ports: vec![port(number, number)],
            ..Side::default()
        },
        ..rule(Action::Deny)
    };
    let rules = vec![
        rule(Action::Log),
        port(80),
        PolicyRule {
            protocol: None,
            ..port(53)
        },
    ];
    let staged = |subject: &str| Policy {
        staged: true,
        ..ingress(subject, rules.clone())
    };
    let mut engine = world([database()]);
    let before = engine.snapshot();
    engine.apply([set_policy("try", staged("app == 'db'"))]);
    let trials = engine.trials();
    let [trial] = trials.as_slice() else {
        panic!("the database has no IPv6 address: {trials:?}");
    };
    let chain = engine.snapshot().chains[&trial.chain].clone();
    assert!(
        chain.iter().all(|rule| rule.target == Target::Return),
        "{chain:?}"
    );
    assert_eq!(chain.len(), trial.rules.len());
    let deny = |number| Some((number, Action::Deny));
    assert_eq!(
        trial.rules.first(),
        Some(&deny(1)),
        "the logging rule counts nothing"
    );
    assert_eq!(trial.rules.last(), Some(&None));
    assert!(
        trial.rules[1..trial.rules.len() - 1]
            .iter()
            .all(|rule| *rule == deny(2))
    );

    engine.apply([set_policy("try", staged("app == 'web'"))]);
    assert_eq!(engine.trials().len(), 2, "in both families");
    let drops = |engine: &Engine| text(engine).matches(" -j DROP").count();
    assert_eq!(
        drops(&engine),
        drops(&world([database()])),
        "no end of a tier is there for it"
    );
    engine.apply([Update::Policy(worlds::origin("try"), None)]);
    assert_eq!((engine.snapshot(), engine.trials()), (before, Vec::new()));
}

#[test]
fn a_staged_policy_of_a_host_endpoint_lets_all_go_on() {
    let mut engine = world([]);
    let open = Endpoint {
        labels: [("role".to_owned(), "edge".to_owned())].into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ..Endpoint::default()
    };
    let staged = Policy {
        staged: true,
        hook: Hook::Forwarded,
        ..ingress("role == 'edge'", vec![rule(Action::Deny)])
    };
    engine.apply([
        Update::Endpoint("uplink".to_owned(), Some(Box::new(open))),
        Update::Host("uplink".to_owned(), Some(HostInterface::Named("eth0".to_owned()))),
        set_policy("try", staged),
    ]);
    let full = engine.snapshot();
    let of_host = full
        .chains
        .iter()
        .filter(|(chain, _)| chain.name.starts_with("manx-h"));
    let deciding = |rule: &&Rule| matches!(rule.target, Target::Drop | Target::Accept);
    let rules: Vec<&Rule> = of_host.flat_map(|(_, rules)| rules).collect();
    assert!(!rules.is_empty());
    assert_eq!(rules.into_iter().filter(deciding).count(), 0, "{}", text(&engine));
    assert_eq!(engine.trials().len(), 2);
}

#[test]
fn without_enforcement_nothing_is_wanted() {
    let mut engine = world([database()]);
    let mut held = Held::of(&engine.snapshot());
    for change in engine.apply([Update::Enforce(None)]) {
        carry_out(&mut held, &change);
    }
    assert!(held.is_empty() && engine.wants_nothing());
}

#[test]
fn marks_are_bits_of_the_mask() {
    assert_eq!(Marks::of(Marks::DEFAULT_MASK), Some(Marks::default()));
    assert_eq!(Marks::of(0x8000), None);
    assert_eq!(Marks::of(0), None);
    assert!(Marks::of(0xc000_0000).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        rng_seed: prop::test_runner::RngSeed::Fixed(5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn deltas_folded_are_the_snapshot_whatever_the_order(told in updates()) {
        let (mut engine, mut held) = (Engine::new(), Held::default());
        for update in &told {
            for change in engine.apply([update.clone()]) {
                carry_out(&mut held, &change);
            }
            held.jumps.sort_by_key(|jump| (jump.family, jump.table, jump.words.clone()));
            let mut wanted = Held::of(&engine.snapshot());
            wanted.jumps.sort_by_key(|jump| (jump.family, jump.table, jump.words.clone()));
            prop_assert_eq!(&held, &wanted, "after {:?}", update);
        }
        let last: BTreeMap<String, Update> =
            told.iter().map(|update| (resource(update), update.clone())).collect();
        let last: Vec<Update> = last.into_values().collect();
        let reversed: Vec<Update> = last.iter().rev().cloned().collect();
        let doubled: Vec<Update> = last.iter().chain(&last).cloned().collect();
        let middle = last.len() / 2;
        let rotated: Vec<Update> = last[middle..].iter().chain(&last[..middle]).cloned().collect();
        for order in [last, reversed, doubled, rotated, told] {
            let mut other = Engine::new();
            other.apply(order);
            prop_assert_eq!(other.snapshot(), engine.snapshot());
        }
    }
}
