//! The allocator, case by case.

use std::net::IpAddr;

use manx_api::ipam::{AttachmentId, IpBlock};
use manx_ipam::journal::Record;
use manx_ipam::{
    Allocator, ApplyError, AssignError, BlockError, Family, HoldError, RemoveError, Request, Reserved, Rest,
    Want,
};

use crate::{allocation, attachment, block, net, request, wants};

pub(crate) fn with(blocks: &[IpBlock]) -> Allocator {
    let mut allocator = Allocator::new();
    for block in blocks {
        allocator.add_block(block).map(drop).unwrap();
    }
    allocator
}

fn assign(
    allocator: &mut Allocator,
    owner: usize,
    families: &[Family],
    pools: &[&str],
) -> Result<Vec<String>, AssignError> {
    let wants = wants(allocator, families, pools, false);
    let assignment = allocator.assign(&request(&attachment(owner), &wants))?;
    Ok(assignment
        .allocations
        .iter()
        .map(|allocation| allocation.address.to_string())
        .collect())
}

fn release(allocator: &mut Allocator, owner: usize) -> Option<Vec<String>> {
    let owner = attachment(owner);
    let release = allocator.release(&owner.container_id, &owner.ifname, 0)?;
    Some(
        release
            .allocations
            .iter()
            .map(|allocation| allocation.address.to_string())
            .collect(),
    )
}

pub(crate) fn small() -> IpBlock {
    block("blue", "10.0.0.0/24", "10.0.0.0/30")
}

pub(crate) fn small_v6() -> IpBlock {
    block("six", "fd00::/112", "fd00::4/126")
}

pub(crate) const V4: &[Family] = &[Family::V4];
pub(crate) const DUAL: &[Family] = &[Family::V4, Family::V6];

#[test]
fn every_address_of_a_block_is_given_out_the_first_and_the_last_too() {
    let mut allocator = with(&[block("blue", "10.0.0.0/24", "10.0.0.64/26")]);
    let given: Vec<_> = (0..64)
        .map(|n| assign(&mut allocator, n, V4, &["blue"]).unwrap().remove(0))
        .collect();
    assert_eq!(given.first().map(String::as_str), Some("10.0.0.64"));
    assert_eq!(given.last().map(String::as_str), Some("10.0.0.127"));
    assert_eq!(
        assign(&mut allocator, 64, V4, &["blue"]),
        Err(AssignError::NoRoom { family: Family::V4 })
    );
}

#[test]
fn a_renewed_block_keeps_what_is_held_and_numbers_on_above_it() {
    let mut allocator = with(&[small()]);
    assign(&mut allocator, 1, V4, &["blue"]).unwrap();
    let (cidr, held): (_, Vec<_>) = (small().spec.cidr, allocator.allocations().collect());
    let record = allocator.renew_block(cidr, 9).unwrap();
    assert_eq!(record, Record::BlockRenewed { cidr, generation: 9 });
    assert_eq!(allocator.allocations().collect::<Vec<_>>(), held);
    assign(&mut allocator, 2, V4, &["blue"]).unwrap();
    let sequence = allocator.allocations().map(|held| held.sequence).max();
    assert_eq!(sequence, Some((9 << 32) + 1));
    let before = allocator.clone();
    for generation in [9, 8, u64::MAX] {
        assert!(allocator.renew_block(cidr, generation).is_err(), "{generation}");
    }
    assert_eq!(allocator, before);
}

#[test]
fn asking_again_gives_the_same_addresses_and_nothing_to_journal() {
    let mut allocator = with(&[small(), small_v6()]);
    let owner = attachment(1);
    let wants = wants(&allocator, DUAL, &["blue", "six"], false);
    let request = request(&owner, &wants);
    let first = allocator.assign(&request).unwrap();
    assert!(first.record.is_some());
    let again = allocator.assign(&request).unwrap();
    assert_eq!(again.allocations, first.allocations);
    assert_eq!(again.record, None);
}

