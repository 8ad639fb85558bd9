//! What peers are told: once for a group, to each member as it has room.

use bytes::Bytes;

use super::{PeerKey, Speaker};
use crate::egress::Egress;
use crate::group::{GroupId, Step};
use crate::rib::PrefixId;

impl Speaker {
    /// Groups of a kind may have to be told of these prefixes.
    pub(super) fn stir(&mut self, ids: &[PrefixId], kind: impl Fn(&Egress) -> bool) {
        self.stirred.extend(self.groups.mark(ids, kind));
    }

    /// A peer's session is up: it is told what the peers like it are.
    pub(super) fn join(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && let Some(live) = &peer.live
        {
            self.groups.join(key, &mut peer.outbound, &live.egress, &self.rib);
            self.unsent.insert(key);
        }
    }

    /// Its session is over.
    pub(super) fn part(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            self.groups.leave(key, &mut peer.outbound, &mut self.rib);
        }
    }

    /// Another thing may decide what a peer is told.
    pub(super) fn regroup(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && let Some(live) = &peer.live
        {
            self.groups
                .move_to(&live.egress, key, &mut peer.outbound, &mut self.rib);
            self.unsent.insert(key);
        }
    }

    /// Tells everybody as much as fits. The rest waits for `Drained`.
    pub(super) fn announce(&mut self) {
        for id in std::mem::take(&mut self.stirred) {
            while self.is_heard(id) {
                self.tell_group(id);
            }
        }
        for key in std::mem::take(&mut self.unsent) {
            while let Some(messages) = self.next_messages(key) {
                self.send_all(key, messages);
            }
            self.reschedule(key);
            self.finish_drain(key);
        }
    }

    /// Whether a group is to be told something, and a member takes it at once.
    fn is_heard(&self, id: GroupId) -> bool {
        let Some(group) = self.groups.get(id).filter(|group| group.has_pending()) else {
            return false;
        };
        let takes = |key| {
            let peer = self.peers.get(&key);
            peer.is_some_and(|peer| peer.outbound.takes_next(group))
        };
        group.members().any(takes)
    }

    /// What a peer with room is told next; nothing once it has been told all.
    fn next_messages(&mut self, key: PeerKey) -> Option<Vec<Bytes>> {
        let peer = self.peers.get_mut(&key).filter(|peer| peer.outbound.has_room())?;
        let id = peer.outbound.group?;
        let group = self.groups.get_mut(id)?;
        if let Some(messages) = peer.outbound.next_step(key, group, &mut self.rib) {
            return Some(messages);
        }
        let steps = group.has_pending();
        if steps {
            self.tell_group(id);
        }
        let peer = self.peers.get_mut(&key)?;
        let group = self.groups.get(id)?;
        if peer.outbound.is_behind() {
            return Some(vec![peer.outbound.catch_up(key, group, &mut self.rib)]);
        }
        if steps {
            return Some(Vec::new());
        }
        let session = &peer.live.as_ref()?.session;
        peer.outbound.next_marks(key, group, session, &mut self.rib)
    }

    /// Tells a group the next of what there is to say: those at once that have room, the others later.
    fn tell_group(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let outbound = |key| self.peers.get(&key).map(|peer| &peer.outbound);
        let takes = |key: &PeerKey| outbound(*key).is_some_and(|it| it.takes_next(group));
        let (now, later): (Vec<PeerKey>, Vec<PeerKey>) = group.members().partition(takes);
        let step = group.step(&self.config, &mut self.rib, !later.is_empty());
        for &key in &now {
            self.tell(key, &step);
        }
        if !later.is_empty() {
            self.keep(id, step, &now, &later);
        }
    }

    /// Tells a member a step.
    fn tell(&mut self, key: PeerKey, step: &Step) {
        if let Some(peer) = self.peers.get_mut(&key) {
            let messages = peer.outbound.take(key, step);
            if !messages.is_empty() {
                self.send_all(key, messages);
                self.reschedule(key);
            }
        }
    }

    /// Keeps a step for those that take it later.
    fn keep(&mut self, id: GroupId, step: Step, now: &[PeerKey], later: &[PeerKey]) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let mut waiting = 0;
        for key in later {
            if let Some(peer) = self.peers.get_mut(key) {
                waiting += usize::from(peer.outbound.pass(*key, &step, &mut self.rib));
            }
        }
        group.keep(step, waiting, &mut self.rib);
        for key in now {
            if let Some(peer) = self.peers.get_mut(key) {
                peer.outbound.keep_up(group);
            }
        }
        for key in later {
            if let Some(peer) = self.peers.get_mut(key)
                && group.is_late(&peer.outbound)
            {
                peer.outbound.fall_behind(*key, group, &mut self.rib);
            }
        }
    }

    fn send_all(&mut self, key: PeerKey, messages: Vec<Bytes>) {
        let peer = self.peers.get(&key);
        if let Some(conn) = peer
            .and_then(|peer| peer.live.as_ref())
            .map(|live| live.link.conn)
        {
            for bytes in messages.into_iter().filter(|bytes| !bytes.is_empty()) {
                self.send(key, conn, bytes);
            }
        }
    }
}
