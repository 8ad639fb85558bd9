//! Examples of what services get, and laws that hold whatever they ask for.

use std::collections::{BTreeMap, BTreeSet};

use manx_api::ipam::{IpPool, IpReservation};
use manx_api::service::{LoadBalancerIngress, Service, ServiceType, TrafficPolicy};
use manx_api::{Resource, manifest};
use proptest::prelude::*;

use super::*;

/// Two pools of either family, one that gives only to those who name it, one for pods, and a reservation.
const POOLS: &str = "
{apiVersion: manx.network/v1, kind: IPPool, metadata: {name: a}, spec: {cidr: 203.0.113.0/30, allowedUses: [LoadBalancer]}}
---
{apiVersion: manx.network/v1, kind: IPPool, metadata: {name: b}, spec: {cidr: 'fd00::/125', allowedUses: [LoadBalancer]}}
---
apiVersion: manx.network/v1
kind: IPPool
metadata: {name: chosen}
spec: {cidr: 198.51.100.0/31, allowedUses: [LoadBalancer], assignmentMode: Manual}
---
{apiVersion: manx.network/v1, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.0.0.0/16}}
---
{apiVersion: manx.network/v1, kind: IPReservation, metadata: {name: kept}, spec: {reservedCIDRs: [203.0.113.1/32]}}
";

/// What a cluster has.
#[derive(Clone, Debug, Default)]
struct World {
    services: Vec<Service>,
    pools: Vec<IpPool>,
    reservations: Vec<IpReservation>,
}

impl World {
    fn of(text: &str) -> Self {
        let all = manifest::load("test", text).unwrap();
        Self {
            services: those(&all),
            pools: those(&all),
            reservations: those(&all),
        }
    }

    /// The pools with these services: each its name, what its spec says beside its type, and its annotations.
    fn with(services: &[(&str, &str, &str)]) -> Self {
        let mut world = Self::of(POOLS);
        for (name, spec, annotations) in services {
            world.add(name, spec, annotations);
        }
        world
    }

    fn add(&mut self, name: &str, spec: &str, annotations: &str) {
        let usual = [
            ("type: ", "type: LoadBalancer"),
            ("ports: ", "ports: [{port: 80}]"),
        ];
        let usual = usual.into_iter().filter(|(field, _)| !spec.contains(field));
        let mut fields: Vec<&str> = usual.map(|(_, usual)| usual).collect();
        fields.extend(Some(spec).filter(|spec| !spec.is_empty()));
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}\n\
             spec: {{{}}}\n",
            fields.join(", ")
        );
        self.services.extend(Self::of(&text).services);
    }

    fn decide(&self) -> BTreeMap<NamespacedName, Decision> {
        decide(&Known {
            services: self.services.iter().collect(),
            pools: self.pools.iter().collect(),
            reservations: self.reservations.iter().collect(),
        })
    }

    /// What one service gets, and what is said of it.
    fn one(&self, name: &str) -> (Vec<String>, String) {
        let decisions = self.decide();
        let found = decisions.iter().find(|(key, _)| key.name == name);
        let (_, decision) = found.unwrap_or_else(|| panic!("nothing is said of {name}"));
        let refusal = decision.refusal.as_ref();
        (
            decision.addresses.iter().map(ToString::to_string).collect(),
            refusal.map(ToString::to_string).unwrap_or_default(),
        )
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let (addresses, refusal) = self.one(name);
        assert_eq!(refusal, "", "{name}");
        addresses
    }

    fn refusal(&self, name: &str) -> String {
        self.one(name).1
    }

    fn service(&mut self, name: &str) -> &mut Service {
        let mut all = self.services.iter_mut();
        all.find(|service| service.metadata.name == name).unwrap()
    }

    /// Carries out what was decided of those that are chosen; whether anything changed.
    fn carry_out(&mut self, chosen: impl Fn(usize) -> bool) -> bool {
        let decisions = self.decide();
        let mut changed = false;
        for (i, service) in self.services.iter_mut().enumerate() {
            let decision = decisions.get(&name(service));
            if let Some(decision) = decision.filter(|_| chosen(i))
                && service.status.addresses() != decision.addresses
            {
                set(service, &decision.addresses);
                changed = true;
            }
        }
        changed
    }

    /// Who has each address.
    fn holders(&self) -> BTreeMap<IpAddr, Vec<&Service>> {
        let mut holders: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
        for service in &self.services {
            for address in service.status.addresses() {
                holders.entry(address).or_default().push(service);
            }
        }
        holders
    }
}

/// The resources that are of a type.
fn those<T: TryFrom<Resource>>(all: &[Resource]) -> Vec<T> {
    all.iter().filter_map(|it| T::try_from(it.clone()).ok()).collect()
}

