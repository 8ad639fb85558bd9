//! Leases: what lenders and borrowers do, whoever dies when, and in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpBlock, LeaseState};
use manx_ipam::journal::Record;
use manx_ipam::{
    Allocator, Duty, HoldError, Reserved, Rest, Surroundings, claim, duties, lease_request, parts_of,
    proposals, release_block,
};
use proptest::prelude::*;

use crate::{allocation, attachment, block, cases, net, pool};

fn lent(part: &str) -> Allocator {
    let mut allocator = Allocator::new();
    let whole = block("p", "10.0.0.0/24", "10.0.0.0/28");
    allocator.add_block(&whole).map(drop).unwrap();
    allocator.lend(net(part), "n2", 7).map(drop).unwrap();
    allocator
}

#[test]
fn what_is_lent_is_given_to_nobody_and_comes_back_rested_last() {
    let mut allocator = lent("10.0.0.0/30");
    let state = |allocator: &Allocator| {
        let block = allocator.blocks().next().unwrap();
        (block.free(), block.lent(), block.held(), block.capacity())
    };
    assert_eq!(state(&allocator), (12, 4, 0, 16));
    let address: IpAddr = "10.0.0.3".parse().unwrap();
    let refused = allocator.hold(&attachment(1), address);
    assert_eq!(refused, Err(HoldError::Outside { address }));
    let whole = net("10.0.0.0/28");
    assert_eq!(
        allocator.remove_block(whole).unwrap_err().to_string(),
        "block 10.0.0.0/28 is in use: 4 addresses are held or lent"
    );
    for part in [
        "10.0.0.0/30",
        "10.0.0.2/31",
        "10.0.0.0/29",
        "10.0.0.0/28",
        "10.0.1.0/30",
    ] {
        assert!(allocator.lend(net(part), "n3", 9).is_err(), "{part}");
    }
    assert!(allocator.take_back(net("10.0.0.4/30"), 7, 100).is_err());
    allocator.take_back(net("10.0.0.0/30"), 7, 100).map(drop).unwrap();
    assert_eq!(state(&allocator), (16, 0, 0, 16));
    let rest = Rest {
        now: 130,
        seconds: 60,
    };
    assert_eq!(allocator.blocks().next().unwrap().cooling(rest), 4);
}

#[test]
fn no_part_has_a_generation_twice_whatever_the_clocks_of_borrowers_say() {
    let mut allocator = lent("10.0.0.0/30");
    let generation = |record: Record| {
        let Record::Lent { generation, .. } = record else {
            panic!("{record:?}")
        };
        generation
    };
    allocator.take_back(net("10.0.0.0/30"), 9, 1).map(drop).unwrap();
    let slow_clock = allocator.lend(net("10.0.0.0/30"), "n3", 3).map(generation);
    assert_eq!(slow_clock, Ok(10));
    let other = allocator.lend(net("10.0.0.8/32"), "n3", 50).map(generation);
    assert_eq!(other, Ok(50));
}

#[test]
fn parts_are_proposed_largest_first_of_the_emptiest_block_without_what_is_held_lent_or_reserved() {
    let mut full = block("p", "10.0.0.0/24", "10.0.0.0/27");
    full.spec.allocations = vec![allocation("10.0.0.1", 1, 1), allocation("10.0.0.17", 2, 2)];
    let mut half = block("p", "10.0.0.0/24", "10.0.0.32/27");
    half.spec.allocations = vec![allocation("10.0.0.33", 1, 3)];
    let leases = BTreeSet::from([net("10.0.0.48/29")]);
    let reserved = Reserved::new([net("10.0.0.56/30")]);
    let proposed = |node: &str| -> Vec<String> {
        let proposed = proposals(&[&full, &half], &leases, &reserved, node);
        proposed.iter().map(|(_, part)| part.to_string()).collect()
    };
    let parts = proposed("n1");
    let sorted = |parts: &[String]| {
        BTreeSet::from_iter(parts.to_vec())
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted(&parts[..2]), ["10.0.0.40/29", "10.0.0.56/29"]);
    assert_eq!(sorted(&parts[2..4]), ["10.0.0.24/29", "10.0.0.8/29"]);
    let firsts: BTreeSet<String> = (0..9).map(|n| proposed(&format!("n{n}")).remove(0)).collect();
    assert_eq!(firsts.len(), 2, "nodes begin at different parts");
    assert!(!parts.contains(&"10.0.0.56/30".to_owned()));
    assert!(!parts.contains(&"10.0.0.33/32".to_owned()));
    let small = block("p", "10.0.0.0/24", "10.0.0.64/32");
    assert_eq!(proposals(&[&small], &BTreeSet::new(), &reserved, "n1"), []);
}

