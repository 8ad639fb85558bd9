//! The columns of policies and of what they speak of.

use manx_api::cluster_policy::ClusterNetworkPolicy;
use manx_api::host_endpoint::{ALL_INTERFACES, HostEndpoint};
use manx_api::kubernetes::KubernetesPolicySpec;
use manx_api::network_policy::{PolicySpec, Tier};
use manx_api::network_set::NetworkSetSpec;
use manx_api::rule::Direction;
use manx_api::{Kind, Metadata};

use crate::rows::{joined, optional};

/// Headings, and how many of them a narrow table has.
type Columns = (&'static [&'static str], usize);

pub(crate) const TIER: Columns = (&["NAME", "ORDER", "DEFAULTACTION"], 3);
pub(crate) const NAMESPACED: Columns = (
    &[
        "NAMESPACE",
        "NAME",
        "TIER",
        "ORDER",
        "SELECTOR",
        "GROUP",
        "INGRESS",
        "EGRESS",
    ],
    6,
);
pub(crate) const GLOBAL: Columns = (&["NAME", "TIER", "ORDER", "SELECTOR", "INGRESS", "EGRESS"], 4);
pub(crate) const KUBERNETES: Columns = (
    &["NAMESPACE", "NAME", "POD-SELECTOR", "GROUP", "INGRESS", "EGRESS"],
    4,
);
pub(crate) const CLUSTER: Columns = (&["NAME", "TIER", "PRIORITY", "SUBJECT", "INGRESS", "EGRESS"], 4);
pub(crate) const NETWORK_SET: Columns = (&["NAMESPACE", "NAME", "NETS"], 3);
pub(crate) const GLOBAL_NETWORK_SET: Columns = (&["NAME", "NETS"], 2);
pub(crate) const HOST_ENDPOINT: Columns = (&["NAME", "NODE", "INTERFACE", "IPS", "PROFILES"], 4);

/// `-` for a direction of which the policy says nothing, else how many rules it has.
fn rules(said: bool, count: usize) -> String {
    if said { count.to_string() } else { "-".to_owned() }
}

pub(crate) fn policy(kind: Kind, metadata: &Metadata, spec: &PolicySpec) -> Vec<String> {
    let directions = [
        (Direction::Ingress, spec.ingress.len()),
        (Direction::Egress, spec.egress.len()),
    ];
    let name = [
        metadata.name.clone(),
        spec.tier.clone(),
        spec.order.to_string(),
        spec.selector.to_string(),
    ];
    let group = kind.is_namespaced().then(|| kind.group().to_owned());
    let counts = directions.map(|(direction, count)| rules(spec.directions().contains(&direction), count));
    let namespace = metadata.namespace.clone().into_iter();
    namespace.chain(name).chain(group).chain(counts).collect()
}

pub(crate) fn kubernetes(kind: Kind, metadata: &Metadata, spec: &KubernetesPolicySpec) -> Vec<String> {
    let directions = spec.directions();
    vec![
        optional(metadata.namespace.as_ref()),
        metadata.name.clone(),
        spec.pod_selector.selector().to_string(),
        kind.group().to_owned(),
        rules(directions.contains(&Direction::Ingress), spec.ingress.len()),
        rules(directions.contains(&Direction::Egress), spec.egress.len()),
    ]
}

pub(crate) fn cluster(policy: &ClusterNetworkPolicy) -> Vec<String> {
    let spec = &policy.spec;
    let namespaces = spec.subject.namespaces.as_ref();
    let subject = match (namespaces, &spec.subject.pods) {
        (None, Some(pods)) => format!(
            "{} in {}",
            pods.pod_selector.selector(),
            pods.namespace_selector.selector()
        ),
        (namespaces, _) => {
            optional(namespaces.map(|namespaces| format!("all() in {}", namespaces.selector())))
        }
    };
    vec![
        policy.metadata.name.clone(),
        format!("{:?}", spec.tier),
        spec.priority.to_string(),
        subject,
        rules(!spec.ingress.is_empty(), spec.ingress.len()),
        rules(!spec.egress.is_empty(), spec.egress.len()),
    ]
}

pub(crate) fn tier(tier: &Tier) -> Vec<String> {
    let action = tier.spec.default_action.unwrap_or_default();
    vec![
        tier.metadata.name.clone(),
        tier.spec.order.to_string(),
        format!("{action:?}"),
    ]
}

pub(crate) fn network_set(metadata: &Metadata, spec: &NetworkSetSpec) -> Vec<String> {
    let namespace = metadata.namespace.clone().into_iter();
    namespace
        .chain([metadata.name.clone(), joined(&spec.nets)])
        .collect()
}

pub(crate) fn host_endpoint(endpoint: &HostEndpoint) -> Vec<String> {
    let spec = &endpoint.spec;
    let all = spec.interface_name.as_deref() == Some(ALL_INTERFACES);
    let interface = if all {
        Some("(all)")
    } else {
        spec.interface_name.as_deref()
    };
    vec![
        endpoint.metadata.name.clone(),
        spec.node.clone(),
        optional(interface),
        joined(&spec.expected_ips),
        joined(&spec.profiles),
    ]
}
