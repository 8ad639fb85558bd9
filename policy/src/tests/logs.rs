//! What stands before logged packets: each rule that logs is told of by name, whoever logs it.

use std::collections::BTreeSet;

use manx_api::Kind;
use manx_api::policy::{Action, DefaultAction, Endpoint, NetworkSet, Origin, Policy};

use super::worlds::{local, origin, pod, policy, rule, set_policy, set_tier};
use super::*;
use crate::{HostAction, HostInterface, Logged, Reason, Settings, Target, Told, told};

fn engine(more: impl IntoIterator<Item = Update>) -> Engine {
    let mut engine = Engine::new();
    let settings = Settings {
        log_denied: Some(10),
        to_host: HostAction::Drop,
        ..Settings::default()
    };
    let host = Endpoint {
        closed: true,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ..Endpoint::default()
    };
    let base = [
        Update::Enforce(Some(settings)),
        set_tier("default", 1000.0, DefaultAction::Deny),
        pod("web", "app=web", &["10.0.0.1", "fd00::1"]),
        pod("far", "app=web", &["10.0.1.1"]),
        local("web"),
        Update::Endpoint("node".to_owned(), Some(Box::new(host))),
        Update::Host("node".to_owned(), Some(HostInterface::Named("eth0".to_owned()))),
    ];
    engine.apply(base.into_iter().chain(more));
    engine
}

/// The prefixes of all rules that log.
fn prefixes(engine: &Engine) -> BTreeSet<String> {
    let full = engine.snapshot();
    let rules = full.chains.into_values().flatten();
    let logging = rules.filter_map(|rule| {
        let Target::Log { prefix, .. } = rule.target else {
            return None;
        };
        Some(prefix)
    });
    logging.collect()
}

fn at(prefix: &str, interfaces: [Option<&str>; 2]) -> Logged {
    let [from, to] = interfaces.map(|name| name.map(str::to_owned));
    Logged {
        prefix: prefix.to_owned(),
        from,
        to,
        source: "10.0.1.1".parse().unwrap(),
        destination: "10.0.0.1".parse().unwrap(),
    }
}

fn web() -> Policy {
    Policy {
        ingress: Some(vec![rule(Action::Log), rule(Action::Deny)]),
        ..policy("app == 'web'")
    }
}

#[test]
fn every_rule_that_logs_is_told_of_by_name() {
    let long = "a-name-that-is-longer-than-what-the-kernel-takes-before-a-packet";
    let engine = engine([
        set_policy("short", web()),
        set_policy(&format!("{long}-1"), web()),
        set_policy(&format!("{long}-2"), web()),
    ]);
    let mut reasons = Vec::new();
    for prefix in prefixes(&engine) {
        assert!(prefix.len() <= 63, "{prefix}");
        let Told { denied, reason, .. } = told(&engine, &at(&prefix, [None, Some("mxweb")])).unwrap();
        assert_ne!(reason, Reason::Gone, "{prefix}");
        assert_eq!(denied, prefix.starts_with("manx:D:"), "{prefix}");
        reasons.push(reason);
    }
    for name in ["short", &format!("{long}-1"), &format!("{long}-2")] {
        for number in 0..2 {
            let reason = Reason::Rule {
                policy: origin(name),
                tier: "default".to_owned(),
                rule: number,
            };
            assert!(reasons.contains(&reason), "{reason:?}");
        }
    }
    let end = Reason::End {
        tier: "default".to_owned(),
        policy: Some(origin(&format!("{long}-1"))),
    };
    for reason in [
        end,
        Reason::Closed,
        Reason::Source,
        Reason::Unknown,
        Reason::ToHost,
    ] {
        assert!(reasons.contains(&reason), "{reason:?}");
    }
}

#[test]
fn ends_are_known_by_their_interface_or_else_by_their_address() {
    let set = NetworkSet {
        nets: vec![net("10.0.1.0/24")],
        ..NetworkSet::default()
    };
    let name = Origin {
        kind: Kind::GlobalNetworkSet,
        ..origin("outside")
    };
    let engine = engine([Update::NetworkSet(name, Some(Box::new(set)))]);
    let spoofed = told(&engine, &at("manx:D:o:source", [Some("mxweb"), None])).unwrap();
    assert_eq!(
        spoofed.source.endpoint.as_deref(),
        Some("web"),
        "not whose address it is"
    );
    assert_eq!(spoofed.source.network_sets, ["GlobalNetworkSet outside"]);
    let passing = told(
        &engine,
        &at("manx:D:i:end:Tier.gone", [Some("eth0"), Some("mxweb")]),
    )
    .unwrap();
    assert_eq!(passing.reason, Reason::Gone);
    assert_eq!(passing.source.endpoint.as_deref(), Some("far"));
    assert_eq!(passing.destination.endpoint.as_deref(), Some("web"));
    assert!(!passing.destination.is_host);
    for foreign in ["", "denied:1", "calico:D:i:source", "manx:D", "manx:D:x:source"] {
        assert_eq!(told(&engine, &at(foreign, [None, None])), None, "{foreign}");
    }
}

#[test]
fn who_has_an_address_is_found_by_the_longest_and_the_widest_network() {
    let named = |name: &str| Origin {
        kind: Kind::GlobalNetworkSet,
        ..origin(name)
    };
    let set = |name: &str, nets: &[&str]| {
        let set = NetworkSet {
            nets: nets.iter().map(|text| net(text)).collect(),
            ..NetworkSet::default()
        };
        Update::NetworkSet(named(name), Some(Box::new(set)))
    };
    let mut engine = engine([
        set("all", &["0.0.0.0/0"]),
        set("nested", &["10.0.0.0/8", "10.0.1.0/24", "10.0.1.1/32"]),
        set("other", &["10.2.0.0/16", "fd00::/64"]),
    ]);
    let sets = |engine: &Engine, prefix: &str| {
        told(engine, &at(prefix, [None, None]))
            .unwrap()
            .source
            .network_sets
    };
    let of = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .map(|name| format!("GlobalNetworkSet {name}"))
            .collect()
    };
    assert_eq!(sets(&engine, "manx:D:o:unknown"), of(&["all", "nested"]));
    engine.apply([set("nested", &["10.0.0.0/8"]), set("other", &["10.0.0.0/16"])]);
    assert_eq!(sets(&engine, "manx:D:o:unknown"), of(&["all", "nested", "other"]));
    engine.apply(["all", "nested"].map(|name| Update::NetworkSet(named(name), None)));
    assert_eq!(sets(&engine, "manx:D:o:unknown"), of(&["other"]));
}
