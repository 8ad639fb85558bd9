//! Dynamic neighbours: whoever connects from a range of addresses is a peer for as long as he stays.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use crate::{PeerConfig, PeerKey, Prefix};

/// A range of addresses whose owners may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeConfig {
    /// Which addresses. A peer with settings of its own is not of the range; of several ranges, the longest counts.
    pub range: Prefix,
    /// How many peers at a time, at most.
    pub limit: usize,
    /// The settings of each; key and port count for nothing, and they are waited for in any case.
    pub template: PeerConfig,
}

/// A range as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSnapshot {
    /// Which.
    pub range: Prefix,
    /// How many peers there may be.
    pub limit: usize,
    /// Those that there are, in order.
    pub peers: Vec<PeerKey>,
    /// How many connections the limit has turned away.
    pub refused: u64,
}

/// What becomes of a connection from no configured peer.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is a new peer's.
    Welcome(Box<PeerConfig>),
    /// Its range is full; `news`: which it was not when the last one was turned away.
    Full {
        /// Which range.
        range: Prefix,
        /// It is worth telling.
        news: bool,
    },
    /// Nobody knows it.
    Stranger,
}

/// All ranges and who is there.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<Prefix, Range>);

#[derive(Debug)]
struct Range {
    config: RangeConfig,
    members: BTreeSet<PeerKey>,
    refused: u64,
    /// Somebody was turned away since a place was free.
    full: bool,
}

impl Range {
    /// The settings of a member.
    fn member(&self, key: PeerKey) -> PeerConfig {
        PeerConfig {
            key,
            passive: true,
            ..self.config.template.clone()
        }
    }
}

impl Ranges {
    /// Adds a range, or changes its settings; gives its members' new ones.
    pub(crate) fn set(&mut self, config: RangeConfig) -> Vec<PeerConfig> {
        let range = self.0.entry(config.range).or_insert_with(|| Range {
            config: config.clone(),
            members: BTreeSet::new(),
            refused: 0,
            full: false,
        });
        range.config = config;
        range.members.iter().map(|key| range.member(*key)).collect()
    }

    /// Removes a range; gives its members.
    pub(crate) fn remove(&mut self, range: Prefix) -> BTreeSet<PeerKey> {
        self.0.remove(&range).map(|it| it.members).unwrap_or_default()
    }

    /// Judges a connection from `key`, and counts it in if it is welcome.
    pub(crate) fn admit(&mut self, key: PeerKey) -> Verdict {
        let address = Prefix::new(IpNetwork::from(key.address));
        let around = self.0.iter_mut().filter(|(range, _)| range.covers(address));
        let Some((range, entry)) = around.max_by_key(|(range, _)| range.network().prefix()) else {
            return Verdict::Stranger;
        };
        if entry.members.len() >= entry.config.limit {
            entry.refused += 1;
            let news = !std::mem::replace(&mut entry.full, true);
            return Verdict::Full { range: *range, news };
        }
        entry.members.insert(key);
        Verdict::Welcome(Box::new(entry.member(key)))
    }

    /// A peer is gone, or has settings of its own from now on.
    pub(crate) fn forget(&mut self, key: PeerKey) {
        for range in self.0.values_mut() {
            if range.members.remove(&key) {
                range.full = false;
            }
        }
    }

    /// Whether a peer is there only because it has connected.
    pub(crate) fn has(&self, key: PeerKey) -> bool {
        self.0.values().any(|range| range.members.contains(&key))
    }

    /// Whether there is a range.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every range as it stands.
    pub(crate) fn snapshot(&self) -> Vec<RangeSnapshot> {
        let snapshot = |(range, entry): (&Prefix, &Range)| RangeSnapshot {
            range: *range,
            limit: entry.config.limit,
            peers: entry.members.iter().copied().collect(),
            refused: entry.refused,
        };
        self.0.iter().map(snapshot).collect()
    }
}
