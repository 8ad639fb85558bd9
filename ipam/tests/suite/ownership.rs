//! One block, one owner: the functions one by one, and nodes racing over a compare-and-swap store.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpBlock, IpPool, Release};
use manx_ipam::{CheckpointError, ClaimError, Reserved, candidates, checkpoint, claim, release_block, renew};
use proptest::prelude::*;

use crate::{allocation, block, cases, net, pool};

#[test]
fn claiming_makes_a_block_that_is_named_and_owned() {
    let block = claim(
        None,
        &pool("blue", "10.244.0.0/16", None),
        net("10.244.0.64/26"),
        "n1",
    )
    .unwrap();
    assert_eq!(block.metadata.name, "10-244-0-64-26");
    assert_eq!(block.spec.pool, "blue");
    assert_eq!(block.spec.node.as_deref(), Some("n1"));
    assert_eq!(block.spec.generation, 1);
}

#[test]
fn a_free_block_changes_hands_with_a_higher_generation() {
    let pool = pool("p", "10.0.0.0/24", None);
    let cidr = net("10.0.0.0/26");
    let mine = claim(None, &pool, cidr, "n1").unwrap();
    let free = release_block(&mine, "n1").unwrap();
    assert_eq!((free.spec.node.as_deref(), free.spec.generation), (None, 2));
    let theirs = claim(Some(&free), &pool, cidr, "n2").unwrap();
    assert_eq!(
        (theirs.spec.node.as_deref(), theirs.spec.generation),
        (Some("n2"), 3)
    );
}

#[test]
fn a_block_of_ones_own_is_claimed_without_a_change() {
    let pool = pool("p", "10.0.0.0/24", None);
    let mine = claim(None, &pool, net("10.0.0.0/26"), "n1").unwrap();
    assert_eq!(claim(Some(&mine), &pool, net("10.0.0.0/26"), "n1").unwrap(), mine);
}

#[test]
fn what_cannot_be_claimed_is_refused_with_the_reason() {
    let good = pool("p", "10.0.0.0/24", None);
    let mut disabled = good.clone();
    disabled.spec.disabled = true;
    let cidr = net("10.0.0.0/26");
    let theirs = claim(None, &good, cidr, "n2").unwrap();
    let other = claim(None, &good, net("10.0.0.64/26"), "n1").unwrap();

    let refusal = |existing, pool, cidr| claim(existing, pool, cidr, "n1").unwrap_err();
    assert_eq!(
        refusal(Some(&theirs), &good, cidr),
        ClaimError::Owned {
            cidr,
            owner: "n2".to_owned()
        }
    );
    assert_eq!(
        refusal(None, &disabled, cidr),
        ClaimError::Disabled { pool: "p".to_owned() }
    );
    assert_eq!(
        refusal(Some(&other), &good, cidr),
        ClaimError::OtherBlock {
            cidr,
            found: net("10.0.0.64/26")
        }
    );
    assert_eq!(
        refusal(None, &good, net("10.0.1.0/26")).to_string(),
        "10.0.1.0/26 is not a block of pool p (10.0.0.0/24 in blocks of /26)"
    );
}

#[test]
fn only_the_owner_gives_a_block_back_or_renews_it() {
    let mine = block("p", "10.0.0.0/24", "10.0.0.0/26");
    assert_eq!(
        release_block(&mine, "n9").unwrap_err().to_string(),
        "block 10.0.0.0/26 is not node n9's: node node-1 owns it"
    );
    let renewed = renew(&mine, crate::NODE).unwrap();
    assert_eq!(renewed.spec.generation, mine.spec.generation + 1);
    assert!(renew(&mine, "n9").is_err());
    let (address, sequence) = ("10.0.0.1".parse().unwrap(), 1);
    let mut asked = mine.clone();
    asked.spec.releases.push(Release { address, sequence });
    let given_up = release_block(&asked, crate::NODE).unwrap();
    assert!(given_up.spec.releases.is_empty(), "all of it is free");
    let taken_back = renew(&given_up, crate::NODE).unwrap();
    assert_eq!(taken_back.spec.node.as_deref(), Some(crate::NODE));
    assert_eq!(taken_back.spec.generation, mine.spec.generation + 2);
    let free = release_block(&mine, crate::NODE).unwrap();
    assert_eq!(
        release_block(&free, crate::NODE).unwrap_err().to_string(),
        "block 10.0.0.0/26 is not node node-1's: nobody owns it"
    );
}

#[test]
fn a_free_block_has_no_allocations_and_a_new_owner_inherits_none() {
    let mut mine = block("p", "10.0.0.0/24", "10.0.0.0/26");
    let left = vec![allocation("10.0.0.1", 1, 1)];
    mine.spec.allocations.clone_from(&left);
    let mut free = release_block(&mine, crate::NODE).unwrap();
    assert_eq!(free.spec.allocations, []);
    free.spec.allocations.clone_from(&left);
    let theirs = claim(Some(&free), &pool("p", "10.0.0.0/24", None), mine.spec.cidr, "n2").unwrap();
    assert_eq!(theirs.spec.allocations, []);
    assert_eq!(
        renew(&mine, crate::NODE).unwrap().spec.allocations,
        left,
        "one's own are kept"
    );
}

#[test]
fn a_checkpoint_of_an_earlier_ownership_is_refused() {
    let mine = block("p", "10.0.0.0/24", "10.0.0.0/26");
    let again = renew(&mine, crate::NODE).unwrap();
    assert_eq!(
        checkpoint(&again, crate::NODE, mine.spec.generation, []).unwrap_err(),
        CheckpointError::Generation {
            cidr: mine.spec.cidr,
            current: 2,
            given: 1
        }
    );
    assert!(matches!(
        checkpoint(&mine, "n9", 1, []),
        Err(CheckpointError::NotOwner(_))
    ));
}

