//! Neighbours that are known by the interface that leads to them.
//!
//! Such a neighbour has a link-local address, which means something only together with the interface's index. Both
//! come and go: the interface may be made after us, flap, or be made anew with another index, and an unnumbered
//! neighbour is whoever is heard there. The speaker has such a peer only while both are known, so this table turns
//! news of interfaces and addresses into [`Input::SetPeer`] and [`Input::RemovePeer`].
//!
//! An interface has one unnumbered neighbour: the first that is heard. Another takes its place once that one has
//! been silent for [`SILENCE`] and has no session, or when the interface has been down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manx_bgp::{Input, PeerConfig, PeerKey};

/// How long a neighbour is silent that has gone: three of its advertisements, or of ours.
const SILENCE: Duration = Duration::from_secs(30);

/// What identifies a neighbour on a link: its interface, and its address unless it is whoever is found there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    /// The interface's name.
    pub interface: Arc<str>,
    /// The link-local address; none for an unnumbered neighbour.
    pub address: Option<Ipv6Addr>,
}

/// A neighbour on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPeer {
    /// Who.
    pub key: LinkKey,
    /// Its settings; their own key counts for nothing.
    pub config: PeerConfig,
}

/// A neighbour on a link, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSnapshot {
    /// Who.
    pub key: LinkKey,
    /// As the speaker knows it: its address and the interface's index, or why it does not.
    pub peer: Result<PeerKey, Arc<str>>,
    /// Its AS, as configured.
    pub asn: u32,
    /// The hold time to be proposed.
    pub hold_time: Duration,
}

/// What happens on links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Packets pass.
    Up { interface: Arc<str>, index: u32 },
    /// No packets pass, for this reason.
    Down {
        interface: Arc<str>,
        reason: &'static str,
    },
    /// A router says that it is there.
    Heard { interface: Arc<str>, address: Ipv6Addr },
    /// Nobody can be found, for this reason; none: it is over.
    Problem {
        interface: Arc<str>,
        problem: Option<Arc<str>>,
    },
}

/// Interfaces that are looked at, and whether an unnumbered neighbour is looked for there.
pub(crate) type Wanted = BTreeMap<Arc<str>, bool>;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Links {
    peers: BTreeMap<LinkKey, Entry>,
    interfaces: BTreeMap<Arc<str>, Interface>,
    /// Peers on links that have a session.
    established: BTreeSet<PeerKey>,
}

#[derive(Debug)]
struct Entry {
    config: PeerConfig,
    found: Option<Found>,
}

/// An unnumbered neighbour that was heard.
#[derive(Clone, Copy, Debug)]
struct Found {
    address: Ipv6Addr,
    /// When last.
    heard: Instant,
}

#[derive(Debug, Default)]
struct Interface {
    /// Its index, while packets pass.
    index: Option<u32>,
    /// Why nobody is found.
    problem: Option<Arc<str>>,
}

impl fmt::Display for LinkKey {
    /// `swp1`, `fe80::1%swp1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => f.write_str(&self.interface),
            Some(address) => write!(f, "{address}%{}", self.interface),
        }
    }
}

impl Links {
    /// Adds a neighbour, or changes its settings.
    pub(crate) fn set(&mut self, peer: LinkPeer) -> Vec<Input> {
        let LinkPeer { key, config } = peer;
        let found = self.peers.remove(&key).and_then(|entry| entry.found);
        self.peers.insert(key.clone(), Entry { config, found });
        self.told(&key).into_iter().collect()
    }

    /// Forgets a neighbour.
    pub(crate) fn remove(&mut self, key: &LinkKey) -> Vec<Input> {
        let known = self.known(key);
        self.peers.remove(key);
        let interface = &key.interface;
        if self.peers.keys().all(|other| other.interface != *interface) {
            self.interfaces.remove(interface);
        }
        known.map(Input::RemovePeer).into_iter().collect()
    }

    /// Takes news.
    pub(crate) fn take(&mut self, news: News, now: Instant) -> Vec<Input> {
        match news {
            News::Up { interface, index } => self.up(&interface, index),
            News::Down { interface, reason } => self.down(&interface, reason.into()),
            News::Heard { interface, address } => self.heard(interface, address, now),
            News::Problem { interface, problem } => {
                if self.peers.keys().any(|key| key.interface == interface) {
                    self.interfaces.entry(interface).or_default().problem = problem;
                }
                Vec::new()
            }
        }
    }

