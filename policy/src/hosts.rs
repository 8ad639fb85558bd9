//! The chains of host endpoints: interfaces of the node, and what passes them.
//!
//! ```text
//! raw PREROUTING, OUTPUT    manx-untracked-in, -out   policies with doNotTrack: allowed is not tracked, and accepted
//! mangle PREROUTING         manx-pre-dnat             policies with preDNAT: allowed is accepted where it comes in
//! filter INPUT, OUTPUT      manx-input, manx-output   what the host gets and sends: all its other policies
//! filter FORWARD            manx-through-in, -out     what passes: policies with applyOnForward
//! ```
//!
//! Each finds the endpoint by its interface, and goes to the chain of its list. What no policy decides is dropped in
//! `filter` by the end of a tier, as it is for pods; before that it is left to what comes later. Interfaces of pods
//! and the loopback are never meant.

use std::collections::{BTreeMap, BTreeSet};

use manx_api::policy::{Direction, Family, Hook as PolicyHook, Not, Port, PortRange, Protocol};

use crate::chains::{self, allowed, clear, stages};
use crate::compile;
use crate::input::{Failsafe, Failsafes, HostInterface, Settings};
use crate::lists::List;
use crate::ruleset::{CHAIN_PREFIX, ChainId, Connection, End, Hook, Match, Rule, Table, Target};

/// Where a host endpoint's policies act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    Untracked(Direction),
    PreDnat,
    Own(Direction),
    Through(Direction),
}

impl Point {
    /// In the order in which a packet meets them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Untracked(Direction::Ingress),
        Self::Untracked(Direction::Egress),
        Self::PreDnat,
        Self::Own(Direction::Ingress),
        Self::Own(Direction::Egress),
        Self::Through(Direction::Ingress),
        Self::Through(Direction::Egress),
    ];

    pub(crate) const fn direction(self) -> Direction {
        match self {
            Self::PreDnat => Direction::Ingress,
            Self::Untracked(direction) | Self::Own(direction) | Self::Through(direction) => direction,
        }
    }

    /// Whether it is on the way of what an endpoint itself gets or sends.
    pub(crate) fn acts_on_own(self, direction: Direction) -> bool {
        self.direction() == direction && !matches!(self, Self::Through(_))
    }

    /// Whether policies with such a hook act here.
    pub(crate) const fn is_of(self, hook: PolicyHook) -> bool {
        matches!(
            (self, hook),
            (Self::Untracked(_), PolicyHook::Untracked)
                | (Self::PreDnat, PolicyHook::PreDnat)
                | (Self::Own(_), PolicyHook::Normal | PolicyHook::Forwarded)
                | (Self::Through(_), PolicyHook::Forwarded)
        )
    }

    /// Whether what a tier does not decide is left to what comes later, whatever the tier's end.
    pub(crate) const fn is_early(self) -> bool {
        matches!(self, Self::Untracked(_) | Self::PreDnat)
    }

    const fn table(self) -> Table {
        match self {
            Self::Untracked(_) => Table::Raw,
            Self::PreDnat => Table::Mangle,
            Self::Own(_) | Self::Through(_) => Table::Filter,
        }
    }

    /// The chain that finds the endpoint, and what leads into it, unless one of ours does.
    const fn dispatch(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Untracked(Direction::Ingress) => ("manx-untracked-in", Some("PREROUTING")),
            Self::Untracked(Direction::Egress) => ("manx-untracked-out", Some("OUTPUT")),
            Self::PreDnat => ("manx-pre-dnat", Some("PREROUTING")),
            Self::Own(Direction::Ingress) => (chains::INPUT, None),
            Self::Own(Direction::Egress) => ("manx-output", Some("OUTPUT")),
            Self::Through(Direction::Ingress) => (chains::THROUGH[0], None),
            Self::Through(Direction::Egress) => (chains::THROUGH[1], None),
        }
    }

    const fn letters(self) -> &'static str {
        match self {
            Self::Untracked(Direction::Ingress) => "hui",
            Self::Untracked(Direction::Egress) => "huo",
            Self::PreDnat => "hp",
            Self::Own(Direction::Ingress) => "hi",
            Self::Own(Direction::Egress) => "ho",
            Self::Through(Direction::Ingress) => "hfi",
            Self::Through(Direction::Egress) => "hfo",
        }
    }
}

