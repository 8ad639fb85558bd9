//! Route filters: ordered rules that accept, reject or change routes on their way in or out.
//!
//! A [`Chain`] is what a peer's filters are compiled to, once, when its settings arrive: the rules of all its
//! filters in order, by family. The first rule that matches decides; where none does, the chain's default
//! policy has the last word. Evaluation looks at its arguments alone, so a changed filter is applied to what is
//! stored, in the Adj-RIB-In and in the table, and no session notices.

mod community;
mod interface;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::config::Policy;
use crate::wire::Attributes;
use crate::{Family, Prefix};

pub use community::{Community, CommunityError};
pub(crate) use community::{
    GRACEFUL_SHUTDOWN, LLGR_STALE, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED, NO_LLGR,
};
pub use interface::{InterfacePattern, NotAnInterface};
pub use rule::{Action, Match, Operation, Operator, PeerType, Range, RangeError, Rule};

/// The priority of routes that no rule gives another: what this node's kernel calls the metric of its routes.
pub const NORMAL_PRIORITY: u32 = 1025;

/// A route as filters see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// To where.
    pub prefix: Prefix,
    /// With which attributes.
    pub attributes: &'a Attributes,
    /// A peer announced it; otherwise it is our own.
    pub learned: bool,
    /// The peer that it comes from or goes to is of another AS.
    pub external: bool,
    /// Its rank in this node's kernel, the lowest first: what a rule of import gave it.
    pub priority: u32,
    /// The interface that it leads over, where somebody asks ([`Policy::asks_for_interfaces`]) and it is known.
    pub interface: Option<&'a str>,
}

/// A named list of rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// What it is called.
    pub name: Arc<str>,
    /// Rules for IPv4 routes, in order.
    pub v4: Vec<Rule>,
    /// Rules for IPv6 routes, in order.
    pub v6: Vec<Rule>,
}

/// A rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The filter's name.
    pub filter: Arc<str>,
    /// The rule's place among the filter's rules for the family, from 0.
    pub index: usize,
    /// The rule.
    pub rule: Rule,
}

/// The rules of several filters in order, and what holds for the routes that no rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    v4: Box<[Step]>,
    v6: Box<[Step]>,
    otherwise: Policy,
    /// A rule is about interfaces.
    asks_for_interfaces: bool,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// It passes.
    pub accepted: bool,
    /// The rule that said so; none where the default did.
    pub step: Option<&'a Step>,
}

impl Chain {
    /// Compiles filters into a chain.
    #[must_use]
    pub fn new(filters: &[Filter], otherwise: Policy) -> Self {
        let steps = |rules: fn(&Filter) -> &[Rule]| {
            let of = |filter: &Filter| {
                let name = filter.name.clone();
                let step = move |(index, rule): (usize, &Rule)| Step {
                    filter: name.clone(),
                    index,
                    rule: rule.clone(),
                };
                rules(filter).iter().enumerate().map(step).collect::<Vec<_>>()
            };
            filters.iter().flat_map(of).collect()
        };
        let mut rules = filters
            .iter()
            .flat_map(|filter| filter.v4.iter().chain(&filter.v6));
        Self {
            v4: steps(|filter| &filter.v4),
            v6: steps(|filter| &filter.v6),
            otherwise,
            asks_for_interfaces: rules.any(|rule| rule.when.interface.is_some()),
        }
    }

    /// Whether a rule is about interfaces.
    pub(crate) fn asks_for_interfaces(&self) -> bool {
        self.asks_for_interfaces
    }

    /// What becomes of a route: the first rule that matches says, else the default.
    pub(crate) fn judge(&self, subject: &Subject<'_>) -> Verdict<'_> {
        let steps = match subject.prefix.family() {
            Family::Ipv4Unicast => &self.v4,
            Family::Ipv6Unicast => &self.v6,
        };
        match steps.iter().find(|step| step.rule.when.matches(subject)) {
            Some(step) => Verdict {
                accepted: matches!(step.rule.then, Action::Accept(_)),
                step: Some(step),
            },
            None => self.otherwise.judge(subject),
        }
    }
}

impl<'a> Verdict<'a> {
    /// A verdict that no rule gave.
    pub(crate) fn default_of(accepted: bool) -> Self {
        Self { accepted, step: None }
    }

    /// The priority that the route gets.
    pub(crate) fn priority(&self) -> u32 {
        let set = |operation: &Operation| match operation {
            Operation::SetPriority(priority) => Some(*priority),
            Operation::AddCommunity(_)
            | Operation::SetCommunities(_)
            | Operation::PrependAsPath(_)
            | Operation::SetLocalPreference(_)
            | Operation::SetMed(_) => None,
        };
        self.operations()
            .iter()
            .rev()
            .find_map(set)
            .unwrap_or(NORMAL_PRIORITY)
    }

    /// What the rule changes of the route.
    pub(crate) fn operations(&self) -> &'a [Operation] {
        match self.step.map(|step| &step.rule.then) {
            Some(Action::Accept(operations)) => operations,
            Some(Action::Reject) | None => &[],
        }
    }
}
