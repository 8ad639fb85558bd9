//! The chains that packets meet before and behind those of policies. What a packet meets is told, with the numbers of
//! rules, in `docs/adr/0014-chains-by-distinct-policy-lists.md`.

use std::collections::BTreeSet;

use manx_api::policy::{DefaultAction, Direction, Family, Icmp, Not, Protocol};

use crate::compile::{self, ALLOW, PASS};
use crate::input::{HostAction, Settings};
use crate::lists::{self, List, policy_chain};
use crate::logs::Cause;
use crate::nets::v6;
use crate::ruleset::{CHAIN_PREFIX, ChainId, Connection, End, Hook, Match, Rule, SetKind, Table, Target};

/// The set of this node's pods: addresses that they may have, each behind its interface. Sets gain members in the
/// order of their names and lose them in the opposite one: this comes last, so that a pod is known no sooner, and no
/// longer, than its policies are in force.
pub(crate) const PODS: &str = "workloads";

/// The set of this node's pods that are under policies: their own addresses, each behind its interface.
pub(crate) const THEMSELVES: &str = "themselves";

/// Interfaces of pods.
pub(crate) const POD_INTERFACES: &str = "mx+";

const FORWARD: &str = "manx-forward";
pub(crate) const INPUT: &str = "manx-input";
/// What host endpoints say of what passes them, by direction as [`Direction`] orders them.
pub(crate) const THROUGH: [&str; 2] = ["manx-through-in", "manx-through-out"];
const SOURCES: &str = "manx-sources";
const POD: &str = "manx-pod";
const TO_HOST: &str = "manx-to-host";

/// Neighbour discovery between a pod and its node (RFC 4861): router solicitation, neighbour solicitation and
/// advertisement.
const DISCOVERY: [u8; 3] = [133, 135, 136];

/// Link-local addresses, and the source of who has no address yet.
const NOT_ROUTED: [ipnetwork::IpNetwork; 2] = [v6(0xfe80, 10), v6(0, 128)];

pub(crate) fn filter(family: Family, name: &str) -> ChainId {
    chain(family, Table::Filter, name)
}

fn chain(family: Family, table: Table, name: &str) -> ChainId {
    ChainId {
        family,
        table,
        name: name.to_owned(),
    }
}

fn rule<const N: usize>(matches: [Match; N], target: Target) -> Rule {
    Rule {
        matches: matches.into(),
        target,
    }
}

fn goto(name: &str) -> Target {
    Target::Goto(name.to_owned())
}

fn jump(name: &str) -> Target {
    Target::Jump(name.to_owned())
}

fn by(end: End) -> Match {
    Match::Interface(end, POD_INTERFACES.to_owned())
}

/// What leads into our chains.
pub(crate) fn hooks() -> BTreeSet<Hook> {
    let hooks = [
        (Table::Raw, SOURCES, "PREROUTING"),
        (Table::Filter, FORWARD, "FORWARD"),
        (Table::Filter, INPUT, "INPUT"),
    ];
    let of = |family| {
        hooks.map(|(table, name, base)| Hook {
            chain: chain(family, table, name),
            base,
        })
    };
    Family::ALL.into_iter().flat_map(of).collect()
}

/// The chains that are there whatever the policies.
pub(crate) fn always(family: Family, settings: &Settings) -> Vec<(ChainId, Vec<Rule>)> {
    let mut host = discovery(family);
    host.extend(known());
    host.push(rule([], jump(lists::dispatch(Direction::Egress))));
    host.extend(match settings.to_host {
        HostAction::Accept => vec![rule([], Target::Accept)],
        HostAction::Drop => compile::denied(Vec::new(), (Direction::Egress, Cause::ToHost), settings),
        HostAction::Return => vec![rule([], Target::Return)],
    });
    let mut all = vec![
        (chain(family, Table::Raw, SOURCES), sources(family, settings)),
        (filter(family, TO_HOST), host),
    ];
    all.extend(verdicts(settings).map(|(name, rules)| (filter(family, name), rules)));
    all
}

