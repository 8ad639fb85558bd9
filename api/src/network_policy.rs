//! Policies in Calico's language: who may talk to whom, tier by tier.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::condition::Status;
use crate::formats::{cidr, is_false, nullable, refused, selector};
use crate::rule::{Action, DefaultAction, Direction, Family, Icmp, Order, Port, Protocol};
#[cfg(feature = "schema")]
use crate::schema;
use crate::{Metadata, Selector};

/// The tier of policies that name none.
pub const DEFAULT_TIER: &str = "default";

/// A policy for pods of its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: PolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// A policy for pods of all namespaces, and for host endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GlobalNetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: PolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// A [`NetworkPolicy`] on trial: it decides nothing, and what it would decide is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StagedNetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: PolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// A [`GlobalNetworkPolicy`] on trial: it decides nothing, and what it would decide is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StagedGlobalNetworkPolicy {
    /// The shared part.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: PolicySpec,
    /// What is said of it; an update leaves it as it is.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Status::is_empty"
    )]
    pub status: Status,
}

/// What the user asks for. The global kinds alone may write `namespaceSelector`, `doNotTrack`, `preDNAT` and
/// `applyOnForward`, the staged kinds alone `stagedAction`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicySpec {
    /// The name of its tier. Default [`DEFAULT_TIER`].
    #[cfg_attr(feature = "schema", schemars(with = "schema::TierName"))]
    pub tier: String,
    /// Its place in the tier: lower decides first. Default: after all that have one.
    #[serde(skip_serializing_if = "Order::is_last")]
    pub order: Order,
    /// Whom it applies to, by their labels. Default `all()`.
    #[serde(skip_serializing_if = "Selector::is_all")]
    pub selector: Selector,
    /// Only pods of namespaces with such labels. Default: any, and host endpoints.
    #[serde(
        deserialize_with = "selector::stated",
        skip_serializing_if = "Option::is_none"
    )]
    pub namespace_selector: Option<Selector>,
    /// Only pods whose service account has such labels.
    #[serde(
        deserialize_with = "selector::stated",
        skip_serializing_if = "Option::is_none"
    )]
    pub service_account_selector: Option<Selector>,
    /// The directions that it speaks of. Default: those that it has rules for, or `Ingress`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Set<Direction>"))]
    pub types: Vec<Direction>,
    /// Rules for packets to whom it applies to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<PolicyRule>,
    /// Rules for packets from whom it applies to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<PolicyRule>,
    /// Acts before connection tracking, and its packets are not tracked; of host endpoints.
    #[serde(skip_serializing_if = "is_false")]
    pub do_not_track: bool,
    /// Acts before destination NAT; of host endpoints.
    #[serde(rename = "preDNAT", skip_serializing_if = "is_false")]
    pub pre_dnat: bool,
    /// Applies to what host endpoints forward, too.
    #[serde(skip_serializing_if = "is_false")]
    pub apply_on_forward: bool,
    /// What is on trial. Default `Set`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged_action: Option<StagedAction>,
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            tier: DEFAULT_TIER.to_owned(),
            order: Order::LAST,
            selector: Selector::all(),
            namespace_selector: None,
            service_account_selector: None,
            types: Vec::new(),
            ingress: Vec::new(),
            egress: Vec::new(),
            do_not_track: false,
            pre_dnat: false,
            apply_on_forward: false,
            staged_action: None,
        }
    }
}

impl PolicySpec {
    /// The directions that it speaks of: those that `types` names, else those that it has rules for, else `Ingress`.
    #[must_use]
    pub fn directions(&self) -> BTreeSet<Direction> {
        if !self.types.is_empty() {
            return self.types.iter().copied().collect();
        }
        let ingress = !self.ingress.is_empty() || self.egress.is_empty();
        let ingress = ingress.then_some(Direction::Ingress);
        let egress = (!self.egress.is_empty()).then_some(Direction::Egress);
        ingress.into_iter().chain(egress).collect()
    }
}

/// What a staged policy tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StagedAction {
    /// The policy as it is written.
    Set,
}

/// What to do with packets like these. Everything that it says of a packet has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// What to do.
    pub action: Action,
    /// Only packets of one family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<Family>,
    /// Only packets of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Only packets of other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<Protocol>,
    /// Only such messages; with `protocol` ICMP or `ICMPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// Only other messages; with `protocol` ICMP or `ICMPv6`.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<Icmp>,
    /// Who sends.
    #[serde(default, skip_serializing_if = "EntityRule::is_any")]
    pub source: EntityRule,
    /// Who gets.
    #[serde(default, skip_serializing_if = "EntityRule::is_any")]
    pub destination: EntityRule,
    /// Refused: requests are not read.
    #[serde(default, deserialize_with = "refused::http", skip_serializing)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub http: (),
    /// Notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RuleMetadata>,
}

impl PolicyRule {
    /// A rule for every packet.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EntityRule::default(),
            destination: EntityRule::default(),
            http: (),
            metadata: None,
        }
    }
}

/// Notes on a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleMetadata {
    /// For people and programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One end of a packet. Selectors speak of endpoints and network sets: in a [`NetworkPolicy`] of those of its own
/// namespace, unless `namespaceSelector` says otherwise. An end that says nothing is any address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EntityRule {
    /// Addresses in one of these networks.
    #[serde(deserialize_with = "cidr::list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Network>"))]
    pub nets: Vec<IpNetwork>,
    /// Addresses in none of these networks.
    #[serde(deserialize_with = "cidr::list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Network>"))]
    pub not_nets: Vec<IpNetwork>,
    /// Things with such labels.
    #[serde(
        deserialize_with = "selector::stated",
        skip_serializing_if = "Option::is_none"
    )]
    pub selector: Option<Selector>,
    /// No thing, of whatever namespace, with such labels.
    #[serde(
        deserialize_with = "selector::stated",
        skip_serializing_if = "Option::is_none"
    )]
    pub not_selector: Option<Selector>,
    /// Things in namespaces with such labels; `global()`: in none.
    #[serde(
        deserialize_with = "selector::stated",
        skip_serializing_if = "Option::is_none"
    )]
    pub namespace_selector: Option<Selector>,
    /// One of these ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// None of these ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ports: Vec<Port>,
    /// Pods with such service accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountMatch>,
    /// What is behind this service: the source of ingress rules, the destination of egress rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceMatch>,
}

impl EntityRule {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// Service accounts, by what both say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ServiceAccountMatch {
    /// Any of these. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Name>"))]
    pub names: Vec<String>,
    /// Those with such labels.
    #[serde(
        deserialize_with = "selector::stated",
        skip_serializing_if = "Option::is_none"
    )]
    pub selector: Option<Selector>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceMatch {
    /// Its name.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Label"))]
    pub name: String,
    /// Its namespace. Default: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Label>"))]
    pub namespace: Option<String>,
}

/// Policies that decide together, before those of the next tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The shared part; the name is a DNS-1123 label.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: TierSpec,
}

/// What the user asks for of a [`Tier`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TierSpec {
    /// Its place among the tiers: lower decides first. Default: after all that have one.
    #[serde(skip_serializing_if = "Order::is_last")]
    pub order: Order,
    /// What becomes of a packet that a policy of the tier applies to and no rule decided. Default `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
}
