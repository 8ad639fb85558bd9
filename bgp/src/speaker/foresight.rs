//! Which routers a session takes along, known before anything is worked out from its end.

use smallvec::SmallVec;

use super::{Input, PeerKey, Speaker};
use crate::Gateway;
use crate::peer::Live;
use crate::session::Loss;
use crate::wire::{Cease, Message, NextHop};

/// More next hops than that, and the peer leads to others' routers: what becomes of these, its end does not say.
const MOST: usize = 8;

/// The next hops that a peer has named in a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routers(SmallVec<[NextHop; 2]>);

impl Routers {
    /// The peer names one.
    pub(crate) fn note(&mut self, next_hop: NextHop) {
        if self.0.len() <= MOST && !self.0.contains(&next_hop) {
            self.0.push(next_hop);
        }
    }

    /// Them, unless they are too many.
    fn few(&self) -> &[NextHop] {
        if self.0.len() > MOST { &[] } else { &self.0 }
    }
}

impl Live {
    /// Where packets go that the peer attracts.
    fn gateways(&self, key: PeerKey) -> impl Iterator<Item = Gateway> {
        let next_hops = self.routers.few().iter();
        next_hops.map(move |next_hop| Gateway::new(*next_hop, key.scope))
    }
}

impl Speaker {
    /// The peer whose session this input ends so that its routes go, and the routers that no other peer leads to: paths
    /// through them go with the session, as [`handle`](Self::handle) and [`poll`](Self::poll) then find out prefix by
    /// prefix, and what the kernel knows to do instead it may do at once.
    #[must_use]
    pub fn foresee(&self, input: &Input) -> Option<(PeerKey, Vec<Gateway>)> {
        let (key, loss, on) = match input {
            Input::PathDown(key) => (*key, Loss::cease(Cease::BfdDown), None),
            Input::Closed { conn } => (*self.connections.get(conn)?, Loss::Closed, Some(*conn)),
            Input::Received {
                conn,
                message: Ok(Message::Notification(notification)),
            } => {
                let loss = Loss::Received(notification.clone());
                (*self.connections.get(conn)?, loss, Some(*conn))
            }
            Input::Received { .. }
            | Input::SetPeer(_)
            | Input::RemovePeer(_)
            | Input::SetRange(_)
            | Input::RemoveRange(_)
            | Input::Originate(_)
            | Input::Unoriginate(_)
            | Input::Connected { .. }
            | Input::ConnectFailed { .. }
            | Input::Accepted { .. }
            | Input::Faulty { .. }
            | Input::Drained { .. }
            | Input::Unfound(_)
            | Input::Drain { .. }
            | Input::Undrain(_)
            | Input::Reset { .. }
            | Input::Refresh(_)
            | Input::Interfaces(_)
            | Input::Tick
            | Input::Shutdown => return None,
        };
        let live = self.peers.get(&key)?.live.as_ref()?;
        if on.is_some_and(|conn| conn != live.link.conn) || loss.keeps_routes(&live.session) {
            return None;
        }
        let others = self.peers.iter().filter(|(other, _)| **other != key);
        let others = others.filter_map(|(key, peer)| Some((*key, peer.live.as_ref()?)));
        let elsewhere: Vec<Gateway> = others.flat_map(|(key, live)| live.gateways(key)).collect();
        let lost: Vec<Gateway> = live
            .gateways(key)
            .filter(|gateway| !elsewhere.contains(gateway))
            .collect();
        (!lost.is_empty()).then_some((key, lost))
    }
}