#[test]
fn what_has_not_rested_is_refused_and_what_a_block_of_others_lends_is_forgotten() {
    let mut allocator = Allocator::new();
    let whole = block("p", "10.0.0.0/24", "10.0.0.0/28");
    allocator.add_block(&whole).map(drop).unwrap();
    let owner = attachment(1);
    allocator.hold(&owner, net("10.0.0.1/32").ip()).map(drop).unwrap();
    allocator
        .release(&owner.container_id, &owner.ifname, 100)
        .map(drop)
        .unwrap();
    let due = |allocator: &Allocator, leases: &[IpBlock], now, closed: &[&str]| {
        let around = Surroundings {
            node: crate::NODE,
            strict: false,
            wanted: &BTreeSet::new(),
            closed: &closed.iter().map(|cidr| net(cidr)).collect(),
            rest: Rest { now, seconds: 60 },
        };
        duties(allocator, leases, around)
    };
    let lease = [lease_request(&whole, net("10.0.0.0/30"), "n9", 5)];
    assert_eq!(
        due(&allocator, &lease, 159, &[]),
        [Duty::Delete(Box::new(lease[0].clone()))]
    );
    let (part, generation) = (lease[0].spec.cidr, 5);
    let to = "n9".to_owned();
    assert_eq!(
        due(&allocator, &lease, 160, &[]),
        [Duty::Lend { part, to, generation }]
    );
    allocator.lend(part, "n9", generation).map(drop).unwrap();
    assert_eq!(
        due(&allocator, &[], 160, &["10.0.0.0/28"]),
        [Duty::TakeBack { part, generation }]
    );
}

/// The datastore: a revision and a resource by name.
type Store = BTreeMap<String, (u64, IpBlock)>;

/// A node: what its journal says, what it waits for, and what it has read of the datastore and not yet written.
#[derive(Default)]
struct Node {
    name: String,
    allocator: Allocator,
    wanted: BTreeSet<IpNetwork>,
    view: Store,
    writes: Vec<(Option<u64>, Duty)>,
}

#[derive(Clone, Debug)]
enum Step {
    Look(usize),
    Journal(usize),
    Plan(usize),
    Write(usize),
    Ask(usize, usize),
    Assign(usize, usize),
    Release(usize, usize),
    LetGo(usize),
    Die(usize),
    /// The owner of the block is taken for dead, and loses it.
    Disown,
    Claim(usize),
    /// A stranger deletes a lease.
    Lose(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..3usize;
    let step = prop_oneof![
        8 => node.clone().prop_map(Step::Look),
        8 => node.clone().prop_map(Step::Journal),
        8 => node.clone().prop_map(Step::Plan),
        10 => node.clone().prop_map(Step::Write),
        4 => (node.clone(), 0..4usize).prop_map(|(node, part)| Step::Ask(node, part)),
        4 => (node.clone(), 0..16usize).prop_map(|(node, n)| Step::Assign(node, n)),
        2 => (node.clone(), 0..16usize).prop_map(|(node, n)| Step::Release(node, n)),
        2 => node.clone().prop_map(Step::LetGo),
        2 => node.clone().prop_map(Step::Die),
        1 => Just(Step::Disown),
        3 => node.prop_map(Step::Claim),
        1 => (0..4usize).prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 0..160)
}

/// Three nodes, a pool of one block, and a datastore.
struct World {
    store: Store,
    revision: u64,
    now: u64,
    nodes: Vec<Node>,
    /// The highest generation that each part was held in.
    generations: BTreeMap<IpNetwork, (u64, String)>,
}

const PARTS: [&str; 4] = ["10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/30", "10.0.0.8/31"];

impl World {
    fn new() -> Self {
        let node = |number: usize| Node {
            name: format!("n{number}"),
            ..Node::default()
        };
        Self {
            store: Store::new(),
            revision: 0,
            now: 1000,
            nodes: (0..3).map(node).collect(),
            generations: BTreeMap::new(),
        }
    }

    fn put(&mut self, block: IpBlock) {
        self.revision += 1;
        self.store
            .insert(block.metadata.name.clone(), (self.revision, block));
    }

    fn duties(&self, n: usize) -> Vec<Duty> {
        let node = &self.nodes[n];
        let leases = node.view.values().map(|(_, block)| block);
        let leases = leases.filter(|block| block.spec.lease.is_some());
        let elsewhere = |cidr: &IpNetwork| {
            let known = node.view.values().find(|(_, block)| block.spec.cidr == *cidr);
            known.is_some_and(|(_, block)| block.spec.node.as_deref() != Some(node.name.as_str()))
        };
        let blocks = node.allocator.blocks().map(manx_ipam::Block::cidr);
        let around = Surroundings {
            node: &node.name,
            strict: false,
            wanted: &node.wanted,
            closed: &blocks.filter(elsewhere).collect(),
            rest: Rest::default(),
        };
        duties(&node.allocator, leases, around)
    }