#[test]
fn a_block_that_is_not_named_gives_nothing_new_and_keeps_what_is_held() {
    let mut allocator = with(&[small()]);
    let held = assign(&mut allocator, 1, V4, &["blue"]);
    assert_eq!(assign(&mut allocator, 1, V4, &["red"]), held);
    assert!(matches!(
        assign(&mut allocator, 2, V4, &["red"]),
        Err(AssignError::NoRoom { .. })
    ));
    assert!(assign(&mut allocator, 2, V4, &["blue"]).is_ok());
}

#[test]
fn an_attachment_is_known_by_container_and_interface_whatever_the_pod_is_called() {
    let mut allocator = with(&[small()]);
    let wants = wants(&allocator, V4, &["blue"], false);
    let named = attachment(1);
    let unnamed = AttachmentId {
        pod: named.container_id.clone(),
        ..named.clone()
    };
    let first = allocator.assign(&request(&named, &wants)).unwrap();
    let again = allocator.assign(&request(&unnamed, &wants)).unwrap();
    assert_eq!(again.allocations, first.allocations);
    let second = AttachmentId {
        ifname: "eth1".to_owned(),
        ..named
    };
    let other = allocator.assign(&request(&second, &wants)).unwrap();
    assert_ne!(other.allocations[0].address, first.allocations[0].address);
}

#[test]
fn both_families_come_in_one_answer_in_the_order_asked_for() {
    let mut allocator = with(&[small(), small_v6()]);
    let pools = &["blue", "six"];
    assert_eq!(
        assign(&mut allocator, 1, DUAL, pools).unwrap(),
        ["10.0.0.0", "fd00::4"]
    );
    let reversed = &[Family::V6, Family::V4, Family::V6];
    assert_eq!(
        assign(&mut allocator, 2, reversed, pools).unwrap(),
        ["fd00::5", "10.0.0.1"]
    );
}

#[test]
fn half_an_answer_is_none_and_takes_nothing() {
    let mut allocator = with(&[small()]);
    let before = allocator.clone();
    assert_eq!(
        assign(&mut allocator, 1, DUAL, &["blue", "six"])
            .unwrap_err()
            .to_string(),
        "no free IPv6 address in this node's blocks"
    );
    assert_eq!(allocator, before);
}

#[test]
fn a_second_family_joins_the_first() {
    let mut allocator = with(&[small(), small_v6()]);
    let first = assign(&mut allocator, 1, V4, &["blue"]).unwrap();
    let both = assign(&mut allocator, 1, DUAL, &["blue", "six"]).unwrap();
    assert_eq!(both, [first[0].as_str(), "fd00::4"]);
    assert_eq!(release(&mut allocator, 1).unwrap(), both);
}

#[test]
fn pools_are_tried_in_the_order_given_and_no_other() {
    let mut allocator = with(&[small(), block("red", "10.9.0.0/24", "10.9.0.0/32")]);
    assert_eq!(
        assign(&mut allocator, 1, V4, &["red", "blue"]).unwrap(),
        ["10.9.0.0"]
    );
    assert_eq!(
        assign(&mut allocator, 2, V4, &["red", "blue"]).unwrap(),
        ["10.0.0.0"]
    );
    assert!(assign(&mut allocator, 3, V4, &["red"]).is_err());
    assert!(assign(&mut allocator, 3, V4, &[]).is_err());
}

#[test]
fn releasing_the_unknown_is_no_change() {
    let mut allocator = with(&[small()]);
    assert_eq!(release(&mut allocator, 1), None);
}

#[test]
fn the_address_free_for_the_longest_time_is_used_first() {
    let mut allocator = with(&[small()]);
    for owner in 0..4 {
        assign(&mut allocator, owner, V4, &["blue"]).unwrap();
    }
    for owner in [2, 0, 3] {
        release(&mut allocator, owner).unwrap();
    }
    let reused: Vec<_> = (4..7)
        .flat_map(|owner| assign(&mut allocator, owner, V4, &["blue"]).unwrap())
        .collect();
    assert_eq!(reused, ["10.0.0.2", "10.0.0.0", "10.0.0.3"]);
}

