//! Laws of the engine, the text it is written as, and the text it is read back from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use manx_api::policy::Protocol;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

mod graph;
mod kernel;
mod logs;
mod worlds;

/// The addresses of a pod of the worlds made at random.
fn addresses_of(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
    [Ipv4Addr::new(10, 0, 0, number).into(), v6.into()]
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn pool(cidr: &str, nat_outgoing: bool) -> Pool {
    Pool {
        cidr: net(cidr),
        nat_outgoing,
    }
}

fn set_pool(name: &str, cidr: &str, nat_outgoing: bool) -> Update {
    Update::SetPool {
        name: name.to_owned(),
        pool: pool(cidr, nat_outgoing),
    }
}

fn remove_pool(name: &str) -> Update {
    Update::RemovePool {
        name: name.to_owned(),
    }
}

/// Does to what a kernel holds what the kernel would do, or fails as it would.
fn carry_out(held: &mut Held, change: &Change) {
    match change {
        Change::CreateSet {
            name,
            family,
            kind,
            replace,
        } => {
            let set = Set {
                family: *family,
                kind: *kind,
                members: BTreeMap::new(),
            };
            let before = held.sets.insert(name.clone(), Some(set));
            assert_eq!(before.is_some(), *replace, "{name} is there");
        }
        Change::PutMember { set, member, sense } => {
            members(held, set).insert(member.clone(), *sense);
        }
        Change::WriteChain { chain, rules } => {
            let hashes = rules.iter().map(|rule| Some(rule.hash(&chain.name)));
            held.chains.insert(chain.clone(), hashes.collect());
        }
        Change::InsertHook(hook) => {
            assert!(held.chains.contains_key(&hook.chain), "a hook needs its chain");
            held.jumps.insert(0, Jump::of(hook));
        }
        Change::DeleteRule { family, table, words } => {
            let is_it = |jump: &Jump| (jump.family, jump.table, &jump.words) == (*family, *table, words);
            let place = held.jumps.iter().position(is_it).expect("the rule is there");
            held.jumps.remove(place);
        }
        Change::RemoveChain(chain) => {
            let leads_there = |jump: &Jump| {
                (jump.family, jump.table) == (chain.family, chain.table) && jump.words.ends_with(&chain.name)
            };
            assert!(
                !held.jumps.iter().any(leads_there),
                "nothing leads there any more"
            );
            held.chains.remove(chain).expect("the chain is there");
        }
        Change::RemoveMember { set, member } => {
            members(held, set).remove(member).expect("a member");
        }
        Change::DestroySet { name } => {
            held.sets.remove(name).expect("the set is there");
        }
    }
}

fn members<'a>(held: &'a mut Held, set: &str) -> &'a mut BTreeMap<Member, Sense> {
    &mut held.sets.get_mut(set).unwrap().as_mut().unwrap().members
}

/// What the kernel would do to the first packet of a connection.
fn masquerades(held: &Held, source: IpAddr, destination: IpAddr) -> bool {
    let family = Family::of(source.into());
    let is_in = |what: &str, address: IpAddr| {
        let set = held.sets.get(&family.set_name(what)).and_then(Option::as_ref);
        let members = set.into_iter().flat_map(|set| &set.members);
        let nets = members.map(|(member, sense)| match member {
            Member::Net(net) => (net, sense),
            Member::NetBehind(..) | Member::Port(..) => panic!("{member} is no network"),
        });
        nets.filter(|(net, _)| net.contains(address))
            .max_by_key(|(net, _)| net.prefix())
            .is_some_and(|(_, sense)| *sense == Sense::Match)
    };
    held.jumps.iter().any(|jump| jump.family == family)
        && held.chains.keys().any(|chain| chain.family == family)
        && is_in(nat::NAT_POOLS, source)
        && !is_in(nat::ALL_POOLS, destination)
        && !destination.is_multicast()
}

/// What the pools ask for, said once more: the most specific pool decides.
fn should_masquerade(engine: &Engine, source: IpAddr, destination: IpAddr) -> bool {
    let around = |address: IpAddr| {
        let pools = engine
            .pools()
            .values()
            .filter(move |pool| pool.cidr.contains(address));
        let longest = pools.clone().map(|pool| pool.cidr.prefix()).max();
        pools.filter(move |pool| Some(pool.cidr.prefix()) == longest)
    };
    around(source).any(|pool| pool.nat_outgoing)
        && around(destination).next().is_none()
        && !destination.is_multicast()
}

