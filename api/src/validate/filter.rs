//! Rules of filters.

use std::fmt;

use ipnetwork::IpNetwork;

use super::{Problem, no_host_bits};
use crate::filter::{BgpFilter, FilterAction, FilterOperation, FilterRule};
use crate::names;

/// AS numbers that one operation puts in front of a path, at most.
const MAX_PREPENDED: usize = 10;

/// The greatest priority, as in Calico.
const MAX_PRIORITY: u32 = 2_147_483_646;

/// The longest name of an interface in Linux, in octets.
const MAX_INTERFACE: usize = 15;

/// Operations of one rule, at most.
const MAX_OPERATIONS: usize = 10;

pub(super) fn bgp_filter(filter: &BgpFilter, problems: &mut Vec<Problem>) {
    let spec = &filter.spec;
    for (list, rules, v4, import) in [
        ("exportV4", &spec.export_v4, true, false),
        ("importV4", &spec.import_v4, true, true),
        ("exportV6", &spec.export_v6, false, false),
        ("importV6", &spec.import_v6, false, true),
    ] {
        for (i, it) in rules.iter().enumerate() {
            let field = format!("spec.{list}[{i}]");
            rule(&field, it, v4, problems);
            priorities(&field, it, import, problems);
        }
    }
}

/// `priority` and `setPriority`, which are this node's own: import sets them, and export finds them.
fn priorities(field: &str, rule: &FilterRule, import: bool, problems: &mut Vec<Problem>) {
    let mut check = |part: String, value: u32, wrong_way: Option<&str>| {
        let message = match wrong_way {
            Some(message) => message.to_owned(),
            None if (1..=MAX_PRIORITY).contains(&value) => return,
            None => format!("is no metric of a route: write 1 to {MAX_PRIORITY}"),
        };
        problems.push(Problem::new(format!("{field}.{part}"), value, message));
    };
    if let Some(priority) = rule.priority {
        let message = "is the priority of no route that comes in: import rules set it (setPriority), and export \
                       rules find it; match communities here";
        check("priority".to_owned(), priority, import.then_some(message));
    }
    for (i, operation) in rule.operations.iter().enumerate() {
        if let Some(set) = operation.set_priority {
            let message = "would be heard by no peer, as a priority is the node's own: write setPriority in an \
                           import rule, or setLocalPreference here";
            check(
                format!("operations[{i}].setPriority.value"),
                set.value,
                (!import).then_some(message),
            );
        }
    }
}

/// Names of filters.
pub(super) fn named(field: &str, filters: &[String], problems: &mut Vec<Problem>) {
    for (i, name) in filters.iter().enumerate() {
        names::subdomain(&format!("{field}[{i}]"), name, problems);
        if filters[..i].contains(name) {
            let message = "is named twice: its rules have decided already";
            problems.push(Problem::new(format!("{field}[{i}]"), name, message));
        }
    }
}

fn rule(field: &str, rule: &FilterRule, v4: bool, problems: &mut Vec<Problem>) {
    range(field, rule, v4, problems);
    let mut refuse = |part: &str, value: &dyn fmt::Display, message: &str| {
        problems.push(Problem::new(format!("{field}.{part}"), value, message));
    };
    if rule.as_path_prefix.contains(&0) {
        refuse("asPathPrefix", &0, "is no AS number: write 1 to 4294967295");
    }
    if rule.communities.as_ref().is_some_and(|it| it.values.is_empty()) {
        refuse(
            "communities.values",
            &"[]",
            "is empty: write a community, as in 64512:1",
        );
    }
    if let Some(interface) = rule.interface.as_ref().filter(|it| !is_interface(it)) {
        let message = format!(
            "is no interface: write up to {MAX_INTERFACE} letters, digits, '.', '_' and '-', with '*' for any of \
             them, as in eth0 or eth*"
        );
        refuse("interface", interface, &message);
    }
    if rule.action == FilterAction::Reject && !rule.operations.is_empty() {
        let message = "changes what is rejected: leave it out, or write action Accept";
        refuse("operations", &"", message);
    }
    if rule.operations.len() > MAX_OPERATIONS {
        let message = format!("are too many operations: write {MAX_OPERATIONS} at most");
        refuse("operations", &rule.operations.len(), &message);
    }
    for (i, it) in rule.operations.iter().enumerate() {
        operation(&format!("{field}.operations[{i}]"), it, problems);
    }
}

