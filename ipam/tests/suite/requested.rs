//! Addresses that pods ask for: Calico's cases of `AssignIP`, as far as they are decided here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_api::ipam::{IpBlock, IpPool};
use manx_ipam::{Place, place, requested};

use crate::{allocation, block, pool};

fn pools() -> Vec<IpPool> {
    let mut off = pool("off", "10.9.0.0/16", None);
    off.spec.disabled = true;
    vec![
        pool("p", "10.0.0.0/16", None),
        off,
        pool("six", "fd00::/64", None),
    ]
}

/// Another node's block, of which one address is held, and one that was given back.
fn blocks() -> Vec<IpBlock> {
    let mut owned = block("p", "10.0.0.0/16", "10.0.0.64/26");
    owned.spec.allocations = vec![allocation("10.0.0.65", 1, 7)];
    let mut disabled = block("off", "10.9.0.0/16", "10.9.0.0/26");
    disabled.spec.allocations = vec![allocation("10.9.0.1", 1, 8)];
    let mut free = block("p", "10.0.0.0/16", "10.0.0.128/26");
    free.spec.node = None;
    vec![owned, free, disabled]
}

fn find(address: &str) -> Result<String, String> {
    let (pools, blocks) = (pools(), blocks());
    let address = address.parse().map_err(|_| "no address".to_owned())?;
    let place = place(address, &pools, &blocks);
    place.map_err(|error| error.to_string()).map(|place| match place {
        Place::Free { pool, block } => format!("claim {block} of {}", pool.metadata.name),
        Place::Elsewhere { block } => format!("in {}", block.spec.cidr),
    })
}

#[test]
fn an_address_is_in_a_free_block_or_another_nodes_or_cannot_be_had() {
    for (address, expected) in [
        ("10.0.0.1", Ok("claim 10.0.0.0/26 of p")),
        ("10.0.0.191", Ok("claim 10.0.0.128/26 of p")),
        ("10.0.255.255", Ok("claim 10.0.255.192/26 of p")),
        ("fd00::41", Ok("claim fd00::40/122 of six")),
        ("10.0.0.64", Ok("in 10.0.0.64/26")),
        (
            "10.0.0.65",
            Err("10.0.0.65 is held by pod default/pod-7 on node node-1"),
        ),
        (
            "10.9.0.1",
            Err("10.9.0.1 is held by pod default/pod-8 on node node-1"),
        ),
        (
            "10.9.0.2",
            Err("10.9.0.2 is in IPPool off, which is disabled: enable the pool, or ask for another address"),
        ),
        (
            "10.1.0.0",
            Err(
                "10.1.0.0 is in no IPPool: ask for an address of [10.0.0.0/16, 10.9.0.0/16], or create a pool that has it",
            ),
        ),
        (
            "fd01::1",
            Err("fd01::1 is in no IPPool: ask for an address of [fd00::/64], or create a pool that has it"),
        ),
    ] {
        let found = find(address);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{address}");
    }
}

#[test]
fn a_part_that_is_lent_is_its_borrowers_whatever_is_around_it() {
    let mut part = block("p", "10.0.0.0/16", "10.0.0.80/28");
    part.spec.node = Some("borrower".to_owned());
    let (pools, mut blocks) = (pools(), blocks());
    blocks.push(part.clone());
    let address = "10.0.0.81".parse().unwrap();
    assert_eq!(
        place(address, &pools, &blocks),
        Ok(Place::Elsewhere { block: &part })
    );
}

#[test]
fn the_annotation_counts_before_the_runtime_and_ours_before_calicos() {
    let runtime: Vec<IpAddr> = vec!["10.0.0.9".parse().unwrap()];
    let ask = |pairs: &[(&str, &str)]| {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let annotations: BTreeMap<_, _> = pairs.iter().map(own).collect();
        let asked = requested(&annotations, &runtime).map_err(|error| error.to_string())?;
        Ok::<_, String>(asked.iter().map(IpAddr::to_string).collect::<Vec<_>>())
    };
    let (ours, theirs) = ("manx.network/ipAddrs", "cni.projectcalico.org/ipAddrs");
    for (pairs, expected) in [
        (&[][..], Ok(&["10.0.0.9"][..])),
        (&[(ours, r#"["10.0.0.1"]"#)], Ok(&["10.0.0.1"])),
        (
            &[(theirs, r#"["fd00::1", "10.0.0.1"]"#)],
            Ok(&["fd00::1", "10.0.0.1"]),
        ),
        (
            &[(theirs, r#"["10.0.0.2"]"#), (ours, r#"["10.0.0.1"]"#)],
            Ok(&["10.0.0.1"]),
        ),
        (
            &[(ours, "10.0.0.1")],
            Err(
                "the pod's annotation manx.network/ipAddrs is '10.0.0.1', which is no JSON list of strings: write [\"10.244.7.1\"]",
            ),
        ),
        (
            &[(ours, r#"["10.0.0.1/32"]"#)],
            Err(
                "the pod's annotation manx.network/ipAddrs names '10.0.0.1/32', which is no address: write it without a prefix length",
            ),
        ),
        (
            &[(ours, r#"["10.0.0.1", "10.0.0.2"]"#)],
            Err(
                "the pod's annotation manx.network/ipAddrs names two IPv4 addresses, 10.0.0.1 and 10.0.0.2: a pod has one of a family",
            ),
        ),
    ] {
        let expected: Result<Vec<String>, String> = expected
            .map(|list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect())
            .map_err(str::to_owned);
        assert_eq!(ask(pairs), expected);
    }
}
