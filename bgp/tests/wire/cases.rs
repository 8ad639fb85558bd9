//! What an UPDATE means, by example: revised error handling, merges, next hops, ends, and what crashed or
//! misled other speakers.

use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use manx_bgp::wire::{
    self, Action, AsPath, Attributes, Community, Context, ExtendedCommunity, LargeCommunity, Message,
    NextHop, Notification, Problem, Reach, Segment, Update,
};
use manx_bgp::{Family, Prefix};
use proptest::prelude::*;

use crate::{attribute, attributes, context, nlri, unhex, update};

/// 10.0.0.0/8 as NLRI.
const TEN: [u8; 2] = [8, 10];

fn decode(octets: &Bytes, context: &Context) -> (Update, Vec<(Problem, Action)>) {
    wire::decode_update(octets, context).unwrap()
}

/// What one attribute beside the mandatory ones comes to.
fn with(attribute: &[u8], context: &Context) -> (Update, Vec<(Problem, Action)>) {
    decode(&update(&[], &attributes(attribute), &TEN), context)
}

fn sequence(numbers: &[u32]) -> Segment {
    Segment::Sequence(numbers.to_vec())
}

fn set(numbers: &[u32]) -> Segment {
    Segment::Set(numbers.to_vec())
}

/// RFC 7606 §2: all routes of the UPDATE, wherever they stand.
/// nasty case 36
#[test]
fn a_treated_as_withdrawn_update_withdraws_everything_it_names() {
    let reach = attribute(
        0x80,
        14,
        &unhex("0002011020010db8000000000000000000000001002020010db8"),
    );
    let unreach = attribute(0x80, 15, &unhex("0002012020010db9"));
    let bad_origin = attribute(0x40, 1, &[9]);
    let all = [unreach, reach, attributes(&bad_origin)].concat();
    let (update, problems) = decode(&update(&[8, 11], &all, &TEN), &context(true));
    let wanted = ["11.0.0.0/8", "2001:db9::/32", "10.0.0.0/8", "2001:db8::/32"].map(nlri);
    assert_eq!(
        update,
        Update {
            withdrawn: wanted.to_vec(),
            ..Update::default()
        }
    );
    let origin = Problem::InvalidOrigin {
        attribute: bad_origin.into(),
    };
    assert_eq!(problems, [(origin, Action::Withdraw)]);
}

/// RFC 7606 §3 (d): each of the three.
/// nasty cases 21, 25 and 26
#[test]
fn routes_without_their_mandatory_attributes_are_withdrawn() {
    let all = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9]),
        attribute(0x40, 3, &[192, 0, 2, 1]),
    ];
    for left_out in 0..3 {
        let mut some = all.clone();
        some[left_out] = Vec::new();
        let (update, problems) = decode(&update(&[], &some.concat(), &TEN), &context(true));
        let code = u8::try_from(left_out + 1).unwrap();
        assert_eq!(problems, [(Problem::MissingWellKnown { code }, Action::Withdraw)]);
        assert_eq!(update.withdrawn, [nlri("10.0.0.0/8")]);
        assert_eq!(update.reach, []);
    }
    // None at all.
    let (update, problems) = decode(&update(&[], &[], &TEN), &context(true));
    assert_eq!(problems.len(), 3);
    assert_eq!(update.withdrawn, [nlri("10.0.0.0/8")]);
}

/// RFC 4760 §3: it has its own.
/// nasty case 17
#[test]
fn a_multiprotocol_announcement_needs_no_next_hop_attribute() {
    let reach = attribute(0x80, 14, &unhex("0002011020010db8000000000000000000000001000820"));
    let all = [reach, attribute(0x40, 1, &[0]), attribute(0x40, 2, &[])].concat();
    let (decoded, problems) = decode(&update(&[], &all, &[]), &context(false));
    assert_eq!(problems, []);
    assert_eq!(decoded.reach[0].nlri, [nlri("2000::/8")]);
    // An external peer would have put its own AS into the path.
    let (decoded, problems) = decode(&update(&[], &all, &[]), &context(true));
    assert_eq!(problems, [(Problem::MalformedAsPath, Action::Withdraw)]);
    assert_eq!(decoded.withdrawn, [nlri("2000::/8")]);
}

