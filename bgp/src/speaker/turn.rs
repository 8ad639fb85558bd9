//! A turn: decides on what has changed, tells the kernel's side, and writes to the peers that have room.

use super::{Output, PeerKey, SEND_BUDGET, Speaker};
use crate::convergence::Awaited;
use crate::peer::Peer;

impl Speaker {
    /// Works off what the inputs since the last turn have left behind.
    pub(super) fn turn(&mut self) {
        self.select();
        self.converge();
        if self.convergence.announces() {
            for key in std::mem::take(&mut self.unsent) {
                self.announce(key);
            }
        }
    }

    /// Decides on every prefix that has changed.
    fn select(&mut self) {
        let mut changed = Vec::new();
        while let Some(change) = self.rib.next_change() {
            if let Some((prefix, choice)) = change.selected {
                self.outputs.push_back(Output::Selected { prefix, choice });
            }
            changed.push(change.id);
        }
        if changed.is_empty() {
            return;
        }
        for (key, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.live.is_some()) {
            for &id in &changed {
                peer.outbound.mark(id);
            }
            self.unsent.insert(*key);
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