#[test]
fn a_checkpoint_lists_the_blocks_own_addresses_once() {
    let mine = block("p", "10.0.0.0/24", "10.0.0.0/26");
    let write = |allocations: Vec<_>| checkpoint(&mine, crate::NODE, 1, allocations);
    let outside = write(vec![allocation("10.0.0.64", 1, 1)]).unwrap_err();
    assert_eq!(outside.to_string(), "10.0.0.64 is not in block 10.0.0.0/26");
    let twice = write(vec![allocation("10.0.0.1", 1, 1), allocation("10.0.0.1", 2, 2)]).unwrap_err();
    assert_eq!(twice.to_string(), "10.0.0.1 is allocated twice");
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_checkpoint_does_not_depend_on_the_order_of_its_allocations(
        order in Just((0..20u8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mine = block("p", "10.0.0.0/24", "10.0.0.0/26");
        let write = |order: &[u8]| {
            let allocations = order.iter().map(|n| allocation(&format!("10.0.0.{n}"), u64::from(*n), 1));
            checkpoint(&mine, crate::NODE, 1, allocations).unwrap()
        };
        let sorted: Vec<u8> = (0..20).collect();
        prop_assert_eq!(write(&order), write(&sorted));
    }

    #[test]
    fn claims_and_releases_of_different_blocks_commute(
        order in Just((0..8u8).collect::<Vec<_>>()).prop_shuffle(),
        released in prop::collection::btree_set(0..8u8, 0..8),
    ) {
        let pool = pool("p", "10.0.0.0/24", Some(29));
        let run = |order: &[u8]| {
            let mut store = BTreeMap::new();
            for n in order {
                let cidr = net(&format!("10.0.0.{}/29", n * 8));
                let node = format!("n{}", n % 3);
                let claimed = claim(None, &pool, cidr, &node).unwrap();
                let last = if released.contains(n) { release_block(&claimed, &node).unwrap() } else { claimed };
                store.insert(last.metadata.name.clone(), last);
            }
            store
        };
        let sorted: Vec<u8> = (0..8).collect();
        prop_assert_eq!(run(&order), run(&sorted));
    }
}

/// A store that takes a write only from who has read the last one.
#[derive(Default)]
struct Store {
    blocks: BTreeMap<IpNetwork, (u64, IpBlock)>,
    writes: u64,
}

impl Store {
    fn read(&self, cidr: IpNetwork) -> Option<(u64, IpBlock)> {
        self.blocks.get(&cidr).cloned()
    }

    fn write(&mut self, read: Option<u64>, block: IpBlock) -> bool {
        let current = self.blocks.get(&block.spec.cidr).map(|(revision, _)| *revision);
        if current != read {
            return false;
        }
        self.writes += 1;
        self.blocks.insert(block.spec.cidr, (self.writes, block));
        true
    }
}

/// What a node is about to do with what it has read.
enum Plan {
    Claim(IpNetwork, Option<(u64, IpBlock)>),
    Release(IpNetwork, Option<(u64, IpBlock)>),
}

struct Racer {
    name: String,
    owned: BTreeSet<IpNetwork>,
    plan: Option<Plan>,
}

impl Racer {
    /// One step: read, or write what follows from the last read. Between the two others take theirs.
    fn step(&mut self, pool: &IpPool, store: &mut Store, release: bool) {
        match self.plan.take() {
            None if release && !self.owned.is_empty() => {
                let cidr = *self.owned.first().unwrap();
                self.plan = Some(Plan::Release(cidr, store.read(cidr)));
            }
            None => {
                // A stale view: a node knows only its own blocks, and meets the others' at the store.
                let next = candidates(pool, &self.owned, &Reserved::default(), &self.name).find(|cidr| {
                    store
                        .read(*cidr)
                        .is_none_or(|(_, block)| block.spec.node.is_none())
                });
                self.plan = next.map(|cidr| Plan::Claim(cidr, store.read(cidr)));
            }
            Some(Plan::Claim(cidr, read)) => {
                let existing = read.as_ref().map(|(_, block)| block);
                let block = claim(existing, pool, cidr, &self.name).unwrap();
                if store.write(read.map(|(revision, _)| revision), block) {
                    self.owned.insert(cidr);
                }
            }
            Some(Plan::Release(cidr, read)) => {
                let (revision, block) = read.unwrap();
                assert!(store.write(Some(revision), release_block(&block, &self.name).unwrap()));
                self.owned.remove(&cidr);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn racing_nodes_never_own_one_block(
        schedule in prop::collection::vec((0..3usize, prop::bool::weighted(0.3)), 1..120),
    ) {
        let pool = pool("p", "10.0.0.0/28", Some(30));
        let mut store = Store::default();
        let racer = |n| Racer { name: format!("node-{n}"), owned: BTreeSet::new(), plan: None };
        let mut racers: Vec<_> = (0..3).map(racer).collect();
        let mut generations: BTreeMap<IpNetwork, (u64, Option<String>)> = BTreeMap::new();
        for (who, release) in schedule {
            racers[who].step(&pool, &mut store, release);
            for (cidr, (_, block)) in &store.blocks {
                let now = (block.spec.generation, block.spec.node.clone());
                let before = generations.insert(*cidr, now.clone()).unwrap_or_default();
                prop_assert!(before == now || before.0 < now.0, "{before:?} -> {now:?}");
                let believers: Vec<_> = racers.iter().filter(|r| r.owned.contains(cidr)).collect();
                prop_assert!(believers.len() <= 1);
                prop_assert_eq!(believers.first().map(|r| &r.name), block.spec.node.as_ref());
            }
        }
    }
}
