//! UPDATEs as octets: laid out by hand before the clock runs, and read with as little work as counting takes.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::lines::{GROUP, Line, Peer, node};

/// The length of a message's header.
pub(crate) const HEADER: usize = 19;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

const AS_PATH: u8 = 2;

/// Where the prefixes begin; each takes 256 addresses, whatever its length.
const FIRST: u32 = 16 << 24;

fn message(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + body.len());
    out.put_bytes(0xff, 16);
    out.put_u16(u16::try_from(HEADER + body.len()).expect("a message is short"));
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

/// An OPEN with IPv4 unicast, four-octet AS numbers and route refresh.
pub(crate) fn open(peer: &Peer) -> Bytes {
    const TRANS: u16 = 23_456;
    const HOLD_TIME: u16 = 180;
    let mut body = BytesMut::new();
    body.put_u8(4);
    body.put_u16(u16::try_from(peer.asn).unwrap_or(TRANS));
    body.put_u16(HOLD_TIME);
    body.put_slice(&peer.address.octets());
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend(peer.asn.to_be_bytes());
    let length = u8::try_from(capabilities.len()).expect("three capabilities");
    body.put_slice(&[length + 2, 2, length]);
    body.put_slice(&capabilities);
    message(OPEN, &body)
}

/// A KEEPALIVE.
pub(crate) fn keepalive() -> Bytes {
    message(KEEPALIVE, &[])
}

/// All that a peer announces, group by group.
pub(crate) fn announcements(line: &Line, peer: &Peer, internal: bool) -> Bytes {
    let mut out = BytesMut::new();
    for range in &peer.announces {
        let mut next = range.start;
        while next < range.end {
            let group = next / line.group;
            let end = ((group + 1) * line.group).min(range.end);
            let preferred = next >= line.contested || line.best(group) == peer.asn;
            let from = if line.reflected { node(group) } else { peer.address };
            let mut attributes = attributes(peer, from, group, internal, preferred);
            if line.reflected {
                attributes.put_slice(&[0x80, 9, 4]);
                attributes.put_slice(&from.octets());
                attributes.put_slice(&[0x80, 10, 4]);
                attributes.put_slice(&peer.address.octets());
            }
            out.put_slice(&update(&attributes, next..end, line.prefix_length));
            next = end;
        }
    }
    out.freeze()
}

/// Attributes as routes have them: a path of a few ASes, two communities; no two groups' are equal.
fn attributes(peer: &Peer, next_hop: Ipv4Addr, group: u32, internal: bool, preferred: bool) -> BytesMut {
    let mut path = Vec::new();
    if !internal {
        path.push(peer.asn);
    }
    path.extend([4_200_000_000 + group, 64_700 + group % 100]);
    if !preferred {
        path.push(64_800);
    }
    let mut out = BytesMut::new();
    out.put_slice(&[0x40, 1, 1, 0]);
    let hops = u8::try_from(path.len()).expect("a short path");
    out.put_slice(&[0x40, AS_PATH, 2 + 4 * hops, 2, hops]);
    path.into_iter().for_each(|asn| out.put_u32(asn));
    out.put_slice(&[0x40, 3, 4]);
    out.put_slice(&next_hop.octets());
    if internal {
        out.put_slice(&[0x40, 5, 4, 0, 0, 0, 100]);
    }
    out.put_slice(&[0xc0, 8, 8]);
    out.put_u32(64_700 << 16 | 1);
    out.put_u32(64_700 << 16 | group & 0xff);
    out
}

fn update(attributes: &[u8], numbers: Range<u32>, length: u8) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(0);
    body.put_u16(u16::try_from(attributes.len()).expect("a few attributes"));
    body.put_slice(attributes);
    for number in numbers {
        body.put_u8(length);
        let address = Ipv4Addr::from_bits(FIRST + (number << 8));
        body.put_slice(&address.octets()[..usize::from(length.div_ceil(8))]);
    }
    message(UPDATE, &body)
}

/// What a message is for whoever counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    Open,
    Keepalive,
    Update(Update<'a>),
    /// Code and subcode.
    Notification(u8, u8),
    Other,
}

/// An UPDATE's three fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Update<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    announced: &'a [u8],
}

