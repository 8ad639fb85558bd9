//! What the runtime wishes for one attachment: `runtimeConfig`, `args` and `CNI_ARGS`.
//!
//! The conventions say which of several places counts: a capability (`runtimeConfig`) before `args`, and that
//! before `CNI_ARGS`. Capabilities that other plugins of the chain serve (`portMappings`, `bandwidth`) are
//! theirs, and taken without a word; one that only an interface plugin could serve and Manx does not is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Document, invalid, nested};
use crate::{Args, Code, Error, MacAddress};

/// The annotations' capability, as containerd and CRI-O have it.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Capabilities of interface plugins that Manx has no use for.
const REFUSED: [(&str, &str); 3] = [
    ("ipRanges", "Manx assigns addresses from its IPPools"),
    ("deviceID", "Manx makes its own interfaces"),
    ("infinibandGUID", "Manx's interfaces are Ethernet"),
];

/// The wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Addresses that the pod should have, one of a family at most.
    pub(crate) requested: Vec<IpAddr>,
    /// The MAC that the pod's end should have.
    pub(crate) mac: Option<MacAddress>,
    /// The pod's annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The pod's labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// A label, as the conventions write it.
#[derive(Deserialize)]
struct Label {
    key: String,
    value: String,
}

impl Wishes {
    /// The wishes in a configuration.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], naming the field; [`Code::UnsupportedField`] for what cannot be had.
    pub(crate) fn of(document: &Document) -> Result<Self, Error> {
        let runtime = document.object("runtimeConfig")?;
        for (capability, why) in REFUSED {
            if let Some(value) = runtime.get(capability).filter(|value| !value.is_null()) {
                let message = format!(
                    "runtimeConfig.{capability} {value}: {why}; remove '{capability}' from 'capabilities'"
                );
                return Err(Error::new(Code::UnsupportedField, message));
            }
        }
        let args: Map<String, Value> =
            nested(&document.object("args")?, "cni", "args.cni")?.unwrap_or_default();
        let requested = match addresses(&runtime, "ips", "runtimeConfig.ips")? {
            Some(requested) => requested,
            None => addresses(&args, "ips", "args.cni.ips")?.unwrap_or_default(),
        };
        let labels: Vec<Label> = nested(&args, "labels", "args.cni.labels")?.unwrap_or_default();
        Ok(Self {
            requested,
            mac: nested(&runtime, "mac", "runtimeConfig.mac")?,
            annotations: nested(&runtime, ANNOTATIONS, "runtimeConfig")?.unwrap_or_default(),
            labels: labels.into_iter().map(|label| (label.key, label.value)).collect(),
        })
    }

    /// The same, completed by what `CNI_ARGS` say where the configuration is silent.
    pub(crate) fn or(mut self, args: &Args) -> Self {
        if self.requested.is_empty() {
            self.requested.extend(args.ip);
        }
        self.mac = self.mac.or(args.mac);
        self
    }
}

/// The addresses, one of a family at most. What prefix a runtime imagines around them does not matter: a pod has
/// its address alone.
fn addresses(fields: &Map<String, Value>, name: &str, path: &str) -> Result<Option<Vec<IpAddr>>, Error> {
    let Some(texts) = nested::<Vec<String>>(fields, name, path)? else {
        return Ok(None);
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        let address = address(&text).map_err(|problem| invalid(path, &problem))?;
        match addresses
            .iter()
            .find(|other| other.is_ipv4() == address.is_ipv4())
        {
            Some(twin) if *twin != address => {
                let problem = format!("{twin} and {address}: a pod has one address of a family");
                return Err(invalid(path, &problem));
            }
            Some(_) => {}
            None => addresses.push(address),
        }
    }
    Ok(Some(addresses))
}

/// `<ip>[/<prefix>]`.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    let network: IpNetwork = text
        .parse()
        .map_err(|_| format!("'{text}' is no address: write 10.244.0.5, 10.244.0.5/24 or fd00::5"))?;
    let address = network.ip().to_canonical();
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(format!("'{text}' is no address that a pod could have"));
    }
    Ok(address)
}
