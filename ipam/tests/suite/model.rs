//! The allocator, beside a model that only knows who holds what since when.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{Allocation, IpBlock};
use manx_ipam::journal::Record;
use manx_ipam::{Allocator, Family, Request, Reserved, Rest, Want};
use proptest::prelude::*;

use crate::allocator::{DUAL, V4, small, small_v6, with};
use crate::{attachment, block, cases, net, request, wants};

/// What can happen to an allocator; numbers are reduced to what there is.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Add(usize),
    Remove(usize),
    Assign {
        owner: usize,
        families: &'static [Family],
        pools: Vec<&'static str>,
        unrested: bool,
    },
    Reserve(usize),
    Hold {
        owner: usize,
        address: usize,
    },
    Release(usize),
    ReleaseAddress {
        held: usize,
        stale: bool,
    },
}

/// The blocks that come and go: two pools of IPv4, one of IPv6.
fn blocks() -> Vec<IpBlock> {
    vec![
        small(),
        block("blue", "10.0.0.0/24", "10.0.0.8/30"),
        block("red", "10.9.0.0/24", "10.9.0.4/31"),
        small_v6(),
        block("six", "fd00::/112", "fd00::1000/127"),
    ]
}

pub(crate) fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let families = prop::sample::select(vec![V4, &[Family::V6], DUAL]);
    let pools = prop::sample::subsequence(vec!["blue", "red", "six"], 1..=3);
    let event = prop_oneof![
        3 => (0..5usize).prop_map(Event::Add),
        1 => (0..5usize).prop_map(Event::Remove),
        8 => (0..12usize, families, pools, any::<bool>())
            .prop_map(|(owner, families, pools, unrested)| Event::Assign { owner, families, pools, unrested }),
        1 => (0..4usize).prop_map(Event::Reserve),
        1 => (0..12usize, 0..16usize).prop_map(|(owner, address)| Event::Hold { owner, address }),
        5 => (0..12usize).prop_map(Event::Release),
        1 => (0..8usize, any::<bool>()).prop_map(|(held, stale)| Event::ReleaseAddress { held, stale }),
    ];
    prop::collection::vec(event, 0..most)
}

/// What is reserved, now this and now that.
fn reservations(n: usize) -> Reserved {
    let networks = ["10.0.0.2/31", "10.9.0.4/31", "fd00::1000/128"];
    Reserved::new(networks.iter().take(n).map(|network| net(network)))
}

/// Seconds that addresses rest; each event is a second.
const REST: u64 = 6;

/// Who holds what, and what each block gave out last; nothing of how the allocator works.
#[derive(Default)]
struct Model {
    holders: BTreeMap<IpAddr, Allocation>,
    /// When an address was freed, and the how manieth it was.
    freed: BTreeMap<IpAddr, (u64, usize)>,
    releases: usize,
    sequences: BTreeMap<IpNetwork, u64>,
    reserved: Reserved,
    now: u64,
}

impl Model {
    fn rest(&self) -> Rest {
        Rest {
            now: self.now,
            seconds: REST,
        }
    }

    /// What whoever asks for any address of the block may get, the first freed first.
    fn free(&self, cidr: IpNetwork) -> Vec<IpAddr> {
        let mut free: Vec<_> = cidr
            .iter()
            .filter(|address| !self.holders.contains_key(address) && !self.reserved.contains(*address))
            .collect();
        free.sort_by_key(|address| (self.freed.get(address).map(|(_, n)| *n), *address));
        free
    }

    fn is_rested(&self, address: &IpAddr) -> bool {
        let freed = self.freed.get(address);
        freed.is_none_or(|(at, _)| at + REST <= self.now)
    }

    /// What should be given of these blocks: from the first with a rested address, or else the first freed.
    fn next(&self, blocks: &[IpNetwork], unrested: bool) -> Option<IpAddr> {
        let firsts = || blocks.iter().filter_map(|cidr| self.free(*cidr).first().copied());
        let rested = firsts().find(|address| self.is_rested(address));
        let oldest = || firsts().min_by_key(|address| self.freed.get(address).map(|(at, _)| *at));
        rested.or_else(|| oldest().filter(|_| unrested))
    }

