//! When sessions of a mesh that is given up may go: not before others bring what they brought.
//!
//! A node that loses its mesh loses routes unless its reflectors are there first, and so does everybody who had
//! routes from it. So a mesh session stays until the sessions that take its place are up and every prefix that
//! came over it has come over one of these, too: what a peer has announced to a reflector and we have from there
//! shows that the peer, as well, is past it. After [`LIMIT`] the resources have their way whatever is missing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use manx_bgp::{PathSnapshot, PeerKey, PeerSnapshot, Prefix, State};

/// How often it is looked at.
pub const PAUSE: Duration = Duration::from_millis(500);

/// How long all has to be there before sessions go: peers that announce nothing show nothing.
const SETTLED: Duration = Duration::from_secs(3);

/// How long sessions stay that nothing takes the place of.
const LIMIT: Duration = Duration::from_secs(120);

/// Sessions that are to go.
#[derive(Clone, Debug)]
pub struct Leaving {
    since: Instant,
    /// Since when all that takes their place is there.
    replaced_since: Option<Instant>,
}

impl Leaving {
    /// They are to go since `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            replaced_since: None,
        }
    }

    /// Looks at what there is.
    pub fn look(
        &mut self,
        now: Instant,
        leaving: &BTreeSet<PeerKey>,
        peers: &[PeerSnapshot],
        paths: &[PathSnapshot],
    ) {
        self.replaced_since = if are_replaced(leaving, peers, paths) {
            self.replaced_since.or(Some(now))
        } else {
            None
        };
    }

    /// Whether they may go.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        let past = |since: Instant, time| now.saturating_duration_since(since) >= time;
        past(self.since, LIMIT) || self.replaced_since.is_some_and(|since| past(since, SETTLED))
    }
}

/// Whether all other sessions are up, and bring every prefix that those that leave bring.
fn are_replaced(leaving: &BTreeSet<PeerKey>, peers: &[PeerSnapshot], paths: &[PathSnapshot]) -> bool {
    let up = peers
        .iter()
        .filter(|peer| !leaving.contains(&peer.key))
        .all(|peer| peer.state == State::Established);
    let prefixes = |leave: bool| -> BTreeSet<Prefix> {
        let from = |path: &&PathSnapshot| path.peer.is_some_and(|peer| leaving.contains(&peer) == leave);
        paths.iter().filter(from).map(|path| path.prefix).collect()
    };
    up && prefixes(true).is_subset(&prefixes(false))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use manx_bgp::wire::Attributes;

    use super::*;

    fn key(host: u8) -> PeerKey {
        PeerKey::of([192, 0, 2, host].into(), 0)
    }

    fn peer(host: u8, state: State) -> PeerSnapshot {
        PeerSnapshot {
            key: key(host),
            asn: 64512,
            router_id: None,
            state,
            established_since: None,
            received: 0,
            accepted: 0,
            advertised: 0,
            drain: None,
            limits: Vec::new(),
            hold_time: Duration::ZERO,
            last_error: None,
            faults: BTreeMap::new(),
        }
    }

    fn path(prefix: &str, from: Option<u8>) -> PathSnapshot {
        PathSnapshot {
            prefix: prefix.parse().unwrap(),
            path_id: None,
            next_hop: None,
            peer: from.map(key),
            attributes: Arc::new(Attributes::default()),
            priority: 1025,
            best: true,
            multipath: false,
            stale: false,
            reason: None,
        }
    }

    #[test]
    fn sessions_go_when_others_have_brought_all_that_they_brought() {
        let leaving = BTreeSet::from([key(2), key(3)]);
        let up = [
            peer(1, State::Established),
            peer(2, State::Active),
            peer(3, State::Established),
        ];
        let (own, mesh) = (path("10.0.0.0/26", None), path("10.0.3.0/26", Some(3)));
        let reflected = path("10.0.3.0/26", Some(1));
        let all = [own.clone(), mesh.clone(), reflected];
        assert!(are_replaced(&leaving, &up, &all));
        assert!(!are_replaced(&leaving, &up, &[own, mesh]), "only the mesh has it");
        let down = [peer(1, State::OpenSent), up[1].clone(), up[2].clone()];
        assert!(!are_replaced(&leaving, &down, &all));
    }

    #[test]
    fn they_go_after_a_while_or_when_nothing_takes_their_place_for_long() {
        let start = Instant::now();
        let leaving = BTreeSet::from([key(2)]);
        let mut state = Leaving::new(start);
        assert!(!state.is_over(start + SETTLED), "nothing has been looked at");
        state.look(start, &leaving, &[], &[]);
        assert!(!state.is_over(start));
        assert!(state.is_over(start + SETTLED));
        state.look(start + SETTLED, &leaving, &[peer(1, State::Idle)], &[]);
        assert!(
            !state.is_over(start + SETTLED + SETTLED),
            "it has gone down again"
        );
        assert!(state.is_over(start + LIMIT));
    }
}
