//! The any-order law: what follows from a list of resources follows from what it says, not from how it is told. Each
//! function of blocks that takes a list is given it reversed, shuffled and doubled; each that folds one, in parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, IpBlock, LeaseState, Release};
use manx_ipam::journal::Record;
use manx_ipam::{
    Allocator, Live, Reserved, Rest, Settled, Surroundings, candidates, claim, duties, lease_request,
    parts_of, place, proposals, reconcile, release_block, renew, settle_releases,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::model::{Pair, events};
use crate::{NODE, allocation, block, cases, net, pool, request, wants};

/// Holds a function of a list to the law.
fn any_order<T: Clone, R: PartialEq + Debug>(
    list: &[T],
    seed: u64,
    of: impl Fn(&[T]) -> R,
) -> Result<(), TestCaseError> {
    let expected = of(list);
    let reversed: Vec<T> = list.iter().rev().cloned().collect();
    let mut shuffled: Vec<(u64, &T)> = (0_u32..)
        .zip(list)
        .map(|(place, item)| (seed.rotate_left(7 * place), item))
        .collect();
    shuffled.sort_by_key(|(key, _)| *key);
    let shuffled = shuffled.into_iter().map(|(_, item)| item.clone()).collect();
    for (how, told) in [
        ("reversed", reversed),
        ("shuffled", shuffled),
        ("doubled", [list, list].concat()),
    ] {
        prop_assert_eq!(&of(&told), &expected, "{}", how);
    }
    Ok(())
}

/// A list as the set that it stands for.
fn as_set<T: Debug>(list: &[T]) -> BTreeSet<String> {
    list.iter().map(|item| format!("{item:?}")).collect()
}

const BLOCK: &str = "10.0.0.0/27";

/// Blocks of one pool: whose they are, if anybody's, and how many of their addresses are held.
fn owned() -> impl Strategy<Value = Vec<IpBlock>> {
    let owner = prop::option::of(prop::sample::select(vec![NODE, "n2", "n3"]));
    let owners = prop::collection::btree_map(0..8u8, (owner, 0..32u8), 0..8);
    owners.prop_map(|owners| {
        let of = |(number, (owner, held)): (u8, (Option<&str>, u8))| {
            let first = number * 32;
            let mut block = block("p", "10.0.0.0/24", &format!("10.0.0.{first}/27"));
            block.spec.node = owner.map(str::to_owned);
            let held =
                (0..held).map(|offset| allocation(&format!("10.0.0.{}", first + offset), 1, offset.into()));
            block.spec.allocations = held.collect();
            block
        };
        owners.into_iter().map(of).collect()
    })
}

/// Leases of parts of [`BLOCK`], in any state, to this node and to others.
fn leases() -> impl Strategy<Value = Vec<IpBlock>> {
    let states = prop::sample::select(vec![
        LeaseState::Requested,
        LeaseState::Granted,
        LeaseState::Returned,
    ]);
    let borrowers = prop::sample::select(vec![NODE, "n2", "n3"]);
    let leases = prop::collection::btree_map(0..8u8, (states, borrowers), 0..8);
    leases.prop_map(|leases| {
        let of = |(number, (state, borrower)): (u8, (LeaseState, &str))| {
            let part = net(&format!("10.0.0.{}/30", number * 4));
            let mut lease = lease_request(&block("p", "10.0.0.0/24", BLOCK), part, borrower, 5);
            lease.spec.lease.as_mut().unwrap().state = state;
            lease
        };
        leases.into_iter().map(of).collect()
    })
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn an_address_is_where_it_is(blocks in owned(), address: u8, seed: u64) {
        let pools = [pool("p", "10.0.0.0/24", Some(27)), pool("other", "10.1.0.0/24", None)];
        let address = IpAddr::from([10, 0, 0, address]);
        any_order(&blocks, seed, |blocks| format!("{:?}", place(address, &pools, blocks)))?;
        any_order(&pools, seed, |pools| format!("{:?}", place(address, pools, &blocks)))?;
    }

    #[test]
    fn the_same_parts_are_proposed_and_lent(blocks in owned(), leases in leases(), lender: bool, seed: u64) {
        let mut allocator = Allocator::new();
        if lender {
            allocator.add_block(&block("p", "10.0.0.0/24", BLOCK)).map(drop).unwrap();
        }
        let around = Surroundings { node: NODE, strict: false, wanted: &BTreeSet::new(), closed: &BTreeSet::new(), rest: Rest::default() };
        any_order(&leases, seed, |leases| as_set(&duties(&allocator, leases, around)))?;
        any_order(&leases, seed, |leases| as_set(&parts_of(net(BLOCK), leases)))?;
        let cidrs = leases.iter().map(|lease| lease.spec.cidr).collect();
        let lenders: Vec<&IpBlock> = blocks.iter().collect();
        any_order(&lenders, seed, |lenders| as_set(&proposals(lenders, &cidrs, &Reserved::default(), NODE)))?;
    }

    #[test]
    fn the_same_is_kept_and_released(blocks in owned(), carried in any::<[u8; 8]>(), seed: u64) {
        let held: Vec<Allocation> = blocks.into_iter().flat_map(|block| block.spec.allocations).collect();
        let live = |(number, last): (usize, u8)| Live {
            interface: format!("container-{number}"),
            addresses: vec![IpAddr::from([10, 0, 0, last])],
        };
        let live: Vec<Live<String>> = carried.into_iter().enumerate().map(live).collect();
        let decide = |held: &[Allocation], live: &[Live<String>]| {
            reconcile(held.to_vec(), live.to_vec(), |owner| owner.container_id.clone())
        };
        any_order(&held, seed, |held| decide(held, &live))?;
        any_order(&live, seed, |live| decide(&held, live))?;
    }

    #[test]
    fn what_is_reserved_is_reserved(networks in prop::collection::vec((any::<u8>(), 24..=32u8), 0..8), seed: u64) {
        let network = |(last, prefix)| IpNetwork::new(IpAddr::from([10, 0, 0, last]), prefix).unwrap();
        let networks: Vec<IpNetwork> = networks.into_iter().map(network).collect();
        any_order(&networks, seed, |networks| Reserved::new(networks.iter().copied()))?;
    }

    #[test]
    fn what_operators_ask_may_be_settled_in_parts(answers in prop::collection::vec(0..4u8, 8), seed: u64) {
        let mut asked = block("p", "10.0.0.0/24", BLOCK);
        let mut settled = Vec::new();
        for (number, answer) in (1..).zip(answers) {
            let held = allocation(&format!("10.0.0.{number}"), number, 1);
            let release = Release { address: held.address, sequence: held.sequence };
            asked.spec.allocations.push(held);
            asked.spec.releases.extend((answer > 0).then_some(release));
            settled.extend(match answer {
                2 => Some((release, Settled::Gone)),
                3 => Some((release, Settled::Kept)),
                _ => None,
            });
        }
        let at_once = settle_releases(&asked, NODE, &settled.iter().copied().collect()).unwrap();
        let in_parts = |settled: &[(Release, Settled)]| {
            settled.iter().fold(asked.clone(), |block, answer| {
                settle_releases(&block, NODE, &BTreeMap::from([*answer])).unwrap()
            })
        };
        prop_assert_eq!(in_parts(&settled), at_once);
        any_order(&settled, seed, in_parts)?;
    }

    /// Group commits write records of several blocks in the order in which they happen to come.
    #[test]
    fn records_of_different_blocks_may_be_applied_in_any_order(events in events(80)) {
        let pair = Pair::run(&events);
        // Of each record, the parts that each block has; blocks one after the other then.
        let mut of_blocks: BTreeMap<IpNetwork, Vec<Record>> = BTreeMap::new();
        let mut blocks: BTreeSet<IpNetwork> = BTreeSet::new();
        for record in &pair.records {
            let around = |blocks: &BTreeSet<IpNetwork>, address| {
                *blocks.iter().find(|block| block.contains(address)).unwrap()
            };
            match record.clone() {
                Record::BlockAdded(block) => {
                    blocks.insert(block.cidr());
                    of_blocks.entry(block.cidr()).or_default().push(Record::BlockAdded(block));
                }
                Record::BlockRemoved { cidr } => of_blocks.entry(cidr).or_default().push(Record::BlockRemoved { cidr }),
                Record::Assigned(given) => for one in given {
                    let block = around(&blocks, one.address);
                    of_blocks.entry(block).or_default().push(Record::Assigned(vec![one]));
                },
                Record::Released(freed) => for one in freed {
                    let block = around(&blocks, one.address);
                    of_blocks.entry(block).or_default().push(Record::Released(vec![one]));
                },
                Record::BlockRenewed { .. } | Record::Lent { .. } | Record::TakenBack { .. } => {
                    unreachable!("nothing is lent here, or renewed")
                }
            }
        }
        for order in [of_blocks.values().collect::<Vec<_>>(), of_blocks.values().rev().collect()] {
            let mut allocator = Allocator::new();
            for record in order.into_iter().flatten() {
                allocator.apply(record).unwrap();
            }
            prop_assert_eq!(&allocator, &pair.allocator);
        }
    }

    #[test]
    fn candidates_are_the_blocks_that_can_be_had_each_once_and_upwards(
        claimed in prop::collection::btree_set(0..32u8, 0..32),
        reserved in prop::collection::vec((any::<u8>(), 24..=32u8), 0..6),
        node in "[a-z]{1,8}",
    ) {
        let pool = pool("p", "10.0.0.0/24", Some(29));
        let every = (0..32u8).map(|number| net(&format!("10.0.0.{}/29", number * 8)));
        let claimed: BTreeSet<IpNetwork> = claimed.into_iter().map(|number| net(&format!("10.0.0.{}/29", number * 8))).collect();
        let network = |(last, prefix)| IpNetwork::new(IpAddr::from([10, 0, 0, last]), prefix).unwrap();
        let reserved: Vec<IpNetwork> = reserved.into_iter().map(network).collect();
        let is_reserved = |address| reserved.iter().any(|network| network.contains(address));
        let wanted: BTreeSet<IpNetwork> = every
            .filter(|block| !claimed.contains(block) && !block.iter().all(is_reserved))
            .collect();
        let mut found: Vec<IpNetwork> = candidates(&pool, &claimed, &Reserved::new(reserved.iter().copied()), &node).collect();
        prop_assert!(found.windows(2).filter(|pair| pair[0] > pair[1]).count() <= 1, "{:?}", found);
        found.sort();
        prop_assert_eq!(found, wanted.into_iter().collect::<Vec<_>>());
    }

    /// Whatever becomes of a block, no number is given twice: a release of an old holder's frees nobody else's address.
    #[test]
    fn sequence_numbers_grow_over_all_owners_of_a_block(owners in prop::collection::vec((0..3usize, 0..12usize, any::<bool>()), 1..12)) {
        let pool = pool("p", "10.0.0.0/24", Some(29));
        let cidr = net("10.0.0.0/29");
        let mut stored: Option<IpBlock> = None;
        let mut last = 0;
        for (owner, pods, dies) in owners {
            let node = format!("n{owner}");
            let mine = match stored.take() {
                // It died with its disk, and begins anew.
                Some(block) if block.spec.node.is_some() => renew(&block, &block.spec.node.clone().unwrap()).unwrap(),
                other => claim(other.as_ref(), &pool, cidr, &node).unwrap(),
            };
            let mut allocator = Allocator::new();
            allocator.add_block(&mine).map(drop).unwrap();
            for pod in 0..pods {
                let pod = crate::attachment(pod);
                let wants = wants(&allocator, crate::allocator::V4, &["p"], true);
                for given in allocator.assign(&request(&pod, &wants)).map_or_else(|_| Vec::new(), |given| given.allocations) {
                    prop_assert!(given.sequence > last, "{} after {last}", given.sequence);
                    last = given.sequence;
                }
                drop(allocator.release(&pod.container_id, &pod.ifname, 1));
            }
            stored = Some(if dies { mine } else { release_block(&mine, &mine.spec.node.clone().unwrap()).unwrap() });
        }
    }
}
