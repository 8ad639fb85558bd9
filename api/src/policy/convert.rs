//! From resources to the one form.

use std::collections::BTreeMap;

use super::{
    Action, DEFAULT_TIER, DefaultAction, Endpoint, NAMESPACE_LABEL, NetworkSet, ORCHESTRATOR_LABEL, Origin,
    Policy, Rule, SERVICE_ACCOUNT_LABEL, Tier, cluster, kubernetes, tiered,
};
use crate::host_endpoint::HostEndpoint;
use crate::workload::WorkloadEndpoint;
use crate::{Key, Metadata, Resource, network_policy, network_set};

/// What pods' [`ORCHESTRATOR_LABEL`] says.
pub(super) const ORCHESTRATOR: &str = "k8s";

impl From<Key> for Origin {
    fn from(
        Key {
            kind,
            namespace,
            name,
        }: Key,
    ) -> Self {
        Self {
            name,
            namespace,
            kind,
        }
    }
}

impl Policy {
    /// What stands for a policy that cannot be carried out, so that it opens nothing: where all it could do is add to
    /// what is let through, it adds nothing; else it denies what no policy before it lets through.
    #[must_use]
    pub fn closed(mut self) -> Self {
        // Only the end of this tier is known to deny.
        let adds = |rule: &Rule| matches!(rule.action, Action::Allow | Action::Log);
        let ends_closed = self.tier == DEFAULT_TIER;
        for rules in [&mut self.ingress, &mut self.egress].into_iter().flatten() {
            let only_adds = ends_closed && rules.iter().all(adds);
            *rules = if only_adds {
                Vec::new()
            } else {
                vec![Rule::of(Action::Deny)]
            };
        }
        self
    }

    /// The policy that a resource is; none if it is no policy. It has to be valid, or else [`Self::closed`].
    #[must_use]
    pub fn of(resource: &Resource) -> Option<Self> {
        let namespace = resource.metadata().namespace.as_deref().unwrap_or_default();
        Some(match resource {
            Resource::NetworkPolicy(policy) => tiered::policy(&policy.spec, Some(namespace), false),
            Resource::GlobalNetworkPolicy(policy) => tiered::policy(&policy.spec, None, false),
            Resource::StagedNetworkPolicy(policy) => tiered::policy(&policy.spec, Some(namespace), true),
            Resource::StagedGlobalNetworkPolicy(policy) => tiered::policy(&policy.spec, None, true),
            Resource::KubernetesNetworkPolicy(policy) => kubernetes::policy(&policy.spec, namespace),
            Resource::StagedKubernetesNetworkPolicy(policy) => Self {
                staged: true,
                ..kubernetes::policy(&policy.spec, namespace)
            },
            Resource::ClusterNetworkPolicy(policy) => cluster::policy(&policy.spec),
            Resource::IpPool(_)
            | Resource::IpReservation(_)
            | Resource::IpamConfiguration(_)
            | Resource::Namespace(_)
            | Resource::IpBlock(_)
            | Resource::Node(_)
            | Resource::BgpConfiguration(_)
            | Resource::BgpPeer(_)
            | Resource::BgpFilter(_)
            | Resource::WorkloadEndpoint(_)
            | Resource::Tier(_)
            | Resource::NetworkSet(_)
            | Resource::GlobalNetworkSet(_)
            | Resource::HostEndpoint(_)
            | Resource::Service(_)
            | Resource::EndpointSlice(_)
            | Resource::ServiceAccount(_) => return None,
        })
    }
}

impl From<&network_policy::TierSpec> for Tier {
    fn from(spec: &network_policy::TierSpec) -> Self {
        Self {
            order: spec.order,
            default_action: spec.default_action.unwrap_or(DefaultAction::Deny),
        }
    }
}

impl From<&network_set::NetworkSet> for NetworkSet {
    /// The set has its namespace as a label, as pods have.
    fn from(network_set::NetworkSet { metadata, spec }: &network_set::NetworkSet) -> Self {
        let mut labels = metadata.labels.clone();
        if let Some(namespace) = &metadata.namespace {
            labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
        }
        Self {
            namespace: metadata.namespace.clone(),
            labels,
            nets: spec.nets.clone(),
        }
    }
}

impl From<&network_set::GlobalNetworkSet> for NetworkSet {
    fn from(network_set::GlobalNetworkSet { metadata, spec }: &network_set::GlobalNetworkSet) -> Self {
        Self {
            namespace: None,
            labels: metadata.labels.clone(),
            nets: spec.nets.clone(),
        }
    }
}

impl From<&WorkloadEndpoint> for Endpoint {
    /// The pod's labels, and [`super::GIVEN_LABELS`], which no pod gives itself.
    fn from(WorkloadEndpoint { metadata, spec }: &WorkloadEndpoint) -> Self {
        let mut labels = metadata.labels.clone();
        let namespace = metadata.namespace.as_ref();
        let orchestrator = ORCHESTRATOR.to_owned();
        let account = spec.service_account.as_ref();
        for (label, value) in [
            (NAMESPACE_LABEL, namespace),
            (ORCHESTRATOR_LABEL, Some(&orchestrator)),
            (SERVICE_ACCOUNT_LABEL, account),
        ] {
            match value {
                Some(value) => labels.insert(label.to_owned(), value.clone()),
                None => labels.remove(label),
            };
        }
        Self {
            namespace: metadata.namespace.clone(),
            labels,
            service_account: spec.service_account.clone(),
            ports: spec.ports.clone(),
            addresses: spec.addresses.clone(),
            closed: false,
        }
    }
}

impl From<&HostEndpoint> for Endpoint {
    fn from(HostEndpoint { metadata, spec }: &HostEndpoint) -> Self {
        Self {
            namespace: None,
            labels: metadata.labels.clone(),
            service_account: None,
            ports: spec.ports.clone(),
            addresses: spec.expected_ips.clone(),
            closed: spec.is_closed(),
        }
    }
}

/// What selectors see of a namespace: its labels, and its name under the labels by which Kubernetes and Calico know it.
/// A namespace that pods are in and nobody has described has its name alone.
#[must_use]
pub fn namespace_labels(name: &str, described: Option<&Metadata>) -> BTreeMap<String, String> {
    let mut labels = described
        .map(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    for label in ["kubernetes.io/metadata.name", "projectcalico.org/name"] {
        labels.insert(label.to_owned(), name.to_owned());
    }
    labels
}