fn is_interface(pattern: &str) -> bool {
    let known = |octet: u8| octet.is_ascii_alphanumeric() || b"._-*".contains(&octet);
    (1..=MAX_INTERFACE).contains(&pattern.len()) && pattern.bytes().all(known)
}

/// `cidr`, `matchOperator` and `prefixLength`, which need each other.
fn range(field: &str, rule: &FilterRule, v4: bool, problems: &mut Vec<Problem>) {
    let mut refuse = |part: &str, value: &dyn fmt::Display, message: &str| {
        problems.push(Problem::new(format!("{field}.{part}"), value, message));
    };
    if let (None, Some(operator)) = (rule.cidr, rule.match_operator) {
        let message = "compares with nothing: write a cidr beside it, or leave it out";
        refuse("matchOperator", &format!("{operator:?}"), message);
    }
    let Some(cidr) = rule.cidr else {
        if rule.prefix_length.is_some() {
            let message = "stands without a cidr: write one, as in 0.0.0.0/0";
            refuse("prefixLength", &"", message);
        }
        return;
    };
    if rule.match_operator.is_none() {
        let message = format!("is missing beside cidr {cidr}: write Equal, NotEqual, In or NotIn");
        refuse("matchOperator", &"", &message);
    }
    let limit = if v4 { 32 } else { 128 };
    let lengths = rule.prefix_length.unwrap_or_default();
    let (min, max) = (
        lengths.min.unwrap_or_else(|| cidr.prefix()),
        lengths.max.unwrap_or(limit),
    );
    if cidr.is_ipv4() == v4 && (min > max || max > limit) {
        let message = format!("is no range of lengths: write 0 to {limit}, the smaller one as min");
        refuse("prefixLength", &format!("{min} to {max}"), &message);
    }
    network(&format!("{field}.cidr"), cidr, v4, problems);
}

fn network(field: &str, cidr: IpNetwork, v4: bool, problems: &mut Vec<Problem>) {
    if cidr.is_ipv4() == v4 {
        no_host_bits(field, cidr, problems);
    } else {
        let message = if v4 {
            "is no IPv4 network: importV6 and exportV6 hold the rules for IPv6"
        } else {
            "is no IPv6 network: importV4 and exportV4 hold the rules for IPv4"
        };
        problems.push(Problem::new(field, cidr, message));
    }
}

fn operation(field: &str, operation: &FilterOperation, problems: &mut Vec<Problem>) {
    let FilterOperation {
        add_community,
        set_communities,
        prepend_as_path,
        set_local_preference,
        set_med,
        set_priority,
    } = operation;
    let given = [
        add_community.is_some(),
        set_communities.is_some(),
        prepend_as_path.is_some(),
        set_local_preference.is_some(),
        set_med.is_some(),
        set_priority.is_some(),
    ];
    let count = given.into_iter().filter(|it| *it).count();
    if count != 1 {
        let message = "operations in one entry: write exactly one of addCommunity, setCommunities, \
                       prependASPath, setLocalPreference, setMED and setPriority, and another entry for another";
        problems.push(Problem::new(field, count, message));
    }
    if let Some(path) = prepend_as_path
        && (path.prefix.is_empty() || path.prefix.len() > MAX_PREPENDED || path.prefix.contains(&0))
    {
        let message = format!("is not to be prepended: write 1 to {MAX_PREPENDED} AS numbers from 1");
        let value = format!("{:?}", path.prefix);
        problems.push(Problem::new(
            format!("{field}.prependASPath.prefix"),
            value,
            message,
        ));
    }
}
