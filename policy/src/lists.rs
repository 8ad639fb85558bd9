//! The policies that an endpoint's packets of one direction meet, in order.
//!
//! Endpoints with the same list share one chain and one set; that is why a list's name is made of its content.

use std::fmt;
use std::sync::Arc;

use manx_api::policy::{DefaultAction, Origin};

use crate::ruleset::{CHAIN_PREFIX, short_hash};

/// A direction, as an endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the endpoint.
    Egress,
    /// To the endpoint.
    Ingress,
}

impl Direction {
    /// Both, in the order in which a packet between two pods of a node meets them.
    pub const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    /// The chain that finds an endpoint's list.
    pub(crate) const fn dispatch(self) -> &'static str {
        match self {
            Self::Egress => "manx-from",
            Self::Ingress => "manx-to",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}

/// A tier's part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) tier: String,
    /// Those that have rules for the direction.
    pub(crate) policies: Vec<Arc<Origin>>,
    /// What becomes of what none of them decides.
    pub(crate) end: DefaultAction,
}

/// What an endpoint's packets of one direction meet; without stages, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) direction: Direction,
    pub(crate) stages: Vec<Stage>,
}

impl List {
    /// What follows `manx-` in its chain's name, and `mx4-` in its set's.
    pub(crate) fn name(&self) -> String {
        let mut text = String::new();
        for Stage { tier, policies, end } in &self.stages {
            text += &format!("{tier} {end:?}\n");
            for policy in policies {
                text += &format!("- {policy}\n");
            }
        }
        let way = self.direction.dispatch().trim_start_matches(CHAIN_PREFIX);
        format!("{way}-{}", short_hash(&text))
    }
}

/// The name of a policy's chain.
pub(crate) fn policy_chain(policy: &Origin, direction: Direction) -> String {
    let way = match direction {
        Direction::Egress => "po",
        Direction::Ingress => "pi",
    };
    format!("{CHAIN_PREFIX}{way}-{}", short_hash(&policy.to_string()))
}
