//! Attributes to octets, in order of type code (RFC 4271 §5, appendix F.3).

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::as_path::Width;
use super::{Attributes, Origin, UnknownAttribute, code, facts, flag, unique};
use crate::wire::open::two_octets;
use crate::wire::{AS_TRANS, Context};

/// Flags, type code and a length of one octet.
const SHORT_HEADER: usize = 3;

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
        self.put_with(code, |out| out.put_slice(value));
    }

    /// Appends a known attribute whose value `put` appends, if this session is one for it.
    pub(crate) fn put_with(&mut self, code: u8, put: impl FnOnce(&mut BytesMut)) {
        self.put_unknown(code.into());
        let Some(facts) = facts::of(code).filter(|facts| facts.belongs(self.context)) else {
            return;
        };
        let partial = if self.partial >> code & 1 == 1 {
            flag::PARTIAL
        } else {
            0
        };
        let start = self.out.len();
        self.out
            .put_slice(&[(facts.flags() | partial) & !flag::EXTENDED, code, 0]);
        put(self.out);
        let end = self.out.len();
        let length = end - start - SHORT_HEADER;
        if let Ok(length) = u8::try_from(length) {
            self.out[start + 2] = length;
        } else {
            // A second octet for the length; one beyond 65,535 makes the message too long, which the packer sees.
            self.out.put_u8(0);
            self.out
                .copy_within(start + SHORT_HEADER..end, start + SHORT_HEADER + 1);
            self.out[start] |= flag::EXTENDED;
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            self.out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }

    /// Appends a list, unless it is empty: a list attribute without items is an error (RFC 7606 §7.8).
    fn put_list<T, O: AsRef<[u8]>>(&mut self, code: u8, items: &[T], octets: impl Fn(&T) -> O) {
        if !items.is_empty() {
            self.put_with(code, |out| {
                for item in items {
                    out.put_slice(octets(item).as_ref());
                }
            });
        }
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
    writer.put(code::ORIGIN, &[origin(attributes.origin)]);
    writer.put_with(code::AS_PATH, |out| attributes.as_path.put(width, out));
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
        writer.put_with(code::AGGREGATOR, |out| {
            put_aggregator(asn, identifier, width, out)
        });
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
    put_four_octets(attributes, &mut writer);
    let large_communities = unique(&attributes.large_communities);
    writer.put_list(code::LARGE_COMMUNITY, &large_communities, |parts| {
        parts.map(u32::to_be_bytes).concat()
    });
    if let Some(asn) = attributes.only_to_customer {
        writer.put(code::ONLY_TO_CUSTOMER, &asn.to_be_bytes());
    }
    writer.put_unknown(u16::MAX);
}

/// For peers that know AS numbers of two octets alone, what those cannot say (RFC 6793 §4.2.2).
fn put_four_octets(attributes: &Attributes, writer: &mut Writer<'_>) {
    if attributes.as_path.needs_four_octets() {
        writer.put_with(code::AS4_PATH, |out| attributes.as_path.put(Width::Four, out));
    }
    let wide = |(asn, _): &(u32, Ipv4Addr)| two_octets(*asn) == AS_TRANS;
    if let Some((asn, identifier)) = attributes.aggregator.filter(wide) {
        writer.put_with(code::AS4_AGGREGATOR, |out| {
            put_aggregator(asn, identifier, Width::Four, out)
        });
    }
}

fn origin(origin: Origin) -> u8 {
    match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}

fn put_aggregator(asn: u32, identifier: Ipv4Addr, width: Width, out: &mut BytesMut) {
    match width {
        Width::Two => out.put_u16(two_octets(asn)),
        Width::Four => out.put_u32(asn),
    }
    out.put_slice(&identifier.octets());
}