    fn take(&mut self, cidr: IpNetwork, allocation: &Allocation) {
        let address = allocation.address;
        assert!(!self.holders.contains_key(&address), "{address} is held");
        let last = self
            .sequences
            .insert(cidr, allocation.sequence)
            .unwrap_or_default();
        assert!(allocation.sequence > last, "{} after {last}", allocation.sequence);
        self.holders.insert(address, allocation.clone());
    }

    fn give_back(&mut self, address: IpAddr) {
        self.releases += 1;
        self.freed.insert(address, (self.now, self.releases));
        self.holders.remove(&address);
    }

    fn held_by(&self, owner: usize) -> Vec<Allocation> {
        self.holders
            .values()
            .filter(|held| held.owner == attachment(owner))
            .cloned()
            .collect()
    }
}

/// An allocator beside its model, and every record it gave.
#[derive(Default)]
pub(crate) struct Pair {
    pub(crate) allocator: Allocator,
    pub(crate) records: Vec<Record>,
    model: Model,
    generations: BTreeMap<IpNetwork, u64>,
}

impl Pair {
    pub(crate) fn run(events: &[Event]) -> Self {
        let mut pair = Self::default();
        for event in events {
            pair.model.now += 1;
            let before = pair.allocator.clone();
            let records = pair.records.len();
            pair.step(event);
            if pair.records.len() == records {
                assert_eq!(pair.allocator, before, "no record, no change: {event:?}");
            }
            for block in pair.allocator.blocks() {
                let free = pair.model.free(block.cidr());
                let cooling = free.iter().filter(|address| !pair.model.is_rested(address));
                let counts = (block.free(), block.cooling(pair.model.rest()));
                assert_eq!(counts, (free.len(), cooling.count()));
                assert_eq!(block.free() + block.reserved() + block.held(), block.capacity());
            }
            let held: Vec<_> = pair.allocator.allocations().collect();
            assert_eq!(held, pair.model.holders.values().cloned().collect::<Vec<_>>());
            for owner in 0..12 {
                let id = attachment(owner);
                let held: Vec<_> = pair.allocator.held_by(&id.container_id, &id.ifname).collect();
                assert_eq!(held, pair.model.held_by(owner));
            }
        }
        pair
    }

    fn cidrs(&self) -> Vec<(IpNetwork, String)> {
        self.allocator
            .blocks()
            .map(|block| (block.cidr(), block.pool().to_owned()))
            .collect()
    }

