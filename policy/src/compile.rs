//! A policy's rules in the kernel's words.
//!
//! One rule of a policy becomes as many of the kernel's as it has alternatives: blocks of fifteen ports, named ports,
//! and protocols where none is named. Everything else that may be several things is one set.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use manx_api::policy::{
    Action, Direction, Family, Hook, Not, Origin, Policy, Port, PortRange, Protocol, Rule as PolicyRule, Side,
};

use crate::input::Settings;
use crate::lists::DIRECTIONS;
use crate::logs::{Cause, DENIED, LOGGED};
use crate::nets::{canonical, contains};
use crate::ruleset::{End, Match, Rule, Sense, SetKind, Target};
use crate::sets::Definition;

/// The chain that notes that a packet may go on.
pub(crate) const ALLOW: &str = "manx-allow";
/// The chain that notes that the next tier decides.
pub(crate) const PASS: &str = "manx-pass";

/// Ports that the kernel's multiport match takes, ranges counted twice.
const MULTIPORT: usize = 15;

/// A policy's rules for a direction.
pub(crate) fn rules_of(policy: &Policy, direction: Direction) -> Option<&[PolicyRule]> {
    match direction {
        Direction::Egress => policy.egress.as_deref(),
        Direction::Ingress => policy.ingress.as_deref(),
    }
}

/// The sets that a policy's rules name.
pub(crate) fn definitions(policy: &Policy) -> BTreeSet<Definition> {
    let mut compiler = Compiler::of(policy);
    for direction in DIRECTIONS {
        for family in Family::ALL {
            for rule in rules_of(policy, direction).into_iter().flatten() {
                drop(compiler.alternatives(rule, direction, family));
            }
        }
    }
    compiler.definitions
}

/// What a rule of a policy on trial would do, by its number; none: no rule is for the packet.
type Trialled = Option<(usize, Action)>;

/// What the kernel's rules in the chain of a policy on trial are for: a rule of the policy, by its number, and what it
/// would do; the last one counts what no rule is for.
pub(crate) fn counted(policy: &Policy, end: (Direction, Family)) -> Vec<Trialled> {
    trial(policy, end).into_iter().map(|(_, rule)| rule).collect()
}

/// The same, with the conditions. What is only logged is decided further down.
fn trial(policy: &Policy, (direction, family): (Direction, Family)) -> Vec<(Vec<Match>, Trialled)> {
    let mut compiler = Compiler::of(policy);
    let mut rules = Vec::new();
    let all = rules_of(policy, direction).into_iter().flatten().enumerate();
    for (number, rule) in all.filter(|(_, rule)| rule.action != Action::Log) {
        let alternatives = compiler.alternatives(rule, direction, family).into_iter();
        rules.extend(alternatives.map(|matches| (matches, Some((number, rule.action)))));
    }
    rules.push((Vec::new(), None));
    rules
}

/// The rules of a policy's chain. On trial, they decide nothing: the kernel counts the packets that meet them.
pub(crate) fn chain(
    origin: &Origin,
    policy: &Policy,
    (direction, family): (Direction, Family),
    settings: &Settings,
) -> Vec<Rule> {
    if policy.staged {
        let count = |(matches, _)| Rule {
            matches,
            target: Target::Return,
        };
        return trial(policy, (direction, family))
            .into_iter()
            .map(count)
            .collect();
    }
    let mut compiler = Compiler::of(policy);
    let mut rules = Vec::new();
    for (number, rule) in rules_of(policy, direction).into_iter().flatten().enumerate() {
        for matches in compiler.alternatives(rule, direction, family) {
            let cause = Cause::Rule(number, origin);
            rules.extend(verdict(rule.action, matches, (direction, cause), settings));
        }
    }
    rules
}

