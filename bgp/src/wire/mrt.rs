//! The RIB as a file of the Multi-Threaded Routing Toolkit: TABLE_DUMP_V2 (RFC 6396 §4.3), with path identifiers
//! where peers gave some (RFC 8050 §4).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::attr::{self, Writer, code};
use super::nlri::put_next_hop;
use super::{Context, NextHop, Nlri};
use crate::{Family, PathSnapshot, PeerKey, PeerSnapshot};

/// The record type.
const TABLE_DUMP_V2: u16 = 13;

/// Who there is, before any path.
const PEER_INDEX_TABLE: u16 = 1;

/// In a peer's type: its address is IPv6; its AS number has four octets (§4.3.1).
const IPV6: u8 = 0x01;
const FOUR_OCTET_AS: u8 = 0x02;

/// Peer, or nobody for our own prefixes → its number in the index, and since when its paths may be there.
type Known = BTreeMap<Option<PeerKey>, (u16, u32)>;

/// Whose table it is, and when it was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewpoint {
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our AS.
    pub asn: u32,
    /// Now.
    pub now: Instant,
    /// The same in seconds of Unix time.
    pub unix_time: u32,
}

/// The table as a file. Peer 0 is ourselves, for our own prefixes; the others are `peers`, in their order. Paths of
/// a peer that is not among them are left out. As the time at which a path came stands the time since which its
/// session is up: it came no earlier.
#[must_use]
pub fn table_dump(from: Viewpoint, peers: &[PeerSnapshot], paths: &[PathSnapshot]) -> Bytes {
    let mut out = BytesMut::new();
    // 65,535 others are as many as an index of two octets reaches.
    let peers = &peers[..peers.len().min(u16::MAX.into())];
    record(from, PEER_INDEX_TABLE, &index(from, peers), &mut out);
    let others = peers.iter().zip(1..);
    let others = others.map(|(peer, number)| (Some(peer.key), (number, up_since(from, peer))));
    let known: Known = [(None, (0, from.unix_time))].into_iter().chain(others).collect();
    let mut sequence = 0_u32;
    for of_prefix in paths.chunk_by(|a, b| a.prefix == b.prefix) {
        for identified in [false, true] {
            let Some(entries) = entries(&known, of_prefix, identified) else {
                continue;
            };
            let prefix = of_prefix[0].prefix;
            let mut body = BytesMut::new();
            body.put_u32(sequence);
            Nlri {
                path_id: None,
                prefix,
            }
            .put(false, &mut body);
            body.put_slice(&entries);
            record(from, subtype(prefix.family(), identified), &body, &mut out);
            sequence = sequence.wrapping_add(1);
        }
    }
    out.freeze()
}

/// The paths of a prefix that have an identifier, or that have none, after their number; none without any.
fn entries(known: &Known, paths: &[PathSnapshot], identified: bool) -> Option<BytesMut> {
    let paths = paths.iter().filter(|path| path.path_id.is_some() == identified);
    let found: Vec<_> = paths
        .filter_map(|path| Some((path, known.get(&path.peer)?)))
        .take(u16::MAX.into())
        .collect();
    let mut out = BytesMut::new();
    out.put_u16(u16::try_from(found.len()).unwrap_or(u16::MAX));
    for (path, (peer, since)) in &found {
        entry(path, *peer, *since, &mut out);
    }
    (!found.is_empty()).then_some(out)
}

/// RFC 6396 §4.3.2, RFC 8050 §4.1.
fn subtype(family: Family, identified: bool) -> u16 {
    match (family, identified) {
        (Family::Ipv4Unicast, false) => 2,
        (Family::Ipv6Unicast, false) => 4,
        (Family::Ipv4Unicast, true) => 8,
        (Family::Ipv6Unicast, true) => 10,
    }
}

/// A record with its header (§2).
fn record(from: Viewpoint, subtype: u16, body: &[u8], out: &mut BytesMut) {
    out.put_u32(from.unix_time);
    out.put_u16(TABLE_DUMP_V2);
    out.put_u16(subtype);
    out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put_slice(body);
}

/// The peers (§4.3.1).
fn index(from: Viewpoint, peers: &[PeerSnapshot]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&from.router_id.octets());
    // No name of a view.
    out.put_u16(0);
    out.put_u16(u16::try_from(peers.len() + 1).unwrap_or(u16::MAX));
    put_peer(from.router_id, from.router_id.into(), from.asn, &mut out);
    for peer in peers {
        let router_id = peer.router_id.unwrap_or(Ipv4Addr::UNSPECIFIED);
        put_peer(router_id, peer.key.address, peer.asn, &mut out);
    }
    out
}

fn put_peer(router_id: Ipv4Addr, address: IpAddr, asn: u32, out: &mut BytesMut) {
    out.put_u8(FOUR_OCTET_AS | if address.is_ipv6() { IPV6 } else { 0 });
    out.put_slice(&router_id.octets());
    match address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
    out.put_u32(asn);
}

/// In Unix time; now for a peer whose session is down, and whose paths outlived it.
fn up_since(from: Viewpoint, peer: &PeerSnapshot) -> u32 {
    let up = peer.established_since.unwrap_or(from.now);
    let seconds = from.now.saturating_duration_since(up).as_secs();
    from.unix_time
        .saturating_sub(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// A path (§4.3.4).
fn entry(path: &PathSnapshot, peer: u16, since: u32, out: &mut BytesMut) {
    out.put_u16(peer);
    out.put_u32(since);
    if let Some(id) = path.path_id {
        out.put_u32(id);
    }
    let attributes = attributes(path);
    out.put_u16(u16::try_from(attributes.len()).unwrap_or(u16::MAX));
    out.put_slice(&attributes);
}

/// All attributes: AS numbers in four octets, and MP_REACH_NLRI as its next hop alone (§4.3.4).
fn attributes(path: &PathSnapshot) -> BytesMut {
    let context = Context {
        four_octet_as: true,
        external: false,
        ..Context::default()
    };
    let next_hop = path.next_hop.unwrap_or_else(|| match path.prefix.family() {
        Family::Ipv4Unicast => NextHop::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6Unicast => NextHop::V6 {
            global: Ipv6Addr::UNSPECIFIED,
            link_local: None,
        },
    });
    let classic = match (path.prefix.family(), next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(address)) => Some(address),
        (Family::Ipv4Unicast, NextHop::V6 { .. }) | (Family::Ipv6Unicast, _) => None,
    };
    let mut out = BytesMut::new();
    attr::put_all(&path.attributes, classic, &context, &mut out);
    if classic.is_none() {
        let mut value = BytesMut::new();
        put_next_hop(next_hop, &mut value);
        Writer::new(&mut out, &context).put(code::MP_REACH_NLRI, &value);
    }
    out
}