    fn block_of(&self, address: IpAddr) -> IpNetwork {
        self.cidrs()
            .into_iter()
            .find(|(cidr, _)| cidr.contains(address))
            .unwrap()
            .0
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Add(n) => self.add(*n),
            Event::Remove(n) => self.remove(*n),
            Event::Assign {
                owner,
                families,
                pools,
                unrested,
            } => self.assign(*owner, families, pools, *unrested),
            Event::Reserve(n) => {
                self.model.reserved = reservations(*n);
                self.allocator.reserve(reservations(*n));
            }
            Event::Hold { owner, address } => self.hold(*owner, *address),
            Event::Release(owner) => self.release(*owner),
            Event::ReleaseAddress { held, stale } => self.release_address(*held, *stale),
        }
    }

    fn add(&mut self, n: usize) {
        let mut resource = blocks().remove(n);
        let cidr = resource.spec.cidr;
        if self.allocator.block(cidr).is_some() {
            assert!(self.allocator.add_block(&resource).is_err());
            return;
        }
        // What happened to the block in other hands since.
        let generation = self.generations.entry(cidr).or_default();
        *generation += 1;
        resource.spec.generation = *generation;
        self.model.freed.retain(|address, _| !cidr.contains(*address));
        self.records.push(self.allocator.add_block(&resource).unwrap());
    }

    fn remove(&mut self, n: usize) {
        let cidr = blocks().remove(n).spec.cidr;
        let used = self.model.holders.keys().any(|address| cidr.contains(*address));
        let known = self.allocator.block(cidr).is_some();
        match self.allocator.remove_block(cidr) {
            Ok(record) => {
                assert!(known && !used);
                self.records.push(record);
            }
            Err(_) => assert!(used || !known),
        }
    }

    fn assign(&mut self, owner: usize, families: &[Family], pools: &[&str], unrested: bool) {
        let held = self.model.held_by(owner);
        let wants = wants(&self.allocator, families, pools, unrested);
        let expected: Option<Vec<IpAddr>> = wants
            .iter()
            .map(|want| {
                let held = held.iter().find(|held| Family::of(held.address) == want.family());
                let Want::Any { blocks, .. } = want else {
                    panic!("{want:?}")
                };
                held.map(|held| held.address)
                    .or_else(|| self.model.next(blocks, unrested))
            })
            .collect();
        let owner = attachment(owner);
        let request = Request {
            rest: self.model.rest(),
            ..request(&owner, &wants)
        };
        let assignment = self.allocator.assign(&request).ok();
        let allocations = assignment.as_ref().map(|assignment| &assignment.allocations);
        let given = allocations.map(|given| given.iter().map(|a| a.address).collect::<Vec<_>>());
        assert_eq!(given, expected);
        for allocation in allocations
            .into_iter()
            .flatten()
            .filter(|given| !held.contains(given))
        {
            self.model.take(self.block_of(allocation.address), allocation);
        }
        self.records
            .extend(assignment.and_then(|assignment| assignment.record));
    }

    fn hold(&mut self, owner: usize, n: usize) {
        let known: Vec<IpAddr> = self.cidrs().iter().flat_map(|(cidr, _)| cidr.iter()).collect();
        let Some(&address) = known.get(n) else { return };
        let holder = self.model.holders.get(&address).map(|held| held.owner.clone());
        match self.allocator.hold(&attachment(owner), address) {
            Ok(assignment) if assignment.record.is_some() => {
                self.model
                    .take(self.block_of(address), &assignment.allocations[0]);
                self.records.extend(assignment.record);
            }
            Ok(_) => assert_eq!(holder, Some(attachment(owner))),
            Err(_) => assert!(holder.is_some_and(|holder| holder != attachment(owner))),
        }
    }

    fn release(&mut self, owner: usize) {
        let held = self.model.held_by(owner);
        let id = attachment(owner);
        let Some(release) = self
            .allocator
            .release(&id.container_id, &id.ifname, self.model.now)
        else {
            assert!(held.is_empty());
            return;
        };
        assert_eq!(release.allocations, held);
        self.records.push(release.record);
        held.iter().for_each(|held| self.model.give_back(held.address));
    }

    fn release_address(&mut self, n: usize, stale: bool) {
        let Some(held) = self.model.holders.values().nth(n).cloned() else {
            return;
        };
        let sequence = if stale { held.sequence - 1 } else { held.sequence };
        let release = self
            .allocator
            .release_address(held.address, sequence, self.model.now);
        assert_eq!(release.is_none(), stale);
        if let Some(release) = release {
            self.records.push(release.record);
            self.model.give_back(held.address);
        }
    }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn no_address_is_held_twice_and_the_oldest_free_one_is_next(events in events(120)) {
        Pair::run(&events);
    }

    #[test]
    fn the_records_folded_are_the_allocator(events in events(120)) {
        let pair = Pair::run(&events);
        let mut folded = Allocator::new();
        for record in &pair.records {
            folded.apply(record).unwrap();
        }
        prop_assert_eq!(folded, pair.allocator);
    }

    #[test]
    fn blocks_may_come_in_any_order(order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle()) {
        let shuffled: Vec<_> = order.iter().map(|n| blocks().remove(*n)).collect();
        prop_assert_eq!(with(&shuffled), with(&blocks()));
    }
}