/// RFC 7606 §3 (c): Optional and Transitive of each attribute.
/// nasty case 39
#[test]
fn every_flag_of_every_attribute_is_checked() {
    // Type code, value, the flags it must have, and whether Partial may be set.
    let path = [2, 1, 0, 0, 0xfd, 0xe9];
    let rows: [(u8, &[u8], u8, bool); 12] = [
        (1, &[0], 0x40, false),
        (2, &path, 0x40, false),
        (3, &[192, 0, 2, 1], 0x40, false),
        (4, &[0; 4], 0x80, false),
        (5, &[0; 4], 0x40, false),
        (6, &[], 0x40, false),
        (7, &[0, 0, 0, 1, 1, 1, 1, 1], 0xc0, true),
        (8, &[0; 4], 0xc0, true),
        (9, &[1; 4], 0x80, false),
        (10, &[1; 4], 0x80, false),
        (16, &[0; 8], 0xc0, true),
        (32, &[0; 12], 0xc0, true),
    ];
    for (code, value, right, partial) in rows {
        // The lower half means nothing, but for the length's width.
        for low in [0, 0x0f] {
            for high in [0, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0] {
                let (update, problems) = with(&attribute(high | low, code, value), &context(false));
                let fits = high == right || (partial && high == right | 0x20);
                assert_eq!(problems.is_empty(), fits, "attribute {code} flags {high:#x}");
                assert_eq!(update.reach.is_empty(), !fits, "attribute {code} flags {high:#x}");
            }
        }
    }
}

/// RFC 7606 §3 (e): a wrong length costs the routes.
/// RFC 7606 §3 (f): or just the attribute.
/// nasty cases 4 and 16
#[test]
fn every_length_of_every_attribute_is_checked() {
    // Type code, flags, right lengths, and what a wrong one costs.
    let one = |octets: u16| vec![octets];
    let times = |octets: u16| (1..=65_535 / octets).map(|n| n * octets).collect();
    let rows: [(u8, u8, Vec<u16>, Action); 11] = [
        (1, 0x40, one(1), Action::Withdraw),
        (3, 0x40, one(4), Action::Withdraw),
        (4, 0x80, one(4), Action::Withdraw),
        (5, 0x40, one(4), Action::Withdraw),
        (6, 0x40, one(0), Action::Discard),
        (7, 0xc0, one(8), Action::Discard),
        (8, 0xc0, times(4), Action::Withdraw),
        (9, 0x80, one(4), Action::Withdraw),
        (10, 0x80, times(4), Action::Withdraw),
        (16, 0xc0, times(8), Action::Withdraw),
        (32, 0xc0, times(12), Action::Withdraw),
    ];
    for (code, flags, right, action) in rows {
        for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 255, 256, 2_000] {
            let octets = vec![1; length.into()];
            let (update, problems) = with(&attribute(flags, code, &octets), &context(false));
            let cost = problems.iter().map(|(_, action)| *action).max();
            let wanted = (!right.contains(&length)).then_some(action);
            assert_eq!(cost, wanted, "attribute {code} of {length} octets");
            assert_eq!(update.reach.is_empty(), wanted == Some(Action::Withdraw));
        }
    }
}

/// RFC 7606 §3 (g): the first one.
#[test]
fn a_repeated_attribute_counts_once() {
    let twice = [
        attribute(0x80, 4, &[0, 0, 0, 1]),
        attribute(0x80, 4, &[0, 0, 0, 2]),
    ]
    .concat();
    let (update, problems) = with(&twice, &context(true));
    assert_eq!(update.attributes.med, Some(1));
    assert_eq!(problems, [(Problem::Duplicate { code: 4 }, Action::Discard)]);
}

