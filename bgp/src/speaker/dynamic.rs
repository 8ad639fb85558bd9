//! Peers that come and go by themselves, and peers of whatever AS.

use std::time::Instant;

use super::{ConnId, Output, PeerKey, Speaker};
use crate::dynamic::{RangeConfig, RangeSnapshot, Verdict};
use crate::wire::Message;
use crate::{ANY_EXTERNAL_AS, PeerConfig, Prefix, State};

impl Speaker {
    /// Every range of dynamic neighbours, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<RangeSnapshot> {
        self.ranges.snapshot()
    }

    pub(super) fn set_range(&mut self, now: Instant, config: RangeConfig) {
        for member in self.ranges.set(config) {
            self.change_peer(now, member);
        }
    }

    pub(super) fn remove_range(&mut self, now: Instant, range: Prefix) {
        for key in self.ranges.remove(range) {
            self.remove_peer(now, key);
        }
    }

    /// Whether a connection may be a peer's, which is made if need be.
    pub(super) fn is_welcome(&mut self, now: Instant, key: PeerKey) -> bool {
        if let Some(peer) = self.peers.get(&key) {
            return !peer.is_drained();
        }
        if self.turns_away() {
            return false;
        }
        match self.ranges.admit(key) {
            Verdict::Welcome(config) => {
                self.add_peer(now, *config);
                true
            }
            Verdict::Full { range, news } => {
                self.outputs.extend(news.then_some(Output::RangeFull(range)));
                false
            }
            Verdict::Stranger => false,
        }
    }

    /// A dynamic neighbour may have gone: it is forgotten once neither a connection nor a route is left of it.
    pub(super) fn may_be_gone(&mut self, key: PeerKey) {
        if self.ranges.has(key) {
            self.leaving.insert(key);
        }
    }

    /// Forgets those that have gone.
    pub(super) fn forget_gone(&mut self, now: Instant) {
        if self.leaving.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.leaving) {
            match self.peers.get(&key) {
                // The one stays for its session, the other to be known when it comes again.
                Some(peer) if peer.peering.state() > State::Active || peer.is_drained() => {}
                Some(peer) if peer.inbound.deadline().is_some() => drop(self.leaving.insert(key)),
                Some(_) | None => self.remove_peer(now, key),
            }
        }
    }

    /// The peer's OPEN says which AS a peer of any other AS is of, before anything is made of the OPEN.
    pub(super) fn learn_asn(&mut self, conn: ConnId, message: &Message) {
        let Message::Open(open) = message else { return };
        let peer = self
            .connections
            .get(&conn)
            .and_then(|key| self.peers.get_mut(key));
        if let Some(peer) = peer
            && peer.any_external
            && peer.live.is_none()
            && open.asn != self.config.asn
        {
            peer.config.asn = open.asn;
        }
    }
}

/// The new settings of a peer whose AS may be known already.
pub(super) fn keep_learned_asn(old: &PeerConfig, any_external: bool, new: &mut PeerConfig) {
    if any_external && new.asn == ANY_EXTERNAL_AS {
        new.asn = old.asn;
    }
}
