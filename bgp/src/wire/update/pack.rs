//! UPDATEs to octets: many prefixes in as few messages as hold them.
//!
//! Every message says one thing: it withdraws or announces, of one family, and has its multiprotocol
//! attribute in front (RFC 7606 §5.1).

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::Update;
use crate::Family;
use crate::wire::Context;
use crate::wire::attr::{self, Attributes, Writer, code};
use crate::wire::header::{self, HEADER, Kind};
use crate::wire::nlri::{self, NextHop, Nlri};

/// Header, Withdrawn Routes Length and Total Path Attribute Length.
const FIXED: usize = HEADER + 4;
/// A multiprotocol attribute's header with the long length, AFI and SAFI.
const MULTIPROTOCOL: usize = 4 + 3;

/// Octets that attributes usually take.
const USUAL: usize = 128;
/// The longest prefix, with an identifier.
pub(crate) const LONGEST: usize = 4 + 1 + 16;

/// Why routes cannot be announced on a session; their prefixes have to be withdrawn there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsendable {
    /// The attributes alone fill a message.
    #[error("{octets} octets of attributes leave no room for a prefix in a message of {max_message} octets")]
    TooLong {
        /// The attributes' length.
        octets: usize,
        /// The longest message.
        max_message: usize,
    },
    /// A next hop of the other family, and no agreement that it may be (RFC 8950).
    #[error("{family} prefixes cannot have the next hop {next_hop}")]
    NextHop {
        /// The prefixes' family.
        family: Family,
        /// The next hop.
        next_hop: NextHop,
    },
}

/// The messages that announce `nlri`, one after another.
///
/// # Errors
/// None of the prefixes can be announced so.
pub fn pack(
    attributes: &Attributes,
    next_hop: NextHop,
    nlri: &[Nlri],
    context: &Context,
) -> Result<Bytes, Unsendable> {
    let mut out = BytesMut::new();
    for (family, nlri) in by_family(nlri) {
        let shared = Shared::new(attributes, next_hop, family, context)?;
        if nlri.iter().any(|nlri| !shared.has_room_for(nlri)) {
            return Err(shared.too_long());
        }
        shared.put(&nlri, &mut out);
    }
    Ok(out.freeze())
}

/// What messages that announce prefixes of one family with one route have in common, coded for a session.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    attributes: BytesMut,
    place: Place,
    /// Octets of prefixes that a message has room for.
    room: usize,
    context: &'a Context,
}

impl<'a> Shared<'a> {
    /// Codes it.
    ///
    /// # Errors
    /// No prefix of the family can be announced so.
    pub(crate) fn new(
        attributes: &Attributes,
        next_hop: NextHop,
        family: Family,
        context: &'a Context,
    ) -> Result<Self, Unsendable> {
        let (place, classic) = match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(address)) => (Place::Nlri, Some(address)),
            (Family::Ipv4Unicast, NextHop::V6 { .. }) if !context.extended_next_hop.contains(&family) => {
                return Err(Unsendable::NextHop { family, next_hop });
            }
            (Family::Ipv6Unicast, NextHop::V4(_)) => return Err(Unsendable::NextHop { family, next_hop }),
            (Family::Ipv4Unicast | Family::Ipv6Unicast, NextHop::V6 { .. }) => {
                let mut address = BytesMut::new();
                nlri::put_next_hop(next_hop, &mut address);
                // After the next hop there is a reserved octet.
                address.put_u8(0);
                (Place::Reach(family, address.freeze()), None)
            }
        };
        let mut shared = Self {
            attributes: BytesMut::with_capacity(USUAL),
            place,
            room: 0,
            context,
        };
        attr::put_all(attributes, classic, context, &mut shared.attributes);
        shared.room = limit(context).saturating_sub(shared.overhead());
        Ok(shared)
    }

    /// The octets of a message beside its prefixes, no fewer than there will be.
    pub(crate) fn overhead(&self) -> usize {
        let multiprotocol = match &self.place {
            Place::Withdrawn | Place::Nlri => 0,
            Place::Unreach(_) => MULTIPROTOCOL,
            Place::Reach(_, next_hop) => MULTIPROTOCOL + next_hop.len(),
        };
        FIXED + multiprotocol + self.attributes.len()
    }

    /// How many octets of prefixes a message has room for.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// The octets that a prefix takes.
    pub(crate) fn size(&self, nlri: &Nlri) -> usize {
        nlri.size(self.context.add_path_send.contains(&nlri.prefix.family()))
    }

    /// Whether a message has room for a prefix.
    pub(crate) fn has_room_for(&self, nlri: &Nlri) -> bool {
        self.size(nlri) <= self.room
    }

    /// That it has none.
    pub(crate) fn too_long(&self) -> Unsendable {
        Unsendable::TooLong {
            octets: self.attributes.len(),
            max_message: self.context.max_message,
        }
    }

    /// Appends the messages that announce these; there is room for each.
    pub(crate) fn put(&self, nlri: &[Nlri], out: &mut BytesMut) {
        put_messages(&self.place, &self.attributes, nlri, self.room, self.context, out);
    }
}

