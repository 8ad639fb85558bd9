//! Rules of policies in Calico's language, and of tiers.

use std::fmt;

use super::{Problem, rule};
use crate::network_policy::{GlobalNetworkPolicy, NetworkPolicy, PolicySpec, StagedAction, Tier};
use crate::policy::{self, ADMIN_TIER, BASELINE_TIER};
use crate::rule::Direction;
use crate::{Kind, Resource, Selector, names};

pub(super) fn network_policy(kind: Kind, spec: &PolicySpec, problems: &mut Vec<Problem>) {
    tier_of(&spec.tier, problems);
    for (field, selector) in [
        ("spec.selector", Some(&spec.selector)),
        ("spec.namespaceSelector", spec.namespace_selector.as_ref()),
        (
            "spec.serviceAccountSelector",
            spec.service_account_selector.as_ref(),
        ),
    ] {
        if let Some(selector) = selector {
            no_global(field, selector, problems);
        }
    }
    fields_of_kind(kind, spec, problems);
    hooks(spec, problems);
    types(spec, problems);
    for (direction, rules) in [
        (Direction::Ingress, &spec.ingress),
        (Direction::Egress, &spec.egress),
    ] {
        for (i, it) in rules.iter().enumerate() {
            let field = format!("spec.{}[{i}]", list(direction));
            rule::rule(&field, it, direction, kind.is_namespaced(), problems);
        }
    }
}

/// The field that a direction's rules stand in.
fn list(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn tier_of(name: &str, problems: &mut Vec<Problem>) {
    if matches!(name, ADMIN_TIER | BASELINE_TIER) {
        let message = "holds ClusterNetworkPolicies alone: write another tier, or leave it out";
        problems.push(Problem::new("spec.tier", name, message));
    } else {
        names::label("spec.tier", name, problems);
    }
}

pub(super) fn no_global(field: &str, selector: &Selector, problems: &mut Vec<Problem>) {
    if selector.mentions_global() {
        let message = "cannot be asked here: global() is for the namespaceSelector of a rule";
        problems.push(Problem::new(field, selector, message));
    }
}

/// What some kinds have and others do not.
fn fields_of_kind(kind: Kind, spec: &PolicySpec, problems: &mut Vec<Problem>) {
    let mut refuse = |field: &str, value: &dyn fmt::Display, message: &str| {
        problems.push(Problem::new(format!("spec.{field}"), value, message));
    };
    if kind.is_namespaced() {
        if let Some(selector) = &spec.namespace_selector {
            let message =
                format!("must be left out: a {kind} applies to its own namespace; write a global one");
            refuse("namespaceSelector", selector, &message);
        }
        for (field, set) in [
            ("doNotTrack", spec.do_not_track),
            ("preDNAT", spec.pre_dnat),
            ("applyOnForward", spec.apply_on_forward),
        ] {
            if set {
                let message =
                    format!("must be left out: it is for host endpoints, and a {kind} applies to pods");
                refuse(field, &set, &message);
            }
        }
    }
    staged_action(kind, spec.staged_action, problems);
}

/// Policies that are enforced are not on trial.
pub(super) fn staged_action(kind: Kind, action: Option<StagedAction>, problems: &mut Vec<Problem>) {
    let staged = matches!(
        kind,
        Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy | Kind::StagedKubernetesNetworkPolicy
    );
    if let (Some(StagedAction::Set), false) = (action, staged) {
        let message = "must be left out: the policy is not staged";
        problems.push(Problem::new("spec.stagedAction", "Set", message));
    }
}

/// `preDNAT` and `doNotTrack` act where connections and NAT are not known yet.
fn hooks(spec: &PolicySpec, problems: &mut Vec<Problem>) {
    let mut refuse = |field: &str, message: &str| problems.push(Problem::new(field, "", message));
    if spec.pre_dnat && spec.do_not_track {
        refuse(
            "spec.preDNAT",
            "stands beside doNotTrack: choose one, or write two policies",
        );
    }
    if spec.pre_dnat && !spec.egress.is_empty() {
        refuse(
            "spec.egress",
            "stands beside preDNAT, which is for packets that come in: leave one out",
        );
    }
    if spec.pre_dnat && spec.types.contains(&Direction::Egress) {
        refuse(
            "spec.types",
            "names Egress beside preDNAT, which is for packets that come in: write [Ingress]",
        );
    }
    for (field, set) in [("preDNAT", spec.pre_dnat), ("doNotTrack", spec.do_not_track)] {
        if set && !spec.apply_on_forward {
            let message = format!(
                "is missing beside {field}, which acts before it is known what is forwarded: write applyOnForward: true"
            );
            refuse("spec.applyOnForward", &message);
        }
    }
}

fn types(spec: &PolicySpec, problems: &mut Vec<Problem>) {
    for (i, direction) in spec.types.iter().enumerate() {
        if spec.types[..i].contains(direction) {
            let message = "is named twice: once is enough";
            problems.push(Problem::new(format!("spec.types[{i}]"), direction, message));
        }
    }
    for (direction, rules) in [
        (Direction::Ingress, &spec.ingress),
        (Direction::Egress, &spec.egress),
    ] {
        if !rules.is_empty() && !spec.types.is_empty() && !spec.types.contains(&direction) {
            let message = format!("would never be asked: add {direction} to spec.types, or leave types out");
            problems.push(Problem::new(format!("spec.{}", list(direction)), "", message));
        }
    }
}

pub(super) fn tier(tier: &Tier, problems: &mut Vec<Problem>) {
    let name = &tier.metadata.name;
    names::label("metadata.name", name, problems);
    let Some((_, built_in)) = policy::built_in_tiers()
        .into_iter()
        .find(|(built_in, _)| built_in == name)
    else {
        return;
    };
    if tier.spec.order != built_in.order {
        let message = format!(
            "is no order for the tier {name}: it is always there with order {}",
            built_in.order
        );
        problems.push(Problem::new("spec.order", tier.spec.order, message));
    }
    let action = tier.spec.default_action.unwrap_or_default();
    if action != built_in.default_action {
        let message = format!(
            "is no end for the tier {name}: it always ends with {:?}",
            built_in.default_action
        );
        problems.push(Problem::new("spec.defaultAction", format!("{action:?}"), message));
    }
}

/// What keeps a tier from being deleted: policies of it, whose place and whose end would be others without it. Tiers that are always
/// there stay without their resource.
#[must_use]
pub fn validate_delete_tier<'a>(
    tier: &Tier,
    policies: impl IntoIterator<Item = &'a Resource>,
) -> Vec<Problem> {
    let name = &tier.metadata.name;
    if policy::built_in_tiers()
        .iter()
        .any(|(built_in, _)| built_in == name)
    {
        return Vec::new();
    }
    let of_tier = |policy: &&Resource| {
        let (Resource::NetworkPolicy(NetworkPolicy { spec, .. })
        | Resource::GlobalNetworkPolicy(GlobalNetworkPolicy { spec, .. })) = policy
        else {
            return false;
        };
        spec.tier == *name
    };
    let mut keys = policies.into_iter().filter(of_tier).map(Resource::key);
    let Some(first) = keys.next() else {
        return Vec::new();
    };
    let message = format!(
        "is in use: without it {first} and {} other policies would come last, and deny what they do not allow; delete \
         them first, or give them another tier",
        keys.count()
    );
    vec![Problem::new("metadata.name", name, message)]
}