    fn step(&mut self, step: &Step) {
        self.now += 1;
        match *step {
            Step::Look(n) => self.nodes[n].view = self.store.clone(),
            Step::Journal(n) => self.journal(n),
            Step::Plan(n) => self.plan(n),
            Step::Write(n) => self.write(n),
            Step::Ask(n, part) => self.ask(n, net(PARTS[part])),
            Step::Assign(n, address) => self.assign(n, address),
            Step::Release(n, owner) => {
                let id = attachment(owner * 3 + n);
                drop(
                    self.nodes[n]
                        .allocator
                        .release(&id.container_id, &id.ifname, self.now),
                );
            }
            Step::LetGo(n) => {
                let leases = self.nodes[n].allocator.blocks().filter(|block| block.is_leased());
                for cidr in leases.map(manx_ipam::Block::cidr).collect::<Vec<_>>() {
                    drop(self.nodes[n].allocator.remove_block(cidr));
                }
            }
            // Its journal is as it was; what it was about to do, and what it knew, is lost.
            Step::Die(n) => {
                let node = &mut self.nodes[n];
                node.wanted.clear();
                node.writes.clear();
                node.view = self.store.clone();
            }
            Step::Disown => self.disown(),
            Step::Claim(n) => self.claim(n),
            Step::Lose(part) => {
                let name = manx_api::ipam::block_name(net(PARTS[part]));
                self.store.remove(&name);
            }
        }
    }

    fn journal(&mut self, n: usize) {
        for duty in self.duties(n) {
            let node = &mut self.nodes[n];
            match duty {
                Duty::Lend { part, to, generation } => drop(node.allocator.lend(part, &to, generation)),
                Duty::TakeBack { part, generation } => {
                    drop(node.allocator.take_back(part, generation, self.now).unwrap());
                }
                Duty::Adopt(block) => {
                    let (part, generation) = (block.spec.cidr, block.spec.generation);
                    drop(node.allocator.add_block(&block).unwrap());
                    node.wanted.remove(&part);
                    let owner = (generation, node.name.clone());
                    let before = self.generations.insert(part, owner);
                    assert!(
                        before.is_none_or(|(last, _)| last < generation),
                        "{part} {generation}"
                    );
                }
                Duty::Update(_) | Duty::Create(_) | Duty::Delete(_) => {}
            }
        }
    }

    fn plan(&mut self, n: usize) {
        let duties = self.duties(n);
        let revision = |block: &IpBlock| {
            let known = self.nodes[n].view.get(&block.metadata.name);
            known.map(|(revision, _)| *revision)
        };
        let writes: Vec<_> = duties
            .into_iter()
            .filter_map(|duty| match &duty {
                Duty::Update(block) | Duty::Delete(block) => Some((revision(block), duty)),
                Duty::Create(_) => Some((None, duty)),
                Duty::Lend { .. } | Duty::TakeBack { .. } | Duty::Adopt(_) => None,
            })
            .collect();
        self.nodes[n].writes = writes;
    }

    /// Writes the next thing by compare-and-swap.
    fn write(&mut self, n: usize) {
        let Some((expected, duty)) = self.nodes[n].writes.pop() else {
            return;
        };
        let (Duty::Update(block) | Duty::Create(block) | Duty::Delete(block)) = &duty else {
            return;
        };
        let present = self
            .store
            .get(&block.metadata.name)
            .map(|(revision, _)| *revision);
        if present != expected {
            return;
        }
        match duty {
            Duty::Delete(block) => drop(self.store.remove(&block.metadata.name)),
            Duty::Update(block) | Duty::Create(block) => self.put(*block),
            Duty::Lend { .. } | Duty::TakeBack { .. } | Duty::Adopt(_) => {}
        }
    }

    fn ask(&mut self, n: usize, part: IpNetwork) {
        let name = self.nodes[n].name.clone();
        let is_lender =
            |(_, block): &&(u64, IpBlock)| block.spec.lease.is_none() && block.spec.node.is_some();
        let Some(lender) = self
            .store
            .values()
            .find(is_lender)
            .map(|(_, block)| block.clone())
        else {
            return;
        };
        // A node's clock may be behind another's.
        let now = self.now - 40 * n as u64;
        let request = lease_request(&lender, part, &name, now);
        if lender.spec.node.as_ref() != Some(&name) && !self.store.contains_key(&request.metadata.name) {
            self.nodes[n].wanted.insert(part);
            self.put(request);
        }
    }

