//! What holds for single peers, said of as few ranges of addresses as possible.
//!
//! A listener takes a bounded number of keys (963 TCP-MD5 keys on Linux with the usual `net.core.optmem_max`), and
//! what it is told of a thousand peers shall not be looked up in a thousand steps. So peers that have one thing in
//! common, with nobody between them who has not, share one entry.

use std::collections::BTreeMap;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// What holds for a peer, or for each in a range: `None` where nothing does.
pub(crate) type Entry<T> = (IpNetwork, Option<T>);

/// The fewest ranges that say the same of every entry's addresses, where the longest range that an address lies in
/// counts. Addresses of no entry may get anything. Of several entries with one network, the first counts.
///
/// An entry with `None` inside another's range has no way to say so: its address keeps what the range has.
pub(crate) fn cover<T: Clone + PartialEq>(entries: &[Entry<T>]) -> BTreeMap<IpNetwork, T> {
    let mut sorted: Vec<&Entry<T>> = entries.iter().collect();
    // An outer range sorts before what it contains.
    sorted.sort_by_key(|(network, _)| *network);
    sorted.dedup_by_key(|(network, _)| *network);
    let (mut outermost, mut nested) = (Vec::new(), Vec::new());
    let mut around: Vec<&Entry<T>> = Vec::new();
    for entry in sorted {
        while around.pop_if(|outer| !contains(outer.0, entry.0)).is_some() {}
        match around.last() {
            Some(outer) => nested.push((*outer, entry)),
            None => outermost.push(entry),
        }
        around.push(entry);
    }
    let (v4, v6): (Vec<_>, Vec<_>) = outermost.into_iter().partition(|(network, _)| network.is_ipv4());
    let mut cover = BTreeMap::new();
    for family in [v4, v6] {
        merge(&family, &mut cover);
    }
    // No merging inside a range: what lies between them is the range's.
    for (outer, (network, value)) in nested {
        if let Some(value) = value
            && outer.1.as_ref() != Some(value)
        {
            cover.insert(*network, value.clone());
        }
    }
    cover
}

/// One range for all of these disjoint entries of one family if they agree; else each half on its own.
fn merge<T: Clone + PartialEq>(entries: &[&Entry<T>], cover: &mut BTreeMap<IpNetwork, T>) {
    let (Some((first, value)), Some((last, _))) = (entries.first(), entries.last()) else {
        return;
    };
    if entries.iter().all(|(_, other)| other == value) {
        if let Some(value) = value {
            cover.insert(common(*first, *last), value.clone());
        }
        return;
    }
    let bit = common(*first, *last).prefix();
    let half = entries.partition_point(|(network, _)| !is_set(*network, bit));
    let (low, high) = entries.split_at(half);
    merge(low, cover);
    merge(high, cover);
}

/// Whether one network lies in another.
pub(crate) fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// The longest network that two disjoint ones, or equal ones, of one family lie in.
fn common(low: IpNetwork, high: IpNetwork) -> IpNetwork {
    let shortest = low.prefix().min(high.prefix());
    let differing = bits(low) ^ bits(high);
    // Both are at the top of 128 bits, and so few that they fit.
    let agreed = u8::try_from(differing.leading_zeros()).unwrap_or(0).min(shortest);
    let kept = bits(low) & u128::MAX.checked_shl(128 - u32::from(agreed)).unwrap_or(0);
    let network = match low {
        IpNetwork::V4(_) => {
            let address = u32::try_from(kept >> 96).unwrap_or(0).into();
            Ipv4Network::new(address, agreed).map(IpNetwork::V4)
        }
        IpNetwork::V6(_) => Ipv6Network::new(kept.into(), agreed).map(IpNetwork::V6),
    };
    network.unwrap_or(low)
}

fn is_set(network: IpNetwork, bit: u8) -> bool {
    (bits(network) << bit) >> 127 == 1
}