/// The table that the chains of a policy with this hook are in.
pub(crate) const fn table_of(hook: PolicyHook) -> Table {
    match hook {
        PolicyHook::Normal | PolicyHook::Forwarded => Table::Filter,
        PolicyHook::PreDnat => Table::Mangle,
        PolicyHook::Untracked => Table::Raw,
    }
}

/// The lists of host endpoints, by point and interface; an endpoint without a list at a point is there with none.
pub(crate) type HostLists = BTreeMap<Point, BTreeMap<HostInterface, Option<List>>>;

/// Host endpoints' chains in a family, and what leads into them.
pub(crate) fn chains(
    family: Family,
    lists: &HostLists,
    (settings, failsafes): (&Settings, &Failsafes),
) -> (BTreeMap<ChainId, Vec<Rule>>, BTreeSet<Hook>) {
    let (mut all, mut hooks) = (BTreeMap::new(), BTreeSet::new());
    let in_table = |table, name: &str| ChainId {
        family,
        table,
        name: name.to_owned(),
    };
    for (point, by_interface) in lists {
        let table = point.table();
        let (name, base) = point.dispatch();
        let dispatch = in_table(table, name);
        let mut rules = match base {
            None if *point == Point::Own(Direction::Ingress) => chains::input(),
            Some(_) | None => Vec::new(),
        };
        if *point == Point::PreDnat {
            // The mark says then what was allowed here, and nothing else does.
            rules.push(clear(settings));
        }
        rules.extend(dispatch_rules(*point, by_interface));
        all.insert(dispatch.clone(), rules);
        hooks.extend(base.map(|base| Hook {
            chain: dispatch,
            base,
        }));
        for list in by_interface.values().flatten() {
            all.insert(
                in_table(table, &chain_name(*point, list)),
                list_rules(
                    *point,
                    list,
                    lists.contains_key(&Point::PreDnat),
                    (settings, failsafes),
                ),
            );
        }
        // Those of the filter table are there always.
        if table != Table::Filter {
            let verdicts = chains::verdicts(settings).into_iter();
            all.extend(verdicts.map(|(name, rules)| (in_table(table, name), rules)));
        }
    }
    (all, hooks)
}

fn chain_name(point: Point, list: &List) -> String {
    let name = list.name();
    let hash = name.rsplit('-').next().unwrap_or_default();
    format!("{CHAIN_PREFIX}{}-{hash}", point.letters())
}

/// Goes to the list of the interface; the one of all interfaces comes last.
fn dispatch_rules(point: Point, lists: &BTreeMap<HostInterface, Option<List>>) -> Vec<Rule> {
    let end = match point.direction() {
        Direction::Ingress => End::Source,
        Direction::Egress => End::Destination,
    };
    let rule = |interface: Option<&str>, target| Rule {
        matches: interface
            .map(|name| Match::Interface(end, name.to_owned()))
            .into_iter()
            .collect(),
        target,
    };
    // What comes in from pods goes elsewhere before.
    let pods = (point != Point::Own(Direction::Ingress)).then_some(chains::POD_INTERFACES);
    let never = pods.into_iter().chain(["lo"]);
    let mut rules: Vec<Rule> = never.map(|name| rule(Some(name), Target::Return)).collect();
    for (interface, list) in lists {
        let target = match list {
            Some(list) => Target::Goto(chain_name(point, list)),
            None => Target::Return,
        };
        rules.push(match interface {
            HostInterface::Named(name) => rule(Some(name), target),
            HostInterface::All => rule(None, target),
        });
    }
    rules
}

