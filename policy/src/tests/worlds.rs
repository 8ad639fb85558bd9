//! Clusters: small ones written down, and others made at random.

use std::collections::BTreeSet;

use manx_api::Kind;
use manx_api::policy::{
    Action, DefaultAction, Endpoint, Hook, Icmp, NamedPort, NamespacedName, NetworkSet, Not, Order, Origin,
    Policy, Port, PortRange, Protocol, Rule as PolicyRule, Scope, Side, Subject, Tier,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::net;
use crate::{Failsafes, HostInterface, Local, ServiceEndpoint, Settings, Update};

pub(super) fn origin(name: &str) -> Origin {
    Origin {
        name: name.to_owned(),
        namespace: None,
        kind: Kind::NetworkPolicy,
    }
}

pub(super) fn select(labels: &str) -> Subject {
    Subject {
        labels: labels.parse().unwrap(),
        ..Subject::default()
    }
}

/// A rule that holds for everything.
pub(super) fn rule(action: Action) -> PolicyRule {
    PolicyRule {
        action,
        family: None,
        protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side::default(),
        destination: Side::default(),
    }
}

/// A policy of the tier "default" that has no rules.
pub(super) fn policy(labels: &str) -> Policy {
    Policy {
        tier: "default".to_owned(),
        order: Order::LAST,
        subject: select(labels),
        hook: Hook::Normal,
        staged: false,
        ingress: None,
        egress: None,
    }
}

pub(super) fn set_policy(name: &str, policy: Policy) -> Update {
    Update::Policy(origin(name), Some(Box::new(policy)))
}

pub(super) fn set_tier(name: &str, order: f64, default_action: DefaultAction) -> Update {
    let order = Order::new(order).unwrap();
    Update::Tier(
        name.to_owned(),
        Some(Tier {
            order,
            default_action,
        }),
    )
}

pub(super) fn port(first: u16, last: u16) -> Port {
    Port::Numbers(PortRange { first, last })
}

/// A pod of the namespace "ns" that is called `web` at TCP port 80.
pub(super) fn pod(name: &str, labels: &str, addresses: &[&str]) -> Update {
    let labels = labels
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    let endpoint = Endpoint {
        namespace: Some("ns".to_owned()),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        service_account: None,
        ports: vec![NamedPort {
            name: "web".to_owned(),
            protocol: Protocol::TCP,
            port: 80,
        }],
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        closed: false,
    };
    Update::Endpoint(name.to_owned(), Some(Box::new(endpoint)))
}

pub(super) fn local(name: &str) -> Update {
    let local = Local {
        interface: format!("mx{name}"),
        sources: Vec::new(),
    };
    Update::Local(name.to_owned(), Some(local))
}

/// What tells two updates of one resource from those of others.
pub(super) fn resource(update: &Update) -> String {
    match update {
        Update::SetPool { name, .. } | Update::RemovePool { name } => format!("pool {name}"),
        Update::Enforce(_) => "settings".to_owned(),
        Update::Failsafes(_) => "failsafes".to_owned(),
        Update::Tier(name, _) => format!("tier {name}"),
        Update::Policy(origin, _) => format!("policy {origin}"),
        Update::Namespace(name, _) => format!("namespace {name}"),
        Update::ServiceAccount(name, _) => format!("account {name:?}"),
        Update::Endpoint(name, _) => format!("endpoint {name}"),
        Update::Local(name, _) => format!("local {name}"),
        Update::Host(name, _) => format!("host {name}"),
        Update::NetworkSet(origin, _) => format!("set {origin}"),
        Update::Service(name, _) => format!("service {name:?}"),
    }
}

/// The number of the first of two host endpoints, for their addresses.
pub(super) const HOST: u8 = 20;

/// Names of pods; the addresses of the pod with number n are `10.0.0.n` and `fd00::n`.
pub(super) const PODS: [&str; 5] = ["p0", "p1", "p2", "p3", "p4"];

fn one_of<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(of.to_vec())
}

fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    proptest::collection::btree_map(
        one_of(&["a".to_owned(), "b".to_owned()]),
        one_of(&["x".to_owned(), "y".to_owned()]),
        0..3,
    )
}

