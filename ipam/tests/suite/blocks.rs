//! Cutting pools, and where nodes look first.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_ipam::{Blocks, Reserved, candidates};
use proptest::prelude::*;

use crate::{cases, net, pool};

#[test]
fn a_pool_has_the_blocks_that_fit() {
    let table: &[(&str, Option<u8>, u128, &str, &str)] = &[
        ("10.244.0.0/16", None, 1024, "10.244.0.0/26", "10.244.255.192/26"),
        ("10.0.0.0/24", Some(32), 256, "10.0.0.0/32", "10.0.0.255/32"),
        ("10.0.0.0/26", Some(26), 1, "10.0.0.0/26", "10.0.0.0/26"),
        ("0.0.0.0/0", Some(32), 1 << 32, "0.0.0.0/32", "255.255.255.255/32"),
        (
            "fd00::/64",
            None,
            1 << 58,
            "fd00::/122",
            "fd00::ffff:ffff:ffff:ffc0/122",
        ),
        (
            "::/1",
            Some(128),
            1 << 127,
            "::/128",
            "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        ),
    ];
    for &(cidr, size, count, first, last) in table {
        let blocks = Blocks::of(&pool("p", cidr, size));
        assert_eq!(blocks.count(), count, "{cidr}");
        assert_eq!(blocks.get(0), Some(net(first)), "{cidr}");
        assert_eq!(blocks.get(count - 1), Some(net(last)), "{cidr}");
        assert_eq!(blocks.get(count), None, "{cidr}");
    }
}

#[test]
fn a_block_larger_than_its_pool_does_not_exist() {
    let blocks = Blocks::of(&pool("p", "10.0.0.0/28", Some(26)));
    assert_eq!(blocks.count(), 0);
    assert_eq!(blocks.get(0), None);
    assert!(!blocks.contains(net("10.0.0.0/26")));
    assert_eq!(
        candidates(
            &pool("p", "10.0.0.0/28", Some(26)),
            &BTreeSet::new(),
            &Reserved::default(),
            "n"
        )
        .count(),
        0
    );
}

#[test]
fn the_whole_of_ipv6_in_single_addresses_is_counted_without_overflow() {
    let all = pool("p", "::/0", Some(128));
    assert_eq!(Blocks::of(&all).count(), u128::MAX);
    assert!(
        candidates(&all, &BTreeSet::new(), &Reserved::default(), "n")
            .next()
            .is_some()
    );
}

#[test]
fn what_is_not_cut_that_way_is_no_block() {
    let blocks = Blocks::of(&pool("p", "10.244.0.0/16", None));
    assert!(blocks.contains(net("10.244.3.64/26")));
    for other in [
        "10.244.3.64/27",
        "10.244.3.65/26",
        "10.245.0.0/26",
        "fd00::/26",
        "10.244.0.0/16",
    ] {
        assert!(!blocks.contains(net(other)), "{other}");
    }
}

#[test]
fn candidates_are_all_unclaimed_blocks_once_from_the_nodes_start_upwards() {
    let pool = pool("p", "10.0.0.0/24", Some(29));
    let every: Vec<_> = candidates(&pool, &BTreeSet::new(), &Reserved::default(), "node-7").collect();
    assert_eq!(every.len(), 32);
    assert_eq!(every.iter().collect::<BTreeSet<_>>().len(), 32);
    let wraps = every.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(wraps <= 1, "upwards, around the end once: {every:?}");

    let claimed: BTreeSet<IpNetwork> = every.iter().copied().step_by(3).collect();
    let rest: Vec<_> = candidates(&pool, &claimed, &Reserved::default(), "node-7").collect();
    assert_eq!(
        rest,
        every
            .into_iter()
            .filter(|block| !claimed.contains(block))
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_full_pool_has_no_candidate() {
    let pool = pool("p", "10.0.0.0/24", Some(26));
    let claimed: BTreeSet<_> = candidates(&pool, &BTreeSet::new(), &Reserved::default(), "a").collect();
    assert_eq!(
        candidates(&pool, &claimed, &Reserved::default(), "b").next(),
        None
    );
}

#[test]
fn reserved_blocks_are_jumped_over_however_many_there_are() {
    let all = pool("p", "fd00::/32", None);
    let most = Reserved::new([
        net("fd00::/33"),
        net("fd00:0:8000::/34"),
        net("fd00:0:c000::/122"),
    ]);
    let first = candidates(&all, &BTreeSet::new(), &most, "a").next().unwrap();
    assert!(net("fd00:0:c000::/34").contains(first.network()), "{first}");
    let small = pool("p", "10.0.0.0/28", Some(30));
    let reserved = Reserved::new(["10.0.0.4/30", "10.0.0.8/31", "10.0.0.12/31", "10.0.0.14/31"].map(net));
    let mut left: Vec<_> = candidates(&small, &BTreeSet::new(), &reserved, "a").collect();
    left.sort();
    assert_eq!(left, ["10.0.0.0/30", "10.0.0.8/30"].map(net));
}

#[test]
fn a_thousand_nodes_that_start_together_rarely_meet() {
    let pool = pool("p", "10.0.0.0/14", None);
    let none = BTreeSet::new();
    let first: BTreeSet<_> = (0..1000)
        .filter_map(|n| candidates(&pool, &none, &Reserved::default(), &format!("node-{n}")).next())
        .collect();
    // Thrown at random, 1,000 nodes hit 4096 · (1 − e^(−1000/4096)) ≈ 888 of the 4,096 blocks.
    assert!(first.len() > 850, "{} different first candidates", first.len());
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_block_is_a_block_of_its_pool_and_no_two_share_an_address(
        base: u128,
        v6: bool,
        prefix in 8u8..=24,
        extra in 0u8..=8,
        one: u128,
        other: u128,
    ) {
        let address = if v6 {
            std::net::Ipv6Addr::from_bits(base).into()
        } else {
            std::net::Ipv4Addr::from_bits(u32::try_from(base >> 96).unwrap()).into()
        };
        let cidr = IpNetwork::new(address, prefix).unwrap();
        let cidr = IpNetwork::new(cidr.network(), prefix).unwrap();
        let pool = pool("p", &cidr.to_string(), Some(prefix + extra));
        let blocks = Blocks::of(&pool);
        let (one, other) = (one % blocks.count(), other % blocks.count());
        let (a, b) = (blocks.get(one).unwrap(), blocks.get(other).unwrap());
        prop_assert!(blocks.contains(a) && cidr.contains(a.network()) && cidr.contains(a.broadcast()));
        prop_assert_eq!(one == other, a.contains(b.network()) || b.contains(a.network()));
        prop_assert_eq!(one.cmp(&other), a.cmp(&b));
    }
}
