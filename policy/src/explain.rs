//! Why a packet is let through or not: the walk along the engine's own lists of policies.
//!
//! Both ends are walked, as their nodes' kernels would do it for the first packet of a connection: what the sender's
//! policies say of what it sends, and the receiver's of what it gets. Staged policies are walked too, and decide
//! nothing. What somebody sends to itself is walked by nobody, nor is what a node sends to its own pods. Of a host endpoint it is what the host itself gets and sends that is walked, not what passes it.

use std::net::IpAddr;
use std::sync::Arc;

use manx_api::policy::{
    Action, DefaultAction, Direction, Family, Icmp, Not, Origin, Port, PortRange, Protocol, Rule, Side,
    Subject,
};

use crate::compile::{own_end, own_is_local, rules_of};
use crate::engine::Engine;
use crate::graph::{CLOSED, Graph};
use crate::hosts::{Point, is_failsafe};
use crate::input::HostAction;
use crate::ruleset::End;
use crate::things::{Id, Thing};

/// Who sends or gets a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// The endpoint of this name.
    Endpoint(String),
    /// Whoever has this address: an endpoint, or somebody who is none.
    Address(IpAddr),
}

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it comes from; none: nobody can say, so that no rule's source ports are it.
    pub source_port: Option<u16>,
    /// The port that it goes to, if the protocol has ports.
    pub port: Option<u16>,
    /// The ICMP message that it is; none: an echo request, if it is ICMP at all.
    pub icmp: Option<Icmp>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The address that it comes from.
    pub source: IpAddr,
    /// The address that it goes to.
    pub destination: IpAddr,
    /// What the sender's policies say; none: the sender is no endpoint, or nobody asks.
    pub egress: Option<Walk>,
    /// What the receiver's policies say; none: the receiver is no endpoint, or nobody asks.
    pub ingress: Option<Walk>,
    /// What becomes of it at its own node, if it is for that ([`Explanation::at_node`]).
    pub to_host: Option<HostAction>,
}

/// An end's policies of one direction, as a packet meets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Whose.
    pub endpoint: String,
    /// Of which direction.
    pub direction: Direction,
    /// Tier by tier; those behind the one that decided are not there.
    pub tiers: Vec<TierWalk>,
    /// Whether the packet may go on.
    pub allowed: bool,
}

/// A tier's part of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierWalk {
    /// The tier.
    pub tier: String,
    /// Its policies that select the end and speak of the direction, in order; those behind the one that decided were
    /// not asked.
    pub policies: Vec<PolicyWalk>,
    /// What became of the packet.
    pub outcome: Outcome,
}

/// A policy's part of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWalk {
    /// The policy.
    pub policy: Origin,
    /// Whether it is staged.
    pub staged: bool,
    /// Its first rule that is for the packet and is no [`Action::Log`], counted from 0, and what it does; what a
    /// staged policy would do.
    pub decision: Option<(usize, Action)>,
    /// Its rules before that one that log the packet.
    pub logged: Vec<usize>,
}

/// What became of a packet in a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A rule decided.
    Rule {
        /// The policy.
        policy: Origin,
        /// The rule's number, counted from 0.
        rule: usize,
        /// What it does.
        action: Action,
    },
    /// No rule did, and the tier's end does this.
    End(DefaultAction),
    /// All its policies are staged: nothing.
    Staged,
    /// It is one of the host endpoint's failsafes, and let through.
    Failsafe,
}

impl Outcome {
    /// Whether the packet may go on; none: the next tier decides.
    #[must_use]
    pub const fn verdict(&self) -> Option<bool> {
        match self {
            Self::Rule {
                action: Action::Allow,
                ..
            }
            | Self::Failsafe => Some(true),
            Self::Rule {
                action: Action::Deny, ..
            }
            | Self::End(DefaultAction::Deny) => Some(false),
            Self::Rule {
                action: Action::Pass | Action::Log,
                ..
            }
            | Self::End(DefaultAction::Pass)
            | Self::Staged => None,
        }
    }
}

/// What stands for a tier's name where a failsafe lets a packet through.
const FAILSAFE: &str = "(failsafe)";

impl TierWalk {
    /// What decides without a policy.
    fn end(tier: &str, outcome: Outcome) -> Self {
        Self {
            tier: tier.to_owned(),
            policies: Vec::new(),
            outcome,
        }
    }
}