#[test]
fn a_freed_address_rests_before_another_has_it_unless_no_block_can_be_had() {
    let mut allocator = with(&[small(), block("blue", "10.0.0.0/24", "10.0.0.8/31")]);
    let ask = |allocator: &mut Allocator, owner: usize, now: u64, unrested: bool| {
        let wants = wants(allocator, V4, &["blue"], unrested);
        let rest = Rest { now, seconds: 60 };
        let owner = attachment(owner);
        let request = Request {
            rest,
            ..request(&owner, &wants)
        };
        let given = allocator.assign(&request)?.allocations;
        Ok::<_, AssignError>(given[0].address.to_string())
    };
    for owner in 0..6 {
        ask(&mut allocator, owner, 1000, false).unwrap();
    }
    for (owner, now) in [(5, 1001), (1, 1002), (2, 1003)] {
        let owner = attachment(owner);
        allocator
            .release(&owner.container_id, &owner.ifname, now)
            .map(drop)
            .unwrap();
    }
    let none = Err(AssignError::NoRoom { family: Family::V4 });
    assert_eq!(ask(&mut allocator, 10, 1060, false), none);
    assert_eq!(
        ask(&mut allocator, 10, 1060, true).unwrap(),
        "10.0.0.9",
        "the longest rested"
    );
    assert_eq!(ask(&mut allocator, 11, 1061, false), none);
    assert_eq!(ask(&mut allocator, 11, 1062, false).unwrap(), "10.0.0.1");
    let set_back = ask(&mut allocator, 12, 500, false);
    assert_eq!(
        set_back.unwrap(),
        "10.0.0.2",
        "a clock that was set back blocks no address"
    );
}

#[test]
fn a_reserved_address_is_given_only_to_who_asks_for_it() {
    let mut allocator = with(&[small()]);
    allocator.reserve(Reserved::new([net("10.0.0.0/31"), net("10.0.0.3/32")]));
    assert_eq!(assign(&mut allocator, 1, V4, &["blue"]).unwrap(), ["10.0.0.2"]);
    assert!(assign(&mut allocator, 2, V4, &["blue"]).is_err());
    let want = [Want::Address("10.0.0.3".parse().unwrap())];
    let asked = attachment(2);
    let given = allocator.assign(&request(&asked, &want)).unwrap();
    assert_eq!(given.allocations[0].address.to_string(), "10.0.0.3");
    release(&mut allocator, 2).unwrap();
    assert!(assign(&mut allocator, 3, V4, &["blue"]).is_err());
    allocator.reserve(Reserved::default());
    assert_eq!(assign(&mut allocator, 3, V4, &["blue"]).unwrap(), ["10.0.0.0"]);
}

#[test]
fn an_address_asked_for_comes_with_one_of_the_other_family_or_not_at_all() {
    let mut allocator = with(&[small(), small_v6()]);
    let ask = |allocator: &mut Allocator, owner: usize, address: &str| {
        let mut wants = wants(allocator, &[Family::V6], &["six"], false);
        wants.push(Want::Address(address.parse().unwrap()));
        let given = allocator.assign(&request(&attachment(owner), &wants))?;
        Ok(given
            .allocations
            .iter()
            .map(|given| given.address.to_string())
            .collect::<Vec<_>>())
    };
    assert_eq!(
        ask(&mut allocator, 1, "10.0.0.2").unwrap(),
        ["fd00::4", "10.0.0.2"]
    );
    let before = allocator.clone();
    let address = "10.0.0.2".parse().unwrap();
    let held = HoldError::Held {
        address,
        holder: Box::new(attachment(1)),
    };
    assert_eq!(ask(&mut allocator, 2, "10.0.0.2"), Err(AssignError::Hold(held)));
    assert_eq!(allocator, before);
    assert_eq!(
        ask(&mut allocator, 1, "10.0.0.1").unwrap(),
        ["fd00::4", "10.0.0.2"],
        "who has an address keeps it"
    );
}

