//! Attributes to octets, in order of type code (RFC 4271 §5, appendix F.3).

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::as_path::Width;
use super::{Attributes, Origin, UnknownAttribute, code, facts, flag};
use crate::wire::open::two_octets;
use crate::wire::{AS_TRANS, Context};

/// Appends attributes; the unknown ones that come before each known one slip in.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut BytesMut,
    unknown: &'a [UnknownAttribute],
    context: &'a Context,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut BytesMut, unknown: &'a [UnknownAttribute], context: &'a Context) -> Self {
        Self {
            out,
            unknown,
            context,
        }
    }

    /// Appends a known attribute, if this session is one for it.
    pub(crate) fn put(&mut self, code: u8, value: &[u8]) {
        self.put_unknown(code);
        if let Some(facts) = facts::of(code).filter(|facts| facts.belongs(self.context)) {
            self.put_raw(facts.flags(), code, value);
        }
    }

    /// Appends the unknown attributes below `code`, saying that we did not know them.
    fn put_unknown(&mut self, code: u8) {
        let (before, after) = self
            .unknown
            .split_at(self.unknown.partition_point(|other| other.code < code));
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

    /// Appends the unknown attributes that are left.
    fn finish(mut self) {
        let rest = std::mem::take(&mut self.unknown);
        for attribute in rest {
            self.put_raw(attribute.flags | flag::PARTIAL, attribute.code, &attribute.value);
        }
    }
}

/// Appends all attributes; `next_hop` is the one that belongs in NEXT_HOP.
pub(crate) fn put_all(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    context: &Context,
    out: &mut BytesMut,
) {
    let mut writer = Writer::new(out, &attributes.unknown, context);
    let width = if context.four_octet_as {
        Width::Four
    } else {
        Width::Two
    };
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    writer.put(code::ORIGIN, &[origin]);
    writer.put(
        code::AS_PATH,
        &octets(|value| attributes.as_path.put(width, value)),
    );
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
    put_list(
        &mut writer,
        code::COMMUNITIES,
        &attributes.communities,
        |asn, value| value.put_u32(*asn),
    );
    if let Some(originator) = attributes.originator_id {
        writer.put(code::ORIGINATOR_ID, &originator.octets());
    }
    put_list(
        &mut writer,
        code::CLUSTER_LIST,
        &attributes.cluster_list,
        |id, value| {
            value.put_slice(&id.octets());
        },
    );
    put_list(
        &mut writer,
        code::EXTENDED_COMMUNITIES,
        &attributes.extended_communities,
        |octets, value| {
            value.put_slice(octets);
        },
    );
    if attributes.as_path.needs_four_octets() {
        writer.put(
            code::AS4_PATH,
            &octets(|value| attributes.as_path.put(Width::Four, value)),
        );
    }
    if let Some((asn, identifier)) = attributes
        .aggregator
        .filter(|(asn, _)| two_octets(*asn) == AS_TRANS)
    {
        writer.put(code::AS4_AGGREGATOR, &aggregator(asn, identifier, Width::Four));
    }
    put_list(
        &mut writer,
        code::LARGE_COMMUNITY,
        &attributes.large_communities,
        |parts, value| {
            parts.iter().for_each(|part| value.put_u32(*part));
        },
    );
    writer.finish();
}

/// Appends a list attribute, unless the list is empty: an empty one is an error (RFC 7606 §7.8).
fn put_list<T>(writer: &mut Writer<'_>, code: u8, items: &[T], put: impl Fn(&T, &mut BytesMut)) {
    if !items.is_empty() {
        writer.put(
            code,
            &octets(|value| items.iter().for_each(|item| put(item, value))),
        );
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
