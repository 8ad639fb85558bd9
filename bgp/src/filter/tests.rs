//! Rules against a model that compares bits and writes everything out.

use proptest::prelude::*;

use super::*;
use crate::wire::{AsPath, Segment};

const CIDRS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::1/128",
];

fn prefixes() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        prop::sample::select(CIDRS.to_vec()).prop_map(|text| text.parse().unwrap()),
        (0_u32..0x40000, 0..=32_u8)
            .prop_map(|(low, len)| { Prefix::v4((0x0a00_0000 | low).into(), len).unwrap() }),
    ]
}

fn operators() -> impl Strategy<Value = Operator> {
    prop::sample::select(vec![
        Operator::Equal,
        Operator::NotEqual,
        Operator::In,
        Operator::NotIn,
    ])
}

fn communities() -> impl Strategy<Value = Community> {
    prop_oneof![
        (0..3_u32).prop_map(Community::Standard),
        (0..2_u8).prop_map(|octet| Community::Extended([octet; 8])),
        (0..2_u32).prop_map(|part| Community::Large([part; 3])),
    ]
}

fn ranges() -> impl Strategy<Value = Range> {
    let lengths = prop::option::of(0..=32_u8);
    (operators(), prefixes(), lengths.clone(), lengths)
        .prop_filter_map("lengths that exist", |(operator, cidr, min, max)| {
            Range::new(operator, cidr, min, max).ok()
        })
}

fn matches() -> impl Strategy<Value = Match> {
    (
        prop::option::of(ranges()),
        any::<bool>(),
        prop::option::of(prop::sample::select(vec![PeerType::Internal, PeerType::External])),
        prop::collection::vec(communities(), 0..2),
        prop::collection::vec(1..3_u32, 0..3),
        prop::option::of(prop::sample::select(vec!["eth0", "eth*"])),
        prop::option::of(0..2_u32),
    )
        .prop_map(
            |(range, learned, peer, communities, as_path_prefix, interface, priority)| Match {
                range,
                learned,
                peer,
                communities,
                as_path_prefix,
                interface: interface.map(|it| it.parse().unwrap()),
                priority,
            },
        )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let action = prop_oneof![
        Just(Action::Reject),
        any::<u32>().prop_map(|med| Action::Accept(vec![Operation::SetMed(med)])),
    ];
    let rule = (matches(), action).prop_map(|(when, then)| Rule { when, then });
    prop::collection::vec(rule, 0..4)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let segment = prop_oneof![
        prop::collection::vec(1..3_u32, 1..4).prop_map(Segment::Sequence),
        prop::collection::vec(1..3_u32, 1..4).prop_map(Segment::Set),
    ];
    (
        prop::option::of(segment),
        prop::collection::vec(communities(), 0..4),
    )
        .prop_map(|(segment, communities)| {
            let mut attributes = Attributes {
                as_path: AsPath {
                    segments: segment.into_iter().collect(),
                },
                ..Attributes::default()
            };
            Operation::SetCommunities(communities).apply(&mut attributes);
            attributes
        })
}

/// The documented meaning, clause by clause.
mod model {
    use super::*;