/// RFC 7606 §4: the prefixes are still found.
#[test]
fn attributes_that_overrun_cost_the_routes_that_are_left() {
    for tail in [
        &[0x40][..],
        &[0x40, 99],
        &[0x50, 99, 0],
        &[0x40, 4, 5, 1],
        &[0xd0, 99, 0xff, 0xff],
    ] {
        let all = [&attributes(&[])[..], tail].concat();
        let (decoded, problems) = decode(&update(&[], &all, &TEN), &context(true));
        assert_eq!(decoded.withdrawn, [nlri("10.0.0.0/8")]);
        let code = tail.get(1).copied().unwrap_or(0);
        assert_eq!(problems, [(Problem::AttributeOverrun { code }, Action::Withdraw)]);
    }
}

/// RFC 4271 §5 (unknown): with Partial set.
/// RFC 7606 §7.13: they cannot be malformed.
/// nasty cases 1, 3 and 28
#[test]
fn unknown_attributes_are_relayed_octet_by_octet_if_they_are_transitive() {
    for (flags, kept) in [
        (0xc0, true),
        (0xe0, true),
        (0xcf, true),
        (0x80, false),
        (0xa0, false),
    ] {
        for code in [21, 28, 129, 255] {
            let (update, problems) = with(&attribute(flags, code, &[0xde, 0xad, 0]), &context(true));
            assert_eq!(problems, []);
            assert_eq!(update.attributes.unknown.len(), usize::from(kept));
            let octets = wire::encode(&Message::Update(update), &context(true));
            let relayed = attribute(0xe0, code, &[0xde, 0xad, 0]);
            assert_eq!(
                octets.windows(relayed.len()).any(|window| window == relayed),
                kept
            );
        }
    }
}

/// RFC 4271 §6.3 (unrecognized): 3/2 and the attribute.
/// nasty case 13
#[test]
fn an_unknown_well_known_attribute_ends_the_session_and_comes_back_whole() {
    for flags in [0x00, 0x20, 0x40, 0x60] {
        let unknown = attribute(flags, 99, &[1]);
        let octets = update(&[], &attributes(&unknown), &TEN);
        let error = wire::decode_update(&octets, &context(true)).unwrap_err();
        let told = Notification::from(error);
        assert_eq!((told.code, told.subcode, told.data), (3, 2, unknown.into()));
    }
}

/// nasty cases 2, 6 and 27: what is not used is not read.
#[test]
fn an_attribute_that_is_only_passed_on_has_its_flags_checked() {
    for code in [22, 23, 128] {
        let (decoded, problems) = with(&attribute(0xc0, code, &[0xde, 0xad]), &context(true));
        assert_eq!((decoded.attributes.unknown.len(), problems), (1, vec![]));
        let (decoded, _) = with(&attribute(0x80, code, &[0xde, 0xad]), &context(true));
        assert_eq!(decoded.withdrawn, [nlri("10.0.0.0/8")]);
    }
}

/// RFC 7606 §7.5: discarded, malformed or not.
/// RFC 7606 §7.9: discarded, malformed or not.
/// RFC 7606 §7.10: discarded, malformed or not.
/// RFC 4271 §5.1.5: a preference from outside is ignored.
#[test]
fn an_external_peer_has_no_say_in_internal_attributes() {
    // Even malformed ones do no harm (RFC 7606 §7.5, §7.9, §7.10).
    for (flags, code) in [(0x40, 5), (0x80, 9), (0x80, 10)] {
        for value in [&[0, 0, 0, 9][..], &[1]] {
            let (update, problems) = with(&attribute(flags, code, value), &context(true));
            assert_eq!(problems, [(Problem::Misplaced { code }, Action::Discard)]);
            assert_eq!(update.reach.len(), 1);
            let Attributes {
                local_pref,
                originator_id,
                cluster_list,
                ..
            } = update.attributes;
            assert_eq!((local_pref, originator_id, cluster_list), (None, None, [].into()));
        }
    }
}

