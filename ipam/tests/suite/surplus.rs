//! What a node gives back: never what it needs.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_ipam::{Holding, surplus};
use proptest::prelude::*;

use crate::{cases, net};

fn holding(number: u32, open: bool, idle: bool, free: usize) -> Holding {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + number * 64);
    Holding {
        cidr: IpNetwork::new(address.into(), 26).unwrap(),
        open,
        idle,
        capacity: 64,
        free,
    }
}

#[test]
fn the_last_block_stays_and_the_lowest_of_empty_ones() {
    let empty = |number| holding(number, true, true, 64);
    assert_eq!(surplus(&[]), []);
    assert_eq!(surplus(&[empty(0)]), []);
    assert_eq!(
        surplus(&[empty(1), empty(0), empty(2)]),
        [net("10.0.0.64/26"), net("10.0.0.128/26")]
    );
}

#[test]
fn an_empty_block_stays_where_the_others_are_nearly_full() {
    let empty = holding(1, true, true, 64);
    assert_eq!(surplus(&[holding(0, true, false, 31), empty]), []);
    assert_eq!(surplus(&[holding(0, true, false, 32), empty]), [empty.cidr]);
    let [third, fourth] = [2, 3].map(|number| holding(number, true, false, 16));
    assert_eq!(
        surplus(&[third, fourth, empty]),
        [empty.cidr],
        "together they have room"
    );
}

#[test]
fn what_serves_nobody_goes_even_if_it_is_the_last() {
    let closed = holding(0, false, true, 64);
    assert_eq!(surplus(&[closed]), [closed.cidr]);
    assert_eq!(surplus(&[closed, holding(1, true, true, 64)]), [closed.cidr]);
    assert_eq!(
        surplus(&[holding(0, false, false, 63)]),
        [],
        "somebody holds an address of it"
    );
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn only_idle_blocks_go_and_room_stays_whatever_the_order(
        blocks in prop::collection::vec((any::<bool>(), any::<bool>(), 0_usize..64), 0..8),
        seed in any::<u64>(),
    ) {
        let mut holdings: Vec<Holding> = (0..).zip(blocks).map(|(number, (open, idle, free))| {
            holding(number, open, idle, if idle { 64 } else { free })
        }).collect();
        let given = surplus(&holdings);
        let gone: BTreeSet<_> = given.iter().copied().collect();
        prop_assert!(holdings.iter().filter(|block| gone.contains(&block.cidr)).all(|block| block.idle));
        let open: Vec<_> = holdings.iter().filter(|block| block.open).collect();
        let left: Vec<_> = open.iter().filter(|block| !gone.contains(&block.cidr)).collect();
        prop_assert_eq!(left.is_empty(), open.is_empty());
        let free = |blocks: &[&&Holding]| blocks.iter().map(|block| block.free).sum::<usize>();
        if left.len() < open.len() {
            prop_assert!(free(&left) >= 32, "{:?}", left);
        }
        prop_assert!(holdings.iter().all(|block| block.open || !block.idle || gone.contains(&block.cidr)));
        let length = holdings.len();
        if length > 1 {
            holdings.rotate_left(usize::try_from(seed % length as u64).unwrap());
            holdings.swap(0, length - 1);
        }
        prop_assert_eq!(surplus(&holdings), given);
    }
}
