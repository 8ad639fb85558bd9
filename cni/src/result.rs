//! What ADD answers, in every version of the specification (section 5, "Success").

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::SpecVersion;

/// What ADD made. Serialized, it is what the agent tells the plugin; the runtime gets [`Self::render`].
/// Deserializing takes any version's result (`prevResult`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// The interfaces, the host's and the container's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// The routes in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name service settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address: `aa:bb:cc:dd:ee:ff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes; rendered from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in; none for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// The default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into [`Success::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNetwork,
    /// Through which router; none for what is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Name service settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The servers' addresses, in order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The domains that short names are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// The resolver's options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Success {
    /// Both results as one: what a chain has made so far, and what was made now.
    #[must_use]
    pub fn with(mut self, later: Self) -> Self {
        let offset = self.interfaces.len();
        self.interfaces.extend(later.interfaces);
        self.ips.extend(later.ips.into_iter().map(|ip| IpConfig {
            interface: ip.interface.map(|index| index + offset),
            ..ip
        }));
        self.routes.extend(later.routes);
        self.dns = later.dns.or(self.dns);
        self
    }

    /// The result as the given version has it.
    #[must_use]
    pub fn render(&self, version: SpecVersion) -> Value {
        let interfaces: Vec<_> = self
            .interfaces
            .iter()
            .map(|interface| interface.at(version))
            .collect();
        let mut result = json!({
            "cniVersion": version,
            "interfaces": interfaces,
            "ips": self.ips,
            "routes": self.routes,
            "dns": self.dns.clone().unwrap_or_default(),
        });
        if version < SpecVersion::V1_0_0
            && let Some(ips) = result["ips"].as_array_mut()
        {
            for (rendered, ip) in ips.iter_mut().zip(&self.ips) {
                rendered["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
            }
        }
        result
    }
}

impl Interface {
    /// The interface with the fields that the version knows.
    fn at(&self, version: SpecVersion) -> Self {
        let mtu = self.mtu.filter(|_| version >= SpecVersion::V1_1_0);
        Self { mtu, ..self.clone() }
    }
}
