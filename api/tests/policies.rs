//! Policies of every kind against what their specifications say: truth tables of what is well known, and random worlds
//! on which a conversion and a plain reading of the resources have to agree.

use std::net::IpAddr;

use manx_api::manifest::load_into;
use manx_api::policy::{Hook, Order, Policy, built_in_tiers};

#[path = "policies/cluster.rs"]
mod cluster;
#[path = "../../tests/policy/form.rs"]
mod form;
#[path = "policies/recipes.rs"]
mod recipes;
#[path = "../../tests/policy/reference.rs"]
mod reference;
#[path = "policies/tiered.rs"]
mod tiered;
#[path = "../../tests/policy/world.rs"]
mod world;

use form::Form;
use world::{Packet, Service, World, address_v4, namespace, packets, pod, random};

/// A cluster for truth tables: `shop` and `other`, five pods, and somebody outside. Labels are unlike in both namespaces.
fn town() -> World {
    let mut town = World::of([
        namespace("shop", "team=shop"),
        namespace("other", "team=ops"),
        pod("shop", "web", "app=web tier=front", 1),
        pod("shop", "api", "app=api tier=back", 2),
        pod("shop", "db", "app=db tier=back", 3),
        pod("other", "client", "app=web", 4),
        pod("other", "monitor", "role=monitor", 5),
    ]);
    town.services.push(Service {
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
        endpoints: vec![(address_v4(2), 6, 8080)],
    });
    town
}

/// The address of a pod of [`town`] by its name; any other name is its address.
fn address(name: &str) -> IpAddr {
    let pods = ["web", "api", "db", "client", "monitor"];
    match (1..).zip(pods).find(|(_, pod)| *pod == name) {
        Some((host, _)) => address_v4(host),
        None => name.parse().unwrap_or_else(|_| panic!("{name} is nobody")),
    }
}

/// A packet written as `web>api:80`, `web>api:53/UDP` or `web>api:ping`.
fn packet(text: &str) -> Packet {
    let (from, rest) = text.split_once('>').expect("from>to");
    let (to, what) = rest.split_once(':').expect("to:what");
    let (port, protocol) = what.split_once('/').unwrap_or((what, "TCP"));
    let protocol = match (port, protocol) {
        ("ping", _) => 1,
        (_, "TCP") => 6,
        (_, "UDP") => 17,
        (_, "SCTP") => 132,
        (_, other) => panic!("{other} is no protocol of this table"),
    };
    Packet {
        from: address(from),
        to: address(to),
        protocol,
        ports: port.parse().ok().map(|port| (40_000, port)),
        icmp: (port == "ping").then_some((8, 0)),
    }
}

/// What these manifests, in namespace `shop` unless they say otherwise, let through in [`town`] and what not: as the
/// specification has it, and as the one form has it.
fn decides(manifests: &str, let_through: &[&str], denied: &[&str]) {
    let mut world = town();
    let resources = load_into("policies.yaml", manifests, Some("shop"));
    world
        .resources
        .extend(resources.unwrap_or_else(|errors| panic!("{errors:?}\n{manifests}")));
    let form = Form::of(&world);
    for (packets, expected) in [(let_through, true), (denied, false)] {
        for text in packets {
            let packet = packet(text);
            assert_eq!(
                reference::allowed(&world, &packet, |_| true),
                expected,
                "specification: {text}\n{manifests}"
            );
            assert_eq!(form.allowed(&packet), expected, "one form: {text}\n{manifests}");
        }
    }
}

/// The one form of the first resource of a manifest.
fn converted(manifest: &str) -> Policy {
    let resources = load_into("policy.yaml", manifest, Some("shop"));
    let resources = resources.unwrap_or_else(|errors| panic!("{errors:?}\n{manifest}"));
    Policy::of(&resources[0]).expect("a policy")
}

/// How many random worlds; `POLICY_WORLDS` sets another number.
fn worlds() -> u64 {
    let stated = std::env::var("POLICY_WORLDS").ok();
    stated.and_then(|count| count.parse().ok()).unwrap_or(300)
}

#[test]
fn conversion_means_what_the_resources_say() {
    let (mut let_through, mut denied) = (0_u32, 0_u32);
    for seed in 0..worlds() {
        let world = random(seed);
        let form = Form::of(&world);
        for packet in packets(&world, []) {
            let expected = reference::allowed(&world, &packet, |_| true);
            assert_eq!(
                form.allowed(&packet),
                expected,
                "seed {seed}: {packet:?}\n{world}"
            );
            *(if expected { &mut let_through } else { &mut denied }) += 1;
        }
    }
    // A test that only ever sees one answer proves nothing.
    assert!(
        let_through > denied / 4 && denied > let_through / 4,
        "{let_through} and {denied}"
    );
}

#[test]
fn three_tiers_are_always_there() {
    let tiers = built_in_tiers()
        .map(|(name, tier)| (name, tier.order.number(), format!("{:?}", tier.default_action)));
    let (deny, pass) = ("Deny".to_owned(), "Pass".to_owned());
    assert_eq!(
        tiers,
        [
            ("kube-admin", Some(1e3), pass.clone()),
            ("default", Some(1e6), deny),
            ("kube-baseline", Some(1e7), pass),
        ]
    );
}

#[test]
fn places_and_hooks_are_as_written() {
    let ours = |kind: &str, spec: &str| {
        converted(&format!(
            "apiVersion: manx.network/v1\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n"
        ))
    };
    let global = |spec: &str| ours("GlobalNetworkPolicy", spec);
    assert_eq!(global("{}").tier, "default");
    assert_eq!(global("{}").order, Order::LAST);
    assert_eq!(global("{tier: t, order: 1.5}").order.number(), Some(1.5));
    assert_eq!(global("{}").hook, Hook::Normal);
    assert_eq!(global("{applyOnForward: true}").hook, Hook::Forwarded);
    assert_eq!(
        global("{applyOnForward: true, preDNAT: true}").hook,
        Hook::PreDnat
    );
    assert_eq!(
        global("{applyOnForward: true, doNotTrack: true}").hook,
        Hook::Untracked
    );
    for (kind, staged) in [
        ("NetworkPolicy", false),
        ("GlobalNetworkPolicy", false),
        ("StagedNetworkPolicy", true),
        ("StagedGlobalNetworkPolicy", true),
    ] {
        assert_eq!(ours(kind, "{}").staged, staged, "{kind}");
    }
}
