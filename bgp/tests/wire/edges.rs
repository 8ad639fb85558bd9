//! What an UPDATE means at the edges: whose next hop is whose, what cannot be routed, what others marked.

use std::net::Ipv4Addr;

use bytes::Bytes;
use manx_bgp::Family;
use manx_bgp::wire::{
    self, Action, AsPath, Attributes, Context, Error, Message, NextHop, Notification, Problem, Reach,
    Segment, Update,
};

use crate::{attribute, attributes, context, nlri, unhex, update};

/// 10.0.0.0/8 as NLRI.
const TEN: [u8; 2] = [8, 10];

fn decode(octets: &Bytes, context: &Context) -> (Update, Vec<(Problem, Action)>) {
    wire::decode_update(octets, context).unwrap()
}

/// A session on which IPv4 prefixes may have IPv6 next hops.
fn extended() -> Context {
    Context {
        extended_next_hop: vec![Family::Ipv4Unicast],
        ..context(true)
    }
}

fn v6(global: &str, link_local: Option<&str>) -> NextHop {
    NextHop::V6 {
        global: global.parse().unwrap(),
        link_local: link_local.map(|address| address.parse().unwrap()),
    }
}

/// An UPDATE with 10.0.0.0/8 in MP_REACH_NLRI behind this next hop.
fn reach(next_hop: &str) -> Bytes {
    let next_hop = unhex(next_hop);
    let length = u8::try_from(next_hop.len()).unwrap();
    let value = [&[0, 1, 1, length][..], &next_hop, &[0], &TEN].concat();
    update(&[], &attributes(&attribute(0x80, 14, &value)), &[])
}

/// RFC 8950 §3: 16 or 32 octets.
/// RFC 7606 §7.11: other lengths reset.
#[test]
fn ipv4_prefixes_have_ipv6_next_hops_where_that_is_agreed() {
    let global = "20010db8000000000000000000000001";
    let link_local = "fe800000000000000000000000000001";
    let cases = [
        (global.to_owned(), v6("2001:db8::1", None)),
        (
            format!("{global}{link_local}"),
            v6("2001:db8::1", Some("fe80::1")),
        ),
        (link_local.to_owned(), v6("::", Some("fe80::1"))),
        ("c0000207".to_owned(), NextHop::V4(Ipv4Addr::new(192, 0, 2, 7))),
    ];
    for (octets, next_hop) in cases {
        let (update, problems) = decode(&reach(&octets), &extended());
        assert_eq!(problems, []);
        let nlri = vec![nlri("10.0.0.0/8")];
        assert_eq!(update.reach, [Reach { next_hop, nlri }]);
        let plain = wire::decode_update(&reach(&octets), &context(true));
        if octets.len() == 8 {
            assert_eq!(plain, Ok((update.clone(), vec![])));
        } else {
            assert_eq!(plain, Err(Problem::MultiprotocolFraming { code: 14 }.into()));
        }
        let sent = wire::encode(&Message::Update(update.clone()), &extended());
        assert_eq!(decode(&sent, &extended()), (update, vec![]));
    }
    for length in [0, 1, 15, 17, 24, 31, 33, 48] {
        let framing = Problem::MultiprotocolFraming { code: 14 };
        let wrong = reach(&"20".repeat(length));
        assert_eq!(wire::decode_update(&wrong, &extended()), Err(framing.into()));
    }
}

/// RFC 8950 §4: not otherwise.
/// RFC 7606 §5.1: one family a message, its attribute first.
#[test]
fn an_ipv6_next_hop_leaves_with_ipv4_prefixes_only_where_that_is_agreed() {
    let attributes = Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(vec![65_001])].into(),
        },
        ..Attributes::default()
    };
    let next_hop = v6("2001:db8::1", None);
    let both = ["10.0.0.0/8", "2001:db8::/32"].map(nlri);
    let octets = wire::update::pack(&attributes, next_hop, &both, &extended()).unwrap();
    // One message per family, with the multiprotocol attribute in front and no NEXT_HOP.
    let first: usize = u16::from_be_bytes([octets[16], octets[17]]).into();
    let (first, second) = octets.split_at(first);
    assert_eq!(first[23..30], [0x80, 14, 23, 0, 1, 1, 16]);
    assert_eq!(second[23..30], [0x80, 14, 26, 0, 2, 1, 16]);
    for message in [first, second] {
        let message = Bytes::copy_from_slice(message);
        assert_eq!(decode(&message, &extended()).0.reach[0].next_hop, next_hop);
        assert!(!message.windows(3).any(|window| window == [0x40, 3, 4]));
    }
    let refused = wire::update::pack(&attributes, next_hop, &both, &context(true));
    assert!(matches!(refused, Err(wire::update::Unsendable::NextHop { .. })));
}

