//! Interfaces of nodes, for policies to apply to.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::rule::{NamedPort, Protocol};
#[cfg(feature = "schema")]
use crate::schema;

/// The one profile that there is: what no policy decides is let through.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// A node's interface, or all of them, that global policies apply to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostEndpoint {
    /// The shared part; labels are what selectors see.
    pub metadata: Metadata,
    /// What the user asks for.
    pub spec: HostEndpointSpec,
}

/// What the user asks for of a [`HostEndpoint`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostEndpointSpec {
    /// The node.
    #[cfg_attr(feature = "schema", schemars(with = "schema::Name"))]
    pub node: String,
    /// The interface; `*`: all, those of pods aside. Default: the one that has an expected address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema::Interface>"))]
    pub interface_name: Option<String>,
    /// Its addresses: what rules mean by it, and what finds it where no interface is named.
    #[serde(default, rename = "expectedIPs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "schema::Set<std::net::IpAddr>"))]
    pub expected_ips: Vec<IpAddr>,
    /// [`DEFAULT_ALLOW`] or none: then what no policy decides is dropped, but for the failsafe ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<schema::Profile>"))]
    pub profiles: Vec<String>,
    /// What its ports are called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
}

impl HostEndpointSpec {
    /// Whether what no policy decides is dropped: no profile allows it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.profiles.is_empty()
    }
}

/// A port that no host endpoint's policy closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailsafePort {
    /// Its protocol, one that has ports.
    pub protocol: Protocol,
    /// Its number, not 0.
    pub port: u16,
}

/// The interface name that stands for all.
pub const ALL_INTERFACES: &str = "*";