/// RFC 4271 §5.1.5: a preference stays inside.
#[test]
fn internal_attributes_never_leave_to_an_external_peer() {
    let attributes = Attributes {
        as_path: AsPath {
            segments: [sequence(&[65_001])].into(),
        },
        local_pref: Some(100),
        originator_id: Some(Ipv4Addr::LOCALHOST),
        cluster_list: [Ipv4Addr::LOCALHOST].into(),
        ..Attributes::default()
    };
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let octets = wire::update::pack(&attributes, next_hop, &[nlri("10.0.0.0/8")], &context(true)).unwrap();
    let (update, problems) = decode(&octets, &context(true));
    assert_eq!(problems, []);
    assert_eq!(
        update.attributes,
        Attributes {
            as_path: attributes.as_path,
            ..Attributes::default()
        }
    );
}

/// RFC 7606 §5.4: ignored.
/// nasty cases 24, 31 and 12
#[test]
fn families_that_were_not_negotiated_are_never_looked_into() {
    let v4_only = Context {
        families: vec![Family::Ipv4Unicast],
        ..context(true)
    };
    let v6_only = Context {
        families: vec![Family::Ipv6Unicast],
        ..context(true)
    };
    let neither = Context {
        families: vec![],
        ..context(true)
    };
    // IPv6 and flow specification, with prefixes that are none.
    for family in [[0, 2, 1], [0, 1, 133], [0, 25, 70]] {
        for code in [14, 15] {
            let garbage = attribute(0x80, code, &[&family[..], &[0xff; 40]].concat());
            let (update, problems) = with(&garbage, &v4_only);
            assert_eq!(problems, []);
            assert_eq!((update.reach.len(), update.withdrawn.len()), (1, 0));
        }
    }
    for ignorant in [v6_only, neither] {
        let (update, problems) = decode(&update(&[33], &attributes(&[]), &[200, 1]), &ignorant);
        assert_eq!((update, problems), (Update::default(), vec![]));
    }
}

/// RFC 4724 §2: nothing else in it.
/// nasty case 26
#[test]
fn only_an_end_of_rib_is_one() {
    let empty_v6 = attribute(0x80, 15, &[0, 2, 1]);
    let empty_v4 = attribute(0x80, 15, &[0, 1, 1]);
    let of_others = attribute(0x80, 15, &[0, 25, 70]);
    let beside_others = [&empty_v6[..], &attribute(0x40, 1, &[0])].concat();
    let filled = attribute(0x80, 15, &[0, 2, 1, 8, 0x20]);
    let cases = [
        (update(&[], &[], &[]), Some(Family::Ipv4Unicast)),
        (update(&[], &empty_v4, &[]), Some(Family::Ipv4Unicast)),
        (update(&[], &empty_v6, &[]), Some(Family::Ipv6Unicast)),
        (update(&[], &of_others, &[]), None),
        (update(&[], &beside_others, &[]), None),
        (update(&[], &filled, &[]), None),
        (update(&TEN, &[], &[]), None),
        (update(&TEN, &empty_v6, &[]), None),
        (update(&[], &attributes(&[]), &TEN), None),
    ];
    for (octets, wanted) in cases {
        assert_eq!(decode(&octets, &context(true)).0.end_of_rib, wanted);
    }
}

/// RFC 2545 §3: 16 or 32 octets, and what the field makes of them.
#[test]
fn next_hops_come_in_all_forms_of_the_field() {
    let global = "20010db8000000000000000000000001";
    let link_local = "fe800000000000000000000000000001";
    let unspecified = "00000000000000000000000000000000";
    let v6 = |global: &str, link_local: Option<&str>| NextHop::V6 {
        global: global.parse().unwrap(),
        link_local: link_local.map(|address| address.parse().unwrap()),
    };
    let only_link_local = v6("::", Some("fe80::1"));
    let cases = [
        (vec![global], Some(v6("2001:db8::1", None))),
        (vec![global, link_local], Some(v6("2001:db8::1", Some("fe80::1")))),
        (vec![global, unspecified], Some(v6("2001:db8::1", None))),
        (vec![link_local], Some(only_link_local)),
        (vec![link_local, link_local], Some(only_link_local)),
        (vec![unspecified, link_local], Some(only_link_local)),
        // Nobody can be reached there.
        (vec![unspecified], None),
        (vec!["00000000000000000000000000000001"], None),
        (vec!["ff020000000000000000000000000001"], None),
    ];
    for (addresses, wanted) in cases {
        let address = unhex(&addresses.concat());
        let length = u8::try_from(address.len()).unwrap();
        let value = [&[0, 2, 1, length][..], &address, &[0, 8, 0x20]].concat();
        let (update, problems) = decode(
            &update(&[], &attributes(&attribute(0x80, 14, &value)), &[]),
            &context(true),
        );
        let nlri = vec![nlri("2000::/8")];
        match wanted {
            Some(next_hop) => assert_eq!(update.reach, [Reach { next_hop, nlri }]),
            None => {
                assert_eq!(update.withdrawn, nlri);
                assert!(matches!(
                    problems[..],
                    [(Problem::InvalidNextHop { .. }, Action::Withdraw)]
                ));
            }
        }
    }
}