/// The first message in what has been read, and its length; none while it is incomplete.
pub(crate) fn next(octets: &[u8]) -> Option<(Seen<'_>, usize)> {
    let length = usize::from(u16::from_be_bytes([*octets.get(16)?, *octets.get(17)?]));
    let kind = *octets.get(18)?;
    let body = octets.get(HEADER..length)?;
    let seen = match kind {
        OPEN => Seen::Open,
        KEEPALIVE => Seen::Keepalive,
        NOTIFICATION => Seen::Notification(body[0], body[1]),
        UPDATE => Seen::Update(fields(body)?),
        _ => Seen::Other,
    };
    Some((seen, length))
}

fn fields(body: &[u8]) -> Option<Update<'_>> {
    let field = |octets: &'_ [u8]| {
        let (length, rest) = octets.split_first_chunk::<2>()?;
        Some((usize::from(u16::from_be_bytes(*length)), rest.len()))
    };
    let (withdrawn, _) = field(body)?;
    let (withdrawn, rest) = body[2..].split_at_checked(withdrawn)?;
    let (attributes, _) = field(rest)?;
    let (attributes, announced) = rest[2..].split_at_checked(attributes)?;
    Some(Update {
        withdrawn,
        attributes,
        announced,
    })
}

/// Gives the numbers of the prefixes in a field.
fn numbers(mut field: &[u8], mut each: impl FnMut(u32)) {
    while let [length, rest @ ..] = field {
        let size = usize::from(length.div_ceil(8));
        let mut octets = [0; 4];
        let Some((prefix, rest)) = rest.split_at_checked(size).filter(|_| size <= 4) else {
            return;
        };
        octets[..size].copy_from_slice(prefix);
        each(u32::from_be_bytes(octets).wrapping_sub(FIRST) >> 8);
        field = rest;
    }
}

impl Update<'_> {
    /// The second AS of the path: whom the speaker has it from.
    fn second_as(&self) -> Option<u32> {
        let mut rest = self.attributes;
        while let [flags, code, length, more @ ..] = rest {
            let (length, value) = if flags & 0x10 == 0 {
                (usize::from(*length), more)
            } else {
                let (low, value) = more.split_first()?;
                (usize::from(*length) << 8 | usize::from(*low), value)
            };
            let (value, next) = value.split_at_checked(length)?;
            if *code == AS_PATH {
                return Some(u32::from_be_bytes(*value.get(6..10)?.first_chunk()?));
            }
            rest = next;
        }
        None
    }
}

/// What a peer holds of the speaker's announcements, as far as it is what it shall hold.
#[derive(Debug)]
pub(crate) struct Table {
    right: Vec<u64>,
    count: u32,
    /// Announcements, each as often as it came.
    pub(crate) announcements: u64,
    /// Whose path of each group of contested prefixes is right.
    best: Rc<[u32]>,
    /// What the peer announces itself: some speakers tell it so, and it counts for nothing.
    own: Vec<Range<u32>>,
}

impl Table {
    /// An empty one for as many prefixes.
    pub(crate) fn new(prefixes: u32, best: Rc<[u32]>, own: Vec<Range<u32>>) -> Self {
        Self {
            right: vec![0; prefixes as usize / 64 + 1],
            count: 0,
            announcements: 0,
            best,
            own,
        }
    }

    /// How many prefixes are as they shall be.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Takes an UPDATE in.
    pub(crate) fn take(&mut self, update: &Update<'_>) {
        numbers(update.withdrawn, |number| self.set(number, false));
        if update.announced.is_empty() {
            return;
        }
        let from = if self.best.is_empty() {
            None
        } else {
            update.second_as()
        };
        numbers(update.announced, |number| {
            let best = self.best.get((number / GROUP) as usize);
            self.set(number, best.is_none_or(|best| from == Some(*best)));
            self.announcements += 1;
        });
    }

    fn set(&mut self, number: u32, right: bool) {
        let Some(word) = self.right.get_mut(number as usize / 64) else {
            return;
        };
        let bit = 1 << (number % 64);
        let was = *word & bit != 0;
        if was != right && !self.own.iter().any(|own| own.contains(&number)) {
            *word ^= bit;
            self.count = if right { self.count + 1 } else { self.count - 1 };
        }
    }
}

/// Whose path of each contested group is right.
pub(crate) fn best_paths(line: &Line) -> Rc<[u32]> {
    (0..line.contested / GROUP)
        .map(|group| line.best(group))
        .collect()
}