/// The chain of a list; `marked`: what was allowed before destination NAT is marked.
fn list_rules(
    point: Point,
    list: &List,
    marked: bool,
    (settings, failsafes): (&Settings, &Failsafes),
) -> Vec<Rule> {
    let on = |state, target| Rule {
        matches: vec![Match::Connection(state)],
        target,
    };
    let mut rules = match point {
        Point::Own(_) if list.decides() => vec![
            on(Connection::Known, Target::Accept),
            on(Connection::Invalid, Target::Drop),
            on(Connection::Untracked, Target::Accept),
        ],
        Point::Through(Direction::Ingress) | Point::PreDnat => [Connection::Known, Connection::Untracked]
            .map(|state| on(state, Target::Return))
            .into(),
        // On trial, all is left to what comes later.
        Point::Own(_) | Point::Through(Direction::Egress) => vec![on(Connection::Known, Target::Return)],
        Point::Untracked(_) => Vec::new(),
    };
    let saved = if list.decides() {
        Target::Accept
    } else {
        Target::Return
    };
    rules.extend(failsafe_rules(point, failsafes, &saved));
    let when_allowed = |target| Rule {
        matches: vec![allowed(settings)],
        target,
    };
    match point {
        Point::Own(Direction::Ingress) if marked => rules.push(when_allowed(saved)),
        Point::Through(Direction::Ingress) if marked => rules.push(when_allowed(Target::Return)),
        Point::Own(_) | Point::Through(_) | Point::PreDnat | Point::Untracked(_) => {}
    }
    rules.push(clear(settings));
    rules.extend(stages(list, settings));
    match point {
        Point::Untracked(_) => rules.extend([Target::NoTrack, Target::Accept].map(when_allowed)),
        Point::Own(_) if list.decides() => rules.push(when_allowed(Target::Accept)),
        Point::Own(_) | Point::PreDnat | Point::Through(_) => {}
    }
    rules
}

/// Lets through what a node is lost without: at its own points, `saved` says how. Untracked, answers need rules of
/// their own.
fn failsafe_rules(point: Point, Failsafes { inbound, outbound }: &Failsafes, saved: &Target) -> Vec<Rule> {
    let (asked, answered) = match point.direction() {
        Direction::Ingress => (inbound, outbound),
        Direction::Egress => (outbound, inbound),
    };
    match point {
        Point::Own(_) => ports(End::Destination, asked, saved),
        Point::PreDnat => ports(End::Destination, asked, &Target::Return),
        Point::Untracked(_) => {
            let mut rules = ports(End::Destination, asked, &Target::Return);
            rules.extend(ports(End::Source, answered, &Target::Return));
            rules
        }
        Point::Through(_) => Vec::new(),
    }
}

fn ports(end: End, failsafes: &BTreeSet<Failsafe>, target: &Target) -> Vec<Rule> {
    let mut by_protocol: BTreeMap<Protocol, Vec<Port>> = BTreeMap::new();
    for Failsafe { protocol, port } in failsafes {
        let range = PortRange {
            first: *port,
            last: *port,
        };
        by_protocol
            .entry(*protocol)
            .or_default()
            .push(Port::Numbers(range));
    }
    let of_protocol = |(protocol, ports): (Protocol, Vec<Port>)| {
        compile::blocks(&ports).into_iter().map(move |block| Rule {
            matches: vec![
                Match::Protocol(Not::Is(protocol)),
                Match::Ports(end, Not::Is(block)),
            ],
            target: target.clone(),
        })
    };
    by_protocol.into_iter().flat_map(of_protocol).collect()
}

/// Whether a packet that an endpoint gets or sends is one of the failsafes.
pub(crate) fn is_failsafe(
    failsafes: &Failsafes,
    direction: Direction,
    protocol: Protocol,
    port: Option<u16>,
) -> bool {
    let open = match direction {
        Direction::Ingress => &failsafes.inbound,
        Direction::Egress => &failsafes.outbound,
    };
    port.is_some_and(|port| open.contains(&Failsafe { protocol, port }))
}