#[test]
fn a_stale_release_does_not_free_a_later_holders_address() {
    let mut allocator = with(&[block("blue", "10.0.0.0/24", "10.0.0.0/32")]);
    let address: IpAddr = "10.0.0.0".parse().unwrap();
    let holder = |allocator: &Allocator| allocator.allocations().next().unwrap();
    assign(&mut allocator, 1, V4, &["blue"]).unwrap();
    let stale = holder(&allocator);
    release(&mut allocator, 1).unwrap();
    assign(&mut allocator, 2, V4, &["blue"]).unwrap();
    assert_eq!(allocator.release_address(address, stale.sequence, 0), None);
    let current = holder(&allocator);
    assert_eq!(
        allocator
            .release_address(address, current.sequence, 0)
            .unwrap()
            .allocations,
        [current]
    );
    assert_eq!(allocator.allocations().count(), 0);
}

#[test]
fn the_next_owners_sequence_numbers_are_above_all_that_were_given() {
    let mut first = with(&[small()]);
    for owner in 0..4 {
        assign(&mut first, owner, V4, &["blue"]).unwrap();
    }
    let last = first
        .allocations()
        .map(|allocation| allocation.sequence)
        .max()
        .unwrap();
    let mut later = small();
    later.spec.generation += 2;
    let mut second = with(&[later]);
    assign(&mut second, 9, V4, &["blue"]).unwrap();
    assert!(second.allocations().all(|allocation| allocation.sequence > last));
}

#[test]
fn a_given_address_is_held_for_its_owner_only() {
    let mut allocator = with(&[small()]);
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let held = allocator.hold(&attachment(1), address).unwrap();
    assert_eq!(
        (held.allocations[0].address, held.record.is_some()),
        (address, true)
    );
    let again = allocator.hold(&attachment(1), address).unwrap();
    assert_eq!((again.allocations, again.record), (held.allocations, None));
    assert_eq!(
        allocator.hold(&attachment(2), address).unwrap_err().to_string(),
        "10.0.0.2 is held by eth0 of container container-1"
    );
    let outside = "10.0.0.4".parse().unwrap();
    assert_eq!(
        allocator.hold(&attachment(1), outside),
        Err(HoldError::Outside { address: outside })
    );
    assert_eq!(assign(&mut allocator, 1, V4, &["blue"]).unwrap(), ["10.0.0.2"]);
}

#[test]
fn a_block_in_use_stays_and_an_empty_one_goes() {
    let mut allocator = with(&[small()]);
    let cidr = small().spec.cidr;
    assign(&mut allocator, 1, V4, &["blue"]).unwrap();
    let in_use = ApplyError::Remove(RemoveError::InUse { cidr, held: 1 });
    assert_eq!(allocator.remove_block(cidr), Err(in_use));
    release(&mut allocator, 1).unwrap();
    assert_eq!(allocator.remove_block(cidr), Ok(Record::BlockRemoved { cidr }));
    assert_eq!(
        allocator.remove_block(cidr),
        Err(ApplyError::Remove(RemoveError::Unknown { cidr }))
    );
}

#[test]
fn what_a_blocks_checkpoint_lists_is_held() {
    let mut resource = small();
    let sequence = (resource.spec.generation << 32) + 7;
    resource.spec.allocations = vec![allocation("10.0.0.0", sequence, 5)];
    let mut allocator = with(&[resource]);
    assert_eq!(assign(&mut allocator, 5, V4, &["blue"]).unwrap(), ["10.0.0.0"]);
    assert_eq!(assign(&mut allocator, 6, V4, &["blue"]).unwrap(), ["10.0.0.1"]);
    assert_eq!(allocator.allocations().last().unwrap().sequence, sequence + 1);
}

