//! What stands before the packets that rules log, and what that says to people: which rule, of which policy, and whose
//! packet it was.

use std::net::IpAddr;
use std::sync::Arc;

use manx_api::policy::{Direction, Origin};

use crate::engine::Engine;
use crate::graph::{CLOSED, Graph};
use crate::hosts::Point;
use crate::ruleset::short_hash;
use crate::things::{Id, Thing};

/// What a log's prefix may have, in characters.
const PREFIX: usize = 63;

/// Begins the prefix of a packet that is dropped.
pub(crate) const DENIED: char = 'D';
/// Begins the prefix of a packet that a policy wants to be logged.
pub(crate) const LOGGED: char = 'L';

/// Why a rule logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause<'a> {
    /// A policy's rule, by its number.
    Rule(usize, &'a Origin),
    /// The end of this tier.
    End(&'a str),
    /// The sender has another address.
    Source,
    /// No pod is known behind the interface.
    Unknown,
    /// What pods send to their node is dropped.
    ToHost,
}

impl Cause<'_> {
    /// What stands before a logged packet: `manx:D:i:2:NetworkPolicy.default/web`, for the third rule of the policy;
    /// where that is too long, its end is a hash.
    pub(crate) fn prefix(self, verdict: char, direction: Direction) -> String {
        let way = match direction {
            Direction::Egress => 'o',
            Direction::Ingress => 'i',
        };
        let name = match self {
            Self::Rule(number, origin) => format!("{number}:{origin}"),
            Self::End(tier) => format!("end:Tier.{tier}"),
            Self::Source => "source".to_owned(),
            Self::Unknown => "unknown".to_owned(),
            Self::ToHost => "host".to_owned(),
        };
        let text = format!("manx:{verdict}:{way}:{name}").replace(' ', ".");
        if text.len() <= PREFIX {
            return text;
        }
        let hash = short_hash(&text);
        let kept: String = text.chars().take(PREFIX - 1 - hash.len()).collect();
        format!("{kept}~{hash}")
    }
}

/// A packet that a rule logged, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What the rule wrote before it.
    pub prefix: String,
    /// The interface that it came by; none: this node sent it.
    pub from: Option<String>,
    /// The interface that it would have left by; none: it was for this node, or nobody knew yet.
    pub to: Option<String>,
    /// The address that it came from.
    pub source: IpAddr,
    /// The address that it went to.
    pub destination: IpAddr,
}

/// What that says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether it was dropped; or only logged, as the rule of a policy wants it.
    pub denied: bool,
    /// As whose: of who sends (egress), or of who gets (ingress).
    pub direction: Direction,
    /// Why.
    pub reason: Reason,
    /// Who sent it.
    pub source: Whose,
    /// Whom it was for.
    pub destination: Whose,
}

/// Why a rule logged a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A policy's rule says so.
    Rule {
        /// The policy.
        policy: Origin,
        /// Its tier.
        tier: String,
        /// The rule's number, counted from 0.
        rule: usize,
    },
    /// No rule of a tier was for it, and the tier ends so.
    End {
        /// The tier.
        tier: String,
        /// The first of its policies that applies; none: there is none any more.
        policy: Option<Origin>,
    },
    /// No policy opens the host endpoint for it.
    Closed,
    /// Its sender may not send from this address.
    Source,
    /// No pod is known behind the interface.
    Unknown,
    /// What pods send to their own node is dropped.
    ToHost,
    /// The rule is not there any more.
    Gone,
}

/// Whose an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// An endpoint's.
    pub endpoint: Option<String>,
    /// And that is a host endpoint.
    pub is_host: bool,
    /// It is in these network sets.
    pub network_sets: Vec<String>,
}