/// RFC 4271 §6.3 (next hop): only the routes.
#[test]
fn a_next_hop_attribute_is_only_for_the_prefixes_of_its_own_field() {
    // RFC 4760 §3: beside MP_REACH_NLRI it is ignored; RFC 4271 §6.3: it never ends a session.
    let multiprotocol = attribute(0x80, 14, &unhex("0002011020010db8000000000000000000000001000820"));
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
        let unusable = attributes(&attribute(0x40, 3, &address));
        let both = [&unusable[..], &multiprotocol].concat();
        let (update_v6, problems) = decode(&update(&[], &both, &[]), &context(true));
        assert_eq!((update_v6.reach.len(), problems), (1, vec![]));
        assert_eq!(decode(&update(&[], &unusable, &[]), &context(true)).1, []);
        let (withdrawn, problems) = decode(&update(&[], &both, &TEN), &context(true));
        assert_eq!((withdrawn.reach.len(), withdrawn.withdrawn.len()), (0, 2));
        assert_eq!(
            problems[0].0.code().zip(Some(problems[0].1)),
            Some((3, Action::Withdraw))
        );
    }
}

/// RFC 7606 §5.3: incorrect, so that what they hold is not known.
#[test]
fn multiprotocol_attributes_with_wrong_flags_end_the_session() {
    // RFC 7606 §5.3, §3 j: whether or not the message's own field has prefixes.
    let reach = unhex("0002011020010db8000000000000000000000001000820");
    for (code, value) in [(14, &reach[..]), (15, &[0, 2, 1, 8, 0x20])] {
        for flags in [0x00, 0x20, 0x40, 0x60, 0xa0, 0xc0, 0xe0] {
            let wrong = attribute(flags, code, value);
            for nlri in [&TEN[..], &[]] {
                let error = wire::decode_update(&update(&[], &attributes(&wrong), nlri), &context(true));
                let told = Notification::from(error.unwrap_err());
                assert_eq!((told.code, told.subcode, told.data), (3, 4, wrong.clone().into()));
            }
        }
    }
}

/// RFC 4271 §6.3 (semantics): ignored, and the session stays.
#[test]
fn prefixes_that_cannot_be_routed_are_ignored_and_the_others_kept() {
    // 224.0.0.0/4, 239.1.0.0/16, 127.0.0.0/8; 10.0.0.0/8, 224.0.0.0/3, 0.0.0.0/0.
    let field = [4, 224, 16, 239, 1, 8, 127, 8, 10, 3, 224, 0];
    let (v4, problems) = decode(&update(&[], &attributes(&[]), &field), &context(true));
    let kept = ["10.0.0.0/8", "224.0.0.0/3", "0.0.0.0/0"].map(nlri);
    assert_eq!(v4.reach[0].nlri, kept);
    let first = Problem::StrayPrefix {
        prefix: nlri("224.0.0.0/4").prefix,
    };
    assert_eq!(problems, [(first, Action::Discard)]);

    // ff00::/8, fe80::/64, ::1/128; 2000::/3.
    let loopback = "80".to_owned() + &"00".repeat(15) + "01";
    let field = format!("08ff40fe80000000000000{loopback}0320");
    let value = format!("0002011020010db800000000000000000000000100{field}");
    let all = attributes(&attribute(0x80, 14, &unhex(&value)));
    let (v6, problems) = decode(&update(&[], &all, &[]), &context(true));
    assert_eq!(v6.reach[0].nlri, [nlri("2000::/3")]);
    assert_eq!(problems.len(), 1);

    // With none left there is nothing to announce, and no reason to end the session (RFC 7606 §5.2).
    let bad = attributes(&attribute(0x40, 1, &[9]));
    let (nothing, _) = decode(&update(&[], &bad, &[4, 224]), &context(true));
    assert_eq!(nothing, Update::default());
}