/// The address at the top of 128 bits.
fn bits(network: IpNetwork) -> u128 {
    match network {
        IpNetwork::V4(network) => u128::from(network.network().to_bits()) << 96,
        IpNetwork::V6(network) => network.network().to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn covered(entries: &[(&str, Option<char>)]) -> Vec<String> {
        let entries: Vec<Entry<char>> = entries
            .iter()
            .map(|(network, value)| (network.parse().unwrap(), *value))
            .collect();
        cover(&entries)
            .into_iter()
            .map(|(network, value)| format!("{network} {value}"))
            .collect()
    }

    #[test]
    fn who_agrees_shares_and_who_does_not_is_left_out() {
        let (a, b, none) = (Some('a'), Some('b'), None);
        assert_eq!(covered(&[]), [""; 0]);
        assert_eq!(covered(&[("10.0.0.1/32", a)]), ["10.0.0.1/32 a"]);
        assert_eq!(
            covered(&[("10.0.0.1/32", a), ("10.0.0.6/32", a)]),
            ["10.0.0.0/29 a"]
        );
        assert_eq!(
            covered(&[("10.0.0.1/32", a), ("10.0.0.3/32", none), ("10.0.0.6/32", a)]),
            ["10.0.0.1/32 a", "10.0.0.6/32 a"]
        );
        assert_eq!(
            covered(&[
                ("10.0.0.1/32", a),
                ("10.0.0.2/32", a),
                ("10.0.0.4/32", b),
                ("fe80::1/128", a)
            ]),
            ["10.0.0.0/30 a", "10.0.0.4/32 b", "fe80::1/128 a"]
        );
        assert_eq!(covered(&[("10.0.0.1/32", none)]), [""; 0]);
    }

    #[test]
    fn what_lies_in_a_range_differs_from_it_one_by_one() {
        let entries = [
            ("10.0.0.0/24", Some('r')),
            ("10.0.0.1/32", Some('a')),
            ("10.0.0.2/32", Some('a')),
            ("10.0.0.3/32", Some('r')),
            ("10.0.0.4/32", None),
        ];
        assert_eq!(
            covered(&entries),
            ["10.0.0.0/24 r", "10.0.0.1/32 a", "10.0.0.2/32 a"]
        );
        let twice = [
            ("10.0.0.0/8", Some('r')),
            ("10.1.0.0/16", Some('s')),
            ("10.1.0.1/32", Some('r')),
        ];
        assert_eq!(
            covered(&twice),
            ["10.0.0.0/8 r", "10.1.0.0/16 s", "10.1.0.1/32 r"]
        );
        let open = [("10.0.0.0/24", None), ("10.0.0.1/32", Some('a'))];
        assert_eq!(covered(&open), ["10.0.0.1/32 a"]);
        assert_eq!(
            covered(&[("10.0.0.1/32", Some('a')), ("10.0.0.1/32", Some('b'))]),
            ["10.0.0.1/32 a"]
        );
        assert_eq!(
            covered(&[("0.0.0.0/0", Some('a')), ("::/0", Some('b'))]),
            ["0.0.0.0/0 a", "::/0 b"]
        );
    }

    #[test]
    fn a_thousand_peers_with_one_password_take_one_entry() {
        let entries: Vec<Entry<char>> = (1..=1100_u32)
            .map(|host| {
                (
                    IpNetwork::from(std::net::IpAddr::V4((0x0a00_0000 + host).into())),
                    Some('a'),
                )
            })
            .collect();
        assert_eq!(cover(&entries).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_peer_keeps_what_was_its(
            values in proptest::collection::btree_map(0_u32..64, proptest::option::of(0_u8..3), 0..40)
        ) {
            let entries: Vec<Entry<u8>> = values
                .iter()
                .map(|(host, value)| (IpNetwork::from(std::net::IpAddr::V4((*host).into())), *value))
                .collect();
            let cover = cover(&entries);
            prop_assert!(cover.len() <= entries.len());
            for (host, value) in &values {
                let address = std::net::IpAddr::V4(Ipv4Addr::from_bits(*host));
                let longest = cover
                    .iter()
                    .filter(|(network, _)| network.contains(address))
                    .max_by_key(|(network, _)| network.prefix());
                prop_assert_eq!(longest.map(|(_, value)| *value), *value, "{}", address);
            }
        }
    }
}
