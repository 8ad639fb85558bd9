//! Reserved addresses, beside a set that lists them one by one.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_ipam::Reserved;
use proptest::prelude::*;

use crate::{cases, net};

fn network() -> impl Strategy<Value = IpNetwork> {
    (any::<bool>(), any::<u8>(), 0..=8u8).prop_map(|(v6, low, host_bits)| {
        let low = u16::from(low) >> host_bits << host_bits;
        match v6 {
            true => net(&format!("fd00::{low:x}/{}", 128 - host_bits)),
            false => net(&format!("10.0.0.{low}/{}", 32 - host_bits)),
        }
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn what_is_reserved_is_what_a_network_has_whatever_their_order(
        networks in prop::collection::vec(network(), 0..6),
        block in network(),
        order in any::<prop::sample::Index>(),
    ) {
        let reserved = Reserved::new(networks.clone());
        let mut turned = networks.clone();
        if !turned.is_empty() {
            let by = order.index(turned.len());
            turned.rotate_left(by);
        }
        prop_assert_eq!(&Reserved::new(turned), &reserved);
        let is_in = |address: &IpAddr| networks.iter().any(|network| network.contains(*address));
        let all: Vec<IpAddr> = block.iter().collect();
        for address in &all {
            prop_assert_eq!(reserved.contains(*address), is_in(address));
        }
        let count = all.iter().filter(|address| is_in(address)).count();
        prop_assert_eq!(reserved.count_in(block), count as u128);
        prop_assert_eq!(reserved.covers(block), count == all.len());
    }
}