fn name(service: &Service) -> NamespacedName {
    NamespacedName {
        namespace: service.metadata.namespace.clone().unwrap(),
        name: service.metadata.name.clone(),
    }
}

fn set(service: &mut Service, addresses: &[IpAddr]) {
    let ingress = addresses.iter().map(|address| LoadBalancerIngress {
        ip: address.to_string(),
        hostname: String::new(),
    });
    service.status.load_balancer.ingress = ingress.collect();
}

#[test]
fn services_get_the_first_free_address_of_each_family_that_they_want() {
    let mut world = World::with(&[
        ("one", "", ""),
        (
            "two",
            "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack",
            "",
        ),
        ("three", "ipFamilies: [IPv6]", ""),
        ("four", "loadBalancerClass: manx.network/bgp", ""),
        ("other", "loadBalancerClass: example.org/cloud", ""),
    ]);
    assert_eq!(
        world.addresses("four"),
        ["203.0.113.0"],
        "seniority is by name where all are as old"
    );
    assert_eq!(
        world.addresses("one"),
        ["203.0.113.2"],
        "what is reserved is left out"
    );
    assert_eq!(world.addresses("two"), ["203.0.113.3", "fd00::1"]);
    assert_eq!(world.addresses("three"), ["fd00::"]);
    assert_eq!(world.decide().len(), 4, "others' services are left alone");
    world.add("zzz", "", "");
    assert_eq!(
        world.one("zzz"),
        (
            Vec::new(),
            "every address of IPPools [a] is taken or reserved: make another pool, or delete services"
                .to_owned()
        )
    );
}

#[test]
fn an_address_or_a_pool_may_be_asked_for() {
    let world = World::with(&[
        ("field", "loadBalancerIP: 203.0.113.1", ""),
        ("ours", "", "manx.network/load-balancer-ips: 203.0.113.3"),
        (
            "calicos",
            "",
            "projectcalico.org/loadBalancerIPs: '[\"203.0.113.2\"]'",
        ),
        ("pool", "", "manx.network/ipv4pools: '[\"chosen\"]'"),
        ("cidr", "", "projectcalico.org/ipv4pools: '[\"198.51.100.0/31\"]'"),
        (
            "both",
            "ipFamilies: [IPv4, IPv6]",
            "manx.network/load-balancer-ips: '203.0.113.0, fd00::5'",
        ),
    ]);
    for (name, expected) in [
        ("field", vec!["203.0.113.1"]),
        ("ours", vec!["203.0.113.3"]),
        ("calicos", vec!["203.0.113.2"]),
        ("cidr", vec!["198.51.100.0"]),
        ("pool", vec!["198.51.100.1"]),
        ("both", vec!["203.0.113.0", "fd00::5"]),
    ] {
        assert_eq!(world.addresses(name), expected, "{name}");
    }
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let ips = "manx.network/load-balancer-ips";
    for (spec, annotations, said) in [
        (
            "loadBalancerIP: 10.0.0.7",
            String::new(),
            "10.0.0.7 is in no enabled IPPool",
        ),
        (
            "",
            format!("{ips}: '[7'"),
            "which is no list: write 203.0.113.7 or",
        ),
        ("", format!("{ips}: '203.0.113.2/32'"), "is no address"),
        (
            "",
            format!("{ips}: '203.0.113.2,203.0.113.3'"),
            "a service has one of a family",
        ),
        ("", format!("{ips}: 'fd00::1'"), "add IPv6 to its ipFamilies"),
        (
            "",
            "manx.network/ipv4pools: '[\"pods\"]'".to_owned(),
            "there are [a, chosen]",
        ),
        (
            "loadBalancerIP: 203.0.113.0",
            String::new(),
            "is service shop/first's: ask for another, or",
        ),
    ] {
        let world = World::with(&[("first", "", ""), ("it", spec, &annotations)]);
        let (addresses, refusal) = world.one("it");
        assert!(refusal.contains(said), "{refusal}");
        assert_eq!(addresses, [""; 0]);
    }
    let mut world = World::with(&[("it", "", "")]);
    world.pools.retain(|pool| pool.metadata.name == "chosen");
    assert!(world.refusal("it").contains("([chosen] are disabled or Manual)"));
    world.service("it").spec.load_balancer_class = Some(CLASS.to_owned());
    world.pools.clear();
    assert!(
        world
            .refusal("it")
            .contains("make one with allowedUses: [LoadBalancer]")
    );
    world.service("it").spec.load_balancer_class = None;
    assert!(
        world.decide().is_empty(),
        "without a pool, somebody else sees to it"
    );
}

