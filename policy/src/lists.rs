//! The policies that an endpoint's packets of one direction meet, in order.
//!
//! Endpoints with the same list share one chain and one set; that is why a list's name is made of its content.

use std::sync::Arc;

use manx_api::policy::{DefaultAction, Direction, Origin};

use crate::ruleset::{CHAIN_PREFIX, short_hash};

/// Both directions, in the order in which a packet between two pods of a node meets them.
pub(crate) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// The chain that finds an endpoint's list.
pub(crate) const fn dispatch(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "manx-from",
        Direction::Ingress => "manx-to",
    }
}

/// A tier's part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) tier: String,
    /// Those that have rules for the direction, and those on trial.
    pub(crate) policies: Vec<Arc<Origin>>,
    /// Whether any is enforced.
    pub(crate) decides: bool,
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
    /// Whether it may decide anything; if not, all its policies are on trial.
    pub(crate) fn decides(&self) -> bool {
        self.stages.iter().any(|stage| stage.decides)
    }

    /// What follows `manx-` in its chain's name, and `mx4-` in its set's.
    pub(crate) fn name(&self) -> String {
        let mut text = String::new();
        for Stage {
            tier, policies, end, ..
        } in &self.stages
        {
            text += &format!("{tier} {end:?}\n");
            for policy in policies {
                text += &format!("- {policy}\n");
            }
        }
        let way = dispatch(self.direction).trim_start_matches(CHAIN_PREFIX);
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