/// RFC 4760 §3: any family.
#[test]
fn ipv4_prefixes_may_come_in_the_multiprotocol_attribute() {
    let value = [&[0, 1, 1, 4, 192, 0, 2, 7, 0][..], &TEN].concat();
    let (update, problems) = decode(
        &update(&[], &attributes(&attribute(0x80, 14, &value)), &[]),
        &context(true),
    );
    assert_eq!(problems, []);
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 7));
    assert_eq!(
        update.reach,
        [Reach {
            next_hop,
            nlri: vec![nlri("10.0.0.0/8")]
        }]
    );
}

/// RFC 7911 §3: in front of each prefix.
/// nasty case 46
#[test]
fn path_identifiers_are_read_where_negotiated_and_zero_is_one() {
    let add_path = Context {
        add_path_receive: vec![Family::Ipv4Unicast],
        ..context(true)
    };
    let octets = update(&[0, 0, 0, 0, 8, 11], &attributes(&[]), &[0, 0, 0, 7, 8, 10]);
    let (update, _) = decode(&octets, &add_path);
    assert_eq!(update.withdrawn[0].path_id, Some(0));
    assert_eq!(update.reach[0].nlri[0].path_id, Some(7));
    assert_eq!(update.reach[0].nlri[0].to_string(), "10.0.0.0/8 path 7");
}

/// What a two-octet peer's AS_PATH and AS4_PATH, as they stand on the wire, come to.
fn merged(as_path: &[u8], as4_path: &[u8]) -> Vec<Segment> {
    let old = Context {
        four_octet_as: false,
        ..context(false)
    };
    let all = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, as_path),
        attribute(0x40, 3, &[192, 0, 2, 1]),
        attribute(0xc0, 17, as4_path),
    ];
    decode(&update(&[], &all.concat(), &TEN), &old)
        .0
        .attributes
        .as_path
        .segments
        .into_vec()
}

/// RFC 6793 §4.2.3 (path): unless it is longer.
/// RFC 6793 §6 (malformed): and unless it is malformed.
/// nasty case 14
#[test]
fn as4_path_replaces_the_tail_of_as_path() {
    // AS 5 of two octets, then AS_TRANS twice; AS4_PATH knows the two.
    let path = [2, 3, 0, 5, 0x5b, 0xa0, 0x5b, 0xa0];
    let tail = [2, 2, 0, 1, 0, 1, 0, 1, 0, 2];
    assert_eq!(merged(&path, &tail), [sequence(&[5, 65_537, 65_538])]);
    // As long; longer, so not believed; absent segments of a confederation are not counted.
    let head = [2, 2, 0x5b, 0xa0, 0x5b, 0xa0];
    assert_eq!(merged(&head, &tail), [sequence(&[65_537, 65_538])]);
    assert_eq!(merged(&[2, 1, 0, 5], &tail), [sequence(&[5])]);
    let confederation = [&[3, 1, 0, 0, 0, 9][..], &tail].concat();
    assert_eq!(merged(&path, &confederation), [sequence(&[5, 65_537, 65_538])]);
    // A set counts as one and is never cut.
    let with_set = [2, 1, 0, 5, 1, 2, 0, 6, 0, 7, 2, 1, 0x5b, 0xa0];
    let one = [2, 1, 0, 1, 0, 1];
    assert_eq!(
        merged(&with_set, &one),
        [sequence(&[5]), set(&[6, 7]), sequence(&[65_537])]
    );
    // Malformed and empty ones are nothing.
    for nothing in [&[][..], &[2, 0], &[9, 1, 0, 0, 0, 1], &[2, 2, 0, 0, 0, 1]] {
        assert_eq!(merged(&[2, 1, 0, 5], nothing), [sequence(&[5])]);
    }
}

