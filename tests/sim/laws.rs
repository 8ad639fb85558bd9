//! Filters as plans have them: the model reads the laws themselves, the speaker what they are compiled to.

use std::sync::Arc;

use manx_bgp::filter::{self, Action, Chain, Community, Filter, Match, Operation, Operator, Range};
use manx_bgp::{Family, Policy, Prefix};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// RFC 1997.
pub(crate) const NO_EXPORT: u32 = 0xffff_ff01;
pub(crate) const NO_ADVERTISE: u32 = 0xffff_ff02;

/// What laws put on routes and look for.
const MARKS: [u32; 5] = [1, 2, 3, NO_EXPORT, NO_ADVERTISE];

/// An AS that no speaker has, to lengthen paths with.
const NOBODY: u32 = 64_999;

/// Which way routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    In,
    Out,
}

/// The laws of a session one way: the first that fits decides, else the policy behind them.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) laws: Vec<Law>,
    pub(crate) otherwise: Policy,
}

/// What is done with which routes.
#[derive(Clone, Debug)]
pub(crate) struct Law {
    pub(crate) when: When,
    /// What is changed of what passes; none: it does not pass.
    pub(crate) then: Option<Vec<Change>>,
}

/// Which routes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Always,
    /// Those to this prefix or parts of it.
    Inside(Prefix),
    /// Those with this community.
    Carries(u32),
    /// Those through this AS first.
    Through(u32),
    /// Those that a peer has told.
    Learned,
    /// Those of this priority.
    Priority(u32),
}

/// A change of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Mark(u32),
    /// No communities but this one.
    OnlyMark(u32),
    Lengthen,
    Med(u32),
    Prefer(u32),
    Prioritize(u32),
}

/// What laws may do, so that a network comes to one state and no other: a preference that is each speaker's own
/// may leave two of them waiting for each other for ever (RFC 3345, RFC 4264), unless nothing is passed on twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freedom {
    /// Marks, rejections and longer paths.
    Tame,
    /// Preferences as well: in a full mesh.
    Full,
}

impl Code {
    /// Some laws about these prefixes and ASes.
    pub(crate) fn any(
        rng: &mut StdRng,
        way: Way,
        freedom: Freedom,
        prefixes: &[Prefix],
        asns: &[u32],
        otherwise: Policy,
    ) -> Self {
        let count = rng.random_range(0..4);
        let laws = (0..count).map(|_| Law {
            when: when(rng, way, prefixes, asns),
            then: rng.random_bool(0.7).then(|| changes(rng, way, freedom)),
        });
        Self {
            laws: laws.collect(),
            otherwise,
        }
    }

    /// As the speaker takes it.
    pub(crate) fn policy(&self) -> Policy {
        let of = |family| {
            let laws = self.laws.iter().filter(move |law| law.may_fit(family));
            laws.map(Law::rule).collect()
        };
        let filter = Filter {
            name: "laws".into(),
            v4: of(Family::Ipv4Unicast),
            v6: of(Family::Ipv6Unicast),
        };
        Policy::Filtered(Arc::new(Chain::new(&[filter], self.otherwise.clone())))
    }
}

fn when(rng: &mut StdRng, way: Way, prefixes: &[Prefix], asns: &[u32]) -> When {
    match rng.random_range(0..6) {
        0 => When::Always,
        1 => When::Inside(prefixes.choose(rng).copied().expect("a prefix")),
        2 | 3 => When::Carries(MARKS.choose(rng).copied().expect("a mark")),
        4 => When::Through(asns.choose(rng).copied().expect("an AS")),
        _ if way == Way::In => When::Learned,
        _ => [When::Learned, When::Priority(512), When::Priority(1025)]
            .choose(rng)
            .copied()
            .expect("one"),
    }
}

fn changes(rng: &mut StdRng, way: Way, freedom: Freedom) -> Vec<Change> {
    let mark = |rng: &mut StdRng| MARKS.choose(rng).copied().expect("a mark");
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let kinds = match (freedom, way) {
            (Freedom::Tame, _) => 3,
            (Freedom::Full, Way::Out) => 5,
            (Freedom::Full, Way::In) => 6,
        };
        changes.push(match rng.random_range(0..kinds) {
            0 => Change::Mark(mark(rng)),
            1 => Change::OnlyMark(mark(rng)),
            2 => Change::Lengthen,
            3 => Change::Med(rng.random_range(0..3)),
            4 => Change::Prefer(rng.random_range(99..102)),
            _ => Change::Prioritize(512),
        });
    }
    changes
}

impl Law {
    /// Whether a law says anything of a family.
    fn may_fit(&self, of: Family) -> bool {
        match self.when {
            When::Inside(prefix) => prefix.family() == of,
            When::Always | When::Carries(_) | When::Through(_) | When::Learned | When::Priority(_) => true,
        }
    }

    fn rule(&self) -> filter::Rule {
        let then = self.then.as_ref().map_or(Action::Reject, |changes| {
            Action::Accept(changes.iter().map(Change::operation).collect())
        });
        filter::Rule {
            when: self.when.matching(),
            then,
        }
    }
}

impl When {
    fn matching(self) -> Match {
        let any = Match::default();
        match self {
            Self::Always => any,
            Self::Inside(prefix) => Match {
                range: Range::new(Operator::In, prefix, None, None).ok(),
                ..any
            },
            Self::Carries(community) => Match {
                communities: vec![Community::Standard(community)],
                ..any
            },
            Self::Through(asn) => Match {
                as_path_prefix: vec![asn],
                ..any
            },
            Self::Learned => Match { learned: true, ..any },
            Self::Priority(priority) => Match {
                priority: Some(priority),
                ..any
            },
        }
    }
}

impl Change {
    fn operation(&self) -> Operation {
        match *self {
            Self::Mark(community) => Operation::AddCommunity(Community::Standard(community)),
            Self::OnlyMark(community) => Operation::SetCommunities(vec![Community::Standard(community)]),
            Self::Lengthen => Operation::PrependAsPath(vec![NOBODY]),
            Self::Med(value) => Operation::SetMed(value),
            Self::Prefer(value) => Operation::SetLocalPreference(value),
            Self::Prioritize(value) => Operation::SetPriority(value),
        }
    }

    /// The same, as the model has it.
    pub(crate) fn apply(self, route: &mut crate::model::Route) {
        match self {
            Self::Mark(community) => drop(route.communities.insert(community)),
            Self::OnlyMark(community) => route.communities = [community].into(),
            Self::Lengthen => route.as_path.insert(0, NOBODY),
            Self::Med(value) => route.med = Some(value),
            Self::Prefer(value) => route.local_pref = value,
            Self::Prioritize(value) => route.priority = value,
        }
    }
}
