//! Kubernetes' own network policies (`networking.k8s.io/v1`), as far as they matter here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnetwork::IpNetwork;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::condition::Status;
use crate::formats::{cidr, nullable};
use crate::network_policy::StagedAction;
use crate::rule::{Direction, Protocol};
#[cfg(feature = "schema")]
use crate::schema;
use crate::{Metadata, Selector};

/// A policy for pods of its namespace, in Kubernetes' language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesNetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: KubernetesPolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// A [`KubernetesNetworkPolicy`] on trial: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StagedKubernetesNetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: KubernetesPolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// What the user asks for of a [`KubernetesNetworkPolicy`] or a [`StagedKubernetesNetworkPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesPolicySpec {
    /// The pods that it applies to. Empty: all of the namespace.
    #[serde(deserialize_with = "nullable")]
    pub pod_selector: LabelSelector,
    /// The directions that it speaks of. Default: `Ingress`, and `Egress` if there are rules for it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<Direction>,
    /// What may come in.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// What may go out.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// Of a staged policy: what is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
}

impl KubernetesPolicySpec {
    /// The directions that it speaks of: those that `policyTypes` names, else `Ingress`, and `Egress` if it has rules
    /// for it.
    #[must_use]
    pub fn directions(&self) -> BTreeSet<Direction> {
        if !self.policy_types.is_empty() {
            return self.policy_types.iter().copied().collect();
        }
        let egress = (!self.egress.is_empty()).then_some(Direction::Egress);
        std::iter::once(Direction::Ingress).chain(egress).collect()
    }
}

/// What may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct IngressRule {
    /// From any of these. Empty: from anywhere.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// To any of these ports. Empty: whatever the protocol and port.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// What may go out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EgressRule {
    /// To any of these. Empty: to anywhere.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// To any of these ports. Empty: whatever the protocol and port.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// The other end: pods by one or both selectors, or addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Peer {
    /// Pods with such labels; of the policy's namespace, unless `namespaceSelector` is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Pods in namespaces with such labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses; with neither selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<CidrBlock>,
}

/// Addresses of a network, some excepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CidrBlock {
    /// The network.
    #[serde(deserialize_with = "cidr::any")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Cidr"))]
    pub cidr: IpNetwork,
    /// Parts of it that are not meant.
    #[serde(
        default,
        deserialize_with = "cidr::strict_list",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Cidr>"))]
    pub except: Vec<IpNetwork>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyPort {
    /// The protocol. Default TCP.
    #[serde(deserialize_with = "nullable")]
    pub protocol: Transport,
    /// The port. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortOrName>,
    /// The last port of a range that `port` begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Transport {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::TCP,
            Transport::Udp => Self::UDP,
            Transport::Sctp => Self::SCTP,
        }
    }
}

/// A port by its number, or by what the pod calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PortOrName {
    /// The number.
    Number(u16),
    /// The name.
    Name(String),
}

impl<'de> Deserialize<'de> for PortOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = PortOrName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 1 to 65535, or a port's name")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<PortOrName, E> {
        let number = u16::try_from(value).map(PortOrName::Number);
        number.map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PortOrName, E> {
        Ok(PortOrName::Name(text.to_owned()))
    }
}

/// Things by their labels: all of `matchLabels` and all of `matchExpressions`. Empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Labels with these values.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What holds of labels.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

impl LabelSelector {
    /// The same in our language. `NotIn` holds for things that lack the label, as [`Selector::none_of`] does.
    #[must_use]
    pub fn selector(&self) -> Selector {
        let labels = self.match_labels.iter();
        let labels = labels.map(|(label, value)| Selector::equals(label, value));
        let expressions = self.match_expressions.iter().map(LabelRequirement::selector);
        Selector::every(labels.chain(expressions))
    }
}

/// What holds of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// How it stands to `values`.
    pub operator: LabelOperator,
    /// The values; for `In` and `NotIn`, and only for these.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl LabelRequirement {
    fn selector(&self) -> Selector {
        let values = || self.values.iter().cloned();
        match self.operator {
            LabelOperator::In => Selector::one_of(&self.key, values()),
            LabelOperator::NotIn => Selector::none_of(&self.key, values()),
            LabelOperator::Exists => Selector::has(&self.key),
            LabelOperator::DoesNotExist => Selector::has(&self.key).negated(),
        }
    }
}

/// How a label stands to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LabelOperator {
    /// It has one of them.
    In,
    /// It has none of them, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}
