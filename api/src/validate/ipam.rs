//! What pools, reservations, blocks and the settings of IPAM must be.

use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

use super::{Problem, no_host_bits, unchanged};
use crate::ipam::{
    IpBlock, IpPool, IpPoolSpec, IpReservation, IpamConfiguration, PoolUse, SPLIT_INTO, block_cidr,
    block_name, covers, pool_of,
};
use crate::names;

/// The problems of `pool` among `others`: pools may not overlap. A pool of the same name is skipped, so
/// `others` may be all pools that there are.
#[must_use]
pub fn validate_among_pools<'a>(pool: &IpPool, others: impl IntoIterator<Item = &'a IpPool>) -> Vec<Problem> {
    others
        .into_iter()
        .filter(|other| other.metadata.name != pool.metadata.name)
        .filter(|other| overlap(pool.spec.cidr, other.spec.cidr))
        .filter(|other| !pool.is_part_of(other) && !other.is_part_of(pool))
        .map(|other| {
            let message = format!(
                "overlaps IPPool {} ({}): an address belongs to one pool",
                other.metadata.name, other.spec.cidr
            );
            Problem::new("spec.cidr", pool.spec.cidr, message)
        })
        .collect()
}

/// What forbids that `pool` is deleted, among all `pools` and `blocks`: nodes that own blocks of it announce
/// them, and peers import what is in a pool only. Blocks in parts that it was split into are these parts'.
#[must_use]
pub fn validate_delete<'a>(
    pool: &IpPool,
    pools: &[IpPool],
    blocks: impl IntoIterator<Item = &'a IpBlock>,
) -> Vec<Problem> {
    let name = &pool.metadata.name;
    let of_pool = |block: &&IpBlock| {
        let belongs = pool_of(block.spec.cidr, pools);
        belongs.is_some_and(|belongs| belongs.metadata.name == *name)
    };
    let owned = blocks.into_iter().filter(|block| block.spec.node.is_some());
    let (count, held) = owned
        .filter(of_pool)
        .fold((0_usize, 0_usize), |(count, held), block| {
            (
                count.saturating_add(1),
                held.saturating_add(block.spec.allocations.len()),
            )
        });
    if count == 0 {
        return Vec::new();
    }
    let message = format!(
        "is in use: nodes own {count} blocks of it, with {held} addresses held; set spec.disabled, and delete \
         it when they are given back"
    );
    vec![Problem::new("metadata.name", name, message)]
}

/// Whether two networks share an address.
fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    covers(a, b) || covers(b, a)
}

/// Prefix lengths that a block may have.
fn block_sizes(cidr: IpNetwork) -> RangeInclusive<u8> {
    match cidr {
        IpNetwork::V4(_) => 20..=32,
        IpNetwork::V6(_) => 116..=128,
    }
}

pub(super) fn ip_pool(pool: &IpPool, problems: &mut Vec<Problem>) {
    let spec = &pool.spec;
    no_host_bits("spec.cidr", spec.cidr, problems);
    let special = [
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
    ];
    for network in special.iter().filter_map(|text| text.parse().ok()) {
        if overlap(spec.cidr, network) {
            let message = format!("overlaps {network}, whose addresses no pod may have");
            problems.push(Problem::new("spec.cidr", spec.cidr, message));
        }
    }
    let (size, range) = (spec.block_size(), block_sizes(spec.cidr));
    let smallest = spec.cidr.prefix().max(*range.start());
    let is_cut = spec.allowed_use() == PoolUse::Workload;
    if is_cut && (!range.contains(&size) || size < spec.cidr.prefix()) {
        let message = format!(
            "is no block size for {}: choose {smallest} to {}",
            spec.cidr,
            range.end()
        );
        problems.push(Problem::new("spec.blockSize", size, message));
    }
    uses(spec, problems);
    if let Some(number) = pool.metadata.annotations.get(SPLIT_INTO)
        && pool.split_into().is_none()
    {
        let field = format!("metadata.annotations[{SPLIT_INTO}]");
        problems.push(Problem::new(field, number, "is no power of two above 1"));
    }
}

