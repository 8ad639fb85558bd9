//! Which path is best, and why the others are not (RFC 4271 §9.1.2, RFC 4456 §9).
//!
//! Paths leave step by step; what is left after a step goes on to the next:
//!
//! 1. our own prefixes before anything learned: no peer can take a node's own addresses from it;
//! 2. any other before one that is long-lived stale (RFC 9494 §4.4);
//! 3. lower priority, where filters set any: it is the kernel's metric, and the kernel takes the lowest;
//! 4. higher LOCAL_PREF (RFC 4271 §9.1.1; 100 where there is none);
//! 5. shorter AS_PATH, a set counting as one;
//! 6. lower ORIGIN;
//! 7. lower MULTI_EXIT_DISC among paths through the same neighbouring AS (0 where there is none);
//! 8. eBGP before iBGP.
//!
//! What is left now is equally good and may share the traffic. Among these, the best path has
//!
//! 9. the lower ORIGINATOR_ID, or BGP identifier of its peer;
//! 10. the shorter CLUSTER_LIST;
//! 11. the lower peer address;
//! 12. the lower path identifier (RFC 7911).
//!
//! The result depends on the set of paths alone, not on their order or age: step 7 removes a path when *any*
//! path left through its neighbouring AS is better, and every other step is a minimum.

use std::cmp::Reverse;
use std::fmt;
use std::net::Ipv4Addr;

use smallvec::SmallVec;

use crate::PeerKey;
use crate::long_lived;
use crate::wire::{Attributes, Origin};

/// The preference of a path that does not state one.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// The path's attributes.
    pub(crate) attributes: &'a Attributes,
    /// Its rank in the kernel.
    pub(crate) priority: u32,
    /// From whom it came.
    pub(crate) source: Source,
}

/// From whom a path came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// We originate it.
    Own,
    /// A peer announced it.
    Peer {
        /// Which.
        key: PeerKey,
        /// Its BGP identifier.
        router_id: Ipv4Addr,
        /// It is of another AS.
        external: bool,
        /// Its identifier for the path (RFC 7911).
        path_id: Option<u32>,
    },
}

/// Why a path is not the best, in the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// The prefix is our own.
    Own,
    /// Step 2.
    LongLivedStale,
    /// Step 3.
    Priority,
    /// Step 4.
    LocalPref,
    /// Step 5.
    AsPathLength,
    /// Step 6.
    Origin,
    /// Step 7.
    Med,
    /// Step 8.
    Internal,
    /// Step 9.
    RouterId,
    /// Step 10.
    ClusterListLength,
    /// Step 11.
    PeerAddress,
    /// Step 12.
    PathId,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "the prefix is our own",
            Self::LongLivedStale => "it is long-lived stale (llgr-stale), and another path is not",
            Self::Priority => "a filter gave another path a lower priority",
            Self::LocalPref => "another path has a higher LOCAL_PREF",
            Self::AsPathLength => "another path has a shorter AS_PATH",
            Self::Origin => "another path has a lower ORIGIN",
            Self::Med => "another path through the same AS has a lower MED",
            Self::Internal => "another path was learned by eBGP",
            Self::RouterId => "another path's originator has a lower BGP identifier",
            Self::ClusterListLength => "another path has a shorter CLUSTER_LIST",
            Self::PeerAddress => "another path's peer has a lower address",
            Self::PathId => "another path of the same peer has a lower path identifier",
        })
    }
}

/// Steps 1 to 6 as one value: the paths that have the least of it are left after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Grade {
    learned: bool,
    stale: bool,
    priority: u32,
    local_pref: Reverse<u32>,
    hops: u16,
    origin: Origin,
}

/// The paths, by their index among the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The best, then those as good up to step 8, in order of the later steps.
    pub(crate) ranked: SmallVec<[usize; 2]>,
    /// The others, each with the first step that it lost in.
    pub(crate) lost: SmallVec<[(usize, Reason); 2]>,
}