    fn assign(&mut self, n: usize, number: usize) {
        let address: IpAddr = format!("10.0.0.{number}").parse().unwrap();
        let node = &mut self.nodes[n];
        let known = |cidr: IpNetwork| node.view.values().find(|(_, block)| block.spec.cidr == cidr);
        let Some(block) = node.allocator.block_of(address) else {
            return;
        };
        let mine = known(block.cidr()).is_none_or(|(_, block)| block.spec.node.as_ref() == Some(&node.name));
        if mine {
            drop(node.allocator.hold(&attachment(number * 3 + n), address));
        }
    }

    /// The block is nobody's: its owner is gone, with all it had but what it has leased of others.
    fn disown(&mut self) {
        let owned = self.store.values().find(|(_, block)| block.spec.lease.is_none());
        let Some(block) = owned.map(|(_, block)| block.clone()) else {
            return;
        };
        let Some(owner) = block.spec.node.clone() else {
            return;
        };
        self.put(release_block(&block, &owner).unwrap());
        let node = self.nodes.iter_mut().find(|node| node.name == owner).unwrap();
        *node = Node {
            name: owner,
            view: self.store.clone(),
            ..Node::default()
        };
    }

    fn claim(&mut self, n: usize) {
        let (pool, cidr) = (pool("p", "10.0.0.0/28", Some(28)), net("10.0.0.0/28"));
        let present = self.store.get("10-0-0-0-28").map(|(_, block)| block.clone());
        let node = &mut self.nodes[n];
        // A node does not claim around a lease of its own.
        if node.allocator.blocks().next().is_some() {
            return;
        }
        let Ok(claimed) = claim(present.as_ref(), &pool, cidr, &node.name) else {
            return;
        };
        drop(node.allocator.add_block(&claimed).unwrap());
        let blocks = self.store.values().map(|(_, block)| block);
        for part in parts_of(cidr, blocks) {
            let borrower = part.spec.node.as_deref().unwrap();
            let lent = node
                .allocator
                .lend(part.spec.cidr, borrower, part.spec.generation);
            let granted = part.spec.lease.as_ref().unwrap().state == LeaseState::Granted;
            assert!(lent.is_ok() || !granted);
        }
        self.put(claimed);
        self.nodes[n].view = self.store.clone();
    }

    /// No address is held by two, or free where another has it.
    fn check(&self, step: &Step) {
        let mut holders: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for node in &self.nodes {
            for held in node.allocator.allocations() {
                let before = holders.insert(held.address, &node.name);
                assert_eq!(before, None, "{} after {step:?}", held.address);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn no_address_is_anybodys_twice_and_in_the_end_nothing_is_due(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check(step);
        }
        for node in &mut world.nodes {
            node.wanted.clear();
        }
        for _ in 0..12 {
            for n in 0..3 {
                for step in [Step::Look(n), Step::Journal(n), Step::Plan(n)] {
                    world.step(&step);
                }
                for _ in 0..8 {
                    world.step(&Step::Write(n));
                }
                world.check(&Step::Look(n));
            }
        }
        for n in 0..3 {
            world.step(&Step::Look(n));
            prop_assert_eq!(world.duties(n), []);
        }
    }

    #[test]
    fn duties_do_not_depend_on_the_order_of_the_resources(
        order in Just([0, 1, 2]).prop_shuffle(),
        states in prop::array::uniform3(0..3usize),
        journalled in prop::array::uniform3(any::<bool>()),
    ) {
        let mut allocator = Allocator::new();
        let whole = block("p", "10.0.0.0/24", "10.0.0.0/28");
        allocator.add_block(&whole).map(drop).unwrap();
        let mut leases = Vec::new();
        for n in 0..3 {
            let mut lease = lease_request(&whole, net(PARTS[n]), "n9", 5);
            let all = [LeaseState::Requested, LeaseState::Granted, LeaseState::Returned];
            lease.spec.lease.as_mut().unwrap().state = all[states[n]];
            if journalled[n] {
                allocator.lend(net(PARTS[n]), "n9", 5).map(drop).unwrap();
            }
            leases.push(lease);
        }
        let around = Surroundings {
            node: crate::NODE,
            strict: false,
            wanted: &BTreeSet::new(),
            closed: &BTreeSet::new(),
            rest: Rest::default(),
        };
        let sorted = |order: &[usize]| {
            let mut duties = duties(&allocator, order.iter().map(|n| &leases[*n]), around);
            duties.sort_by_key(|duty| format!("{duty:?}"));
            duties
        };
        prop_assert_eq!(sorted(&order), sorted(&[0, 1, 2]));
    }
}