impl Explanation {
    /// Whether the packet arrives.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.may_pass() && self.to_host != Some(HostAction::Drop)
    }

    /// Whether policies let it through.
    fn may_pass(&self) -> bool {
        let walks = [&self.egress, &self.ingress];
        walks.into_iter().flatten().all(|walk| walk.allowed)
    }

    /// The same packet where its destination is this node itself: of what the node's pods send to it, its settings have
    /// the last word.
    #[must_use]
    pub fn at_node(self, engine: &Engine) -> Self {
        let walk = self.egress.as_ref();
        let own_pod = walk.is_some_and(|walk| engine.graph.is_pod(&walk.endpoint));
        let settings = engine.graph.settings.filter(|_| own_pod);
        Self {
            to_host: settings.map(|settings| settings.to_host),
            ..self
        }
    }

    /// The tier that decided: of the walk that ended in a denial, or else of the last that was decided at all. None:
    /// no policy speaks of the packet, or the node drops it whatever they say.
    #[must_use]
    pub fn deciding(&self) -> Option<(&Walk, &TierWalk)> {
        if self.may_pass() && !self.allowed() {
            return None;
        }
        let decides = |walk: &Walk, allowed: bool| {
            let last = walk.tiers.last();
            last.is_some_and(|tier| tier.outcome.verdict() == Some(allowed))
        };
        let along = [&self.egress, &self.ingress].into_iter().flatten();
        let back = [&self.ingress, &self.egress].into_iter().flatten();
        let denying = along.filter(|walk| decides(walk, false));
        let allowing = back.filter(|walk| decides(walk, true));
        let walk = denying.chain(allowing).next()?;
        Some((walk, walk.tiers.last()?))
    }
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decided {
    /// Of whose policies: of who sends (egress), or of who gets (ingress).
    pub direction: Direction,
    /// The tier.
    pub tier: String,
    /// The policy; where the tier's end decided, the first of it that applies. None: a failsafe, or that the host
    /// endpoint is closed.
    pub policy: Option<Origin>,
    /// The rule's number, counted from 0; none: no rule did.
    pub rule: Option<usize>,
}

impl Explanation {
    /// Who decided; none: no policy speaks of the packet.
    #[must_use]
    pub fn decided(&self) -> Option<Decided> {
        let (walk, tier) = self.deciding()?;
        let (policy, rule) = match &tier.outcome {
            Outcome::Rule { policy, rule, .. } => (Some(policy), Some(*rule)),
            Outcome::End(_) | Outcome::Staged | Outcome::Failsafe => {
                let enforced = tier.policies.iter().find(|step| !step.staged);
                (enforced.map(|step| &step.policy), None)
            }
        };
        Some(Decided {
            direction: walk.direction,
            tier: tier.tier.clone(),
            policy: policy.cloned(),
            rule,
        })
    }
}

/// Why nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// Nobody has told of such an endpoint.
    #[error("no endpoint '{0}' is known")]
    NoEndpoint(String),
    /// The two have no addresses of one family.
    #[error("'{0}' and '{1}' have no addresses of one family")]
    NoFamily(String, String),
}

/// Why a packet from one to the other is let through or not, or would be.
///
/// # Errors
/// A party is not known, or the two have no family in common.
pub fn explain(
    engine: &Engine,
    from: &Party,
    to: &Party,
    traffic: Traffic,
) -> Result<Explanation, Unexplained> {
    let graph = &engine.graph;
    let (sources, destinations) = (addresses(graph, from)?, addresses(graph, to)?);
    let pair = sources.iter().find_map(|source| {
        let alike = destinations
            .iter()
            .find(|address| address.is_ipv4() == source.is_ipv4());
        alike.map(|destination| (*source, *destination))
    });
    let (source, destination) = pair.ok_or_else(|| Unexplained::NoFamily(from.name(), to.name()))?;
    let [source, destination] = [(from, source), (to, destination)].map(|(party, address)| {
        let at = At::new(graph, address);
        match party {
            Party::Endpoint(name) => at.of_endpoint(graph, &name.as_str().into()),
            Party::Address(_) => at,
        }
    });
    Ok(between(graph, &source, &destination, traffic))
}

/// What becomes of a packet from one to the other, of one family.
pub(crate) fn between(graph: &Graph, source: &At<'_>, destination: &At<'_>, traffic: Traffic) -> Explanation {
    let packet = Packet {
        family: Family::of(source.address.into()),
        traffic,
        source,
        destination,
    };
    let id = |at: &At<'_>| at.endpoint.as_ref().map(|(id, _)| id.clone());
    let to_itself = source.endpoint.is_some() && id(source) == id(destination);
    let is = |at: &At<'_>, host: bool| {
        let endpoint = at.endpoint.as_ref();
        endpoint.is_some_and(|(_, thing)| thing.local && thing.namespace.is_none() == host)
    };
    // Between this node and its pods there is no interface of the host's.
    let by_host = is(source, true) && is(destination, false);
    let to_host = is(source, false) && is(destination, true);
    let walk = |at: &At<'_>, direction: Direction| {
        let (id, thing) = at.endpoint.as_ref()?;
        Some(packet.walk(graph, (id, thing), direction))
    };
    let leaves = !to_itself && !by_host;
    Explanation {
        source: source.address,
        destination: destination.address,
        egress: walk(source, Direction::Egress).filter(|_| leaves),
        ingress: walk(destination, Direction::Ingress).filter(|_| leaves && !to_host),
        to_host: None,
    }
}

