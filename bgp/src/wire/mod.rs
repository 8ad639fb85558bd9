//! Messages: their meaning as values. Decoding and encoding are functions over these (RFC 4271 §4).

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use crate::{Family, Prefix};

/// A BGP message (RFC 4271 §4; ROUTE-REFRESH RFC 2918).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens a session.
    Open(Open),
    /// Announces and withdraws.
    Update(Update),
    /// Ends a session with a reason.
    Notification(Notification),
    /// Says that the sender lives.
    Keepalive,
    /// Asks for all routes of a family again.
    RouteRefresh(RouteRefresh),
}

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: the four-octet capability's where present (RFC 6793), else the fixed field's.
    pub asn: u32,
    /// The proposed hold time in seconds; 1 and 2 never decode.
    pub hold_time: u16,
    /// The BGP identifier; never zero (RFC 6286).
    pub router_id: Ipv4Addr,
    /// In the order of the message.
    pub capabilities: Vec<Capability>,
}

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Code 1 (RFC 4760), for a family that this speaker carries.
    Multiprotocol(Family),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 64 (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793).
    FourOctetAs(u32),
    /// Anything else, kept as it came.
    Unknown {
        /// The code.
        code: u8,
        /// The value.
        value: Bytes,
    },
}

/// The graceful restart capability (RFC 4724 §3; the N bit RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarting: bool,
    /// N: NOTIFICATION and hold-timer expiry keep routes, too.
    pub notification: bool,
    /// Seconds until routes are dropped, 0 to 4095.
    pub restart_time: u16,
    /// Families, each with F: forwarding state was kept.
    pub families: Vec<(Family, bool)>,
}

/// NOTIFICATION (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode.
    pub subcode: u8,
    /// What the code asks for.
    pub data: Bytes,
}

/// ROUTE-REFRESH (RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Which routes; none for a family that this speaker does not carry.
    pub family: Option<Family>,
    /// 0 request; 1 beginning, 2 end of a refresh (RFC 7313).
    pub subtype: u8,
}

/// UPDATE (RFC 4271 §4.3) with the multiprotocol attributes (RFC 4760) already folded in, and with errors
/// already dealt with as RFC 7606 says: what had to be treated as withdrawn stands among `withdrawn`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// No longer reachable through the sender.
    pub withdrawn: Vec<Nlri>,
    /// Newly reachable; one entry per next hop in the message.
    pub reach: Vec<Reach>,
    /// What all of `reach` shares.
    pub attributes: Attributes,
    /// The message marks the end of the initial routes of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
}

/// Prefixes that share a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Through whom.
    pub next_hop: NextHop,
    /// What.
    pub nlri: Vec<Nlri>,
}

/// A prefix on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The path identifier, where Add-Path was negotiated (RFC 7911).
    pub path_id: Option<u32>,
    /// The prefix.
    pub prefix: Prefix,
}

/// A next hop (RFC 4271 §5.1.3, RFC 2545 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, with the link-local one where it came along.
    V6 {
        /// The global address; unspecified where only a link-local one was given.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Option<Ipv6Addr>,
    },
}

/// What a path has beside prefix and next hop. Equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with AS4_PATH already merged in (RFC 6793 §4.2.3).
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; absent from eBGP peers whatever they sent (RFC 7606 §7.5).
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR: AS and identifier.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITY (RFC 8092): global administrator and two local parts.
    pub large_communities: Vec<[u32; 3]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), nearest first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Unknown transitive attributes, byte-exact, in order of type code; sent with Partial set.
    pub unknown: Vec<UnknownAttribute>,
}

/// ORIGIN (RFC 4271 §5.1.1); the order is the order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// From an interior protocol.
    #[default]
    Igp,
    /// From EGP.
    Egp,
    /// Otherwise.
    Incomplete,
}

/// AS_PATH (RFC 4271 §5.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    /// Nearest first.
    pub segments: Vec<Segment>,
}

/// A segment of an AS_PATH.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Passed through, in order, nearest first.
    Sequence(Vec<u32>),
    /// Passed through, in no order.
    Set(Vec<u32>),
}

/// An attribute that this speaker does not know, kept for others (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// The flags octet as it came.
    pub flags: u8,
    /// The type code.
    pub code: u8,
    /// The value.
    pub value: Bytes,
}

/// What decoding and encoding must know of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Both sides speak four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// The peer is of another AS: LOCAL_PREF and reflection attributes are not for us (RFC 7606 §7).
    pub external: bool,
    /// Families that both sides announced.
    pub families: Vec<Family>,
    /// Families whose prefixes arrive with path identifiers (RFC 7911).
    pub add_path_receive: Vec<Family>,
    /// Families whose prefixes leave with path identifiers.
    pub add_path_send: Vec<Family>,
    /// The longest message either side may send: 4,096, or 65,535 with RFC 8654.
    pub max_message: usize,
}