    /// A connection has come from a link-local address on an interface: where an unnumbered neighbour is looked for,
    /// that is as good as an advertisement.
    pub(crate) fn connected(&mut self, peer: PeerKey, now: Instant) -> Vec<Input> {
        let mut interfaces = self.interfaces.iter();
        let here = interfaces.find(|(_, it)| it.index == Some(peer.scope));
        match (here, peer.address) {
            (Some((interface, _)), IpAddr::V6(address)) if peer.scope != 0 => {
                self.heard(interface.clone(), address, now)
            }
            (Some(_) | None, _) => Vec::new(),
        }
    }

    /// A peer's session came up or went down.
    pub(crate) fn session(&mut self, peer: PeerKey, up: bool) {
        if up && peer.scope != 0 {
            self.established.insert(peer);
        } else {
            self.established.remove(&peer);
        }
    }

    /// The interfaces to look at.
    pub(crate) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for key in self.peers.keys() {
            *wanted.entry(key.interface.clone()).or_default() |= key.address.is_none();
        }
        wanted
    }

    /// Whether there is a neighbour that the speaker does not know.
    pub(crate) fn lacks_some(&self) -> bool {
        self.peers.keys().any(|key| self.known(key).is_none())
    }

    /// Every neighbour as it stands.
    pub(crate) fn snapshot(&self) -> Vec<LinkSnapshot> {
        let shown = |(key, entry): (&LinkKey, &Entry)| LinkSnapshot {
            key: key.clone(),
            peer: self.known(key).ok_or_else(|| self.reason(key)),
            asn: entry.config.asn,
            hold_time: entry.config.hold_time,
        };
        self.peers.iter().map(shown).collect()
    }

    /// Why the speaker does not know a neighbour.
    fn reason(&self, key: &LinkKey) -> Arc<str> {
        let interface = self.interfaces.get(&key.interface);
        let problem = interface.and_then(|interface| interface.problem.clone());
        problem.unwrap_or_else(|| format!("no router has been heard on {}", key.interface).into())
    }

    /// A neighbour as the speaker knows it.
    fn known(&self, key: &LinkKey) -> Option<PeerKey> {
        let entry = self.peers.get(key)?;
        let address = key.address.or_else(|| entry.found.map(|found| found.address))?;
        Some(PeerKey {
            address: address.into(),
            scope: self.interfaces.get(&key.interface)?.index?,
        })
    }

    /// What the speaker is told of a neighbour that can be known.
    fn told(&self, key: &LinkKey) -> Option<Input> {
        let config = PeerConfig {
            key: self.known(key)?,
            ..self.peers.get(key)?.config.clone()
        };
        Some(Input::SetPeer(Box::new(config)))
    }

    fn up(&mut self, name: &Arc<str>, index: u32) -> Vec<Input> {
        if self
            .interfaces
            .get(name)
            .is_some_and(|it| it.index == Some(index))
        {
            return Vec::new();
        }
        let mut inputs = self.forget(name);
        let interface = Interface {
            index: Some(index),
            problem: None,
        };
        self.interfaces.insert(name.clone(), interface);
        inputs.extend(self.of(name).iter().filter_map(|key| self.told(key)));
        inputs
    }

    fn down(&mut self, name: &Arc<str>, reason: Arc<str>) -> Vec<Input> {
        let inputs = self.forget(name);
        if !self.of(name).is_empty() {
            let interface = Interface {
                index: None,
                problem: Some(reason),
            };
            self.interfaces.insert(name.clone(), interface);
        }
        inputs
    }

    /// Forgets all that was known of an interface and of who is there.
    fn forget(&mut self, name: &Arc<str>) -> Vec<Input> {
        let keys = self.of(name);
        let known: Vec<_> = keys.iter().filter_map(|key| self.known(key)).collect();
        self.interfaces.remove(name);
        for (_, entry) in self.peers.iter_mut().filter(|(key, _)| key.interface == *name) {
            entry.found = None;
        }
        known.into_iter().map(Input::RemovePeer).collect()
    }

    fn heard(&mut self, interface: Arc<str>, address: Ipv6Addr, now: Instant) -> Vec<Input> {
        let with = |address| LinkKey {
            interface: interface.clone(),
            address,
        };
        let key = with(None);
        // Who has settings of its own is not the unnumbered one.
        if self.peers.contains_key(&with(Some(address))) {
            return Vec::new();
        }
        let before = self.known(&key);
        let has_session = before.is_some_and(|peer| self.established.contains(&peer));
        let Some(entry) = self.peers.get_mut(&key) else {
            return Vec::new();
        };
        if let Some(found) = &mut entry.found {
            if found.address == address {
                found.heard = now;
                return Vec::new();
            }
            if has_session || now.saturating_duration_since(found.heard) < SILENCE {
                tracing::debug!(%interface, %address, known = %found.address, "another router on the link");
                return Vec::new();
            }
        }
        tracing::info!(%interface, %address, "found the neighbor on the link");
        entry.found = Some(Found { address, heard: now });
        let removed = before.map(Input::RemovePeer);
        removed.into_iter().chain(self.told(&key)).collect()
    }

    /// The neighbours on an interface.
    fn of(&self, name: &Arc<str>) -> Vec<LinkKey> {
        let keys = self.peers.keys();
        keys.filter(|key| key.interface == *name).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const SECOND: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn peer(interface: &str, address: Option<Ipv6Addr>) -> LinkPeer {
        let key = LinkKey {
            interface: interface.into(),
            address,
        };
        let nobody = PeerKey::of(Ipv6Addr::UNSPECIFIED.into(), 0);
        LinkPeer {
            key,
            config: PeerConfig::new(nobody, 65_000),
        }
    }

    /// A table whose time is in seconds, with what the speaker is told as text: `+fe80::1%7`, `-fe80::1%7`.
    struct Rig {
        links: Links,
        start: Instant,
    }

    impl Rig {
        fn new(peers: &[LinkPeer]) -> Self {
            let mut links = Links::default();
            for peer in peers {
                assert!(links.set(peer.clone()).is_empty());
            }
            Self {
                links,
                start: Instant::now(),
            }
        }

        fn up(&mut self, interface: &str, index: u32) -> Vec<String> {
            self.take(
                0,
                News::Up {
                    interface: interface.into(),
                    index,
                },
            )
        }

        fn down(&mut self, interface: &str) -> Vec<String> {
            let (interface, reason) = (interface.into(), "it is down");
            self.take(0, News::Down { interface, reason })
        }

        fn heard(&mut self, seconds: u64, interface: &str, address: Ipv6Addr) -> Vec<String> {
            let interface = interface.into();
            self.take(seconds, News::Heard { interface, address })
        }

        fn take(&mut self, seconds: u64, news: News) -> Vec<String> {
            let now = self.start + Duration::from_secs(seconds);
            said(&self.links.take(news, now))
        }
    }

    fn said(inputs: &[Input]) -> Vec<String> {
        let word = |input: &Input| {
            if let Input::SetPeer(config) = input {
                format!("+{}", config.key)
            } else if let Input::RemovePeer(key) = input {
                format!("-{key}")
            } else {
                panic!("{input:?}")
            }
        };
        inputs.iter().map(word).collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_neighbor_with_an_address_is_there_while_its_interface_is() {
        let mut rig = Rig::new(&[peer("a", Some(FIRST)), peer("b", Some(FIRST))]);
        assert!(rig.links.lacks_some());
        assert_eq!(rig.up("a", 2), ["+fe80::1%2"]);
        assert_eq!(rig.up("b", 3), ["+fe80::1%3"]);
        assert_eq!(rig.up("b", 3), NOTHING);
        assert!(!rig.links.lacks_some());
        assert_eq!(rig.up("b", 9), ["-fe80::1%3", "+fe80::1%9"], "it was made anew");
        assert_eq!(rig.down("a"), ["-fe80::1%2"]);
        assert_eq!(rig.down("a"), NOTHING);
        let snapshot = rig.links.snapshot();
        assert_eq!(snapshot[0].peer, Err("it is down".into()));
        assert_eq!(said(&rig.links.remove(&snapshot[1].key)), ["-fe80::1%9"]);
        assert_eq!(rig.links.wanted(), Wanted::from([("a".into(), false)]));
    }

    #[test]
    fn an_unnumbered_neighbor_is_who_is_heard_first_on_its_interface() {
        let mut rig = Rig::new(&[peer("a", None), peer("b", None)]);
        assert_eq!(rig.up("a", 2), NOTHING);
        assert_eq!(rig.up("b", 3), NOTHING);
        assert_eq!(rig.heard(0, "a", FIRST), ["+fe80::1%2"]);
        assert_eq!(rig.heard(1, "a", FIRST), NOTHING);
        assert_eq!(rig.heard(1, "a", SECOND), NOTHING);
        assert_eq!(
            rig.heard(1, "b", FIRST),
            ["+fe80::1%3"],
            "the same address elsewhere"
        );
        assert_eq!(rig.heard(1, "c", FIRST), NOTHING);
    }

    #[test]
    fn a_silent_neighbor_gives_way_unless_it_has_a_session() {
        let mut rig = Rig::new(&[peer("a", None)]);
        rig.up("a", 2);
        rig.heard(0, "a", FIRST);
        assert_eq!(rig.heard(20, "a", FIRST), NOTHING);
        assert_eq!(rig.heard(49, "a", SECOND), NOTHING);
        let first = PeerKey::of(FIRST.into(), 2);
        rig.links.session(first, true);
        assert_eq!(rig.heard(50, "a", SECOND), NOTHING);
        rig.links.session(first, false);
        assert_eq!(rig.heard(51, "a", SECOND), ["-fe80::1%2", "+fe80::2%2"]);
    }

    #[test]
    fn an_interface_that_was_down_has_to_be_heard_anew() {
        let mut rig = Rig::new(&[peer("a", None)]);
        rig.up("a", 2);
        rig.heard(0, "a", FIRST);
        assert_eq!(rig.down("a"), ["-fe80::1%2"]);
        assert_eq!(
            rig.heard(0, "a", FIRST),
            NOTHING,
            "nobody is told before the interface is up"
        );
        rig.down("a");
        assert_eq!(rig.up("a", 2), NOTHING);
        assert_eq!(rig.heard(1, "a", SECOND), ["+fe80::2%2"]);
    }

    #[test]
    fn who_has_settings_of_its_own_is_not_the_unnumbered_one() {
        let mut rig = Rig::new(&[peer("a", None), peer("a", Some(FIRST))]);
        assert_eq!(rig.up("a", 2), ["+fe80::1%2"]);
        assert_eq!(rig.heard(0, "a", FIRST), NOTHING);
        assert_eq!(rig.heard(0, "a", SECOND), ["+fe80::2%2"]);
    }

    #[test]
    fn who_connects_from_the_link_has_been_found() {
        let mut rig = Rig::new(&[peer("a", None)]);
        rig.up("a", 2);
        let now = rig.start;
        assert_eq!(
            said(&rig.links.connected(PeerKey::of(FIRST.into(), 3), now)),
            NOTHING
        );
        assert_eq!(
            said(&rig.links.connected(PeerKey::of(FIRST.into(), 2), now)),
            ["+fe80::1%2"]
        );
    }

    #[test]
    fn changed_settings_reach_who_is_known() {
        let mut rig = Rig::new(&[peer("a", None)]);
        rig.up("a", 2);
        rig.heard(0, "a", FIRST);
        let again = said(&rig.links.set(peer("a", None)));
        assert_eq!(again, ["+fe80::1%2"]);
    }

    #[test]
    fn a_problem_shows_until_it_is_over() {
        let mut rig = Rig::new(&[peer("a", None)]);
        rig.up("a", 2);
        let (interface, reason) = (Arc::<str>::from("a"), |rig: &Rig| {
            rig.links.snapshot()[0].peer.clone().unwrap_err()
        });
        for (problem, shown) in [
            (Some("no CAP_NET_RAW".into()), "no CAP_NET_RAW"),
            (None, "no router has been heard on a"),
        ] {
            let interface = interface.clone();
            rig.take(0, News::Problem { interface, problem });
            assert_eq!(&*reason(&rig), shown);
        }
    }
}