/// RFC 6793 §4.2.3 (aggregator): both are void.
#[test]
fn a_new_aggregator_hides_what_older_attributes_said() {
    let old = Context {
        four_octet_as: false,
        ..context(false)
    };
    let decoded = |aggregator: u16| {
        let all = [
            attribute(0x40, 1, &[0]),
            attribute(0x40, 2, &[2, 1, 0x5b, 0xa0]),
            attribute(0x40, 3, &[192, 0, 2, 1]),
            attribute(0xc0, 7, &[&aggregator.to_be_bytes()[..], &[1, 1, 1, 1]].concat()),
            attribute(0xc0, 17, &[2, 1, 0, 1, 0, 1]),
            attribute(0xc0, 18, &[0, 1, 0, 2, 2, 2, 2, 2]),
        ];
        let attributes = decode(&update(&[], &all.concat(), &TEN), &old).0.attributes;
        (attributes.aggregator, attributes.as_path.segments)
    };
    let identifier = |octet| Ipv4Addr::new(octet, octet, octet, octet);
    assert_eq!(
        decoded(23_456),
        (Some((65_538, identifier(2))), [sequence(&[65_537])].into())
    );
    assert_eq!(
        decoded(7),
        (Some((7, identifier(1))), [sequence(&[23_456])].into())
    );
}

/// RFC 6793 §6 (new): discarded.
#[test]
fn four_octet_attributes_between_four_octet_speakers_are_dropped() {
    for (code, value) in [(17, &[2, 1, 0, 0, 0, 1][..]), (18, &[0, 0, 0, 1, 1, 1, 1, 1])] {
        let (update, problems) = with(&attribute(0xc0, code, value), &context(true));
        assert_eq!(problems, [(Problem::Misplaced { code }, Action::Discard)]);
        assert_eq!(update.attributes.as_path.segments, [sequence(&[65_001])].into());
    }
}

/// RFC 4271 §5.1.2 (long): 255 to a segment.
/// RFC 6793 §4.2.2: AS_TRANS, and the truth beside it.
/// nasty cases 5 and 64
#[test]
fn a_long_path_is_split_and_one_too_long_is_refused() {
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let path = |hops| Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(vec![70_000; hops])].into(),
        },
        ..Attributes::default()
    };
    let old = Context {
        four_octet_as: false,
        ..context(true)
    };
    let octets = wire::update::pack(&path(600), next_hop, &[nlri("10.0.0.0/8")], &old).unwrap();
    assert_eq!(decode(&octets, &old).0.attributes, path(600));
    let refused = wire::update::pack(&path(4_000), next_hop, &[nlri("10.0.0.0/8")], &old).unwrap_err();
    assert!(
        matches!(
            refused,
            wire::update::Unsendable::TooLong {
                octets: 24_083,
                max_message: 4_096
            }
        ),
        "{refused}"
    );
    // As a message it is the withdrawal of what cannot be announced.
    let reach = vec![Reach {
        next_hop,
        nlri: vec![nlri("10.0.0.0/8")],
    }];
    let update = Update {
        reach,
        attributes: path(4_000),
        ..Update::default()
    };
    let (sent, _) = decode(&wire::encode(&Message::Update(update), &old), &old);
    assert_eq!(
        sent,
        Update {
            withdrawn: vec![nlri("10.0.0.0/8")],
            ..Update::default()
        }
    );
}

#[test]
fn a_next_hop_of_the_other_family_is_refused() {
    let v6 = NextHop::V6 {
        global: "2001:db8::1".parse().unwrap(),
        link_local: None,
    };
    let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    for (prefix, next_hop) in [("10.0.0.0/8", v6), ("2001:db8::/32", v4)] {
        let refused = wire::update::pack(&Attributes::default(), next_hop, &[nlri(prefix)], &context(false));
        assert!(matches!(refused, Err(wire::update::Unsendable::NextHop { .. })));
    }
}