/// The messages that withdraw `nlri`, one after another.
#[must_use]
pub fn pack_withdrawn(nlri: &[Nlri], context: &Context) -> Bytes {
    let mut out = BytesMut::new();
    put_withdrawn(nlri, context, &mut out);
    out.freeze()
}

/// Appends these messages.
pub(crate) fn put_withdrawn(nlri: &[Nlri], context: &Context, out: &mut BytesMut) {
    for (family, nlri) in by_family(nlri) {
        let (place, overhead) = match family {
            Family::Ipv4Unicast => (Place::Withdrawn, 0),
            Family::Ipv6Unicast => (Place::Unreach(family), MULTIPROTOCOL),
        };
        let room = limit(context).saturating_sub(FIXED + overhead);
        put_messages(&place, &[], &nlri, room, context, out);
    }
}

/// The message that ends a family's initial routes (RFC 4724 §2).
#[must_use]
pub fn end_of_rib(family: Family) -> Bytes {
    let mut out = BytesMut::new();
    let place = match family {
        Family::Ipv4Unicast => Place::Withdrawn,
        Family::Ipv6Unicast => Place::Unreach(family),
    };
    put_message(&place, &[], &[], &Context::default(), &mut out);
    out.freeze()
}

/// All of an UPDATE: withdrawals, announcements, end mark.
pub(in crate::wire) fn encode(update: &Update, context: &Context) -> Bytes {
    let mut out = BytesMut::from(pack_withdrawn(&update.withdrawn, context));
    for reach in &update.reach {
        let announced = pack(&update.attributes, reach.next_hop, &reach.nlri, context);
        out.extend(announced.unwrap_or_else(|_| pack_withdrawn(&reach.nlri, context)));
    }
    if let Some(family) = update.end_of_rib {
        out.extend(end_of_rib(family));
    }
    out.freeze()
}

/// Where in a message prefixes stand.
#[derive(Debug)]
enum Place {
    /// In Withdrawn Routes.
    Withdrawn,
    /// In MP_UNREACH_NLRI.
    Unreach(Family),
    /// After the attributes.
    Nlri,
    /// In MP_REACH_NLRI, after these octets of next hop and reserved.
    Reach(Family, Bytes),
}

/// The longest message: what was negotiated, as far as a length of two octets can say.
fn limit(context: &Context) -> usize {
    context.max_message.min(u16::MAX.into())
}

fn by_family(nlri: &[Nlri]) -> impl Iterator<Item = (Family, Cow<'_, [Nlri]>)> {
    Family::ALL.into_iter().filter_map(|family| {
        let is_of = |nlri: &&Nlri| nlri.prefix.family() == family;
        let of_family = match nlri.iter().filter(is_of).count() {
            0 => return None,
            all if all == nlri.len() => Cow::Borrowed(nlri),
            _ => nlri.iter().filter(is_of).copied().collect(),
        };
        Some((family, of_family))
    })
}

/// Appends as many messages as `nlri` takes, with at most `room` octets of prefixes in each.
fn put_messages(
    place: &Place,
    attributes: &[u8],
    mut nlri: &[Nlri],
    room: usize,
    context: &Context,
    out: &mut BytesMut,
) {
    while let Some(first) = nlri.first() {
        let add_path = context.add_path_send.contains(&first.prefix.family());
        let mut used = 0;
        let fitting = nlri.iter().take_while(|nlri| {
            used += nlri.size(add_path);
            used <= room
        });
        // At least one, so that this ends; the callers see to it that one fits.
        let (now, later) = nlri.split_at(fitting.count().max(1));
        put_message(place, attributes, now, context, out);
        nlri = later;
    }
}

fn put_message(place: &Place, attributes: &[u8], nlri: &[Nlri], context: &Context, out: &mut BytesMut) {
    let put_prefixes = |out: &mut BytesMut| {
        for nlri in nlri {
            nlri.put(context.add_path_send.contains(&nlri.prefix.family()), out);
        }
    };
    let put_multiprotocol = |code, family: &Family, next_hop: &[u8], out: &mut BytesMut| {
        Writer::new(out, context).put_with(code, |out| {
            out.put_u16(family.afi());
            out.put_u8(family.safi());
            out.put_slice(next_hop);
            put_prefixes(out);
        });
    };
    header::put(out, Kind::Update, |out| match place {
        Place::Withdrawn => {
            put_sized(out, put_prefixes);
            out.put_u16(0);
        }
        Place::Unreach(family) => {
            out.put_u16(0);
            put_sized(out, |out| {
                put_multiprotocol(code::MP_UNREACH_NLRI, family, &[], out);
            });
        }
        Place::Nlri => {
            out.put_u16(0);
            put_sized(out, |out| out.put_slice(attributes));
            put_prefixes(out);
        }
        Place::Reach(family, next_hop) => {
            out.put_u16(0);
            put_sized(out, |out| {
                put_multiprotocol(code::MP_REACH_NLRI, family, next_hop, out);
                out.put_slice(attributes);
            });
        }
    });
}

/// Appends what `put` appends, after its length in two octets.
fn put_sized(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u16(0);
    put(out);
    let length = u16::try_from(out.len() - start - 2).unwrap_or(u16::MAX);
    out[start..start + 2].copy_from_slice(&length.to_be_bytes());
}
