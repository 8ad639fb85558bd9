//! Addresses with labels, for rules to speak of.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::formats::cidr;
#[cfg(feature = "schema")]
use crate::schema;

/// Addresses that rules select as they select the pods of the set's namespace: by the set's labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkSet {
    /// The shared part; labels are what selectors see.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: NetworkSetSpec,
}

/// A [`NetworkSet`] of no namespace, as host endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GlobalNetworkSet {
    /// The shared part; labels are what selectors see.
    pub metadata: Metadata,
    /// What the user asks for.
    #[serde(default)]
    pub spec: NetworkSetSpec,
}

/// What the user asks for of a [`NetworkSet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSetSpec {
    /// The addresses, of both families; no host bits set.
    #[serde(deserialize_with = "cidr::list", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Network>"))]
    pub nets: Vec<IpNetwork>,
}