fn selector() -> impl Strategy<Value = manx_api::Selector> {
    one_of(&[
        "all()",
        "a == 'x'",
        "has(b)",
        "a == 'x' && b == 'y'",
        "!has(a)",
        "a in {'x', 'y'}",
        "b != 'x'",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn subject() -> BoxedStrategy<Subject> {
    let scope = prop_oneof![
        3 => Just(Scope::Anywhere),
        3 => one_of(&["n0", "n1"]).prop_map(|name| Scope::Namespace(name.to_owned())),
        2 => selector().prop_map(Scope::Namespaces),
        1 => Just(Scope::Global),
    ];
    let accounts = (btree_set(Just("sa".to_owned()), 0..2), selector())
        .prop_map(|(names, labels)| manx_api::policy::ServiceAccounts { names, labels });
    (scope, selector(), option::weighted(0.15, accounts))
        .prop_map(|(scope, labels, service_accounts)| Subject {
            scope,
            labels,
            service_accounts,
        })
        .boxed()
}

fn nets() -> impl Strategy<Value = Vec<ipnetwork::IpNetwork>> {
    let nets = [
        "10.0.0.0/24",
        "10.0.0.0/30",
        "10.0.0.2/31",
        "10.0.0.1/32",
        "0.0.0.0/0",
        "fd00::/64",
        "fd00::2/127",
        "::/0",
        "192.0.2.0/24",
    ];
    prop_oneof![1 => Just(Vec::new()), 1 => vec(one_of(&nets).prop_map(net), 1..4)]
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let port = prop_oneof![
        one_of(&[80_u16, 81, 53]).prop_map(|number| port(number, number)),
        one_of(&[(80_u16, 90), (1, 65535)]).prop_map(|(first, last)| port(first, last)),
        Just(Port::Named("web".to_owned())),
    ];
    prop_oneof![1 => Just(Vec::new()), 2 => vec(port, 1..4)]
}

/// A side with at most one condition, or with some of all.
fn side() -> BoxedStrategy<Side> {
    let with = |change: fn(&mut Side, Side)| {
        full_side().prop_map(move |full| {
            let mut side = Side::default();
            change(&mut side, full);
            side
        })
    };
    prop_oneof![
        4 => Just(Side::default()),
        2 => with(|side, full| side.of = full.of),
        1 => with(|side, full| side.not_of = full.not_of),
        1 => with(|side, full| (side.nets, side.not_nets) = (full.nets, full.not_nets)),
        3 => with(|side, full| side.ports = full.ports),
        1 => with(|side, full| side.not_ports = full.not_ports),
        1 => with(|side, full| side.service = full.service),
        2 => full_side(),
    ]
    .boxed()
}

fn full_side() -> BoxedStrategy<Side> {
    (
        option::of(subject()),
        option::of(subject()),
        nets(),
        nets(),
        ports(),
        ports(),
        option::of(Just(service())),
    )
        .prop_map(|(of, not_of, nets, not_nets, ports, not_ports, service)| Side {
            of,
            not_of,
            nets,
            not_nets,
            ports,
            not_ports,
            service,
        })
        .boxed()
}

pub(super) fn service() -> NamespacedName {
    NamespacedName {
        namespace: "n0".to_owned(),
        name: "svc".to_owned(),
    }
}

fn policy_rule() -> BoxedStrategy<PolicyRule> {
    let icmp = || (0_u8..9, option::of(0_u8..2)).prop_map(|(kind, code)| Icmp { kind, code });
    let protocol = prop_oneof![
        3 => Just(Not::Is(Protocol::TCP)),
        1 => Just(Not::Is(Protocol::UDP)),
        1 => Just(Not::Is(Protocol::ICMP)),
        1 => Just(Not::Not(Protocol::TCP)),
    ];
    (
        one_of(&[Action::Allow, Action::Deny, Action::Pass, Action::Log]),
        option::weighted(0.1, one_of(&manx_api::policy::Family::ALL)),
        option::weighted(0.4, protocol),
        (option::weighted(0.05, icmp()), option::weighted(0.05, icmp())),
        (side(), side()),
    )
        .prop_map(
            |(action, family, protocol, (icmp, not_icmp), (source, destination))| PolicyRule {
                action,
                family,
                protocol,
                icmp,
                not_icmp,
                source,
                destination,
            },
        )
        .boxed()
}

fn any_policy() -> BoxedStrategy<Policy> {
    let rules = || option::weighted(0.8, vec(policy_rule(), 0..6));
    (
        one_of(&["t0", "t1", "t2"]),
        one_of(&[Order::new(0.5).unwrap(), Order::new(1.0).unwrap(), Order::LAST]),
        prop_oneof![Just(Subject::default()), subject()],
        prop_oneof![
            6 => Just(Hook::Normal),
            2 => Just(Hook::Forwarded),
            1 => Just(Hook::PreDnat),
            1 => Just(Hook::Untracked)
        ],
        prop::bool::weighted(0.15),
        (rules(), rules()),
    )
        .prop_map(|(tier, order, subject, hook, staged, (ingress, egress))| Policy {
            tier: tier.to_owned(),
            order,
            subject,
            hook,
            staged,
            ingress,
            egress,
        })
        .boxed()
}

fn endpoint() -> BoxedStrategy<Update> {
    let named = option::weighted(0.6, one_of(&[80_u16, 81]));
    (
        0_u8..5,
        one_of(&["n0", "n1"]),
        labels(),
        option::of(Just("sa".to_owned())),
        named,
    )
        .prop_map(|(number, namespace, labels, service_account, port)| {
            let endpoint = Endpoint {
                namespace: Some(namespace.to_owned()),
                labels,
                service_account,
                ports: port
                    .map(|port| NamedPort {
                        name: "web".to_owned(),
                        protocol: Protocol::TCP,
                        port,
                    })
                    .into_iter()
                    .collect(),
                addresses: super::addresses_of(number).into(),
                closed: false,
            };
            Update::Endpoint(PODS[usize::from(number)].to_owned(), Some(Box::new(endpoint)))
        })
        .boxed()
}

/// One of two host endpoints, or that it is one.
fn host_endpoint() -> BoxedStrategy<Update> {
    let host = (0_u8..2, labels(), any::<bool>(), any::<bool>()).prop_map(|(number, labels, closed, all)| {
        let endpoint = Endpoint {
            labels,
            closed,
            addresses: super::addresses_of(HOST + number).into(),
            ..Endpoint::default()
        };
        let interface = match all {
            true => HostInterface::All,
            false => HostInterface::Named(format!("eth{number}")),
        };
        let name = format!("host{number}");
        [
            Update::Endpoint(name.clone(), Some(Box::new(endpoint))),
            Update::Host(name, Some(interface)),
        ]
    });
    (host, any::<bool>())
        .prop_map(|([endpoint, host], which)| if which { endpoint } else { host })
        .boxed()
}

fn news() -> BoxedStrategy<Update> {
    let tier = (one_of(&["t0", "t1", "t2"]), 0_u8..3, any::<bool>()).prop_map(|(name, order, pass)| {
        let end = if pass {
            DefaultAction::Pass
        } else {
            DefaultAction::Deny
        };
        set_tier(name, order.into(), end)
    });
    let policies =
        (0_u8..4, any_policy()).prop_map(|(number, policy)| set_policy(&format!("policy{number}"), policy));
    let namespace = (one_of(&["n0", "n1"]), labels())
        .prop_map(|(name, labels)| Update::Namespace(name.to_owned(), Some(labels)));
    let account = labels().prop_map(|labels| {
        let name = NamespacedName {
            namespace: "n0".to_owned(),
            name: "sa".to_owned(),
        };
        Update::ServiceAccount(name, Some(labels))
    });
    let local = one_of(&PODS[..3]).prop_map(local);
    let set = (option::of(Just("n0".to_owned())), labels(), nets()).prop_map(|(namespace, labels, nets)| {
        let set = NetworkSet {
            namespace,
            labels,
            nets,
        };
        Update::NetworkSet(origin("set"), Some(Box::new(set)))
    });
    let behind = btree_set((0_u8..5, one_of(&[80_u16, 81])), 0..3).prop_map(|behind| {
        let endpoints = behind.into_iter().map(|(number, port)| ServiceEndpoint {
            address: super::addresses_of(number)[0],
            protocol: Protocol::TCP,
            port,
        });
        Update::Service(service(), endpoints.collect::<BTreeSet<_>>())
    });
    prop_oneof![
        2 => tier, 6 => policies, 1 => namespace, 1 => account, 5 => endpoint(), 3 => local, 1 => set, 1 => behind, 3 => host_endpoint(),
        1 => one_of(&[80_u16, 443]).prop_map(|port| Update::Failsafes(Failsafes {
            inbound: [(Protocol::TCP, port).into()].into(),
            outbound: BTreeSet::new(),
        })),
        1 => Just(Update::Enforce(Some(Settings { log_denied: Some(10), ..Settings::default() }))),
    ]
    .boxed()
}

fn without(update: Update) -> Update {
    match update {
        Update::Tier(name, _) => Update::Tier(name, None),
        Update::Policy(origin, _) => Update::Policy(origin, None),
        Update::Namespace(name, _) => Update::Namespace(name, None),
        Update::ServiceAccount(name, _) => Update::ServiceAccount(name, None),
        Update::Endpoint(name, _) => Update::Endpoint(name, None),
        Update::Local(name, _) => Update::Local(name, None),
        Update::Host(name, _) => Update::Host(name, None),
        Update::NetworkSet(origin, _) => Update::NetworkSet(origin, None),
        Update::Service(name, _) => Update::Service(name, BTreeSet::new()),
        Update::Enforce(_) => Update::Enforce(None),
        Update::Failsafes(_) => Update::Failsafes(Failsafes::default()),
        other @ (Update::SetPool { .. } | Update::RemovePool { .. }) => other,
    }
}

/// What a cluster may tell, some of it of what goes; policies are enforced most of the time.
pub(super) fn updates() -> impl Strategy<Value = Vec<Update>> {
    let one = (news(), prop::bool::weighted(0.15)).prop_map(|(update, gone)| match gone {
        true => without(update),
        false => update,
    });
    let pods = vec(endpoint(), 4..12).prop_map(|pods| {
        let here = PODS[..3].iter().map(|name| local(name));
        let enforced = Update::Enforce(Some(Settings::default()));
        std::iter::once(enforced)
            .chain(pods)
            .chain(here)
            .collect::<Vec<_>>()
    });
    (pods, vec(one, 0..24)).prop_map(|(pods, told)| [pods, told].concat())
}