/// The chains that note a verdict.
pub(crate) fn verdicts(settings: &Settings) -> [(&'static str, Vec<Rule>); 2] {
    let marks = settings.marks;
    [(ALLOW, marks.allowed), (PASS, marks.passed)].map(|(name, bit)| {
        let note = Target::SetMark {
            value: bit,
            mask: bit,
        };
        (name, vec![rule([], note)])
    })
}

/// The chains that are there always, and say otherwise where host endpoints have lists: whether they have, of what
/// passes them, by direction as [`Direction`] orders them.
pub(crate) fn changing(family: Family, through: [bool; 2]) -> Vec<(ChainId, Vec<Rule>)> {
    let [inward, outward] = [0, 1].map(|index| through[index].then(|| rule([], jump(THROUGH[index]))));
    let mut forward = vec![
        rule([by(End::Source)], goto(POD)),
        rule([by(End::Destination)], goto(POD)),
    ];
    forward.extend(inward.iter().chain(&outward).cloned());
    let mut pod = known().to_vec();
    // What was allowed before NAT is marked until then.
    pod.extend(inward);
    for (end, direction) in [
        (End::Source, Direction::Egress),
        (End::Destination, Direction::Ingress),
    ] {
        pod.push(rule([by(end)], jump(lists::dispatch(direction))));
    }
    pod.extend(outward);
    pod.push(rule([], Target::Accept));
    vec![
        (filter(family, FORWARD), forward),
        (filter(family, POD), pod),
        (filter(family, INPUT), input()),
    ]
}

/// What pods send to the node.
pub(crate) fn input() -> Vec<Rule> {
    vec![rule([by(End::Source)], goto(TO_HOST))]
}

fn known() -> [Rule; 2] {
    [
        rule([Match::Connection(Connection::Known)], Target::Accept),
        rule([Match::Connection(Connection::Invalid)], Target::Drop),
    ]
}

/// Drops what comes from a pod's interface and not from its addresses, before it is tracked.
fn sources(family: Family, settings: &Settings) -> Vec<Rule> {
    let not_routed = NOT_ROUTED.map(|net| {
        let from = Match::Address(End::Source, Not::Is(net));
        rule([by(End::Source), from], Target::Return)
    });
    let mut rules = Vec::new();
    if family == Family::V6 {
        rules.extend(not_routed);
    }
    let foreign = vec![by(End::Source), foreign(End::Source, family)];
    rules.extend(compile::denied(
        foreign,
        (Direction::Egress, Cause::Source),
        settings,
    ));
    rules
}

/// An address that is none of a pod behind its interface.
fn foreign(end: End, family: Family) -> Match {
    Match::In(end, SetKind::NetsBehind, Not::Not(family.set_name(PODS)))
}

fn discovery(family: Family) -> Vec<Rule> {
    let message = |kind| {
        let icmp = Icmp { kind, code: None };
        let matches = [
            Match::Protocol(Not::Is(Protocol::ICMPV6)),
            Match::Icmp(family, Not::Is(icmp)),
        ];
        rule(matches, Target::Accept)
    };
    match family {
        Family::V4 => Vec::new(),
        Family::V6 => DISCOVERY.map(message).into(),
    }
}

/// The chain that sends a packet to its endpoint's list, and lets those on whose endpoint has none. What a pod sends to
/// itself, by way of a service, is let on as well.
pub(crate) fn dispatch<'a>(
    direction: Direction,
    family: Family,
    lists: impl Iterator<Item = &'a String>,
    settings: &Settings,
) -> (ChainId, Vec<Rule>) {
    let end = compile::own_end(direction);
    let foreign = vec![foreign(end, family)];
    let mut rules = compile::denied(foreign, (direction, Cause::Unknown), settings);
    for (number, list) in lists.enumerate() {
        if number == 0 {
            let to_itself = Match::ToItself(family.set_name(THEMSELVES));
            rules.extend([rule([to_itself], Target::Return), clear(settings)]);
        }
        let member = Match::In(end, SetKind::NetsBehind, Not::Is(family.set_name(list)));
        rules.push(rule([member], goto(&format!("{CHAIN_PREFIX}{list}"))));
    }
    (filter(family, lists::dispatch(direction)), rules)
}

/// A list's chain.
pub(crate) fn list(family: Family, list: &List, settings: &Settings) -> (ChainId, Vec<Rule>) {
    let name = format!("{CHAIN_PREFIX}{}", list.name());
    (filter(family, &name), stages(list, settings))
}

/// The rule that clears our marks.
pub(crate) fn clear(settings: &Settings) -> Rule {
    let mask = settings.marks.both();
    rule([], Target::SetMark { value: 0, mask })
}

/// The packet was allowed.
pub(crate) const fn allowed(settings: &Settings) -> Match {
    Match::Mark {
        value: settings.marks.allowed,
        mask: settings.marks.allowed,
    }
}

/// A list's policies, as long as none has decided, and the ends of its tiers. Our marks are clear before.
pub(crate) fn stages(list: &List, settings: &Settings) -> Vec<Rule> {
    let marks = settings.marks;
    let undecided = || Match::Mark {
        value: 0,
        mask: marks.both(),
    };
    let mut rules = Vec::new();
    for (number, stage) in list.stages.iter().enumerate() {
        if number > 0 {
            let unpass = Target::SetMark {
                value: 0,
                mask: marks.passed,
            };
            rules.push(rule([], unpass));
        }
        for policy in &stage.policies {
            rules.push(rule([undecided()], jump(&policy_chain(policy, list.direction))));
        }
        match stage.end {
            DefaultAction::Deny => {
                let cause = Cause::End(&stage.tier);
                rules.extend(compile::denied(
                    vec![undecided()],
                    (list.direction, cause),
                    settings,
                ));
            }
            DefaultAction::Pass => {}
        }
    }
    rules
}
