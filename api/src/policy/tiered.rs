//! Policies in Calico's language.

use super::{Hook, NamespacedName, Not, Policy, Rule, Scope, ServiceAccounts, Side, Subject};
use crate::Selector;
use crate::network_policy::{EntityRule, PolicyRule, PolicySpec, ServiceAccountMatch};
use crate::rule::Direction;

/// A policy of a namespace, or of none.
pub(super) fn policy(spec: &PolicySpec, namespace: Option<&str>, staged: bool) -> Policy {
    let directions = spec.directions();
    let rules = |direction, rules: &[PolicyRule]| {
        let rules = rules.iter().map(|it| rule(it, namespace));
        directions.contains(&direction).then(|| rules.collect())
    };
    let account = |labels: &Selector| ServiceAccounts {
        names: [].into(),
        labels: labels.clone(),
    };
    Policy {
        tier: spec.tier.clone(),
        order: spec.order,
        subject: Subject {
            scope: scope(spec.namespace_selector.as_ref(), namespace),
            labels: spec.selector.clone(),
            service_accounts: spec.service_account_selector.as_ref().map(account),
        },
        hook: match (spec.do_not_track, spec.pre_dnat, spec.apply_on_forward) {
            (true, _, _) => Hook::Untracked,
            (false, true, _) => Hook::PreDnat,
            (false, false, true) => Hook::Forwarded,
            (false, false, false) => Hook::Normal,
        },
        staged,
        ingress: rules(Direction::Ingress, &spec.ingress),
        egress: rules(Direction::Egress, &spec.egress),
    }
}

/// Where a policy, or a rule of it, looks: where it says, else in its own namespace, else anywhere.
fn scope(namespaces: Option<&Selector>, namespace: Option<&str>) -> Scope {
    match (namespaces, namespace) {
        (Some(namespaces), _) if namespaces.is_global() => Scope::Global,
        (Some(namespaces), _) => Scope::Namespaces(namespaces.clone()),
        (None, Some(namespace)) => Scope::Namespace(namespace.to_owned()),
        (None, None) => Scope::Anywhere,
    }
}

fn rule(rule: &PolicyRule, namespace: Option<&str>) -> Rule {
    let protocol = rule.protocol.map(Not::Is);
    let other = rule.not_protocol.map(Not::Not);
    Rule {
        action: rule.action,
        family: rule.ip_version,
        protocol: protocol.or(other),
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: side(&rule.source, namespace),
        destination: side(&rule.destination, namespace),
    }
}

/// An end that no selector speaks of is any address. As soon as one does, it is a thing: in a policy of a namespace one
/// of that namespace, also where only `notSelector` speaks, which leaves out things of all namespaces.
fn side(entity: &EntityRule, namespace: Option<&str>) -> Side {
    let service_accounts = entity.service_accounts.as_ref().and_then(service_accounts);
    let selected = entity.selector.is_some() || service_accounts.is_some();
    let scoped =
        entity.namespace_selector.is_some() || (namespace.is_some() && entity.not_selector.is_some());
    let of = (selected || scoped).then(|| Subject {
        scope: scope(entity.namespace_selector.as_ref(), namespace),
        labels: entity.selector.clone().unwrap_or_default(),
        service_accounts,
    });
    let not_of = entity.not_selector.clone().map(|labels| Subject {
        labels,
        ..Subject::default()
    });
    let own = || namespace.unwrap_or_default().to_owned();
    Side {
        of,
        not_of,
        nets: entity.nets.clone(),
        not_nets: entity.not_nets.clone(),
        ports: entity.ports.clone(),
        not_ports: entity.not_ports.clone(),
        service: entity.services.as_ref().map(|service| NamespacedName {
            namespace: service.namespace.clone().unwrap_or_else(own),
            name: service.name.clone(),
        }),
    }
}

fn service_accounts(accounts: &ServiceAccountMatch) -> Option<ServiceAccounts> {
    let said = !accounts.names.is_empty() || accounts.selector.is_some();
    said.then(|| ServiceAccounts {
        names: accounts.names.iter().cloned().collect(),
        labels: accounts.selector.clone().unwrap_or_default(),
    })
}
