//! What is encoded decodes to the same value, whatever it is; what is not a message never panics.

use bytes::{Bytes, BytesMut};
use manx_bgp::Family;
use manx_bgp::wire::{self, Context, Message, Nlri, Reach, Update};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{fuzz, strategies};

/// Decodes a stream of whole messages.
fn frames(octets: &Bytes, context: &Context) -> Vec<Bytes> {
    let mut buf = BytesMut::from(&octets[..]);
    let mut out = Vec::new();
    while let Some(frame) = wire::frame(&mut buf, context.max_message).unwrap() {
        out.push(frame);
    }
    assert!(buf.is_empty());
    out
}

/// UPDATEs of our own, of which none may have a problem.
fn updates(octets: &Bytes, context: &Context) -> Vec<Update> {
    let decode = |frame| {
        let (update, problems) = wire::decode_update(&frame, context).unwrap();
        assert_eq!(problems, []);
        update
    };
    frames(octets, context).into_iter().map(decode).collect()
}

/// A message that is one message on the wire, and its context.
fn single() -> impl Strategy<Value = Message> {
    prop_oneof![
        strategies::open().prop_map(Message::Open),
        strategies::notification().prop_map(Message::Notification),
        strategies::refresh().prop_map(Message::RouteRefresh),
        Just(Message::Keepalive),
    ]
}

/// A context, and what to announce in it.
fn announcement(
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = (Context, wire::Attributes, wire::NextHop, Vec<Nlri>)> {
    let family = (strategies::context(), strategies::family(), any::<bool>());
    family.prop_flat_map(move |(context, family, extended)| {
        let of = if extended && context.extended_next_hop.contains(&family) {
            Family::Ipv6Unicast
        } else {
            family
        };
        (
            strategies::attributes(&context),
            strategies::next_hop(of),
            strategies::nlri(family, &context, count.clone()),
        )
            .prop_map(move |(attributes, next_hop, nlri)| (context.clone(), attributes, next_hop, nlri))
    })
}

proptest! {
    #![proptest_config(crate::proptest_config(256))]

    #[test]
    fn a_message_decodes_to_itself(message in single(), context in strategies::context()) {
        let octets = wire::encode(&message, &context);
        let kind = octets[18];
        prop_assert_eq!(wire::decode(&octets, &context), Ok(message.clone()));
        prop_assert_eq!(kind, message.kind());
    }

    #[test]
    fn an_update_decodes_to_itself((context, attributes, next_hop, nlri) in announcement(1..20)) {
        let update = Update {
            reach: vec![Reach { next_hop, nlri }],
            attributes,
            ..Update::default()
        };
        let octets = wire::encode(&Message::Update(update.clone()), &context);
        prop_assert_eq!(updates(&octets, &context), vec![update]);
    }

    #[test]
    fn withdrawals_of_both_families_decode_to_themselves(
        (context, v4, v6) in strategies::context().prop_flat_map(|context| (
            Just(context.clone()),
            strategies::nlri(Family::Ipv4Unicast, &context, 0..1_500),
            strategies::nlri(Family::Ipv6Unicast, &context, 0..500),
        ))
    ) {
        let both = [v4, v6].concat();
        let octets = wire::update::pack_withdrawn(&both, &context);
        let withdrawn = updates(&octets, &context).into_iter().flat_map(|update| {
            assert_eq!(update.reach, []);
            update.withdrawn
        });
        prop_assert_eq!(withdrawn.collect::<Vec<_>>(), both);
    }

    /// nasty case 64
    #[test]
    fn packing_respects_the_limit_and_loses_nothing(
        (context, attributes, next_hop, nlri) in announcement(0..2_000)
    ) {
        let octets = wire::update::pack(&attributes, next_hop, &nlri, &context).unwrap();
        let frames = frames(&octets, &context);
        for pair in frames.windows(2) {
            // The next prefix of this family would not have fitted.
            prop_assert!(pair[0].len() + 21 > context.max_message, "{} octets only", pair[0].len());
        }
        let mut announced = Vec::new();
        for update in updates(&octets, &context) {
            prop_assert_eq!(&update.attributes, &attributes);
            prop_assert_eq!(update.reach.len(), 1);
            prop_assert_eq!(update.reach[0].next_hop, next_hop);
            announced.extend_from_slice(&update.reach[0].nlri);
        }
        prop_assert_eq!(announced, nlri);
    }

    /// nasty cases 18, 22 and 40
    #[test]
    fn arbitrary_octets_never_panic(octets in vec(any::<u8>(), 0..200)) {
        fuzz::message(&octets);
        fuzz::open(&octets);
        fuzz::update(&octets);
    }
}

proptest! {
    #![proptest_config(crate::proptest_config(24))]

    /// nasty cases 18, 22, 23 and 35
    #[test]
    fn truncations_and_single_octet_changes_never_panic(
        (context, attributes, next_hop, nlri) in announcement(1..4),
        message in single(),
        replacement in any::<u8>(),
        bits in any::<u8>(),
    ) {
        let update = wire::update::pack(&attributes, next_hop, &nlri, &context).unwrap();
        for octets in [update, wire::encode(&message, &context)] {
            for cut in 0..octets.len() {
                let mut truncated = [&[bits], &octets[..cut]].concat();
                fuzz::message(&truncated);
                // The same with a header that knows of it.
                if let Some(length) = truncated.get_mut(17..19) {
                    length.copy_from_slice(&u16::try_from(cut).unwrap().to_be_bytes());
                }
                fuzz::message(&truncated);
                for octet in [replacement, octets[cut].wrapping_add(1), octets[cut].wrapping_sub(1), 0, 255] {
                    let mut changed = [&[bits], &octets[..]].concat();
                    changed[cut + 1] = octet;
                    fuzz::message(&changed);
                }
            }
        }
    }
}

/// RFC 4724 §2: for each family.
#[test]
fn the_end_of_rib_of_each_family_decodes_to_itself() {
    for family in Family::ALL {
        let octets = wire::update::end_of_rib(family);
        let wanted = Update {
            end_of_rib: Some(family),
            ..Update::default()
        };
        assert_eq!(
            updates(&octets, &crate::context(true)),
            std::slice::from_ref(&wanted)
        );
        assert_eq!(
            wire::encode(&Message::Update(wanted), &crate::context(true)),
            octets
        );
    }
}
