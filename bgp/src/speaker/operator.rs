//! What operators ask for: drains and resets.

use std::time::{Duration, Instant};

use super::{Output, PeerKey, Speaker};
use crate::drain::{Drain, Phase};
use crate::session::Loss;
use crate::wire::{Cease, Message, Notification, RouteRefresh};

/// How far a drain of all peers is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Everyone {
    /// There is none.
    #[default]
    Stays,
    /// Some sessions have not ended yet.
    Leaves,
    /// All have, and whoever comes is turned away.
    Left,
}

impl Speaker {
    /// Drains one peer, or all that there are and will be.
    pub(super) fn drain(&mut self, now: Instant, peer: Option<PeerKey>, time: Duration, words: &str) {
        if peer.is_none() {
            self.everyone = Everyone::Leaves;
        }
        for key in self.named(peer) {
            self.drain_peer(now, key, time, words);
        }
    }

    /// One peer, or all.
    fn named(&self, peer: Option<PeerKey>) -> Vec<PeerKey> {
        match peer {
            Some(key) => vec![key],
            None => self.peers.keys().copied().collect(),
        }
    }

    fn drain_peer(&mut self, now: Instant, key: PeerKey, time: Duration, words: &str) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| !peer.is_drained()) else {
            return;
        };
        peer.drain = Some(Drain {
            phase: Phase::Marked { until: now + time },
            words: words.to_owned(),
        });
        if peer.live.is_some() {
            self.announce_anew(key);
        } else {
            self.end_drain(now, key);
        }
    }

    /// A new peer is drained where all are.
    pub(super) fn drain_with_all(&mut self, now: Instant, key: PeerKey) {
        if self.everyone != Everyone::Stays {
            self.drain_peer(now, key, Duration::ZERO, "");
        }
    }

    /// Whether all peers are drained, those too that might connect.
    pub(super) fn turns_away(&self) -> bool {
        self.everyone != Everyone::Stays
    }

    /// Lets drained peers come back.
    pub(super) fn undrain(&mut self, now: Instant, peer: Option<PeerKey>) {
        if peer.is_none() {
            self.everyone = Everyone::Stays;
        }
        for key in self.named(peer) {
            let drained = self.peers.get_mut(&key).and_then(|peer| peer.drain.take());
            match drained.map(|drain| drain.phase) {
                Some(Phase::Down) => {
                    self.on_peer(now, key, |peering, cx| peering.release(cx));
                    self.may_be_gone(key);
                }
                Some(Phase::Marked { .. } | Phase::Withdrawn { .. }) => self.announce_anew(key),
                None => {}
            }
        }
    }

    /// Ends phases whose time is up.
    pub(super) fn advance_drain(&mut self, now: Instant, key: PeerKey) {
        let Some(drain) = self.peers.get_mut(&key).and_then(|peer| peer.drain.as_mut()) else {
            return;
        };
        if drain.phase.deadline().is_none_or(|until| until > now) {
            return;
        }
        match drain.phase.next(now) {
            Phase::Down => self.end_drain(now, key),
            next @ (Phase::Marked { .. } | Phase::Withdrawn { .. }) => {
                drain.phase = next;
                self.announce_anew(key);
            }
        }
    }

    /// The session of a peer whose routes have all been withdrawn ends.
    pub(super) fn finish_drain(&mut self, key: PeerKey) {
        let withdrawn = |drain: &Drain| matches!(drain.phase, Phase::Withdrawn { .. });
        if let (Some(peer), Some(now)) = (self.peers.get(&key), self.now)
            && peer.drain.as_ref().is_some_and(withdrawn)
            && let Some(group) = peer.outbound.group.and_then(|id| self.groups.get(id))
            && peer.outbound.has_said_all(group)
        {
            self.end_drain(now, key);
        }
    }

    /// Ends the session of a drained peer, for good as far as routes go (RFC 8538 §4), with an operator's words.
    pub(super) fn end_drain(&mut self, now: Instant, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let Some(drain) = peer.drain.as_mut().filter(|drain| drain.phase != Phase::Down) else {
            return;
        };
        drain.phase = Phase::Down;
        let loss = Loss::Sent(Notification::cease(Cease::AdministrativeShutdown).saying(&drain.words));
        self.on_peer(now, key, |peering, cx| peering.hold_down(&loss, None, cx));
        self.forget_routes(key);
    }

    /// Says so, once, when the last session has ended.
    pub(super) fn note_drained(&mut self) {
        if self.everyone == Everyone::Leaves && self.peers.values().all(|peer| peer.is_drained()) {
            self.everyone = Everyone::Left;
            self.outputs.push_back(Output::Drained);
        }
    }

    /// What is let in from a peer and goes to it is judged anew.
    fn announce_anew(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.reapply(&self.config, &mut self.rib);
        }
        self.regroup(key);
        self.reschedule(key);
    }

    /// Ends a peer's connections and tries again; what is drained stays away (RFC 4486 §4).
    pub(super) fn reset(&mut self, now: Instant, key: PeerKey, words: &str) {
        if self.peers.get(&key).is_some_and(|peer| !peer.is_drained()) {
            let loss = Loss::Sent(Notification::cease(Cease::AdministrativeReset).saying(words));
            self.on_peer(now, key, |peering, cx| peering.reset(&loss, cx));
        }
    }

    /// Asks the peer for its routes again, where it can be asked, and sends ours again (RFC 2918).
    pub(super) fn refresh_both_ways(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let Some(live) = &peer.live else { return };
        let (conn, asks) = (live.link.conn, live.session.takes_refresh);
        let families = live.session.families().to_vec();
        for &family in &families {
            peer.outbound.repeat(family);
        }
        self.unsent.insert(key);
        for family in families.into_iter().filter(|_| asks) {
            let request = Message::RouteRefresh(RouteRefresh {
                family: Some(family),
                subtype: RouteRefresh::REQUEST,
            });
            self.send(key, conn, super::session::encode(&request));
        }
    }
}
