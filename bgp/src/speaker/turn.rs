//! A turn: decides on what has changed, tells the kernel's side, and writes to the peers that have room.

use super::{Output, PeerKey, SEND_BUDGET, Speaker};
use crate::convergence::Awaited;
use crate::peer::Peer;
use crate::rib::PrefixId;

impl Speaker {
    /// Works off what the inputs since the last turn have left behind.
    pub(super) fn turn(&mut self) {
        self.decide();
        self.converge();
        if self.convergence.announces() {
            for key in std::mem::take(&mut self.unsent) {
                self.announce(key);
                self.finish_drain(key);
            }
        }
        self.note_drained();
    }

    /// Decides on every prefix that has changed. In a mesh of many, most changes are for nobody else, so that not
    /// even a look at every peer is due.
    fn decide(&mut self) {
        let (mut for_all, mut for_listeners, mut for_labelled) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(change) = self.rib.next_change() {
            if let Some((prefix, choice)) = change.selected {
                self.outputs.push_back(Output::Selected { prefix, choice });
            }
            let for_any = self.rib.is_open(change.id) || self.rib.is_told(change.id);
            let whom = match (change.best, for_any) {
                (true, true) => &mut for_all,
                (true, false) => &mut for_listeners,
                (false, _) => &mut for_labelled,
            };
            whom.push(change.id);
        }
        self.mark(&for_all, self.peers.keys().copied().collect());
        self.mark(&for_listeners, self.listeners.iter().copied().collect());
        let labels = |key: &&PeerKey| self.peers.get(key).is_some_and(Peer::is_told_paths);
        let labelled = self.listeners.iter().filter(labels).copied().collect();
        self.mark(&for_labelled, labelled);
    }

    /// These peers may have to be told of these prefixes.
    fn mark(&mut self, ids: &[PrefixId], peers: Vec<PeerKey>) {
        if ids.is_empty() {
            return;
        }
        for key in peers {
            let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.live.is_some()) else {
                continue;
            };
            for &id in ids {
                peer.outbound.mark(id);
            }
            self.unsent.insert(key);
        }
    }

    fn converge(&mut self) {
        let Some(now) = self.now else { return };
        // Who connects from a range, or is found on a link, nobody knows before.
        let unknown = (self.unfound || !self.ranges.is_empty()).then_some(Awaited::Session);
        if self
            .convergence
            .advance(now, self.peers.values().map(Peer::awaited).chain(unknown))
        {
            self.outputs.push_back(Output::Converged);
        }
    }

    /// Tells a peer as much as fits. The rest waits for `Drained`.
    fn announce(&mut self, key: PeerKey) {
        while let Some(peer) = self.peers.get_mut(&key)
            && let Some(conn) = peer.live.as_ref().map(|live| live.link.conn)
            && peer.outbound.in_flight < SEND_BUDGET
            && let Some(messages) = peer.next_messages(&self.config, &mut self.rib)
        {
            for bytes in messages {
                self.send(key, conn, bytes);
            }
        }
        self.reschedule(key);
    }
}
