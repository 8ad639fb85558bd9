//! NAT outgoing: what pods of some pools send to the world outside all pools carries their node's address.
//!
//! One chain per family, one rule: the source is in a pool with NAT outgoing, the destination in no pool at all,
//! so the packet is masqueraded. Pools are told by the most specific one that contains an address, so that a
//! part of a pool may be a pool of its own with another wish.
//!
//! What is left alone, and why:
//! - *Pods to pods*, and to whatever else a pool contains: a disabled pool with the nodes' own network in it keeps
//!   nodes seeing pods' true addresses.
//! - *Multicast*: a group's members are to see who speaks, and nobody answers to a group's packet by conntrack.
//! - *Answers and later packets*: the nat table sees only the first packet of a connection, so that established
//!   ones need no rule, and keep what they began with whatever changes here.
//! - *Link-local destinations* need no rule: what is on the pod's own link is not routed. But 169.254.169.254 is,
//!   where a cloud answers metadata there, and only a masqueraded packet gets an answer.
//! - *To the pod's own node*: such packets do not pass POSTROUTING.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use manx_api::policy::{Family, Not};

use crate::input::Pool;
use crate::nets::{canonical, contains, members, v4, v6};
use crate::ruleset::{ChainId, End, Full, Hook, Match, Rule, Sense, Set, SetKind, Table, Target};

/// The chain.
pub const CHAIN: &str = "manx-nat-out";

/// The set of all pools: where NAT is not for. Sets gain members in the order of their names, and lose them in
/// the opposite one: this one comes before [`NAT_POOLS`], so that no pool is ever masqueraded towards itself.
pub const ALL_POOLS: &str = "all-pools";

/// The set of the pools with NAT outgoing.
pub const NAT_POOLS: &str = "nat-pools";

/// The rules and sets of NAT outgoing; none in a family where no pool has it.
#[must_use]
pub fn rules<'a>(pools: impl IntoIterator<Item = &'a Pool>) -> Full {
    let mut wishes: BTreeMap<Family, BTreeMap<IpNetwork, bool>> = BTreeMap::new();
    for pool in pools {
        let nets = wishes.entry(Family::of(pool.cidr)).or_default();
        // Pools do not overlap; should two be the same for a moment, a pod that is reached beats one that is not.
        *nets.entry(canonical(pool.cidr)).or_default() |= pool.nat_outgoing;
    }
    let mut full = Full::default();
    for (family, nets) in wishes {
        if nets.values().any(|nat| *nat) {
            add(&mut full, family, &nets);
        }
    }
    full
}

fn add(full: &mut Full, family: Family, nets: &BTreeMap<IpNetwork, bool>) {
    let all = nets.keys().map(|net| (*net, Sense::Match));
    let inside_nat = |net: &IpNetwork| nets.iter().any(|(other, nat)| *nat && contains(*other, *net));
    let hidden = nets.iter().filter_map(|(net, nat)| match nat {
        true => Some((*net, Sense::Match)),
        false => inside_nat(net).then_some((*net, Sense::Except)),
    });
    let (all_pools, nat_pools) = (family.set_name(ALL_POOLS), family.set_name(NAT_POOLS));
    full.sets.insert(all_pools.clone(), set(family, all));
    full.sets.insert(nat_pools.clone(), set(family, hidden));
    let chain = ChainId {
        family,
        table: Table::Nat,
        name: CHAIN.to_owned(),
    };
    let rule = Rule {
        matches: vec![
            Match::In(End::Source, SetKind::Nets, Not::Is(nat_pools)),
            Match::In(End::Destination, SetKind::Nets, Not::Not(all_pools)),
            Match::Address(End::Destination, Not::Not(multicast(family))),
        ],
        target: Target::Masquerade,
    };
    full.hooks.insert(Hook {
        chain: chain.clone(),
        base: "POSTROUTING",
    });
    full.chains.insert(chain, vec![rule]);
}

/// A set of these.
fn set(family: Family, nets: impl Iterator<Item = (IpNetwork, Sense)>) -> Set {
    Set {
        family,
        kind: SetKind::Nets,
        members: members(family, nets),
    }
}

/// A family's multicast groups (RFC 5771, RFC 4291 §2.7).
const fn multicast(family: Family) -> IpNetwork {
    const V4: IpNetwork = v4([224, 0, 0, 0], 4);
    const V6: IpNetwork = v6(0xff00, 8);
    match family {
        Family::V4 => V4,
        Family::V6 => V6,
    }
}