/// RFC 4271 §5 (partial): on what is known, too.
#[test]
fn partial_stays_set_on_what_is_known() {
    let marked = [
        (7, vec![0, 0, 0, 1, 1, 1, 1, 1]),
        (8, vec![0; 4]),
        (16, vec![0; 8]),
        (32, vec![0; 12]),
        (35, vec![0, 0, 0, 1]),
    ];
    for (code, value) in marked {
        for flags in [0xc0, 0xe0] {
            let own = attribute(flags, code, &value);
            let (decoded, problems) = decode(&update(&[], &attributes(&own), &TEN), &context(true));
            assert_eq!(problems, []);
            let sent = wire::encode(&Message::Update(decoded), &context(true));
            assert!(sent.windows(own.len()).any(|window| window == own), "{own:02x?}");
        }
    }
}

/// RFC 8092 §3: neither kept nor sent twice.
#[test]
fn a_large_community_counts_once() {
    // RFC 8092 §3: duplicates are removed without a word, and never sent.
    let (one, two) = ([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], [9; 12]);
    let own = attribute(0xc0, 32, &[one, two, one, two].concat());
    let (decoded, problems) = decode(&update(&[], &attributes(&own), &TEN), &context(true));
    assert_eq!(problems, []);
    let communities = &decoded.attributes.large_communities;
    assert_eq!(communities[..], [[1, 2, 3], [0x0909_0909; 3]]);
    let twice = Attributes {
        large_communities: [[1, 2, 3]; 2].into(),
        ..decoded.attributes
    };
    let next_hop = decoded.reach[0].next_hop;
    let sent = wire::update::pack(&twice, next_hop, &decoded.reach[0].nlri, &context(true)).unwrap();
    let wanted = attribute(0xc0, 32, &one);
    assert!(sent.windows(wanted.len()).any(|window| window == wanted));
}

/// RFC 9234 §5 (length): four octets.
/// nasty case 8
#[test]
fn only_to_customer_is_an_as_number() {
    for (value, wanted) in [
        (&[0, 0, 0xfd, 0xe9][..], Some(65_001)),
        (&[0xff; 4], Some(u32::MAX)),
        (&[0; 4], None),
        (&[], None),
    ] {
        let own = attribute(0xc0, 35, value);
        let (update, problems) = decode(&update(&[], &attributes(&own), &TEN), &context(true));
        assert_eq!(update.attributes.only_to_customer, wanted);
        assert_eq!(
            (problems.is_empty(), update.reach.len()),
            (wanted.is_some(), wanted.iter().len())
        );
    }
}

/// RFC 8654 §5: 1/2 where it was not agreed.
/// nasty case 30
#[test]
fn a_path_of_sixteen_thousand_hops_takes_an_extended_message() {
    let long = Context {
        max_message: 65_535,
        ..context(true)
    };
    let attributes = Attributes {
        as_path: AsPath {
            segments: [Segment::Sequence(vec![65_001; 16_000])].into(),
        },
        ..Attributes::default()
    };
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let octets = wire::update::pack(&attributes, next_hop, &[nlri("10.0.0.0/8")], &long).unwrap();
    let (update, problems) = decode(&octets, &long);
    assert_eq!((update.attributes, problems), (attributes, vec![]));
    let length = u16::try_from(octets.len()).unwrap();
    assert_eq!(
        wire::decode_update(&octets, &context(true)),
        Err(Error::MessageLength { length })
    );
}

/// RFC 4760 §4: no other attribute is needed.
#[test]
fn a_withdrawal_by_the_multiprotocol_attribute_stands_alone() {
    for external in [false, true] {
        let octets = update(&[], &attribute(0x80, 15, &[0, 2, 1, 8, 0x20]), &[]);
        let (update, problems) = decode(&octets, &context(external));
        assert_eq!((update.withdrawn, problems), (vec![nlri("2000::/8")], vec![]));
        assert_eq!((update.reach, update.end_of_rib), (vec![], None));
    }
}
