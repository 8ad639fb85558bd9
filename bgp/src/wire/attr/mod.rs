//! Path attributes (RFC 4271 §4.3, §5): what a path has beside prefix and next hop.

mod as_path;
mod decode;
mod encode;
mod facts;
mod show;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use bytes::Bytes;
use thin_vec::ThinVec;

pub use as_path::{AsPath, Segment};
pub(super) use decode::{Collected, decode};
pub(super) use encode::{Writer, put_all};
pub(crate) use facts::name;
pub use show::{Community, ExtendedCommunity, LargeCommunity};

/// Attribute flags (RFC 4271 §4.3).
pub(super) mod flag {
    /// Optional; otherwise well-known.
    pub(crate) const OPTIONAL: u8 = 0x80;
    /// Passed on by those who do not know it.
    pub(crate) const TRANSITIVE: u8 = 0x40;
    /// Somebody on the way did not know it.
    pub(crate) const PARTIAL: u8 = 0x20;
    /// The length has two octets.
    pub(crate) const EXTENDED: u8 = 0x10;
}

/// Attribute type codes.
pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MULTI_EXIT_DISC: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH_NLRI: u8 = 14;
    pub(crate) const MP_UNREACH_NLRI: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const PMSI_TUNNEL: u8 = 22;
    pub(crate) const TUNNEL_ENCAPSULATION: u8 = 23;
    pub(crate) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(crate) const AIGP: u8 = 26;
    pub(crate) const LINK_STATE: u8 = 29;
    pub(crate) const LARGE_COMMUNITY: u8 = 32;
    pub(crate) const ONLY_TO_CUSTOMER: u8 = 35;
    pub(crate) const PREFIX_SID: u8 = 40;
    pub(crate) const ATTR_SET: u8 = 128;
}

/// What a path has beside prefix and next hop. Equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    pub communities: ThinVec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: ThinVec<[u8; 8]>,
    /// LARGE_COMMUNITY (RFC 8092): global administrator and two local parts.
    pub large_communities: ThinVec<[u32; 3]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), nearest first.
    pub cluster_list: ThinVec<Ipv4Addr>,
    /// ONLY_TO_CUSTOMER (RFC 9234 §5): the AS that marked the route.
    pub only_to_customer: Option<u32>,
    /// Which of the known attributes came with Partial set, bit n for type code n: no AS on the way may clear
    /// it (RFC 4271 §5).
    pub partial: u64,
    /// Unknown transitive attributes, byte-exact, in order of type code; sent with Partial set.
    pub unknown: ThinVec<UnknownAttribute>,
}

impl Hash for Attributes {
    /// Each field as one number, if it is one, and what is rare only where it is there: this is done for each message that
    /// announces something, and for each that leaves.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            origin,
            as_path,
            med,
            local_pref,
            atomic_aggregate,
            aggregator,
            communities,
            extended_communities,
            large_communities,
            originator_id,
            cluster_list,
            only_to_customer,
            partial,
            unknown,
        } = self;
        let number = |it: Option<u32>| it.map_or(u64::MAX, u64::from);
        state.write_u64(u64::from(*origin as u8) << 1 | u64::from(*atomic_aggregate));
        for segment in &as_path.segments {
            segment.hash(state);
        }
        state.write_u64(number(*med));
        state.write_u64(number(*local_pref));
        for community in communities {
            state.write_u32(*community);
        }
        let reflected = originator_id.is_some() || !cluster_list.is_empty();
        let marked = only_to_customer.is_some() || *partial != 0 || !unknown.is_empty();
        let wide = !extended_communities.is_empty() || !large_communities.is_empty();
        if aggregator.is_some() || reflected || marked || wide {
            (aggregator, originator_id, cluster_list).hash(state);
            (only_to_customer, partial, unknown).hash(state);
            (extended_communities, large_communities).hash(state);
        }
    }
}

/// The communities without those that came before: none may be sent twice, and who gets one twice keeps one
/// (RFC 8092 §3).
fn unique(communities: &[[u32; 3]]) -> ThinVec<[u32; 3]> {
    let mut seen = BTreeSet::new();
    let first = communities.iter().filter(|community| seen.insert(**community));
    first.copied().collect()
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

/// An attribute that this speaker does not know, kept for others (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Optional, Transitive and Partial as they came; the other flags follow from the length or mean nothing.
    pub flags: u8,
    /// The type code.
    pub code: u8,
    /// The value.
    pub value: Bytes,
}
