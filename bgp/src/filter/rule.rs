//! A rule: what it matches, and what it does with what it matches.

use super::{Community, InterfacePattern, Subject};
use crate::Prefix;
use crate::wire::{Attributes, Segment};

/// A rule of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which routes.
    pub when: Match,
    /// What becomes of them.
    pub then: Action,
}

/// What becomes of a route that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It passes, changed by these operations in order.
    Accept(Vec<Operation>),
    /// It does not pass.
    Reject,
}

/// Which routes a rule matches: those for which everything that is set here holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// By prefix.
    pub range: Option<Range>,
    /// Only routes that a peer announced, not our own.
    pub learned: bool,
    /// By the kind of peer that the route comes from or goes to.
    pub peer: Option<PeerType>,
    /// Only routes that carry each of these.
    pub communities: Vec<Community>,
    /// Only routes whose AS_PATH begins with these, nearest first. A set is not a beginning.
    pub as_path_prefix: Vec<u32>,
    /// Only routes that lead over such an interface. Our own lead over none.
    pub interface: Option<InterfacePattern>,
    /// Only routes of this priority: what a rule of import gave them.
    pub priority: Option<u32>,
}

/// Peers of our AS, or of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerType {
    /// Of our AS.
    Internal,
    /// Of another AS.
    External,
}

/// How a route's prefix has to stand to a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// Inside, or the same.
    In,
    /// Not inside.
    NotIn,
}

/// Prefixes by comparison with one, and by length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    operator: Operator,
    cidr: Prefix,
    min: u8,
    max: u8,
}

/// Lengths that no prefix of the range has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix lengths from {min} to {max} are none: write 0 to {limit}, the smaller one first")]
pub struct RangeError {
    min: u8,
    max: u8,
    limit: u8,
}

/// A change of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Adds a community, unless it is there.
    AddCommunity(Community),
    /// Replaces all communities, of every kind.
    SetCommunities(Vec<Community>),
    /// Puts these in front of the AS_PATH, the first one first.
    PrependAsPath(Vec<u32>),
    /// Sets LOCAL_PREF; towards other ASes it is not sent (RFC 4271 §5.1.5).
    SetLocalPreference(u32),
    /// Sets MULTI_EXIT_DISC.
    SetMed(u32),
    /// Sets the route's metric in this node's kernel; the lowest among a prefix's is taken. On the way in only: no
    /// peer hears of it.
    SetPriority(u32),
}

impl Range {
    /// The prefixes that stand to `cidr` as `operator` says and are `min` to `max` bits long: by default as
    /// long as `cidr` at least, and of any greater length. The negative operators match all others.
    ///
    /// # Errors
    /// The lengths are in the wrong order or longer than the family's addresses.
    pub fn new(
        operator: Operator,
        cidr: Prefix,
        min: Option<u8>,
        max: Option<u8>,
    ) -> Result<Self, RangeError> {
        let limit = cidr.family().bits();
        let (min, max) = (min.unwrap_or_else(|| cidr.len()), max.unwrap_or(limit));
        if min > max || max > limit {
            return Err(RangeError { min, max, limit });
        }
        Ok(Self {
            operator,
            cidr,
            min,
            max,
        })
    }

    /// Whether a prefix is one of these.
    #[must_use]
    pub fn matches(&self, prefix: Prefix) -> bool {
        let lengths = (self.min..=self.max).contains(&prefix.len());
        match self.operator {
            Operator::Equal => lengths && prefix == self.cidr,
            Operator::NotEqual => !(lengths && prefix == self.cidr),
            Operator::In => lengths && self.cidr.covers(prefix),
            Operator::NotIn => !(lengths && self.cidr.covers(prefix)),
        }
    }
}

impl Match {
    /// Whether a route is one of these.
    pub(crate) fn matches(&self, route: &Subject<'_>) -> bool {
        self.range.is_none_or(|range| range.matches(route.prefix))
            && (!self.learned || route.learned)
            && self
                .peer
                .is_none_or(|peer| (peer == PeerType::External) == route.external)
            && self
                .communities
                .iter()
                .all(|community| community.is_on(route.attributes))
            && begins_with(route.attributes, &self.as_path_prefix)
            && self.priority.is_none_or(|priority| priority == route.priority)
            && self
                .interface
                .as_ref()
                .is_none_or(|pattern| route.interface.is_some_and(|name| pattern.matches(name)))
    }
}

fn begins_with(attributes: &Attributes, asns: &[u32]) -> bool {
    let first = match attributes.as_path.segments.first() {
        Some(Segment::Sequence(numbers)) => numbers.as_slice(),
        Some(Segment::Set(_)) | None => &[],
    };
    first.starts_with(asns)
}

impl Operation {
    /// Changes a route's attributes. A priority is none of them ([`super::Verdict::priority`]).
    pub(crate) fn apply(&self, attributes: &mut Attributes) {
        match self {
            Self::AddCommunity(community) => community.add(attributes),
            Self::SetCommunities(communities) => {
                attributes.communities.clear();
                attributes.extended_communities.clear();
                attributes.large_communities.clear();
                for community in communities {
                    community.add(attributes);
                }
            }
            Self::PrependAsPath(asns) => {
                for asn in asns.iter().rev() {
                    attributes.as_path.prepend(*asn);
                }
            }
            Self::SetLocalPreference(value) => attributes.local_pref = Some(*value),
            Self::SetMed(value) => attributes.med = Some(*value),
            Self::SetPriority(_) => {}
        }
    }
}