#[test]
fn a_bad_wish_leaves_a_service_what_it_has() {
    let mut world = World::with(&[("it", "", "")]);
    world.carry_out(|_| true);
    world.service("it").spec.load_balancer_ip = "10.0.0.7".to_owned();
    let (addresses, refusal) = world.one("it");
    assert_eq!(addresses, ["203.0.113.0"]);
    assert!(refusal.contains("10.0.0.7"));
    world.service("it").spec.load_balancer_ip = "203.0.113.3".to_owned();
    assert_eq!(world.addresses("it"), ["203.0.113.3"]);
}

#[test]
fn what_another_load_balancer_gave_is_neither_changed_nor_given() {
    let mut world = World::with(&[
        ("cloud", "", ""),
        ("other", "loadBalancerClass: example.org/cloud", ""),
        ("external", "type: ClusterIP, externalIPs: [203.0.113.2]", ""),
        ("it", "", ""),
    ]);
    set(world.service("cloud"), &["192.0.2.7".parse().unwrap()]);
    set(world.service("other"), &["203.0.113.0".parse().unwrap()]);
    assert_eq!(world.addresses("it"), ["203.0.113.3"]);
    assert_eq!(world.decide().len(), 1);
    // What says that it is ours is, and an address of a pool that is gone is replaced.
    world.service("cloud").spec.load_balancer_class = Some(CLASS.to_owned());
    assert_eq!(world.addresses("cloud"), ["203.0.113.3"]);
}

#[test]
fn dual_stack_is_both_or_neither_where_it_is_required() {
    let spec = |policy: &str| format!("ipFamilies: [IPv4, IPv6], ipFamilyPolicy: {policy}");
    let mut world = World::with(&[
        ("prefers", &spec("PreferDualStack"), ""),
        ("requires", &spec("RequireDualStack"), ""),
        ("single", &spec("SingleStack"), ""),
    ]);
    world.pools.retain(|pool| pool.metadata.name != "b");
    assert_eq!(world.addresses("prefers"), ["203.0.113.0"]);
    let (addresses, refusal) = world.one("requires");
    assert_eq!(addresses, [""; 0]);
    assert!(refusal.contains("no IPPool gives IPv6"), "{refusal}");
    assert_eq!(
        world.addresses("single"),
        ["203.0.113.2"],
        "nobody got it in vain"
    );
}

#[test]
fn services_with_a_key_share_an_address_where_their_ports_differ() {
    let key = "manx.network/sharing-key: dns";
    let local = "externalTrafficPolicy: Local, selector: {app: dns}";
    let mut world = World::with(&[
        ("a", "", key),
        ("b", "ports: [{port: 81}]", key),
        ("c", "ports: [{port: 80}]", key),
        ("d", "", ""),
    ]);
    assert_eq!(world.addresses("b"), world.addresses("a"));
    assert_ne!(world.addresses("c"), world.addresses("a"), "the port is taken");
    assert_ne!(world.addresses("d"), world.addresses("a"), "it has no key");
    let with = |spec: &str| {
        World::with(&[
            ("a", local, key),
            ("b", &format!("ports: [{{port: 81}}], {spec}"), key),
        ])
    };
    for (spec, shared) in [
        (local, true),
        ("externalTrafficPolicy: Local, selector: {app: other}", false),
        ("selector: {app: dns}", false),
    ] {
        world = with(spec);
        assert_eq!(world.addresses("a") == world.addresses("b"), shared, "{spec}");
    }
}

#[test]
fn an_address_is_free_when_its_service_is_gone_or_of_another_type() {
    let mut world = World::with(&[("a", "", ""), ("b", "loadBalancerIP: 203.0.113.0", "")]);
    world.carry_out(|_| true);
    assert!(!world.refusal("b").is_empty());
    world.service("a").spec.kind = ServiceType::ClusterIp;
    assert_eq!(world.addresses("a"), [""; 0]);
    assert!(
        world.refusal("b").contains("no longer of type LoadBalancer"),
        "not before it is taken away"
    );
    world.carry_out(|_| true);
    assert_eq!(world.addresses("b"), ["203.0.113.0"]);
    world.services.retain(|service| service.metadata.name == "b");
    assert_eq!(world.addresses("b"), ["203.0.113.0"]);
}

