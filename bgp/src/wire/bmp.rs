//! The BGP Monitoring Protocol: what a collector is told of our peers and of what they announce (RFC 7854).
//!
//! Routes are those of Adj-RIB-In before policy, with AS numbers in four octets whatever the session speaks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Context, Message, Notification, encode};
use crate::speaker::monitor::{SessionEnd, Statistics};
use crate::{Family, PeerKey};

/// The version (RFC 7854 §4.1).
const VERSION: u8 = 3;

/// The common header: version, length, type.
const COMMON_HEADER: usize = 6;

/// Where a BGP message has its length (RFC 4271 §4.1), and the shortest.
const BGP_LENGTH_AT: usize = 16;
const BGP_HEADER: usize = 19;

/// In a peer's flags: its address is IPv6 (§4.2).
const IPV6: u8 = 0x80;

/// Peer types (§4.2). The routing instance of a peer with a link-local address is the interface: another peer may have
/// the same address on another one.
const GLOBAL_INSTANCE: u8 = 0;
const LOCAL_INSTANCE: u8 = 2;

/// Message types (§4.1).
#[derive(Clone, Copy)]
enum Kind {
    RouteMonitoring = 0,
    StatisticsReport = 1,
    PeerDown = 2,
    PeerUp = 3,
    Initiation = 4,
    Termination = 5,
}

/// Information TLVs of Initiation (§4.4).
const SYS_DESCR: u16 = 1;
const SYS_NAME: u16 = 2;

/// Statistics (§4.8): paths in Adj-RIB-In, of all families and of one, and UPDATEs treated as withdrawals.
const ADJ_RIB_IN: u16 = 7;
const ADJ_RIB_IN_OF_FAMILY: u16 = 9;
const TREATED_AS_WITHDRAW: u16 = 11;

/// The information TLV of Termination that says why, and its value: administratively closed (§4.5).
const REASON: u16 = 1;
const ADMINISTRATIVELY_CLOSED: u16 = 0;

/// Whom a message is about, and since when it holds: the per-peer header (§4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The peer.
    pub key: PeerKey,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier; 0.0.0.0 where none is known.
    pub router_id: Ipv4Addr,
    /// Unix time, to the microsecond; zero for unknown.
    pub at: Duration,
}

/// The first message of a connection (§4.3): who speaks.
#[must_use]
pub fn initiation(name: &str, description: &str) -> Bytes {
    message(Kind::Initiation, |out| {
        put_tlv(SYS_DESCR, description.as_bytes(), out);
        put_tlv(SYS_NAME, name.as_bytes(), out);
    })
}

/// The last one (§4.5): closed by the operator, who stopped us or no longer wants the collector.
#[must_use]
pub fn termination() -> Bytes {
    message(Kind::Termination, |out| {
        put_tlv(REASON, &ADMINISTRATIVELY_CLOSED.to_be_bytes(), out);
    })
}

/// A session came up (§4.10), between these ends, with these OPENs: whole messages as they were on the wire.
#[must_use]
pub fn peer_up(
    subject: &Subject,
    local: SocketAddr,
    remote_port: u16,
    sent: &[u8],
    received: &[u8],
) -> Bytes {
    message(Kind::PeerUp, |out| {
        put_subject(subject, out);
        put_address(local.ip(), out);
        out.put_u16(local.port());
        out.put_u16(remote_port);
        out.put_slice(sent);
        out.put_slice(received);
    })
}

/// A session ended (§4.9), and all that its peer announced is gone.
#[must_use]
pub fn peer_down(subject: &Subject, end: &SessionEnd) -> Bytes {
    let put_notification = |notification: &Notification, out: &mut BytesMut| {
        let message = Message::Notification(notification.clone());
        out.put_slice(&encode(&message, &Context::default()));
    };
    message(Kind::PeerDown, |out| {
        put_subject(subject, out);
        match end {
            SessionEnd::Sent(notification) => {
                out.put_u8(1);
                put_notification(notification, out);
            }
            SessionEnd::Silent(event) => {
                out.put_u8(2);
                out.put_u16(*event);
            }
            SessionEnd::Received(notification) => {
                out.put_u8(3);
                put_notification(notification, out);
            }
            SessionEnd::Closed => out.put_u8(4),
        }
    })
}

/// What a peer announces and withdraws (§4.6): one message for each of these UPDATEs, which follow one another as
/// [`update::pack`](super::update::pack) makes them.
#[must_use]
pub fn route_monitoring(subject: &Subject, updates: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    let mut rest = updates.clone();
    while rest.len() >= BGP_HEADER {
        let length = u16::from_be_bytes([rest[BGP_LENGTH_AT], rest[BGP_LENGTH_AT + 1]]);
        let update = rest.split_to(usize::from(length).clamp(BGP_HEADER, rest.len()));
        out.put_slice(&message(Kind::RouteMonitoring, |out| {
            put_subject(subject, out);
            out.put_slice(&update);
        }));
    }
    out.freeze()
}

/// What is counted of a peer (§4.8): gauges of 8 octets, counters of 4, which wrap.
#[must_use]
pub fn statistics(subject: &Subject, statistics: &Statistics) -> Bytes {
    let Statistics {
        received,
        treated_as_withdraw,
    } = statistics;
    let [.., a, b, c, d] = treated_as_withdraw.to_be_bytes();
    let mut all = vec![
        (ADJ_RIB_IN, received.iter().sum::<u64>().to_be_bytes().to_vec()),
        (TREATED_AS_WITHDRAW, vec![a, b, c, d]),
    ];
    for (family, paths) in Family::ALL.iter().zip(received) {
        let mut of_family = family.afi().to_be_bytes().to_vec();
        of_family.push(family.safi());
        of_family.extend(paths.to_be_bytes());
        all.push((ADJ_RIB_IN_OF_FAMILY, of_family));
    }
    message(Kind::StatisticsReport, |out| {
        put_subject(subject, out);
        out.put_u32(u32::try_from(all.len()).unwrap_or(u32::MAX));
        for (kind, value) in &all {
            put_tlv(*kind, value, out);
        }
    })
}

/// A message with its common header (§4.1).
fn message(kind: Kind, put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut body = BytesMut::new();
    put(&mut body);
    let mut out = BytesMut::with_capacity(COMMON_HEADER + body.len());
    out.put_u8(VERSION);
    out.put_u32(u32::try_from(COMMON_HEADER + body.len()).unwrap_or(u32::MAX));
    out.put_u8(kind as u8);
    out.put_slice(&body);
    out.freeze()
}

/// The per-peer header (§4.2), of routes before policy.
fn put_subject(subject: &Subject, out: &mut BytesMut) {
    let scope = subject.key.scope;
    out.put_u8(if scope == 0 {
        GLOBAL_INSTANCE
    } else {
        LOCAL_INSTANCE
    });
    out.put_u8(if subject.key.address.is_ipv6() { IPV6 } else { 0 });
    out.put_u64(scope.into());
    put_address(subject.key.address, out);
    out.put_u32(subject.asn);
    out.put_slice(&subject.router_id.octets());
    out.put_u32(u32::try_from(subject.at.as_secs()).unwrap_or(u32::MAX));
    out.put_u32(subject.at.subsec_micros());
}

/// Sixteen octets; IPv4 in the last four (§4.2).
fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            out.put_slice(&[0; 12]);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

/// Information or a statistic (§4.4); what does not fit its length is cut.
fn put_tlv(kind: u16, value: &[u8], out: &mut BytesMut) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.put_u16(kind);
    out.put_u16(length);
    out.put_slice(&value[..length.into()]);
}