/// Decides among the paths of one prefix.
pub(crate) fn decide(candidates: &[Candidate<'_>]) -> Decision {
    let mut decision = Decision {
        ranked: (0..candidates.len()).collect(),
        lost: SmallVec::new(),
    };
    if candidates.len() > 1 {
        let grades: SmallVec<[Grade; 4]> = candidates.iter().map(Candidate::grade).collect();
        decision.keep_least(Reason::Own, |i| grades[i].learned);
        decision.keep_least(Reason::LongLivedStale, |i| grades[i].stale);
        decision.keep_least(Reason::Priority, |i| grades[i].priority);
        decision.keep_least(Reason::LocalPref, |i| grades[i].local_pref);
        decision.keep_least(Reason::AsPathLength, |i| grades[i].hops);
        decision.keep_least(Reason::Origin, |i| grades[i].origin);
        decision.keep_least_med(candidates);
        decision.keep_least(Reason::Internal, |i| !candidates[i].external());
        decision.ranked.sort_by_key(|&i| candidates[i].tie_break());
    }
    decision
}

/// For each path, why it is not the best; nothing for the best.
pub(crate) fn explain(candidates: &[Candidate<'_>]) -> Vec<Option<Reason>> {
    let decision = decide(candidates);
    let mut reasons = vec![None; candidates.len()];
    for (place, reason) in decision.lost {
        reasons[place] = Some(reason);
    }
    if let Some((&best, others)) = decision.ranked.split_first() {
        for &place in others {
            reasons[place] = Some(candidates[best].beats(&candidates[place]));
        }
    }
    reasons
}

impl Decision {
    fn keep_least<K: Ord>(&mut self, reason: Reason, key: impl Fn(usize) -> K) {
        if let Some(least) = self.ranked.iter().map(|&i| key(i)).min() {
            self.keep(reason, |i| key(i) == least);
        }
    }

    fn keep_least_med(&mut self, candidates: &[Candidate<'_>]) {
        let med = |i: usize| candidates[i].attributes.med.unwrap_or(0);
        let neighbor = |i: usize| candidates[i].attributes.as_path.neighbor();
        let left = self.ranked.clone();
        self.keep(Reason::Med, |i| {
            !left
                .iter()
                .any(|&j| neighbor(j) == neighbor(i) && med(j) < med(i))
        });
    }

    fn keep(&mut self, reason: Reason, stays: impl Fn(usize) -> bool) {
        let Self { ranked, lost } = self;
        ranked.retain(|i| {
            let stays = stays(*i);
            if !stays {
                lost.push((*i, reason));
            }
            stays
        });
    }
}

impl Candidate<'_> {
    /// How it stands in steps 1 to 6, which look at each path by itself.
    pub(crate) fn grade(&self) -> Grade {
        Grade {
            learned: self.source != Source::Own,
            stale: long_lived::is_stale(self.attributes),
            priority: self.priority,
            local_pref: Reverse(self.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
            // Two octets take an AS, so a message has fewer.
            hops: u16::try_from(self.attributes.as_path.hops()).unwrap_or(u16::MAX),
            origin: self.attributes.origin,
        }
    }

    fn external(&self) -> bool {
        matches!(self.source, Source::Peer { external: true, .. })
    }

    /// In which of steps 9 to 12 this path is better than `other`.
    fn beats(&self, other: &Self) -> Reason {
        let (best, other) = (self.tie_break(), other.tie_break());
        if best.0 != other.0 {
            Reason::RouterId
        } else if best.1 != other.1 {
            Reason::ClusterListLength
        } else if best.2 != other.2 {
            Reason::PeerAddress
        } else {
            Reason::PathId
        }
    }

    /// Steps 9 to 12. No two paths of a prefix have peer and identifier in common, so no two are equal.
    fn tie_break(&self) -> (Option<Ipv4Addr>, usize, Option<PeerKey>, Option<u32>) {
        let (router_id, key, path_id) = match self.source {
            Source::Own => (None, None, None),
            Source::Peer {
                key,
                router_id,
                path_id,
                ..
            } => (Some(router_id), Some(key), path_id),
        };
        (
            self.attributes.originator_id.or(router_id),
            self.attributes.cluster_list.len(),
            key,
            path_id,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;
    use crate::filter::{LLGR_STALE, NORMAL_PRIORITY};
    use crate::testing::{address, peer};
    use crate::wire::{AsPath, Segment};

    /// A path of peer number `id`, which is of another AS where `external`.
    type Case = (u8, bool, Attributes);

    fn candidate((id, external, attributes): &Case) -> Candidate<'_> {
        let source = match id {
            0 => Source::Own,
            _ => Source::Peer {
                key: peer(*id).key,
                router_id: address(*id),
                external: *external,
                path_id: None,
            },
        };
        Candidate {
            attributes,
            priority: NORMAL_PRIORITY,
            source,
        }
    }

    fn as_path(asns: &[u32]) -> AsPath {
        AsPath {
            segments: [Segment::Sequence(asns.to_vec())].into(),
        }
    }

    /// The rule as routers tell it: compare two paths at a time, first within each neighbouring AS, where MED
    /// counts, then the winners of the ASes, where it does not.
    mod model {
        use super::*;

        fn compare(a: &Candidate<'_>, b: &Candidate<'_>, with_med: bool, to_the_end: bool) -> Ordering {
            let (x, y) = (a.attributes, b.attributes);
            let pref = |it: &Attributes| it.local_pref.unwrap_or(100);
            let med = |it: &Attributes| if with_med { it.med.unwrap_or(0) } else { 0 };
            let own = |it: &Candidate<'_>| it.source == Source::Own;
            let stale = |it: &Attributes| it.communities.contains(&LLGR_STALE);
            let external = |it: &Candidate<'_>| matches!(it.source, Source::Peer { external: true, .. });
            let id = |it: &Candidate<'_>| match it.source {
                Source::Own => None,
                Source::Peer { router_id, .. } => Some(it.attributes.originator_id.unwrap_or(router_id)),
            };
            let key = |it: &Candidate<'_>| match it.source {
                Source::Own => None,
                Source::Peer { key, .. } => Some(key),
            };
            let equal_so_far = own(b)
                .cmp(&own(a))
                .then(stale(x).cmp(&stale(y)))
                .then(pref(y).cmp(&pref(x)))
                .then(x.as_path.hops().cmp(&y.as_path.hops()))
                .then(x.origin.cmp(&y.origin))
                .then(med(x).cmp(&med(y)))
                .then(external(b).cmp(&external(a)));
            if !to_the_end {
                return equal_so_far;
            }
            equal_so_far
                .then(id(a).cmp(&id(b)))
                .then(x.cluster_list.len().cmp(&y.cluster_list.len()))
                .then(key(a).cmp(&key(b)))
        }

        pub(super) fn best(paths: &[Candidate<'_>]) -> Option<usize> {
            let neighbor = |i: usize| paths[i].attributes.as_path.neighbor();
            let winner = |group: Vec<usize>, med| {
                group
                    .into_iter()
                    .min_by(|&a, &b| compare(&paths[a], &paths[b], med, true))
            };
            let group = |of| (0..paths.len()).filter(|&i| neighbor(i) == of).collect();
            let winners = (0..paths.len())
                .filter_map(|i| winner(group(neighbor(i)), true))
                .collect();
            winner(winners, false)
        }

        /// As good as the best: nothing but the tie-breaks tells them apart, nor a better MED next to it.
        pub(super) fn equal(paths: &[Candidate<'_>], best: usize) -> Vec<usize> {
            let same = |a: usize, b: usize, med| compare(&paths[a], &paths[b], med, false) == Ordering::Equal;
            let neighbor = |i: usize| paths[i].attributes.as_path.neighbor();
            let med = |i: usize| paths[i].attributes.med.unwrap_or(0);
            let rest = |i: usize, j: usize| neighbor(i) == neighbor(j) && same(j, best, false);
            let beaten = |i: usize| (0..paths.len()).any(|j| rest(i, j) && med(j) < med(i));
            (0..paths.len())
                .filter(|&i| same(i, best, false) && !beaten(i))
                .collect()
        }
    }

    fn any_case(id: u8) -> impl Strategy<Value = Case> {
        let optional = || proptest::option::of(0..2_u32);
        let path = proptest::collection::vec(1..3_u32, 0..3);
        let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Incomplete)];
        let reflected = (proptest::option::of(1..4_u8), 0..2_u8, any::<bool>());
        (any::<bool>(), optional(), path, origin, optional(), reflected).prop_map(
            move |(external, pref, path, origin, med, (originator, clusters, stale))| {
                let attributes = Attributes {
                    communities: if stale {
                        [LLGR_STALE].into()
                    } else {
                        Default::default()
                    },
                    local_pref: pref.map(|it| it + 100),
                    as_path: as_path(&path),
                    origin,
                    med,
                    originator_id: originator.map(address),
                    cluster_list: (0..clusters).map(address).collect(),
                    ..Attributes::default()
                };
                (id, external, attributes)
            },
        )
    }

    fn any_cases() -> impl Strategy<Value = Vec<Case>> {
        (0..2_u8, 1..6_u8)
            .prop_flat_map(|(first, count)| (first..first + count).map(any_case).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// nasty case 65
        /// nasty case 49
        #[test]
        fn agrees_with_the_model_in_every_order(cases in any_cases().prop_shuffle()) {
            let candidates: Vec<_> = cases.iter().map(candidate).collect();
            let Decision { ranked, lost } = decide(&candidates);
            prop_assert_eq!(Some(ranked[0]), model::best(&candidates));
            prop_assert_eq!(ranked.len() + lost.len(), cases.len());

            // Whom steps 1 to 6 leave is decided among alone.
            let best = candidates.iter().map(Candidate::grade).min();
            let left: Vec<usize> = (0..cases.len())
                .filter(|&place| Some(candidates[place].grade()) == best)
                .collect();
            let leaders: Vec<_> = left.iter().map(|&place| candidates[place]).collect();
            let among: Vec<usize> = decide(&leaders).ranked.iter().map(|&place| left[place]).collect();
            prop_assert_eq!(ranked.as_slice(), among);
        }

        #[test]
        fn paths_that_share_traffic_differ_in_tie_breaks_only(cases in any_cases(), external: bool) {
            let cases: Vec<Case> = cases.into_iter().map(|(id, _, it)| (id, external, it)).collect();
            let candidates: Vec<_> = cases.iter().map(candidate).collect();
            let mut ranked = decide(&candidates).ranked.into_vec();
            let best = ranked[0];
            ranked.sort_unstable();
            prop_assert_eq!(ranked, model::equal(&candidates, best));
        }
    }

    /// RFC 4271 §9.1.1: the greater preference wins.
    /// RFC 4271 §9.1.2.2 (a): the shorter path.
    /// RFC 4271 §9.1.2.2 (b): the lower origin.
    /// RFC 4271 §9.1.2.2 (c): the lower discriminator.
    /// RFC 4271 §9.1.2.2 (d): external over internal.
    /// RFC 4271 §9.1.2.2 (f): the lower identifier.
    /// RFC 4271 §9.1.2.2 (g): the lower address.
    /// RFC 4456 §9 (cluster): the shorter list of clusters.
    /// RFC 4456 §9 (originator): the originator's identifier, where there is one.
    /// RFC 9494 §4.4: a long-lived stale one loses before anything else is compared.
    #[test]
    fn every_step_decides_and_is_named() {
        let plain = || Attributes {
            as_path: as_path(&[1]),
            ..Attributes::default()
        };
        let table: [(Case, Case, Reason); 10] = [
            (
                (1, false, plain()),
                (
                    2,
                    true,
                    Attributes {
                        communities: [LLGR_STALE].into(),
                        local_pref: Some(500),
                        ..plain()
                    },
                ),
                Reason::LongLivedStale,
            ),
            (
                (0, false, plain()),
                (
                    1,
                    true,
                    Attributes {
                        local_pref: Some(500),
                        ..plain()
                    },
                ),
                Reason::Own,
            ),
            (
                (
                    2,
                    false,
                    Attributes {
                        local_pref: Some(101),
                        as_path: as_path(&[1, 2]),
                        ..plain()
                    },
                ),
                (1, true, plain()),
                Reason::LocalPref,
            ),
            (
                (
                    2,
                    false,
                    Attributes {
                        origin: Origin::Egp,
                        ..plain()
                    },
                ),
                (
                    1,
                    true,
                    Attributes {
                        as_path: as_path(&[1, 2]),
                        ..plain()
                    },
                ),
                Reason::AsPathLength,
            ),
            (
                (
                    2,
                    false,
                    Attributes {
                        med: Some(1),
                        ..plain()
                    },
                ),
                (
                    1,
                    true,
                    Attributes {
                        origin: Origin::Egp,
                        ..plain()
                    },
                ),
                Reason::Origin,
            ),
            (
                (2, false, plain()),
                (
                    1,
                    true,
                    Attributes {
                        med: Some(1),
                        ..plain()
                    },
                ),
                Reason::Med,
            ),
            ((2, true, plain()), (1, false, plain()), Reason::Internal),
            (
                (
                    2,
                    false,
                    Attributes {
                        originator_id: Some(address(1)),
                        ..plain()
                    },
                ),
                (
                    3,
                    false,
                    Attributes {
                        originator_id: Some(address(9)),
                        ..plain()
                    },
                ),
                Reason::RouterId,
            ),
            (
                (
                    3,
                    false,
                    Attributes {
                        originator_id: Some(address(9)),
                        ..plain()
                    },
                ),
                (
                    2,
                    false,
                    Attributes {
                        originator_id: Some(address(9)),
                        cluster_list: [address(8)].into(),
                        ..plain()
                    },
                ),
                Reason::ClusterListLength,
            ),
            (
                (
                    2,
                    false,
                    Attributes {
                        originator_id: Some(address(9)),
                        ..plain()
                    },
                ),
                (
                    3,
                    false,
                    Attributes {
                        originator_id: Some(address(9)),
                        ..plain()
                    },
                ),
                Reason::PeerAddress,
            ),
        ];
        for (winner, loser, reason) in table {
            assert_eq!(
                explain(&[candidate(&winner), candidate(&loser)]),
                [None, Some(reason)],
                "{reason:?}"
            );
            assert_eq!(
                explain(&[candidate(&loser), candidate(&winner)]),
                [Some(reason), None],
                "{reason:?}"
            );
        }
    }

    #[test]
    fn a_filters_priority_comes_before_preferences_and_ends_sharing() {
        let preferred = Attributes {
            local_pref: Some(500),
            ..Attributes::default()
        };
        let (chosen, other) = ((2, false, Attributes::default()), (1, true, preferred));
        let first = Candidate {
            priority: 512,
            ..candidate(&chosen)
        };
        assert_eq!(
            explain(&[candidate(&other), first]),
            [Some(Reason::Priority), None]
        );
        let equal = (3, false, Attributes::default());
        assert_eq!(decide(&[first, candidate(&equal)]).ranked.as_slice(), [0]);
    }

    /// RFC 7911 §3: paths of one peer are told apart by identifier, of which 0 is one.
    #[test]
    fn of_a_peers_equal_paths_the_lower_identifier_wins() {
        let attributes = Attributes::default();
        let of = |path_id| Candidate {
            attributes: &attributes,
            priority: NORMAL_PRIORITY,
            source: Source::Peer {
                key: peer(1).key,
                router_id: address(1),
                external: true,
                path_id: Some(path_id),
            },
        };
        assert_eq!(explain(&[of(7), of(0)]), [Some(Reason::PathId), None]);
    }

    /// RFC 4271 §9.1.2.2 (c): among routes of one neighboring AS only.
    #[test]
    fn med_does_not_count_across_ases() {
        let through = |asn, med| Attributes {
            as_path: as_path(&[asn]),
            med: Some(med),
            ..Attributes::default()
        };
        let cases = [
            (1, true, through(1, 9)),
            (2, true, through(2, 1)),
            (3, true, through(2, 2)),
        ];
        let candidates = cases.each_ref().map(candidate);
        assert_eq!(
            explain(&candidates),
            [None, Some(Reason::RouterId), Some(Reason::Med)]
        );
    }
}