/// What a service may say.
fn services() -> impl Strategy<Value = (&'static str, &'static str)> {
    let spec = prop::sample::select(vec![
        "",
        "ipFamilies: [IPv6]",
        "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack",
        "ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack",
        "loadBalancerIP: 203.0.113.2",
        "loadBalancerIP: 203.0.113.9",
        "type: ClusterIP",
        "loadBalancerClass: manx.network/bgp",
        "loadBalancerClass: example.org/cloud",
        "ports: [{port: 81}]",
        "ports: [{port: 81}], externalTrafficPolicy: Local, selector: {app: a}",
        "externalTrafficPolicy: Local, selector: {app: a}",
    ]);
    let annotations = prop::sample::select(vec![
        "",
        "",
        "manx.network/sharing-key: x",
        "manx.network/sharing-key: x",
        "manx.network/load-balancer-ips: 203.0.113.3",
        "manx.network/ipv4pools: chosen",
        "manx.network/ipv4pools: '['",
    ]);
    (spec, annotations)
}

fn worlds() -> impl Strategy<Value = World> {
    prop::collection::vec(services(), 1..9).prop_map(|services| {
        let mut world = World::of(POOLS);
        for (i, (spec, annotations)) in services.into_iter().enumerate() {
            world.add(&format!("s{i}"), spec, annotations);
        }
        world
    })
}

/// Addresses that a service may have had, whoever gave them.
fn had() -> impl Strategy<Value = Vec<BTreeSet<&'static str>>> {
    let address = prop::sample::select(vec![
        "203.0.113.0",
        "203.0.113.2",
        "fd00::1",
        "192.0.2.7",
        "198.51.100.1",
    ]);
    prop::collection::vec(prop::collection::btree_set(address, 0..3), 9)
}

/// As a reader of the manifests would judge it.
fn may_share(a: &Service, b: &Service) -> bool {
    let key = |it: &Service| it.metadata.annotations.get(SHARING_KEY).cloned();
    let port = |it: &Service| it.spec.ports[0].port;
    let is_local = |it: &Service| it.spec.external_traffic_policy == TrafficPolicy::Local;
    key(a).is_some()
        && key(a) == key(b)
        && port(a) != port(b)
        && is_local(a) == is_local(b)
        && a.spec.selector == b.spec.selector
}

fn no_address_is_given_twice(world: &World) {
    for (address, holders) in world.holders() {
        for (i, a) in holders.iter().enumerate() {
            for b in &holders[..i] {
                assert!(
                    may_share(a, b),
                    "{address} is both {:?}'s and {:?}'s",
                    a.metadata,
                    b.metadata
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: prop::test_runner::RngSeed::Fixed(6),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_order_in_which_things_are_known_makes_no_difference(world in worlds(), turn in 0_usize..8) {
        let mut turned = world.clone();
        let count = turned.services.len();
        turned.services.rotate_left(turn % count);
        turned.pools.reverse();
        prop_assert_eq!(world.decide(), turned.decide());
    }

    #[test]
    fn no_address_is_given_twice_whatever_part_is_carried_out_and_whatever_is_asked_for_meanwhile(
        world in worlds(),
        steps in prop::collection::vec((any::<u16>(), 0_usize..9, prop::option::of(0_u8..4)), 1..12),
    ) {
        let mut world = world;
        for (mask, which, wish) in steps {
            world.carry_out(|i| mask >> i & 1 == 1);
            no_address_is_given_twice(&world);
            let count = world.services.len();
            if let Some(host) = wish {
                world.services[which % count].spec.load_balancer_ip = format!("203.0.113.{host}");
            }
        }
    }

    #[test]
    fn what_is_carried_out_stays_and_others_leave_it_alone(world in worlds(), (spec, annotations) in services()) {
        let mut world = world;
        let rounds = (0..10).take_while(|_| world.carry_out(|_| true)).count();
        prop_assert!(rounds < 10, "it comes to rest");
        let before: Vec<Vec<IpAddr>> = world.services.iter().map(|it| it.status.addresses()).collect();
        world.add("zz", spec, annotations);
        world.carry_out(|_| true);
        let after = world.services.iter().map(|it| it.status.addresses());
        let after: Vec<Vec<IpAddr>> = after.take(before.len()).collect();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn whatever_statuses_say_at_first_no_address_stays_twice(world in worlds(), had in had()) {
        let mut world = world;
        for (service, addresses) in world.services.iter_mut().zip(&had) {
            // What others' load balancers gave is theirs to mend.
            if service.spec.load_balancer_class.as_deref() != Some("example.org/cloud") {
                let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
                set(service, &addresses);
            }
        }
        let foreign = "192.0.2.7".parse::<IpAddr>().unwrap();
        world.services.retain(|it| !it.status.addresses().contains(&foreign));
        let rounds = (0..10).take_while(|_| world.carry_out(|_| true)).count();
        prop_assert!(rounds < 10, "it comes to rest");
        no_address_is_given_twice(&world);
    }
}