/// Pools that are neighbours, parts of each other, the same, or everything.
fn cidr() -> impl Strategy<Value = IpNetwork> {
    let v4 = (0_u8..4, prop_oneof![Just(0_u8), 1_u8..=2, 6_u8..=10, Just(32)]).prop_map(|(bits, length)| {
        let address = Ipv4Addr::new(bits << 6, bits << 6, 0, bits);
        IpNetwork::new(address.into(), length).unwrap()
    });
    let v6 =
        (0_u16..4, prop_oneof![Just(0_u8), 1_u8..=2, 16_u8..=20, Just(128)]).prop_map(|(bits, length)| {
            let address = Ipv6Addr::new(bits << 14, bits << 14, 0, 0, 0, 0, 0, bits);
            IpNetwork::new(address.into(), length).unwrap()
        });
    let canonical = |cidr: IpNetwork| IpNetwork::new(cidr.network(), cidr.prefix()).unwrap();
    prop_oneof![v4, v6].prop_map(canonical)
}

fn update() -> impl Strategy<Value = Update> {
    let name = (0_u8..5).prop_map(|number| format!("pool{number}"));
    (name, proptest::option::weighted(0.8, (cidr(), any::<bool>()))).prop_map(|(name, pool)| match pool {
        Some((cidr, nat_outgoing)) => Update::SetPool {
            name,
            pool: Pool { cidr, nat_outgoing },
        },
        None => Update::RemovePool { name },
    })
}

fn addresses() -> Vec<IpAddr> {
    let v4 = (0_u8..4).flat_map(|bits| {
        let start = Ipv4Addr::new(bits << 6, bits << 6, 0, bits);
        [
            start,
            Ipv4Addr::new(bits << 6, 0, 9, 9),
            Ipv4Addr::new(bits << 6 | 0x20, 1, 1, 1),
        ]
        .map(IpAddr::from)
    });
    let v6 = (0_u16..4).flat_map(|bits| {
        let at = |second, last| Ipv6Addr::new(bits << 14, second, 0, 0, 0, 0, 0, last);
        [at(bits << 14, bits), at(0, 9), at(0x2000, 1)].map(IpAddr::from)
    });
    v4.chain(v6).collect()
}

fn pairs() -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let all = addresses();
    let pairs: Vec<_> = all
        .iter()
        .flat_map(|a| all.iter().map(|b| (*a, *b)))
        .filter(|(a, b)| a.is_ipv4() == b.is_ipv4())
        .collect();
    pairs.into_iter()
}

