//! The journal's word against the interfaces that exist.

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_api::ipam::{Allocation, AttachmentId};
use manx_ipam::{Decision, Live, reconcile};
use proptest::prelude::*;

use crate::{allocation, cases};

/// The interface of an attachment: `container-7` has `mx7`.
fn interface(owner: &AttachmentId) -> String {
    owner.container_id.replace("container-", "mx")
}

fn live(interface: &str, addresses: &[&str]) -> Live<String> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Live {
        interface: interface.to_owned(),
        addresses,
    }
}

fn decide(allocations: &[Allocation], live: &[Live<String>]) -> Vec<Decision<String>> {
    reconcile(allocations.to_vec(), live.to_vec(), interface)
}

#[test]
fn a_live_interface_keeps_its_address() {
    let mine = allocation("10.0.0.1", 1, 1);
    assert_eq!(
        decide(std::slice::from_ref(&mine), &[live("mx1", &["10.0.0.1"])]),
        [Decision::Keep(mine)]
    );
}

#[test]
fn a_live_interface_that_lost_its_route_keeps_its_address() {
    let (v4, v6) = (allocation("10.0.0.1", 1, 1), allocation("fd00::1", 1, 1));
    let decisions = decide(&[v4.clone(), v6.clone()], &[live("mx1", &["fd00::1"])]);
    assert_eq!(decisions, [Decision::Keep(v4), Decision::Keep(v6)]);
}

#[test]
fn what_is_gone_is_released() {
    let gone = allocation("10.0.0.1", 1, 1);
    assert_eq!(
        decide(std::slice::from_ref(&gone), &[]),
        [Decision::Release(gone)]
    );
}

#[test]
fn an_address_that_its_interface_exchanged_for_another_is_released() {
    let (old, new) = (allocation("10.0.0.1", 1, 1), allocation("10.0.0.2", 2, 1));
    let decisions = decide(&[old.clone(), new.clone()], &[live("mx1", &["10.0.0.2"])]);
    assert_eq!(decisions, [Decision::Release(old), Decision::Keep(new)]);
}

#[test]
fn an_interface_with_anothers_address_is_refused() {
    let mine = allocation("10.0.0.1", 1, 1);
    let both = [live("mx0", &["10.0.0.1"]), live("mx1", &["10.0.0.1"])];
    let refusal = Decision::Refuse {
        interface: "mx0".to_owned(),
        address: "10.0.0.1".parse().unwrap(),
        holder: "mx1".to_owned(),
    };
    assert_eq!(
        decide(std::slice::from_ref(&mine), &both),
        [Decision::Keep(mine), refusal]
    );
}

#[test]
fn an_address_that_nobody_is_known_to_hold_is_unknown_once() {
    let address: IpAddr = "10.0.0.9".parse().unwrap();
    let (mx1, mx2) = ("mx1".to_owned(), "mx2".to_owned());
    assert_eq!(
        decide(&[], &[live("mx2", &["10.0.0.9"]), live("mx1", &["10.0.0.9"])]),
        [
            Decision::Unknown {
                interface: mx1.clone(),
                address
            },
            Decision::Refuse {
                interface: mx2,
                address,
                holder: mx1
            },
        ]
    );
}

fn address() -> impl Strategy<Value = String> {
    (any::<bool>(), 0..6u8).prop_map(|(v6, n)| {
        if v6 {
            format!("fd00::{n}")
        } else {
            format!("10.0.0.{n}")
        }
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_two_live_interfaces_are_left_with_one_address(
        allocations in prop::collection::btree_map(address(), 0..5usize, 0..10),
        carried in prop::collection::vec((0..5usize, prop::collection::vec(address(), 0..4)), 0..6),
    ) {
        let allocations: Vec<_> =
            allocations.iter().map(|(address, owner)| allocation(address, 1, *owner)).collect();
        let carried: Vec<_> = carried
            .iter()
            .map(|(n, addresses)| live(&format!("mx{n}"), &addresses.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        let decisions = decide(&allocations, &carried);

        let mut reversed = (allocations.clone(), carried.clone());
        reversed.0.reverse();
        reversed.1.reverse();
        prop_assert_eq!(&decisions, &decide(&reversed.0, &reversed.1));

        let mut left: BTreeMap<(IpAddr, String), bool> = BTreeMap::new();
        for live in &carried {
            left.extend(live.addresses.iter().map(|address| ((*address, live.interface.clone()), true)));
        }
        let mut decided = 0;
        for decision in &decisions {
            match decision {
                Decision::Keep(kept) => {
                    decided += 1;
                    left.insert((kept.address, interface(&kept.owner)), true);
                }
                Decision::Release(released) => {
                    decided += 1;
                    let carries = left.get(&(released.address, interface(&released.owner)));
                    prop_assert_eq!(carries, None, "a live address is not released");
                }
                Decision::Refuse { interface, address, .. } => {
                    left.insert((*address, interface.clone()), false);
                }
                Decision::Unknown { address, .. } => {
                    let known = decisions.iter().any(|d| matches!(d, Decision::Keep(k) if k.address == *address));
                    prop_assert!(!known);
                }
            }
        }
        prop_assert_eq!(decided, allocations.len(), "each allocation has one decision");
        let mut holders: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for ((address, _), _) in left.iter().filter(|(_, left)| **left) {
            *holders.entry(*address).or_default() += 1;
        }
        prop_assert!(holders.values().all(|count| *count == 1), "{holders:?} after {decisions:?}");
    }
}