#[test]
fn a_malformed_block_is_refused_and_changes_nothing() {
    let mut allocator = with(&[small()]);
    let before = allocator.clone();
    let cidr = net("10.0.1.0/30");
    let good = block("blue", "10.0.0.0/16", "10.0.1.0/30");
    let broken = |change: &dyn Fn(&mut IpBlock)| {
        let mut resource = good.clone();
        change(&mut resource);
        resource
    };
    let table: [(IpBlock, &str); 7] = [
        (
            small(),
            "block 10.0.0.0/30 overlaps 10.0.0.0/30, which this node has",
        ),
        (
            block("blue", "10.0.0.0/16", "10.0.0.0/26"),
            "block 10.0.0.0/26 overlaps 10.0.0.0/30, which this node has",
        ),
        (
            broken(&|block| block.spec.cidr = net("10.0.0.0/8")),
            "block 10.0.0.0/8 is too large: a block is a /20 (IPv4) or a /116 (IPv6) at most",
        ),
        (
            broken(&|block| block.spec.cidr = net("10.0.1.1/30")),
            "block 10.0.1.1/30 has host bits set: the block is 10.0.1.0/30",
        ),
        (
            broken(&|block| block.spec.generation = 1 << 32),
            "block 10.0.1.0/30 has generation 4294967296, which no cluster reaches: its resource is damaged",
        ),
        (
            broken(&|block| block.spec.allocations = vec![allocation("10.0.9.9", 1, 1)]),
            "block 10.0.1.0/30 does not account for each of its addresses once: see 10.0.9.9",
        ),
        (
            broken(&|block| block.spec.allocations = vec![allocation("10.0.1.1", u64::MAX, 1)]),
            "block 10.0.1.0/30: 10.0.1.0 has sequence 18446744073709551615, which the block has not reached",
        ),
    ];
    for (resource, message) in table {
        assert_eq!(allocator.add_block(&resource).unwrap_err().to_string(), message);
        assert_eq!(allocator, before);
    }
    let twice = broken(&|block| block.spec.allocations = vec![allocation("10.0.1.1", 1, 1); 2]);
    let address = "10.0.1.1".parse().unwrap();
    assert_eq!(
        allocator.add_block(&twice),
        Err(ApplyError::Block(BlockError::Accounts { cidr, address }))
    );
}

#[test]
fn a_record_that_does_not_follow_is_refused_and_changes_nothing() {
    let mut allocator = with(&[small(), small_v6()]);
    assign(&mut allocator, 1, V4, &["blue"]).unwrap();
    let held = allocator.allocations().next().unwrap();
    let before = allocator.clone();
    let next = allocation("fd00::4", (1 << 32) + 1, 2);
    let stale = manx_ipam::journal::Freed {
        at: None,
        address: held.address,
        sequence: held.sequence + 1,
    };
    let current = manx_ipam::journal::Freed {
        at: None,
        address: held.address,
        sequence: held.sequence,
    };
    for record in [
        Record::Assigned(vec![next.clone(), held.clone()]),
        Record::Assigned(vec![next.clone(), next]),
        Record::Assigned(vec![allocation("10.0.0.2", held.sequence, 2)]),
        Record::Assigned(vec![allocation("10.7.7.7", held.sequence + 1, 2)]),
        Record::Released(vec![stale]),
        Record::Released(vec![current, current]),
        Record::BlockRemoved {
            cidr: net("10.7.7.0/30"),
        },
    ] {
        assert!(allocator.apply(&record).is_err(), "{record:?}");
        assert_eq!(allocator, before);
    }
}

#[test]
fn a_journalled_block_whose_numbers_do_not_add_up_is_refused() {
    let mut original = with(&[small()]);
    assign(&mut original, 1, V4, &["blue"]).unwrap();
    let block = Record::BlockAdded(original.blocks().next().unwrap().clone());
    let text = serde_json::to_string(&block).unwrap();
    let damaged = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        serde_json::from_str::<Record>(&text.replace(from, to)).unwrap()
    };
    for record in [
        damaged(
            r#""held":{"10.0.0.0":{"sequence":4294967297"#,
            r#""held":{"10.0.0.0":{"sequence":4294967298"#,
        ),
        damaged(r#""generation":1"#, r#""generation":2"#),
        damaged(r#""free":["10.0.0.1","#, r#""free":["#),
        damaged(r#""free":["10.0.0.1","#, r#""free":["10.0.0.1","10.0.0.1","#),
        damaged(r#""free":["10.0.0.1","#, r#""free":["10.0.0.0","#),
        damaged(r#""cidr":"10.0.0.0/30""#, r#""cidr":"10.0.0.0/29""#),
    ] {
        let mut allocator = Allocator::new();
        assert!(allocator.apply(&record).is_err(), "{record:?}");
        assert_eq!(allocator, Allocator::new());
    }
    let mut allocator = Allocator::new();
    allocator.apply(&block).unwrap();
    assert_eq!(allocator, original);
}