impl Party {
    fn name(&self) -> String {
        match self {
            Self::Endpoint(name) => name.clone(),
            Self::Address(address) => address.to_string(),
        }
    }
}

fn addresses(graph: &Graph, party: &Party) -> Result<Vec<IpAddr>, Unexplained> {
    match party {
        Party::Address(address) => Ok(vec![*address]),
        Party::Endpoint(name) => {
            let endpoint = graph.things.endpoint(&name.as_str().into());
            let (_, thing) = endpoint.ok_or_else(|| Unexplained::NoEndpoint(name.clone()))?;
            Ok(thing.nets.iter().map(|net| net.ip()).collect())
        }
    }
}

/// An address, what is known to have it, and whose policies its packets meet.
pub(crate) struct At<'a> {
    address: IpAddr,
    things: Vec<&'a Thing>,
    endpoint: Option<(Arc<str>, &'a Thing)>,
}

impl<'a> At<'a> {
    /// The endpoint at an address, if there is one.
    pub(crate) fn new(graph: &'a Graph, address: IpAddr) -> Self {
        let things = graph.things.at(address);
        let endpoint = things.iter().find_map(|(id, thing)| match id {
            Id::Endpoint(name) => Some((name.clone(), thing)),
            Id::NetworkSet(_) => None,
        });
        Self {
            address,
            endpoint,
            things: things.into_iter().map(|(_, thing)| thing).collect(),
        }
    }

    /// This endpoint, whoever else has the address.
    pub(crate) fn of_endpoint(self, graph: &'a Graph, id: &Arc<str>) -> Self {
        let endpoint = graph.things.endpoint(id);
        Self {
            endpoint: endpoint.map(|(_, thing)| (id.clone(), thing)),
            ..self
        }
    }
}

struct Packet<'a> {
    family: Family,
    traffic: Traffic,
    source: &'a At<'a>,
    destination: &'a At<'a>,
}

