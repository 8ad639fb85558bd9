//! Which path is best, and why the others are not (RFC 4271 §9.1.2, RFC 4456 §9).
//!
//! Paths leave step by step; what is left after a step goes on to the next:
//!
//! 1. our own prefixes before anything learned: no peer can take a node's own addresses from it;
//! 2. higher LOCAL_PREF (100 where there is none);
//! 3. shorter AS_PATH, a set counting as one;
//! 4. lower ORIGIN;
//! 5. lower MULTI_EXIT_DISC among paths through the same neighbouring AS (0 where there is none);
//! 6. eBGP before iBGP.
//!
//! What is left now is equally good and may share the traffic. Among these, the best path has
//!
//! 7. the lower ORIGINATOR_ID, or BGP identifier of its peer;
//! 8. the shorter CLUSTER_LIST;
//! 9. the lower peer address.
//!
//! The result depends on the set of paths alone, not on their order or age: step 5 removes a path when *any*
//! path left through its neighbouring AS is better, and every other step is a minimum.

use std::cmp::Reverse;
use std::fmt;
use std::net::Ipv4Addr;

use smallvec::SmallVec;

use crate::PeerKey;
use crate::wire::Attributes;

/// The preference of a path that does not state one.
pub(crate) const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// The path's attributes.
    pub(crate) attributes: &'a Attributes,
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
    },
}

/// Why a path is not the best, in the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// The prefix is our own.
    Own,
    /// Step 2.
    LocalPref,
    /// Step 3.
    AsPathLength,
    /// Step 4.
    Origin,
    /// Step 5.
    Med,
    /// Step 6.
    Internal,
    /// Step 7.
    RouterId,
    /// Step 8.
    ClusterListLength,
    /// Step 9.
    PeerAddress,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "the prefix is our own",
            Self::LocalPref => "another path has a higher LOCAL_PREF",
            Self::AsPathLength => "another path has a shorter AS_PATH",
            Self::Origin => "another path has a lower ORIGIN",
            Self::Med => "another path through the same AS has a lower MED",
            Self::Internal => "another path was learned by eBGP",
            Self::RouterId => "another path's originator has a lower BGP identifier",
            Self::ClusterListLength => "another path has a shorter CLUSTER_LIST",
            Self::PeerAddress => "another path's peer has a lower address",
        })
    }
}

/// The paths, by their index among the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The best, then those as good up to step 6, in order of the later steps.
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
        decision.keep_least(Reason::Own, |i| candidates[i].source != Source::Own);
        decision.keep_least(Reason::LocalPref, |i| Reverse(candidates[i].local_pref()));
        decision.keep_least(Reason::AsPathLength, |i| candidates[i].attributes.as_path.hops());
        decision.keep_least(Reason::Origin, |i| candidates[i].attributes.origin);
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
    fn local_pref(&self) -> u32 {
        self.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }

    fn external(&self) -> bool {
        matches!(self.source, Source::Peer { external: true, .. })
    }

    /// In which of steps 7 to 9 this path is better than `other`.
    fn beats(&self, other: &Self) -> Reason {
        let (best, other) = (self.tie_break(), other.tie_break());
        if best.0 != other.0 {
            Reason::RouterId
        } else if best.1 != other.1 {
            Reason::ClusterListLength
        } else {
            Reason::PeerAddress
        }
    }

    /// Steps 7 to 9. No two paths of a prefix come from one peer, so no two are equal.
    fn tie_break(&self) -> (Option<Ipv4Addr>, usize, Option<PeerKey>) {
        let (router_id, key) = match self.source {
            Source::Own => (None, None),
            Source::Peer { key, router_id, .. } => (Some(router_id), Some(key)),
        };
        (
            self.attributes.originator_id.or(router_id),
            self.attributes.cluster_list.len(),
            key,
        )
    }
}
