//! The decoder of BGP messages: it never panics, and what it understood it can say again.

use bytes::{BufMut, Bytes, BytesMut};
use manx_bgp::Family;
use manx_bgp::wire::{self, Context, Message, Nlri, Reach, Update};

/// A session's context, chosen by the bits of an octet.
fn context(bits: u8) -> Context {
    let families = |first: u8| {
        let chosen = Family::ALL.into_iter().zip(first..);
        chosen
            .filter(|(_, bit)| bits >> bit & 1 == 1)
            .map(|(family, _)| family)
            .collect::<Vec<_>>()
    };
    let add_path = families(4);
    Context {
        four_octet_as: bits & 1 == 0,
        external: bits >> 1 & 1 == 1,
        families: families(2),
        add_path_receive: add_path.clone(),
        add_path_send: add_path,
        extended_next_hop: if bits >> 7 == 1 {
            Family::ALL.to_vec()
        } else {
            vec![]
        },
        max_message: if bits >> 6 & 1 == 1 { 65_535 } else { 4_096 },
    }
}

/// A stream of octets: whatever it holds is framed and decoded, after a first octet for the context.
pub fn message(data: &[u8]) {
    let Some((bits, stream)) = data.split_first() else {
        return;
    };
    let context = context(*bits);
    let mut buf = BytesMut::from(stream);
    while let Ok(Some(frame)) = wire::frame(&mut buf, context.max_message) {
        check(&frame, &context);
    }
    check(&Bytes::copy_from_slice(stream), &context);
}

/// The body of an OPEN.
pub fn open(data: &[u8]) {
    check(&framed(1, data), &Context::default());
}

/// The body of an UPDATE, after a first octet for the context.
pub fn update(data: &[u8]) {
    if let Some((bits, body)) = data.split_first() {
        check(&framed(2, body), &context(*bits));
    }
}

/// Path attributes, after an octet for the context: alone, as a change of nothing; and with a prefix that they say
/// the way to, as all attributes but the next hops should have it.
pub fn attributes(data: &[u8]) {
    let Some((bits, attributes)) = data.split_first() else {
        return;
    };
    for nlri in [&[][..], &[16, 10, 1]] {
        check(&framed(2, &update_of(&[], attributes, nlri)), &context(*bits));
    }
}

/// Prefixes, after an octet for the context: wherever an UPDATE may have some, of both families.
pub fn nlri(data: &[u8]) {
    let Some((bits, nlri)) = data.split_first() else {
        return;
    };
    let common = [0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
    let next_hop = [0x40, 3, 4, 10, 0, 0, 1];
    let mut bodies = vec![
        update_of(nlri, &[], &[]),
        update_of(&[], &[&common[..], &next_hop].concat(), nlri),
    ];
    for (afi, next_hop) in [(1, &[10, 0, 0, 1][..]), (2, &[0x20; 16])] {
        let length = [u8::try_from(next_hop.len()).unwrap_or(u8::MAX)];
        let reach = [&[0, afi, 1][..], &length, next_hop, &[0], nlri].concat();
        let unreach = [&[0, afi, 1][..], nlri].concat();
        bodies.push(update_of(
            &[],
            &[&common[..], &extended(14, &reach)].concat(),
            &[],
        ));
        bodies.push(update_of(&[], &extended(15, &unreach), &[]));
    }
    for body in bodies {
        check(&framed(2, &body), &context(*bits));
    }
}

/// Capabilities, in one optional parameter of either form (RFC 5492, RFC 9072).
pub fn capabilities(data: &[u8]) {
    let head = [4, 0xfd, 0xe8, 0, 90, 10, 0, 0, 1];
    let short = &data[..data.len().min(253)];
    let length = u8::try_from(short.len()).unwrap_or(u8::MAX);
    let plain = [&head[..], &[length + 2, 2, length], short].concat();
    let long = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let outer = long.saturating_add(3).to_be_bytes();
    let extended = [&head[..], &[255, 255], &outer, &[2], &long.to_be_bytes(), data].concat();
    for body in [plain, extended] {
        check(&framed(1, &body), &Context::default());
    }
}

/// The body of an UPDATE with right lengths.
fn update_of(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
    [
        &length(withdrawn)[..],
        withdrawn,
        &length(attributes),
        attributes,
        nlri,
    ]
    .concat()
}

/// An optional attribute whose length takes two octets.
fn extended(code: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x90, code][..], &length, value].concat()
}

/// A whole message with a right header.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let length = 19 + body.len();
    let mut out = BytesMut::with_capacity(length);
    out.put_bytes(0xff, 16);
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

/// Decodes a message; if it means something, its own encoding must mean the same.
fn check(frame: &Bytes, context: &Context) {
    match wire::decode(frame, context) {
        Ok(Message::Update(update)) => check_update(&update, context),
        Ok(message) => {
            let again = wire::decode(&wire::encode(&message, context), context);
            assert_eq!(again, Ok(message));
        }
        Err(error) => {
            let notification = Message::Notification(error.into());
            let again = wire::decode(&wire::encode(&notification, context), context);
            assert!(matches!(again, Ok(Message::Notification(_))), "{again:?}");
        }
    }
}

/// The same for an UPDATE, which may take several messages.
fn check_update(update: &Update, context: &Context) {
    // Attributes that just fit beside few prefixes need not fit again: a merged AS4_PATH takes more room.
    let sendable = update.reach.iter().all(|Reach { next_hop, nlri }| {
        wire::update::pack(&update.attributes, *next_hop, nlri, context).is_ok()
    });
    if !sendable {
        return;
    }
    let mut buf = BytesMut::from(wire::encode(&Message::Update(update.clone()), context));
    let mut again = Update::default();
    while let Some(frame) = wire::frame(&mut buf, context.max_message).expect("our own header is right") {
        let (part, problems) = wire::decode_update(&frame, context).expect("our own message is right");
        assert_eq!(problems, []);
        again.withdrawn.extend(part.withdrawn);
        if !part.reach.is_empty() {
            again.attributes = part.attributes;
        }
        again.reach.extend(part.reach);
        again.end_of_rib = again.end_of_rib.or(part.end_of_rib);
    }
    assert!(buf.is_empty(), "an incomplete message of our own");
    assert_eq!(sorted(&again), sorted(update));
    if !update.reach.is_empty() {
        assert_eq!(again.attributes, with_partial(update).attributes);
    }
    assert_eq!(again.end_of_rib, update.end_of_rib);
}

/// What is withdrawn and what is announced, in an order of its own.
fn sorted(update: &Update) -> (Vec<Nlri>, Vec<(wire::NextHop, Nlri)>) {
    let mut withdrawn = update.withdrawn.clone();
    withdrawn.sort();
    let announced = update.reach.iter();
    let mut announced = announced
        .flat_map(|reach| reach.nlri.iter().map(|nlri| (reach.next_hop, *nlri)))
        .collect::<Vec<_>>();
    announced.sort();
    (withdrawn, announced)
}

/// The update as others get it: unknown attributes say so.
fn with_partial(update: &Update) -> Update {
    let mut update = update.clone();
    for attribute in &mut update.attributes.unknown {
        attribute.flags |= 0x20;
    }
    update
}