/// The rules that carry an action out.
fn verdict(
    action: Action,
    matches: Vec<Match>,
    (direction, cause): (Direction, Cause<'_>),
    settings: &Settings,
) -> Vec<Rule> {
    let target = match action {
        Action::Allow => Target::Goto(ALLOW.to_owned()),
        Action::Pass => Target::Goto(PASS.to_owned()),
        Action::Deny => return denied(matches, (direction, cause), settings),
        Action::Log => Target::Log {
            group: settings.log_group,
            prefix: cause.prefix(LOGGED, direction),
        },
    };
    vec![Rule { matches, target }]
}

/// The rules that drop a packet, and tell of it where that is asked for.
pub(crate) fn denied(
    matches: Vec<Match>,
    (direction, cause): (Direction, Cause<'_>),
    settings: &Settings,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(per_second) = settings.log_denied {
        let mut matches = matches.clone();
        matches.push(Match::Limit { per_second });
        let target = Target::Log {
            group: settings.log_group,
            prefix: cause.prefix(DENIED, direction),
        };
        rules.push(Rule { matches, target });
    }
    rules.push(Rule {
        matches,
        target: Target::Drop,
    });
    rules
}

struct Compiler {
    definitions: BTreeSet<Definition>,
    /// Whether the policy's own end of a packet is always an endpoint of this node.
    own_is_local: bool,
}

impl Compiler {
    fn of(policy: &Policy) -> Self {
        Self {
            definitions: BTreeSet::new(),
            own_is_local: own_is_local(policy),
        }
    }

    /// The conditions of a rule: a packet meets them if it meets all of one of these.
    fn alternatives(&mut self, rule: &PolicyRule, direction: Direction, family: Family) -> Vec<Vec<Match>> {
        if rule.family.is_some_and(|only| only != family) {
            return Vec::new();
        }
        let mut conditions = Vec::new();
        let mut ports = Vec::new();
        for (end, side) in [(End::Source, &rule.source), (End::Destination, &rule.destination)] {
            let Some(nets) = self.nets(end, side, family) else {
                return Vec::new();
            };
            conditions.extend(nets);
            conditions.extend(self.sets(end, side, family));
            let own = self.own_is_local && end == own_end(direction);
            ports.push(self.ports(end, side, own, family));
        }
        let icmp = rule
            .icmp
            .map(Not::Is)
            .into_iter()
            .chain(rule.not_icmp.map(Not::Not));
        let icmp = icmp.map(|icmp| Match::Icmp(family, icmp));
        let tail: Vec<Match> = icmp.chain(conditions).collect();
        let mut alternatives = Vec::new();
        for protocol in protocols(rule, family) {
            for source in &ports[0] {
                for destination in &ports[1] {
                    let protocol = protocol.map(Match::Protocol).into_iter();
                    let all = protocol.chain(tail.clone()).chain(source.clone());
                    alternatives.push(all.chain(destination.clone()).collect());
                }
            }
        }
        alternatives
    }

    fn set(&mut self, definition: Definition, family: Family) -> String {
        let name = definition.set_name(family);
        self.definitions.insert(definition);
        name
    }

    /// Conditions of an end's addresses; none if no address of the family meets them.
    fn nets(&mut self, end: End, side: &Side, family: Family) -> Option<Option<Match>> {
        let of_family = |nets: &[IpNetwork]| -> BTreeSet<IpNetwork> {
            let nets = nets.iter().filter(|net| Family::of(**net) == family);
            nets.map(|net| canonical(*net)).collect()
        };
        let (nets, except) = (of_family(&side.nets), of_family(&side.not_nets));
        if side.nets.is_empty() {
            if except.iter().any(|net| net.prefix() == 0) {
                return None;
            }
            return Some(self.one_of(end, Not::Not(except), BTreeSet::new(), family));
        }
        let excluded = |net: &IpNetwork| except.iter().any(|out| out == net || contains(*out, *net));
        let kept: BTreeSet<IpNetwork> = nets.into_iter().filter(|net| !excluded(net)).collect();
        let inside = |out: &&IpNetwork| kept.iter().any(|net| contains(*net, **out));
        let except: BTreeSet<IpNetwork> = except.iter().filter(inside).copied().collect();
        if kept.is_empty() {
            return None;
        }
        if except.is_empty() && kept.iter().any(|net| net.prefix() == 0) {
            return Some(None);
        }
        Some(self.one_of(end, Not::Is(kept), except, family))
    }

    /// The condition that an address is in one of these, but for the exceptions, or in none of them; none where there
    /// are none.
    fn one_of(
        &mut self,
        end: End,
        nets: Not<BTreeSet<IpNetwork>>,
        except: BTreeSet<IpNetwork>,
        family: Family,
    ) -> Option<Match> {
        let (Not::Is(all) | Not::Not(all)) = &nets;
        let first = *all.first()?;
        if all.len() == 1 && except.is_empty() {
            return Some(Match::Address(end, like(&nets, first)));
        }
        let except = except.into_iter().map(|net| (net, Sense::Except));
        let members = all.iter().map(|net| (*net, Sense::Match)).chain(except);
        let set = self.set(Definition::Nets(members.collect()), family);
        Some(Match::In(end, SetKind::Nets, like(&nets, set)))
    }

    /// Conditions of what an end is, and of the ports that it has not.
    fn sets(&mut self, end: End, side: &Side, family: Family) -> Vec<Match> {
        let mut matches = Vec::new();
        if let Some(subject) = &side.of {
            let set = self.set(Definition::Subject(subject.clone()), family);
            matches.push(Match::In(end, SetKind::Nets, Not::Is(set)));
        }
        if let Some(subject) = &side.not_of {
            let set = self.set(Definition::Subject(subject.clone()), family);
            matches.push(Match::In(end, SetKind::Nets, Not::Not(set)));
        }
        if let Some(service) = &side.service {
            let definition = match end {
                End::Source => Definition::ServiceAddresses(service.clone()),
                End::Destination => Definition::Service(service.clone()),
            };
            let kind = definition.kind();
            let set = self.set(definition, family);
            matches.push(Match::In(end, kind, Not::Is(set)));
        }
        matches
    }

    /// Alternatives of an end's port.
    fn ports(&mut self, end: End, side: &Side, own: bool, family: Family) -> Vec<Vec<Match>> {
        let mut named = |name: &str| {
            let definition = Definition::NamedPort {
                subject: side.of.clone().unwrap_or_default(),
                name: name.to_owned(),
                local: own,
            };
            self.set(definition, family)
        };
        let mut none = Vec::new();
        for name in names(&side.not_ports) {
            none.push(Match::In(end, SetKind::Ports, Not::Not(named(name))));
        }
        for block in blocks(&side.not_ports) {
            none.push(Match::Ports(end, Not::Not(block)));
        }
        if side.ports.is_empty() {
            return vec![none];
        }
        let numbers = blocks(&side.ports).into_iter();
        let numbers = numbers.map(|block| Match::Ports(end, Not::Is(block)));
        let names = names(&side.ports).map(|name| Match::In(end, SetKind::Ports, Not::Is(named(name))));
        let one = |port: Match| none.iter().cloned().chain([port]).collect();
        numbers.chain(names).map(one).collect()
    }
}

/// Whether the end of a packet that is the policy's own is always an endpoint of this node: not so of what passes host
/// endpoints.
pub(crate) const fn own_is_local(policy: &Policy) -> bool {
    matches!(policy.hook, Hook::Normal)
}

/// The end of a packet that is the policy's own.
pub(crate) const fn own_end(direction: Direction) -> End {
    match direction {
        Direction::Egress => End::Source,
        Direction::Ingress => End::Destination,
    }
}

/// A condition of the same sign.
fn like<T, U>(condition: &Not<T>, value: U) -> Not<U> {
    match condition {
        Not::Is(_) => Not::Is(value),
        Not::Not(_) => Not::Not(value),
    }
}

/// The protocols of a rule, each as a condition of its own; none: any.
fn protocols(rule: &PolicyRule, family: Family) -> Vec<Option<Not<Protocol>>> {
    let is_meant = |protocol: &Protocol| match rule.protocol {
        None => true,
        Some(Not::Is(only)) => *protocol == only,
        Some(Not::Not(other)) => *protocol != other,
    };
    let has_ports = |side: &Side| !(side.ports.is_empty() && side.not_ports.is_empty());
    let named = |protocols: &[Protocol]| {
        let meant = protocols.iter().copied().filter(is_meant);
        meant.map(|protocol| Some(Not::Is(protocol))).collect()
    };
    let speaks_of_ports = has_ports(&rule.source) || has_ports(&rule.destination);
    if rule.icmp.is_none() && rule.not_icmp.is_none() {
        return match speaks_of_ports {
            true => named(&Protocol::WITH_PORTS),
            false => vec![rule.protocol],
        };
    }
    match family {
        _ if speaks_of_ports => Vec::new(),
        Family::V4 => named(&[Protocol::ICMP]),
        Family::V6 => named(&[Protocol::ICMPV6]),
    }
}

fn names(ports: &[Port]) -> impl Iterator<Item = &str> {
    ports.iter().filter_map(|port| match port {
        Port::Named(name) => Some(name.as_str()),
        Port::Numbers(_) => None,
    })
}

/// Port numbers in blocks that the kernel takes, neighbours as one.
pub(crate) fn blocks(ports: &[Port]) -> Vec<Vec<PortRange>> {
    let mut ranges: Vec<PortRange> = ports
        .iter()
        .filter_map(|port| match port {
            Port::Numbers(range) => Some(*range),
            Port::Named(_) => None,
        })
        .collect();
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    let mut blocks: Vec<Vec<PortRange>> = Vec::new();
    let mut room = 0;
    for range in merged {
        let size = if range.first == range.last { 1 } else { 2 };
        if size > room {
            blocks.push(Vec::new());
            room = MULTIPORT;
        }
        room -= size;
        if let Some(block) = blocks.last_mut() {
            block.push(range);
        }
    }
    blocks
}
