//! How many connections there may be, and with whom.
//!
//! A connection that has been closed lingers until the other side has read why, two seconds at most, so whoever connects
//! again and again would have as many as he likes. One more than its peer may have is reset before it is looked at:
//! nobody else's are the fewer for it.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use manx_bgp::PeerKey;

/// Connections with one peer: the two of RFC 4271 §6.8, and some that linger.
const PER_PEER: usize = 16;

/// Connections with all others that come from one range of dynamic neighbors, or from nowhere: they linger only.
const PER_CROWD: usize = 128;

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// A peer's.
    Peer(PeerKey),
    /// Of somebody from a range who was not welcome.
    Range(IpNetwork),
    /// Of nobody we know.
    Stranger,
}

/// How many connections there are with whom.
#[derive(Debug, Default)]
pub(crate) struct Places(BTreeMap<Whose, usize>);

impl Places {
    /// Whether there is room for one more.
    pub(crate) fn is_free(&self, whose: Whose) -> bool {
        let most = match whose {
            Whose::Peer(_) => PER_PEER,
            Whose::Range(_) | Whose::Stranger => PER_CROWD,
        };
        self.0.get(&whose).is_none_or(|taken| *taken < most)
    }

    /// A connection is there.
    pub(crate) fn take(&mut self, whose: Whose) {
        *self.0.entry(whose).or_default() += 1;
    }

    /// A connection has ended.
    pub(crate) fn give_back(&mut self, whose: Whose) {
        if let Some(taken) = self.0.get_mut(&whose) {
            *taken -= 1;
            if *taken == 0 {
                self.0.remove(&whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_crowd_takes_nobody_elses_places() {
        let peer = |host| Whose::Peer(PeerKey::of([192, 0, 2, host].into(), 0));
        let mut places = Places::default();
        for _ in 0..PER_CROWD {
            assert!(places.is_free(Whose::Stranger));
            places.take(Whose::Stranger);
        }
        for _ in 0..PER_PEER {
            assert!(places.is_free(peer(1)));
            places.take(peer(1));
        }
        assert!(!places.is_free(Whose::Stranger) && !places.is_free(peer(1)));
        assert!(places.is_free(peer(2)) && places.is_free(Whose::Range("10.0.0.0/8".parse().unwrap())));
        places.give_back(Whose::Stranger);
        assert!(places.is_free(Whose::Stranger) && !places.is_free(peer(1)));
        for _ in 0..PER_PEER {
            places.give_back(peer(1));
        }
        for _ in 1..PER_CROWD {
            places.give_back(Whose::Stranger);
        }
        assert!(places.0.is_empty(), "who has left is forgotten");
    }
}