fn by_last_word(updates: &[Update]) -> Vec<Update> {
    let last = updates
        .iter()
        .map(|update| (worlds::resource(update), update.clone()));
    last.collect::<BTreeMap<_, _>>().into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        rng_seed: prop::test_runner::RngSeed::Fixed(4),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn changes_folded_are_what_is_wanted_in_any_order(updates in vec(update(), 0..12)) {
        let (mut engine, mut held) = (Engine::new(), Held::default());
        for update in &updates {
            for change in engine.apply([update.clone()]) {
                carry_out(&mut held, &change);
            }
            // Hooks come in at the top, so those of two families may change places.
            held.jumps.sort_by_key(|jump| jump.family);
            prop_assert_eq!(&held, &Held::of(&engine.snapshot()));
        }
        let last = by_last_word(&updates);
        let doubled: Vec<Update> = last.iter().chain(&last).cloned().collect();
        for order in [last.iter().rev().cloned().collect(), doubled, updates] {
            let mut other = Engine::new();
            other.apply(order);
            prop_assert_eq!(other.snapshot(), engine.snapshot());
        }
    }

    #[test]
    fn the_kernel_masquerades_what_the_pools_ask_for(updates in vec(update(), 0..8)) {
        let mut engine = Engine::new();
        engine.apply(updates);
        let held = Held::of(&engine.snapshot());
        for (source, destination) in pairs() {
            prop_assert_eq!(
                masquerades(&held, source, destination),
                should_masquerade(&engine, source, destination),
                "{} to {}: {:?}", source, destination, engine.snapshot()
            );
        }
    }

    #[test]
    fn no_step_of_a_change_masquerades_between_pools(before in vec(update(), 0..6), after in vec(update(), 1..4)) {
        let mut engine = Engine::new();
        engine.apply(before);
        let old = engine.clone();
        let mut held = Held::of(&engine.snapshot());
        for change in engine.apply(after) {
            carry_out(&mut held, &change);
            for (source, destination) in pairs() {
                let pooled = |engine: &Engine| engine.pools().values().any(|pool| pool.cidr.contains(destination));
                if pooled(&old) && pooled(&engine) {
                    prop_assert!(!masquerades(&held, source, destination), "{} to {}", source, destination);
                }
            }
        }
    }

    #[test]
    fn what_is_printed_is_read_back(updates in vec(update(), 0..8)) {
        let mut engine = Engine::new();
        let text = Transaction::of(engine.apply(updates));
        let mut held = Held { sets: Held::of(&engine.snapshot()).sets, ..Held::default() };
        for (family, rules) in &text.rules {
            held.read_rules(*family, &rules.replace("-I ", "-A ")).unwrap();
        }
        prop_assert_eq!(plan(&engine.snapshot(), &held), []);
    }

    #[test]
    fn whatever_programs_print_is_read_or_refused(
        words in vec(
            prop_oneof![
                Just("-A"), Just("*nat"), Just(":manx-a"), Just("manx-a"), Just("--comment"), Just("\"manx:1\""),
                Just("-j"), Just("POSTROUTING"), Just("\n"), Just("\\"), Just("\""),
            ],
            0..24,
        ),
        noise in ".{0,8}",
    ) {
        let text = (words.join(" ") + &noise).replace("\n ", "\n");
        let mut held = Held::default();
        // It may be refused; what it took in is ours, and can be taken away.
        drop(held.read_rules(Family::V4, &text));
        for change in plan(&Full::default(), &held) {
            carry_out(&mut held, &change);
        }
        prop_assert!(held.is_empty(), "{:?}", held);
    }

    #[test]
    fn a_plan_mends_whatever_was_done_to_the_kernels_state(
        wanted in vec(update(), 0..8),
        found in vec(update(), 0..8),
        damage in 0_u8..8,
    ) {
        let (mut engine, mut other) = (Engine::new(), Engine::new());
        engine.apply(wanted);
        other.apply(found);
        let mut held = Held::of(&other.snapshot());
        damaged(&mut held, damage);
        for change in plan(&engine.snapshot(), &held) {
            carry_out(&mut held, &change);
        }
        held.jumps.sort_by_key(|jump| jump.family);
        prop_assert_eq!(held, Held::of(&engine.snapshot()));
    }
}

/// What somebody may do by hand.
fn damaged(held: &mut Held, damage: u8) {
    match damage {
        0 => held.jumps.clear(),
        1 => held.jumps.extend(held.jumps.clone()),
        2 => {
            held.jumps.clear();
            held.chains.clear();
        }
        3 => held.chains.values_mut().for_each(Vec::clear),
        4 => held.chains.values_mut().for_each(|rules| rules.push(None)),
        5 => held
            .sets
            .values_mut()
            .flatten()
            .for_each(|set| set.members.clear()),
        6 => held.jumps.iter_mut().for_each(|jump| {
            (jump.hash, jump.words) = (None, "POSTROUTING -j manx-nat-out".to_owned());
        }),
        _ => {
            held.jumps.clear();
            held.chains.clear();
            held.sets.values_mut().for_each(|set| *set = None);
        }
    }
}

#[test]
fn a_pool_with_nat_is_one_rule_per_family_and_the_last_one_takes_it_along() {
    let mut engine = Engine::new();
    assert_eq!(engine.apply([set_pool("plain", "10.0.0.0/16", false)]), []);
    let text = Transaction::of(engine.apply([
        set_pool("hidden", "10.1.0.0/16", true),
        set_pool("hidden6", "fd00:1::/64", true),
    ]));
    insta::assert_snapshot!(shown(&text));
    let text =
        Transaction::of(engine.apply([remove_pool("hidden"), set_pool("hidden6", "fd00:1::/64", false)]));
    insta::assert_snapshot!(shown(&text));
    assert_eq!(engine.snapshot(), Full::default());
}