impl<'a> Packet<'a> {
    const fn at(&self, end: End) -> &At<'a> {
        match end {
            End::Source => self.source,
            End::Destination => self.destination,
        }
    }

    /// The policies of an end, tier by tier until one decides.
    fn walk(&self, graph: &Graph, (id, thing): (&Arc<str>, &Thing), direction: Direction) -> Walk {
        let selected = graph.selecting(id, thing);
        let mut walk = Walk {
            endpoint: id.to_string(),
            direction,
            tiers: Vec::new(),
            allowed: true,
        };
        let is_host = thing.namespace.is_none();
        if is_host && self.is_failsafe(graph, direction) {
            walk.tiers.push(TierWalk::end(FAILSAFE, Outcome::Failsafe));
            return walk;
        }
        let own = [Point::Own(direction)];
        let points = if is_host { &Point::ALL[..] } else { &own };
        for point in points.iter().filter(|point| point.acts_on_own(direction)) {
            for (tier, policies) in graph.stages(direction, &selected, |hook| point.is_of(hook)) {
                let tier = self.tier(graph, (tier, *point), &policies, thing.local);
                let verdict = tier.outcome.verdict();
                walk.tiers.push(tier);
                if let Some(allowed) = verdict {
                    walk.allowed = allowed;
                    return walk;
                }
            }
        }
        if thing.closed {
            walk.tiers
                .push(TierWalk::end(CLOSED, Outcome::End(DefaultAction::Deny)));
            walk.allowed = false;
        }
        walk
    }

    fn is_failsafe(&self, graph: &Graph, direction: Direction) -> bool {
        let Traffic { protocol, port, .. } = self.traffic;
        is_failsafe(&graph.failsafes, direction, protocol, port)
    }

    fn tier(
        &self,
        graph: &Graph,
        (tier, point): (&str, Point),
        policies: &[Arc<Origin>],
        local: bool,
    ) -> TierWalk {
        let enforced = policies.iter().any(|origin| graph.is_enforced(origin));
        let mut outcome = match enforced {
            true if point.is_early() => Outcome::End(DefaultAction::Pass),
            true => Outcome::End(graph.tier(tier).default_action),
            false => Outcome::Staged,
        };
        let mut walks = Vec::new();
        for origin in policies {
            let walk = self.policy(graph, origin, (point.direction(), local));
            let decision = walk.decision.filter(|_| !walk.staged);
            walks.push(walk);
            if let Some((rule, action)) = decision {
                outcome = Outcome::Rule {
                    policy: (**origin).clone(),
                    rule,
                    action,
                };
                break;
            }
        }
        TierWalk {
            tier: tier.to_owned(),
            policies: walks,
            outcome,
        }
    }

    fn policy(&self, graph: &Graph, origin: &Arc<Origin>, end: (Direction, bool)) -> PolicyWalk {
        let policy = graph.policies.get(origin);
        let rules = policy
            .and_then(|policy| rules_of(policy, end.0))
            .unwrap_or_default();
        let mut walk = PolicyWalk {
            policy: (**origin).clone(),
            staged: !graph.is_enforced(origin),
            decision: None,
            logged: Vec::new(),
        };
        let own_is_local = policy.is_some_and(own_is_local);
        let end = (end.0, end.1 && own_is_local);
        for (number, rule) in rules.iter().enumerate() {
            if !self.meets(graph, rule, end) {
                continue;
            }
            match rule.action {
                Action::Log => walk.logged.push(number),
                action @ (Action::Allow | Action::Deny | Action::Pass) => {
                    walk.decision = Some((number, action));
                    break;
                }
            }
        }
        walk
    }

    /// Whether a rule is for the packet; `local`: the rule's endpoint is one of this node.
    fn meets(&self, graph: &Graph, rule: &Rule, (direction, local): (Direction, bool)) -> bool {
        let own = own_end(direction);
        let protocol = match rule.protocol {
            None => true,
            Some(Not::Is(only)) => self.traffic.protocol == only,
            Some(Not::Not(other)) => self.traffic.protocol != other,
        };
        rule.family.is_none_or(|family| family == self.family)
            && protocol
            && self.meets_icmp(rule)
            && self.meets_side(graph, &rule.source, End::Source, local && own == End::Source)
            && self.meets_side(
                graph,
                &rule.destination,
                End::Destination,
                local && own == End::Destination,
            )
    }

    fn meets_icmp(&self, rule: &Rule) -> bool {
        if rule.icmp.is_none() && rule.not_icmp.is_none() {
            return true;
        }
        let (protocol, echo_request) = match self.family {
            Family::V4 => (Protocol::ICMP, 8),
            Family::V6 => (Protocol::ICMPV6, 128),
        };
        let message = self.traffic.icmp.unwrap_or(Icmp {
            kind: echo_request,
            code: Some(0),
        });
        let is =
            |icmp: Icmp| icmp.kind == message.kind && icmp.code.is_none_or(|code| message.code == Some(code));
        self.traffic.protocol == protocol && rule.icmp.is_none_or(is) && !rule.not_icmp.is_some_and(is)
    }

    fn meets_side(&self, graph: &Graph, side: &Side, end: End, own: bool) -> bool {
        let at = self.at(end);
        let is_one_of =
            |subject: &Subject| at.things.iter().any(|thing| graph.things.selects(subject, thing));
        let is_in = |nets: &[ipnetwork::IpNetwork]| nets.iter().any(|net| net.contains(at.address));
        let port = match end {
            End::Source => self.traffic.source_port,
            End::Destination => self.traffic.port,
        };
        let has_port = |ports: &[Port]| {
            ports.iter().any(|wanted| match wanted {
                Port::Numbers(PortRange { first, last }) => {
                    port.is_some_and(|port| (*first..=*last).contains(&port))
                }
                Port::Named(name) => self.has_named(graph, (side, name), (at, port), own),
            })
        };
        let speaks_of_ports = !(side.ports.is_empty() && side.not_ports.is_empty());
        side.of.as_ref().is_none_or(is_one_of)
            && !side.not_of.as_ref().is_some_and(is_one_of)
            && (side.nets.is_empty() || is_in(&side.nets))
            && !is_in(&side.not_nets)
            && (!speaks_of_ports || self.traffic.protocol.has_ports())
            && (side.ports.is_empty() || has_port(&side.ports))
            && !has_port(&side.not_ports)
            && side.service.as_ref().is_none_or(|service| {
                let behind = graph.peers.service(service).into_iter().flatten();
                let mut behind = behind.map(|to| (to.address, to.protocol, Some(to.port)));
                match end {
                    End::Source => behind.any(|(address, ..)| address == at.address),
                    End::Destination => behind.any(|to| to == (at.address, self.traffic.protocol, port)),
                }
            })
    }

    /// Whether an endpoint calls the port so; of this node's only, if the end is one of those.
    fn has_named(
        &self,
        graph: &Graph,
        (side, name): (&Side, &str),
        (at, port): (&At<'_>, Option<u16>),
        own: bool,
    ) -> bool {
        let named = |thing: &&&Thing| {
            let mut ports = thing.ports.iter();
            (!own || thing.local)
                && ports.any(|known| {
                    (&*known.name, known.protocol, Some(known.port)) == (name, self.traffic.protocol, port)
                })
        };
        let mut named = at.things.iter().filter(named);
        named.any(|thing| {
            side.of
                .as_ref()
                .is_none_or(|subject| graph.things.selects(subject, thing))
        })
    }
}
