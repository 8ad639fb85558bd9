//! A turn: decides on what has changed, tells the kernel's side, and writes to the peers that have room.

use super::{Output, Speaker};
use crate::convergence::Awaited;
use crate::egress::Egress;
use crate::peer::Peer;

/// Prefixes decided on before what follows from them is passed on: it waits in memory meanwhile, and a peer with a whole
/// table of routes may just have gone.
const PORTION: usize = 4096;

impl Speaker {
    /// Works off what the inputs since the last turn have left behind, until there is something to pass on.
    pub(super) fn turn(&mut self) {
        loop {
            self.decide();
            if !self.rib.has_changed() {
                self.converge();
            }
            if self.convergence.announces() {
                self.announce();
            }
            if !self.rib.has_changed() {
                return self.note_drained();
            }
            if !self.outputs.is_empty() {
                return;
            }
        }
    }

    /// Decides on the next prefixes that have changed. In a mesh of many, most changes are for nobody else, so that not
    /// even a look at every group is due.
    fn decide(&mut self) {
        let (mut for_all, mut for_listeners, mut for_labelled) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..PORTION {
            let Some(change) = self.rib.next_change() else {
                break;
            };
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
        self.stir(&for_all, |_| true);
        self.stir(&for_listeners, Egress::hears_inside);
        self.stir(&for_labelled, |egress| egress.alone.is_some());
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
}