#[test]
fn a_prefix_past_its_length_keeps_no_stray_bits() {
    let (update, _) = decode(&update(&[], &attributes(&[]), &[9, 10, 0xff, 0]), &context(true));
    assert_eq!(update.reach[0].nlri, ["10.128.0.0/9", "0.0.0.0/0"].map(nlri));
}

/// RFC 4271 §4.1: by the length in the header.
#[test]
fn a_stream_is_cut_wherever_it_was_torn() {
    let keepalive = wire::encode(&Message::Keepalive, &context(false));
    let end = wire::update::end_of_rib(Family::Ipv6Unicast);
    let stream = [&keepalive[..], &end, &keepalive].concat();
    for torn in 0..stream.len() {
        let mut buf = BytesMut::new();
        let mut frames = Vec::new();
        for piece in [&stream[..torn], &stream[torn..]] {
            buf.extend_from_slice(piece);
            while let Some(frame) = wire::frame(&mut buf, 4_096).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&keepalive, &end, &keepalive]);
    }
}

#[test]
fn values_read_as_operators_write_them() {
    let path = AsPath {
        segments: vec![sequence(&[65_001, 65_002]), set(&[1, 2])].into(),
    };
    assert_eq!(path.to_string(), "65001 65002 {1 2}");
    assert_eq!(AsPath::default().to_string(), "");
    assert_eq!(Community(64_512 << 16 | 1).to_string(), "64512:1");
    assert_eq!(LargeCommunity([1, 2, 3]).to_string(), "1:2:3");
    let extended = |octets| ExtendedCommunity(octets).to_string();
    assert_eq!(extended([0, 2, 0xfc, 0, 0, 0, 0, 100]), "rt:64512:100");
    assert_eq!(extended([1, 3, 192, 0, 2, 1, 0, 9]), "soo:192.0.2.1:9");
    assert_eq!(extended([2, 2, 0, 1, 0, 0, 0, 9]), "rt:65536:9");
    assert_eq!(extended([0x40, 4, 0, 0, 0, 0, 0, 1]), "0x4004000000000001");
    let link_local = NextHop::V6 {
        global: "::".parse().unwrap(),
        link_local: "fe80::1".parse().ok(),
    };
    assert_eq!(link_local.to_string(), "fe80::1");
}

/// RFC 9774 §3 (send): our AS goes into a sequence, never into a set.
#[test]
fn a_path_knows_its_length_its_neighbor_and_its_loops() {
    let mut path = AsPath {
        segments: vec![set(&[1, 2]), sequence(&[3])].into(),
    };
    assert_eq!((path.hops(), path.neighbor()), (2, None));
    path.prepend(9);
    path.prepend(8);
    assert_eq!(
        path.segments,
        [sequence(&[8, 9]), set(&[1, 2]), sequence(&[3])].into()
    );
    assert_eq!((path.hops(), path.neighbor()), (4, Some(8)));
    assert!(path.contains(2) && !path.contains(4));
}

proptest! {
    #![proptest_config(crate::proptest_config(256))]

    /// nasty cases 2, 3, 4, 7, 20 and 22
    #[test]
    fn random_octets_in_a_known_attribute_never_cost_the_session(
        code in prop_oneof![1..=10_u8, 16..=18_u8, 22..=23_u8, 25..=26_u8, Just(29), Just(32), Just(35), Just(40)],
        flags in any::<u8>(),
        value in proptest::collection::vec(any::<u8>(), 0..300),
        external in any::<bool>(),
    ) {
        let octets = update(&[], &attributes(&attribute(flags & 0xe0, code, &value)), &TEN);
        let (update, _) = decode(&octets, &context(external));
        let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
        let named = update.withdrawn.iter().chain(update.reach.iter().flat_map(|reach| &reach.nlri));
        prop_assert_eq!(named.map(|nlri| nlri.prefix).collect::<Vec<_>>(), [prefix]);
    }
}
