//! The sessions task: tells operators of a BGP peer that stays without a session, once each time it happens.
//!
//! Of the mesh it says nothing: when a node goes, Kubernetes says so, once and not once from each other node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use manx_api::status::PeerStatus;
use manx_store::{Happening, Subject};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::ask::ask;
use crate::bgp;
use crate::events::Events;

/// For how long there must be no session: restarts of routers are over by then.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Where sessions of a mesh come from.
const MESH: &str = "mesh";

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// This node's name.
    pub node: String,
    /// Whom to ask how sessions are.
    pub bgp: mpsc::Sender<bgp::Question>,
    /// Where it is told.
    pub events: Events,
}

/// Runs until the agent ends.
pub async fn run(inbox: &mut Inbox) {
    let mut down = Down::default();
    while let Ok(peers) = ask(&inbox.bgp, bgp::Question::Peers).await {
        for message in down.look(Instant::now(), &peers) {
            tracing::warn!("{message}");
            inbox.events.tell(Happening {
                subject: Subject::Host(inbox.node.clone()),
                reason: "BGPPeerDown",
                message,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A peer: its address, and the interface that leads to it where it is on a link.
type Peer = (IpAddr, Option<String>);

/// Since when peers are without a session, and whether that was told.
#[derive(Debug, Default)]
struct Down(BTreeMap<Peer, (Instant, bool)>);

impl Down {
    /// Takes in how sessions are; returns what is to be told.
    fn look(&mut self, now: Instant, peers: &[PeerStatus]) -> Vec<String> {
        let is_down =
            |peer: &&PeerStatus| peer.state != "Established" && peer.origin != MESH && peer.drain.is_none();
        let down: BTreeMap<Peer, &PeerStatus> = peers
            .iter()
            .filter(is_down)
            .map(|peer| ((peer.address, peer.interface.clone()), peer))
            .collect();
        self.0.retain(|peer, _| down.contains_key(peer));
        let mut messages = Vec::new();
        for (peer, status) in down {
            let (since, told) = self.0.entry(peer).or_insert((now, false));
            if !*told && now.saturating_duration_since(*since) >= PATIENCE {
                *told = true;
                messages.push(message(status));
            }
        }
        messages
    }
}

fn message(peer: &PeerStatus) -> String {
    let interface = peer.interface.iter().map(|name| format!(" on {name}"));
    let error = peer
        .last_error
        .iter()
        .map(|error| format!("; it last ended with: {error}"));
    let (interface, error): (String, String) = (interface.collect(), error.collect());
    format!(
        "no BGP session with {}{interface} (AS {}, BGPPeer {}) for {} seconds: it is {}{error}. See manxctl bgp peers, and \
         whether the peer answers",
        peer.address,
        peer.asn,
        peer.origin,
        PATIENCE.as_secs(),
        peer.state
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, state: &str, origin: &str) -> PeerStatus {
        let json = serde_json::json!({
            "node": "n1", "address": address, "asn": 64512, "state": state, "uptimeSeconds": 0, "received": 0,
            "accepted": 0, "advertised": 0, "origin": origin, "holdTime": 90, "lastError": "Hold Timer Expired",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_peer_that_stays_down_is_told_of_once_each_time() {
        let (mut down, begin) = (Down::default(), Instant::now());
        let mut look = |seconds: u64, state: &str| {
            let peers = [peer("192.0.2.7", state, "tor"), peer("192.0.2.8", "Idle", MESH)];
            down.look(begin + Duration::from_secs(seconds), &peers)
        };
        let patience = PATIENCE.as_secs();
        assert!(look(0, "Idle").is_empty());
        assert!(look(patience - 1, "Active").is_empty());
        let told = look(patience, "Connect");
        assert_eq!(told.len(), 1, "of the mesh nothing is said: {told:?}");
        for part in ["192.0.2.7", "BGPPeer tor", "it is Connect", "Hold Timer Expired"] {
            assert!(told[0].contains(part), "{told:?}");
        }
        assert!(look(patience * 2, "Idle").is_empty());
        assert!(look(patience * 2 + 1, "Established").is_empty());
        assert!(look(patience * 2 + 2, "Idle").is_empty());
        assert_eq!(look(patience * 3 + 2, "Idle").len(), 1);
    }
}