    fn bits(prefix: Prefix) -> Vec<bool> {
        let octets = match prefix.address() {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let bit = |i: usize| octets[i / 8] >> (7 - i % 8) & 1 == 1;
        (0..prefix.len().into()).map(bit).collect()
    }

    fn inside(outer: Prefix, inner: Prefix) -> bool {
        outer.family() == inner.family() && bits(inner).starts_with(&bits(outer))
    }

    pub(super) fn in_range(range: &RangeText, prefix: Prefix) -> bool {
        let (operator, cidr, min, max) = *range;
        let longest = if cidr.family() == Family::Ipv4Unicast {
            32
        } else {
            128
        };
        let length = prefix.len() >= min.unwrap_or(cidr.len()) && prefix.len() <= max.unwrap_or(longest);
        let same = inside(cidr, prefix) && cidr.len() == prefix.len();
        match operator {
            Operator::Equal => length && same,
            Operator::NotEqual => !length || !same,
            Operator::In => length && inside(cidr, prefix),
            Operator::NotIn => !length || !inside(cidr, prefix),
        }
    }

    pub(super) fn matches(when: &Match, route: &Subject<'_>) -> bool {
        let mut all = true;
        if let Some(range) = when.range {
            all &= range.matches(route.prefix);
        }
        if when.learned {
            all &= route.learned;
        }
        match when.peer {
            Some(PeerType::Internal) => all &= !route.external,
            Some(PeerType::External) => all &= route.external,
            None => {}
        }
        for community in &when.communities {
            all &= match community {
                Community::Standard(c) => route.attributes.communities.iter().any(|it| it == c),
                Community::Extended(c) => route.attributes.extended_communities.iter().any(|it| it == c),
                Community::Large(c) => route.attributes.large_communities.iter().any(|it| it == c),
            };
        }
        let mut path = Vec::new();
        for segment in &route.attributes.as_path.segments {
            match segment {
                Segment::Sequence(numbers) => path.extend(numbers),
                Segment::Set(_) => break,
            }
        }
        for (i, asn) in when.as_path_prefix.iter().enumerate() {
            all &= path.get(i) == Some(asn);
        }
        if let Some(pattern) = &when.interface {
            let written = pattern.to_string();
            let stem = written.trim_end_matches('*');
            all &= route.interface.is_some_and(|name| {
                if stem == written {
                    name == stem
                } else {
                    name.starts_with(stem)
                }
            });
        }
        if let Some(priority) = when.priority {
            all &= route.priority == priority;
        }
        all
    }

    /// Whether it passes, and what it is then.
    pub(super) fn judge(filters: &[Filter], otherwise: bool, route: &Subject<'_>) -> Option<Attributes> {
        let v4 = route.prefix.family() == Family::Ipv4Unicast;
        for filter in filters {
            for rule in if v4 { &filter.v4 } else { &filter.v6 } {
                if !matches(&rule.when, route) {
                    continue;
                }
                return match &rule.then {
                    Action::Reject => None,
                    Action::Accept(operations) => {
                        let mut changed = route.attributes.clone();
                        operations.iter().for_each(|it| it.apply(&mut changed));
                        Some(changed)
                    }
                };
            }
        }
        otherwise.then(|| route.attributes.clone())
    }
}

/// A range as it is written.
type RangeText = (Operator, Prefix, Option<u8>, Option<u8>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_range_is_what_its_words_say(
        operator in operators(),
        cidr in prefixes(),
        lengths in prop::array::uniform2(prop::option::of(0..=128_u8)),
        prefix in prefixes(),
    ) {
        let [min, max] = lengths;
        if let Ok(range) = Range::new(operator, cidr, min, max) {
            prop_assert_eq!(range.matches(prefix), model::in_range(&(operator, cidr, min, max), prefix));
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_the_default_has_the_last_word(
        lists in prop::collection::vec((rules(), rules()), 0..3),
        otherwise in any::<bool>(),
        prefix in prefixes(),
        attributes in attributes(),
        learned in any::<bool>(),
        external in any::<bool>(),
        priority in 0..2_u32,
        interface in prop::option::of(prop::sample::select(vec!["eth0", "eth1", "lo"])),
    ) {
        let filters: Vec<Filter> =
            lists.into_iter().map(|(v4, v6)| Filter { name: "f".into(), v4, v6 }).collect();
        let default = if otherwise { Policy::Accept } else { Policy::Reject };
        let chain = Chain::new(&filters, default);
        let route = Subject { prefix, attributes: &attributes, learned, external, priority, interface };
        let verdict = chain.judge(&route);
        let changed = verdict.accepted.then(|| {
            let mut changed = attributes.clone();
            verdict.operations().iter().for_each(|it| it.apply(&mut changed));
            changed
        });
        prop_assert_eq!(changed, model::judge(&filters, otherwise, &route));
    }
}

#[test]
fn lengths_that_no_prefix_has_are_refused() {
    let cidr = "10.0.0.0/8".parse().unwrap();
    for (min, max, right) in [
        (Some(16), Some(24), true),
        (None, Some(8), true),
        (Some(0), None, true),
        (None, Some(7), false),
        (Some(24), Some(16), false),
        (Some(8), Some(33), false),
    ] {
        let range = Range::new(Operator::In, cidr, min, max);
        assert_eq!(range.is_ok(), right, "{min:?} {max:?}");
    }
    let error = Range::new(Operator::In, cidr, Some(24), Some(16)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "prefix lengths from 24 to 16 are none: write 0 to 32, the smaller one first"
    );
}

#[test]
fn operations_change_what_they_say_and_nothing_else() {
    let rt: Community = "rt:64512:1".parse().unwrap();
    let (standard, large): (Community, Community) = ("1:2".parse().unwrap(), "1:2:3".parse().unwrap());
    let changed = |operations: &[Operation]| {
        let mut attributes = Attributes {
            as_path: AsPath {
                segments: [Segment::Sequence(vec![9])].into(),
            },
            communities: [7].into(),
            ..Attributes::default()
        };
        operations.iter().for_each(|it| it.apply(&mut attributes));
        attributes
    };
    let plain = changed(&[]);
    let added = changed(&[rt, standard, large, standard].map(Operation::AddCommunity));
    assert_eq!(
        added,
        Attributes {
            communities: [7, 0x1_0002].into(),
            extended_communities: [[0, 2, 0xfc, 0, 0, 0, 0, 1]].into(),
            large_communities: [[1, 2, 3]].into(),
            ..plain.clone()
        }
    );
    let set = changed(&[
        Operation::AddCommunity(rt),
        Operation::SetCommunities(vec![large]),
    ]);
    assert_eq!(
        set,
        Attributes {
            communities: Default::default(),
            large_communities: [[1, 2, 3]].into(),
            ..plain.clone()
        }
    );
    let prepended = changed(&[Operation::PrependAsPath(vec![1, 2])]);
    assert_eq!(prepended.as_path.to_string(), "1 2 9");
    let valued = changed(&[Operation::SetLocalPreference(5), Operation::SetMed(6)]);
    assert_eq!(
        valued,
        Attributes {
            local_pref: Some(5),
            med: Some(6),
            ..plain
        }
    );
}
