//! What users of a running speaker hold: a way in and a way out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use manx_bgp::bfd::SessionSnapshot;
use manx_bgp::explain::Explanation;
use manx_bgp::wire::Action;
use manx_bgp::{
    Choice, Gateway, Input, PathSnapshot, PeerConfig, PeerKey, PeerSnapshot, Prefix, RangeConfig,
    RangeSnapshot,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use crate::config::Collector;
use crate::driver::Job;
use crate::inbox::Inbox;
use crate::links::{LinkKey, LinkPeer, LinkSnapshot};

/// The way into a running speaker. Clones share it; when the last one goes, so does the speaker, at once.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) inbox: Inbox,
    pub(crate) listening: Arc<[SocketAddr]>,
    /// Stops the driver when the last clone drops it.
    pub(crate) _alive: Arc<DropGuard>,
}

/// After [`shutdown`](Self::shutdown) nobody listens any more: inputs vanish and snapshots are empty.
impl Handle {
    /// Where the speaker listens, in the order of `Options::listen`, with the real ports.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Hands the speaker an input; waits while its inbox is full.
    pub async fn input(&self, input: Input) {
        self.inbox.tell(input).await;
    }

    /// Adds a peer, or changes its settings; other peers notice nothing.
    pub async fn set_peer(&self, peer: PeerConfig) {
        self.input(Input::SetPeer(Box::new(peer))).await;
    }

    /// Ends a peer's session and forgets it.
    pub async fn remove_peer(&self, peer: PeerKey) {
        self.input(Input::RemovePeer(peer)).await;
    }

    /// Adds a neighbour on a link, or changes its settings: the speaker has it while its interface is up and its address
    /// known.
    pub async fn set_link_peer(&self, peer: LinkPeer) {
        self.inbox.send(Job::SetLinkPeer(Box::new(peer))).await;
    }

    /// Ends a session with a neighbour on a link and forgets it.
    pub async fn remove_link_peer(&self, peer: LinkKey) {
        self.inbox.send(Job::RemoveLinkPeer(peer)).await;
    }

    /// Lets peers connect from a range, or changes their settings.
    pub async fn set_range(&self, range: RangeConfig) {
        self.input(Input::SetRange(Box::new(range))).await;
    }

    /// Ends the sessions of a range's peers, and lets no more connect.
    pub async fn remove_range(&self, range: Prefix) {
        self.input(Input::RemoveRange(range)).await;
    }

    /// Announces a prefix of our own.
    pub async fn originate(&self, prefix: Prefix) {
        self.input(Input::Originate(prefix)).await;
    }

    /// No longer announces it.
    pub async fn unoriginate(&self, prefix: Prefix) {
        self.input(Input::Unoriginate(prefix)).await;
    }

    /// Leaves [`Event::Selected`] out from now on: for those who have no kernel to tell, before there are routes.
    pub async fn leave_selections_out(&self) {
        self.inbox.send(Job::NoSelections).await;
    }

    /// Has these monitoring stations told, and no others; those that were told before notice nothing.
    pub async fn monitor(&self, collectors: Vec<Collector>) {
        self.inbox.send(Job::Collectors(collectors)).await;
    }

    /// Every configured peer, as it is now.
    pub async fn peers(&self) -> Vec<PeerSnapshot> {
        self.ask(Job::Peers).await.unwrap_or_default()
    }

    /// Every range of dynamic neighbours, as it is now.
    pub async fn ranges(&self) -> Vec<RangeSnapshot> {
        self.ask(Job::Ranges).await.unwrap_or_default()
    }

    /// Every configured peer, and every neighbour on a link, as they are at one instant.
    pub async fn all_peers(&self) -> (Vec<PeerSnapshot>, Vec<LinkSnapshot>) {
        self.ask(Job::AllPeers).await.unwrap_or_default()
    }

    /// Every path known, as it is now.
    pub async fn paths(&self) -> Vec<PathSnapshot> {
        self.ask(Job::Paths).await.unwrap_or_default()
    }

    /// Why a prefix is reached as it is, and who is told of it; none where there is no path to it.
    pub async fn explain(&self, prefix: Prefix) -> Option<Explanation> {
        self.ask(|reply| Job::Explain(prefix, reply)).await.flatten()
    }

    /// Every BFD session, as it is now.
    pub async fn bfd_sessions(&self) -> Vec<SessionSnapshot> {
        self.ask(Job::Bfd).await.unwrap_or_default()
    }

    /// Drains all peers ([`Input::Drain`]) and returns when their sessions have ended. The peers read `words`.
    pub async fn drain_all(&self, time: Duration, words: String) {
        // As for a shutdown.
        self.ask(|done| Job::DrainAll(time, words, done))
            .await
            .unwrap_or_default();
    }

    /// Ends all sessions ([`Input::Shutdown`]) and returns when what they had to say has left, within two
    /// seconds. Idempotent.
    pub async fn shutdown(&self) {
        // A driver that had stopped before drops the question: that is done, too.
        self.ask(Job::Shutdown).await.unwrap_or_default();
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(question(reply)).await;
        answer.await.ok()
    }
}

/// What the speaker tells its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The best paths of these prefixes changed, each to the given choice. In no order; of several changes to one
    /// prefix only the last.
    Selected(Vec<(Prefix, Choice)>),
    /// A session is about to end, and its routes with it: overtakes all other events. What is selected instead follows,
    /// and then the peer's `Session`.
    Lost(Lost),
    /// The initial routes are in: what was not `Selected` by now is stale. Once.
    Converged,
    /// A peer's session came up or went down; of several changes at one peer only the last.
    Session {
        /// Whose.
        peer: PeerKey,
        /// Up or down.
        up: bool,
        /// Why it went down.
        reason: Option<String>,
    },
    /// BFD sees the path to a peer up, or no longer: it failed, or one of the two no longer watches it; of
    /// several changes only the last.
    Bfd {
        /// To whom.
        peer: PeerKey,
        /// Up or not.
        up: bool,
    },
    /// So many UPDATEs were wrong, short of ending their session, since this was told last, by the dearest that it cost
    /// (RFC 7606 §2).
    Faults(BTreeMap<Action, u64>),
}

/// Routers that are lost with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whose session.
    pub peer: PeerKey,
    /// Those that no other peer leads to.
    pub routers: Vec<Gateway>,
}

/// The way out of a running speaker.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    losses: mpsc::Receiver<Lost>,
}

impl Events {
    pub(crate) const fn new(events: mpsc::Receiver<Event>, losses: mpsc::Receiver<Lost>) -> Self {
        Self { events, losses }
    }

    /// The next event; `None` when the speaker has stopped. Cancel safe. Whoever calls late misses nothing
    /// that still holds: meanwhile the changes are merged per prefix and per peer.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            Some(lost) = self.losses.recv() => Some(Event::Lost(lost)),
            event = self.events.recv() => event,
        }
    }
}
