//! Attributes to octets, in order of type code (RFC 4271 §5, appendix F.3).

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::as_path::Width;
use super::{Attributes, Origin, UnknownAttribute, code, facts, flag, unique};
use crate::wire::open::two_octets;
use crate::wire::{AS_TRANS, Context};

/// Appends attributes; the unknown ones that come before each known one slip in.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut BytesMut,
    /// As in [`Attributes::partial`].
    partial: u64,
    unknown: &'a [UnknownAttribute],
    context: &'a Context,
}

impl<'a> Writer<'a> {
    /// For one message's multiprotocol attribute.
    pub(crate) fn new(out: &'a mut BytesMut, context: &'a Context) -> Self {
        Self {
            out,
            partial: 0,
            unknown: &[],
            context,
        }
    }

    /// Appends a known attribute, if this session is one for it.
    pub(crate) fn put(&mut self, code: u8, value: &[u8]) {
        self.put_unknown(code.into());
        if let Some(facts) = facts::of(code).filter(|facts| facts.belongs(self.context)) {
            let partial = if self.partial >> code & 1 == 1 {
                flag::PARTIAL
            } else {
                0
            };
            self.put_raw(facts.flags() | partial, code, value);
        }
    }

    /// Appends a list, unless it is empty: a list attribute without items is an error (RFC 7606 §7.8).
    fn put_list<T, O: AsRef<[u8]>>(&mut self, code: u8, items: &[T], octets: impl Fn(&T) -> O) {
        if items.is_empty() {
            return;
        }
        let mut value = Vec::new();
        for item in items {
            value.extend_from_slice(octets(item).as_ref());
        }
        self.put(code, &value);
    }

    /// Appends the unknown attributes of type codes below `end`, saying that we did not know them.
    fn put_unknown(&mut self, end: u16) {
        let below = self.unknown.partition_point(|other| u16::from(other.code) < end);
        let (before, after) = self.unknown.split_at(below);
        for attribute in before {
            self.put_raw(attribute.flags | flag::PARTIAL, attribute.code, &attribute.value);
        }
        self.unknown = after;
    }

    /// Appends an attribute. A value beyond 65,535 octets makes the message too long, which the packer sees.
    fn put_raw(&mut self, flags: u8, code: u8, value: &[u8]) {
        if let Ok(length) = u8::try_from(value.len()) {
            self.out.put_slice(&[flags & !flag::EXTENDED, code, length]);
        } else {
            self.out.put_slice(&[flags | flag::EXTENDED, code]);
            self.out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        }
        self.out.put_slice(value);
    }
}

/// Appends all attributes; `next_hop` is the one that belongs in NEXT_HOP.
pub(crate) fn put_all(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    context: &Context,
    out: &mut BytesMut,
) {
    let mut writer = Writer {
        out,
        partial: attributes.partial,
        unknown: &attributes.unknown,
        context,
    };
    let width = Width::of(context);
    let path = |width| octets(|value| attributes.as_path.put(width, value));
    writer.put(code::ORIGIN, &[origin(attributes.origin)]);
    writer.put(code::AS_PATH, &path(width));
    if let Some(next_hop) = next_hop {
        writer.put(code::NEXT_HOP, &next_hop.octets());
    }
    if let Some(med) = attributes.med {
        writer.put(code::MULTI_EXIT_DISC, &med.to_be_bytes());
    }
    if let Some(local_pref) = attributes.local_pref {
        writer.put(code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        writer.put(code::ATOMIC_AGGREGATE, &[]);
    }
    if let Some((asn, identifier)) = attributes.aggregator {
        writer.put(code::AGGREGATOR, &aggregator(asn, identifier, width));
    }
    writer.put_list(code::COMMUNITIES, &attributes.communities, |community| {
        community.to_be_bytes()
    });
    if let Some(originator) = attributes.originator_id {
        writer.put(code::ORIGINATOR_ID, &originator.octets());
    }
    writer.put_list(code::CLUSTER_LIST, &attributes.cluster_list, Ipv4Addr::octets);
    writer.put_list(
        code::EXTENDED_COMMUNITIES,
        &attributes.extended_communities,
        |octets| *octets,
    );
    if attributes.as_path.needs_four_octets() {
        writer.put(code::AS4_PATH, &path(Width::Four));
    }
    let wide = |(asn, _): &(u32, Ipv4Addr)| two_octets(*asn) == AS_TRANS;
    if let Some((asn, identifier)) = attributes.aggregator.filter(wide) {
        writer.put(code::AS4_AGGREGATOR, &aggregator(asn, identifier, Width::Four));
    }
    let large_communities = unique(&attributes.large_communities);
    writer.put_list(code::LARGE_COMMUNITY, &large_communities, |parts| {
        parts.map(u32::to_be_bytes).concat()
    });
    if let Some(asn) = attributes.only_to_customer {
        writer.put(code::ONLY_TO_CUSTOMER, &asn.to_be_bytes());
    }
    writer.put_unknown(u16::MAX);
}

fn origin(origin: Origin) -> u8 {
    match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}

fn octets(put: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut value = BytesMut::new();
    put(&mut value);
    value
}

fn aggregator(asn: u32, identifier: Ipv4Addr, width: Width) -> BytesMut {
    octets(|value| {
        match width {
            Width::Two => value.put_u16(two_octets(asn)),
            Width::Four => value.put_u32(asn),
        }
        value.put_slice(&identifier.octets());
    })
}