/// What a logged packet says; none if no rule of ours logged it.
#[must_use]
pub fn told(engine: &Engine, logged: &Logged) -> Option<Told> {
    let graph = &engine.graph;
    let mut words = logged.prefix.splitn(4, ':');
    let ours = words.next() == Some("manx");
    let verdict = words.next()?.chars().next()?;
    let direction = match words.next()? {
        "o" => Direction::Egress,
        "i" => Direction::Ingress,
        _ => return None,
    };
    let what = words.next().filter(|_| ours)?;
    let is_it = |cause: &Cause<'_>| cause.prefix(verdict, direction) == logged.prefix;
    let reason = match what {
        "source" => Reason::Source,
        "unknown" => Reason::Unknown,
        "host" => Reason::ToHost,
        what => match what.split_once(':')?.0.parse() {
            Ok(number) => graph.ruled(number, is_it),
            Err(_) => graph.ended(is_it).map(|tier| match tier {
                CLOSED => Reason::Closed,
                tier => Reason::End {
                    tier: tier.to_owned(),
                    policy: graph.applying(tier, direction, logged),
                },
            }),
        }
        .unwrap_or(Reason::Gone),
    };
    Some(Told {
        denied: verdict == DENIED,
        direction,
        reason,
        source: graph.whose(logged.from.as_deref(), logged.source),
        destination: graph.whose(logged.to.as_deref(), logged.destination),
    })
}

impl Graph {
    /// The policy whose rule of this number is the cause.
    fn ruled(&self, number: usize, is_it: impl Fn(&Cause<'_>) -> bool) -> Option<Reason> {
        let mut policies = self.policies.iter();
        let (origin, policy) = policies.find(|(origin, _)| is_it(&Cause::Rule(number, origin)))?;
        Some(Reason::Rule {
            policy: (**origin).clone(),
            tier: policy.tier.clone(),
            rule: number,
        })
    }

    /// The tier whose end is the cause.
    fn ended(&self, is_it: impl Fn(&Cause<'_>) -> bool) -> Option<&str> {
        let tiers = self.policies.values().map(|policy| policy.tier.as_str());
        tiers.chain([CLOSED]).find(|tier| is_it(&Cause::End(tier)))
    }

    /// The first policy of a tier that applies to a packet in its direction.
    fn applying(&self, tier: &str, direction: Direction, logged: &Logged) -> Option<Origin> {
        let (address, pod, host) = match direction {
            Direction::Egress => (logged.source, &logged.from, &logged.to),
            Direction::Ingress => (logged.destination, &logged.to, &logged.from),
        };
        let passes = logged.from.is_some() && logged.to.is_some();
        let known = self.behind(pod.as_deref());
        let host = self.host_behind(host.as_deref()).filter(|_| known.is_none());
        let point = match host.is_some() && passes {
            true => Point::Through(direction),
            false => Point::Own(direction),
        };
        let (id, thing) = match known.or(host) {
            Some(id) => (id, self.things.endpoint(id)?.1),
            None => self.endpoint_at(address)?,
        };
        let selected = self.selecting(id, thing);
        let stages = self.stages(direction, &selected, |hook| point.is_of(hook));
        let (_, policies) = stages.into_iter().find(|(name, _)| *name == tier)?;
        let mut enforced = policies.iter().filter(|origin| self.is_enforced(origin));
        enforced.next().map(|origin| (**origin).clone())
    }

    fn endpoint_at(&self, address: IpAddr) -> Option<(&Arc<str>, &Thing)> {
        self.things
            .at(address)
            .into_iter()
            .find_map(|(id, thing)| match id {
                Id::Endpoint(name) => Some((name, thing)),
                Id::NetworkSet(_) => None,
            })
    }

    /// Whose an address is that was seen at an interface.
    fn whose(&self, interface: Option<&str>, address: IpAddr) -> Whose {
        let behind = self.behind(interface);
        let behind = behind.and_then(|id| Some((id, self.things.endpoint(id)?.1)));
        let endpoint = behind.or_else(|| self.endpoint_at(address));
        let sets = self
            .things
            .at(address)
            .into_iter()
            .filter_map(|(id, _)| match id {
                Id::NetworkSet(name) => Some(name.to_string()),
                Id::Endpoint(_) => None,
            });
        Whose {
            endpoint: endpoint.map(|(id, _)| id.to_string()),
            is_host: endpoint.is_some_and(|(_, thing)| thing.namespace.is_none()),
            network_sets: sets.collect(),
        }
    }
}