/// What a pool is for, and that nothing is said that has no meaning for that.
fn uses(spec: &IpPoolSpec, problems: &mut Vec<Problem>) {
    if let [_, second, ..] = spec.allowed_uses.as_slice() {
        let message =
            "stands beside another use: an address is a pod's or a service's, so make a pool for each";
        problems.push(Problem::new("spec.allowedUses", second, message));
    }
    if spec.allowed_use() != PoolUse::LoadBalancer {
        return;
    }
    for (field, selector) in [
        ("spec.nodeSelector", &spec.node_selector),
        ("spec.namespaceSelector", &spec.namespace_selector),
    ] {
        if !selector.is_all() {
            let message = "selects nothing in a pool for load balancers: leave it out; services name pools by the \
                           annotation manx.network/ipv4pools or ipv6pools";
            problems.push(Problem::new(field, selector, message));
        }
    }
}

pub(super) fn ip_reservation(reservation: &IpReservation, problems: &mut Vec<Problem>) {
    let cidrs = &reservation.spec.reserved_cidrs;
    if cidrs.is_empty() {
        problems.push(Problem::new(
            "spec.reservedCIDRs",
            "",
            "is empty: name the addresses that no pod shall get",
        ));
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        no_host_bits(&format!("spec.reservedCIDRs[{i}]"), *cidr, problems);
    }
}

/// Seconds that an address may rest.
const COOLDOWN: RangeInclusive<u32> = 0..=1200;

pub(super) fn ipam_configuration(configuration: &IpamConfiguration, problems: &mut Vec<Problem>) {
    let name = &configuration.metadata.name;
    if name != "default" {
        let message = "is not honoured: there is one IPAMConfiguration, named default";
        problems.push(Problem::new("metadata.name", name, message));
    }
    let seconds = configuration.spec.ip_cooldown_seconds;
    if !COOLDOWN.contains(&seconds) {
        let message = format!("is too long: choose {} to {}", COOLDOWN.start(), COOLDOWN.end());
        problems.push(Problem::new("spec.ipCooldownSeconds", seconds, message));
    }
}

pub(super) fn ip_block(block: &IpBlock, problems: &mut Vec<Problem>) {
    let spec = &block.spec;
    no_host_bits("spec.cidr", spec.cidr, problems);
    let (size, range) = (spec.cidr.prefix(), block_sizes(spec.cidr));
    if !range.contains(&size) {
        let message = format!("is no block: a block is a /{} to /{}", range.start(), range.end());
        problems.push(Problem::new("spec.cidr", spec.cidr, message));
    }
    let name = block_name(spec.cidr);
    if block.metadata.name != name {
        let message = format!("is not the name of block {}: that is {name}", spec.cidr);
        problems.push(Problem::new("metadata.name", &block.metadata.name, message));
    }
    names::subdomain("spec.pool", &spec.pool, problems);
    if let Some(node) = &spec.node {
        names::subdomain("spec.node", node, problems);
    }
    if let Some(lease) = &spec.lease {
        let lender = block_cidr(&lease.of);
        let part = lender.is_some_and(|lender| lender != spec.cidr && covers(lender, spec.cidr));
        if !part {
            let message = format!("is no block that {} could be part of", spec.cidr);
            problems.push(Problem::new("spec.lease.of", &lease.of, message));
        }
        if spec.node.is_none() {
            problems.push(Problem::new(
                "spec.node",
                "",
                "is missing: a lease has a borrower",
            ));
        }
    }
    for (i, release) in spec.releases.iter().enumerate() {
        if !spec.cidr.contains(release.address) {
            let message = format!("is not in {}", spec.cidr);
            problems.push(Problem::new(
                format!("spec.releases[{i}].address"),
                release.address,
                message,
            ));
        }
    }
    for (i, allocation) in spec.allocations.iter().enumerate() {
        let field = format!("spec.allocations[{i}].address");
        let address = allocation.address;
        if !spec.cidr.contains(address) {
            problems.push(Problem::new(&field, address, format!("is not in {}", spec.cidr)));
        }
        if spec.allocations[..i]
            .iter()
            .any(|earlier| earlier.address == address)
        {
            problems.push(Problem::new(
                &field,
                address,
                "is allocated twice: an address has one holder",
            ));
        }
    }
}

pub(super) fn block_update(old: &IpBlock, new: &IpBlock, problems: &mut Vec<Problem>) {
    let (old, new) = (&old.spec, &new.spec);
    unchanged("spec.cidr", &old.cidr, &new.cidr, problems);
    let claimed = new.node.is_some() && new.node != old.node;
    let least = old.generation.saturating_add(u64::from(claimed));
    if new.generation < least {
        let message =
            format!("is behind: it never falls and grows when a node claims the block; write {least}");
        problems.push(Problem::new("spec.generation", new.generation, message));
    }
}
