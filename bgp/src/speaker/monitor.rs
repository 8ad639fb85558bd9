//! What monitoring is told (RFC 7854): sessions, the routes of Adj-RIBs-In before policy, and what is counted.
//!
//! A monitoring station takes routes at its own pace: all of them step by step ([`Speaker::received`]), and those that
//! [`Speaker::received_changes`] names as they stand when it asks for them ([`Speaker::received_at`]). So nothing is
//! kept for it but the places of changes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use super::Speaker;
use crate::peer::Live;
use crate::wire::{Attributes, Context, NextHop, Nlri, Notification};
use crate::{ConnId, Family, PeerKey};

/// A place in an Adj-RIB-In.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub peer: PeerKey,
    /// To where, with the identifier that the peer gave it.
    pub nlri: Nlri,
}

/// A route as its peer announced it, before policy (RFC 7854 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRoute {
    /// Through whom.
    pub next_hop: NextHop,
    /// With which attributes.
    pub attributes: Arc<Attributes>,
}

/// A session that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The connection that it is on.
    pub conn: ConnId,
    /// The peer's AS.
    pub asn: u32,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Since when.
    pub since: Instant,
    /// What was agreed.
    pub context: Context,
}

/// How a session ended (RFC 7854 §4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// We ended it, and told the peer so.
    Sent(Notification),
    /// We ended it in silence, after this event of the state machine (RFC 4271 §8.1).
    Silent(u16),
    /// The peer ended it, and told us so.
    Received(Notification),
    /// The connection is gone.
    Closed,
}

/// What is counted of a peer (RFC 7854 §4.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Paths that it announces, of each of [`Family::ALL`].
    pub received: [u64; Family::ALL.len()],
    /// Its UPDATEs whose routes were treated as withdrawn (RFC 7606 §2), since it was configured.
    pub treated_as_withdraw: u64,
}

impl Speaker {
    /// Begins to note what changes in Adj-RIBs-In ([`received_changes`](Self::received_changes)), or ends it.
    pub fn monitor(&mut self, wanted: bool) {
        self.rib.monitor(wanted);
    }

    /// Where Adj-RIBs-In have changed since the last call, each place once, in order. What went with its session is not
    /// among it.
    pub fn received_changes(&mut self) -> Vec<Place> {
        self.rib.take_changes()
    }

    /// What a peer has announced there in its session, and not withdrawn since.
    #[must_use]
    pub fn received_at(&self, place: Place) -> Option<ReceivedRoute> {
        self.rib.received_at(place)
    }

    /// A step through all Adj-RIBs-In, over `count` prefixes from `from`, which is 0 at first: what is there, and from
    /// where to go on. What comes meanwhile may be passed over; [`received_changes`](Self::received_changes) has it.
    #[must_use]
    pub fn received(&self, from: usize, count: usize) -> (Vec<(Place, ReceivedRoute)>, Option<usize>) {
        self.rib.received(from, count)
    }

    /// The session with a peer.
    #[must_use]
    pub fn established(&self, peer: PeerKey) -> Option<Established> {
        let peer = self.peers.get(&peer)?;
        let Live { link, session, .. } = peer.live.as_ref()?;
        Some(Established {
            conn: link.conn,
            asn: peer.config.asn,
            router_id: session.router_id,
            since: peer.peering.established().map(|(_, _, since)| since)?,
            context: session.context.clone(),
        })
    }

    /// What is counted of a peer.
    #[must_use]
    pub fn statistics(&self, peer: PeerKey) -> Option<Statistics> {
        self.peers.get(&peer).map(|peer| peer.statistics())
    }
}