#[test]
fn pools_that_change_touch_sets_and_no_rule() {
    let mut engine = Engine::new();
    engine.apply([
        set_pool("a", "10.0.0.0/16", true),
        set_pool("b", "10.1.0.0/16", false),
    ]);
    let text = Transaction::of(engine.apply([
        set_pool("b", "10.1.0.0/16", true),
        set_pool("part", "10.0.4.0/24", false),
        set_pool("c", "10.2.0.0/16", false),
    ]));
    assert_eq!(
        lines(&text.before),
        "add mx4-all-pools 10.0.4.0/24\nadd mx4-all-pools 10.2.0.0/16\n\
         add mx4-nat-pools 10.0.4.0/24 nomatch\nadd mx4-nat-pools 10.1.0.0/16\n"
    );
    assert!(text.rules.is_empty() && text.after.is_empty());
    let text = Transaction::of(engine.apply([remove_pool("b")]));
    assert_eq!(
        lines(&text.after),
        "del mx4-nat-pools 10.1.0.0/16\ndel mx4-all-pools 10.1.0.0/16\n"
    );
    assert!(text.rules.is_empty() && text.before.is_empty());
}

#[test]
fn names_are_as_short_as_the_kernel_wants_them() {
    assert!(nat::CHAIN.len() <= 28);
    for family in Family::ALL {
        for set in [nat::ALL_POOLS, nat::NAT_POOLS] {
            assert!(family.set_name(set).len() <= 31);
        }
    }
}

#[test]
fn of_what_programs_print_only_ours_is_read() {
    let mut held = Held::default();
    let text = "# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sat Nov 21 09:18:14 2026\n\
        *filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment \"kubernetes -j manx-nat-out\" -j KUBE-FIREWALL\nCOMMIT\n\
        *nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-POSTROUTING - [0:0]\n:manx-nat-out - [0:0]\n\
        -A POSTROUTING -m comment --comment \"say \\\"-j manx-nat-out\\\"\" -j KUBE-POSTROUTING\n\
        -A POSTROUTING -s 192.0.2.0/24 -j manx-nat-out\n\
        -A POSTROUTING -m comment --comment \"manx:01\" -j manx-nat-out\n\
        -A manx-nat-out ! -d 224.0.0.0/4 -m comment --comment \"manx:23\" -j MASQUERADE --random-fully\n\
        -A manx-nat-out -j RETURN\nCOMMIT\n# Completed\n";
    held.read_rules(Family::V4, text).unwrap();
    let rules: Vec<_> = held.chains.values().cloned().collect();
    assert_eq!(rules, [[Some("23".to_owned()), None]]);
    let jumps: Vec<_> = held
        .jumps
        .iter()
        .map(|jump| (jump.hash.as_deref(), jump.words.as_str()))
        .collect();
    assert_eq!(
        jumps,
        [
            (None, "POSTROUTING -s 192.0.2.0/24 -j manx-nat-out"),
            (
                Some("01"),
                "POSTROUTING -m comment --comment \"manx:01\" -j manx-nat-out"
            ),
        ]
    );
    assert!(
        held.read_rules(Family::V4, "*nat\n-A POSTROUTING -m comment --comment \"open\n")
            .is_err()
    );
}

#[test]
fn members_of_every_kind_are_printed_as_ipset_takes_them() {
    let (v4, v6) = ("10.1.2.3".parse().unwrap(), "fd00::1".parse().unwrap());
    for (member, text) in [
        (Member::Net(net("10.1.0.0/16")), "10.1.0.0/16"),
        (Member::Net(net("fd00::/64")), "fd00::/64"),
        (
            Member::NetBehind(net("10.1.2.3/32"), "mx0123456789a".into()),
            "10.1.2.3/32,mx0123456789a",
        ),
        (Member::Port(v4, Protocol::TCP, 80), "10.1.2.3,tcp:80"),
        (Member::Port(v6, Protocol::UDPLITE, 53), "fd00::1,udplite:53"),
    ] {
        assert_eq!(member.to_string(), text);
    }
}

/// Changes of sets, a line each.
fn lines(changes: &[SetChange]) -> String {
    changes.iter().map(|change| format!("{change}\n")).collect()
}

/// The three texts under their headings.
fn shown(text: &Transaction) -> String {
    let mut shown = format!("# before\n{}", lines(&text.before));
    for (family, rules) in &text.rules {
        shown += &format!("# {family}\n{rules}");
    }
    shown + "# after\n" + &lines(&text.after)
}
